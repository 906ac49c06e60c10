//! What is acknowledged and kept a while longer, for an aggregator that loses its last commits.

use std::collections::{BTreeMap, VecDeque};

use catchment_common::time::{Instant, Span};

use super::Name;
use super::records::Slot;

/// Acknowledged batches and losses.
#[derive(Debug)]
pub(super) struct Retention {
    keep: Span,
    slots: BTreeMap<Name, Slot>,
    expiry: VecDeque<(Instant, Name)>,
}

impl Retention {
    /// Keeps for this long.
    pub(super) fn new(keep: Span) -> Self {
        Self {
            keep,
            slots: BTreeMap::new(),
            expiry: VecDeque::new(),
        }
    }

    /// Whether anything is kept at all.
    pub(super) fn keeps(&self) -> bool {
        self.keep > Span::ZERO
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// All names in order, with their slots.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (Name, Slot)> {
        self.slots.iter().map(|(&name, &slot)| (name, slot))
    }

    pub(super) fn insert(&mut self, name: Name, slot: Slot, now: Instant) {
        self.slots.insert(name, slot);
        self.expiry.push_back((now + self.keep, name));
    }

    pub(super) fn remove(&mut self, name: Name) {
        self.slots.remove(&name);
    }

    pub(super) fn slot(&self, name: Name) -> Option<Slot> {
        self.slots.get(&name).copied()
    }

    /// The next that was kept long enough.
    pub(super) fn next_expired(&mut self, now: Instant) -> Option<Slot> {
        while let Some((_, name)) = self.expiry.pop_front_if(|(at, _)| *at <= now) {
            if let Some(slot) = self.slot(name) {
                return Some(slot);
            }
        }
        None
    }
}
