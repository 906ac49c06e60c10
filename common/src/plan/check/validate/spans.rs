//! The rules about lengths of time: windows, ladders, and how long to wait or keep.

use alloc::format;

use super::{Check, Part};
use crate::limits::{
    COUNT_MAX, LADDER_MAX, PANES_PER_WINDOW_MAX, SPAN_MAX, TAGS_MAX, WINDOW_SIZE_MAX, WINDOW_STEP_MIN,
    ZONE_BYTES_MAX,
};
use crate::plan::{Hopping, Query, Window};
use crate::time::Span;

impl Check<'_> {
    pub(super) fn window(&mut self, query: &Query) {
        match &query.window {
            Window::Hopping(hopping) => self.hopping(*hopping),
            Window::Session { gap } => self.session(query, *gap),
            Window::Calendar { zone, pane, .. } => self.calendar(zone, *pane),
            Window::Count { readings } => self.count(query, *readings),
        }
    }

    fn count(&mut self, query: &Query, readings: u32) {
        if readings == 0 || readings > COUNT_MAX {
            self.fault(
                Part::Window,
                format!("a window has 1 to {COUNT_MAX} readings, not {readings}"),
                "write window = { count = 100 }, or cut by time with `size`",
            );
        }
        if query.fields.is_empty() {
            self.fault(
                Part::Window,
                "a window with `count` needs at least one field: the times of its values are its start and end",
                "name one under `fields`; `seen = { expr = \"1\" }` will do",
            );
        }
        if let Some((place, field)) = query.first_of_points() {
            self.fault(
                Part::Aggregate(place),
                format!(
                    "`{}` of `{}` goes from reading to reading in time, and windows with `count` may overlap in time",
                    query.aggregates[place], field.name
                ),
                "ask for it in a separate query, cut by time",
            );
        }
        if query.key.len() == TAGS_MAX {
            self.fault(
                Part::Key(TAGS_MAX - 1),
                format!("with `count` the agent is one of at most {TAGS_MAX} tags of the key: one too many"),
                "leave one out",
            );
        }
        if !query.coarsen.is_empty() {
            self.fault(
                Part::Coarsen(None),
                "windows with `count` cannot be coarsened: two of them in one would be no window",
                "leave it out",
            );
        }
    }

    /// Whether the zone exists is for the rim to say, which knows them; that its pane divides an hour follows.
    fn calendar(&mut self, zone: &str, pane: Span) {
        let hour = Span::from_secs(3_600);
        if zone.is_empty() || zone.len() > ZONE_BYTES_MAX {
            self.fault(Part::Window, "the name of a time zone has 1 to 64 bytes", "");
        } else if pane < Span::from_secs(900) || !hour.is_multiple_of(pane) {
            self.fault(
                Part::Window,
                format!("time zone `{zone}` is not cut into parts of an hour"),
                "",
            );
        }
    }

    fn session(&mut self, query: &Query, gap: Span) {
        if gap < WINDOW_STEP_MIN || !gap.is_multiple_of(WINDOW_STEP_MIN) {
            self.fault(
                Part::Window,
                "a session's gap must be at least 1 ms, in whole milliseconds",
                "",
            );
        } else if gap > WINDOW_SIZE_MAX {
            self.fault(Part::Window, "a session's gap is longer than 366 days", "");
        }
        if query.fields.is_empty() {
            self.fault(
                Part::Window,
                "a session needs at least one field: the times of its values tell where sessions begin and end",
                "name one under `fields`; `seen = { expr = \"1\" }` will do",
            );
        }
    }

    fn hopping(&mut self, window: Hopping) {
        let Hopping { size, every, offset } = window;
        if size < WINDOW_STEP_MIN || every < WINDOW_STEP_MIN {
            self.fault(Part::Window, "a window's size and step must be at least 1 ms", "");
            return;
        }
        if ![size, every, offset]
            .iter()
            .all(|span| span.is_multiple_of(WINDOW_STEP_MIN))
        {
            self.fault(
                Part::Window,
                "a window's size, step and offset must be whole milliseconds",
                "",
            );
        }
        if size > WINDOW_SIZE_MAX {
            self.fault(Part::Window, "a window is longer than 366 days", "");
        }
        if every > size {
            self.fault(
                Part::Window,
                "`every` is longer than `size`: readings between windows would be counted in none",
                "make `every` at most `size`",
            );
        }
        if offset < Span::ZERO || offset >= every {
            self.fault(
                Part::Window,
                "`offset` must be less than the step: windows start at every multiple of `every`, shifted by it",
                "take off whole steps, which change nothing",
            );
        }
        let panes = size.as_micros() / window.pane().as_micros();
        if panes > PANES_PER_WINDOW_MAX {
            self.fault(
                Part::Window,
                format!("one window would be made of {panes} panes, more than {PANES_PER_WINDOW_MAX}"),
                "choose `every` and `offset` so that they divide `size` into fewer steps",
            );
        }
    }

    pub(super) fn coarsen(&mut self, query: &Query) {
        if query.window.longest() < WINDOW_STEP_MIN || query.window.step() < WINDOW_STEP_MIN {
            // The window has its own fault, and no pane.
            return;
        }
        if query.window.count().is_some() {
            // One fault is enough, and it is the window's.
            return;
        }
        if query.coarsen.len() > LADDER_MAX {
            self.fault(
                Part::Coarsen(None),
                format!("`coarsen` has more than {LADDER_MAX} steps"),
                "",
            );
            return;
        }
        let gap = match query.window {
            Window::Session { gap } => Some(gap),
            Window::Hopping(_) | Window::Calendar { .. } | Window::Count { .. } => None,
        };
        // Sessions take any pane up to their gap: only what they share may be narrower.
        let mut below = gap.map_or(query.window.pane(), |_| WINDOW_STEP_MIN);
        for (index, &rung) in query.coarsen.iter().enumerate() {
            if gap.is_some_and(|gap| rung > gap) {
                self.fault(
                    Part::Coarsen(Some(index)),
                    "a coarser pane that is longer than the session's gap would hide pauses",
                    "coarsen up to the gap, or to nothing: []",
                );
            } else if rung > WINDOW_SIZE_MAX {
                self.fault(
                    Part::Coarsen(Some(index)),
                    "a coarser pane is longer than 366 days",
                    "",
                );
            } else if rung <= below || !rung.is_multiple_of(below) {
                let before = if index == 0 {
                    "the windows' pane, the greatest common divisor of `size`, `every` and `offset`, or what a time zone needs"
                } else {
                    "the one before"
                };
                self.fault(
                    Part::Coarsen(Some(index)),
                    format!("a coarser pane must be a multiple of {before}"),
                    "write ascending widths such as [\"1m\", \"10m\", \"1h\"]",
                );
            } else {
                below = rung;
            }
        }
    }

    fn lookback(&mut self, query: &Query) {
        let Some(lookback) = query.lookback else { return };
        if !matches!(query.window, Window::Hopping(_) | Window::Calendar { .. }) {
            self.fault(
                Part::Lookback,
                "sessions and windows with `count` do not go on from the window before",
                "leave `lookback` out",
            );
            return;
        }
        let longest = query.window.longest();
        let whole = lookback.plus(longest);
        let is_far = lookback > longest.plus(longest);
        if is_far && whole.as_micros() / query.pane().as_micros().max(1) > PANES_PER_WINDOW_MAX {
            self.fault(
                Part::Lookback,
                format!("`lookback` and a window together take more than {PANES_PER_WINDOW_MAX} panes"),
                "look back for less, or use wider windows",
            );
        }
    }

    pub(super) fn spans(&mut self, query: &Query) {
        self.lookback(query);
        let spans = [
            (Part::WatermarkDelay, "watermark_delay", query.watermark_delay),
            (Part::AllowedLateness, "allowed_lateness", query.allowed_lateness),
            (Part::MaxAhead, "max_ahead", query.max_ahead),
            (Part::Idle, "idle", query.idle),
            (Part::Patience, "patience", query.patience),
            (Part::Lookback, "lookback", query.lookback.unwrap_or(Span::ZERO)),
            (
                Part::Retention,
                "retention",
                query.retention.unwrap_or(Span::ZERO),
            ),
        ];
        for (part, name, span) in spans {
            if span < Span::ZERO || span > SPAN_MAX {
                self.fault(part, format!("`{name}` must be between 0 and 100 years"), "");
            }
        }
        if query
            .retention
            .is_some_and(|retention| retention < query.window.longest())
        {
            self.fault(
                Part::Retention,
                "`retention` is shorter than one window",
                "keep at least one window, or leave it out to keep all",
            );
        }
    }
}
