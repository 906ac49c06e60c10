//! The paths that run for every reading and every partial, each beside a baseline in the same run, in CPU time.
//!
//! `cargo bench -p catchment-tests --bench hot_paths`. Targets stand in the design; results in `docs/BENCHMARKS.md`.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::hint::black_box;
use std::time::Duration;

use catchment_agent::aggregate::intake::{Intake, Message};
use catchment_agent::aggregate::panes::{Measured, OpenPanes, Place};
use catchment_agent::aggregate::sketches::TagValues;
use catchment_agent::log::journal::Journal;
use catchment_agent::metrics::Metrics;
use catchment_aggregator::merge::Panes;
use catchment_common::number::decimal::Value;
use catchment_common::plan::{Pipeline, PipelineId, PipelineSketch};
use catchment_common::stats::Stats;
use catchment_common::wire::{Batch, BatchWriter, Section, StatsScratch};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use support::fleet::{self, Dice};
use support::partials::{keys, seal, section};
use support::{CpuTime, at, catalog, intake, pipeline, thread_cpu, timestamp};

/// Dedupe of the lift and decode benches.
const DEVICES: usize = 1_000;
/// Payloads made beforehand; enough that none stays in the nearest cache.
const PAYLOADS: usize = 20_000;

/// What somebody would write who has never heard of an exact sum.
#[derive(Clone, Copy, Default)]
struct FloatStats {
    count: u64,
    sum: f64,
    squares: f64,
    min: f64,
    max: f64,
}

impl FloatStats {
    fn lift(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

fn lift(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("lift");
    group.throughput(Throughput::Elements(PAYLOADS as u64));
    let mut pipeline = pipeline();
    pipeline.fields.truncate(1);
    let (keys, mut dice) = (keys(DEVICES), Dice::new(1));
    let readings: Vec<(usize, i64, Value)> = (0..PAYLOADS)
        .map(|_| {
            let device = dice.below(DEVICES as u64) as usize;
            let hundredths = fleet::hundredths(device, 0, &mut dice);
            (device, hundredths, fleet::value(hundredths))
        })
        .collect();
    let mut with = |name: &str, memory: usize, resolution: Option<i128>, sketches: Vec<PipelineSketch>| {
        let mut pipeline = pipeline.clone();
        pipeline.fields[0].resolution = resolution;
        pipeline.sketches = sketches;
        let mut panes = OpenPanes::new(memory, &[(PipelineId(1), pipeline.clone())], 7);
        let tags = TagValues::default();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for &(device, _, value) in &readings {
                    let place = Place {
                        pipeline: 0,
                        pane: timestamp(0),
                        key: &keys[device],
                    };
                    let measured = Measured {
                        at: timestamp(5),
                        values: &[Some(value)],
                        tags: &tags,
                    };
                    panes.lift(place, &pipeline, measured, 0).expect("there is room");
                }
            });
        });
    };
    let cent = Some(10_i128.pow(16));
    with("pane table", 1 << 20, None, Vec::new());
    with(
        "and a linear histogram",
        8 << 20,
        cent,
        vec![PipelineSketch::Quantiles(0)],
    );
    with(
        "and a logarithmic histogram",
        8 << 20,
        None,
        vec![PipelineSketch::Quantiles(0)],
    );
    with(
        "and distinct values",
        8 << 20,
        None,
        vec![PipelineSketch::DistinctValues(0)],
    );
    let mut floats: HashMap<Vec<u8>, FloatStats> = keys
        .iter()
        .map(|key| (key.clone(), FloatStats::default()))
        .collect();
    group.bench_function("baseline: std HashMap of f64 sums", |bencher| {
        bencher.iter(|| {
            for &(device, hundredths, _) in &readings {
                let stats = floats.get_mut(&keys[device]).expect("the key is there");
                stats.lift(hundredths as f64 / 100.0);
            }
        });
    });
    let mut stats = Stats::IDENTITY;
    group.bench_function("without any lookup", |bencher| {
        bencher.iter(|| {
            for &(_, _, value) in &readings {
                stats.lift(pipeline.fields[0].components, timestamp(5), value);
            }
            black_box(&stats);
        });
    });
    group.finish();
}

/// The same payload for serde's own derive.
#[derive(Deserialize)]
struct Climate {
    ts: i64,
    temp: f64,
    hum: f64,
}

/// Hands all messages to an intake.
fn feed(intake: &mut Intake, messages: &[(String, Vec<u8>)], metrics: &mut Metrics, journal: &mut Journal) {
    for (topic, payload) in messages {
        black_box(intake.handle_message(at(0), Message::of(topic, payload), metrics, journal, |_, _| {}));
    }
}

fn decode(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(PAYLOADS as u64));
    let plan = catalog(support::PLAN).agent_plan();
    let mut dice = Dice::new(2);
    let messages: Vec<(String, Vec<u8>)> = (0..PAYLOADS)
        .map(|index| {
            let device = dice.below(DEVICES as u64) as usize;
            (
                fleet::topic(device),
                fleet::payload_100(device, index as i64 * 10, &mut dice),
            )
        })
        .collect();
    let mut metrics = Metrics::default();
    let mut intake = intake(&plan, 4 << 20, &mut metrics);
    let keys = intake.panes().capacity();
    let mut journal = Journal::new(0, [], 1, keys);
    group.bench_function("agent: topic, JSON, key, two fields, pane", |bencher| {
        bencher.iter(|| {
            feed(&mut intake, &messages, &mut metrics, &mut journal);
        });
    });
    let mut journal = Journal::new(16 << 20, [], 1, keys);
    let mut steps = Vec::new();
    group.bench_function("agent: the same, journalled", |bencher| {
        bencher.iter(|| {
            feed(&mut intake, &messages, &mut metrics, &mut journal);
            journal.take_group(None, &mut steps);
            steps.clear();
        });
    });
    let computing = support::PLAN.replace("window ", "where = \"temp > -40 && temp < 125\"\nwindow ");
    for (name, text) in [
        ("agent: with a where", computing.clone()),
        (
            "agent: with a where and a third, computed field",
            computing.replace(" }\nwhere", ", dew = \"temp - (100 - hum) / 5\" }\nwhere"),
        ),
        (
            "agent: with a third field that is not computed",
            support::PLAN.replace(
                " }\nwindow",
                ", again = { path = \"temp\", resolution = 0.1 } }\nwindow",
            ),
        ),
    ] {
        let mut intake = support::intake(&catalog(&text).agent_plan(), 4 << 20, &mut metrics);
        let mut journal = Journal::new(0, [], 1, intake.panes().capacity());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                feed(&mut intake, &messages, &mut metrics, &mut journal);
            });
        });
    }
    assert_eq!(metrics.rejected(), 0);
    group.bench_function("baseline: serde_json struct, nothing else", |bencher| {
        bencher.iter(|| {
            for (_, payload) in &messages {
                black_box(serde_json::from_slice::<Climate>(payload).expect("valid"));
            }
        });
    });
    let hasher = std::hash::RandomState::new();
    let mut floats: HashMap<(u64, i64), [FloatStats; 2]> = HashMap::new();
    group.bench_function(
        "baseline: serde_json struct, topic split, f64 sums by hash",
        |bencher| {
            bencher.iter(|| {
                for (topic, payload) in &messages {
                    let climate: Climate = serde_json::from_slice(payload).expect("valid");
                    let mut parts = topic.split('/');
                    let tags = (parts.nth(1), parts.next());
                    let [temp, hum] = floats
                        .entry((hasher.hash_one(tags), climate.ts / 10_000))
                        .or_default();
                    temp.lift(climate.temp);
                    hum.lift(climate.hum);
                }
            });
        },
    );
    group.finish();
}

fn wire(criterion: &mut Criterion<CpuTime>) {
    const KEYS: usize = 1_000;
    let section = section(PipelineId(1), &keys(KEYS), 0, 3);
    let frame = seal(&[&section], 1);
    let raw: usize = (0..KEYS * 10)
        .map(|index| fleet::topic(index % KEYS).len() + 100)
        .sum();
    let payload_only = KEYS * 10 * 100;
    println!(
        "wire: {} B for {KEYS} (pane, key) of 10 readings: {:.2} B each; raw JSON {payload_only} B, {:.0} times as much \
         ({:.0} times with topics)",
        frame.len(),
        frame.len() as f64 / KEYS as f64,
        payload_only as f64 / frame.len() as f64,
        raw as f64 / frame.len() as f64,
    );
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Elements(KEYS as u64));
    let (mut writer, mut out) = (BatchWriter::default(), Vec::new());
    group.bench_function("encode 1,000 partials", |bencher| {
        bencher.iter(|| {
            out.clear();
            writer.push(&section);
            writer.seal(1, 1, &mut out);
            black_box(&out);
        });
    });
    let (mut read, mut scratch) = (Section::default(), StatsScratch::default());
    for view in Batch::parse(&frame).expect("a batch").sections() {
        view.expect("a section")
            .read(&mut read, &mut scratch)
            .expect("rows");
    }
    assert_eq!(read, section, "what is measured is right");
    group.bench_function("decode 1,000 partials", |bencher| {
        bencher.iter(|| {
            let batch = Batch::parse(&frame).expect("a batch");
            for view in batch.sections() {
                view.expect("a section")
                    .read(&mut read, &mut scratch)
                    .expect("rows");
            }
            black_box(&read);
        });
    });
    group.finish();
}

/// What comes in from agents that each have keys of their own, as devices have one gateway.
struct Incoming {
    names: Vec<String>,
    frames: Vec<Vec<u8>>,
}

const KEYS_PER_AGENT: usize = 1_000;
const AGENTS: usize = 8;

fn incoming(pane: i64) -> Incoming {
    let all = keys(KEYS_PER_AGENT * AGENTS);
    let frame = |keys: &[Vec<u8>]| seal(&[&section(PipelineId(1), keys, pane, 5)], 1);
    Incoming {
        names: (0..AGENTS).map(|agent| format!("agent-{agent}")).collect(),
        frames: all.chunks(KEYS_PER_AGENT).map(frame).collect(),
    }
}

fn take(panes: &mut Panes, incoming: &Incoming, pipeline: &Pipeline) {
    for (frame, name) in incoming.frames.iter().zip(&incoming.names) {
        let batch = Batch::parse(frame).expect("a batch");
        panes.start_batch();
        for view in batch.sections() {
            panes
                .check(name, &view.expect("a section"), pipeline)
                .expect("fits");
        }
        for (nth, view) in batch.sections().enumerate() {
            let merged = panes.merge_checked(name, &view.expect("a section"), nth);
            black_box(merged.expect("rows"));
        }
    }
}

fn merge(criterion: &mut Criterion<CpuTime>) {
    let mut pipeline = pipeline();
    pipeline.fields.truncate(1);
    let pipelines = BTreeMap::from([(PipelineId(1), pipeline.clone())]);
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements((KEYS_PER_AGENT * AGENTS) as u64));
    let (mut panes, mut window) = (Panes::default(), 0);
    group.bench_function("aggregator: frame to partials of a new pane", |bencher| {
        bencher.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                window += 10_000_000;
                let incoming = incoming(window);
                let start = thread_cpu();
                take(&mut panes, &incoming, &pipeline);
                spent += thread_cpu().saturating_sub(start);
                panes.take_dirty(&pipelines, |_, _, _| {});
                panes.forget(PipelineId(1), timestamp(window));
            }
            spent
        });
    });
    let incoming = incoming(window);
    group.bench_function(
        "aggregator: frame merged with partials that are held",
        |bencher| {
            bencher.iter(|| take(&mut panes, &incoming, &pipeline));
        },
    );
    let rows: Vec<(Vec<u8>, FloatStats)> = keys(KEYS_PER_AGENT * AGENTS)
        .into_iter()
        .map(|key| (key, FloatStats::default()))
        .collect();
    let mut floats: HashMap<Vec<u8>, FloatStats> = rows.iter().cloned().collect();
    group.bench_function("baseline: f64 sums by key, already decoded", |bencher| {
        bencher.iter(|| {
            for (key, stats) in &rows {
                floats.get_mut(key).expect("the key is there").merge(stats);
            }
        });
    });
    group.finish();
}

fn configured() -> Criterion<CpuTime> {
    Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
}

criterion_group! { name = benches; config = configured(); targets = lift, decode, wire, merge }
criterion_main!(benches);
