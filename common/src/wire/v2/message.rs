//! The bodies of messages, but for heartbeats.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::pipeline::{AgentPlan, Id};
use super::{all, try_all};
use crate::limits::EXTENSIONS_MAX;
use crate::time::{Span, Timestamp};
use crate::wire::lineage::{self, DatabaseId};
use crate::wire::message::{self as program, within};
use crate::wire::{self, WireFault};

/// What a later version may add to a message: tags and bytes. A reader passes over tags that it does not know, so
/// whatever must not be passed over is not for here.
pub(super) type Extensions = Vec<(u16, Vec<u8>)>;

pub(super) fn check(extensions: &Extensions) -> Result<(), WireFault> {
    within(extensions.len(), EXTENSIONS_MAX, "extensions")
}

/// Batches are not parted yet.
const PARTITION: u32 = 0;

fn check_partition(partition: u32) -> Result<(), WireFault> {
    if partition == PARTITION {
        Ok(())
    } else {
        Err(WireFault::Invalid("partition"))
    }
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
    partition: u32,
    ranges: Vec<SeqRange>,
}

impl From<&program::EpochRange> for EpochRange {
    fn from(epoch: &program::EpochRange) -> Self {
        Self {
            epoch: epoch.epoch,
            partition: PARTITION,
            ranges: all(&epoch.ranges),
        }
    }
}

impl TryFrom<EpochRange> for program::EpochRange {
    type Error = WireFault;

    fn try_from(epoch: EpochRange) -> Result<Self, WireFault> {
        check_partition(epoch.partition)?;
        Ok(Self {
            epoch: epoch.epoch,
            ranges: all(epoch.ranges),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    agent: String,
    software: String,
    epoch: u64,
    plan: [u8; 8],
    /// All that are spoken of below, as numbers from 1; 0 is none.
    databases: Vec<[u8; 16]>,
    database: u32,
    lineage: Option<Lineage>,
    held: Vec<HeldEpoch>,
    extensions: Extensions,
}

#[derive(Serialize, Deserialize)]
struct Lineage {
    id: u64,
    generation: u64,
    sealed: u64,
    ancestors: Vec<Ancestor>,
}

#[derive(Serialize, Deserialize)]
struct Ancestor {
    generation: u64,
    epoch: u64,
    sealed: u64,
}

#[derive(Serialize, Deserialize)]
struct HeldEpoch {
    batches: EpochRange,
    database: u32,
}

impl From<&program::Hello> for Hello {
    fn from(hello: &program::Hello) -> Self {
        let mut databases: Vec<DatabaseId> = Vec::new();
        let mut number = |database: Option<DatabaseId>| {
            let Some(database) = database else { return 0 };
            let known = databases.iter().position(|&known| known == database);
            let index = known.unwrap_or_else(|| {
                databases.push(database);
                databases.len() - 1
            });
            index as u32 + 1
        };
        let database = number(hello.database);
        let mut held = |held: &program::HeldEpoch| HeldEpoch {
            batches: (&held.batches).into(),
            database: number(held.database),
        };
        let held = hello.held.iter().map(&mut held).collect();
        Self {
            agent: hello.agent.clone(),
            software: hello.software.clone(),
            epoch: hello.epoch,
            plan: hello.plan.to_le_bytes(),
            databases: databases.iter().map(|id| id.0.to_le_bytes()).collect(),
            database,
            lineage: hello.lineage.as_ref().map(Into::into),
            held,
            extensions: Vec::new(),
        }
    }
}

impl TryFrom<Hello> for program::Hello {
    type Error = WireFault;

    fn try_from(hello: Hello) -> Result<Self, WireFault> {
        check(&hello.extensions)?;
        let named = |number: u32| {
            let Some(index) = (number as usize).checked_sub(1) else {
                return Ok(None);
            };
            let id = hello.databases.get(index);
            id.map(|id| Some(DatabaseId(u128::from_le_bytes(*id))))
                .ok_or(WireFault::Invalid("number of a database"))
        };
        let held = |held: HeldEpoch| {
            Ok(program::HeldEpoch {
                batches: held.batches.try_into()?,
                database: named(held.database)?,
            })
        };
        Ok(Self {
            agent: hello.agent,
            software: hello.software,
            epoch: hello.epoch,
            plan: u64::from_le_bytes(hello.plan),
            database: named(hello.database)?,
            lineage: hello.lineage.map(Into::into),
            held: { hello.held.into_iter() }
                .map(held)
                .collect::<Result<_, WireFault>>()?,
        })
    }
}

impl From<&lineage::Lineage> for Lineage {
    fn from(lineage: &lineage::Lineage) -> Self {
        let ancestor = |ancestor: &lineage::Ancestor| Ancestor {
            generation: ancestor.generation,
            epoch: ancestor.epoch,
            sealed: ancestor.sealed,
        };
        Self {
            id: lineage.id,
            generation: lineage.generation,
            sealed: lineage.sealed,
            ancestors: lineage.ancestors.iter().map(ancestor).collect(),
        }
    }
}

impl From<Lineage> for lineage::Lineage {
    fn from(lineage: Lineage) -> Self {
        let ancestor = |ancestor: Ancestor| lineage::Ancestor {
            generation: ancestor.generation,
            epoch: ancestor.epoch,
            sealed: ancestor.sealed,
        };
        Self {
            id: lineage.id,
            generation: lineage.generation,
            sealed: lineage.sealed,
            ancestors: lineage.ancestors.into_iter().map(ancestor).collect(),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Welcome {
    database: Option<[u8; 16]>,
    plan: Option<AgentPlan>,
    numbers: Vec<(u32, Id)>,
    committed: Vec<EpochRange>,
    server_time_us: i64,
    heartbeat_us: i64,
    extensions: Extensions,
}

impl From<&program::Welcome> for Welcome {
    fn from(welcome: &program::Welcome) -> Self {
        let numbers = welcome.numbers.iter();
        Self {
            database: welcome.database.map(|id| id.0.to_le_bytes()),
            plan: welcome.plan.as_ref().map(Into::into),
            numbers: numbers.map(|&(number, id)| (number, id.into())).collect(),
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
        let numbers = welcome.numbers.into_iter();
        Ok(Self {
            database: welcome.database.map(|id| DatabaseId(u128::from_le_bytes(id))),
            plan: welcome.plan.map(TryInto::try_into).transpose()?,
            numbers: numbers.map(|(number, id)| (number, id.into())).collect(),
            committed: try_all(welcome.committed)?,
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
        ack.batches.try_into()
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Refusal {
    epoch: u64,
    partition: u32,
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
    OtherDatabase,
    TooEarly,
}

impl From<&program::Refusal> for Refusal {
    fn from(refusal: &program::Refusal) -> Self {
        use program::RejectReason as Program;
        Self {
            epoch: refusal.epoch,
            partition: PARTITION,
            seq: refusal.seq,
            reason: match refusal.reason {
                Program::Checksum => RejectReason::Checksum,
                Program::Version => RejectReason::Version,
                Program::Malformed => RejectReason::Malformed,
                Program::UnknownPipeline => RejectReason::UnknownPipeline,
                Program::BadPane => RejectReason::BadPane,
                Program::OtherAgent => RejectReason::OtherAgent,
                Program::TooManyReadings => RejectReason::TooManyReadings,
                Program::OtherDatabase => RejectReason::OtherDatabase,
                Program::TooEarly => RejectReason::TooEarly,
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
        check_partition(refusal.partition)?;
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
                RejectReason::OtherDatabase => Program::OtherDatabase,
                RejectReason::TooEarly => Program::TooEarly,
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

pub(super) fn timestamp(micros: i64) -> Result<Timestamp, WireFault> {
    Timestamp::from_micros(micros).ok_or(WireFault::Invalid("timestamp"))
}

/// The state of the agent is an older copy.
#[derive(Serialize, Deserialize)]
pub(super) struct Forked {
    lineage: u64,
    epoch: u64,
    extensions: Extensions,
}

impl From<&lineage::Forked> for Forked {
    fn from(&lineage::Forked { lineage, epoch }: &lineage::Forked) -> Self {
        Self {
            lineage,
            epoch,
            extensions: Vec::new(),
        }
    }
}

impl TryFrom<Forked> for lineage::Forked {
    type Error = WireFault;

    fn try_from(forked: Forked) -> Result<Self, WireFault> {
        check(&forked.extensions)?;
        Ok(Self {
            lineage: forked.lineage,
            epoch: forked.epoch,
        })
    }
}
