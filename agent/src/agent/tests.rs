//! The whole machine against a link and a disk that do what a test says.

use catchment_common::plan::{Pipeline, PipelineField, PipelineId};
use catchment_common::time::Span;
use catchment_common::wire::lineage::DatabaseId;
use catchment_common::wire::{EpochRange, SeqRange, Welcome};

use super::*;
use crate::log::disk::MemoryDisk;
use crate::settings::ClockUnset;
use crate::source::{SourceEvent, SourceId, SourceSettings};

const SOURCE: SourceId = SourceId(0);

fn now(seconds: u64) -> Now {
    Now {
        monotonic: Instant::from_micros(seconds * 1_000_000),
        wall: Timestamp::clamped((1_800_000_000 + seconds as i64) * 1_000_000),
    }
}

fn plan() -> AgentPlan {
    let pipeline = Pipeline {
        fields: vec![PipelineField::example("a")],
        ..Pipeline::example()
    };
    AgentPlan {
        version: 1,
        pipelines: vec![(PipelineId(1), pipeline)],
        coarser: Vec::new(),
    }
}

/// An agent and its disk.
struct World {
    agent: Agent,
    disk: MemoryDisk,
}

impl World {
    fn start(disk: MemoryDisk, epoch: u64, at: u64) -> Self {
        let settings = Settings {
            name: "gw-1".into(),
            memory_bytes: 1 << 20,
            payload_bytes_max: 1 << 16,
            spool_bytes: 1 << 20,
            retain_acked: Span::ZERO,
            journal_bytes: 1 << 20,
            commit_delay: Span::ZERO,
            clock_unset: ClockUnset::Hold,
            clock_known: true,
            sources: vec![SourceSettings {
                name: "broker".into(),
                session: 0,
                redelivery_window: 20,
            }],
        };
        let (mut agent, _) = Agent::start(settings, epoch, 42 + epoch, None, now(at), &disk).unwrap();
        let connected = SourceEvent::Connected {
            resumed: true,
            identifies: false,
        };
        agent.handle_source(now(at), SOURCE, connected);
        Self { agent, disk }
    }

    /// The process ends, and starts again as another epoch.
    fn restart(self, epoch: u64, at: u64) -> Self {
        Self::start(self.disk, epoch, at)
    }

    fn settle(&mut self, at: u64) {
        self.agent.handle_timeout(now(at));
        while let Some(job) = self.agent.poll_job(now(at), &self.disk) {
            self.disk.execute(&job);
            self.agent.handle_job_done(now(at), job.id);
        }
    }

    fn read(&mut self, at: u64) {
        let arrival = Arrival::unacknowledged(SOURCE, "s/x", b"{\"a\":1}");
        self.agent.handle_arrival(now(at), arrival);
        self.settle(at);
    }

    /// Makes a link; the aggregator has committed nothing.
    fn link(&mut self, at: u64, plan: Option<AgentPlan>) {
        assert!(self.agent.poll_connect(now(at)));
        self.agent.handle_connected(9);
        self.settle(at);
        let hello = self.agent.poll_message(now(at));
        assert!(matches!(hello, Some(Message::Hello(_))), "{hello:?}");
        let welcome = Welcome {
            database: Some(DatabaseId(1)),
            numbers: Vec::new(),
            plan,
            committed: Vec::new(),
            server_time: now(at).wall,
            heartbeat: Span::from_secs(5),
        };
        self.agent
            .handle_message(now(at), Message::Welcome(welcome), &self.disk);
        self.settle(at);
    }

    fn acknowledge(&mut self, at: u64, epoch: u64, last: u64) {
        let ranges = vec![SeqRange { first: 1, last }];
        let ack = Message::Ack(EpochRange { epoch, ranges });
        self.agent.handle_message(now(at), ack, &self.disk);
    }

    /// Epoch, oldest seq, newest seq and whether there are watermarks in the heartbeat that is due.
    fn heartbeat(&mut self, at: u64) -> (u64, u64, u64, bool) {
        match self.agent.poll_message(now(at)) {
            Some(Message::Heartbeat(told)) => {
                let mut watermarks = told.watermarks.iter();
                let has_any = watermarks.any(|(_, at)| *at > Timestamp::MIN);
                (told.epoch, told.oldest, told.seq, has_any)
            }
            other => panic!("no heartbeat: {other:?}"),
        }
    }
}

/// A watermark speaks for the seqs of its epoch. Batches of an epoch before, or without a name yet, it would overtake: the
/// windows that they belong to would be final without them.
#[test]
fn no_watermark_is_told_while_batches_of_an_earlier_epoch_wait() {
    let mut world = World::start(MemoryDisk::default(), 7, 0);
    world.link(0, Some(plan()));
    world.read(1);
    world.read(25);
    assert_eq!(world.heartbeat(30), (7, 1, 1, true), "its own batch it waits for");

    let mut world = world.restart(8, 31);
    world.link(32, None);
    world.read(33);
    assert!(world.agent.intake().watermarks().next().is_some());
    assert!(world.agent.spool().holds_others(8));
    assert_eq!(world.heartbeat(40), (8, 1, 1, false));
    world.read(60);
    assert_eq!(
        world.heartbeat(60),
        (8, 1, 2, false),
        "nor with batches of its own"
    );
    world.acknowledge(61, 7, 1);
    world.read(75);
    assert_eq!(world.heartbeat(80), (8, 1, 3, true));
}
