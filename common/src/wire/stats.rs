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

mod read;

mod write;

use alloc::vec::Vec;

use crate::plan::Components;

pub(super) use read::take_field;
pub(super) use write::put_field;

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
pub(super) const TICKS: [i64; 3] = [1, 1_000, 1_000_000];

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

/// What the steps of the next row are taken from.
#[derive(Default)]
struct Previous {
    min: i64,
    sum: i64,
    first: i64,
}
