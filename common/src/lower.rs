//! From the merged state of a window to the value of a column.
//!
//! Everything before this is integers that do not depend on the order in which they came together, and everything here
//! is a function of them: equal states give equal rows, bit for bit.

use alloc::string::String;
use core::fmt::Write as _;

use crate::plan::{Aggregate, Column, Quantile, Query, Shown};
use crate::sketch::{Buckets, Counters, Course, REGISTERS, Registers, Shape, Sketch};
use crate::stats::{Lowered, Stats, from_units};
use crate::time::Span;

/// What was merged over a window.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'m> {
    /// One for each field of the query.
    pub stats: &'m [Stats],
    /// One for each sketch of [`Query::pipeline`]. Series may be left empty here.
    pub sketches: &'m [Sketch],
    /// For each of the sketches that is a series the course through it; none if it has no points or not all of them.
    pub courses: &'m [Option<Course>],
}

/// The answer to a column of `query`, over a window of this size. `None` when there is no value to answer from.
pub fn lower(query: &Query, column: &Column, merged: Merged<'_>, window: Span) -> Option<Lowered> {
    let Merged {
        stats,
        sketches,
        courses,
    } = merged;
    let aggregate = query.aggregates.get(column.aggregate)?;
    let sketch = column.sketch.and_then(|place| sketches.get(place));
    let of_field = column
        .field
        .and_then(|field| Some((query.fields.get(field)?, stats.get(field)?)));
    match (aggregate, sketch, of_field) {
        (Aggregate::Distinct(_), Some(Sketch::Distinct(registers)), _) => {
            Some(distinct(registers, column.shown))
        }
        (Aggregate::Top { k, .. }, Some(Sketch::Top(counters)), _) => match column.shown {
            Shown::Answer => Some(Lowered::Text(top(counters, usize::from(*k)))),
            Shown::Error => Some(Lowered::Integer(counters.others())),
        },
        // Panes of an earlier plan may have values and no sketch of them: no answer is better than one about some.
        (_, Some(Sketch::Buckets(buckets)), Some((_, stats))) if buckets.count() != stats.count => None,
        (Aggregate::Histogram(bounds), Some(Sketch::Buckets(buckets)), Some(_)) => {
            Some(Lowered::Text(histogram(buckets, bounds.len())))
        }
        (_, Some(Sketch::Buckets(buckets)), Some((field, stats))) => {
            let quantile = aggregate.quantile()?;
            Some(Lowered::Real(from_units(quantile_of(
                buckets,
                stats,
                quantile,
                field.resolution,
            )?)))
        }
        (_, Some(Sketch::Series(_)), _) => {
            let course = courses.get(column.sketch?)?.as_ref()?;
            of_course(aggregate, course).map(Lowered::Real)
        }
        // Readings of one instant: a window with `count` may have no others.
        (Aggregate::Rate, ..) if window <= Span::ZERO => None,
        (_, None, Some((_, stats))) => stats.lower(aggregate, window),
        _ => None,
    }
}

/// The value in units that answers a quantile. First and last rank are the extrema themselves; what is between them is
/// the middle of its bucket and never beyond them.
fn quantile_of(
    buckets: &Buckets,
    stats: &Stats,
    quantile: Quantile,
    resolution: Option<i128>,
) -> Option<i128> {
    if stats.count == 0 || stats.min > stats.max {
        return None;
    }
    let rank = quantile.rank(stats.count);
    if rank == 1 {
        return Some(stats.min);
    }
    if rank == stats.count {
        return Some(stats.max);
    }
    let shape = if resolution.is_some() {
        Shape::Linear
    } else {
        Shape::Log
    };
    let value = buckets.value(shape, buckets.bucket_at(rank)?, resolution.unwrap_or(1));
    Some(value.clamp(stats.min, stats.max))
}

/// The answer that a course gives.
fn of_course(aggregate: &Aggregate, course: &Course) -> Option<f64> {
    match aggregate {
        Aggregate::Increase => Some(course.increase()),
        Aggregate::Rate => course.rate(),
        Aggregate::TimeWeightedMean => Some(course.time_weighted_mean()),
        _ => None,
    }
}

/// The counts of all intervals as a JSON array.
fn histogram(buckets: &Buckets, bounds: usize) -> String {
    let mut text = String::from("[");
    let mut entries = buckets.entries.iter().peekable();
    for interval in 0..=bounds as i64 {
        let count = entries
            .next_if(|entry| entry.0 == interval)
            .map_or(0, |entry| entry.1);
        let comma = if interval > 0 { "," } else { "" };
        let _ = write!(text, "{comma}{count}");
    }
    text.push(']');
    text
}

/// The estimate, rounded; or its standard error, 1.04 / √registers of it.
fn distinct(registers: &Registers, shown: Shown) -> Lowered {
    const STANDARD_ERROR: f64 = 0.022_980_970_388_562_794;
    const _: () = assert!(REGISTERS == 2_048);
    let estimate = registers.estimate();
    match shown {
        // Not negative and far below 2⁶⁴, so adding a half and cutting off rounds to nearest.
        Shown::Answer => Lowered::Integer((estimate + 0.5) as u64),
        Shown::Error => Lowered::Real(estimate * STANDARD_ERROR),
    }
}

/// The most frequent values as a JSON array of objects.
fn top(counters: &Counters, k: usize) -> String {
    let mut text = String::from("[");
    for (index, counter) in counters.top(k).into_iter().enumerate() {
        text.push_str(if index > 0 {
            ",{\"value\":\""
        } else {
            "{\"value\":\""
        });
        // Tags are UTF-8; bytes from a broken peer are shown as far as they can be.
        for character in String::from_utf8_lossy(&counter.value).chars() {
            escape(&mut text, character);
        }
        let _ = write!(text, "\",\"count\":{}}}", counter.count);
    }
    text.push(']');
    text
}

/// Appends a character of a JSON string.
fn escape(text: &mut String, character: char) {
    match character {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\x08' => text.push_str("\\b"),
        '\x0c' => text.push_str("\\f"),
        '\0'..'\x20' => {
            let _ = write!(text, "\\u{:04x}", character as u32);
        }
        _ => text.push(character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::hash;

    #[test]
    fn histograms_show_every_interval() {
        let shape = Shape::Intervals(4);
        let mut buckets = Buckets::EMPTY;
        for interval in [1, 3, 3] {
            buckets.lift(shape, (0, interval));
        }
        assert_eq!(histogram(&buckets, 3), "[0,1,0,2]");
        assert_eq!(histogram(&Buckets::EMPTY, 1), "[0,0]");
    }

    #[test]
    fn top_lists_are_json_by_count_and_then_by_value() {
        let mut counters = Counters::EMPTY;
        assert_eq!(top(&counters, 3), "[]");
        for value in ["b", "a\"\n", "c", "c", "b\\", "é"] {
            counters.lift(value.as_bytes());
        }
        assert_eq!(
            top(&counters, 3),
            r#"[{"value":"c","count":2},{"value":"a\"\n","count":1},{"value":"b","count":1}]"#
        );
    }

    #[test]
    fn a_few_distinct_values_are_counted_right() {
        let mut registers = Registers::EMPTY;
        assert_eq!(distinct(&registers, Shown::Answer), Lowered::Integer(0));
        assert_eq!(distinct(&registers, Shown::Error), Lowered::Real(0.0));
        for number in 0..50_u8 {
            registers.lift(hash(&[number]));
            registers.lift(hash(&[number]));
        }
        assert_eq!(distinct(&registers, Shown::Answer), Lowered::Integer(50));
        let error = 1.04 / (REGISTERS as f64).sqrt();
        assert_eq!(
            distinct(&registers, Shown::Error),
            Lowered::Real(registers.estimate() * error)
        );
    }
}
