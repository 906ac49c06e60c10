//! State files that are whole, with checksums that fit, and say what no agent ever wrote: no start panics on them, and none
//! that comes after it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use catchment_agent::agent::{Agent, KeptPlan};
use catchment_agent::log::disk::{Disk, File, MemoryDisk, frame};
use catchment_agent::settings::{ClockUnset, Settings};
use catchment_agent::source::{Arrival, Delivery, SourceEvent, SourceId, SourceRequest, SourceSettings};
use catchment_aggregator::store::memory::Memory;
use catchment_aggregator::store::{Reads, Store};
use catchment_common::plan::Plan;
use catchment_common::time::{Instant, Now, Span, Timestamp};
use catchment_common::wire::lineage::DatabaseId;
use catchment_common::wire::{AgentPlan, Message, Welcome};
use catchment_tests::sim::case::START_US;
use catchment_tests::sim::plans::Variant;

/// Odd states that are tried for each plan.
const STATES: u64 = 400;
const BROKER: SourceId = SourceId(0);

#[test]
fn no_state_that_is_whole_and_odd_stops_an_agent() {
    for variant in [
        Variant::All,
        Variant::Kinds,
        Variant::Counts,
        Variant::Ladder,
        Variant::Drawn(7),
    ] {
        let plan = plan(variant);
        let good = state(&plan);
        for seed in 0..STATES {
            let run = || {
                let mut disk = good.clone();
                make_odd(&mut disk, seed);
                // What is whole and of newer software may be refused, and is left where it is.
                if let Some(mut world) = World::start(&plan, disk) {
                    world.live(6);
                    world.connect();
                    world.live(3);
                }
            };
            let result = catch_unwind(AssertUnwindSafe(run));
            assert!(result.is_ok(), "plan {variant:?}, state {seed}");
        }
    }
}

fn plan(variant: Variant) -> AgentPlan {
    let mut store = Memory::new(DatabaseId(1));
    let plan = Plan {
        version: 0,
        queries: variant.queries(),
    };
    store
        .apply_plan(plan, "", Timestamp::clamped(START_US))
        .expect("a first plan is taken");
    store
        .catalog()
        .expect("a store in memory can be read")
        .agent_plan()
}

/// The files of an agent that had a link, lost it, and has merged and lost what its spool could not hold.
fn state(plan: &AgentPlan) -> MemoryDisk {
    let mut world = World::start(plan, MemoryDisk::default()).expect("an empty disk can be read");
    world.live(4);
    world.connect();
    world.live(4);
    world.agent.handle_disconnected(world.now);
    world.live(60);
    world.connect();
    world.live(1);
    world.disk
}

struct World {
    agent: Agent,
    disk: MemoryDisk,
    now: Now,
    serial: u64,
}

impl World {
    fn start(plan: &AgentPlan, disk: MemoryDisk) -> Option<Self> {
        let settings = Settings {
            name: "gw-1".into(),
            memory_bytes: 256 << 10,
            payload_bytes_max: 1 << 16,
            spool_bytes: 1 << 20,
            retain_acked: Span::from_secs(60),
            journal_bytes: 256 << 10,
            commit_delay: Span::ZERO,
            sources: vec![SourceSettings {
                name: "broker".into(),
                session: 0,
                redelivery_window: 20,
            }],
            clock_unset: ClockUnset::Take,
            clock_known: true,
        };
        let now = Now {
            monotonic: Instant::from_micros(0),
            wall: Timestamp::clamped(START_US),
        };
        let kept = KeptPlan {
            plan: plan.clone(),
            database: None,
        };
        let (mut agent, _) = Agent::start(settings, 7, 42, Some(&kept), now, &disk).ok()?;
        let connected = SourceEvent::Connected {
            resumed: false,
            identifies: false,
        };
        agent.handle_source(now, BROKER, connected);
        Some(Self {
            agent,
            disk,
            now,
            serial: 0,
        })
    }

    /// So many rounds of messages, three seconds apart, each made durable.
    fn live(&mut self, rounds: u64) {
        for _ in 0..rounds {
            for device in 0..20 {
                self.publish(device);
            }
            let step = Span::from_secs(3);
            self.now = Now {
                monotonic: self.now.monotonic + step,
                wall: self.now.wall.plus(step),
            };
            self.agent.handle_timeout(self.now);
            self.settle();
        }
    }

    fn publish(&mut self, device: u64) {
        self.serial += 1;
        let serial = self.serial;
        let ts = self.now.wall.as_micros() / 1_000;
        for kind in ["env", "power"] {
            let topic = format!("s/site{}/d{device}/{kind}", device % 3);
            let room = device * 31 + serial % 7;
            let payload = format!(
                "{{\"ts\":{ts},\"temp\":{}.25,\"hum\":{},\"watts\":{serial},\"energy\":{serial},\"seq\":{serial},\"byte\":{},\"room\":\"r{room}\"}}",
                serial % 90,
                serial % 41,
                serial % 256
            );
            let arrival = Arrival {
                delivery: Delivery::Packet {
                    id: (serial % 65_535) as u16 + 1,
                    duplicate: false,
                },
                ..Arrival::unacknowledged(BROKER, &topic, payload.as_bytes())
            };
            self.agent.handle_arrival(self.now, arrival);
        }
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            let Some(job) = self.agent.poll_job(self.now, &self.disk) else {
                break;
            };
            self.disk.execute(&job);
            self.agent.handle_job_done(self.now, job.id);
        }
        while self.agent.poll_settled().is_some() {}
        while let Some(request) = self.agent.poll_source(BROKER) {
            let event = match request {
                SourceRequest::Subscribe { packet, .. } => SourceEvent::Subscribed {
                    packet,
                    refused: Vec::new(),
                },
                SourceRequest::Unsubscribe { packet, .. } => SourceEvent::Unsubscribed { packet },
                SourceRequest::Publish { .. } | SourceRequest::Reconnect => continue,
            };
            self.agent.handle_source(self.now, BROKER, event);
        }
        while self.agent.poll_batch(|_| true, &self.disk).is_some() {}
        while self.agent.poll_message(self.now).is_some() {}
    }

    fn connect(&mut self) {
        self.agent.handle_connected(9);
        self.settle();
        let welcome = Welcome {
            database: Some(DatabaseId(1)),
            numbers: Vec::new(),
            plan: None,
            committed: Vec::new(),
            server_time: self.now.wall,
            heartbeat: Span::from_secs(5),
        };
        self.agent
            .handle_message(self.now, Message::Welcome(welcome), &self.disk);
        self.settle();
    }
}

/// Xorshift64*.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }
}

/// Changes up to three frames, and gives each a length and a checksum that fit.
fn make_odd(disk: &mut MemoryDisk, seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let files: Vec<File> = disk
        .list()
        .expect("a disk in memory can be read")
        .into_iter()
        .map(|(file, _)| file)
        .collect();
    assert!(files.iter().any(|file| matches!(file, File::Spool(_))));
    for _ in 0..=dice.below(3) {
        let file = files[dice.below(files.len())];
        let bytes = disk.file_mut(file).expect("it is listed");
        let mut bodies = Vec::new();
        let mut rest = &bytes[..];
        while let Some(body) = frame::body(rest) {
            bodies.push(body.to_vec());
            rest = &rest[frame::HEAD + body.len()..];
        }
        if bodies.is_empty() {
            continue;
        }
        let which = dice.below(bodies.len());
        for _ in 0..=dice.below(2) {
            change(&mut bodies[which], &mut dice);
        }
        bytes.clear();
        for body in bodies.iter().filter(|body| !body.is_empty()) {
            let start = frame::begin(bytes);
            bytes.extend_from_slice(body);
            frame::end(bytes, start);
        }
    }
}

fn change(body: &mut Vec<u8>, dice: &mut Dice) {
    const LARGEST: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    // What stands near the beginning has most meaning.
    let near = if dice.below(2) == 0 { 40 } else { body.len() };
    let at = dice.below(near.min(body.len()));
    let mut put = |with: &[u8], instead: usize| {
        let end = (at + instead).min(body.len());
        body.splice(at..end, with.iter().copied());
    };
    match dice.below(6) {
        0 => put(&LARGEST, 1),
        1 => put(&[0xff; 8], 8),
        2 => put(&[0xff, 0xff, 0xff, 0xff, 0x0f], 1),
        3 => put(&[], 1),
        4 => put(&[0], 1),
        _ => {
            let byte = dice.below(256) as u8;
            put(&[byte], 1);
        }
    }
}
