//! The names of what is not acknowledged, and what is to be sent under them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::records::Slot;
use super::{Lane, Name};

/// Named batches and losses that are not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    slots: BTreeMap<Name, Slot>,
    live: VecDeque<Name>,
    backlog: VecDeque<Name>,
    /// Named, but not durable yet.
    fresh: VecDeque<Fresh>,
}

/// A name that may be sent once the record with this ordinal is durable.
#[derive(Debug)]
struct Fresh {
    ordinal: u64,
    name: Name,
    lane: Lane,
}

impl Outstanding {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slot(&self, name: Name) -> Option<Slot> {
        self.slots.get(&name).copied()
    }

    pub(super) fn insert(&mut self, name: Name, slot: Slot) {
        self.slots.insert(name, slot);
    }

    pub(super) fn remove(&mut self, name: Name) {
        self.slots.remove(&name);
    }

    /// All names in order.
    pub(super) fn names(&self) -> impl DoubleEndedIterator<Item = Name> {
        self.slots.keys().copied()
    }

    /// The first name of this span.
    pub(super) fn first_of(&self, first: Name, last: Name) -> Option<(Name, Slot)> {
        let mut of_span = self.slots.range(first..=last);
        of_span.next().map(|(&name, &slot)| (name, slot))
    }

    /// A name may be sent once the record with this ordinal is durable.
    pub(super) fn send_when_durable(&mut self, ordinal: u64, name: Name, lane: Lane) {
        self.fresh.push_back(Fresh { ordinal, name, lane });
    }

    /// Everything that stands, from old to new, once the record with this ordinal is durable.
    pub(super) fn send_all_when_durable(&mut self, ordinal: u64) {
        let mut oldest_first: Vec<(Slot, Name)> =
            self.slots.iter().map(|(&name, &slot)| (slot, name)).collect();
        oldest_first.sort_unstable();
        self.fresh.clear();
        for (_, name) in oldest_first {
            self.send_when_durable(ordinal, name, Lane::Backlog);
        }
    }

    /// Records up to this ordinal are durable.
    pub(super) fn handle_durable(&mut self, ordinal: u64) {
        while let Some(Fresh { name, lane, .. }) = self.fresh.pop_front_if(|fresh| fresh.ordinal <= ordinal) {
            match lane {
                Lane::Live => self.live.push_back(name),
                Lane::Backlog => self.backlog.push_back(name),
            }
        }
    }

    /// The next name of a lane that still stands.
    pub(super) fn next(&mut self, lane: Lane) -> Option<(Name, Slot)> {
        let queue = match lane {
            Lane::Live => &mut self.live,
            Lane::Backlog => &mut self.backlog,
        };
        loop {
            let name = queue.pop_front()?;
            // Batches that were settled while they waited are passed over.
            if let Some(&slot) = self.slots.get(&name) {
                return Some((name, slot));
            }
        }
    }

    /// After a lost link nothing is under way any more.
    pub(super) fn handle_disconnected(&mut self) {
        self.live.clear();
        self.backlog.clear();
        self.fresh.iter_mut().for_each(|fresh| fresh.lane = Lane::Backlog);
    }

    /// Everything that stands, is durable and has its place in the log is sent again, from old to new.
    pub(super) fn resume(&mut self, is_placed: impl Fn(Slot) -> bool) {
        let waiting: BTreeSet<Name> = self.fresh.iter().map(|fresh| fresh.name).collect();
        self.live.clear();
        let mut oldest_first: Vec<(Slot, Name)> = { self.slots.iter() }
            .filter(|(name, slot)| !waiting.contains(name) && is_placed(**slot))
            .map(|(&name, &slot)| (slot, name))
            .collect();
        oldest_first.sort_unstable();
        self.backlog = oldest_first.into_iter().map(|(_, name)| name).collect();
    }
}
