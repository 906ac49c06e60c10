//! Plans, as the database keeps them.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::language::{
    Compression, Dedupe, Expression, FieldSource, Format, NewKeys, Path, TimeSource, Topic,
};
use super::{all, try_all};
use crate::plan::{self as program, CounterRules};
use crate::time::Span;
use crate::wire::WireFault;

#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    version: u64,
    queries: Vec<Query>,
}

impl From<&program::Plan> for Plan {
    fn from(plan: &program::Plan) -> Self {
        let program::Plan { version, queries } = plan;
        Self {
            version: *version,
            queries: all(queries),
        }
    }
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

#[derive(Serialize, Deserialize)]
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
    lookback_us: Option<i64>,
    retention_us: Option<i64>,
    coarsen_us: Vec<i64>,
    dedupe: Option<Dedupe>,
    new_keys: Option<NewKeys>,
    memory: Option<u64>,
    source: Option<String>,
}

impl From<&program::Query> for Query {
    fn from(query: &program::Query) -> Self {
        let program::Query {
            name,
            topic,
            format,
            compression,
            time,
            tags,
            key,
            fields,
            filter,
            window,
            aggregates,
            watermark_delay,
            allowed_lateness,
            max_ahead,
            idle,
            patience,
            lookback,
            retention,
            coarsen,
            dedupe,
            new_keys,
            memory,
            source,
        } = query;
        Self {
            name: name.clone(),
            topic: topic.into(),
            format: format.into(),
            compression: (*compression).into(),
            time: time.into(),
            tags: all(tags),
            key: key.clone(),
            fields: all(fields),
            filter: filter.as_ref().map(Into::into),
            window: window.into(),
            aggregates: all(aggregates),
            watermark_delay_us: watermark_delay.as_micros(),
            allowed_lateness_us: allowed_lateness.as_micros(),
            max_ahead_us: max_ahead.as_micros(),
            idle_us: idle.as_micros(),
            patience_us: patience.as_micros(),
            lookback_us: lookback.map(Span::as_micros),
            retention_us: retention.map(Span::as_micros),
            coarsen_us: coarsen.iter().map(|rung| rung.as_micros()).collect(),
            dedupe: dedupe.as_ref().map(Into::into),
            new_keys: new_keys.map(Into::into),
            memory: *memory,
            source: source.clone(),
        }
    }
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
            lookback: query.lookback_us.map(Span::from_micros),
            retention: query.retention_us.map(Span::from_micros),
            coarsen: query.coarsen_us.into_iter().map(Span::from_micros).collect(),
            dedupe: query.dedupe.map(Into::into),
            new_keys: query.new_keys.map(Into::into),
            memory: query.memory,
            source: query.source,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct PayloadTag {
    name: String,
    path: Path,
}

impl From<&program::PayloadTag> for PayloadTag {
    fn from(tag: &program::PayloadTag) -> Self {
        let program::PayloadTag { name, path } = tag;
        Self {
            name: name.clone(),
            path: path.into(),
        }
    }
}

impl From<PayloadTag> for program::PayloadTag {
    fn from(tag: PayloadTag) -> Self {
        Self {
            name: tag.name,
            path: tag.path.into(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Field {
    name: String,
    source: FieldSource,
    resolution: Option<i128>,
    kind: FieldKind,
}

#[derive(Serialize, Deserialize)]
enum FieldKind {
    Gauge,
    Counter { wraps_at: Option<i128>, tolerance: i128 },
}

impl From<&program::Field> for Field {
    fn from(field: &program::Field) -> Self {
        let program::Field {
            name,
            source,
            resolution,
            kind,
        } = field;
        Self {
            name: name.clone(),
            source: source.into(),
            resolution: *resolution,
            kind: match *kind {
                program::FieldKind::Gauge => FieldKind::Gauge,
                program::FieldKind::Counter(CounterRules { wraps_at, tolerance }) => {
                    FieldKind::Counter { wraps_at, tolerance }
                }
            },
        }
    }
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
                FieldKind::Counter { wraps_at, tolerance } => {
                    program::FieldKind::Counter(CounterRules { wraps_at, tolerance })
                }
            },
        })
    }
}

#[derive(Serialize, Deserialize)]
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

#[derive(Serialize, Deserialize)]
enum Period {
    Day,
    Week,
    Month,
}

impl From<&program::Window> for Window {
    fn from(window: &program::Window) -> Self {
        match window {
            program::Window::Hopping(program::Hopping { size, every, offset }) => Self::Hopping {
                size_us: size.as_micros(),
                every_us: every.as_micros(),
                offset_us: offset.as_micros(),
            },
            program::Window::Session { gap } => Self::Session {
                gap_us: gap.as_micros(),
            },
            program::Window::Calendar { period, zone, pane } => Self::Calendar {
                period: match period {
                    program::Period::Day => Period::Day,
                    program::Period::Week => Period::Week,
                    program::Period::Month => Period::Month,
                },
                zone: zone.clone(),
                pane_us: pane.as_micros(),
            },
            program::Window::Count { readings } => Self::Count { readings: *readings },
        }
    }
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

#[derive(Serialize, Deserialize)]
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

impl From<&program::Aggregate> for Aggregate {
    fn from(aggregate: &program::Aggregate) -> Self {
        match aggregate {
            program::Aggregate::Count => Self::Count,
            program::Aggregate::Rate => Self::Rate,
            program::Aggregate::Sum => Self::Sum,
            program::Aggregate::Mean => Self::Mean,
            program::Aggregate::Min => Self::Min,
            program::Aggregate::Max => Self::Max,
            program::Aggregate::Range => Self::Range,
            program::Aggregate::Variance => Self::Variance,
            program::Aggregate::Stddev => Self::Stddev,
            program::Aggregate::First => Self::First,
            program::Aggregate::Last => Self::Last,
            program::Aggregate::Delta => Self::Delta,
            program::Aggregate::Median => Self::Median,
            program::Aggregate::Quantile(quantile) => Self::Quantile {
                millionths: quantile.0,
            },
            program::Aggregate::Histogram(bounds) => Self::Histogram(bounds.clone()),
            program::Aggregate::Distinct(of) => Self::Distinct(of.clone()),
            program::Aggregate::Top { k, tag } => Self::Top {
                k: *k,
                tag: tag.clone(),
            },
            program::Aggregate::Increase => Self::Increase,
            program::Aggregate::TimeWeightedMean => Self::TimeWeightedMean,
        }
    }
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
