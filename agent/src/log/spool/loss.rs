//! The last resort: the oldest batches go, and each leaves a record of what it held.

use std::collections::BTreeSet;

use catchment_common::wire::{Batch, Loss, LossEntry, Section, StatsScratch, WireFault};

use super::admission::RECORD_HEAD_MAX;
use super::compact::Freed;
use super::ladder::Ladders;
use super::records::{Held, Records, Slot};
use super::{Lane, Name, Spool};
use crate::log::disk::Disk;

/// Entries of one record of a loss.
const LOSS_ENTRIES_MAX: usize = 256;
/// Bytes of such a record: each entry has four numbers.
pub(super) const LOSS_BYTES_MAX: u64 = RECORD_HEAD_MAX + 64 + LOSS_ENTRIES_MAX as u64 * 35;

impl Spool {
    /// Drops the oldest batches, about half a segment of them, if there is room to bring together what is left of their
    /// segments; else those of the oldest segment, as many as there is room for the records of their loss.
    pub(super) fn drop_oldest(&mut self, disk: &impl Disk) -> Freed {
        if self.room() < 2 * LOSS_BYTES_MAX {
            return Freed::TooTight;
        }
        let settled = self.log.settled();
        let droppable = |held: &Held| held.ordinal <= settled && !held.is_loss && !held.is_acknowledged;
        let all = || self.records.iter().filter(|(_, held)| droppable(held));
        let victims: Vec<Slot> = if self.room() >= self.log.segment_bytes() + 2 * LOSS_BYTES_MAX {
            let enough = self.log.segment_bytes() / 2;
            let mut bytes = 0;
            all()
                .take_while(|(_, held)| {
                    let is_next = bytes < enough;
                    bytes += u64::from(held.length);
                    is_next
                })
                .map(|(slot, _)| slot)
                .collect()
        } else {
            let oldest = all().filter_map(|(_, held)| held.segment()).min();
            all()
                .filter(|(_, held)| held.segment() == oldest)
                .map(|(slot, _)| slot)
                .collect()
        };
        if victims.is_empty() {
            return Freed::Nothing;
        }
        let segment = victims.first().and_then(|&slot| self.records.segment(slot));
        if segment == Some(self.log.current()) {
            self.log.begin_segment();
        }
        self.drop_each(&whole_numbers_or_named(&victims, &self.records), disk);
        Freed::Some
    }

    fn drop_each(&mut self, victims: &BTreeSet<Slot>, disk: &impl Disk) {
        let (mut lost, mut before) = (Unsealed::default(), u64::MAX);
        for (slot, is_victim) in self.walk(victims) {
            if !is_victim {
                self.write_loss(&mut lost);
                continue;
            }
            let name = self.records.get(slot).and_then(|held| held.name);
            let may_end = name.is_some() || slot.number != before;
            if may_end && self.room() < 2 * LOSS_BYTES_MAX {
                break;
            }
            before = slot.number;
            let frame = self.frame(slot, disk);
            let entries = frame.and_then(|frame| entries_of(&frame, &self.compactor.ladders).ok());
            self.account.lose(entries.as_deref());
            let entries = entries.unwrap_or_default();
            if let Some(name) = name {
                self.replace_by_loss(name, slot, entries);
            } else {
                lost.add(slot.number, self.records.segment(slot), entries);
                self.release(slot);
            }
        }
        self.write_loss(&mut lost);
    }

    /// Lets go of all that has no name and is at a place before this one; it may have been delivered by another. That this
    /// is lost is said once for all, so the records here only say that they took the place of it.
    pub fn forget_unsealed(&mut self, before: u64) {
        let is_victim =
            |slot: &Slot, held: &Held| slot.number < before && held.name.is_none() && !held.is_loss;
        let all = self.records.iter().filter(|(slot, held)| is_victim(slot, held));
        let (waiting, placed): (Vec<Slot>, Vec<Slot>) = { all }
            .map(|(slot, _)| slot)
            .partition(|slot| !self.is_placed(*slot));
        for slot in waiting {
            self.release(slot);
        }
        let victims: BTreeSet<Slot> = placed.into_iter().collect();
        let mut lost = Unsealed::default();
        for (slot, is_victim) in self.walk(&victims) {
            if is_victim {
                let source = self.records.segment(slot);
                lost.add(slot.number, source, Vec::new());
                self.release(slot);
            } else {
                self.write_loss(&mut lost);
            }
        }
        self.write_loss(&mut lost);
    }

    /// Lets go of all that has a name of this epoch. A restart before its files are gone brings it back.
    pub fn forget_named(&mut self, epoch: u64) {
        let is_victim = |held: &Held| held.name.is_some_and(|name| name.epoch == epoch);
        let victims: Vec<Slot> = { self.records.iter() }
            .filter(|(_, held)| is_victim(held))
            .map(|(slot, _)| slot)
            .collect();
        for slot in victims {
            self.release(slot);
        }
    }

    /// The victims in order, and between them the unsealed records that stay: a record of a loss must not reach over
    /// those.
    fn walk(&self, victims: &BTreeSet<Slot>) -> Vec<(Slot, bool)> {
        let (Some(&first), Some(&last)) = (victims.first(), victims.last()) else {
            return Vec::new();
        };
        self.records
            .range(first..=last)
            .filter(|(slot, held)| victims.contains(slot) || (held.name.is_none() && !held.is_loss))
            .map(|(slot, _)| (slot, victims.contains(&slot)))
            .collect()
    }

    fn write_loss(&mut self, lost: &mut Unsealed) {
        let Unsealed {
            range: Some((first, last)),
            entries,
            sources,
        } = std::mem::take(lost)
        else {
            return;
        };
        let loss = Loss {
            epoch: 0,
            seq: 0,
            entries,
        };
        let held = Held::waiting(loss.emit().into(), None, true);
        let written = self.write(Slot::last(last), first, true, held);
        // The parts of one number may lie in several segments, and all of them must be gone before what says that they
        // are lost is moved: there it would say so of none but itself.
        self.log.pin(written, sources);
    }

    fn replace_by_loss(&mut self, name: Name, slot: Slot, entries: Vec<LossEntry>) {
        let source = self.records.segment(slot);
        self.release(slot);
        let loss = Loss {
            epoch: name.epoch,
            seq: name.seq,
            entries,
        };
        let held = Held::waiting(loss.emit().into(), Some(name), true);
        let slot = slot.of_loss();
        let written = self.write(slot, slot.number, true, held);
        self.log.pin(written, source);
        self.outstanding
            .send_when_durable(self.log.ordinal(), name, Lane::Backlog);
    }
}

/// Unsealed batches that are dropped one after another.
#[derive(Default)]
struct Unsealed {
    range: Option<(u64, u64)>,
    entries: Vec<LossEntry>,
    /// The segments that they were in.
    sources: BTreeSet<u32>,
}

impl Unsealed {
    fn add(&mut self, number: u64, source: Option<u32>, entries: Vec<LossEntry>) {
        self.sources.extend(source);
        let (first, _) = self.range.unwrap_or((number, number));
        self.range = Some((first, number));
        for entry in entries {
            add_entry(&mut self.entries, entry);
        }
    }
}

/// All parts of each unsealed number, so that a loss takes the place of whole numbers; named records stand alone.
fn whole_numbers_or_named(victims: &[Slot], records: &Records) -> BTreeSet<Slot> {
    let mut all = BTreeSet::new();
    for &slot in victims {
        if records.get(slot).is_some_and(|held| held.name.is_some()) {
            all.insert(slot);
            continue;
        }
        let parts = records.range(Slot::first(slot.number)..=Slot::last(slot.number));
        let unsealed = parts.filter(|(_, held)| !held.is_loss && held.name.is_none());
        all.extend(unsealed.map(|(slot, _)| slot));
    }
    all
}

/// What a batch holds, pipeline by pipeline.
pub(super) fn entries_of(frame: &[u8], ladders: &Ladders) -> Result<Vec<LossEntry>, WireFault> {
    let mut entries = Vec::new();
    let (mut section, mut scratch) = (Section::default(), StatsScratch::default());
    for view in Batch::parse_unsealed(frame)?.sections() {
        view?.read(&mut section, &mut scratch)?;
        let entry = LossEntry {
            pipeline: section.pipeline,
            from: section.pane,
            to: section.pane.plus(ladders.width(section.pipeline)),
            readings: section
                .readings
                .iter()
                .fold(0, |sum, &more| u64::saturating_add(sum, more)),
        };
        add_entry(&mut entries, entry);
    }
    Ok(entries)
}

/// Adds an entry to the one of its pipeline.
pub(super) fn add_entry(entries: &mut Vec<LossEntry>, entry: LossEntry) {
    let has_room = entries.len() < LOSS_ENTRIES_MAX;
    if let Some(held) = entries.iter_mut().find(|held| held.pipeline == entry.pipeline) {
        held.from = held.from.min(entry.from);
        held.to = held.to.max(entry.to);
        held.readings = held.readings.saturating_add(entry.readings);
    } else if has_room {
        entries.push(entry);
    } else if let Some(last) = entries.last_mut() {
        // Too many pipelines for one record: the sum is kept under the last of them.
        last.readings = last.readings.saturating_add(entry.readings);
    }
}
