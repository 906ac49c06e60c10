//! The messages of the control stream: a kind byte, a version byte, and a postcard body of the type of that kind.
//!
//! Types are frozen per version: a field more means a new version, and enum variants are only ever appended.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{VERSION, WireFault};
use crate::limits::{
    AGENT_NAME_BYTES_MAX, COUNTERS_MAX, FRAME_BYTES_MAX, LADDER_MAX, PIPELINES_MAX, RANGES_MAX,
    WINDOW_SIZE_MAX,
};
use crate::plan::{Pipeline, PipelineId};
use crate::time::{Span, Timestamp};

/// Seqs `first..=last` of some epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeqRange {
    /// The first seq.
    pub first: u64,
    /// The last seq, not below the first.
    pub last: u64,
}

/// Seq ranges of one epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochRange {
    /// The epoch.
    pub epoch: u64,
    /// Ascending and apart.
    pub ranges: Vec<SeqRange>,
}

/// What an agent says first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's name; must be the one in its certificate.
    pub agent: String,
    /// Name and version of its software.
    pub software: String,
    /// The epoch of this run.
    pub epoch: u64,
    /// The version of the plan that it runs; 0 for none.
    pub plan_version: u64,
    /// The batches that it still holds.
    pub held: Vec<EpochRange>,
}

/// What an agent runs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AgentPlan {
    /// The plan's version.
    pub version: u64,
    /// The pipelines with their numbers.
    pub pipelines: Vec<(PipelineId, Pipeline)>,
    /// The coarsening ladders: for each pipeline that has one its rungs, ascending.
    pub coarser: Vec<Coarser>,
}

/// One rung of a pipeline's coarsening ladder. Agents take no readings in for it; when a spool nears its budget they
/// merge old deltas of `of` into the wider panes of `pipeline` and ship those in their place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Coarser {
    /// The pipeline whose deltas are merged.
    pub of: PipelineId,
    /// The number under which the merged deltas are shipped. Its definition is that of `of` but for the pane.
    pub pipeline: PipelineId,
    /// Its pane width: a multiple of the rung before, and of the pane of `of`.
    pub pane: Span,
}

/// The aggregator's answer to a hello.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The plan to run, when it differs from the one that the agent runs.
    pub plan: Option<AgentPlan>,
    /// For each epoch of the hello: which of the held batches are committed already.
    pub committed: Vec<EpochRange>,
    /// The aggregator's wall clock.
    pub server_time: Timestamp,
    /// How often the agent is to send a heartbeat.
    pub heartbeat: Span,
}

/// A number that an agent counts, cumulative within its era.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CounterSample {
    /// The pipeline that it is about, or pipeline 0 for the agent itself.
    pub pipeline: PipelineId,
    /// Which counter: [`crate::metrics::Counter::code`].
    pub counter: u8,
    /// Its value.
    pub value: u64,
}

/// What an agent says from time to time, and whenever its watermarks advance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The epoch that the seq belongs to.
    pub epoch: u64,
    /// The era that the counters belong to: drawn at random when the agent's state is new, and kept across restarts, so
    /// that counters go on rather than start over.
    pub era: u64,
    /// The last batch sealed in this epoch, 0 for none.
    pub seq: u64,
    /// The oldest batch of this epoch that the agent still holds, `seq + 1` for none. Older ones are committed, refused
    /// or lost: the watermarks hold once every seq from this one to `seq` is committed.
    pub oldest: u64,
    /// For each pipeline: no more on-time readings before this instant.
    pub watermarks: Vec<(PipelineId, Timestamp)>,
    /// The counters.
    pub counters: Vec<CounterSample>,
    /// Batches that are not acknowledged yet.
    pub backlog_batches: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
}

/// Why the aggregator will never take a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RejectReason {
    /// The checksum does not match.
    Checksum,
    /// A version that the aggregator does not speak.
    Version,
    /// The bytes are not a batch, or break its invariants.
    Malformed,
    /// A pipeline that the aggregator does not know, or one that keeps other components.
    UnknownPipeline,
    /// A pane that does not fit its pipeline.
    BadPane,
    /// A key that names another agent, in a pipeline whose keys name the agent.
    OtherAgent,
    /// With it a pane would have more readings of one key than there may be.
    TooManyReadings,
}

/// A batch that will never be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// The batch's epoch.
    pub epoch: u64,
    /// The batch's seq.
    pub seq: u64,
    /// Why.
    pub reason: RejectReason,
}

/// A message of the control stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Agent: who I am and what I hold.
    Hello(Hello),
    /// Aggregator: what to run, and what I have.
    Welcome(Welcome),
    /// Aggregator: these batches are durable here; forget them.
    Ack(EpochRange),
    /// Aggregator: I will never take this batch; forget it and count it.
    Reject(Refusal),
    /// Aggregator: run this from now on.
    Plan(AgentPlan),
    /// Aggregator: I am going away; send nothing new and reconnect later.
    Drain,
    /// Agent: how I am.
    Heartbeat(Heartbeat),
}

impl Message {
    /// The frame's bytes.
    pub fn emit(&self) -> Vec<u8> {
        match self {
            Self::Hello(body) => frame(1, body),
            Self::Welcome(body) => frame(2, body),
            Self::Ack(body) => frame(3, body),
            Self::Reject(body) => frame(4, body),
            Self::Plan(body) => frame(5, body),
            Self::Drain => frame(6, &()),
            Self::Heartbeat(body) => frame(7, body),
        }
    }

    /// Reads a frame and checks its bounds. Batches are not messages and are refused by kind.
    pub fn parse(frame: &[u8]) -> Result<Self, WireFault> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(WireFault::TooLong("frame"));
        }
        let [kind, version, body @ ..] = frame else {
            return Err(WireFault::Truncated);
        };
        if *version != VERSION {
            return Err(WireFault::Version(*version));
        }
        let message = match kind {
            1 => Self::Hello(take(body)?),
            2 => Self::Welcome(take(body)?),
            3 => Self::Ack(take(body)?),
            4 => Self::Reject(take(body)?),
            5 => Self::Plan(take(body)?),
            6 => take::<()>(body).map(|()| Self::Drain)?,
            7 => Self::Heartbeat(take(body)?),
            other => return Err(WireFault::Kind(*other)),
        };
        message.check()?;
        Ok(message)
    }

    fn check(&self) -> Result<(), WireFault> {
        match self {
            Self::Hello(hello) => {
                within(
                    hello.agent.len().max(hello.software.len()),
                    AGENT_NAME_BYTES_MAX,
                    "agent name",
                )?;
                check_epochs(&hello.held)
            }
            Self::Welcome(welcome) => {
                welcome.plan.as_ref().map_or(Ok(()), check_plan)?;
                check_time(welcome.server_time)?;
                check_epochs(&welcome.committed)
            }
            Self::Ack(range) => check_ranges(&range.ranges),
            Self::Plan(plan) => check_plan(plan),
            Self::Heartbeat(heartbeat) => {
                within(heartbeat.watermarks.len(), PIPELINES_MAX, "watermarks")?;
                within(heartbeat.counters.len(), COUNTERS_MAX, "counters")?;
                heartbeat
                    .watermarks
                    .iter()
                    .try_for_each(|(_, watermark)| check_time(*watermark))
            }
            Self::Reject(_) | Self::Drain => Ok(()),
        }
    }
}

fn frame(kind: u8, body: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(body, alloc::vec![kind, VERSION])
        .expect("a vector takes any length and our types have no maps")
}

fn take<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, WireFault> {
    let (value, rest) = postcard::take_from_bytes(body).map_err(|error| match error {
        postcard::Error::DeserializeUnexpectedEnd => WireFault::Truncated,
        _ => WireFault::Invalid("message body"),
    })?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(WireFault::Trailing)
    }
}

fn within(length: usize, limit: usize, what: &'static str) -> Result<(), WireFault> {
    if length <= limit {
        Ok(())
    } else {
        Err(WireFault::TooLong(what))
    }
}

fn check_time(time: Timestamp) -> Result<(), WireFault> {
    // Serialisation carries the bare number; the bounds are checked where it comes in.
    Timestamp::from_micros(time.as_micros())
        .map(|_| ())
        .ok_or(WireFault::Invalid("timestamp"))
}

fn check_epochs(epochs: &[EpochRange]) -> Result<(), WireFault> {
    let ranges = epochs.iter().map(|epoch| epoch.ranges.len() + 1).sum();
    within(ranges, RANGES_MAX, "seq ranges")?;
    epochs.iter().try_for_each(|epoch| check_ranges(&epoch.ranges))
}

fn check_ranges(ranges: &[SeqRange]) -> Result<(), WireFault> {
    within(ranges.len(), RANGES_MAX, "seq ranges")?;
    let ordered = ranges.iter().all(|range| range.first <= range.last)
        && ranges.windows(2).all(|pair| pair[0].last < pair[1].first);
    if ordered {
        Ok(())
    } else {
        Err(WireFault::Invalid("seq ranges do not ascend"))
    }
}

fn check_plan(plan: &AgentPlan) -> Result<(), WireFault> {
    within(plan.pipelines.len(), PIPELINES_MAX, "pipelines")?;
    within(
        plan.coarser.len(),
        PIPELINES_MAX * LADDER_MAX,
        "coarser pipelines",
    )?;
    plan.pipelines
        .iter()
        .try_for_each(|(_, pipeline)| pipeline.check().map_err(WireFault::Invalid))?;
    let mut numbers = BTreeSet::new();
    let mut reached = BTreeMap::new();
    for (id, pipeline) in &plan.pipelines {
        if !numbers.insert(*id) {
            return Err(WireFault::Invalid("pipeline number stands twice"));
        }
        reached.insert(*id, pipeline.pane);
    }
    for rung in &plan.coarser {
        let below = reached
            .get_mut(&rung.of)
            .ok_or(WireFault::Invalid("coarser pipeline of no pipeline"))?;
        if rung.pane <= *below || rung.pane > WINDOW_SIZE_MAX || !rung.pane.is_multiple_of(*below) {
            return Err(WireFault::Invalid("coarser pane width"));
        }
        *below = rung.pane;
        if !numbers.insert(rung.pipeline) {
            return Err(WireFault::Invalid("pipeline number stands twice"));
        }
    }
    Ok(())
}
