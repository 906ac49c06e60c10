//! The columns of one series over all rows of a section.
//!
//! ```text
//! series := points + 1: column  form:u8  body      0: too many, or given up; none follow
//! narrow := scale:u8  tick:u8  first time: column  step: column
//!           first value: column of zigzag steps from row to row  value: column of zigzag steps from point to point
//! wide   := (time:zigzag  value:zigzag of up to 128 bits) × all points
//! ```
//!
//! *Narrow* is what sensors give: all values are multiples of 10^scale units and small at that scale, and all times are
//! whole ticks after the pane's start. A sensor that reports every ten seconds costs nearly no bytes of time.

use alloc::vec::Vec;

use super::WireFault;
use super::column::{put_column, take_column};
use super::cursor::{Cursor, put_varint, put_varint_wide, unzigzag, unzigzag_wide, zigzag, zigzag_wide};
use super::sketch::Room;
use super::stats::{StatsScratch, TICKS};
use crate::limits::SERIES_POINTS_MAX;
use crate::number::decimal::Value;
use crate::number::scale::{SCALE_MAX, Scale};
use crate::sketch::{Series, SeriesPoint};
use crate::time::Timestamp;

const NARROW: u8 = 0;
const WIDE: u8 = 1;
/// Narrow values are below this, so that the zigzag step from one to another fits 64 bits.
const NARROW_VALUE_MAX: i128 = 1 << 61;

/// Appends one series of each row.
pub(super) fn put_series<'s>(
    out: &mut Vec<u8>,
    rows: impl Iterator<Item = &'s Series> + Clone,
    pane: Timestamp,
    scratch: &mut StatsScratch,
) {
    let StatsScratch { column, .. } = scratch;
    column.clear();
    column.extend(rows.clone().map(|series| {
        if series.is_too_long() {
            0
        } else {
            series.points().len() as u64 + 1
        }
    }));
    put_column(out, column);
    if let Some(scale) = narrow_scale(&rows, pane) {
        out.push(NARROW);
        put_narrow(out, &rows, pane, scale, scratch);
        return;
    }
    out.push(WIDE);
    for point in rows.flat_map(Series::points) {
        put_varint(out, zigzag(point.at.since(pane).as_micros()));
        put_varint_wide(out, zigzag_wide(point.value.units()));
    }
}

/// The largest scale at which every value is whole, or `None` if the narrow form cannot hold them.
fn narrow_scale<'s>(
    rows: &(impl Iterator<Item = &'s Series> + Clone),
    pane: Timestamp,
) -> Option<&'static Scale> {
    let points = || rows.clone().flat_map(Series::points);
    let mut scale = Scale::of(SCALE_MAX)?;
    let mut seen = false;
    for units in points().map(|point| point.value.units()) {
        // At scale 0 every number is whole.
        while scale.exact(units).is_none() {
            scale = Scale::of(scale.exponent - 1)?;
        }
        seen |= units != 0;
    }
    // All zeros: any scale would do.
    let scale = if seen { scale } else { Scale::of(0)? };
    let is_small = |units| {
        scale
            .exact(units)
            .is_some_and(|value| value.abs() < NARROW_VALUE_MAX)
    };
    let fits = |point: &SeriesPoint| is_small(point.value.units()) && point.at >= pane;
    points().all(fits).then_some(scale)
}

fn put_narrow<'s>(
    out: &mut Vec<u8>,
    rows: &(impl Iterator<Item = &'s Series> + Clone),
    pane: Timestamp,
    scale: &Scale,
    scratch: &mut StatsScratch,
) {
    let StatsScratch { column, more, .. } = scratch;
    let series = || rows.clone().map(Series::points);
    let ticks = TICKS.iter().enumerate().rev();
    let is_whole = |tick: i64| {
        let mut times = series().flatten().map(|point| point.at.since(pane).as_micros());
        times.all(|time| time % tick == 0)
    };
    let (index, tick) = { ticks }
        .find(|(_, tick)| is_whole(**tick))
        .map_or((0, 1), |(index, tick)| (index, *tick));
    out.push(scale.exponent);
    out.push(index as u8);
    let ticks_from = |at: Timestamp, from: Timestamp| (at.since(from).as_micros() / tick).unsigned_abs();
    column.clear();
    more.clear();
    for points in series() {
        let Some(first) = points.first() else { continue };
        column.push(ticks_from(first.at, pane));
        more.extend(points.windows(2).map(|pair| ticks_from(pair[1].at, pair[0].at)));
    }
    put_column(out, column);
    put_column(out, more);
    column.clear();
    more.clear();
    // At most 2⁶¹ each, as was seen.
    let steps = |value: Value| scale.exact(value.units()).unwrap_or(0) as i64;
    let mut row = 0;
    for points in series() {
        let Some(first) = points.first() else { continue };
        let first = steps(first.value);
        column.push(zigzag(first - row));
        row = first;
        let mut before = first;
        for point in &points[1..] {
            let value = steps(point.value);
            more.push(zigzag(value - before));
            before = value;
        }
    }
    put_column(out, column);
    put_column(out, more);
}

/// Reads one series of every row and hands them to `keep` in order.
pub(super) fn take_series(
    cursor: &mut Cursor<'_>,
    pane: Timestamp,
    readings: &[u64],
    room: &mut Room,
    scratch: &mut StatsScratch,
    mut keep: impl FnMut(usize, Series),
) -> Result<(), WireFault> {
    take_column(cursor, readings.len(), &mut scratch.column)?;
    let mut counts: Vec<Option<usize>> = Vec::with_capacity(readings.len());
    for (&count, &readings) in scratch.column.iter().zip(readings) {
        let Some(count) = count.checked_sub(1) else {
            // There were too many points, or a full spool gave them up: that says nothing of how many there were.
            if readings == 0 {
                return Err(WireFault::Invalid("series"));
            }
            counts.push(None);
            continue;
        };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        room.take(count, SERIES_POINTS_MAX)?;
        if count as u64 > readings {
            return Err(WireFault::Invalid("series"));
        }
        counts.push(Some(count));
    }
    let mut source = Source::begin(cursor, pane, &counts)?;
    for (row, count) in counts.into_iter().enumerate() {
        let Some(count) = count else {
            keep(row, Series::TOO_LONG);
            continue;
        };
        let mut points: Vec<SeriesPoint> = Vec::with_capacity(count);
        for _ in 0..count {
            let point = source.point(cursor, points.last());
            points.push(point?.ok_or(WireFault::Invalid("point"))?);
        }
        keep(row, Series::checked(points).ok_or(WireFault::Invalid("series"))?);
    }
    Ok(())
}

/// Where points come from.
enum Source {
    Narrow(Narrow),
    Wide(Timestamp),
}

struct Narrow {
    pane: Timestamp,
    scale: &'static Scale,
    tick: i64,
    first_times: alloc::vec::IntoIter<u64>,
    steps: alloc::vec::IntoIter<u64>,
    first_values: alloc::vec::IntoIter<u64>,
    values: alloc::vec::IntoIter<u64>,
    /// The first value of the row before or of this one, and the value before, in steps of the scale.
    row: i64,
    before: i64,
}

impl Source {
    fn begin(cursor: &mut Cursor<'_>, pane: Timestamp, counts: &[Option<usize>]) -> Result<Self, WireFault> {
        match cursor.byte()? {
            WIDE => return Ok(Self::Wide(pane)),
            NARROW => {}
            _ => return Err(WireFault::Invalid("form")),
        }
        let scale = Scale::of(cursor.byte()?).ok_or(WireFault::Invalid("scale"))?;
        let tick = TICKS.get(usize::from(cursor.byte()?));
        let held = || counts.iter().flatten().filter(|count| **count > 0);
        let (rows, all) = (held().count(), held().sum::<usize>());
        // The room has bounded them.
        let mut column = |length| {
            let mut values = Vec::new();
            take_column(cursor, length, &mut values).map(|()| values.into_iter())
        };
        Ok(Self::Narrow(Narrow {
            pane,
            scale,
            tick: *tick.ok_or(WireFault::Invalid("tick"))?,
            first_times: column(rows)?,
            steps: column(all - rows)?,
            first_values: column(rows)?,
            values: column(all - rows)?,
            row: 0,
            before: 0,
        }))
    }

    /// The next point of a row, of which `before` is the one before; none if it is out of range.
    fn point(
        &mut self,
        cursor: &mut Cursor<'_>,
        before: Option<&SeriesPoint>,
    ) -> Result<Option<SeriesPoint>, WireFault> {
        match self {
            Self::Narrow(narrow) => Ok(narrow.point(before)),
            Self::Wide(pane) => {
                let (time, value) = (unzigzag(cursor.varint()?), unzigzag_wide(cursor.varint_wide()?));
                let at = pane.as_micros().checked_add(time);
                let point = at.and_then(Timestamp::from_micros).zip(Value::from_units(value));
                Ok(point.map(|(at, value)| SeriesPoint { at, value }))
            }
        }
    }
}

impl Narrow {
    fn point(&mut self, before: Option<&SeriesPoint>) -> Option<SeriesPoint> {
        let (from, ticks, value) = if let Some(before) = before {
            let value = self.before.checked_add(unzigzag(self.values.next()?))?;
            (before.at, self.steps.next()?, value)
        } else {
            self.row = self.row.checked_add(unzigzag(self.first_values.next()?))?;
            (self.pane, self.first_times.next()?, self.row)
        };
        self.before = value;
        let micros = i64::try_from(ticks).ok()?.checked_mul(self.tick)?;
        Some(SeriesPoint {
            at: Timestamp::from_micros(from.as_micros().checked_add(micros)?)?,
            value: Value::from_units(self.scale.units(value)?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::End;

    const PANE: i64 = 1_700_000_000_000_000;

    fn series(points: &[(i64, i128)]) -> Series {
        let points = points.iter().map(|&(millis, units)| End {
            at: Timestamp::clamped(PANE + millis * 1_000),
            value: Value::from_units(units).unwrap(),
        });
        Series::from_unsorted(points.collect())
    }

    fn emitted(rows: &[Series]) -> Vec<u8> {
        let mut out = Vec::new();
        put_series(
            &mut out,
            rows.iter(),
            Timestamp::clamped(PANE),
            &mut StatsScratch::default(),
        );
        out
    }

    fn read(bytes: &[u8], readings: &[u64]) -> Result<Vec<Series>, WireFault> {
        let mut cursor = Cursor::new(bytes);
        let (mut rows, mut scratch) = (Vec::new(), StatsScratch::default());
        let pane = Timestamp::clamped(PANE);
        take_series(
            &mut cursor,
            pane,
            readings,
            &mut Room::new(),
            &mut scratch,
            |row, series| {
                assert_eq!(row, rows.len());
                rows.push(series);
            },
        )?;
        cursor.finish().map(|()| rows)
    }

    #[test]
    fn both_forms_and_none_round_trip() {
        let sensor = series(&[
            (0, 215 * 10_i128.pow(17)),
            (2_000, 217 * 10_i128.pow(17)),
            (4_000, -3),
        ]);
        let far = series(&[
            (-5, 1),
            (0, Value::LIMIT - 1),
            (0, 1 - Value::LIMIT),
            (1 << 40, 0),
        ]);
        for rows in [
            alloc::vec![sensor.clone(), Series::EMPTY, Series::TOO_LONG, sensor.clone()],
            alloc::vec![far, sensor],
            alloc::vec![series(&[(7, 0)])],
            alloc::vec![Series::EMPTY],
        ] {
            let readings = alloc::vec![5_000; rows.len()];
            assert_eq!(read(&emitted(&rows), &readings), Ok(rows));
        }
    }

    #[test]
    fn bytes_that_no_points_give_are_refused() {
        // Two points of 0.1: counts, form, scale 17, tick of seconds, first time, step, first value, step.
        let good = [3, 0, 0, 17, 2, 4, 0, 10, 0, 2, 0, 2, 0];
        assert_eq!(
            emitted(&[series(&[(4_000, 10_i128.pow(17)), (14_000, 2 * 10_i128.pow(17))])]),
            good
        );
        assert!(read(&good, &[2]).is_ok());
        let with = |at: usize, byte: u8| {
            let mut bad = good;
            bad[at] = byte;
            bad.to_vec()
        };
        let invalid = WireFault::Invalid;
        let cases: [(&str, Vec<u8>, u64, WireFault); 12] = [
            ("more points than readings", good.to_vec(), 1, invalid("series")),
            (
                "points of no reading that were given up",
                alloc::vec![0, 0, 0, 17, 2],
                0,
                invalid("series"),
            ),
            (
                "more points than a series keeps",
                alloc::vec![0x82, 0x20, 0],
                1 << 30,
                WireFault::TooLong("sketch"),
            ),
            (
                "a count beyond all memory",
                alloc::vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0],
                1 << 39,
                WireFault::TooLong("sketch"),
            ),
            ("an unknown form", with(2, 2), 2, invalid("form")),
            ("an unknown scale", with(3, 36), 2, invalid("scale")),
            ("an unknown tick", with(4, 3), 2, invalid("tick")),
            (
                "no step in time or value",
                {
                    let mut bad = with(7, 0);
                    bad[11] = 0;
                    bad
                },
                2,
                invalid("series"),
            ),
            (
                "a step down at one time",
                {
                    let mut bad = with(7, 0);
                    bad[11] = 1;
                    bad
                },
                2,
                invalid("series"),
            ),
            (
                "a value beyond the largest",
                {
                    let mut bad = with(3, 35);
                    bad[9] = 20;
                    bad
                },
                2,
                invalid("point"),
            ),
            ("too few bytes", good[..12].to_vec(), 2, WireFault::Truncated),
            ("too many", [&good[..], &[0]].concat(), 2, WireFault::Trailing),
        ];
        for (what, bytes, readings, fault) in cases {
            assert_eq!(read(&bytes, &[readings]), Err(fault), "{what}");
        }
        let year_2201 = [2, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 2];
        assert_eq!(read(&year_2201, &[1]), Err(invalid("point")));
    }

    /// A frame of rows that claim as many points as there may be, and have none, costs its reader one section's room.
    #[test]
    fn claims_are_bounded_for_the_section() {
        let mut bytes = Vec::new();
        put_column(&mut bytes, &[SERIES_POINTS_MAX as u64 + 1; 100]);
        assert_eq!(read(&bytes, &[1 << 20; 100]), Err(WireFault::TooLong("sketch")));
    }
}
