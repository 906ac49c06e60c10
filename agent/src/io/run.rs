//! The loop: one event in, then drain what the machine wants, then wait. All that can wake an agent is on this page.

use std::collections::VecDeque;
use std::sync::mpsc as blocking;
use std::time::Duration;

use anyhow::{Context, Result};
use catchment_common::metrics::{Counter, Reason};
use catchment_common::time::Now;
use catchment_common::wire::AgentPlan;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use super::clock::Clock;
use super::config::{Config, Mode};
use super::disk::{DiskEvent, Storage};
use super::disk_log::DiskLog;
use super::mqtt::{self, Acknowledger, Incoming, SourceEvent};
use super::plan_file::PlanFile;
use super::quic::{self, Connector, Link, LinkEvent};
use crate::agent::{Agent, Outcome};
use crate::log::disk::{Job, MemoryDisk};
use crate::settings::CLOCK_SET_FROM;

/// How long a stopping agent waits for its last batches to be acknowledged.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);
/// Bad input is logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// All that can wake an agent.
enum Event {
    Source(SourceEvent),
    Link(LinkEvent),
    Disk(DiskEvent),
    Timeout,
    Shutdown,
}

/// Runs an agent until it is told to stop. Fails on a configuration that cannot work.
pub async fn run(config: Config) -> Result<()> {
    let clock = Clock::start();
    if clock.now().wall < CLOCK_SET_FROM {
        warn!(policy = ?config.clock.unset, "the clock is not set; see `clock` in the configuration");
    }
    let epoch = random()?;
    let (storage, disk) = open_storage(&config)?;
    let plan_file = PlanFile::new(&config.state);
    let kept = plan_file.load()?;
    let (agent, started) = Agent::start(
        config.settings(),
        epoch,
        random()?,
        kept.as_ref(),
        clock.now(),
        &storage,
    )
    .with_context(|| format!("{}: cannot read what was kept", config.state.display()))?;
    info!(
        agent = %config.name, epoch = %format_args!("{epoch:016x}"), plan = agent.plan().version,
        readings = started.readings, partials = started.partials, batches = started.batches,
        damaged = started.damaged, "started"
    );
    if agent.plan().version > 0 {
        let AgentPlan {
            version, pipelines, ..
        } = agent.plan();
        info!(version, pipelines = pipelines.len(), "running the kept plan");
    }
    let filters = watch::Sender::new(agent.filters());
    let connector = Connector::new(&config)?;
    let (events_in, events) = mpsc::channel(mqtt::EVENTS_MAX);
    let (acknowledger, subscription) = mqtt::subscribe(config, filters.subscribe(), events_in)?;
    let mut shell = Shell {
        agent,
        clock,
        connector,
        plan_file,
        filters,
        storage,
        disk,
        acknowledger,
        connection: 0,
        arrivals: VecDeque::new(),
        link: None,
        link_events: mpsc::channel(quic::EVENTS_MAX),
        log: RejectLog::default(),
        disk_log: DiskLog::default(),
    };
    let source = tokio::spawn(subscription);
    let running = shell.run(events);
    tokio::pin!(running);
    tokio::select! {
        result = &mut running => result,
        ended = source => {
            ended.context("the subscription's task died")?;
            // It ends well only because the loop has closed its queue to stop: the last batches are still to be sent.
            running.await
        }
    }
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
    filters: watch::Sender<Vec<String>>,
    storage: Storage,
    disk: Option<DiskThread>,
    acknowledger: Acknowledger,
    /// The broker's connection that packets came on.
    connection: u64,
    /// Messages of the last group from the broker that were not handed in yet.
    arrivals: VecDeque<Incoming>,
    link: Option<Link>,
    link_events: (mpsc::Sender<LinkEvent>, mpsc::Receiver<LinkEvent>),
    log: RejectLog,
    disk_log: DiskLog,
}

/// The next end of a job; never, for an agent without a disk.
async fn disk_event(disk: &mut Option<DiskThread>) -> Option<DiskEvent> {
    match disk {
        Some((_, events)) => events.recv().await,
        None => std::future::pending().await,
    }
}

impl Shell {
    async fn run(&mut self, mut source: mpsc::Receiver<SourceEvent>) -> Result<()> {
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
                Some(event) = source.recv(), if self.arrivals.is_empty() => Event::Source(event),
                () = tokio::time::sleep_until(deadline) => Event::Timeout,
            };
            match event {
                Event::Source(event) => self.handle_source(event),
                Event::Link(event) => self.handle_link(event),
                Event::Disk(event) => self.handle_disk(event),
                Event::Timeout => {}
                Event::Shutdown => return self.shut_down(source).await,
            }
            self.agent.handle_timeout(self.clock.now());
        }
    }

    fn handle_source(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Connected { connection, resumed } => {
                self.connection = connection;
                self.agent.handle_broker_connected(resumed);
            }
            SourceEvent::Messages(group) => {
                // There were none left, or this event had not been received.
                self.arrivals = group.into();
                self.take_arrivals();
            }
            SourceEvent::AcknowledgementsArrived(count) => self.agent.handle_acknowledgements_arrived(count),
            SourceEvent::Lost => self.agent.handle_broker_lost(),
        }
    }

    /// Hands in messages of the last group until the disk is behind with what they made; returns whether there were any.
    fn take_arrivals(&mut self) -> bool {
        if self.arrivals.is_empty() || self.agent.is_backed_up() {
            return false;
        }
        let now = self.clock.now();
        while let Some(message) = self.arrivals.pop_front() {
            self.handle_message(now, &message);
            if self.agent.is_behind() {
                break;
            }
        }
        self.log.look(&self.agent);
        true
    }

    fn handle_message(&mut self, now: Now, message: &Incoming) {
        if message.retained {
            return self.agent.handle_dropped(Reason::Retained, message.packet);
        }
        match std::str::from_utf8(&message.topic) {
            Ok(topic) => self
                .agent
                .handle_publish(now, topic, &message.payload, message.packet),
            Err(_) => self.agent.handle_dropped(Reason::InvalidUtf8, message.packet),
        }
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
                let outcome = self.agent.handle_message(now, message, &self.storage);
                self.handle_outcome(&outcome);
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

    /// Keeps the plan on disk and renews the subscriptions, if there is another plan.
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
        if let Err(error) = self.plan_file.save(&kept) {
            warn!(%error, "cannot keep the plan on disk; after a restart without a link there is none");
        }
        let filters = self.agent.filters();
        self.filters.send_if_modified(|held| {
            let is_other = *held != filters;
            *held = filters;
            is_other
        });
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
        while let Some(packet) = self.agent.poll_acknowledgement() {
            self.acknowledger.acknowledge(self.connection, packet);
        }
        if self.agent.poll_barrier() {
            self.acknowledger.barrier();
        }
        while let Some(command) = self.agent.poll_command() {
            debug!(topic = command.topic, "asking for a rebirth");
            if !self.acknowledger.publish(&command.topic, command.payload) {
                warn!(topic = command.topic, "cannot ask for a rebirth now");
            }
        }
        if self.agent.poll_redelivery() {
            self.acknowledger.reconnect();
        }
    }

    /// Closes all panes, makes everything durable and gives the aggregator a moment to take it.
    async fn shut_down(&mut self, mut source: mpsc::Receiver<SourceEvent>) -> Result<()> {
        source.close();
        let now = self.clock.now();
        loop {
            while let Some(message) = self.arrivals.pop_front() {
                self.handle_message(now, &message);
            }
            let Ok(event) = source.try_recv() else { break };
            self.handle_source(event);
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
        }
        info!("stopped");
        Ok(())
    }
}

/// Tells the operator about rejected readings and values that could not be used, at a limited rate.
#[derive(Default)]
struct RejectLog {
    rejected: u64,
    unusable: u64,
    last: Option<tokio::time::Instant>,
}

impl RejectLog {
    fn look(&mut self, agent: &Agent) {
        // What a condition keeps out is no fault.
        let is_fault = |(name, _): &(&str, u64)| *name != Reason::Filtered.name();
        let reasons: Vec<_> = agent.metrics().reasons().into_iter().filter(is_fault).collect();
        let fields = agent.metrics().unusable();
        let sum = |counts: &[(&str, u64)]| counts.iter().map(|(_, count)| count).sum::<u64>();
        let (rejected, unusable) = (sum(&reasons), sum(&fields));
        let is_old = (rejected, unusable) == (self.rejected, self.unusable);
        if is_old || self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return;
        }
        if rejected > self.rejected {
            warn!(new = rejected - self.rejected, ?reasons, "readings were rejected");
        }
        if unusable > self.unusable {
            warn!(
                new = unusable - self.unusable,
                ?fields,
                "values could not be used; their readings count without them"
            );
        }
        (self.rejected, self.unusable) = (rejected, unusable);
        self.last = Some(tokio::time::Instant::now());
    }
}

fn random() -> Result<u64> {
    getrandom::u64().map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))
}
