//! What the centre does with partials: made durable through commits, and found again after a restart.
//!
//! `cargo bench -p catchment-tests --bench centre -- commit restart` runs the named measurements, or both without a
//! name. The disk is real and syncs are on: both CPU time and time on the wall are shown.

#![allow(clippy::disallowed_methods, reason = "a bench reads clocks")]

mod support;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use catchment_aggregator::aggregator::{Aggregator, Settings};
use catchment_aggregator::io::pki;
use catchment_aggregator::io::store::sqlite::Sqlite;
use catchment_aggregator::limits::DUE_ROWS_MAX;
use catchment_aggregator::plan_toml;
use catchment_aggregator::store::{Reads, Store};
use catchment_common::time::Now;
use catchment_common::wire::{Heartbeat, Hello, Message, VERSION};
use support::partials::{keys, seal, section};
use support::{at, seconds, thread_cpu, timestamp};

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    if is_wanted("commit") {
        commit(true)?;
        commit(false)?;
        rows()?;
    }
    if is_wanted("restart") {
        restart()?;
    }
    Ok(())
}

/// One field, as the target says.
const PLAN: &str = r#"
[[query]]
name       = "climate"
topic      = "sensors/{site}/{device}/env"
time       = { path = "ts", unit = "ms" }
key        = ["site", "device"]
fields     = { temp = { path = "temp", resolution = 0.01 } }
window     = { size = "10s" }
aggregates = ["count", "mean", "stddev", "min", "max"]
"#;

const SETTINGS: Settings = Settings {
    lease: seconds(3_600),
    heartbeat: seconds(5),
    due_rows: DUE_ROWS_MAX,
    memory: usize::MAX,
};
const AGENTS: u64 = 8;
const KEYS_PER_AGENT: usize = 1_000;

/// An aggregator over a store, as the server's two threads have them.
struct Centre {
    store: Sqlite,
    reader: Sqlite,
    aggregator: Aggregator,
    machine_cpu: Duration,
    store_cpu: Duration,
    commits: usize,
}

impl Centre {
    fn open(folder: &std::path::Path, plan: &str, now: Now) -> Result<Self> {
        let path = folder.join("catchment.db");
        let mut store = Sqlite::open(&path)?;
        store.apply_plan(plan_toml::parse(plan, "plan.toml")?, plan, now.wall)?;
        let reader = Sqlite::open_to_read(&path)?;
        Ok(Self {
            aggregator: reader.restore(SETTINGS, now)?,
            store,
            reader,
            machine_cpu: Duration::ZERO,
            store_cpu: Duration::ZERO,
            commits: 0,
        })
    }

    fn greet(&mut self, now: Now) -> Result<()> {
        for agent in 0..AGENTS {
            let name = format!("agent-{agent}");
            self.aggregator.handle_connected(agent, &name, VERSION);
            let hello = Hello {
                agent: name,
                software: "bench".into(),
                epoch: 1,
                plan: 0,
                database: None,
                lineage: None,
                held: Vec::new(),
            };
            self.handle(now, agent, Message::Hello(hello).emit().into())?;
        }
        self.commit(now)
    }

    fn handle(&mut self, now: Now, connection: u64, frame: Bytes) -> Result<()> {
        let start = thread_cpu();
        self.aggregator
            .handle_frame(now, connection, frame, &self.reader)?;
        self.machine_cpu += thread_cpu().saturating_sub(start);
        Ok(())
    }

    fn commit(&mut self, now: Now) -> Result<()> {
        let start = thread_cpu();
        let commit = self.aggregator.poll_commit(now, &self.reader)?;
        let polled = thread_cpu();
        self.machine_cpu += polled.saturating_sub(start);
        let Some(commit) = commit else { return Ok(()) };
        self.store.commit(&commit)?;
        self.store_cpu += thread_cpu().saturating_sub(polled);
        self.aggregator.handle_committed(commit.id);
        while self.aggregator.poll_transmit().is_some() {}
        self.commits += 1;
        Ok(())
    }
}

/// Partials from frame to durable: eight agents, a pane of a thousand keys each at a time, one commit for a second's
/// worth. `held`: windows stay open, so that partials alone are measured; else each becomes a row as well.
fn commit(held: bool) -> Result<()> {
    const PANES: i64 = 64;
    const PANES_PER_COMMIT: i64 = 8;
    let folder = tempfile::tempdir()?;
    let mut centre = Centre::open(folder.path(), PLAN, at(0))?;
    let id = centre.aggregator.catalog().current[0];
    centre.greet(at(0))?;
    let all = keys(KEYS_PER_AGENT * AGENTS as usize);
    let frames: Vec<Bytes> = (0..PANES)
        .flat_map(|pane| {
            all.chunks(KEYS_PER_AGENT)
                .map(move |keys| seal(&[&section(id, keys, pane * 10_000_000, 5)], pane as u64 + 1).into())
        })
        .collect();
    let partials = PANES as usize * KEYS_PER_AGENT * AGENTS as usize;
    (centre.machine_cpu, centre.store_cpu, centre.commits) = (Duration::ZERO, Duration::ZERO, 0);
    let start = Instant::now();
    for (pane, frames) in frames.chunks(AGENTS as usize).enumerate() {
        let pane = pane as i64;
        let now = at((pane + 1) * 100_000);
        for (agent, frame) in frames.iter().enumerate() {
            centre.handle(now, agent as u64, frame.clone())?;
            let passed = if held {
                timestamp(0)
            } else {
                timestamp((pane + 1) * 10_000_000)
            };
            let heartbeat = Heartbeat {
                epoch: 1,
                era: 1,
                seq: pane as u64 + 1,
                oldest: pane as u64 + 1,
                watermarks: vec![(id, passed)],
                counters: Vec::new(),
                backlog_batches: 0,
                backlog_bytes: 0,
                sources: Vec::new(),
                clock: None,
            };
            centre.handle(now, agent as u64, Message::Heartbeat(heartbeat).emit().into())?;
        }
        if (pane + 1) % PANES_PER_COMMIT == 0 {
            centre.commit(now)?;
        }
    }
    let wall = start.elapsed();
    let rows: i64 = centre
        .reader
        .connection()
        .query_row("SELECT count(*) FROM climate", [], |row| row.get(0))?;
    ensure!(
        rows as usize == if held { 0 } else { partials },
        "{rows} rows of {partials}"
    );
    let millions = |time: Duration| partials as f64 / time.as_secs_f64() / 1e6;
    println!(
        "commit, {}: {partials} partials in {} commits: {:.2} M/s of CPU time (machine {:.2} M/s, store {:.2} M/s), {:.2} \
         M/s on the wall",
        if held {
            "partials alone"
        } else {
            "with a result row for each"
        },
        centre.commits,
        millions(centre.machine_cpu + centre.store_cpu),
        millions(centre.machine_cpu),
        millions(centre.store_cpu),
        millions(wall),
    );
    Ok(())
}

/// The baseline: one row for each partial, same database settings, prepared statement, one transaction for as many.
fn rows() -> Result<()> {
    const ROWS: usize = 64_000;
    let folder = tempfile::tempdir()?;
    let connection = rusqlite::Connection::open(folder.path().join("rows.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(
        "CREATE TABLE partial (pane INTEGER, key TEXT, count INTEGER, sum REAL, squares REAL, min REAL, max REAL,
         PRIMARY KEY (pane, key)) WITHOUT ROWID",
    )?;
    let keys: Vec<String> = keys(8_000)
        .into_iter()
        .map(String::from_utf8)
        .collect::<Result<_, _>>()?;
    let (cpu, start) = (thread_cpu(), Instant::now());
    connection.execute_batch("BEGIN IMMEDIATE")?;
    {
        let mut insert =
            connection.prepare("INSERT INTO partial VALUES (?1, ?2, 10, 213.7, 4567.8, 20.1, 22.9)")?;
        for row in 0..ROWS {
            insert.execute(rusqlite::params![
                (row / keys.len()) as i64,
                keys[row % keys.len()]
            ])?;
        }
    }
    connection.execute_batch("COMMIT")?;
    let millions = |time: Duration| ROWS as f64 / time.as_secs_f64() / 1e6;
    println!(
        "  baseline, a row for each partial of f64s: {:.2} M/s of CPU time, {:.2} M/s on the wall",
        millions(thread_cpu().saturating_sub(cpu)),
        millions(start.elapsed()),
    );
    Ok(())
}

/// From the start of the process to its listening, with a million stored partials that an open window needs.
fn restart() -> Result<()> {
    const PANES: i64 = 125;
    let folder = tempfile::tempdir()?;
    let plan = PLAN.replace("{ size = \"10s\" }", "{ size = \"1h\", every = \"10s\" }");
    // The wall clock of the restarted process is the real one, and the lease must not have run out.
    let mut centre = Centre::open(folder.path(), &plan, at(0))?;
    let id = centre.aggregator.catalog().current[0];
    centre.greet(at(0))?;
    let all = keys(KEYS_PER_AGENT * AGENTS as usize);
    for pane in 0..PANES {
        for (agent, keys) in all.chunks(KEYS_PER_AGENT).enumerate() {
            let frame = seal(&[&section(id, keys, pane * 10_000_000, 5)], pane as u64 + 1);
            centre.handle(at(pane * 1_000_000), agent as u64, frame.into())?;
        }
        centre.commit(at(pane * 1_000_000))?;
    }
    let partials = centre.aggregator.panes().partials();
    // The last checkpoint; what came since is replayed from the appended batches.
    let (chunks, batches): (i64, i64) = centre.reader.connection().query_row(
        "SELECT (SELECT count(*) FROM catchment_pane), (SELECT count(*) FROM catchment_batch)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    drop(centre);
    pki::init(&folder.path().join("pki"), &["catchment-aggregator".into()])?;
    std::fs::write(
        folder.path().join("aggregator.toml"),
        "listen = \"127.0.0.1:0\"\n[tls]\npki = \"pki\"\n",
    )?;
    let binaries = support::process::binaries()?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let (process, _) = support::process::serve(&binaries, folder.path())?;
        times.push((start.elapsed(), process.cpu()?, process.rss()?.0));
    }
    let log = std::fs::read_to_string(folder.path().join("aggregator.log"))?;
    ensure!(
        log.matches(&format!("partials={partials}")).count() == times.len(),
        "not all partials came back:\n{log}"
    );
    times.sort_unstable();
    let (wall, cpu, rss) = *times.get(2).context("five runs")?;
    println!(
        "restart: {partials} stored partials ({chunks} chunks and {batches} batches to replay) to listening: median {:.2} s \
         on the wall, {:.2} s of CPU, RSS {} MiB",
        wall.as_secs_f64(),
        cpu.as_secs_f64(),
        rss >> 10,
    );
    Ok(())
}
