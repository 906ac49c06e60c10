//! Batches as they came, and result rows.

use catchment_common::key::tags_of;
use catchment_common::stats::Lowered;
use catchment_common::time::Timestamp;
use rusqlite::types::{ToSqlOutput, Value as SqlValue};
use rusqlite::{ToSql, Transaction, params};

use super::changes::{Added, key_of};
use super::pipelines::bits;
use crate::commit::{Commit, CountedRow, QueryResults, Unrevised, Why, WindowRows, WindowStatus};
use crate::io::store::tables::TableSql;
use crate::store::changes::ChangedRow;
use crate::store::text::{number_of, status_text, time_text, whole};

pub(super) fn append_batches(transaction: &Transaction<'_>, commit: &Commit) -> rusqlite::Result<()> {
    let mut append = transaction
        .prepare_cached("INSERT INTO catchment_batch (agent, epoch, seq, frame) VALUES (?1, ?2, ?3, ?4)")?;
    for batch in &commit.batches {
        append.execute(params![
            batch.agent,
            batch.epoch.cast_signed(),
            batch.seq.cast_signed(),
            &batch.frame[..]
        ])?;
    }
    Ok(())
}

pub(super) fn write(
    transaction: &Transaction<'_>,
    results: &QueryResults,
    table: &TableSql,
    at: Timestamp,
    added: &mut Added<'_>,
) -> rusqlite::Result<()> {
    for window in &results.windows {
        write_window(transaction, window, table, added)?;
        let (status, rows) = (status_text(&window.status, window.is_coarse), window.rows.len());
        note(
            transaction,
            table,
            &window.status,
            (window.is_coarse, window.why, status, rows),
            at,
        )?;
    }
    for status in &results.statuses {
        let text = status_text(status, false);
        note(transaction, table, status, (false, Why::Coverage, text, 0), at)?;
        set_status(transaction, status, text, table, added)?;
    }
    for row in &results.counted {
        write_counted(transaction, row, table, at, added)?;
    }
    for unrevised in &results.unrevised {
        write_unrevised(transaction, unrevised, &table.name)?;
    }
    if let Some(through) = results.emitted_through {
        transaction
            .prepare_cached("UPDATE catchment_query SET emitted_through_us = ?2 WHERE name = ?1")?
            .execute(params![table.name, through.as_micros()])?;
    }
    Ok(())
}

/// Changes the status of a window's rows.
fn set_status(
    transaction: &Transaction<'_>,
    status: &WindowStatus,
    text: &str,
    table: &TableSql,
    added: &mut Added<'_>,
) -> rusqlite::Result<()> {
    let (start, end) = (time_text(status.start), time_text(status.end));
    let parameters = params![text, status.coverage, start, end];
    let mut columns = table.tag_columns();
    columns.push_str("revision");
    let mut update = transaction.prepare_cached(&added.asking(&table.set_status, &columns))?;
    if !added.is_read() {
        return update.execute(parameters).map(|_| ());
    }
    let rows = update.query_map(parameters, |row| {
        Ok((key_of(row, 0, table.tags)?, row.get::<_, i64>(table.tags)?))
    })?;
    let mut rows: Vec<(Box<[u8]>, i64)> = rows.collect::<rusqlite::Result<_>>()?;
    rows.sort_unstable();
    for (key, revision) in rows {
        let row = ChangedRow::new((status.start, status.end), None, false, &key);
        added.written(&table.name, &row, revision.cast_unsigned())?;
    }
    Ok(())
}

/// Writes which windows of a key are yet to be revised.
fn write_unrevised(
    transaction: &Transaction<'_>,
    unrevised: &Unrevised,
    query: &str,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM catchment_unrevised WHERE query = ?1 AND key = ?2")?
        .execute(params![query, &unrevised.key[..]])?;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO catchment_unrevised (query, key, first_us, last_us) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (first, last) in &unrevised.windows {
        insert.execute(params![
            query,
            &unrevised.key[..],
            first.as_micros(),
            last.as_micros()
        ])?;
    }
    Ok(())
}

fn write_window(
    transaction: &Transaction<'_>,
    window: &WindowRows,
    table: &TableSql,
    added: &mut Added<'_>,
) -> rusqlite::Result<()> {
    let session = table.session.as_ref().filter(|_| window.is_session);
    let upsert = session.map_or(&table.upsert, |session| &session.upsert);
    let mut upsert = transaction.prepare_cached(&added.asking(upsert, "revision"))?;
    let merged = "window_start, window_end, revision";
    let mut absorb = session
        .map(|session| transaction.prepare_cached(&added.asking(&session.absorb, merged)))
        .transpose()?;
    let of_window = (window.status.start, window.status.end);
    let start = time_text(window.status.start);
    let end = time_text(window.status.end);
    let status = status_text(&window.status, window.is_coarse);
    for row in &window.rows {
        upsert.raw_bind_parameter(1, start.as_str())?;
        upsert.raw_bind_parameter(2, end.as_str())?;
        let mut next = 3;
        // Keys were checked against the pipeline when their batch came.
        for tag in tags_of(&row.key, table.tags).into_iter().flatten() {
            upsert.raw_bind_parameter(next, tag)?;
            next += 1;
        }
        upsert.raw_bind_parameter(next, window.is_coarse)?;
        upsert.raw_bind_parameter(next + 1, status)?;
        upsert.raw_bind_parameter(next + 2, window.status.coverage)?;
        upsert.raw_bind_parameter(next + 3, whole(row.readings))?;
        for (index, value) in row.values.iter().enumerate() {
            upsert.raw_bind_parameter(next + 4 + index, Column(value.as_ref()))?;
        }
        added.write(&mut upsert, &table.name, || {
            ChangedRow::new(of_window, None, window.is_coarse, &row.key)
        })?;
        if let Some(absorb) = &mut absorb {
            absorb.raw_bind_parameter(1, start.as_str())?;
            absorb.raw_bind_parameter(2, end.as_str())?;
            for (index, tag) in tags_of(&row.key, table.tags).into_iter().flatten().enumerate() {
                absorb.raw_bind_parameter(index + 3, tag)?;
            }
            added.merge(absorb, &table.name, &row.key)?;
        }
    }
    Ok(())
}

/// Writes the row of a count window. Coverage is of agents, and its one agent is there.
fn write_counted(
    transaction: &Transaction<'_>,
    counted: &CountedRow,
    table: &TableSql,
    at: Timestamp,
    added: &mut Added<'_>,
) -> rusqlite::Result<()> {
    let name = WindowStatus {
        start: counted.number,
        end: counted.number,
        is_final: counted.is_final,
        // An agent begins to count when the query comes.
        is_whole: true,
        coverage: 1.0,
    };
    let status = status_text(&name, false);
    let mut upsert = transaction.prepare_cached(&added.asking(&table.upsert, "revision"))?;
    upsert.raw_bind_parameter(1, time_text(counted.start))?;
    upsert.raw_bind_parameter(2, time_text(counted.end))?;
    let mut next = 3;
    for tag in tags_of(&counted.row.key, table.tags).into_iter().flatten() {
        upsert.raw_bind_parameter(next, tag)?;
        next += 1;
    }
    upsert.raw_bind_parameter(next, number_of(counted.number))?;
    upsert.raw_bind_parameter(next + 1, false)?;
    upsert.raw_bind_parameter(next + 2, status)?;
    upsert.raw_bind_parameter(next + 3, 1.0)?;
    upsert.raw_bind_parameter(next + 4, whole(counted.row.readings))?;
    for (index, value) in counted.row.values.iter().enumerate() {
        upsert.raw_bind_parameter(next + 5 + index, Column(value.as_ref()))?;
    }
    added.write(&mut upsert, &table.name, || {
        let window = (counted.start, counted.end);
        ChangedRow::new(window, Some(counted.number), false, &counted.row.key)
    })?;
    let why = if counted.is_final { Why::Full } else { Why::Part };
    note(transaction, table, &name, (false, why, status, 1), at)
}

/// Notes that rows of a window were written, and why.
fn note(
    transaction: &Transaction<'_>,
    table: &TableSql,
    window: &WindowStatus,
    (is_coarse, why, status, rows): (bool, Why, &str, usize),
    at: Timestamp,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO catchment_shown (query, start_us, end_us, coarse, at_us, reason, status, coverage, rows)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            table.name,
            window.start.as_micros(),
            window.end.as_micros(),
            is_coarse,
            at.as_micros(),
            why.text(),
            status,
            window.coverage,
            rows as i64
        ])?;
    Ok(())
}

/// Adds what agents have shipped of panes.
pub(super) fn write_contributions(transaction: &Transaction<'_>, commit: &Commit) -> rusqlite::Result<()> {
    let mut add = transaction.prepare_cached(
        "INSERT INTO catchment_contribution (pipeline, start_us, agent, deltas, late, first_us, last_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
         ON CONFLICT DO UPDATE SET deltas = deltas + ?4, late = late + ?5, last_us = ?6",
    )?;
    for contribution in &commit.contributions {
        add.execute(params![
            bits(contribution.pipeline),
            contribution.pane.as_micros(),
            contribution.agent,
            contribution.deltas.cast_signed(),
            contribution.late.cast_signed(),
            commit.at.as_micros()
        ])?;
    }
    Ok(())
}

struct Column<'v>(Option<&'v Lowered>);

impl ToSql for Column<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            None => ToSqlOutput::Owned(SqlValue::Null),
            Some(Lowered::Integer(number)) => ToSqlOutput::Owned(SqlValue::Integer(whole(*number))),
            Some(Lowered::Real(number)) => ToSqlOutput::Owned(SqlValue::Real(*number)),
            Some(Lowered::Text(text)) => text.to_sql()?,
        })
    }
}
