//! Groups as jobs take them: ended, marked with how far the spool has come, framed, and written where the segment ends.

use bytes::Bytes;
use catchment_common::wire::CounterSample;
use catchment_common::wire::cursor::put_varint;

use super::context::PipelineNames;
use super::{Ended, Journal, record};
use crate::log::disk::{File, Step, frame};

impl Journal {
    /// The tables whose last mention was in a segment that goes now took so many bytes to write again.
    pub fn note_carried(&mut self, bytes: usize) {
        self.carried_bytes = bytes as u64;
    }

    /// Ends the group in the making; what follows is another, with the batches from the place `until` on.
    pub fn end_group(&mut self, until: u64) {
        if !self.group.is_empty() {
            self.ended_bytes += self.group.len();
            self.ended.push_back(Ended {
                segment: self.segment,
                bytes: self.group.clone(),
                until,
            });
            self.group.clear();
        }
    }

    /// Ends the group and gives the steps that make all ended groups durable. If the spool has news, `spooled` says
    /// which of its records were there before the batch of a place, or at all (`None`): they are part of the history.
    pub fn take_groups(&mut self, spooled: Option<&dyn Fn(Option<u64>) -> u64>, steps: &mut Vec<Step>) {
        if spooled.is_some() && self.waiting() == 0 && self.enabled {
            self.put();
        }
        self.ended_bytes = 0;
        while let Some(mut ended) = self.ended.pop_front() {
            let mark = spooled.map(|spooled| spooled(Some(ended.until)));
            self.write_out(ended.segment, &mut ended.bytes, mark, steps);
        }
        if !self.group.is_empty() {
            let mut group = std::mem::take(&mut self.group);
            let mark = spooled.map(|spooled| spooled(None));
            self.write_out(self.segment, &mut group, mark, steps);
            // Its memory is for the next.
            group.clear();
            self.group = group;
        }
    }

    /// Gives the steps that make the spool's records up to this number part of the history before anything that waits:
    /// what they take the place of is about to go. `counts` are told of with them.
    pub fn mark(&mut self, spooled: u64, counts: &[CounterSample], steps: &mut Vec<Step>) {
        if !self.enabled {
            return;
        }
        let is_begun = |segment: u32| segment == self.extent.newest() && self.extent.end() > 0;
        if let Some(mut ended) = self.ended.pop_front_if(|ended| !is_begun(ended.segment)) {
            // A segment begins with its snapshot, which says nothing of what waits.
            self.ended_bytes -= ended.bytes.len();
            self.write_out(ended.segment, &mut ended.bytes, Some(spooled), steps);
        }
        let mut group = Vec::new();
        frame::begin(&mut group);
        // The segment may have another plan than the one being written.
        record::put_counts(&mut group, &PipelineNames::default(), counts);
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
