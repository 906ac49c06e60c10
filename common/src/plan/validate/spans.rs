//! The rules about lengths of time: windows, ladders, and how long to wait or keep.

use alloc::format;

use super::{Check, Part};
use crate::limits::{LADDER_MAX, PANES_PER_WINDOW_MAX, SPAN_MAX, WINDOW_SIZE_MAX, WINDOW_STEP_MIN};
use crate::plan::{Hopping, Query, Window};
use crate::time::Span;

impl Check<'_> {
    pub(super) fn window(&mut self, query: &Query) {
        match &query.window {
            Window::Hopping(hopping) => self.hopping(*hopping),
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
        if query.coarsen.len() > LADDER_MAX {
            self.fault(
                Part::Coarsen(None),
                format!("`coarsen` has more than {LADDER_MAX} steps"),
                "",
            );
            return;
        }
        let mut below = query.window.pane();
        for (index, &rung) in query.coarsen.iter().enumerate() {
            if rung > WINDOW_SIZE_MAX {
                self.fault(
                    Part::Coarsen(Some(index)),
                    "a coarser pane is longer than 366 days",
                    "",
                );
            } else if rung <= below || !rung.is_multiple_of(below) {
                let before = if index == 0 {
                    "the windows' pane, the greatest common divisor of `size`, `every` and `offset`"
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

    pub(super) fn spans(&mut self, query: &Query) {
        let spans = [
            (Part::Lateness, "lateness", query.lateness),
            (Part::MaxLate, "max_late", query.max_late),
            (Part::MaxAhead, "max_ahead", query.max_ahead),
            (Part::Idle, "idle", query.idle),
            (Part::Patience, "patience", query.patience),
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
