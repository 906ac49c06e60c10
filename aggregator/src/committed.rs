//! Which batches have been taken: for each agent and epoch, a set of seqs as ranges.
//!
//! This is what makes a batch count once however often it is sent. Seqs of an epoch come nearly in order, so a set is
//! nearly always one range. Sets never expire by time: an agent that was away for a year may still resend.

use std::collections::BTreeMap;

use catchment_common::wire::SeqRange;

/// A set of numbers as ascending ranges with gaps between them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SeqSet {
    /// First to last.
    ranges: BTreeMap<u64, u64>,
}

impl SeqSet {
    /// Whether `seq` is in the set.
    pub fn contains(&self, seq: u64) -> bool {
        self.covers(seq, seq)
    }

    /// Whether every number from `first` to `last` is in the set; an empty span is.
    pub fn covers(&self, first: u64, last: u64) -> bool {
        first > last
            || self
                .ranges
                .range(..=first)
                .next_back()
                .is_some_and(|(_, &end)| end >= last)
    }

    /// Adds a number; returns whether it is new.
    pub fn insert(&mut self, seq: u64) -> bool {
        if self.contains(seq) {
            return false;
        }
        let before = self
            .ranges
            .range(..seq)
            .next_back()
            .map(|(&first, &last)| (first, last));
        let first = match before {
            Some((first, last)) if last + 1 == seq => first,
            _ => seq,
        };
        let last = seq
            .checked_add(1)
            .and_then(|next| self.ranges.remove(&next))
            .unwrap_or(seq);
        self.ranges.insert(first, last);
        true
    }

    /// Adds a range as it was stored.
    pub fn insert_range(&mut self, range: SeqRange) {
        self.ranges.insert(range.first, range.last);
    }

    /// The ranges in order.
    pub fn ranges(&self) -> impl Iterator<Item = SeqRange> {
        self.ranges.iter().map(|(&first, &last)| SeqRange { first, last })
    }

    /// The ranges of this set within `range`.
    pub fn within(&self, range: SeqRange) -> Vec<SeqRange> {
        let start = self
            .ranges
            .range(..=range.first)
            .next_back()
            .map_or(range.first, |(&first, _)| first);
        self.ranges
            .range(start..=range.last)
            .map(|(&first, &last)| SeqRange {
                first: first.max(range.first),
                last: last.min(range.last),
            })
            .filter(|part| part.first <= part.last)
            .collect()
    }
}

/// The sets of all agents and epochs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Committed {
    sets: BTreeMap<String, BTreeMap<u64, SeqSet>>,
}

impl Committed {
    /// The set of one agent and epoch, if anything was ever taken of it.
    pub fn set(&self, agent: &str, epoch: u64) -> Option<&SeqSet> {
        self.sets.get(agent)?.get(&epoch)
    }

    /// The set of one agent and epoch, for adding to it.
    pub fn set_mut(&mut self, agent: &str, epoch: u64) -> &mut SeqSet {
        if !self.sets.contains_key(agent) {
            self.sets.insert(agent.to_owned(), BTreeMap::new());
        }
        self.sets
            .get_mut(agent)
            .expect("just inserted")
            .entry(epoch)
            .or_default()
    }

    /// How many epochs of an agent are remembered.
    pub fn epochs(&self, agent: &str) -> usize {
        self.sets.get(agent).map_or(0, BTreeMap::len)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_agrees_with_a_plain_one(seqs in prop::collection::vec(1_u64..40, 0..80), first in 1_u64..40, length in 0_u64..10) {
            let (mut set, mut model) = (SeqSet::default(), BTreeSet::new());
            for seq in seqs {
                prop_assert_eq!(set.insert(seq), model.insert(seq));
            }
            for seq in 0..50 {
                prop_assert_eq!(set.contains(seq), model.contains(&seq));
            }
            let last = first + length;
            prop_assert_eq!(set.covers(first, last), (first..=last).all(|seq| model.contains(&seq)));
            let within: BTreeSet<u64> =
                set.within(SeqRange { first, last }).iter().flat_map(|part| part.first..=part.last).collect();
            prop_assert_eq!(within, model.range(first..=last).copied().collect::<BTreeSet<_>>());
            let ranges: Vec<_> = set.ranges().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].last + 1 < pair[1].first), "ranges stay apart");
        }
    }

    #[test]
    fn the_largest_seq_does_not_overflow() {
        let mut set = SeqSet::default();
        assert!(set.insert(u64::MAX));
        assert!(!set.insert(u64::MAX));
        assert!(set.covers(2, 1), "an empty span is always covered");
    }
}
