//! Groups as jobs take them: ended, marked with how far the spool has come, framed, and written where the segment ends.

use bytes::Bytes;
use catchment_common::wire::CounterSample;
use catchment_common::wire::cursor::put_varint;

use super::context::PipelineNames;
use super::{Cut, Ended, Journal, record};
use crate::log::disk::{File, Step, frame};

/// What the journal is told of when groups that have ended become durable.
#[derive(Debug, Default)]
pub struct Told {
    /// The last seq that was given out, if there is news of that.
    pub sealed: Option<u64>,
    /// Counters that have changed.
    pub counts: Vec<CounterSample>,
}

impl Told {
    fn put(&self, out: &mut Vec<u8>) {
        if let Some(seq) = self.sealed {
            out.push(record::SEALED);
            put_varint(out, seq);
        }
        // The segment may have another plan than the one being written.
        record::put_counts(out, &PipelineNames::default(), &self.counts);
    }
}

impl Journal {
    /// The tables whose last mention was in a segment that goes now took so many bytes to write again.
    pub fn note_carried(&mut self, bytes: usize) {
        self.carried_bytes = bytes as u64;
    }

    /// Notes how many bytes a message needed in the journal, with all records that followed from it.
    #[inline]
    pub fn note_message(&mut self, bytes: usize) {
        self.message_bytes = self.message_bytes.max(bytes as u64);
    }

    /// Ends the group in the making; what follows is another.
    pub fn end_group(&mut self, cut: Cut) {
        if !self.group.is_empty() {
            self.ended_bytes += self.group.len();
            self.ended.push_back(Ended {
                segment: self.segment,
                bytes: self.group.clone(),
                cut,
            });
            self.group.clear();
        }
    }

    /// What belongs to the first of the groups that have ended.
    pub fn first_ended(&self) -> Option<Cut> {
        self.ended.front().map(|ended| ended.cut)
    }

    /// Whether the first of the groups that have ended is the first of its segment.
    pub fn begins_segment(&self) -> bool {
        let is_first = |ended: &Ended| !self.is_begun(ended.segment);
        self.ended.front().is_some_and(is_first)
    }

    /// Whether the segment is the newest on disk, and has bytes.
    fn is_begun(&self, segment: u32) -> bool {
        segment == self.extent.newest() && self.extent.end() > 0
    }

    /// Whether the next group belongs to the newest segment.
    pub fn is_at_newest(&self) -> bool {
        self.ended.front().map_or(self.segment, |ended| ended.segment) == self.segment
    }

    /// Gives the steps that make the first of the groups that have ended durable. If the spool has news, or if the group
    /// is the first of its segment, `spooled` is the last of the spool's records that belongs to the history: a segment
    /// must say that itself, because those before it are removed. `told` is said with it.
    pub fn take_ended(&mut self, spooled: Option<u64>, told: &Told, steps: &mut Vec<Step>) {
        if let Some(mut ended) = self.ended.pop_front() {
            self.ended_bytes -= ended.bytes.len();
            told.put(&mut ended.bytes);
            self.write_out(ended.segment, &mut ended.bytes, spooled, steps);
        }
    }

    /// Ends the group in the making, and gives the steps that make it durable, once none that has ended is left.
    pub fn take_group(&mut self, spooled: Option<u64>, steps: &mut Vec<Step>) {
        debug_assert!(self.ended.is_empty());
        if spooled.is_some() && self.enabled {
            self.put();
        }
        if !self.group.is_empty() {
            let mut group = std::mem::take(&mut self.group);
            self.write_out(self.segment, &mut group, spooled, steps);
            // Its memory is for the next.
            group.clear();
            self.group = group;
        }
    }

    /// Gives the steps that make the spool's records up to this number part of the history before anything that waits:
    /// what they take the place of is about to go. `told` is said with them.
    pub fn mark(&mut self, spooled: u64, told: &Told, steps: &mut Vec<Step>) {
        if !self.enabled {
            return;
        }
        if self.begins_segment()
            && let Some(mut ended) = self.ended.pop_front()
        {
            // A segment begins with its snapshot, which says nothing of what waits.
            self.ended_bytes -= ended.bytes.len();
            self.write_out(ended.segment, &mut ended.bytes, Some(spooled), steps);
        }
        let mut group = Vec::new();
        frame::begin(&mut group);
        told.put(&mut group);
        self.write_out(self.extent.newest(), &mut group, Some(spooled), steps);
    }

    fn write_out(&mut self, segment: u32, group: &mut Vec<u8>, spooled: Option<u64>, steps: &mut Vec<Step>) {
        if let Some(number) = spooled {
            group.push(record::SPOOLED);
            put_varint(group, number);
        }
        frame::end(group, frame::HEAD);
        let file = File::Journal(segment);
        // One sync is enough for groups that follow each other.
        if steps.last() == Some(&Step::Sync(file)) {
            steps.pop();
        }
        let at = self.extent.append(segment, group.len() as u64);
        steps.push(Step::Write {
            file,
            at,
            bytes: Bytes::copy_from_slice(group),
        });
        steps.push(Step::Sync(file));
    }

    /// Begins the next segment, for key numbers below `keys`; its snapshot comes next.
    pub fn begin_segment(&mut self, keys: usize) {
        debug_assert!(self.group.is_empty());
        self.segment += 1;
        if self.named.len() != keys {
            self.named = vec![0; keys].into_boxed_slice();
        }
    }

    /// Nothing before `needed` is needed any more: the steps that drop it.
    pub fn trim(&mut self, needed: u32, steps: &mut Vec<Step>) {
        for number in self.extent.drop_before(needed.min(self.segment)) {
            steps.push(Step::Remove(File::Journal(number)));
        }
    }
}
