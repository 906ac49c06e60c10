//! The server: a listener, an engine and a writer.
//!
//! The engine thread owns the machine and reads panes; the writer thread owns the one connection that writes. All that
//! can wake the engine is on this page. While a commit is being written, frames gather for the next.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc as blocking;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use catchment_common::wire::{Message, Welcome, v1};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::aggregator::{Aggregator, ConnectionId, Transmit};
use crate::commit::{Commit, CommitId, SetAside};
use crate::io::clock::Clock;
use crate::io::config::Config;
use crate::io::net::quic::{self, NetEvent, Outgoing, Peer};
use crate::io::net::reset;
use crate::io::pki;
use crate::io::store::backup;
use crate::io::store::lock::DatabaseLock;
use crate::io::store::sqlite::Sqlite;
use crate::limits::CONNECTIONS_MAX;
use crate::plan_file::{self, AtStart};
use crate::store::{Reads, Store, StoreFault};

/// Frames handed to the machine before commits and messages are looked at again.
const BURST_MAX: usize = 256;
/// How often the store is asked for what operators have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often an operator is told of what lasts.
const TELL_INTERVAL: Duration = Duration::from_secs(10);
/// How long a stopping server waits for the commit that is under way.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// Runs the server until it is told to stop.
pub async fn serve(config: Config) -> Result<()> {
    let clock = Clock::start();
    let _lock = DatabaseLock::take(&config.database)?;
    let mut store = Sqlite::open(&config.database)?;
    take_plan_file(&mut store, config.plan.as_deref(), clock)?;
    let reader = Sqlite::open_to_read(&config.database)?;
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
    let accepting = tokio::spawn(quic::accept(endpoint.clone(), events_in, CONNECTIONS_MAX));
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
    let joined = if let Some(result) = died {
        result
    } else {
        let _ = stop.send(());
        ended.await
    };
    let result = joined.context("the engine's thread died")?;
    result.map_err(|_| {
        anyhow::anyhow!("the engine panicked; the store holds everything that was acknowledged")
    })?
}

/// Puts the configured plan's file into force if it has changed since it was last taken.
fn take_plan_file(store: &mut Sqlite, file: Option<&Path>, clock: Clock) -> Result<()> {
    let Some(file) = file else {
        return Ok(plan_file::at_start_without(store)?);
    };
    let text =
        std::fs::read_to_string(file).with_context(|| format!("{}: cannot read the plan", file.display()))?;
    let path = place_of(file);
    match plan_file::at_start(store, &path, &text, clock.now().wall)? {
        AtStart::Applied(version) => info!(version, file = %path, "applied the configured plan"),
        AtStart::InForce => {}
        AtStart::Superseded => info!(
            file = %path,
            "the plan in force was applied by command; the configured file has not changed since it was last taken"
        ),
    }
    Ok(())
}

/// A file's place, by which it is known again wherever it is named from.
pub fn place_of(file: &Path) -> String {
    let absolute = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    absolute.display().to_string()
}

struct Engine {
    aggregator: Aggregator,
    reader: Sqlite,
    clock: Clock,
    connections: BTreeMap<ConnectionId, Peer>,
    jobs: blocking::SyncSender<Commit>,
    done: mpsc::Receiver<Done>,
    looked_at: tokio::time::Instant,
    place: Place,
}

/// Whether the database file is where it was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    There,
    /// Not since then; the operator was told at that time.
    Gone(tokio::time::Instant),
}

enum Done {
    Committed(CommitId),
    Failed(Box<Commit>, StoreFault),
}

impl Engine {
    fn new(aggregator: Aggregator, reader: Sqlite, writer: Sqlite, clock: Clock) -> Result<Self> {
        let (jobs, queue) = blocking::sync_channel(1);
        let (done_in, done) = mpsc::channel(1);
        thread::Builder::new()
            .name("writer".into())
            .spawn(move || write(writer, &queue, &done_in))?;
        Ok(Self {
            aggregator,
            reader,
            clock,
            connections: BTreeMap::new(),
            jobs,
            done,
            looked_at: tokio::time::Instant::now(),
            place: Place::There,
        })
    }

    async fn run(
        mut self,
        mut events: mpsc::Receiver<NetEvent>,
        mut stop: oneshot::Receiver<()>,
    ) -> Result<()> {
        loop {
            self.look_around();
            self.commit()?;
            self.transmit();
            let deadline = self
                .clock
                .deadline(self.aggregator.poll_timeout())
                .min(self.looked_at + LOOK_INTERVAL);
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
            NetEvent::Connected(id, peer) => {
                self.aggregator.handle_connected(id, &peer.agent, peer.version);
                self.connections.insert(id, peer);
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
            Done::Failed(commit, error) => {
                if !matches!(error, StoreFault::Moved { .. }) {
                    error!(%error, "a commit failed; nothing is acknowledged until it succeeds; trying again");
                }
                self.aggregator.handle_commit_failed(self.clock.now(), *commit);
            }
        }
    }

    fn commit(&mut self) -> Result<()> {
        let commit = match self.aggregator.poll_commit(self.clock.now(), &self.reader) {
            Ok(Some(commit)) => commit,
            Ok(None) => return Ok(()),
            Err(fault) => {
                error!(%fault, "a commit cannot be prepared; nothing is acknowledged until it can; trying again");
                return Ok(());
            }
        };
        for SetAside { what, reason } in &commit.set_aside {
            error!(
                %what, %reason,
                "stored data cannot be read; its bytes are kept in catchment_set_aside, and a loss is noted"
            );
        }
        self.jobs.send(commit).context("the writer's thread died")
    }

    fn transmit(&mut self) {
        while let Some((id, transmit)) = self.aggregator.poll_transmit() {
            match transmit {
                Transmit::Message(message) => self.send(id, &message),
                Transmit::Close(reason) => self.close(id, reason.into()),
                Transmit::Conflict { with } => self.close_conflict(id, with),
            }
        }
    }

    fn send(&mut self, id: ConnectionId, message: &Message) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let Some(frame) = self.frame_for(connection, message) else {
            return;
        };
        if connection
            .outgoing
            .try_send(Outgoing::Frame(frame.into()))
            .is_err()
        {
            self.close(id, "the agent reads too slowly".into());
        }
    }

    /// A message as the peer understands it; tells what it does not.
    fn frame_for(&self, peer: &Peer, message: &Message) -> Option<Vec<u8>> {
        let agent = &peer.agent;
        if let Message::Forked(forked) = message {
            error!(
                %agent, address = %peer.address, lineage = %format_args!("{:016x}", forked.lineage),
                epoch = %format_args!("{:016x}", forked.epoch),
                "the agent's state directory is an older copy of one that has gone on since; what it gathered before \
                 its start is not taken, because it may have been delivered already, and the agent begins anew"
            );
        }
        if peer.version != v1::VERSION {
            return Some(message.emit());
        }
        let is_plan = matches!(
            message,
            Message::Plan(_) | Message::Welcome(Welcome { plan: Some(_), .. })
        );
        let (_, left_out) = self.aggregator.catalog().agent_plan_v1();
        if is_plan && left_out > 0 {
            warn!(
                %agent, left_out,
                "the agent speaks version 1, which cannot express some pipelines of the plan; it runs without them \
                 until it is upgraded"
            );
        }
        v1::emit_message(message)
            .inspect_err(|fault| error!(%agent, %fault, "a message cannot be said to an agent of version 1"))
            .ok()
    }

    /// Lets go of a connection; dropping its queue ends it when the reason cannot be delivered.
    fn close(&mut self, id: ConnectionId, reason: String) {
        warn!(connection = id, %reason, "closing a connection");
        if let Some(connection) = self.connections.remove(&id) {
            let _ = connection.outgoing.try_send(Outgoing::Close(reason));
        }
        self.aggregator.handle_disconnected(id);
    }

    /// Tells the one of two agents with the same name that came back although the other has started since.
    fn close_conflict(&mut self, id: ConnectionId, with: ConnectionId) {
        let address = |id| {
            let peer = self.connections.get(&id);
            peer.map_or("unknown".into(), |peer: &Peer| peer.address.to_string())
        };
        let (refused, stays) = (address(id), address(with));
        let agent = self
            .connections
            .get(&id)
            .map_or(String::new(), |peer| peer.agent.clone());
        error!(
            %agent, %refused, %stays,
            "two agents are alive under one name; give each gateway a certificate of its own (pki issue)"
        );
        let reason = format!(
            "another agent named {agent} is connected from {stays}; give each gateway a certificate of its own \
             (catchment-aggregator pki issue), or stop one of them; what this one holds is kept"
        );
        self.close(id, reason);
    }

    /// Takes up what operators have left in the store: a plan that `plan apply` has put there, and who is retired.
    fn look_around(&mut self) {
        if self.looked_at.elapsed() < LOOK_INTERVAL {
            return;
        }
        self.looked_at = tokio::time::Instant::now();
        self.look_for_the_file();
        if let Err(error) = self.take_up() {
            warn!(%error, "cannot look for a newer plan; the running one goes on");
        }
    }

    /// A file that was removed or replaced takes no more commits; the first time that it is missed, what it has is copied.
    fn look_for_the_file(&mut self) {
        let now = self.looked_at;
        let Err(fault) = self.reader.check_place() else {
            if self.place != Place::There {
                info!("the database file is back where it was; commits go on");
            }
            self.place = Place::There;
            return;
        };
        match self.place {
            Place::Gone(told) if now.duration_since(told) < TELL_INTERVAL => return,
            Place::Gone(_) => {}
            Place::There => match backup::rescue(&self.reader, self.reader.path(), self.clock.now().wall) {
                Ok(copy) => error!(copy = %copy.display(), "all that was committed is in a copy"),
                Err(error) => error!("what was committed cannot be copied: {error:#}"),
            },
        }
        error!("{fault}");
        self.place = Place::Gone(now);
    }

    fn take_up(&mut self) -> Result<(), StoreFault> {
        self.aggregator.handle_retired(&self.reader.retired()?);
        self.aggregator.handle_forgotten(&self.reader.to_forget()?);
        self.aggregator.handle_set_back(&self.reader.to_set_back()?);
        let version = self.reader.plan_version()?;
        if version != self.aggregator.catalog().version {
            let catalog = self.reader.catalog()?;
            info!(version, queries = catalog.queries.len(), "a new plan is in force");
            self.aggregator.handle_catalog(self.clock.now(), catalog);
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
fn write(mut store: impl Store, jobs: &blocking::Receiver<Commit>, done: &mpsc::Sender<Done>) {
    while let Ok(commit) = jobs.recv() {
        let result = match store.commit(&commit) {
            Ok(()) => Done::Committed(commit.id),
            Err(error) => Done::Failed(Box::new(commit), error),
        };
        if done.blocking_send(result).is_err() {
            return;
        }
    }
}
