//! The budget: what goes when, so that the spool never takes more bytes than it may.

use std::collections::BTreeSet;

use super::Spool;

impl Spool {
    /// Whether more than this part of the budget is used, a segment's room kept free.
    pub(super) fn is_over(&self, part: u64, of: u64) -> bool {
        self.bytes > self.usable() * part / of
            || self.records.len() > self.records_max() * part as usize / of as usize
    }

    /// Lets the oldest segment go that holds only acknowledged batches.
    pub(super) fn drop_retained(&mut self) -> bool {
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
