//! The log of segments: records are appended, and a segment's file goes when nothing needs it any more.
//!
//! What is written and removed is gathered until a job takes it ([`Log::take_writes`], [`Log::take_removals`]). Until
//! then a file that is done with still counts, as *leaving*: it is on the disk.

use std::collections::{BTreeMap, BTreeSet};

use super::record::Record;
use super::records::{Place, Slot};
use crate::log::disk::{File, Step};

/// Segments are a part of the budget of this size, within bounds.
const SEGMENT_PART: u64 = 16;
const SEGMENT_BYTES: (u64, u64) = (32 << 10, 1 << 20);
/// Segments' worth of the budget that batches may not take: it is for what makes room, and for seals.
const RESERVED_SEGMENTS: u64 = 3;

/// One file.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) bytes: u64,
    /// The records in it that are held or kept.
    pub(super) live: BTreeSet<Slot>,
    /// Segments that must go before this one: it names or replaces what is in them.
    pub(super) after: BTreeSet<u32>,
    /// Something in it is whole and not understood, so its file is set aside instead of removed.
    pub(super) is_odd: bool,
}

/// Bytes that are appended to a segment.
#[derive(Debug)]
struct Write {
    segment: u32,
    at: u64,
    bytes: Vec<u8>,
}

/// What the next job has to do.
#[derive(Debug, Default)]
struct Steps {
    first: Vec<Step>,
    /// One run of bytes for each segment.
    writes: Vec<Write>,
    removals: Vec<Step>,
}

/// The log.
#[derive(Debug)]
pub(super) struct Log {
    budget: u64,
    /// What the files may take: the budget, or more while an earlier run has left more than that.
    ceiling: u64,
    segments: BTreeMap<u32, Segment>,
    current: u32,
    bytes: u64,
    /// Bytes of files that are done with, and not removed yet.
    leaving: u64,
    /// Of the last record.
    ordinal: u64,
    /// Records up to this one may be merged, moved and dropped: they are durable, or will be before that is done.
    settled: u64,
    /// What was read back is not synced yet.
    is_fresh: bool,
    steps: Steps,
}

impl Log {
    /// An empty log within `budget` bytes whose first segment has this number. Records count on from `ordinal`.
    pub(super) fn new(budget: u64, first_segment: u32, ordinal: u64) -> Self {
        Self {
            budget,
            ceiling: budget,
            segments: BTreeMap::new(),
            current: first_segment,
            bytes: 0,
            leaving: 0,
            ordinal,
            settled: ordinal,
            is_fresh: false,
            steps: Steps::default(),
        }
    }

    /// Bytes of all files but those that are done with.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of files that are done with, and not removed yet.
    pub(super) fn leaving(&self) -> u64 {
        self.leaving
    }

    /// The last record's ordinal.
    pub(super) fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// Records up to this one may be merged, moved and dropped.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// The segment that is appended to.
    pub(super) fn current(&self) -> u32 {
        self.current
    }

    /// All segments, from old to new.
    pub(super) fn segments(&self) -> impl Iterator<Item = (u32, &Segment)> {
        self.segments.iter().map(|(&number, segment)| (number, segment))
    }

    pub(super) fn segment(&self, number: u32) -> Option<&Segment> {
        self.segments.get(&number)
    }

    /// Bytes of a segment, as good as always at most: a batch that is larger has one for itself.
    pub(super) fn segment_bytes(&self) -> u64 {
        (self.budget / SEGMENT_PART).clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1)
    }

    /// Bytes that batches may take. The rest is for what makes room, and for seals.
    pub(super) fn usable(&self) -> u64 {
        self.budget - RESERVED_SEGMENTS * self.segment_bytes()
    }

    /// Whether so many bytes more fit beside what batches may take, with so many of files that are done with.
    pub(super) fn fits(&self, more: u64, leaving: u64) -> bool {
        self.bytes + leaving + more <= self.usable()
    }

    /// Bytes that may still be written before files are removed.
    pub(super) fn room(&self) -> u64 {
        self.ceiling.saturating_sub(self.bytes + self.leaving)
    }

    /// A budget that was passed when the log was read back holds again once what is there fits it.
    pub(super) fn lower_ceiling(&mut self) {
        if self.fits(0, self.leaving) {
            self.ceiling = self.budget;
        }
    }

    // What is written.

    /// The ordinal of the next record.
    pub(super) fn next_ordinal(&mut self) -> u64 {
        self.ordinal += 1;
        self.ordinal
    }

    /// Appends a record of about `length` bytes to the current segment, or to the next one; returns where its batch's
    /// frame is.
    pub(super) fn append(&mut self, record: &Record<'_>, length: usize) -> Place {
        let current = self.segments.get(&self.current);
        let full =
            current.is_some_and(|held| held.bytes > 0 && held.bytes + length as u64 > self.segment_bytes());
        if full {
            self.begin_segment();
        }
        let number = self.current;
        let segment = self.segments.entry(number).or_default();
        let writes = &mut self.steps.writes;
        if writes.last().is_none_or(|last| last.segment != number) {
            writes.push(Write {
                segment: number,
                at: segment.bytes,
                bytes: Vec::new(),
            });
        }
        let Write { at, bytes, .. } = writes.last_mut().expect("just pushed");
        let before = bytes.len();
        let at = *at + record.put(bytes) as u64;
        let more = (bytes.len() - before) as u64;
        segment.bytes += more;
        self.bytes += more;
        Place { segment: number, at }
    }

    /// The next record goes to another segment.
    pub(super) fn begin_segment(&mut self) {
        let before = self.current;
        self.current += 1;
        self.drop_if_done(before);
    }

    /// A record stands in this segment.
    pub(super) fn add(&mut self, segment: u32, slot: Slot) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live.insert(slot);
        }
    }

    /// A record in this segment is done with; returns whether a file can go with it.
    pub(super) fn remove(&mut self, segment: u32, slot: Slot) -> bool {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live.remove(&slot);
        }
        let before = self.steps.removals.len();
        self.drop_if_done(segment);
        self.steps.removals.len() > before
    }

    /// The segment speaks for records in `sources`: it must outlive them.
    pub(super) fn pin(&mut self, segment: u32, sources: impl IntoIterator<Item = u32>) {
        let others = sources.into_iter().filter(|source| *source != segment);
        let others: Vec<u32> = others
            .filter(|source| self.segments.contains_key(source))
            .collect();
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.after.extend(others);
        }
    }

    /// Removes a segment if all in it is done with, and those that waited for it.
    fn drop_if_done(&mut self, number: u32) {
        let mut candidates = vec![number];
        while let Some(number) = candidates.pop() {
            let done = |segment: &Segment| segment.live.is_empty() && segment.after.is_empty();
            if number == self.current || !self.segments.get(&number).is_some_and(done) {
                continue;
            }
            if let Some(segment) = self.segments.remove(&number) {
                self.bytes -= segment.bytes;
                self.leaving += segment.bytes;
                // What was not written yet is not to go either.
                self.steps.writes.retain(|write| {
                    let is_other = write.segment != number;
                    self.leaving -= if is_other { 0 } else { write.bytes.len() as u64 };
                    is_other
                });
                let file = File::Spool(number);
                self.steps.removals.push(if segment.is_odd {
                    Step::SetAside(file)
                } else {
                    Step::Remove(file)
                });
            }
            for (&other, segment) in &mut self.segments {
                if segment.after.remove(&number) {
                    candidates.push(other);
                }
            }
        }
    }

    // What was read back.

    /// A segment was read back. What is in it is not settled before a job has synced it.
    pub(super) fn restore(&mut self, number: u32, segment: Segment) {
        self.bytes += segment.bytes;
        self.segments.insert(number, segment);
    }

    /// All was read back: nothing is settled before [`Log::take_writes`].
    pub(super) fn finish_recovery(&mut self) {
        self.settled = 0;
        self.is_fresh = true;
        let numbers: Vec<u32> = self.segments.keys().copied().collect();
        for number in numbers {
            self.drop_if_done(number);
        }
        if self.bytes > self.budget {
            // The budget was made smaller: to come down to it takes some writing too.
            self.ceiling = self.bytes + RESERVED_SEGMENTS * self.segment_bytes();
        }
    }

    /// A record with this ordinal was read back.
    pub(super) fn note_ordinal(&mut self, ordinal: u64) {
        self.ordinal = self.ordinal.max(ordinal);
    }

    /// Whether what was read back is not synced yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    // The job.

    /// Whether something waits to be written.
    pub(super) fn has_writes(&self) -> bool {
        !self.steps.writes.is_empty()
    }

    /// Whether a job has something to do here.
    pub(super) fn has_work(&self) -> bool {
        self.has_writes() || !self.steps.removals.is_empty() || !self.steps.first.is_empty()
    }

    /// A step that the next job must take before all that were asked for until now.
    pub(super) fn sync_first(&mut self, file: File) {
        self.steps.first.insert(0, Step::Sync(file));
    }

    /// A step that the next job must take after those, and before all else.
    pub(super) fn do_first(&mut self, step: Step) {
        self.steps.first.push(step);
    }

    /// The steps of the next job, or of its next round, that must come before the journal's. What they write is settled
    /// for all that comes after them.
    pub(super) fn take_writes(&mut self, steps: &mut Vec<Step>) {
        steps.append(&mut self.steps.first);
        for Write { segment, at, bytes } in self.steps.writes.drain(..) {
            let file = File::Spool(segment);
            steps.push(Step::Write {
                file,
                at,
                bytes: bytes.into(),
            });
            steps.push(Step::Sync(file));
        }
        self.settled = self.ordinal;
        self.is_fresh = false;
    }

    /// The steps of the next job, or of its next round, that may come last.
    pub(super) fn take_removals(&mut self, steps: &mut Vec<Step>) {
        self.leaving = 0;
        steps.append(&mut self.steps.removals);
    }
}
