//! The commands that are not the server: reading results, status, plans.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use catchment_common::limits::SERIES_POINTS_MAX;
use catchment_common::plan::{Hopping, Plan, PlanCost, PlannedPipelines, SERIES_POINT_BYTES, Window};
use catchment_common::time::{Now, Span, Timestamp};
use clap::ValueEnum;
use comfy_table::{Table, presets};
use rusqlite::types::ValueRef;
use serde_json::{Map, Number, Value};

use crate::io::store::sqlite::Sqlite;
use crate::io::store::tables::time_text;
use crate::plan_toml::{self, Budget};

/// How results are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum OutputFormat {
    /// A table for people.
    Table,
    /// An array of objects.
    Json,
    /// Comma-separated values with a header.
    Csv,
}

/// Which rows of a result table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection {
    /// Windows that end after so long ago.
    pub since: Option<Duration>,
    /// Windows that start at or after this instant (RFC 3339).
    pub from: Option<String>,
    /// Windows that start before this instant (RFC 3339).
    pub to: Option<String>,
    /// Tags that must have these values: `tag=value`.
    pub tags: Vec<String>,
    /// At most so many rows, the newest.
    pub limit: u32,
}

/// Writes rows of a query's result table to `out`.
pub fn query(
    database: &Path,
    name: &str,
    selection: &Selection,
    format: OutputFormat,
    now: Now,
    out: &mut impl Write,
) -> Result<()> {
    let store = Sqlite::open_to_read(database)?;
    show_query(&store, name, selection, format, now, out).map_err(|error| explain_fault(&store, error))
}

/// A damaged file shows in any statement; what to do about it is the same.
pub(super) fn explain_fault(store: &Sqlite, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<rusqlite::Error>() {
        Ok(error) => store.explain(error).into(),
        Err(other) => other,
    }
}

fn show_query(
    store: &Sqlite,
    name: &str,
    selection: &Selection,
    format: OutputFormat,
    now: Now,
    out: &mut impl Write,
) -> Result<()> {
    let plan = store.load_plan()?.unwrap_or_default();
    let Some(query) = plan.queries.iter().find(|query| query.name == name) else {
        let known: Vec<&str> = plan.queries.iter().map(|query| query.name.as_str()).collect();
        bail!(
            "there is no query `{name}`; the plan has {}",
            if known.is_empty() {
                "none".into()
            } else {
                known.join(", ")
            }
        );
    };
    let (mut sql, mut parameters) = (format!("SELECT * FROM \"{name}\" WHERE 1"), Vec::new());
    let mut add = |condition: &str, value: String| {
        parameters.push(value);
        let _ = write!(sql, " AND {condition} ?{}", parameters.len());
    };
    if let Some(since) = selection.since {
        let since = Span::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        // The end of a window with `count` is its last reading.
        add("window_end >", time_text(now.wall.minus(since)));
    }
    if let Some(from) = &selection.from {
        add("window_start >=", time_text(instant(from)?));
    }
    if let Some(to) = &selection.to {
        add("window_start <", time_text(instant(to)?));
    }
    for condition in &selection.tags {
        let (tag, value) = condition
            .split_once('=')
            .with_context(|| format!("`{condition}` is not tag=value"))?;
        ensure!(
            query.row_tags().contains(&tag),
            "`{tag}` is no tag of `{name}`; its key is {:?}",
            query.row_tags()
        );
        add(&format!("\"{tag}\" ="), value.to_owned());
    }
    // The newest rows, shown oldest first.
    let mut order = String::from("window_start, window_end");
    for tag in query.row_tags() {
        let _ = write!(order, ", \"{tag}\"");
    }
    order.push_str(if query.window.count().is_some() {
        ", window_number"
    } else {
        ", coarse"
    });
    let _ = write!(sql, " ORDER BY window_start DESC LIMIT {}", selection.limit);
    let sql = format!("SELECT * FROM ({sql}) ORDER BY {order}");
    let mut statement = store.connection().prepare(&sql)?;
    let columns: Vec<String> = statement.column_names().map(String::from).collect();
    let mut rows = statement.query(rusqlite::params_from_iter(&parameters))?;
    let mut values: Vec<Vec<Value>> = Vec::new();
    while let Some(row) = rows.next()? {
        values.push(
            (0..columns.len())
                .map(|index| row.get_ref(index).map(json))
                .collect::<Result<_, _>>()?,
        );
    }
    show(&columns, values, format, out)
}

/// Writes how agents and queries stand to `out`.
pub fn status(database: &Path, now: Now, out: &mut impl Write) -> Result<()> {
    let store = Sqlite::open_to_read(database)?;
    show_status(&store, now, out).map_err(|error| explain_fault(&store, error))
}

fn show_status(store: &Sqlite, now: Now, out: &mut impl Write) -> Result<()> {
    let connection = store.connection();
    let mut agents = table(&[
        "agent",
        "heard",
        "plan",
        "software",
        "watermark",
        "accepted",
        "rejected",
    ]);
    let mut statement = connection.prepare(
        "SELECT name, last_heard_us, plan_version, software,
                (SELECT max(watermark_us) FROM catchment_watermark WHERE agent = name),
                (SELECT sum(value) FROM catchment_counter c WHERE c.agent = a.name AND c.name = 'accepted'),
                (SELECT sum(value) FROM catchment_counter c WHERE c.agent = a.name AND c.name LIKE 'rejected_%')
         FROM catchment_agent a ORDER BY name",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let heard = now.wall.since(Timestamp::clamped(row.get(1)?));
        let heard = Duration::from_secs(heard.as_micros().max(0).unsigned_abs() / 1_000_000);
        let watermark: Option<i64> = row.get(4)?;
        agents.add_row([
            row.get::<_, String>(0)?,
            format!("{} ago", humantime::format_duration(heard)),
            row.get::<_, i64>(2)?.to_string(),
            row.get(3)?,
            watermark.map_or("-".into(), |at| time_text(Timestamp::clamped(at))),
            row.get::<_, Option<i64>>(5)?.unwrap_or(0).to_string(),
            row.get::<_, Option<i64>>(6)?.unwrap_or(0).to_string(),
        ]);
    }
    let mut queries = table(&["query", "rows", "provisional", "shown through"]);
    for query in store.load_plan()?.unwrap_or_default().queries {
        let name = &query.name;
        let count = |filter: &str| {
            connection.query_row(&format!("SELECT count(*) FROM \"{name}\" {filter}"), [], |row| {
                row.get::<_, i64>(0)
            })
        };
        let through = "SELECT emitted_through_us FROM catchment_query WHERE name = ?1";
        let through: Option<i64> = connection.query_row(through, [name], |row| row.get(0))?;
        queries.add_row([
            name.clone(),
            count("")?.to_string(),
            count("WHERE status = 'provisional'")?.to_string(),
            through.map_or("-".into(), |at| time_text(Timestamp::clamped(at))),
        ]);
    }
    writeln!(out, "{agents}\n\n{queries}")?;
    let set_aside = "SELECT count(*) FROM catchment_set_aside";
    let set_aside: i64 = connection.query_row(set_aside, [], |row| row.get(0))?;
    if set_aside > 0 {
        writeln!(
            out,
            "\n{set_aside} stored panes or batches could not be read: their bytes are kept in catchment_set_aside, and \
             `losses` lists what they held"
        )?;
    }
    Ok(())
}

/// Checks a plan file and writes what it would make agents do to `out`.
pub fn check_plan(file: &Path, budget: Budget, out: &mut impl Write) -> Result<Plan> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("{}: cannot read the plan", file.display()))?;
    let (plan, warnings) = plan_toml::parse_within(&text, &file.display().to_string(), Some(budget))?;
    let planned = plan.pipelines();
    let mut shown = table(&["query", "pipeline", "window", "pane", "columns"]);
    for (query, (pipeline, _)) in plan.queries.iter().zip(&planned.readers) {
        shown.add_row([
            query.name.clone(),
            (pipeline + 1).to_string(),
            window_text(&query.window),
            planned.pipelines[*pipeline].pane.to_string(),
            (query.value_columns().count() + query.key.len() + 7).to_string(),
        ]);
    }
    writeln!(out, "{shown}")?;
    let cost = planned.cost();
    writeln!(out, "{}", cost_table(&planned, &cost))?;
    writeln!(
        out,
        "{}: {} queries on {} pipelines; a key costs an agent {} bytes, so {} keys fit in {} bytes of limits.memory",
        file.display(),
        plan.queries.len(),
        planned.pipelines.len(),
        cost.bytes_per_key(),
        cost.keys_within(budget.memory_bytes),
        budget.memory_bytes
    )?;
    for (number, (pipeline, cost_of)) in (1..).zip(planned.pipelines.iter().zip(&cost.pipelines)) {
        if let Some(bytes) = pipeline.memory {
            let keys = bytes / (cost_of.open_panes * cost.entry_bytes).max(1);
            writeln!(out, "pipeline {number}: {keys} keys fit in its own {bytes} bytes")?;
        }
        if cost_of.series > 0 {
            writeln!(out, "{}", series_text(number, pipeline.pane, cost_of.series))?;
        }
    }
    for warning in warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(plan)
}

/// What a pipeline costs that keeps points.
fn series_text(pipeline: usize, pane: Span, series: u64) -> String {
    let most = SERIES_POINTS_MAX as f64 * 1e6 / pane.as_micros() as f64;
    format!(
        "pipeline {pipeline}: every point of {series} {} is kept, about {SERIES_POINT_BYTES} bytes each until its pane closes; \
         a window is NULL \
         where a key has more than {SERIES_POINTS_MAX} in a pane of {pane} ({most:.1} a second)",
        if series == 1 { "field" } else { "fields" }
    )
}

fn cost_table(planned: &PlannedPipelines, cost: &PlanCost) -> Table {
    let mut shown = table(&[
        "pipeline",
        "queries",
        "pane",
        "open panes",
        "bytes per key",
        "deltas per key and hour",
        "coarsened to",
    ]);
    let ladders = planned.pipelines.iter().zip(&planned.ladders);
    for (index, ((pipeline, ladder), cost_of)) in ladders.zip(&cost.pipelines).enumerate() {
        let queries = planned.readers.iter().filter(|(home, _)| *home == index);
        let ladder: Vec<String> = ladder.iter().map(Span::to_string).collect();
        shown.add_row([
            (index + 1).to_string(),
            queries.count().to_string(),
            pipeline.pane.to_string(),
            cost_of.open_panes.to_string(),
            (cost_of.open_panes * cost.entry_bytes).to_string(),
            cost_of.deltas_per_hour.to_string(),
            ladder.join(", "),
        ]);
    }
    shown
}

/// A window as a plan writes it.
fn window_text(window: &Window) -> String {
    match window {
        Window::Hopping(Hopping { size, every, offset }) => {
            let mut text = size.to_string();
            if every != size {
                let _ = write!(text, " every {every}");
            }
            if *offset > Span::ZERO {
                let _ = write!(text, " offset {offset}");
            }
            text
        }
        Window::Session { gap } => format!("session {gap}"),
        Window::Count { readings } => format!("{readings} readings"),
        Window::Calendar { period, zone, .. } => format!("{} in {zone}", period.name()),
    }
}

pub(super) fn instant(text: &str) -> Result<Timestamp> {
    let time: jiff::Timestamp = text
        .parse()
        .with_context(|| format!("`{text}` is not an instant; write 2026-11-23T08:00:00Z"))?;
    Timestamp::from_micros(time.as_microsecond())
        .with_context(|| format!("`{text}` is outside the years 1900 to 2200"))
}

fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => format!("({} bytes)", bytes.len()).into(),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn show(
    columns: &[String],
    rows: Vec<Vec<Value>>,
    format: OutputFormat,
    out: &mut impl Write,
) -> Result<()> {
    match format {
        OutputFormat::Table => {
            let mut table = table(columns);
            for row in &rows {
                table.add_row(row.iter().map(text));
            }
            writeln!(out, "{table}")?;
        }
        OutputFormat::Json => {
            let object = |row: Vec<Value>| columns.iter().cloned().zip(row).collect::<Map<_, _>>();
            let rows: Vec<_> = rows.into_iter().map(object).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        }
        OutputFormat::Csv => {
            let mut writer = csv::Writer::from_writer(out);
            writer.write_record(columns)?;
            for row in &rows {
                writer.write_record(row.iter().map(text))?;
            }
            writer.flush()?;
        }
    }
    Ok(())
}

pub(super) fn table<T: AsRef<str>>(header: &[T]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_header(header.iter().map(AsRef::as_ref));
    table
}
