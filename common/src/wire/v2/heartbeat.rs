//! The body of a heartbeat. A pipeline's id is eight bytes, so what is said of one pipeline stands together.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::message::{Extensions, check, timestamp};
use super::pipeline::Id;
use crate::plan::PipelineId;
use crate::time::{Span, Timestamp};
use crate::wire::WireFault;
use crate::wire::message as program;

#[derive(Serialize, Deserialize)]
pub(super) struct Heartbeat {
    epoch: u64,
    era: u64,
    seq: u64,
    oldest: u64,
    /// What concerns the agent itself.
    counters: Vec<Counter>,
    pipelines: Vec<Pipeline>,
    backlog_batches: u64,
    backlog_bytes: u64,
    sources: Vec<Source>,
    clock: Option<Clock>,
    extensions: Extensions,
}

#[derive(Serialize, Deserialize)]
struct Counter {
    code: u8,
    value: u64,
}

#[derive(Serialize, Deserialize)]
struct Pipeline {
    id: Id,
    watermark_us: Option<i64>,
    counters: Vec<Counter>,
}

#[derive(Serialize, Deserialize)]
struct Source {
    name: String,
    is_connected: bool,
    since_us: i64,
}

#[derive(Serialize, Deserialize)]
struct Clock {
    offset_us: i64,
    is_trusted: bool,
}

impl From<&program::Heartbeat> for Heartbeat {
    fn from(heartbeat: &program::Heartbeat) -> Self {
        let source = |source: &program::SourceState| Source {
            name: source.name.clone(),
            is_connected: source.is_connected,
            since_us: source.since.as_micros(),
        };
        let clock = |clock: program::ClockState| Clock {
            offset_us: clock.offset.as_micros(),
            is_trusted: clock.is_trusted,
        };
        Self {
            epoch: heartbeat.epoch,
            era: heartbeat.era,
            seq: heartbeat.seq,
            oldest: heartbeat.oldest,
            counters: counters_of(heartbeat, PipelineId::NONE),
            pipelines: pipelines_of(heartbeat),
            backlog_batches: heartbeat.backlog_batches,
            backlog_bytes: heartbeat.backlog_bytes,
            sources: heartbeat.sources.iter().map(source).collect(),
            clock: heartbeat.clock.map(clock),
            extensions: Vec::new(),
        }
    }
}

fn counters_of(heartbeat: &program::Heartbeat, pipeline: PipelineId) -> Vec<Counter> {
    let of_pipeline = { heartbeat.counters.iter() }.filter(|sample| sample.pipeline == pipeline);
    of_pipeline
        .map(|sample| Counter {
            code: sample.counter,
            value: sample.value,
        })
        .collect()
}

/// Those with a watermark, then those that have only counted.
fn pipelines_of(heartbeat: &program::Heartbeat) -> Vec<Pipeline> {
    let watermarks = heartbeat.watermarks.iter().map(|&(id, at)| (id, Some(at)));
    let mut all: Vec<(PipelineId, _)> = watermarks.collect();
    for sample in &heartbeat.counters {
        let is_new = all.iter().all(|(id, _)| *id != sample.pipeline);
        if is_new && sample.pipeline != PipelineId::NONE {
            all.push((sample.pipeline, None));
        }
    }
    all.into_iter()
        .map(|(id, watermark)| Pipeline {
            id: id.into(),
            watermark_us: watermark.map(Timestamp::as_micros),
            counters: counters_of(heartbeat, id),
        })
        .collect()
}

impl TryFrom<Heartbeat> for program::Heartbeat {
    type Error = WireFault;

    fn try_from(heartbeat: Heartbeat) -> Result<Self, WireFault> {
        check(&heartbeat.extensions)?;
        let (mut watermarks, mut counters) = (Vec::new(), Vec::new());
        let sample = |pipeline, Counter { code, value }: Counter| program::CounterSample {
            pipeline,
            counter: code,
            value,
        };
        let of_agent = heartbeat.counters.into_iter();
        counters.extend(of_agent.map(|counter| sample(PipelineId::NONE, counter)));
        for pipeline in heartbeat.pipelines {
            let id = pipeline.id.into();
            if let Some(micros) = pipeline.watermark_us {
                watermarks.push((id, timestamp(micros)?));
            }
            counters.extend(pipeline.counters.into_iter().map(|counter| sample(id, counter)));
        }
        let source = |source: Source| {
            Ok(program::SourceState {
                name: source.name,
                is_connected: source.is_connected,
                since: timestamp(source.since_us)?,
            })
        };
        let sources = heartbeat.sources.into_iter().map(source);
        Ok(Self {
            epoch: heartbeat.epoch,
            era: heartbeat.era,
            seq: heartbeat.seq,
            oldest: heartbeat.oldest,
            watermarks,
            counters,
            backlog_batches: heartbeat.backlog_batches,
            backlog_bytes: heartbeat.backlog_bytes,
            sources: sources.collect::<Result<_, WireFault>>()?,
            clock: heartbeat.clock.map(|clock| program::ClockState {
                offset: Span::from_micros(clock.offset_us),
                is_trusted: clock.is_trusted,
            }),
        })
    }
}
