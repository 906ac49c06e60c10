//! What the spool holds, in its order in time, and how many bytes of it are whose.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use bytes::Bytes;

use super::Name;

/// A record's place in time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Slot {
    pub(super) number: u64,
    pub(super) part: u32,
}

impl Slot {
    /// The first of the parts of a number.
    pub(super) const fn first(number: u64) -> Self {
        Self { number, part: 0 }
    }

    /// Where the record of the loss of a named batch stands: apart from the parts of its number, from the other end.
    pub(super) const fn of_loss(self) -> Self {
        Self {
            part: (u32::MAX - 1).wrapping_sub(self.part),
            ..self
        }
    }

    /// The last of the parts of a number, if it had so many.
    pub(super) const fn last(number: u64) -> Self {
        Self {
            number,
            part: u32::MAX,
        }
    }
}

/// Where a record is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) segment: u32,
    /// Where the batch's frame begins in it.
    pub(super) at: u64,
}

/// One batch, or one record of a loss.
#[derive(Debug)]
pub(super) struct Held {
    /// None while it waits for its place in the log.
    pub(super) place: Option<Place>,
    pub(super) length: u32,
    /// Of the record; the highest there is while it waits.
    pub(super) ordinal: u64,
    /// How often it was merged: 0 as closed, 1 with equal panes and keys merged, then one more for each step of the
    /// ladder.
    pub(super) stage: u8,
    pub(super) name: Option<Name>,
    pub(super) is_acknowledged: bool,
    pub(super) is_loss: bool,
    /// It was merged with others of the last stage and did not become smaller.
    pub(super) is_tired: bool,
    /// The frame, as long as it need not be read from the disk.
    pub(super) frame: Option<Bytes>,
}

impl Held {
    /// A batch or a loss that waits for its place.
    pub(super) fn waiting(frame: Bytes, name: Option<Name>, is_loss: bool) -> Self {
        Self {
            place: None,
            length: frame.len() as u32,
            ordinal: u64::MAX,
            stage: 0,
            name,
            is_acknowledged: false,
            is_loss,
            is_tired: false,
            frame: Some(frame),
        }
    }

    /// A batch that others were merged into.
    pub(super) fn merged(frame: Bytes, stage: u8) -> Self {
        Self {
            stage,
            ..Self::waiting(frame, None, false)
        }
    }

    pub(super) fn segment(&self) -> Option<u32> {
        self.place.map(|place| place.segment)
    }
}

/// All that is held and kept.
#[derive(Debug, Default)]
pub(super) struct Records {
    all: BTreeMap<Slot, Held>,
    sizes: Sizes,
}

/// Bytes of frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    /// Not acknowledged.
    pub(super) held: u64,
    /// Of these, under a name.
    pub(super) named: u64,
    /// Acknowledged.
    pub(super) kept: u64,
    /// In memory.
    pub(super) cached: usize,
}

impl Sizes {
    fn of(held: &Held) -> Self {
        let length = u64::from(held.length);
        let is_held = u64::from(!held.is_acknowledged);
        Self {
            held: length * is_held,
            named: length * is_held * u64::from(held.name.is_some()),
            kept: length * (1 - is_held),
            cached: held.frame.as_ref().map_or(0, Bytes::len),
        }
    }

    fn add(&mut self, more: Self) {
        self.held += more.held;
        self.named += more.named;
        self.kept += more.kept;
        self.cached += more.cached;
    }

    fn subtract(&mut self, less: Self) {
        self.held -= less.held;
        self.named -= less.named;
        self.kept -= less.kept;
        self.cached -= less.cached;
    }
}

impl Records {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn sizes(&self) -> Sizes {
        self.sizes
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Held> {
        self.all.get(&slot)
    }

    /// All records in their order in time.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (Slot, &Held)> {
        self.all.iter().map(|(&slot, held)| (slot, held))
    }

    /// The records at these slots, in their order.
    pub(super) fn range(
        &self,
        slots: impl RangeBounds<Slot>,
    ) -> impl DoubleEndedIterator<Item = (Slot, &Held)> {
        self.all.range(slots).map(|(&slot, held)| (slot, held))
    }

    /// The segment of a record that has its place.
    pub(super) fn segment(&self, slot: Slot) -> Option<u32> {
        self.get(slot).and_then(Held::segment)
    }

    pub(super) fn insert(&mut self, slot: Slot, held: Held) {
        debug_assert!(!self.all.contains_key(&slot));
        self.sizes.add(Sizes::of(&held));
        self.all.insert(slot, held);
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<Held> {
        let held = self.all.remove(&slot)?;
        self.sizes.subtract(Sizes::of(&held));
        Some(held)
    }

    /// Changes a record.
    pub(super) fn update(&mut self, slot: Slot, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.all.get_mut(&slot) {
            self.sizes.subtract(Sizes::of(held));
            change(held);
            self.sizes.add(Sizes::of(held));
        }
    }

    /// A record has its place now.
    pub(super) fn set_place(&mut self, slot: Slot, place: Place, ordinal: u64) {
        self.update(slot, |held| (held.place, held.ordinal) = (Some(place), ordinal));
    }

    pub(super) fn set_stage(&mut self, slot: Slot, stage: u8) {
        if let Some(held) = self.all.get_mut(&slot) {
            held.stage = stage;
            held.is_tired = false;
        }
    }

    /// Merging a record with those before it does not make them smaller.
    pub(super) fn tire(&mut self, slot: Slot) {
        if let Some(held) = self.all.get_mut(&slot) {
            held.is_tired = true;
        }
    }

    /// A record's frame need not be in memory any more.
    pub(super) fn uncache(&mut self, slot: Slot) {
        self.update(slot, |held| held.frame = None);
    }

    /// Nor need those of all records up to this ordinal.
    pub(super) fn uncache_through(&mut self, ordinal: u64) {
        for held in self.all.values_mut().filter(|held| held.ordinal <= ordinal) {
            self.sizes.cached -= held.frame.take().map_or(0, |frame| frame.len());
        }
    }
}
