//! Plans, as databases kept them: read, and written by none. Frozen.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::language::{Compression, Expression, FieldSource, Format, NewKeys, Path, TimeSource, Topic};
use super::{all, try_all};
use crate::plan::{self as program, Dedupe};
use crate::time::Span;
use crate::wire::WireFault;

#[derive(Deserialize)]
pub(super) struct Plan {
    version: u64,
    queries: Vec<Query>,
}

impl TryFrom<Plan> for program::Plan {
    type Error = WireFault;

    fn try_from(plan: Plan) -> Result<Self, WireFault> {
        Ok(Self {
            version: plan.version,
            queries: try_all(plan.queries)?,
        })
    }
}

#[derive(Deserialize)]
struct Query {
    name: String,
    topic: Topic,
    format: Format,
    compression: Compression,
    time: TimeSource,
    tags: Vec<PayloadTag>,
    key: Vec<String>,
    fields: Vec<Field>,
    filter: Option<Expression>,
    window: Window,
    aggregates: Vec<Aggregate>,
    watermark_delay_us: i64,
    allowed_lateness_us: i64,
    max_ahead_us: i64,
    idle_us: i64,
    patience_us: i64,
    retention_us: Option<i64>,
    coarsen_us: Vec<i64>,
    dedupe: Option<Path>,
    new_keys: Option<NewKeys>,
    memory: Option<u64>,
}

impl TryFrom<Query> for program::Query {
    type Error = WireFault;

    fn try_from(query: Query) -> Result<Self, WireFault> {
        Ok(Self {
            name: query.name,
            topic: query.topic.try_into()?,
            format: query.format.into(),
            compression: query.compression.into(),
            time: query.time.into(),
            tags: all(query.tags),
            key: query.key,
            fields: try_all(query.fields)?,
            filter: query.filter.map(TryInto::try_into).transpose()?,
            window: query.window.into(),
            aggregates: all(query.aggregates),
            watermark_delay: Span::from_micros(query.watermark_delay_us),
            allowed_lateness: Span::from_micros(query.allowed_lateness_us),
            max_ahead: Span::from_micros(query.max_ahead_us),
            idle: Span::from_micros(query.idle_us),
            patience: Span::from_micros(query.patience_us),
            lookback: None,
            retention: query.retention_us.map(Span::from_micros),
            coarsen: query.coarsen_us.into_iter().map(Span::from_micros).collect(),
            dedupe: query.dedupe.map(|path| Dedupe::rising(path.into())),
            new_keys: query.new_keys.map(Into::into),
            memory: query.memory,
            source: None,
        })
    }
}

#[derive(Deserialize)]
struct PayloadTag {
    name: String,
    path: Path,
}

impl From<PayloadTag> for program::PayloadTag {
    fn from(tag: PayloadTag) -> Self {
        Self {
            name: tag.name,
            path: tag.path.into(),
        }
    }
}

#[derive(Deserialize)]
struct Field {
    name: String,
    source: FieldSource,
    resolution: Option<i128>,
    kind: FieldKind,
}

#[derive(Deserialize)]
enum FieldKind {
    Gauge,
    Counter,
}

impl TryFrom<Field> for program::Field {
    type Error = WireFault;

    fn try_from(field: Field) -> Result<Self, WireFault> {
        Ok(Self {
            name: field.name,
            source: field.source.try_into()?,
            resolution: field.resolution,
            kind: match field.kind {
                FieldKind::Gauge => program::FieldKind::Gauge,
                FieldKind::Counter => program::FieldKind::COUNTER,
            },
        })
    }
}

#[derive(Deserialize)]
enum Window {
    Hopping {
        size_us: i64,
        every_us: i64,
        offset_us: i64,
    },
    Session {
        gap_us: i64,
    },
    Calendar {
        period: Period,
        zone: String,
        pane_us: i64,
    },
    Count {
        readings: u32,
    },
}

#[derive(Deserialize)]
enum Period {
    Day,
    Week,
    Month,
}

impl From<Window> for program::Window {
    fn from(window: Window) -> Self {
        match window {
            Window::Hopping {
                size_us,
                every_us,
                offset_us,
            } => Self::Hopping(program::Hopping {
                size: Span::from_micros(size_us),
                every: Span::from_micros(every_us),
                offset: Span::from_micros(offset_us),
            }),
            Window::Session { gap_us } => Self::Session {
                gap: Span::from_micros(gap_us),
            },
            Window::Calendar {
                period,
                zone,
                pane_us,
            } => Self::Calendar {
                period: match period {
                    Period::Day => program::Period::Day,
                    Period::Week => program::Period::Week,
                    Period::Month => program::Period::Month,
                },
                zone,
                pane: Span::from_micros(pane_us),
            },
            Window::Count { readings } => Self::Count { readings },
        }
    }
}

#[derive(Deserialize)]
enum Aggregate {
    Count,
    Rate,
    Sum,
    Mean,
    Min,
    Max,
    Range,
    Variance,
    Stddev,
    First,
    Last,
    Delta,
    Median,
    Quantile { millionths: u32 },
    Histogram(Vec<i128>),
    Distinct(String),
    Top { k: u16, tag: String },
    Increase,
    TimeWeightedMean,
}

impl From<Aggregate> for program::Aggregate {
    fn from(aggregate: Aggregate) -> Self {
        match aggregate {
            Aggregate::Count => Self::Count,
            Aggregate::Rate => Self::Rate,
            Aggregate::Sum => Self::Sum,
            Aggregate::Mean => Self::Mean,
            Aggregate::Min => Self::Min,
            Aggregate::Max => Self::Max,
            Aggregate::Range => Self::Range,
            Aggregate::Variance => Self::Variance,
            Aggregate::Stddev => Self::Stddev,
            Aggregate::First => Self::First,
            Aggregate::Last => Self::Last,
            Aggregate::Delta => Self::Delta,
            Aggregate::Median => Self::Median,
            Aggregate::Quantile { millionths } => Self::Quantile(program::Quantile(millionths)),
            Aggregate::Histogram(bounds) => Self::Histogram(bounds),
            Aggregate::Distinct(of) => Self::Distinct(of),
            Aggregate::Top { k, tag } => Self::Top { k, tag },
            Aggregate::Increase => Self::Increase,
            Aggregate::TimeWeightedMean => Self::TimeWeightedMean,
        }
    }
}
