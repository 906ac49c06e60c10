//! A key explosion against a small pane table: memory stays in its budget and the results stay exact.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};

use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::mqtt::Publisher;
use catchment_tests::verdict::wait_until_right;
use catchment_tests::world::World;

const KEYS: usize = 200_000;
/// Readings of one message: an array, as gateways that collect themselves publish it.
const PER_MESSAGE: usize = 400;
/// Each key is read in each round, so that most keys had left early before they come again.
const ROUNDS: usize = 2;
const TABLE: &str = "8 MiB";
const SPOOL: &str = "16 MiB";
const BUDGET: usize = (8 + 16) << 20;
/// What the process takes besides its budgets: code, runtime, TLS, groups of messages on their way, a batch in the
/// making. Measured 2026-11 in the tests' own profile: the whole process peaks at 20 MiB.
const CONSTANT: usize = 16 << 20;

const PLAN: &str = r#"
[[query]]
name = "meters"
topic = "meters/{site}"
time = { path = "ts", unit = "s" }
tags = { meter = "id" }
key = ["site", "meter"]
fields = { power = "p" }
window = { size = "60s" }
aggregates = ["count", "sum", "mean", "min", "max", "stddev", "first", "last"]
watermark_delay = "2s"
idle = "1s"
patience = "1s"
"#;

/// A message of many readings, all of one round.
fn payload(round: usize, keys: std::ops::Range<usize>, start: i64) -> String {
    let mut payload = String::from("[");
    for key in keys {
        let separator = if payload.len() > 1 { "," } else { "" };
        let at = start + (round * 20 + key % 20) as i64;
        let (whole, rest) = ((key * 7 + round * 31) % 3_000, key % 100);
        let _ = write!(
            payload,
            r#"{separator}{{"ts":{at},"id":"meter-{key:06}","p":{whole}.{rest:02}}}"#
        );
    }
    payload + "]"
}

#[test]
fn two_hundred_thousand_keys_fit_through_an_eight_mebibyte_table() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, PLAN);
    let agent = AgentConfig::new("gw-1", &broker.url(), &aggregator)
        .limit(&format!("memory = {TABLE:?}"))
        .limit(&format!("spool = {SPOOL:?}"))
        .start_subscribed(&world);
    let truth = world.path("truth.jsonl");
    let mut lines = BufWriter::new(File::create(&truth).unwrap());
    let mut publisher = Publisher::connect(broker.address(), "publisher");
    // One window for all, past already.
    let start = jiff::Timestamp::now().as_second() / 60 * 60 - 120;
    for round in 0..ROUNDS {
        for first in (0..KEYS).step_by(PER_MESSAGE) {
            let payload = payload(round, first..first + PER_MESSAGE, start);
            publisher.publish("meters/north", payload.as_bytes());
            let line = serde_json::json!({ "topic": "meters/north", "payload": payload });
            writeln!(lines, "{line}").unwrap();
        }
    }
    lines.into_inner().unwrap();
    let report = wait_until_right(&aggregator, &[truth]);
    assert!(
        report.contains("200000 rows, 200000 equal, 0 different, 0 missing, 0 extra"),
        "{report}"
    );
    assert!(
        aggregator.counter("emitted_early") > KEYS as u64 / 2,
        "the table was too small, as it should be"
    );
    let peak = agent.peak_memory();
    println!(
        "{KEYS} keys, table {TABLE}, spool {SPOOL}: peak {:.1} MiB",
        peak as f64 / f64::from(1 << 20)
    );
    assert!(
        peak <= BUDGET + CONSTANT,
        "{} KiB are more than budget {} KiB + constant {} KiB",
        peak >> 10,
        BUDGET >> 10,
        CONSTANT >> 10
    );
}
