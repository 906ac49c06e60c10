//! How a job finds room for what came in.
//!
//! What came in with a group of the journal is appended all at once, and only when it fits. Else the job first makes
//! room, in as many rounds as that takes: a round writes what takes the place of more than it is itself, tells the
//! journal, and removes the files that are done with, before the next one writes. Each of these writes is held against
//! what is on disk at its moment, files that are about to go included, so the files never take more than the budget: not
//! for an instant, and not if power fails between two steps. What one round has written the next may merge again: it is
//! synced before the next one's steps are taken.
//!
//! Room is made at the least cost there is: acknowledged batches go; segments that are nearly empty are moved; batches
//! are merged, step by step along the ladder; segments are moved in which less is done with; points are given up. Only
//! when nothing of all that is left does the oldest go. How fast input comes makes no difference to this: what a group
//! brings is bounded, and the source is held back while more than that waits.
//!
//! A part of the budget is kept from batches (`Log::usable`), so that what makes room always
//! finds some itself. When nothing is left that could make room, what waits is lost, and its loss is said like any
//! other. Records of losses may wait for room longer than the journal does: their readings are counted with its next
//! group.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::wire::Loss;

use super::admission::{RECORD_HEAD_MAX, Waiting};
use super::compact::{Effort, Freed};
use super::loss::{add_entry, entries_of};
use super::merge::Pass;
use super::records::{Held, Slot};
use super::{Name, RECORDS_MAX, Spool};
use crate::log::disk::Disk;

/// A segment of which one part in so many is in use is worth moving that part.
const SPARSE_PART: u64 = 4;

impl Spool {
    /// Prepares the next job for what came in before the place `until`, or for all. Says yes when that is in the log,
    /// and what the job writes fits. Else room must be made first: writes and removals, which are to be taken, and then
    /// it is to be asked again.
    pub fn prepare(&mut self, until: Option<u64>, disk: &impl Disk) -> bool {
        self.log.lower_ceiling();
        while !self.fits(until, self.log.leaving()) {
            let leaving = self.log.leaving();
            let will_fit = leaving > 0 && self.fits(until, 0);
            if self.log.is_fresh() || will_fit {
                return false;
            }
            if self.drop_retained() || self.free(disk) == Freed::Some {
                continue;
            }
            if leaving > 0 || self.log.has_writes() {
                // There is more room for what makes room once this is written and those files are gone.
                return false;
            }
            self.shed(until);
            break;
        }
        self.tidy(disk);
        self.place_all(until);
        true
    }

    /// Whether all that came in before `until` can be appended with `leaving` bytes of files still to be removed.
    fn fits(&self, until: Option<u64>, leaving: u64) -> bool {
        let (bytes, count) = self.admission.size(until);
        let placed = self.records.len() - self.admission.len();
        bytes == 0 || (self.log.fits(bytes, leaving) && placed + count <= self.records_max())
    }

    fn records_max(&self) -> usize {
        RECORDS_MAX.min((self.limits.bytes / 64) as usize)
    }

    /// Bytes that may be written to make room.
    pub(super) fn room(&self) -> u64 {
        self.log.room()
    }

    /// Makes room, without a loss if that can be.
    fn free(&mut self, disk: &impl Disk) -> Freed {
        let gentle: [fn(&mut Self, &_) -> Freed; 4] = [
            |spool, disk| spool.clean(disk, Effort::Full),
            |spool, disk| spool.compact(disk, Effort::Full, usize::MAX),
            Self::move_oldest,
            |spool, disk| spool.compact(disk, Effort::Points, usize::MAX),
        ];
        for attempt in gentle {
            let freed = attempt(self, disk);
            let may_come = freed == Freed::TooTight && (self.log.leaving() > 0 || self.log.has_writes());
            // Nothing is dropped as long as room might be made in a gentler way.
            if freed == Freed::Some || may_come {
                return freed;
            }
        }
        self.drop_oldest(disk)
    }

    /// Merges before it is urgent: that needs some room itself.
    fn tidy(&mut self, disk: &impl Disk) {
        if self.is_over(5, 8) && self.clean(disk, Effort::Gentle) != Freed::Some {
            self.compact(disk, Effort::Gentle, 1);
        }
    }

    /// Whether more than this part of what batches may take is used, acknowledged ones aside.
    pub(super) fn is_over(&self, part: u64, of: u64) -> bool {
        let used = self.log.bytes().saturating_sub(self.records.sizes().kept);
        let held = self.records.len() - self.retention.len();
        used > self.log.usable() * part / of || held > self.records_max() * part as usize / of as usize
    }

    /// Lets the oldest segment go that holds only acknowledged batches.
    fn drop_retained(&mut self) -> bool {
        let is_kept = |slot: &Slot| self.records.get(*slot).is_some_and(|held| held.is_acknowledged);
        let oldest = { self.log.segments() }
            .find(|(_, segment)| !segment.live.is_empty() && segment.live.iter().all(is_kept))
            .map(|(number, segment)| (number, segment.live.clone()));
        let Some((number, slots)) = oldest else {
            return false;
        };
        if number == self.log.current() {
            self.log.begin_segment();
        }
        for slot in slots {
            self.release(slot);
        }
        true
    }

    /// After the disk said that it is full although the budget is not used up: what is only kept goes.
    pub fn handle_full(&mut self) {
        while self.drop_retained() {}
    }

    // Segments.

    /// Moves what is left in segments that are nearly empty, so that they can go; before it is urgent, of those without
    /// acknowledged batches.
    fn clean(&mut self, disk: &impl Disk, effort: Effort) -> Freed {
        let Some((segments, bytes)) = self.choose_sparse(effort) else {
            return Freed::Nothing;
        };
        if bytes + self.log.segment_bytes() > self.room() {
            return Freed::TooTight;
        }
        for segment in segments {
            self.empty(segment, disk);
        }
        Freed::Some
    }

    /// Moves what is left in the oldest segment, if enough of all that is written is done with that it pays: files wait
    /// for older ones, so that from old to new all of it comes free.
    fn move_oldest(&mut self, disk: &impl Disk) -> Freed {
        let Some((number, segment)) = self.log.segments().next() else {
            return Freed::Nothing;
        };
        let live: u64 = self.live_bytes().values().sum();
        let done = self.log.bytes().saturating_sub(live);
        let is_settled = segment.live.iter().all(|&slot| self.is_settled(slot));
        if number == self.log.current() || !is_settled || done < self.log.segment_bytes() {
            return Freed::Nothing;
        }
        if self.bytes_of(&segment.live) > self.room() {
            return Freed::TooTight;
        }
        self.empty(number, disk);
        Freed::Some
    }

    fn empty(&mut self, segment: u32, disk: &impl Disk) {
        let live = self.log.segment(segment).map(|segment| segment.live.clone());
        for slot in live.unwrap_or_default() {
            if self.records.get(slot).is_some_and(|held| held.is_acknowledged) {
                self.release(slot);
            } else if let Some(frame) = self.frame(slot, disk) {
                self.rewrite(slot, frame);
            } else {
                self.lose_damaged(slot);
            }
        }
    }

    /// What cannot be read back goes, and leaves a record of its loss.
    fn lose_damaged(&mut self, slot: Slot) {
        let name = self.records.get(slot).and_then(|held| held.name);
        if let Some(name) = name {
            self.replace_damaged(name, slot);
        } else {
            self.account.damaged += 1;
            self.release(slot);
            self.push_loss_of_unknown_size();
        }
    }

    fn is_settled(&self, slot: Slot) -> bool {
        let held = self.records.get(slot);
        held.is_none_or(|held| held.ordinal <= self.log.settled())
    }

    /// What moving these would write, at most.
    fn bytes_of(&self, slots: &BTreeSet<Slot>) -> u64 {
        let held = slots.iter().filter_map(|&slot| self.records.get(slot));
        held.filter(|held| !held.is_acknowledged)
            .map(|held| u64::from(held.length) + RECORD_HEAD_MAX)
            .sum()
    }

    /// The same, segment by segment.
    fn live_bytes(&self) -> BTreeMap<u32, u64> {
        let segments = self.log.segments();
        segments
            .map(|(number, segment)| (number, self.bytes_of(&segment.live)))
            .collect()
    }

    /// Segments to empty, and the bytes to move: one that is sparse by itself, or the oldest ones, if little is left in
    /// them and in those that wait for them alone.
    fn choose_sparse(&self, effort: Effort) -> Option<(Vec<u32>, u64)> {
        let live = self.live_bytes();
        let of = |number: u32| live.get(&number).copied().unwrap_or(0);
        let may_move = |slot: Slot| {
            let held = self.records.get(slot);
            let is_kept = held.is_some_and(|held| held.is_acknowledged);
            self.is_settled(slot) && (effort > Effort::Gentle || !is_kept)
        };
        let can_go = |number: u32| {
            let segment = self.log.segment(number);
            number != self.log.current()
                && segment.is_some_and(|segment| segment.live.iter().all(|&slot| may_move(slot)))
        };
        let sparse = self.log.segments().find(|(number, segment)| {
            // What names or replaces records elsewhere must outlive those.
            segment.after.is_empty() && of(*number) * SPARSE_PART <= segment.bytes && can_go(*number)
        });
        if let Some((number, _)) = sparse {
            return Some((vec![number], of(number)));
        }
        let (mut oldest, mut moved, mut freed) = (Vec::new(), 0, 0);
        for (number, segment) in self.log.segments() {
            if moved > self.room() || !can_go(number) {
                return None;
            }
            oldest.push(number);
            (moved, freed) = (moved + of(number), freed + segment.bytes);
            if moved * SPARSE_PART <= freed + self.waiting_for(&oldest) {
                return Some((oldest, moved));
            }
        }
        None
    }

    /// Bytes of segments in which nothing is left, and that wait for these alone.
    fn waiting_for(&self, oldest: &[u32]) -> u64 {
        let mut gone: BTreeSet<u32> = oldest.iter().copied().collect();
        let mut bytes = 0;
        for (number, segment) in self.log.segments() {
            let is_empty = segment.live.is_empty() && number != self.log.current() && !gone.contains(&number);
            if is_empty && segment.after.is_subset(&gone) {
                gone.insert(number);
                bytes += segment.bytes;
            }
        }
        bytes
    }

    // What came in.

    /// Appends what came in before `until`, except losses that there is no room for.
    fn place_all(&mut self, until: Option<u64>) {
        for waiting in self.admission.take(until) {
            let fits = self.log.fits(waiting.bytes, self.log.leaving());
            if waiting.is_loss && !fits {
                self.admission.wait_for_room(waiting);
                continue;
            }
            // Peers may say of anything that they have it, or that they do not want it.
            let held = self.records.get(waiting.slot);
            let name = held.filter(|held| !held.is_acknowledged).map(|held| held.name);
            let Some((name, ordinal)) = name.and_then(|name| Some((name, self.place(waiting.slot)?))) else {
                self.release(waiting.slot);
                continue;
            };
            if let Some(name) = name {
                self.outstanding.send_when_durable(ordinal, name, waiting.lane);
            }
        }
    }

    /// Of what came in before `until`, makes what can be made smaller, and then lets the oldest go until the rest fits,
    /// and leaves records of its loss.
    fn shed(&mut self, until: Option<u64>) {
        let all = self.admission.take(until);
        let mut left: u64 = all.iter().map(|waiting| waiting.bytes).sum();
        let (mut kept, mut entries, mut first) = (Vec::new(), Vec::new(), None);
        for mut waiting in all {
            let fits = |left: u64| self.log.fits(left, self.log.leaving());
            if waiting.is_loss || fits(left) {
                kept.push(waiting);
                continue;
            }
            left -= waiting.bytes;
            waiting.bytes = self.shrink(waiting);
            if self.log.fits(left + waiting.bytes, self.log.leaving()) {
                left += waiting.bytes;
                kept.push(waiting);
                continue;
            }
            let Some(held) = self.records.get(waiting.slot) else {
                continue;
            };
            let (name, frame) = (held.name, held.frame.clone());
            self.release(waiting.slot);
            let lost = frame.and_then(|frame| entries_of(&frame, &self.compactor.ladders).ok());
            self.account.lose(lost.as_deref());
            let lost = lost.unwrap_or_default();
            if let Some(name) = name {
                let loss = Loss {
                    epoch: name.epoch,
                    seq: name.seq,
                    entries: lost,
                };
                let held = Held::waiting(loss.emit().into(), Some(name), true);
                kept.push(self.hold(waiting.slot, held, waiting.lane));
            } else {
                first.get_or_insert(waiting.slot);
                for entry in lost {
                    add_entry(&mut entries, entry);
                }
            }
        }
        for waiting in kept.into_iter().rev() {
            self.admission.push_front(waiting);
        }
        if let Some(first) = first {
            let loss = Loss {
                epoch: 0,
                seq: 0,
                entries,
            };
            // In the place of what it tells of, before what came later.
            let held = Held::waiting(loss.emit().into(), None, true);
            let waiting = self.hold(first, held, super::Lane::Backlog);
            self.admission.push_front(waiting);
        }
    }

    /// Takes what waits to the end of the ladder, if that makes it smaller; returns what it takes on disk then.
    fn shrink(&mut self, waiting: Waiting) -> u64 {
        let Some(held) = self.records.get(waiting.slot) else {
            return waiting.bytes;
        };
        let (name, Some(frame)) = (held.name, held.frame.clone()) else {
            return waiting.bytes;
        };
        let stage = self.compactor.ladders.last();
        let mut pass = Pass::new(&self.compactor.ladders, stage);
        pass.take(Some(&frame));
        let outcome = pass.finish();
        let [smaller] = &outcome.frames[..] else {
            return waiting.bytes;
        };
        if outcome.damaged > 0 || smaller.len() >= frame.len() {
            return waiting.bytes;
        }
        let Name { epoch, seq } = name.unwrap_or(Name { epoch: 0, seq: 0 });
        let mut renamed = Vec::with_capacity(smaller.len() + 16);
        if catchment_common::wire::rename(smaller, epoch, seq, &mut renamed).is_err() {
            return waiting.bytes;
        }
        self.account.give_up_points(&outcome.pointless);
        let length = renamed.len() as u32;
        self.records.update(waiting.slot, |held| {
            (held.length, held.stage) = (length, stage);
            held.frame = Some(renamed.into());
        });
        u64::from(length) + RECORD_HEAD_MAX
    }
}
