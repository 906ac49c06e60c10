//! The table `[durability]`: what an agent keeps on disk, and how soon.

use std::time::Duration;

use serde::Deserialize;

use super::{Config, Mqtt, duration};
use crate::source::mqtt::in_flight;

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
/// A broker is told to send ahead at most this part of the messages that can be remembered of it beside the journal, because
/// not every broker keeps to it: Mosquitto 2.0 was seen with four times as many.
const SHARE_UNDER_WAY: usize = 8;

impl Config {
    /// How many messages a broker is told to send ahead of their acknowledgements.
    pub(in crate::io) fn receive_maximum(&self, mqtt: &Mqtt) -> u16 {
        let remembered = in_flight::share(self.journal_bytes(), self.sources.len());
        let most = u16::try_from(remembered / SHARE_UNDER_WAY).unwrap_or(u16::MAX);
        mqtt.receive_maximum.min(most.max(1))
    }

    /// How many messages a broker sends ahead.
    pub(super) fn redelivery_window(&self, mqtt: &Mqtt) -> usize {
        match mqtt.protocol {
            5 => usize::from(self.receive_maximum(mqtt)),
            _ => WINDOW_OF_3_1_1,
        }
    }

    /// Bytes of the journal; 0 if there is none.
    pub(super) fn journal_bytes(&self) -> u64 {
        match self.durability.mode {
            Mode::Disk => self.limits.journal.as_u64(),
            Mode::Memory => 0,
        }
    }
}
