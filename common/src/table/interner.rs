//! The interner: gives each key in use a small number, so that the hot path compares four bytes.
//!
//! It counts the users of each key, lives in memory taken at construction, and refuses when that is full.

use alloc::boxed::Box;
use alloc::vec;
use core::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::fixed::{Full, Slot};
use super::index::{INDEX_BYTES_PER_ENTRY, Index};

/// A key's number while it is in use.
pub type KeyId = u32;

/// Keys in use, by number and by bytes, in memory taken at construction.
///
/// The bytes lie in one arena, each behind a head that names its owner; freed ones are closed up when the arena's end
/// is reached, which moves bytes but not numbers.
#[derive(Debug)]
pub struct Interner {
    entries: Box<[KeyEntry]>,
    vacant: alloc::vec::Vec<KeyId>,
    index: Index,
    hasher: FixedState,
    arena: Box<[u8]>,
    /// The arena is in use up to here.
    end: usize,
    /// How many of those bytes belong to keys in use, heads included.
    live: usize,
}

#[derive(Clone, Copy, Default, Debug)]
struct KeyEntry {
    users: u32,
    offset: u32,
    /// See [`Interner::hint`]; here because who has looked at the key's bytes has it at hand.
    hint: Slot,
    length: u16,
}

/// Owner (4 bytes) and length (2 bytes) before each key in the arena.
const HEAD: usize = 6;
/// The owner of bytes that are no longer in use.
const NOBODY: KeyId = KeyId::MAX;
/// Closing up is worth its cost when at least 1/8 of the arena comes free.
const CLOSE_UP_PART: usize = 8;

impl Interner {
    /// Room for `capacity` keys that together take at most `bytes`. `seed` should be random.
    pub fn new(capacity: usize, bytes: usize, seed: u64) -> Self {
        let capacity = capacity.min(NOBODY as usize - 1);
        Self {
            entries: vec![KeyEntry::default(); capacity].into_boxed_slice(),
            vacant: (0..capacity as KeyId).rev().collect(),
            index: Index::new(capacity),
            hasher: FixedState::with_seed(seed),
            arena: vec![0; bytes.min(u32::MAX as usize)].into_boxed_slice(),
            end: 0,
            live: 0,
        }
    }

    /// Bytes of the budget that one key takes besides its own bytes.
    pub const fn entry_bytes() -> usize {
        size_of::<KeyEntry>() + size_of::<KeyId>() + INDEX_BYTES_PER_ENTRY + HEAD
    }

    /// How many keys are in use.
    pub fn len(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }

    /// Whether no key is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a key in use.
    #[inline]
    pub fn bytes(&self, id: KeyId) -> &[u8] {
        bytes_of(&self.arena, self.entries[id as usize])
    }

    /// The number of this key if it is in use.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<KeyId> {
        let (entries, arena) = (&self.entries, &self.arena);
        let is_key = |id: KeyId| bytes_of(arena, entries[id as usize]) == key;
        self.index.find(self.hasher.hash_one(key), is_key)
    }

    /// Where the caller has last found something of this key; [`Slot::MAX`] at first.
    #[inline]
    pub fn hint(&self, id: KeyId) -> Slot {
        self.entries[id as usize].hint
    }

    /// Remembers where something of this key is.
    #[inline]
    pub fn set_hint(&mut self, id: KeyId, slot: Slot) {
        self.entries[id as usize].hint = slot;
    }

    /// Takes a key into use without users yet; it must not be in use. Call [`Interner::retain`] next.
    pub fn insert(&mut self, key: &[u8]) -> Result<KeyId, Full> {
        let length = u16::try_from(key.len()).map_err(|_| Full)?;
        let need = HEAD + key.len();
        if self.vacant.is_empty() || self.live + need > self.arena.len() {
            return Err(Full);
        }
        if self.end + need > self.arena.len() {
            if (self.end - self.live) * CLOSE_UP_PART < self.arena.len() {
                return Err(Full);
            }
            self.close_up();
        }
        let id = self.vacant.pop().ok_or(Full)?;
        let (head, rest) = self.arena[self.end..].split_at_mut(HEAD);
        head[..4].copy_from_slice(&id.to_le_bytes());
        head[4..].copy_from_slice(&length.to_le_bytes());
        rest[..key.len()].copy_from_slice(key);
        self.entries[id as usize] = KeyEntry {
            users: 0,
            offset: (self.end + HEAD) as u32,
            hint: Slot::MAX,
            length,
        };
        self.end += need;
        self.live += need;
        self.index.insert(self.hasher.hash_one(key), id);
        Ok(id)
    }

    /// Counts one more user.
    #[inline]
    pub fn retain(&mut self, id: KeyId) {
        self.entries[id as usize].users += 1;
    }

    /// Counts one user less; the last one frees the key and its number.
    pub fn release(&mut self, id: KeyId) {
        let entry = &mut self.entries[id as usize];
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        let entry = *entry;
        let hash = self.hasher.hash_one(bytes_of(&self.arena, entry));
        self.index.remove(hash, id);
        let head = entry.offset as usize - HEAD;
        self.arena[head..head + 4].copy_from_slice(&NOBODY.to_le_bytes());
        self.live -= HEAD + usize::from(entry.length);
        self.vacant.push(id);
    }

    /// Moves the keys in use to the front of the arena.
    fn close_up(&mut self) {
        let (mut from, mut to) = (0, 0);
        while from < self.end {
            let head = &self.arena[from..from + HEAD];
            let owner = KeyId::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let size = HEAD + usize::from(u16::from_le_bytes([head[4], head[5]]));
            if owner != NOBODY {
                self.arena.copy_within(from..from + size, to);
                self.entries[owner as usize].offset = (to + HEAD) as u32;
                to += size;
            }
            from += size;
        }
        debug_assert_eq!(to, self.live);
        self.end = to;
    }
}

#[inline]
fn bytes_of(arena: &[u8], entry: KeyEntry) -> &[u8] {
    &arena[entry.offset as usize..entry.offset as usize + usize::from(entry.length)]
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Random use against a plain map, in an arena so small that it must close up often.
        #[test]
        fn keys_agree_with_a_plain_map(operations in prop::collection::vec((any::<bool>(), 0_u32..30, 0_usize..20), 0..400)) {
            let mut keys = Interner::new(12, 200, 7);
            let mut model: BTreeMap<Vec<u8>, (KeyId, u32)> = BTreeMap::new();
            for (take, number, length) in operations {
                let mut bytes = number.to_le_bytes().to_vec();
                bytes.resize(4 + (number as usize + length) % 16, b'x');
                let known = keys.find(&bytes);
                prop_assert_eq!(known, model.get(&bytes).map(|held| held.0));
                if take {
                    let Some(id) = known.or_else(|| keys.insert(&bytes).ok()) else {
                        prop_assert!(model.len() == 12 || keys.live + HEAD + bytes.len() + 200 / CLOSE_UP_PART > 200);
                        continue;
                    };
                    keys.retain(id);
                    model.entry(bytes).or_insert((id, 0)).1 += 1;
                } else if let Some(id) = known {
                    keys.release(id);
                    let users = &mut model.get_mut(&bytes).unwrap().1;
                    *users -= 1;
                    if *users == 0 { model.remove(&bytes); }
                }
                prop_assert_eq!(keys.len(), model.len());
                for (bytes, (id, _)) in &model {
                    prop_assert_eq!(keys.bytes(*id), bytes.as_slice());
                }
            }
        }
    }
}
