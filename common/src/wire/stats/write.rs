//! From partials to columns: the narrow form where it fits, else the wide one.

use alloc::vec::Vec;

use super::{
    COLUMNS, FIRST, FIRST_AT, LAST, LAST_AT, MAX, MIN, NARROW, NARROW_SUM_MAX, NARROW_VALUE_MAX, Previous,
    SQUARES, SUM, StatsScratch, TICK_SIGNED, TICKS, WIDE, kept_columns,
};
use crate::number::scale::{SCALE_MAX, Scale};
use crate::number::wide::Wide;
use crate::plan::Components;
use crate::stats::Stats;
use crate::time::Timestamp;
use crate::wire::column::put_column;
use crate::wire::cursor::{put_varint, put_varint_wide, zigzag, zigzag_wide};
use crate::wire::section::Section;

pub(in crate::wire) fn put_field(
    out: &mut Vec<u8>,
    section: &Section,
    field: usize,
    scratch: &mut StatsScratch,
) {
    let keep = section.keep[field];
    let fields = section.keep.len();
    let partials = || section.stats.iter().skip(field).step_by(fields);
    let scale = narrow_scale(partials(), keep);
    let narrow = scale.filter(|&scale| fill_columns(partials(), keep, scale, section.pane, scratch));
    out.push(if narrow.is_some() { NARROW } else { WIDE });
    scratch.column.clear();
    scratch.column.extend(
        section
            .readings
            .iter()
            .zip(partials())
            .map(|(&readings, stats)| readings - stats.count),
    );
    put_column(out, &scratch.column);
    let Some(scale) = narrow else {
        for stats in partials().filter(|stats| stats.count > 0) {
            put_wide(out, stats, keep, section.pane);
        }
        return;
    };
    out.push(scale.exponent);
    let tick = if keep.contains(Components::ENDS) {
        shrink_times(scratch)
    } else {
        0
    };
    for column in kept_columns(keep) {
        if column == FIRST_AT {
            out.push(tick);
        }
        put_column(out, &scratch.columns[column]);
    }
}

/// The largest scale at which every kept number is whole, or `None` if the narrow form cannot hold them.
fn narrow_scale<'s>(partials: impl Iterator<Item = &'s Stats>, keep: Components) -> Option<&'static Scale> {
    let mut scale = Scale::of(SCALE_MAX)?;
    let mut seen = false;
    let extrema = keep.contains(Components::EXTREMA);
    let ends = keep.contains(Components::ENDS);
    for stats in partials.filter(|stats| stats.count > 0) {
        let numbers = [
            if extrema { stats.min } else { 0 },
            if extrema { stats.max } else { 0 },
            if ends { stats.first.value.units() } else { 0 },
            if ends { stats.last.value.units() } else { 0 },
            stats.sum.to_i128()?,
        ];
        for number in numbers {
            // At scale 0 every number is whole.
            while scale.exact(number).is_none() {
                scale = Scale::of(scale.exponent - 1)?;
            }
        }
        seen |= numbers != [0; 5];
    }
    // All zeros: any scale would do.
    if seen { Some(scale) } else { Scale::of(0) }
}

/// Fills the columns at this scale; false if a number does not fit.
fn fill_columns<'s>(
    partials: impl Iterator<Item = &'s Stats>,
    keep: Components,
    scale: &Scale,
    pane: Timestamp,
    scratch: &mut StatsScratch,
) -> bool {
    let columns = &mut scratch.columns;
    columns.iter_mut().for_each(Vec::clear);
    let mut previous = Previous::default();
    for stats in partials.filter(|stats| stats.count > 0) {
        if fill_row(columns, &mut previous, stats, keep, scale, pane).is_none() {
            return false;
        }
    }
    true
}

#[inline]
fn fill_row(
    columns: &mut [Vec<u64>; COLUMNS],
    previous: &mut Previous,
    stats: &Stats,
    keep: Components,
    scale: &Scale,
    pane: Timestamp,
) -> Option<()> {
    let small = |units: i128| {
        scale
            .exact(units)
            .filter(|value| value.abs() < NARROW_VALUE_MAX)
            .map(|value| value as i64)
    };
    let count = i128::from(stats.count);
    if count >= NARROW_VALUE_MAX {
        return None;
    }
    let extrema = keep.contains(Components::EXTREMA);
    let mut min = 0;
    if extrema {
        min = small(stats.min)?;
        columns[MIN].push(zigzag(min - previous.min));
        columns[MAX].push((small(stats.max)? - min) as u64);
        previous.min = min;
    }
    let sum = scale.exact(stats.sum.to_i128()?)?;
    if keep.contains(Components::SUM) {
        if extrema {
            columns[SUM].push(u64::try_from(sum - count * i128::from(min)).ok()?);
        } else {
            let sum = Some(sum).filter(|sum| sum.abs() < NARROW_SUM_MAX)? as i64;
            columns[SUM].push(zigzag(sum - previous.sum));
            previous.sum = sum;
        }
    }
    if keep.contains(Components::SQUARES) {
        let squares = scale.exact_squares(&stats.squares)?;
        let middle = floor_div(sum, count);
        let distances = squares - 2 * middle * sum + count * middle * middle;
        columns[SQUARES].push(u64::try_from(distances).ok()?);
    }
    if keep.contains(Components::ENDS) {
        // Before the pane when that is the number of a window; [`shrink_times`] sees to the sign.
        columns[FIRST_AT].push(stats.first.at.since(pane).as_micros().cast_unsigned());
        columns[LAST_AT].push(u64::try_from(stats.last.at.since(stats.first.at).as_micros()).ok()?);
        let (first, last) = (
            small(stats.first.value.units())?,
            small(stats.last.value.units())?,
        );
        if extrema {
            columns[FIRST].push(u64::try_from(first - min).ok()?);
            columns[LAST].push(u64::try_from(last - min).ok()?);
        } else {
            columns[FIRST].push(zigzag(first - previous.first));
            columns[LAST].push(zigzag(last - first));
            previous.first = first;
        }
    }
    Some(())
}

/// ⌊sum / count⌋; nearly always both fit 64 bits, where division is ten times as fast.
#[inline]
pub(super) fn floor_div(sum: i128, count: i128) -> i128 {
    match (i64::try_from(sum), i64::try_from(count)) {
        (Ok(sum), Ok(count)) => i128::from(sum.div_euclid(count)),
        _ => sum.div_euclid(count),
    }
}

/// Divides the times of ends by the largest tick that leaves them whole; returns the tick's index, with [`TICK_SIGNED`]
/// if first times are zigzag because some are before the pane.
fn shrink_times(scratch: &mut StatsScratch) -> u8 {
    let [_, _, _, _, first, last, _, _] = &mut scratch.columns;
    let fits = |tick: &&i64| {
        first
            .iter()
            .chain(last.iter())
            .all(|time| time.cast_signed() % **tick == 0)
    };
    let index = TICKS.iter().rposition(|tick| fits(&tick)).unwrap_or(0);
    for time in first.iter_mut().chain(last.iter_mut()) {
        *time = (time.cast_signed() / TICKS[index]).cast_unsigned();
    }
    if first.iter().all(|time| !time.cast_signed().is_negative()) {
        return index as u8;
    }
    for time in first {
        *time = zigzag(time.cast_signed());
    }
    index as u8 | TICK_SIGNED
}

fn put_wide(out: &mut Vec<u8>, stats: &Stats, keep: Components, pane: Timestamp) {
    if keep.contains(Components::EXTREMA) {
        put_varint_wide(out, zigzag_wide(stats.min));
        put_varint_wide(out, zigzag_wide(stats.max));
    }
    if keep.contains(Components::SUM) {
        put_limbs(out, &stats.sum);
    }
    if keep.contains(Components::SQUARES) {
        put_limbs(out, &stats.squares);
    }
    if keep.contains(Components::ENDS) {
        for end in [stats.first, stats.last] {
            put_varint(out, zigzag(end.at.since(pane).as_micros()));
            put_varint_wide(out, zigzag_wide(end.value.units()));
        }
    }
}

fn put_limbs<const N: usize>(out: &mut Vec<u8>, wide: &Wide<N>) {
    out.extend(wide.limbs().iter().flat_map(|limb| limb.to_le_bytes()));
}
