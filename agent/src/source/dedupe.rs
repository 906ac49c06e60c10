//! Devices that number their messages, so that what they repeat counts once.
//!
//! A query's `dedupe` names a device's sequence number in the payload. For each device (its topic and key) its *place*
//! is kept: the highest number, and for the 64 numbers up to it whether each was seen. A number within 64 of the place,
//! above or below, belongs to it and is new once. One further below cannot be told from a repetition and counts as
//! one, unless devices may begin anew.
//!
//! **A leap needs a second witness.** One number that was damaged on its way must not make all that follow look like
//! repetitions. So a number further ahead (or, where devices may begin anew, further below) is taken, and becomes the
//! device's *other* place. When the next number belongs to that one, or is ahead of it, the two change their roles: the
//! device has leapt. When the next number goes on from the first place, the other one is in doubt and needs two more.
//! After a change the former place is still known, for stragglers, until the device passes it. A device's first number has no
//! witness either: the second may lie anywhere.
//!
//! **Nothing here depends on numbers that were refused**, so a replay of those that were taken ends in the same state.
//!
//! The table has a fixed size; when it is full, the device that was silent longest is forgotten, and that is counted.

use catchment_common::plan;
use catchment_common::table::interner::{Interner, KeyId};

use crate::log::journal::Journal;

/// Longest identity (reading, rules, topic, key) of a device that numbers its messages.
pub const IDENTITY_BYTES_MAX: usize = 1_024;
/// Bytes counted for an identity.
const IDENTITY_BYTES_TYPICAL: usize = 80;
/// How many numbers are told apart, and how far a number is from a place that it belongs to.
const WINDOW: u64 = 64;
/// Begins an identity whose numbers do more than go up. No topic begins with it.
const HAS_RULES: u8 = 0;
/// Bytes of rules in an identity.
const RULES_BYTES: usize = 10;
/// Begins an identity together with [`HAS_RULES`], in the place of rules: a pipeline's reading follows.
const HAS_READING: u8 = 2;
/// Bytes of a reading in an identity.
const READING_BYTES: usize = 10;

/// Begins the identity of a device, as a pipeline with this reading knows it.
pub fn begin(identity: &mut Vec<u8>, reading: u64) {
    identity.extend_from_slice(&[HAS_RULES, HAS_READING]);
    identity.extend_from_slice(&reading.to_le_bytes());
}

/// The reading that an identity begins with, if it has one, and what follows.
fn split(identity: &[u8]) -> (Option<u64>, &[u8]) {
    match identity.split_first_chunk::<READING_BYTES>() {
        Some((&[HAS_RULES, HAS_READING, ref reading @ ..], rest)) => {
            (Some(u64::from_le_bytes(*reading)), rest)
        }
        _ => (None, identity),
    }
}

/// What a device's numbers do besides going up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rules {
    /// They count modulo this.
    pub wraps_at: Option<u64>,
    /// They may begin anew.
    pub restart: bool,
}

/// Where a number is, seen from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Ahead(u64),
    Behind(u64),
}

impl From<&plan::Dedupe> for Rules {
    fn from(dedupe: &plan::Dedupe) -> Self {
        Self {
            wraps_at: dedupe.wraps_at,
            restart: dedupe.restart,
        }
    }
}

impl Rules {
    /// Begins a device's identity with its rules, so that a replay knows them. Numbers that only go up need no such
    /// beginning.
    pub fn begin(self, identity: &mut Vec<u8>) {
        if self != Self::default() {
            identity.push(HAS_RULES);
            identity.push(u8::from(self.restart));
            identity.extend_from_slice(&self.wraps_at.unwrap_or(0).to_le_bytes());
        }
    }

    /// The rules that an identity begins with.
    #[inline]
    fn of(identity: &[u8]) -> Self {
        match split(identity).1.split_first_chunk::<RULES_BYTES>() {
            Some((&[HAS_RULES, restart, ref end @ ..], _)) => {
                let end = u64::from_le_bytes(*end);
                Self {
                    wraps_at: (end > 0).then_some(end),
                    restart: restart != 0,
                }
            }
            _ => Self::default(),
        }
    }

    /// A number in its range.
    fn reduced(self, number: u64) -> u64 {
        self.wraps_at
            .map_or(number, |end| number.checked_rem(end).unwrap_or(number))
    }

    /// Where `number` is, seen from `from`; both in range. Of a range with an end, half is ahead.
    fn look(self, from: u64, number: u64) -> Seen {
        let Some(end) = self.wraps_at else {
            return if number > from {
                Seen::Ahead(number - from)
            } else {
                Seen::Behind(from - number)
            };
        };
        let (ahead, behind) = if number > from {
            (number - from, end - (number - from))
        } else {
            (end - (from - number), from - number)
        };
        if ahead <= end / 2 && behind > 0 {
            Seen::Ahead(ahead)
        } else {
            Seen::Behind(behind)
        }
    }
}

/// The numbers around one that a device has used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Place {
    /// The highest number.
    pub last: u64,
    /// Bit `i`: whether `last − i` was seen. 0 for a place that is none.
    pub window: u64,
}

impl Place {
    const fn at(number: u64) -> Self {
        Self {
            last: number,
            window: 1,
        }
    }

    /// Takes a number that belongs to the place; whether it is new, or `None` for one that is too far away.
    #[inline]
    fn take(&mut self, number: u64, rules: Rules) -> Option<bool> {
        if self.window == 0 {
            return None;
        }
        match rules.look(self.last, number) {
            Seen::Ahead(steps) if steps <= WINDOW => {
                let moved = if steps < WINDOW { self.window << steps } else { 0 };
                *self = Self {
                    last: number,
                    window: moved | 1,
                };
                Some(true)
            }
            Seen::Behind(steps) if steps < WINDOW => {
                let is_new = self.window >> steps & 1 == 0;
                self.window |= 1 << steps;
                Some(is_new)
            }
            Seen::Ahead(_) | Seen::Behind(_) => None,
        }
    }
}

/// What is known of one device.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Numbers {
    /// Where it is.
    pub place: Place,
    /// Where it may be, or was before.
    pub other: Place,
    /// Whether the last number that moved either place was the other's: one more, and it has leapt there. Without another
    /// place, whether the device has had one number so far, which may be the damaged one.
    pub is_leaping: bool,
}

impl Numbers {
    /// Takes note of a number; returns whether it is new.
    pub fn take(&mut self, number: u64, rules: Rules) -> bool {
        let number = rules.reduced(number);
        if self.place.window == 0 {
            self.place = Place::at(number);
            self.is_leaping = true;
            return true;
        }
        let is_alone = self.is_leaping && self.other.window == 0;
        let last = self.place.last;
        if let Some(is_new) = self.place.take(number, rules) {
            if self.place.last != last {
                self.is_leaping = false;
                self.pass(rules);
            }
            // A second number bears the first one out.
            self.is_leaping &= !(is_alone && is_new);
            return is_new;
        }
        if let Some(is_new) = self.other.take(number, rules) {
            if is_new {
                self.witness();
            }
            return is_new;
        }
        let is_behind = matches!(rules.look(last, number), Seen::Behind(_));
        if is_behind && !rules.restart && !is_alone {
            return false;
        }
        let goes_on =
            self.is_leaping && !is_alone && matches!(rules.look(self.other.last, number), Seen::Ahead(_));
        self.other = Place::at(number);
        if goes_on {
            self.witness();
        } else {
            self.is_leaping = true;
        }
        true
    }

    /// The device has gone on. When it passes its other place, that becomes part of the first.
    #[inline]
    fn pass(&mut self, rules: Rules) {
        if self.other.window == 0 {
            return;
        }
        if let Seen::Behind(steps) = rules.look(self.place.last, self.other.last)
            && steps < WINDOW
        {
            self.place.window |= self.other.window << steps;
            self.other = Place::default();
        }
    }

    /// A new number belongs to the other place: the device is there, if the number before was, too.
    fn witness(&mut self) {
        if self.is_leaping {
            std::mem::swap(&mut self.place, &mut self.other);
        }
        self.is_leaping = !self.is_leaping;
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

    /// Takes note of a device's number and tells the journal; returns whether the number is new.
    pub fn take(&mut self, identity: &[u8], number: u64, journal: &mut Journal) -> bool {
        let Some(id) = self.place(identity) else {
            return true;
        };
        let device = &mut self.places[id as usize];
        let before = device.numbers;
        if !device.numbers.take(number, Rules::of(identity)) {
            return false;
        }
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
            self.places[id as usize] = Device { numbers, segment };
        }
    }

    /// A number that was taken before the restart.
    pub fn replay(&mut self, identity: &[u8], number: u64) {
        if let Some(id) = self.place(identity) {
            self.places[id as usize].numbers.take(number, Rules::of(identity));
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

    /// Takes over what another table knows, as far as there is room. What a pipeline knew whose reading is not among
    /// these, every pipeline begins with that does not know the device.
    pub fn adopt(&mut self, before: &Self, readings: &[u64]) {
        let known = before.places.iter().enumerate();
        for (id, device) in known.filter(|(_, device)| device.segment > 0) {
            let identity = before.identities.bytes(id as KeyId);
            let (reading, rest) = split(identity);
            if reading.is_none_or(|reading| readings.contains(&reading)) {
                self.restore(identity, device.numbers, device.segment);
                continue;
            }
            let held = self.identities.find(rest);
            let held = held.map(|id| self.places[id as usize].numbers.place.last);
            if held.is_none_or(|last| last < device.numbers.place.last) {
                self.restore(rest, device.numbers, device.segment);
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
        // Under an earlier plan, or in a journal of before, it may be known apart from this pipeline.
        let (reading, rest) = split(identity);
        let begins_as = reading.and_then(|_| self.identities.find(rest));
        let numbers = begins_as.map_or_else(Numbers::default, |id| self.places[id as usize].numbers);
        while !self.places.is_empty() {
            if let Ok(id) = self.identities.insert(identity) {
                self.identities.retain(id);
                self.places[id as usize] = Device {
                    segment: u32::MAX,
                    numbers,
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

    const RISING: Rules = Rules {
        wraps_at: None,
        restart: false,
    };

    proptest! {
        #[test]
        fn within_the_window_numbers_are_told_apart_exactly(
            steps in prop::collection::vec(0_u64..60, 1..200), wraps_at in prop::option::of(256_u64..1_000),
        ) {
            let rules = Rules { wraps_at, ..RISING };
            let (mut numbers, mut seen) = (Numbers::default(), BTreeSet::new());
            let mut newest = 100;
            for step in steps {
                // Up to 29 ahead of the newest, or up to 30 behind.
                let number = newest + step - 30;
                newest = newest.max(number);
                let sent = wraps_at.map_or(number, |end| number % end);
                prop_assert_eq!(numbers.take(sent, rules), seen.insert(number));
            }
        }

        /// A device that leaps, begins anew, comes to the end of its numbers, has a number damaged on the way, and
        /// repeats and disorders what it sent last: each of its readings counts once. The state is that of a replay.
        #[test]
        fn whatever_becomes_of_its_numbers_each_reading_of_a_device_counts_once(
            events in prop::collection::vec((0_u8..12, any::<u64>(), 0_usize..40), 1..400),
            wraps_at in prop::option::of(2_000_u64..100_000),
            restart in any::<bool>(), first in prop::option::of(any::<u64>()),
        ) {
            let rules = Rules { wraps_at, restart };
            let (mut numbers, mut replayed) = (Numbers::default(), Numbers::default());
            let mut take = |number: u64| {
                let is_new = numbers.take(number, rules);
                if is_new {
                    replayed.take(number, rules);
                    assert_eq!(replayed, numbers);
                }
                is_new
            };
            let end = wraps_at.unwrap_or(u64::MAX / 2);
            let (mut next, mut sent, mut calm) = (500_u64, Vec::new(), 0);
            let (mut damaged, mut left) = (BTreeSet::new(), BTreeSet::new());
            if let Some(random) = first {
                let number = (next + 200 + random % (end - 400)) % end;
                damaged.insert(number);
                take(number);
            }
            for (event, random, back) in events {
                match event {
                    // One thing at a time: two witnesses of what has become of it, and all that it may repeat.
                    0 if calm > 3 => {
                        let number = (next + 200 + random % (end - 400)) % end;
                        damaged.insert(number);
                        take(number);
                        calm = 0;
                    }
                    1 | 2 if calm > 70 => {
                        // Ahead, or far behind.
                        let ahead = 100 + random % (end / 2 - 300).min(1 << 40);
                        let steps = if event == 1 || !restart { ahead } else { end - ahead };
                        let target = match wraps_at {
                            Some(end) => (next + steps) % end,
                            None if event == 1 || !restart => next + ahead,
                            None => next / 3,
                        };
                        let near = target.saturating_sub(200)..target + 200;
                        let near = damaged.range(near.clone()).chain(left.range(near)).next();
                        let is_far = wraps_at.is_some() || next > 1_000 || event == 1 || !restart;
                        if near.is_none() && is_far {
                            left.insert(next);
                            next = target;
                            sent.clear();
                            calm = 0;
                        }
                    }
                    3 | 4 if !sent.is_empty() => {
                        let repeated = sent[sent.len() - 1 - back % sent.len().min(40)];
                        prop_assert!(!take(repeated), "{repeated} again");
                    }
                    _ => {
                        // A number that a damaged one was the same as is skipped.
                        while damaged.contains(&next) || damaged.contains(&((next + 1) % end)) {
                            next = (next + 1) % end;
                        }
                        let all = [(next + 1) % end, next];
                        for &number in if event == 5 { &all[..] } else { &all[1..] } {
                            prop_assert!(take(number), "{number} is new");
                            sent.push(number);
                            next = (next + 1) % end;
                            calm += 1;
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_number_far_back_counts_as_a_repetition_and_a_leap_ahead_as_new() {
        let mut numbers = Numbers::default();
        let mut take = |number| numbers.take(number, RISING);
        assert!(take(1_000) && take(937));
        assert!(!take(936), "64 back cannot be told");
        assert!(
            take(u64::MAX) && take(1_001),
            "one damaged number silences nobody"
        );
        assert!(!take(u64::MAX) && !take(1_001));
        assert!(take(5_000) && take(5_001) && !take(3_000), "two witnesses");
        assert!(take(999) && !take(999), "a straggler");
    }

    #[test]
    fn a_first_number_that_was_damaged_silences_nobody() {
        for rules in [
            RISING,
            Rules {
                wraps_at: Some(65_536),
                ..RISING
            },
        ] {
            let mut numbers = Numbers::default();
            let mut take = |number| numbers.take(number, rules);
            assert!(take(65_000) && !take(65_000) && take(40_000) && take(40_001));
            assert!(!take(40_000) && !take(39_000) && take(40_002));
            let mut numbers = Numbers::default();
            let mut take = |number| numbers.take(number, rules);
            assert!(take(65_000) && take(64_999) && !take(40_000), "borne out");
        }
    }

    #[test]
    fn numbers_with_gaps_leap_all_the_time() {
        let mut numbers = Numbers::default();
        for number in (1..=50).map(|step| step * 60_000) {
            assert!(numbers.take(number, RISING), "{number}");
            for before in (1..=number / 60_000).rev().take(5) {
                assert!(!numbers.take(before * 60_000, RISING), "{before} again");
            }
        }
    }

    #[test]
    fn devices_begin_anew_and_come_to_the_end_of_their_numbers() {
        let taken = |rules: Rules, numbers: &[u64]| {
            let mut device = Numbers::default();
            numbers
                .iter()
                .filter(|&&number| device.take(number, rules))
                .count()
        };
        let restart = Rules {
            restart: true,
            ..RISING
        };
        let wraps = |end| Rules {
            wraps_at: Some(end),
            ..RISING
        };
        let lorawan = [1_000, 1_001, 1_002, 0, 1, 2, 1_001, 1, 3];
        assert_eq!(taken(RISING, &lorawan), 3);
        assert_eq!(taken(restart, &lorawan), 7);
        let sparkplug: Vec<u64> = (0..1_000).map(|seq| seq % 256).collect();
        assert_eq!(taken(wraps(256), &sparkplug), 1_000);
        assert_eq!(taken(wraps(65_536), &[65_534, 65_535, 0, 65_535, 1, 0, 2]), 5);
        assert_eq!(
            taken(wraps(65_536), &[65_534, 131_071, 65_536]),
            3,
            "taken modulo its end"
        );
    }

    #[test]
    fn rules_are_part_of_an_identity() {
        for rules in [
            RISING,
            Rules {
                restart: true,
                ..RISING
            },
            Rules {
                wraps_at: Some(65_536),
                restart: false,
            },
            Rules {
                wraps_at: Some(u64::MAX),
                restart: true,
            },
        ] {
            let mut identity = Vec::new();
            rules.begin(&mut identity);
            identity.extend_from_slice(b"s/d1\x1fa-long-enough-key");
            assert_eq!(Rules::of(&identity), rules);
        }
        for odd in [&b""[..], b"\0", b"\0\x01short"] {
            assert_eq!(Rules::of(odd), RISING);
        }
    }

    #[test]
    fn a_full_table_forgets_the_device_that_was_silent_longest() {
        let mut dedupe = Dedupe::new(2, 7);
        let mut journal = Journal::new(1 << 20, [], 1, 0);
        assert!(dedupe.take(b"a", 1, &mut journal));
        let mut later = Journal::new(1 << 20, [], 2, 0);
        assert!(dedupe.take(b"b", 1, &mut later));
        assert!(!dedupe.take(b"a", 1, &mut later), "still known");
        assert!(dedupe.take(b"a", 2, &mut later), "and told of again");
        let mut last = Journal::new(1 << 20, [], 3, 0);
        assert!(dedupe.take(b"b", 2, &mut last) && dedupe.take(b"c", 1, &mut last));
        assert_eq!(dedupe.take_forgotten(), 1);
        assert!(!dedupe.take(b"b", 2, &mut last), "the busy one is kept");
    }

    /// What the software of before knew of a device, and what another pipeline of an earlier plan knew, is where a
    /// pipeline begins that does not know the device yet. Pipelines of one plan do not mix.
    #[test]
    fn a_new_reading_of_a_plan_begins_with_what_was_known() {
        let of = |reading: u64, rest: &[u8]| {
            let mut identity = Vec::new();
            begin(&mut identity, reading);
            identity.extend_from_slice(rest);
            identity
        };
        let mut journal = Journal::new(1 << 20, [], 1, 0);
        let mut dedupe = Dedupe::new(10, 7);
        dedupe.restore(
            b"a",
            Numbers {
                place: Place::at(5),
                ..Numbers::default()
            },
            1,
        );
        let mut later = Dedupe::new(10, 7);
        later.adopt(&dedupe, &[1, 2]);
        for reading in [1, 2] {
            assert!(!later.take(&of(reading, b"a"), 5, &mut journal), "known before");
            assert!(later.take(&of(reading, b"a"), 6, &mut journal));
            assert!(later.take(&of(reading, b"b"), 1, &mut journal));
        }
        assert!(later.take(&of(1, b"b"), 2, &mut journal));
        let mut last = Dedupe::new(10, 7);
        last.adopt(&later, &[2, 3]);
        assert!(!last.take(&of(3, b"b"), 2, &mut journal) && last.take(&of(3, b"b"), 3, &mut journal));
        assert!(last.take(&of(2, b"b"), 2, &mut journal), "goes on alone");
    }
}
