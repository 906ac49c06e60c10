//! Histograms: how many values lie in each bucket, with buckets that widen by doubling when there are too many.
//!
//! **Why the state is canonical.** Call a level *fit* for a multiset if at that level it has at most [`BUCKETS_MAX`]
//! different buckets, all in the range of numbers that we keep. Going up a level joins neighbours, so it never adds a
//! bucket and never enlarges a number: above a fit level all are fit. A part of the multiset has no bucket that the
//! whole has not: a level fit for the whole is fit for every part. The *level of a multiset* is the least fit one. So a
//! part's level is at most the whole's, its buckets at the whole's level follow from those that it has, and merging
//! (take the higher level, join, add, go up until fit) ends at exactly the level and the counts of the whole.

use alloc::vec::Vec;
use core::cmp::Ordering;

use super::logarithm;
use crate::limits::BUCKETS_MAX;
use crate::number::decimal::Value;

/// Numbers of linear buckets stay within this, so that steps between them fit 64 bits.
const LINEAR_MAX: i64 = 1 << 62;
/// Highest level of a linear histogram. A value has at most 2¹²⁰ steps, and 2¹²⁰⁻ˡ buckets are few enough beyond.
const LINEAR_LEVEL_MAX: u8 = 112;
/// Highest level of a logarithmic histogram: 2 · 7,680 / 16 + 1 buckets are few enough.
const LOG_LEVEL_MAX: u8 = 4;
const _: () = assert!(2 * (logarithm::BUCKET_MAX >> LOG_LEVEL_MAX) < BUCKETS_MAX as i64);
const _: () = assert!(2 << (120 - LINEAR_LEVEL_MAX) < BUCKETS_MAX);

/// How a histogram's buckets lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// At the multiples of the field's resolution; at level l, 2^l of them together.
    Linear,
    /// See [`logarithm`]; at level l, 2^l of them together, apart by sign, zero by itself.
    Log,
    /// Between given bounds: this number of intervals, numbered from 0.
    Intervals(u16),
}

/// A bucket's number and how many values it has.
pub type Bucket = (i64, u64);

/// A histogram.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Buckets {
    /// 2^level buckets have been made one.
    pub level: u8,
    /// The buckets that have values, ascending.
    pub entries: Vec<Bucket>,
}

impl Shape {
    /// The number at a level `up` steps above of the bucket with this number.
    #[inline]
    pub fn raise(self, bucket: i64, up: u8) -> i64 {
        match self {
            Self::Linear => bucket >> up.min(63),
            Self::Log if bucket == 0 => 0,
            Self::Log => bucket.signum() * (((bucket.abs() - 1) >> up.min(63)) + 1),
            Self::Intervals(_) => bucket,
        }
    }

    /// The highest level there is.
    pub const fn level_max(self) -> u8 {
        match self {
            Self::Linear => LINEAR_LEVEL_MAX,
            Self::Log => LOG_LEVEL_MAX,
            Self::Intervals(_) => 0,
        }
    }

    /// Whether a bucket can have this number at this level.
    pub const fn holds(self, bucket: i64, level: u8) -> bool {
        match self {
            Self::Linear => {
                // A value has fewer than 2¹²⁰ steps.
                let limit = if level > 58 {
                    1_i64 << 120_u8.saturating_sub(level)
                } else {
                    LINEAR_MAX
                };
                -limit <= bucket && bucket < limit
            }
            Self::Log => bucket.unsigned_abs() <= (logarithm::BUCKET_MAX as u64).div_ceil(1 << level),
            Self::Intervals(count) => 0 <= bucket && bucket < count as i64,
        }
    }
}

/// Divides values that are multiples of a resolution by it, without a division.
///
/// The resolution is an odd number times a power of two; a multiple of the odd number times its inverse modulo 2¹²⁸ is
/// the quotient (Granlund and Montgomery, 1994).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Divider {
    shift: u32,
    inverse: i128,
}

impl Divider {
    /// A divider by `resolution`, which must be positive.
    pub const fn new(resolution: i128) -> Self {
        let shift = resolution.trailing_zeros();
        let odd = resolution >> shift;
        // Newton's iteration: each round doubles the low bits that are right, from 3 on.
        let mut inverse = odd;
        let mut right = 3;
        while right < 128 {
            inverse = inverse.wrapping_mul(2_i128.wrapping_sub(odd.wrapping_mul(inverse)));
            right *= 2;
        }
        Self { shift, inverse }
    }

    /// How many steps `value` is; it must be a whole number of them, as values of a field with a resolution are.
    #[inline]
    pub const fn steps(self, value: Value) -> i128 {
        (value.units() >> self.shift).wrapping_mul(self.inverse)
    }

    /// The bucket of a value in a linear histogram at the least level at which its number is in range, and that level.
    #[inline]
    pub fn bucket(self, value: Value) -> (u8, i64) {
        let mut steps = self.steps(value);
        let mut level = 0;
        loop {
            match i64::try_from(steps) {
                Ok(bucket) if Shape::Linear.holds(bucket, level) => return (level, bucket),
                _ => {
                    steps >>= 1;
                    level += 1;
                }
            }
        }
    }
}

impl Buckets {
    /// The histogram of nothing.
    pub const EMPTY: Self = Self {
        level: 0,
        entries: Vec::new(),
    };

    /// A histogram from buckets in any order, each as often as it likes, at this level, which must not be higher than
    /// that of their multiset.
    pub fn from_unsorted(shape: Shape, level: u8, mut entries: Vec<Bucket>) -> Self {
        entries.sort_unstable();
        entries.dedup_by(|more, held| {
            let same = more.0 == held.0;
            if same {
                held.1 = held.1.saturating_add(more.1);
            }
            same
        });
        let mut buckets = Self { level, entries };
        buckets.raise_until_fit(shape);
        buckets
    }

    /// Adds a value by its bucket at this level.
    pub fn lift(&mut self, shape: Shape, (level, bucket): (u8, i64)) {
        self.raise_to(shape, level);
        let bucket = shape.raise(bucket, self.level - level.min(self.level));
        match self.entries.binary_search_by_key(&bucket, |entry| entry.0) {
            Ok(at) => self.entries[at].1 = self.entries[at].1.saturating_add(1),
            Err(at) => {
                self.entries.insert(at, (bucket, 1));
                self.raise_until_fit(shape);
            }
        }
    }

    /// Adds everything that `other` summarises.
    pub fn merge(&mut self, shape: Shape, other: &Self) {
        if other.entries.is_empty() {
            return;
        }
        if self.entries.is_empty() {
            self.clone_from(other);
            return;
        }
        self.raise_to(shape, other.level);
        let up = self.level - other.level;
        let mut merged = Vec::with_capacity((self.entries.len() + other.entries.len()).min(2 * BUCKETS_MAX));
        let mut held = self.entries.iter().copied().peekable();
        for &(bucket, count) in &other.entries {
            let bucket = shape.raise(bucket, up);
            while let Some(entry) = held.next_if(|entry| entry.0 <= bucket) {
                merged.push(entry);
            }
            push(&mut merged, (bucket, count));
        }
        merged.extend(held);
        self.entries = merged;
        self.raise_until_fit(shape);
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.entries
            .iter()
            .fold(0, |count: u64, entry| count.saturating_add(entry.1))
    }

    /// The bucket of the value of this rank, from 1 for the smallest; `None` if there are fewer values.
    pub fn bucket_at(&self, rank: u64) -> Option<i64> {
        let mut below: u64 = 0;
        self.entries
            .iter()
            .find(|(_, count)| {
                below = below.saturating_add(*count);
                below >= rank.max(1)
            })
            .map(|&(bucket, _)| bucket)
    }

    /// The value in units of 10⁻¹⁸ that stands for one of the buckets. `resolution` is the field's; it only matters to
    /// linear histograms.
    pub fn value(&self, shape: Shape, bucket: i64, resolution: i128) -> i128 {
        let middle = match shape {
            Shape::Linear => {
                // Below 2⁶² · 2^level or, where that is more, below 2¹²⁰: the steps of a value.
                let low = i128::from(bucket) << self.level;
                let middle = low + ((1_i128 << self.level) - 1) / 2;
                middle.saturating_mul(resolution)
            }
            Shape::Log => logarithm::middle(bucket, self.level),
            Shape::Intervals(_) => 0,
        };
        // A bucket at the end of the range reaches beyond all values.
        middle.clamp(-Value::LIMIT, Value::LIMIT)
    }

    /// Whether this could be the histogram of some values: what bytes from outside must satisfy.
    pub fn is_canonical(&self, shape: Shape) -> bool {
        let in_range = |&(bucket, count): &Bucket| count > 0 && shape.holds(bucket, self.level);
        let ascending = self.entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let few = self.level <= shape.level_max() && self.entries.len() <= BUCKETS_MAX;
        // A level lower there were too many buckets, of which at most two each have become one, or one out of range.
        let far = |&(bucket, _): &Bucket| {
            shape == Shape::Linear && !(-LINEAR_MAX / 2..LINEAR_MAX / 2).contains(&bucket)
        };
        let needed = self.level == 0 || self.entries.len() > BUCKETS_MAX / 2 || self.entries.iter().any(far);
        few && ascending && needed && self.entries.iter().all(in_range)
    }

    fn raise_to(&mut self, shape: Shape, level: u8) {
        if level > self.level {
            let up = level - self.level;
            self.level = level;
            let mut raised = 0;
            for at in 0..self.entries.len() {
                let (bucket, count) = self.entries[at];
                let bucket = shape.raise(bucket, up);
                if raised > 0 && self.entries[raised - 1].0 == bucket {
                    self.entries[raised - 1].1 = self.entries[raised - 1].1.saturating_add(count);
                } else {
                    self.entries[raised] = (bucket, count);
                    raised += 1;
                }
            }
            self.entries.truncate(raised);
        }
    }

    fn raise_until_fit(&mut self, shape: Shape) {
        while self.entries.len() > BUCKETS_MAX && self.level < shape.level_max() {
            self.raise_to(shape, self.level + 1);
        }
    }
}

/// Appends a bucket that is not below the last one.
fn push(entries: &mut Vec<Bucket>, (bucket, count): Bucket) {
    match entries.last_mut() {
        Some(last) if last.0.cmp(&bucket) == Ordering::Equal => last.1 = last.1.saturating_add(count),
        _ => entries.push((bucket, count)),
    }
}
