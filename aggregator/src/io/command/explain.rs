//! `explain`: what one result row is made of, and how it came about.
//!
//! Readings come from the panes themselves, as stored and as appended since, so what is shown is what a recomputation
//! of the row would merge. Who shipped a pane is known for the pane as a whole, not key by key: that would be a row for
//! each (pane, key, agent).

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use catchment_common::key::KeyBuffer;
use catchment_common::limits::WINDOW_STEP_MIN;
use catchment_common::plan::{Pipeline, PipelineId, Query};
use catchment_common::time::{Span, Timestamp};
use catchment_common::wire::Batch;
use rusqlite::params;

use crate::catalog::{Catalog, RunningQuery};
use crate::commit::PaneSource;
use crate::io::command::query::{explain_fault, instant, table};
use crate::io::store::sqlite::Sqlite;
use crate::io::store::sqlite::pipelines::bits;
use crate::io::store::tables::{parse_time_text, time_text};
use crate::merge::Panes;
use crate::store::Reads;

/// Writes to `out` what the rows of a query over an instant (RFC 3339), of the key given as `tag=value,…`, are made of.
pub fn explain(database: &Path, name: &str, key: &str, at: &str, out: &mut impl Write) -> Result<()> {
    let store = Sqlite::open_to_read(database)?;
    show(&store, name, key, at, out).map_err(|error| explain_fault(&store, error))
}

fn show(store: &Sqlite, name: &str, key: &str, at: &str, out: &mut impl Write) -> Result<()> {
    let catalog = store.catalog()?;
    let Some(query) = catalog.queries.iter().find(|query| query.query.name == name) else {
        let known: Vec<&str> = catalog
            .queries
            .iter()
            .map(|query| query.query.name.as_str())
            .collect();
        bail!("there is no query `{name}`; the plan has {}", or_none(&known));
    };
    let tags = tags(&query.query, key)?;
    let at = instant(at)?;
    let rows = rows(store, &query.query, &tags, at)?;
    if rows.is_empty() {
        bail!(
            "{name} has no row of {} over {}{}",
            or_none(&tags),
            time_text(at),
            nearest(store, &query.query, &tags, at)?
        );
    }
    for row in &rows {
        show_row(store, &catalog, query, &tags, row, out)?;
    }
    Ok(())
}

fn or_none<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

/// The values of the key's tags, in its order.
fn tags(query: &Query, key: &str) -> Result<Vec<String>> {
    let mut given = Vec::new();
    for part in key.split(',').filter(|part| !part.is_empty()) {
        let (tag, value) = part
            .split_once('=')
            .with_context(|| format!("`{part}` is not tag=value"))?;
        ensure!(
            query.row_tags().contains(&tag),
            "`{tag}` is no tag of `{}`; its key is {}",
            query.name,
            or_none(&query.row_tags())
        );
        given.push((tag, value));
    }
    let value = |tag: &str| {
        let given = given.iter().find(|(given, _)| *given == tag);
        let missing = || {
            format!(
                "the key lacks `{tag}`; give --key {}=…",
                query.row_tags().join("=…,")
            )
        };
        given.map(|(_, value)| (*value).to_owned()).with_context(missing)
    };
    query.row_tags().into_iter().map(value).collect()
}

/// A result row, as far as it matters here.
struct Row {
    start: Timestamp,
    end: Timestamp,
    /// The number of a count window, which stands for its pane and names it.
    number: Option<Timestamp>,
    is_coarse: bool,
    revision: i64,
    status: String,
    coverage: f64,
    readings: i64,
}

impl Row {
    /// Where its panes are.
    fn range(&self) -> (Timestamp, Timestamp) {
        self.number.map_or((self.start, self.end), |number| {
            (number, number.plus(WINDOW_STEP_MIN))
        })
    }
}

/// The condition that a row is of a key: tags as parameters from `first` on.
fn of_key(query: &Query, first: usize) -> String {
    let mut condition = String::new();
    for (index, tag) in query.row_tags().iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(condition, " AND \"{tag}\" = ?{}", first + index);
    }
    condition
}

fn rows(store: &Sqlite, query: &Query, tags: &[String], at: Timestamp) -> Result<Vec<Row>> {
    let is_counted = query.window.count().is_some();
    // Its last reading is in a window of so many.
    let (number, after) = if is_counted {
        ("window_number", ">=")
    } else {
        ("NULL", ">")
    };
    let sql = format!(
        "SELECT window_start, window_end, coarse, revision, status, coverage, readings, {number} FROM \"{}\"
         WHERE window_start <= ?1 AND window_end {after} ?1{} ORDER BY window_start, window_end",
        query.name,
        of_key(query, 2)
    );
    let parameters = std::iter::once(time_text(at)).chain(tags.iter().cloned());
    let mut statement = store.connection().prepare(&sql)?;
    let mut found = statement.query(rusqlite::params_from_iter(parameters))?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let time = |index| -> Result<Timestamp> {
            let text: String = row.get(index)?;
            parse_time_text(&text).with_context(|| format!("`{text}` is no time"))
        };
        rows.push(Row {
            start: time(0)?,
            end: time(1)?,
            number: row
                .get::<_, Option<i64>>(7)?
                .map(|number| Timestamp::clamped(number.saturating_mul(WINDOW_STEP_MIN.as_micros()))),
            is_coarse: row.get(2)?,
            revision: row.get(3)?,
            status: row.get(4)?,
            coverage: row.get(5)?,
            readings: row.get(6)?,
        });
    }
    Ok(rows)
}

/// Where the key's rows are, for whoever has missed them.
fn nearest(store: &Sqlite, query: &Query, tags: &[String], at: Timestamp) -> Result<String> {
    let extreme = |what: &str, condition: &str| -> Result<Option<String>> {
        let sql = format!(
            "SELECT {what} FROM \"{}\" WHERE {condition} ?1{}",
            query.name,
            of_key(query, 2)
        );
        let parameters = std::iter::once(time_text(at)).chain(tags.iter().cloned());
        Ok(store
            .connection()
            .query_row(&sql, rusqlite::params_from_iter(parameters), |row| row.get(0))?)
    };
    let before = extreme("max(window_start)", "window_start <=")?;
    let after = extreme("min(window_start)", "window_start >")?;
    let near: Vec<String> = [before, after].into_iter().flatten().collect();
    Ok(match near.as_slice() {
        [] => "; it has none at all of this key".into(),
        near => format!("; the nearest begin at {}", near.join(" and ")),
    })
}

fn show_row(
    store: &Sqlite,
    catalog: &Catalog,
    query: &RunningQuery,
    tags: &[String],
    row: &Row,
    out: &mut impl Write,
) -> Result<()> {
    writeln!(
        out,
        "{} [{}] {} to {}: {}, coverage {}, revision {}, {} readings",
        query.query.name,
        tags.join(", "),
        time_text(row.start),
        time_text(row.end),
        row.status,
        row.coverage,
        row.revision,
        row.readings
    )?;
    let readers = if row.is_coarse {
        &query.coarse
    } else {
        &query.readers
    };
    let pipelines: Vec<(PipelineId, Span)> = readers
        .iter()
        .filter(|reader| !row.is_coarse || reader.pane == row.end.since(row.start))
        .map(|reader| (reader.pipeline, reader.pane))
        .collect();
    writeln!(out, "\nits panes, and who shipped them (deltas of all keys):")?;
    writeln!(out, "{}", panes_table(store, catalog, &pipelines, tags, row)?)?;
    if row.number.is_none() {
        writeln!(
            out,
            "\nagents that run it, and how far they were when last heard:"
        )?;
        writeln!(out, "{}", agents_table(store, &pipelines, row)?)?;
    }
    writeln!(out, "\nwhen rows of this window were written:")?;
    writeln!(out, "{}\n", history_table(store, query, row)?)?;
    Ok(())
}

fn panes_table(
    store: &Sqlite,
    catalog: &Catalog,
    pipelines: &[(PipelineId, Span)],
    tags: &[String],
    row: &Row,
) -> Result<comfy_table::Table> {
    let mut buffer = KeyBuffer::default();
    for tag in tags {
        // The tags of a row that exists.
        buffer.push(tag).ok();
    }
    let mut shown = table(&[
        "pipeline", "pane", "readings", "agent", "deltas", "late", "first", "last",
    ]);
    for &(pipeline, width) in pipelines {
        let Some(definition) = catalog.pipelines.get(&pipeline) else {
            continue;
        };
        let panes = load(store, catalog, (pipeline, definition), row)?;
        let Some(held) = panes.pipeline(pipeline) else {
            continue;
        };
        let Some(id) = held.find(buffer.as_bytes()) else {
            continue;
        };
        let (from, to) = row.range();
        for (start, pane) in held.range(from.minus(width)..to) {
            let Some((readings, _)) = pane.row(id) else {
                continue;
            };
            if start.plus(width) <= from {
                continue;
            }
            let mut statement = store.connection().prepare_cached(
                "SELECT agent, deltas, late, first_us, last_us FROM catchment_contribution
                 WHERE pipeline = ?1 AND start_us = ?2 ORDER BY first_us, agent",
            )?;
            let mut agents = statement.query(params![bits(pipeline), start.as_micros()])?;
            let mut head = [pipeline.to_string(), time_text(start), readings.to_string()];
            while let Some(agent) = agents.next()? {
                let number = |index| agent.get::<_, i64>(index).map(|number| number.to_string());
                let time = |index| agent.get(index).map(|at| time_text(Timestamp::clamped(at)));
                let mut cells: Vec<String> = head.iter_mut().map(std::mem::take).collect();
                cells.extend([agent.get(0)?, number(1)?, number(2)?, time(3)?, time(4)?]);
                shown.add_row(cells);
            }
            if !head[0].is_empty() {
                shown.add_row(head);
            }
        }
    }
    Ok(shown)
}

/// The panes of a pipeline that may be part of a row: as stored, and what was appended since. What cannot be read is
/// left out: the server sets it aside and says so.
fn load(
    store: &Sqlite,
    catalog: &Catalog,
    (id, pipeline): (PipelineId, &Pipeline),
    row: &Row,
) -> Result<Panes> {
    let mut panes = Panes::default();
    let (from, to) = row.range();
    let from = from.minus(pipeline.pane);
    for start in store.starts(id, from, to)? {
        for chunk in store.chunks(id, start)? {
            panes.load((id, start), Some(pipeline), &chunk);
        }
    }
    let mut statement = store
        .connection()
        .prepare("SELECT frame FROM catchment_batch ORDER BY id")?;
    let mut batches = statement.query([])?;
    while let Some(batch) = batches.next()? {
        let frame: Vec<u8> = batch.get(0)?;
        let Ok(batch) = Batch::parse(&frame) else { continue };
        let views = batch.sections().filter_map(Result::ok);
        for view in views.filter_map(|view| catalog.resolved(view)) {
            if view.pipeline == id && (from..to).contains(&view.pane) {
                panes.merge("", &view).ok();
            }
        }
    }
    Ok(panes)
}

fn agents_table(store: &Sqlite, pipelines: &[(PipelineId, Span)], row: &Row) -> Result<comfy_table::Table> {
    let mut shown = table(&["agent", "pipeline", "watermark", "has passed the end", "heard"]);
    for (pipeline, _) in pipelines {
        let mut statement = store.connection().prepare_cached(
            "SELECT w.agent, w.watermark_us, a.last_heard_us, a.retired FROM catchment_watermark w
             JOIN catchment_agent a ON a.name = w.agent WHERE w.pipeline = ?1 ORDER BY w.agent",
        )?;
        let mut agents = statement.query([bits(*pipeline)])?;
        while let Some(agent) = agents.next()? {
            let watermark = Timestamp::clamped(agent.get(1)?);
            let heard = time_text(Timestamp::clamped(agent.get(2)?));
            let retired: bool = agent.get(3)?;
            shown.add_row([
                agent.get::<_, String>(0)?,
                pipeline.to_string(),
                time_text(watermark),
                if watermark >= row.end { "yes" } else { "no" }.into(),
                if retired {
                    format!("{heard}, retired")
                } else {
                    heard
                },
            ]);
        }
    }
    Ok(shown)
}

fn history_table(store: &Sqlite, query: &RunningQuery, row: &Row) -> Result<comfy_table::Table> {
    let mut shown = table(&["at", "why", "status", "coverage", "rows"]);
    let mut statement = store.connection().prepare_cached(
        "SELECT at_us, reason, status, coverage, rows FROM catchment_shown
         WHERE query = ?1 AND start_us = ?2 AND coarse = ?3 ORDER BY id",
    )?;
    let mut times = statement.query(params![
        query.query.name,
        row.range().0.as_micros(),
        row.is_coarse
    ])?;
    while let Some(time) = times.next()? {
        shown.add_row([
            time_text(Timestamp::clamped(time.get(0)?)),
            time.get(1)?,
            time.get(2)?,
            time.get::<_, f64>(3)?.to_string(),
            time.get::<_, i64>(4)?.to_string(),
        ]);
    }
    Ok(shown)
}
