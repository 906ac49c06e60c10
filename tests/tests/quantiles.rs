//! Quantiles of six real series against their sorted readings: exact where a resolution is set, within the stated error
//! where none is.
//!
//! The series lie outside the repository, beside it: `../shared/data/nab`. Every day is a window, and the whole series
//! is one.

use std::path::{Path, PathBuf};

use catchment_aggregator::plan_toml;
use catchment_common::lower::{Merged, lower};
use catchment_common::number::decimal::{Resolution, Value};
use catchment_common::plan::{Components, Query};
use catchment_common::sketch::{Buckets, Divider, Shape, Sketch, logarithm};
use catchment_common::stats::{Lowered, Stats};
use catchment_common::time::{Span, Timestamp};

const QUANTILES: [(&str, u64); 7] = [
    ("p0", 0),
    ("p1", 10),
    ("p25", 250),
    ("median", 500),
    ("p90", 900),
    ("p99.9", 999),
    ("p100", 1_000),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/nab")
}

fn query(resolution: Option<&str>) -> Query {
    let names: Vec<String> = QUANTILES.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let field = resolution.map_or("\"v\"".to_owned(), |step| {
        format!("{{ path = \"v\", resolution = {step} }}")
    });
    let text = format!(
        "[[query]]\nname = \"q\"\ntopic = \"t\"\nkey = []\nfields = {{ v = {field} }}\nwindow = {{ size = \"1d\" }}\n\
         aggregates = [{}]\n",
        names.join(", ")
    );
    plan_toml::parse(&text, "plan").unwrap().queries.remove(0)
}

/// The answers to all quantiles, and the level that they needed.
fn answers(query: &Query, values: &[Value]) -> (Vec<f64>, u8) {
    let (mut stats, mut buckets) = (Stats::IDENTITY, Buckets::EMPTY);
    let divider = query.fields[0].resolution.map(Divider::new);
    for &value in values {
        stats.lift(Components::EXTREMA, Timestamp::clamped(0), value);
        match divider {
            Some(divider) => buckets.lift(Shape::Linear, divider.bucket(value)),
            None => buckets.lift(Shape::Log, (0, logarithm::bucket_of(value.units()))),
        }
    }
    let (level, sketches) = (buckets.level, [Sketch::Buckets(buckets)]);
    let answers = query.columns().into_iter().map(|column| {
        let merged = Merged {
            stats: &[stats],
            sketches: &sketches,
            courses: &[],
        };
        match lower(query, &column, merged, Span::from_days(1)) {
            Some(Lowered::Real(answer)) => answer,
            other => panic!("{}: {other:?}", column.name),
        }
    });
    (answers.collect(), level)
}

fn float(value: Value) -> f64 {
    value.to_string().parse().unwrap()
}

/// Compares all quantiles with the sorted values; returns the largest error, relative to the value, and the level.
fn compare(query: &Query, mut values: Vec<Value>) -> (f64, u8) {
    let (answers, level) = answers(query, &values);
    values.sort_unstable();
    let mut worst: f64 = 0.0;
    for (&(name, thousandths), &answer) in QUANTILES.iter().zip(&answers) {
        let rank = (thousandths * values.len() as u64).div_ceil(1_000).max(1);
        let truth = float(values[rank as usize - 1]);
        let error = (answer - truth).abs();
        let stated = match query.fields[0].resolution {
            Some(_) if level == 0 => 0.0,
            Some(step) => step as f64 / 1e18 * f64::from(1_u32 << level) / 2.0,
            None => truth.abs() * f64::from(1_u32 << level) / 128.0,
        };
        assert!(
            error <= stated * (1.0 + 1e-12),
            "{name}: {answer} for {truth}, level {level}"
        );
        if truth != 0.0 {
            worst = worst.max(error / truth.abs());
        }
    }
    assert!(answers.is_sorted(), "{answers:?}");
    (worst, level)
}

#[test]
fn quantiles_of_six_real_series_are_exact_or_within_their_error() {
    if !folder().is_dir() {
        eprintln!(
            "NOT RUN: there is no {}: the real series were not read",
            folder().display()
        );
        return;
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "csv"))
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    let (log, linear) = (query(None), query(Some("0.01")));
    let resolution = Resolution::from_units(linear.fields[0].resolution.unwrap()).unwrap();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let rows: Vec<(&str, &str)> = text
            .lines()
            .skip(1)
            .filter_map(|row| row.split_once(','))
            .collect();
        let parse = |text: &str| Value::parse(text.trim().as_bytes()).unwrap();
        let mut windows: Vec<Vec<&str>> = rows
            .chunk_by(|a, b| a.0.split(' ').next() == b.0.split(' ').next())
            .map(|day| day.iter().map(|row| row.1).collect())
            .collect();
        let days = windows.len();
        windows.push(rows.iter().map(|row| row.1).collect());
        let (mut worst_log, mut inexact) = (0.0_f64, 0);
        for window in windows {
            let (error, level) = compare(&log, window.iter().map(|text| parse(text).value).collect());
            assert_eq!(level, 0, "a real series does not spread over 16 powers of two");
            worst_log = worst_log.max(error);
            let rounded = window.iter().map(|text| resolution.round(parse(text)).unwrap());
            let (_, level) = compare(&linear, rounded.collect());
            inexact += usize::from(level > 0);
        }
        println!(
            "{}: {days} days; logarithmic within {:.3} %; linear exact in all but {inexact} windows",
            file.file_name().unwrap().to_string_lossy(),
            100.0 * worst_log,
        );
        assert!(worst_log <= 0.0079);
        assert!(
            inexact <= 1,
            "each day has few different values; the whole may have many"
        );
    }
}
