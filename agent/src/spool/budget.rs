//! The budget: what goes when, so that the spool never takes more bytes than it may.

use std::collections::BTreeSet;

use super::{RECORDS_MAX, Spool};
use crate::disk::Disk;

impl Spool {
    /// Keeps the spool within its budget; returns whether it had to merge or drop anything.
    pub fn keep_within_budget(&mut self, disk: &impl Disk) -> bool {
        let mut acted = false;
        while self.is_over(1, 1) {
            acted = true;
            if !(self.drop_retained() || self.clean(disk) || self.compact(disk) || self.drop_oldest(disk)) {
                return acted;
            }
        }
        // Merge before it is urgent: that needs some room itself.
        if self.is_over(5, 8) && !self.drop_retained() {
            acted |= self.clean(disk) || self.compact(disk);
        }
        acted
    }

    /// Whether more than this part of the budget is used, a segment's room kept free.
    pub(super) fn is_over(&self, part: u64, of: u64) -> bool {
        let usable = self.limits.bytes - 2 * self.segment_bytes();
        let records_max = RECORDS_MAX.min((self.limits.bytes / 64) as usize);
        self.bytes > usable * part / of || self.records.len() > records_max * part as usize / of as usize
    }

    /// Lets the oldest segment go that holds only acknowledged batches.
    fn drop_retained(&mut self) -> bool {
        let mut pending: BTreeSet<u32> = BTreeSet::new();
        for held in self.records.values().filter(|held| !held.acknowledged) {
            pending.insert(held.segment);
        }
        let oldest = self
            .retained
            .values()
            .filter_map(|slot| self.records.get(slot))
            .map(|held| held.segment);
        let Some(segment) = oldest.filter(|segment| !pending.contains(segment)).min() else {
            return false;
        };
        let slots = self.slots_of(segment);
        if segment == self.current {
            self.begin_segment();
        }
        for &slot in &slots {
            self.release(slot);
        }
        !slots.is_empty()
    }

    /// After the disk said that it is full although the budget is not used up: what is only kept goes.
    pub fn handle_full(&mut self) {
        while self.drop_retained() {}
    }
}
