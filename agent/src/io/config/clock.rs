//! The table `[clock]`: what an agent does while its gateway does not know the time.

use serde::Deserialize;

use crate::settings::ClockUnset;

/// The gateway's clock.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clock {
    /// What becomes of messages while it is not set or not confirmed: `hold`, `reject` or `take`.
    pub unset: ClockUnset,
    /// Whether somebody must confirm it (the aggregator, a time service, or an earlier run) before it is believed.
    pub confirm: bool,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            unset: ClockUnset::default(),
            confirm: true,
        }
    }
}

impl Clock {
    /// The policy as it is written.
    pub fn name(&self) -> &'static str {
        match self.unset {
            ClockUnset::Hold => "hold",
            ClockUnset::Reject => "reject",
            ClockUnset::Take => "take",
        }
    }
}
