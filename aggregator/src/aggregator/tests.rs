//! The machine as stories: frames in, commits out, and what results from them. No store but a map of panes.

mod bounds;

mod clocks;

mod closure;

mod coarse;

mod late;

mod memory;

mod origins;

mod session;

mod time;

use std::cell::{Cell, RefCell};

use catchment_common::limits::BATCH_DELTAS_MAX;
use catchment_common::metrics::Counter;
use catchment_common::plan::{Dedupe, Path, PipelineId, Query};
use catchment_common::stats::Lowered;
use catchment_common::wire::VERSION;
use catchment_common::wire::{LossEntry, RejectReason};

use super::sessions::REPLACED;
use super::*;
use crate::commit::{AppendedBatch, NoPanes, Row, StoredChunk, WindowRows};
use crate::limits::DUE_ROWS_MAX;
use crate::testing::{
    DATABASE, PIPELINE, at, batch, batch_of, catalog, coarsening, heartbeat, hello, now, query,
};

/// Keeps checkpoints as a store would.
#[derive(Default)]
struct Chunks {
    all: RefCell<BTreeMap<(PipelineId, Timestamp, u32), Vec<u8>>>,
    /// How often it was asked for a pane.
    asked: Cell<usize>,
}

impl Chunks {
    fn apply(&self, commit: &Commit) {
        let mut all = self.all.borrow_mut();
        for pane in commit.checkpoint.iter().flat_map(|checkpoint| &checkpoint.panes) {
            all.retain(|(pipeline, start, _), _| (*pipeline, *start) != (pane.pipeline, pane.start));
            for (number, columns) in (0..).zip(&pane.chunks) {
                all.insert((pane.pipeline, pane.start, number), columns.clone());
            }
        }
    }
}

impl PaneSource for Chunks {
    fn chunks(&self, pipeline: PipelineId, pane: Timestamp) -> Result<Vec<StoredChunk>, SourceFault> {
        self.asked.set(self.asked.get() + 1);
        let all = self.all.borrow();
        Ok(all
            .range((pipeline, pane, 0)..=(pipeline, pane, u32::MAX))
            .map(|((_, _, number), columns)| StoredChunk {
                number: *number,
                columns: columns.clone(),
            })
            .collect())
    }

    fn starts(
        &self,
        pipeline: PipelineId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Timestamp>, SourceFault> {
        let all = self.all.borrow();
        let range = all.range((pipeline, from, 0)..=(pipeline, to, u32::MAX));
        let starts: BTreeSet<Timestamp> = range.map(|((_, start, _), _)| *start).collect();
        Ok(starts.into_iter().collect())
    }
}

/// Query, start, width of a coarser pane or zero, key.
type RowKey = (usize, Timestamp, Span, String);

/// The machine with its store, its answers, and the newest row of each window and key.
struct World {
    aggregator: Aggregator,
    chunks: Chunks,
    /// Revision, final, readings and sum.
    rows: BTreeMap<RowKey, (u32, bool, u64, f64)>,
    sent: Vec<(ConnectionId, Transmit)>,
    commits: Vec<Commit>,
}

impl World {
    fn new(queries: Vec<Query>) -> Self {
        let settings = Settings {
            lease: Span::from_secs(1_000),
            heartbeat: Span::from_secs(1),
            due_rows: DUE_ROWS_MAX,
            memory: usize::MAX,
        };
        let aggregator = Aggregator::new(settings, DATABASE, catalog(1, queries), now(0));
        Self {
            aggregator,
            chunks: Chunks::default(),
            rows: BTreeMap::new(),
            sent: Vec::new(),
            commits: Vec::new(),
        }
    }

    /// The id of the pipeline with this number.
    fn id(&self, number: PipelineId) -> PipelineId {
        self.aggregator.catalog().resolve(number).unwrap()
    }

    fn holds(&self, number: PipelineId, pane: Timestamp) -> bool {
        self.aggregator.panes().holds(self.id(number), pane)
    }

    fn greet(&mut self, connection: ConnectionId, agent: &str, held: Vec<EpochRange>) {
        self.greet_as(connection, agent, 1, held);
    }

    fn greet_as(&mut self, connection: ConnectionId, agent: &str, epoch: u64, held: Vec<EpochRange>) {
        self.aggregator.handle_connected(connection, agent, VERSION);
        self.frame(0, connection, hello(agent, epoch, held)).unwrap();
    }

    fn frame(&mut self, seconds: i64, connection: ConnectionId, frame: Vec<u8>) -> Result<(), Fault> {
        self.aggregator
            .handle_frame(now(seconds), connection, frame.into(), &self.chunks)
    }

    fn heartbeat(&mut self, seconds: i64, connection: ConnectionId, seq: u64, watermark: i64) {
        self.heartbeat_from(seconds, connection, 1, seq, watermark);
    }

    fn heartbeat_from(
        &mut self,
        seconds: i64,
        connection: ConnectionId,
        oldest: u64,
        seq: u64,
        watermark: i64,
    ) {
        self.frame(seconds, connection, heartbeat(oldest, seq, watermark))
            .unwrap();
    }

    /// Makes everything durable that is due, and takes its results and acknowledgements.
    fn settle(&mut self, seconds: i64) {
        while let Some(commit) = self.aggregator.poll_commit(now(seconds), &self.chunks).unwrap() {
            self.take(&commit);
            self.aggregator.handle_committed(commit.id);
            self.commits.push(commit);
        }
        self.sent
            .extend(std::iter::from_fn(|| self.aggregator.poll_transmit()));
    }

    fn take(&mut self, commit: &Commit) {
        self.chunks.apply(commit);
        for results in &commit.results {
            for WindowRows {
                status,
                is_coarse,
                rows,
                ..
            } in &results.windows
            {
                let width = if *is_coarse {
                    status.end.since(status.start)
                } else {
                    Span::ZERO
                };
                for Row {
                    key,
                    readings,
                    values,
                } in rows
                {
                    let Some(Lowered::Real(sum)) = values[1] else {
                        panic!("a sum is a number")
                    };
                    let key = (
                        results.query,
                        status.start,
                        width,
                        String::from_utf8(key.to_vec()).unwrap(),
                    );
                    let revision = self.rows.get(&key).map_or(0, |row| row.0) + 1;
                    self.rows.insert(key, (revision, status.is_final, *readings, sum));
                }
            }
            for status in &results.statuses {
                for ((query, start, width, _), row) in &mut self.rows {
                    // As the store does: rows of this commit have the status already.
                    if (*query, *start, *width) == (results.query, status.start, Span::ZERO)
                        && row.1 != status.is_final
                    {
                        (row.0, row.1) = (row.0 + 1, status.is_final);
                    }
                }
            }
        }
    }

    /// Rows of query 0's windows as (start, key, revision, final, readings, sum).
    fn check(&self, expected: &[(i64, &str, u32, bool, u64, f64)]) {
        let rows: Vec<_> = self
            .rows
            .iter()
            .filter(|((query, _, width, _), _)| (*query, *width) == (0, Span::ZERO))
            .map(|((_, start, _, key), row)| {
                (
                    start.as_micros() / 1_000_000,
                    key.as_str(),
                    row.0,
                    row.1,
                    row.2,
                    row.3,
                )
            })
            .collect();
        assert_eq!(rows, expected);
    }

    /// Rows of query 0's coarser panes as (start, width, key, revision, readings, sum).
    fn check_coarse(&self, expected: &[(i64, i64, &str, u32, u64, f64)]) {
        let seconds = |micros: i64| micros / 1_000_000;
        let rows: Vec<_> = self
            .rows
            .iter()
            .filter(|((query, _, width, _), _)| *query == 0 && *width > Span::ZERO)
            .map(|((_, start, width, key), row)| {
                let (start, width) = (seconds(start.as_micros()), seconds(width.as_micros()));
                (start, width, key.as_str(), row.0, row.2, row.3)
            })
            .collect();
        assert_eq!(rows, expected);
    }

    fn acked(&self) -> Vec<(ConnectionId, u64, u64)> {
        let ranges = |sent: &(ConnectionId, Transmit)| match sent {
            (connection, Transmit::Message(Message::Ack(ack))) => ack
                .ranges
                .iter()
                .map(|range| (*connection, range.first, range.last))
                .collect(),
            _ => Vec::new(),
        };
        self.sent.iter().flat_map(ranges).collect()
    }
}

#[test]
fn a_window_is_shown_when_all_have_passed_and_acknowledged_when_durable() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    world.greet(2, "b", Vec::new());
    world.heartbeat(0, 1, 0, 100);
    world.heartbeat(0, 2, 0, 100);
    world.frame(1, 1, batch(1, 100, &[("x", &[1, 2])])).unwrap();
    let commit = world
        .aggregator
        .poll_commit(now(1), &world.chunks)
        .unwrap()
        .unwrap();
    world
        .sent
        .extend(std::iter::from_fn(|| world.aggregator.poll_transmit()));
    assert_eq!(world.acked(), [], "nothing is acknowledged before it is durable");
    assert_eq!(
        world.aggregator.poll_commit(now(1), &world.chunks).unwrap(),
        None,
        "one commit at a time"
    );
    world.aggregator.handle_committed(commit.id);
    world.settle(1);
    assert_eq!(world.acked(), [(1, 1, 1)]);
    world.check(&[]);
    world.frame(2, 2, batch(1, 100, &[("x", &[4])])).unwrap();
    world.heartbeat(2, 1, 1, 110);
    world.settle(2);
    world.check(&[]);
    world.heartbeat(3, 2, 1, 111);
    world.settle(3);
    world.check(&[(100, "x", 1, true, 3, 7.0)]);
}

#[test]
fn a_batch_counts_once_however_often_it_comes() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    let frame = batch(1, 100, &[("x", &[5])]);
    world.frame(1, 1, frame.clone()).unwrap();
    world.frame(1, 1, frame.clone()).unwrap();
    world.settle(1);
    world.frame(2, 1, frame.clone()).unwrap();
    world.settle(2);
    assert_eq!(
        world.acked(),
        [(1, 1, 1), (1, 1, 1)],
        "each time it is acknowledged"
    );
    world.greet(
        3,
        "a",
        vec![EpochRange {
            epoch: 1,
            ranges: vec![SeqRange { first: 1, last: 9 }],
        }],
    );
    world.heartbeat(3, 3, 1, 200);
    world.settle(3);
    let welcome = world.sent.iter().find_map(|sent| match sent {
        (3, Transmit::Message(Message::Welcome(welcome))) => Some(welcome.clone()),
        _ => None,
    });
    assert_eq!(
        welcome.unwrap().committed[0].ranges,
        [SeqRange { first: 1, last: 1 }]
    );
    world.check(&[(100, "x", 1, true, 1, 5.0)]);
    assert!(world.sent.contains(&(1, Transmit::Close(REPLACED))));
}

#[test]
fn a_watermark_does_not_overtake_its_batches() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    world.heartbeat(1, 1, 2, 200);
    world.settle(1);
    world.check(&[]);
    world.frame(2, 1, batch(2, 100, &[("x", &[1])])).unwrap();
    world.settle(2);
    world.check(&[]);
    world.frame(3, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    world.settle(3);
    world.check(&[(100, "x", 1, true, 2, 2.0)]);
}

#[test]
fn silence_makes_a_window_provisional_and_the_late_agent_makes_it_final() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    world.greet(2, "b", Vec::new());
    world.heartbeat(0, 1, 0, 100);
    world.heartbeat(0, 2, 0, 100);
    world.frame(1, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    world.heartbeat(1, 1, 1, 115);
    world.settle(1);
    world.settle(10);
    world.check(&[]);
    assert!(world.aggregator.poll_timeout() <= now(11).monotonic);
    world.settle(11);
    world.check(&[(100, "x", 1, false, 1, 1.0)]);
    // The silent one is now catching up: it does not hold the next window.
    world.frame(12, 1, batch(2, 110, &[("x", &[1])])).unwrap();
    world.heartbeat(12, 1, 2, 120);
    world.settle(12);
    world.check(&[(100, "x", 1, false, 1, 1.0), (110, "x", 1, false, 1, 1.0)]);
    world.frame(13, 2, batch(1, 100, &[("y", &[9])])).unwrap();
    world.heartbeat(13, 2, 1, 115);
    world.settle(13);
    world.check(&[
        (100, "x", 2, true, 1, 1.0),
        (100, "y", 1, true, 1, 9.0),
        (110, "x", 1, false, 1, 1.0),
    ]);
    world.heartbeat(14, 2, 1, 130);
    world.settle(14);
    world.check(&[
        (100, "x", 2, true, 1, 1.0),
        (100, "y", 1, true, 1, 9.0),
        (110, "x", 2, true, 1, 1.0),
    ]);
}

#[test]
fn late_data_revises_even_after_its_pane_has_left_memory() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    world
        .frame(1, 1, batch(1, 100, &[("x", &[1]), ("y", &[2])]))
        .unwrap();
    world.heartbeat(1, 1, 1, 1_000);
    world.settle(1);
    world.settle(20);
    assert!(
        world.holds(PIPELINE, at(100)),
        "not before what the checkpoint wrote is durable"
    );
    world.settle(30);
    assert!(!world.holds(PIPELINE, at(100)), "the next one let it go");
    world.frame(31, 1, batch(2, 100, &[("x", &[10])])).unwrap();
    world.settle(31);
    world.check(&[(100, "x", 2, true, 2, 11.0), (100, "y", 1, true, 1, 2.0)]);
}

#[test]
fn a_query_that_comes_later_never_shows_a_window_with_holes() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    world.frame(1, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    world.heartbeat(1, 1, 1, 119);
    world.settle(1);
    world.settle(20);
    world.settle(30);
    world.frame(31, 1, batch(2, 110, &[("x", &[2])])).unwrap();
    world.settle(31);
    assert!(!world.holds(PIPELINE, at(100)));
    let both = catalog(2, vec![query("q", 10, 10), query("wide", 20, 20)]);
    world.aggregator.handle_catalog(now(32), both);
    world.frame(32, 1, batch(3, 120, &[("x", &[4])])).unwrap();
    world.heartbeat(32, 1, 3, 1_000);
    world.settle(32);
    let wide = |world: &World| -> Vec<(Timestamp, u64)> {
        let rows = world.rows.iter().filter(|((query, ..), _)| *query == 1);
        rows.map(|((_, start, ..), (_, _, readings, _))| (*start, *readings))
            .collect()
    };
    assert_eq!(
        wide(&world),
        [(at(120), 1)],
        "the window from 100 lacks a pane in memory"
    );
    world.frame(33, 1, batch(4, 110, &[("x", &[8])])).unwrap();
    world.settle(33);
    assert_eq!(
        wide(&world),
        [(at(100), 3), (at(120), 1)],
        "data that still comes shows it whole"
    );
}

#[test]
fn hopping_windows_are_assembled_from_panes() {
    let mut world = World::new(vec![query("q", 30, 10)]);
    world.greet(1, "a", Vec::new());
    world.frame(1, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    world.frame(1, 1, batch(2, 120, &[("x", &[100])])).unwrap();
    world.heartbeat(1, 1, 2, 140);
    world.settle(1);
    world.check(&[
        (80, "x", 1, true, 1, 1.0),
        (90, "x", 1, true, 1, 1.0),
        (100, "x", 1, true, 2, 101.0),
        (110, "x", 1, true, 1, 100.0),
    ]);
    world.frame(2, 1, batch(3, 110, &[("x", &[10])])).unwrap();
    world.settle(2);
    world.check(&[
        (80, "x", 1, true, 1, 1.0),
        (90, "x", 2, true, 2, 11.0),
        (100, "x", 2, true, 3, 111.0),
        (110, "x", 2, true, 2, 110.0),
    ]);
}

#[test]
fn a_failed_commit_is_tried_again_unchanged() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    world.frame(1, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    let commit = world
        .aggregator
        .poll_commit(now(1), &world.chunks)
        .unwrap()
        .unwrap();
    world.aggregator.handle_commit_failed(now(1), commit.clone());
    assert_eq!(world.aggregator.poll_commit(now(1), &world.chunks).unwrap(), None);
    world.frame(1, 1, batch(2, 100, &[("x", &[1])])).unwrap();
    let again = world
        .aggregator
        .poll_commit(now(2), &world.chunks)
        .unwrap()
        .unwrap();
    assert_eq!(again, commit);
    world.aggregator.handle_committed(again.id);
    world.settle(2);
    assert_eq!(world.acked(), [(1, 1, 1), (1, 2, 2)]);
}

#[test]
fn bad_batches_are_refused_by_name_and_the_session_goes_on() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    let mut damaged = batch(1, 100, &[("x", &[1])]);
    let last = damaged.len() - 6;
    damaged[last] ^= 1;
    world.frame(1, 1, damaged).unwrap();
    world.frame(1, 1, batch(2, 101, &[("x", &[1])])).unwrap();
    world.frame(1, 1, batch(3, 100, &[("x\0y", &[1])])).unwrap();
    world.frame(1, 1, batch(4, 100, &[("x", &[1])])).unwrap();
    world.heartbeat(1, 1, 4, 110);
    world.settle(1);
    world.check(&[]);
    // The name of a damaged frame settles nothing: another batch may have it. The agent lets go of it and says so.
    world.heartbeat_from(1, 1, 2, 4, 110);
    world.settle(1);
    let reasons: Vec<(u64, RejectReason)> = world
        .sent
        .iter()
        .filter_map(|sent| match sent {
            (_, Transmit::Message(Message::Reject(refusal))) => Some((refusal.seq, refusal.reason)),
            _ => None,
        })
        .collect();
    let expected = [
        (1, RejectReason::Checksum),
        (2, RejectReason::BadPane),
        (3, RejectReason::UnknownPipeline),
    ];
    assert_eq!(reasons, expected);
    world.check(&[(100, "x", 1, true, 1, 1.0)]);
    assert!(matches!(world.frame(1, 1, vec![9, 9, 9]), Err(Fault::Wire(_))));
    assert!(matches!(
        world.frame(1, 1, Message::Drain.emit()),
        Err(Fault::Unexpected(_))
    ));
}

#[test]
fn batches_before_the_hello_and_borrowed_names_end_the_connection() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.aggregator.handle_connected(1, "a", VERSION);
    assert!(matches!(
        world.frame(0, 1, batch(1, 100, &[("x", &[1])])),
        Err(Fault::Unexpected(_))
    ));
    assert!(matches!(
        world.frame(0, 1, hello("b", 1, Vec::new())),
        Err(Fault::Unexpected(_))
    ));
}

#[test]
fn replay_gives_the_same_panes() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    let frames = [
        batch(1, 100, &[("x", &[1]), ("y", &[3])]),
        batch(2, 100, &[("y", &[4])]),
        batch(3, 110, &[("z", &[5])]),
    ];
    for frame in &frames {
        world.frame(1, 1, frame.clone()).unwrap();
    }
    let mut again = World::new(vec![query("q", 10, 10)]);
    for frame in &frames {
        let batch = AppendedBatch {
            agent: "a".into(),
            epoch: 1,
            seq: 1,
            frame: frame.clone().into(),
        };
        again.aggregator.replay(&batch, &NoPanes).unwrap();
    }
    let columns = |world: &mut World| {
        let mut all = Vec::new();
        let pipelines = world.aggregator.catalog.pipelines.clone();
        world
            .aggregator
            .panes
            .take_dirty(&pipelines, |pipeline, pane, chunks| {
                all.push((pipeline, pane, chunks));
            });
        all
    };
    let expected = columns(&mut world);
    assert_eq!(expected.len(), 2);
    assert_eq!(columns(&mut again), expected);
}

#[test]
fn large_panes_are_stored_in_chunks_and_come_back_whole() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    let keys: Vec<String> = (0..6_000).map(|key| format!("k{key:05}")).collect();
    for (seq, part) in keys.chunks(BATCH_DELTAS_MAX).enumerate() {
        let rows: Vec<(&str, &[i64])> = part.iter().map(|key| (key.as_str(), &[1_i64][..])).collect();
        world.frame(1, 1, batch(seq as u64 + 1, 100, &rows)).unwrap();
    }
    world.heartbeat(1, 1, 2, 1_000);
    world.settle(1);
    world.settle(20);
    assert_eq!(world.chunks.all.borrow().len(), 2);
    world.frame(21, 1, batch(3, 100, &[("k05999", &[1])])).unwrap();
    world.settle(21);
    assert_eq!(world.rows.len(), 6_000);
    assert_eq!(
        world.rows[&(0, at(100), Span::ZERO, "k05999".into())],
        (2, true, 2, 2.0)
    );
}
