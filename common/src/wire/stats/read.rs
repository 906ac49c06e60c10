//! From columns to partials, with every number checked: what comes out satisfies the invariants of [`Stats`].

use alloc::vec::Vec;

use super::write::floor_div;
use super::{
    COLUMNS, FIRST, FIRST_AT, LAST, LAST_AT, MAX, MIN, NARROW, Previous, SQUARES, SUM, StatsScratch,
    TICK_SIGNED, TICKS, WIDE, kept_columns,
};
use crate::number::decimal::Value;
use crate::number::scale::Scale;
use crate::number::wide::Wide;
use crate::plan::Components;
use crate::stats::{End, Stats};
use crate::time::{Span, Timestamp};
use crate::wire::WireFault;
use crate::wire::column::take_column;
use crate::wire::cursor::{Cursor, unzigzag, unzigzag_wide};

#[expect(
    clippy::too_many_arguments,
    reason = "the rows live in two vectors of the caller"
)]
pub(in crate::wire) fn take_field(
    cursor: &mut Cursor<'_>,
    pane: Timestamp,
    keep: Components,
    field: usize,
    fields: usize,
    readings: &[u64],
    stats: &mut [Stats],
    scratch: &mut StatsScratch,
) -> Result<(), WireFault> {
    let form = cursor.byte()?;
    take_column(cursor, readings.len(), &mut scratch.column)?;
    scratch.present.clear();
    for (row, (&readings, &absent)) in readings.iter().zip(&scratch.column).enumerate() {
        let count = readings
            .checked_sub(absent)
            .ok_or(WireFault::Invalid("more absent than readings"))?;
        let at = row * fields + field;
        stats[at].count = count;
        if count > 0 {
            scratch.present.push(at as u32);
        }
    }
    match form {
        NARROW => take_narrow(cursor, pane, keep, stats, scratch),
        WIDE => {
            for &at in &scratch.present {
                take_wide(cursor, pane, keep, &mut stats[at as usize])?;
            }
            Ok(())
        }
        _ => Err(WireFault::Invalid("form")),
    }
}

fn take_narrow(
    cursor: &mut Cursor<'_>,
    pane: Timestamp,
    keep: Components,
    stats: &mut [Stats],
    scratch: &mut StatsScratch,
) -> Result<(), WireFault> {
    let scale = Scale::of(cursor.byte()?).ok_or(WireFault::Invalid("scale"))?;
    let StatsScratch { present, columns, .. } = scratch;
    let (mut tick, mut is_signed) = (0, false);
    for column in kept_columns(keep) {
        if column == FIRST_AT {
            let code = cursor.byte()?;
            is_signed = code & TICK_SIGNED != 0;
            tick = *TICKS
                .get(usize::from(code & !TICK_SIGNED))
                .ok_or(WireFault::Invalid("tick"))?;
        }
        take_column(cursor, present.len(), &mut columns[column])?;
    }
    let mut previous = Previous::default();
    let reader = RowReader {
        keep,
        pane,
        tick,
        is_signed,
        scale,
    };
    for (row, &at) in present.iter().enumerate() {
        let stats = &mut stats[at as usize];
        reader
            .read(columns, row, &mut previous, stats)
            .ok_or(WireFault::Invalid("partial"))?;
    }
    Ok(())
}

/// Rebuilds partials from narrow columns. `None` stands for a number that no writer would have sent.
struct RowReader {
    keep: Components,
    pane: Timestamp,
    tick: i64,
    is_signed: bool,
    scale: &'static Scale,
}

impl RowReader {
    #[inline]
    fn read(
        &self,
        columns: &[Vec<u64>; COLUMNS],
        row: usize,
        previous: &mut Previous,
        stats: &mut Stats,
    ) -> Option<()> {
        let count = i128::from(stats.count);
        let extrema = self.keep.contains(Components::EXTREMA);
        let mut min = 0;
        if extrema {
            min = previous.min.checked_add(unzigzag(columns[MIN][row]))?;
            previous.min = min;
            stats.min = self.scale.units(min)?;
            stats.max = self.scale.units(above(min, columns[MAX][row])?)?;
        }
        let mut sum = 0;
        if self.keep.contains(Components::SUM) {
            sum = if extrema {
                // Below 2⁴⁰ · 2⁶³ + 2⁶⁴.
                count * i128::from(min) + i128::from(columns[SUM][row])
            } else {
                previous.sum = previous.sum.checked_add(unzigzag(columns[SUM][row]))?;
                i128::from(previous.sum)
            };
            stats.sum = self.scale.sum(sum, stats.count)?;
        }
        if extrema && self.keep.contains(Components::SUM) {
            // The sum is no less than count times the smallest value; nor is it more than count times the largest.
            let range = i128::from(columns[MAX][row]);
            if i128::from(columns[SUM][row]) > count * range {
                return None;
            }
        }
        if self.keep.contains(Components::SQUARES) {
            let middle = floor_div(sum, count);
            let distances = i128::from(columns[SQUARES][row]);
            // No less than (S − nK)² / n: the variance of no values is negative.
            let rest = sum - middle * count;
            if count * distances < rest * rest {
                return None;
            }
            let twice = middle.checked_mul(2)?.checked_mul(sum)?;
            let squared = count.checked_mul(middle)?.checked_mul(middle)?;
            let squares = distances.checked_add(twice)?.checked_sub(squared)?;
            stats.squares = self
                .scale
                .squares_of(u128::try_from(squares).ok()?, stats.count)?;
        }
        if self.keep.contains(Components::ENDS) {
            self.read_ends(columns, row, min, previous, stats)?;
        }
        Some(())
    }

    fn read_ends(
        &self,
        columns: &[Vec<u64>; COLUMNS],
        row: usize,
        min: i64,
        previous: &mut Previous,
        stats: &mut Stats,
    ) -> Option<()> {
        let first_at = columns[FIRST_AT][row];
        let first_at = if self.is_signed {
            unzigzag(first_at)
        } else {
            i64::try_from(first_at).ok()?
        };
        let first_at = first_at.checked_mul(self.tick)?;
        let last_at = i64::try_from(columns[LAST_AT][row])
            .ok()?
            .checked_mul(self.tick)?
            .checked_add(first_at)?;
        let (first, last) = if self.keep.contains(Components::EXTREMA) {
            (above(min, columns[FIRST][row])?, above(min, columns[LAST][row])?)
        } else {
            previous.first = previous.first.checked_add(unzigzag(columns[FIRST][row]))?;
            (
                previous.first,
                previous.first.checked_add(unzigzag(columns[LAST][row]))?,
            )
        };
        let end = |offset: i64, value: i64| {
            let at = Timestamp::from_micros(self.pane.as_micros().checked_add(offset)?)?;
            Some(End {
                at,
                value: Value::from_units(self.scale.units(value)?)?,
            })
        };
        (stats.first, stats.last) = (end(first_at, first)?, end(last_at, last)?);
        is_consistent(stats, self.keep).then_some(())
    }
}

#[inline]
fn above(base: i64, difference: u64) -> Option<i64> {
    base.checked_add(i64::try_from(difference).ok()?)
}

fn take_wide(
    cursor: &mut Cursor<'_>,
    pane: Timestamp,
    keep: Components,
    stats: &mut Stats,
) -> Result<(), WireFault> {
    let value = |number: u128| {
        Value::from_units(unzigzag_wide(number)).ok_or(WireFault::Invalid("value out of range"))
    };
    if keep.contains(Components::EXTREMA) {
        stats.min = value(cursor.varint_wide()?)?.units();
        stats.max = value(cursor.varint_wide()?)?.units();
    }
    if keep.contains(Components::SUM) {
        stats.sum = take_limbs(cursor)?;
    }
    if keep.contains(Components::SQUARES) {
        stats.squares = take_limbs(cursor)?;
    }
    if keep.contains(Components::ENDS) {
        for end in [&mut stats.first, &mut stats.last] {
            let offset = Span::from_micros(unzigzag(cursor.varint()?));
            let at = pane
                .as_micros()
                .checked_add(offset.as_micros())
                .and_then(Timestamp::from_micros);
            end.at = at.ok_or(WireFault::Invalid("end outside time"))?;
            end.value = value(cursor.varint_wide()?)?;
        }
    }
    if is_consistent(stats, keep) && wide_sums_fit(stats, keep) {
        Ok(())
    } else {
        Err(WireFault::Invalid("partial"))
    }
}

fn take_limbs<const N: usize>(cursor: &mut Cursor<'_>) -> Result<Wide<N>, WireFault> {
    let mut limbs = [0; N];
    for limb in &mut limbs {
        *limb = u64::from_le_bytes(cursor.array()?);
    }
    Ok(Wide::from_limbs(limbs))
}

/// Whether extrema and ends of a decoded partial could be those of some values. This holds for the merger of two
/// partials if it holds for both, as does [`wide_sums_fit`]: what may come may be merged, written and read again.
fn is_consistent(stats: &Stats, keep: Components) -> bool {
    let extrema = !keep.contains(Components::EXTREMA) || stats.min <= stats.max;
    let ends = !keep.contains(Components::ENDS) || stats.first.at <= stats.last.at;
    let both = Components::EXTREMA | Components::ENDS;
    let range = stats.min..=stats.max;
    let within = !keep.contains(both)
        || [stats.first, stats.last]
            .iter()
            .all(|end| range.contains(&end.value.units()));
    extrema && ends && within
}

/// Sums that `count` values can have: within `count` times the limit of a value and of its square, between `count` times
/// the extrema, and such that no negative variance follows from them (n·Q ≥ S²).
fn wide_sums_fit(stats: &Stats, keep: Components) -> bool {
    let at_most = |low: &Wide<12>, mut high: Wide<12>| {
        high.sub(low);
        !high.is_negative()
    };
    let times_count = |value: i128| {
        let product = Wide::<12>::from_u128(value.unsigned_abs()).times(stats.count);
        if value < 0 { product.negated() } else { product }
    };
    let sum = stats.sum.resized::<12>();
    let magnitude = sum.magnitude();
    let sum_fits = at_most(&magnitude, times_count(Value::LIMIT));
    let both = Components::EXTREMA | Components::SUM;
    let within = !keep.contains(both)
        || (at_most(&times_count(stats.min), sum) && at_most(&sum, times_count(stats.max)));
    let squares = stats.squares.resized::<12>();
    let limit = Wide::<12>::from_i128(Value::LIMIT);
    let squares_fit = !keep.contains(Components::SQUARES)
        || (!squares.is_negative()
            && at_most(&squares, limit.product(&limit).times(stats.count))
            && at_most(&magnitude.product(&magnitude), squares.times(stats.count)));
    sum_fits && within && squares_fit
}
