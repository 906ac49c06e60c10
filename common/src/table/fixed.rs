//! One table trait, two homes: a capacity in the type on a microcontroller, a capacity from configuration on a gateway.
//!
//! Neither ever grows. A full table still updates the keys that it holds and refuses a new one; that refusal is the
//! signal to make room (`emit_early`), never an error to the user. Entries are reached by *slot*, a small number that
//! stays valid until the next removal, so that a caller can remember where a hot entry is and skip the hashing.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;

use crate::table::index::{INDEX_BYTES_PER_ENTRY, Index};

/// Where an entry is. Valid until the next removal from its table.
pub type Slot = u32;

/// The table is full and does not hold this key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// A map of fixed capacity.
pub trait Table<K, V> {
    /// How many entries it can hold. Constant over its life.
    fn capacity(&self) -> usize;
    /// How many it holds.
    fn len(&self) -> usize;
    /// Slots are below this number; some may be vacant.
    fn slots(&self) -> usize;
    /// The slot of `key`.
    fn find(&self, key: &K) -> Option<Slot>;
    /// The entry in a slot, or `None` if it is vacant.
    fn get(&self, slot: Slot) -> Option<(&K, &V)>;
    /// The entry in a slot, or `None` if it is vacant.
    fn get_mut(&mut self, slot: Slot) -> Option<(&K, &mut V)>;
    /// Adds an entry. `key` must not be in the table.
    fn insert(&mut self, key: K, value: V) -> Result<Slot, Full>;
    /// Removes the entry in a slot, or does nothing if it is vacant. Other entries may change their slots.
    fn remove(&mut self, slot: Slot) -> Option<(K, V)>;

    /// Whether it holds nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A table on the heap whose size comes from configuration. All memory is taken at construction.
#[derive(Debug)]
pub struct FixedTable<K, V> {
    entries: Box<[Option<(K, V)>]>,
    vacant: Vec<Slot>,
    index: Index,
    hasher: FixedState,
}

impl<K: Hash + Eq, V> FixedTable<K, V> {
    /// A table for `capacity` entries. `seed` should be random, so that nobody can choose keys that collide.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.min(Slot::MAX as usize);
        Self {
            entries: (0..capacity).map(|_| None).collect(),
            vacant: (0..capacity as Slot).rev().collect(),
            index: Index::new(capacity),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Bytes that one entry takes of the budget, its share of the index included.
    pub const fn entry_bytes() -> usize {
        size_of::<Option<(K, V)>>() + size_of::<Slot>() + INDEX_BYTES_PER_ENTRY
    }
}

impl<K: Hash + Eq, V> Table<K, V> for FixedTable<K, V> {
    fn capacity(&self) -> usize {
        self.entries.len()
    }

    fn len(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }

    fn slots(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    fn find(&self, key: &K) -> Option<Slot> {
        let entries = &self.entries;
        let is_key = |slot: Slot| {
            entries[slot as usize]
                .as_ref()
                .is_some_and(|(held, _)| held == key)
        };
        self.index.find(self.hasher.hash_one(key), is_key)
    }

    #[inline]
    fn get(&self, slot: Slot) -> Option<(&K, &V)> {
        self.entries
            .get(slot as usize)?
            .as_ref()
            .map(|(key, value)| (key, value))
    }

    #[inline]
    fn get_mut(&mut self, slot: Slot) -> Option<(&K, &mut V)> {
        self.entries
            .get_mut(slot as usize)?
            .as_mut()
            .map(|(key, value)| (&*key, value))
    }

    fn insert(&mut self, key: K, value: V) -> Result<Slot, Full> {
        let slot = self.vacant.pop().ok_or(Full)?;
        let hash = self.hasher.hash_one(&key);
        self.entries[slot as usize] = Some((key, value));
        self.index.insert(hash, slot);
        Ok(slot)
    }

    fn remove(&mut self, slot: Slot) -> Option<(K, V)> {
        let (key, value) = self.entries.get_mut(slot as usize)?.take()?;
        self.index.remove(self.hasher.hash_one(&key), slot);
        self.vacant.push(slot);
        Some((key, value))
    }
}

impl<K: Hash + Eq + Copy, V, const N: usize> Table<K, V> for heapless::index_map::FnvIndexMap<K, V, N> {
    fn capacity(&self) -> usize {
        N
    }

    fn len(&self) -> usize {
        heapless::IndexMap::len(self)
    }

    fn slots(&self) -> usize {
        heapless::IndexMap::len(self)
    }

    fn find(&self, key: &K) -> Option<Slot> {
        self.get_index_of(key).map(|slot| slot as Slot)
    }

    fn get(&self, slot: Slot) -> Option<(&K, &V)> {
        self.get_index(slot as usize)
    }

    fn get_mut(&mut self, slot: Slot) -> Option<(&K, &mut V)> {
        self.get_index_mut(slot as usize)
    }

    fn insert(&mut self, key: K, value: V) -> Result<Slot, Full> {
        let slot = heapless::IndexMap::len(self) as Slot;
        heapless::IndexMap::insert(self, key, value).map_err(|_| Full)?;
        Ok(slot)
    }

    fn remove(&mut self, slot: Slot) -> Option<(K, V)> {
        let key = *self.get_index(slot as usize)?.0;
        self.swap_remove(&key).map(|value| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use heapless::index_map::FnvIndexMap;
    use proptest::prelude::*;

    use super::*;

    /// Random operations against a plain map: both homes must behave the same.
    fn suite(mut table: impl Table<u16, u32>, operations: &[(u8, u16)]) {
        let capacity = table.capacity();
        let mut model = BTreeMap::new();
        for (step, &(operation, key)) in operations.iter().enumerate() {
            let slot = table.find(&key);
            assert_eq!(slot.is_some(), model.contains_key(&key));
            match (operation % 3, slot) {
                (0, Some(slot)) => {
                    assert_eq!(table.remove(slot), model.remove(&key).map(|value| (key, value)));
                }
                (1, Some(slot)) => {
                    *table.get_mut(slot).unwrap().1 += 1;
                    *model.get_mut(&key).unwrap() += 1;
                }
                (2, None) => {
                    let inserted = table.insert(key, step as u32);
                    assert_eq!(inserted.is_ok(), model.len() < capacity);
                    if inserted.is_ok() {
                        model.insert(key, step as u32);
                    }
                }
                _ => {}
            }
            assert_eq!(table.len(), model.len());
        }
        let mut held: Vec<_> = (0..table.slots() as Slot)
            .filter_map(|slot| table.get(slot))
            .map(|(k, v)| (*k, *v))
            .collect();
        held.sort_unstable();
        assert_eq!(held, model.into_iter().collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn both_homes_agree_with_a_plain_map(operations in prop::collection::vec((any::<u8>(), 0_u16..40), 0..300)) {
            suite(FixedTable::new(16, 7), &operations);
            suite(FnvIndexMap::<u16, u32, 16>::new(), &operations);
        }
    }

    #[test]
    fn a_full_table_refuses_and_goes_on() {
        let mut table = FixedTable::new(100, 7);
        for round in 0..10_000_u32 {
            if table.len() == 100 {
                assert_eq!(table.insert(u32::MAX, ()), Err(Full));
                let slot = table.find(&(round - 100)).unwrap();
                table.remove(slot);
            }
            table.insert(round, ()).unwrap();
        }
    }
}
