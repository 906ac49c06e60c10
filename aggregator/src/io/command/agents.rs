//! The commands about agents: how they stand, what they had to give up, and retiring one.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use catchment_common::time::{Now, Span};
use serde_json::Value;

use super::show::{OutputFormat, ago, show};
use crate::io::store::sources;
use crate::io::store::sqlite::Sqlite;
use crate::serve::Question;
use crate::serve::agents::{AgentAnswer, Agents};
use crate::serve::losses::Losses;
use crate::store::Store;
use crate::store::lookup::LossRow;
use crate::store::text::{parse_time_text, time_text};

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
    let _moment = store.moment()?;
    let row = |agent: AgentAnswer| {
        let heard = match format {
            OutputFormat::Table => ago(now, agent.heard),
            OutputFormat::Json | OutputFormat::Csv => time_text(agent.heard),
        };
        let about = agent.about;
        vec![
            Value::from(agent.name),
            heard.into(),
            about.plan_version.into(),
            about.backlog_batches.into(),
            about.backlog_bytes.into(),
            about.software.into(),
            sources::shown(&about.sources, &agent.missing).into(),
            agent.retired.into(),
            agent.lost.into(),
            about.conflicts.into(),
            about.forks.into(),
            clock_text(about.clock_offset).into(),
        ]
    };
    let rows = Agents.ask(&store)?.into_iter().map(row).collect();
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
    let question = Losses {
        agent: agent.map(str::to_owned),
    };
    let row = |loss: LossRow| {
        let agent = if loss.agent.is_empty() {
            "(centre)".into()
        } else {
            loss.agent
        };
        vec![
            Value::from(agent),
            loss.queries.join(" ").into(),
            time_text(loss.from).into(),
            time_text(loss.to).into(),
            loss.readings.into(),
            format!("{:016x}", loss.epoch).into(),
            loss.seq.into(),
        ]
    };
    let rows = question.ask(&store)?.into_iter().map(row).collect();
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
fn clock_text(offset: Option<Span>) -> String {
    let Some(offset) = offset.map(Span::as_micros) else {
        return String::new();
    };
    let seconds = Duration::from_secs(offset.unsigned_abs() / 1_000_000);
    match (seconds.is_zero(), offset > 0) {
        (true, _) => "right".into(),
        (false, true) => format!("{} ahead", humantime::format_duration(seconds)),
        (false, false) => format!("{} behind", humantime::format_duration(seconds)),
    }
}
