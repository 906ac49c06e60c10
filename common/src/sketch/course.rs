//! Courses: walks through the points of a field, in the order of their times, for answers that depend on what came after
//! what.

use alloc::vec::Vec;

use super::counter::Counted;
use super::{Series, SeriesPoint};
use crate::number::decimal::{ONE, Value};
use crate::number::ratio::{self, Exact};
use crate::plan::CounterRules;
use crate::stats::{Sum, from_units};
use crate::time::{TIMESTAMP_MAX_US, TIMESTAMP_MIN_US};

/// What a walk through points in their order has seen.
///
/// **Nothing here can overflow.** A value's magnitude is below 2¹²⁰ units and the times of all points lie within 2⁵⁴
/// µs, so the area, which is at most the largest magnitude times the time between the ends, is below 2¹⁷⁴. A step's
/// magnitude is below 2¹²² (one over the end of a counter's range), and 2⁶⁴ points cannot come together, so the increase
/// is below 2¹⁸⁶. Both fit 192 bits with their sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Course {
    first: SeriesPoint,
    last: SeriesPoint,
    /// What a counter has gone up.
    counted: Counted,
    /// Each value times the microseconds until the next point.
    area: Sum,
}

const TIME_BITS: u32 = 54;
const VALUE_BITS: u32 = 120;
const COUNT_BITS: u32 = 64;
const _: () = assert!(TIMESTAMP_MAX_US - TIMESTAMP_MIN_US < 1 << TIME_BITS);
const _: () = assert!(Value::LIMIT < 1 << VALUE_BITS);
const _: () = assert!(VALUE_BITS + TIME_BITS < 192 - 1);
const _: () = assert!(VALUE_BITS + 2 + COUNT_BITS < 192 - 1);

impl Course {
    /// The course through all points of these series, as a counter with these rules; none if there is no point, or a
    /// series is too long.
    pub fn through(mut parts: Vec<&Series>, rules: CounterRules) -> Option<Self> {
        if parts.iter().any(|part| part.is_too_long()) {
            return None;
        }
        parts.retain(|part| !part.points().is_empty());
        parts.sort_unstable_by(|a, b| a.points().first().cmp(&b.points().first()));
        let apart = parts.is_sorted_by(|a, b| a.points().last() < b.points().first());
        if apart {
            return Self::along(parts.iter().flat_map(|part| part.points().iter().copied()), rules);
        }
        // A coarser pane beside those that it covers.
        let mut points: Vec<SeriesPoint> = parts.iter().flat_map(|part| part.points()).copied().collect();
        points.sort_unstable();
        points.dedup();
        Self::along(points.into_iter(), rules)
    }

    fn along(mut points: impl Iterator<Item = SeriesPoint>, rules: CounterRules) -> Option<Self> {
        let first = points.next()?;
        let mut course = Self {
            first,
            last: first,
            counted: Counted::from(rules, first.value),
            area: Sum::ZERO,
        };
        points.for_each(|point| course.step(point));
        Some(course)
    }

    fn step(&mut self, next: SeriesPoint) {
        self.counted.step(next.value);
        let before = self.last.value.units();
        let time = next.at.since(self.last.at).as_micros().unsigned_abs();
        if time > 0 {
            let area = Sum::from_u128(before.unsigned_abs()).times(time);
            self.area.add(&if before < 0 { area.negated() } else { area });
        }
        self.last = next;
    }

    /// What a counter has gone up from the first point to the last.
    pub fn increase(&self) -> f64 {
        ratio::nearest(&self.counted.increase().resized(), &Exact::from_i128(ONE))
    }

    /// The same for each second from the first point to the last; `None` if both are at one time.
    pub fn rate(&self) -> Option<f64> {
        let micros = self.micros();
        // Units are 10⁻¹⁸ and microseconds 10⁻⁶: 10¹² are left.
        let denominator = Exact::from_i128(ONE / 1_000_000).times(micros);
        (micros > 0).then(|| ratio::nearest(&self.counted.increase().resized(), &denominator))
    }

    /// The mean over time from the first point to the last, where each value holds until the next. If they are at one
    /// time it is the value that would hold from there on: the largest of them.
    pub fn time_weighted_mean(&self) -> f64 {
        let micros = self.micros();
        if micros == 0 {
            return from_units(self.last.value.units());
        }
        ratio::nearest(&self.area.resized(), &Exact::from_i128(ONE).times(micros))
    }

    fn micros(&self) -> u64 {
        self.last.at.since(self.first.at).as_micros().unsigned_abs()
    }
}
