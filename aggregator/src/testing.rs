//! What tests build frames and plans from: small queries over one field, whole numbers as readings, seconds as time.

use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use catchment_common::decimal::Value;
use catchment_common::plan::{
    Aggregate, Components, Field, Format, Path, Plan, Query, SliceId, TimeSource, Window,
};
use catchment_common::stats::Stats;
use catchment_common::time::{Instant, Now, Span, Timestamp};
use catchment_common::topic::TopicTemplate;
use catchment_common::wire::{BatchWriter, EpochRange, Heartbeat, Hello, Message, Section};

use rusqlite::types::ValueRef;

use crate::aggregator::{Aggregator, ConnectionId, Settings, Transmit};
use crate::catalog::Catalog;
use crate::io::sqlite::{Store, tables};
use crate::io::tables::TableSql;

/// The slice of the first query.
pub(crate) const SLICE: SliceId = SliceId(1);

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
        topic: TopicTemplate::parse("s/{device}").unwrap(),
        format: Format::Json,
        time: TimeSource::Arrival,
        tags: Vec::new(),
        key: vec!["device".into()],
        fields: vec![Field {
            name: "temp".into(),
            path: Path::parse("temp"),
            resolution: None,
        }],
        window: Window {
            size: Span::from_secs(size),
            every: Span::from_secs(every),
        },
        aggregates: vec![Aggregate::Count, Aggregate::Sum],
        lateness: Span::from_secs(0),
        max_late: Span::from_days(1),
        max_ahead: Span::from_secs(60),
        idle: Span::from_secs(10),
        patience: Span::from_secs(10),
        retention: None,
        coarsen: Vec::new(),
        dedupe: None,
    }
}

/// A query whose slice has a ladder of these widths in seconds.
pub(crate) fn coarsening(name: &str, size: i64, every: i64, coarsen: &[i64]) -> Query {
    Query {
        coarsen: coarsen.iter().map(|&rung| Span::from_secs(rung)).collect(),
        ..query(name, size, every)
    }
}

pub(crate) fn catalog(version: u64, queries: Vec<Query>) -> Catalog {
    let plan = Plan { version, queries };
    assert_eq!(plan.validate(), []);
    Catalog::first(plan)
}

/// A batch of one pane: for each key one value per reading.
pub(crate) fn batch(seq: u64, pane: i64, rows: &[(&str, &[i64])]) -> Vec<u8> {
    batch_of(SLICE, 1, seq, pane, rows)
}

pub(crate) fn batch_of(slice: SliceId, epoch: u64, seq: u64, pane: i64, rows: &[(&str, &[i64])]) -> Vec<u8> {
    let keep = Components::SUM;
    let mut section = Section::default();
    section.reset(slice, at(pane), std::iter::once(keep));
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

pub(crate) fn hello(agent: &str, epoch: u64, held: Vec<EpochRange>) -> Vec<u8> {
    let hello = Hello {
        agent: agent.into(),
        software: "test".into(),
        epoch,
        plan_version: 0,
        held,
    };
    Message::Hello(hello).emit()
}

/// A heartbeat of epoch 1 that holds once every seq from `oldest` to `seq` is committed.
pub(crate) fn heartbeat(oldest: u64, seq: u64, watermark: i64) -> Vec<u8> {
    let heartbeat = Heartbeat {
        epoch: 1,
        counting: 1,
        seq,
        oldest,
        watermarks: vec![(SLICE, at(watermark))],
        counters: Vec::new(),
        backlog_batches: 0,
        backlog_bytes: 0,
    };
    Message::Heartbeat(heartbeat).emit()
}

/// The machine on a real database, as the server runs it, with its answers.
pub(crate) struct Centre {
    pub(crate) path: PathBuf,
    pub(crate) aggregator: Aggregator,
    pub(crate) reader: Store,
    pub(crate) writer: Store,
    pub(crate) sent: Vec<(ConnectionId, Transmit)>,
    pub(crate) tables: Arc<[TableSql]>,
}

impl Centre {
    /// A new database in `folder` with this plan, in TOML.
    pub(crate) fn new(folder: &FilePath, plan: &str) -> Self {
        let path = folder.join("centre.db");
        let mut store = Store::open(&path).unwrap();
        crate::io::run::apply(&mut store, plan, "plan", at(0)).unwrap();
        drop(store);
        Self::open(&path, 0)
    }

    /// Starts on an existing database.
    pub(crate) fn open(path: &FilePath, seconds: i64) -> Self {
        let writer = Store::open(path).unwrap();
        // What is tested here is order and content; that SQLite syncs is not.
        writer
            .connection()
            .pragma_update(None, "synchronous", "OFF")
            .unwrap();
        let reader = Store::open_to_read(path).unwrap();
        let settings = Settings {
            lease: Span::from_secs(1_000_000),
            heartbeat: Span::from_secs(1),
        };
        let aggregator = reader.restore(settings, now(seconds)).unwrap();
        Self {
            path: path.to_owned(),
            tables: tables(aggregator.catalog()),
            aggregator,
            reader,
            writer,
            sent: Vec::new(),
        }
    }

    /// Forgets everything that is not durable and starts anew.
    pub(crate) fn crash(self, seconds: i64) -> Self {
        let path = self.path.clone();
        drop(self);
        Self::open(&path, seconds)
    }

    pub(crate) fn greet(
        &mut self,
        seconds: i64,
        connection: ConnectionId,
        agent: &str,
        held: Vec<EpochRange>,
    ) {
        self.aggregator.handle_connected(connection, agent);
        self.frame(seconds, connection, hello(agent, 1, held));
    }

    pub(crate) fn frame(&mut self, seconds: i64, connection: ConnectionId, frame: Vec<u8>) {
        self.aggregator
            .handle_frame(now(seconds), connection, frame.into(), &self.reader)
            .unwrap();
        self.collect();
    }

    /// Makes everything durable that is due.
    pub(crate) fn settle(&mut self, seconds: i64) {
        while self.commit(seconds) == Some(true) {}
    }

    /// Tries one commit: whether it succeeded, or none if none is due.
    pub(crate) fn commit(&mut self, seconds: i64) -> Option<bool> {
        let polled = self.aggregator.poll_commit(now(seconds), &self.reader);
        let commit = polled.unwrap()?;
        let result = self.writer.commit(&commit, &self.tables);
        let done = result.is_ok();
        match result {
            Ok(()) => self.aggregator.handle_committed(commit.id),
            Err(_) => self.aggregator.handle_commit_failed(now(seconds), commit),
        }
        self.collect();
        Some(done)
    }

    fn collect(&mut self) {
        self.sent
            .extend(std::iter::from_fn(|| self.aggregator.poll_transmit()));
    }

    /// The seqs acknowledged so far on a connection.
    pub(crate) fn acked(&self, connection: ConnectionId) -> BTreeSet<u64> {
        let ranges = |(to, transmit): &(ConnectionId, Transmit)| match transmit {
            Transmit::Message(Message::Ack(ack)) if *to == connection => ack.ranges.clone(),
            _ => Vec::new(),
        };
        let ranges = self.sent.iter().flat_map(ranges);
        ranges.flat_map(|range| range.first..=range.last).collect()
    }

    /// The seqs that the last welcome on a connection named.
    pub(crate) fn committed(&self, connection: ConnectionId) -> BTreeSet<u64> {
        let welcome = self.sent.iter().rev().find_map(|sent| match sent {
            (to, Transmit::Message(Message::Welcome(welcome))) if *to == connection => Some(welcome),
            _ => None,
        });
        let epochs = &welcome.expect("a welcome").committed;
        let ranges = epochs.iter().flat_map(|epoch| &epoch.ranges);
        ranges.flat_map(|range| range.first..=range.last).collect()
    }

    /// What a query gives, a line for each row, columns parted by `|`.
    pub(crate) fn rows(&self, sql: &str) -> Vec<String> {
        let mut statement = self.reader.connection().prepare(sql).unwrap();
        let count = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        let mut lines = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let cell = |index| match row.get_ref(index).unwrap() {
                ValueRef::Null => "-".to_owned(),
                ValueRef::Integer(number) => number.to_string(),
                ValueRef::Real(number) => number.to_string(),
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                ValueRef::Blob(bytes) => format!("{bytes:?}"),
            };
            lines.push((0..count).map(cell).collect::<Vec<_>>().join("|"));
        }
        lines
    }
}
