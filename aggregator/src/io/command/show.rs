//! The forms that answers take on a terminal and in a pipe.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use catchment_common::time::{Now, Timestamp};
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde_json::{Map, Number, Value};

use crate::store::lookup::Cell;

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

/// Writes rows in a form.
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

/// An empty table with this header.
pub(super) fn table<T: AsRef<str>>(header: &[T]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_header(header.iter().map(AsRef::as_ref));
    table
}

/// A cell of a result table.
pub(super) fn json(cell: Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(number) => number.into(),
        Cell::Real(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        Cell::Text(text) => text.into(),
        Cell::Bytes(count) => format!("({count} bytes)").into(),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// How long ago something was.
pub(super) fn ago(now: Now, then: Timestamp) -> String {
    let seconds = now.wall.since(then).as_micros().max(0).unsigned_abs() / 1_000_000;
    format!("{} ago", humantime::format_duration(Duration::from_secs(seconds)))
}

/// An instant that somebody has written.
pub(super) fn instant(text: &str) -> Result<Timestamp> {
    let time: jiff::Timestamp = text
        .parse()
        .with_context(|| format!("`{text}` is not an instant; write 2026-11-23T08:00:00Z"))?;
    Timestamp::from_micros(time.as_microsecond())
        .with_context(|| format!("`{text}` is outside the years 1900 to 2200"))
}

/// A tag and its value, as somebody has written them.
pub(super) fn tag(text: &str) -> Result<(String, String)> {
    let (tag, value) = text
        .split_once('=')
        .with_context(|| format!("`{text}` is not tag=value"))?;
    Ok((tag.to_owned(), value.to_owned()))
}
