//! The server: a listener, an engine and a writer.
//!
//! The engine thread owns the machine and reads panes; the writer thread owns the one connection that writes. All that
//! can wake the engine is on this page. While a commit is being written, frames gather for the next.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc as blocking};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use catchment_common::wire::Message;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::clock::Clock;
use super::config::Config;
use super::quic::{self, NetEvent, Outgoing};
use super::sqlite::{Store, tables};
use super::tables::TableSql;
use super::{pki, plan_toml, reset};
use crate::aggregator::{Aggregator, ConnectionId, Transmit};
use crate::commit::{Commit, CommitId};

/// Frames handed to the machine before commits and messages are looked at again.
const BURST_MAX: usize = 256;
/// How often the store is asked for a newer plan.
const PLAN_INTERVAL: Duration = Duration::from_secs(1);
/// How long a stopping server waits for the commit that is under way.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// Runs the server until it is told to stop.
pub async fn serve(config: Config) -> Result<()> {
    let clock = Clock::start();
    let mut store = Store::open(&config.database)?;
    if let Some(plan) = &config.plan {
        apply_if_new(&mut store, plan, clock)?;
    }
    let reader = Store::open_to_read(&config.database)?;
    let aggregator = reader.restore(config.settings(), clock.now())?;
    let catalog = aggregator.catalog();
    info!(
        plan = catalog.version,
        queries = catalog.queries.len(),
        partials = aggregator.panes().partials(),
        "restored"
    );
    if catalog.version == 0 {
        warn!("there is no plan yet; give one with `catchment-aggregator plan apply FILE`");
    }
    let endpoint = quic::bind(
        config.listen,
        pki::server(&config.tls)?,
        reset::endpoint(&config.tls)?,
    )?;
    println!("listening on {}", endpoint.local_addr()?);
    let (events_in, events) = mpsc::channel(quic::EVENTS_MAX);
    let (stop, stopped) = oneshot::channel();
    let engine = thread::Builder::new().name("engine".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        runtime.block_on(Engine::new(aggregator, reader, store, clock)?.run(events, stopped))
    })?;
    let accepting = tokio::spawn(quic::accept(endpoint.clone(), events_in));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ended = tokio::task::spawn_blocking(move || engine.join());
    tokio::pin!(ended);
    let died = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        result = &mut ended => Some(result),
    };
    endpoint.close(0_u32.into(), b"the aggregator is stopping");
    accepting.abort();
    let joined = match died {
        Some(result) => result,
        None => {
            let _ = stop.send(());
            ended.await
        }
    };
    let result = joined.context("the engine's thread died")?;
    result.map_err(|_| {
        anyhow::anyhow!("the engine panicked; the store holds everything that was acknowledged")
    })?
}

/// Applies the configured plan file unless its text is the newest plan's.
fn apply_if_new(store: &mut Store, file: &Path, clock: Clock) -> Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("{}: cannot read the plan", file.display()))?;
    if store.plan_source()?.as_deref() == Some(&text) {
        return Ok(());
    }
    let version = apply(store, &text, &file.display().to_string(), clock)?;
    info!(version, file = %file.display(), "applied the configured plan");
    Ok(())
}

/// Checks a plan's text and puts it into force; returns its version.
pub fn apply(store: &mut Store, text: &str, name: &str, clock: Clock) -> Result<u64> {
    let plan = plan_toml::parse(text, name)?;
    Ok(store.apply_plan(plan, text, clock.now().wall)?)
}

struct Engine {
    aggregator: Aggregator,
    reader: Store,
    clock: Clock,
    tables: Arc<[TableSql]>,
    connections: BTreeMap<ConnectionId, mpsc::Sender<Outgoing>>,
    jobs: blocking::SyncSender<Job>,
    done: mpsc::Receiver<Done>,
    /// The tables that a failed commit was made for; a new plan may have come since.
    retry_tables: Option<(CommitId, Arc<[TableSql]>)>,
    plan_checked: tokio::time::Instant,
}

/// A commit and the tables that its indices mean.
struct Job {
    commit: Commit,
    tables: Arc<[TableSql]>,
}

enum Done {
    Committed(CommitId),
    Failed(Job, rusqlite::Error),
}

impl Engine {
    fn new(aggregator: Aggregator, reader: Store, writer: Store, clock: Clock) -> Result<Self> {
        let (jobs, queue) = blocking::sync_channel(1);
        let (done_in, done) = mpsc::channel(1);
        thread::Builder::new()
            .name("writer".into())
            .spawn(move || write(writer, &queue, &done_in))?;
        Ok(Self {
            tables: tables(aggregator.catalog()),
            aggregator,
            reader,
            clock,
            connections: BTreeMap::new(),
            jobs,
            done,
            retry_tables: None,
            plan_checked: tokio::time::Instant::now(),
        })
    }

    async fn run(
        mut self,
        mut events: mpsc::Receiver<NetEvent>,
        mut stop: oneshot::Receiver<()>,
    ) -> Result<()> {
        loop {
            self.check_plan()?;
            self.commit()?;
            self.transmit();
            let deadline = self
                .clock
                .deadline(self.aggregator.poll_timeout())
                .min(self.plan_checked + PLAN_INTERVAL);
            tokio::select! {
                biased;
                _ = &mut stop => break,
                Some(done) = self.done.recv() => self.handle_done(done),
                Some(event) = events.recv(), if self.aggregator.has_room() => {
                    self.handle(event);
                    for _ in 1..BURST_MAX {
                        let Ok(event) = events.try_recv() else { break };
                        self.handle(event);
                    }
                }
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
        self.stop().await;
        Ok(())
    }

    fn handle(&mut self, event: NetEvent) {
        match event {
            NetEvent::Connected(id, agent, outgoing) => {
                self.connections.insert(id, outgoing);
                self.aggregator.handle_connected(id, &agent);
            }
            NetEvent::Frame(id, frame) => {
                let now = self.clock.now();
                if let Err(fault) = self.aggregator.handle_frame(now, id, frame, &self.reader) {
                    self.close(id, fault.to_string());
                }
            }
            NetEvent::Disconnected(id) => {
                self.connections.remove(&id);
                self.aggregator.handle_disconnected(id);
            }
        }
    }

    fn handle_done(&mut self, done: Done) {
        match done {
            Done::Committed(id) => self.aggregator.handle_committed(id),
            Done::Failed(job, error) => {
                error!(%error, "a commit failed; nothing is acknowledged until it succeeds; trying again");
                self.retry_tables = Some((job.commit.id, job.tables));
                self.aggregator.handle_commit_failed(self.clock.now(), job.commit);
            }
        }
    }

    fn commit(&mut self) -> Result<()> {
        let Some(commit) = self.aggregator.poll_commit(self.clock.now(), &self.reader)? else {
            return Ok(());
        };
        let tables = match self.retry_tables.take_if(|(id, _)| *id == commit.id) {
            Some((_, tables)) => tables,
            None => Arc::clone(&self.tables),
        };
        self.jobs
            .send(Job { commit, tables })
            .context("the writer's thread died")
    }

    fn transmit(&mut self) {
        while let Some((id, transmit)) = self.aggregator.poll_transmit() {
            match transmit {
                Transmit::Message(message) => self.send(id, &message),
                Transmit::Close(reason) => self.close(id, reason.into()),
            }
        }
    }

    fn send(&mut self, id: ConnectionId, message: &Message) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        if connection
            .try_send(Outgoing::Frame(message.emit().into()))
            .is_err()
        {
            self.close(id, "the agent reads too slowly".into());
        }
    }

    /// Lets go of a connection; dropping its queue ends it when the reason cannot be delivered.
    fn close(&mut self, id: ConnectionId, reason: String) {
        warn!(connection = id, %reason, "closing a connection");
        if let Some(connection) = self.connections.remove(&id) {
            let _ = connection.try_send(Outgoing::Close(reason));
        }
        self.aggregator.handle_disconnected(id);
    }

    /// Takes up a plan that `plan apply` has stored.
    fn check_plan(&mut self) -> Result<()> {
        if self.plan_checked.elapsed() < PLAN_INTERVAL {
            return Ok(());
        }
        self.plan_checked = tokio::time::Instant::now();
        let version = self.reader.plan_version()?;
        if version != self.aggregator.catalog().version {
            let catalog = self.reader.load_catalog()?;
            info!(version, queries = catalog.queries.len(), "a new plan is in force");
            self.tables = tables(&catalog);
            self.aggregator.handle_catalog(catalog);
        }
        Ok(())
    }

    /// Waits for the commit that is under way; what is not committed was not acknowledged and comes again.
    async fn stop(mut self) {
        if let Ok(Some(Done::Committed(id))) =
            tokio::time::timeout(SHUTDOWN_WAIT / 10, self.done.recv()).await
        {
            self.aggregator.handle_committed(id);
        }
        self.transmit();
        info!("stopped");
    }
}

/// The writer's thread: one transaction after another.
fn write(mut store: Store, jobs: &blocking::Receiver<Job>, done: &mpsc::Sender<Done>) {
    while let Ok(job) = jobs.recv() {
        let result = match store.commit(&job.commit, &job.tables) {
            Ok(()) => Done::Committed(job.commit.id),
            Err(error) => Done::Failed(job, error),
        };
        if done.blocking_send(result).is_err() {
            return;
        }
    }
}
