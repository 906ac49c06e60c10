//! The points of a series in blocks: appended as they come, sorted when they leave.
//!
//! ```text
//! log block := used:u8  point …  (60 bytes)   next: word
//! point     := time − base: zigzag varint   scale:u8   value / 10^scale: zigzag varint
//! ```
//!
//! The base is the series' first time, kept in its head. So a point takes the same bytes wherever it stands, eight or
//! nine for a sensor that reports every few seconds, and a block has six or seven of them.
//!
//! A point that came before is appended all the same: looking for it would cost each reading a search. When there are
//! twice as many as a series may have, those that came before are taken out, and if there are still too many, the
//! series is too long and lets all of its blocks go.

use alloc::vec::Vec;

use super::{Block, END, Head, LEAF_NEXT, Pool, WORDS};
use crate::limits::SERIES_POINTS_MAX;
use crate::number::decimal::Value;
use crate::number::scale::Scale;
use crate::sketch::SeriesPoint;
use crate::table::fixed::Full;
use crate::time::Timestamp;

/// Bytes of a block that are for points, the count of those in use included.
const BYTES: usize = LEAF_NEXT * 4;
/// Longest point: 8 bytes of time (55 bits), a scale, 18 of value (121 bits).
const POINT_BYTES_MAX: usize = 8 + 1 + 18;
const _: () = assert!(POINT_BYTES_MAX < BYTES);
/// So many points are appended before those that came before are taken out.
const POINTS_MAX: u32 = 2 * SERIES_POINTS_MAX as u32;
const _: () = assert!(POINTS_MAX < 1 << 16, "a head counts entries in 16 bits");
/// The level of a series that is too long.
pub(super) const TOO_LONG: u8 = 1;

impl<B: AsRef<[Block]> + AsMut<[Block]>> Pool<B> {
    /// Appends a point to a series. Needs a vacant block.
    pub(super) fn append_point(&mut self, head: &mut Head, point: SeriesPoint) -> Result<(), Full> {
        if head.level == TOO_LONG {
            return Ok(());
        }
        if !head.has_log {
            (head.has_log, head.others) = (true, point.at.as_micros().cast_unsigned());
        }
        self.write_point(head, point)?;
        head.entries += 1;
        if head.entries == POINTS_MAX {
            self.thin(head)?;
        }
        Ok(())
    }

    /// Makes a series too long.
    pub(super) fn give_up(&mut self, head: &mut Head) {
        self.take_points(head, |_| {});
        (head.level, head.has_log) = (TOO_LONG, true);
    }

    fn write_point(&mut self, head: &mut Head, point: SeriesPoint) -> Result<(), Full> {
        let record = Record::of(point, base(head));
        let blocks = self.blocks.as_mut();
        if let Some(Block(words)) = blocks.get_mut(head.root as usize)
            && record.append(words)
        {
            return Ok(());
        }
        let index = self.give()?;
        let words = &mut self.blocks.as_mut()[index as usize].0;
        *words = [0; WORDS];
        set_byte(words, 0, 1);
        words[LEAF_NEXT] = head.root;
        record.append(words);
        head.root = index;
        Ok(())
    }

    /// Hands out all points, the newest block first, and frees the blocks.
    pub(super) fn take_points(&mut self, head: &mut Head, mut visit: impl FnMut(SeriesPoint)) {
        let base = base(head);
        let mut next = head.root;
        while let Some(&Block(words)) = self.blocks.as_ref().get(next as usize) {
            self.free(next);
            next = words[LEAF_NEXT];
            let mut reader = Reader { words: &words, at: 1 };
            while let Some(point) = reader.point(base) {
                visit(point);
            }
        }
        (head.root, head.entries) = (END, 0);
    }

    /// Takes out points that came before, or all if the rest are too many.
    ///
    /// What stays is appended in the order in which it was in the blocks. Each point takes the bytes that it took, and
    /// filling one block after the other takes the fewest that this order can have: no more than were just freed.
    fn thin(&mut self, head: &mut Head) -> Result<(), Full> {
        // Once in thousands of readings; the memory is freed again.
        let mut points: Vec<(SeriesPoint, u32)> = Vec::with_capacity(POINTS_MAX as usize);
        self.take_points(head, |point| points.push((point, points.len() as u32)));
        points.sort_unstable();
        points.dedup_by_key(|(point, _)| *point);
        if points.len() > SERIES_POINTS_MAX {
            head.level = TOO_LONG;
            return Ok(());
        }
        points.sort_unstable_by_key(|(_, place)| *place);
        head.entries = points.len() as u32;
        points
            .into_iter()
            .try_for_each(|(point, _)| self.write_point(head, point))
    }
}

/// The time that a series' times are told from.
const fn base(head: &Head) -> i64 {
    head.others.cast_signed()
}

/// A point as bytes.
struct Record {
    bytes: [u8; POINT_BYTES_MAX],
    length: usize,
}

impl Record {
    fn of(point: SeriesPoint, base: i64) -> Self {
        let mut record = Self {
            bytes: [0; POINT_BYTES_MAX],
            length: 0,
        };
        // Times lie within 2⁵⁴ µs.
        let time = point.at.as_micros() - base;
        record.varint(u128::from((time << 1 ^ time >> 63).cast_unsigned()));
        let (scale, value) = scaled(point.value.units());
        record.push(scale);
        record.varint((value << 1 ^ value >> 127).cast_unsigned());
        record
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn varint(&mut self, mut number: u128) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    /// Appends it to a block if it fits.
    fn append(&self, words: &mut [u32; WORDS]) -> bool {
        let used = usize::from(byte(words, 0));
        if used + self.length > BYTES {
            return false;
        }
        for (at, &byte) in self.bytes[..self.length].iter().enumerate() {
            set_byte(words, used + at, byte);
        }
        set_byte(words, 0, (used + self.length) as u8);
        true
    }
}

/// The largest scale up to 18 at which a value is whole, and the value at that scale.
fn scaled(units: i128) -> (u8, i128) {
    if units == 0 {
        return (0, 0);
    }
    // 10^k has k factors of two: no larger scale can be right.
    let mut exponent = units.trailing_zeros().min(18) as u8;
    loop {
        let whole = Scale::of(exponent).and_then(|scale| scale.exact(units));
        match whole {
            Some(value) => return (exponent, value),
            None if exponent == 0 => return (0, units),
            None => exponent -= 1,
        }
    }
}

/// Reads the points of a block.
struct Reader<'w> {
    words: &'w [u32; WORDS],
    at: usize,
}

impl Reader<'_> {
    fn point(&mut self, base: i64) -> Option<SeriesPoint> {
        if self.at >= usize::from(byte(self.words, 0)) {
            return None;
        }
        let time = self.varint() as u64;
        let time = (time >> 1).cast_signed() ^ -(time & 1).cast_signed();
        let scale = Scale::of(self.next())?;
        let value = self.varint();
        let value = (value >> 1).cast_signed() ^ -(value & 1).cast_signed();
        Some(SeriesPoint {
            at: Timestamp::clamped(base.wrapping_add(time)),
            value: Value::from_units(scale.times(value)?)?,
        })
    }

    fn next(&mut self) -> u8 {
        let byte = byte(self.words, self.at.min(BYTES - 1));
        self.at += 1;
        byte
    }

    fn varint(&mut self) -> u128 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.next();
            number |= u128::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 || shift >= 128 {
                return number;
            }
        }
    }
}

#[inline]
const fn byte(words: &[u32; WORDS], at: usize) -> u8 {
    words[at / 4].to_le_bytes()[at % 4]
}

#[inline]
const fn set_byte(words: &mut [u32; WORDS], at: usize, byte: u8) {
    let mut bytes = words[at / 4].to_le_bytes();
    bytes[at % 4] = byte;
    words[at / 4] = u32::from_le_bytes(bytes);
}
