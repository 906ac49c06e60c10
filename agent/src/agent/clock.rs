//! Whether the gateway's wall clock can be believed: the aggregator says in each welcome what time it is there, and from
//! then on the monotonic clock counts.
//!
//! A silent pipeline's watermark follows the time, so that the last windows of a sleeping site still close. With a wall
//! clock that is years ahead it would close everything to come: rows everywhere would be final without this gateway, and
//! whatever it reads from then on would be late. So nothing follows the wall clock before the first welcome of a run, nor
//! while it is off; meanwhile the aggregator's time, carried on, stands in for it. A watermark that has come too far ahead
//! all the same, by readings that a wrong clock stamped, is taken back when the clock is right.

use catchment_common::time::{Instant, Now, Span, Timestamp};
use catchment_common::wire::ClockState;

use crate::settings::CLOCK_TOLERANCE;

/// What is known of the wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// The aggregator's time, and when it was heard.
    heard: Option<(Timestamp, Instant)>,
    is_off: bool,
}

impl Clock {
    /// The aggregator has said what time it is.
    pub(super) fn handle_server_time(&mut self, now: Now, server: Timestamp) {
        self.heard = Some((server, now.monotonic));
    }

    /// Compares the clocks; returns whether the wall clock has turned out to be off that was not.
    pub(super) fn judge(&mut self, now: Now) -> bool {
        let was_off = self.is_off;
        self.is_off = self
            .offset(now)
            .is_some_and(|offset| offset.as_micros().abs() > CLOCK_TOLERANCE.as_micros());
        self.is_off && !was_off
    }

    /// The time that silent pipelines follow; none before the aggregator has said what time it is.
    pub(super) fn time(&self, now: Now) -> Option<Now> {
        let server = self.server(now)?;
        let wall = if self.is_off { server } else { now.wall };
        Some(Now { wall, ..now })
    }

    /// What the aggregator and operators are told.
    pub(super) fn state(&self, now: Now) -> Option<ClockState> {
        Some(ClockState {
            offset: self.offset(now)?,
            is_trusted: !self.is_off,
        })
    }

    fn server(&self, now: Now) -> Option<Timestamp> {
        let (server, at) = self.heard?;
        Some(server.plus(now.monotonic.since(at)))
    }

    fn offset(&self, now: Now) -> Option<Span> {
        Some(now.wall.since(self.server(now)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(seconds: u64, wall: i64) -> Now {
        Now {
            monotonic: Instant::from_micros(seconds * 1_000_000),
            wall: at(wall),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::clamped(seconds * 1_000_000)
    }

    #[test]
    fn a_wall_clock_counts_when_it_is_known_to_be_right() {
        let mut clock = Clock::default();
        assert_eq!(clock.time(now(5, 1_000)), None, "nobody knows");
        clock.handle_server_time(now(5, 1_000), at(1_002));
        assert!(!clock.judge(now(5, 1_000)));
        assert_eq!(clock.time(now(6, 1_001)), Some(now(6, 1_001)));
        assert!(clock.judge(now(10, 999_999)), "it was set to the future");
        assert!(!clock.judge(now(11, 1_000_000)), "which is told once");
        assert_eq!(clock.time(now(11, 1_000_000)), Some(now(11, 1_008)));
        assert!(!clock.state(now(11, 1_000_000)).unwrap().is_trusted);
        assert!(!clock.judge(now(20, 1_016)), "and put right");
        assert!(clock.state(now(20, 1_016)).unwrap().is_trusted);
        assert_eq!(clock.time(now(21, 1_017)), Some(now(21, 1_017)));
    }
}
