//! The table `[durability]`: what an agent keeps on disk, and how soon.

use std::time::Duration;

use serde::Deserialize;

use super::duration;

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
