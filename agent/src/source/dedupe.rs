//! Dedupe that number their messages, so that what they repeat counts once.
//!
//! A query's `dedupe` names a device's sequence number in the payload. For each device (its topic and key) the highest
//! number seen is kept, and for the 64 numbers up to it whether each was seen. A number further back cannot be told
//! from a repetition and counts as one: numbers must not start over, or only together with another topic or key. The
//! table has a fixed size; when it is full, the device that was silent longest is forgotten, and that is counted.

use catchment_common::table::interner::{Interner, KeyId};

use crate::log::journal::Journal;

/// Longest identity (topic, key) of a device that numbers its messages.
pub const IDENTITY_BYTES_MAX: usize = 1_024;
/// Bytes counted for an identity.
const IDENTITY_BYTES_TYPICAL: usize = 80;
/// How many numbers are told apart.
const WINDOW: u64 = 64;

/// What is known of one device.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Numbers {
    /// The highest number.
    pub last: u64,
    /// Bit `i`: whether `last − i` was seen.
    pub window: u64,
}

impl Numbers {
    /// Takes note of a number; returns whether it is new.
    pub fn take(&mut self, number: u64) -> bool {
        if self.window == 0 {
            *self = Self {
                last: number,
                window: 1,
            };
            return true;
        }
        if number > self.last {
            let shift = number - self.last;
            self.window = if shift < WINDOW {
                self.window << shift | 1
            } else {
                1
            };
            self.last = number;
            return true;
        }
        let back = self.last - number;
        let is_new = back < WINDOW && self.window >> back & 1 == 0;
        if is_new {
            self.window |= 1 << back;
        }
        is_new
    }
}

/// All devices that number their messages.
#[derive(Debug)]
pub struct Dedupe {
    identities: Interner,
    places: Box<[Device]>,
    forgotten: u64,
}

#[derive(Clone, Copy, Default, Debug)]
struct Device {
    numbers: Numbers,
    /// The segment of the journal that last told of it; 0 for a place not in use.
    segment: u32,
    /// The last reading that was taken.
    stamp: Option<u64>,
}

impl Dedupe {
    /// Room for `capacity` devices; none are needed by a plan without `dedupe`. `seed` should be random.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let bytes =
            (capacity * IDENTITY_BYTES_TYPICAL).max(if capacity > 0 { 2 * IDENTITY_BYTES_MAX } else { 0 });
        Self {
            identities: Interner::new(capacity, bytes, seed),
            places: vec![Device::default(); capacity].into_boxed_slice(),
            forgotten: 0,
        }
    }

    /// Takes note of a device's number and tells the journal; returns whether the number is new. `stamp` names the
    /// reading: several pipelines may ask about one, and get one answer.
    pub fn take(&mut self, identity: &[u8], number: u64, stamp: u64, journal: &mut Journal) -> bool {
        let Some(id) = self.place(identity) else {
            return true;
        };
        let device = &mut self.places[id as usize];
        let before = device.numbers;
        if device.stamp == Some(stamp) {
            return true;
        }
        if !device.numbers.take(number) {
            return false;
        }
        device.stamp = Some(stamp);
        if device.segment != journal.segment() {
            device.segment = journal.segment();
            journal.device(u64::from(id), before, identity);
        }
        journal.sequence(u64::from(id), number);
        true
    }

    /// Puts back what a journal says of a device.
    pub fn restore(&mut self, identity: &[u8], numbers: Numbers, segment: u32) {
        if let Some(id) = self.place(identity) {
            self.places[id as usize] = Device {
                numbers,
                segment,
                stamp: None,
            };
        }
    }

    /// A number that was taken before the restart.
    pub fn replay(&mut self, identity: &[u8], number: u64) {
        if let Some(id) = self.place(identity) {
            self.places[id as usize].numbers.take(number);
        }
    }

    /// Tells the journal again of every device that it would forget with the segments before `needed`.
    pub fn carry(&mut self, needed: u32, journal: &mut Journal) {
        for (id, device) in self.places.iter_mut().enumerate() {
            if device.segment > 0 && device.segment < needed {
                device.segment = journal.segment();
                journal.device(id as u64, device.numbers, self.identities.bytes(id as KeyId));
            }
        }
    }

    /// Takes over what another table knows, as far as there is room.
    pub fn adopt(&mut self, before: &Self) {
        for (id, device) in before.places.iter().enumerate() {
            if device.segment > 0 {
                self.restore(
                    before.identities.bytes(id as KeyId),
                    device.numbers,
                    device.segment,
                );
            }
        }
    }

    /// Dedupe forgotten for want of room, since the last call.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    /// The place of a device, made if need be; none in a table without room for any.
    fn place(&mut self, identity: &[u8]) -> Option<KeyId> {
        if let Some(id) = self.identities.find(identity) {
            return Some(id);
        }
        while !self.places.is_empty() {
            if let Ok(id) = self.identities.insert(identity) {
                self.identities.retain(id);
                self.places[id as usize] = Device {
                    segment: u32::MAX,
                    ..Device::default()
                };
                return Some(id);
            }
            let in_use = self
                .places
                .iter()
                .enumerate()
                .filter(|(_, device)| device.segment > 0);
            let (oldest, _) = in_use.min_by_key(|(_, device)| device.segment)?;
            self.places[oldest] = Device::default();
            self.identities.release(oldest as KeyId);
            self.forgotten += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn within_the_window_numbers_are_told_apart_exactly(steps in prop::collection::vec(0_u64..60, 1..200)) {
            let (mut numbers, mut seen) = (Numbers::default(), BTreeSet::new());
            let mut newest = 100;
            for step in steps {
                // Up to 29 ahead of the newest, or up to 30 behind.
                let number = newest + step - 30;
                newest = newest.max(number);
                prop_assert_eq!(numbers.take(number), seen.insert(number));
            }
        }
    }

    #[test]
    fn a_number_far_back_counts_as_a_repetition_and_a_leap_ahead_as_new() {
        let mut numbers = Numbers::default();
        assert!(numbers.take(1_000) && numbers.take(937));
        assert!(!numbers.take(936), "64 back cannot be told");
        assert!(numbers.take(u64::MAX) && !numbers.take(1_001));
    }

    #[test]
    fn a_full_table_forgets_the_device_that_was_silent_longest() {
        let mut dedupe = Dedupe::new(2, 7);
        let mut journal = Journal::new(1 << 20, [], 1, 0);
        assert!(dedupe.take(b"a", 1, 1, &mut journal));
        let mut later = Journal::new(1 << 20, [], 2, 0);
        assert!(dedupe.take(b"b", 1, 2, &mut later));
        assert!(!dedupe.take(b"a", 1, 3, &mut later), "still known");
        assert!(dedupe.take(b"a", 2, 4, &mut later), "and told of again");
        let mut last = Journal::new(1 << 20, [], 3, 0);
        assert!(dedupe.take(b"b", 2, 5, &mut last) && dedupe.take(b"c", 1, 6, &mut last));
        assert_eq!(dedupe.take_forgotten(), 1);
        assert!(!dedupe.take(b"b", 2, 7, &mut last), "the busy one is kept");
    }
}
