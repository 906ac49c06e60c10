//! A sketch that changes its shape in the pool: a chain that gets a directory, buckets that widen, counters that go.

use super::{Block, CHAIN_MAX, DIRECTORY_ROOM, END, Head, LEAF_NEXT, Pool, Use, WORDS, entries_of};
use crate::limits::{BUCKETS_MAX, TOP_VALUES_MAX};
use crate::sketch::Shape;

impl<B: AsRef<[Block]> + AsMut<[Block]>> Pool<B> {
    /// Gives every entry the key that `map` makes of its key and count, or drops it. Takes no more blocks than it
    /// frees, unless there is room for a directory.
    pub(super) fn rebuild(&mut self, head: &mut Head, mut map: impl FnMut(i64, u32) -> Option<i64>) {
        let mut next = self.unchain(*head);
        (head.root, head.entries, head.has_directory) = (END, 0, false);
        if self.vacant_count >= DIRECTORY_ROOM && next != END {
            self.begin_directory(head);
        }
        while next != END {
            let leaf = self.blocks.as_ref()[next as usize].0;
            self.free(next);
            next = leaf[LEAF_NEXT];
            for (key, count) in entries_of(&leaf) {
                if let Some(key) = map(key, count) {
                    let inserted = self.insert(head, key, count, false);
                    debug_assert!(inserted.is_ok(), "its leaf has just been freed");
                }
            }
        }
    }

    fn begin_directory(&mut self, head: &mut Head) {
        if let Ok(index) = self.give() {
            self.blocks.as_mut()[index as usize].0 = [END; WORDS];
            (head.root, head.has_directory) = (index, true);
        }
    }

    pub(super) fn add_directory(&mut self, head: &mut Head) {
        if !head.has_directory && head.entries > CHAIN_MAX && self.vacant_count >= DIRECTORY_ROOM {
            self.rebuild(head, |key, _| Some(key));
        }
    }

    pub(super) fn raise_until_fit(&mut self, head: &mut Head, shape: Shape) {
        while head.entries > BUCKETS_MAX as u32 && head.level < shape.level_max() {
            self.rebuild(head, |key, _| Some(shape.raise(key, 1)));
            head.level += 1;
        }
    }

    /// Drops counters of a top list that its canonical state does not keep: all above the hash that enough are at or
    /// below.
    pub(super) fn prune(&mut self, head: &mut Head, used: &mut impl FnMut(u32, Use)) {
        let (mut low, mut high) = (0, u32::MAX);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.count_up_to(*head, middle) >= TOP_VALUES_MAX {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let mut others = 0;
        self.rebuild(head, |key, count| {
            let is_kept = (key >> 32) as u32 <= low;
            if !is_kept {
                others += u64::from(count);
                used(key as u32, Use::Ends);
            }
            is_kept.then_some(key)
        });
        head.others = head.others.saturating_add(others);
    }

    /// How many counters have at most this upper half of a hash.
    fn count_up_to(&self, head: Head, limit: u32) -> usize {
        let blocks = self.blocks.as_ref();
        let directory = head.has_directory.then(|| blocks[head.root as usize].0);
        let roots = directory
            .as_ref()
            .map_or(core::slice::from_ref(&head.root), |roots| &roots[..]);
        let mut count = 0;
        for &root in roots {
            let mut next = root;
            while let Some(Block(leaf)) = blocks.get(next as usize) {
                count += entries_of(leaf)
                    .filter(|(key, _)| (key >> 32) as u32 <= limit)
                    .count();
                next = leaf[LEAF_NEXT];
            }
        }
        count
    }
}
