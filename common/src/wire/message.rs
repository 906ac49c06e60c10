//! The messages of the control stream, as the program works with them: a kind byte, a version byte, and a body whose
//! form is the version's. What holds for a message of every version is checked here.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::WireFault;
use super::lineage::{DatabaseId, Forked, Lineage};
use crate::limits::{
    AGENT_NAME_BYTES_MAX, ANCESTORS_MAX, COUNTERS_MAX, LADDER_MAX, NUMBERS_MAX, PIPELINES_MAX, RANGES_MAX,
    SOURCE_NAME_BYTES_MAX, SOURCES_MAX, WINDOW_SIZE_MAX,
};
use crate::plan::{Pipeline, PipelineId};
use crate::time::{Span, Timestamp};

/// Seqs `first..=last` of some epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeqRange {
    /// The first seq.
    pub first: u64,
    /// The last seq, not below the first.
    pub last: u64,
}

/// Seq ranges of one epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochRange {
    /// The epoch.
    pub epoch: u64,
    /// Ascending and apart.
    pub ranges: Vec<SeqRange>,
}

/// What an agent says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The agent's name; must be the one in its certificate.
    pub agent: String,
    /// Name and version of its software.
    pub software: String,
    /// The epoch of this run.
    pub epoch: u64,
    /// The fingerprint of the plan that it runs ([`AgentPlan::fingerprint`]); 0 for none.
    pub plan: u64,
    /// The database that it was last linked to, which its plan and its new batches belong to; none before the first.
    pub database: Option<DatabaseId>,
    /// Where its state comes from; none from an agent whose disk does not work yet, which sends no batches, or of
    /// version 1.
    pub lineage: Option<Lineage>,
    /// The batches that it still holds.
    pub held: Vec<HeldEpoch>,
}

/// What an agent holds of one epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldEpoch {
    /// The epoch and the seqs.
    pub batches: EpochRange,
    /// The database that the epoch belongs to; none if that is of a time before databases had names.
    pub database: Option<DatabaseId>,
}

/// What an agent runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AgentPlan {
    /// The plan's version, for people: another database may have given it to another plan.
    pub version: u64,
    /// The pipelines with their ids.
    pub pipelines: Vec<(PipelineId, Pipeline)>,
    /// The coarsening ladders: for each pipeline that has one its rungs, ascending.
    pub coarser: Vec<Coarser>,
}

/// One rung of a pipeline's coarsening ladder. Agents take no readings in for it; when a spool nears its budget they
/// merge old deltas of `of` into the wider panes of `pipeline` and ship those in their place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coarser {
    /// The pipeline whose deltas are merged.
    pub of: PipelineId,
    /// The id under which the merged deltas are shipped. Its definition is that of `of` but for the pane.
    pub pipeline: PipelineId,
    /// Its pane width: a multiple of the rung before, and of the pane of `of`.
    pub pane: Span,
}

/// The aggregator's answer to a hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The database; none from an aggregator of version 1.
    pub database: Option<DatabaseId>,
    /// For an agent that runs a plan of version 1: the ids of all pipelines that have numbers.
    pub numbers: Vec<(u32, PipelineId)>,
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CounterSample {
    /// The pipeline that it is about, or [`PipelineId::NONE`] for the agent itself.
    pub pipeline: PipelineId,
    /// Which counter: [`crate::metrics::Counter::code`].
    pub counter: u8,
    /// Its value.
    pub value: u64,
}

/// What an agent says from time to time, and whenever its watermarks advance.
#[derive(Clone, PartialEq, Eq, Debug)]
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
    /// How the agent's sources are.
    pub sources: Vec<SourceState>,
    /// How the agent's clock is; none if that is not known.
    pub clock: Option<ClockState>,
}

/// How one source of messages is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceState {
    /// Its name in the agent's configuration.
    pub name: String,
    /// Whether messages can come in.
    pub is_connected: bool,
    /// Since when that is so, by the agent's wall clock.
    pub since: Timestamp,
}

/// How an agent's wall clock is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockState {
    /// How far it is ahead of the aggregator's, as of the last welcome.
    pub offset: Span,
    /// Whether the agent lets it move watermarks.
    pub is_trusted: bool,
}

/// Why the aggregator will never take a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// It has a pane of a time to come, further ahead of the aggregator's clock than the query's readings may be.
    TooEarly,
    /// It was gathered for another database, and what it means in this one is not certain.
    OtherDatabase,
}

/// A batch that will never be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// Aggregator: your state is an older copy; let go of what was gathered before this start, and greet anew.
    Forked(Forked),
}

impl Message {
    /// The kind byte.
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Welcome(_) => 2,
            Self::Ack(_) => 3,
            Self::Reject(_) => 4,
            Self::Plan(_) => 5,
            Self::Drain => 6,
            Self::Heartbeat(_) => 7,
            // 8 and 9 are batches and losses.
            Self::Forked(_) => 10,
        }
    }

    /// What holds for a message of every version.
    pub(super) fn check(&self) -> Result<(), WireFault> {
        match self {
            Self::Hello(hello) => {
                within(
                    hello.agent.len().max(hello.software.len()),
                    AGENT_NAME_BYTES_MAX,
                    "agent name",
                )?;
                let ancestors = hello.lineage.iter().map(|lineage| lineage.ancestors.len());
                within(ancestors.sum(), ANCESTORS_MAX, "ancestors")?;
                check_epochs(hello.held.iter().map(|held| &held.batches))
            }
            Self::Welcome(welcome) => {
                welcome.plan.as_ref().map_or(Ok(()), check_plan)?;
                within(welcome.numbers.len(), NUMBERS_MAX, "numbers of pipelines")?;
                check_epochs(welcome.committed.iter())
            }
            Self::Ack(range) => check_ranges(&range.ranges),
            Self::Plan(plan) => check_plan(plan),
            Self::Heartbeat(heartbeat) => {
                within(heartbeat.watermarks.len(), PIPELINES_MAX, "watermarks")?;
                within(heartbeat.counters.len(), COUNTERS_MAX, "counters")?;
                within(heartbeat.sources.len(), SOURCES_MAX, "sources")?;
                let names = heartbeat.sources.iter().map(|source| source.name.len());
                within(
                    names.max().unwrap_or(0),
                    SOURCE_NAME_BYTES_MAX,
                    "name of a source",
                )
            }
            Self::Reject(_) | Self::Drain | Self::Forked(_) => Ok(()),
        }
    }
}

pub(super) fn within(length: usize, limit: usize, what: &'static str) -> Result<(), WireFault> {
    if length <= limit {
        Ok(())
    } else {
        Err(WireFault::TooLong(what))
    }
}

fn check_epochs<'e>(epochs: impl Iterator<Item = &'e EpochRange> + Clone) -> Result<(), WireFault> {
    let ranges = { epochs.clone() }.map(|epoch| epoch.ranges.len() + 1).sum();
    within(ranges, RANGES_MAX, "seq ranges")?;
    { epochs }.try_for_each(|epoch| check_ranges(&epoch.ranges))
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
            return Err(WireFault::Invalid("pipeline stands twice"));
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
            return Err(WireFault::Invalid("pipeline stands twice"));
        }
    }
    Ok(())
}
