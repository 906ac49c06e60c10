//! What is said when a link comes up, and what follows from the answer.
//!
//! The hello says whose state this is ([`crate::ancestry`]), and waits until that is durable. Three answers are possible.
//! A welcome of the database that was linked to last: all goes on. A welcome of another database: what there is gets
//! names of the epoch that belongs to the old one, another epoch begins, and the agent greets again. Or the answer that
//! this state is an older copy ([`Message::Forked`]): what it had gathered may have been delivered already, so it is
//! dropped and reported as a loss of unknown size, and the agent greets again as a lineage of its own.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::limits::RANGES_MAX;
use catchment_common::metrics::{Counter, Reason};
use catchment_common::plan::PipelineId;
use catchment_common::time::Now;
use catchment_common::wire::lineage::{DatabaseId, Forked};
use catchment_common::wire::{
    AgentPlan, EpochRange, HeldEpoch, Hello, Message, Refusal, RejectReason, Welcome,
};

use super::{Agent, SOFTWARE};
use crate::log::batcher::Batcher;
use crate::log::disk::Disk;
use crate::log::spool::{Lane, Name};
use crate::metrics::AGENT;

/// What the caller must do, or tell the operator, after a message from the aggregator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing.
    Done,
    /// The aggregator does not want this link any more: close it.
    Drain,
    /// The aggregator will not take a batch: tell why, and how many readings it held.
    Refused(RejectReason, u64),
    /// The aggregator has another database than the one that was linked to last.
    OtherDatabase(DatabaseId),
    /// The state of this agent is an older copy of one that has gone on elsewhere.
    Forked(Forked),
}

/// A plan as it is kept beside the journal: with the database that it belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptPlan {
    /// The plan.
    pub plan: AgentPlan,
    /// Its database, if that is known.
    pub database: Option<DatabaseId>,
}

/// Where the agent and the aggregator are with each other.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    /// A hello is to be said, once what it says is durable.
    is_due: bool,
    /// It was said on this link, and whether with its lineage.
    said: Option<bool>,
    /// Hellos of this link that are not answered yet. Only the answer to the last one counts: batches go another way than
    /// hellos, and one that overtook its hello would tell of more than that says.
    unanswered: u32,
    /// Random bits that came with the link.
    fresh: u64,
    /// An aggregator has welcomed this run.
    was_welcomed: bool,
    /// The epochs of this run before the present one.
    epochs: Vec<u64>,
    /// The welcome of another database, while what belongs to the old one is given names.
    moving: Option<Box<Welcome>>,
    /// How often the ancestry has changed, and which of these changes is durable.
    changes: u64,
    durable: u64,
    /// Batches at places before this one come from before the start.
    recovered: u64,
    /// The plan is to be kept on disk again.
    keep: bool,
}

impl Greeting {
    /// After a start whose spool has what came from before it at places before `recovered`.
    pub(super) fn new(recovered: u64) -> Self {
        Self {
            changes: 1,
            recovered,
            ..Self::default()
        }
    }

    /// What a job that is made now makes durable.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// What is durable.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }
}

impl Agent {
    /// The link is up and its hello can be sent. `fresh` are random bits, drawn for this link: an epoch or lineage that
    /// begins on it must be another than that of any copy of this process.
    pub fn handle_connected(&mut self, fresh: u64) {
        self.link_bytes_noted = 0;
        self.out.spool.handle_disconnected();
        self.out.metrics.report_all();
        self.greeting.fresh = fresh;
        self.greeting.unanswered = 0;
        self.greet();
    }

    /// The link broke, or could not be made.
    pub fn handle_disconnected(&mut self, now: Now) {
        self.uplink.handle_disconnected(now);
        self.out.lane = Lane::Backlog;
        self.greeting.is_due = false;
        self.greeting.said = None;
        self.greeting.moving = None;
    }

    fn greet(&mut self) {
        self.uplink.handle_connected();
        self.out.lane = Lane::Backlog;
        self.greeting.is_due = true;
        self.greeting.said = None;
    }

    /// The hello, if it is due. It waits until what it says is durable; only while the disk does not work it is said
    /// without a lineage, and then no batch is named or sent.
    pub(super) fn poll_hello(&mut self) -> Option<Message> {
        let is_durable = self.greeting.durable == self.greeting.changes;
        if !self.greeting.is_due || !(is_durable || self.commits.is_failing()) {
            return None;
        }
        self.greeting.is_due = false;
        self.greeting.said = Some(is_durable);
        self.greeting.unanswered += 1;
        self.ancestry.sealed = self.out.batcher.seq();
        let held = self.out.spool.ranges(RANGES_MAX - 1).into_iter();
        Some(Message::Hello(Hello {
            agent: self.settings.name.clone(),
            software: SOFTWARE.into(),
            epoch: self.ancestry.epoch,
            plan: if self.plan.pipelines.is_empty() {
                0
            } else {
                self.plan.fingerprint()
            },
            database: self.ancestry.database,
            lineage: is_durable.then(|| self.ancestry.told()),
            held: held
                .map(|batches| HeldEpoch {
                    database: self.ancestry.origin(batches.epoch),
                    batches,
                })
                .collect(),
        }))
    }

    /// A job is done that was made when the ancestry had changed so often.
    pub(super) fn handle_ancestry_durable(&mut self, changes: u64) {
        self.greeting.durable = changes;
        // A hello without a lineage was for as long as the disk did not work.
        if self.greeting.said == Some(false) && changes == self.greeting.changes {
            self.greet();
        }
    }

    /// A message came from the aggregator.
    pub fn handle_message(&mut self, now: Now, message: Message, disk: &impl Disk) -> Outcome {
        match message {
            Message::Welcome(welcome) => self.handle_welcome(now, welcome),
            Message::Ack(ack) => {
                let count = self.out.spool.acknowledge(ack.epoch, &ack.ranges, now.monotonic);
                self.out.count(Counter::Acknowledged, count as u64);
                self.seal();
                self.trim = true;
                Outcome::Done
            }
            Message::Reject(refusal) => self.handle_refusal(refusal, disk),
            Message::Plan(plan) => {
                self.adopt(now, &plan);
                Outcome::Done
            }
            Message::Drain => Outcome::Drain,
            Message::Forked(forked) => self.handle_forked(forked),
            // Not for an agent.
            Message::Hello(_) | Message::Heartbeat(_) => Outcome::Done,
        }
    }

    fn handle_welcome(&mut self, now: Now, welcome: Welcome) -> Outcome {
        let Some(has_lineage) = self.take_answer() else {
            return Outcome::Done;
        };
        self.out.count(Counter::Connects, 1);
        self.clock.handle_server_time(now, welcome.server_time);
        self.look_at_clock(now);
        let before = self.ancestry.database;
        if let (Some(before), Some(other)) = (before, welcome.database)
            && before != other
        {
            self.close_all();
            self.greeting.moving = Some(Box::new(welcome));
            self.try_to_move(now);
            return Outcome::OtherDatabase(other);
        }
        self.ancestry.database = welcome.database.or(before);
        let is_new = self.ancestry.database != before;
        if has_lineage {
            self.greeting.was_welcomed = true;
            let held: BTreeSet<u64> = self.out.spool.epochs();
            self.ancestry.welcomed(&held);
        }
        let own: Vec<EpochRange> = welcome.committed;
        let ancestry = &self.ancestry;
        let is_own = |epoch| {
            ancestry
                .origin(epoch)
                .is_none_or(|of| Some(of) == ancestry.database)
        };
        self.out.spool.resume(&own, is_own, now.monotonic);
        self.uplink.handle_welcome(now, welcome.heartbeat);
        let is_renamed = self.rename(&welcome.numbers);
        match welcome.plan {
            Some(plan) => self.adopt(now, &plan),
            None if is_new => self.begin_journal_segment(),
            None => {}
        }
        if is_renamed {
            let segment = self.journal.segment();
            self.intake.count_windows().carry(segment, &mut self.journal);
        }
        self.greeting.keep |= is_new;
        if has_lineage {
            self.out.lane = Lane::Live;
            self.seal();
        }
        Outcome::Done
    }

    /// An answer came: whether the hello that it answers had a lineage, if that was the last one.
    fn take_answer(&mut self) -> Option<bool> {
        self.greeting.unanswered = self.greeting.unanswered.saturating_sub(1);
        self.greeting.said.filter(|_| self.greeting.unanswered == 0)
    }

    fn adopt(&mut self, now: Now, plan: &AgentPlan) {
        self.handle_plan(now, plan);
        self.greeting.keep = true;
    }

    /// Pipelines have ids in the place of the numbers of version 1; returns whether there are any.
    fn rename(&mut self, numbers: &[(u32, PipelineId)]) -> bool {
        let ids = { numbers.iter() }.map(|&(number, id)| (PipelineId::from(number), id));
        let ids: BTreeMap<PipelineId, PipelineId> = ids.collect();
        if !ids.is_empty() {
            self.intake.rename(&ids);
            self.out.metrics.rename(&ids);
        }
        !ids.is_empty()
    }

    fn handle_refusal(&mut self, refusal: Refusal, disk: &impl Disk) -> Outcome {
        let Refusal { epoch, seq, reason } = refusal;
        let is_foreign = reason == RejectReason::OtherDatabase;
        let mut all = 0;
        for (pipeline, readings) in self.out.spool.refuse(Name { epoch, seq }, disk) {
            all += readings;
            // The pipelines of another database mean nothing to this one.
            let (of, why) = if is_foreign {
                (AGENT, Reason::OtherDatabase)
            } else {
                (pipeline, Reason::BatchRefused)
            };
            let place = self.out.metrics.place(of);
            self.out.metrics.add(place, Counter::Rejected(why), readings);
        }
        self.trim = true;
        Outcome::Refused(reason, all)
    }

    // Another database.

    /// Begins the epoch of the database that has welcomed this agent, once all that belongs to the old one has a name.
    pub(super) fn try_to_move(&mut self, now: Now) {
        if self.greeting.moving.is_none() {
            return;
        }
        let first = self.out.batcher.take_names(0);
        let sealed = self.out.spool.seal_all(first);
        self.out.batcher.take_names(sealed);
        if self.out.spool.has_unsealed() {
            return;
        }
        let Some(welcome) = self.greeting.moving.take() else {
            return;
        };
        self.begin_epoch();
        self.ancestry.database = welcome.database;
        match welcome.plan {
            Some(plan) => self.adopt(now, &plan),
            None => self.begin_journal_segment(),
        }
        self.greeting.keep = true;
        self.greet();
    }

    fn begin_epoch(&mut self) {
        let epoch = self.greeting.fresh;
        // The next one on this link, if any, is another.
        self.greeting.fresh = epoch.rotate_left(32) ^ self.seed;
        self.greeting.epochs.push(self.ancestry.epoch);
        self.ancestry.sealed = self.out.batcher.seq();
        self.ancestry.begin(epoch);
        self.out.batcher = Batcher::new(epoch);
        self.told_seq = 0;
    }

    // An older copy.

    /// What was there at the start may have been delivered by the state that this is a copy of. If this run was
    /// welcomed before, it was copied while it ran, and that holds for all that there is.
    fn handle_forked(&mut self, forked: Forked) -> Outcome {
        if self.take_answer().is_none() || forked.lineage != self.ancestry.lineage {
            return Outcome::Done;
        }
        if self.greeting.was_welcomed || !self.greeting.epochs.is_empty() {
            self.close_all();
            self.greeting.recovered = self.out.spool.next_place();
            let epochs = std::mem::take(&mut self.greeting.epochs);
            for epoch in epochs.into_iter().chain([self.ancestry.epoch]) {
                self.out.spool.forget_named(epoch);
            }
            self.out.metrics.forget_all();
            self.begin_epoch();
        } else {
            self.out.metrics.forget_recovered();
        }
        self.out.spool.forget_unsealed(self.greeting.recovered);
        self.out.spool.push_loss_of_unknown_size();
        self.greeting.was_welcomed = false;
        let fresh = self.greeting.fresh;
        self.era = fresh.rotate_left(8);
        self.ancestry.fork(fresh.rotate_left(16));
        self.begin_journal_segment();
        self.greet();
        Outcome::Forked(forked)
    }

    /// The journal has a snapshot with the ancestry, which waits to become durable.
    pub(super) fn handle_snapshot(&mut self) {
        self.greeting.changes += 1;
    }

    /// The plan to keep on disk, if it has changed, with the database that it belongs to.
    pub fn poll_plan(&mut self) -> Option<KeptPlan> {
        std::mem::take(&mut self.greeting.keep).then(|| KeptPlan {
            plan: self.plan.clone(),
            database: self.ancestry.database,
        })
    }
}
