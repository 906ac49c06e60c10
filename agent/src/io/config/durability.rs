//! The table `[durability]`: what an agent keeps on disk, and how soon.

use std::time::Duration;

use serde::Deserialize;

use super::{Config, duration};
use crate::journal::SEGMENTS_MAX;

/// What survives the process.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Durability {
    /// `disk`, or `memory` to keep nothing: a restart then loses what was not sent.
    pub mode: Mode,
    /// How long readings gather before they are made durable together. Longer is fewer writes, and later
    /// acknowledgements to the broker.
    #[serde(deserialize_with = "duration")]
    pub commit_delay: Duration,
    /// How long acknowledged batches are kept, for an aggregator that is restored from a backup.
    #[serde(deserialize_with = "duration")]
    pub retain_acked: Duration,
}

/// Where batches and readings are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In files.
    Disk,
    /// In memory only.
    Memory,
}

impl Default for Durability {
    fn default() -> Self {
        Self {
            mode: Mode::Disk,
            commit_delay: Duration::from_millis(5),
            retain_acked: Duration::from_hours(1),
        }
    }
}

/// Most QoS 1 messages that brokers send ahead with MQTT 3.1.1, where it is theirs to say: far above any default.
const WINDOW_OF_3_1_1: usize = 1_024;
/// So many windows of messages are remembered. One is what a broker may have under way; Mosquitto 2.0, told 1,000, was
/// seen with 4,247 (1,773 of them taken already), and what is not remembered when it comes again counts twice.
const WINDOWS: usize = 4;
/// Remembered messages are carried from segment to segment of the journal, 7 bytes each: a quarter of one at most.
const MESSAGE_BYTES: u64 = 7;

impl Config {
    /// How many messages are remembered in case they come again.
    pub(super) fn redelivery_window(&self) -> usize {
        let window = match self.broker.protocol {
            5 => usize::from(self.broker.receive_maximum),
            _ => WINDOW_OF_3_1_1,
        };
        let carried = self.limits.journal.as_u64() / u64::from(SEGMENTS_MAX) / 4 / MESSAGE_BYTES;
        (WINDOWS * window).min(carried as usize).max(window)
    }
}
