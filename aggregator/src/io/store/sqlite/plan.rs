//! Putting a plan into force: ids for its pipelines, and a table for each query.

use std::collections::BTreeMap;
use std::path::Path;

use catchment_common::plan::{Plan, Query};
use catchment_common::time::Timestamp;
use catchment_common::wire;
use rusqlite::{Transaction, TransactionBehavior, params};

use super::pipelines::{self, bits};
use super::{Sqlite, at};
use crate::io::store::tables::{TableSql, time_text};
use crate::store::{Result, other_key, other_windows};

impl Sqlite {
    /// Puts a checked plan into force: gives pipelines their ids, makes or widens result tables, and stores it
    /// under the next version, which is returned.
    pub(super) fn put_into_force(&mut self, mut plan: Plan, source: &str, now: Timestamp) -> Result<u64> {
        let before = self.load_plan()?.unwrap_or_default();
        let path = self.path.clone();
        plan.version = self.given_out()?.plan_floor + 1;
        let mut pipelines = self.load_pipelines(&before)?;
        let (own, given) = pipelines.assign(&plan, random);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(at(&path))?;
        pipelines::write(&transaction, &given).map_err(at(&path))?;
        for (query, &id) in plan.queries.iter().zip(&own) {
            if let Some(old) = before.queries.iter().find(|old| old.name == query.name)
                && old.window != query.window
            {
                return Err(other_windows(query));
            }
            make_table(&transaction, query, &path)?;
            let remember = || {
                transaction.execute(
                    "INSERT INTO catchment_query (name, pipeline) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET pipeline = ?2",
                    params![query.name, bits(id)],
                )?;
                transaction.execute(
                    "INSERT OR IGNORE INTO catchment_reader (query, pipeline) VALUES (?1, ?2)",
                    params![query.name, bits(id)],
                )
            };
            remember().map_err(at(&path))?;
        }
        let definition = wire::emit_plan(&plan);
        transaction
            .execute(
                "INSERT INTO catchment_plan (version, applied_at, source, definition) VALUES (?1, ?2, ?3, ?4)",
                params![plan.version.cast_signed(), time_text(now), source, definition],
            )
            .map_err(at(&path))?;
        transaction.commit().map_err(at(&path))?;
        Ok(plan.version)
    }
}

/// Random bits for what must be told apart from all that was given out before. Should the system have none, the time
/// and the process serve.
fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(std::process::id())
    })
}

/// Makes a query's table, or adds the columns that it lacks. The key cannot change: it is the table's primary key.
fn make_table(transaction: &Transaction<'_>, query: &Query, path: &Path) -> Result<()> {
    let sql = TableSql::new(query);
    transaction.execute_batch(&sql.create).map_err(at(path))?;
    let columns = || {
        let mut statement = transaction.prepare(&format!("PRAGMA table_info(\"{}\")", query.name))?;
        let columns = statement.query_map([], |row| {
            Ok((row.get::<_, String>("name")?, row.get::<_, i64>("pk")?))
        })?;
        columns.collect::<rusqlite::Result<BTreeMap<String, i64>>>()
    };
    let columns = columns().map_err(at(path))?;
    let mut key: Vec<(i64, &str)> = columns
        .iter()
        .filter(|(_, place)| **place > 0)
        .map(|(name, place)| (*place, name.as_str()))
        .collect();
    key.sort_unstable();
    let same_key = key
        .into_iter()
        .map(|(_, name)| name)
        .eq(sql.key.iter().map(String::as_str));
    if !same_key || !columns.contains_key("revision") {
        return Err(other_key(query));
    }
    for (column, kind) in sql
        .values
        .iter()
        .filter(|(column, _)| !columns.contains_key(column))
    {
        let add = format!("ALTER TABLE \"{}\" ADD COLUMN \"{column}\" {kind}", query.name);
        transaction.execute_batch(&add).map_err(at(path))?;
    }
    if let Some(session) = &sql.session {
        transaction
            .execute_batch(&session.create_index)
            .map_err(at(path))?;
    }
    transaction.execute_batch(&sql.create_index).map_err(at(path))
}
