//! Asks whether somebody has confirmed the clock, and remembers the answer for the next start.

use catchment_common::time::{Instant, Now, Span};
use tracing::{info, warn};

use super::clock_file::{self, ClockFile};
use crate::agent::Agent;
use crate::settings::{CLOCK_SET_FROM, ClockUnset};

/// How often a time service is asked while nobody has confirmed the clock.
const LOOK_EVERY: Span = Span::from_secs(1);

/// Watches the clock until it is confirmed.
#[derive(Debug)]
pub(super) struct ClockWatch {
    file: ClockFile,
    is_confirmed: bool,
    next_look: Instant,
}

impl ClockWatch {
    /// A watch that begins now. `is_known` says that nobody has to confirm the clock, or that somebody has.
    pub(super) fn start(file: ClockFile, policy: ClockUnset, is_known: bool, now: Now) -> Self {
        if now.wall < CLOCK_SET_FROM {
            warn!(?policy, "the clock is not set; see `clock` in the configuration");
        } else if !is_known {
            info!(
                ?policy,
                "the clock is not confirmed yet, by the aggregator or a time service; until then readings are treated as \
                 `clock.unset` says"
            );
        }
        Self {
            file,
            is_confirmed: is_known,
            next_look: now.monotonic,
        }
    }

    /// Whether the clock is right by what there is beside the aggregator.
    pub(super) fn is_known(file: &ClockFile, now: Now) -> bool {
        now.wall >= CLOCK_SET_FROM && (clock_file::is_synchronized() || file.confirms(now.wall))
    }

    /// Time has passed, or the aggregator has said something.
    pub(super) fn look(&mut self, agent: &mut Agent, now: Now) {
        if self.is_confirmed {
            return;
        }
        if self.next_look <= now.monotonic {
            self.next_look = now.monotonic + LOOK_EVERY;
            if clock_file::is_synchronized() {
                agent.confirm_clock();
            }
        }
        if agent.clock().is_confirmed() && now.wall >= CLOCK_SET_FROM {
            self.is_confirmed = true;
            info!("the clock is confirmed");
            if let Err(error) = self.file.save(now.wall) {
                warn!(%error, "cannot keep that the clock is confirmed; the next start waits for the aggregator");
            }
        }
    }
}
