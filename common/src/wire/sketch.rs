//! The columns of one sketch over all rows of a section.
//!
//! ```text
//! kind     := 0 linear | 1 logarithmic | 2 intervals:varint | 3 distinct | 4 top | 5 series
//! sketch   := entries: column  body                       entries of each row; rows without any have no more
//! buckets  := level: column (all rows)  first: column of zigzag steps from row to row (rows with entries)
//!             step − 1: column (all other entries)  count − 1: column
//! distinct := register: column, the first of a row as it is, the others as step − 1   rank − 1: column
//! top      := others: column (all rows)  count − 1: column  length − 1: column  values
//! ```
//!
//! A series has columns of its own; see [`super::series`].
//!
//! A reader checks all that merging and lowering rely on, so that what it gives out could be the sketch of some values.

use alloc::vec::Vec;

use super::WireFault;
use super::column::{put_column, take_column};
use super::cursor::{Cursor, put_varint, unzigzag, zigzag};
use super::section::Section;
use super::series::{put_series, take_series};
use super::stats::StatsScratch;
use crate::limits::{BOUNDS_MAX, BUCKETS_MAX, KEY_BYTES_MAX, SECTION_ENTRIES_MAX, TOP_VALUES_MAX};
use crate::sketch::{Buckets, Counter, Counters, REGISTERS, Registers, Shape, Sketch, SketchKind};
use crate::time::Timestamp;

const LINEAR: u8 = 0;
const LOG: u8 = 1;
const INTERVALS: u8 = 2;
const DISTINCT: u8 = 3;
const TOP: u8 = 4;
const SERIES: u8 = 5;

pub(super) fn put_kind(out: &mut Vec<u8>, kind: SketchKind) {
    match kind {
        SketchKind::Buckets(Shape::Linear) => out.push(LINEAR),
        SketchKind::Buckets(Shape::Log) => out.push(LOG),
        SketchKind::Buckets(Shape::Intervals(count)) => {
            out.push(INTERVALS);
            put_varint(out, u64::from(count));
        }
        SketchKind::Distinct => out.push(DISTINCT),
        SketchKind::Top => out.push(TOP),
        SketchKind::Series => out.push(SERIES),
    }
}

pub(super) fn take_kind(cursor: &mut Cursor<'_>) -> Result<SketchKind, WireFault> {
    Ok(match cursor.byte()? {
        LINEAR => SketchKind::Buckets(Shape::Linear),
        LOG => SketchKind::Buckets(Shape::Log),
        INTERVALS => {
            let count = cursor.length(BOUNDS_MAX + 1, "intervals")?;
            if count < 2 {
                return Err(WireFault::Invalid("intervals"));
            }
            SketchKind::Buckets(Shape::Intervals(count as u16))
        }
        DISTINCT => SketchKind::Distinct,
        TOP => SketchKind::Top,
        SERIES => SketchKind::Series,
        _ => return Err(WireFault::Invalid("sketch")),
    })
}

/// Appends the n-th sketch of every row.
pub(super) fn put_sketch(out: &mut Vec<u8>, section: &Section, nth: usize, scratch: &mut StatsScratch) {
    let rows = || {
        section
            .sketches
            .iter()
            .skip(nth)
            .step_by(section.sketch_kinds.len())
    };
    if section.sketch_kinds[nth] == SketchKind::Series {
        let rows = rows().filter_map(|sketch| match sketch {
            Sketch::Series(series) => Some(series),
            _ => None,
        });
        return put_series(out, rows, section.pane, scratch);
    }
    let StatsScratch { column, more, .. } = scratch;
    column.clear();
    column.extend(rows().map(|sketch| sketch.entries() as u64));
    put_column(out, column);
    column.clear();
    more.clear();
    match section.sketch_kinds[nth] {
        SketchKind::Buckets(_) => {
            let rows = || {
                rows().filter_map(|sketch| match sketch {
                    Sketch::Buckets(buckets) => Some(buckets),
                    _ => None,
                })
            };
            column.extend(rows().map(|buckets| u64::from(buckets.level)));
            put_column(out, column);
            column.clear();
            let mut before = 0;
            for buckets in rows() {
                let mut entries = buckets.entries.iter().map(|entry| entry.0);
                let Some(first) = entries.next() else { continue };
                column.push(zigzag(first - before));
                before = first;
                let mut last = first;
                for bucket in entries {
                    more.push((bucket - last) as u64 - 1);
                    last = bucket;
                }
            }
            put_column(out, column);
            put_column(out, more);
            column.clear();
            column.extend(rows().flat_map(|buckets| buckets.entries.iter().map(|entry| entry.1 - 1)));
            put_column(out, column);
        }
        SketchKind::Distinct => {
            for sketch in rows() {
                let Sketch::Distinct(registers) = sketch else {
                    continue;
                };
                let mut next = 0;
                for (register, rank) in registers.marks() {
                    column.push(u64::from(register - next));
                    more.push(u64::from(rank) - 1);
                    next = register + 1;
                }
            }
            put_column(out, column);
            put_column(out, more);
        }
        SketchKind::Top => {
            let rows = || {
                rows().filter_map(|sketch| match sketch {
                    Sketch::Top(counters) => Some(counters),
                    _ => None,
                })
            };
            let entries = || rows().flat_map(Counters::entries);
            column.extend(rows().map(Counters::others));
            put_column(out, column);
            column.clear();
            column.extend(entries().map(|counter| counter.count - 1));
            put_column(out, column);
            more.extend(entries().map(|counter| counter.value.len() as u64 - 1));
            put_column(out, more);
            entries().for_each(|counter| out.extend_from_slice(&counter.value));
        }
        SketchKind::Series => {}
    }
}

/// What a section's sketches may still take.
pub(super) struct Room {
    entries: usize,
}

impl Room {
    pub(super) const fn new() -> Self {
        Self {
            entries: SECTION_ENTRIES_MAX,
        }
    }

    /// Takes room for so many entries, which may be at most `most`.
    pub(super) fn take(&mut self, entries: usize, most: usize) -> Result<(), WireFault> {
        if entries > most.min(self.entries) {
            return Err(WireFault::TooLong("sketch"));
        }
        self.entries -= entries;
        Ok(())
    }

    /// Reads how many entries each row has; at most `most` each, and not more than there is room for.
    fn take_entries(
        &mut self,
        cursor: &mut Cursor<'_>,
        rows: usize,
        most: usize,
        scratch: &mut StatsScratch,
    ) -> Result<Vec<usize>, WireFault> {
        take_column(cursor, rows, &mut scratch.column)?;
        let mut entries = Vec::with_capacity(rows);
        for &count in &scratch.column {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            self.take(count, most)?;
            entries.push(count);
        }
        Ok(entries)
    }
}

/// Reads one sketch of every row and hands them to `keep` in order.
pub(super) fn take_sketch(
    cursor: &mut Cursor<'_>,
    kind: SketchKind,
    pane: Timestamp,
    readings: &[u64],
    room: &mut Room,
    scratch: &mut StatsScratch,
    mut keep: impl FnMut(usize, Sketch),
) -> Result<(), WireFault> {
    let most = match kind {
        SketchKind::Buckets(_) => BUCKETS_MAX,
        SketchKind::Distinct => REGISTERS,
        SketchKind::Top => TOP_VALUES_MAX,
        SketchKind::Series => {
            return take_series(cursor, pane, readings, room, scratch, |row, series| {
                keep(row, Sketch::Series(series));
            });
        }
    };
    let entries = room.take_entries(cursor, readings.len(), most, scratch)?;
    let total: usize = entries.iter().sum();
    match kind {
        SketchKind::Buckets(shape) => {
            let levels = column(cursor, readings.len())?;
            let rows = entries.iter().filter(|entries| **entries > 0).count();
            let (firsts, steps) = (column(cursor, rows)?, column(cursor, total - rows)?);
            take_column(cursor, total, &mut scratch.column)?;
            let mut counts = scratch.column.iter();
            let (mut firsts, mut steps, mut before) = (firsts.iter(), steps.iter(), 0_i64);
            for (row, &entries) in entries.iter().enumerate() {
                let level = u8::try_from(levels[row]).map_err(|_| WireFault::Invalid("level"))?;
                let mut buckets = Buckets {
                    level,
                    entries: Vec::with_capacity(entries),
                };
                let mut bucket = before;
                for nth in 0..entries {
                    let next = if nth == 0 {
                        firsts.next().and_then(|step| bucket.checked_add(unzigzag(*step)))
                    } else {
                        let step = steps.next().and_then(|step| step.checked_add(1));
                        step.and_then(|step| bucket.checked_add(i64::try_from(step).ok()?))
                    };
                    bucket = next.ok_or(WireFault::Invalid("bucket"))?;
                    before = if nth == 0 { bucket } else { before };
                    buckets.entries.push((bucket, counted(counts.next())?));
                }
                let total = sum(buckets.entries.iter().map(|entry| entry.1))?;
                if total > readings[row] || !buckets.is_canonical(shape) {
                    return Err(WireFault::Invalid("histogram"));
                }
                keep(row, Sketch::Buckets(buckets));
            }
        }
        SketchKind::Distinct => {
            let steps = column(cursor, total)?;
            take_column(cursor, total, &mut scratch.column)?;
            let mut marks = steps.iter().zip(&scratch.column);
            for (row, &entries) in entries.iter().enumerate() {
                let mut next: u64 = 0;
                let mut registers = Vec::with_capacity(entries);
                for (&step, &rank) in marks.by_ref().take(entries) {
                    let register = next.saturating_add(step);
                    let mark = u16::try_from(register).ok().zip(u8::try_from(rank).ok());
                    let (register, rank) = mark.ok_or(WireFault::Invalid("register"))?;
                    registers.push((register, rank.saturating_add(1)));
                    next = u64::from(register) + 1;
                }
                let registers = Registers::checked(registers).filter(|_| entries as u64 <= readings[row]);
                keep(
                    row,
                    Sketch::Distinct(registers.ok_or(WireFault::Invalid("register"))?),
                );
            }
        }
        SketchKind::Top => {
            let others = column(cursor, readings.len())?;
            let counts = column(cursor, total)?;
            take_column(cursor, total, &mut scratch.column)?;
            let mut all = counts.iter().zip(&scratch.column);
            for (row, &entries) in entries.iter().enumerate() {
                let mut counters = Vec::with_capacity(entries);
                for (count, &length) in all.by_ref().take(entries) {
                    if length >= KEY_BYTES_MAX as u64 {
                        return Err(WireFault::TooLong("value"));
                    }
                    let value = cursor.take(length as usize + 1)?;
                    if core::str::from_utf8(value).is_err() {
                        return Err(WireFault::Invalid("value is not UTF-8"));
                    }
                    counters.push(Counter::new(value, counted(Some(count))?));
                }
                let counts = counters.iter().map(|counter| counter.count).chain([others[row]]);
                let total = sum(counts)?;
                let counters = Counters::checked(counters, others[row]).filter(|_| total <= readings[row]);
                keep(row, Sketch::Top(counters.ok_or(WireFault::Invalid("top list"))?));
            }
        }
        SketchKind::Series => {}
    }
    Ok(())
}

/// A column in memory of its own; the caller has bounded `rows`.
fn column(cursor: &mut Cursor<'_>, rows: usize) -> Result<Vec<u64>, WireFault> {
    let mut values = Vec::new();
    take_column(cursor, rows, &mut values)?;
    Ok(values)
}

/// A count from what is one less.
fn counted(less: Option<&u64>) -> Result<u64, WireFault> {
    less.and_then(|less| less.checked_add(1))
        .ok_or(WireFault::Invalid("count"))
}

fn sum(mut counts: impl Iterator<Item = u64>) -> Result<u64, WireFault> {
    counts
        .try_fold(0_u64, u64::checked_add)
        .ok_or(WireFault::Invalid("count"))
}
