//! Reading the spool back at a start.
//!
//! Segments are read in order. The log is cut off where the journal's history ends: what was written after that was
//! never sent, and its readings are in the journal still. What merged or replaced records counts only when it is
//! complete, and then what it replaced does not. Batches stay on disk; what is kept in memory is where they are.

use super::record::{Record, take_slots};
use super::{Held, Lane, Limits, Name, Slot, Spool};
use crate::log::disk::{Disk, DiskFault, File, Step, frame};
use catchment_common::wire::Loss;

/// Largest segment file that is read.
const SEGMENT_FILE_MAX: u64 = 64 << 20;

/// What a start found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// Batches held.
    pub batches: usize,
    /// Segments that end in a torn or damaged record.
    pub damaged: usize,
    /// Records after the journal's history, which are cut off.
    pub cut_off: usize,
    /// Records that were durable cannot be read back: something is lost. A torn tail is not that.
    pub lost: bool,
}

impl Spool {
    /// The spool on this disk, up to the record that the journal knows (`through`), or all of it when there is no
    /// journal to ask.
    pub fn recover(
        limits: Limits,
        through: Option<u64>,
        disk: &impl Disk,
    ) -> Result<(Self, Recovered), DiskFault> {
        let files: Vec<(u32, u64)> = disk
            .list()?
            .into_iter()
            .filter_map(|(file, length)| match file {
                File::Spool(number) => Some((number, length)),
                File::Journal(_) => None,
            })
            .collect();
        let next_segment = files.last().map_or(1, |&(number, _)| number + 1);
        let mut spool = Self::new(limits, next_segment);
        spool.ordinal = through.unwrap_or(0);
        let mut reader = Reader {
            spool: &mut spool,
            through: through.unwrap_or(u64::MAX),
            found: Recovered::default(),
            parts: Vec::new(),
            cut: false,
            last: 0,
            gap: false,
        };
        for &(number, length) in &files {
            reader.segment(number, length, disk);
        }
        reader.settle(through.map_or(0, |through| through + 1));
        let mut found = reader.found;
        let kept = files
            .iter()
            .filter(|(number, _)| spool.segments.contains_key(number));
        let syncs: Vec<Step> = kept.map(|&(number, _)| Step::Sync(File::Spool(number))).collect();
        spool.first_steps.splice(..0, syncs);
        spool.finish_recovery();
        found.batches = spool.len();
        Ok((spool, found))
    }

    /// What was read may be what a killed process wrote and never synced, and the next power failure may take it. So
    /// nothing is sent, merged or dropped before the first job has synced all of it.
    fn finish_recovery(&mut self) {
        self.recovered = self.ordinal;
        let mut oldest_first: Vec<(Slot, Name)> =
            self.held.iter().map(|(&name, &slot)| (slot, name)).collect();
        oldest_first.sort_unstable();
        self.fresh = oldest_first
            .into_iter()
            .map(|(_, name)| (self.ordinal, name, Lane::Backlog))
            .collect();
        for held in self.records.values() {
            if let Some(segment) = self.segments.get_mut(&held.segment) {
                segment.live += 1;
            }
        }
        let numbers: Vec<u32> = self.segments.keys().copied().collect();
        for number in numbers {
            self.drop_if_done(number);
        }
        if self.bytes > self.limits.bytes {
            // The budget was made smaller: to come down to it takes some writing too.
            self.ceiling = self.bytes + 3 * self.segment_bytes();
        }
    }
}

struct Reader<'s> {
    spool: &'s mut Spool,
    through: u64,
    found: Recovered,
    /// Parts of a merge that is not complete yet.
    parts: Vec<(Slot, Held)>,
    cut: bool,
    /// The last ordinal read.
    last: u64,
    /// A segment ended in damage after it.
    gap: bool,
}

impl Reader<'_> {
    /// Ordinals have no gaps: if the `next` after damage is not the one that follows, what lay between is lost.
    fn settle(&mut self, next: u64) {
        self.found.lost |= std::mem::take(&mut self.gap) && self.last > 0 && next > self.last + 1;
    }

    fn segment(&mut self, number: u32, length: u64, disk: &impl Disk) {
        let file = File::Spool(number);
        if self.cut {
            self.spool.first_steps.push(Step::Remove(file));
            return;
        }
        let mut segment = super::Segment::default();
        let bytes = disk
            .read(file, 0, length.min(SEGMENT_FILE_MAX) as usize)
            .unwrap_or_default();
        let mut at = 0;
        while let Some(body) = frame::body(&bytes[at..]) {
            let body_at = at + frame::HEAD;
            let Ok(record) = Record::parse(body) else {
                break;
            };
            if record.ordinal() > self.through {
                self.found.cut_off += 1;
                self.cut = true;
                break;
            }
            self.settle(record.ordinal());
            self.last = record.ordinal();
            at = body_at + body.len();
            self.spool.ordinal = self.spool.ordinal.max(record.ordinal());
            self.record(number, body_at, body, record, &mut segment);
        }
        if self.cut {
            self.spool.first_steps.push(Step::Truncate {
                file,
                length: at as u64,
            });
            self.spool.first_steps.push(Step::Sync(file));
        } else if at < bytes.len() || (bytes.len() as u64) < length {
            self.found.damaged += 1;
            self.gap = true;
        }
        segment.bytes = if self.cut { at as u64 } else { length };
        self.spool.bytes += segment.bytes;
        segment.after.remove(&number);
        self.spool.segments.insert(number, segment);
    }

    fn record(
        &mut self,
        segment: u32,
        body_at: usize,
        body: &[u8],
        record: Record<'_>,
        own: &mut super::Segment,
    ) {
        match record {
            Record::Batch {
                ordinal,
                slot,
                last,
                from,
                stage,
                name,
                frame,
            } => {
                self.spool.next_number = self.spool.next_number.max(slot.number + 1);
                let held = stored(segment, body_at + body.len(), ordinal, stage, name, frame);
                if slot.part == 0 {
                    self.insert(slot, held, own);
                    return;
                }
                self.parts.push((slot, held));
                if last {
                    self.complete(from, slot.number, own);
                }
            }
            Record::Moved {
                ordinal,
                slot,
                stage,
                name,
                frame,
            } => {
                let held = stored(segment, body_at + body.len(), ordinal, stage, name, frame);
                self.spool.next_number = self.spool.next_number.max(slot.number + 1);
                self.remove(slot, own);
                self.insert(slot, held, own);
            }
            Record::Seal {
                ordinal: _,
                first,
                slots,
            } => {
                // They were read once already, so they are whole.
                let slots = take_slots(slots).unwrap_or_default();
                self.spool.seal_recovered(&slots, first, own);
            }
        }
    }

    /// All parts are there: they take the place of what they were made of.
    fn complete(&mut self, from: u64, to: u64, own: &mut super::Segment) {
        let parts = std::mem::take(&mut self.parts);
        if parts.first().is_some_and(|(_, held)| held.name.is_none()) {
            let range = Slot {
                number: from,
                part: 0,
            }..=Slot {
                number: to,
                part: u32::MAX,
            };
            let replaced: Vec<Slot> = self
                .spool
                .records
                .range(range)
                .filter(|(_, held)| held.name.is_none() && !held.is_loss)
                .map(|(&slot, _)| slot)
                .collect();
            for slot in replaced {
                self.remove(slot, own);
            }
        }
        for (slot, held) in parts {
            self.insert(slot, held, own);
        }
    }

    fn insert(&mut self, slot: Slot, held: Held, own: &mut super::Segment) {
        if let Some(name) = held.name {
            // The later record of a name counts.
            if let Some(&before) = self.spool.held.get(&name) {
                self.remove(before, own);
            }
            self.spool.held.insert(name, slot);
        }
        self.spool.held_bytes += u64::from(held.length);
        self.spool.records.insert(slot, held);
    }

    /// A record that the one being read, in segment `own`, takes the place of.
    fn remove(&mut self, slot: Slot, own: &mut super::Segment) {
        let Some(held) = self.spool.records.remove(&slot) else {
            return;
        };
        if let Some(name) = held.name {
            self.spool.held.remove(&name);
        }
        self.spool.held_bytes -= u64::from(held.length);
        own.after.insert(held.segment);
    }
}

impl Spool {
    /// Applies a seal that was found in segment `own`, as [`Spool::seal_all`] did when it was written. A batch that is
    /// not there any more was settled, and its file removed: its name is passed over, not given to the next.
    fn seal_recovered(&mut self, slots: &[Slot], first: Name, own: &mut super::Segment) {
        for (slot, seq) in slots.iter().zip(first.seq..) {
            self.next_number = self.next_number.max(slot.number + 1);
            let name = Name { seq, ..first };
            if let Some(held) = self.records.get_mut(slot).filter(|held| held.name.is_none()) {
                held.name = Some(name);
                own.after.insert(held.segment);
                self.held.insert(name, *slot);
            }
        }
    }
}

/// A record as it is held: its frame is the last part of a body that ends at `end` of its segment.
fn stored(segment: u32, end: usize, ordinal: u64, stage: u8, name: Option<Name>, frame: &[u8]) -> Held {
    Held {
        segment,
        at: (end - frame.len()) as u64,
        length: frame.len() as u32,
        ordinal,
        stage,
        name,
        acknowledged: false,
        is_loss: Loss::is_loss(frame),
        frame: None,
    }
}
