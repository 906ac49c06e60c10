//! When readings arrive: times that rise strictly.
//!
//! The clock is read once for a group of messages, and clocks have steps, so many messages come at one time. Their order
//! would be lost where it matters: in `first`, `last` and `delta`, and in what counters and time-weighted means make of
//! points. So each reading arrives a microsecond after the one before, at the earliest.

use catchment_common::time::{Now, Span, Timestamp};

/// A clock that is set back by more than this is followed; by less, it is waited for. Far more than the readings of any
/// group take, at a microsecond each.
const STEP_BACK_MAX: Span = Span::from_secs(1);
/// Between two readings.
const STEP: Span = Span::from_micros(1);

/// The arrivals of one agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrivals {
    /// When the last reading arrived.
    last: Timestamp,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { last: Timestamp::MIN }
    }
}

impl Arrivals {
    /// A message comes: when its first reading arrives.
    #[inline]
    pub fn begin(&mut self, now: Now) -> Now {
        let is_passed = now.wall <= self.last && self.last.minus(STEP_BACK_MAX) <= now.wall;
        let first = if is_passed { self.last.plus(STEP) } else { now.wall };
        self.last = first;
        Now { wall: first, ..now }
    }

    /// When the reading at this place of a message arrives, of which the first arrives at `first`.
    #[inline]
    pub fn reading(&mut self, first: Now, place: usize) -> Now {
        let wall = first.wall.plus(Span::from_micros(place as i64));
        self.last = self.last.max(wall);
        Now { wall, ..first }
    }
}

#[cfg(test)]
mod tests {
    use catchment_common::time::Instant;

    use super::*;

    fn at(micros: i64) -> Now {
        Now {
            monotonic: Instant::from_micros(0),
            wall: Timestamp::clamped(1_800_000_000_000_000 + micros),
        }
    }

    #[test]
    fn readings_that_come_together_arrive_one_after_the_other() {
        let mut arrivals = Arrivals::default();
        let first = arrivals.begin(at(0));
        assert_eq!(first, at(0));
        assert_eq!(
            [0, 1, 2].map(|place| arrivals.reading(first, place)),
            [at(0), at(1), at(2)]
        );
        // Another query has its own view of the same readings.
        assert_eq!(arrivals.reading(first, 1), at(1));
        assert_eq!(arrivals.begin(at(0)), at(3));
        assert_eq!(arrivals.begin(at(2)), at(4));
        assert_eq!(arrivals.begin(at(10)), at(10));
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed_unless_by_a_moment() {
        let mut arrivals = Arrivals::default();
        arrivals.begin(at(0));
        assert_eq!(arrivals.begin(at(-999_999)), at(1));
        assert_eq!(arrivals.begin(at(-1_000_000)), at(-1_000_000));
    }
}
