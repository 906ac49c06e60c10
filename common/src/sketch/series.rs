//! Series: the points of a field, for answers that depend on what came after what.
//!
//! How much a counter has increased, resets included, is a sum over neighbours in time; so is the mean that holds each
//! value until the next. Neither can be kept in a few numbers without giving up that order and grouping do not matter:
//! a late reading that comes between two known ones takes their step away and puts two others in its place, and it may
//! turn one reset into two, or into none. A part can only know its share of the steps when nothing can come between
//! any more, and no part of a pane ever knows that. So the state is the *set* of points (event time, value), and
//! merging is the union of sets: commutative, associative and idempotent. What is repeated is one point.
//!
//! **Bounded.** A set of more than [`SERIES_POINTS_MAX`] points is *too long*: it keeps none of them and answers
//! nothing. Whether the whole is too long depends on the size of the union alone: a part that is makes it so, and no
//! merge says so before the union has as many.
//!
//! A window's panes do not overlap in time. So a window needs neither a union nor a bound: a [`Course`] walks
//! through its points, pane after pane, and holds a few numbers.

use alloc::vec::Vec;

use crate::limits::SERIES_POINTS_MAX;
use crate::number::decimal::{ONE, Value};
use crate::number::ratio::{self, Exact};
use crate::stats::{End, Sum, from_units};
use crate::time::{TIMESTAMP_MAX_US, TIMESTAMP_MIN_US};

/// A value at an event time, ordered by time and then value.
pub type SeriesPoint = End;

/// The points of one field, key and pane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Series {
    /// Strictly ascending; `None` if there are too many.
    points: Vec<SeriesPoint>,
    is_too_long: bool,
}

impl Series {
    /// The series of nothing; merging it changes nothing.
    pub const EMPTY: Self = Self {
        points: Vec::new(),
        is_too_long: false,
    };

    /// A series with more points than one may have.
    pub const TOO_LONG: Self = Self {
        points: Vec::new(),
        is_too_long: true,
    };

    /// A series of points in any order, each as often as it likes.
    pub fn from_unsorted(mut points: Vec<SeriesPoint>) -> Self {
        points.sort_unstable();
        points.dedup();
        Self::bounded(points)
    }

    /// A series of these points, which must be strictly ascending and not too many; for what comes over the wire.
    pub fn checked(points: Vec<SeriesPoint>) -> Option<Self> {
        let ascending = points.is_sorted_by(|a, b| a < b);
        (ascending && points.len() <= SERIES_POINTS_MAX).then_some(Self {
            points,
            is_too_long: false,
        })
    }

    fn bounded(points: Vec<SeriesPoint>) -> Self {
        if points.len() > SERIES_POINTS_MAX {
            return Self::TOO_LONG;
        }
        Self {
            points,
            is_too_long: false,
        }
    }

    /// The points, strictly ascending; `None` if there are too many.
    pub fn points(&self) -> &[SeriesPoint] {
        &self.points
    }

    /// Whether there were more points than a series keeps.
    pub const fn is_too_long(&self) -> bool {
        self.is_too_long
    }

    /// Adds all points of `other`. Commutative, associative and idempotent.
    pub fn merge(&mut self, other: &Self) {
        if self.is_too_long || other.is_too_long {
            *self = Self::TOO_LONG;
            return;
        }
        let mut points = core::mem::take(&mut self.points);
        if points.last() < other.points.first() || other.points.is_empty() {
            points.extend_from_slice(&other.points);
        } else {
            points = union(&points, &other.points);
        }
        *self = Self::bounded(points);
    }
}

/// The union of two sets of points, both strictly ascending, strictly ascending.
fn union(a: &[SeriesPoint], b: &[SeriesPoint]) -> Vec<SeriesPoint> {
    let mut all = Vec::with_capacity(a.len() + b.len());
    let mut held = a.iter().copied().peekable();
    for &point in b {
        while let Some(before) = held.next_if(|before| *before < point) {
            all.push(before);
        }
        held.next_if_eq(&point);
        all.push(point);
    }
    all.extend(held);
    all
}

/// What a walk through points in their order has seen.
///
/// **Nothing here can overflow.** A value's magnitude is below 2¹²⁰ units and the times of all points lie within 2⁵⁴
/// µs, so the area, which is at most the largest magnitude times the time between the ends, is below 2¹⁷⁴. A step's
/// magnitude is below 2¹²¹, and 2⁶⁴ points cannot come together, so the increase is below 2¹⁸⁵. Both fit 192 bits with
/// their sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Course {
    first: SeriesPoint,
    last: SeriesPoint,
    /// What a counter has gone up, in units of 10⁻¹⁸.
    increase: Sum,
    /// Each value times the microseconds until the next point.
    area: Sum,
}

const TIME_BITS: u32 = 54;
const VALUE_BITS: u32 = 120;
const COUNT_BITS: u32 = 64;
const _: () = assert!(TIMESTAMP_MAX_US - TIMESTAMP_MIN_US < 1 << TIME_BITS);
const _: () = assert!(Value::LIMIT < 1 << VALUE_BITS);
const _: () = assert!(VALUE_BITS + TIME_BITS < 192 - 1);
const _: () = assert!(VALUE_BITS + 1 + COUNT_BITS < 192 - 1);

impl Course {
    /// The course through all points of these series; `None` if there is no point, or a series is too long.
    pub fn through(mut parts: Vec<&Series>) -> Option<Self> {
        if parts.iter().any(|part| part.is_too_long) {
            return None;
        }
        parts.retain(|part| !part.points.is_empty());
        parts.sort_unstable_by(|a, b| a.points.first().cmp(&b.points.first()));
        let apart = parts.is_sorted_by(|a, b| a.points.last() < b.points.first());
        if apart {
            return Self::along(parts.iter().flat_map(|part| part.points.iter().copied()));
        }
        // A coarser pane beside those that it covers.
        let mut points: Vec<SeriesPoint> = parts.iter().flat_map(|part| &part.points).copied().collect();
        points.sort_unstable();
        points.dedup();
        Self::along(points.into_iter())
    }

    fn along(mut points: impl Iterator<Item = SeriesPoint>) -> Option<Self> {
        let first = points.next()?;
        let mut course = Self {
            first,
            last: first,
            increase: Sum::ZERO,
            area: Sum::ZERO,
        };
        points.for_each(|point| course.step(point));
        Some(course)
    }

    fn step(&mut self, next: SeriesPoint) {
        let (before, after) = (self.last.value.units(), next.value.units());
        // A counter that falls has begun again at 0 and come to where it is. Below 0 no counter comes: that adds
        // nothing.
        let step = if after >= before {
            after - before
        } else {
            after.max(0)
        };
        self.increase.add(&Sum::from_i128(step));
        let time = next.at.since(self.last.at).as_micros().unsigned_abs();
        if time > 0 {
            let area = Sum::from_u128(before.unsigned_abs()).times(time);
            self.area.add(&if before < 0 { area.negated() } else { area });
        }
        self.last = next;
    }

    /// What a counter has gone up from the first point to the last.
    pub fn increase(&self) -> f64 {
        ratio::nearest(&self.increase.resized(), &Exact::from_i128(ONE))
    }

    /// The same for each second from the first point to the last; `None` if both are at one time.
    pub fn rate(&self) -> Option<f64> {
        let micros = self.micros();
        // Units are 10⁻¹⁸ and microseconds 10⁻⁶: 10¹² are left.
        let denominator = Exact::from_i128(ONE / 1_000_000).times(micros);
        (micros > 0).then(|| ratio::nearest(&self.increase.resized(), &denominator))
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
