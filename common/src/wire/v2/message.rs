//! The bodies of messages.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::all;
use super::pipeline::AgentPlan;
use crate::limits::EXTENSIONS_MAX;
use crate::plan::PipelineId;
use crate::time::{Span, Timestamp};
use crate::wire::message::{self as program, within};
use crate::wire::{self, WireFault};

/// What a later version may add to a message: tags and bytes. A reader passes over tags that it does not know, so
/// whatever must not be passed over is not for here.
type Extensions = Vec<(u16, Vec<u8>)>;

fn check(extensions: &Extensions) -> Result<(), WireFault> {
    within(extensions.len(), EXTENSIONS_MAX, "extensions")
}

#[derive(Serialize, Deserialize)]
struct SeqRange {
    first: u64,
    last: u64,
}

impl From<&program::SeqRange> for SeqRange {
    fn from(&program::SeqRange { first, last }: &program::SeqRange) -> Self {
        Self { first, last }
    }
}

impl From<SeqRange> for program::SeqRange {
    fn from(SeqRange { first, last }: SeqRange) -> Self {
        Self { first, last }
    }
}

#[derive(Serialize, Deserialize)]
struct EpochRange {
    epoch: u64,
    ranges: Vec<SeqRange>,
}

impl From<&program::EpochRange> for EpochRange {
    fn from(epoch: &program::EpochRange) -> Self {
        Self {
            epoch: epoch.epoch,
            ranges: all(&epoch.ranges),
        }
    }
}

impl From<EpochRange> for program::EpochRange {
    fn from(epoch: EpochRange) -> Self {
        Self {
            epoch: epoch.epoch,
            ranges: all(epoch.ranges),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    agent: String,
    software: String,
    epoch: u64,
    plan_version: u64,
    held: Vec<EpochRange>,
    extensions: Extensions,
}

impl From<&program::Hello> for Hello {
    fn from(hello: &program::Hello) -> Self {
        Self {
            agent: hello.agent.clone(),
            software: hello.software.clone(),
            epoch: hello.epoch,
            plan_version: hello.plan_version,
            held: all(&hello.held),
            extensions: Vec::new(),
        }
    }
}

impl TryFrom<Hello> for program::Hello {
    type Error = WireFault;

    fn try_from(hello: Hello) -> Result<Self, WireFault> {
        check(&hello.extensions)?;
        Ok(Self {
            agent: hello.agent,
            software: hello.software,
            epoch: hello.epoch,
            plan_version: hello.plan_version,
            held: all(hello.held),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Welcome {
    plan: Option<AgentPlan>,
    committed: Vec<EpochRange>,
    server_time_us: i64,
    heartbeat_us: i64,
    extensions: Extensions,
}

impl From<&program::Welcome> for Welcome {
    fn from(welcome: &program::Welcome) -> Self {
        Self {
            plan: welcome.plan.as_ref().map(Into::into),
            committed: all(&welcome.committed),
            server_time_us: welcome.server_time.as_micros(),
            heartbeat_us: welcome.heartbeat.as_micros(),
            extensions: Vec::new(),
        }
    }
}

impl TryFrom<Welcome> for program::Welcome {
    type Error = WireFault;

    fn try_from(welcome: Welcome) -> Result<Self, WireFault> {
        check(&welcome.extensions)?;
        Ok(Self {
            plan: welcome.plan.map(TryInto::try_into).transpose()?,
            committed: all(welcome.committed),
            server_time: timestamp(welcome.server_time_us)?,
            heartbeat: Span::from_micros(welcome.heartbeat_us),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Ack {
    batches: EpochRange,
    extensions: Extensions,
}

impl From<&program::EpochRange> for Ack {
    fn from(batches: &program::EpochRange) -> Self {
        Self {
            batches: batches.into(),
            extensions: Vec::new(),
        }
    }
}

impl TryFrom<Ack> for program::EpochRange {
    type Error = WireFault;

    fn try_from(ack: Ack) -> Result<Self, WireFault> {
        check(&ack.extensions)?;
        Ok(ack.batches.into())
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Refusal {
    epoch: u64,
    seq: u64,
    reason: RejectReason,
    extensions: Extensions,
}

#[derive(Serialize, Deserialize)]
enum RejectReason {
    Checksum,
    Version,
    Malformed,
    UnknownPipeline,
    BadPane,
    OtherAgent,
    TooManyReadings,
}

impl From<&program::Refusal> for Refusal {
    fn from(refusal: &program::Refusal) -> Self {
        use program::RejectReason as Program;
        Self {
            epoch: refusal.epoch,
            seq: refusal.seq,
            reason: match refusal.reason {
                Program::Checksum => RejectReason::Checksum,
                Program::Version => RejectReason::Version,
                Program::Malformed => RejectReason::Malformed,
                Program::UnknownPipeline => RejectReason::UnknownPipeline,
                Program::BadPane => RejectReason::BadPane,
                Program::OtherAgent => RejectReason::OtherAgent,
                Program::TooManyReadings => RejectReason::TooManyReadings,
            },
            extensions: Vec::new(),
        }
    }
}

impl TryFrom<Refusal> for program::Refusal {
    type Error = WireFault;

    fn try_from(refusal: Refusal) -> Result<Self, WireFault> {
        use program::RejectReason as Program;
        check(&refusal.extensions)?;
        Ok(Self {
            epoch: refusal.epoch,
            seq: refusal.seq,
            reason: match refusal.reason {
                RejectReason::Checksum => Program::Checksum,
                RejectReason::Version => Program::Version,
                RejectReason::Malformed => Program::Malformed,
                RejectReason::UnknownPipeline => Program::UnknownPipeline,
                RejectReason::BadPane => Program::BadPane,
                RejectReason::OtherAgent => Program::OtherAgent,
                RejectReason::TooManyReadings => Program::TooManyReadings,
            },
        })
    }
}

/// A plan of its own, and what an agent keeps beside its journal.
#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    plan: AgentPlan,
    extensions: Extensions,
}

impl From<&wire::AgentPlan> for Plan {
    fn from(plan: &wire::AgentPlan) -> Self {
        Self {
            plan: plan.into(),
            extensions: Vec::new(),
        }
    }
}

impl TryFrom<Plan> for wire::AgentPlan {
    type Error = WireFault;

    fn try_from(plan: Plan) -> Result<Self, WireFault> {
        check(&plan.extensions)?;
        plan.plan.try_into()
    }
}

/// The aggregator is going away.
#[derive(Serialize, Deserialize, Default)]
pub(super) struct Drain {
    extensions: Extensions,
}

impl Drain {
    pub(super) fn check(&self) -> Result<(), WireFault> {
        check(&self.extensions)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Heartbeat {
    epoch: u64,
    era: u64,
    seq: u64,
    oldest: u64,
    watermarks: Vec<(u32, i64)>,
    counters: Vec<CounterSample>,
    backlog_batches: u64,
    backlog_bytes: u64,
    extensions: Extensions,
}

#[derive(Serialize, Deserialize)]
struct CounterSample {
    pipeline: u32,
    counter: u8,
    value: u64,
}

impl From<&program::Heartbeat> for Heartbeat {
    fn from(heartbeat: &program::Heartbeat) -> Self {
        let sample = |sample: &program::CounterSample| CounterSample {
            pipeline: sample.pipeline.0,
            counter: sample.counter,
            value: sample.value,
        };
        let watermark = |(id, at): &(PipelineId, Timestamp)| (id.0, at.as_micros());
        Self {
            epoch: heartbeat.epoch,
            era: heartbeat.era,
            seq: heartbeat.seq,
            oldest: heartbeat.oldest,
            watermarks: heartbeat.watermarks.iter().map(watermark).collect(),
            counters: heartbeat.counters.iter().map(sample).collect(),
            backlog_batches: heartbeat.backlog_batches,
            backlog_bytes: heartbeat.backlog_bytes,
            extensions: Vec::new(),
        }
    }
}

impl TryFrom<Heartbeat> for program::Heartbeat {
    type Error = WireFault;

    fn try_from(heartbeat: Heartbeat) -> Result<Self, WireFault> {
        check(&heartbeat.extensions)?;
        let sample = |sample: CounterSample| program::CounterSample {
            pipeline: PipelineId(sample.pipeline),
            counter: sample.counter,
            value: sample.value,
        };
        let watermarks = heartbeat.watermarks.into_iter();
        Ok(Self {
            epoch: heartbeat.epoch,
            era: heartbeat.era,
            seq: heartbeat.seq,
            oldest: heartbeat.oldest,
            watermarks: watermarks
                .map(|(id, at)| Ok((PipelineId(id), timestamp(at)?)))
                .collect::<Result<_, WireFault>>()?,
            counters: heartbeat.counters.into_iter().map(sample).collect(),
            backlog_batches: heartbeat.backlog_batches,
            backlog_bytes: heartbeat.backlog_bytes,
        })
    }
}

fn timestamp(micros: i64) -> Result<Timestamp, WireFault> {
    Timestamp::from_micros(micros).ok_or(WireFault::Invalid("timestamp"))
}
