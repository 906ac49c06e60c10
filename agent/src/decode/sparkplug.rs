//! Sparkplug B: metrics of edge nodes and their devices, named at birth and by alias afterwards.
//!
//! Births (NBIRTH, DBIRTH) say which name an alias stands for, and bring first values. Data (NDATA, DDATA) may use
//! aliases alone; without the birth there is no telling what it means, so it is refused and the edge node is asked for
//! its births ([`Births::poll_command`]). A metric that its birth does not have is refused alone. Deaths take the births away. Metrics of a message that have the same time are
//! one reading, with the paths `metrics.NAME`, `timestamp` (ms), `seq`, and `group`, `type`, `edge` and `device` of the
//! topic. A packed payload is unpacked first.

mod births;
mod message;

use std::fmt::Write as _;

use catchment_common::metrics::Reason;
use catchment_common::plan::Compression;
use prost::Message;

pub use self::births::{Births, Command};
use self::births::{Metrics, Source};
use self::message::{DataType, Metric, Payload, Value};
use super::unpack::{inflate, unpack};
use super::{Context, Decoded, PathTree, text};
use crate::source::SourceId;

/// The first level of every topic.
const NAMESPACE: &str = "spBv1.0";
/// The metric that carries the number of a session: a death of another session means nothing.
const SESSION: &str = "bdSeq";

/// What the `uuid` of a packed payload is, and the metric that says how it is packed: with DEFLATE, unless it says
/// otherwise.
const PACKED: &str = "SPBV1.0_COMPRESSED";
const ALGORITHM: &str = "algorithm";
const DEFLATE: &str = "DEFLATE";
const GZIP: &str = "GZIP";

/// The levels of a topic.
#[derive(Clone, Copy)]
struct Topic<'t> {
    group: &'t str,
    kind: &'t str,
    edge: &'t str,
    device: Option<&'t str>,
}

impl<'t> Topic<'t> {
    fn parse(topic: &'t str) -> Option<Self> {
        let mut levels = topic.split('/');
        let (namespace, group, kind, edge) = (levels.next()?, levels.next()?, levels.next()?, levels.next()?);
        let device = levels.next();
        (namespace == NAMESPACE && levels.next().is_none()).then_some(Self {
            group,
            kind,
            edge,
            device,
        })
    }

    fn source(self, behind: SourceId) -> Source<'t> {
        Source {
            behind,
            group: self.group,
            edge: self.edge,
            device: self.device,
        }
    }
}

pub(super) fn decode(
    out: &mut Decoded,
    tree: &PathTree,
    payload: &[u8],
    context: Context<'_>,
    births: &mut Births,
) -> Result<(), Reason> {
    let topic = Topic::parse(context.topic).ok_or(Reason::MalformedPayload)?;
    // Commands are for the edge nodes, states are of applications; neither has readings.
    if !matches!(
        topic.kind,
        "NBIRTH" | "DBIRTH" | "NDATA" | "DDATA" | "NDEATH" | "DDEATH"
    ) {
        return Ok(());
    }
    let payload = Payload::decode(payload).map_err(|_| Reason::MalformedPayload)?;
    let mut payload = unpacked(payload, context.payload_bytes_max)?;
    let source = topic.source(context.source);
    match topic.kind {
        "NDEATH" => births.end(source, session(&payload)),
        "DDEATH" => births.end(source, None),
        "NBIRTH" | "DBIRTH" => {
            let metrics = Metrics::of(&payload);
            births.begin(source, session(&payload), metrics, context.now)?;
            readings(out, tree, topic, &payload)?;
        }
        _ => {
            let unknown = births.complete(source, &mut payload.metrics, context.now);
            if unknown != Some(0) {
                births.ask(source, context.now);
            }
            let unknown = unknown.ok_or(Reason::NoBirth)?;
            (0..unknown).try_for_each(|_| out.give_up_part(Reason::NoBirth))?;
            readings(out, tree, topic, &payload)?;
        }
    }
    Ok(())
}

/// The payload inside a packed one (specification 3.0, section 6.4.30: its `uuid` says so, a metric how it is packed).
fn unpacked(payload: Payload, bytes_max: usize) -> Result<Payload, Reason> {
    if payload.uuid.as_deref() != Some(PACKED) {
        return Ok(payload);
    }
    let body = payload.body.as_deref().ok_or(Reason::MalformedPayload)?;
    let algorithm = { payload.metrics.iter() }.find(|metric| metric.name.as_deref() == Some(ALGORITHM));
    let algorithm = match algorithm.and_then(|metric| metric.value.as_ref()) {
        Some(Value::Text(name)) => name.as_str(),
        _ => DEFLATE,
    };
    let mut bytes = Vec::new();
    if algorithm.eq_ignore_ascii_case(GZIP) {
        unpack(Compression::Gzip, body, bytes_max, &mut bytes)?;
    } else if algorithm.eq_ignore_ascii_case(DEFLATE) {
        inflate(body, bytes_max, &mut bytes)?;
    } else {
        return Err(Reason::MalformedPayload);
    }
    let inner = Payload::decode(&*bytes).map_err(|_| Reason::MalformedPayload)?;
    if inner.uuid.as_deref() == Some(PACKED) {
        return Err(Reason::MalformedPayload);
    }
    Ok(Payload {
        timestamp: inner.timestamp.or(payload.timestamp),
        seq: inner.seq.or(payload.seq),
        ..inner
    })
}

/// The number of the edge node's session.
fn session(payload: &Payload) -> Option<u64> {
    let metric = { payload.metrics.iter() }.find(|metric| metric.name.as_deref() == Some(SESSION))?;
    match metric.value {
        Some(Value::Int(number)) => Some(number.into()),
        Some(Value::Long(number)) => Some(number),
        _ => None,
    }
}

/// Metrics of one time, one reading.
fn readings(out: &mut Decoded, tree: &PathTree, topic: Topic<'_>, payload: &Payload) -> Result<(), Reason> {
    let time_of = |metric: &Metric| metric.timestamp.or(payload.timestamp);
    let mut rows: Vec<(Option<u64>, usize)> = Vec::new();
    for metric in &payload.metrics {
        if metric.name.as_deref() == Some(SESSION) {
            continue;
        }
        let time = time_of(metric);
        // Few times in one message: nearly all have one.
        let known = rows.iter().find(|(known, _)| *known == time);
        let row = if let Some((_, row)) = known {
            *row
        } else {
            let row = begin(out, tree, topic, payload, time)?;
            rows.push((time, row));
            row
        };
        let name = metric.name.as_deref().unwrap_or_default();
        let path = tree.within("metrics").find(|(_, wanted)| *wanted == name);
        if let Some((path, _)) = path
            && metric.is_null != Some(true)
        {
            out.put(row, path, |arena| write(arena, metric))?;
        }
    }
    Ok(())
}

fn begin(
    out: &mut Decoded,
    tree: &PathTree,
    topic: Topic<'_>,
    payload: &Payload,
    time: Option<u64>,
) -> Result<usize, Reason> {
    let row = out.start_reading()?;
    let levels = [
        ("group", Some(topic.group)),
        ("type", Some(topic.kind)),
        ("edge", Some(topic.edge)),
        ("device", topic.device),
    ];
    for (name, level) in levels {
        if let (Some(path), Some(level)) = (tree.named(name), level) {
            out.put(row, path, |arena| text::quoted(arena, level))?;
        }
    }
    for (name, number) in [("timestamp", time), ("seq", payload.seq)] {
        if let (Some(path), Some(number)) = (tree.named(name), number) {
            out.put(row, path, |arena| {
                let _ = write!(arena, "{number}");
            })?;
        }
    }
    Ok(row)
}

/// The value of a metric. Signed integers travel as the two's complement of their width.
fn write(arena: &mut String, metric: &Metric) {
    let data_type = metric.data_type();
    let _ = match &metric.value {
        None => Ok(()),
        Some(Value::Int(bits)) => match data_type {
            DataType::INT8 => write!(arena, "{}", *bits as i8),
            DataType::INT16 => write!(arena, "{}", *bits as i16),
            // Some send what is longer in the shorter form.
            DataType::INT32 | DataType::INT64 => write!(arena, "{}", *bits as i32),
            _ => write!(arena, "{bits}"),
        },
        Some(Value::Long(bits)) => match data_type {
            DataType::INT8 | DataType::INT16 | DataType::INT32 | DataType::INT64 => {
                write!(arena, "{}", *bits as i64)
            }
            _ => write!(arena, "{bits}"),
        },
        Some(Value::Float(float)) => {
            text::single(arena, *float);
            Ok(())
        }
        Some(Value::Double(float)) => {
            text::float(arena, *float);
            Ok(())
        }
        Some(Value::Truth(truth)) => write!(arena, "{truth}"),
        Some(Value::Text(value)) => {
            text::quoted(arena, value);
            Ok(())
        }
        // Bytes, data sets and templates are no values.
        Some(Value::Bytes(_)) => write!(arena, "[]"),
    };
}

#[cfg(test)]
mod tests;
