//! The loop: one event in, then drain what the machine wants, then wait. All that can wake an agent is on this page.

use std::sync::mpsc as blocking;
use std::time::Duration;

use anyhow::{Context, Result};
use catchment_common::metrics::Counter;
use catchment_common::time::Now;
use catchment_common::wire::AgentPlan;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use super::clock::Clock;
use super::clock_file::ClockFile;
use super::clock_log::ClockLog;
use super::clock_watch::ClockWatch;
use super::config::{Config, Mode};
use super::disk::{DiskEvent, Storage};
use super::disk_log::DiskLog;
use super::hand_in::hand_in;
use super::loss_log::LossLog;
use super::mqtt::{self, Group, Told};
use super::plan_file::PlanFile;
use super::quic::{self, Connector, Link, LinkEvent};
use super::random;
use super::reject_log::RejectLog;
use super::source_log::SourceLog;
use super::sources::Sources;
use crate::agent::{Agent, Outcome};
use crate::log::disk::{Job, MemoryDisk};
use crate::source::SourceId;

/// How long a stopping agent waits for its last batches to be acknowledged.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);
/// How long the last acknowledgements to brokers may take.
const SOURCES_WAIT: Duration = Duration::from_secs(2);

/// All that can wake an agent.
enum Event {
    Source(SourceId, Told),
    Link(LinkEvent),
    Disk(DiskEvent),
    Timeout,
    Shutdown,
}

/// Runs an agent until it is told to stop. Fails on a configuration that cannot work.
pub async fn run(config: Config) -> Result<()> {
    let clock = Clock::start();
    let epoch = random()?;
    let (storage, disk) = open_storage(&config)?;
    let clock_file = ClockFile::new(&config.state);
    let mut settings = config.settings();
    settings.clock_known |= ClockWatch::is_known(&clock_file, clock.now());
    let watch = ClockWatch::start(
        clock_file,
        settings.clock_unset,
        settings.clock_known,
        clock.now(),
    );
    let plan_file = PlanFile::new(&config.state);
    let kept = plan_file.load()?;
    let (agent, started) = Agent::start(settings, epoch, random()?, kept.as_ref(), clock.now(), &storage)
        .with_context(|| format!("{}: cannot read what was kept", config.state.display()))?;
    info!(
        agent = %config.name, epoch = %format_args!("{epoch:016x}"), plan = agent.plan().version,
        readings = started.readings, partials = started.partials, batches = started.batches,
        damaged = started.damaged, "started"
    );
    storage.set_aside(&started.unread);
    if agent.plan().version > 0 {
        let AgentPlan {
            version, pipelines, ..
        } = agent.plan();
        info!(version, pipelines = pipelines.len(), "running the kept plan");
    }
    let connector = Connector::new(&config)?;
    let loss_log = LossLog::new(&agent);
    let (told, events) = mpsc::channel(mqtt::EVENTS_MAX);
    let mut tasks = JoinSet::new();
    let sources = Sources::start(&config, &agent, &told, &mut tasks)?;
    drop(told);
    let mut shell = Shell {
        agent,
        clock,
        connector,
        plan_file,
        storage,
        disk,
        sources,
        arrivals: None,
        link: None,
        link_events: mpsc::channel(quic::EVENTS_MAX),
        log: RejectLog::default(),
        clock_log: ClockLog::default(),
        disk_log: DiskLog::default(),
        loss_log,
        watch,
        source_log: SourceLog::default(),
    };
    shell.source_log.look(&shell.agent);
    let ended = shell.run(events, &mut tasks).await;
    // What was acknowledged is still on its way to the brokers.
    let _ = tokio::time::timeout(SOURCES_WAIT, async { while tasks.join_next().await.is_some() {} }).await;
    ended
}

/// The thread that writes, for an agent that keeps its state in files.
type DiskThread = (blocking::SyncSender<Job>, mpsc::Receiver<DiskEvent>);

fn open_storage(config: &Config) -> Result<(Storage, Option<DiskThread>)> {
    std::fs::create_dir_all(&config.state)
        .with_context(|| format!("{}: cannot make the state directory", config.state.display()))?;
    if config.durability.mode == Mode::Memory {
        return Ok((Storage::Memory(MemoryDisk::default()), None));
    }
    let storage = Storage::files(&config.state)?;
    let thread = match &storage {
        Storage::Files(files) => Some(files.start_writer()?),
        Storage::Memory(_) => None,
    };
    Ok((storage, thread))
}

struct Shell {
    agent: Agent,
    clock: Clock,
    connector: Connector,
    plan_file: PlanFile,
    storage: Storage,
    disk: Option<DiskThread>,
    sources: Sources,
    /// The last group from a source, if there are messages in it that were not handed in yet.
    arrivals: Option<Arrivals>,
    link: Option<Link>,
    link_events: (mpsc::Sender<LinkEvent>, mpsc::Receiver<LinkEvent>),
    log: RejectLog,
    clock_log: ClockLog,
    disk_log: DiskLog,
    loss_log: LossLog,
    watch: ClockWatch,
    source_log: SourceLog,
}

/// Messages of a source that wait for the machine.
struct Arrivals {
    source: SourceId,
    group: Group,
    /// The first that was not handed in.
    next: usize,
}

/// The next end of a job; never, for an agent without a disk.
async fn disk_event(disk: &mut Option<DiskThread>) -> Option<DiskEvent> {
    match disk {
        Some((_, events)) => events.recv().await,
        None => std::future::pending().await,
    }
}

impl Shell {
    async fn run(
        &mut self,
        mut told: mpsc::Receiver<(SourceId, Told)>,
        tasks: &mut JoinSet<()>,
    ) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            self.drain();
            if self.take_arrivals() {
                self.agent.handle_timeout(self.clock.now());
                continue;
            }
            let now = self.clock.now();
            let deadline = self
                .clock
                .deadline(self.agent.poll_timeout(now, self.can_speak()));
            let event = tokio::select! {
                biased;
                _ = terminate.recv() => Event::Shutdown,
                _ = interrupt.recv() => Event::Shutdown,
                Some(event) = disk_event(&mut self.disk) => Event::Disk(event),
                Some(event) = self.link_events.1.recv() => Event::Link(event),
                // A disk that is merely slower than the broker holds the broker back, and nothing has to be dropped.
                Some((source, told)) = told.recv(), if self.arrivals.is_none() => Event::Source(source, told),
                Some(ended) = tasks.join_next() => {
                    ended.context("the task of a source died")?;
                    Event::Timeout
                }
                () = tokio::time::sleep_until(deadline) => Event::Timeout,
            };
            match event {
                Event::Source(source, told) => self.handle_source(source, told),
                Event::Link(event) => self.handle_link(event),
                Event::Disk(event) => self.handle_disk(event),
                Event::Timeout => {}
                Event::Shutdown => return self.shut_down(told).await,
            }
            let now = self.clock.now();
            self.watch.look(&mut self.agent, now);
            self.agent.handle_timeout(now);
            self.clock_log.look(self.agent.clock_state(now));
        }
    }

    fn handle_source(&mut self, source: SourceId, told: Told) {
        match told {
            Told::Happened { connection, event } => {
                self.sources.handle_connection(source, connection);
                self.agent.handle_source(self.clock.now(), source, event);
            }
            Told::Messages(group) => {
                // There were none left, or this event had not been received.
                self.arrivals = Some(Arrivals {
                    source,
                    group,
                    next: 0,
                });
                self.take_arrivals();
            }
        }
    }

    /// Hands in messages of the last group until the disk is behind with what they made; returns whether there were any.
    fn take_arrivals(&mut self) -> bool {
        if self.arrivals.is_none() || self.agent.is_backed_up() {
            return false;
        }
        self.hand_in(Agent::is_behind);
        self.log.look(&self.agent);
        true
    }

    /// Hands in messages of the last group until it is over, or `enough` says so.
    fn hand_in(&mut self, enough: impl Fn(&Agent) -> bool) {
        let now = self.clock.now();
        let Some(mut arrivals) = self.arrivals.take() else {
            return;
        };
        while let Some(message) = arrivals.group.message(arrivals.next) {
            arrivals.next += 1;
            hand_in(&mut self.agent, now, arrivals.source, &message);
            if enough(&self.agent) {
                break;
            }
        }
        let is_over = arrivals.group.message(arrivals.next).is_none();
        self.arrivals = (!is_over).then_some(arrivals);
    }

    fn handle_disk(&mut self, event: DiskEvent) {
        match event {
            DiskEvent::Done(id) => {
                if let Some(failures) = self.disk_log.works() {
                    info!(failures, "the disk works again");
                }
                self.agent.handle_job_done(self.clock.now(), id);
            }
            DiskEvent::Failed(job, fault) => {
                let now = self.clock.now();
                if let Some(failures) = self.disk_log.fails(&fault, now.monotonic) {
                    error!(%fault, failures, "the disk fails; nothing is acknowledged until it works again; trying again");
                }
                self.agent.handle_job_failed(now, job, &fault);
            }
        }
    }

    fn handle_link(&mut self, event: LinkEvent) {
        let now = self.clock.now();
        match event {
            LinkEvent::Connected(link) => {
                self.link = Some(link);
                self.agent
                    .handle_connected(random().unwrap_or_else(|_| self.clock.now().monotonic.as_micros()));
            }
            LinkEvent::Message(message) => {
                let was_linked = self.agent.is_linked();
                let outcome = self.agent.handle_message(now, message, &self.storage);
                self.handle_outcome(&outcome);
                if !was_linked && self.agent.is_linked() {
                    let spool = self.agent.spool();
                    let (batches, bytes) = (spool.len(), spool.held_bytes());
                    info!(batches, bytes, "linked to the aggregator, with this backlog");
                }
            }
            LinkEvent::Room => {}
            LinkEvent::Lost(reason) => {
                warn!(%reason, "no link to the aggregator");
                self.link = None;
                self.agent.handle_disconnected(now);
            }
        }
    }

    fn handle_outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Done => {}
            Outcome::Drain => {
                if let Some(link) = &self.link {
                    link.close("drained");
                }
            }
            Outcome::Refused(reason, readings) => {
                warn!(
                    ?reason,
                    readings, "the aggregator refused a batch; its readings are lost, and counted so"
                );
            }
            Outcome::OtherDatabase(database) => {
                warn!(
                    database = %format_args!("{:032x}", database.0),
                    "the aggregator has another database than before; what was gathered for the old one is taken only \
                     where its meaning is certain"
                );
            }
            Outcome::Forked(forked) => {
                error!(
                    lineage = %format_args!("{:016x}", forked.lineage),
                    epoch = %format_args!("{:016x}", forked.epoch),
                    "the state directory is an older copy of one that has gone on since (a restored image, or a copy on \
                     another machine); what it had gathered may have been delivered already, and is dropped; give each \
                     gateway a state directory of its own"
                );
            }
        }
    }

    /// Keeps the plan on disk, if there is another one.
    fn keep_plan(&mut self) {
        let Some(kept) = self.agent.poll_plan() else {
            return;
        };
        let AgentPlan {
            version, pipelines, ..
        } = &kept.plan;
        info!(
            version,
            pipelines = pipelines.len(),
            "running the aggregator's plan"
        );
        self.source_log.look(&self.agent);
        if let Err(error) = self.plan_file.save(&kept) {
            warn!(%error, "cannot keep the plan on disk; after a restart without a link there is none");
        }
    }

    /// Whether a message for the aggregator would find room; when there is some again, an event says so.
    fn can_speak(&self) -> bool {
        self.link.as_ref().is_some_and(Link::has_control_room)
    }

    /// Gives the world what the machine wants.
    fn drain(&mut self) {
        let now = self.clock.now();
        self.keep_plan();
        self.drain_disk(now);
        if self.agent.poll_connect(now) {
            debug!("connecting to the aggregator");
            tokio::spawn(self.connector.clone().run(self.link_events.0.clone()));
        }
        let Some(link) = &self.link else { return };
        while let Some((lane, frame)) = self.agent.poll_batch(|lane| link.has_room(lane), &self.storage) {
            self.agent.count(Counter::UplinkBytes, frame.len() as u64);
            link.send_batch(lane, frame);
        }
        self.agent.note_link_bytes(link.sent_bytes());
        while link.has_control_room() {
            let Some(message) = self.agent.poll_message(now) else {
                break;
            };
            let frame = message.emit();
            self.agent.count(Counter::UplinkBytes, frame.len() as u64);
            link.send_message(frame.into());
        }
    }

    /// Hands out what is to be made durable, and acknowledges what is.
    fn drain_disk(&mut self, now: Now) {
        while let Some(job) = self.agent.poll_job(now, &self.storage) {
            match (&mut self.storage, &self.disk) {
                (Storage::Memory(memory), _) => {
                    memory.execute(&job);
                    self.agent.handle_job_done(now, job.id);
                }
                (Storage::Files(_), Some((jobs, _))) => {
                    // One job is under way at a time, so there is room; and the thread lives as long as this does.
                    if jobs.try_send(job).is_err() {
                        error!("the disk's thread died; nothing more is acknowledged");
                    }
                    break;
                }
                (Storage::Files(_), None) => break,
            }
        }
        self.loss_log.look(&self.agent);
        self.sources.drain(&mut self.agent);
    }

    /// Closes all panes, makes everything durable and gives the aggregator a moment to take it.
    async fn shut_down(&mut self, mut told: mpsc::Receiver<(SourceId, Told)>) -> Result<()> {
        self.sources.stop();
        loop {
            while self.arrivals.is_some() {
                self.hand_in(|_| false);
            }
            let Ok((source, event)) = told.try_recv() else {
                break;
            };
            self.handle_source(source, event);
        }
        self.agent.handle_shutdown();
        let until = tokio::time::Instant::now() + SHUTDOWN_WAIT;
        loop {
            self.drain();
            let sent = self.agent.spool().is_empty() || self.link.is_none();
            if sent && self.agent.is_durable() {
                break;
            }
            let deadline = self
                .clock
                .deadline(self.agent.poll_timeout(self.clock.now(), self.can_speak()))
                .min(until);
            tokio::select! {
                Some(event) = disk_event(&mut self.disk) => self.handle_disk(event),
                Some(event) = self.link_events.1.recv() => self.handle_link(event),
                () = tokio::time::sleep_until(deadline) => {
                    if until <= tokio::time::Instant::now() {
                        break;
                    }
                }
            }
        }
        self.drain();
        let left = self.agent.spool().len();
        if left > 0 && self.disk.is_none() {
            warn!(
                batches = left,
                "stopping with batches that the aggregator has not acknowledged; they are lost"
            );
        } else if left > 0 {
            info!(batches = left, "batches wait on disk for the next start");
        }
        if let Some(link) = self.link.take() {
            // The last heartbeat is still on its way through the writer.
            tokio::time::sleep(Duration::from_millis(50)).await;
            link.close("stopping");
            self.connector.wait_closed().await;
        }
        info!("stopped");
        Ok(())
    }
}
