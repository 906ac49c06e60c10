//! The kinds of windows, and what the rest of the system asks of them.
//!
//! A window is made of whole panes, so everything here is about which panes fit: the widest that does, which windows
//! lie over one, and how far they reach.

use alloc::string::String;
use alloc::vec::Vec;

use super::Components;
use crate::limits::{WINDOW_SIZE_MAX, WINDOW_STEP_MIN};
use crate::time::{Span, Timestamp};

/// How a query cuts time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Window {
    /// Windows of one size in even steps; tumbling ones included.
    Hopping(Hopping),
    /// For each key its readings from one pause to the next.
    Session {
        /// The shortest pause: two neighbouring readings are of one session when the later one comes less than this
        /// after the earlier one. A session `[first, last + gap)` spans from its first reading to the gap after its
        /// last.
        gap: Span,
    },
    /// Days, weeks or months as a time zone has them.
    Calendar {
        /// Which of them.
        period: Period,
        /// The zone's name in the IANA database.
        zone: String,
        /// The pane that no edge in this zone crosses: whole hours, or parts of an hour where the zone needs them.
        pane: Span,
    },
    /// For each key and agent a fixed number of readings, in the order in which the agent takes them.
    Count {
        /// How many readings make a window: 1 to [`COUNT_MAX`](crate::limits::COUNT_MAX).
        readings: u32,
    },
}

/// A period of the calendar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first to the first.
    Month,
}

impl Period {
    /// More than any of them has ever lasted: zones have been moved by a day.
    pub const fn longest(self) -> Span {
        Span::from_days(match self {
            Self::Day => 2,
            Self::Week => 8,
            Self::Month => 32,
        })
    }

    /// As plans write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "1d",
            Self::Week => "1w",
            Self::Month => "1mo",
        }
    }
}

/// The windows `[offset + k·every, offset + k·every + size)` for every integer `k`, counted from the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hopping {
    /// How much event time one window covers.
    pub size: Span,
    /// The distance between the starts of neighbouring windows; equal to `size` for tumbling windows.
    pub every: Span,
    /// How far the grid of starts is shifted; at least nothing and less than `every`.
    pub offset: Span,
}

impl Window {
    /// Windows of this size, one after the other.
    pub const fn tumbling(size: Span) -> Self {
        Self::hopping(size, size)
    }

    /// Windows of this size in these steps.
    pub const fn hopping(size: Span, every: Span) -> Self {
        Self::Hopping(Hopping {
            size,
            every,
            offset: Span::ZERO,
        })
    }

    /// Whether each reading is in exactly one window.
    pub fn is_disjoint(&self) -> bool {
        match self {
            Self::Hopping(hopping) => hopping.size == hopping.every,
            Self::Session { .. } | Self::Calendar { .. } | Self::Count { .. } => true,
        }
    }

    /// The widest pane that these windows can be assembled from.
    pub fn pane(&self) -> Span {
        match self {
            Self::Hopping(hopping) => hopping.pane(),
            // Readings in one pane are less than its width apart, so no pane can hide a pause.
            Self::Session { gap } => *gap,
            Self::Calendar { pane, .. } => *pane,
            // No stretch of event time: the window's number, which is an instant of the agent's clock.
            Self::Count { .. } => WINDOW_STEP_MIN,
        }
    }

    /// How many readings make a window, if that is what does.
    pub const fn count(&self) -> Option<u32> {
        match self {
            Self::Count { readings } => Some(*readings),
            Self::Hopping(_) | Self::Session { .. } | Self::Calendar { .. } => None,
        }
    }

    /// Whether panes of this width lie within windows or outside of them, and never across an edge.
    pub fn fits(&self, width: Span) -> bool {
        match self {
            Self::Hopping(hopping) => hopping.pane().is_multiple_of(width),
            Self::Session { gap } => width <= *gap,
            Self::Calendar { pane, .. } => pane.is_multiple_of(width),
            Self::Count { .. } => width == WINDOW_STEP_MIN,
        }
    }

    /// How much event time a window covers at most; of a session, which may go on for ever, its gap; of a window of so
    /// many readings, which has no such bound, the width of its pane.
    pub fn longest(&self) -> Span {
        match self {
            Self::Hopping(hopping) => hopping.size,
            Self::Session { gap } => *gap,
            Self::Calendar { period, .. } => period.longest(),
            Self::Count { .. } => WINDOW_STEP_MIN,
        }
    }

    /// The distance between the starts of neighbouring windows; of windows that do not overlap, the same as
    /// [`Window::longest`].
    pub fn step(&self) -> Span {
        match self {
            Self::Hopping(hopping) => hopping.every,
            Self::Session { .. } | Self::Calendar { .. } | Self::Count { .. } => self.longest(),
        }
    }

    /// What must be kept of every field for these windows' own sake.
    pub fn components(&self) -> Components {
        match self {
            Self::Hopping(_) | Self::Calendar { .. } => Components::COUNT,
            // A reading has at least one field, so the fields' ends together are the readings'.
            Self::Session { .. } | Self::Count { .. } => Components::ENDS,
        }
    }

    /// The coarsening ladder of a query that names none: 6, 60, 360 and 8,640 panes, so that panes of ten seconds go to
    /// a minute, ten minutes, an hour and a day. Rungs above [`WINDOW_SIZE_MAX`] are left out. Sessions are coarsened
    /// up to their gap, which matters where they share narrower panes. Count windows cannot be coarsened: two of them
    /// in one would be no window.
    pub fn default_ladder(&self) -> Vec<Span> {
        if self.count().is_some() {
            return Vec::new();
        }
        if let Self::Session { gap } = self {
            return alloc::vec![*gap];
        }
        let pane = self.pane().as_micros();
        [6, 60, 360, 8_640]
            .into_iter()
            .filter_map(|factor| pane.checked_mul(factor).map(Span::from_micros))
            .filter(|rung| *rung <= WINDOW_SIZE_MAX)
            .collect()
    }
}

impl Hopping {
    /// The widest pane that these windows can be assembled from.
    pub const fn pane(&self) -> Span {
        self.size.gcd(self.every).gcd(self.offset)
    }

    /// The last start of a window at or before `at`.
    pub const fn last_start(&self, at: Timestamp) -> Timestamp {
        // Undone after the step, so that neither shift is clamped at the ends of time.
        let shifted = at.as_micros() - self.offset.as_micros();
        let start = shifted.div_euclid(self.every.as_micros()) * self.every.as_micros();
        Timestamp::clamped(start + self.offset.as_micros())
    }

    /// The starts of the windows that hold a pane or an instant, earliest first.
    pub fn over(&self, at: Timestamp) -> impl Iterator<Item = Timestamp> + use<> {
        let (last, step) = (self.last_start(at), self.every.as_micros());
        let count = (self.size.as_micros() - at.since(last).as_micros() - 1).div_euclid(step);
        (0..=count)
            .rev()
            .map(move |back| Timestamp::clamped(last.as_micros() - back * step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hopping(size: i64, every: i64, offset: i64) -> Hopping {
        Hopping {
            size: Span::from_micros(size),
            every: Span::from_micros(every),
            offset: Span::from_micros(offset),
        }
    }

    fn check(window: Hopping, pane: i64, expected: &[i64]) {
        let starts: Vec<i64> = window
            .over(Timestamp::clamped(pane))
            .map(Timestamp::as_micros)
            .collect();
        assert_eq!(starts, expected, "{window:?} pane {pane}");
    }

    #[test]
    fn the_windows_over_a_pane() {
        check(hopping(10, 10, 0), 20, &[20]);
        check(hopping(60, 10, 0), 60, &[10, 20, 30, 40, 50, 60]);
        check(hopping(60, 60, 0), 30, &[0]);
        check(hopping(60, 40, 0), 40, &[0, 40]);
        check(hopping(60, 40, 0), 60, &[40]);
        check(hopping(60, 40, 0), 20, &[0]);
        check(hopping(60, 40, 0), 0, &[-40, 0]);
        check(hopping(60, 10, 0), -10, &[-60, -50, -40, -30, -20, -10]);
    }

    #[test]
    fn an_offset_moves_all_windows_alike() {
        check(hopping(10, 10, 4), 20, &[14]);
        check(hopping(10, 10, 4), 24, &[24]);
        check(hopping(10, 10, 4), 3, &[-6]);
        check(hopping(60, 20, 5), 5, &[-35, -15, 5]);
        check(hopping(60, 20, 5), 4, &[-55, -35, -15]);
    }

    #[test]
    fn panes_divide_size_step_and_offset() {
        assert_eq!(hopping(60, 20, 0).pane(), Span::from_micros(20));
        assert_eq!(hopping(60, 20, 5).pane(), Span::from_micros(5));
        let window = Window::Hopping(hopping(60, 20, 10));
        assert!(window.fits(Span::from_micros(10)) && window.fits(Span::from_micros(5)));
        assert!(!window.fits(Span::from_micros(20)), "the offset cuts it");
    }
}
