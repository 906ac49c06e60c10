//! The laws of the sketches: any order, any grouping, in the pool or out of it, the same bytes; and their answers.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::pool::{Block, Point, Pool, blocks_to_open};
use super::*;
use crate::limits::{BUCKETS_MAX, SERIES_POINTS_MAX, TOP_VALUES_MAX};
use crate::number::decimal::{ONE, Value};
use crate::plan::CounterRules;
use crate::sketch::pool::Use;
use crate::stats::{End, from_units};
use crate::time::Timestamp;

const CENT: i128 = 10_i128.pow(16);

/// What a reading gives to a sketch.
#[derive(Clone, Debug)]
enum Given {
    Value(i128),
    Tag(Vec<u8>),
    Point(SeriesPoint),
}

fn kinds() -> [SketchKind; 6] {
    [
        SketchKind::Buckets(Shape::Linear),
        SketchKind::Buckets(Shape::Log),
        SketchKind::Buckets(Shape::Intervals(4)),
        SketchKind::Distinct,
        SketchKind::Top,
        SketchKind::Series,
    ]
}

/// Level and bucket of a value.
fn bucket(shape: Shape, units: i128) -> (u8, i64) {
    match shape {
        Shape::Linear => Divider::new(CENT).bucket(Value::from_units(units / CENT * CENT).unwrap()),
        Shape::Log => (0, logarithm::bucket_of(units)),
        Shape::Intervals(_) => (
            0,
            [-CENT, 0, CENT].iter().filter(|bound| **bound <= units).count() as i64,
        ),
    }
}

fn given(kind: SketchKind, number: i128) -> Given {
    match kind {
        SketchKind::Buckets(_) => Given::Value(number),
        SketchKind::Series => Given::Point(SeriesPoint {
            // Some at one time, with other values or the same.
            at: Timestamp::clamped((number.rem_euclid(900) as i64 - 450) * 1_000_003),
            value: Value::from_units(if number % 3 == 0 { number } else { number % 5 }).unwrap(),
        }),
        _ => Given::Tag(alloc::format!("dev-{}", number.rem_euclid(5_000)).into_bytes()),
    }
}

fn lift(kind: SketchKind, sketch: &mut Sketch, given: &Given) {
    match (sketch, kind, given) {
        (Sketch::Buckets(buckets), SketchKind::Buckets(shape), Given::Value(units)) => {
            buckets.lift(shape, bucket(shape, *units));
        }
        (Sketch::Distinct(registers), _, Given::Tag(tag)) => registers.lift(hash(tag)),
        (Sketch::Top(counters), _, Given::Tag(tag)) => counters.lift(tag),
        (Sketch::Series(series), _, Given::Point(point)) => {
            series.merge(&Series::from_unsorted(alloc::vec![*point]));
        }
        _ => unreachable!("given what the kind wants"),
    }
}

fn sketch(kind: SketchKind, all: &[Given]) -> Sketch {
    let mut sketch = kind.empty();
    for given in all {
        lift(kind, &mut sketch, given);
    }
    sketch
}

/// Numbers near each other, far apart, and of every magnitude.
fn numbers() -> impl Strategy<Value = Vec<i128>> {
    let near = prop::collection::vec((-3_000_i128..3_000).prop_map(|cents| cents * CENT), 0..1_500);
    let far = prop::collection::vec(-Value::LIMIT + 1..Value::LIMIT, 0..1_500);
    let any = prop::collection::vec((0_u32..120, any::<i128>()), 0..1_500).prop_map(|all| {
        let number = |(bits, noise): (u32, i128)| noise >> (127 - bits) & !1;
        all.into_iter()
            .map(number)
            .map(|number| number.clamp(-Value::LIMIT + 1, Value::LIMIT - 1))
            .collect()
    });
    prop_oneof![near, far, any]
}

/// The pool as an agent uses it: a partial leaves when there is no room, and its deltas are merged.
struct Agent {
    pool: Pool<Vec<Block>>,
    kind: SketchKind,
    first: u32,
    tags: BTreeMap<Vec<u8>, u32>,
    users: BTreeMap<u32, i64>,
    merged: Sketch,
}

impl Agent {
    fn new(kind: SketchKind, blocks: usize) -> Self {
        let mut pool = Pool::new(alloc::vec![Block::VACANT; blocks]);
        Self {
            first: pool.open(2).unwrap(),
            pool,
            kind,
            tags: BTreeMap::new(),
            users: BTreeMap::new(),
            merged: kind.empty(),
        }
    }

    fn lift(&mut self, given: &Given) {
        if self.pool.vacant() == 0 {
            self.emit_early();
        }
        let mut value = Value::ZERO;
        let (level, key, count) = match given {
            Given::Point(point) => {
                value = point.value;
                (0, point.at.as_micros(), 1)
            }
            Given::Value(units) => {
                let SketchKind::Buckets(shape) = self.kind else {
                    unreachable!()
                };
                let (level, bucket) = bucket(shape, *units);
                (level, bucket, 1)
            }
            Given::Tag(tag) if self.kind == SketchKind::Distinct => {
                let (register, rank) = mark_of(hash(tag));
                (0, i64::from(register), u32::from(rank))
            }
            Given::Tag(tag) => {
                let next = self.tags.len() as u32;
                let number = *self.tags.entry(tag.clone()).or_insert(next);
                let key = hash(tag) & !u64::from(u32::MAX) | u64::from(number);
                (0, key.cast_signed(), 1)
            }
        };
        let point = Point {
            sketch: 1,
            level,
            key,
            count,
            value,
        };
        let Self {
            pool,
            kind,
            first,
            users,
            ..
        } = self;
        pool.lift(*first, *kind, point, &mut |id, change| {
            *users.entry(id).or_default() += if change == Use::Begins { 1 } else { -1 };
        })
        .unwrap();
    }

    fn emit_early(&mut self) {
        let Self {
            pool,
            kind,
            first,
            tags,
            users,
            merged,
        } = self;
        let tags: BTreeMap<u32, &Vec<u8>> = tags.iter().map(|(tag, &id)| (id, tag)).collect();
        pool.close(*first, 2, |place, drained| {
            if place == 0 {
                assert!(drained.entries.is_empty());
                return;
            }
            let delta = match *kind {
                SketchKind::Buckets(shape) => Sketch::Buckets(Buckets::from_unsorted(
                    shape,
                    drained.level,
                    drained.entries.to_vec(),
                )),
                SketchKind::Distinct => {
                    let marks = drained
                        .entries
                        .iter()
                        .map(|&(key, count)| (key as u16, count as u8));
                    Sketch::Distinct(Registers::from_unsorted(marks))
                }
                SketchKind::Top => {
                    let counters = drained.entries.iter().map(|&(key, count)| {
                        *users.get_mut(&(key as u32)).unwrap() -= 1;
                        Counter::new(tags[&(key as u32)], count)
                    });
                    Sketch::Top(Counters::from_unsorted(counters.collect(), drained.others))
                }
                SketchKind::Series if drained.is_too_long => Sketch::Series(Series::TOO_LONG),
                SketchKind::Series => Sketch::Series(Series::from_unsorted(drained.points.to_vec())),
            };
            merged.merge(*kind, &delta);
        });
        assert_eq!(pool.vacant(), pool.blocks(), "all blocks come back");
        assert!(users.values().all(|users| *users == 0), "all values are freed");
        *first = pool.open(2).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn grouping_and_order_do_not_matter(numbers in numbers(), parts in 1_usize..6, rotate in 0_usize..6) {
        for kind in kinds() {
            let all: Vec<Given> = numbers.iter().map(|&number| given(kind, number)).collect();
            let whole = sketch(kind, &all);
            let mut merged = kind.empty();
            for part in 0..parts {
                let part = (part + rotate) % parts;
                let some: Vec<Given> = all.iter().rev().skip(part).step_by(parts).cloned().collect();
                let mut delta = sketch(kind, &some);
                // In either direction.
                if rotate % 2 == 0 {
                    merged.merge(kind, &delta);
                } else {
                    delta.merge(kind, &merged);
                    merged = delta;
                }
            }
            prop_assert_eq!(&merged, &whole);
            if let (Sketch::Buckets(buckets), SketchKind::Buckets(shape)) = (&whole, kind) {
                prop_assert!(buckets.is_canonical(shape));
                prop_assert_eq!(buckets.count(), numbers.len() as u64);
            }
        }
    }

    #[test]
    fn any_early_emission_gives_the_same_sketch(numbers in numbers(), blocks in 3_usize..400) {
        for kind in kinds() {
            let all: Vec<Given> = numbers.iter().map(|&number| given(kind, number)).collect();
            let mut agent = Agent::new(kind, blocks.max(blocks_to_open(2)));
            for given in &all {
                agent.lift(given);
            }
            agent.emit_early();
            prop_assert_eq!(agent.merged, sketch(kind, &all));
        }
    }

    /// With few different values a linear histogram is the sorted array.
    #[test]
    fn linear_ranks_are_the_sorted_array(mut cents in prop::collection::vec(-400_i128..400, 1..300)) {
        let shape = Shape::Linear;
        let all: Vec<Given> = cents.iter().map(|&cents| Given::Value(cents * CENT)).collect();
        let Sketch::Buckets(buckets) = sketch(SketchKind::Buckets(shape), &all) else { unreachable!() };
        cents.sort_unstable();
        for (rank, &cents) in (1..).zip(&cents) {
            let bucket = buckets.bucket_at(rank).unwrap();
            prop_assert_eq!(buckets.value(shape, bucket, CENT), cents * CENT);
        }
    }

    /// The level is the least at which there are few enough buckets, and half a bucket is the error.
    #[test]
    fn levels_are_least_and_their_error_is_stated(numbers in numbers()) {
        for shape in [Shape::Linear, Shape::Log] {
            let all: Vec<Given> = numbers.iter().map(|&number| Given::Value(number)).collect();
            let Sketch::Buckets(buckets) = sketch(SketchKind::Buckets(shape), &all) else { unreachable!() };
            let at = |level: u8| -> BTreeSet<i64> {
                let raise = |units: &i128| {
                    let (own, bucket) = bucket(shape, *units);
                    (own <= level).then(|| shape.raise(bucket, level - own))
                };
                numbers.iter().filter_map(raise).collect()
            };
            prop_assert_eq!(at(buckets.level).len(), buckets.entries.len());
            prop_assert!(buckets.entries.len() <= BUCKETS_MAX);
            let in_range = |level: u8| numbers.iter().all(|&units| bucket(shape, units).0 <= level);
            prop_assert!(buckets.level == 0 || !in_range(buckets.level - 1) || at(buckets.level - 1).len() > BUCKETS_MAX);
            for &units in &numbers {
                let (own, bucket) = bucket(shape, units);
                let middle = buckets.value(shape, shape.raise(bucket, buckets.level - own), CENT);
                let rounded = if shape == Shape::Linear { units / CENT * CENT } else { units };
                let error = (middle - rounded).unsigned_abs();
                match shape {
                    Shape::Linear => prop_assert!(error <= (CENT.unsigned_abs() << buckets.level) / 2),
                    _ => prop_assert!(error <= (units.unsigned_abs() << buckets.level) / 128),
                }
            }
        }
    }

    #[test]
    fn a_divider_divides(steps in -Value::LIMIT..Value::LIMIT, resolution in 1_i128..10_i128.pow(20)) {
        let value = (steps / resolution) * resolution;
        prop_assume!(value.abs() < Value::LIMIT);
        prop_assert_eq!(Divider::new(resolution).steps(Value::from_units(value).unwrap()), steps / resolution);
    }

    /// A top list with few values is exact; with many it counts a set that depends on the values alone, each exactly.
    #[test]
    fn top_lists_count_exactly(numbers in prop::collection::vec(0_u64..4_000, 0..6_000)) {
        let mut counters = Counters::EMPTY;
        let mut truth: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for number in &numbers {
            let tag = number.to_le_bytes().to_vec();
            counters.lift(&tag);
            *truth.entry(tag).or_default() += 1;
        }
        for counter in counters.entries() {
            prop_assert_eq!(truth[&counter.value.to_vec()], counter.count);
        }
        let counted: u64 = counters.entries().iter().map(|counter| counter.count).sum();
        prop_assert_eq!(counted + counters.others(), numbers.len() as u64);
        prop_assert_eq!(counters.entries().len(), truth.len().min(TOP_VALUES_MAX));
        prop_assert_eq!(counters.others() == 0, truth.len() <= TOP_VALUES_MAX);
    }
}

fn point(micros: i64, units: i128) -> SeriesPoint {
    End {
        at: Timestamp::clamped(micros),
        value: Value::from_units(units).unwrap(),
    }
}

/// Points of which some came before, around the bound: in whatever blocks there are, the set decides.
#[test]
fn a_series_is_too_long_by_its_different_points_alone() {
    let most = SERIES_POINTS_MAX as i64;
    for (different, rounds, too_long) in [
        (most, 1, false),
        (most, 5, false),
        (most + 1, 1, true),
        (most + 1, 5, true),
        (3 * most, 1, true),
        (700, 40, false),
    ] {
        for blocks in [700, 4_000] {
            let mut agent = Agent::new(SketchKind::Series, blocks);
            for round in 0..rounds {
                for number in 0..different {
                    // Out of order, and each round in another one.
                    let number = (number * 7_919 + round * 31) % different;
                    agent.lift(&Given::Point(point(
                        number * 10_000_000,
                        i128::from(number % 97) * CENT,
                    )));
                }
            }
            agent.emit_early();
            let Sketch::Series(series) = agent.merged else {
                unreachable!()
            };
            assert_eq!(
                (series.is_too_long(), series.points().len() as i64),
                (too_long, if too_long { 0 } else { different })
            );
        }
    }
}

/// A counter without an end and without noise.
const PLAIN: CounterRules = CounterRules {
    wraps_at: None,
    tolerance: 0,
};

/// Once too long, always: whatever comes later, and through the way back into an open pane.
#[test]
fn a_series_that_is_too_long_stays_so() {
    let mut series = Series::TOO_LONG;
    series.merge(&Series::from_unsorted(alloc::vec![point(1, 1)]));
    assert_eq!(series, Series::TOO_LONG);
    let mut other = Series::from_unsorted(alloc::vec![point(1, 1)]);
    other.merge(&series);
    assert_eq!(other, Series::TOO_LONG);
    assert_eq!(
        Course::through(alloc::vec![&series, &Series::EMPTY], PLAIN, None),
        None
    );
    let mut pool = Pool::new(alloc::vec![Block::VACANT; 8]);
    let first = pool.open(2).unwrap();
    pool.absorb_too_long(first, 1);
    let more = Point {
        sketch: 1,
        level: 0,
        key: 5,
        count: 1,
        value: Value::ZERO,
    };
    pool.lift(first, SketchKind::Series, more, &mut |_, _| {})
        .unwrap();
    pool.close(first, 2, |place, drained| {
        assert_eq!((drained.is_too_long, drained.points.len()), (place == 1, 0));
    });
    assert_eq!(pool.vacant(), pool.blocks());
}

#[test]
fn courses_by_hand() {
    let second = 1_000_000;
    let course = |points: &[(i64, i128)]| {
        let points = points.iter().map(|&(at, cents)| point(at * second, cents * CENT));
        Course::through(alloc::vec![&Series::from_unsorted(points.collect())], PLAIN, None)
    };
    let all = |points: &[(i64, i128)]| {
        let course = course(points).unwrap();
        (course.increase(), course.rate(), course.time_weighted_mean())
    };
    assert_eq!(course(&[]), None);
    assert_eq!(all(&[(5, 725)]), (0.0, None, 7.25));
    assert_eq!(all(&[(0, 500), (10, 900)]), (4.0, Some(0.4), 5.0));
    // 5 → 9, begun again → 3, → 4.
    assert_eq!(
        all(&[(0, 500), (10, 900), (20, 300), (40, 400)]),
        (8.0, Some(0.2), (50.0 + 90.0 + 60.0) / 40.0)
    );
    // Below zero no counter comes.
    assert_eq!(all(&[(0, 500), (10, -900), (20, 100)]), (10.0, Some(0.5), -2.0));
    // Of several values at one time the largest holds, and the way up between them counts.
    assert_eq!(all(&[(0, 100), (0, 300)]), (2.0, None, 3.0));
    assert_eq!(all(&[(0, 100), (10, 200), (10, 500), (20, 500)]).2, 3.0);
}

/// A meter that counts one an hour, in windows of an hour, and a level that changes in the middle of one.
#[test]
fn courses_go_on_from_what_was_before_a_window() {
    let second = 1_000_000;
    let series = |points: &[(i64, i128)]| {
        let points = points.iter().map(|&(at, cents)| point(at * second, cents * CENT));
        Series::from_unsorted(points.collect())
    };
    let all = |before: &[(i64, i128)], within: &[(i64, i128)]| {
        let (before, within) = (series(before), series(within));
        let edges = Edges {
            before: alloc::vec![&before],
            from: Timestamp::from_micros(-7_200 * second).unwrap(),
            start: Timestamp::from_micros(0).unwrap(),
            end: Timestamp::from_micros(3_600 * second).unwrap(),
        };
        let course = Course::through(alloc::vec![&within], PLAIN, Some(edges))?;
        Some((course.increase(), course.rate(), course.time_weighted_mean()))
    };
    assert_eq!(all(&[(-100, 500)], &[(0, 600)]), Some((1.0, Some(0.01), 6.0)));
    assert_eq!(all(&[], &[(0, 600)]), Some((0.0, None, 6.0)));
    assert_eq!(all(&[(-100, 500)], &[]), None);
    assert_eq!(
        all(&[(-7_201, 500)], &[(0, 600)]),
        Some((0.0, None, 6.0)),
        "too long ago"
    );
    assert_eq!(
        all(&[(-100, 500), (0, 900)], &[(0, 600)]),
        Some((1.0, Some(0.01), 6.0)),
        "not before"
    );
    assert_eq!(all(&[(-900, 1_000)], &[(1_800, 2_000)]).unwrap().2, 15.0);
    assert_eq!(all(&[], &[(1_800, 2_000), (2_700, 4_000)]).unwrap().2, 30.0);
    // A single 0 on either side of the edge, and a restart.
    assert_eq!(all(&[(-100, 5_000)], &[(0, 0)]).unwrap().0, 0.0);
    assert_eq!(all(&[(-100, 5_000), (-50, 0)], &[(0, 5_100)]).unwrap().0, 1.0);
    assert_eq!(all(&[(-100, 5_000), (-50, 0)], &[(0, 300)]).unwrap().0, 3.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The increases of neighbouring windows add up to that of all points together, and means over time, each for as long
    /// as it is one of, to the mean of all.
    #[test]
    fn neighbouring_windows_add_up_to_what_the_meter_shows(
        points in prop::collection::vec((0_i64..1_000, -3_i128..60), 1..80),
        size in 1_i64..300,
        tolerance in 0_i128..4,
        wraps_at in prop::option::of(40_i128..70),
    ) {
        let rules = CounterRules { wraps_at: wraps_at.map(|end| end * ONE), tolerance: tolerance * ONE };
        let points: Vec<SeriesPoint> = points.iter().map(|&(at, value)| point(at, value * ONE)).collect();
        let whole = Series::from_unsorted(points.clone());
        let first = whole.points()[0].at.as_micros();
        let mut windows: BTreeMap<i64, Vec<SeriesPoint>> = BTreeMap::new();
        for point in points {
            windows.entry(point.at.as_micros().div_euclid(size) * size).or_default().push(point);
        }
        let windows: BTreeMap<i64, Series> =
            windows.into_iter().map(|(start, points)| (start, Series::from_unsorted(points))).collect();
        let edges = |start: i64, end: i64| Edges {
            before: windows.range(..start).map(|(_, series)| series).rev().collect(),
            from: Timestamp::MIN,
            start: Timestamp::from_micros(start).unwrap(),
            end: Timestamp::from_micros(end).unwrap(),
        };
        let (mut increase, mut area, mut until) = (0.0, 0.0, first);
        for (&start, series) in &windows {
            let course = Course::through(alloc::vec![series], rules, Some(edges(start, start + size))).unwrap();
            increase += course.increase();
            // A window without a reading has no row: the value before it holds there.
            if start > until {
                let held = whole.points().iter().rfind(|point| point.at.as_micros() < start).unwrap();
                area += from_units(held.value.units()) * (start - until) as f64;
            }
            area += course.time_weighted_mean() * (start + size - start.max(first)) as f64;
            until = start + size;
        }
        let all = Course::through(alloc::vec![&whole], rules, None).unwrap();
        prop_assert_eq!(increase, all.increase());
        let last = *windows.last_key_value().unwrap().0 + size;
        let all = Course::through(alloc::vec![&whole], rules, Some(edges(0, last))).unwrap();
        let mean = area / (last - first) as f64;
        prop_assert!((mean - all.time_weighted_mean()).abs() < 1e-9, "{} {}", mean, all.time_weighted_mean());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A window's panes give the same course one by one, all at once, or with some of them in a wider pane as well.
    #[test]
    fn a_course_through_panes_is_that_through_their_union(
        numbers in numbers(), width in 1_i64..200_000_000, covered in any::<bool>(),
    ) {
        let given = |number: &i128| match given(SketchKind::Series, *number) {
            Given::Point(point) => point,
            _ => unreachable!(),
        };
        let points: Vec<SeriesPoint> = numbers.iter().map(given).collect();
        let mut panes: BTreeMap<i64, Vec<SeriesPoint>> = BTreeMap::new();
        for point in &points {
            panes.entry(point.at.as_micros().div_euclid(width)).or_default().push(*point);
        }
        let panes: Vec<Series> = panes.into_values().map(Series::from_unsorted).collect();
        let whole = Series::from_unsorted(points);
        let mut parts: Vec<&Series> = panes.iter().rev().collect();
        if covered {
            parts.push(&whole);
        }
        prop_assert_eq!(Course::through(parts, PLAIN, None), Course::through(alloc::vec![&whole], PLAIN, None));
    }

    /// The widest values and times there are go through the pool and the sums.
    #[test]
    fn the_widest_points_are_kept_whole(
        points in prop::collection::vec((Timestamp::MIN.as_micros()..Timestamp::MAX.as_micros(), -Value::LIMIT + 1..Value::LIMIT, 0_u32..37), 1..60),
    ) {
        let points: Vec<SeriesPoint> = points
            .into_iter()
            .map(|(at, units, cut)| point(at, units / 10_i128.pow(cut) * 10_i128.pow(cut)))
            .collect();
        let mut agent = Agent::new(SketchKind::Series, 12);
        for point in &points {
            agent.lift(&Given::Point(*point));
        }
        agent.emit_early();
        prop_assert_eq!(agent.merged, Sketch::Series(Series::from_unsorted(points)));
    }
}

/// The published vectors of XXH64 with seed 0: the hash is part of the format.
#[test]
fn the_hash_is_xxh64() {
    assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
    assert_eq!(hash(b"a"), 0xd24e_c4f1_a98c_6e5b);
    assert_eq!(hash(b"abc"), 0x44bc_2cf5_ad77_0999);
}

#[test]
fn estimates_are_within_four_standard_errors() {
    let mut registers = Registers::EMPTY;
    let mut worst: f64 = 0.0;
    assert_eq!(registers.estimate(), 0.0);
    for number in 1..=200_000_u32 {
        registers.lift(hash(alloc::format!("device-{number}").as_bytes()));
        if number % 997 == 0 || number < 100 {
            let off = (registers.estimate() - f64::from(number)) / f64::from(number);
            worst = worst.max(off.abs());
            assert!(off.abs() <= 4.0 * 0.023, "{number}: {}", registers.estimate());
        }
    }
    assert!(worst > 0.001, "the estimate is one");
}

#[test]
fn ranks_run_from_one_to_fifty_four() {
    assert_eq!(mark_of(u64::MAX), (2_047, 1));
    assert_eq!(mark_of(0), (0, 54));
    assert_eq!(mark_of(1), (0, 53));
    let mut full = Registers::EMPTY;
    (0..2_048_u64).for_each(|register| full.lift(register << 53));
    assert!(full.estimate().is_finite());
}

#[test]
fn states_that_no_values_have_are_refused() {
    let buckets = |level, entries: &[Bucket]| Buckets {
        level,
        entries: entries.to_vec(),
    };
    assert!(buckets(0, &[(-1, 1), (5, 2)]).is_canonical(Shape::Linear));
    assert!(
        !buckets(0, &[(5, 2), (5, 2)]).is_canonical(Shape::Linear),
        "twice"
    );
    assert!(
        !buckets(0, &[(5, 0)]).is_canonical(Shape::Linear),
        "nothing counted"
    );
    assert!(
        !buckets(1, &[(5, 1)]).is_canonical(Shape::Linear),
        "a level for nothing"
    );
    assert!(!buckets(113, &[(5, 1)]).is_canonical(Shape::Linear));
    assert!(!buckets(0, &[(i64::MAX, 1)]).is_canonical(Shape::Linear));
    assert!(!buckets(0, &[(7_681, 1)]).is_canonical(Shape::Log));
    assert!(!buckets(0, &[(4, 1)]).is_canonical(Shape::Intervals(4)));
    assert!(!buckets(0, &[(-1, 1)]).is_canonical(Shape::Intervals(4)));
    assert_eq!(Registers::checked(alloc::vec![(2_048, 1)]), None);
    assert_eq!(Registers::checked(alloc::vec![(1, 55)]), None);
    assert_eq!(Registers::checked(alloc::vec![(2, 1), (1, 1)]), None);
    assert_eq!(Counters::checked(alloc::vec![Counter::new(b"a", 1)], 5), None);
    assert_eq!(Counters::checked(alloc::vec![Counter::new(b"a", 0)], 0), None);
}
