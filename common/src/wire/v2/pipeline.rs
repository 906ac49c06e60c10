//! Pipelines, alone (as the database keeps them) and as an agent's plan.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::language::{
    Compression, Dedupe, Expression, FieldSource, Format, KeyPart, NewKeys, TimeSource, Topic,
};
use super::{all, try_all};
use crate::limits::{PIPELINE_ID_BYTES, PLAN_BYTES_MAX};
use crate::plan::{self as program, Components, PipelineId};
use crate::time::Span;
use crate::wire::{self, WireFault};

/// A pipeline's id. As a number it would be a varint of ten bytes.
#[derive(Serialize, Deserialize)]
pub(super) struct Id([u8; PIPELINE_ID_BYTES]);

impl From<PipelineId> for Id {
    fn from(id: PipelineId) -> Self {
        Self(id.0.to_le_bytes())
    }
}

impl From<Id> for PipelineId {
    fn from(id: Id) -> Self {
        Self(u64::from_le_bytes(id.0))
    }
}

/// What a message has beside its plan: kind, version, and that there are no extensions.
const MESSAGE_BYTES: usize = 3;

/// What an agent runs.
#[derive(Serialize, Deserialize)]
pub(super) struct AgentPlan {
    version: u64,
    pipelines: Vec<Planned>,
}

/// A pipeline with the rungs of its ladder, ascending.
#[derive(Serialize, Deserialize)]
struct Planned {
    id: Id,
    pipeline: Pipeline,
    ladder: Vec<Rung>,
}

#[derive(Serialize, Deserialize)]
struct Rung {
    id: Id,
    pane_us: i64,
}

impl From<&wire::AgentPlan> for AgentPlan {
    fn from(plan: &wire::AgentPlan) -> Self {
        let rung = |rung: &wire::Coarser| Rung {
            id: rung.pipeline.into(),
            pane_us: rung.pane.as_micros(),
        };
        let planned = |(id, pipeline): &(PipelineId, program::Pipeline)| Planned {
            id: (*id).into(),
            pipeline: pipeline.into(),
            ladder: { plan.coarser.iter() }
                .filter(|rung| rung.of == *id)
                .map(rung)
                .collect(),
        };
        Self {
            version: plan.version,
            pipelines: plan.pipelines.iter().map(planned).collect(),
        }
    }
}

impl TryFrom<AgentPlan> for wire::AgentPlan {
    type Error = WireFault;

    fn try_from(plan: AgentPlan) -> Result<Self, WireFault> {
        // An agent writes its plan into its journal, which takes no longer one.
        let mut bytes = Vec::new();
        wire::put(&plan, &mut bytes);
        if bytes.len() + MESSAGE_BYTES > PLAN_BYTES_MAX {
            return Err(WireFault::TooLong("plan"));
        }
        let (mut pipelines, mut coarser) = (Vec::new(), Vec::new());
        for Planned { id, pipeline, ladder } in plan.pipelines {
            let of = id.into();
            pipelines.push((of, pipeline.try_into()?));
            coarser.extend(ladder.into_iter().map(|rung| wire::Coarser {
                of,
                pipeline: rung.id.into(),
                pane: Span::from_micros(rung.pane_us),
            }));
        }
        Ok(Self {
            version: plan.version,
            pipelines,
            coarser,
        })
    }
}

/// The canonical form of a pipeline: what its definition is, byte for byte.
#[derive(Serialize, Deserialize)]
pub(super) struct Pipeline {
    topic: Topic,
    format: Format,
    compression: Compression,
    time: TimeSource,
    key: Vec<KeyPart>,
    fields: Vec<PipelineField>,
    filter: Option<Expression>,
    pane_us: i64,
    count: Option<u32>,
    watermark_delay_us: i64,
    allowed_lateness_us: i64,
    max_ahead_us: i64,
    idle_us: i64,
    dedupe: Option<Dedupe>,
    new_keys: Option<NewKeys>,
    memory: Option<u64>,
    watched: Vec<KeyPart>,
    sketches: Vec<PipelineSketch>,
    source: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct PipelineField {
    source: FieldSource,
    resolution: Option<i128>,
    components: u8,
}

#[derive(Serialize, Deserialize)]
enum PipelineSketch {
    Quantiles(u8),
    Histogram(u8, Vec<i128>),
    DistinctValues(u8),
    DistinctTags(u8),
    Top(u8),
    Series(u8),
}

impl From<&program::Pipeline> for Pipeline {
    fn from(pipeline: &program::Pipeline) -> Self {
        let program::Pipeline {
            topic,
            format,
            compression,
            time,
            key,
            fields,
            filter,
            pane,
            count,
            watermark_delay,
            allowed_lateness,
            max_ahead,
            idle,
            dedupe,
            new_keys,
            memory,
            watched,
            sketches,
            source,
        } = pipeline;
        Self {
            topic: topic.into(),
            format: format.into(),
            compression: (*compression).into(),
            time: time.into(),
            key: all(key),
            fields: all(fields),
            filter: filter.as_ref().map(Into::into),
            pane_us: pane.as_micros(),
            count: *count,
            watermark_delay_us: watermark_delay.as_micros(),
            allowed_lateness_us: allowed_lateness.as_micros(),
            max_ahead_us: max_ahead.as_micros(),
            idle_us: idle.as_micros(),
            dedupe: dedupe.as_ref().map(Into::into),
            new_keys: new_keys.map(Into::into),
            memory: *memory,
            watched: all(watched),
            sketches: all(sketches),
            source: source.clone(),
        }
    }
}

impl TryFrom<Pipeline> for program::Pipeline {
    type Error = WireFault;

    fn try_from(pipeline: Pipeline) -> Result<Self, WireFault> {
        Ok(Self {
            topic: pipeline.topic.try_into()?,
            format: pipeline.format.into(),
            compression: pipeline.compression.into(),
            time: pipeline.time.into(),
            key: all(pipeline.key),
            fields: try_all(pipeline.fields)?,
            filter: pipeline.filter.map(TryInto::try_into).transpose()?,
            pane: Span::from_micros(pipeline.pane_us),
            count: pipeline.count,
            watermark_delay: Span::from_micros(pipeline.watermark_delay_us),
            allowed_lateness: Span::from_micros(pipeline.allowed_lateness_us),
            max_ahead: Span::from_micros(pipeline.max_ahead_us),
            idle: Span::from_micros(pipeline.idle_us),
            dedupe: pipeline.dedupe.map(Into::into),
            new_keys: pipeline.new_keys.map(Into::into),
            memory: pipeline.memory,
            watched: all(pipeline.watched),
            sketches: all(pipeline.sketches),
            source: pipeline.source,
        })
    }
}

impl From<&program::PipelineField> for PipelineField {
    fn from(field: &program::PipelineField) -> Self {
        let program::PipelineField {
            source,
            resolution,
            components,
        } = field;
        Self {
            source: source.into(),
            resolution: *resolution,
            components: components.bits(),
        }
    }
}

impl TryFrom<PipelineField> for program::PipelineField {
    type Error = WireFault;

    fn try_from(field: PipelineField) -> Result<Self, WireFault> {
        if field.resolution.is_some_and(|resolution| resolution <= 0) {
            return Err(WireFault::Invalid("resolution"));
        }
        Ok(Self {
            source: field.source.try_into()?,
            resolution: field.resolution,
            components: Components::from_bits(field.components).ok_or(WireFault::Invalid("components"))?,
        })
    }
}

impl From<&program::PipelineSketch> for PipelineSketch {
    fn from(sketch: &program::PipelineSketch) -> Self {
        use program::PipelineSketch as Program;
        match sketch {
            Program::Quantiles(field) => Self::Quantiles(*field),
            Program::Histogram(field, bounds) => Self::Histogram(*field, bounds.clone()),
            Program::DistinctValues(field) => Self::DistinctValues(*field),
            Program::DistinctTags(tag) => Self::DistinctTags(*tag),
            Program::Top(tag) => Self::Top(*tag),
            Program::Series(field) => Self::Series(*field),
        }
    }
}

impl From<PipelineSketch> for program::PipelineSketch {
    fn from(sketch: PipelineSketch) -> Self {
        match sketch {
            PipelineSketch::Quantiles(field) => Self::Quantiles(field),
            PipelineSketch::Histogram(field, bounds) => Self::Histogram(field, bounds),
            PipelineSketch::DistinctValues(field) => Self::DistinctValues(field),
            PipelineSketch::DistinctTags(tag) => Self::DistinctTags(tag),
            PipelineSketch::Top(tag) => Self::Top(tag),
            PipelineSketch::Series(field) => Self::Series(field),
        }
    }
}
