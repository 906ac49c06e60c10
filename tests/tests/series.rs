//! Means over time and counters over real series, read at irregular times: the production agents and aggregator against
//! sums written out here.
//!
//! The series lie outside the repository, beside it: `../shared/data/nab`. Every day is a window.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use catchment_aggregator::plan_toml;
use catchment_common::number::decimal::Value;
use catchment_common::plan::Query;
use catchment_common::time::{Span, Timestamp};
use catchment_firmware_sim::oracle::nearest::is_nearest;
use catchment_firmware_sim::verify::Cell;
use catchment_tests::direct::Direct;
use num_bigint::BigInt;

const DAY: i64 = 86_400_000_000;
/// The meter made of a series begins again after so many readings.
const RESET: usize = 97;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/nab")
}

fn query() -> Query {
    let text = "[[query]]\nname = \"q\"\ntopic = \"s/{series}\"\ntime = { path = \"ts\", unit = \"us\" }\nkey = [\"series\"]\n\
                fields = { v = \"v\", meter = { path = \"meter\", kind = \"counter\" } }\nwindow = { size = \"1d\" }\n\
                aggregates = [\"mean\", \"time_weighted_mean\", \"rate\"]\nlookback = \"0s\"\nwatermark_delay = \"1h\"\nallowed_lateness = \"36500d\"\n\
                coarsen = []\n";
    plan_toml::parse(text, "plan").unwrap().queries.remove(0)
}

/// A reading: when, the value, and a meter that has gone up by all values before.
type Reading = (i64, i128, i128);

fn read(file: &Path) -> Vec<Reading> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut meter = 0;
    let rows = text.lines().skip(1).filter_map(|row| row.split_once(','));
    let readings = rows.enumerate().map(|(number, (at, value))| {
        let at: jiff::Timestamp = format!("{}Z", at.trim().replace(' ', "T")).parse().unwrap();
        let units = Value::parse(value.trim().as_bytes()).unwrap().value.units();
        if number % RESET == 0 {
            meter = 0;
        }
        meter += units.abs();
        (at.as_microsecond(), units, meter)
    });
    readings.collect()
}

/// The double nearest to the area under the steps, divided by the time; and whether `cell` is it.
fn check_mean(name: &str, cell: &Cell, points: &BTreeSet<(i64, i128)>) -> f64 {
    let Cell::Real(real) = cell else {
        panic!("{name}: {cell:?}")
    };
    let points: Vec<_> = points.iter().collect();
    let area: BigInt = points
        .windows(2)
        .map(|pair| BigInt::from(pair[0].1) * (pair[1].0 - pair[0].0))
        .sum();
    let time = points[points.len() - 1].0 - points[0].0;
    assert!(
        is_nearest(*real, &area, &(BigInt::from(10_i128.pow(18)) * time)),
        "{name}: {real}"
    );
    *real
}

fn check_rate(name: &str, cell: &Cell, points: &BTreeSet<(i64, i128)>) {
    let Cell::Real(real) = cell else {
        panic!("{name}: {cell:?}")
    };
    let points: Vec<_> = points.iter().collect();
    let step = |pair: &[&(i64, i128)]| {
        if pair[1].1 < pair[0].1 {
            pair[1].1
        } else {
            pair[1].1 - pair[0].1
        }
    };
    let increase: i128 = points.windows(2).map(step).sum();
    let time = points[points.len() - 1].0 - points[0].0;
    let (top, bottom) = (BigInt::from(increase), BigInt::from(10_i128.pow(12)) * time);
    assert!(is_nearest(*real, &top, &bottom), "{name}: {real}");
}

#[test]
fn days_of_six_real_series_have_their_means_over_time_and_rates() {
    if !folder().is_dir() {
        eprintln!(
            "NOT RUN: there is no {}: the real series were not read",
            folder().display()
        );
        return;
    }
    let files = std::fs::read_dir(folder()).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    let query = query();
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let mut readings = read(&file);
        let mut direct = Direct::new(vec![query.clone()], 2, Timestamp::clamped(readings[0].0));
        let mut days: BTreeMap<i64, [BTreeSet<(i64, i128)>; 2]> = BTreeMap::new();
        for &(at, units, meter) in &readings {
            let day = days.entry(at.div_euclid(DAY)).or_default();
            day[0].insert((at, units));
            day[1].insert((at, meter));
        }
        // Neighbours change places, and two agents have every other one.
        readings.chunks_mut(2).for_each(<[Reading]>::reverse);
        for (number, (at, units, meter)) in readings.iter().enumerate() {
            let ahead = at - direct.wall().as_micros();
            if ahead > 0 {
                direct.pass(Span::from_micros(ahead));
            }
            let [v, meter] = [units, meter].map(|units| Value::from_units(*units).unwrap());
            let payload = format!("{{\"ts\":{at},\"v\":{v},\"meter\":{meter}}}");
            direct.publish(number % 2, &format!("s/{name}"), &payload);
            if number % 50 == 0 {
                direct.run();
            }
        }
        for _ in 0..3 {
            direct.pass(Span::from_days(2));
            direct.run();
        }
        let rows = direct.rows(&query);
        assert_eq!(rows.len(), days.len(), "{name}");
        let (mut furthest, mut alone) = (0.0_f64, 0);
        for (row, [values, meters]) in rows.iter().zip(days.values()) {
            assert_eq!(query.columns()[1].name, "v_time_weighted_mean");
            assert_eq!(query.columns()[5].name, "meter_rate");
            if values.len() == 1 {
                alone += 1;
                assert_eq!(row.values[0], row.values[1], "{name}: one reading is the mean");
                assert_eq!(row.values[5], Cell::Null, "{name}: and has no rate");
                continue;
            }
            let mean = check_mean(name, &row.values[1], values);
            check_rate(name, &row.values[5], meters);
            let Cell::Real(plain) = row.values[0] else {
                panic!("{:?}", row.values[0])
            };
            furthest = furthest.max(((plain - mean) / mean).abs());
        }
        println!(
            "{name}: {} days exact, {alone} of them with one reading; the mean of a day's readings is up to {:.1} % off the mean over time",
            days.len(),
            furthest * 100.0
        );
    }
}
