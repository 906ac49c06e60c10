//! The numbers that a device has given its messages: which of them are repetitions.
//!
//! What is near and what is far decides the rule of the documentation, here with sets of whole numbers that never come to
//! an end.

use std::collections::BTreeSet;

use catchment_common::plan::Dedupe;

/// How far a number is from a place that it belongs to.
const NEAR: i128 = 64;

/// The numbers that one device has used.
#[derive(Debug)]
pub(super) struct Numbers {
    wraps_at: Option<i128>,
    restart: bool,
    here: Place,
    there: Place,
    /// Whether the latest new number was there.
    is_leaping: bool,
    /// How many new numbers there were.
    taken: u64,
}

/// Numbers near each other. Those of a range with an end are counted on beyond it.
#[derive(Clone, Debug, Default)]
struct Place(BTreeSet<i128>);

impl Numbers {
    pub(super) fn new(dedupe: Option<&Dedupe>) -> Self {
        Self {
            wraps_at: dedupe.and_then(|dedupe| dedupe.wraps_at).map(i128::from),
            restart: dedupe.is_some_and(|dedupe| dedupe.restart),
            here: Place::default(),
            there: Place::default(),
            is_leaping: false,
            taken: 0,
        }
    }

    /// Adds a number; returns whether it is new.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let is_new = self.look(number);
        self.taken += u64::from(is_new);
        is_new
    }

    fn look(&mut self, number: u64) -> bool {
        let (seen_from_here, seen_from_there) = (
            self.here.unwrapped(number, self.wraps_at),
            self.there.unwrapped(number, self.wraps_at),
        );
        let Some(highest) = self.here.highest() else {
            return self.here.add(seen_from_here);
        };
        if self.here.is_near(seen_from_here) {
            let is_new = self.here.add(seen_from_here);
            if seen_from_here > highest {
                self.is_leaping = false;
                self.pass();
            }
            return is_new;
        }
        if self.there.is_near(seen_from_there) {
            return self.there.add(seen_from_there) && self.witness();
        }
        // One number alone may be the damaged one.
        if seen_from_here < highest && !self.restart && self.taken > 1 {
            return false;
        }
        let goes_on = self
            .there
            .highest()
            .is_some_and(|highest| seen_from_there > highest);
        self.there = Place(BTreeSet::from([seen_from_there]));
        self.is_leaping &= goes_on;
        self.witness()
    }

    /// A new number is there. With the one before it, the device is there, too.
    fn witness(&mut self) -> bool {
        if self.is_leaping {
            std::mem::swap(&mut self.here, &mut self.there);
        }
        self.is_leaping = !self.is_leaping;
        true
    }

    /// What lies just behind the device belongs to where it is.
    fn pass(&mut self) {
        let (Some(here), Some(there)) = (self.here.highest(), self.there.highest()) else {
            return;
        };
        let behind = self
            .wraps_at
            .map_or(here - there, |end| (here - there).rem_euclid(end));
        if (0..NEAR).contains(&behind) {
            let moved = here - behind - there;
            for seen in std::mem::take(&mut self.there.0) {
                self.here.add(seen + moved);
            }
        }
    }
}

impl Place {
    fn highest(&self) -> Option<i128> {
        self.0.last().copied()
    }

    /// Of all that a number can stand for the one nearest to here; of two, the one ahead.
    fn unwrapped(&self, number: u64, wraps_at: Option<i128>) -> i128 {
        let number = i128::from(number);
        let Some(end) = wraps_at else { return number };
        let from = self.highest().unwrap_or(0);
        let ahead = (number - from).rem_euclid(end);
        from + if ahead <= end / 2 { ahead } else { ahead - end }
    }

    fn is_near(&self, number: i128) -> bool {
        let highest = self.highest();
        highest.is_some_and(|highest| highest - NEAR < number && number <= highest + NEAR)
    }

    /// Adds a number; whether it was not there before. What is far behind then is forgotten.
    fn add(&mut self, number: i128) -> bool {
        let is_new = self.0.insert(number);
        let highest = self.highest().unwrap_or(number);
        self.0.retain(|seen| highest - seen < NEAR);
        is_new
    }
}
