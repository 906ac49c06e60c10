//! The store: one SQLite file, one writer, every commit durable before it is acknowledged.
//!
//! WAL with `synchronous=FULL`: a transaction that returned survives power loss on a disk that honours fsync. `NORMAL`
//! would lose the last ones. Each [`Commit`] is one transaction, whole or not at all.

mod changes;

mod commit;

mod given_out;

mod inputs;

mod lookup;

mod migrate;

pub(in crate::io) mod pipelines;

mod plan;

mod restore;

mod results;

mod set_aside;

mod statements;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use catchment_common::plan::{Plan, Query};
use catchment_common::time::Timestamp;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

pub use self::given_out::GivenOut;
use self::migrate::{SCHEMA_FIRST, SCHEMA_VERSION};
use crate::commit::Commit;
use crate::io::store::tables::TableSql;
use crate::limits::CHANGES_MAX;
use crate::store::{PlanFile, Result, Store, StoreFault};

/// How long to wait for another process that holds the write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The WAL is cut back to this after a checkpoint of SQLite's own.
const JOURNAL_SIZE_LIMIT: i64 = 64 << 20;
/// Statements kept prepared: two or three for each of many queries.
const STATEMENTS_MAX: usize = 1_024;

/// An open store.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    /// Which file it is: device and inode.
    file: (u64, u64),
    connection: Connection,
    /// Most changes that are kept.
    changes_max: u64,
    /// The queries that results were last written for, and the statements of their tables.
    tables: (Arc<[Query]>, Arc<[TableSql]>),
}

impl Sqlite {
    /// Opens or makes the database, checks it, and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path).map_err(at(path))?;
        let mut store = Self {
            path: path.to_owned(),
            file: file_at(path)?,
            connection,
            changes_max: CHANGES_MAX,
            tables: Default::default(),
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
            file: file_at(path)?,
            connection,
            changes_max: CHANGES_MAX,
            tables: Default::default(),
        };
        let found = version_of(&store.connection, path)?;
        if found != SCHEMA_VERSION {
            let (path, known) = (path.to_owned(), SCHEMA_VERSION);
            return Err(StoreFault::Behind { path, found, known });
        }
        Ok(store)
    }

    /// Whether the database file is still where it was. SQLite would not notice: it goes on with the open file, which is
    /// gone when the process ends.
    pub fn check_place(&self) -> Result<()> {
        if file_at(&self.path).ok() == Some(self.file) {
            return Ok(());
        }
        Err(StoreFault::Moved {
            path: self.path.clone(),
        })
    }

    /// Where the database file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An operator sets an agent's watermarks back; returns whether the agent is known. A running server does it with its
    /// next commit.
    pub fn set_back(&mut self, agent: &str, to: Timestamp) -> Result<bool> {
        let set_back = || {
            let transaction = self.connection.unchecked_transaction()?;
            let known = "SELECT count(*) FROM catchment_agent WHERE name = ?1";
            let known: i64 = transaction.query_row(known, [agent], |row| row.get(0))?;
            transaction.execute(
                "UPDATE catchment_watermark SET watermark_us = min(watermark_us, ?2) WHERE agent = ?1",
                rusqlite::params![agent, to.as_micros()],
            )?;
            transaction.execute(
                "INSERT OR REPLACE INTO catchment_set_back (agent, to_us) VALUES (?1, ?2)",
                rusqlite::params![agent, to.as_micros()],
            )?;
            if known > 0 {
                transaction.commit()?;
            }
            Ok(known > 0)
        };
        set_back().map_err(at(&self.path))
    }

    /// The agents whose watermarks an operator wants set back, until a commit has done it.
    pub fn to_set_back(&self) -> Result<std::collections::BTreeMap<String, Timestamp>> {
        let all = self.rows("SELECT agent, to_us FROM catchment_set_back", |row| {
            Ok((row.get(0)?, Timestamp::clamped(row.get(1)?)))
        })?;
        Ok(all.into_iter().collect())
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
}

impl Store for Sqlite {
    fn apply_plan(&mut self, plan: Plan, source: &str, now: Timestamp) -> Result<u64> {
        self.check_changes(&plan)?;
        self.put_into_force(plan, source, now)
    }

    fn set_plan_file(&mut self, file: Option<&PlanFile>) -> Result<()> {
        let result = match file {
            None => self.connection.execute("DELETE FROM catchment_plan_file", []),
            Some(PlanFile { path, hash }) => self.connection.execute(
                "INSERT OR REPLACE INTO catchment_plan_file (id, path, hash) VALUES (1, ?1, ?2)",
                params![path, hash.cast_signed()],
            ),
        };
        result.map(|_| ()).map_err(at(&self.path))
    }

    fn commit(&mut self, commit: &Commit) -> Result<()> {
        self.write(commit)
    }

    fn retire(&mut self, agent: &str, forget: bool) -> Result<bool> {
        let mut retire = || {
            let transaction = self.connection.transaction()?;
            let retire = "UPDATE catchment_agent SET retired = 1 WHERE name = ?1";
            let is_known = transaction.execute(retire, [agent])? > 0;
            if is_known && forget {
                transaction.execute(
                    "INSERT OR IGNORE INTO catchment_forget (agent) VALUES (?1)",
                    [agent],
                )?;
            }
            transaction.commit()?;
            Ok(is_known)
        };
        retire().map_err(at(&self.path))
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

/// Device and inode of the file that has a path.
fn file_at(path: &Path) -> Result<(u64, u64)> {
    let found = std::fs::metadata(path).map_err(|error| StoreFault::Failed {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    Ok((found.dev(), found.ino()))
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
        _ => StoreFault::Failed {
            path: path.clone(),
            problem: error.to_string(),
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

#[cfg(test)]
mod tests;
