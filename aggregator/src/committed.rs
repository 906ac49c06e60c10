//! Which batches have been taken: for each agent and epoch, a set of seqs as ranges.
//!
//! This is what makes a batch count once however often it is sent. Seqs of an epoch come nearly in order, so a set is
//! nearly always one range; how many ranges and epochs an agent may have is bounded all the same, because a peer may send
//! any seqs. Sets never expire by time: an agent that was away for a year may still resend.

use std::collections::BTreeMap;

use catchment_common::wire::SeqRange;

use crate::limits::{AGENT_RANGES_MAX, EPOCH_RANGES_MAX, EPOCHS_MAX, SEQ_MAX};

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

    /// Adds a range as it was stored. What overlaps or touches others becomes one with them.
    pub fn insert_range(&mut self, range: SeqRange) {
        if range.first > range.last {
            return;
        }
        let SeqRange { mut first, mut last } = range;
        let before = self.ranges.range(..first).next_back();
        if let Some((&start, &end)) = before.filter(|(_, end)| end.saturating_add(1) >= first) {
            (first, last) = (start, last.max(end));
        }
        while let Some((&start, &end)) = self.ranges.range(first..=last.saturating_add(1)).next() {
            self.ranges.remove(&start);
            last = last.max(end);
        }
        self.ranges.insert(first, last);
    }

    /// The range that a number of the set is in.
    pub fn range_of(&self, seq: u64) -> Option<SeqRange> {
        let (&first, &last) = self.ranges.range(..=seq).next_back()?;
        (seq <= last).then_some(SeqRange { first, last })
    }

    /// How many ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether no number is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether a number would stand apart from all ranges.
    fn is_apart(&self, seq: u64) -> bool {
        !self.covers(seq.saturating_sub(1), seq.saturating_sub(1))
            && !self.contains(seq)
            && !self.covers(seq.saturating_add(1), seq.saturating_add(1))
    }

    /// The largest number.
    pub fn last(&self) -> Option<u64> {
        self.ranges.last_key_value().map(|(_, &last)| last)
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
    sets: BTreeMap<String, AgentSets>,
}

/// The sets of one agent by epoch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct AgentSets {
    epochs: BTreeMap<u64, SeqSet>,
    /// Ranges of all of them.
    ranges: usize,
}

/// Why a seq cannot be remembered, and so its batch cannot be taken. The texts are for the agent's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoRoom {
    /// The agent has started too often.
    #[error(
        "batches of too many starts of this agent are remembered; if it holds none of them any more, let \
         `catchment-aggregator retire --forget` forget them"
    )]
    Epochs,
    /// The agent's seqs have too many gaps between them.
    #[error("too many gaps between the seqs of this agent's batches")]
    Ranges,
    /// No agent counts so far.
    #[error("a seq that no agent counts to")]
    Seq,
}

impl Committed {
    /// The set of one agent and epoch, if anything was ever taken of it.
    pub fn set(&self, agent: &str, epoch: u64) -> Option<&SeqSet> {
        self.sets.get(agent)?.epochs.get(&epoch)
    }

    /// Whether a seq that is not known can be remembered.
    pub fn room_for(&self, agent: &str, epoch: u64, seq: u64) -> Result<(), NoRoom> {
        if seq > SEQ_MAX {
            return Err(NoRoom::Seq);
        }
        let Some(sets) = self.sets.get(agent) else {
            return Ok(());
        };
        match sets.epochs.get(&epoch) {
            None if sets.epochs.len() >= EPOCHS_MAX => Err(NoRoom::Epochs),
            None if sets.ranges >= AGENT_RANGES_MAX => Err(NoRoom::Ranges),
            Some(set)
                if (set.len() >= EPOCH_RANGES_MAX || sets.ranges >= AGENT_RANGES_MAX)
                    && set.is_apart(seq) =>
            {
                Err(NoRoom::Ranges)
            }
            _ => Ok(()),
        }
    }

    /// Adds a seq; returns whether it is new. [`Committed::room_for`] says whether there is room.
    pub fn insert(&mut self, agent: &str, epoch: u64, seq: u64) -> bool {
        self.change(agent, epoch, |set| set.insert(seq))
    }

    /// Adds a range as it was stored.
    pub fn insert_range(&mut self, agent: &str, epoch: u64, range: SeqRange) {
        self.change(agent, epoch, |set| set.insert_range(range));
    }

    fn change<T>(&mut self, agent: &str, epoch: u64, change: impl FnOnce(&mut SeqSet) -> T) -> T {
        if !self.sets.contains_key(agent) {
            self.sets.insert(agent.to_owned(), AgentSets::default());
        }
        let sets = self.sets.get_mut(agent).expect("just inserted");
        let set = sets.epochs.entry(epoch).or_default();
        let before = set.len();
        let result = change(set);
        sets.ranges = sets.ranges + set.len() - before;
        result
    }

    /// Forgets the epochs of an agent but those that are to stay; returns those that went.
    pub fn forget(&mut self, agent: &str, stays: impl Fn(u64) -> bool) -> Vec<u64> {
        let Some(sets) = self.sets.get_mut(agent) else {
            return Vec::new();
        };
        let gone: Vec<u64> = sets
            .epochs
            .keys()
            .copied()
            .filter(|&epoch| !stays(epoch))
            .collect();
        sets.epochs.retain(|epoch, _| stays(*epoch));
        sets.ranges = sets.epochs.values().map(SeqSet::len).sum();
        gone
    }

    /// How many epochs of an agent are remembered.
    pub fn epochs(&self, agent: &str) -> usize {
        self.sets.get(agent).map_or(0, |sets| sets.epochs.len())
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
            check_apart(&set)?;
        }

        #[test]
        fn ranges_of_any_kind_make_a_set(ranges in prop::collection::vec((0_u64..40, 0_u64..9), 0..20), seq in 0_u64..50) {
            let (mut set, mut model) = (SeqSet::default(), BTreeSet::new());
            for (first, length) in ranges {
                let range = SeqRange { first, last: first + length };
                set.insert_range(range);
                model.extend(first..=range.last);
            }
            check_apart(&set)?;
            let held: BTreeSet<u64> = set.ranges().flat_map(|range| range.first..=range.last).collect();
            prop_assert_eq!(&held, &model);
            prop_assert_eq!(set.range_of(seq).is_some(), model.contains(&seq));
            let near = [seq.saturating_sub(1), seq, seq + 1];
            prop_assert_eq!(set.is_apart(seq), near.iter().all(|seq| !model.contains(seq)));
        }
    }

    fn check_apart(set: &SeqSet) -> Result<(), TestCaseError> {
        let ranges: Vec<_> = set.ranges().collect();
        let apart = ranges.windows(2).all(|pair| pair[0].last + 1 < pair[1].first);
        prop_assert!(apart, "ranges stay apart");
        Ok(())
    }

    #[test]
    fn ranges_and_epochs_are_bounded_and_gaps_may_still_close() {
        let mut committed = Committed::default();
        for seq in 0..EPOCH_RANGES_MAX as u64 {
            assert_eq!(committed.room_for("a", 1, 2 * seq), Ok(()));
            committed.insert("a", 1, 2 * seq);
        }
        let next = 2 * EPOCH_RANGES_MAX as u64;
        assert_eq!(committed.room_for("a", 1, next), Err(NoRoom::Ranges));
        assert_eq!(
            committed.room_for("a", 1, next - 1),
            Ok(()),
            "it touches the last"
        );
        assert_eq!(committed.room_for("a", 1, 1), Ok(()), "it closes a gap");
        assert_eq!(committed.room_for("a", 2, next), Ok(()));
        assert_eq!(committed.room_for("a", 2, 1 << 63), Err(NoRoom::Seq));
        for epoch in 2..=EPOCHS_MAX as u64 {
            assert_eq!(committed.room_for("a", epoch, 7), Ok(()));
            committed.insert("a", epoch, 7);
        }
        assert_eq!(committed.room_for("a", 0, 7), Err(NoRoom::Epochs));
        assert_eq!(committed.room_for("a", 9, 8), Ok(()), "of an epoch that is known");
        assert_eq!(
            committed.room_for("b", 0, 7),
            Ok(()),
            "others are not touched by it"
        );
        let gone = committed.forget("a", |epoch| epoch == 9);
        assert_eq!(gone.len(), EPOCHS_MAX - 1);
        assert_eq!(committed.room_for("a", 0, 7), Ok(()));
        assert_eq!(committed.set("a", 9).map(SeqSet::len), Some(1));
    }

    #[test]
    fn ranges_of_all_epochs_of_an_agent_are_bounded() {
        let mut committed = Committed::default();
        let each = EPOCH_RANGES_MAX as u64;
        for number in 0..AGENT_RANGES_MAX as u64 {
            committed.insert("a", number / each, number % each * 2);
        }
        assert_eq!(committed.room_for("a", 77, 1), Err(NoRoom::Ranges));
        assert_eq!(committed.room_for("a", 0, 1), Ok(()), "a gap may close");
    }

    #[test]
    fn the_largest_seq_does_not_overflow() {
        let mut set = SeqSet::default();
        assert!(set.insert(u64::MAX));
        assert!(!set.insert(u64::MAX));
        assert!(set.covers(2, 1), "an empty span is always covered");
    }
}
