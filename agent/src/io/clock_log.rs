//! What the log says about the gateway's wall clock: when it turns out to be off, and when it is right again.

use std::time::Duration;

use catchment_common::wire::ClockState;
use tracing::{info, warn};

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct ClockLog {
    is_off: bool,
}

impl ClockLog {
    /// Looks whether there is something to say.
    pub(super) fn look(&mut self, clock: Option<ClockState>) {
        let Some(clock) = clock else { return };
        if clock.is_trusted != self.is_off {
            return;
        }
        self.is_off = !clock.is_trusted;
        let seconds = Duration::from_secs(clock.offset.as_micros().unsigned_abs() / 1_000_000);
        let off = humantime::format_duration(seconds);
        match (self.is_off, clock.offset.as_micros() > 0) {
            (false, _) => info!("the gateway's clock is right again"),
            (true, true) => warn!(
                ahead = %off,
                "the gateway's clock is ahead of the aggregator's; set it (NTP). Until then no watermark follows it, and \
                 readings are treated as `clock.unset` says, or have a wrong arrival time if the clock was right before"
            ),
            (true, false) => warn!(
                behind = %off,
                "the gateway's clock is behind the aggregator's; set it (NTP). Until then no watermark follows it, and \
                 readings are treated as `clock.unset` says, or have a wrong arrival time if the clock was right before"
            ),
        }
    }
}
