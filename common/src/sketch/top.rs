//! Which values come most often: exact counters for up to 1,024 values, and one for all others.
//!
//! With more than [`TOP_VALUES_MAX`] different values, those whose hashes are smallest keep their counters. That choice
//! depends on the set of values alone, so it is the same in every order and grouping, and a value that is chosen in the
//! whole is chosen in every part that has it (fewer hashes are smaller there), so its count is complete. Misra-Gries
//! counters would find the heaviest values among any number, but what they forget depends on when they are merged, and
//! then a retry or an early emission could be told from the result. Here the price is paid where it can be read: the
//! count of all others is the error bound, 0 as long as there are few values.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::hash;
use crate::limits::TOP_VALUES_MAX;

/// One value and how often it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counter {
    /// The value's hash.
    pub hash: u64,
    /// The value.
    pub value: Box<[u8]>,
    /// How often, at least once.
    pub count: u64,
}

/// The counters of one top list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// By hash, then by value, ascending.
    entries: Vec<Counter>,
    others: u64,
}

impl Counter {
    /// A counter for this value.
    pub fn new(value: &[u8], count: u64) -> Self {
        Self {
            hash: hash(value),
            value: value.into(),
            count,
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        (self.hash, &self.value).cmp(&(other.hash, &other.value))
    }
}

impl Counters {
    /// The counters of nothing.
    pub const EMPTY: Self = Self {
        entries: Vec::new(),
        others: 0,
    };

    /// From counters of different values, in any order, and the count of the values that have none. There may be too
    /// many; then the least hashes must be among them.
    pub fn from_unsorted(mut entries: Vec<Counter>, others: u64) -> Self {
        entries.sort_unstable_by(Counter::order);
        let mut counters = Self { entries, others };
        counters.cut();
        counters
    }

    /// From counters as they came over the wire; `None` if no multiset has this state.
    pub fn checked(entries: Vec<Counter>, others: u64) -> Option<Self> {
        let ascending = entries
            .windows(2)
            .all(|pair| pair[0].order(&pair[1]) == Ordering::Less);
        let few = entries.len() <= TOP_VALUES_MAX && (others == 0 || entries.len() == TOP_VALUES_MAX);
        let counted = entries.iter().all(|counter| counter.count > 0);
        (ascending && few && counted).then_some(Self { entries, others })
    }

    /// Counts a value once.
    pub fn lift(&mut self, value: &[u8]) {
        let one = Self {
            entries: alloc::vec![Counter::new(value, 1)],
            others: 0,
        };
        self.merge(&one);
    }

    /// The counters, by hash.
    pub fn entries(&self) -> &[Counter] {
        &self.entries
    }

    /// How often values came that have no counter: the most that any of them can have come.
    pub fn others(&self) -> u64 {
        self.others
    }

    /// Adds everything that `other` summarises.
    pub fn merge(&mut self, other: &Self) {
        let mut merged = Vec::with_capacity(self.entries.len() + other.entries.len());
        let mut held = core::mem::take(&mut self.entries).into_iter().peekable();
        for more in &other.entries {
            while let Some(counter) = held.next_if(|counter| counter.order(more) == Ordering::Less) {
                merged.push(counter);
            }
            match held.next_if(|counter| counter.order(more) == Ordering::Equal) {
                Some(mut counter) => {
                    counter.count = counter.count.saturating_add(more.count);
                    merged.push(counter);
                }
                None => merged.push(more.clone()),
            }
        }
        merged.extend(held);
        self.entries = merged;
        self.others = self.others.saturating_add(other.others);
        self.cut();
    }

    /// The `k` values that came most often; of several that came equally often, the first in the order of bytes.
    pub fn top(&self, k: usize) -> Vec<&Counter> {
        let mut all: Vec<&Counter> = self.entries.iter().collect();
        all.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
        all.truncate(k);
        all
    }

    fn cut(&mut self) {
        for counter in self.entries.drain(self.entries.len().min(TOP_VALUES_MAX)..) {
            self.others = self.others.saturating_add(counter.count);
        }
    }
}
