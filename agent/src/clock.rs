//! Whether the gateway's wall clock is right.
//!
//! A gateway without a battery boots with whatever time was saved last, minutes or days ago, until a time server sets its
//! clock. A reading with a device's own, right time is then *too early*, and one that is given the time of its arrival is put
//! where it does not belong. So a wall clock is believed once somebody who knows has confirmed it:
//!
//! - the caller, at the start: the kernel's boot and the clock are those that were confirmed before, a time service says
//!   that it has set the clock, or the configuration asks for no more than what the clock shows;
//! - the aggregator, whose time comes with each welcome: the two must differ by no more than [`TOLERANCE`].
//!
//! A clock that was confirmed stays so for the rest of the process: an aggregator whose own clock goes wrong must not make
//! its agents stop. One that a welcome found wrong is compared on with the time of that welcome, so that it is believed
//! as soon as it is set, without another welcome.

use catchment_common::time::{Instant, Now, Span, Timestamp};

use crate::settings::CLOCK_SET_FROM;

/// How far the clock of the gateway may be from the aggregator's: the `max_ahead` of a plan that says nothing else, so that
/// no reading with a right time is too early. Far more than clocks that are set differ by, and less than a saved time is
/// old.
pub const TOLERANCE: Span = Span::from_secs(300);

/// What is known of the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WallClock {
    is_confirmed: bool,
    /// The aggregator's time with the last welcome, and when that was.
    reference: Option<(Instant, Timestamp)>,
    /// How far the wall clock was ahead of it.
    offset: Option<Span>,
    /// Whether what it showed last could be believed.
    is_right: bool,
}

impl WallClock {
    /// A clock of which nothing is known but whether somebody has confirmed it.
    pub const fn new(is_confirmed: bool) -> Self {
        Self {
            is_confirmed,
            reference: None,
            offset: None,
            is_right: false,
        }
    }

    /// Whether the clock has been confirmed.
    pub const fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// How far the clock was ahead of the aggregator's with the last welcome.
    pub const fn offset(&self) -> Option<Span> {
        self.offset
    }

    /// A time service says that the clock is right.
    pub fn confirm(&mut self) {
        self.is_confirmed = true;
    }

    /// A welcome came with the aggregator's time.
    pub fn handle_welcome(&mut self, now: Now, server: Timestamp) {
        self.reference = Some((now.monotonic, server));
        self.offset = Some(now.wall.since(server));
        self.look(now);
    }

    /// Takes note of what the clock shows.
    #[inline]
    pub fn look(&mut self, now: Now) {
        if !self.is_confirmed
            && let Some((then, server)) = self.reference
        {
            let expected = server.plus(now.monotonic.since(then));
            let apart = now.wall.since(expected).as_micros().unsigned_abs();
            self.is_confirmed = apart <= TOLERANCE.as_micros().unsigned_abs();
        }
        self.is_right = self.is_confirmed && now.wall >= CLOCK_SET_FROM;
    }

    /// Whether what the clock showed last can be believed.
    #[inline]
    pub const fn is_right(&self) -> bool {
        self.is_right
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
            clock.handle_welcome(now(5, off), at(5));
            assert_eq!(is_right(&mut clock, now(6, off)), expected, "{off}");
            assert_eq!(clock.offset(), Some(Span::from_secs(off)));
        }
    }

    /// Hours behind at boot: believed once it is set, by the time of the welcome before.
    #[test]
    fn a_clock_that_is_set_later_is_believed_from_then_on() {
        let mut clock = WallClock::new(false);
        let behind = -3 * 3_600;
        clock.handle_welcome(now(5, behind), at(5));
        assert!(!is_right(&mut clock, now(500, behind)));
        assert!(is_right(&mut clock, now(501, 2)));
    }

    /// An aggregator that is two days ahead stops nobody.
    #[test]
    fn a_confirmed_clock_stays_so() {
        let mut clock = WallClock::new(true);
        clock.handle_welcome(now(5, 0), at(5 + 2 * 86_400));
        assert!(is_right(&mut clock, now(6, 0)));
        assert_eq!(clock.offset(), Some(Span::from_secs(-2 * 86_400)));
    }
}
