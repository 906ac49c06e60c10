//! Agents and aggregator side by side in one thread, without link, files or faults: what goes in, and which rows come
//! out. The clock goes where it is told to.

use bytes::Bytes;
use catchment_agent::agent::Agent;
use catchment_agent::log::disk::MemoryDisk;
use catchment_agent::settings::{ClockUnset, Settings};
use catchment_agent::source::{Arrival, SourceEvent, SourceId, SourceRequest, SourceSettings};
use catchment_aggregator::aggregator::{self, Aggregator, Transmit};
use catchment_aggregator::limits::DUE_ROWS_MAX;
use catchment_aggregator::store::memory::Memory;
use catchment_aggregator::store::{Reads, Store};
use catchment_common::plan::{Plan, Query};
use catchment_common::stats::Lowered;
use catchment_common::time::{Instant, Now, Span, Timestamp};
use catchment_common::wire::VERSION;
use catchment_common::wire::lineage::DatabaseId;
use catchment_firmware_sim::verify::{Cell, Row, format_time};

/// The only source of each agent.
const BROKER: SourceId = SourceId(0);
const CONNECTED: SourceEvent = SourceEvent::Connected {
    resumed: false,
    identifies: false,
};
/// Rounds of messages to and fro until all is said.
const ROUNDS_MAX: usize = 10_000;

/// The system.
pub struct Direct {
    gateways: Vec<Gateway>,
    aggregator: Aggregator,
    store: Memory,
    now: Now,
    /// Bytes that agents have sent, in messages and batches.
    pub uplink_bytes: u64,
}

struct Gateway {
    agent: Agent,
    disk: MemoryDisk,
}

impl Direct {
    /// So many agents, and an aggregator with these queries, at this instant.
    pub fn new(queries: Vec<Query>, agents: u64, wall: Timestamp) -> Self {
        let now = Now {
            monotonic: Instant::from_micros(0),
            wall,
        };
        let mut store = Memory::new(DatabaseId(1));
        store
            .apply_plan(Plan { version: 0, queries }, "", wall)
            .expect("a first plan is taken");
        let settings = aggregator::Settings {
            lease: Span::from_days(36_500),
            heartbeat: Span::from_secs(1),
            due_rows: DUE_ROWS_MAX,
            memory: usize::MAX,
        };
        let aggregator = store
            .restore(settings, now)
            .expect("a store in memory can be read");
        let gateway = |number: u64| {
            let settings = Settings {
                name: name(number),
                memory_bytes: 4 << 20,
                payload_bytes_max: 1 << 16,
                spool_bytes: 16 << 20,
                retain_acked: Span::ZERO,
                journal_bytes: 4 << 20,
                commit_delay: Span::ZERO,
                sources: vec![SourceSettings {
                    name: "broker".into(),
                    session: 0,
                    redelivery_window: 20,
                }],
                clock_unset: ClockUnset::Take,
                clock_known: true,
            };
            let disk = MemoryDisk::default();
            let started = Agent::start(settings, 100 + number, number, None, now, &disk);
            let (mut agent, _) = started.expect("an empty disk can be read");
            agent.handle_source(now, BROKER, CONNECTED);
            Gateway { agent, disk }
        };
        let mut direct = Self {
            gateways: (0..agents).map(gateway).collect(),
            aggregator,
            store,
            now,
            uplink_bytes: 0,
        };
        direct.run();
        direct
    }

    /// A device publishes a message to this agent.
    pub fn publish(&mut self, agent: usize, topic: &str, payload: &str) {
        let gateway = &mut self.gateways[agent];
        gateway.agent.handle_arrival(
            self.now,
            Arrival::unacknowledged(BROKER, topic, payload.as_bytes()),
        );
    }

    /// The clocks go forward.
    pub fn pass(&mut self, span: Span) {
        self.now = Now {
            monotonic: self.now.monotonic + span,
            wall: self.now.wall.plus(span),
        };
    }

    /// The wall clock.
    pub fn wall(&self) -> Timestamp {
        self.now.wall
    }

    /// Lets everybody do all that there is to do.
    pub fn run(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut busy = false;
            for index in 0..self.gateways.len() {
                busy |= self.run_agent(index);
            }
            while let Some(commit) = self.aggregator.poll_commit(self.now, &self.store).unwrap() {
                self.store
                    .commit(&commit)
                    .expect("a store in memory takes everything");
                self.aggregator.handle_committed(commit.id);
            }
            while let Some((connection, transmit)) = self.aggregator.poll_transmit() {
                busy = true;
                let Transmit::Message(message) = transmit else {
                    panic!("a connection ends")
                };
                let Gateway { agent, disk } = &mut self.gateways[connection as usize];
                agent.handle_message(self.now, message, disk);
            }
            if !busy {
                return;
            }
        }
        panic!("they never come to an end");
    }

    fn run_agent(&mut self, index: usize) -> bool {
        let (now, connection) = (self.now, index as u64);
        let Gateway { agent, disk } = &mut self.gateways[index];
        agent.handle_timeout(now);
        let mut busy = false;
        while let Some(job) = agent.poll_job(now, disk) {
            disk.execute(&job);
            agent.handle_job_done(now, job.id);
            busy = true;
        }
        while let Some(request) = agent.poll_source(BROKER) {
            if let SourceRequest::Subscribe { packet, .. } = request {
                let refused = Vec::new();
                agent.handle_source(now, BROKER, SourceEvent::Subscribed { packet, refused });
            }
        }
        if agent.poll_connect(now) {
            agent.handle_connected(connection);
            self.aggregator
                .handle_connected(connection, &name(connection), VERSION);
            busy = true;
        }
        let mut frames: Vec<Bytes> = Vec::new();
        frames.extend(
            std::iter::from_fn(|| agent.poll_message(now)).map(|message| Bytes::from(message.emit())),
        );
        let batches = std::iter::from_fn(|| agent.poll_batch(|_| true, disk));
        frames.extend(batches.map(|(_, frame)| frame));
        busy |= !frames.is_empty();
        for frame in frames {
            self.uplink_bytes += frame.len() as u64;
            self.aggregator
                .handle_frame(now, connection, frame, &self.store)
                .unwrap();
        }
        busy
    }

    /// An agent's name.
    pub fn name(&self, agent: usize) -> String {
        name(agent as u64)
    }

    /// All agents send what they have, as when they are shut down.
    pub fn send_open(&mut self) {
        for Gateway { agent, .. } in &mut self.gateways {
            agent.handle_shutdown();
        }
        self.run();
    }

    /// The rows of a query's table, as [`catchment_firmware_sim::verify::Verifier`] takes them.
    pub fn rows(&self, query: &Query) -> Vec<Row> {
        let table = &self.store.tables[&query.name];
        let rows = table.rows.iter().map(|((start, end, is_coarse, key), stored)| {
            let tags = catchment_common::key::tags_of(key, query.key.len());
            Row {
                start: format_time(start.as_micros()),
                end: format_time(end.as_micros()),
                tags: tags.into_iter().flatten().map(String::from).collect(),
                is_coarse: *is_coarse,
                is_merged: stored.is_merged,
                is_final: stored.is_final,
                number: None,
                readings: Cell::Integer(stored.row.readings.cast_signed()),
                values: stored
                    .row
                    .values
                    .iter()
                    .map(|value| cell(value.as_ref()))
                    .collect(),
            }
        });
        let counted = table.counted.iter().map(|((key, number), (counted, ..))| {
            let tags = catchment_common::key::tags_of(key, query.row_tags().len());
            Row {
                start: format_time(counted.start.as_micros()),
                end: format_time(counted.end.as_micros()),
                tags: tags.into_iter().flatten().map(String::from).collect(),
                is_coarse: false,
                is_merged: false,
                is_final: counted.is_final,
                number: Some(number.as_micros() / 1_000),
                readings: Cell::Integer(counted.row.readings.cast_signed()),
                values: counted
                    .row
                    .values
                    .iter()
                    .map(|value| cell(value.as_ref()))
                    .collect(),
            }
        });
        let mut rows: Vec<Row> = rows.chain(counted).collect();
        rows.sort_by_key(|row| (!row.is_coarse, !row.is_merged));
        rows
    }

    /// How many rows of a query have been written more than once.
    pub fn revised(&self, query: &Query) -> usize {
        let table = &self.store.tables[&query.name];
        let counted = table.counted.values().filter(|(_, revision, _)| *revision > 1);
        let rows = table.rows.values().filter(|stored| stored.writes > 1);
        rows.count() + counted.count()
    }
}

fn name(agent: u64) -> String {
    format!("gw-{agent}")
}

fn cell(value: Option<&Lowered>) -> Cell {
    match value {
        None => Cell::Null,
        Some(Lowered::Integer(number)) => Cell::Integer(number.cast_signed()),
        Some(Lowered::Real(number)) => Cell::Real(*number),
        Some(Lowered::Text(text)) => Cell::Other(text.clone()),
    }
}
