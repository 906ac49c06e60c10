//! The log of segments: records are appended, written again, let go of, and segments go when nothing needs them.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::record::Record;
use super::{Held, Name, SEGMENT_BYTES, SEGMENT_PART, Segment, Slot, Spool};
use crate::log::disk::{File, Step};

impl Spool {
    #[allow(clippy::too_many_arguments, reason = "the fields of one record")]
    pub(super) fn write(
        &mut self,
        slot: Slot,
        last: bool,
        from: u64,
        stage: u8,
        name: Option<Name>,
        frame: Bytes,
        is_loss: bool,
    ) -> u32 {
        self.ordinal += 1;
        let ordinal = self.ordinal;
        let record = Record::Batch {
            ordinal,
            slot,
            last,
            from,
            stage,
            name,
            frame: &frame,
        };
        let (segment, at) = self.append(&record, frame.len());
        let length = frame.len() as u32;
        self.cached += frame.len();
        self.held_bytes += u64::from(length);
        if let Some(name) = name {
            self.held.insert(name, slot);
        }
        let held = Held {
            segment,
            at,
            length,
            ordinal,
            stage,
            name,
            acknowledged: false,
            is_loss,
            frame: Some(frame),
        };
        self.records.insert(slot, held);
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live += 1;
        }
        segment
    }

    /// Writes a record again, as it is, in the current segment.
    pub(super) fn rewrite(&mut self, slot: Slot, frame: Bytes) {
        let Some(Held { stage, name, .. }) = self.records.get(&slot) else {
            return;
        };
        let (stage, name) = (*stage, *name);
        self.ordinal += 1;
        let ordinal = self.ordinal;
        let record = Record::Moved {
            ordinal,
            slot,
            stage,
            name,
            frame: &frame,
        };
        let (segment, at) = self.append(&record, frame.len());
        let Some(held) = self.records.get_mut(&slot) else {
            return;
        };
        let before = std::mem::replace(&mut held.segment, segment);
        self.held_bytes = self.held_bytes - u64::from(held.length) + frame.len() as u64;
        self.cached = self.cached - held.frame.as_ref().map_or(0, Bytes::len) + frame.len();
        (held.at, held.length, held.ordinal) = (at, frame.len() as u32, ordinal);
        held.frame = Some(frame);
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live += 1;
        }
        if let Some(segment) = self.segments.get_mut(&before) {
            segment.live -= 1;
        }
        self.drop_if_done(before);
        self.pin(segment, BTreeSet::from([before]));
    }

    /// Appends a record of about `length` bytes to the current segment, or to the next one; returns the segment and
    /// where the batch's frame is in it.
    pub(super) fn append(&mut self, record: &Record<'_>, length: usize) -> (u32, u64) {
        let full = self
            .segments
            .get(&self.current)
            .is_some_and(|segment| segment.bytes > 0 && segment.bytes + length as u64 > self.segment_bytes());
        if full {
            self.begin_segment();
        }
        let number = self.current;
        let segment = self.segments.entry(number).or_default();
        if self.writes.last().is_none_or(|(last, _, _)| *last != number) {
            self.writes.push((number, segment.bytes, Vec::new()));
        }
        let (_, start, bytes) = self.writes.last_mut().expect("just pushed");
        let before = bytes.len();
        let at = *start + record.put(bytes) as u64;
        let more = (bytes.len() - before) as u64;
        segment.bytes += more;
        self.bytes += more;
        (number, at)
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        (self.limits.bytes / SEGMENT_PART).clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1)
    }

    pub(super) fn begin_segment(&mut self) {
        let before = self.current;
        self.current += 1;
        self.drop_if_done(before);
    }

    /// A record is done with.
    pub(super) fn release(&mut self, slot: Slot) {
        let Some(held) = self.records.remove(&slot) else {
            return;
        };
        if let Some(name) = held.name {
            // A later record may have taken over the name.
            if self.held.get(&name) == Some(&slot) {
                self.held.remove(&name);
            }
            if self.retained.get(&name) == Some(&slot) {
                self.retained.remove(&name);
            }
        }
        if !held.acknowledged {
            self.held_bytes -= u64::from(held.length);
        }
        self.cached -= held.frame.map_or(0, |frame| frame.len());
        if let Some(segment) = self.segments.get_mut(&held.segment) {
            segment.live -= 1;
        }
        self.drop_if_done(held.segment);
    }

    /// The segment speaks for records in `sources`: it must outlive them.
    pub(super) fn pin(&mut self, segment: u32, mut sources: BTreeSet<u32>) {
        sources.remove(&segment);
        sources.retain(|source| self.segments.contains_key(source));
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.after.extend(sources);
        }
    }

    /// Removes a segment if all in it is done with, and those that waited for it.
    pub(super) fn drop_if_done(&mut self, number: u32) {
        let mut candidates = vec![number];
        while let Some(number) = candidates.pop() {
            let done = |segment: &Segment| segment.live == 0 && segment.after.is_empty();
            if number == self.current || !self.segments.get(&number).is_some_and(done) {
                continue;
            }
            if let Some(segment) = self.segments.remove(&number) {
                self.bytes -= segment.bytes;
                self.leaving += segment.bytes;
                // What was not written yet is not to go either.
                self.writes.retain(|(written, _, bytes)| {
                    let is_other = *written != number;
                    self.leaving -= if is_other { 0 } else { bytes.len() as u64 };
                    is_other
                });
                self.waits_for_room = false;
                self.removals.push(Step::Remove(File::Spool(number)));
            }
            for (&other, segment) in &mut self.segments {
                if segment.after.remove(&number) {
                    candidates.push(other);
                }
            }
        }
    }

    /// The records in a segment, in their order.
    pub(super) fn slots_of(&self, segment: u32) -> Vec<Slot> {
        let records = self.records.iter();
        records
            .filter(|(_, held)| held.segment == segment)
            .map(|(&slot, _)| slot)
            .collect()
    }
}
