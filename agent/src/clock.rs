//! Whether the gateway's wall clock is right, and what time it is if it is not.
//!
//! A gateway without a battery boots with whatever time was saved last, minutes or days ago, until a time server sets its
//! clock. A reading with a device's own, right time is then *too early*, and one that is given the time of its arrival is put
//! where it does not belong. So a wall clock is believed once somebody who knows has confirmed it:
//!
//! - the caller, at the start: the kernel's boot and the clock are those that were confirmed before, a time service says
//!   that it has set the clock, or the configuration asks for no more than what the clock shows;
//! - the aggregator, whose time comes with each welcome: the two must differ by no more than [`CONFIRM_TOLERANCE`].
//!
//! A clock that was confirmed stays so for the rest of the process: an aggregator whose own clock goes wrong must not make
//! its agents stop. One that a welcome found wrong is compared on with the time of that welcome, so that it is believed
//! as soon as it is set, without another welcome.
//!
//! A silent pipeline's watermark follows the time, so that the last windows of a sleeping site still close. That asks for
//! more: with a wall clock that is set to the future later, a watermark would close everything to come, and rows everywhere
//! would be final without this gateway. So watermarks follow no clock before the first welcome of a run, and the
//! aggregator's time, carried on, while the wall clock differs from it by more than [`FOLLOW_TOLERANCE`].

use catchment_common::time::{Instant, Now, Span, Timestamp};
use catchment_common::wire::ClockState;

use crate::settings::CLOCK_SET_FROM;

/// How far the clock of the gateway may be from the aggregator's to be confirmed: the `max_ahead` of a plan that says nothing
/// else, so that no reading with a right time is too early. Far more than clocks that are set differ by, and less than a
/// saved time is old.
pub const CONFIRM_TOLERANCE: Span = Span::from_secs(300);
/// How far the clock may be from the aggregator's for watermarks to follow it. A welcome may take seconds to come, and a
/// gateway that is set by hand may be as far off; windows wait for `watermark_delay`, which is as much.
pub const FOLLOW_TOLERANCE: Span = Span::from_secs(10);

/// What is known of the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WallClock {
    is_confirmed: bool,
    /// Whether what it showed last could be believed.
    is_right: bool,
    /// The aggregator's time with the last welcome, and when that was.
    heard: Option<(Timestamp, Instant)>,
    /// Whether watermarks do not follow it.
    is_off: bool,
}

impl WallClock {
    /// A clock of which nothing is known but whether somebody has confirmed it.
    pub const fn new(is_confirmed: bool) -> Self {
        Self {
            is_confirmed,
            is_right: false,
            heard: None,
            is_off: false,
        }
    }

    /// Whether the clock has been confirmed.
    pub const fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// A time service says that the clock is right.
    pub fn confirm(&mut self) {
        self.is_confirmed = true;
    }

    /// A welcome came with the aggregator's time.
    pub fn handle_server_time(&mut self, now: Now, server: Timestamp) {
        self.heard = Some((server, now.monotonic));
        self.look(now);
    }

    /// Takes note of what the clock shows.
    #[inline]
    pub fn look(&mut self, now: Now) {
        self.is_confirmed = self.is_confirmed || self.is_within(now, CONFIRM_TOLERANCE) == Some(true);
        self.is_right = self.is_confirmed && now.wall >= CLOCK_SET_FROM;
    }

    /// Whether what the clock showed last can be believed.
    #[inline]
    pub const fn is_right(&self) -> bool {
        self.is_right
    }

    /// Compares the clocks for watermarks; returns whether the wall clock has turned out to be off that was not.
    pub fn judge(&mut self, now: Now) -> bool {
        let was_off = self.is_off;
        self.is_off = self.is_within(now, FOLLOW_TOLERANCE) == Some(false);
        self.is_off && !was_off
    }

    /// The time that silent pipelines follow; none before the aggregator has said what time it is.
    pub fn time(&self, now: Now) -> Option<Now> {
        let server = self.server(now)?;
        let wall = if self.is_off { server } else { now.wall };
        Some(Now { wall, ..now })
    }

    /// What the aggregator and operators are told.
    pub fn state(&self, now: Now) -> Option<ClockState> {
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

    fn is_within(&self, now: Now, tolerance: Span) -> Option<bool> {
        let apart = self.offset(now)?.as_micros().unsigned_abs();
        Some(apart <= tolerance.as_micros().unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_000_000;

    /// At `elapsed` seconds of the process, with a wall clock that is `off` seconds ahead.
    fn now(elapsed: i64, off: i64) -> Now {
        Now {
            monotonic: Instant::from_micros(elapsed.unsigned_abs() * 1_000_000),
            wall: Timestamp::clamped((NOON + elapsed + off) * 1_000_000),
        }
    }

    fn at(elapsed: i64) -> Timestamp {
        now(elapsed, 0).wall
    }

    fn is_right(clock: &mut WallClock, now: Now) -> bool {
        clock.look(now);
        clock.is_right()
    }

    #[test]
    fn nobody_has_confirmed_it_so_it_is_not_believed() {
        let mut clock = WallClock::new(false);
        assert!(!is_right(&mut clock, now(1, 0)) && !is_right(&mut clock, now(9_000, 0)));
        clock.confirm();
        assert!(is_right(&mut clock, now(9_001, 0)));
        assert!(!is_right(&mut clock, now(9_001, -NOON)), "1970 is never right");
    }

    #[test]
    fn the_aggregators_time_confirms_it_or_shows_how_far_it_is_off() {
        for (off, expected) in [(0, true), (300, true), (-300, true), (301, false), (-301, false)] {
            let mut clock = WallClock::new(false);
            clock.handle_server_time(now(5, off), at(5));
            assert_eq!(is_right(&mut clock, now(6, off)), expected, "{off}");
            assert_eq!(clock.state(now(6, off)).unwrap().offset, Span::from_secs(off));
        }
    }

    /// Hours behind at boot: believed once it is set, by the time of the welcome before.
    #[test]
    fn a_clock_that_is_set_later_is_believed_from_then_on() {
        let mut clock = WallClock::new(false);
        let behind = -3 * 3_600;
        clock.handle_server_time(now(5, behind), at(5));
        assert!(!is_right(&mut clock, now(500, behind)));
        assert!(is_right(&mut clock, now(501, 2)));
    }

    /// An aggregator that is two days ahead stops nobody.
    #[test]
    fn a_confirmed_clock_stays_so() {
        let mut clock = WallClock::new(true);
        clock.handle_server_time(now(5, 0), at(5 + 2 * 86_400));
        assert!(is_right(&mut clock, now(6, 0)));
        assert!(clock.judge(now(6, 0)), "watermarks do not follow it");
    }

    #[test]
    fn watermarks_follow_it_while_it_agrees_with_the_aggregators_time() {
        let mut clock = WallClock::new(true);
        assert_eq!(clock.time(now(5, 0)), None, "nobody knows");
        clock.handle_server_time(now(5, 0), at(7));
        assert!(!clock.judge(now(5, 0)));
        assert_eq!(clock.time(now(6, 0)), Some(now(6, 0)));
        let ahead = 126_230_400;
        assert!(clock.judge(now(10, ahead)), "it was set to the future");
        assert!(!clock.judge(now(11, ahead)), "which is told once");
        assert_eq!(clock.time(now(11, ahead)), Some(now(11, 2)));
        assert!(!clock.state(now(11, ahead)).unwrap().is_trusted);
        assert!(!clock.judge(now(20, 1)), "and put right");
        assert!(clock.state(now(20, 1)).unwrap().is_trusted);
        assert_eq!(clock.time(now(21, 1)), Some(now(21, 1)));
    }
}
