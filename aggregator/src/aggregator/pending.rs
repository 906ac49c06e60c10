//! What gathers for the next commit, and what waits for the one under way.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::metrics::Counter;
use catchment_common::plan::PipelineId;
use catchment_common::time::{Instant, Timestamp};
use catchment_common::wire::{Loss, SeqRange};

use super::ConnectionId;
use crate::commit::{AppendedBatch, Commit, CommitId, Forgotten, SetAside};
use crate::lineages::Newest;

/// What gathers for the next commit.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) batches: Vec<AppendedBatch>,
    pub(super) bytes: usize,
    /// Bytes of batches that were refused.
    pub(super) bytes_refused: usize,
    /// Seqs that the committed holds and the store does not yet, by agent and epoch.
    pub(super) claimed: Claims,
    pub(super) acks: Acks,
    /// How many seqs `acks` holds.
    pub(super) ack_count: usize,
    pub(super) losses: Vec<(String, Loss)>,
    /// Deltas and late deltas of a pane, by pipeline, pane and agent.
    pub(super) contributions: BTreeMap<(PipelineId, Timestamp, String), (u64, u64)>,
    /// Those that have advanced.
    pub(super) watermarks: Vec<(String, PipelineId, Timestamp)>,
    /// Agents whose watermarks an operator has set back.
    pub(super) set_back: BTreeSet<String>,
    pub(super) heard: BTreeSet<String>,
    pub(super) lineages: Vec<(String, Newest)>,
    /// Agents that have said hello.
    pub(super) returned: BTreeSet<String>,
    pub(super) counters: BTreeMap<(String, u64, PipelineId, Counter), u64>,
    /// Epochs that an operator lets be forgotten.
    pub(super) forgotten: Vec<Forgotten>,
    /// Stored batches that could not be merged again.
    pub(super) set_aside: Vec<SetAside>,
    /// Something that somebody waits for.
    pub(super) urgent: bool,
}

/// A commit that the store has been given.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) commit: Option<Commit>,
    pub(super) retry_at: Option<Instant>,
    pub(super) id: CommitId,
    pub(super) acks: Acks,
    pub(super) claimed: Claims,
    pub(super) returned: BTreeSet<String>,
}

pub(super) type Acks = BTreeMap<(ConnectionId, u64), Vec<u64>>;
pub(super) type Claims = BTreeMap<(String, u64), Vec<u64>>;

/// Seqs as ranges.
pub(super) fn ranges_of(mut seqs: Vec<u64>) -> Vec<SeqRange> {
    seqs.sort_unstable();
    seqs.dedup();
    let mut ranges: Vec<SeqRange> = Vec::new();
    for seq in seqs {
        match ranges.last_mut() {
            Some(last) if last.last + 1 == seq => last.last = seq,
            _ => ranges.push(SeqRange {
                first: seq,
                last: seq,
            }),
        }
    }
    ranges
}
