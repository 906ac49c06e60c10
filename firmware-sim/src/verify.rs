//! Rows of a result table against the truth: equal, different, missing or extra.
//!
//! Rows come one by one and in any order; each takes its window out of the oracle, and what is left at the end is
//! missing. Only the first differences are kept for showing.

use catchment_common::plan::{Aggregate, Query};

use crate::oracle::Expected;
use crate::oracle::nearest::{is_nearest, is_nearest_root};
use crate::oracle::window::{Answer, Contents};

/// A row of a result table, as far as the truth knows it.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// `window_start`.
    pub start: String,
    /// `window_end`.
    pub end: String,
    /// The key's tags, in the key's order.
    pub tags: Vec<String>,
    /// `readings`.
    pub readings: Cell,
    /// The value columns: fields outermost, in the plan's order.
    pub values: Vec<Cell>,
}

/// What stands in a column.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// NULL.
    Null,
    /// An INTEGER.
    Integer(i64),
    /// A REAL.
    Real(f64),
    /// Anything else, as text.
    Other(String),
}

/// How a table compares with the truth.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Comparison {
    /// Rows in the table.
    pub rows: u64,
    /// Rows of which every column is right.
    pub equal: u64,
    /// Rows of a window that exists, with a wrong column.
    pub different: u64,
    /// Windows without a row.
    pub missing: u64,
    /// Rows without a window, or a second row for one.
    pub extra: u64,
    /// The first differences, described.
    pub differences: Vec<String>,
}

/// Differences described.
const DIFFERENCES_MAX: usize = 10;

/// A comparison under way.
#[derive(Debug)]
pub struct Verifier {
    expected: Expected,
    comparison: Comparison,
}

impl Verifier {
    /// Compares the table of this query.
    pub fn new(expected: Expected) -> Self {
        Self {
            expected,
            comparison: Comparison::default(),
        }
    }

    /// Takes in a row.
    pub fn handle_row(&mut self, row: &Row) {
        self.comparison.rows += 1;
        let number = window_number(&self.expected.query, row);
        let contents = number.and_then(|number| self.expected.take(&row.tags.join("\0"), number));
        let name = || {
            format!(
                "{} {} [{}]",
                self.expected.query.name,
                row.start,
                row.tags.join(", ")
            )
        };
        let Some(contents) = contents else {
            self.comparison.extra += 1;
            let readings = &row.readings;
            let text = format!(
                "extra: {}: the table has {} readings, the truth has none",
                name(),
                readings.show()
            );
            self.comparison.describe(text);
            return;
        };
        let faults = faults(&self.expected.query, row, &contents);
        if faults.is_empty() {
            self.comparison.equal += 1;
        } else {
            self.comparison.different += 1;
            let text = format!("different: {}: {}", name(), faults.join("; "));
            self.comparison.describe(text);
        }
    }

    /// Ends the comparison: windows that no row has claimed are missing.
    pub fn finish(mut self) -> Comparison {
        let mut missing: Vec<(i64, &str, &Contents)> = Vec::new();
        for (key, number, contents) in self.expected.remaining() {
            self.comparison.missing += 1;
            if missing.len() < DIFFERENCES_MAX {
                missing.push((number, key, contents));
            }
        }
        missing.sort_unstable_by_key(|(number, key, _)| (*number, *key));
        let every = self.expected.query.window.every.as_micros();
        for (number, key, contents) in missing {
            let (name, start) = (
                &self.expected.query.name,
                format_time(number.saturating_mul(every)),
            );
            let tags = key.replace('\0', ", ");
            let readings = contents.readings;
            self.comparison.describe(format!(
                "missing: {name} {start} [{tags}]: the truth has {readings} readings"
            ));
        }
        self.comparison
    }
}

impl Comparison {
    /// Whether the table is right.
    pub fn is_equal(&self) -> bool {
        self.equal == self.rows && self.missing == 0
    }

    /// Adds another table's comparison.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.equal += other.equal;
        self.different += other.different;
        self.missing += other.missing;
        self.extra += other.extra;
        other
            .differences
            .iter()
            .for_each(|text| self.describe(text.clone()));
    }

    fn describe(&mut self, text: String) {
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(text);
        }
    }
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            rows,
            equal,
            different,
            missing,
            extra,
            ..
        } = self;
        write!(
            f,
            "{rows} rows, {equal} equal, {different} different, {missing} missing, {extra} extra"
        )
    }
}

impl Cell {
    /// For people. Rust shows the shortest text that reads back as the same double.
    fn show(&self) -> String {
        match self {
            Self::Null => "NULL".into(),
            Self::Integer(integer) => integer.to_string(),
            Self::Real(real) => format!("{real:?}"),
            Self::Other(text) => format!("`{text}`"),
        }
    }

    fn is(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Null, Answer::None) => true,
            (Self::Integer(integer), Answer::Count(count)) => u64::try_from(*integer) == Ok(*count),
            (Self::Real(real), Answer::Fraction(top, bottom)) => is_nearest(*real, top, bottom),
            (Self::Real(real), Answer::Root(top, bottom)) => is_nearest_root(*real, top, bottom),
            _ => false,
        }
    }
}

/// The number of the row's window, if its start and end are those of a window, in the exact form of the contract.
fn window_number(query: &Query, row: &Row) -> Option<i64> {
    let micros = |text: &str| {
        let time: jiff::Timestamp = text.parse().ok()?;
        let micros = time.as_microsecond();
        (format_time(micros) == text).then_some(micros)
    };
    let (start, end) = (micros(&row.start)?, micros(&row.end)?);
    let (size, every) = (query.window.size.as_micros(), query.window.every.as_micros());
    (end - start == size && start % every == 0).then_some(start / every)
}

/// RFC 3339 in UTC with three fractional digits.
pub fn format_time(micros: i64) -> String {
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{micros} µs"),
    }
}

fn faults(query: &Query, row: &Row, contents: &Contents) -> Vec<String> {
    let mut faults = Vec::new();
    let readings = Answer::Count(contents.readings);
    if !row.readings.is(&readings) {
        faults.push(format!(
            "readings is {}, truth {}",
            row.readings.show(),
            readings.show()
        ));
    }
    let columns = query.value_columns().zip(&row.values).enumerate();
    for (index, (column, cell)) in columns {
        let each = query.aggregates.len();
        let aggregate: Aggregate = query.aggregates[index % each];
        let answer = contents.answer(index / each, aggregate, query.window.size);
        if !cell.is(&answer) {
            faults.push(format!("{column} is {}, truth {}", cell.show(), answer.show()));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Oracle;
    use crate::oracle::tests::{good, plan, query};

    fn verifier(payloads: &[&str]) -> Verifier {
        let mut query = query(60, 60);
        query.aggregates = vec![Aggregate::Count, Aggregate::Mean, Aggregate::Stddev];
        let mut oracle = Oracle::new(&plan(vec![query]));
        for payload in payloads {
            oracle.handle(&good(payload));
        }
        Verifier::new(oracle.into_queries().remove(0))
    }

    fn row(readings: i64, mean: f64) -> Row {
        Row {
            start: "1970-01-01T00:01:00.000Z".into(),
            end: "1970-01-01T00:02:00.000Z".into(),
            tags: vec!["oslo".into(), "dev-1".into()],
            readings: Cell::Integer(readings),
            values: vec![
                Cell::Integer(3),
                Cell::Real(mean),
                Cell::Real(0.1),
                Cell::Integer(0),
                Cell::Null,
                Cell::Null,
            ],
        }
    }

    const PAYLOADS: [&str; 3] = [
        r#"{"ts":60000,"temp":0.1}"#,
        r#"{"ts":60001,"temp":0.2}"#,
        r#"{"ts":60002,"temp":0.3}"#,
    ];

    fn check(rows: &[Row], expected: &str) -> Vec<String> {
        let mut verifier = verifier(&PAYLOADS);
        for row in rows {
            verifier.handle_row(row);
        }
        let comparison = verifier.finish();
        assert_eq!(comparison.to_string(), expected);
        assert_eq!(
            comparison.is_equal(),
            expected == "1 rows, 1 equal, 0 different, 0 missing, 0 extra"
        );
        comparison.differences
    }

    #[test]
    fn right_rows_are_equal() {
        check(&[row(3, 0.2)], "1 rows, 1 equal, 0 different, 0 missing, 0 extra");
    }

    #[test]
    fn one_last_place_is_a_difference() {
        let wrong = row(3, 0.2_f64.next_up());
        let differences = check(&[wrong], "1 rows, 0 equal, 1 different, 0 missing, 0 extra");
        let expected = "different: room_climate 1970-01-01T00:01:00.000Z [oslo, dev-1]: \
                        temp_mean is 0.20000000000000004, truth 0.20000000000000000000";
        assert_eq!(differences, [expected]);
        check(&[row(2, 0.2)], "1 rows, 0 equal, 1 different, 0 missing, 0 extra");
        let wrong_type = Row {
            readings: Cell::Other("3".into()),
            ..row(3, 0.2)
        };
        check(&[wrong_type], "1 rows, 0 equal, 1 different, 0 missing, 0 extra");
    }

    #[test]
    fn missing_and_extra_rows_are_found() {
        let differences = check(&[], "0 rows, 0 equal, 0 different, 1 missing, 0 extra");
        let expected =
            "missing: room_climate 1970-01-01T00:01:00.000Z [oslo, dev-1]: the truth has 3 readings";
        assert_eq!(differences, [expected]);
        check(
            &[row(3, 0.2), row(3, 0.2)],
            "2 rows, 1 equal, 0 different, 0 missing, 1 extra",
        );
        for (start, end) in [
            ("1970-01-01T00:01:00Z", "1970-01-01T00:02:00.000Z"),
            ("1970-01-01T00:01:00.000Z", "1970-01-01T00:02:00.001Z"),
            ("1970-01-01T00:01:01.000Z", "1970-01-01T00:02:01.000Z"),
            ("x", "y"),
        ] {
            let odd = Row {
                start: start.into(),
                end: end.into(),
                ..row(3, 0.2)
            };
            check(
                &[row(3, 0.2), odd],
                "2 rows, 1 equal, 0 different, 0 missing, 1 extra",
            );
        }
    }

    #[test]
    fn totals_add_up_and_show_the_first_differences_only() {
        let mut total = Comparison::default();
        let one = Comparison {
            rows: 2,
            equal: 1,
            extra: 1,
            differences: vec!["x".into()],
            ..Comparison::default()
        };
        (0..20).for_each(|_| total.add(&one));
        assert_eq!(
            total.to_string(),
            "40 rows, 20 equal, 0 different, 0 missing, 20 extra"
        );
        assert_eq!(total.differences.len(), DIFFERENCES_MAX);
        assert!(!total.is_equal());
    }
}
