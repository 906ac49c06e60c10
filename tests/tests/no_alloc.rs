//! The agent's hot path allocates nothing: a counting allocator watches a million readings of a thousand devices.
//!
//! The rule is for messages: topic match, decode, key, event time, lift. Closing panes may allocate, because sealed
//! batches are handed on; how much is counted here too and bounded for each closed pane.
#![allow(
    unsafe_code,
    reason = "an allocator cannot be written without; this one counts and passes on"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write as _;

use catchment_agent::agent::Agent;
use catchment_agent::log::disk::MemoryDisk;
use catchment_agent::metrics::AGENT;
use catchment_agent::settings::{ClockUnset, Settings};
use catchment_agent::source::{Arrival, Delivery, SourceEvent, SourceId, SourceRequest, SourceSettings};
use catchment_common::expression::{Expression, Kind, Scope};
use catchment_common::metrics::Counter;
use catchment_common::plan::{
    Components, FieldSource, KeyPart, Path, Pipeline, PipelineField, PipelineId, PipelineSketch, TimeSource,
    TimeUnit,
};
use catchment_common::time::{Instant, Now, Span, Timestamp};
use catchment_common::topic::TopicTemplate;
use catchment_common::wire::lineage::DatabaseId;
use catchment_common::wire::{AgentPlan, Batch, EpochRange, Message, SeqRange, Welcome};

/// Counts what this thread allocates; other threads are the test runner's.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged. Counting touches a constant-initialised thread-local
// without a destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `realloc`'s contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

const BROKER: SourceId = SourceId(0);
const DEVICES: usize = 1_000;
const READINGS: usize = 1_000_000;
/// Rounds of all devices before counting starts: tables and buffers find their size.
const WARM_UP_ROUNDS: usize = 100;
const PANE: Span = Span::from_secs(10);
const PIPELINE: PipelineId = PipelineId(1);
const EPOCH: u64 = 7;
const START_US: i64 = 1_700_000_000_000_000;
/// Rounds are this far apart: 1,000 devices at 1 Hz.
const STEP: Span = Span::from_secs(1);
/// One sealed frame, what the spool needs to hold it, the job that makes it durable, a heartbeat, and what the broker is
/// asked in ten rounds. A pane of 1,000 keys must not cost an allocation a key.
const PER_PANE_MAX: u64 = 32;

fn pipeline() -> Pipeline {
    let field = |path: &str, resolution| PipelineField {
        source: FieldSource::path(path),
        resolution,
        components: Components::STATS,
    };
    Pipeline {
        topic: TopicTemplate::parse("sensors/{site}/{device}/env").unwrap(),
        time: TimeSource::Payload {
            path: Path::parse("ts"),
            unit: TimeUnit::Millis,
            fallback: false,
        },
        key: vec![KeyPart::Capture(0), KeyPart::Capture(1)],
        fields: vec![
            field("temp", None),
            field("data.hum", Some(10_i128.pow(16))),
            PipelineField {
                source: FieldSource::Expression(expression("$.temp - (100 - data.hum) / 5", Kind::Number)),
                resolution: Some(10_i128.pow(16)),
                components: Components::STATS,
            },
        ],
        filter: Some(expression("$.temp > -40 && $.temp < 125", Kind::Truth)),
        pane: PANE,
        watermark_delay: Span::from_secs(2),
        ..Pipeline::example()
    }
}

fn expression(text: &str, kind: Kind) -> Expression {
    Expression::parse(text, &Scope::default(), kind).unwrap()
}

fn linked_agent(pipeline: Pipeline, now: Now, disk: &mut MemoryDisk) -> Agent {
    let settings = Settings {
        name: "gw-1".into(),
        memory_bytes: 8 << 20,
        payload_bytes_max: 64 << 10,
        spool_bytes: 4 << 20,
        retain_acked: Span::ZERO,
        journal_bytes: 4 << 20,
        commit_delay: Span::ZERO,
        sources: vec![SourceSettings {
            name: "broker".into(),
            session: 0,
            redelivery_window: DEVICES,
        }],
        clock_unset: ClockUnset::Hold,
        clock_known: true,
    };
    let (mut agent, _) = Agent::start(settings, EPOCH, 42, None, now, disk).unwrap();
    let (resumed, identifies) = (false, true);
    agent.handle_source(now, BROKER, SourceEvent::Connected { resumed, identifies });
    let plan = AgentPlan {
        version: 1,
        pipelines: vec![(PIPELINE, pipeline)],
        coarser: Vec::new(),
    };
    assert!(agent.poll_connect(now));
    agent.handle_connected(8);
    while let Some(job) = agent.poll_job(now, disk) {
        disk.execute(&job);
        agent.handle_job_done(now, job.id);
    }
    assert!(matches!(agent.poll_message(now), Some(Message::Hello(_))));
    agent.handle_message(
        now,
        Message::Welcome(Welcome {
            database: Some(DatabaseId(1)),
            numbers: Vec::new(),
            plan: Some(plan),
            committed: Vec::new(),
            server_time: now.wall,
            heartbeat: Span::from_secs(5),
        }),
        disk,
    );
    agent
}

fn now(round: usize) -> Now {
    let elapsed = round as i64 * STEP.as_micros();
    Now {
        monotonic: Instant::from_micros(elapsed.unsigned_abs()),
        wall: Timestamp::clamped(START_US + elapsed),
    }
}

/// What the rim does after each burst: closes what is due, makes it durable, sends it, and has it acknowledged. Returns
/// the allocations of the disk in memory, which are not the agent's.
fn between_bursts(agent: &mut Agent, disk: &mut MemoryDisk, now: Now, id: &mut u32) -> u64 {
    let mut of_disk = 0;
    agent.handle_timeout(now);
    while let Some(job) = agent.poll_job(now, disk) {
        let before = allocations();
        disk.execute(&job);
        of_disk += allocations() - before;
        agent.handle_job_done(now, job.id);
    }
    while agent.poll_settled().is_some() {}
    while let Some(request) = agent.poll_source(BROKER) {
        let event = match request {
            SourceRequest::Subscribe {
                packet,
                subscriptions,
            } => {
                *id = subscriptions[0].id;
                SourceEvent::Subscribed {
                    packet,
                    refused: Vec::new(),
                }
            }
            SourceRequest::Unsubscribe { packet, .. } => SourceEvent::Unsubscribed { packet },
            other => panic!("{other:?}"),
        };
        agent.handle_source(now, BROKER, event);
    }
    while agent.poll_message(now).is_some() {}
    while let Some((_, frame)) = agent.poll_batch(|_| true, disk) {
        let seq = Batch::parse(&frame).unwrap().seq;
        let ranges = vec![SeqRange {
            first: seq,
            last: seq,
        }];
        agent.handle_message(now, Message::Ack(EpochRange { epoch: EPOCH, ranges }), disk);
    }
    of_disk
}

/// What was allocated after the warm-up.
struct Counted {
    while_reading: u64,
    while_closing: u64,
    panes: u64,
}

/// Feeds so many rounds of all devices, after those that warm up.
fn feed(pipeline: Pipeline, rounds: usize) -> Counted {
    let topics: Vec<String> = (0..DEVICES)
        .map(|device| format!("sensors/site-{}/dev-{device:04}/env", device % 7))
        .collect();
    let mut payload = String::with_capacity(256);
    let mut disk = MemoryDisk::default();
    let mut agent = linked_agent(pipeline, now(0), &mut disk);
    let (mut id, mut subscription) = (0, 0);
    let (mut while_reading, mut while_closing, mut panes) = (0, 0, 0);
    for round in 0..WARM_UP_ROUNDS + rounds {
        let now = now(round);
        let deltas_before = agent.metrics().value(PIPELINE, Counter::Deltas);
        let mut in_round = 0;
        for (device, topic) in topics.iter().enumerate() {
            payload.clear();
            let wave = (round * 7 + device * 13) % 1_000;
            let at = now.wall.as_micros() / 1_000;
            let hum = 40 + wave % 20;
            write!(
                payload,
                r#"{{"ts":{at},"temp":21.{wave:03},"unit":"°C","data":{{"hum":{hum}.25}}}}"#
            )
            .unwrap();
            let before = allocations();
            id = id % 60_000 + 1;
            let duplicate = false;
            let arrival = Arrival {
                delivery: Delivery::Packet { id, duplicate },
                through: std::slice::from_ref(&subscription),
                ..Arrival::unacknowledged(BROKER, topic, payload.as_bytes())
            };
            agent.handle_arrival(now, arrival);
            in_round += allocations() - before;
        }
        let before = allocations();
        let of_disk = between_bursts(&mut agent, &mut disk, now, &mut subscription);
        let after = allocations() - before - of_disk;
        if round >= WARM_UP_ROUNDS {
            while_reading += in_round;
            if agent.metrics().value(PIPELINE, Counter::Deltas) > deltas_before {
                while_closing += after;
                panes += 1;
            }
        }
    }
    let metrics = agent.metrics();
    let all = ((WARM_UP_ROUNDS + rounds) * DEVICES) as u64;
    assert_eq!(
        metrics.value(PIPELINE, Counter::Accepted),
        all,
        "every reading counts"
    );
    assert_eq!(
        metrics.value(PIPELINE, Counter::EmittedEarly),
        0,
        "the table is large enough: steady state"
    );
    assert_eq!(metrics.value(AGENT, Counter::Messages), all);
    assert_eq!(panes, rounds as u64 / 10, "a pane closes every ten rounds");
    Counted {
        while_reading,
        while_closing,
        panes,
    }
}

#[test]
fn a_million_readings_allocate_nothing() {
    let Counted {
        while_reading,
        while_closing,
        panes,
    } = feed(pipeline(), READINGS / DEVICES);
    println!(
        "{READINGS} readings: {while_reading} allocations; {panes} panes of {DEVICES} keys closed: {:.1} allocations each",
        while_closing as f64 / panes as f64
    );
    assert_eq!(while_reading, 0, "the hot path allocates");
    assert!(
        while_closing <= PER_PANE_MAX * panes,
        "{while_closing} allocations for {panes} panes"
    );
}

/// Sketches of every kind: a closing pane makes a vector for each, a reading still makes nothing.
#[test]
fn readings_into_sketches_allocate_nothing() {
    let sketched = Pipeline {
        watched: vec![KeyPart::Capture(1), KeyPart::Payload(Path::parse("unit"))],
        sketches: vec![
            PipelineSketch::Quantiles(0),
            PipelineSketch::Quantiles(1),
            PipelineSketch::Histogram(0, vec![0, 10_i128.pow(19)]),
            PipelineSketch::DistinctTags(0),
            PipelineSketch::Top(1),
            PipelineSketch::Series(0),
        ],
        ..pipeline()
    };
    let counted = feed(sketched, 100);
    println!(
        "{} allocations for each pane of {DEVICES} keys and 6 sketches",
        counted.while_closing / counted.panes
    );
    assert_eq!(counted.while_reading, 0, "the hot path allocates");
}

/// The test can fail: the counter counts.
#[test]
fn the_allocator_counts() {
    let before = allocations();
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert_eq!(allocations() - before, 1);
}
