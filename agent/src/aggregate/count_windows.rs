//! Count windows (`count`): for each key the number of its open window, and how many readings that has.
//!
//! **Numbers.** A window's number is the instant, in whole milliseconds of the agent's clock, at which its first
//! reading was taken, and at least one more than the number of the window of that key before it. So the numbers of a
//! key rise, whatever becomes of what is known of it: a key that is not known begins at the clock, and would need more
//! than a thousand windows in each second, for as long as it had been known, to have been there before. A clock that
//! stepped back changes nothing for keys that are known, and what has been forgotten leaves the highest of its numbers
//! behind, above which every unknown key begins.
//!
//! **Bounds.** The table has a fixed size. When it is full, the key that was silent longest (by a clock hand) is
//! forgotten: its open window leaves as it is, stays short of readings, and is counted.
//!
//! **Restarts.** The journal is told of a key's window before the first reading that each of its segments has of the
//! key, of each window that begins, and of what is forgotten. A replay therefore asks no clock: it knows the window of
//! every reading, and what the table held. What would be forgotten with old segments is told again.

use std::collections::BTreeMap;

use catchment_common::limits::{KEY_BYTES_MAX, WINDOW_STEP_MIN};
use catchment_common::plan::PipelineId;
use catchment_common::table::interner::{Interner, KeyId};
use catchment_common::table::pane::KEY_BYTES_TYPICAL;
use catchment_common::time::Timestamp;

use crate::log::journal::Journal;

/// Bytes of a pipeline's number before the key.
const PIPELINE_BYTES: usize = size_of::<u64>();
/// Longest identity: pipeline and key.
pub const IDENTITY_BYTES_MAX: usize = PIPELINE_BYTES + KEY_BYTES_MAX;

/// A key's newest window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Its number: whole milliseconds.
    pub number: Timestamp,
    /// How many readings it has, those that have left included.
    pub readings: u32,
}

/// Where a reading goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Its window's number.
    pub number: Timestamp,
    /// Whether it is the window's last.
    pub is_last: bool,
    /// Whether another key's window left for it.
    pub has_cut: bool,
}

/// The newest windows of all keys.
#[derive(Debug)]
pub struct CountWindows {
    identities: Interner,
    places: Box<[Place]>,
    identity: Vec<u8>,
    hand: usize,
    /// The highest number of a window that was forgotten, and the segment of the journal that last told of it.
    floor: (Timestamp, u32),
    memory_bytes: usize,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    window: Window,
    /// The segment of the journal that last told of it; 0 for a place not in use.
    segment: u32,
    /// Whether it was used since the hand passed.
    is_recent: bool,
}

impl Place {
    const VACANT: Self = Self {
        window: Window {
            number: Timestamp::MIN,
            readings: 0,
        },
        segment: 0,
        is_recent: false,
    };
}

impl CountWindows {
    /// Knows so many keys as fit into `memory_bytes`; none with 0. `seed` should be random.
    pub fn new(memory_bytes: usize, seed: u64) -> Self {
        let each = Interner::entry_bytes() + KEY_BYTES_TYPICAL + PIPELINE_BYTES + size_of::<Place>();
        let capacity = if memory_bytes == 0 {
            0
        } else {
            (memory_bytes / each).max(1)
        };
        let bytes = capacity * (KEY_BYTES_TYPICAL + PIPELINE_BYTES);
        Self {
            identities: Interner::new(
                capacity,
                bytes.max(capacity.min(1) * 4 * IDENTITY_BYTES_MAX),
                seed,
            ),
            places: vec![Place::VACANT; capacity].into_boxed_slice(),
            identity: Vec::with_capacity(IDENTITY_BYTES_MAX),
            hand: 0,
            floor: (Timestamp::MIN, 0),
            memory_bytes,
            seed,
        }
    }

    /// Pipelines are called otherwise from now on. The journal is to be told of all windows again.
    pub fn rename(&mut self, ids: &BTreeMap<PipelineId, PipelineId>) {
        let mut renamed = Self::new(self.memory_bytes, self.seed);
        renamed.floor = self.floor;
        let mut identity = Vec::new();
        for (id, place) in self.in_use() {
            let Some((pipeline, key)) = parts(self.identities.bytes(id)) else {
                continue;
            };
            identify(
                &mut identity,
                ids.get(&pipeline).copied().unwrap_or(pipeline),
                key,
            );
            renamed.restore(&identity, place.window, place.segment, |_, _| {});
        }
        *self = renamed;
    }

    /// How many keys it knows at most.
    pub fn capacity(&self) -> usize {
        self.places.len()
    }

    /// A key's newest window, if it is known.
    pub fn window(&mut self, pipeline: PipelineId, key: &[u8]) -> Option<Window> {
        self.identify(pipeline, key);
        let id = self.identities.find(&self.identity)?;
        Some(self.places[id as usize].window)
    }

    /// The place of a key, made if need be. What has to be forgotten for it is handed to `gone`, for the journal to be
    /// told of its identity. The table must have been made with memory.
    #[inline]
    pub fn place(&mut self, pipeline: PipelineId, key: &[u8], gone: impl FnMut(&[u8], Window)) -> KeyId {
        self.identify(pipeline, key);
        match self.identities.find(&self.identity) {
            Some(id) => id,
            None => self.make(gone),
        }
    }

    fn make(&mut self, mut gone: impl FnMut(&[u8], Window)) -> KeyId {
        loop {
            if let Ok(id) = self.identities.insert(&self.identity) {
                self.identities.retain(id);
                self.places[id as usize] = Place {
                    // The next window begins above it.
                    window: Window {
                        number: self.floor.0,
                        readings: 0,
                    },
                    segment: u32::MAX,
                    is_recent: false,
                };
                return id;
            }
            // An empty table has room for any key.
            self.forget(&mut gone);
        }
    }

    /// Forgets the key that was silent longest.
    fn forget(&mut self, gone: &mut impl FnMut(&[u8], Window)) {
        let count = self.places.len();
        // After one round none is recent any more.
        let victim = (0..2 * count).find_map(|_| {
            let at = self.hand;
            self.hand = (self.hand + 1) % count;
            let place = &mut self.places[at];
            let was_recent = std::mem::take(&mut place.is_recent);
            (place.segment > 0 && !was_recent).then_some(at)
        });
        let Some(victim) = victim else { return };
        let victim = victim as KeyId;
        gone(self.identities.bytes(victim), self.places[victim as usize].window);
        self.remove(victim);
    }

    fn remove(&mut self, id: KeyId) {
        let place = std::mem::replace(&mut self.places[id as usize], Place::VACANT);
        if place.window.number > self.floor.0 {
            self.floor = (place.window.number, 0);
        }
        self.identities.release(id);
    }

    /// Forgets what the journal says was forgotten.
    pub fn replay_gone(&mut self, identity: &[u8]) {
        if let Some(id) = self.identities.find(identity) {
            self.remove(id);
        }
    }

    /// Takes a key's next reading into its window, or into a new one of `limit` readings, and tells the journal.
    #[inline]
    pub fn take(&mut self, id: KeyId, limit: u32, wall: Timestamp, journal: &mut Journal) -> Step {
        let place = &mut self.places[id as usize];
        // Not with its first reading: who comes once leaves before those who come again.
        place.is_recent = place.segment != u32::MAX;
        let begins = place.window.readings == 0 || place.window.readings >= limit;
        if begins {
            let after = place.window.number.plus(WINDOW_STEP_MIN);
            place.window = Window {
                number: wall.pane_start(WINDOW_STEP_MIN).max(after),
                readings: 0,
            };
        }
        if place.segment != journal.segment() {
            place.segment = journal.segment();
            journal.window(u64::from(id), place.window, self.identities.bytes(id));
        } else if begins {
            journal.next_window(u64::from(id), place.window.number);
        }
        place.window.readings = place.window.readings.saturating_add(1);
        Step {
            number: place.window.number,
            is_last: place.window.readings >= limit,
            has_cut: false,
        }
    }

    /// Puts back what a journal says of a key. With less room than there was, some are handed to `gone`.
    pub fn restore(
        &mut self,
        identity: &[u8],
        window: Window,
        segment: u32,
        gone: impl FnMut(&[u8], Window),
    ) {
        let Some((pipeline, key)) = parts(identity).filter(|_| !self.places.is_empty()) else {
            return;
        };
        let id = self.place(pipeline, key, gone);
        self.places[id as usize] = Place {
            window,
            segment,
            is_recent: true,
        };
    }

    /// Puts back what a journal says of the forgotten.
    pub fn restore_floor(&mut self, number: Timestamp, segment: u32) {
        if number >= self.floor.0 {
            self.floor = (number, segment);
        }
    }

    /// Tells the journal again of every key that it would forget with the segments before `needed`.
    pub fn carry(&mut self, needed: u32, journal: &mut Journal) {
        for (id, place) in self.places.iter_mut().enumerate() {
            if place.segment > 0 && place.segment < needed {
                place.segment = journal.segment();
                journal.window(id as u64, place.window, self.identities.bytes(id as KeyId));
            }
        }
        let (number, segment) = &mut self.floor;
        if *number > Timestamp::MIN && *segment < needed {
            *segment = journal.segment();
            journal.window_floor(*number);
        }
    }

    /// Takes over what another table knows of pipelines that run, as far as there is room.
    pub fn adopt(&mut self, before: &Self, runs: impl Fn(PipelineId) -> bool) {
        self.floor = self.floor.max(before.floor);
        for (id, place) in before.in_use() {
            let identity = before.identities.bytes(id);
            match parts(identity) {
                Some((pipeline, _)) if runs(pipeline) => {
                    self.restore(identity, place.window, place.segment, |_, _| {});
                }
                // Should the pipeline run again, it goes on above.
                _ => self.floor = self.floor.max((place.window.number, 0)),
            }
        }
    }

    /// How many windows of a pipeline have fewer than `limit` readings.
    pub fn unfinished(&self, pipeline: PipelineId, limit: u32) -> u64 {
        let is_of = |id| parts(self.identities.bytes(id)).is_some_and(|(of, _)| of == pipeline);
        self.in_use()
            .filter(|&(id, place)| place.window.readings < limit && is_of(id))
            .count() as u64
    }

    fn in_use(&self) -> impl Iterator<Item = (KeyId, Place)> {
        let places = (0..).zip(&self.places).map(|(id, place)| (id, *place));
        places.filter(|(_, place)| place.segment > 0)
    }

    fn identify(&mut self, pipeline: PipelineId, key: &[u8]) {
        identify(&mut self.identity, pipeline, key);
    }
}

/// Puts a key's identity together.
pub(crate) fn identify(identity: &mut Vec<u8>, pipeline: PipelineId, key: &[u8]) {
    identity.clear();
    identity.extend_from_slice(&pipeline.0.to_le_bytes());
    identity.extend_from_slice(key);
}

/// Pipeline and key of an identity.
pub(crate) fn parts(identity: &[u8]) -> Option<(PipelineId, &[u8])> {
    let (pipeline, key) = identity.split_first_chunk()?;
    Some((PipelineId(u64::from_le_bytes(*pipeline)), key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPELINE: PipelineId = PipelineId(3);

    fn ms(ms: i64) -> Timestamp {
        Timestamp::clamped(1_800_000_000_000_000 + ms * 1_000)
    }

    fn journal() -> Journal {
        Journal::new(1 << 20, [], 1, 1)
    }

    /// Takes a reading at an instant into windows of two; returns the number of its window, in milliseconds.
    fn take(count_windows: &mut CountWindows, key: &str, at: i64, journal: &mut Journal) -> i64 {
        let id = count_windows.place(PIPELINE, key.as_bytes(), |_, _| {});
        let step = count_windows.take(id, 2, ms(at), journal);
        step.number.since(ms(0)).as_micros() / 1_000
    }

    #[test]
    fn a_window_is_named_by_the_instant_of_its_first_reading() {
        let (mut count_windows, mut journal) = (CountWindows::new(1 << 16, 7), journal());
        let mut take = |key: &str, at| take(&mut count_windows, key, at, &mut journal);
        assert_eq!([take("a", 10), take("b", 11), take("a", 500)], [10, 11, 10]);
        assert_eq!([take("a", 501), take("a", 502), take("b", 502)], [501, 501, 11]);
        // Faster than the clock, or with a clock that stepped back.
        assert_eq!([take("a", 501), take("a", 501), take("a", 501)], [502, 502, 503]);
        assert_eq!([take("b", -9_000), take("b", -9_000), take("b", 9)], [12, 12, 13]);
    }

    #[test]
    fn a_full_window_says_so_and_a_limit_of_one_makes_each_reading_a_window() {
        let (mut count_windows, mut journal) = (CountWindows::new(1 << 16, 7), journal());
        let id = count_windows.place(PIPELINE, b"a", |_, _| {});
        let last: Vec<bool> = (0..7)
            .map(|at| count_windows.take(id, 3, ms(at), &mut journal).is_last)
            .collect();
        assert_eq!(last, [false, false, true, false, false, true, false]);
        assert_eq!(count_windows.unfinished(PIPELINE, 3), 1);
        assert!((0..3).all(|_| count_windows.take(id, 1, ms(9), &mut journal).is_last));
    }

    #[test]
    fn what_is_forgotten_leaves_a_number_behind_and_the_busy_stay() {
        let (mut count_windows, mut journal) = (CountWindows::new(1, 7), journal());
        assert_eq!(count_windows.capacity(), 1);
        take(&mut count_windows, "a", 100, &mut journal);
        let mut gone = Vec::new();
        let id = count_windows.place(PIPELINE, b"b", |identity, window| {
            let (pipeline, key) = parts(identity).unwrap();
            gone.push((pipeline, key.to_vec(), window.readings));
        });
        assert_eq!(gone, [(PIPELINE, b"a".to_vec(), 1)]);
        // The clock has stepped back: whoever is unknown still begins above all that was there before.
        assert_eq!(count_windows.take(id, 2, ms(50), &mut journal).number, ms(101));
        assert_eq!(take(&mut count_windows, "a", 60, &mut journal), 102);

        let mut count_windows = CountWindows::new(1 << 12, 7);
        let capacity = count_windows.capacity();
        for number in 0..10 * capacity {
            take(&mut count_windows, "busy", number as i64, &mut journal);
            take(
                &mut count_windows,
                &format!("key-{number}"),
                number as i64,
                &mut journal,
            );
            assert!(count_windows.window(PIPELINE, b"busy").is_some());
        }
    }

    #[test]
    fn another_plan_keeps_what_goes_on_and_only_the_numbers_of_the_rest() {
        let (mut before, mut journal) = (CountWindows::new(1 << 12, 7), journal());
        take(&mut before, "a", 100, &mut journal);
        let id = before.place(PipelineId(9), b"a", |_, _| {});
        before.take(id, 5, ms(900), &mut journal);
        let mut after = CountWindows::new(1 << 12, 8);
        after.adopt(&before, |pipeline| pipeline == PIPELINE);
        assert_eq!(take(&mut after, "a", 950, &mut journal), 100, "it has one of two");
        assert_eq!(after.window(PipelineId(9), b"a"), None);
        assert_eq!(take(&mut after, "z", 0, &mut journal), 901);
    }
}
