//! Reading the spool back at a start.
//!
//! Segments are read in order. The log is cut off where the journal's history ends: what was written after that was
//! never sent, and its readings are in the journal still. What merged or replaced records counts only when it is
//! complete, and then what it replaced does not. Batches stay on disk; what is kept in memory is where they are.
//!
//! Nothing that is on the disk can stop a start. A record that is torn or damaged ends its segment. One that is whole
//! and says what cannot be, or what this software does not know, is passed over: what it held is reported as lost, and
//! its file is set aside for whoever can read it, once all else in it is done with.

use super::log::{Log, Segment};
use super::record::{Entry, Record, Replaced, take_slots};
use super::records::{Held, Place, Slot};
use super::{Limits, Name, Spool};
use crate::log::disk::{Disk, DiskFault, File, Step, frame};
use catchment_common::wire::Loss;

/// Largest segment file that is read.
const SEGMENT_FILE_MAX: u64 = 64 << 20;
/// Parts of a batch count up from 1, and places of losses down from the other end; none comes near the middle.
const PART_MIDDLE: u32 = u32::MAX / 2;

/// What a start found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// Batches held.
    pub batches: usize,
    /// Segments that end in a torn or damaged record.
    pub damaged: usize,
    /// Records that are whole and not understood. Their files are set aside.
    pub odd: usize,
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
        let next_segment = files.last().map_or(1, |&(number, _)| number.saturating_add(1));
        let log = Log::new(limits.bytes, next_segment, through.unwrap_or(0));
        let mut reader = Reader {
            spool: Self::with_log(limits, log),
            through: through.unwrap_or(u64::MAX),
            found: Recovered::default(),
            parts: Vec::new(),
            steps: Vec::new(),
            cut: false,
            last: 0,
            gap: false,
        };
        for &(number, length) in &files {
            reader.segment(number, length, disk);
        }
        reader.settle(through.map_or(0, |through| through.saturating_add(1)));
        Ok(reader.finish())
    }

    /// Applies a seal that was found in segment `own`, as [`Spool::seal`] did when it was written. A batch that is not
    /// there any more was settled, and its file removed: its name is passed over, not given to the next.
    fn seal_recovered(&mut self, slots: &[Slot], first: Name, own: &mut Segment) {
        for (&slot, seq) in slots.iter().zip(first.seq..) {
            self.admission.note_number(slot.number);
            let name = Name { seq, ..first };
            let is_free = self.records.get(slot).is_some_and(|held| held.name.is_none());
            if is_free && self.outstanding.slot(name).is_none() {
                self.records.update(slot, |held| held.name = Some(name));
                own.after.extend(self.records.segment(slot));
                self.outstanding.insert(name, slot);
            }
        }
    }
}

struct Reader {
    spool: Spool,
    through: u64,
    found: Recovered,
    /// Parts of a merge that is not complete yet.
    parts: Vec<(Slot, Held)>,
    /// What the first job does to files that were cut off.
    steps: Vec<Step>,
    cut: bool,
    /// The last ordinal read.
    last: u64,
    /// A segment ended in damage after it.
    gap: bool,
}

impl Reader {
    /// Ordinals have no gaps: if the `next` after damage is not the one that follows, what lay between is lost.
    fn settle(&mut self, next: u64) {
        self.found.lost |= std::mem::take(&mut self.gap) && self.last > 0 && next > self.last + 1;
    }

    fn segment(&mut self, number: u32, length: u64, disk: &impl Disk) {
        let file = File::Spool(number);
        if self.cut {
            self.steps.push(Step::Remove(file));
            return;
        }
        let mut segment = Segment::default();
        let bytes = disk
            .read(file, 0, length.min(SEGMENT_FILE_MAX) as usize)
            .unwrap_or_default();
        let mut at = 0;
        while let Some(body) = frame::body(&bytes[at..]) {
            let body_at = at + frame::HEAD;
            let end = body_at + body.len();
            let Some(record) = understood(body) else {
                self.found.odd += 1;
                self.found.lost = true;
                segment.is_odd = true;
                at = end;
                continue;
            };
            if record.ordinal() > self.through {
                self.found.cut_off += 1;
                self.cut = true;
                break;
            }
            self.settle(record.ordinal());
            self.last = record.ordinal();
            self.spool.log.note_ordinal(self.last);
            at = end;
            self.record(number, end, record, &mut segment);
        }
        if self.cut {
            self.steps.push(Step::Truncate {
                file,
                length: at as u64,
            });
            self.steps.push(Step::Sync(file));
        } else if at < bytes.len() || (bytes.len() as u64) < length {
            self.found.damaged += 1;
            self.gap = true;
        }
        segment.bytes = if self.cut { at as u64 } else { length };
        segment.after.remove(&number);
        self.spool.log.restore(number, segment);
    }

    fn record(&mut self, segment: u32, end: usize, record: Record<'_>, own: &mut Segment) {
        match record {
            Record::Batch(entry, Replaced { from, is_last }) => {
                self.spool.admission.note_number(entry.slot.number);
                let held = stored(segment, end, &entry);
                if entry.slot.part == 0 {
                    return self.insert(entry.slot, held, own);
                }
                self.parts.push((entry.slot, held));
                if is_last {
                    self.complete(from, entry.slot.number, own);
                }
            }
            Record::Moved(entry) => {
                self.spool.admission.note_number(entry.slot.number);
                self.insert(entry.slot, stored(segment, end, &entry), own);
            }
            Record::Seal { first, slots, .. } => {
                // They were read once already, so they are whole.
                let slots = take_slots(slots).unwrap_or_default();
                self.spool.seal_recovered(&slots, first, own);
            }
        }
    }

    /// All parts are there: they take the place of what they were made of.
    fn complete(&mut self, from: u64, to: u64, own: &mut Segment) {
        let parts = std::mem::take(&mut self.parts);
        if parts.first().is_some_and(|(_, held)| held.name.is_none()) {
            let all = self.spool.records.range(Slot::first(from)..=Slot::last(to));
            let replaced: Vec<Slot> = all
                .filter(|(_, held)| held.name.is_none() && !held.is_loss)
                .map(|(slot, _)| slot)
                .collect();
            for slot in replaced {
                self.remove(slot, own);
            }
        }
        for (slot, held) in parts {
            self.insert(slot, held, own);
        }
    }

    /// A record that counts: of its place and of its name the later one does.
    fn insert(&mut self, slot: Slot, held: Held, own: &mut Segment) {
        self.remove(slot, own);
        if let Some(name) = held.name {
            if let Some(before) = self.spool.outstanding.slot(name) {
                self.remove(before, own);
            }
            self.spool.outstanding.insert(name, slot);
        }
        self.spool.records.insert(slot, held);
    }

    /// A record that the one being read, in segment `own`, takes the place of.
    fn remove(&mut self, slot: Slot, own: &mut Segment) {
        let Some(held) = self.spool.records.remove(slot) else {
            return;
        };
        if let Some(name) = held.name
            && self.spool.outstanding.slot(name) == Some(slot)
        {
            self.spool.outstanding.remove(name);
        }
        own.after.extend(held.segment());
    }

    /// What was read may be what a killed process wrote and never synced, and the next power failure may take it. So
    /// nothing is sent, merged or dropped before the first job has synced all of it.
    fn finish(self) -> (Spool, Recovered) {
        let Self {
            mut spool,
            mut found,
            steps,
            ..
        } = self;
        let places = spool.records.iter();
        let places = places.filter_map(|(slot, held)| Some((slot, held.segment()?)));
        let places: Vec<(Slot, u32)> = places.collect();
        for (slot, segment) in places {
            spool.log.add(segment, slot);
        }
        let files: Vec<u32> = spool.log.segments().map(|(number, _)| number).collect();
        for number in files {
            spool.log.do_first(Step::Sync(File::Spool(number)));
        }
        for step in steps {
            spool.log.do_first(step);
        }
        spool.log.finish_recovery();
        let ordinal = spool.log.ordinal();
        spool.outstanding.send_all_when_durable(ordinal);
        found.batches = spool.len();
        (spool, found)
    }
}

/// A record, unless it says what cannot be.
fn understood(body: &[u8]) -> Option<Record<'_>> {
    let record = Record::parse(body).ok()?;
    let is_odd = match &record {
        Record::Batch(entry, _) | Record::Moved(entry) => {
            entry.slot.part > PART_MIDDLE && !Loss::is_loss(entry.frame)
        }
        Record::Seal { .. } => false,
    };
    (!is_odd).then_some(record)
}

/// A record as it is held: its frame is the last part of a body that ends at `end` of its segment.
fn stored(segment: u32, end: usize, entry: &Entry<'_>) -> Held {
    let length = entry.frame.len();
    Held {
        place: Some(Place {
            segment,
            at: (end - length) as u64,
        }),
        length: length as u32,
        ordinal: entry.ordinal,
        stage: entry.stage,
        name: entry.name,
        is_acknowledged: false,
        is_loss: Loss::is_loss(entry.frame),
        is_tired: false,
        frame: None,
    }
}
