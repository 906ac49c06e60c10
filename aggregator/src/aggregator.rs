//! The aggregator: sessions, ledger, merge, frontier and windows composed into one machine.
//!
//! The caller hands in what happened (`handle_*`, with `now`), drains messages ([`Aggregator::poll_transmit`]) and
//! commits ([`Aggregator::poll_commit`]), makes each commit durable, says so ([`Aggregator::handle_committed`]), and
//! sleeps until [`Aggregator::poll_timeout`]. One commit is under way at a time; what comes meanwhile gathers for the
//! next, and that is where the speed comes from.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use catchment_common::counter::Counter;
use catchment_common::plan::SliceId;
use catchment_common::time::{Instant, Now, Span, Timestamp};
use catchment_common::wire::{
    Batch, EpochRange, Heartbeat, Hello, Message, Refusal, RejectReason, SeqRange, Welcome, WireFault,
};

use crate::catalog::Catalog;
use crate::commit::{
    AgentRow, AppendedBatch, Checkpoint, Commit, CommitId, Expired, PaneSource, SourceFault,
};
use crate::frontier::{Frontier, Standing};
use crate::ledger::Ledger;
use crate::limits::{
    AGENTS_MAX, CHECKPOINT_INTERVAL, COMMIT_BYTES_MAX, COMMIT_RETRY, EPOCHS_MAX, JOURNAL_BYTES_MAX,
    LAZY_COMMIT_INTERVAL, STATEMENTS_MAX,
};
use crate::merge::{Panes, Refused};
use crate::window::QueryWindows;

/// Names a connection.
pub type ConnectionId = u64;

/// What the configuration decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// An agent that was not heard for so long is no longer expected.
    pub lease: Span,
    /// How often agents are asked to send heartbeats.
    pub heartbeat: Span,
}

/// The machine.
#[derive(Debug)]
pub struct Aggregator {
    settings: Settings,
    catalog: Catalog,
    ledger: Ledger,
    panes: Panes,
    frontier: Frontier,
    windows: Vec<QueryWindows>,
    sessions: BTreeMap<ConnectionId, Session>,
    pending: Pending,
    in_flight: Option<InFlight>,
    next_commit: CommitId,
    /// Bytes of batches appended since the last checkpoint.
    journal_bytes: usize,
    next_checkpoint: Instant,
    next_lazy: Instant,
    transmits: VecDeque<(ConnectionId, Transmit)>,
}

/// What goes out on a connection.
#[derive(Clone, PartialEq, Debug)]
pub enum Transmit {
    /// This message.
    Message(Message),
    /// Nothing more: close it, for this reason.
    Close(&'static str),
}

/// A connection ends because of what came on it. The process goes on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The bytes are not a frame.
    #[error("bad frame: {0}")]
    Wire(WireFault),
    /// A frame that must not come now, or not from an agent.
    #[error("unexpected frame: {0}")]
    Unexpected(&'static str),
    /// A pane that a batch needs cannot be read.
    #[error(transparent)]
    Source(#[from] SourceFault),
}

#[derive(Debug)]
struct Session {
    agent: String,
    greeted: bool,
    software: String,
    plan_version: u64,
    statements: VecDeque<Statement>,
}

/// Watermarks that hold once the seqs are committed.
#[derive(Clone, Debug)]
struct Statement {
    epoch: u64,
    seqs: SeqRange,
    watermarks: Vec<(SliceId, Timestamp)>,
}

/// What gathers for the next commit.
#[derive(Debug, Default)]
struct Pending {
    batches: Vec<AppendedBatch>,
    bytes: usize,
    claimed: BTreeSet<(String, u64)>,
    acks: BTreeMap<(ConnectionId, u64), Vec<u64>>,
    heard: BTreeSet<String>,
    counters: BTreeMap<(String, u64, SliceId, Counter), u64>,
    /// Something that somebody waits for.
    urgent: bool,
}

#[derive(Debug)]
struct InFlight {
    commit: Option<Commit>,
    retry_at: Option<Instant>,
    id: CommitId,
    acks: BTreeMap<(ConnectionId, u64), Vec<u64>>,
}

impl Aggregator {
    /// A machine with nothing stored yet. Restore it before anything is handled.
    pub fn new(settings: Settings, catalog: Catalog, now: Now) -> Self {
        let windows = catalog.queries.iter().map(|_| QueryWindows::default()).collect();
        Self {
            settings,
            catalog,
            ledger: Ledger::default(),
            panes: Panes::default(),
            frontier: Frontier::new(settings.lease),
            windows,
            sessions: BTreeMap::new(),
            pending: Pending::default(),
            in_flight: None,
            next_commit: 1,
            journal_bytes: 0,
            next_checkpoint: now.monotonic + CHECKPOINT_INTERVAL,
            next_lazy: now.monotonic + LAZY_COMMIT_INTERVAL,
            transmits: VecDeque::new(),
        }
    }

    // What the store gave back.

    /// A stored seq range.
    pub fn restore_range(&mut self, agent: &str, epoch: u64, range: SeqRange) {
        self.ledger.set_mut(agent, epoch).insert_range(range);
    }

    /// A stored agent.
    pub fn restore_agent(&mut self, agent: String, standing: Standing) {
        self.frontier.restore(agent, standing);
    }

    /// A query's horizon, and its provisional windows' starts with the coverage that they show.
    pub fn restore_query(
        &mut self,
        index: usize,
        emitted_through: Timestamp,
        provisional: impl Iterator<Item = (Timestamp, f64)>,
    ) {
        let window = self.catalog.queries[index].query.window;
        self.windows[index].restore(emitted_through, provisional, window);
    }

    /// A stored chunk of a pane that may still be needed.
    pub fn restore_chunk(&mut self, columns: &[u8]) -> Result<(), WireFault> {
        self.panes.restore(columns)
    }

    /// A batch that was appended after the last checkpoint: merged again, and nothing else, because its seq and its
    /// results were committed with it.
    pub fn replay(&mut self, agent: &str, frame: &[u8], source: &impl PaneSource) -> Result<(), Fault> {
        let batch = Batch::parse(frame).map_err(Fault::Wire)?;
        self.journal_bytes += frame.len();
        for view in batch.sections() {
            let view = view.map_err(Fault::Wire)?;
            load(&mut self.panes, source, view.slice, view.pane)?;
            self.panes.merge(agent, &view).map_err(Fault::Wire)?;
        }
        Ok(())
    }

    /// Panes that start before this need not be loaded at start.
    pub fn needed_from(&self, slice: SliceId) -> Timestamp {
        let reading = self
            .catalog
            .queries
            .iter()
            .zip(&self.windows)
            .filter(|(query, _)| query.reader(slice).is_some());
        reading
            .map(|(query, windows)| windows.needed_from(query.query.window))
            .min()
            .unwrap_or(Timestamp::MAX)
    }

    // What happened.

    /// A connection was made by an agent whose certificate names it. An older connection under the same name is
    /// closed: the newer one is the one that works.
    pub fn handle_connected(&mut self, connection: ConnectionId, agent: &str) {
        let older: Vec<ConnectionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.agent == agent)
            .map(|(&id, _)| id)
            .collect();
        for id in older {
            self.sessions.remove(&id);
            self.transmits
                .push_back((id, Transmit::Close("another connection uses this identity")));
        }
        let session = Session {
            agent: agent.to_owned(),
            greeted: false,
            software: String::new(),
            plan_version: 0,
            statements: VecDeque::new(),
        };
        self.sessions.insert(connection, session);
    }

    /// A connection ended.
    pub fn handle_disconnected(&mut self, connection: ConnectionId) {
        self.sessions.remove(&connection);
    }

    /// A frame came. On a fault the caller closes the connection.
    pub fn handle_frame(
        &mut self,
        now: Now,
        connection: ConnectionId,
        frame: Bytes,
        source: &impl PaneSource,
    ) -> Result<(), Fault> {
        let Some(session) = self.sessions.get(&connection) else {
            return Ok(());
        };
        let agent = session.agent.clone();
        self.frontier.hear(&agent, now);
        self.pending.heard.insert(agent.clone());
        if Batch::is_batch(&frame) {
            if !session.greeted {
                return Err(Fault::Unexpected("a batch before the hello"));
            }
            return self.handle_batch(connection, agent, frame, source);
        }
        match Message::parse(&frame).map_err(Fault::Wire)? {
            Message::Hello(hello) => self.handle_hello(now, connection, &hello),
            Message::Heartbeat(heartbeat) => {
                self.handle_heartbeat(connection, &agent, heartbeat);
                Ok(())
            }
            _ => Err(Fault::Unexpected("a message that only an aggregator sends")),
        }
    }

    fn handle_hello(&mut self, now: Now, connection: ConnectionId, hello: &Hello) -> Result<(), Fault> {
        let Some(session) = self.sessions.get_mut(&connection) else {
            return Ok(());
        };
        if hello.agent != session.agent {
            return Err(Fault::Unexpected("the hello's name is not the certificate's"));
        }
        if self.frontier.len() > AGENTS_MAX || self.ledger.epochs(&session.agent) > EPOCHS_MAX {
            return Err(Fault::Unexpected(
                "too many agents or epochs are remembered; retire some",
            ));
        }
        session.greeted = true;
        session.software.clone_from(&hello.software);
        session.plan_version = self.catalog.version;
        session.statements.clear();
        // What is claimed but not durable yet must not be forgotten by the agent: that is acknowledged later.
        let settled = self.in_flight.is_none() && self.pending.claimed.is_empty();
        let committed = hello
            .held
            .iter()
            .filter(|_| settled)
            .map(|held| EpochRange {
                epoch: held.epoch,
                ranges: self
                    .ledger
                    .set(&session.agent, held.epoch)
                    .map_or(Vec::new(), |set| {
                        held.ranges.iter().flat_map(|&range| set.within(range)).collect()
                    }),
            })
            .collect();
        let plan = (hello.plan_version != self.catalog.version).then(|| self.catalog.agent_plan());
        let welcome = Welcome {
            plan,
            committed,
            server_time: now.wall,
            heartbeat: self.settings.heartbeat,
        };
        self.transmits
            .push_back((connection, Transmit::Message(Message::Welcome(welcome))));
        Ok(())
    }

    fn handle_heartbeat(&mut self, connection: ConnectionId, agent: &str, heartbeat: Heartbeat) {
        for sample in &heartbeat.counters {
            // A newer agent may count what this aggregator has no name for.
            if let Some(counter) = Counter::from_code(sample.counter) {
                let key = (agent.to_owned(), heartbeat.epoch, sample.slice, counter);
                self.pending.counters.insert(key, sample.value);
            }
        }
        let Some(session) = self.sessions.get_mut(&connection) else {
            return;
        };
        if session.statements.len() == STATEMENTS_MAX {
            // The newest says more than any before it; the oldest may be the first to hold. One between goes.
            session.statements.remove(STATEMENTS_MAX / 2);
        }
        session.statements.push_back(Statement {
            epoch: heartbeat.epoch,
            seqs: SeqRange {
                first: heartbeat.oldest,
                last: heartbeat.seq,
            },
            watermarks: heartbeat.watermarks,
        });
        self.pending.urgent = true;
    }

    fn handle_batch(
        &mut self,
        connection: ConnectionId,
        agent: String,
        frame: Bytes,
        source: &impl PaneSource,
    ) -> Result<(), Fault> {
        let name = Batch::claimed_name(&frame).ok_or(Fault::Wire(WireFault::Truncated))?;
        let batch = match Batch::parse(&frame) {
            Ok(batch) => batch,
            Err(fault) => {
                self.refuse(connection, &agent, name, reason_of(fault));
                return Ok(());
            }
        };
        let (epoch, seq) = (batch.epoch, batch.seq);
        self.pending.urgent = true;
        if self
            .ledger
            .set(&agent, epoch)
            .is_some_and(|set| set.contains(seq))
        {
            // Merged before. If that commit is still under way, so will be this acknowledgement's.
            self.pending
                .acks
                .entry((connection, epoch))
                .or_default()
                .push(seq);
            return Ok(());
        }
        if let Err(reason) = self.check(&agent, &batch) {
            self.refuse(connection, &agent, (epoch, seq), reason);
            return Ok(());
        }
        // Loading may fail, and must do so before anything is merged.
        for view in batch.sections() {
            let view = view.map_err(Fault::Wire)?;
            load(&mut self.panes, source, view.slice, view.pane)?;
        }
        for (nth, view) in batch.sections().enumerate() {
            let view = view.map_err(Fault::Wire)?;
            let keys = self
                .panes
                .merge_checked(&agent, &view, nth)
                .map_err(Fault::Wire)?;
            for (query, windows) in self.catalog.queries.iter().zip(&mut self.windows) {
                if query.reader(view.slice).is_some() {
                    windows.touch(query.query.window, view.slice, view.pane, keys);
                }
            }
        }
        self.ledger.set_mut(&agent, epoch).insert(seq);
        self.pending.claimed.insert((agent.clone(), epoch));
        self.pending
            .acks
            .entry((connection, epoch))
            .or_default()
            .push(seq);
        self.pending.bytes += frame.len();
        self.pending.batches.push(AppendedBatch {
            agent,
            epoch,
            seq,
            frame,
        });
        Ok(())
    }

    /// Checks a whole batch before any of it is merged.
    fn check(&mut self, agent: &str, batch: &Batch<'_>) -> Result<(), RejectReason> {
        self.panes.start_batch();
        for view in batch.sections() {
            let view = view.map_err(reason_of)?;
            let slice = self
                .catalog
                .slices
                .get(&view.slice)
                .ok_or(RejectReason::UnknownSlice)?;
            self.panes
                .check(agent, &view, slice)
                .map_err(|refused| match refused {
                    Refused::Wire(fault) => reason_of(fault),
                    Refused::OtherSlice => RejectReason::UnknownSlice,
                    Refused::BadPane => RejectReason::BadPane,
                })?;
        }
        Ok(())
    }

    /// Tells the agent that a batch will never be taken. Its seq counts as settled, so that watermarks need not wait
    /// for it.
    fn refuse(
        &mut self,
        connection: ConnectionId,
        agent: &str,
        (epoch, seq): (u64, u64),
        reason: RejectReason,
    ) {
        if self.ledger.set_mut(agent, epoch).insert(seq) {
            self.pending.claimed.insert((agent.to_owned(), epoch));
            self.pending.urgent = true;
        }
        let refusal = Refusal { epoch, seq, reason };
        self.transmits
            .push_back((connection, Transmit::Message(Message::Reject(refusal))));
    }

    /// Another plan is in force. Windows of queries that go on keep their horizon.
    pub fn handle_catalog(&mut self, catalog: Catalog) {
        let mut before: BTreeMap<String, QueryWindows> = self
            .catalog
            .queries
            .iter()
            .map(|query| query.query.name.clone())
            .zip(std::mem::take(&mut self.windows))
            .collect();
        self.windows = catalog
            .queries
            .iter()
            .map(|query| before.remove(&query.query.name).unwrap_or_default())
            .collect();
        self.catalog = catalog;
        for (&connection, session) in self.sessions.iter_mut().filter(|(_, session)| session.greeted) {
            session.plan_version = self.catalog.version;
            let plan = Message::Plan(self.catalog.agent_plan());
            self.transmits.push_back((connection, Transmit::Message(plan)));
        }
        self.pending.urgent = true;
    }

    /// A commit is durable: its batches are acknowledged now.
    pub fn handle_committed(&mut self, id: CommitId) {
        let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.id == id) else {
            return;
        };
        for ((connection, epoch), seqs) in in_flight.acks {
            if self.sessions.contains_key(&connection) {
                let ack = Message::Ack(EpochRange {
                    epoch,
                    ranges: ranges_of(seqs),
                });
                self.transmits.push_back((connection, Transmit::Message(ack)));
            }
        }
    }

    /// A commit failed and must be tried again, unchanged; nothing is acknowledged until it succeeds.
    pub fn handle_commit_failed(&mut self, now: Now, commit: Commit) {
        if let Some(in_flight) = self
            .in_flight
            .as_mut()
            .filter(|in_flight| in_flight.id == commit.id)
        {
            in_flight.retry_at = Some(now.monotonic + COMMIT_RETRY);
            in_flight.commit = Some(commit);
        }
    }

    // What it wants.

    /// The next thing to send.
    pub fn poll_transmit(&mut self) -> Option<(ConnectionId, Transmit)> {
        self.transmits.pop_front()
    }

    /// Whether frames may be handed in; when not, so much waits to be made durable that they had better wait outside.
    pub fn has_room(&self) -> bool {
        self.pending.bytes < COMMIT_BYTES_MAX
    }

    /// The next commit to make durable, if there is one and none is under way.
    pub fn poll_commit(&mut self, now: Now, source: &impl PaneSource) -> Result<Option<Commit>, SourceFault> {
        if let Some(in_flight) = &mut self.in_flight {
            let due = in_flight.retry_at.is_some_and(|at| at <= now.monotonic);
            return Ok(if due { in_flight.commit.take() } else { None });
        }
        let lazy = self.next_lazy <= now.monotonic;
        let deadline = self.window_deadline().is_some_and(|at| at <= now.monotonic);
        let checkpoint = self.next_checkpoint <= now.monotonic || self.journal_bytes >= JOURNAL_BYTES_MAX;
        if !(self.pending.urgent || lazy || deadline || checkpoint) {
            return Ok(None);
        }
        if lazy {
            self.next_lazy = now.monotonic + LAZY_COMMIT_INTERVAL;
        }
        self.load_touched(source)?;
        let commit = self.build(now, checkpoint);
        if commit.is_empty() && self.pending.acks.is_empty() {
            return Ok(None);
        }
        let acks = std::mem::take(&mut self.pending.acks);
        self.in_flight = Some(InFlight {
            commit: None,
            retry_at: None,
            id: commit.id,
            acks,
        });
        self.next_commit += 1;
        Ok(Some(commit))
    }

    /// When [`Aggregator::poll_commit`] next has something to look at.
    pub fn poll_timeout(&self) -> Instant {
        if let Some(in_flight) = &self.in_flight {
            // The end of the commit wakes the loop.
            return in_flight
                .retry_at
                .unwrap_or(self.next_lazy + LAZY_COMMIT_INTERVAL);
        }
        let next = self.next_lazy.min(self.next_checkpoint);
        self.window_deadline().map_or(next, |deadline| deadline.min(next))
    }

    fn window_deadline(&self) -> Option<Instant> {
        self.catalog
            .queries
            .iter()
            .zip(&self.windows)
            .filter_map(|(query, windows)| windows.deadline(query))
            .min()
    }

    /// Revising a window needs all its panes, of which some may have left memory.
    fn load_touched(&mut self, source: &impl PaneSource) -> Result<(), SourceFault> {
        for (query, windows) in self.catalog.queries.iter().zip(&self.windows) {
            let size = query.query.window.size;
            for start in windows.touched_windows() {
                for reader in &query.readers {
                    let Some(slice) = self.catalog.slices.get(&reader.slice) else {
                        continue;
                    };
                    let mut pane = start;
                    while pane < start.plus(size) {
                        load(&mut self.panes, source, reader.slice, pane)?;
                        pane = pane.plus(slice.pane);
                    }
                }
            }
        }
        Ok(())
    }

    fn build(&mut self, now: Now, checkpoint: bool) -> Commit {
        let mut commit = Commit {
            id: self.next_commit,
            ..Commit::default()
        };
        commit.watermarks = self.settle_statements();
        for (index, (query, windows)) in self.catalog.queries.iter().zip(&mut self.windows).enumerate() {
            commit
                .results
                .extend(windows.advance(index, query, &self.panes, &self.frontier, now));
        }
        commit.batches = std::mem::take(&mut self.pending.batches);
        self.journal_bytes += std::mem::take(&mut self.pending.bytes);
        for (agent, epoch) in std::mem::take(&mut self.pending.claimed) {
            let ranges = self
                .ledger
                .set(&agent, epoch)
                .map_or(Vec::new(), |set| set.ranges().collect());
            commit.ledger.push((agent, epoch, ranges));
        }
        commit.agents = self.heard_agents();
        let counters = std::mem::take(&mut self.pending.counters);
        commit.counters = counters
            .into_iter()
            .map(|((agent, epoch, slice, counter), value)| (agent, epoch, slice, counter, value))
            .collect();
        self.pending.urgent = false;
        if checkpoint {
            self.next_checkpoint = now.monotonic + CHECKPOINT_INTERVAL;
            commit.checkpoint = self.checkpoint(now);
        }
        commit
    }

    /// Applies the statements that hold now; the newest that does says all that those before it say.
    fn settle_statements(&mut self) -> Vec<(String, SliceId, Timestamp)> {
        let mut advanced = Vec::new();
        let Self {
            sessions,
            ledger,
            frontier,
            ..
        } = self;
        for session in sessions.values_mut() {
            let agent = &session.agent;
            let holds = |statement: &Statement| {
                let SeqRange { first, last } = statement.seqs;
                first > last
                    || ledger
                        .set(agent, statement.epoch)
                        .is_some_and(|set| set.covers(first, last))
            };
            let Some(newest) = session.statements.iter().rposition(holds) else {
                continue;
            };
            let settled = session.statements.drain(..=newest).next_back();
            for (slice, watermark) in settled.into_iter().flat_map(|statement| statement.watermarks) {
                if frontier.advance(agent, slice, watermark) {
                    advanced.push((agent.clone(), slice, watermark));
                }
            }
        }
        advanced
    }

    fn heard_agents(&mut self) -> Vec<AgentRow> {
        let heard = std::mem::take(&mut self.pending.heard);
        let row = |name: String| {
            let session = self.sessions.values().find(|session| session.agent == name);
            Some(AgentRow {
                heard: self.frontier.standing(&name)?.heard,
                plan_version: session.map_or(0, |session| session.plan_version),
                software: session.map_or(String::new(), |session| session.software.clone()),
                name,
            })
        };
        heard.into_iter().filter_map(row).collect()
    }

    /// Dirty panes as columns; panes that no window needs any more leave memory.
    fn checkpoint(&mut self, now: Now) -> Option<Checkpoint> {
        if self.journal_bytes == 0 {
            return None;
        }
        let mut checkpoint = Checkpoint::default();
        self.panes
            .take_dirty(&self.catalog.slices, |slice, pane, chunk, columns| {
                checkpoint.chunks.push((slice, pane, chunk, columns));
            });
        self.journal_bytes = 0;
        checkpoint.expired = self.expired(now);
        let needed: Vec<(SliceId, Timestamp)> = self
            .catalog
            .slices
            .keys()
            .map(|&slice| (slice, self.needed_from(slice)))
            .collect();
        for (slice, from) in needed {
            self.panes.forget(slice, from);
        }
        Some(checkpoint)
    }

    /// What retention says may go. Panes go with the last query that reads them; without retention they stay.
    fn expired(&self, now: Now) -> Expired {
        let queries = self.catalog.queries.iter().enumerate();
        let rows = queries
            .filter_map(|(index, query)| Some((index, now.wall.minus(query.query.retention?))))
            .collect();
        let panes = self.catalog.slices.keys().filter_map(|&slice| {
            let mut readers = self
                .catalog
                .queries
                .iter()
                .filter(|query| query.reader(slice).is_some())
                .peekable();
            readers.peek()?;
            let longest = readers.map(|query| Some(query.query.retention?.plus(query.query.window.size)));
            let longest = longest.collect::<Option<Vec<Span>>>()?.into_iter().max()?;
            Some((slice, now.wall.minus(longest)))
        });
        Expired {
            rows,
            panes: panes.collect(),
        }
    }

    // How it is.

    /// The running plan.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The panes in memory.
    pub fn panes(&self) -> &Panes {
        &self.panes
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.sessions.len()
    }
}

/// Brings a pane into memory that may have been stored before.
fn load(
    panes: &mut Panes,
    source: &impl PaneSource,
    slice: SliceId,
    pane: Timestamp,
) -> Result<(), SourceFault> {
    if panes.holds(slice, pane) {
        return Ok(());
    }
    for chunk in source.chunks(slice, pane)? {
        panes
            .restore(&chunk)
            .map_err(|fault| SourceFault(fault.to_string()))?;
    }
    Ok(())
}

fn reason_of(fault: WireFault) -> RejectReason {
    match fault {
        WireFault::Checksum => RejectReason::Checksum,
        WireFault::Version(_) => RejectReason::Version,
        _ => RejectReason::Malformed,
    }
}

fn ranges_of(mut seqs: Vec<u64>) -> Vec<SeqRange> {
    seqs.sort_unstable();
    seqs.dedup();
    let mut ranges: Vec<SeqRange> = Vec::new();
    for seq in seqs {
        match ranges.last_mut() {
            Some(last) if last.last + 1 == seq => last.last = seq,
            _ => ranges.push(SeqRange {
                first: seq,
                last: seq,
            }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests;
