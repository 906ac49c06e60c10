//! The aggregator's database, as far as checking needs it: read-only, and all of it as of one moment.

use std::path::Path;

use catchment_common::plan::{Plan, Query};
use catchment_common::wire::{self, WireFault};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row as SqlRow};

use crate::audit::{Counters, RowReadings};
use crate::verify::{Cell, Losses, Row};

/// An open database.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
}

/// Why the database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseFault {
    /// SQLite's error.
    #[error("the database cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// No plan was ever applied.
    #[error("the database holds no plan")]
    NoPlan,
    /// The plan is of another version of the software.
    #[error("the plan in the database cannot be read: {0}")]
    Plan(#[from] WireFault),
    /// The result table of a query is not there.
    #[error("the table of query `{0}` cannot be read: {1}")]
    Table(String, rusqlite::Error),
}

impl Database {
    /// Opens a database. It may be in use: everything is read as of now.
    pub fn open(path: &Path) -> Result<Self, DatabaseFault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.execute_batch("BEGIN")?;
        Ok(Self { connection })
    }

    /// The plan in force.
    pub fn plan(&self) -> Result<Plan, DatabaseFault> {
        let newest = "SELECT definition FROM catchment_plan ORDER BY version DESC LIMIT 1";
        let mut statement = self.connection.prepare(newest)?;
        let mut rows = statement.query([])?;
        let row = rows.next()?.ok_or(DatabaseFault::NoPlan)?;
        let definition = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        Ok(wire::parse_plan(definition)?)
    }

    /// The number of the pipeline that a query runs as.
    pub fn pipeline(&self, query: &str) -> Result<i64, DatabaseFault> {
        let sql = "SELECT pipeline FROM catchment_query WHERE name = ?1";
        self.connection
            .query_row(sql, [query], |row| row.get(0))
            .map_err(|error| table_fault(query, error))
    }

    /// All counters, summed over agents and epochs.
    pub fn counters(&self) -> Result<Counters, DatabaseFault> {
        let sql = "SELECT pipeline, name, value FROM catchment_counter";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut counters = Counters::new();
        while let Some(row) = rows.next()? {
            let value = u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
            *counters.entry((row.get(0)?, row.get(1)?)).or_default() += value;
        }
        Ok(counters)
    }

    /// The sum of `readings` over a query's table: over the windows' rows, and over the coarse ones.
    pub fn row_readings(&self, query: &str) -> Result<RowReadings, DatabaseFault> {
        let sql = format!(
            "SELECT coalesce(sum(CASE WHEN coarse THEN 0 ELSE readings END), 0),
                    coalesce(sum(CASE WHEN coarse THEN readings ELSE 0 END), 0) FROM {}",
            quoted(query)
        );
        let sums = self.connection.query_row(&sql, [], |row| {
            let sum = |index| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(index)?).unwrap_or(0));
            Ok(RowReadings {
                windows: sum(0)?,
                coarse: sum(1)?,
            })
        });
        sums.map_err(|error| table_fault(query, error))
    }

    /// What agents say they lost of a query's readings, under any pipeline that it has read and the coarser ones of
    /// these.
    pub fn losses(&self, query: &str) -> Result<Losses, DatabaseFault> {
        let sql = "SELECT l.pipeline, l.from_us, l.to_us, l.readings
                   FROM catchment_loss l LEFT JOIN catchment_pipeline s ON s.id = l.pipeline
                   WHERE l.pipeline = 0 OR EXISTS (SELECT 1 FROM catchment_reader r
                                                WHERE r.query = ?1 AND r.pipeline IN (l.pipeline, s.coarser_of))";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([query])?;
        let mut losses = Losses::default();
        while let Some(row) = rows.next()? {
            // Of a batch that is no longer known there is no pipeline, of a pane that cannot be read no count.
            if row.get::<_, i64>(0)? == 0 || row.get::<_, i64>(3)? == 0 {
                losses.unknown += 1;
                continue;
            }
            losses.ranges.push((row.get(1)?, row.get(2)?));
            losses.readings += u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0);
        }
        Ok(losses)
    }

    /// Rows of a query's table.
    pub fn row_count(&self, query: &str) -> Result<u64, DatabaseFault> {
        let sql = format!("SELECT count(*) FROM {}", quoted(query));
        let count: i64 = self
            .connection
            .query_row(&sql, [], |row| row.get(0))
            .map_err(|error| table_fault(query, error))?;
        Ok(count.unsigned_abs())
    }

    /// How many pairs of agent and pipeline have a watermark, and the earliest of these watermarks in microseconds
    /// since the Unix epoch.
    pub fn watermarks(&self) -> Result<(u64, i64), DatabaseFault> {
        let sql = "SELECT count(*), coalesce(min(watermark_us), 0) FROM catchment_watermark";
        Ok(self.connection.query_row(sql, [], |row| {
            Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?))
        })?)
    }

    /// Hands every row of a query's table to `handle`, coarse rows first, then merged ones.
    pub fn rows(&self, query: &Query, mut handle: impl FnMut(&Row)) -> Result<(), DatabaseFault> {
        let fault = |error| table_fault(&query.name, error);
        let fixed = ["window_start", "window_end", "readings", "coarse", "status"].map(String::from);
        let columns: Vec<String> = fixed
            .into_iter()
            .chain(query.row_tags().into_iter().map(String::from))
            .chain(query.window.count().map(|_| "window_number".to_owned()))
            .chain(query.value_columns())
            .collect();
        let names: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
        let sql = format!(
            "SELECT {} FROM {} ORDER BY coarse DESC, status = 'merged' DESC",
            names.join(", "),
            quoted(&query.name)
        );
        let mut statement = self.connection.prepare(&sql).map_err(fault)?;
        let mut rows = statement.query([]).map_err(fault)?;
        let (tags, is_counted) = (query.row_tags().len(), query.window.count().is_some());
        while let Some(row) = rows.next().map_err(fault)? {
            handle(&read_row(row, tags, is_counted, columns.len()).map_err(fault)?);
        }
        Ok(())
    }
}

/// Columns: start, end, readings, coarse, status, tags, the number if there is one, values.
fn read_row(row: &SqlRow<'_>, tags: usize, is_counted: bool, columns: usize) -> rusqlite::Result<Row> {
    let values = 5 + tags + usize::from(is_counted);
    let text = |index| Ok::<_, rusqlite::Error>(cell_text(row.get_ref(index)?));
    Ok(Row {
        start: text(0)?,
        end: text(1)?,
        readings: cell(row.get_ref(2)?),
        is_coarse: row.get(3)?,
        is_merged: text(4)? == "merged",
        is_final: text(4)? == "final",
        number: if is_counted { row.get(5 + tags)? } else { None },
        tags: (5..5 + tags).map(text).collect::<rusqlite::Result<_>>()?,
        values: (values..columns)
            .map(|index| Ok(cell(row.get_ref(index)?)))
            .collect::<rusqlite::Result<_>>()?,
    })
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(integer) => Cell::Integer(integer),
        ValueRef::Real(real) => Cell::Real(real),
        other => Cell::Other(cell_text(other)),
    }
}

/// The text of a TEXT; anything else is no text of ours and shows as what it is.
fn cell_text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        other => format!("{other:?}"),
    }
}

/// A name as an SQL identifier. Plans allow harmless names only; a foreign database might hold others.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn table_fault(query: &str, error: rusqlite::Error) -> DatabaseFault {
    DatabaseFault::Table(query.into(), error)
}
