//! The aggregator: sessions, committed, merge, agents and windows composed into one machine.
//!
//! The caller hands in what happened (`handle_*`, with `now`), drains messages ([`Aggregator::poll_transmit`]) and
//! commits ([`Aggregator::poll_commit`]), makes each commit durable, says so ([`Aggregator::handle_committed`]), and
//! sleeps until [`Aggregator::poll_timeout`]. One commit is under way at a time; what comes meanwhile gathers for the
//! next, and that is where the speed comes from.

mod checkpoint;

mod foreign;

mod intake;

mod pending;

mod restart;

mod retention;

mod sessions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use catchment_common::limits::RANGES_MAX;
use catchment_common::time::{Instant, Now, Span, Timestamp};
use catchment_common::wire::lineage::DatabaseId;
use catchment_common::wire::{self, EpochRange, Loss, Message, SeqRange, WireFault};

use self::pending::{InFlight, Pending, ranges_of};
use self::retention::Present;
use self::sessions::Session;
use crate::agents::Agents;
use crate::catalog::{Catalog, RunningQuery};
use crate::commit::{Commit, CommitId, Contribution, PaneSource, SourceFault};
use crate::committed::{Committed, NoRoom};
use crate::limits::{
    ACKS_MAX, AGENTS_MAX, CHECKPOINT_INTERVAL, COMMIT_BYTES_MAX, COMMIT_RETRY, JOURNAL_BYTES_MAX,
    LAZY_COMMIT_INTERVAL, LOAD_PIECES, REVISED_PIECE_REST_NS, REVISED_PIECES_FREE, UNREVISED_MAX,
};
use crate::lineages::Lineages;
use crate::merge::Panes;
use crate::window::{Budget, Loader, QueryWindows};

/// Names a connection.
pub type ConnectionId = u64;

/// What the configuration decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// An agent that was not heard for so long is no longer expected.
    pub lease: Span,
    /// How often agents are asked to send heartbeats.
    pub heartbeat: Span,
    /// Rows of windows that have become due for one commit, above 0: [`crate::limits::DUE_ROWS_MAX`], or less in tests.
    pub due_rows: usize,
    /// Bytes of panes that stay in memory: what is beyond it is loaded when a window needs it.
    pub memory: usize,
}

/// The machine.
#[derive(Debug)]
pub struct Aggregator {
    settings: Settings,
    catalog: Catalog,
    committed: Committed,
    panes: Panes,
    agents: Agents,
    windows: Vec<QueryWindows>,
    /// The query whose windows are shown first.
    first_query: usize,
    /// The query whose windows are revised first.
    first_revised: usize,
    sessions: BTreeMap<ConnectionId, Session>,
    /// Epochs that have greeted, for each agent, the newest first.
    epochs: BTreeMap<String, VecDeque<u64>>,
    /// Agents that the store wants forgotten and that are: with the next commit it wants it no longer.
    forgotten: BTreeSet<String>,
    lineages: Lineages,
    /// Which database this is.
    database: DatabaseId,
    pending: Pending,
    in_flight: Option<InFlight>,
    next_commit: CommitId,
    /// Bytes of batches appended since the last checkpoint.
    journal_bytes: usize,
    next_checkpoint: Instant,
    next_lazy: Instant,
    /// What retention takes for the present.
    present: Present,
    /// A pane that a commit needs could not be read: wait until then.
    hold_until: Option<Instant>,
    /// When windows with late data are next revised.
    revise_at: Instant,
    /// Panes brought into memory for them by the commit that is being made.
    loaded: usize,
    transmits: VecDeque<(ConnectionId, Transmit)>,
}

/// What goes out on a connection.
#[derive(Clone, PartialEq, Debug)]
pub enum Transmit {
    /// This message.
    Message(Message),
    /// Nothing more: close it, for this reason.
    Close(&'static str),
    /// Close it: another agent of the same name is alive on the other connection.
    Conflict {
        /// The connection that stays.
        with: ConnectionId,
    },
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
    /// No more can be remembered of this agent.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// No more agents can be remembered.
    #[error("{AGENTS_MAX} agents are remembered already, and this one is not among them")]
    Agents,
}

impl Aggregator {
    /// A machine of a database with nothing stored yet. Restore it before anything is handled.
    pub fn new(settings: Settings, database: DatabaseId, catalog: Catalog, now: Now) -> Self {
        let windows = catalog.queries.iter().map(QueryWindows::new).collect();
        Self {
            settings,
            catalog,
            committed: Committed::default(),
            panes: Panes::default(),
            agents: Agents::new(settings.lease),
            windows,
            first_query: 0,
            first_revised: 0,
            sessions: BTreeMap::new(),
            epochs: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            lineages: Lineages::default(),
            database,
            pending: Pending::default(),
            in_flight: None,
            next_commit: 1,
            journal_bytes: 0,
            next_checkpoint: now.monotonic + CHECKPOINT_INTERVAL,
            next_lazy: now.monotonic + LAZY_COMMIT_INTERVAL,
            present: Present::new(now, None),
            hold_until: None,
            revise_at: now.monotonic,
            loaded: 0,
            transmits: VecDeque::new(),
        }
    }

    // What happened.

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
        if self.agents.standing(&agent).is_none() && self.agents.len() >= AGENTS_MAX {
            return Err(Fault::Agents);
        }
        self.agents.hear(&agent, now);
        self.pending.heard.insert(agent.clone());
        if wire::named(&frame) {
            if session.epoch.is_none() {
                return Err(Fault::Unexpected("a batch before the hello"));
            }
            return if Loss::is_loss(&frame) {
                self.handle_loss(connection, agent, &frame)
            } else {
                self.handle_batch(now, connection, agent, frame, source)
            };
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

    /// Another plan is in force. Windows of queries that go on keep their horizon. A new one on a pipeline that was
    /// there before begins where all its panes are in memory: earlier ones may have left it, and windows with holes
    /// must not be shown.
    pub fn handle_catalog(&mut self, now: Now, catalog: Catalog) {
        let begin = |query: &RunningQuery| {
            let readers = query.readers.iter();
            let known = readers.filter(|reader| self.catalog.pipelines.contains_key(&reader.pipeline));
            let whole_from = known.map(|reader| match self.needed_from(reader.pipeline) {
                // Nobody read it, so any pane may have left: those to come will be whole.
                Timestamp::MAX => now.wall.plus(query.query.max_ahead),
                from => from,
            });
            whole_from.max()
        };
        let begins: Vec<Option<Timestamp>> = catalog.queries.iter().map(begin).collect();
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
            .zip(begins)
            .map(|(query, begin)| {
                let held = before.remove(&query.query.name);
                held.unwrap_or_else(|| QueryWindows::starting(query, begin))
            })
            .collect();
        self.catalog = catalog;
        for (&connection, session) in self
            .sessions
            .iter()
            .filter(|(_, session)| session.epoch.is_some())
        {
            self.agents.about_mut(&session.agent).plan_version = self.catalog.version;
            let plan = Message::Plan(self.catalog.plan_for(session.version));
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
            if !self.sessions.contains_key(&connection) {
                continue;
            }
            for ranges in ranges_of(seqs).chunks(RANGES_MAX) {
                let ack = Message::Ack(EpochRange {
                    epoch,
                    ranges: ranges.to_vec(),
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

    /// Whether frames may be handed in; when not, more waits to be made durable than fits, and they must wait outside.
    pub fn has_room(&self) -> bool {
        let waiting: usize = self.windows.iter().map(QueryWindows::waiting).sum();
        self.pending.bytes + self.pending.bytes_refused < COMMIT_BYTES_MAX
            && self.pending.ack_count < ACKS_MAX
            && waiting < UNREVISED_MAX
    }

    /// The next commit to make durable, if there is one and none is under way. When a pane that it needs cannot be
    /// read, nothing is lost: it is tried again after [`COMMIT_RETRY`].
    pub fn poll_commit(&mut self, now: Now, source: &impl PaneSource) -> Result<Option<Commit>, SourceFault> {
        if let Some(in_flight) = &mut self.in_flight {
            let due = in_flight.retry_at.is_some_and(|at| at <= now.monotonic);
            return Ok(if due { in_flight.commit.take() } else { None });
        }
        if self.hold_until.is_some_and(|until| until > now.monotonic) {
            return Ok(None);
        }
        let lazy = self.next_lazy <= now.monotonic;
        let deadline = self.window_deadline().is_some_and(|at| at <= now.monotonic);
        let checkpoint = self.next_checkpoint <= now.monotonic
            || self.journal_bytes >= JOURNAL_BYTES_MAX.min(self.settings.memory / 8);
        let revise = self.is_to_revise() && self.revise_at <= now.monotonic;
        if !(self.pending.urgent || lazy || deadline || checkpoint || revise) {
            return Ok(None);
        }
        if lazy {
            self.next_lazy = now.monotonic + LAZY_COMMIT_INTERVAL;
        }
        self.hold_until = Some(now.monotonic + COMMIT_RETRY);
        self.settle_statements(now);
        self.prepare(now, source)?;
        self.hold_until = None;
        let commit = self.build(now, checkpoint);
        if commit.is_empty() && self.pending.acks.is_empty() {
            return Ok(None);
        }
        self.pending.ack_count = 0;
        self.pending.bytes_refused = 0;
        self.in_flight = Some(InFlight {
            commit: None,
            retry_at: None,
            id: commit.id,
            acks: std::mem::take(&mut self.pending.acks),
            claimed: std::mem::take(&mut self.pending.claimed),
            returned: std::mem::take(&mut self.pending.returned),
        });
        self.next_commit += 1;
        Ok(Some(commit))
    }

    /// When [`Aggregator::poll_commit`] next has something to look at.
    pub fn poll_timeout(&self) -> Instant {
        if let Some(until) = self.hold_until {
            return until;
        }
        if let Some(in_flight) = &self.in_flight {
            // The end of the commit wakes the loop.
            return in_flight
                .retry_at
                .unwrap_or(self.next_lazy + LAZY_COMMIT_INTERVAL);
        }
        let mut next = self.next_lazy.min(self.next_checkpoint);
        if self.is_to_revise() {
            next = next.min(self.revise_at);
        }
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

    /// Brings all panes into memory that results need.
    fn prepare(&mut self, now: Now, source: &impl PaneSource) -> Result<(), SourceFault> {
        let Self {
            catalog,
            windows,
            panes,
            agents,
            settings,
            revise_at,
            first_revised,
            ..
        } = self;
        let mut loader = Loader::new(panes, source, &catalog.pipelines);
        let mut budget = if now.monotonic < *revise_at {
            Budget::NOTHING
        } else {
            Budget::of(settings.due_rows)
        };
        let count = windows.len();
        let first = (*first_revised).min(count);
        for index in (first..count).chain(0..first) {
            let had_room = !budget.is_used_up();
            windows[index].prepare(&catalog.queries[index], agents, now, &mut loader, &mut budget)?;
            if had_room && budget.is_used_up() {
                *first_revised = index + 1;
            }
        }
        self.loaded = loader.loaded;
        Ok(())
    }

    fn build(&mut self, now: Now, checkpoint: bool) -> Commit {
        let mut commit = Commit {
            id: self.next_commit,
            at: now.wall,
            queries: Arc::clone(&self.catalog.asked),
            ..Commit::default()
        };
        commit.watermarks = std::mem::take(&mut self.pending.watermarks);
        commit.set_back = std::mem::take(&mut self.pending.set_back).into_iter().collect();
        let is_behind = self.advance_windows(now, &mut commit);
        commit.batches = std::mem::take(&mut self.pending.batches);
        self.journal_bytes += std::mem::take(&mut self.pending.bytes);
        commit.forgotten = std::mem::take(&mut self.pending.forgotten);
        for ((agent, epoch), seqs) in &self.pending.claimed {
            let set = self.committed.set(agent, *epoch);
            let ranges = seqs.iter().filter_map(|&seq| set?.range_of(seq));
            let ranges: BTreeMap<u64, SeqRange> = ranges.map(|range| (range.first, range)).collect();
            commit
                .committed
                .push((agent.clone(), *epoch, ranges.into_values().collect()));
        }
        commit.losses = std::mem::take(&mut self.pending.losses);
        let contributions = std::mem::take(&mut self.pending.contributions).into_iter();
        commit.contributions = contributions
            .map(|((pipeline, pane, agent), (deltas, late))| Contribution {
                pipeline,
                pane,
                agent,
                deltas,
                late,
            })
            .collect();
        commit.set_aside = std::mem::take(&mut self.pending.set_aside);
        commit.set_aside.extend(self.panes.take_set_aside());
        commit.agents = self.heard_agents();
        commit.lineages = std::mem::take(&mut self.pending.lineages);
        let counters = std::mem::take(&mut self.pending.counters);
        commit.counters = counters
            .into_iter()
            .map(|((agent, era, pipeline, counter), value)| (agent, era, pipeline, counter, value))
            .collect();
        self.pending.urgent = is_behind;
        if checkpoint {
            self.next_checkpoint = now.monotonic + CHECKPOINT_INTERVAL;
            commit.checkpoint = self.checkpoint(now);
        }
        commit
    }

    /// Brings the results of all queries up to date; returns whether windows are left for the next commit. That begins
    /// with the query after the one that used up the room, so that none waits for another.
    fn advance_windows(&mut self, now: Now, commit: &mut Commit) -> bool {
        let mut room = self.settings.due_rows;
        let count = self.windows.len();
        let first = self.first_query.min(count);
        let mut is_behind = false;
        for index in (first..count).chain(0..first) {
            let (query, windows) = (&self.catalog.queries[index], &mut self.windows[index]);
            let had_room = room > 0;
            let results = windows.advance(index, query, &self.panes, &self.agents, now, &mut room);
            commit.results.extend(results);
            is_behind |= windows.is_behind();
            if had_room && room == 0 {
                self.first_query = index + 1;
            }
        }
        let merged: usize = self.windows.iter().map(QueryWindows::merged).sum();
        let pieces = merged + self.loaded * LOAD_PIECES;
        if pieces > REVISED_PIECES_FREE {
            let rest = pieces as u64 * REVISED_PIECE_REST_NS / 1_000;
            self.revise_at = now.monotonic + Span::from_micros(rest.cast_signed());
        }
        is_behind
    }

    /// Whether windows with late data wait to be revised.
    pub fn is_to_revise(&self) -> bool {
        self.windows.iter().any(QueryWindows::is_to_revise)
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

#[cfg(test)]
mod tests;
