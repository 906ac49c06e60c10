//! Sessions: who is connected, what they are told, and what they say about themselves.
//!
//! **One identity, two agents.** A certificate that was copied to a second gateway shows itself like this: an epoch
//! greets that had greeted before, although another one has greeted since. A restarted agent never does that, for each
//! start draws its epoch anew. Then the one that is connected stays, because it started last, and the other is told
//! why it cannot come in; so they do not throw each other out in turn. Epochs differ, so whatever either has delivered
//! or still holds is neither lost nor doubled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use catchment_common::limits::{HELD_EPOCHS_MAX, NUMBERS_MAX, RANGES_MAX};
use catchment_common::metrics::Counter;
use catchment_common::plan::PipelineId;
use catchment_common::time::{Now, Timestamp};
use catchment_common::wire::lineage::{DatabaseId, Forked};
use catchment_common::wire::{
    EpochRange, Heartbeat, HeldEpoch, Hello, Message, SeqRange, VERSION, Welcome, v1,
};

use super::{Aggregator, ConnectionId, Fault, Transmit};
use crate::commit::{AgentRow, Forgotten};
use crate::committed::SeqSet;
use crate::limits::WATERMARK_AHEAD_MAX;
use crate::limits::{CLAIM_MAX, EPOCHS_GREETED_MAX, STATEMENTS_MAX};

/// Why the older connection of a reconnecting agent is closed.
pub(super) const REPLACED: &str =
    "another connection uses this identity: a newer one of this agent has taken over";

#[derive(Debug)]
pub(super) struct Session {
    pub(super) agent: String,
    /// The version of the wire that it speaks.
    pub(super) version: u8,
    /// The epoch of its hello, once it has greeted.
    pub(super) epoch: Option<u64>,
    /// The epochs that it may send batches of: those that its hello named. `None` if it could not name all.
    pub(super) held: Option<BTreeSet<u64>>,
    pub(super) statements: VecDeque<Statement>,
    /// The databases that its epochs belong to, where they have names.
    pub(super) origins: BTreeMap<u64, DatabaseId>,
}

/// Watermarks that hold once the seqs are committed.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) epoch: u64,
    pub(super) seqs: SeqRange,
    pub(super) watermarks: Vec<(PipelineId, Timestamp)>,
}

impl Aggregator {
    /// A connection was made by an agent whose certificate names it, and that speaks this version of the wire. It counts
    /// for nothing until its hello.
    pub fn handle_connected(&mut self, connection: ConnectionId, agent: &str, version: u8) {
        let session = Session {
            agent: agent.to_owned(),
            version,
            epoch: None,
            held: None,
            statements: VecDeque::new(),
            origins: BTreeMap::new(),
        };
        self.sessions.insert(connection, session);
    }

    /// A connection ended.
    pub fn handle_disconnected(&mut self, connection: ConnectionId) {
        self.sessions.remove(&connection);
    }

    pub(super) fn handle_hello(
        &mut self,
        now: Now,
        connection: ConnectionId,
        hello: &Hello,
    ) -> Result<(), Fault> {
        let Some(session) = self.sessions.get(&connection) else {
            return Ok(());
        };
        let agent = session.agent.clone();
        if hello.agent != agent {
            return Err(Fault::Unexpected("the hello's name is not the certificate's"));
        }
        if let Some(other) = self.conflict(connection, &agent, hello.epoch) {
            self.sessions.remove(&connection);
            self.agents.about_mut(&agent).conflicts += 1;
            self.transmits
                .push_back((connection, Transmit::Conflict { with: other }));
            return Ok(());
        }
        if let Some(forked) = self.fork(&agent, hello) {
            self.agents.about_mut(&agent).forks += 1;
            if let Some(session) = self.sessions.get_mut(&connection) {
                session.epoch = None;
            }
            self.transmits
                .push_back((connection, Transmit::Message(Message::Forked(forked))));
            return Ok(());
        }
        self.replace_older(connection, &agent);
        self.remember_epoch(&agent, hello);
        let version = self.greet(connection, hello);
        let about = self.agents.about_mut(&agent);
        about.software.clone_from(&hello.software);
        about.plan_version = self.catalog.version;
        self.agents.set_retired(&agent, false);
        self.pending.returned.insert(agent.clone());
        let welcome = self.welcome(now, &agent, hello, version);
        self.transmits
            .push_back((connection, Transmit::Message(Message::Welcome(welcome))));
        Ok(())
    }

    /// What shows that the state of an agent is an older copy, if it is.
    fn fork(&self, agent: &str, hello: &Hello) -> Option<Forked> {
        let lineage = hello.lineage.as_ref()?;
        let last_seq = |epoch| self.committed.set(agent, epoch).and_then(SeqSet::last);
        self.lineages.check(agent, hello.epoch, lineage, last_seq).err()
    }

    /// Notes in the session what the hello says; returns the version that it speaks.
    fn greet(&mut self, connection: ConnectionId, hello: &Hello) -> u8 {
        let Some(session) = self.sessions.get_mut(&connection) else {
            return VERSION;
        };
        session.epoch = Some(hello.epoch);
        let named = hello
            .held
            .iter()
            .map(|held| held.batches.epoch)
            .chain([hello.epoch]);
        session.held = (hello.held.len() < HELD_EPOCHS_MAX).then(|| named.collect());
        session.statements.clear();
        let held = { hello.held.iter() }.map(|held| (held.batches.epoch, held.database));
        let all = held.chain([(hello.epoch, hello.database)]);
        session.origins = all
            .filter_map(|(epoch, database)| Some((epoch, database?)))
            .collect();
        session.version
    }

    fn welcome(&self, now: Now, agent: &str, hello: &Hello, version: u8) -> Welcome {
        let plan = self.catalog.plan_for(version);
        let of_plan = if version == v1::VERSION {
            plan.version
        } else {
            plan.fingerprint()
        };
        // Its plan has numbers in it, if it has one: it was given before databases had names.
        let has_numbers = version != v1::VERSION && hello.database.is_none() && hello.plan != 0;
        let numbers = self.catalog.numbers.iter().take(NUMBERS_MAX);
        Welcome {
            database: Some(self.database),
            numbers: { numbers.filter(|_| has_numbers) }
                .map(|(&number, &id)| (number, id))
                .collect(),
            plan: (hello.plan != of_plan).then_some(plan),
            committed: self.committed(agent, &hello.held),
            server_time: now.wall,
            heartbeat: self.settings.heartbeat,
        }
    }

    /// The connection of another living agent of this name that has greeted since `epoch` first did.
    fn conflict(&self, connection: ConnectionId, agent: &str, epoch: u64) -> Option<ConnectionId> {
        let known = self.epochs.get(agent)?.contains(&epoch);
        let is_other = |id: ConnectionId, session: &Session| {
            let differs = session.epoch.is_some_and(|other| other != epoch);
            id != connection && session.agent == agent && differs
        };
        let mut sessions = self.sessions.iter();
        let other = sessions.find(|&(&id, session)| is_other(id, session));
        other.map(|(&id, _)| id).filter(|_| known)
    }

    /// Closes what an agent's earlier life, or its lost link, has left open.
    fn replace_older(&mut self, connection: ConnectionId, agent: &str) {
        let older: Vec<ConnectionId> = self
            .sessions
            .iter()
            .filter(|&(&id, session)| id != connection && session.agent == agent && session.epoch.is_some())
            .map(|(&id, _)| id)
            .collect();
        for id in older {
            self.sessions.remove(&id);
            self.transmits.push_back((id, Transmit::Close(REPLACED)));
        }
    }

    /// Lets the epochs of agents be forgotten, as an operator wants, once for each time that they are named; those that
    /// a connected agent holds batches of stay.
    pub fn handle_forgotten(&mut self, agents: &BTreeSet<String>) {
        for agent in agents.difference(&self.forgotten) {
            let sessions: Vec<&Session> = self
                .sessions
                .values()
                .filter(|session| session.agent == *agent && session.epoch.is_some())
                .collect();
            let holds = |session: &&Session, epoch: u64| {
                let held = session.held.as_ref();
                held.is_none_or(|held| held.contains(&epoch))
            };
            let epochs = self.committed.forget(agent, |epoch| {
                sessions.iter().any(|session| holds(session, epoch))
            });
            self.epochs.remove(agent);
            self.pending.forgotten.push(Forgotten {
                agent: agent.clone(),
                epochs,
            });
            self.pending.urgent = true;
        }
        self.forgotten.clone_from(agents);
    }

    fn remember_epoch(&mut self, agent: &str, hello: &Hello) {
        let known = self.epochs.entry(agent.to_owned()).or_default();
        if !known.contains(&hello.epoch) {
            known.truncate(EPOCHS_GREETED_MAX - 1);
            known.push_front(hello.epoch);
        }
        let lineage = hello.lineage.as_ref();
        let newest = lineage.and_then(|lineage| self.lineages.note(agent, hello.epoch, lineage));
        if let Some(newest) = newest {
            self.pending.lineages.push((agent.to_owned(), newest));
        }
    }

    /// Which of the batches that an agent holds are durable here. What is merged and not durable yet is left out: that
    /// must not be forgotten by the agent, and is acknowledged later. So are ranges beyond what a welcome can name:
    /// those come once more, and are recognised.
    fn committed(&self, agent: &str, held: &[HeldEpoch]) -> Vec<EpochRange> {
        let mut room = RANGES_MAX;
        let mut committed = Vec::new();
        for HeldEpoch { batches: held, .. } in held {
            let (Some(set), Some(left)) = (self.committed.set(agent, held.epoch), room.checked_sub(1)) else {
                continue;
            };
            let open = self.undurable(agent, held.epoch);
            let durable = held.ranges.iter().flat_map(|&range| set.within(range));
            let ranges: Vec<SeqRange> = durable
                .flat_map(|range| without(range, &open))
                .take(left)
                .collect();
            if !ranges.is_empty() {
                room = left - ranges.len();
                committed.push(EpochRange {
                    epoch: held.epoch,
                    ranges,
                });
            }
        }
        committed
    }

    /// Seqs that are in the committed and in no durable commit.
    fn undurable(&self, agent: &str, epoch: u64) -> BTreeSet<u64> {
        let name = (agent.to_owned(), epoch);
        let in_flight = self
            .in_flight
            .iter()
            .filter_map(|flight| flight.claimed.get(&name));
        let pending = self.pending.claimed.get(&name);
        in_flight.chain(pending).flatten().copied().collect()
    }

    pub(super) fn handle_heartbeat(&mut self, connection: ConnectionId, agent: &str, heartbeat: Heartbeat) {
        for sample in &heartbeat.counters {
            // A newer agent may count what this aggregator has no name for; and nobody counts for other pipelines.
            let pipeline = match sample.pipeline {
                PipelineId::NONE => Some(PipelineId::NONE),
                id => self
                    .catalog
                    .resolve(id)
                    .filter(|id| self.catalog.pipelines.contains_key(id)),
            };
            if let (Some(counter), Some(pipeline)) = (Counter::from_code(sample.counter), pipeline) {
                let key = (agent.to_owned(), heartbeat.era, pipeline, counter);
                self.pending.counters.insert(key, sample.value.min(CLAIM_MAX));
            }
        }
        // Of pipelines that are not known here a watermark says nothing.
        let catalog = &self.catalog;
        let known = |(id, at)| {
            let id = catalog.resolve(id)?;
            catalog.pipelines.contains_key(&id).then_some((id, at))
        };
        let watermarks = heartbeat.watermarks.into_iter().filter_map(known).collect();
        let about = self.agents.about_mut(agent);
        about.backlog_batches = heartbeat.backlog_batches.min(CLAIM_MAX);
        about.backlog_bytes = heartbeat.backlog_bytes.min(CLAIM_MAX);
        about.sources = heartbeat.sources;
        about.clock_offset = heartbeat.clock.map(|clock| clock.offset);
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
            watermarks,
        });
        self.pending.urgent = true;
    }

    /// Applies the statements that hold now; the newest that does says all that those before it say.
    ///
    /// What an agent says of times to come is not believed: its clock is ahead, and were its watermark kept, windows would
    /// do without this agent for as long as it was ahead.
    pub(super) fn settle_statements(&mut self, now: Now) {
        let furthest = now.wall.plus(WATERMARK_AHEAD_MAX);
        let Self {
            sessions,
            committed,
            agents,
            pending,
            ..
        } = self;
        for session in sessions.values_mut() {
            let agent = &session.agent;
            let holds = |statement: &Statement| {
                let SeqRange { first, last } = statement.seqs;
                first > last
                    || committed
                        .set(agent, statement.epoch)
                        .is_some_and(|set| set.covers(first, last))
            };
            let Some(newest) = session.statements.iter().rposition(holds) else {
                continue;
            };
            let settled = session.statements.drain(..=newest).next_back();
            for (pipeline, watermark) in settled.into_iter().flat_map(|statement| statement.watermarks) {
                let believed = watermark.min(furthest);
                if agents.advance(agent, pipeline, believed) {
                    pending.watermarks.push((agent.clone(), pipeline, believed));
                }
            }
        }
    }

    /// Sets watermarks back that an operator wants set back, with the next commit. What the agents say from then on counts
    /// again.
    pub fn handle_set_back(&mut self, wanted: &BTreeMap<String, Timestamp>) {
        for (agent, &to) in wanted {
            if !self.pending.set_back.insert(agent.clone()) {
                continue;
            }
            for pipeline in self.agents.set_back_agent(agent, to) {
                self.pending.watermarks.push((agent.clone(), pipeline, to));
            }
            for session in self
                .sessions
                .values_mut()
                .filter(|session| session.agent == *agent)
            {
                session.statements.clear();
            }
            self.pending.urgent = true;
        }
    }

    /// The agents that the store says an operator has retired: nobody waits for them. One that has said hello since
    /// is back, and the store will say so with the next commit.
    pub fn handle_retired(&mut self, retired: &BTreeSet<String>) {
        let Self {
            agents,
            pending,
            in_flight,
            ..
        } = self;
        let is_back = |name: &str| {
            pending.returned.contains(name)
                || in_flight
                    .as_ref()
                    .is_some_and(|flight| flight.returned.contains(name))
        };
        if agents.retire(|name| retired.contains(name) && !is_back(name)) {
            pending.urgent = true;
        }
    }

    pub(super) fn heard_agents(&mut self) -> Vec<AgentRow> {
        let heard = std::mem::take(&mut self.pending.heard);
        let row = |name: String| {
            let standing = self.agents.standing(&name)?;
            let about = &standing.about;
            Some(AgentRow {
                heard: standing.heard,
                plan_version: about.plan_version,
                software: about.software.clone(),
                backlog_batches: about.backlog_batches,
                backlog_bytes: about.backlog_bytes,
                conflicts: about.conflicts,
                clock_offset: about.clock_offset,
                forks: about.forks,
                sources: about.sources.clone(),
                returned: self.pending.returned.contains(&name),
                name,
            })
        };
        heard.into_iter().filter_map(row).collect()
    }
}

/// A range less some of its numbers.
fn without(range: SeqRange, less: &BTreeSet<u64>) -> Vec<SeqRange> {
    let mut parts = Vec::new();
    let mut first = range.first;
    for &seq in less.range(range.first..=range.last) {
        if first < seq {
            parts.push(SeqRange { first, last: seq - 1 });
        }
        // A sealed seq is below the largest number.
        first = seq + 1;
    }
    if first <= range.last {
        parts.push(SeqRange {
            first,
            last: range.last,
        });
    }
    parts
}
