//! The store: one SQLite file, one writer, every commit durable before it is acknowledged.
//!
//! WAL with `synchronous=FULL`: a transaction that returned survives power loss on a disk that honours fsync. `NORMAL`
//! would lose the last ones. Each [`Commit`] is one transaction, whole or not at all.

mod inputs;

mod migrate;

mod numbers;

mod restore;

mod results;

mod set_aside;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use catchment_common::plan::{Pipeline, PipelineId, Plan, Query};
use catchment_common::time::Timestamp;
use catchment_common::wire;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use self::migrate::{SCHEMA_FIRST, SCHEMA_VERSION};
pub use self::numbers::Numbers;
use crate::catalog::Catalog;
use crate::commit::{Commit, PaneSource, SourceFault, StoredChunk};
use crate::io::store::tables::{TableSql, time_text};

/// How long to wait for another process that holds the write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The WAL is cut back to this after a checkpoint of SQLite's own.
const JOURNAL_SIZE_LIMIT: i64 = 64 << 20;
/// Statements kept prepared: two or three for each of many queries.
const STATEMENTS_MAX: usize = 1_024;

/// A store that cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// SQLite refused.
    #[error("{}: {error}", path.display())]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// What it said.
        error: rusqlite::Error,
    },
    /// The file is damaged.
    #[error(
        "{}: the database is damaged ({found}); stop everything that writes to it, keep a copy, and restore the last \
         backup (agents send again what a backup does not have), or move the file away to start anew",
        path.display()
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What the check found.
        found: String,
    },
    /// The file was written by newer software.
    #[error(
        "{}: the database has schema version {found}, this software knows {known}; run the newer catchment-aggregator \
         that wrote it, or name another database file",
        path.display()
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The file was written by software from before the first release.
    #[error(
        "{}: the database has schema version {found}, from before the first release, and cannot be read; move the file \
         away to start anew",
        path.display()
    )]
    Older {
        /// The database file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// A plan cannot be put into force here.
    #[error("query `{query}`: {problem}")]
    Plan {
        /// The query at fault.
        query: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Stored bytes that should be ours are not.
    #[error("{}: stored {what} cannot be read: {problem}", path.display())]
    Content {
        /// The database file.
        path: PathBuf,
        /// What was to be read.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Connection,
}

type Result<T> = std::result::Result<T, StoreFault>;

impl Store {
    /// Opens or makes the database, checks it, and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path).map_err(at(path))?;
        let mut store = Self {
            path: path.to_owned(),
            connection,
        };
        store.check()?;
        // Before anything is written: configuring changes the file.
        version_of(&store.connection, path)?;
        store.configure()?;
        store.migrate()?;
        Ok(store)
    }

    /// Opens an existing database for reading only.
    pub fn open_to_read(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(at(path))?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(at(path))?;
        let store = Self {
            path: path.to_owned(),
            connection,
        };
        version_of(&store.connection, path)?;
        Ok(store)
    }

    /// What an error of the connection means for the operator.
    pub fn explain(&self, error: rusqlite::Error) -> StoreFault {
        at(&self.path)(error)
    }

    /// The connection, for reading.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    fn check(&self) -> Result<()> {
        let found: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(at(&self.path))?;
        if found == "ok" {
            Ok(())
        } else {
            Err(StoreFault::Damaged {
                path: self.path.clone(),
                found,
            })
        }
    }

    fn configure(&self) -> Result<()> {
        let configure = || {
            self.connection.busy_timeout(BUSY_TIMEOUT)?;
            self.connection.pragma_update(None, "journal_mode", "WAL")?;
            self.connection.pragma_update(None, "synchronous", "FULL")?;
            self.connection
                .pragma_update(None, "journal_size_limit", JOURNAL_SIZE_LIMIT)?;
            self.connection
                .set_prepared_statement_cache_capacity(STATEMENTS_MAX);
            Ok(())
        };
        configure().map_err(at(&self.path))
    }

    fn migrate(&mut self) -> Result<()> {
        let path = self.path.clone();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(at(&path))?;
        let found = version_of(&transaction, &path)?;
        migrate::migrate(&transaction, found, &path)?;
        transaction.commit().map_err(at(&path))
    }

    /// The newest plan's version; 0 before the first.
    pub fn plan_version(&self) -> Result<u64> {
        let version = "SELECT coalesce(max(version), 0) FROM catchment_plan";
        self.connection
            .query_row(version, [], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
            .map_err(at(&self.path))
    }

    /// The newest plan's text.
    pub fn plan_source(&self) -> Result<Option<String>> {
        let newest = "SELECT source FROM catchment_plan ORDER BY version DESC LIMIT 1";
        self.connection
            .query_row(newest, [], |row| row.get(0))
            .optional()
            .map_err(at(&self.path))
    }

    /// The agents that an operator has retired.
    pub fn retired(&self) -> Result<BTreeSet<String>> {
        let read = || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT name FROM catchment_agent WHERE retired")?;
            statement
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(at(&self.path))
    }

    /// Retires an agent; returns whether there is one of that name.
    pub fn retire(&self, agent: &str) -> Result<bool> {
        let retire = "UPDATE catchment_agent SET retired = 1 WHERE name = ?1";
        let count = self.connection.execute(retire, [agent]).map_err(at(&self.path))?;
        Ok(count > 0)
    }

    /// Puts a checked plan into force: gives pipelines their numbers, makes or widens result tables, and stores it
    /// under the next version, which is returned.
    pub fn apply_plan(&mut self, mut plan: Plan, source: &str, now: Timestamp) -> Result<u64> {
        let before = self.load_plan()?.unwrap_or_default();
        let path = self.path.clone();
        plan.version = self.numbers()?.plan_floor + 1;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(at(&path))?;
        let planned = plan.pipelines();
        let numbers = numbers::for_plan(&transaction, &plan, &planned).map_err(at(&path))?;
        for (query, (pipeline, _)) in plan.queries.iter().zip(&planned.readers) {
            if let Some(old) = before.queries.iter().find(|old| old.name == query.name)
                && old.window != query.window
            {
                return Err(plan_fault(
                    query,
                    "its windows were of another kind, size or step; give the query a new name",
                ));
            }
            let id = numbers[*pipeline];
            make_table(&transaction, query, &path)?;
            let remember = || {
                transaction.execute(
                    "INSERT INTO catchment_query (name, pipeline) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET pipeline = ?2",
                    params![query.name, id],
                )?;
                transaction.execute(
                    "INSERT OR IGNORE INTO catchment_reader (query, pipeline) VALUES (?1, ?2)",
                    params![query.name, id],
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

    /// Makes a commit durable. On an error nothing of it is.
    pub fn commit(&mut self, commit: &Commit, tables: &[TableSql]) -> rusqlite::Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        set_aside::write(&transaction, commit)?;
        inputs::write(&transaction, commit)?;
        for changes in &commit.results {
            results::write(&transaction, changes, &tables[changes.query], commit.at)?;
        }
        results::write_contributions(&transaction, commit)?;
        match &commit.checkpoint {
            None => results::append_batches(&transaction, commit)?,
            Some(checkpoint) => {
                transaction.execute("DELETE FROM catchment_batch", [])?;
                let mut put = transaction.prepare_cached(
                    "INSERT OR REPLACE INTO catchment_pane (pipeline, start_us, chunk, columns) VALUES (?1, ?2, ?3, ?4)",
                )?;
                let mut cut = transaction.prepare_cached(
                    "DELETE FROM catchment_pane WHERE pipeline = ?1 AND start_us = ?2 AND chunk >= ?3",
                )?;
                for pane in &checkpoint.panes {
                    let (pipeline, start) = (pane.pipeline.0, pane.start.as_micros());
                    for (number, columns) in pane.chunks.iter().enumerate() {
                        put.execute(params![pipeline, start, number as i64, columns])?;
                    }
                    cut.execute(params![pipeline, start, pane.chunks.len() as i64])?;
                }
                for &(query, before) in &checkpoint.expired.rows {
                    transaction
                        .prepare_cached(&tables[query].expire)?
                        .execute([tables[query].horizon(before)])?;
                    transaction
                        .prepare_cached(
                            "DELETE FROM catchment_shown WHERE query = ?1 AND start_us < ?2 AND end_us <= ?2",
                        )?
                        .execute(params![tables[query].name, before.as_micros()])?;
                }
                for &(pipeline, before) in &checkpoint.expired.panes {
                    transaction
                        .prepare_cached("DELETE FROM catchment_pane WHERE pipeline = ?1 AND start_us < ?2")?
                        .execute(params![pipeline.0, before.as_micros()])?;
                    transaction
                        .prepare_cached(
                            "DELETE FROM catchment_contribution WHERE pipeline = ?1 AND start_us < ?2",
                        )?
                        .execute(params![pipeline.0, before.as_micros()])?;
                }
            }
        }
        transaction.commit()
    }
}

/// Whether a database of this schema version can be brought up to date; 0 is a new one.
pub(super) fn check_version(found: i64, path: &Path) -> Result<()> {
    let path = path.to_owned();
    let known = SCHEMA_VERSION;
    match found {
        0 | SCHEMA_FIRST..=SCHEMA_VERSION => Ok(()),
        found if found > known => Err(StoreFault::Newer { path, found, known }),
        found => Err(StoreFault::Older { path, found }),
    }
}

impl PaneSource for Store {
    fn chunks(
        &self,
        pipeline: PipelineId,
        pane: Timestamp,
    ) -> std::result::Result<Vec<StoredChunk>, SourceFault> {
        let read = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT chunk, columns FROM catchment_pane WHERE pipeline = ?1 AND start_us = ?2 ORDER BY chunk",
            )?;
            statement
                .query_map(params![pipeline.0, pane.as_micros()], |row| {
                    Ok(StoredChunk {
                        number: row.get(0)?,
                        columns: row.get(1)?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error: rusqlite::Error| SourceFault(error.to_string()))
    }

    fn starts(
        &self,
        pipeline: PipelineId,
        from: Timestamp,
        to: Timestamp,
    ) -> std::result::Result<Vec<Timestamp>, SourceFault> {
        let read = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT DISTINCT start_us FROM catchment_pane WHERE pipeline = ?1 AND start_us BETWEEN ?2 AND ?3",
            )?;
            statement
                .query_map(params![pipeline.0, from.as_micros(), to.as_micros()], |row| {
                    row.get(0).map(Timestamp::clamped)
                })?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error: rusqlite::Error| SourceFault(error.to_string()))
    }
}

/// Pages that cannot be read, or are none of SQLite's, say that the file is damaged; the rest is SQLite's own fault.
fn at(path: &Path) -> impl Fn(rusqlite::Error) -> StoreFault {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let path = path.to_owned();
    move |error| match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => StoreFault::Damaged {
            path: path.clone(),
            found: error.to_string(),
        },
        _ => StoreFault::Sqlite {
            path: path.clone(),
            error,
        },
    }
}

/// The version of the database's schema, if this software can use it.
fn version_of(connection: &Connection, path: &Path) -> Result<i64> {
    let found = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(at(path))?;
    check_version(found, path)?;
    Ok(found)
}

fn plan_fault(query: &Query, problem: impl Into<String>) -> StoreFault {
    StoreFault::Plan {
        query: query.name.clone(),
        problem: problem.into(),
    }
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

/// The statements of all queries of a catalog, in its order.
pub fn tables(catalog: &Catalog) -> Arc<[TableSql]> {
    catalog
        .queries
        .iter()
        .map(|query| TableSql::new(&query.query))
        .collect()
}

#[cfg(test)]
mod tests;
