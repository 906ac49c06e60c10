//! Where in a table something is, by hash: open addressing over one array of words that is taken at construction.
//!
//! A word holds the number of an entry and 32 bits of its hash; the hash also says where the search begins, so that a
//! search touches one line of cache before it looks at an entry, and removal closes the gap by moving words back
//! (Knuth, TAOCP volume 3, 6.4, algorithm R). There are no tombstones: searches stay as short after a year as on the
//! first day, and nothing is ever rebuilt. The table that owns it knows the keys.

use alloc::boxed::Box;
use alloc::vec;

/// Words for each entry. Half full, a search looks at one or two.
const WORDS_PER_ENTRY: usize = 2;

/// Bytes of the index for each entry of its capacity.
pub(crate) const INDEX_BYTES_PER_ENTRY: usize = WORDS_PER_ENTRY * size_of::<u64>();

/// Numbers by hash. Holds as many as it was made for; the caller keeps count.
#[derive(Debug)]
pub(crate) struct Index {
    /// Hash bits in the upper half, the number and one in the lower half; 0 is vacant.
    words: Box<[u64]>,
}

impl Index {
    /// An index for `capacity` numbers, each below `u32::MAX`.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            words: vec![0; (capacity * WORDS_PER_ENTRY).max(WORDS_PER_ENTRY)].into_boxed_slice(),
        }
    }

    /// The number with this hash that `is_it` accepts.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let word = self.words[at];
            if word == 0 {
                return None;
            }
            if word >> 32 == hash >> 32 && is_it(number_of(word)) {
                return Some(number_of(word));
            }
            at = self.after(at);
        }
    }

    /// Adds a number that is not in the index. There must be room.
    pub(crate) fn insert(&mut self, hash: u64, number: u32) {
        let mut at = self.home(hash);
        while self.words[at] != 0 {
            at = self.after(at);
        }
        self.words[at] = (hash >> 32 << 32) | (u64::from(number) + 1);
    }

    /// Removes a number, or does nothing if it is not there.
    pub(crate) fn remove(&mut self, hash: u64, number: u32) {
        let mut at = self.home(hash);
        while number_of(self.words[at]) != number || self.words[at] == 0 {
            if self.words[at] == 0 {
                return;
            }
            at = self.after(at);
        }
        // An entry behind the gap that may lie in it moves there, and leaves the next gap.
        let mut gap = at;
        loop {
            at = self.after(at);
            let word = self.words[at];
            if word == 0 {
                break;
            }
            let home = self.home(word);
            let stays = if gap < at {
                gap < home && home <= at
            } else {
                gap < home || home <= at
            };
            if !stays {
                self.words[gap] = word;
                gap = at;
            }
        }
        self.words[gap] = 0;
    }

    /// Where the search for a hash begins. Only the bits that a word keeps decide.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.words.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.words.len() { 0 } else { at + 1 }
    }
}

#[inline]
fn number_of(word: u64) -> u32 {
    (word as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use core::hash::BuildHasher;

    use foldhash::fast::FixedState;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Random use against a plain map, with hashes so few that most collide and searches come round the end.
        #[test]
        fn it_agrees_with_a_plain_map(operations in prop::collection::vec((0_u32..12, 0_u64..5), 0..200)) {
            let mut index = Index::new(6);
            let mut model = BTreeMap::new();
            for (number, part) in operations {
                match model.get(&number) {
                    Some(&hash) => {
                        index.remove(hash, number);
                        model.remove(&number);
                    }
                    None if model.len() < 6 => {
                        let hash = u64::MAX / 4 * part;
                        index.insert(hash, number);
                        model.insert(number, hash);
                    }
                    None => {}
                }
                for number in 0..12 {
                    let known = model.get(&number);
                    for part in 0..5 {
                        let hash = u64::MAX / 4 * part;
                        let found = index.find(hash, |held| held == number);
                        prop_assert_eq!(found, known.filter(|known| **known == hash).map(|_| number));
                    }
                }
            }
            let held = index.words.iter().filter(|word| **word != 0).count();
            prop_assert_eq!(held, model.len());
        }
    }

    /// With the hash that the tables use, a full index answers within a few words, for keys that count up as for any.
    #[test]
    fn searches_are_short() {
        const COUNT: u32 = 10_000;
        let (mut index, hasher) = (Index::new(COUNT as usize), FixedState::with_seed(7));
        for number in 0..COUNT {
            index.insert(hasher.hash_one(u64::from(number) * 1_000_000), number);
        }
        let mut looked = 0;
        let mut longest = 0;
        for (at, &word) in index.words.iter().enumerate().filter(|(_, word)| **word != 0) {
            let steps = (at + index.words.len() - index.home(word)) % index.words.len() + 1;
            looked += steps;
            longest = longest.max(steps);
        }
        assert!(
            looked < 2 * COUNT as usize && longest < 64,
            "{looked} words for {COUNT}, longest {longest}"
        );
    }
}
