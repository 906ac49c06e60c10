//! What a counter has gone up, from one reading to the next.
//!
//! A counter goes up. When it falls, one of four things has happened, and which of them decides the field's
//! [`CounterRules`] and, for one of them, what comes next:
//!
//! - *Noise*: it fell by no more than the tolerance. Its level stays where it was, and only what comes above that counts.
//! - *A wrap*: it stood in the last quarter of a range that has an end. It has gone up to the end and on from 0.
//! - *A glitch*: it read 0 (no more than the tolerance) and then at least what it had before (less the tolerance). Those
//!   readings are passed over. Until then they count as a restart, so that one is not noticed late; what they counted is
//!   taken back.
//! - *A restart*, which is any other fall: it has begun again at 0 and come to where it is. Below 0 no counter comes:
//!   that adds nothing, and the way back up counts.
//!
//! Values outside of a range that has an end are none of the counter's, and passed over.

use crate::number::decimal::Value;
use crate::plan::CounterRules;
use crate::stats::Sum;

/// A counter's level and what it has gone up since the first reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Counted {
    rules: CounterRules,
    /// Where it stands, in units of 10⁻¹⁸; none before the first reading.
    level: Option<i128>,
    doubt: Option<Doubt>,
    increase: Sum,
}

/// A fall to 0 that may be a glitch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Doubt {
    /// Where the counter stood before.
    before: i128,
    /// What had been counted by then.
    increase: Sum,
}

impl Counted {
    /// A counter at its first reading.
    pub(super) fn from(rules: CounterRules, first: Value) -> Self {
        let mut counted = Self {
            rules,
            level: None,
            doubt: None,
            increase: Sum::ZERO,
        };
        counted.step(first);
        counted
    }

    /// Takes in the next reading.
    pub(super) fn step(&mut self, next: Value) {
        let CounterRules { wraps_at, tolerance } = self.rules;
        let next = next.units();
        if wraps_at.is_some_and(|end| next < 0 || next >= end) {
            return;
        }
        let Some(level) = self.level else {
            self.level = Some(next);
            return;
        };
        let level = self.settle(level, next);
        if next >= level {
            self.increase.add(&Sum::from_i128(next - level));
            self.level = Some(next);
            return;
        }
        if level - next <= tolerance {
            self.level = Some(level);
            return;
        }
        if next <= tolerance && self.doubt.is_none() {
            self.doubt = Some(Doubt {
                before: level,
                increase: self.increase,
            });
        }
        let step = match wraps_at {
            Some(end) if level >= end - end / 4 => end - level + next,
            _ => next.max(0),
        };
        self.increase.add(&Sum::from_i128(step));
        self.level = Some(next);
    }

    /// Decides about a fall to 0, if the next reading is no longer there; returns the level to go on from.
    fn settle(&mut self, level: i128, next: i128) -> i128 {
        let tolerance = self.rules.tolerance;
        let Some(doubt) = self.doubt.filter(|_| next > tolerance) else {
            return level;
        };
        self.doubt = None;
        if next < doubt.before - tolerance {
            return level;
        }
        self.increase = doubt.increase;
        doubt.before
    }

    /// What it has gone up, in units of 10⁻¹⁸.
    pub(super) fn increase(&self) -> &Sum {
        &self.increase
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: i128 = crate::number::decimal::ONE;

    /// The increase over values in tenths.
    fn increase(wraps_at: Option<i128>, tolerance: i128, tenths: &[i128]) -> i128 {
        let value = |tenths: i128| Value::from_units(tenths * ONE / 10).unwrap();
        let rules = CounterRules {
            wraps_at: wraps_at.map(|end| end * ONE / 10),
            tolerance: tolerance * ONE / 10,
        };
        let mut counted = Counted::from(rules, value(tenths[0]));
        tenths[1..].iter().for_each(|&next| counted.step(value(next)));
        let units = counted.increase();
        (-1_000_000..=1_000_000)
            .find(|tenths| *units == Sum::from_i128(tenths * ONE / 10))
            .unwrap()
    }

    #[test]
    fn noise_is_no_restart() {
        let trembling = [2_156, 2_156, 2_157, 2_156, 2_156, 2_157, 2_156];
        assert_eq!(
            increase(None, 0, &trembling),
            2 + 2 * 2_156,
            "as without a tolerance"
        );
        assert_eq!(increase(None, 1, &trembling), 1);
        // Falls that come to more than the tolerance together are a restart.
        assert_eq!(increase(None, 2, &[100, 99, 98, 97]), 97);
        assert_eq!(increase(None, 3, &[100, 99, 98, 97, 101]), 1);
    }

    #[test]
    fn a_fall_from_the_last_quarter_of_the_range_is_a_wrap() {
        let end = Some(655_360);
        assert_eq!(increase(end, 0, &[655_300, 50]), 110);
        assert_eq!(increase(end, 0, &[491_520, 0, 10]), 163_850);
        assert_eq!(increase(end, 0, &[491_510, 0, 10]), 10, "a restart");
        assert_eq!(increase(end, 0, &[655_350, 0, 0, 10]), 20);
        assert_eq!(increase(end, 20, &[655_300, 655_290, 655_300, 50]), 110);
        assert_eq!(
            increase(end, 0, &[100, 655_360, -10, 110]),
            10,
            "none of the counter's values"
        );
        assert_eq!(increase(end, 0, &[-10, 100, 110]), 10);
    }

    #[test]
    fn zeros_between_readings_that_go_on_are_passed_over() {
        assert_eq!(increase(None, 0, &[1_000, 0, 1_010]), 10);
        assert_eq!(increase(None, 0, &[1_000, 0, 0, -10, 1_010]), 10);
        assert_eq!(increase(None, 0, &[1_000, 0, 1_000, 0, 1_010]), 10);
        assert_eq!(increase(None, 5, &[1_000, 3, 1, 996, 1_010]), 10);
        assert_eq!(increase(None, 0, &[1_000, 0, 990, 1_000]), 1_000, "a restart");
        assert_eq!(increase(None, 0, &[1_000, 0, 10, 1_010]), 1_010, "a restart");
        assert_eq!(
            increase(None, 0, &[1_000, 10, 1_010]),
            1_010,
            "no zero, no glitch"
        );
        assert_eq!(increase(None, 0, &[1_000, 0]), 0);
        assert_eq!(increase(Some(655_360), 0, &[655_300, 0, 655_310]), 10);
        assert_eq!(increase(None, 0, &[0, 0, 7]), 7, "it may begin there");
    }
}
