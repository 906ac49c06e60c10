//! Pipelines, alone (as databases kept them) and as an agent's plan. Frozen.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::language::{
    Compression, Expression, FieldSource, Format, KeyPart, NewKeys, Path, TimeSource, Topic,
};
use super::{Inexpressible, absent, all, number, try_all};
use crate::plan::{self as program, Components, Dedupe, PipelineId};
use crate::time::Span;
use crate::wire::{self, WireFault};

/// What an agent runs.
#[derive(Serialize, Deserialize)]
pub(super) struct AgentPlan {
    version: u64,
    pipelines: Vec<(u32, Pipeline)>,
    coarser: Vec<Coarser>,
}

#[derive(Serialize, Deserialize)]
struct Coarser {
    of: u32,
    pipeline: u32,
    pane_us: i64,
}

impl TryFrom<&wire::AgentPlan> for AgentPlan {
    type Error = Inexpressible;

    fn try_from(plan: &wire::AgentPlan) -> Result<Self, Inexpressible> {
        let pipeline =
            |(id, pipeline): &(PipelineId, program::Pipeline)| Ok((number(*id)?, pipeline.try_into()?));
        let rung = |rung: &wire::Coarser| {
            Ok(Coarser {
                of: number(rung.of)?,
                pipeline: number(rung.pipeline)?,
                pane_us: rung.pane.as_micros(),
            })
        };
        Ok(Self {
            version: plan.version,
            pipelines: { plan.pipelines.iter() }
                .map(pipeline)
                .collect::<Result<_, Inexpressible>>()?,
            coarser: { plan.coarser.iter() }
                .map(rung)
                .collect::<Result<_, Inexpressible>>()?,
        })
    }
}

impl TryFrom<AgentPlan> for wire::AgentPlan {
    type Error = WireFault;

    fn try_from(plan: AgentPlan) -> Result<Self, WireFault> {
        let pipeline = |(id, pipeline): (u32, Pipeline)| Ok((id.into(), pipeline.try_into()?));
        let rung = |rung: Coarser| wire::Coarser {
            of: rung.of.into(),
            pipeline: rung.pipeline.into(),
            pane: Span::from_micros(rung.pane_us),
        };
        Ok(Self {
            version: plan.version,
            pipelines: plan
                .pipelines
                .into_iter()
                .map(pipeline)
                .collect::<Result<_, WireFault>>()?,
            coarser: plan.coarser.into_iter().map(rung).collect(),
        })
    }
}

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
    dedupe: Option<Path>,
    new_keys: Option<NewKeys>,
    memory: Option<u64>,
    watched: Vec<KeyPart>,
    sketches: Vec<PipelineSketch>,
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

impl TryFrom<&program::Pipeline> for Pipeline {
    type Error = Inexpressible;

    fn try_from(pipeline: &program::Pipeline) -> Result<Self, Inexpressible> {
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
        absent(source.is_none(), "name of a source")?;
        Ok(Self {
            topic: topic.try_into()?,
            format: format.try_into()?,
            compression: (*compression).try_into()?,
            time: time.try_into()?,
            key: try_all(key)?,
            fields: try_all(fields)?,
            filter: filter.as_ref().map(TryInto::try_into).transpose()?,
            pane_us: pane.as_micros(),
            count: *count,
            watermark_delay_us: watermark_delay.as_micros(),
            allowed_lateness_us: allowed_lateness.as_micros(),
            max_ahead_us: max_ahead.as_micros(),
            idle_us: idle.as_micros(),
            dedupe: dedupe.as_ref().map(rising).transpose()?,
            new_keys: new_keys.map(Into::into),
            memory: *memory,
            watched: try_all(watched)?,
            sketches: try_all(sketches)?,
        })
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
            dedupe: pipeline.dedupe.map(|path| Dedupe::rising(path.into())),
            new_keys: pipeline.new_keys.map(Into::into),
            memory: pipeline.memory,
            watched: all(pipeline.watched),
            sketches: all(pipeline.sketches),
            source: None,
        })
    }
}

impl TryFrom<&program::PipelineField> for PipelineField {
    type Error = Inexpressible;

    fn try_from(field: &program::PipelineField) -> Result<Self, Inexpressible> {
        let program::PipelineField {
            source,
            resolution,
            components,
        } = field;
        Ok(Self {
            source: source.try_into()?,
            resolution: *resolution,
            components: components.bits(),
        })
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

impl TryFrom<&program::PipelineSketch> for PipelineSketch {
    type Error = Inexpressible;

    fn try_from(sketch: &program::PipelineSketch) -> Result<Self, Inexpressible> {
        use program::PipelineSketch as Program;
        Ok(match sketch {
            Program::Quantiles(field) => Self::Quantiles(*field),
            Program::Histogram(field, bounds) => Self::Histogram(*field, bounds.clone()),
            Program::DistinctValues(field) => Self::DistinctValues(*field),
            Program::DistinctTags(tag) => Self::DistinctTags(*tag),
            Program::Top(tag) => Self::Top(*tag),
            Program::Series(field) => Self::Series(*field),
        })
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

/// The path of numbers that only go up, which is all that this version has.
fn rising(dedupe: &Dedupe) -> Result<Path, Inexpressible> {
    let Dedupe {
        path,
        wraps_at,
        restart,
    } = dedupe;
    absent(wraps_at.is_none(), "the end of sequence numbers")?;
    absent(!restart, "sequence numbers that start over")?;
    Ok(path.into())
}
