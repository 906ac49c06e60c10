//! No writer emits what its reader refuses: whatever deltas a reader accepts, their merger can be written as a stored
//! pane and is read again as it was.
//!
//! Deltas come from peers, so they need not be summaries of any values: claims are drawn far beyond what values give,
//! and bytes are damaged with the checksum made right again. What the reader lets through is merged row by row.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::{KINDS, components, sketched};
use crate::limits::{DELTA_READINGS_MAX, PANE_READINGS_MAX};
use crate::number::decimal::Value;
use crate::number::wide::Wide;
use crate::plan::{Components, PipelineId};
use crate::sketch::merge_rows;
use crate::stats::{End, Stats};
use crate::time::Timestamp;
use crate::wire::section::Pipelines;
use crate::wire::{Section, SectionView, StatsScratch};

const PANE: i64 = super::PANE;
const PIPELINE: PipelineId = PipelineId(7);

/// A section as a peer sends it, if a reader accepts it.
fn accepted(bytes: &[u8]) -> Option<Section> {
    let (mut section, mut scratch) = (Section::default(), StatsScratch::default());
    let view = SectionView::parse(bytes, Pipelines::One(PIPELINE)).ok()?;
    view.read(&mut section, &mut scratch).ok()?;
    Some(section)
}

fn emitted(section: &Section) -> Vec<u8> {
    let mut bytes = Vec::new();
    section.emit(0, &mut bytes, &mut StatsScratch::default());
    bytes
}

/// One row of a section as a section of its own, under a key that all rows share.
fn row(section: &Section, index: usize) -> Section {
    let mut row = Section::default();
    row.reset(section.pipeline, section.pane, section.keep.iter().copied());
    row.set_sketches(section.sketch_kinds.iter().copied());
    row.keys.push(b"key");
    row.readings.push(section.readings[index]);
    row.stats.extend_from_slice(section.row(index));
    row.sketches.extend_from_slice(section.sketch_row(index));
    row
}

fn merge(held: &mut Section, more: &Section) {
    held.readings[0] += more.readings[0];
    for (held, more) in held.stats.iter_mut().zip(&more.stats) {
        held.merge(more);
    }
    merge_rows(
        &mut held.sketches,
        &more.sketches,
        more.sketch_kinds.iter().copied(),
    );
}

/// Merges all rows of all accepted sections of one form, and checks after each that what was merged is read again.
fn check(sections: &[Section]) -> Result<(), TestCaseError> {
    let mut merged: Option<Section> = None;
    for section in sections {
        for index in 0..section.rows() {
            let row = row(section, index);
            match &mut merged {
                Some(held) if held.keep == row.keep && held.sketch_kinds == row.sketch_kinds => {
                    held.pane = row.pane;
                    if held.readings[0] + row.readings[0] <= PANE_READINGS_MAX {
                        merge(held, &row);
                    }
                }
                _ => merged = Some(row),
            }
            let merged = merged.as_ref().expect("a row was merged");
            let bytes = emitted(merged);
            let (mut read, mut scratch) = (Section::default(), StatsScratch::default());
            let view = SectionView::parse_merged(&bytes, merged.pipeline);
            let view = view.map_err(|fault| TestCaseError::fail(alloc::format!("{fault}: {merged:?}")))?;
            let result = view.read(&mut read, &mut scratch);
            prop_assert_eq!(result, Ok(()), "{:?}", merged);
            prop_assert_eq!(&read, merged);
        }
    }
    Ok(())
}

/// Numbers of readings at and around the bounds.
fn readings() -> impl Strategy<Value = u64> {
    prop_oneof![
        1_u64..10,
        1..=DELTA_READINGS_MAX,
        Just(DELTA_READINGS_MAX),
        Just(DELTA_READINGS_MAX - 1),
    ]
}

/// Values at and around the bounds.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        -9_i128..9,
        (-9_i128..9).prop_map(|whole| whole * 10_i128.pow(18)),
        (0_i128..9).prop_map(|below| Value::LIMIT - 1 - below),
        (0_i128..9).prop_map(|above| 1 - Value::LIMIT + above),
        1 - Value::LIMIT..Value::LIMIT,
    ]
    .prop_map(|units| Value::from_units(units).unwrap())
}

fn wide<const N: usize>() -> impl Strategy<Value = Wide<N>> {
    (
        prop::array::uniform::<_, N>(any::<u64>()),
        0_u32..64 * N as u32,
        any::<bool>(),
    )
        .prop_map(|(limbs, bits, is_negative)| {
            let mut limbs = limbs;
            for (index, limb) in limbs.iter_mut().enumerate() {
                let left = bits.saturating_sub(64 * index as u32);
                *limb &= if left >= 64 { u64::MAX } else { (1 << left) - 1 };
            }
            let wide = Wide::from_limbs(limbs);
            if is_negative { wide.negated() } else { wide }
        })
}

/// A partial that claims anything: sums and squares of every length, at their bounds, and as values have them.
fn claims() -> impl Strategy<Value = Stats> {
    let end = || {
        (-9_i64..9, value()).prop_map(|(at, value)| End {
            at: Timestamp::clamped(PANE + at),
            value,
        })
    };
    (
        readings(),
        wide::<3>(),
        wide::<5>(),
        [value(), value()],
        [end(), end()],
        0_u8..8,
    )
        .prop_map(|(count, sum, squares, [min, max], [first, last], honest)| {
            let limit = Wide::<5>::from_i128(Value::LIMIT);
            let mut stats = Stats {
                count,
                sum,
                squares,
                min: min.units(),
                max: max.units(),
                first,
                last,
            };
            if honest & 1 > 0 {
                let total = Wide::from_u128(min.units().unsigned_abs()).times(count);
                stats.sum = if min.units() < 0 { total.negated() } else { total };
            }
            if honest & 2 > 0 {
                stats.squares = limit.product(&limit).times(count);
            }
            if honest & 4 > 0 {
                (stats.min, stats.max) = (stats.min.min(stats.max), stats.min.max(stats.max));
                (stats.first, stats.last) = (stats.first.min(stats.last), stats.first.max(stats.last));
            }
            stats
        })
}

/// Sections of one key whose partials claim anything, as bytes. Together with a row that has no narrow form, all of
/// their partials are in the wide form, which takes any.
fn claimed() -> impl Strategy<Value = Vec<Section>> {
    let rows = prop::collection::vec((readings(), claims()), 1..8);
    (components(), rows).prop_map(|(keep, rows)| {
        let section = |(readings, claims): (u64, Stats)| {
            let mut section = Section::default();
            section.reset(PipelineId(7), Timestamp::clamped(PANE), core::iter::once(keep));
            let mut odd = Stats::IDENTITY;
            for (at, units) in [(0, Value::LIMIT - 1), (1, 1 - Value::LIMIT), (2, 1), (3, 7)] {
                odd.lift(
                    keep,
                    Timestamp::clamped(PANE + at),
                    Value::from_units(units).unwrap(),
                );
            }
            let mut kept = Stats {
                count: claims.count,
                ..Stats::IDENTITY
            };
            if keep.contains(Components::SUM) {
                kept.sum = claims.sum;
            }
            if keep.contains(Components::SQUARES) {
                kept.squares = claims.squares;
            }
            if keep.contains(Components::EXTREMA) {
                (kept.min, kept.max) = (claims.min, claims.max);
            }
            if keep.contains(Components::ENDS) {
                (kept.first, kept.last) = (claims.first, claims.last);
            }
            for (key, readings, stats) in [(b"a", readings.max(claims.count), kept), (b"b", 4, odd)] {
                section.keys.push(key);
                section.readings.push(readings);
                section.stats.push(stats);
            }
            section
        };
        rows.into_iter().map(section).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn mergers_of_claims_are_read_again(sections in claimed()) {
        let sections: Vec<Section> = sections.iter().filter_map(|section| accepted(&emitted(section))).collect();
        check(&sections)?;
    }
}

proptest! {
    /// The same for every kind of sketch, for sections that were damaged.
    #[test]
    fn mergers_of_damaged_sections_are_read_again(
        section in sketched(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
    ) {
        let bytes = emitted(&section);
        let mut sections = alloc::vec![section];
        for (at, bits) in damage {
            let mut damaged = bytes.clone();
            damaged[at.index(bytes.len())] ^= bits;
            sections.extend(accepted(&damaged));
        }
        check(&sections)?;
    }
}

/// Two deltas of a hundred bytes each made a pane that the centre wrote and could not read again.
#[test]
fn as_many_readings_as_a_delta_may_have_can_be_merged() {
    let mut section = Section::default();
    section.reset(
        PipelineId(1),
        Timestamp::clamped(PANE),
        core::iter::once(Components::COUNT),
    );
    section.keys.push(b"key");
    section.readings.push(DELTA_READINGS_MAX);
    section.stats.push(Stats {
        count: DELTA_READINGS_MAX,
        ..Stats::IDENTITY
    });
    let section = accepted(&emitted(&section)).expect("a peer may claim that");
    check(&[section.clone(), section]).unwrap();
}

/// One reading whose square is claimed to have 281 bits, and an end below the smallest value: the first is too much for
/// one value, the second would be far above it in the narrow form.
#[test]
fn claims_that_no_values_have_are_refused() {
    let keep = Components::STATS | Components::ENDS;
    let units = |units: i128| Value::from_units(units).unwrap();
    let section = |change: fn(&mut Stats)| {
        let mut section = Section::default();
        section.reset(PipelineId(1), Timestamp::clamped(PANE), core::iter::once(keep));
        let (mut odd, mut stats) = (Stats::IDENTITY, Stats::IDENTITY);
        for at in 0..2 {
            odd.lift(keep, Timestamp::clamped(PANE), units(Value::LIMIT - 1 - at));
            stats.lift(keep, Timestamp::clamped(PANE), units(5 + at));
        }
        change(&mut stats);
        for (key, stats) in [(b"a", stats), (b"b", odd)] {
            section.keys.push(key);
            section.readings.push(2);
            section.stats.push(stats);
        }
        accepted(&emitted(&section)).is_some()
    };
    assert!(section(|_| ()));
    assert!(!section(
        |stats| stats.squares = Wide::from_limbs([u64::MAX, u64::MAX, u64::MAX, u64::MAX, 1 << 24])
    ));
    assert!(!section(|stats| stats.first.value = Value::ZERO));
    assert!(!section(|stats| stats.last.value = Value::from_units(7).unwrap()));
    assert!(!section(|stats| stats.sum = Wide::from_u128(13)));
    assert!(!section(|stats| stats.sum = Wide::from_limbs([0, 0, 1 << 63])));
    assert!(!section(
        |stats| stats.squares = Wide::from_limbs([0, 0, 0, 0, 1 << 63])
    ));
}

#[test]
fn every_kind_of_sketch_is_drawn() {
    assert_eq!(KINDS.len(), 6, "a kind more must stand in KINDS");
}
