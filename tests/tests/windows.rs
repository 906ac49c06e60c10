//! Every kind of window with every function, over input that is in order, late, doubled, out of order or split over
//! agents: the production agents and aggregator against the oracle. The table in `docs/WINDOWS.md` is what comes out;
//! `CATCHMENT_BLESS=1` writes it anew.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use catchment_aggregator::plan_toml;
use catchment_common::plan::{Plan, Query};
use catchment_common::time::{Span, Timestamp};
use catchment_firmware_sim::dice::Dice;
use catchment_firmware_sim::oracle::Oracle;
use catchment_firmware_sim::truth::Entry;
use catchment_firmware_sim::verify::{Cell, Losses, Verifier};
use catchment_tests::direct::Direct;

const KINDS: [(&str, &str); 7] = [
    ("tumbling", "{ size = \"1m\" }"),
    ("hopping", "{ size = \"1m\", every = \"20s\" }"),
    ("offset", "{ size = \"1m\", offset = \"10s\" }"),
    ("session", "{ session = \"15s\" }"),
    ("day in Berlin", "{ size = \"1d\", timezone = \"Europe/Berlin\" }"),
    (
        "week in Kolkata",
        "{ size = \"1w\", timezone = \"Asia/Kolkata\" }",
    ),
    ("count", "{ count = 7 }"),
];
/// `hum` has a resolution, so that its quantiles are exact; those of `temp` are within their stated error.
const AGGREGATES: [&str; 20] = [
    "count",
    "rate",
    "sum",
    "mean",
    "min",
    "max",
    "range",
    "variance",
    "stddev",
    "first",
    "last",
    "delta",
    "p50",
    "p99.9",
    "distinct(room)",
    "histogram(0, 10, 50)",
    "top(3, room)",
    "increase",
    COUNTER_RATE,
    "time_weighted_mean",
];
/// `rate` where the fields are counters.
const COUNTER_RATE: &str = "rate of a counter";
const INPUTS: [&str; 5] = ["in order", "late", "doubled", "out of order", "two agents"];
/// 2026-03-28T12:00:00Z: a day later clocks change in Berlin.
const START: i64 = 1_774_699_200_000_000;
const HOURS: i64 = 40;

/// The query of a kind and a function, by their places.
fn name(kind: usize, aggregate: usize) -> String {
    format!("q{kind}_{aggregate}")
}

/// Series are not of count windows, which come last among the kinds.
fn functions(window: &str) -> &'static [&'static str] {
    let series = if window.starts_with("{ count") { 3 } else { 0 };
    &AGGREGATES[..AGGREGATES.len() - series]
}

fn queries() -> Vec<Query> {
    let mut text = String::new();
    for (kind, (_, window)) in KINDS.iter().enumerate() {
        for (number, function) in functions(window).iter().enumerate() {
            let (aggregate, is_of_counters) = match *function {
                COUNTER_RATE => ("rate", true),
                function => (function, function == "increase"),
            };
            let field_kind = if is_of_counters { "counter" } else { "gauge" };
            let _ = write!(
                text,
                "[[query]]\nname = \"{}\"\ntopic = \"s/{{device}}\"\ntime = {{ path = \"ts\", unit = \"ms\" }}\n\
                 key = [\"device\"]\ntags = {{ room = \"room\" }}\nfields = {{ temp = {{ path = \"temp\", kind = \"{field_kind}\" }}, hum = {{ path = \"hum\", resolution = 0.1, kind = \"{field_kind}\" }} }}\n\
                 window = {window}\naggregates = [\"{aggregate}\"]\nwatermark_delay = \"5s\"\nidle = \"10s\"\n\
                 allowed_lateness = \"3650d\"\nmax_ahead = \"3650d\"\ncoarsen = []\ndedupe = \"seq\"\n\n",
                name(kind, number),
            );
        }
    }
    plan_toml::parse(&text, "plan").expect("the plan is good").queries
}

/// One reading as it is published.
#[derive(Clone)]
struct Published {
    agent: usize,
    at: i64,
    topic: String,
    payload: String,
}

/// A few readings each hour, some close together and some with pauses: at edges, twice at one time, with half of their
/// fields.
fn stream() -> Vec<Published> {
    let mut dice = Dice::new(7, 0);
    let (mut stream, mut seq) = (Vec::new(), 0);
    for hour in 0..HOURS {
        let mut at = START / 1_000 + hour * 3_600_000;
        for _ in 0..8 {
            at += [0, 1_000, 5_000, 10_000, 14_999, 15_000, 20_000][dice.below(7) as usize];
            seq += 1;
            let (value, device) = (dice.around_zero(5_000), dice.below(2));
            let hum = if dice.below(4) == 0 {
                String::new()
            } else {
                format!(",\"hum\":{}.{}", dice.below(100), dice.below(100))
            };
            stream.push(Published {
                agent: 0,
                at: at * 1_000,
                topic: format!("s/d{device}"),
                payload: format!(
                    "{{\"ts\":{at},\"seq\":{seq},\"room\":\"r{}\",\"temp\":{}.{}{hum}}}",
                    dice.below(9),
                    value / 10,
                    value.abs() % 10
                ),
            });
        }
    }
    stream
}

/// The stream as an input has it: when each message comes, and where.
fn input(which: &str) -> Vec<Published> {
    let mut dice = Dice::new(8, 0);
    let mut stream = stream();
    match which {
        "in order" => {}
        "late" => {
            // Hours after their windows have been shown.
            for late in stream.iter_mut().step_by(7) {
                late.at += 3 * 3_600_000_000;
            }
            stream.sort_by_key(|published| published.at);
        }
        "doubled" => {
            let twice = stream.iter().flat_map(|published| {
                let count = if dice.below(3) == 0 { 2 } else { 1 };
                std::iter::repeat_n(published.clone(), count)
            });
            stream = twice.collect();
        }
        "out of order" => {
            for block in stream.chunks_mut(8) {
                let latest = block.iter().map(|published| published.at).max().unwrap_or(0);
                for at in (1..block.len()).rev() {
                    block.swap(at, dice.below(at as u32 + 1) as usize);
                }
                for published in block {
                    published.at = latest;
                }
            }
        }
        "two agents" => {
            for (number, published) in stream.iter_mut().enumerate() {
                published.agent = number % 2;
            }
        }
        other => panic!("{other}"),
    }
    stream
}

/// Runs one input; for each query whether its table is the truth, and how many rows were revised.
fn run(which: &str) -> Vec<(Result<(), String>, usize)> {
    let (queries, input) = (queries(), input(which));
    let mut direct = Direct::new(queries.clone(), 2, Timestamp::clamped(START));
    let mut oracle = Oracle::new(&Plan {
        version: 1,
        queries: queries.clone(),
    });
    for (number, published) in input.iter().enumerate() {
        let ahead = published.at - direct.wall().as_micros();
        if ahead > 60_000_000 {
            // The watermarks pass the windows before.
            direct.pass(Span::from_secs(30));
            direct.run();
            direct.pass(Span::from_micros(ahead - 30_000_000));
        }
        direct.publish(published.agent, &published.topic, &published.payload);
        // Also in the middle of an hour, so that sessions close and windows are shown between its readings.
        if number % 4 == 0 {
            direct.run();
        }
        // Which agent took it matters to count windows.
        let agent = direct.name(published.agent);
        oracle.handle_of(
            &agent,
            &Entry::Good {
                topic: published.topic.as_str().into(),
                payload: published.payload.as_str().into(),
            },
        );
        if number == input.len() / 2 {
            // Windows that are not full leave early, and are revised.
            direct.send_open();
        }
    }
    direct.send_open();
    for _ in 0..3 {
        direct.pass(Span::from_days(8));
        direct.run();
    }
    let tables = oracle.into_queries().into_iter().map(|expected| {
        let query = expected.query.clone();
        let mut verifier = Verifier::new(expected, Losses::default());
        for row in direct.rows(&query) {
            verifier.handle_row(&row);
        }
        let comparison = verifier.finish();
        let is_right = comparison.rows > 0
            && comparison.is_equal()
            && (comparison.extra, comparison.partial, comparison.open) == (0, 0, 0);
        let result = is_right
            .then_some(())
            .ok_or_else(|| format!("{comparison}: {:?}", comparison.differences));
        (result, direct.revised(&query))
    });
    tables.collect()
}

#[test]
fn every_window_with_every_function_is_exact_and_the_page_says_so() {
    let mut cells = vec![Vec::new(); KINDS.len() * AGGREGATES.len()];
    for which in INPUTS {
        for (place, (result, revised)) in run(which).into_iter().enumerate() {
            let (kind, function) = (
                KINDS[place / AGGREGATES.len()].0,
                AGGREGATES[place % AGGREGATES.len()],
            );
            if let Err(fault) = result {
                panic!("{kind}, {function}, {which}: {fault}");
            }
            assert!(which != "late" || revised > 0, "{kind}: nothing came late");
            cells[place].push(if revised > 0 { "exact, revised" } else { "exact" });
        }
    }
    let mut table = format!(
        "| window | function | {} |\n|---|---|{}\n",
        INPUTS.join(" | "),
        "---|".repeat(INPUTS.len())
    );
    for (place, cells) in cells.iter().enumerate().filter(|(_, cells)| !cells.is_empty()) {
        let (kind, function) = (
            KINDS[place / AGGREGATES.len()].0,
            AGGREGATES[place % AGGREGATES.len()],
        );
        let _ = writeln!(table, "| {kind} | {function} | {} |", cells.join(" | "));
    }
    check_page(&table);
}

/// The page between its two marks.
fn check_page(table: &str) {
    const MARKS: [&str; 2] = [
        "<!-- conformance: written by tests/tests/windows.rs -->\n",
        "<!-- end -->",
    ];
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/WINDOWS.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page
        .split_once(MARKS[0])
        .expect("the page has a place for the table");
    let (held, after) = rest.split_once(MARKS[1]).expect("and an end of it");
    if std::env::var_os("CATCHMENT_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, format!("{before}{}{table}{}{after}", MARKS[0], MARKS[1])).unwrap();
        return;
    }
    assert_eq!(
        held, table,
        "docs/WINDOWS.md differs; CATCHMENT_BLESS=1 writes its table anew"
    );
}

/// Tests that the page names exist.
#[test]
fn the_tests_that_the_page_names_exist() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/WINDOWS.md")).unwrap();
    let bugs = page
        .split("## Bugs of others")
        .nth(1)
        .expect("the section is there");
    let mut sources = String::new();
    let mut folders = ["common", "agent", "aggregator", "firmware-sim", "tests"]
        .map(|folder| root.join(folder))
        .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let rows: Vec<&str> = bugs
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .collect();
    assert!(rows.len() > 10);
    for row in rows {
        let tests = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2);
        for test in tests {
            assert!(
                sources.contains(&format!("fn {test}(")),
                "there is no test {test}"
            );
        }
    }
}

#[test]
fn a_clock_in_the_year_2099_moves_nothing() {
    let text = "[[query]]\nname = \"q\"\ntopic = \"s/{device}\"\ntime = { path = \"ts\", unit = \"ms\" }\nkey = []\n\
                fields = { temp = \"temp\" }\nwindow = { size = \"1m\" }\naggregates = [\"sum\"]\n";
    let query = plan_toml::parse(text, "plan").unwrap().queries.remove(0);
    let mut direct = Direct::new(vec![query.clone()], 1, Timestamp::clamped(START));
    for (device, at) in [
        ("good", START / 1_000),
        ("mad", 4_070_908_800_000),
        ("good", START / 1_000 + 1),
    ] {
        direct.publish(0, &format!("s/{device}"), &format!("{{\"ts\":{at},\"temp\":1}}"));
        direct.run();
        assert_eq!(direct.rows(&query), [], "no window is over");
    }
    direct.pass(Span::from_secs(120));
    direct.run();
    let rows = direct.rows(&query);
    assert_eq!((rows.len(), &rows[0].readings), (1, &Cell::Integer(2)));
    assert_eq!(direct.revised(&query), 0, "the second reading was not late");
}

/// The bytes that an agent sends in ten minutes for so many queries on one pipeline.
fn uplink_bytes(count: usize) -> u64 {
    let mut text = String::new();
    for number in 0..count {
        let function = ["mean", "min", "max", "stddev", "sum", "range"][number % 6];
        // The first has all, so that the others share what it keeps.
        let functions = if number == 0 {
            "\"mean\", \"min\", \"max\", \"stddev\"".into()
        } else {
            format!("\"{function}\"")
        };
        let _ = write!(
            text,
            "[[query]]\nname = \"q{number}\"\ntopic = \"s/{{device}}\"\ntime = {{ path = \"ts\", unit = \"ms\" }}\n\
             key = [\"device\"]\ntags = {{ room = \"room\" }}\nfields = {{ temp = \"temp\" }}\nwindow = {{ size = \"{}s\" }}\naggregates = [{functions}]\n\
             watermark_delay = \"1s\"\nmax_ahead = \"10d\"\ncoarsen = []\n\n",
            10 * (1 + number % 360),
        );
    }
    let queries = plan_toml::parse(&text, "plan").unwrap().queries;
    let mut direct = Direct::new(queries, 1, Timestamp::clamped(START));
    let mut dice = Dice::new(9, 0);
    for second in 0..600 {
        let at = START / 1_000 + second * 1_000;
        for device in 0..20 {
            let payload = format!(
                "{{\"ts\":{at},\"temp\":{}.{}}}",
                20 + dice.below(3),
                dice.below(10)
            );
            direct.publish(0, &format!("s/d{device}"), &payload);
        }
        direct.pass(Span::from_secs(1));
        if second % 5 == 0 {
            direct.run();
        }
    }
    direct.uplink_bytes
}

#[test]
fn a_thousand_queries_on_one_pipeline_ship_what_one_does() {
    let (one, thousand) = (uplink_bytes(1), uplink_bytes(1_000));
    let ratio = thousand as f64 / one as f64;
    println!("uplink bytes of ten minutes: {one} for one query, {thousand} for a thousand: {ratio:.4}");
    assert!(ratio <= 1.02, "{ratio}");
}
