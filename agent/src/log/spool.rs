//! Batches on disk, held until the aggregator has committed them, and a while longer.
//!
//! A batch that closes while the link is up is *sealed*: it has its name (epoch, seq) from the start. While the link is
//! down batches stay *unsealed*; when it is up again, one small record names them all. Nothing is sent before it is
//! durable under its name, so a name means one content for ever.
//!
//! The spool never takes more than its budget of bytes. As it fills, in this order: acknowledged batches that were only
//! kept in case the aggregator loses its last commits go; unsealed ones are merged, first with the same pane and key,
//! then step by step into the wider panes of the plan's ladder; and only then the oldest go, each replaced by a small
//! record of what was lost, which the aggregator stores under the lost batch's name. Were that batch to have arrived
//! after all, its name is taken and the record of its loss counts for nothing.
//!
//! On disk it is a log of segments (`record`). A segment goes when all in it is done with, and when no earlier
//! segment is left whose records it names, merges or replaces. What came in waits in memory until it fits
//! (`incoming`).

mod budget;

mod compact;

mod incoming;

mod log;

mod loss;

mod record;

mod recover;

mod sending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use catchment_common::limits::HELD_EPOCHS_MAX;
use catchment_common::plan::PipelineId;
use catchment_common::time::{Instant, Span};
use catchment_common::wire::{EpochRange, SeqRange};

use self::incoming::{Incoming, UNPLACED};
use self::record::{Record, put_slots};
use crate::log::disk::{Disk, File, Step};

pub use self::compact::Ladders;
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

/// A record's place in time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Slot {
    number: u64,
    part: u32,
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
/// Segments are a part of the budget of this size, within bounds.
const SEGMENT_PART: u64 = 16;
const SEGMENT_BYTES: (u64, u64) = (32 << 10, 1 << 20);
/// Frames that are kept in memory until they have been sent once.
const CACHE_BYTES_MAX: usize = 1 << 20;

/// One batch, or one record of a loss.
#[derive(Debug)]
struct Held {
    /// [`UNPLACED`] while it waits for its place.
    segment: u32,
    /// Where its frame is in the segment.
    at: u64,
    length: u32,
    ordinal: u64,
    /// How often it was merged: 0 as closed, 1 with equal panes and keys merged, then one more for each step of the
    /// ladder.
    stage: u8,
    name: Option<Name>,
    acknowledged: bool,
    is_loss: bool,
    frame: Option<Bytes>,
}

#[derive(Debug, Default)]
struct Segment {
    bytes: u64,
    live: usize,
    /// Segments that must go before this one: it names or replaces what is in them.
    after: BTreeSet<u32>,
}

/// The spool.
#[derive(Debug)]
pub struct Spool {
    limits: Limits,
    records: BTreeMap<Slot, Held>,
    /// Named and not acknowledged.
    held: BTreeMap<Name, Slot>,
    /// Acknowledged and kept.
    retained: BTreeMap<Name, Slot>,
    expiry: VecDeque<(Instant, Name)>,
    segments: BTreeMap<u32, Segment>,
    current: u32,
    bytes: u64,
    held_bytes: u64,
    next_number: u64,
    ordinal: u64,
    durable: u64,
    /// Records up to this one may be merged, moved and dropped: they are durable, or will be before that is done.
    settled: u64,
    /// What a start read back, which the first job makes last.
    recovered: u64,
    incoming: VecDeque<Incoming>,
    incoming_bytes: u64,
    /// Place and ordinal of what the job in the making appends, which comes after the record `placed_after`.
    placed: Vec<(u64, u64)>,
    placed_after: u64,
    /// Nothing waits but losses that there is no room for.
    waits_for_room: bool,
    /// Written since the last job: one run of bytes for each segment.
    writes: Vec<(u32, u64, Vec<u8>)>,
    first_steps: Vec<Step>,
    removals: Vec<Step>,
    live: VecDeque<Name>,
    backlog: VecDeque<Name>,
    /// Named, but not durable yet.
    fresh: VecDeque<(u64, Name, Lane)>,
    cached: usize,
    ladders: Ladders,
    lost: BTreeMap<PipelineId, u64>,
    damaged: u64,
    resent: u64,
    /// Bytes of files that are done with, and not removed yet.
    leaving: u64,
    /// What the files may take: the budget, or more while an earlier run has left more than that.
    ceiling: u64,
    /// Up to here batches of the last stage were merged and nothing was gained.
    tired: Option<Slot>,
}

impl Spool {
    /// An empty spool whose first segment has this number.
    pub fn new(limits: Limits, first_segment: u32) -> Self {
        Self {
            limits,
            records: BTreeMap::new(),
            held: BTreeMap::new(),
            retained: BTreeMap::new(),
            expiry: VecDeque::new(),
            segments: BTreeMap::new(),
            current: first_segment,
            bytes: 0,
            held_bytes: 0,
            next_number: 1,
            ordinal: 0,
            durable: 0,
            settled: 0,
            recovered: 0,
            incoming: VecDeque::new(),
            incoming_bytes: 0,
            placed: Vec::new(),
            placed_after: 0,
            waits_for_room: false,
            writes: Vec::new(),
            first_steps: Vec::new(),
            removals: Vec::new(),
            live: VecDeque::new(),
            backlog: VecDeque::new(),
            fresh: VecDeque::new(),
            cached: 0,
            ladders: Ladders::default(),
            lost: BTreeMap::new(),
            damaged: 0,
            resent: 0,
            leaving: 0,
            ceiling: limits.bytes,
            tired: None,
        }
    }

    /// The ladders of a plan, besides those of earlier ones.
    pub fn add_ladders(&mut self, plan: &catchment_common::wire::AgentPlan) {
        self.ladders.add(plan);
    }

    // What it holds.

    /// How many batches are not acknowledged.
    pub fn len(&self) -> usize {
        self.records.len() - self.retained.len()
    }

    /// Whether all batches are acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of frames that are not acknowledged.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest batch of this epoch that is not acknowledged.
    pub fn oldest(&self, epoch: u64) -> Option<u64> {
        let first = Name { epoch, seq: 0 };
        let last = Name { epoch, seq: u64::MAX };
        self.held.range(first..=last).next().map(|(name, _)| name.seq)
    }

    /// Whether something is held that no seq of this epoch speaks for: unsealed, or of an earlier epoch.
    pub fn holds_others(&self, epoch: u64) -> bool {
        let unsealed = self.records.len() - self.retained.len() - self.held.len();
        let first = self.held.first_key_value().map(|(name, _)| name.epoch);
        let last = self.held.last_key_value().map(|(name, _)| name.epoch);
        unsealed > 0 || [first, last].into_iter().flatten().any(|held| held != epoch)
    }

    /// The last record's ordinal, for the journal.
    pub fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// Readings lost since the last call, by pipeline: they were in batches that a full spool let go.
    pub fn take_lost(&mut self) -> BTreeMap<PipelineId, u64> {
        std::mem::take(&mut self.lost)
    }

    /// Records that could not be read back since the last call.
    pub fn take_damaged(&mut self) -> u64 {
        std::mem::take(&mut self.damaged)
    }

    /// Acknowledged batches that the aggregator had lost again, since the last call.
    pub fn take_resent(&mut self) -> u64 {
        std::mem::take(&mut self.resent)
    }

    /// Whether something has no name.
    pub fn has_unsealed(&self) -> bool {
        self.records.len() > self.retained.len() + self.held.len()
    }

    /// Gives unsealed batches their names, from `first` on; returns how many.
    pub fn seal_all(&mut self, first: Name) -> u64 {
        if !self.has_unsealed() {
            return 0;
        }
        let of_all = self.records.iter().filter(|(_, held)| held.name.is_none());
        let (waiting, mut unsealed): (Vec<Slot>, Vec<Slot>) = of_all
            .map(|(&slot, _)| slot)
            .partition(|slot| self.records[slot].segment == UNPLACED);
        self.fit_seal(&mut unsealed);
        self.ordinal += u64::from(!unsealed.is_empty());
        let ordinal = self.ordinal;
        let mut sources = BTreeSet::new();
        for (slot, seq) in unsealed.iter().chain(&waiting).zip(first.seq..) {
            let name = Name { seq, ..first };
            let Some(held) = self.records.get_mut(slot) else {
                continue;
            };
            held.name = Some(name);
            self.held.insert(name, *slot);
            // What waits is appended under its name.
            if held.segment != UNPLACED {
                sources.insert(held.segment);
                self.fresh.push_back((ordinal, name, Lane::Backlog));
            }
        }
        if !unsealed.is_empty() {
            let slots = put_slots(&unsealed);
            let seal = Record::Seal {
                ordinal,
                first,
                slots: &slots,
            };
            let (segment, _) = self.append(&seal, 32 + slots.len());
            self.pin(segment, sources);
        }
        (unsealed.len() + waiting.len()) as u64
    }

    /// Everything written before this ordinal is durable now; what is named may be sent.
    pub fn handle_durable(&mut self, ordinal: u64) {
        self.durable = ordinal;
        self.settled = ordinal;
        while let Some(&(at, name, lane)) = self.fresh.front()
            && at <= ordinal
        {
            self.fresh.pop_front();
            match lane {
                Lane::Live => self.live.push_back(name),
                Lane::Backlog => self.backlog.push_back(name),
            }
        }
        if self.cached > CACHE_BYTES_MAX {
            for held in self.records.values_mut().filter(|held| held.ordinal <= ordinal) {
                self.cached -= held.frame.take().map_or(0, |frame| frame.len());
            }
        }
    }

    /// The aggregator has committed these; returns how many were held.
    pub fn acknowledge(&mut self, epoch: u64, ranges: &[SeqRange], now: Instant) -> usize {
        let before = self.held.len();
        for range in ranges {
            let (first, last) = (
                Name {
                    epoch,
                    seq: range.first,
                },
                Name {
                    epoch,
                    seq: range.last,
                },
            );
            // Not the range's length decides the cost, but what is held of it: a peer may claim any range.
            while let Some((&name, &slot)) = self.held.range(first..=last).next() {
                self.settle(name, slot, now);
            }
        }
        before - self.held.len()
    }

    fn settle(&mut self, name: Name, slot: Slot, now: Instant) {
        self.held.remove(&name);
        let Some(held) = self.records.get_mut(&slot) else {
            return;
        };
        self.held_bytes -= u64::from(held.length);
        self.cached -= held.frame.take().map_or(0, |frame| frame.len());
        held.acknowledged = true;
        self.retained.insert(name, slot);
        self.expiry.push_back((now + self.limits.retain, name));
        if held.is_loss || self.limits.retain == Span::ZERO {
            self.release(slot);
        }
    }

    /// Lets go of what was kept long enough.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(at, name)) = self.expiry.front()
            && at <= now
        {
            self.expiry.pop_front();
            if let Some(&slot) = self.retained.get(&name) {
                self.release(slot);
            }
        }
    }

    /// The aggregator will never take this batch: lets go of it and says what it held, pipeline by pipeline.
    pub fn refuse(&mut self, name: Name, disk: &impl Disk) -> Vec<(PipelineId, u64)> {
        let Some(&slot) = self.held.get(&name) else {
            return Vec::new();
        };
        let frame = self.frame(slot, disk);
        self.release(slot);
        let entries = frame.and_then(|frame| loss::entries_of(&frame, &self.ladders).ok());
        entries
            .unwrap_or_default()
            .into_iter()
            .map(|entry| (entry.pipeline, entry.readings))
            .collect()
    }

    /// A file that the next job must remove before all else.
    pub fn remove_first(&mut self, file: File) {
        self.first_steps.push(Step::Remove(file));
    }

    /// A file that the next job must sync before all else.
    pub fn sync_first(&mut self, file: File) {
        self.first_steps.insert(0, Step::Sync(file));
    }

    /// After a lost link nothing is under way any more.
    pub fn handle_disconnected(&mut self) {
        self.live.clear();
        self.backlog.clear();
        let waiting = self.incoming.iter_mut().map(|incoming| &mut incoming.lane);
        let fresh = self.fresh.iter_mut().map(|(_, _, lane)| lane);
        waiting.chain(fresh).for_each(|lane| *lane = Lane::Backlog);
    }

    /// The aggregator has said which of the batches held here it has. The rest is sent, also what was acknowledged
    /// once: an aggregator that was restored from a backup does not have it any more, and may not even know its epoch. Of
    /// epochs that are not its own (`is_own`) it does not get what another one has acknowledged.
    pub fn resume(&mut self, committed: &[EpochRange], is_own: impl Fn(u64) -> bool, now: Instant) {
        for EpochRange { epoch, ranges } in committed {
            self.acknowledge(*epoch, ranges, now);
        }
        let is_committed = |name: &Name| {
            let of_epoch = committed.iter().filter(|held| held.epoch == name.epoch);
            { of_epoch }
                .flat_map(|held| &held.ranges)
                .any(|range| (range.first..=range.last).contains(&name.seq))
        };
        let missing: Vec<(Name, Slot)> = self
            .retained
            .iter()
            .filter(|(name, _)| is_own(name.epoch) && !is_committed(name))
            .map(|(&name, &slot)| (name, slot))
            .collect();
        for (name, slot) in missing {
            self.retained.remove(&name);
            self.held.insert(name, slot);
            self.resent += 1;
            if let Some(held) = self.records.get_mut(&slot) {
                held.acknowledged = false;
                self.held_bytes += u64::from(held.length);
            }
        }
        let waiting: BTreeSet<Name> = self.fresh.iter().map(|&(_, name, _)| name).collect();
        self.live.clear();
        let mut oldest_first: Vec<(Slot, Name)> = self
            .held
            .iter()
            .filter(|(name, slot)| !waiting.contains(name) && self.is_placed(**slot))
            .map(|(&name, &slot)| (slot, name))
            .collect();
        oldest_first.sort_unstable();
        self.backlog = oldest_first.into_iter().map(|(_, name)| name).collect();
    }

    /// What is there under a name, for the next hello. At most [`HELD_EPOCHS_MAX`] epochs, and at most `limit` ranges
    /// and epochs together; of more ranges, the gaps between the oldest of an epoch are closed, which asks about too much
    /// and never about too little.
    pub fn ranges(&self, limit: usize) -> Vec<EpochRange> {
        let names: BTreeSet<Name> = self.held.keys().chain(self.retained.keys()).copied().collect();
        let mut epochs: Vec<EpochRange> = Vec::new();
        for Name { epoch, seq } in names {
            if epochs.last().is_none_or(|last| last.epoch != epoch) {
                epochs.push(EpochRange {
                    epoch,
                    ranges: Vec::new(),
                });
            }
            let Some(EpochRange { ranges, .. }) = epochs.last_mut() else {
                continue;
            };
            match ranges.last_mut() {
                Some(last) if last.last + 1 == seq => last.last = seq,
                _ => ranges.push(SeqRange {
                    first: seq,
                    last: seq,
                }),
            }
        }
        // Of more epochs than that some are not asked about: their batches are sent, and found to be known.
        epochs.truncate(HELD_EPOCHS_MAX.min(limit / 2));
        let each = (limit / epochs.len().max(1)).saturating_sub(1).max(1);
        for EpochRange { ranges, .. } in &mut epochs {
            let surplus = ranges.len().saturating_sub(each);
            if surplus > 0 {
                let first = ranges[0].first;
                ranges.drain(..surplus);
                ranges[0].first = first;
            }
        }
        epochs
    }
}

#[cfg(test)]
mod tests;
