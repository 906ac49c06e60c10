//! Rows of a result table against the truth: equal, different, missing or extra.
//!
//! Rows come one by one, coarse ones first and otherwise in any order; each takes its window out of the oracle, and
//! what is left at the end is missing, unless a `region` says where it is. Only the first differences are kept for
//! showing.

mod count;

mod region;

mod row;

use catchment_common::plan::{self, Query};
use catchment_common::time::Span;

use crate::oracle::answer::Answer;
use crate::oracle::window::Contents;
use crate::oracle::{Expected, Window};

pub use region::Losses;
use region::Regions;
pub use row::{Cell, Row, format_time};

/// How a table compares with the truth.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Comparison {
    /// Readings of count windows that are not full yet, and of which the table has no row.
    pub open: u64,
    /// Rows of windows in the table.
    pub rows: u64,
    /// Of these, rows of which every column is right.
    pub equal: u64,
    /// Of these, rows that lack readings, which are in coarse rows or lost.
    pub partial: u64,
    /// Rows of a window that exists, with a wrong column; and whatever else does not add up.
    pub different: u64,
    /// Windows without a row, and without a coarse row or a loss to explain it.
    pub missing: u64,
    /// Rows without a window, or a second row for one.
    pub extra: u64,
    /// Rows of sessions that have become part of earlier ones.
    pub merged: u64,
    /// Coarse rows.
    pub coarse: u64,
    /// The readings in them.
    pub coarse_readings: u64,
    /// Readings that agents say they lost.
    pub lost: u64,
    /// Records of losses that could not say what was lost.
    pub unknown_losses: u64,
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
    losses: Losses,
    regions: Regions,
    /// Coarse rows, until the first window's row.
    coarse: Vec<(Row, i64)>,
    counted: count::Table,
}

impl Verifier {
    /// Compares the table of this query, of which agents say they lost so much.
    pub fn new(expected: Expected, losses: Losses) -> Self {
        Self {
            comparison: Comparison {
                lost: losses.readings,
                unknown_losses: losses.unknown,
                ..Comparison::default()
            },
            regions: Regions::new(&expected.query, &losses),
            losses,
            expected,
            coarse: Vec::new(),
            counted: count::Table::default(),
        }
    }

    /// Takes in a row. Coarse rows must come before all others, and merged ones before those of windows.
    pub fn handle_row(&mut self, row: &Row) {
        if self.expected.query.window.count().is_some() {
            self.counted.add(row, &mut self.comparison);
        } else if row.is_coarse {
            self.handle_coarse(row);
        } else if row.is_merged {
            self.handle_merged(row);
        } else {
            self.settle_coarse();
            self.handle_window(row);
        }
    }

    fn handle_coarse(&mut self, row: &Row) {
        self.comparison.coarse += 1;
        self.comparison.coarse_readings += row.readings.count().unwrap_or(0);
        let query = &self.expected.query;
        let mut faults = Vec::new();
        match (micros(&row.start), micros(&row.end)) {
            (Some(start), Some(end)) if start < end => {
                let most = self.expected.readings(&row.tags.join("\0"), start, end);
                faults = self.regions.add_coarse(query, row, (start, end), most);
                self.coarse.push((row.clone(), start));
            }
            _ => faults.push("its span cannot be read".into()),
        }
        if !faults.is_empty() {
            self.comparison.different += 1;
            let text = format!("different: {}, coarse: {}", name(query, row), faults.join("; "));
            self.comparison.describe(text);
        }
    }

    /// A merged row has nothing in it, and the session that it is part of began before it. Where readings were lost
    /// that session may have been torn again.
    fn handle_merged(&mut self, row: &Row) {
        self.comparison.merged += 1;
        let is_empty = row.readings.count() == Some(0) && row.values.iter().all(|cell| *cell == Cell::Null);
        let key = row.tags.join("\0");
        let is_within = micros(&row.start).is_some_and(|start| self.expected.is_within(&key, start));
        if !is_empty || !(is_within || self.losses.readings > 0 || self.losses.unknown > 0) {
            self.comparison.different += 1;
            let what = if is_empty {
                "the truth has no session around its start"
            } else {
                "it is not empty"
            };
            let text = format!("different: {}, merged: {what}", name(&self.expected.query, row));
            self.comparison.describe(text);
        }
    }

    fn settle_coarse(&mut self) {
        for (row, start) in std::mem::take(&mut self.coarse) {
            self.regions.settle_coarse(&self.expected.query, &row, start);
        }
    }

    fn handle_window(&mut self, row: &Row) {
        self.comparison.rows += 1;
        let span = micros(&row.start).zip(micros(&row.end));
        let key = row.tags.join("\0");
        let contents = span.and_then(|span| Some((span, self.expected.take(&key, span.0, span.1)?)));
        let query = &self.expected.query;
        let Some(((start, end), contents)) = contents else {
            let is_session = matches!(query.window, plan::Window::Session { .. });
            let torn = span.filter(|&(start, end)| is_session && self.regions.covers(&key, start, end));
            if let Some(span) = torn {
                // Readings that are lost, or in a coarse row, tear a session or shorten it: totals must tell.
                self.comparison.partial += 1;
                self.regions.add_window(query, row, span);
                return;
            }
            self.comparison.extra += 1;
            let readings = &row.readings;
            let text = format!(
                "extra: {}: the table has {} readings, the truth has none",
                name(query, row),
                readings.show()
            );
            self.comparison.describe(text);
            return;
        };
        let mut faults = faults(query, row, &contents, end - start);
        let is_covered = self.regions.covers(&key, start, end);
        if is_covered {
            self.regions.add_window(query, row, (start, end));
            self.regions.add_truth(&key, (start, end), &contents);
        }
        if faults.is_empty() {
            self.comparison.equal += 1;
            return;
        }
        if is_covered && row.readings.count() != Some(contents.readings) {
            faults = region::excesses(query, row, &contents);
            if faults.is_empty() {
                self.comparison.partial += 1;
                return;
            }
        }
        self.comparison.different += 1;
        let text = format!("different: {}: {}", name(query, row), faults.join("; "));
        self.comparison.describe(text);
    }

    /// Ends the comparison: windows that no row has claimed and no region explains are missing.
    pub fn finish(mut self) -> Comparison {
        if self.expected.query.window.count().is_some() {
            self.counted
                .finish(&self.expected, &self.losses, &mut self.comparison);
            return self.comparison;
        }
        self.settle_coarse();
        let query = &self.expected.query;
        let mut missing: Vec<Window<'_>> = Vec::new();
        for window in self.expected.remaining() {
            let span = (window.start_us, window.end_us);
            if self.regions.covers(window.key, span.0, span.1) {
                self.regions.add_truth(window.key, span, window.contents);
                continue;
            }
            self.comparison.missing += 1;
            if missing.len() < DIFFERENCES_MAX {
                missing.push(window);
            }
        }
        missing.sort_unstable_by_key(|window| (window.start_us, window.key));
        for window in missing {
            let (name, start) = (&query.name, format_time(window.start_us));
            let tags = window.key.replace('\0', ", ");
            let readings = window.contents.readings;
            self.comparison.describe(format!(
                "missing: {name} {start} [{tags}]: the truth has {readings} readings"
            ));
        }
        for (key, fault) in self.regions.finish(query, &self.losses) {
            self.comparison.different += 1;
            let tags = key.replace('\0', ", ");
            self.comparison
                .describe(format!("different: {} [{tags}]: {fault}", query.name));
        }
        self.comparison
    }
}

fn name(query: &Query, row: &Row) -> String {
    format!("{} {} [{}]", query.name, row.start, row.tags.join(", "))
}

impl Comparison {
    /// Whether the table is right.
    pub fn is_equal(&self) -> bool {
        self.equal + self.partial == self.rows && self.different == 0 && self.missing == 0
    }

    /// Adds another table's comparison.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.open += other.open;
        self.equal += other.equal;
        self.partial += other.partial;
        self.different += other.different;
        self.missing += other.missing;
        self.extra += other.extra;
        self.merged += other.merged;
        self.coarse += other.coarse;
        self.coarse_readings += other.coarse_readings;
        self.lost += other.lost;
        self.unknown_losses += other.unknown_losses;
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
        )?;
        if self.coarse > 0 || self.partial > 0 || self.lost > 0 {
            let Self {
                partial,
                coarse,
                coarse_readings,
                lost,
                ..
            } = self;
            write!(
                f,
                ", {partial} partial, {coarse} coarse covering {coarse_readings} readings, {lost} lost"
            )?;
        }
        if self.open > 0 {
            write!(f, ", {} readings in open windows", self.open)?;
        }
        if self.merged > 0 {
            write!(f, ", {} merged", self.merged)?;
        }
        if self.unknown_losses > 0 {
            write!(f, ", {} losses of unknown size", self.unknown_losses)?;
        }
        Ok(())
    }
}

/// The inverse of [`format_time`]; no other form is taken.
fn micros(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    let micros = time.as_microsecond();
    (format_time(micros) == text).then_some(micros)
}

fn faults(query: &Query, row: &Row, contents: &Contents, size_us: i64) -> Vec<String> {
    let mut faults = Vec::new();
    let readings = Answer::Count(contents.readings);
    if !row.readings.is(&readings) {
        faults.push(format!(
            "readings is {}, truth {}",
            row.readings.show(),
            readings.show()
        ));
    }
    for (column, cell) in query.columns().iter().zip(&row.values) {
        let answer = contents.column(query, column, Span::from_micros(size_us));
        if !cell.is(&answer) {
            let (name, truth) = (&column.name, answer.show());
            faults.push(format!("{name} is {}, truth {truth}", cell.show()));
        }
    }
    faults
}

#[cfg(test)]
mod tests;
