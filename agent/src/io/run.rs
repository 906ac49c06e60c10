//! The loop: one event in, then drain what the machine wants, then wait. All that can wake an agent is on this page.

use std::time::Duration;

use anyhow::{Context, Result};
use catchment_common::counter::{Counter, Reason};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::clock::Clock;
use super::config::Config;
use super::mqtt::{self, Incoming};
use super::plan_file::PlanFile;
use super::quic::{self, Connector, Link, LinkEvent};
use crate::agent::{Agent, Outcome};
use crate::spool::Lane;

/// How long a stopping agent waits for its last batches to be acknowledged.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);
/// Bad input is logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// All that can wake an agent.
enum Event {
    Messages(Vec<Incoming>),
    Link(LinkEvent),
    Timeout,
    Shutdown,
}

/// Runs an agent until it is told to stop. Fails on a configuration that cannot work.
pub async fn run(config: Config) -> Result<()> {
    std::fs::create_dir_all(&config.state)
        .with_context(|| format!("{}: cannot make the state directory", config.state.display()))?;
    let clock = Clock::start();
    let epoch = random()?;
    let mut shell = Shell {
        agent: Agent::new(config.settings(), epoch, random()?, clock.now()),
        clock,
        connector: Connector::new(&config)?,
        plan_file: PlanFile::new(&config.state),
        filters: watch::Sender::new(Vec::new()),
        link: None,
        link_events: mpsc::channel(quic::EVENTS_MAX),
        log: RejectLog::default(),
    };
    if let Some(plan) = shell.plan_file.load() {
        info!(
            version = plan.version,
            slices = plan.slices.len(),
            "running the kept plan"
        );
        shell.agent.handle_plan(clock.now(), &plan);
    }
    shell.filters.send_replace(shell.agent.filters());
    info!(agent = %config.name, epoch = %format_args!("{epoch:016x}"), "started");
    let (groups_in, groups) = mpsc::channel(mqtt::GROUPS_MAX);
    let source = tokio::spawn(mqtt::run(config, shell.filters.subscribe(), groups_in));
    let running = shell.run(groups);
    tokio::pin!(running);
    tokio::select! {
        result = &mut running => result,
        ended = source => {
            ended.context("the subscription's task died")??;
            // It ends well only because the loop has closed its queue to stop: the last batches are still to be sent.
            running.await
        }
    }
}

struct Shell {
    agent: Agent,
    clock: Clock,
    connector: Connector,
    plan_file: PlanFile,
    filters: watch::Sender<Vec<String>>,
    link: Option<Link>,
    link_events: (mpsc::Sender<LinkEvent>, mpsc::Receiver<LinkEvent>),
    log: RejectLog,
}

impl Shell {
    async fn run(&mut self, mut groups: mpsc::Receiver<Vec<Incoming>>) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            self.drain();
            let now = self.clock.now();
            let deadline = self.clock.deadline(self.agent.poll_timeout(now));
            let event = tokio::select! {
                biased;
                _ = terminate.recv() => Event::Shutdown,
                _ = interrupt.recv() => Event::Shutdown,
                Some(event) = self.link_events.1.recv() => Event::Link(event),
                Some(group) = groups.recv() => Event::Messages(group),
                () = tokio::time::sleep_until(deadline) => Event::Timeout,
            };
            match event {
                Event::Messages(group) => self.handle_messages(&group),
                Event::Link(event) => self.handle_link(event),
                Event::Timeout => {}
                Event::Shutdown => return self.shut_down(groups).await,
            }
            self.agent.handle_timeout(self.clock.now());
        }
    }

    fn handle_messages(&mut self, group: &[Incoming]) {
        let now = self.clock.now();
        for message in group {
            if message.retained {
                self.agent.handle_dropped(Reason::Retained);
                continue;
            }
            match std::str::from_utf8(&message.topic) {
                Ok(topic) => self.agent.handle_publish(now, topic, &message.payload),
                Err(_) => self.agent.handle_dropped(Reason::InvalidUtf8),
            }
        }
        self.log.look(&self.agent);
    }

    fn handle_link(&mut self, event: LinkEvent) {
        let now = self.clock.now();
        match event {
            LinkEvent::Connected(link) => {
                self.link = Some(link);
                self.agent.handle_connected();
            }
            LinkEvent::Message(message) => match self.agent.handle_message(now, message) {
                Outcome::Done => {}
                Outcome::PlanChanged(plan) => {
                    info!(
                        version = plan.version,
                        slices = plan.slices.len(),
                        "running a new plan"
                    );
                    if let Err(error) = self.plan_file.save(&plan) {
                        warn!(%error, "cannot keep the plan on disk; after a restart without a link there is none");
                    }
                    self.filters.send_replace(self.agent.filters());
                }
                Outcome::Drain => {
                    if let Some(link) = &self.link {
                        link.close("drained");
                    }
                }
            },
            LinkEvent::Room => {}
            LinkEvent::Lost(reason) => {
                warn!(%reason, "no link to the aggregator");
                self.link = None;
                self.agent.handle_disconnected(now);
            }
        }
    }

    /// Gives the world what the machine wants.
    fn drain(&mut self) {
        let now = self.clock.now();
        if self.agent.poll_connect(now) {
            debug!("connecting to the aggregator");
            tokio::spawn(self.connector.clone().run(self.link_events.0.clone()));
        }
        let Some(link) = &self.link else { return };
        for lane in [Lane::Live, Lane::Backlog] {
            while link.has_room(lane) {
                let Some(frame) = self.agent.poll_batch(lane) else {
                    break;
                };
                self.agent.count(Counter::UplinkBytes, frame.len() as u64);
                link.send_batch(lane, frame);
            }
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

    /// Closes all panes and gives the aggregator a moment to take them.
    async fn shut_down(&mut self, mut groups: mpsc::Receiver<Vec<Incoming>>) -> Result<()> {
        groups.close();
        while let Ok(group) = groups.try_recv() {
            self.handle_messages(&group);
        }
        self.agent.handle_shutdown();
        let until = tokio::time::Instant::now() + SHUTDOWN_WAIT;
        while !self.agent.spool().is_empty() && self.link.is_some() {
            self.drain();
            match tokio::time::timeout_at(until, self.link_events.1.recv()).await {
                Ok(Some(event)) => self.handle_link(event),
                _ => break,
            }
        }
        self.drain();
        let left = self.agent.spool().len();
        if left > 0 {
            warn!(
                batches = left,
                "stopping with batches that the aggregator has not acknowledged; they are lost"
            );
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

/// Tells the operator about rejected readings, at a limited rate.
#[derive(Default)]
struct RejectLog {
    told: u64,
    last: Option<tokio::time::Instant>,
}

impl RejectLog {
    fn look(&mut self, agent: &Agent) {
        let rejected = agent.tally().rejected();
        if rejected == self.told || self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return;
        }
        let reasons = agent.tally().reasons();
        warn!(new = rejected - self.told, ?reasons, "readings were rejected");
        self.told = rejected;
        self.last = Some(tokio::time::Instant::now());
    }
}

fn random() -> Result<u64> {
    getrandom::u64().map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))
}
