//! The stats partial: count, sum, squares, extrema and ends of a multiset of values.
//!
//! Each component has an identity, a lift of one value, and a merge that is commutative and associative *exactly*, so
//! order and grouping cannot matter; floating point appears only in [`Stats::lower`]. One struct serves every function
//! of the same state, so another function costs no bytes.
//!
//! **Nothing here can overflow.** A value's magnitude is below 10³⁶ < 2¹²⁰ units and a count below 2⁶⁴, so a sum is
//! below 2¹⁸⁴ in magnitude and fits 192 bits with its sign; a square is below 2²⁴⁰ and a sum of squares below 2³⁰⁴ of
//! 320 bits. Counts saturate: 2⁶⁴ readings cannot arrive, but a broken peer could claim them.

use alloc::string::String;

use crate::number::decimal::{ONE, Value};
use crate::number::ratio::{self, Exact};
use crate::number::wide::Wide;
use crate::plan::{Aggregate, Components};
use crate::time::{Span, Timestamp};

/// A sum of values, in units of 10⁻¹⁸.
pub type Sum = Wide<3>;
/// A sum of squared values, in units of 10⁻³⁶; never negative.
pub type Squares = Wide<5>;

const VALUE_BITS: u32 = 120;
const COUNT_BITS: u32 = 64;
const _: () = assert!(VALUE_BITS + COUNT_BITS < 192);
const _: () = assert!(2 * VALUE_BITS + COUNT_BITS < 320);
const _: () = assert!(Value::LIMIT < 1 << VALUE_BITS);

/// One end of a series: a value and its event time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct End {
    /// The event time.
    pub at: Timestamp,
    /// The value; of several at one time, the first end keeps the smallest and the last end the largest.
    pub value: Value,
}

/// A mergeable summary of a multiset of values of one field.
///
/// Components that a pipeline does not keep stay at their identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: Sum,
    /// The sum of their squares.
    pub squares: Squares,
    /// The smallest; [`Stats::NO_MIN`] when there is none.
    pub min: i128,
    /// The largest; [`Stats::NO_MAX`] when there is none.
    pub max: i128,
    /// The earliest, by (time, value).
    pub first: End,
    /// The latest, by (time, value).
    pub last: End,
}

/// A lowered result.
#[derive(Clone, PartialEq, Debug)]
pub enum Lowered {
    /// A count.
    Integer(u64),
    /// The double nearest to the exact result.
    Real(f64),
    /// JSON: what is more than one number.
    Text(String),
}

impl Default for Stats {
    fn default() -> Self {
        Self::IDENTITY
    }
}

impl Stats {
    /// The minimum of nothing: above every value.
    pub const NO_MIN: i128 = i128::MAX;
    /// The maximum of nothing: below every value.
    pub const NO_MAX: i128 = i128::MIN;

    /// The summary of nothing; merging it changes nothing.
    pub const IDENTITY: Self = Self {
        count: 0,
        sum: Sum::ZERO,
        squares: Squares::ZERO,
        min: Self::NO_MIN,
        max: Self::NO_MAX,
        first: End {
            at: Timestamp::MAX,
            value: Value::ZERO,
        },
        last: End {
            at: Timestamp::MIN,
            value: Value::ZERO,
        },
    };

    /// Adds one value to the components that are kept.
    #[inline]
    pub fn lift(&mut self, keep: Components, at: Timestamp, value: Value) {
        let end = End { at, value };
        if keep.contains(Components::SUM) {
            self.sum.add(&Sum::from_i128(value.units()));
        }
        if keep.contains(Components::SQUARES) {
            self.squares.add_square(value.units());
        }
        if keep.contains(Components::EXTREMA) {
            self.min = self.min.min(value.units());
            self.max = self.max.max(value.units());
        }
        if keep.contains(Components::ENDS) {
            self.join_ends(end, end);
        }
        self.count = self.count.saturating_add(1);
    }

    /// Adds everything that `other` summarises. Commutative and associative, with [`Stats::IDENTITY`] as identity.
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.sum.add(&other.sum);
        self.squares.add(&other.squares);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        // Ends that are not kept are the identity on both sides, and joining those changes nothing.
        if other.first.at <= other.last.at {
            self.join_ends(other.first, other.last);
        }
        self.count = self.count.saturating_add(other.count);
    }

    /// Whether ends are held.
    #[inline]
    pub fn has_ends(&self) -> bool {
        self.first.at <= self.last.at
    }

    #[inline]
    fn join_ends(&mut self, first: End, last: End) {
        if !self.has_ends() {
            (self.first, self.last) = (first, last);
            return;
        }
        self.first = self.first.min(first);
        self.last = self.last.max(last);
    }

    /// The answer to `aggregate` over a window of this size: the double nearest to the exact result. `None` when there
    /// is no value (or, for the variance, fewer than two), or extrema or ends are asked for and not kept, or it takes a
    /// sketch to answer; see [`crate::lower`].
    pub fn lower(&self, aggregate: &Aggregate, window: Span) -> Option<Lowered> {
        if *aggregate == Aggregate::Count {
            return Some(Lowered::Integer(self.count));
        }
        if *aggregate == Aggregate::Rate {
            return Some(Lowered::Real(self.rate(window)));
        }
        let kept = match aggregate {
            Aggregate::Min | Aggregate::Max | Aggregate::Range => self.min <= self.max,
            Aggregate::First | Aggregate::Last | Aggregate::Delta => self.has_ends(),
            _ => true,
        };
        if self.count == 0 || !kept {
            return None;
        }
        let result = match aggregate {
            Aggregate::Count | Aggregate::Rate => unreachable!("answered above"),
            Aggregate::Sum => ratio::nearest(&self.sum.resized(), &Exact::from_i128(ONE)),
            Aggregate::Mean => self.mean(),
            Aggregate::Min => from_units(self.min),
            Aggregate::Max => from_units(self.max),
            Aggregate::Range => from_units(self.max - self.min),
            Aggregate::Variance => self.variance(ratio::nearest)?,
            Aggregate::Stddev => self.variance(ratio::nearest_sqrt)?,
            Aggregate::First => from_units(self.first.value.units()),
            Aggregate::Last => from_units(self.last.value.units()),
            Aggregate::Delta => from_units(self.last.value.units() - self.first.value.units()),
            Aggregate::Median
            | Aggregate::Quantile(_)
            | Aggregate::Histogram(_)
            | Aggregate::Distinct(_)
            | Aggregate::Top { .. }
            | Aggregate::Increase
            | Aggregate::TimeWeightedMean => return None,
        };
        Some(Lowered::Real(result))
    }

    fn rate(&self, window: Span) -> f64 {
        let numerator = Exact::from_u128(u128::from(self.count) * 1_000_000);
        ratio::nearest(&numerator, &Exact::from_i128(i128::from(window.as_micros())))
    }

    fn mean(&self) -> f64 {
        if let Some(sum) = self.sum.to_i128() {
            // Cancelling the decimals first keeps nearly all means on the fast path of one division.
            let (sum, scale) = cancel_tens(sum);
            return ratio::nearest(&Exact::from_i128(sum), &Exact::from_i128(scale).times(self.count));
        }
        ratio::nearest(&self.sum.resized(), &Exact::from_i128(ONE).times(self.count))
    }

    /// (n·Q − S²) / (n·(n − 1)·10³⁶), handed to `round`.
    fn variance(&self, round: fn(&Exact, &Exact) -> f64) -> Option<f64> {
        if self.count < 2 {
            return None;
        }
        let mut numerator = self.squares.resized::<12>().times(self.count);
        let sum = self.sum.magnitude().resized::<12>();
        numerator.sub(&sum.product(&sum));
        let denominator = Exact::from_i128(Value::LIMIT)
            .times(self.count)
            .times(self.count - 1);
        Some(round(&numerator, &denominator))
    }
}

/// The double nearest to a value in units of 10⁻¹⁸.
pub(crate) fn from_units(units: i128) -> f64 {
    let (units, scale) = cancel_tens(units);
    ratio::nearest(&Exact::from_i128(units), &Exact::from_i128(scale))
}

/// `units / 10¹⁸` with common powers of ten cancelled.
fn cancel_tens(mut units: i128) -> (i128, i128) {
    let mut scale = ONE;
    for power in [1_000_000_000_000_i128, 10_000, 100, 10, 10] {
        if scale % power == 0 && units % power == 0 {
            units /= power;
            scale /= power;
        }
    }
    (units, scale)
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;
    use num_rational::BigRational;
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Value {
        Value::parse(text.as_bytes()).unwrap().value
    }

    fn stats(readings: &[(i64, Value)]) -> Stats {
        let mut stats = Stats::IDENTITY;
        for &(at, value) in readings {
            stats.lift(Components::STATS, Timestamp::clamped(at), value);
        }
        stats
    }

    #[expect(clippy::needless_pass_by_value, reason = "tables of calls read better")]
    fn check(values: &[&str], aggregate: Aggregate, expected: Option<f64>) {
        let readings: alloc::vec::Vec<_> = values
            .iter()
            .enumerate()
            .map(|(at, text)| (at as i64, value(text)))
            .collect();
        let lowered = stats(&readings)
            .lower(&aggregate, Span::from_secs(10))
            .map(|lowered| match lowered {
                Lowered::Integer(number) => number as f64,
                Lowered::Real(number) => number,
                Lowered::Text(text) => panic!("{text}"),
            });
        assert_eq!(lowered, expected, "{aggregate:?} of {values:?}");
    }

    #[test]
    fn answers_by_hand() {
        let values = ["21.37", "20.00", "-1.5", "22.13"];
        check(&values, Aggregate::Count, Some(4.0));
        check(&values, Aggregate::Rate, Some(0.4));
        check(&values, Aggregate::Sum, Some(62.0));
        check(&values, Aggregate::Mean, Some(15.5));
        check(&values, Aggregate::Min, Some(-1.5));
        check(&values, Aggregate::Max, Some(22.13));
        check(&values, Aggregate::Range, Some(23.63));
        check(&values, Aggregate::First, Some(21.37));
        check(&values, Aggregate::Last, Some(22.13));
        check(&values, Aggregate::Delta, Some(0.76));
        check(&["1", "2", "3", "4"], Aggregate::Variance, Some(5.0 / 3.0));
        check(
            &["2", "4", "4", "4", "5", "5", "7", "9", "5"],
            Aggregate::Stddev,
            Some(2.0),
        );
    }

    #[test]
    fn nothing_gives_nothing() {
        for aggregate in Aggregate::ALL {
            let expected = matches!(aggregate, Aggregate::Count | Aggregate::Rate).then_some(0.0);
            check(&[], aggregate, expected);
        }
        check(&["5"], Aggregate::Variance, None);
        check(&["5"], Aggregate::Stddev, None);
    }

    #[test]
    fn a_tenth_summed_ten_times_is_one() {
        check(&["0.1"; 10], Aggregate::Sum, Some(1.0));
        check(&["0.1"; 10], Aggregate::Variance, Some(0.0));
    }

    fn reading() -> impl Strategy<Value = (i64, Value)> {
        let small = (-5_000_i128..5_000).prop_map(|hundredths| hundredths * 10_i128.pow(16));
        let any_size = -Value::LIMIT + 1..Value::LIMIT;
        (0_i64..20, prop_oneof![small, any_size])
            .prop_map(|(at, units)| (at, Value::from_units(units).unwrap()))
    }

    proptest! {
        /// Associativity, commutativity and identity at once: any split and order of merging gives the same bytes.
        #[test]
        fn grouping_and_order_do_not_matter(
            readings in prop::collection::vec((reading(), 0_usize..4), 0..40), rotate in 0_usize..4,
        ) {
            let all: alloc::vec::Vec<_> = readings.iter().map(|&(reading, _)| reading).collect();
            let mut merged = Stats::IDENTITY;
            for part in 0..4 {
                let part = (part + rotate) % 4;
                let group: alloc::vec::Vec<_> =
                    readings.iter().rev().filter(|(_, home)| *home == part).map(|&(reading, _)| reading).collect();
                merged.merge(&stats(&group));
            }
            prop_assert_eq!(merged, stats(&all));
        }

        /// The exact variance from its definition, in arbitrary precision.
        #[test]
        fn the_variance_is_the_nearest_double(readings in prop::collection::vec(reading(), 2..20)) {
            let exact = |value: &Value| BigRational::new(BigInt::from(value.units()), BigInt::from(ONE));
            let count = BigInt::from(readings.len());
            let mean = readings.iter().map(|(_, value)| exact(value)).sum::<BigRational>() / &count;
            let squares = readings.iter().map(|(_, value)| (exact(value) - &mean).pow(2)).sum::<BigRational>();
            let variance = squares / (count - 1);
            let Some(Lowered::Real(result)) = stats(&readings).lower(&Aggregate::Variance, Span::from_secs(1)) else {
                panic!("a variance of two or more is a number");
            };
            let float = |float: f64| BigRational::from_float(float).unwrap();
            let two = BigInt::from(2);
            let below = (float(result.next_down()) + float(result)) / &two;
            let above = (float(result.next_up()) + float(result)) / &two;
            prop_assert!(below <= variance && variance <= above);
        }
    }
}
