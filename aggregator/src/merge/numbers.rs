//! Small numbers for the keys of one pipeline, given in the order in which the keys come.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::KeyId;

/// The keys of one pipeline by number, and their numbers by key.
#[derive(Debug, Default)]
pub(super) struct KeyNumbers {
    pub(super) keys: Vec<Box<[u8]>>,
    index: HashTable<KeyId>,
    hasher: RandomState,
}

impl KeyNumbers {
    /// The key's number; a new one if the key is new.
    pub(super) fn number(&mut self, key: &[u8]) -> KeyId {
        let Self { keys, index, hasher } = self;
        let hash = hasher.hash_one(key);
        if let Some(id) = find(keys, index, hash, key) {
            return id;
        }
        let id = keys.len() as KeyId;
        keys.push(key.into());
        index.insert_unique(hash, id, |&id| hasher.hash_one(&*keys[id as usize]));
        id
    }

    /// The number of a key that is known.
    pub(super) fn find(&self, key: &[u8]) -> Option<KeyId> {
        find(&self.keys, &self.index, self.hasher.hash_one(key), key)
    }
}

fn find(keys: &[Box<[u8]>], index: &HashTable<KeyId>, hash: u64, key: &[u8]) -> Option<KeyId> {
    index.find(hash, |&id| *keys[id as usize] == *key).copied()
}
