//! The columns of one field's partials.
//!
//! ```text
//! field  := form:u8  readings − count: column  body       (rows whose count is 0 have no more)
//! narrow := scale:u8  [min: column of zigzag steps  max − min: column]
//!           [sum: column]  [squares: column]  [tick:u8  first, last: columns of offsets  values: two columns]
//! wide   := for each row, each kept component at full length
//! ```
//!
//! *Narrow* is what sensors give: all values are multiples of 10^scale units and small at that scale. The columns hold
//! differences that are small and not negative: max above min, sum above count·min, and of the squares the sum of
//! squared distances from K = ⌊sum / count⌋, a bijection with the sum of squares (Q = css + 2KS − nK²). *Wide* takes
//! any partial. A writer takes the narrow form when it fits; a reader takes either.

use alloc::vec::Vec;

use super::WireFault;
use super::column::{put_column, take_column};
use super::cursor::{Cursor, put_varint, put_varint_wide, unzigzag, unzigzag_wide, zigzag, zigzag_wide};
use super::section::Section;
use crate::decimal::Value;
use crate::plan::Components;
use crate::stats::{End, Squares, Stats, Sum};
use crate::time::{Span, Timestamp};
use crate::wide::Wide;

/// Columns and bytes that are used again from section to section, so that steady work allocates nothing.
#[derive(Default)]
pub struct StatsScratch {
    pub(super) column: Vec<u64>,
    pub(super) more: Vec<u64>,
    pub(super) bytes: Vec<u8>,
    pub(super) present: Vec<u32>,
    columns: [Vec<u64>; COLUMNS],
}

impl core::fmt::Debug for StatsScratch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StatsScratch").finish_non_exhaustive()
    }
}

const NARROW: u8 = 0;
const WIDE: u8 = 1;
/// Largest scale: 10³⁶ units is the limit of a value.
const SCALE_MAX: u8 = 35;
/// Narrow values are below 2⁴⁰ and sums without extrema below 2⁶⁰, counts below 2⁴⁰: every product fits an i128.
const NARROW_VALUE_MAX: i128 = 1 << 40;
const NARROW_SUM_MAX: i128 = 1 << 60;

// The columns of the narrow form, in the order of the wire.
const MIN: usize = 0;
const MAX: usize = 1;
const SUM: usize = 2;
const SQUARES: usize = 3;
const FIRST_AT: usize = 4;
const LAST_AT: usize = 5;
const FIRST: usize = 6;
const LAST: usize = 7;
const COLUMNS: usize = 8;

/// What the times of ends are multiples of: microseconds, milliseconds, seconds.
const TICKS: [i64; 3] = [1, 1_000, 1_000_000];

fn kept_columns(keep: Components) -> impl Iterator<Item = usize> {
    let owners = [
        (Components::EXTREMA, MIN..=MAX),
        (Components::SUM, SUM..=SUM),
        (Components::SQUARES, SQUARES..=SQUARES),
        (Components::ENDS, FIRST_AT..=LAST),
    ];
    owners
        .into_iter()
        .filter(move |(owner, _)| keep.contains(*owner))
        .flat_map(|(_, columns)| columns)
}

pub(super) fn put_field(out: &mut Vec<u8>, section: &Section, field: usize, scratch: &mut StatsScratch) {
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
    out.push(scale);
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
fn narrow_scale<'s>(partials: impl Iterator<Item = &'s Stats>, keep: Components) -> Option<u8> {
    let mut scale = SCALE_MAX;
    let mut power = 10_i128.pow(u32::from(scale));
    let mut seen = false;
    for stats in partials.filter(|stats| stats.count > 0) {
        let sum = stats.sum.to_i128()?;
        let extrema = keep.contains(Components::EXTREMA);
        let ends = keep.contains(Components::ENDS);
        let numbers = [
            if extrema { stats.min } else { 0 },
            if extrema { stats.max } else { 0 },
            if ends { stats.first.value.units() } else { 0 },
            if ends { stats.last.value.units() } else { 0 },
            sum,
        ];
        for number in numbers {
            while number % power != 0 {
                scale -= 1;
                power /= 10;
            }
        }
        seen |= numbers != [0; 5];
    }
    // All zeros: any scale would do.
    Some(if seen { scale } else { 0 })
}

/// Fills the columns at this scale; false if a number does not fit.
fn fill_columns<'s>(
    partials: impl Iterator<Item = &'s Stats>,
    keep: Components,
    scale: u8,
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

/// What the steps of the next row are taken from.
#[derive(Default)]
struct Previous {
    min: i64,
    sum: i64,
    first: i64,
}

fn fill_row(
    columns: &mut [Vec<u64>; COLUMNS],
    previous: &mut Previous,
    stats: &Stats,
    keep: Components,
    scale: u8,
    pane: Timestamp,
) -> Option<()> {
    let power = 10_i128.pow(u32::from(scale));
    let small = |units: i128| {
        Some(units / power)
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
    let sum = stats.sum.to_i128()? / power;
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
        let squares = unscaled_squares(&stats.squares, scale)?;
        let middle = sum.div_euclid(count);
        let distances = squares - 2 * middle * sum + count * middle * middle;
        columns[SQUARES].push(u64::try_from(distances).ok()?);
    }
    if keep.contains(Components::ENDS) {
        let offset = |at: Timestamp| u64::try_from(at.since(pane).as_micros()).ok();
        columns[FIRST_AT].push(offset(stats.first.at)?);
        columns[LAST_AT].push(offset(stats.last.at)? - offset(stats.first.at)?);
        let (first, last) = (
            small(stats.first.value.units())?,
            small(stats.last.value.units())?,
        );
        if extrema {
            columns[FIRST].push((first - min) as u64);
            columns[LAST].push((last - min) as u64);
        } else {
            columns[FIRST].push(zigzag(first - previous.first));
            columns[LAST].push(zigzag(last - first));
            previous.first = first;
        }
    }
    Some(())
}

/// The sum of squares at twice the scale, if it is whole there and below 2¹²⁴.
fn unscaled_squares(squares: &Squares, scale: u8) -> Option<i128> {
    let mut quotient = *squares;
    for power in tens(scale).into_iter().flatten().flat_map(|power| [power, power]) {
        let (next, rest) = quotient.div_rem_u64(power);
        if rest != 0 {
            return None;
        }
        quotient = next;
    }
    quotient
        .to_u128()
        .filter(|squares| squares >> 124 == 0)
        .map(|squares| squares as i128)
}

/// 10^scale as factors that fit 64 bits.
fn tens(scale: u8) -> [Option<u64>; 2] {
    let low = scale.min(19);
    [
        (low > 0).then(|| 10_u64.pow(u32::from(low))),
        (scale > low).then(|| 10_u64.pow(u32::from(scale - low))),
    ]
}

/// Divides the times of ends by the largest tick that leaves them whole; returns the tick's index.
fn shrink_times(scratch: &mut StatsScratch) -> u8 {
    let [_, _, _, _, first, last, _, _] = &mut scratch.columns;
    let fits = |tick: &&i64| {
        first
            .iter()
            .chain(last.iter())
            .all(|&time| time.is_multiple_of(**tick as u64))
    };
    let index = TICKS.iter().rposition(|tick| fits(&tick)).unwrap_or(0);
    for time in first.iter_mut().chain(last.iter_mut()) {
        *time /= TICKS[index] as u64;
    }
    index as u8
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

#[expect(
    clippy::too_many_arguments,
    reason = "the rows live in two vectors of the caller"
)]
pub(super) fn take_field(
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
    let scale = cursor.byte()?;
    if scale > SCALE_MAX {
        return Err(WireFault::Invalid("scale"));
    }
    let StatsScratch { present, columns, .. } = scratch;
    let mut tick = 0;
    for column in kept_columns(keep) {
        if column == FIRST_AT {
            tick = *TICKS
                .get(cursor.byte()? as usize)
                .ok_or(WireFault::Invalid("tick"))?;
        }
        take_column(cursor, present.len(), &mut columns[column])?;
    }
    let mut previous = Previous::default();
    let reader = RowReader {
        keep,
        pane,
        tick,
        power: 10_i128.pow(u32::from(scale)),
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
    power: i128,
    scale: u8,
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
            stats.min = self.units(min)?;
            stats.max = self.units(above(min, columns[MAX][row])?)?;
        }
        let mut sum = 0;
        if self.keep.contains(Components::SUM) {
            sum = if extrema {
                count
                    .checked_mul(i128::from(min))?
                    .checked_add(i128::from(columns[SUM][row]))?
            } else {
                previous.sum = previous.sum.checked_add(unzigzag(columns[SUM][row]))?;
                i128::from(previous.sum)
            };
            stats.sum = self.scaled_sum(sum, count)?;
        }
        if self.keep.contains(Components::SQUARES) {
            let middle = sum.div_euclid(count);
            let twice = middle.checked_mul(2)?.checked_mul(sum)?;
            let squared = count.checked_mul(middle)?.checked_mul(middle)?;
            let squares = i128::from(columns[SQUARES][row])
                .checked_add(twice)?
                .checked_sub(squared)?;
            stats.squares = self.scaled_squares(squares)?;
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
        let first_at = i64::try_from(columns[FIRST_AT][row])
            .ok()?
            .checked_mul(self.tick)?;
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
                value: Value::from_units(self.units(value)?)?,
            })
        };
        (stats.first, stats.last) = (end(first_at, first)?, end(last_at, last)?);
        is_consistent(stats, self.keep).then_some(())
    }

    #[inline]
    fn units(&self, value: i64) -> Option<i128> {
        let units = i128::from(value).checked_mul(self.power)?;
        Value::from_units(units).map(Value::units)
    }

    #[inline]
    fn scaled_sum(&self, sum: i128, count: i128) -> Option<Sum> {
        // Below count · 10³⁶ in magnitude, as the sum of `count` values must be. A limit beyond 128 bits is above any sum.
        let limit = (Value::LIMIT / self.power)
            .unsigned_abs()
            .checked_mul(count.unsigned_abs());
        if limit.is_some_and(|limit| sum.unsigned_abs() >= limit) {
            return None;
        }
        let mut scaled = Sum::from_u128(sum.unsigned_abs());
        for power in tens(self.scale).into_iter().flatten() {
            scaled = scaled.times(power);
        }
        Some(if sum < 0 { scaled.negated() } else { scaled })
    }

    #[inline]
    fn scaled_squares(&self, squares: i128) -> Option<Squares> {
        let mut scaled = Squares::from_u128(u128::try_from(squares).ok()?);
        if scaled.bits() + 2 * 10_u128.pow(u32::from(self.scale)).ilog2() + 2 > SQUARES_BITS_MAX {
            return None;
        }
        for power in tens(self.scale)
            .into_iter()
            .flatten()
            .flat_map(|power| [power, power])
        {
            scaled = scaled.times(power);
        }
        Some(scaled)
    }
}

#[inline]
fn above(base: i64, difference: u64) -> Option<i64> {
    base.checked_add(i64::try_from(difference).ok()?)
}

/// Bits of the largest sum of squares of 2⁴⁰ values.
const SQUARES_BITS_MAX: u32 = 240 + 41;

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
    if is_consistent(stats, keep) && wide_sums_fit(stats) {
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

/// Whether a decoded partial could be the summary of some values.
fn is_consistent(stats: &Stats, keep: Components) -> bool {
    let extrema = !keep.contains(Components::EXTREMA) || stats.min <= stats.max;
    let ends = !keep.contains(Components::ENDS) || stats.first.at <= stats.last.at;
    extrema && ends
}

/// Sums within what `count` values can reach, and squares that no negative variance follows from (n·Q ≥ S²).
fn wide_sums_fit(stats: &Stats) -> bool {
    let limit = Wide::<12>::from_i128(Value::LIMIT).times(stats.count);
    let sum = stats.sum.magnitude().resized::<12>();
    let mut room = limit;
    room.sub(&sum);
    let mut variance = stats.squares.resized::<12>().times(stats.count);
    variance.sub(&sum.product(&sum));
    let squares_fit = stats.squares.is_zero()
        || (!stats.squares.is_negative()
            && stats.squares.bits() <= SQUARES_BITS_MAX
            && !variance.is_negative());
    !room.is_negative() && squares_fit
}
