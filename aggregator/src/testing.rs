//! What tests build frames and plans from: small queries over one field, whole numbers as readings, seconds as time.

use std::collections::BTreeMap;

use catchment_common::number::decimal::Value;
use catchment_common::plan::{Aggregate, Components, Field, FieldSource, PipelineId, Plan, Query, Window};
use catchment_common::stats::Stats;
use catchment_common::time::{Instant, Now, Span, Timestamp};
use catchment_common::wire::lineage::DatabaseId;
use catchment_common::wire::{BatchWriter, EpochRange, Heartbeat, HeldEpoch, Hello, Message, Section};

use crate::catalog::Catalog;

/// The database of machines in tests.
pub(crate) const DATABASE: DatabaseId = DatabaseId(1);

/// The pipeline of the first query, by its number: tests give pipelines numbers from 1, as version 1 did, and name them
/// so.
pub(crate) const PIPELINE: PipelineId = PipelineId(1);

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::clamped(seconds * 1_000_000)
}

pub(crate) fn now(seconds: i64) -> Now {
    Now {
        monotonic: Instant::from_micros(seconds as u64 * 1_000_000),
        wall: at(1_000_000 + seconds),
    }
}

pub(crate) fn query(name: &str, size: i64, every: i64) -> Query {
    Query {
        name: name.into(),
        key: vec!["device".into()],
        fields: vec![Field {
            name: "temp".into(),
            source: FieldSource::path("temp"),
            resolution: None,
            kind: catchment_common::plan::FieldKind::Gauge,
        }],
        window: Window::hopping(Span::from_secs(size), Span::from_secs(every)),
        aggregates: vec![Aggregate::Count, Aggregate::Sum],
        max_ahead: Span::from_secs(60),
        idle: Span::from_secs(10),
        ..Query::example()
    }
}

/// A query whose pipeline has a ladder of these widths in seconds.
pub(crate) fn coarsening(name: &str, size: i64, every: i64, coarsen: &[i64]) -> Query {
    Query {
        coarsen: coarsen.iter().map(|&rung| Span::from_secs(rung)).collect(),
        ..query(name, size, every)
    }
}

pub(crate) fn catalog(version: u64, queries: Vec<Query>) -> Catalog {
    let plan = Plan { version, queries };
    assert_eq!(plan.validate(), []);
    let mut catalog = Catalog::first(plan);
    let own = { catalog.queries.iter() }.map(|query| query.readers[0].pipeline);
    let mut ids: Vec<PipelineId> = Vec::new();
    own.for_each(|id| {
        if !ids.contains(&id) {
            ids.push(id);
        }
    });
    for base in ids.clone() {
        let ladder = catalog.ladders.iter().filter(|rung| rung.of == base);
        ids.extend(ladder.map(|rung| rung.pipeline));
    }
    catalog.numbers = (1..).zip(ids).collect();
    catalog
}

/// A batch of one pane: for each key one value per reading.
pub(crate) fn batch(seq: u64, pane: i64, rows: &[(&str, &[i64])]) -> Vec<u8> {
    batch_of(PIPELINE, 1, seq, pane, rows)
}

pub(crate) fn batch_of(
    pipeline: PipelineId,
    epoch: u64,
    seq: u64,
    pane: i64,
    rows: &[(&str, &[i64])],
) -> Vec<u8> {
    let keep = Components::SUM;
    let mut section = Section::default();
    section.reset(pipeline, at(pane), std::iter::once(keep));
    for (key, values) in rows {
        let mut stats = Stats::IDENTITY;
        for value in *values {
            let value = Value::from_units(i128::from(*value) * 10_i128.pow(18)).unwrap();
            stats.lift(keep, at(pane), value);
        }
        section.keys.push(key.as_bytes());
        section.readings.push(values.len() as u64);
        section.stats.push(stats);
    }
    let mut writer = BatchWriter::default();
    writer.push(&section);
    let mut frame = Vec::new();
    writer.seal(epoch, seq, &mut frame);
    frame
}

/// A part of a count window: number in milliseconds, key with the agent, and seconds with a value.
pub(crate) type Part<'p> = (i64, &'p str, &'p [(i64, i64)]);

/// A batch of them.
pub(crate) fn counted(seq: u64, rows: &[Part<'_>]) -> Vec<u8> {
    let keep = Components::SUM | Components::ENDS;
    let (mut writer, mut section) = (BatchWriter::default(), Section::default());
    for &(number, key, readings) in rows {
        section.reset(
            PIPELINE,
            Timestamp::clamped(number * 1_000),
            std::iter::once(keep),
        );
        let mut stats = Stats::IDENTITY;
        for &(seconds, value) in readings {
            let value = Value::from_units(i128::from(value) * 10_i128.pow(18)).unwrap();
            stats.lift(keep, at(seconds), value);
        }
        section.keys.push(key.as_bytes());
        section.readings.push(readings.len() as u64);
        section.stats.push(stats);
        writer.push(&section);
    }
    let mut frame = Vec::new();
    writer.seal(1, seq, &mut frame);
    frame
}

/// A batch of readings of one key each: key, event time and value; panes are of this width, in seconds.
pub(crate) fn readings(seq: u64, width: i64, rows: &[(&str, i64, i64)]) -> Vec<u8> {
    let keep = Components::SUM | Components::ENDS;
    let mut panes: BTreeMap<i64, BTreeMap<&str, (u64, Stats)>> = BTreeMap::new();
    for &(key, seconds, value) in rows {
        let pane = panes.entry(seconds.div_euclid(width) * width).or_default();
        let (count, stats) = pane.entry(key).or_default();
        let value = Value::from_units(i128::from(value) * 10_i128.pow(18)).unwrap();
        *count += 1;
        stats.lift(keep, at(seconds), value);
    }
    let (mut writer, mut section) = (BatchWriter::default(), Section::default());
    for (pane, rows) in panes {
        section.reset(PIPELINE, at(pane), std::iter::once(keep));
        for (key, (count, stats)) in rows {
            section.keys.push(key.as_bytes());
            section.readings.push(count);
            section.stats.push(stats);
        }
        writer.push(&section);
    }
    let mut frame = Vec::new();
    writer.seal(1, seq, &mut frame);
    frame
}

pub(crate) fn hello(agent: &str, epoch: u64, held: Vec<EpochRange>) -> Vec<u8> {
    let hello = Hello {
        agent: agent.into(),
        software: "test".into(),
        epoch,
        plan: 0,
        database: None,
        lineage: None,
        held: { held.into_iter() }
            .map(|batches| HeldEpoch {
                batches,
                database: None,
            })
            .collect(),
    };
    Message::Hello(hello).emit()
}

/// A heartbeat of epoch 1 that holds once every seq from `oldest` to `seq` is committed.
pub(crate) fn heartbeat(oldest: u64, seq: u64, watermark: i64) -> Vec<u8> {
    heartbeat_of(PIPELINE, oldest, seq, watermark)
}

pub(crate) fn heartbeat_of(pipeline: PipelineId, oldest: u64, seq: u64, watermark: i64) -> Vec<u8> {
    let heartbeat = Heartbeat {
        epoch: 1,
        era: 1,
        seq,
        oldest,
        watermarks: vec![(pipeline, at(watermark))],
        counters: Vec::new(),
        backlog_batches: 0,
        backlog_bytes: 0,
        sources: Vec::new(),
        clock: None,
    };
    Message::Heartbeat(heartbeat).emit()
}
