//! Round trips of random sections, the bytes that they take, and what damaged bytes get.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::decimal::Value;
use crate::plan::{Components, SliceId};
use crate::stats::Stats;
use crate::time::Timestamp;

const PANE: i64 = 1_700_000_000_000_000;

/// What one delta is made of: per field, readings as (offset in µs, units).
type Row = Vec<Vec<(i64, i128)>>;

fn section(keep: &[Components], rows: &[(Vec<u8>, Row)]) -> Section {
    let mut section = Section::default();
    section.reset(SliceId(7), Timestamp::clamped(PANE), keep.iter().copied());
    for (key, row) in rows {
        section.keys.push(key);
        let most = row.iter().map(Vec::len).max().unwrap_or(0) as u64;
        section.readings.push(most + 1);
        for (&keep, values) in keep.iter().zip(row) {
            let mut stats = Stats::IDENTITY;
            for &(offset, units) in values {
                stats.lift(
                    keep,
                    Timestamp::clamped(PANE + offset),
                    Value::from_units(units).unwrap(),
                );
            }
            section.stats.push(stats);
        }
    }
    section
}

fn frame(sections: &[Section]) -> Vec<u8> {
    let mut writer = BatchWriter::default();
    for section in sections {
        writer.push(section);
    }
    let mut frame = Vec::new();
    writer.seal(0x0123_4567_89ab_cdef, 42, &mut frame);
    frame
}

fn read(frame: &[u8]) -> Result<Vec<Section>, WireFault> {
    let batch = Batch::parse(frame)?;
    let mut scratch = StatsScratch::default();
    batch
        .sections()
        .map(|view| {
            let mut section = Section::default();
            view?.read(&mut section, &mut scratch)?;
            Ok(section)
        })
        .collect()
}

fn components() -> impl Strategy<Value = Components> {
    (0_u8..16).prop_filter_map("squares need the sum", |bits| {
        let keep = Components::from_bits(bits)?;
        let whole = !keep.contains(Components::SQUARES) || keep.contains(Components::SUM);
        whole.then_some(keep)
    })
}

/// Sensor-like values, huge ones, and ones with all digits.
fn units() -> impl Strategy<Value = i128> {
    prop_oneof![
        4 => (-5_000_i128..5_000).prop_map(|hundredths| hundredths * 10_i128.pow(16)),
        1 => -Value::LIMIT + 1..Value::LIMIT,
        1 => Just(0),
    ]
}

fn sections() -> impl Strategy<Value = Section> {
    prop::collection::vec(components(), 0..4).prop_flat_map(|keep| {
        let values = prop::collection::vec((0_i64..10_000_000, units()), 0..6);
        let row = prop::collection::vec(values, keep.len());
        let rows = prop::collection::btree_map(prop::collection::vec(97_u8..123, 0..12), row, 1..100);
        (Just(keep), rows).prop_map(|(keep, rows)| section(&keep, &rows.into_iter().collect::<Vec<_>>()))
    })
}

proptest! {
    #[test]
    fn batches_round_trip(sections in prop::collection::vec(sections(), 0..3)) {
        let frame = frame(&sections);
        prop_assert_eq!(Batch::claimed_name(&frame), Some((0x0123_4567_89ab_cdef, 42)));
        prop_assert_eq!(read(&frame), Ok(sections));
    }

    /// Damage inside a section, with the checksum made right again: refused or read, never a panic, and what is read
    /// can be merged and lowered without one.
    #[test]
    fn damaged_sections_are_refused_or_harmless(
        section in sections(), at in any::<prop::sample::Index>(), bits in 1_u8..=255, cut in 0_usize..4,
    ) {
        let mut frame = frame(&[section]);
        frame.truncate(frame.len() - 4 - cut);
        let at = at.index(frame.len());
        frame[at] ^= bits;
        let crc = checksum(&frame);
        frame.extend_from_slice(&crc.to_le_bytes());
        for section in read(&frame).unwrap_or_default() {
            let mut all = Stats::IDENTITY;
            for (stats, keep) in section.stats.iter().zip(section.keep.iter().cycle()) {
                all.merge(stats);
                let variance = stats.lower(crate::plan::Aggregate::Variance, crate::time::Span::from_secs(1));
                let is_negative = matches!(variance, Some(crate::stats::Lowered::Real(variance)) if variance < 0.0);
                prop_assert!(!is_negative || !keep.contains(Components::SQUARES));
            }
            for stats in section.stats.iter().chain([&all]) {
                for aggregate in crate::plan::Aggregate::ALL {
                    let _ = stats.lower(aggregate, crate::time::Span::from_secs(1));
                }
            }
        }
    }

    #[test]
    fn random_frames_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..10) {
        let mut frame = alloc::vec![kind, VERSION];
        frame.extend(bytes);
        let _ = Message::parse(&frame);
        let _ = read(&frame);
    }
}

/// A sensor that shows nothing, or next to nothing, a thousand times in a pane is as good as any.
#[test]
fn many_readings_at_the_finest_scale_round_trip() {
    for units in [0, 1, -7] {
        let values = (0..1_000).map(|at| (at, units)).collect();
        let section = section(&[Components::STATS], &[(b"a".to_vec(), alloc::vec![values])]);
        assert_eq!(
            read(&frame(core::slice::from_ref(&section))),
            Ok(alloc::vec![section])
        );
    }
}

/// A peer may send any sums; those that no values have are refused, in the narrow form and in the wide one.
#[test]
fn a_negative_variance_is_refused() {
    for unit in [10_i128.pow(16), 10_i128.pow(35) + 1] {
        let values = alloc::vec![(0, 0), (1, unit)];
        let mut section = section(&[Components::STATS], &[(b"a".to_vec(), alloc::vec![values])]);
        assert!(read(&frame(core::slice::from_ref(&section))).is_ok());
        section.stats[0].squares = crate::stats::Squares::ZERO;
        assert_eq!(read(&frame(&[section])), Err(WireFault::Invalid("partial")));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let rows = [(
        b"berlin\0dev-1".to_vec(),
        alloc::vec![alloc::vec![(5, 10_i128.pow(18))]],
    )];
    let whole = frame(&[section(&[Components::STATS], &rows)]);
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&damaged).is_err(), "bit {bit}");
    }
    for length in 0..whole.len() {
        assert!(read(&whole[..length]).is_err(), "length {length}");
    }
}

/// The target of DESIGN section 12: 1,000 keys, 10 readings each, count/mean/stddev/min/max, resolution 0.01.
#[test]
fn a_sensor_partial_takes_few_bytes() {
    let mut seed = 1_u64;
    let mut noise = move || {
        // Sum of uniform numbers: near enough to a Gaussian of 5 steps.
        (0..12).fold(0, |sum, _| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            sum + (seed >> 33) as i128 % 18 - 8
        }) / 3
    };
    let keep = Components::SUM | Components::SQUARES | Components::EXTREMA;
    let rows: Vec<_> = (0..1_000)
        .map(|device| {
            let level = 2_100 + noise() * 20;
            let values = (0..10)
                .map(|second| (second * 1_000_000, (level + noise()) * 10_i128.pow(16)))
                .collect();
            (
                alloc::format!("berlin\0dev-{device:04}").into_bytes(),
                alloc::vec![values],
            )
        })
        .collect();
    let bytes = frame(&[section(&[keep], &rows)]).len();
    assert!(bytes <= 6_200, "{bytes} bytes for 1,000 partials");
}

#[test]
fn messages_round_trip_and_are_bounded() {
    let ranges = alloc::vec![SeqRange { first: 1, last: 4 }, SeqRange { first: 6, last: 6 }];
    let epochs = alloc::vec![EpochRange { epoch: 9, ranges }];
    let now = Timestamp::clamped(PANE);
    let messages = [
        Message::Hello(Hello {
            agent: "gw-17".into(),
            software: "catchment-agent 0.1.0".into(),
            epoch: 9,
            plan_version: 3,
            held: epochs.clone(),
        }),
        Message::Welcome(Welcome {
            plan: Some(AgentPlan::default()),
            committed: epochs.clone(),
            server_time: now,
            heartbeat: crate::time::Span::from_secs(1),
        }),
        Message::Ack(epochs[0].clone()),
        Message::Reject(Refusal {
            epoch: 9,
            seq: 5,
            reason: RejectReason::BadPane,
        }),
        Message::Plan(AgentPlan::default()),
        Message::Drain,
        Message::Heartbeat(Heartbeat {
            epoch: 9,
            seq: 7,
            oldest: 6,
            watermarks: alloc::vec![(SliceId(1), now)],
            counters: alloc::vec![CounterSample {
                slice: SliceId(0),
                counter: 1,
                value: 2
            }],
            backlog_batches: 1,
            backlog_bytes: 2,
        }),
    ];
    for message in messages {
        let mut frame = message.emit();
        assert_eq!(Message::parse(&frame), Ok(message));
        frame.push(0);
        assert_eq!(Message::parse(&frame), Err(WireFault::Trailing));
        frame[1] = 9;
        assert_eq!(Message::parse(&frame), Err(WireFault::Version(9)));
    }
    let backwards = alloc::vec![SeqRange { first: 4, last: 1 }];
    let ack = Message::Ack(EpochRange {
        epoch: 9,
        ranges: backwards,
    });
    assert_eq!(
        Message::parse(&ack.emit()),
        Err(WireFault::Invalid("seq ranges do not ascend"))
    );
}
