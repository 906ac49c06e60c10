//! What becomes durable together, and the seam to the store.
//!
//! A commit is one transaction: the batches as they came, the seqs that they claim, the watermarks and result rows that
//! follow from them. Claiming a seq and merging its batch can therefore never come apart. Acknowledgements leave only
//! after the store says that the commit is durable.
//!
//! A checkpoint rides in a commit: the dirty panes as columns, in place of the appended batches that they contain. It
//! holds exactly what has been merged up to this commit, so start is: load the panes, replay the batches appended
//! since, and the same bytes come out.

use std::sync::Arc;

use bytes::Bytes;
use catchment_common::metrics::Counter;
use catchment_common::plan::{PipelineId, Query};
use catchment_common::stats::Lowered;
use catchment_common::time::{Span, Timestamp};
use catchment_common::wire::{Loss, SeqRange, SourceState};

use crate::lineages::Newest;

/// Names a commit.
pub type CommitId = u64;

/// One transaction.
#[derive(Clone, PartialEq, Debug)]
pub struct Commit {
    /// Counts up by one.
    pub id: CommitId,
    /// Batches to append, in the order in which they were merged.
    pub batches: Vec<AppendedBatch>,
    /// Epochs whose seqs are no longer remembered, because an operator said so.
    pub forgotten: Vec<Forgotten>,
    /// What became known of seqs: agent, epoch, and the ranges that changed. Each takes the place of the stored ranges
    /// that begin within it.
    pub committed: Vec<(String, u64, Vec<SeqRange>)>,
    /// Watermarks that advanced.
    pub watermarks: Vec<(String, PipelineId, Timestamp)>,
    /// Agents whose watermarks were set back, because an operator said so.
    pub set_back: Vec<String>,
    /// Agents that were heard.
    pub agents: Vec<AgentRow>,
    /// The epochs that greeted in lineages of agents.
    pub lineages: Vec<(String, Newest)>,
    /// What agents had to give up: agent and record.
    pub losses: Vec<(String, Loss)>,
    /// Counters that agents reported: agent, era, pipeline, counter, value.
    pub counters: Vec<(String, u64, PipelineId, Counter, u64)>,
    /// The queries that the indices in `results` and `checkpoint` mean. A commit may outlive the plan that it was made
    /// under, because it is tried again until it succeeds.
    pub queries: Arc<[Query]>,
    /// Result rows, query by query.
    pub results: Vec<QueryResults>,
    /// Who has shipped what of which pane.
    pub contributions: Vec<Contribution>,
    /// What was stored and cannot be read.
    pub set_aside: Vec<SetAside>,
    /// The wall clock.
    pub at: Timestamp,
    /// Panes to store in place of all appended batches, this commit's included.
    pub checkpoint: Option<Checkpoint>,
}

/// An agent whose epochs an operator lets be forgotten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forgotten {
    /// Its name.
    pub agent: String,
    /// The epochs; those that it holds batches of while it is connected stay.
    pub epochs: Vec<u64>,
}

/// What an agent has shipped of a pane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contribution {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The pane's start.
    pub pane: Timestamp,
    /// Who shipped it.
    pub agent: String,
    /// Deltas over all keys.
    pub deltas: u64,
    /// Of these, those that came when a window over the pane had been shown.
    pub late: u64,
}

/// Why rows of a window are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// All expected agents have passed its end.
    Complete,
    /// Patience for those that have not is over.
    Patience,
    /// It had been shown, and has new data.
    LateData,
    /// A coarser pane has new data.
    CoarsePane,
    /// It has all its readings.
    Full,
    /// A part of it left the agent early.
    Part,
    /// Others have passed its end, or are expected, than before.
    Coverage,
}

impl Why {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Complete => "all agents have passed",
            Self::Patience => "patience is over",
            Self::LateData => "late data",
            Self::CoarsePane => "a coarser pane",
            Self::Full => "it is full",
            Self::Part => "a part of it",
            Self::Coverage => "coverage has changed",
        }
    }
}

/// A batch as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppendedBatch {
    /// Who sent it.
    pub agent: String,
    /// Its epoch.
    pub epoch: u64,
    /// Its seq.
    pub seq: u64,
    /// Its frame.
    pub frame: Bytes,
}

/// What is known of an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentRow {
    /// Its name.
    pub name: String,
    /// When it was last heard.
    pub heard: Timestamp,
    /// The plan that it said it runs.
    pub plan_version: u64,
    /// Its software.
    pub software: String,
    /// Batches that it has not had acknowledged, as it last said.
    pub backlog_batches: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
    /// How often another agent of the same name was found alive.
    pub conflicts: u64,
    /// How far its wall clock was ahead of the aggregator's, as it last said; none if it does not know.
    pub clock_offset: Option<Span>,
    /// How often an older copy of its state greeted.
    pub forks: u64,
    /// How its sources are, as it last said.
    pub sources: Vec<SourceState>,
    /// It said hello: if it was retired, it is no longer.
    pub returned: bool,
}

/// Changes to one query's result table.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct QueryResults {
    /// The query's index in [`Commit::queries`].
    pub query: usize,
    /// Every window that ends by then has been shown.
    pub emitted_through: Option<Timestamp>,
    /// New and revised rows, window by window.
    pub windows: Vec<WindowRows>,
    /// Windows whose status changes without new data.
    pub statuses: Vec<WindowStatus>,
    /// New and revised rows of count windows.
    pub counted: Vec<CountedRow>,
    /// Windows that have new data and are yet to be revised, of the keys for which that has changed.
    pub unrevised: Vec<Unrevised>,
}

/// Windows of a key that are to be revised with the next commits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unrevised {
    /// The key.
    pub key: Box<[u8]>,
    /// The starts of the first and the last window of each stretch; nothing if all are done.
    pub windows: Vec<(Timestamp, Timestamp)>,
}

/// A count window of one key and agent.
#[derive(Clone, PartialEq, Debug)]
pub struct CountedRow {
    /// Its number: whole milliseconds.
    pub number: Timestamp,
    /// The earliest time of its readings.
    pub start: Timestamp,
    /// The latest time of its readings, which is in it.
    pub end: Timestamp,
    /// Whether it has all its readings.
    pub is_final: bool,
    /// The row. The agent is the last tag of its key.
    pub row: Row,
}

/// Rows of one window, or of one coarser pane.
#[derive(Clone, PartialEq, Debug)]
pub struct WindowRows {
    /// The window and how complete it is.
    pub status: WindowStatus,
    /// Why they are written.
    pub why: Why,
    /// Whether this is not a window but a coarser pane that fits none: its rows stand beside the windows'.
    pub is_coarse: bool,
    /// Whether this is a session. Its rows are known by their start: their end may have been another. All rows of the
    /// same keys that start within it are part of it now.
    pub is_session: bool,
    /// The rows.
    pub rows: Vec<Row>,
}

/// How complete a window is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct WindowStatus {
    /// The window's start.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
    /// Whether all expected agents have passed its end.
    pub is_final: bool,
    /// Whether it began when the readings of its query were taken already.
    pub is_whole: bool,
    /// Agents that have passed ÷ agents expected.
    pub coverage: f64,
}

/// One result row.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// The key's bytes.
    pub key: Box<[u8]>,
    /// How many readings.
    pub readings: u64,
    /// For each field and aggregate, fields outermost.
    pub values: Vec<Option<Lowered>>,
}

/// Panes as columns.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// Each in place of what is stored of it.
    pub panes: Vec<CheckpointPane>,
    /// What retention lets go.
    pub expired: Expired,
}

/// A pane as it is to be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckpointPane {
    /// Its pipeline.
    pub pipeline: PipelineId,
    /// Its start.
    pub start: Timestamp,
    /// Its chunks, numbered from 0; at least one. Chunks of an earlier state with larger numbers go: a pane that grows
    /// can shrink on disk, when a histogram joins its buckets or a series has too many points to keep any.
    pub chunks: Vec<Vec<u8>>,
}

/// Something that was stored and cannot be read: the store keeps its bytes where nothing reads them, and says so. The
/// start and the commits go on without it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetAside {
    /// What it is.
    pub what: Unreadable,
    /// Why it cannot be read.
    pub reason: String,
}

/// Names something that is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// A chunk of a pane.
    Chunk {
        /// The pane's pipeline.
        pipeline: PipelineId,
        /// The pane's start.
        pane: Timestamp,
        /// The pane's end.
        end: Timestamp,
        /// The chunk's number.
        number: u32,
    },
    /// A batch that was appended after the last checkpoint.
    Batch {
        /// Who sent it.
        agent: String,
        /// Its epoch.
        epoch: u64,
        /// Its seq.
        seq: u64,
    },
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chunk {
                pipeline,
                pane,
                number,
                ..
            } => write!(
                f,
                "chunk {number} of the pane at {} µs of pipeline {}",
                pane.as_micros(),
                pipeline.0
            ),
            Self::Batch { agent, epoch, seq } => write!(f, "batch {seq} of epoch {epoch:016x} of {agent}"),
        }
    }
}

/// What is older than anybody wants to keep.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expired {
    /// Result rows of a query, by its index in [`Commit::queries`], of windows that start before this.
    pub rows: Vec<(usize, Timestamp)>,
    /// Panes of a pipeline that start before this.
    pub panes: Vec<(PipelineId, Timestamp)>,
}

impl Default for Commit {
    fn default() -> Self {
        Self {
            id: 0,
            batches: Vec::new(),
            forgotten: Vec::new(),
            committed: Vec::new(),
            watermarks: Vec::new(),
            set_back: Vec::new(),
            agents: Vec::new(),
            lineages: Vec::new(),
            losses: Vec::new(),
            counters: Vec::new(),
            queries: Arc::default(),
            results: Vec::new(),
            contributions: Vec::new(),
            set_aside: Vec::new(),
            at: Timestamp::MIN,
            checkpoint: None,
        }
    }
}

impl Commit {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
            && self.forgotten.is_empty()
            && self.committed.is_empty()
            && self.watermarks.is_empty()
            && self.set_back.is_empty()
            && self.agents.is_empty()
            && self.lineages.is_empty()
            && self.losses.is_empty()
            && self.counters.is_empty()
            && self.results.is_empty()
            && self.set_aside.is_empty()
            && self.checkpoint.is_none()
    }
}

/// A stored chunk of a pane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredChunk {
    /// Its number within the pane.
    pub number: u32,
    /// Its columns.
    pub columns: Vec<u8>,
}

/// Where panes are read from that are not in memory.
pub trait PaneSource {
    /// The stored chunks of a pane in the order of their numbers; none if it was never stored.
    fn chunks(&self, pipeline: PipelineId, pane: Timestamp) -> Result<Vec<StoredChunk>, SourceFault>;

    /// The starts of the stored panes of a pipeline from one instant up to another, that one included.
    fn starts(
        &self,
        pipeline: PipelineId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Timestamp>, SourceFault>;
}

/// The store could not be read. The text is for the operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot read a stored pane: {0}")]
pub struct SourceFault(pub String);

/// A source without anything, for a store that is new.
#[derive(Clone, Copy, Debug)]
pub struct NoPanes;

impl PaneSource for NoPanes {
    fn chunks(&self, _: PipelineId, _: Timestamp) -> Result<Vec<StoredChunk>, SourceFault> {
        Ok(Vec::new())
    }

    fn starts(&self, _: PipelineId, _: Timestamp, _: Timestamp) -> Result<Vec<Timestamp>, SourceFault> {
        Ok(Vec::new())
    }
}
