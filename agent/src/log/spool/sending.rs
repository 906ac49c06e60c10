//! What goes out: batches get their names, are sent under them, and are settled.
//!
//! Of what waits without a name only so much gets one as can be on its way: what has a name cannot be merged any more,
//! should the link break. Live batches have their names from the start, as long as not too many wait for their
//! acknowledgement.

use std::collections::BTreeSet;

use bytes::Bytes;
use catchment_common::limits::HELD_EPOCHS_MAX;
use catchment_common::plan::PipelineId;
use catchment_common::time::Instant;
use catchment_common::wire::{EpochRange, Loss, SeqRange};

use super::admission::RECORD_HEAD_MAX;
use super::loss::{LOSS_BYTES_MAX, entries_of};
use super::record::{Record, put_slots};
use super::records::{Held, Slot};
use super::{Lane, Name, Spool};
use crate::log::disk::Disk;

/// Bytes of the backlog that have names and wait for their acknowledgement, at most: what a link of any kind needs to be
/// kept busy, and of a small spool one part in so many of the budget.
const IN_FLIGHT_BYTES_MAX: u64 = 8 << 20;
const IN_FLIGHT_PART: u64 = 8;
/// Bytes of a place in a seal, as good as always at most: the step from the one before, and the part.
const SEAL_PLACE_BYTES: u64 = 7;
/// Frames that are kept in memory until they have been sent once.
const CACHE_BYTES_MAX: usize = 1 << 20;

impl Spool {
    /// The epochs that something is held of, or kept.
    pub fn epochs(&self) -> BTreeSet<u64> {
        let kept = self.retention.iter().map(|(name, _)| name);
        let names = self.outstanding.names().chain(kept);
        names.map(|name| name.epoch).collect()
    }

    /// The largest seq of an epoch that is held or kept; 0 for none.
    pub fn last_seq(&self, epoch: u64) -> u64 {
        let kept = self.retention.iter().map(|(name, _)| name);
        let names = self.outstanding.names().chain(kept);
        let of_epoch = names.filter(|name| name.epoch == epoch);
        of_epoch.map(|name| name.seq).max().unwrap_or(0)
    }

    // Names.

    fn in_flight_max(&self) -> u64 {
        IN_FLIGHT_BYTES_MAX.min(self.limits.bytes / IN_FLIGHT_PART)
    }

    /// Whether a batch that closes now is to have its name at once: not while twice of what can be on its way has one.
    pub fn wants_names(&self) -> bool {
        self.records.sizes().named < 2 * self.in_flight_max()
    }

    /// Whether something has no name.
    pub fn has_unsealed(&self) -> bool {
        self.records.len() > self.retention.len() + self.outstanding.len()
    }

    /// Gives the oldest unsealed batches their names, from `first` on, as many as can be on their way; returns how many.
    pub fn seal(&mut self, first: Name) -> u64 {
        let named = self.records.sizes().named;
        // In steps, because each is a record and a sync.
        if named > self.in_flight_max() / 2 {
            return 0;
        }
        self.seal_most(first, self.in_flight_max() - named)
    }

    /// Gives all unsealed batches their names, as far as there is room for the records that say so; returns how many.
    pub fn seal_all(&mut self, first: Name) -> u64 {
        self.seal_most(first, u64::MAX)
    }

    fn seal_most(&mut self, first: Name, mut left: u64) -> u64 {
        if !self.has_unsealed() {
            return 0;
        }
        let unsealed = self.records.iter().filter(|(_, held)| held.name.is_none());
        let (waiting, mut placed): (Vec<Slot>, Vec<Slot>) = unsealed
            .take_while(|(_, held)| {
                let has_room = left > 0;
                left = left.saturating_sub(u64::from(held.length));
                has_room
            })
            .map(|(slot, _)| slot)
            .partition(|&slot| !self.is_placed(slot));
        let room = self
            .log
            .room()
            .saturating_sub(RECORD_HEAD_MAX + 2 * LOSS_BYTES_MAX);
        placed.truncate((room / SEAL_PLACE_BYTES) as usize);
        let names = (first.seq..).map(|seq| Name { seq, ..first });
        for (&slot, name) in placed.iter().chain(&waiting).zip(names) {
            self.records.update(slot, |held| held.name = Some(name));
            self.outstanding.insert(name, slot);
        }
        if !placed.is_empty() {
            self.write_seal(first, &placed);
        }
        // What waits is appended under its name.
        (placed.len() + waiting.len()) as u64
    }

    fn write_seal(&mut self, first: Name, placed: &[Slot]) {
        let ordinal = self.log.next_ordinal();
        let slots = put_slots(placed);
        let seal = Record::Seal {
            ordinal,
            first,
            slots: &slots,
        };
        let place = self.log.append(&seal, 32 + slots.len());
        let sources = placed.iter().filter_map(|&slot| self.records.segment(slot));
        let sources: BTreeSet<u32> = sources.collect();
        self.log.pin(place.segment, sources);
        for (seq, _) in (first.seq..).zip(placed) {
            let name = Name { seq, ..first };
            self.outstanding.send_when_durable(ordinal, name, Lane::Backlog);
        }
    }

    // Batches.

    /// The next batch to send under its name, and on which lane. What is live goes before what is held since before, as
    /// long as its lane has room. A batch stays held until it is acknowledged.
    pub fn next(&mut self, has_room: impl Fn(Lane) -> bool, disk: &impl Disk) -> Option<(Lane, Bytes)> {
        [Lane::Live, Lane::Backlog]
            .into_iter()
            .filter(|lane| has_room(*lane))
            .find_map(|lane| Some((lane, self.next_of(lane, disk)?)))
    }

    fn next_of(&mut self, lane: Lane, disk: &impl Disk) -> Option<Bytes> {
        loop {
            let (name, slot) = self.outstanding.next(lane)?;
            if let Some(frame) = self.frame(slot, disk) {
                self.records.uncache(slot);
                return Some(frame);
            }
            self.replace_damaged(name, slot);
        }
    }

    /// What a batch held is not known any more: its name must be settled all the same.
    pub(super) fn replace_damaged(&mut self, name: Name, slot: Slot) {
        self.account.damaged += 1;
        let source = self.records.segment(slot);
        self.release(slot);
        let empty = Loss {
            epoch: name.epoch,
            seq: name.seq,
            entries: Vec::new(),
        };
        let slot = slot.of_loss();
        let frame = Bytes::from(empty.emit());
        let needed = frame.len() as u64 + RECORD_HEAD_MAX;
        let held = Held::waiting(frame, Some(name), true);
        // The file of what is replaced may go with the next job, so this should be part of it.
        if self.room() < needed {
            return self.push_at(slot, held, Lane::Backlog);
        }
        let written = self.write(slot, slot.number, true, held);
        self.log.pin(written, source);
        self.outstanding
            .send_when_durable(self.log.ordinal(), name, Lane::Backlog);
    }

    // What became of them.

    /// Everything written before this ordinal is durable now; what is named may be sent.
    pub fn handle_durable(&mut self, ordinal: u64) {
        self.outstanding.handle_durable(ordinal);
        if self.records.sizes().cached > CACHE_BYTES_MAX {
            self.records.uncache_through(ordinal);
        }
    }

    /// The aggregator has committed these; returns how many were held.
    pub fn acknowledge(&mut self, epoch: u64, ranges: &[SeqRange], now: Instant) -> usize {
        let before = self.outstanding.len();
        for range in ranges {
            let [first, last] = [range.first, range.last].map(|seq| Name { epoch, seq });
            if first > last {
                continue;
            }
            // Not the range's length decides the cost, but what is held of it: a peer may claim any range.
            while let Some((name, slot)) = self.outstanding.first_of(first, last) {
                self.settle(name, slot, now);
            }
        }
        before - self.outstanding.len()
    }

    fn settle(&mut self, name: Name, slot: Slot, now: Instant) {
        self.outstanding.remove(name);
        self.records.update(slot, |held| {
            held.frame = None;
            held.is_acknowledged = true;
        });
        self.retention.insert(name, slot, now);
        if !self.retention.keeps() {
            self.release(slot);
        }
    }

    /// Lets go of what was kept long enough.
    pub fn expire(&mut self, now: Instant) {
        while let Some(slot) = self.retention.next_expired(now) {
            self.release(slot);
        }
    }

    /// The aggregator will never take this batch: lets go of it and says what it held, pipeline by pipeline.
    pub fn refuse(&mut self, name: Name, disk: &impl Disk) -> Vec<(PipelineId, u64)> {
        let Some(slot) = self.outstanding.slot(name) else {
            return Vec::new();
        };
        let frame = self.frame(slot, disk);
        self.release(slot);
        let entries = frame.and_then(|frame| entries_of(&frame, &self.compactor.ladders).ok());
        entries
            .unwrap_or_default()
            .into_iter()
            .map(|entry| (entry.pipeline, entry.readings))
            .collect()
    }

    /// After a lost link nothing is under way any more.
    pub fn handle_disconnected(&mut self) {
        self.outstanding.handle_disconnected();
        self.admission.handle_disconnected();
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
                .any(|range| range.first <= name.seq && name.seq <= range.last)
        };
        let is_missing = |name: &Name| is_own(name.epoch) && !is_committed(name);
        let missing = self.retention.iter().filter(|(name, _)| is_missing(name));
        let missing: Vec<(Name, Slot)> = missing.collect();
        for (name, slot) in missing {
            self.retention.remove(name);
            self.outstanding.insert(name, slot);
            self.account.resent += 1;
            self.records.update(slot, |held| held.is_acknowledged = false);
        }
        let records = &self.records;
        self.outstanding
            .resume(|slot| records.get(slot).is_some_and(|held| held.place.is_some()));
    }

    /// What is there under a name, for the next hello. At most [`HELD_EPOCHS_MAX`] epochs, and at most `limit` ranges
    /// and epochs together; of more ranges, the gaps between the oldest of an epoch are closed, which asks about too much
    /// and never about too little.
    pub fn ranges(&self, limit: usize) -> Vec<EpochRange> {
        let kept = self.retention.iter().map(|(name, _)| name);
        let names: BTreeSet<Name> = self.outstanding.names().chain(kept).collect();
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
