//! Sketches: mergeable summaries of a multiset that do not fit a few numbers, and are canonical all the same.
//!
//! The state of a sketch is a function of the multiset that went in, and of nothing else: any order and any grouping of
//! lifts and merges gives the same bytes. That is what lets a crash, a retry or an early emission be checked with `==`,
//! and it rules out what the literature usually does to bound a sketch: compacting at random, collapsing when a local
//! buffer runs full, pruning counters while merging. Here every bound is reached through a rule about the *whole*
//! multiset that parts can apply early without harm:
//!
//! - A [histogram](Buckets) has an integer *level*, the least at which it has few enough buckets. A part never needs a
//!   higher level than the whole.
//! - [Registers] keep a maximum each.
//! - A [series](Series) keeps points, or the fact that there are too many of them.
//! - A [top list](Counters) counts the values whose hashes are smallest. A value that is among these in the whole is
//!   among them in every part that has it, so its count is complete.
//!
//! Entries are kept sorted, so equal states are equal bytes. On an agent the entries of open panes live in fixed blocks
//! of memory instead ([`pool`]) and become a [`Sketch`] when the pane closes.

mod buckets;

mod counter;

mod course;

mod distinct;

pub mod logarithm;

pub mod pool;

mod series;

mod top;

use alloc::vec::Vec;

pub use buckets::{Bucket, Buckets, Divider, Shape};
pub use course::{Course, Edges};
pub use distinct::{REGISTERS, Registers, mark_of};
pub use series::{Series, SeriesPoint};
pub use top::{Counter, Counters};

/// The hash behind distinct counts and top lists: XXH64 with seed 0, on every platform and for ever. It is not keyed,
/// because agents and the aggregator must agree: who can choose values can choose their hashes.
#[inline]
pub fn hash(bytes: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, bytes)
}

/// What a sketch is, as far as merging and the wire need to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SketchKind {
    /// A histogram.
    Buckets(Shape),
    /// A count of different values.
    Distinct,
    /// A top list.
    Top,
    /// The points of a field.
    Series,
}

/// One sketch of one key and pane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sketch {
    /// A histogram.
    Buckets(Buckets),
    /// A count of different values.
    Distinct(Registers),
    /// A top list.
    Top(Counters),
    /// The points of a field.
    Series(Series),
}

impl SketchKind {
    /// The sketch of nothing; merging it changes nothing.
    pub const fn empty(self) -> Sketch {
        match self {
            Self::Buckets(_) => Sketch::Buckets(Buckets::EMPTY),
            Self::Distinct => Sketch::Distinct(Registers::EMPTY),
            Self::Top => Sketch::Top(Counters::EMPTY),
            Self::Series => Sketch::Series(Series::EMPTY),
        }
    }

    /// Whether `sketch` is one of this kind, its shape aside.
    pub const fn is_of(self, sketch: &Sketch) -> bool {
        matches!(
            (self, sketch),
            (Self::Buckets(_), Sketch::Buckets(_))
                | (Self::Distinct, Sketch::Distinct(_))
                | (Self::Top, Sketch::Top(_))
                | (Self::Series, Sketch::Series(_))
        )
    }
}

impl Sketch {
    /// Adds everything that `other` summarises; both must be of `kind`. Commutative and associative.
    pub fn merge(&mut self, kind: SketchKind, other: &Self) {
        match (self, other, kind) {
            (Self::Buckets(held), Self::Buckets(more), SketchKind::Buckets(shape)) => held.merge(shape, more),
            (Self::Distinct(held), Self::Distinct(more), SketchKind::Distinct) => held.merge(more),
            (Self::Top(held), Self::Top(more), SketchKind::Top) => held.merge(more),
            (Self::Series(held), Self::Series(more), SketchKind::Series) => held.merge(more),
            _ => debug_assert!(false, "sketches of one place are of one kind"),
        }
    }

    /// How many entries it has: buckets, registers, counters or points.
    pub fn entries(&self) -> usize {
        match self {
            Self::Buckets(buckets) => buckets.entries.len(),
            Self::Distinct(registers) => registers.marks().len(),
            Self::Top(counters) => counters.entries().len(),
            Self::Series(series) => series.points().len(),
        }
    }

    /// What it costs on the wire, in units of at most 20 bytes: an entry each, and long texts more.
    pub fn weight(&self) -> usize {
        match self {
            Self::Top(counters) => counters
                .entries()
                .iter()
                .map(|counter| 1 + counter.value.len().div_ceil(16))
                .sum(),
            // At its widest a point has 29 bytes.
            Self::Series(series) => 2 * series.points().len(),
            _ => self.entries(),
        }
    }
}

/// Adds the sketches of one row to those of another, place by place.
pub fn merge_rows(held: &mut [Sketch], more: &[Sketch], kinds: impl Iterator<Item = SketchKind>) {
    for ((held, more), kind) in held.iter_mut().zip(more).zip(kinds) {
        held.merge(kind, more);
    }
}

/// One empty sketch for each kind.
pub fn empty_row(kinds: impl Iterator<Item = SketchKind>) -> Vec<Sketch> {
    kinds.map(SketchKind::empty).collect()
}

#[cfg(test)]
mod tests;
