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
//! A window's panes do not overlap in time. So a window needs neither a union nor a bound: a [`Course`](super::Course) walks
//! through its points, pane after pane, and holds a few numbers.

use alloc::vec::Vec;

use crate::limits::SERIES_POINTS_MAX;
use crate::stats::End;

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
