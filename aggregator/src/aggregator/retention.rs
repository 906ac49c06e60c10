//! What retention takes for the present: the clock or the data, whichever is earlier, and never by a leap.
//!
//! What retention deletes is gone, so no single clock decides. The aggregator's may be days ahead until NTP sets it
//! right; the gateways' may be. So rows and panes go when both say that they are old. And because all clocks of a site
//! may be wrong together, retention goes forward at most [`RETENTION_PACE`] times as fast as time does. Being late costs
//! some disk.

use catchment_common::time::{Instant, Now, Timestamp};

use crate::limits::RETENTION_PACE;

/// The present, as retention sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present {
    at: Timestamp,
    since: Instant,
}

impl Present {
    /// At a start. `heard` is when the aggregator last knew the time, by what it has stored; none if it is new.
    pub(super) fn new(now: Now, heard: Option<Timestamp>) -> Self {
        Self {
            at: heard.map_or(now.wall, |heard| heard.min(now.wall)),
            since: now.monotonic,
        }
    }

    /// Time has passed.
    pub(super) fn advance(&mut self, now: Now) {
        let passed = now.monotonic.since(self.since);
        let reach = self
            .at
            .as_micros()
            .saturating_add(passed.as_micros().saturating_mul(RETENTION_PACE));
        self.at = Timestamp::clamped(reach).min(now.wall);
        self.since = now.monotonic;
    }

    /// The present for data that has come to `newest`; none if there is no data, and then nothing is old.
    pub(super) fn of(&self, newest: Option<Timestamp>) -> Option<Timestamp> {
        newest.map(|newest| newest.min(self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn now(monotonic: u64, wall: i64) -> Now {
        Now {
            monotonic: Instant::from_micros(monotonic * 1_000_000),
            wall: at(wall),
        }
    }

    #[test]
    fn a_clock_that_leaps_takes_retention_along_slowly() {
        let mut present = Present::new(now(0, 1_000), Some(at(990)));
        present.advance(now(1, 1_001));
        assert_eq!(present.of(Some(at(5_000))), Some(at(1_001)));
        present.advance(now(9, 200_000));
        assert_eq!(
            present.of(Some(at(500_000))),
            Some(at(1_001 + 8 * RETENTION_PACE))
        );
        assert_eq!(
            present.of(Some(at(1_003))),
            Some(at(1_003)),
            "the data is not as far"
        );
        assert_eq!(present.of(None), None, "nor is there any");
        present.advance(now(10, 1_010));
        assert_eq!(
            present.of(Some(at(500_000))),
            Some(at(1_010)),
            "and is back with it"
        );
    }

    #[test]
    fn a_start_does_not_believe_its_clock() {
        let present = Present::new(now(0, 200_000), Some(at(1_000)));
        assert_eq!(present.of(Some(at(300_000))), Some(at(1_000)));
        assert_eq!(
            Present::new(now(0, 1_000), Some(at(200_000))).of(Some(at(300_000))),
            Some(at(1_000))
        );
    }
}
