//! What goes out: batches to the link, each under its name, and steps to the disk.

use std::collections::BTreeSet;

use bytes::Bytes;
use catchment_common::wire::{Loss, claimed_name, rename, sealed_name};

use super::incoming::RECORD_HEAD_MAX;
use super::{Lane, Name, Slot, Spool};
use crate::log::disk::{Disk, File, Step};

impl Spool {
    /// The epochs that something is held of, or kept.
    pub fn epochs(&self) -> BTreeSet<u64> {
        let names = self.held.keys().chain(self.retained.keys());
        names.map(|name| name.epoch).collect()
    }

    /// The largest seq of an epoch that is held or kept; 0 for none.
    pub fn last_seq(&self, epoch: u64) -> u64 {
        let all = Name { epoch, seq: 0 }..=Name { epoch, seq: u64::MAX };
        let held = self.held.range(all.clone()).next_back();
        let kept = self.retained.range(all).next_back();
        let last = held.into_iter().chain(kept).map(|(name, _)| name.seq).max();
        last.unwrap_or(0)
    }

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
            let queue = match lane {
                Lane::Live => &mut self.live,
                Lane::Backlog => &mut self.backlog,
            };
            let name = queue.pop_front()?;
            // Batches that were settled while they waited are passed over.
            let Some(&slot) = self.held.get(&name) else {
                continue;
            };
            let Some(frame) = self.frame(slot, disk) else {
                self.replace_damaged(name, slot);
                continue;
            };
            if let Some(held) = self.records.get_mut(&slot) {
                self.cached -= held.frame.take().map_or(0, |frame| frame.len());
            }
            return Some(frame);
        }
    }

    /// A record's frame under its own name, from memory or disk; `None` when it cannot be read back whole.
    pub(super) fn frame(&self, slot: Slot, disk: &impl Disk) -> Option<Bytes> {
        let held = self.records.get(&slot)?;
        let name = held.name.unwrap_or(Name { epoch: 0, seq: 0 });
        let is_checked = held.frame.is_some();
        let read = || {
            disk.read(File::Spool(held.segment), held.at, held.length as usize)
                .ok()
        };
        let stored = held.frame.clone().or_else(read)?;
        // A batch that was named when it closed goes out as it is; what has been on disk is checked first.
        let is_named = claimed_name(&stored) == Some((name.epoch, name.seq));
        if is_named && (is_checked || sealed_name(&stored).is_ok()) {
            return Some(stored);
        }
        let mut frame = Vec::with_capacity(stored.len() + 16);
        rename(&stored, name.epoch, name.seq, &mut frame).ok()?;
        Some(frame.into())
    }

    /// What a batch held is not known any more: its name must be settled all the same.
    pub(super) fn replace_damaged(&mut self, name: Name, slot: Slot) {
        self.damaged += 1;
        let number = slot.number;
        let source = self.records.get(&slot).map(|held| held.segment);
        self.release(slot);
        let empty = Loss {
            epoch: name.epoch,
            seq: name.seq,
            entries: Vec::new(),
        };
        let slot = Slot {
            number,
            part: u32::MAX - 1 - slot.part,
        };
        let frame = Bytes::from(empty.emit());
        // The file of what is replaced may go with the next job, so this had better not wait.
        if self.room() < frame.len() as u64 + RECORD_HEAD_MAX {
            return self.push_at(slot, frame, Some(name), Lane::Backlog, true);
        }
        let written = self.write(slot, true, number, 0, Some(name), frame, true);
        self.pin(written, source.into_iter().collect());
        self.fresh.push_back((self.ordinal, name, Lane::Backlog));
    }

    /// The steps of the next job, or of its next round, that must come before the journal's.
    pub fn take_writes(&mut self, steps: &mut Vec<Step>) {
        steps.append(&mut self.first_steps);
        self.settled = self.settled.max(self.recovered);
        for (segment, at, bytes) in self.writes.drain(..) {
            let file = File::Spool(segment);
            steps.push(Step::Write {
                file,
                at,
                bytes: bytes.into(),
            });
            steps.push(Step::Sync(file));
        }
    }

    /// The steps of the next job, or of its next round, that may come last.
    pub fn take_removals(&mut self, steps: &mut Vec<Step>) {
        self.leaving = 0;
        steps.append(&mut self.removals);
    }
}
