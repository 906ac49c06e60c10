//! Which keys a query takes in: so many new ones in each interval, and the rest under one visible key.
//!
//! A device that invents a name for each message would fill the pane table with partials of one reading, the uplink
//! with keys and the centre with rows. A query may therefore name a cap (`new_keys`). Keys that were seen before are
//! always taken in. Of keys that were not, the cap's number is admitted in each interval; readings of the others are
//! lifted under the *overflow key*, whose every tag is [`OVERFLOW`]: they count, and everybody can see that they do.
//!
//! After a start nothing is known, and the keys of a large fleet must not be taken for inventions: until the end of the
//! first whole interval in which there were readings, every key is admitted. What is known are hashes under a random
//! seed, in a table of fixed size; when it is full, the key that was silent longest (by a clock hand) is forgotten and
//! counts as new when it comes again.

use std::hash::BuildHasher;

use catchment_common::key::KeyBuffer;
use catchment_common::plan::NewKeys;
use catchment_common::table::fixed::{FixedTable, Slot, Table};
use catchment_common::time::{Instant, Now};
use foldhash::fast::FixedState;

/// The value of every tag of the overflow key.
pub const OVERFLOW: &str = "(overflow)";

/// The keys that one pipeline knows.
#[derive(Debug)]
pub struct KeyCap {
    cap: NewKeys,
    known: FixedTable<u64, Visit>,
    hasher: FixedState,
    seed: u64,
    hand: Slot,
    /// The running interval's end; none before the first reading.
    until: Option<Instant>,
    admitted: u32,
    /// Every key is admitted.
    is_learning: bool,
}

/// Whether a key was seen since the clock hand passed.
#[derive(Clone, Copy, Debug)]
struct Visit {
    recent: bool,
}

impl KeyCap {
    /// Knows at most `capacity` keys. `seed` should be random.
    pub fn new(cap: NewKeys, capacity: usize, seed: u64) -> Self {
        Self {
            cap,
            known: FixedTable::new(capacity.max(1), seed),
            hasher: FixedState::with_seed(seed.rotate_left(24)),
            seed,
            hand: 0,
            until: None,
            admitted: 0,
            is_learning: true,
        }
    }

    /// The same with room for another number of keys; of too many some are forgotten.
    pub fn resized(self, capacity: usize) -> Self {
        let capacity = capacity.max(1);
        if capacity == self.known.capacity() {
            return self;
        }
        let mut known = FixedTable::new(capacity, self.seed);
        let held = (0..self.known.slots() as Slot).filter_map(|slot| self.known.get(slot));
        for (&hash, &visit) in held.take(capacity) {
            // There is room for as many as are taken.
            let _ = known.insert(hash, visit);
        }
        Self {
            known,
            hand: 0,
            ..self
        }
    }

    /// Bytes that one known key takes.
    pub const fn entry_bytes() -> usize {
        FixedTable::<u64, Visit>::entry_bytes()
    }

    /// Whether a reading of this key is lifted under it, rather than under the overflow key.
    pub fn admits(&mut self, key: &[u8], now: Now) -> bool {
        self.turn(now.monotonic);
        let hash = self.hasher.hash_one(key);
        if let Some(slot) = self.known.find(&hash) {
            if let Some((_, visit)) = self.known.get_mut(slot) {
                visit.recent = true;
            }
            return true;
        }
        if !self.is_learning {
            if self.admitted >= self.cap.max {
                return false;
            }
            self.admitted += 1;
        }
        self.learn(hash);
        true
    }

    /// Begins the next interval when the running one is over.
    fn turn(&mut self, now: Instant) {
        match self.until {
            None => self.until = Some(now + self.cap.every),
            Some(until) if now >= until => {
                self.until = Some(now + self.cap.every);
                self.admitted = 0;
                self.is_learning = false;
            }
            Some(_) => {}
        }
    }

    fn learn(&mut self, hash: u64) {
        if self.known.len() == self.known.capacity() {
            self.forget_one();
        }
        // There is room now.
        let _ = self.known.insert(hash, Visit { recent: true });
    }

    /// Forgets a key that was silent for a round of the hand, or any if there is none.
    fn forget_one(&mut self) {
        let slots = self.known.slots();
        for _ in 0..=slots {
            let slot = self.hand;
            self.hand = if slot as usize + 1 < slots { slot + 1 } else { 0 };
            let Some((_, visit)) = self.known.get_mut(slot) else {
                continue;
            };
            if !std::mem::replace(&mut visit.recent, false) {
                self.known.remove(slot);
                return;
            }
        }
        self.known.remove(self.hand);
    }
}

/// Makes `key` the overflow key of its pipeline, which has `tags` tags.
pub fn overflow(key: &mut KeyBuffer, tags: usize) {
    key.clear();
    for _ in 0..tags {
        key.push(OVERFLOW).expect("eight such tags fit");
    }
}

const _: () = assert!(
    catchment_common::limits::TAGS_MAX * (OVERFLOW.len() + 1) <= catchment_common::limits::KEY_BYTES_MAX
);

#[cfg(test)]
mod tests {
    use catchment_common::time::{Span, Timestamp};

    use super::*;

    fn at(seconds: u64) -> Now {
        Now {
            monotonic: Instant::from_micros(seconds * 1_000_000),
            wall: Timestamp::clamped(0),
        }
    }

    fn key_cap(max: u32, capacity: usize) -> KeyCap {
        let every = Span::from_secs(60);
        KeyCap::new(NewKeys { max, every }, capacity, 7)
    }

    fn name(number: u32) -> Vec<u8> {
        format!("device-{number}").into_bytes()
    }

    #[test]
    fn a_fleet_is_learned_at_once_and_newcomers_are_capped() {
        let mut known = key_cap(2, 1_000);
        assert!((0..500).all(|number| known.admits(&name(number), at(10))));
        // The second interval: all of them are known, and of new ones two get in.
        assert!((0..500).all(|number| known.admits(&name(number), at(70))));
        let admitted = |known: &mut KeyCap, second| {
            let from = 1_000 * second as u32;
            (from..from + 50)
                .filter(|&number| known.admits(&name(number), at(second)))
                .count()
        };
        assert_eq!(admitted(&mut known, 71), 2);
        assert_eq!(admitted(&mut known, 100), 0);
        assert_eq!(admitted(&mut known, 131), 2, "the next interval");
        assert!(known.admits(&name(71_000), at(132)), "admitted before");
        assert!(!known.admits(&name(71_049), at(132)), "and refused before");
    }

    #[test]
    fn when_the_table_is_full_the_silent_are_forgotten() {
        let mut known = key_cap(1_000, 8);
        assert!((0..8).all(|number| known.admits(&name(number), at(0))));
        for number in 100..130 {
            assert!(known.admits(&name(number), at(60 + u64::from(number))));
            for busy in 0..4 {
                assert!(known.admits(&name(busy), at(60 + u64::from(number))));
            }
            assert!(known.known.len() <= 8);
        }
        let mut strict = known;
        strict.cap.max = 0;
        assert!((0..4).all(|busy| strict.admits(&name(busy), at(400))));
        assert!(!strict.admits(&name(5), at(400)), "silent for long");
    }

    #[test]
    fn with_less_room_some_are_forgotten_and_none_invented() {
        let mut known = key_cap(0, 100);
        assert!((0..100).all(|number| known.admits(&name(number), at(0))));
        assert!(!known.admits(&name(100), at(60)));
        let mut smaller = known.resized(10);
        let known = (0..200)
            .filter(|&number| smaller.admits(&name(number), at(61)))
            .count();
        assert_eq!(known, 10);
    }

    #[test]
    fn the_overflow_key_has_the_pipelines_tags() {
        let mut key = KeyBuffer::default();
        overflow(&mut key, 2);
        assert_eq!(key.as_bytes(), b"(overflow)\0(overflow)");
    }
}
