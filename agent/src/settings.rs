//! What the machine needs to know from the configuration, in plain values.

use catchment_common::time::{Span, Timestamp};
use serde::Deserialize;

use crate::source::SourceSettings;

/// The machine's settings. The rim reads them from the configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The agent's name: the one in its certificate.
    pub name: String,
    /// Bytes for open panes and their keys, taken at start. At least [`MEMORY_BYTES_MIN`].
    pub memory_bytes: usize,
    /// Largest payload that is looked at.
    pub payload_bytes_max: usize,
    /// Bytes on disk (or in memory, for an agent that keeps nothing) of batches. At least [`SPOOL_BYTES_MIN`].
    pub spool_bytes: u64,
    /// How long acknowledged batches are kept within those bytes.
    pub retain_acked: Span,
    /// Bytes on disk of readings that are not in batches yet, at least [`JOURNAL_BYTES_MIN`]; 0 keeps none.
    pub journal_bytes: u64,
    /// How long readings gather before they are made durable together.
    pub commit_delay: Span,
    /// Where readings come from.
    pub sources: Vec<SourceSettings>,
    /// What becomes of messages while the wall clock is not set, or not known to be right.
    pub clock_unset: ClockUnset,
    /// Whether the wall clock is known to be right at the start; see [`crate::clock`].
    pub clock_known: bool,
}

/// What becomes of messages that come while the wall clock may not be right: a gateway without a battery boots in 1970, or
/// when it was switched off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockUnset {
    /// They are left to the broker, which sends them again once the clock is set. QoS 0 cannot be left and is refused.
    #[default]
    Hold,
    /// They are refused.
    Reject,
    /// They are taken as if the clock were right.
    Take,
}

/// A wall clock before 2020 is not set.
pub const CLOCK_SET_FROM: Timestamp = Timestamp::clamped(1_577_836_800_000_000);

/// Least memory for open panes: a plan of one field then still fits some hundred keys.
pub const MEMORY_BYTES_MIN: usize = 64 << 10;
/// Least spool: some batches of the largest size.
pub const SPOOL_BYTES_MIN: u64 = 1 << 20;
/// Least journal.
pub const JOURNAL_BYTES_MIN: u64 = 256 << 10;
/// Most readings in one message.
pub const READINGS_PER_MESSAGE_MAX: usize = 10_000;
/// Readings that come behind the watermark are gathered this long before they leave as late deltas, so that a burst
/// of them is one batch and not many.
pub const LATE_SEAL_DELAY: Span = Span::from_millis(500);
/// Windows with `count` that are full are gathered this long, so that many keys whose windows fill one after another
/// cost a batch and a sync for all of them and not for each.
pub const COUNT_SEAL_DELAY: Span = Span::from_millis(100);
/// How long after a lost link the first attempt to make it again is made, at most.
pub const RETRY_MIN: Span = Span::from_millis(250);
/// Longest wait between two attempts to reach the aggregator.
pub const RETRY_MAX: Span = Span::from_secs(30);
/// While a source is away, panes that would be over are closed so often: the centre should not wait for what is there.
pub const AWAY_SEAL_DELAY: Span = Span::from_secs(5);
/// How often watermarks of silent sources are looked at.
pub const IDLE_CHECK: Span = Span::from_millis(250);
/// With so many bytes waiting, readings are made durable before the delay is over.
pub const COMMIT_BYTES: usize = 64 << 10;
/// After the disk failed, the next attempt waits this long.
pub const DISK_RETRY: Span = Span::from_secs(1);
