//! What came in and is not in the log yet, and how a job finds room for it.
//!
//! Batches wait in memory, with their names and places in time, until a job appends them: all at once, because the
//! journal's group that goes with them says that they are all there. They are appended only when they fit. Else the job
//! first makes room, in as many rounds as that takes: a round writes what takes the place of more than it is itself,
//! tells the journal, and removes the files that are done with, before the next one writes. Each of these writes is
//! held against what is on disk at its moment, files that are about to go included, so the files never take more than
//! the budget: not for an instant, and not if power fails between two steps.
//!
//! A part of the budget is kept from batches, so that what makes room always finds some itself: [`Spool::usable`].
//! When nothing is left that could make room, what waits is lost, and its loss is said like any other. Records of
//! losses may wait for room longer than the journal does: their readings are counted with its next group.

use bytes::Bytes;
use catchment_common::wire::{Loss, LossEntry};

use super::loss::{LOSS_BYTES_MAX, add_entry, entries_of};
use super::record::Record;
use super::{Held, Lane, Name, RECORDS_MAX, Slot, Spool};
use crate::log::disk::Disk;

/// The segment of what is in no segment yet.
pub(super) const UNPLACED: u32 = u32::MAX;
/// Bytes of a record besides its batch, at most: the heads of frame and record.
pub(super) const RECORD_HEAD_MAX: u64 = 64;
/// Bytes of a place in a seal, as good as always at most: the step from the one before, and the part.
const SEAL_PLACE_BYTES: u64 = 7;
/// Bytes that may wait in memory before messages are left to the broker.
const INCOMING_BYTES_MAX: u64 = 4 << 20;

/// How an attempt to make room ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Freed {
    /// There is more room, or there will be once files are gone.
    Some,
    /// It would have to write more than there is room for.
    TooTight,
    /// There was nothing to do.
    Nothing,
}

/// One batch or loss that waits for its place in the log.
#[derive(Debug)]
pub(super) struct Incoming {
    slot: Slot,
    pub(super) lane: Lane,
    is_loss: bool,
    /// What it takes on disk, at most.
    bytes: u64,
}

impl Spool {
    // What comes in.

    /// Takes a batch in: with its name, for this lane, or unsealed.
    pub fn push(&mut self, frame: Bytes, name: Option<Name>, lane: Lane) {
        let slot = self.next_slot();
        self.push_at(slot, frame, name, lane, false);
    }

    /// Tells the aggregator that something was lost, and that nothing more is known of it.
    pub fn push_loss_of_unknown_size(&mut self) {
        let slot = self.next_slot();
        self.push_loss(slot, Vec::new());
    }

    fn push_loss(&mut self, slot: Slot, entries: Vec<LossEntry>) {
        let loss = Loss {
            epoch: 0,
            seq: 0,
            entries,
        };
        self.push_at(slot, loss.emit().into(), None, Lane::Backlog, true);
    }

    fn next_slot(&mut self) -> Slot {
        let number = self.next_number;
        self.next_number += 1;
        Slot { number, part: 0 }
    }

    pub(super) fn push_at(
        &mut self,
        slot: Slot,
        frame: Bytes,
        name: Option<Name>,
        lane: Lane,
        is_loss: bool,
    ) {
        let length = frame.len() as u32;
        let bytes = u64::from(length) + RECORD_HEAD_MAX;
        self.cached += frame.len();
        self.held_bytes += u64::from(length);
        if let Some(name) = name {
            self.held.insert(name, slot);
        }
        let held = Held {
            segment: UNPLACED,
            at: 0,
            length,
            ordinal: u64::MAX,
            stage: 0,
            name,
            acknowledged: false,
            is_loss,
            frame: Some(frame),
        };
        self.records.insert(slot, held);
        self.incoming_bytes += bytes;
        self.waits_for_room = false;
        self.incoming.push_back(Incoming {
            slot,
            lane,
            is_loss,
            bytes,
        });
    }

    /// Whether a job has something to do here.
    pub fn has_work(&self) -> bool {
        self.has_writes() || !self.removals.is_empty() || !self.first_steps.is_empty()
    }

    /// Whether batches wait to become durable.
    pub fn has_writes(&self) -> bool {
        !self.writes.is_empty() || (!self.incoming.is_empty() && !self.waits_for_room)
    }

    /// Whether so much waits in memory that no more should come for now. A spool that is nearly full takes little at a
    /// time: what waits is lost if no room can be made for all of it.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.incoming_bytes > INCOMING_BYTES_MAX
            || (self.incoming_bytes > self.segment_bytes() / 2 && self.is_over(1, 1))
    }

    // The job.

    /// Prepares the next job. Says yes when all that came in is in the log, and what the job writes fits. Else room
    /// must be made first: writes and removals, which are to be taken, and then it is to be asked again.
    pub fn prepare(&mut self, disk: &impl Disk) -> bool {
        if self.bytes + self.leaving <= self.usable() {
            self.ceiling = self.limits.bytes;
        }
        while !self.fits(self.leaving) {
            let is_fresh = self.settled < self.recovered;
            let will_fit = self.leaving > 0 && self.fits(0);
            if is_fresh || will_fit {
                return false;
            }
            if self.drop_retained() {
                continue;
            }
            let freed = self.free(disk);
            if freed == Freed::Some {
                continue;
            }
            if self.leaving > 0 || !self.writes.is_empty() {
                // There is more room for what makes room once this is written and those files are gone.
                return false;
            }
            self.shed();
            break;
        }
        self.tidy(disk);
        self.place_all();
        true
    }

    /// Makes room, without a loss if that can be.
    fn free(&mut self, disk: &impl Disk) -> Freed {
        for attempt in [self.clean(disk), self.compact(disk, usize::MAX)] {
            // Nothing is dropped as long as room might be made in a gentler way.
            if attempt == Freed::Some || (attempt == Freed::TooTight && self.leaving > 0) {
                return attempt;
            }
        }
        self.drop_oldest(disk)
    }

    /// Merges before it is urgent: that needs some room itself.
    fn tidy(&mut self, disk: &impl Disk) {
        if self.is_over(5, 8) && !self.drop_retained() && self.clean(disk) != Freed::Some {
            self.compact(disk, 1);
        }
    }

    /// Bytes that batches may take. The rest is for what makes room, and for seals: of [`RECORDS_MAX`] records, or of
    /// as many as a small spool may have, the places take [`SEAL_PLACE_BYTES`] each.
    pub(super) fn usable(&self) -> u64 {
        self.limits.bytes - 3 * self.segment_bytes()
    }

    /// Bytes that may still be written, those of batches that wait left free.
    pub(super) fn room(&self) -> u64 {
        let waiting = if self.fits(self.leaving) {
            self.incoming_bytes
        } else {
            0
        };
        self.ceiling.saturating_sub(self.bytes + self.leaving + waiting)
    }

    /// Whether all that came in can be appended with `leaving` bytes of files still to be removed.
    fn fits(&self, leaving: u64) -> bool {
        let is_small = self.bytes + leaving + self.incoming_bytes <= self.usable();
        self.incoming_bytes == 0 || (is_small && self.records.len() <= self.records_max())
    }

    pub(super) fn records_max(&self) -> usize {
        RECORDS_MAX.min((self.limits.bytes / 64) as usize)
    }

    /// Appends what came in, except losses that there is no room for.
    fn place_all(&mut self) {
        self.placed.clear();
        self.placed_after = self.ordinal;
        for _ in 0..self.incoming.len() {
            let Some(incoming) = self.incoming.pop_front() else {
                break;
            };
            let fits = self.bytes + self.leaving + incoming.bytes <= self.usable();
            if incoming.is_loss && !fits {
                self.waits_for_room = true;
                self.incoming.push_back(incoming);
                continue;
            }
            self.incoming_bytes -= incoming.bytes;
            self.place(incoming.slot, incoming.lane);
        }
    }

    fn place(&mut self, slot: Slot, lane: Lane) {
        // Peers may say of anything that they have it, or that they do not want it.
        let held = self.records.get_mut(&slot).filter(|held| !held.acknowledged);
        let Some((name, frame)) = held.and_then(|held| Some((held.name, held.frame.take()?))) else {
            return self.release(slot);
        };
        self.ordinal += 1;
        let ordinal = self.ordinal;
        let record = Record::Batch {
            ordinal,
            slot,
            last: true,
            from: slot.number,
            stage: 0,
            name,
            frame: &frame,
        };
        let (segment, at) = self.append(&record, frame.len());
        if let Some(held) = self.records.get_mut(&slot) {
            (held.segment, held.at, held.ordinal) = (segment, at, ordinal);
            held.frame = Some(frame);
        }
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live += 1;
        }
        self.placed.push((slot.number, ordinal));
        if let Some(name) = name {
            self.fresh.push_back((ordinal, name, lane));
        }
    }

    /// The place of the next batch in time.
    pub fn next_place(&self) -> u64 {
        self.next_number
    }

    /// The ordinal of the last record that the job in the making has before the batch at the place `until`; without
    /// one, of its last record.
    pub fn ordinal_before(&self, until: Option<u64>) -> u64 {
        let Some(until) = until else {
            return self.ordinal;
        };
        let before = { self.placed.iter() }.take_while(|(number, _)| *number < until);
        before.last().map_or(self.placed_after, |&(_, ordinal)| ordinal)
    }

    /// Lets the oldest of what came in go until the rest fits, and leaves records of its loss.
    fn shed(&mut self) {
        let (mut entries, mut first) = (Vec::new(), None);
        for incoming in std::mem::take(&mut self.incoming) {
            let is_victim = !incoming.is_loss && !self.fits(self.leaving);
            if !is_victim {
                self.incoming.push_back(incoming);
                continue;
            }
            self.incoming_bytes -= incoming.bytes;
            let Some(held) = self.records.get(&incoming.slot) else {
                continue;
            };
            let (name, frame) = (held.name, held.frame.clone());
            self.release(incoming.slot);
            let lost = frame.and_then(|frame| entries_of(&frame, &self.ladders).ok());
            self.damaged += u64::from(lost.is_none());
            let lost = lost.unwrap_or_default();
            for entry in &lost {
                *self.lost.entry(entry.pipeline).or_default() += entry.readings;
            }
            if let Some(name @ Name { epoch, seq }) = name {
                let loss = Loss {
                    epoch,
                    seq,
                    entries: lost,
                };
                self.push_at(incoming.slot, loss.emit().into(), Some(name), incoming.lane, true);
            } else {
                first.get_or_insert(incoming.slot);
                for entry in lost {
                    add_entry(&mut entries, entry);
                }
            }
        }
        if let Some(first) = first {
            self.push_loss(first, entries);
            // In the place of what it tells of, before what came later.
            self.incoming.rotate_right(1);
        }
    }

    /// Whether a record has its place in the log.
    pub(super) fn is_placed(&self, slot: Slot) -> bool {
        self.records
            .get(&slot)
            .is_some_and(|held| held.segment != UNPLACED)
    }

    /// Leaves out of a seal what it has no room for: it is sealed later.
    pub(super) fn fit_seal(&self, slots: &mut Vec<Slot>) {
        let room = self.ceiling.saturating_sub(self.bytes + self.leaving);
        let most = room.saturating_sub(RECORD_HEAD_MAX + 2 * LOSS_BYTES_MAX) / SEAL_PLACE_BYTES;
        slots.truncate(most as usize);
    }
}
