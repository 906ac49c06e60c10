//! Sealed batches, held until the aggregator has committed them.
//!
//! This spool is in memory: it survives a lost link and a restarted aggregator, not the agent's own death. Its byte
//! bound is hard. When an outage fills it, the oldest batches go, and every reading in them is counted under its
//! reason, never silently. A spool on disk takes this one's place behind the same methods.
//!
//! Live batches were sealed while the link was up; the rest is backlog. They travel on streams of their own, so that
//! after an outage the newest data does not wait behind the oldest.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use catchment_common::plan::SliceId;
use catchment_common::wire::{EpochRange, SeqRange};

use crate::outbox::Sealed;

/// Which stream a batch takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Sealed while the link was up.
    Live,
    /// Held since before.
    Backlog,
}

/// Batches waiting for their acknowledgement.
#[derive(Debug)]
pub struct Spool {
    held: BTreeMap<u64, Sealed>,
    bytes: usize,
    bytes_max: usize,
    live: VecDeque<u64>,
    backlog: VecDeque<u64>,
}

impl Spool {
    /// A spool of at most `bytes_max` bytes of frames.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            held: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            live: VecDeque::new(),
            backlog: VecDeque::new(),
        }
    }

    /// How many batches are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes of frames held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The oldest batch held.
    pub fn oldest(&self) -> Option<u64> {
        self.held.first_key_value().map(|(&seq, _)| seq)
    }

    /// Takes a batch in, for this lane. What had to go to make room is handed to `lost`, slice by slice.
    pub fn push(&mut self, sealed: Sealed, lane: Lane, mut lost: impl FnMut(SliceId, u64)) {
        while self.bytes + sealed.frame.len() > self.bytes_max {
            let Some((&oldest, _)) = self.held.first_key_value() else {
                break;
            };
            for (slice, readings) in self.remove(oldest).into_iter().flatten() {
                lost(slice, readings);
            }
        }
        match lane {
            Lane::Live => self.live.push_back(sealed.seq),
            Lane::Backlog => self.backlog.push_back(sealed.seq),
        }
        self.bytes += sealed.frame.len();
        self.held.insert(sealed.seq, sealed);
    }

    /// The next batch to send on this lane. It stays held until it is removed.
    pub fn next(&mut self, lane: Lane) -> Option<Bytes> {
        let queue = match lane {
            Lane::Live => &mut self.live,
            Lane::Backlog => &mut self.backlog,
        };
        // Batches that were removed while they waited are passed over.
        std::iter::from_fn(|| queue.pop_front())
            .find_map(|seq| self.held.get(&seq))
            .map(|sealed| sealed.frame.clone())
    }

    /// Lets go of the batches in these ranges; returns how many there were.
    pub fn acknowledge(&mut self, ranges: &[SeqRange]) -> usize {
        let before = self.held.len();
        for range in ranges {
            // Not the range's length decides the cost, but what is held of it: a peer may claim any range.
            while let Some((&seq, _)) = self.held.range(range.first..=range.last).next() {
                self.remove(seq);
            }
        }
        before - self.held.len()
    }

    /// Lets go of one batch and says what it held, slice by slice.
    pub fn remove(&mut self, seq: u64) -> Option<Vec<(SliceId, u64)>> {
        let sealed = self.held.remove(&seq)?;
        self.bytes -= sealed.frame.len();
        Some(sealed.readings)
    }

    /// After a lost link: everything held is backlog and must be sent again, unless the aggregator says otherwise.
    pub fn requeue(&mut self) {
        self.live.clear();
        self.backlog.clear();
        self.backlog.extend(self.held.keys());
    }

    /// What is held, for the next hello. At most `limit` ranges; of more, the gaps between the oldest are closed, which
    /// asks about too much and never about too little.
    pub fn ranges(&self, epoch: u64, limit: usize) -> Vec<EpochRange> {
        let mut ranges: Vec<SeqRange> = Vec::new();
        for &seq in self.held.keys() {
            match ranges.last_mut() {
                Some(last) if last.last + 1 == seq => last.last = seq,
                _ => ranges.push(SeqRange {
                    first: seq,
                    last: seq,
                }),
            }
        }
        if ranges.len() > limit {
            let surplus = ranges.len() - limit;
            let first = ranges[0].first;
            ranges.drain(..surplus);
            ranges[0].first = first;
        }
        if ranges.is_empty() {
            Vec::new()
        } else {
            vec![EpochRange { epoch, ranges }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(seq: u64, length: usize) -> Sealed {
        Sealed {
            seq,
            frame: vec![seq as u8; length].into(),
            readings: vec![(SliceId(1), 10 * seq)],
        }
    }

    fn push(spool: &mut Spool, seq: u64, lane: Lane) -> Vec<u64> {
        let mut lost = Vec::new();
        spool.push(sealed(seq, 100), lane, |_, readings| lost.push(readings));
        lost
    }

    fn first_byte(frame: Option<Bytes>) -> Option<u8> {
        frame.map(|frame| frame[0])
    }

    #[test]
    fn batches_stay_until_acknowledged() {
        let mut spool = Spool::new(1_000);
        for seq in 1..=3 {
            push(&mut spool, seq, Lane::Live);
        }
        assert_eq!(first_byte(spool.next(Lane::Live)), Some(1));
        assert_eq!(
            spool.acknowledge(&[SeqRange {
                first: 2,
                last: u64::MAX
            }]),
            2
        );
        assert_eq!(spool.next(Lane::Live), None, "what is acknowledged is not sent");
        assert_eq!(spool.len(), 1);
        spool.requeue();
        assert_eq!(first_byte(spool.next(Lane::Backlog)), Some(1));
        assert_eq!(spool.bytes(), 100);
    }

    #[test]
    fn a_full_spool_lets_the_oldest_go_and_says_so() {
        let mut spool = Spool::new(250);
        assert!(push(&mut spool, 1, Lane::Backlog).is_empty());
        assert!(push(&mut spool, 2, Lane::Backlog).is_empty());
        assert_eq!(push(&mut spool, 3, Lane::Backlog), [10]);
        assert!(spool.bytes() <= 250);
        assert_eq!(first_byte(spool.next(Lane::Backlog)), Some(2));
    }

    #[test]
    fn live_batches_do_not_wait_behind_the_backlog() {
        let mut spool = Spool::new(1_000);
        push(&mut spool, 1, Lane::Backlog);
        push(&mut spool, 2, Lane::Live);
        assert_eq!(first_byte(spool.next(Lane::Live)), Some(2));
        assert_eq!(first_byte(spool.next(Lane::Backlog)), Some(1));
    }

    #[test]
    fn ranges_name_what_is_held_and_are_bounded() {
        let mut spool = Spool::new(10_000);
        for seq in [1, 2, 4, 6, 8, 9] {
            push(&mut spool, seq, Lane::Live);
        }
        let ranges = |limit| {
            let epochs = spool.ranges(7, limit);
            epochs[0]
                .ranges
                .iter()
                .map(|range| (range.first, range.last))
                .collect::<Vec<_>>()
        };
        assert_eq!(ranges(9), [(1, 2), (4, 4), (6, 6), (8, 9)]);
        assert_eq!(ranges(2), [(1, 6), (8, 9)]);
        assert!(Spool::new(1).ranges(7, 2).is_empty());
    }
}
