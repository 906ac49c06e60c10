//! Six real series (machine, ambient and road sensors of the Numenta Anomaly Benchmark) through Mosquitto.
//!
//! They lie outside the repository, beside it: `../shared/data/nab`. Their years differ, so all but the newest arrive
//! as late data: each window is revised rather than closed in order, and must be right all the same.

use std::path::{Path, PathBuf};

use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::process::run_ok;
use catchment_tests::verdict::wait_until_right;
use catchment_tests::world::{World, text};

const SERIES: [&str; 6] = [
    "TravelTime_387",
    "ambient_temperature_system_failure",
    "machine_temperature_system_failure",
    "occupancy_6005",
    "speed_6005",
    "speed_t4013",
];

const PLAN: &str = r#"
[[query]]
name = "nab"
topic = "sensors/nab/{device}/env"
time = { path = "ts", unit = "ms" }
key = ["device"]
fields = { value = "value" }
window = { size = "1h", every = "15m" }
aggregates = ["count", "mean", "min", "max", "stddev", "p1", "median", "p99", "distinct(value)"]
watermark_delay = "30s"
allowed_lateness = "36500d"
idle = "1s"
patience = "1s"

[[query]]
name = "nab_days"
topic = "sensors/nab/{device}/env"
time = { path = "ts", unit = "ms" }
key = []
fields = { value = { path = "value", resolution = 0.01 } }
window = { size = "1d" }
aggregates = ["p0", "p50", "p99.9", "p100", "histogram(0, 20, 60, 100)", "distinct(device)", "top(3, device)"]
watermark_delay = "30s"
allowed_lateness = "36500d"
idle = "1s"
patience = "1s"
"#;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/nab")
}

#[test]
fn six_real_series_give_the_truth() {
    if !folder().is_dir() {
        // The one test that depends on what is beside the repository; elsewhere its promise is tested by the fleet.
        eprintln!(
            "NOT RUN: there is no {}: the real series were not replayed",
            folder().display()
        );
        return;
    }
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, PLAN);
    let _agent = AgentConfig::new("gw-1", &broker.url(), &aggregator).start_subscribed(&world);
    let truth = world.path("truth.jsonl");
    let url = broker.url();
    for series in SERIES {
        let csv = folder().join(format!("{series}.csv"));
        let fixed = [
            "replay",
            "--topic",
            "sensors/nab/{device}/env",
            "--append",
            "--broker",
            &url,
        ];
        let files = ["--csv", text(&csv), "--device", series, "--truth", text(&truth)];
        run_ok("catchment-fleet", &[&fixed[..], &files[..]].concat());
    }
    let report = wait_until_right(&aggregator, &[truth]);
    println!("{report}");

    // What an analyst would ask `sqlite3`, with no help from us.
    let sql = aggregator.sql();
    let devices: i64 = sql
        .query_row("SELECT count(DISTINCT device) FROM nab", [], |row| row.get(0))
        .unwrap();
    assert_eq!(devices, SERIES.len() as i64);
    let hottest = "SELECT window_start, window_end, status, coverage, readings, value_max FROM nab
                   WHERE device = 'machine_temperature_system_failure' AND value_max IS NOT NULL
                   ORDER BY value_max DESC, window_start LIMIT 1";
    let (start, status, coverage, max): (String, String, f64, f64) = sql
        .query_row(hottest, [], |row| {
            Ok((row.get(0)?, row.get(2)?, row.get(3)?, row.get(5)?))
        })
        .unwrap();
    // The file's largest value, at 2013-12-13 13:35.
    let expected = largest(&folder().join("machine_temperature_system_failure.csv"));
    assert_eq!(max, expected.1);
    assert!(start <= expected.0, "{start} {expected:?}");
    assert_eq!((status.as_str(), coverage), ("final", 1.0));
}

/// Time, as result tables write it, and value of a series' largest reading.
fn largest(csv: &Path) -> (String, f64) {
    let text = std::fs::read_to_string(csv).unwrap();
    let rows = text.lines().skip(1).map(|line| line.split_once(',').unwrap());
    let (time, value) = rows
        .map(|(time, value)| (time, value.trim().parse::<f64>().unwrap()))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap();
    (format!("{}.000Z", time.replace(' ', "T")), value)
}
