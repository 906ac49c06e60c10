//! What watermarks mean for windows: how complete an answer is, and how long to wait for agents that stay silent.

use std::collections::VecDeque;

use catchment_common::time::{Instant, Now, Span, Timestamp};

use crate::limits::FRONT_MOMENTS_MAX;

/// How many of the expected agents have passed an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coverage {
    /// Agents whose watermark has passed it.
    pub passed: u32,
    /// Agents expected.
    pub expected: u32,
}

impl Coverage {
    /// Whether all expected agents have passed.
    pub fn is_complete(self) -> bool {
        self.passed == self.expected
    }

    /// Passed by expected; 1 when nobody is expected.
    pub fn ratio(self) -> f64 {
        if self.expected == 0 {
            1.0
        } else {
            f64::from(self.passed) / f64::from(self.expected)
        }
    }
}

/// When the foremost watermark passed what: after `patience`, windows are shown without the agents that stay silent.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    moments: VecDeque<(Timestamp, Instant)>,
    exhausted: Option<Timestamp>,
}

impl Patience {
    /// Notes where the front is now and returns up to where patience has run out.
    pub fn observe(&mut self, front: Option<Timestamp>, patience: Span, now: Now) -> Option<Timestamp> {
        if let Some(front) = front {
            let newest = self.moments.back().map(|&(front, _)| front).or(self.exhausted);
            if newest.is_none_or(|newest| front > newest) {
                if self.moments.len() == FRONT_MOMENTS_MAX {
                    // Wait a little longer for one of them rather than remember more.
                    self.moments.pop_back();
                }
                self.moments.push_back((front, now.monotonic));
            }
        }
        while let Some(&(front, since)) = self.moments.front()
            && now.monotonic.since(since) >= patience
        {
            self.exhausted = self.exhausted.max(Some(front));
            self.moments.pop_front();
        }
        self.exhausted
    }

    /// When patience next runs out for something.
    pub fn deadline(&self, patience: Span) -> Option<Instant> {
        self.moments.front().map(|&(_, since)| since + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::clamped(seconds * 1_000_000)
    }

    fn now(seconds: i64) -> Now {
        Now {
            monotonic: Instant::from_micros(seconds as u64 * 1_000_000),
            wall: at(seconds),
        }
    }

    #[test]
    fn patience_runs_from_when_the_front_passed() {
        let mut patience = Patience::default();
        let wait = Span::from_secs(10);
        assert_eq!(patience.observe(Some(at(100)), wait, now(0)), None);
        assert_eq!(patience.observe(Some(at(110)), wait, now(5)), None);
        assert_eq!(patience.deadline(wait), Some(now(10).monotonic));
        assert_eq!(patience.observe(Some(at(110)), wait, now(10)), Some(at(100)));
        assert_eq!(patience.observe(None, wait, now(15)), Some(at(110)));
        assert_eq!(
            patience.observe(Some(at(90)), wait, now(40)),
            Some(at(110)),
            "it never goes back"
        );
        assert_eq!(patience.deadline(wait), None);
    }
}
