//! Courses: walks through the points of a field, in the order of their times, for answers that depend on what came after
//! what.

use alloc::vec::Vec;

use super::counter::Counted;
use super::{Series, SeriesPoint};
use crate::number::decimal::{ONE, Value};
use crate::number::ratio::{self, Exact};
use crate::plan::CounterRules;
use crate::stats::{Sum, from_units};
use crate::time::{TIMESTAMP_MAX_US, TIMESTAMP_MIN_US, Timestamp};

/// The edges of a window, and what was before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edges<'s> {
    /// What has points from `from` to `start`, and may have others. None may be too long.
    pub before: Vec<&'s Series>,
    /// How far back points before the window matter.
    pub from: Timestamp,
    /// Where the window starts.
    pub start: Timestamp,
    /// Where it ends.
    pub end: Timestamp,
}

/// What a walk through points in their order has seen.
///
/// A course through a window that knows its edges goes on from the points before it: they say at which level a counter
/// comes in, and only what it gains from there on is the window's. A mean over time is then one over the whole window,
/// where the last value before it holds from the start, and the last one in it until the end. So neighbouring windows leave
/// nothing out between them. Without edges a course is from the first point to the last.
///
/// **Nothing here can overflow.** A value's magnitude is below 2¹²⁰ units and the times of all points lie within 2⁵⁴
/// µs, so the area, which is at most the largest magnitude times the time between the ends, is below 2¹⁷⁴. A step's
/// magnitude is below 2¹²² (one over the end of a counter's range), and 2⁶⁴ points cannot come together, so the increase
/// is below 2¹⁸⁶. Both fit 192 bits with their sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Course {
    first: SeriesPoint,
    last: SeriesPoint,
    /// The instants between which values are weighted by how long they held.
    held: (Timestamp, Timestamp),
    /// What a counter has gone up.
    counted: Counted,
    /// What of that was before the window.
    counted_before: Sum,
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
    /// series is too long. `edges` are those of the window, if it knows them.
    pub fn through(parts: Vec<&Series>, rules: CounterRules, edges: Option<Edges<'_>>) -> Option<Self> {
        if parts.iter().any(|part| part.is_too_long()) || parts.iter().all(|part| part.points().is_empty()) {
            return None;
        }
        let mut course = None;
        let end = edges.map(
            |Edges {
                 before,
                 from,
                 start,
                 end,
             }| {
                in_order(before, |point| {
                    if from <= point.at && point.at < start {
                        Self::take(&mut course, point, rules);
                    }
                });
                if let Some(course) = &mut course {
                    course.enter(start);
                }
                end
            },
        );
        in_order(parts, |point| Self::take(&mut course, point, rules));
        if let (Some(course), Some(end)) = (&mut course, end) {
            course.hold(end);
        }
        course
    }

    /// Goes on to a point, or begins with it.
    fn take(course: &mut Option<Self>, point: SeriesPoint, rules: CounterRules) {
        let Some(course) = course else {
            *course = Some(Self {
                first: point,
                last: point,
                held: (point.at, point.at),
                counted: Counted::from(rules, point.value),
                counted_before: Sum::ZERO,
                area: Sum::ZERO,
            });
            return;
        };
        course.counted.step(point.value);
        course.hold(point.at);
        course.last = point;
    }

    /// A window starts here, after all points so far.
    fn enter(&mut self, start: Timestamp) {
        self.first = self.last;
        self.held = (start, start);
        self.counted_before = *self.counted.increase();
        self.area = Sum::ZERO;
    }

    /// The last value holds until then.
    fn hold(&mut self, until: Timestamp) {
        let value = self.last.value.units();
        let time = until.since(self.held.1).as_micros();
        if time > 0 {
            let area = Sum::from_u128(value.unsigned_abs()).times(time.unsigned_abs());
            self.area.add(&if value < 0 { area.negated() } else { area });
            self.held.1 = until;
        }
    }

    /// What a counter has gone up from the first point, or the last one before the window, to the last. Below 0 if a fall
    /// before the window counted as a restart, and the window shows that it was none.
    pub fn increase(&self) -> f64 {
        ratio::nearest(&self.units().resized(), &Exact::from_i128(ONE))
    }

    fn units(&self) -> Sum {
        let mut units = *self.counted.increase();
        units.add(&self.counted_before.negated());
        units
    }

    /// The same for each second from the first point to the last; `None` if both are at one time.
    pub fn rate(&self) -> Option<f64> {
        let micros = self.micros();
        // Units are 10⁻¹⁸ and microseconds 10⁻⁶: 10¹² are left.
        let denominator = Exact::from_i128(ONE / 1_000_000).times(micros);
        (micros > 0).then(|| ratio::nearest(&self.units().resized(), &denominator))
    }

    /// The mean over time, where each value holds until the next: from the first point to the last, or, with edges, over
    /// the window, from its first point on if there was none before it. If that is no time at all, it is the value that
    /// would hold from there on: the largest of them.
    pub fn time_weighted_mean(&self) -> f64 {
        let micros = self.held.1.since(self.held.0).as_micros().unsigned_abs();
        if micros == 0 {
            return from_units(self.last.value.units());
        }
        ratio::nearest(&self.area.resized(), &Exact::from_i128(ONE).times(micros))
    }

    fn micros(&self) -> u64 {
        self.last.at.since(self.first.at).as_micros().unsigned_abs()
    }
}

/// Hands out the points of all parts in their order, each once.
fn in_order(mut parts: Vec<&Series>, mut take: impl FnMut(SeriesPoint)) {
    parts.retain(|part| !part.points().is_empty());
    parts.sort_unstable_by(|a, b| a.points().first().cmp(&b.points().first()));
    let apart = parts.is_sorted_by(|a, b| a.points().last() < b.points().first());
    if apart {
        parts
            .iter()
            .flat_map(|part| part.points())
            .copied()
            .for_each(take);
        return;
    }
    // A coarser pane beside those that it covers.
    let mut points: Vec<SeriesPoint> = parts.iter().flat_map(|part| part.points()).copied().collect();
    points.sort_unstable();
    points.dedup();
    points.into_iter().for_each(&mut take);
}
