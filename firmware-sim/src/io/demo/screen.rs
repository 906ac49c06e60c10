//! What the user of a demo sees while it runs.

use std::io::{IsTerminal, Write};

use crate::demo::View;

/// Looks between two lines in a file.
const LOOKS_PER_LINE: u64 = 5;

/// What the user sees: one line that is renewed in a terminal, lines now and then in a file.
#[derive(Debug)]
pub(super) struct Screen {
    is_terminal: bool,
    looks: u64,
    last: View,
}

impl Screen {
    /// The standard output.
    pub(super) fn new() -> Self {
        Self {
            is_terminal: std::io::stdout().is_terminal(),
            looks: 0,
            last: View::default(),
        }
    }

    /// Shows how things stand.
    pub(super) fn show(&mut self, mut view: View) {
        let seconds = view.seconds.saturating_sub(self.last.seconds);
        view.per_second = if seconds > 0 {
            (view.published - self.last.published) as f64 / seconds as f64
        } else {
            self.last.per_second
        };
        self.looks += 1;
        let mut out = std::io::stdout().lock();
        // A terminal that is gone shows nothing; the signal that comes with it ends the demo.
        if self.is_terminal {
            self.last = view;
            let _ = write!(out, "\r\x1b[2K{}", view.line());
            let _ = out.flush();
        } else if self.looks.is_multiple_of(LOOKS_PER_LINE) {
            self.last = view;
            let _ = writeln!(out, "{}", view.line());
        }
    }

    /// Says something that stays.
    pub(super) fn say(&self, text: &str) {
        let clear = if self.is_terminal { "\r\x1b[2K" } else { "" };
        let _ = writeln!(std::io::stdout().lock(), "{clear}{text}");
    }
}
