//! A commit as one transaction.

use std::sync::Arc;

use catchment_common::wire;
use rusqlite::{Transaction, TransactionBehavior, params};

use super::changes::Added;
use super::pipelines::bits;
use super::{Sqlite, at, inputs, results, set_aside, statements};
use crate::commit::{Checkpoint, Commit, Expired};
use crate::io::store::tables::TableSql;
use crate::store::Result;

impl Sqlite {
    /// Writes a commit. Just before it becomes durable it is looked whether the file still has its name: what an agent
    /// has been told to forget must be found at the next start.
    pub(super) fn write(&mut self, commit: &Commit) -> Result<()> {
        let failed = at(&self.path);
        if !Arc::ptr_eq(&self.tables.0, &commit.queries) {
            let statements = statements::of(&self.connection, &commit.queries).map_err(&failed)?;
            self.tables = (commit.queries.clone(), statements);
        }
        let transaction = self.begin().map_err(&failed)?;
        write_all(&transaction, commit, &self.tables.1, self.changes_max).map_err(&failed)?;
        self.check_place()?;
        transaction.commit().map_err(failed)
    }

    /// A transaction that takes the write lock at once. There is one writer, and each transaction of it ends before the
    /// next begins.
    fn begin(&self) -> rusqlite::Result<Transaction<'_>> {
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
    }
}

fn write_all(
    transaction: &Transaction<'_>,
    commit: &Commit,
    tables: &[TableSql],
    changes_max: u64,
) -> rusqlite::Result<()> {
    set_aside::write(transaction, commit)?;
    inputs::write(transaction, commit)?;
    let mut added = Added::begin(transaction)?;
    for changes in &commit.results {
        results::write(
            transaction,
            changes,
            &tables[changes.query],
            commit.at,
            &mut added,
        )?;
    }
    results::write_contributions(transaction, commit)?;
    match &commit.checkpoint {
        None => results::append_batches(transaction, commit)?,
        Some(checkpoint) => {
            transaction.execute("DELETE FROM catchment_batch", [])?;
            write_panes(transaction, checkpoint)?;
            expire(transaction, &checkpoint.expired, tables, &mut added)?;
        }
    }
    added.end(changes_max)
}

fn write_panes(transaction: &Transaction<'_>, checkpoint: &Checkpoint) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM catchment_batch", [])?;
    let mut put = transaction.prepare_cached(
        "INSERT OR REPLACE INTO catchment_pane (pipeline, start_us, chunk, columns, version)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut cut = transaction
        .prepare_cached("DELETE FROM catchment_pane WHERE pipeline = ?1 AND start_us = ?2 AND chunk >= ?3")?;
    for pane in &checkpoint.panes {
        let (pipeline, start) = (bits(pane.pipeline), pane.start.as_micros());
        for (number, columns) in pane.chunks.iter().enumerate() {
            put.execute(params![pipeline, start, number as i64, columns, wire::VERSION])?;
        }
        cut.execute(params![pipeline, start, pane.chunks.len() as i64])?;
    }
    Ok(())
}

fn expire(
    transaction: &Transaction<'_>,
    expired: &Expired,
    tables: &[TableSql],
    added: &mut Added<'_>,
) -> rusqlite::Result<()> {
    for &(query, before) in &expired.rows {
        let gone = transaction
            .prepare_cached(&tables[query].expire)?
            .execute([tables[query].horizon(before)])?;
        if gone > 0 {
            added.expired(&tables[query].name, before)?;
        }
        transaction
            .prepare_cached(
                "DELETE FROM catchment_shown WHERE query = ?1 AND start_us < ?2 AND end_us <= ?2",
            )?
            .execute(params![tables[query].name, before.as_micros()])?;
    }
    for &(pipeline, before) in &expired.panes {
        transaction
            .prepare_cached("DELETE FROM catchment_pane WHERE pipeline = ?1 AND start_us < ?2")?
            .execute(params![bits(pipeline), before.as_micros()])?;
        transaction
            .prepare_cached("DELETE FROM catchment_contribution WHERE pipeline = ?1 AND start_us < ?2")?
            .execute(params![bits(pipeline), before.as_micros()])?;
    }
    Ok(())
}
