//! Round trips of random sections, the bytes that they take, and what damaged bytes get.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::limits::{BUCKETS_MAX, SERIES_POINTS_MAX};
use crate::number::decimal::Value;
use crate::plan::{Components, CounterRules, PipelineId};
use crate::sketch::{Course, Series, Shape, Sketch, SketchKind, empty_row, hash, logarithm, merge_rows};
use crate::stats::{End, Stats};
use crate::time::Timestamp;
use crate::wire::lineage::{Ancestor, DatabaseId, Forked, Lineage};

mod closure;

const PANE: i64 = 1_700_000_000_000_000;

/// What one delta is made of: per field, readings as (offset in µs, units).
type Row = Vec<Vec<(i64, i128)>>;

fn section(keep: &[Components], rows: &[(Vec<u8>, Row)]) -> Section {
    let mut section = Section::default();
    section.reset(PipelineId(7), Timestamp::clamped(PANE), keep.iter().copied());
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

#[test]
fn readings_before_the_pane_stay_narrow() {
    // The number of a window is an instant of the agent's clock, and its readings are mostly a little older.
    let keep = Components::STATS | Components::ENDS;
    let row = |offsets: [i64; 2]| alloc::vec![offsets.map(|offset| (offset, 21 * 10_i128.pow(18))).to_vec()];
    let key = b"a".to_vec();
    for (offsets, most) in [
        ([-1_250_000, -250_000], 72),
        ([-3_600_000_000, 7_000_000], 74),
        ([-1, 1], 70),
    ] {
        let section = section(&[keep], &[(key.clone(), row(offsets))]);
        let frame = frame(core::slice::from_ref(&section));
        assert!(frame.len() <= most, "{offsets:?}: {} bytes", frame.len());
        assert_eq!(read(&frame).unwrap(), [section]);
    }
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

/// Sketches of every kind on top: for each row some numbers, lifted into each.
fn sketched() -> impl Strategy<Value = Section> {
    let numbers = prop::collection::vec(prop_oneof![4 => -200_i64..200, 1 => any::<i64>()], 0..60);
    (sections(), prop::collection::vec(numbers, 100)).prop_map(|(mut section, numbers)| {
        section.set_sketches(KINDS.into_iter());
        for (row, numbers) in (0..section.rows()).zip(&numbers) {
            section.readings[row] += numbers.len() as u64;
            section.sketches.extend(KINDS.map(|kind| sketch(kind, numbers)));
        }
        section
    })
}

const KINDS: [SketchKind; 6] = [
    SketchKind::Buckets(Shape::Linear),
    SketchKind::Buckets(Shape::Log),
    SketchKind::Buckets(Shape::Intervals(3)),
    SketchKind::Distinct,
    SketchKind::Top,
    SketchKind::Series,
];

/// A point of a sensor, or one far off in time and value.
fn points(number: i64) -> Series {
    let (at, units) = if (-200..200).contains(&number) {
        (PANE + number.abs() * 1_000, i128::from(number) * 10_i128.pow(16))
    } else {
        (number % (1 << 50), i128::from(number) * 1_000_003)
    };
    Series::from_unsorted(alloc::vec![End {
        at: Timestamp::clamped(at),
        value: Value::from_units(units).unwrap(),
    }])
}

fn sketch(kind: SketchKind, numbers: &[i64]) -> Sketch {
    let mut sketch = kind.empty();
    for number in numbers {
        match (&mut sketch, kind) {
            (Sketch::Buckets(buckets), SketchKind::Buckets(shape)) => {
                let lifted = match shape {
                    Shape::Linear => {
                        let level = u8::from(!(-1 << 62..1 << 62).contains(number));
                        (level, number >> level)
                    }
                    Shape::Log => (0, logarithm::bucket_of(i128::from(*number))),
                    Shape::Intervals(count) => (0, number.rem_euclid(i64::from(count))),
                };
                buckets.lift(shape, lifted);
            }
            (Sketch::Distinct(registers), _) => registers.lift(hash(&number.to_le_bytes())),
            (Sketch::Series(series), _) => series.merge(&points(*number)),
            (Sketch::Top(counters), _) => counters.lift(alloc::format!("v{number}").as_bytes()),
            _ => unreachable!("the sketch is of its kind"),
        }
    }
    sketch
}

proptest! {
    #[test]
    fn sketches_round_trip(section in sketched()) {
        prop_assert_eq!(read(&frame(core::slice::from_ref(&section))), Ok(alloc::vec![section]));
    }

    /// As below, for sketches: what is read can be merged and stays in bounds.
    #[test]
    fn damaged_sketches_are_refused_or_harmless(
        section in sketched(), at in any::<prop::sample::Index>(), bits in 1_u8..=255, cut in 0_usize..4,
    ) {
        let mut frame = frame(&[section]);
        frame.truncate(frame.len() - 4 - cut);
        let at = at.index(frame.len());
        frame[at] ^= bits;
        let crc = checksum(&frame);
        frame.extend_from_slice(&crc.to_le_bytes());
        for section in read(&frame).unwrap_or_default() {
            let mut all = empty_row(section.sketch_kinds.iter().copied());
            for row in 0..section.rows() {
                merge_rows(&mut all, section.sketch_row(row), section.sketch_kinds.iter().copied());
            }
            for (sketch, kind) in all.iter().zip(&section.sketch_kinds) {
                if let (Sketch::Buckets(buckets), SketchKind::Buckets(shape)) = (sketch, kind) {
                    prop_assert!(buckets.entries.len() <= BUCKETS_MAX);
                    let values = buckets.entries.iter().map(|entry| buckets.value(*shape, entry.0, 1));
                    prop_assert!(values.max() <= Some(Value::LIMIT));
                }
                if let Sketch::Series(series) = sketch {
                    prop_assert!(series.points().len() <= SERIES_POINTS_MAX);
                    prop_assert!(Course::through(alloc::vec![series], CounterRules::default(), None).is_none_or(|course| course.increase() >= 0.0));
                }
                if let Sketch::Distinct(registers) = sketch {
                    prop_assert!(registers.estimate() >= 0.0);
                }
            }
        }
    }

    #[test]
    fn batches_round_trip(sections in prop::collection::vec(sections(), 0..3)) {
        let frame = frame(&sections);
        prop_assert_eq!(claimed_name(&frame), Some((0x0123_4567_89ab_cdef, 42)));
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
                let variance = stats.lower(&crate::plan::Aggregate::Variance, crate::time::Span::from_secs(1));
                let is_negative = matches!(variance, Some(crate::stats::Lowered::Real(variance)) if variance < 0.0);
                prop_assert!(!is_negative || !keep.contains(Components::SQUARES));
            }
            for stats in section.stats.iter().chain([&all]) {
                for aggregate in crate::plan::Aggregate::ALL {
                    let _ = stats.lower(&aggregate, crate::time::Span::from_secs(1));
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
        let _ = Loss::parse(&frame);
        let _ = claimed_name(&frame);
        frame.truncate(frame.len().saturating_sub(4));
        let crc = checksum(&frame);
        frame.extend_from_slice(&crc.to_le_bytes());
        let _ = read(&frame);
        let _ = Loss::parse(&frame);
    }

    #[test]
    fn losses_round_trip(entries in prop::collection::vec((any::<u64>(), -1_i64 << 50..1 << 50, 1_i64..1 << 40, any::<u64>()), 0..20)) {
        let loss = loss(7, &entries);
        let frame = loss.emit();
        prop_assert!(Loss::is_loss(&frame) && named(&frame));
        prop_assert_eq!(claimed_name(&frame), Some((7, 42)));
        prop_assert_eq!(Loss::parse(&frame), Ok(loss));
        prop_assert!(Batch::parse(&frame).is_err());
    }

    #[test]
    fn a_renamed_frame_is_the_frame_sealed_under_the_other_name(section in sections(), epoch in any::<u64>(), seq in any::<u64>()) {
        let frame = frame(core::slice::from_ref(&section));
        let mut writer = BatchWriter::default();
        writer.push(&section);
        let (mut other, mut renamed) = (Vec::new(), alloc::vec![1, 2]);
        writer.seal(epoch, seq, &mut other);
        prop_assert_eq!(rename(&frame, epoch, seq, &mut renamed), Ok(()));
        prop_assert_eq!(&renamed[2..], &other[..]);
        let mut back = Vec::new();
        prop_assert_eq!(rename(&other, 0x0123_4567_89ab_cdef, 42, &mut back), Ok(()));
        prop_assert_eq!(back, frame);
    }
}

fn loss(epoch: u64, entries: &[(u64, i64, i64, u64)]) -> Loss {
    Loss {
        epoch,
        seq: 42,
        entries: entries
            .iter()
            .map(|&(pipeline, from, length, readings)| LossEntry {
                pipeline: PipelineId(pipeline),
                from: Timestamp::clamped(from),
                to: Timestamp::clamped(from + length),
                readings,
            })
            .collect(),
    }
}

#[test]
fn a_damaged_frame_is_not_renamed() {
    let mut frame = loss(7, &[(1, PANE, 10, 3)]).emit();
    let mut renamed = Vec::new();
    assert_eq!(rename(&frame, 8, 1, &mut renamed), Ok(()));
    assert_eq!(Loss::parse(&renamed).unwrap().epoch, 8);
    for bit in 0..frame.len() * 8 {
        frame[bit / 8] ^= 1 << (bit % 8);
        assert!(rename(&frame, 8, 1, &mut renamed).is_err(), "bit {bit}");
        assert!(Loss::parse(&frame).is_err(), "bit {bit}");
        frame[bit / 8] ^= 1 << (bit % 8);
    }
    assert_eq!(Loss::parse(&renamed).unwrap().seq, 1, "nothing is appended");
    assert_eq!(rename(&[6; 20], 8, 1, &mut renamed), Err(WireFault::Kind(6)));
}

#[test]
fn only_the_spool_reads_frames_without_a_name() {
    let mut writer = BatchWriter::default();
    writer.push(&section(&[], &[(b"x".to_vec(), Vec::new())]));
    let mut frame = Vec::new();
    writer.seal(0, 0, &mut frame);
    assert!(matches!(Batch::parse(&frame), Err(WireFault::Invalid("seq"))));
    assert_eq!(Batch::parse_unsealed(&frame).unwrap().sections().count(), 1);
    let mut last = Vec::new();
    rename(&frame, 7, u64::MAX, &mut last).unwrap();
    assert!(matches!(Batch::parse(&last), Err(WireFault::Invalid("seq"))));
    let mut record = Vec::new();
    rename(&loss(7, &[]).emit(), 0, 0, &mut record).unwrap();
    assert_eq!(Loss::parse(&record), Err(WireFault::Invalid("seq")));
}

#[test]
fn loss_records_are_bounded_and_checked() {
    let bad = |entries: &[u8]| {
        let mut frame = Vec::new();
        super::named::put_head(&mut frame, (9, v1::VERSION), 7, 42);
        frame.extend_from_slice(entries);
        super::named::put_checksum(&mut frame, 0);
        Loss::parse(&frame).unwrap_err()
    };
    assert_eq!(bad(&[0x81, 0x20]), WireFault::TooLong("losses"));
    assert_eq!(
        bad(&[1, 1, 0, 0, 1]),
        WireFault::Invalid("timestamp"),
        "no time at all"
    );
    assert_eq!(bad(&[1, 1, 0, 5]), WireFault::Truncated);
    assert_eq!(bad(&[0, 0]), WireFault::Trailing);
}

fn laddered(rungs: &[(u64, u64, i64)]) -> Result<Message, WireFault> {
    let pipeline = |pane| crate::plan::Pipeline {
        pane: crate::time::Span::from_secs(pane),
        allowed_lateness: crate::time::Span::ZERO,
        max_ahead: crate::time::Span::ZERO,
        idle: crate::time::Span::ZERO,
        ..crate::plan::Pipeline::example()
    };
    let plan = AgentPlan {
        version: 1,
        pipelines: alloc::vec![(PipelineId(1), pipeline(10)), (PipelineId(2), pipeline(60))],
        coarser: rungs
            .iter()
            .map(|&(of, pipeline, pane)| Coarser {
                of: PipelineId(of),
                pipeline: PipelineId(pipeline),
                pane: crate::time::Span::from_secs(pane),
            })
            .collect(),
    };
    // Version 2 has no form for a rung of no pipeline, or one that stands apart from its ladder.
    Message::parse(&v1::emit_message(&Message::Plan(plan)).unwrap())
}

#[test]
fn ladders_ascend_in_multiples() {
    assert!(laddered(&[(1, 3, 60), (1, 4, 600), (2, 5, 120)]).is_ok());
    let width = Err(WireFault::Invalid("coarser pane width"));
    assert_eq!(laddered(&[(1, 3, 10)]), width, "no wider than the pipeline's own");
    assert_eq!(laddered(&[(1, 3, 15)]), width);
    assert_eq!(laddered(&[(1, 3, 60), (1, 4, 60)]), width);
    assert_eq!(
        laddered(&[(1, 3, 60), (1, 4, 90)]),
        width,
        "of the pipeline, not of the rung"
    );
    assert_eq!(laddered(&[(1, 3, 10 * 86_400 * 366)]), width);
    assert_eq!(
        laddered(&[(9, 3, 60)]),
        Err(WireFault::Invalid("coarser pipeline of no pipeline"))
    );
    let twice = Err(WireFault::Invalid("pipeline stands twice"));
    assert_eq!(laddered(&[(1, 2, 60)]), twice);
    assert_eq!(laddered(&[(1, 3, 60), (2, 3, 120)]), twice);
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
            plan: u64::MAX,
            database: Some(DatabaseId(2)),
            lineage: Some(Lineage {
                id: 1,
                generation: 3,
                sealed: 7,
                ancestors: alloc::vec![Ancestor {
                    generation: 2,
                    epoch: u64::MAX,
                    sealed: 300,
                }],
            }),
            held: [None, Some(DatabaseId(2)), Some(DatabaseId(1 << 127))]
                .map(|database| HeldEpoch {
                    batches: epochs[0].clone(),
                    database,
                })
                .to_vec(),
        }),
        Message::Welcome(Welcome {
            database: Some(DatabaseId(2)),
            numbers: alloc::vec![(7, PipelineId(u64::MAX))],
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
            era: 8,
            seq: 7,
            oldest: 6,
            watermarks: alloc::vec![(PipelineId(1), now)],
            counters: alloc::vec![CounterSample {
                pipeline: PipelineId(0),
                counter: 1,
                value: 2
            }],
            backlog_batches: 1,
            backlog_bytes: 2,
            sources: alloc::vec![SourceState {
                name: "plant".into(),
                is_connected: true,
                since: now,
            }],
            clock: Some(ClockState {
                offset: crate::time::Span::from_secs(-7),
                is_trusted: false,
            }),
        }),
        Message::Forked(Forked {
            lineage: 1,
            epoch: u64::MAX,
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

/// What quantiles cost on the wire: a sensor's noise of some steps around a level of its own, each reading rounded.
#[test]
fn histograms_of_sensors_take_few_bytes() {
    for (readings, most) in [(10_u64, 14), (60, 30)] {
        let mut section = Section::default();
        section.reset(PipelineId(1), Timestamp::clamped(PANE), core::iter::empty());
        section.set_sketches([SketchKind::Buckets(Shape::Linear)].into_iter());
        let mut seed = 7_u64;
        let mut entries = 0;
        for key in 0..1_000_i64 {
            let mut buckets = crate::sketch::Buckets::EMPTY;
            for _ in 0..readings {
                // The sum of four dice is bell-shaped: a standard deviation of about six steps.
                let noise = (0..4).fold(0, |sum, _| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    sum + (seed >> 33) as i64 % 11
                });
                buckets.lift(Shape::Linear, (0, 2_000 + key % 37 * 5 + noise));
            }
            entries += buckets.entries.len();
            section.keys.push(alloc::format!("{key:04}").as_bytes());
            section.readings.push(readings);
            section.sketches.push(Sketch::Buckets(buckets));
        }
        let mut with = Vec::new();
        section.emit(0, &mut with, &mut StatsScratch::default());
        section.set_sketches(core::iter::empty());
        section.sketches.clear();
        let mut without = Vec::new();
        section.emit(0, &mut without, &mut StatsScratch::default());
        let bytes = with.len() - without.len();
        assert!(
            bytes <= most * 1_000,
            "{readings} readings: {bytes} bytes for 1,000 histograms of {entries} buckets"
        );
        assert!(
            bytes <= entries,
            "{bytes} bytes for {entries} buckets: less than one each"
        );
    }
}

/// What a series costs on the wire: a meter read every ten seconds, its steps a few units.
#[test]
fn series_of_meters_take_few_bytes() {
    for (readings, most) in [(6_i64, 12), (60, 80)] {
        let mut section = Section::default();
        section.reset(PipelineId(1), Timestamp::clamped(PANE), core::iter::empty());
        section.set_sketches([SketchKind::Series].into_iter());
        let mut seed = 7_u64;
        for key in 0..1_000_i64 {
            let mut meter = 1_000_000 + key * 7_919;
            let points = (0..readings).map(|number| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                meter += (seed >> 33) as i64 % 20;
                End {
                    at: Timestamp::clamped(PANE + (number * 10 + key % 10) * 1_000_000),
                    value: Value::from_units(i128::from(meter) * 10_i128.pow(15)).unwrap(),
                }
            });
            section
                .sketches
                .push(Sketch::Series(Series::from_unsorted(points.collect())));
            section.keys.push(alloc::format!("{key:04}").as_bytes());
            section.readings.push(readings as u64);
        }
        let mut with = Vec::new();
        section.emit(0, &mut with, &mut StatsScratch::default());
        section.set_sketches(core::iter::empty());
        section.sketches.clear();
        let mut without = Vec::new();
        section.emit(0, &mut without, &mut StatsScratch::default());
        let bytes = with.len() - without.len();
        assert!(
            bytes <= most * 1_000,
            "{readings} readings: {bytes} bytes for 1,000 series"
        );
    }
}
