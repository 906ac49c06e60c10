//! Batches on disk, held until the aggregator has committed them, and a while longer.
//!
//! A batch that closes while the link is up is *sealed*: it has its name (epoch, seq) from the start. While the link is
//! down batches stay *unsealed*; when it is up again, small records name them, as many at a time as can be on their way.
//! Nothing is sent before it is durable under its name, so a name means one content for ever.
//!
//! The spool never takes more than its budget of bytes. As it fills, in this order: acknowledged batches that were only
//! kept in case the aggregator loses its last commits go; unsealed ones are merged, first with the same pane and key,
//! then step by step into the wider panes of the plan's ladder; then they give up the points of their series; and only
//! then the oldest go, each replaced by a small record of what was lost, which the aggregator stores under the lost
//! batch's name. Were that batch to have arrived after all, its name is taken and the record of its loss counts for
//! nothing.
//!
//! On disk it is a log of segments (`record`). A segment goes when all in it is done with, and when no earlier segment is
//! left whose records it names, merges or replaces. What came in waits in memory until it fits (`admission`, `room`).
//!
//! Each part owns its fields: what is held (`records`), the files (`log`), names and queues (`outstanding`), what is kept
//! (`retention`), what waits (`admission`), what is merged next (`compact`), and what became of all (`account`).
//! [`Spool`] is these together; each file with an `impl Spool` is one thing that it does with them.

mod account;

mod admission;

mod compact;

mod ladder;

mod log;

mod loss;

mod merge;

mod outstanding;

mod record;

mod records;

mod recover;

mod retention;

mod room;

mod sending;

mod write;

use std::collections::BTreeMap;

use bytes::Bytes;
use catchment_common::plan::PipelineId;
use catchment_common::time::Span;
use catchment_common::wire::{AgentPlan, Loss};

use self::account::Account;
use self::admission::{Admission, RECORD_HEAD_MAX, Waiting};
use self::compact::Compactor;
use self::log::Log;
use self::outstanding::Outstanding;
use self::records::{Held, Records, Slot};
use self::retention::Retention;
use crate::log::disk::{File, Step};

pub use self::recover::Recovered;

/// Which stream a batch takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Sealed while the link was up.
    Live,
    /// Held since before.
    Backlog,
}

/// A batch's name: (epoch, seq).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    /// The run of the agent that sealed it.
    pub epoch: u64,
    /// Its number in that run, from 1.
    pub seq: u64,
}

/// The spool's bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of all its files. At least [`crate::settings::SPOOL_BYTES_MIN`].
    pub bytes: u64,
    /// How long acknowledged batches are kept.
    pub retain: Span,
}

/// Most records that are remembered, whatever the budget: each takes memory.
const RECORDS_MAX: usize = 32_768;

/// The spool.
#[derive(Debug)]
pub struct Spool {
    limits: Limits,
    records: Records,
    log: Log,
    outstanding: Outstanding,
    retention: Retention,
    admission: Admission,
    compactor: Compactor,
    account: Account,
}

impl Spool {
    /// An empty spool whose first segment has this number.
    pub fn new(limits: Limits, first_segment: u32) -> Self {
        Self::with_log(limits, Log::new(limits.bytes, first_segment, 0))
    }

    fn with_log(limits: Limits, log: Log) -> Self {
        Self {
            limits,
            records: Records::default(),
            log,
            outstanding: Outstanding::default(),
            retention: Retention::new(limits.retain),
            admission: Admission::new(limits.bytes),
            compactor: Compactor::new(limits.bytes),
            account: Account::default(),
        }
    }

    /// The ladders of a plan, besides those of earlier ones.
    pub fn add_ladders(&mut self, plan: &AgentPlan) {
        self.compactor.ladders.add(plan);
    }

    // What comes in.

    /// Takes a batch in: with its name, for this lane, or unsealed.
    pub fn push(&mut self, frame: Bytes, name: Option<Name>, lane: Lane) {
        let slot = self.admission.take_slot();
        self.push_at(slot, Held::waiting(frame, name, false), lane);
    }

    /// Tells the aggregator that something was lost, and that nothing more is known of it.
    pub fn push_loss_of_unknown_size(&mut self) {
        let loss = Loss {
            epoch: 0,
            seq: 0,
            entries: Vec::new(),
        };
        let slot = self.admission.take_slot();
        self.push_at(slot, Held::waiting(loss.emit().into(), None, true), Lane::Backlog);
    }

    fn push_at(&mut self, slot: Slot, held: Held, lane: Lane) {
        let waiting = self.hold(slot, held, lane);
        self.admission.push(waiting);
    }

    /// Holds what waits for its place.
    fn hold(&mut self, slot: Slot, held: Held, lane: Lane) -> Waiting {
        let waiting = Waiting {
            slot,
            lane,
            is_loss: held.is_loss,
            bytes: u64::from(held.length) + RECORD_HEAD_MAX,
        };
        if let Some(name) = held.name {
            self.outstanding.insert(name, slot);
        }
        self.records.insert(slot, held);
        waiting
    }

    /// The place of the next batch in time. What came in before it belongs to a group of the journal that ends here.
    pub fn cut(&mut self) -> u64 {
        self.admission.cut();
        self.admission.next_number()
    }

    /// The place of the next batch in time.
    pub fn next_place(&self) -> u64 {
        self.admission.next_number()
    }

    /// Batches at places before the next one are not to be merged with those that come: see
    /// [`Spool::forget_unsealed`].
    pub fn keep_apart(&mut self) {
        self.compactor.keep_apart(self.admission.next_number());
    }

    /// Whether so much came in since the last cut that the journal's group should end: it is made durable all at once.
    pub fn wants_cut(&self) -> bool {
        self.admission.since_cut() > self.log.segment_bytes()
    }

    /// Whether so much waits in memory that no more should come for now.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.admission.is_full()
    }

    /// Whether more than half of what batches may take is used, so that what comes should come piece by piece.
    pub fn is_tight(&self) -> bool {
        self.is_over(1, 2)
    }

    // What it holds.

    /// How many batches are not acknowledged.
    pub fn len(&self) -> usize {
        self.records.len() - self.retention.len()
    }

    /// Whether all batches are acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of frames that are not acknowledged.
    pub fn held_bytes(&self) -> u64 {
        self.records.sizes().held
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// The oldest batch of this epoch that is not acknowledged.
    pub fn oldest(&self, epoch: u64) -> Option<u64> {
        let [first, last] = [0, u64::MAX].map(|seq| Name { epoch, seq });
        self.outstanding.first_of(first, last).map(|(name, _)| name.seq)
    }

    /// Whether something is held that no seq of this epoch speaks for: unsealed, or of an earlier epoch.
    pub fn holds_others(&self, epoch: u64) -> bool {
        let mut names = self.outstanding.names();
        let ends = [names.next(), names.next_back()];
        self.has_unsealed() || ends.into_iter().flatten().any(|name| name.epoch != epoch)
    }

    /// The last record's ordinal, for the journal.
    pub fn ordinal(&self) -> u64 {
        self.log.ordinal()
    }

    /// Whether a record has its place in the log.
    fn is_placed(&self, slot: Slot) -> bool {
        self.records.segment(slot).is_some()
    }

    // What became of it.

    /// Readings lost since the last call, by pipeline: they were in batches that a full spool let go.
    pub fn take_lost(&mut self) -> BTreeMap<PipelineId, u64> {
        std::mem::take(&mut self.account.lost)
    }

    /// Readings whose points were given up since the last call, by pipeline.
    pub fn take_pointless(&mut self) -> BTreeMap<PipelineId, u64> {
        std::mem::take(&mut self.account.pointless)
    }

    /// Records that could not be read back since the last call.
    pub fn take_damaged(&mut self) -> u64 {
        std::mem::take(&mut self.account.damaged)
    }

    /// Acknowledged batches that the aggregator had lost again, since the last call.
    pub fn take_resent(&mut self) -> u64 {
        std::mem::take(&mut self.account.resent)
    }

    // The job.

    /// Whether a job has something to do here.
    pub fn has_work(&self) -> bool {
        self.log.has_work() || self.admission.has_work()
    }

    /// Whether batches wait to become durable.
    pub fn has_writes(&self) -> bool {
        self.log.has_writes() || self.admission.has_work()
    }

    /// A file that the next job must remove before all else.
    pub fn remove_first(&mut self, file: File) {
        self.log.do_first(Step::Remove(file));
    }

    /// A file that the next job must sync before all else.
    pub fn sync_first(&mut self, file: File) {
        self.log.sync_first(file);
    }

    /// The steps of the next job, or of its next round, that must come before the journal's.
    pub fn take_writes(&mut self, steps: &mut Vec<Step>) {
        self.log.take_writes(steps);
    }

    /// The steps of the next job, or of its next round, that may come last.
    pub fn take_removals(&mut self, steps: &mut Vec<Step>) {
        self.log.take_removals(steps);
    }
}

#[cfg(test)]
pub(crate) mod tests;
