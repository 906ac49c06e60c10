//! The commands about agents: how they stand, what they had to give up, and retiring one.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use catchment_common::time::{Now, Timestamp};
use serde_json::Value;

use crate::io::command::query::{OutputFormat, show};
use crate::io::store::sources;
use crate::io::store::sqlite::Sqlite;
use crate::io::store::tables::{parse_time_text, time_text};
use crate::store::Store;

/// Writes a row for each agent to `out`.
pub fn agents(database: &Path, now: Now, format: OutputFormat, out: &mut impl Write) -> Result<()> {
    let columns = [
        "agent",
        "heard",
        "plan",
        "backlog_batches",
        "backlog_bytes",
        "software",
        "sources",
        "retired",
        "lost_readings",
        "conflicts",
        "forks",
        "clock",
    ];
    let store = Sqlite::open_to_read(database)?;
    let mut statement = store.connection().prepare(
        "SELECT name, last_heard_us, plan_version, backlog_batches, backlog_bytes, software, sources, retired,
                (SELECT coalesce(sum(readings), 0) FROM catchment_loss WHERE agent = name), conflicts, forks,
                clock_offset_us
         FROM catchment_agent ORDER BY name",
    )?;
    let rows = statement.query_map([], |row| {
        let number = |index| row.get::<_, i64>(index).map(Value::from);
        let heard = Timestamp::clamped(row.get(1)?);
        let heard = match format {
            OutputFormat::Table => ago(now, heard),
            OutputFormat::Json | OutputFormat::Csv => time_text(heard),
        };
        let retired: bool = row.get(7)?;
        Ok(vec![
            Value::from(row.get::<_, String>(0)?),
            heard.into(),
            number(2)?,
            number(3)?,
            number(4)?,
            Value::from(row.get::<_, String>(5)?),
            sources::shown(&row.get::<_, String>(6)?).into(),
            retired.into(),
            number(8)?,
            number(9)?,
            number(10)?,
            clock_text(row.get(11)?).into(),
        ])
    })?;
    let rows = rows.collect::<rusqlite::Result<_>>()?;
    show(&columns.map(String::from), rows, format, out)
}

/// Writes a row for each loss that agents reported to `out`, the newest data first.
pub fn losses(
    database: &Path,
    agent: Option<&str>,
    format: OutputFormat,
    out: &mut impl Write,
) -> Result<()> {
    let columns = ["agent", "queries", "from", "to", "readings", "epoch", "seq"];
    let store = Sqlite::open_to_read(database)?;
    // A loss names the pipeline that it was gathered for; a coarser one stands for the one that it is a rung of.
    let mut statement = store.connection().prepare(
        "SELECT CASE agent WHEN '' THEN '(centre)' ELSE agent END,
                coalesce((SELECT group_concat(query, ' ') FROM catchment_reader r WHERE r.pipeline IN (l.pipeline, s.coarser_of)),
                         ''),
                from_us, to_us, readings, epoch, seq
         FROM catchment_loss l LEFT JOIN catchment_pipeline s ON s.id = l.pipeline
         WHERE ?1 IS NULL OR agent = ?1 ORDER BY from_us DESC, agent, epoch, seq",
    )?;
    let rows = statement.query_map([agent], |row| {
        let time = |index| Ok::<_, rusqlite::Error>(time_text(Timestamp::clamped(row.get(index)?)).into());
        Ok(vec![
            Value::from(row.get::<_, String>(0)?),
            Value::from(row.get::<_, String>(1)?),
            time(2)?,
            time(3)?,
            row.get::<_, i64>(4)?.into(),
            format!("{:016x}", row.get::<_, i64>(5)?.cast_unsigned()).into(),
            row.get::<_, i64>(6)?.cast_unsigned().into(),
        ])
    })?;
    let rows = rows.collect::<rusqlite::Result<_>>()?;
    show(&columns.map(String::from), rows, format, out)
}

/// Retires an agent: no window waits for it any more, nor counts it in its coverage. Its seqs stay known, what it still
/// sends is taken, and its next hello brings it back. With `forget` its seqs are forgotten too.
pub fn retire(database: &Path, agent: &str, forget: bool) -> Result<()> {
    let mut store = Sqlite::open(database)?;
    if !store.retire(agent, forget)? {
        bail!("there is no agent `{agent}`; `agents` lists those that were ever heard");
    }
    Ok(())
}

/// Sets an agent's watermarks back to `to`, or to the present, and returns that: windows from then on wait for it again.
pub fn set_back(database: &Path, agent: &str, to: Option<&str>, now: Now) -> Result<String> {
    let to = match to {
        None => now.wall,
        Some(text) => parse_time_text(text)
            .with_context(|| format!("`{text}` is no instant; write it like 2026-11-28T10:00:00Z"))?,
    };
    let mut store = Sqlite::open(database)?;
    if !store.set_back(agent, to)? {
        bail!("there is no agent `{agent}`; `agents` lists those that were ever heard");
    }
    Ok(time_text(to))
}

/// How an agent's clock is, compared with the aggregator's.
fn clock_text(offset_us: Option<i64>) -> String {
    let Some(offset) = offset_us else {
        return String::new();
    };
    let seconds = Duration::from_secs(offset.unsigned_abs() / 1_000_000);
    match (seconds.is_zero(), offset > 0) {
        (true, _) => "right".into(),
        (false, true) => format!("{} ahead", humantime::format_duration(seconds)),
        (false, false) => format!("{} behind", humantime::format_duration(seconds)),
    }
}

fn ago(now: Now, then: Timestamp) -> String {
    let seconds = now.wall.since(then).as_micros().max(0).unsigned_abs() / 1_000_000;
    format!("{} ago", humantime::format_duration(Duration::from_secs(seconds)))
}
