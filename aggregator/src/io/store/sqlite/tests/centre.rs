//! The machine on a real database, as the server runs it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use catchment_common::time::Span;
use catchment_common::wire::{EpochRange, Message, VERSION};
use rusqlite::types::ValueRef;

use crate::aggregator::{Aggregator, ConnectionId, Settings, Transmit};
use crate::io::store::sqlite::Sqlite;
use crate::store::{Reads, Store};
use crate::testing::{at, hello, now};

/// The machine with its database and its answers.
pub(super) struct Centre {
    pub(super) path: PathBuf,
    pub(super) aggregator: Aggregator,
    pub(super) reader: Sqlite,
    pub(super) writer: Sqlite,
    pub(super) sent: Vec<(ConnectionId, Transmit)>,
}

impl Centre {
    /// A new database in `folder` with this plan, in TOML.
    pub(super) fn new(folder: &Path, plan: &str) -> Self {
        let path = folder.join("centre.db");
        let mut store = Sqlite::open(&path).unwrap();
        crate::plan_file::apply(&mut store, plan, "plan", at(0)).unwrap();
        drop(store);
        Self::open(&path, 0)
    }

    /// Starts on an existing database.
    pub(super) fn open(path: &Path, seconds: i64) -> Self {
        let writer = Sqlite::open(path).unwrap();
        // What is tested here is order and content; that SQLite syncs is not.
        writer
            .connection()
            .pragma_update(None, "synchronous", "OFF")
            .unwrap();
        // Tests name pipelines by numbers from 1.
        let renumber = "UPDATE catchment_pipeline SET number = ordinal";
        writer.connection().execute_batch(renumber).unwrap();
        let reader = Sqlite::open_to_read(path).unwrap();
        let settings = Settings {
            lease: Span::from_secs(1_000_000),
            heartbeat: Span::from_secs(1),
            due_rows: 20,
            memory: usize::MAX,
        };
        let aggregator = reader.restore(settings, now(seconds)).unwrap();
        Self {
            path: path.to_owned(),
            aggregator,
            reader,
            writer,
            sent: Vec::new(),
        }
    }

    /// Forgets everything that is not durable and starts anew.
    pub(super) fn crash(self, seconds: i64) -> Self {
        let path = self.path.clone();
        drop(self);
        Self::open(&path, seconds)
    }

    pub(super) fn greet(
        &mut self,
        seconds: i64,
        connection: ConnectionId,
        agent: &str,
        held: Vec<EpochRange>,
    ) {
        self.aggregator.handle_connected(connection, agent, VERSION);
        self.frame(seconds, connection, hello(agent, 1, held));
    }

    pub(super) fn frame(&mut self, seconds: i64, connection: ConnectionId, frame: Vec<u8>) {
        self.aggregator
            .handle_frame(now(seconds), connection, frame.into(), &self.reader)
            .unwrap();
        self.collect();
    }

    /// Makes everything durable that is due.
    pub(super) fn settle(&mut self, seconds: i64) {
        while self.commit(seconds) == Some(true) {}
    }

    /// Tries one commit: whether it succeeded, or none if none is due.
    pub(super) fn commit(&mut self, seconds: i64) -> Option<bool> {
        let polled = self.aggregator.poll_commit(now(seconds), &self.reader);
        let commit = polled.unwrap()?;
        let result = self.writer.commit(&commit);
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
    pub(super) fn acked(&self, connection: ConnectionId) -> BTreeSet<u64> {
        let ranges = |(to, transmit): &(ConnectionId, Transmit)| match transmit {
            Transmit::Message(Message::Ack(ack)) if *to == connection => ack.ranges.clone(),
            _ => Vec::new(),
        };
        let ranges = self.sent.iter().flat_map(ranges);
        ranges.flat_map(|range| range.first..=range.last).collect()
    }

    /// The seqs that the last welcome on a connection named.
    pub(super) fn committed(&self, connection: ConnectionId) -> BTreeSet<u64> {
        let welcome = self.sent.iter().rev().find_map(|sent| match sent {
            (to, Transmit::Message(Message::Welcome(welcome))) if *to == connection => Some(welcome),
            _ => None,
        });
        let epochs = &welcome.expect("a welcome").committed;
        let ranges = epochs.iter().flat_map(|epoch| &epoch.ranges);
        ranges.flat_map(|range| range.first..=range.last).collect()
    }

    /// What a query gives, a line for each row, columns parted by `|`.
    pub(super) fn rows(&self, sql: &str) -> Vec<String> {
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
