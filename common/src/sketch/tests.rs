//! The laws of the sketches: any order, any grouping, in the pool or out of it, the same bytes; and their answers.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::pool::{Block, Point, Pool, blocks_to_open};
use super::*;
use crate::decimal::Value;
use crate::limits::{BUCKETS_MAX, TOP_VALUES_MAX};
use crate::pane::Use;

const CENT: i128 = 10_i128.pow(16);

/// What a reading gives to a sketch.
#[derive(Clone, Debug)]
enum Given {
    Value(i128),
    Tag(Vec<u8>),
}

fn kinds() -> [SketchKind; 5] {
    [
        SketchKind::Buckets(Shape::Linear),
        SketchKind::Buckets(Shape::Log),
        SketchKind::Buckets(Shape::Intervals(4)),
        SketchKind::Distinct,
        SketchKind::Top,
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
            self.spill();
        }
        let (level, key, count) = match given {
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

    fn spill(&mut self) {
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
            };
            merged.merge(*kind, &delta);
        });
        assert_eq!(pool.vacant(), pool.blocks(), "all blocks come back");
        assert!(users.values().all(|users| *users == 0), "all values are let go");
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
    fn any_spill_schedule_gives_the_same_sketch(numbers in numbers(), blocks in 3_usize..400) {
        for kind in kinds() {
            let all: Vec<Given> = numbers.iter().map(|&number| given(kind, number)).collect();
            let mut agent = Agent::new(kind, blocks.max(blocks_to_open(2)));
            for given in &all {
                agent.lift(given);
            }
            agent.spill();
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
