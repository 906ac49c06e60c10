//! What came in and is not in the log yet.
//!
//! Batches wait in memory, with their names and places in time, until a job appends them: group by group, because a
//! group of the journal says that all its batches are there.

use std::collections::VecDeque;

use super::Lane;
use super::records::Slot;

/// Bytes of a record besides its batch, at most: the heads of frame and record.
pub(super) const RECORD_HEAD_MAX: u64 = 64;
/// Bytes that may wait in memory before messages are left to the broker, and of a small spool one part in so many of
/// the budget: what comes at once must find room in the end.
const WAITING_BYTES_MAX: u64 = 4 << 20;
const WAITING_PART: u64 = 8;

/// One batch or loss that waits for its place in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) slot: Slot,
    pub(super) lane: Lane,
    pub(super) is_loss: bool,
    /// What it takes on disk, at most.
    pub(super) bytes: u64,
}

/// All that waits, in the order in which it came.
#[derive(Debug)]
pub(super) struct Admission {
    bytes_max: u64,
    next_number: u64,
    waiting: VecDeque<Waiting>,
    bytes: u64,
    /// Bytes that came since the last cut: see [`Admission::cut`].
    since_cut: u64,
    /// Nothing waits but losses that there is no room for.
    waits_for_room: bool,
}

impl Admission {
    /// Nothing waits yet, for a spool of so many bytes.
    pub(super) fn new(budget: u64) -> Self {
        Self {
            bytes_max: WAITING_BYTES_MAX.min(budget / WAITING_PART),
            next_number: 1,
            waiting: VecDeque::new(),
            bytes: 0,
            since_cut: 0,
            waits_for_room: false,
        }
    }

    /// The place in time of the next batch.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Numbers up to this one are taken.
    pub(super) fn note_number(&mut self, number: u64) {
        self.next_number = self.next_number.max(number + 1);
    }

    pub(super) fn take_slot(&mut self) -> Slot {
        let number = self.next_number;
        self.next_number += 1;
        Slot::first(number)
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.bytes;
        self.since_cut += waiting.bytes;
        self.waits_for_room = false;
        self.waiting.push_back(waiting);
    }

    /// A record that stands for what came before all that waits.
    pub(super) fn push_front(&mut self, waiting: Waiting) {
        self.bytes += waiting.bytes;
        self.waits_for_room = false;
        self.waiting.push_front(waiting);
    }

    /// A loss has no room, and waits for some without asking for a job.
    pub(super) fn wait_for_room(&mut self, waiting: Waiting) {
        self.push(waiting);
        self.waits_for_room = true;
    }

    /// There may be room now for what waited for some.
    pub(super) fn find_room(&mut self) {
        self.waits_for_room = false;
    }

    /// Takes out what waits before the place `until`, or all, from old to new.
    pub(super) fn take(&mut self, until: Option<u64>) -> Vec<Waiting> {
        let all = std::mem::take(&mut self.waiting).into_iter();
        let (taken, left): (Vec<Waiting>, Vec<Waiting>) = all.partition(|waiting| is_before(waiting, until));
        self.waiting = left.into();
        self.bytes -= taken.iter().map(|waiting| waiting.bytes).sum::<u64>();
        taken
    }

    /// How much waits before the place `until`, or in all: bytes and records.
    pub(super) fn size(&self, until: Option<u64>) -> (u64, usize) {
        let of_group = self.waiting.iter().filter(|waiting| is_before(waiting, until));
        of_group.fold((0, 0), |(bytes, count), waiting| {
            (bytes + waiting.bytes, count + 1)
        })
    }

    /// Whether something asks for a job.
    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty() && !self.waits_for_room
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether so much waits that no more should come for now.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// Bytes that came since the last cut.
    pub(super) fn since_cut(&self) -> u64 {
        self.since_cut
    }

    /// What came until now belongs to a group of the journal that has ended.
    pub(super) fn cut(&mut self) {
        self.since_cut = 0;
    }

    /// After a lost link nothing that waits is live.
    pub(super) fn handle_disconnected(&mut self) {
        self.waiting
            .iter_mut()
            .for_each(|waiting| waiting.lane = Lane::Backlog);
    }
}

fn is_before(waiting: &Waiting, until: Option<u64>) -> bool {
    until.is_none_or(|until| waiting.slot.number < until)
}
