//! What the commands say, pinned: one database with every kind of row, and everything that can be asked of it.
//!
//! `CATCHMENT_BLESS=1 cargo test -p catchment-aggregator commands` writes the file anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use catchment_common::time::Now;

use super::agents::{agents, losses};
use super::explain::explain;
use super::plan::check_plan;
use super::query::{Selection, query};
use super::show::OutputFormat;
use super::status::status;
use crate::io::store::sqlite::Sqlite;
use crate::plan_toml::Budget;
use crate::store::suite::{Reopen, story};
use crate::testing::now;

const FORMATS: [(&str, OutputFormat); 3] = [
    ("table", OutputFormat::Table),
    ("json", OutputFormat::Json),
    ("csv", OutputFormat::Csv),
];

/// The commands and what they said.
struct Transcript {
    text: String,
    database: PathBuf,
    now: Now,
}

impl Transcript {
    fn run(&mut self, command: &str, run: impl FnOnce(&Path, Now, &mut Vec<u8>) -> Result<()>) {
        let mut out = Vec::new();
        let result = run(&self.database, self.now, &mut out);
        let _ = writeln!(self.text, "$ {command}\n{}", String::from_utf8(out).unwrap());
        if let Err(error) = result {
            let _ = writeln!(self.text, "refused: {error:#}\n");
        }
    }

    fn query(&mut self, name: &str, arguments: &str, selection: &Selection, format: OutputFormat) {
        self.run(&format!("query {name} {arguments}"), |database, now, out| {
            query(database, name, selection, format, now, out)
        });
    }

    fn explain(&mut self, name: &str, key: &str, at: &str) {
        self.run(
            &format!("explain {name} --key {key} --at {at}"),
            |database, _, out| explain(database, name, key, at, out),
        );
    }
}

fn selection() -> Selection {
    Selection {
        since: None,
        from: None,
        to: None,
        tags: Vec::new(),
        limit: 1_000,
    }
}

fn ask_rows(transcript: &mut Transcript) {
    for name in ["q", "s", "c"] {
        for (text, format) in FORMATS {
            transcript.query(name, &format!("--format {text}"), &selection(), format);
        }
    }
    let limited = |limit| Selection { limit, ..selection() };
    for limit in 0..6 {
        for name in ["q", "c"] {
            let arguments = format!("--limit {limit}");
            transcript.query(name, &arguments, &limited(limit), OutputFormat::Csv);
        }
    }
    let tags = |tags: &[&str]| Selection {
        tags: tags.iter().map(ToString::to_string).collect(),
        ..selection()
    };
    for given in [
        &["device=x"][..],
        &["device=x", "site=b"],
        &["device=nobody"],
        &["device"],
        &["room=1"],
    ] {
        let arguments = format!("--where {}", given.join(" --where "));
        transcript.query("q", &arguments, &tags(given), OutputFormat::Table);
    }
    let (from, to) = ("1970-01-01T00:01:40Z", "1970-01-01T00:01:50Z");
    for selection in [
        Selection {
            from: Some(from.into()),
            to: Some(to.into()),
            ..selection()
        },
        Selection {
            since: Some(Duration::from_secs(999_860)),
            ..selection()
        },
        Selection {
            from: Some("yesterday".into()),
            ..selection()
        },
        Selection {
            to: Some("2600-01-01T00:00:00Z".into()),
            ..selection()
        },
    ] {
        let arguments = format!("{:?}", (selection.since, &selection.from, &selection.to));
        transcript.query("q", &arguments, &selection, OutputFormat::Csv);
    }
    transcript.query("nobody", "", &selection(), OutputFormat::Table);
}

fn ask_explanations(transcript: &mut Transcript) {
    for (name, key, at) in [
        ("q", "site=b,device=x", "1970-01-01T00:01:45Z"),
        ("q", "device=x,site=b", "1970-01-01T00:02:30Z"),
        ("q", "site=b,device=x", "1970-01-01T00:03:30Z"),
        ("s", "device=x", "1970-01-01T00:01:55Z"),
        ("c", "device=x,agent=a", "1970-01-01T00:01:39Z"),
        ("q", "site=a,device=x", "1970-01-01T00:04:30Z"),
        ("q", "site=none,device=x", "1970-01-01T00:04:30Z"),
        ("q", "site=b", "1970-01-01T00:01:45Z"),
        ("q", "site=b,room=1", "1970-01-01T00:01:45Z"),
        ("q", "site", "1970-01-01T00:01:45Z"),
        ("q", "site=b,device=x", "noon"),
        ("nobody", "", "1970-01-01T00:01:45Z"),
    ] {
        transcript.explain(name, key, at);
    }
}

fn ask_agents(transcript: &mut Transcript) {
    transcript.run("status", status);
    for (text, format) in FORMATS {
        let command = format!("agents --format {text}");
        transcript.run(&command, |database, now, out| agents(database, now, format, out));
        let command = format!("losses --format {text}");
        transcript.run(&command, |database, _, out| losses(database, None, format, out));
    }
    for agent in ["a", "b"] {
        let command = format!("losses --agent {agent}");
        transcript.run(&command, |database, _, out| {
            losses(database, Some(agent), OutputFormat::Csv, out)
        });
    }
}

fn check(transcript: &mut Transcript, plan: &str, budget: Budget) {
    let file = transcript.database.with_file_name("plan.toml");
    std::fs::write(&file, plan).unwrap();
    let mut out = Vec::new();
    let result = check_plan(&file, budget, &mut out);
    let folder = format!("{}/", file.parent().unwrap().display());
    let mut said = String::from_utf8(out).unwrap();
    if let Err(error) = result {
        let _ = writeln!(said, "refused: {error:#}");
    }
    let _ = writeln!(
        transcript.text,
        "$ plan check --memory {} --keys {}\n{}",
        budget.memory_bytes,
        budget.keys,
        said.replace(&folder, "")
    );
}

fn check_plans(transcript: &mut Transcript) {
    const SERIES: &str = "
[[query]]
name = \"meter\"
topic = \"m/{device}\"
key = [\"device\"]
fields = { energy = { path = \"e\", kind = \"counter\" } }
window = { size = \"1m\", every = \"30s\", offset = \"10s\" }
aggregates = [\"increase\"]
memory = \"64 KiB\"
[[query]]
name = \"days\"
topic = \"m/{device}\"
key = [\"device\"]
fields = { temp = \"temp\" }
window = { size = \"1d\", timezone = \"Europe/Berlin\" }
aggregates = [\"mean\"]
";
    let budget = |memory_bytes, keys| Budget { memory_bytes, keys };
    check(transcript, story::FIRST, budget(8 << 20, 1));
    check(
        transcript,
        &format!("{}{SERIES}", story::FIRST),
        budget(8 << 20, 1),
    );
    check(transcript, story::FIRST, budget(8 << 10, 1_000));
    check(
        transcript,
        &story::FIRST.replace("3s", "3 lightyears"),
        budget(8 << 20, 1),
    );
}

#[test]
fn commands_say_what_they_said() {
    let folder = tempfile::tempdir().unwrap();
    let store = story::play(Sqlite::fresh(folder.path()));
    // A column that somebody else has added.
    store
        .connection()
        .execute_batch("ALTER TABLE q ADD COLUMN note TEXT; UPDATE q SET note = 'ours' WHERE coarse = 1")
        .unwrap();
    drop(store);
    let mut transcript = Transcript {
        text: String::new(),
        database: folder.path().join("centre.db"),
        now: now(100),
    };
    ask_rows(&mut transcript);
    ask_explanations(&mut transcript);
    ask_agents(&mut transcript);
    check_plans(&mut transcript);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/io/command/tests/golden.txt");
    if std::env::var_os("CATCHMENT_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&golden, &transcript.text).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    for (line, (said, expected)) in (1..).zip(transcript.text.lines().zip(expected.lines())) {
        assert_eq!(said, expected, "line {line} of {}", golden.display());
    }
    assert_eq!(transcript.text, expected);
}
