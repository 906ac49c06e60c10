//! A small story that fills every kind of table: what commands and questions are tested on.

use catchment_common::metrics::{Counter, Reason};
use catchment_common::number::decimal::Value;
use catchment_common::plan::{Components, PipelineId};
use catchment_common::stats::Stats;
use catchment_common::time::Span;
use catchment_common::wire::{
    BatchWriter, ClockState, CounterSample, Heartbeat, Loss, LossEntry, Message, Section, SourceState,
    VERSION,
};

use super::{Machine, Reopen, apply};
use crate::catalog::Catalog;
use crate::plan_toml;
use crate::testing::{at, hello, now};

/// The first plan: aligned windows with coarser panes, sessions and count windows.
pub(crate) const FIRST: &str = r#"[[query]]
name = "q"
topic = "s/{site}/{device}"
key = ["site", "device"]
fields = { temp = "temp" }
window = { size = "20s", every = "10s" }
aggregates = ["count", "sum"]
watermark_delay = "0s"
patience = "3s"
coarsen = ["1m", "1h"]
[[query]]
name = "s"
topic = "t/{device}"
key = ["device"]
fields = { temp = "temp" }
window = { session = "10s" }
aggregates = ["sum"]
watermark_delay = "0s"
[[query]]
name = "c"
topic = "u/{device}"
key = ["device"]
fields = { temp = "temp" }
window = { count = 3 }
aggregates = ["sum"]
"#;

/// The second plan: `q` has another function, and with it a column more.
pub(crate) fn second() -> String {
    FIRST.replace("[\"count\", \"sum\"]", "[\"count\", \"sum\", \"mean\"]")
}

/// The pipelines of the first plan.
fn pipelines() -> Vec<PipelineId> {
    let catalog = Catalog::first(plan_toml::parse(FIRST, "plan").unwrap());
    let queries = catalog.queries.iter();
    queries.map(|query| query.readers[0].pipeline).collect()
}

/// A batch of one key: seconds and values of its readings.
fn batch(seq: u64, pipeline: PipelineId, pane: i64, key: &str, readings: &[(i64, i64)]) -> Vec<u8> {
    let keep = if pipeline == pipelines()[1] || pipeline == pipelines()[2] {
        Components::SUM | Components::ENDS
    } else {
        Components::SUM
    };
    let mut section = Section::default();
    section.reset(pipeline, at(pane), std::iter::once(keep));
    let mut stats = Stats::IDENTITY;
    for &(seconds, value) in readings {
        let value = Value::from_units(i128::from(value) * 10_i128.pow(18)).unwrap();
        stats.lift(keep, at(seconds), value);
    }
    section.keys.push(key.as_bytes());
    section.readings.push(readings.len() as u64);
    section.stats.push(stats);
    let mut writer = BatchWriter::default();
    writer.push(&section);
    let mut frame = Vec::new();
    writer.seal(1, seq, &mut frame);
    frame
}

fn heartbeat(seq: u64, watermark: i64, offset: i64) -> Vec<u8> {
    let sample = |counter: Counter, value| CounterSample {
        pipeline: pipelines()[0],
        counter: counter.code(),
        value,
    };
    let source = |name: &str, is_connected| SourceState {
        name: name.into(),
        is_connected,
        since: at(77),
    };
    Message::Heartbeat(Heartbeat {
        epoch: 1,
        era: 1,
        seq,
        oldest: 1,
        watermarks: pipelines()
            .into_iter()
            .take(2)
            .map(|id| (id, at(watermark)))
            .collect(),
        counters: vec![
            sample(Counter::Accepted, seq * 2),
            sample(Counter::Rejected(Reason::TooLate), seq),
            sample(Counter::Rejected(Reason::TooEarly), 1),
        ],
        backlog_batches: seq,
        backlog_bytes: 100 * seq,
        sources: vec![source("plant", true), source("ya\u{1b}rd", false)],
        clock: Some(ClockState {
            offset: Span::from_secs(offset),
            is_trusted: true,
        }),
    })
    .emit()
}

fn loss(seq: u64, entries: &[(PipelineId, i64, u64)]) -> Vec<u8> {
    let entry = |&(pipeline, from, readings): &(PipelineId, i64, u64)| LossEntry {
        pipeline,
        from: at(from),
        to: at(from + 10),
        readings,
    };
    Loss {
        epoch: 1,
        seq,
        entries: entries.iter().map(entry).collect(),
    }
    .emit()
}

/// Plays the story.
pub(crate) fn play<S: Reopen>(store: S) -> S {
    let [q, s, c] = pipelines()[..] else {
        panic!("three queries");
    };
    let mut machine = Machine::new(store, FIRST);
    let catalog = machine.aggregator.catalog().clone();
    let minute = catalog.ladders[0].pipeline;
    machine.frame(batch(1, q, 100, "b\0x", &[(101, 5), (102, 6)]));
    machine.frame(batch(2, q, 100, "b\0y", &[(103, 7)]));
    machine.frame(batch(3, s, 100, "x", &[(101, 1), (104, 2)]));
    machine.frame(heartbeat(3, 110, 0));
    machine.settle(4);
    machine.frame(batch(4, q, 110, "a\0x", &[(111, -3)]));
    machine.frame(batch(5, minute, 120, "b\0x", &[(121, 40), (150, 41)]));
    machine.frame(batch(6, c, 90, "x\0a", &[(95, 1), (96, 2), (99, 3)]));
    machine.frame(batch(7, c, 97, "y\0a", &[(98, 9)]));
    machine.frame(batch(8, s, 110, "x", &[(112, 3)]));
    machine.frame(batch(9, s, 130, "x", &[(131, 4)]));
    machine.frame(heartbeat(9, 145, 2));
    machine.settle(4);
    // A second agent, which stays behind; then late data, and the sessions become one.
    machine.aggregator.handle_connected(90, "b", VERSION);
    let (at_seconds, second_agent) = (now(machine.seconds), hello("b", 1, Vec::new()));
    machine
        .aggregator
        .handle_frame(at_seconds, 90, second_agent.into(), &machine.store)
        .unwrap();
    let behind = heartbeat(0, 105, -3);
    machine
        .aggregator
        .handle_frame(at_seconds, 90, behind.into(), &machine.store)
        .unwrap();
    machine.frame(batch(10, q, 100, "b\0x", &[(109, 1)]));
    machine.frame(batch(11, s, 120, "x", &[(121, 10)]));
    machine.frame(loss(12, &[(q, 60, 8), (minute, 0, 11), (s, 60, 1)]));
    machine.frame(loss(13, &[]));
    machine.frame(heartbeat(13, 190, 2));
    machine.settle(6);
    apply(&mut machine.store, &second()).unwrap();
    let catalog = machine.store.catalog().unwrap();
    machine.aggregator.handle_catalog(now(machine.seconds), catalog);
    machine.frame(batch(14, q, 190, "b\0y", &[(191, 2), (192, 3)]));
    machine.frame(heartbeat(14, 230, 2));
    machine.settle(9);
    machine.store.retire("b", false).unwrap();
    // What is appended and in no pane yet.
    machine.frame(batch(15, q, 200, "b\0x", &[(201, 100)]));
    machine.settle(1);
    machine.store
}

/// A window of many keys.
pub(crate) fn many<S: Reopen>(store: S, keys: usize) -> S {
    let mut machine = Machine::new(store, super::PLAN);
    let keys: Vec<String> = (0..keys).map(|key| format!("k{key:06}")).collect();
    let rows: Vec<(&str, &[i64])> = keys.iter().map(|key| (key.as_str(), &[1_i64][..])).collect();
    machine.frame(super::batch(1, 100, &rows));
    machine.frame(super::heartbeat(1, 1, 110));
    machine.settle(10);
    machine.store
}
