//! What the records of a segment refer to: the version and the plan of its snapshot.
//!
//! Counters name the pipelines of that plan by their place in it: an id would take eight bytes for each.

use std::borrow::Cow;
use std::collections::BTreeMap;

use catchment_common::metrics::Counter;
use catchment_common::plan::PipelineId;
use catchment_common::wire::cursor::{Cursor, put_varint};
use catchment_common::wire::{AgentPlan, CounterSample, WireFault, v1};

use crate::aggregate::count_windows;

/// The version of a segment, in its snapshot.
pub(super) const VERSION: u8 = 2;
/// Most counters in one record; far above pipelines × counters of any agent.
const COUNTS_MAX: usize = 1 << 20;

/// What the records of a segment refer to: its snapshot's version and plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Context {
    pub(super) version: u8,
    pub(super) plan: AgentPlan,
    /// The ids that counters name by number.
    ids: Vec<PipelineId>,
}

impl Default for Context {
    fn default() -> Self {
        Self::new(VERSION, AgentPlan::default())
    }
}

impl Context {
    pub(super) fn new(version: u8, plan: AgentPlan) -> Self {
        let ids = ids_of(&plan).collect();
        Self { version, plan, ids }
    }

    fn take_id(&self, cursor: &mut Cursor<'_>) -> Result<PipelineId, WireFault> {
        let name = cursor.varint()?;
        if self.version == v1::VERSION {
            let number = u32::try_from(name).map_err(|_| WireFault::Invalid("pipeline number"))?;
            return Ok(number.into());
        }
        Ok(match name {
            0 => PipelineId::NONE,
            1 => PipelineId(u64::from_le_bytes(cursor.array()?)),
            name => *usize::try_from(name - 2)
                .ok()
                .and_then(|index| self.ids.get(index))
                .ok_or(WireFault::Invalid("name of a pipeline"))?,
        })
    }

    pub(super) fn take_samples(&self, cursor: &mut Cursor<'_>) -> Result<Vec<CounterSample>, WireFault> {
        let count = cursor.length(COUNTS_MAX, "counters")?;
        let mut samples = Vec::new();
        for _ in 0..count {
            let pipeline = self.take_id(cursor)?;
            let counter = cursor.byte()?;
            Counter::from_code(counter).ok_or(WireFault::Invalid("counter"))?;
            let value = cursor.varint()?;
            samples.push(CounterSample {
                pipeline,
                counter,
                value,
            });
        }
        Ok(samples)
    }

    pub(super) fn take_source(&self, cursor: &mut Cursor<'_>) -> Result<u32, WireFault> {
        if self.version == v1::VERSION {
            Ok(0)
        } else {
            take_u32(cursor)
        }
    }

    /// The identity of a count window: a pipeline's id and a key.
    pub(super) fn take_identity<'b>(&self, cursor: &mut Cursor<'b>) -> Result<Cow<'b, [u8]>, WireFault> {
        let length = cursor.length(count_windows::IDENTITY_BYTES_MAX, "window")?;
        let bytes = cursor.take(length)?;
        if self.version != v1::VERSION {
            return Ok(Cow::Borrowed(bytes));
        }
        let (number, key) = bytes.split_first_chunk().ok_or(WireFault::Truncated)?;
        let mut identity = Vec::new();
        count_windows::identify(&mut identity, u32::from_le_bytes(*number).into(), key);
        Ok(Cow::Owned(identity))
    }
}

/// The pipelines of a plan that counters name by number, in that order.
fn ids_of(plan: &AgentPlan) -> impl Iterator<Item = PipelineId> {
    let rungs = plan.coarser.iter().map(|rung| rung.pipeline);
    plan.pipelines.iter().map(|(id, _)| *id).chain(rungs)
}

/// How counters name pipelines in the segment being written.
#[derive(Debug, Default)]
pub(super) struct PipelineNames(BTreeMap<PipelineId, u64>);

impl PipelineNames {
    pub(super) fn of(plan: &AgentPlan) -> Self {
        Self(ids_of(plan).zip(2..).collect())
    }

    fn put(&self, out: &mut Vec<u8>, id: PipelineId) {
        match self.0.get(&id) {
            _ if id == PipelineId::NONE => put_varint(out, 0),
            Some(&name) => put_varint(out, name),
            None => {
                put_varint(out, 1);
                out.extend_from_slice(&id.0.to_le_bytes());
            }
        }
    }

    pub(super) fn put_samples(&self, out: &mut Vec<u8>, samples: &[CounterSample]) {
        put_varint(out, samples.len() as u64);
        for sample in samples {
            self.put(out, sample.pipeline);
            out.push(sample.counter);
            put_varint(out, sample.value);
        }
    }
}

/// Largest number that something may have that is counted on from: no run of an agent comes near it.
const ORDINAL_MAX: u64 = u64::MAX >> 1;

/// A number that is counted on from.
pub(super) fn take_ordinal(cursor: &mut Cursor<'_>) -> Result<u64, WireFault> {
    let number = cursor.varint()?;
    if number > ORDINAL_MAX {
        return Err(WireFault::Invalid("number"));
    }
    Ok(number)
}

pub(super) fn take_u32(cursor: &mut Cursor<'_>) -> Result<u32, WireFault> {
    u32::try_from(cursor.varint()?).map_err(|_| WireFault::Invalid("number above 32 bits"))
}
