//! From what is held to the log and back: records are written, written again, read, and let go of.

use bytes::Bytes;
use catchment_common::wire::{claimed_name, rename, sealed_name};

use super::record::{Entry, Record, Replaced};
use super::records::{Held, Slot};
use super::{Name, Spool};
use crate::log::disk::{Disk, File};

impl Spool {
    /// Writes a record that takes the place of all unsealed ones from this number on, once its last part is there;
    /// returns its segment.
    pub(super) fn write(&mut self, slot: Slot, from: u64, is_last: bool, mut held: Held) -> u32 {
        let Some(frame) = held.frame.clone() else {
            return self.log.current();
        };
        let ordinal = self.log.next_ordinal();
        let entry = entry(ordinal, slot, &held, &frame);
        let record = Record::Batch(entry, Replaced { from, is_last });
        let place = self.log.append(&record, frame.len());
        (held.place, held.ordinal) = (Some(place), ordinal);
        if let Some(name) = held.name {
            self.outstanding.insert(name, slot);
        }
        self.records.insert(slot, held);
        self.log.add(place.segment, slot);
        place.segment
    }

    /// Writes what waited for its place.
    pub(super) fn place(&mut self, slot: Slot) -> Option<u64> {
        let held = self.records.get(slot)?;
        let frame = held.frame.clone()?;
        let ordinal = self.log.next_ordinal();
        let record = Record::closed(entry(ordinal, slot, held, &frame));
        let place = self.log.append(&record, frame.len());
        self.records.set_place(slot, place, ordinal);
        self.log.add(place.segment, slot);
        Some(ordinal)
    }

    /// Writes a record again, as it is, in the current segment.
    pub(super) fn rewrite(&mut self, slot: Slot, frame: Bytes) {
        let ordinal = self.log.next_ordinal();
        let Some(held) = self.records.get(slot) else {
            return;
        };
        let record = Record::Moved(entry(ordinal, slot, held, &frame));
        let before = held.segment();
        let place = self.log.append(&record, frame.len());
        self.records.update(slot, |held| {
            (held.place, held.ordinal) = (Some(place), ordinal);
            held.length = frame.len() as u32;
            held.frame = Some(frame);
        });
        self.log.add(place.segment, slot);
        if let Some(before) = before {
            // Its file may have been the last to say under which name this is.
            self.log.pin(place.segment, [before]);
            self.log.remove(before, slot);
        }
    }

    /// A record is done with.
    pub(super) fn release(&mut self, slot: Slot) {
        let Some(held) = self.records.remove(slot) else {
            return;
        };
        if let Some(name) = held.name {
            // A later record may have taken over the name.
            if self.outstanding.slot(name) == Some(slot) {
                self.outstanding.remove(name);
            }
            if self.retention.slot(name) == Some(slot) {
                self.retention.remove(name);
            }
        }
        if let Some(segment) = held.segment()
            && self.log.remove(segment, slot)
        {
            self.admission.find_room();
        }
    }

    /// A record's frame under its own name, from memory or disk; `None` when it cannot be read back whole.
    pub(super) fn frame(&self, slot: Slot, disk: &impl Disk) -> Option<Bytes> {
        let held = self.records.get(slot)?;
        let name = held.name.unwrap_or(Name { epoch: 0, seq: 0 });
        let is_checked = held.frame.is_some();
        let read = || {
            let place = held.place?;
            let file = File::Spool(place.segment);
            disk.read(file, place.at, held.length as usize).ok()
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
}

fn entry<'b>(ordinal: u64, slot: Slot, held: &Held, frame: &'b [u8]) -> Entry<'b> {
    Entry {
        ordinal,
        slot,
        stage: held.stage,
        name: held.name,
        frame,
    }
}
