//! Which segments of the journal are kept, and how many bytes each takes: what its budget is held against.

use std::collections::VecDeque;
use std::ops::Range;

/// The kept segments. There is always one, which may have no bytes yet.
#[derive(Debug)]
pub(super) struct Extent {
    oldest: u32,
    /// Bytes of each segment from the oldest on.
    segments: VecDeque<u64>,
    bytes: u64,
}

impl Extent {
    /// The segments that an earlier run left, and an empty one with the number `next` behind them.
    pub(super) fn new(left: impl IntoIterator<Item = (u32, u64)>, next: u32) -> Self {
        let mut extent = Self {
            oldest: next,
            segments: VecDeque::new(),
            bytes: 0,
        };
        for (number, bytes) in left {
            extent.oldest = extent.oldest.min(number);
            extent.segments.push_back(bytes);
            extent.bytes += bytes;
        }
        extent.segments.resize((next - extent.oldest) as usize + 1, 0);
        extent
    }

    pub(super) fn oldest(&self) -> u32 {
        self.oldest
    }

    pub(super) fn newest(&self) -> u32 {
        self.oldest + self.segments.len() as u32 - 1
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the newest segment ends.
    pub(super) fn end(&self) -> u64 {
        self.segments.back().copied().unwrap_or(0)
    }

    /// Bytes are appended to a segment, the newest or one behind it; returns where they begin.
    pub(super) fn append(&mut self, segment: u32, more: u64) -> u64 {
        let place = (segment - self.oldest) as usize;
        if place >= self.segments.len() {
            self.segments.resize(place + 1, 0);
        }
        let at = self.segments[place];
        self.segments[place] += more;
        self.bytes += more;
        at
    }

    /// Segments before `needed` are kept no more; returns their numbers.
    pub(super) fn drop_before(&mut self, needed: u32) -> Range<u32> {
        let dropped = self.oldest..needed.clamp(self.oldest, self.newest());
        for bytes in self.segments.drain(..dropped.len()) {
            self.bytes -= bytes;
        }
        self.oldest = dropped.end;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_segments_that_are_kept() {
        let mut extent = Extent::new([(3, 10), (4, 20)], 5);
        assert_eq!((extent.oldest(), extent.newest(), extent.bytes()), (3, 5, 30));
        assert_eq!(extent.append(5, 7), 0);
        assert_eq!(extent.append(5, 7), 7);
        assert_eq!(extent.append(7, 1), 0, "a segment may get no group");
        assert_eq!((extent.newest(), extent.end(), extent.bytes()), (7, 1, 45));
        assert_eq!(extent.drop_before(5), 3..5);
        assert_eq!((extent.oldest(), extent.bytes()), (5, 15));
        assert_eq!(extent.drop_before(2), 5..5);
        assert_eq!(extent.drop_before(99), 5..7, "one is always kept");
        assert_eq!((extent.oldest(), extent.newest(), extent.bytes()), (7, 7, 1));
    }

    #[test]
    fn a_new_journal_has_one_empty_segment() {
        let extent = Extent::new([], 9);
        assert_eq!((extent.oldest(), extent.newest(), extent.end()), (9, 9, 0));
    }
}
