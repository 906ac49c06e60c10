//! Putting a plan into force: ids for its pipelines, and a table for each query.

use std::collections::BTreeMap;
use std::path::Path;

use catchment_common::plan::{Plan, Query};
use catchment_common::time::Timestamp;
use catchment_common::wire;
use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};

use super::pipelines::{self, bits, id_at};
use super::{Sqlite, at, statements};
use crate::catalog::since::{Standing, standing};
use crate::io::store::tables::TableSql;
use crate::plan_toml;
use crate::store::text::time_text;
use crate::store::{Result, check_changes, plan_fault};

impl Sqlite {
    /// Whether the queries of a plan may have the names that they have.
    pub(super) fn check_changes(&self, plan: &Plan) -> Result<()> {
        let mut below = i64::MAX;
        check_changes(plan, || {
            let before = "SELECT version, definition, source FROM catchment_plan WHERE version < ?1
                          ORDER BY version DESC LIMIT 1";
            let read = |row: &rusqlite::Row<'_>| {
                Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, String>(2)?))
            };
            let before = self.connection.query_row(before, [below], read).optional();
            let Some((version, definition, source)) = before.map_err(at(&self.path))? else {
                return Ok(None);
            };
            below = version;
            let plan = wire::parse_plan(&definition).ok();
            let plan = plan.or_else(|| plan_toml::parse(&source, "the stored plan").ok());
            // One that cannot be read at all stops nobody from putting the next into force.
            Ok(Some(plan.unwrap_or_default()))
        })
    }

    /// How long the queries of the plan in force have been in plans.
    fn in_force(&self, plan: &Plan) -> Result<BTreeMap<String, Standing>> {
        let queries = plan.queries.iter();
        let queries = queries.map(|query| Ok((query.name.clone(), self.standing_of(&query.name)?)));
        queries.collect()
    }

    /// How long a query has been in plans.
    pub(super) fn standing_of(&self, query: &str) -> Result<Standing> {
        let standing = "SELECT pipeline, on_it_us, since_us FROM catchment_query WHERE name = ?1";
        let read = |row: &rusqlite::Row<'_>| {
            let at = |column| -> rusqlite::Result<Timestamp> {
                let at: Option<i64> = row.get(column)?;
                Ok(at.map_or(Timestamp::MIN, Timestamp::clamped))
            };
            Ok(Standing {
                pipeline: id_at(row, 0)?,
                on_it: at(1)?,
                since: at(2)?,
            })
        };
        let standing = self.connection.query_row(standing, [query], read);
        standing.map_err(at(&self.path))
    }

    /// Puts a plan into force whose changes are allowed: gives pipelines their ids, makes or widens result tables, and
    /// stores it under the next version, which is returned.
    pub fn put_into_force(&mut self, mut plan: Plan, source: &str, now: Timestamp) -> Result<u64> {
        let before = self.load_plan()?;
        let in_force = before.as_ref().map(|plan| self.in_force(plan)).transpose()?;
        let before = before.unwrap_or_default();
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
            make_table(&transaction, query, &path)?;
            let standing = standing(&query.name, id, in_force.as_ref(), now);
            let remember = || {
                transaction.execute(
                    "INSERT INTO catchment_query (name, pipeline, on_it_us, since_us) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET pipeline = ?2, on_it_us = ?3, since_us = ?4",
                    params![
                        query.name,
                        bits(id),
                        standing.on_it.as_micros(),
                        standing.since.as_micros()
                    ],
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
    let columns = statements::columns(transaction, &query.name).map_err(at(path))?;
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
        return Err(plan_fault(
            query,
            "a table of this name has another key; give the query a new name",
        ));
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
