//! The bodies of messages. Frozen.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::pipeline::AgentPlan;
use super::{Inexpressible, all, number};
use crate::plan::PipelineId;
use crate::time::{Span, Timestamp};
use crate::wire::WireFault;
use crate::wire::message as program;

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
pub(super) struct EpochRange {
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
}

impl From<&program::Hello> for Hello {
    fn from(hello: &program::Hello) -> Self {
        Self {
            agent: hello.agent.clone(),
            software: hello.software.clone(),
            epoch: hello.epoch,
            plan_version: hello.plan,
            held: hello.held.iter().map(|held| (&held.batches).into()).collect(),
        }
    }
}

impl From<Hello> for program::Hello {
    fn from(hello: Hello) -> Self {
        let held = |batches: EpochRange| program::HeldEpoch {
            batches: batches.into(),
            database: None,
        };
        Self {
            agent: hello.agent,
            software: hello.software,
            epoch: hello.epoch,
            plan: hello.plan_version,
            database: None,
            lineage: None,
            held: hello.held.into_iter().map(held).collect(),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Welcome {
    plan: Option<AgentPlan>,
    committed: Vec<EpochRange>,
    server_time_us: i64,
    heartbeat_us: i64,
}

impl TryFrom<&program::Welcome> for Welcome {
    type Error = Inexpressible;

    fn try_from(welcome: &program::Welcome) -> Result<Self, Inexpressible> {
        Ok(Self {
            plan: welcome.plan.as_ref().map(TryInto::try_into).transpose()?,
            committed: all(&welcome.committed),
            server_time_us: welcome.server_time.as_micros(),
            heartbeat_us: welcome.heartbeat.as_micros(),
        })
    }
}

impl TryFrom<Welcome> for program::Welcome {
    type Error = WireFault;

    fn try_from(welcome: Welcome) -> Result<Self, WireFault> {
        Ok(Self {
            database: None,
            numbers: Vec::new(),
            plan: welcome.plan.map(TryInto::try_into).transpose()?,
            committed: all(welcome.committed),
            server_time: timestamp(welcome.server_time_us)?,
            heartbeat: Span::from_micros(welcome.heartbeat_us),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Refusal {
    epoch: u64,
    seq: u64,
    reason: RejectReason,
}

#[derive(Serialize, Deserialize)]
enum RejectReason {
    Checksum,
    Version,
    Malformed,
    UnknownPipeline,
    BadPane,
    OtherAgent,
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
                // Version 1 has no word for some; its agents treat all of them alike.
                Program::Malformed | Program::TooManyReadings => RejectReason::Malformed,
                Program::UnknownPipeline | Program::OtherDatabase => RejectReason::UnknownPipeline,
                Program::BadPane | Program::TooEarly => RejectReason::BadPane,
                Program::OtherAgent => RejectReason::OtherAgent,
            },
        }
    }
}

impl From<Refusal> for program::Refusal {
    fn from(refusal: Refusal) -> Self {
        use program::RejectReason as Program;
        Self {
            epoch: refusal.epoch,
            seq: refusal.seq,
            reason: match refusal.reason {
                RejectReason::Checksum => Program::Checksum,
                RejectReason::Version => Program::Version,
                RejectReason::Malformed => Program::Malformed,
                RejectReason::UnknownPipeline => Program::UnknownPipeline,
                RejectReason::BadPane => Program::BadPane,
                RejectReason::OtherAgent => Program::OtherAgent,
            },
        }
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
}

#[derive(Serialize, Deserialize)]
struct CounterSample {
    pipeline: u32,
    counter: u8,
    value: u64,
}

impl TryFrom<&program::Heartbeat> for Heartbeat {
    type Error = Inexpressible;

    fn try_from(heartbeat: &program::Heartbeat) -> Result<Self, Inexpressible> {
        let sample = |sample: &program::CounterSample| {
            Ok(CounterSample {
                pipeline: number(sample.pipeline)?,
                counter: sample.counter,
                value: sample.value,
            })
        };
        let watermark = |(id, at): &(PipelineId, Timestamp)| Ok((number(*id)?, at.as_micros()));
        Ok(Self {
            epoch: heartbeat.epoch,
            era: heartbeat.era,
            seq: heartbeat.seq,
            oldest: heartbeat.oldest,
            watermarks: { heartbeat.watermarks.iter() }
                .map(watermark)
                .collect::<Result<_, Inexpressible>>()?,
            counters: { heartbeat.counters.iter() }
                .map(sample)
                .collect::<Result<_, Inexpressible>>()?,
            backlog_batches: heartbeat.backlog_batches,
            backlog_bytes: heartbeat.backlog_bytes,
        })
    }
}

impl TryFrom<Heartbeat> for program::Heartbeat {
    type Error = WireFault;

    fn try_from(heartbeat: Heartbeat) -> Result<Self, WireFault> {
        let sample = |sample: CounterSample| program::CounterSample {
            pipeline: sample.pipeline.into(),
            counter: sample.counter,
            value: sample.value,
        };
        let watermark = |(number, at): (u32, i64)| Ok((number.into(), timestamp(at)?));
        Ok(Self {
            epoch: heartbeat.epoch,
            era: heartbeat.era,
            seq: heartbeat.seq,
            oldest: heartbeat.oldest,
            watermarks: { heartbeat.watermarks.into_iter() }
                .map(watermark)
                .collect::<Result<_, WireFault>>()?,
            counters: heartbeat.counters.into_iter().map(sample).collect(),
            backlog_batches: heartbeat.backlog_batches,
            backlog_bytes: heartbeat.backlog_bytes,
            sources: Vec::new(),
            clock: None,
        })
    }
}

fn timestamp(micros: i64) -> Result<Timestamp, WireFault> {
    Timestamp::from_micros(micros).ok_or(WireFault::Invalid("timestamp"))
}
