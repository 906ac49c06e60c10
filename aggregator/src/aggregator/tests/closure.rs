//! What a peer may send can be merged, stored and read again; and what cannot be read again stops nothing.

use catchment_common::limits::{DELTA_READINGS_MAX, PANE_READINGS_MAX, SERIES_POINTS_MAX};
use catchment_common::number::decimal::Value;
use catchment_common::plan::{Aggregate, FieldKind, Pipeline};
use catchment_common::sketch::{Series, SeriesPoint, Sketch};
use catchment_common::stats::Stats;
use catchment_common::wire::{BatchWriter, Section};
use proptest::prelude::*;

use super::*;
use crate::commit::{SetAside, Unreadable};

/// A query that keeps every component of its field.
fn everything() -> Query {
    Query {
        aggregates: Aggregate::ALL.to_vec(),
        ..query("q", 10, 10)
    }
}

/// A batch of one section of the first pipeline, with rows as `fill` makes them.
fn batch_with(pipeline: &Pipeline, seq: u64, fill: impl FnOnce(&mut Section)) -> Vec<u8> {
    let mut section = Section::default();
    let kept = pipeline.fields.iter().map(|field| field.components);
    section.reset(PIPELINE, at(100), kept);
    section.set_sketches(pipeline.sketch_kinds());
    fill(&mut section);
    let mut writer = BatchWriter::default();
    writer.push(&section);
    let mut frame = Vec::new();
    writer.seal(1, seq, &mut frame);
    frame
}

fn pipeline(world: &World) -> Pipeline {
    world.aggregator.catalog().pipelines[&world.id(PIPELINE)].clone()
}

/// One key with this many readings, none of which has the field.
fn without_values(pipeline: &Pipeline, seq: u64, readings: u64) -> Vec<u8> {
    batch_with(pipeline, seq, |section| {
        section.keys.push(b"x");
        section.readings.push(readings);
        section.stats.push(Stats::IDENTITY);
        let empty = section.sketch_kinds.iter().map(|kind| kind.empty());
        section.sketches.extend(empty);
    })
}

/// A machine with the same plan that starts from what the other has stored.
fn restarted(world: &World) -> (Aggregator, Vec<SetAside>) {
    let settings = world.aggregator.settings;
    let mut again = Aggregator::new(settings, DATABASE, world.aggregator.catalog().clone(), now(90));
    for ((pipeline, pane, number), columns) in world.chunks.all.borrow().iter() {
        let chunk = StoredChunk {
            number: *number,
            columns: columns.clone(),
        };
        again.restore_chunk(*pipeline, *pane, &chunk);
    }
    let set_aside = again.panes.take_set_aside();
    (again, set_aside)
}

/// Keys with their readings, partials and sketches.
type Held = BTreeMap<(Timestamp, Vec<u8>), (u64, Vec<Stats>, Vec<Sketch>)>;

fn held(aggregator: &Aggregator) -> Held {
    let pipeline = aggregator
        .panes
        .pipeline(aggregator.catalog().resolve(PIPELINE).unwrap());
    let panes = pipeline
        .into_iter()
        .flat_map(|pipeline| pipeline.range(..).map(move |pane| (pipeline, pane)));
    let rows = panes.flat_map(|(pipeline, (start, pane))| {
        pane.ids().iter().map(move |&id| {
            let (readings, stats) = pane.row(id).unwrap();
            let sketches = pane.sketches(id).to_vec();
            (
                (start, pipeline.key(id).to_vec()),
                (readings, stats.to_vec(), sketches),
            )
        })
    });
    rows.collect()
}

/// What is in memory is what a start would find.
fn check_restart(world: &World) {
    let (again, set_aside) = restarted(world);
    assert_eq!(set_aside, []);
    assert_eq!(held(&again), held(&world.aggregator));
}

fn rejected(world: &World) -> Vec<(u64, RejectReason)> {
    let reason = |sent: &(ConnectionId, Transmit)| match sent {
        (_, Transmit::Message(Message::Reject(refusal))) => Some((refusal.seq, refusal.reason)),
        _ => None,
    };
    world.sent.iter().filter_map(reason).collect()
}

/// Two batches of a hundred bytes each, with as many readings as a delta may have, and the centre never started again.
#[test]
fn readings_up_to_the_bound_are_stored_and_come_back() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    let pipeline = pipeline(&world);
    for seq in 1..=2 {
        world
            .frame(1, 1, without_values(&pipeline, seq, DELTA_READINGS_MAX))
            .unwrap();
    }
    world.settle(1);
    world.settle(20);
    assert_eq!(world.acked(), [(1, 1, 2)]);
    assert_eq!(world.chunks.all.borrow().len(), 1);
    check_restart(&world);
}

#[test]
fn readings_beyond_the_bound_are_refused_before_any_is_merged() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    let pipeline = pipeline(&world);
    let most = PANE_READINGS_MAX / DELTA_READINGS_MAX;
    for seq in 1..=most + 1 {
        world
            .frame(1, 1, without_values(&pipeline, seq, DELTA_READINGS_MAX))
            .unwrap();
    }
    // Another key of the same pane has room.
    world.frame(1, 1, batch(most + 2, 100, &[("y", &[7])])).unwrap();
    world.settle(1);
    world.settle(20);
    assert_eq!(rejected(&world), [(most + 1, RejectReason::TooManyReadings)]);
    let held = held(&world.aggregator);
    let readings: Vec<u64> = held.values().map(|row| row.0).collect();
    assert_eq!(readings, [PANE_READINGS_MAX, 1]);
    check_restart(&world);
}

#[test]
fn sections_of_one_batch_count_together() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    let mut section = Section::default();
    section.reset(
        PIPELINE,
        at(100),
        pipeline(&world).fields.iter().map(|field| field.components),
    );
    section.keys.push(b"x");
    section.readings.push(DELTA_READINGS_MAX);
    section.stats.push(Stats::IDENTITY);
    let mut writer = BatchWriter::default();
    for _ in 0..=PANE_READINGS_MAX / DELTA_READINGS_MAX {
        writer.push(&section);
    }
    let mut frame = Vec::new();
    writer.seal(1, 1, &mut frame);
    world.frame(1, 1, frame).unwrap();
    world.settle(1);
    assert_eq!(rejected(&world), [(1, RejectReason::TooManyReadings)]);
    assert!(held(&world.aggregator).is_empty());
}

/// A meter's points, as a key of a section.
fn push_points(section: &mut Section, key: &str, points: std::ops::Range<usize>) {
    section.keys.push(key.as_bytes());
    section.readings.push(points.len() as u64);
    section.stats.push(Stats {
        count: points.len() as u64,
        ..Stats::IDENTITY
    });
    let points = points.map(|index| SeriesPoint {
        at: at(100).plus(Span::from_micros(index as i64)),
        value: Value::ZERO,
    });
    section
        .sketches
        .push(Sketch::Series(Series::from_unsorted(points.collect())));
}

/// A series with too many points keeps none: the pane had three chunks and now has one. Were the other two left, their
/// keys would be counted twice after the next start.
#[test]
fn a_pane_that_shrinks_leaves_no_chunk_behind() {
    let mut meter = query("q", 10, 10);
    meter.fields[0].kind = FieldKind::COUNTER;
    meter.aggregates = vec![Aggregate::Increase];
    let mut world = World::new(vec![meter]);
    world.greet(1, "a", Vec::new());
    let pipeline = pipeline(&world);
    let points = |seq, points: std::ops::Range<usize>| {
        batch_with(&pipeline, seq, |section| {
            for key in ["a", "b", "c", "d", "e"] {
                push_points(section, key, points.clone());
            }
        })
    };
    world.frame(1, 1, points(1, 0..SERIES_POINTS_MAX)).unwrap();
    world.settle(1);
    world.settle(20);
    assert!(world.chunks.all.borrow().len() > 1);
    let stale: Vec<_> = world
        .chunks
        .all
        .borrow()
        .iter()
        .map(|(name, columns)| (*name, columns.clone()))
        .collect();
    world
        .frame(30, 1, points(2, SERIES_POINTS_MAX..SERIES_POINTS_MAX + 1))
        .unwrap();
    world.settle(30);
    world.settle(50);
    assert_eq!(world.chunks.all.borrow().len(), 1);
    check_restart(&world);
    // A database in which they were left: they are recognised.
    world.chunks.all.borrow_mut().extend(stale.into_iter().skip(1));
    let (again, set_aside) = restarted(&world);
    assert_eq!(held(&again), held(&world.aggregator));
    assert!(!set_aside.is_empty());
    for aside in set_aside {
        assert_eq!(aside.reason, "its keys stand in an earlier chunk of the pane");
    }
}

#[test]
fn a_chunk_that_cannot_be_read_is_set_aside_and_the_rest_goes_on() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    world.frame(1, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    world.frame(1, 1, batch(2, 110, &[("x", &[2])])).unwrap();
    world.heartbeat(1, 1, 2, 1_000);
    world.settle(1);
    world.settle(20);
    world.settle(40);
    assert_eq!(held(&world.aggregator).len(), 0, "the panes have left memory");
    for columns in world.chunks.all.borrow_mut().values_mut().take(1) {
        columns.truncate(3);
    }
    let damaged = SetAside {
        what: Unreadable::Chunk {
            pipeline: world.id(PIPELINE),
            pane: at(100),
            end: at(110),
            number: 0,
        },
        reason: "the frame ends too early".into(),
    };
    let (again, set_aside) = restarted(&world);
    assert_eq!(held(&again).len(), 1, "the other pane is there");
    assert_eq!(set_aside, std::slice::from_ref(&damaged));
    // A late reading beside what is gone: it is taken, and the next commit says what was found.
    world.frame(41, 1, batch(3, 100, &[("x", &[4])])).unwrap();
    world.settle(41);
    assert_eq!(world.acked().last(), Some(&(1, 3, 3)));
    assert_eq!(world.commits.last().unwrap().set_aside, [damaged]);
    world.check(&[(100, "x", 2, true, 1, 4.0), (110, "x", 1, true, 1, 2.0)]);
}

#[test]
fn an_appended_batch_that_cannot_be_read_is_set_aside_whole() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    let append = |seq, frame: Vec<u8>| AppendedBatch {
        agent: "a".into(),
        epoch: 1,
        seq,
        frame: frame.into(),
    };
    let mut damaged = batch(1, 100, &[("x", &[1])]);
    damaged[20] ^= 1;
    // Its first section is right, its second is of no pipeline.
    let mut writer = BatchWriter::default();
    let mut section = Section::default();
    for id in [PIPELINE, PipelineId(77)] {
        section.reset(
            id,
            at(100),
            pipeline(&world).fields.iter().map(|field| field.components),
        );
        section.keys.push(b"x");
        section.readings.push(1);
        section.stats.push(Stats::IDENTITY);
        writer.push(&section);
    }
    let mut half = Vec::new();
    writer.seal(1, 2, &mut half);
    for batch in [
        append(1, damaged),
        append(2, half),
        append(3, batch(3, 100, &[("x", &[4])])),
    ] {
        world.aggregator.replay(&batch, &NoPanes).unwrap();
    }
    let readings: Vec<u64> = held(&world.aggregator).values().map(|row| row.0).collect();
    assert_eq!(readings, [1], "nothing of the second batch");
    world.settle(20);
    let named = |seq| Unreadable::Batch {
        agent: "a".into(),
        epoch: 1,
        seq,
    };
    let set_aside: Vec<Unreadable> = world.commits[0]
        .set_aside
        .iter()
        .map(|aside| aside.what.clone())
        .collect();
    assert_eq!(set_aside, [named(1), named(2)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Batches with damage inside and a right checksum, as a hostile peer sends them: whatever is taken of them is stored
    /// and comes back as it was.
    #[test]
    fn whatever_is_taken_comes_back(
        rows in prop::collection::vec((0_u8..4, prop::collection::vec(-1_000_i128..1_000, 1..40)), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..60),
    ) {
        let mut world = World::new(vec![everything()]);
        world.greet(1, "a", Vec::new());
        let pipeline = pipeline(&world);
        let rows: BTreeMap<u8, Vec<i128>> = rows.into_iter().collect();
        let whole = |seq| batch_with(&pipeline, seq, |section| {
            for (key, values) in &rows {
                section.keys.push(&[b'a' + key]);
                section.readings.push(values.len() as u64);
                let mut stats = Stats::IDENTITY;
                for (nth, value) in values.iter().enumerate() {
                    let value = Value::from_units(value * 10_i128.pow(16)).unwrap();
                    stats.lift(section.keep[0], at(100).plus(Span::from_micros(nth as i64)), value);
                }
                section.stats.push(stats);
                let empty: Vec<Sketch> = section.sketch_kinds.iter().map(|kind| kind.empty()).collect();
                section.sketches.extend(empty);
            }
        });
        world.frame(1, 1, whole(1)).unwrap();
        for (seq, (at, bits)) in (2..).zip(damage) {
            let mut frame = whole(seq);
            frame.truncate(frame.len() - 4);
            let at = at.index(frame.len() - 12) + 12;
            frame[at] ^= bits;
            let crc = wire::checksum(&frame);
            frame.extend_from_slice(&crc.to_le_bytes());
            world.frame(1, 1, frame).unwrap();
        }
        world.settle(1);
        world.settle(20);
        check_restart(&world);
    }
}
