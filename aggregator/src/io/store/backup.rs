//! Backups: a whole copy of the database while it is served, and the way back.
//!
//! A backup is one plain SQLite file. It is written beside its place, checked, made durable and then given its name, so
//! that a file of that name is always a whole backup. After a restore the agents are told what the old database has
//! committed, and send again what it lacks from the batches that they retain.
//!
//! **Numbers are not used twice.** Agents hold batches of pipelines that were given out after the backup was made, and
//! plans with later versions. If the replaced database can still be read, its pipelines and its plan are carried over;
//! if not, numbering goes on far above anything that it can have given out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use catchment_common::time::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::io::run;
use crate::io::store::lock::DatabaseLock;
use crate::io::store::sqlite::{Numbers, Sqlite, check_version};

/// How far numbering goes on after a restore whose replaced database cannot be read: more pipelines than any plans
/// between two backups can have taken, and few enough that numbers stay short.
const PIPELINE_GAP: u32 = 100_000;
/// The same for plan versions.
const PLAN_GAP: u64 = 1_000;

/// A copy waits so long, and so often, for a database that is locked: by one that is being recovered, say.
const COPY_RETRY: Duration = Duration::from_millis(50);
const COPY_ATTEMPTS_MAX: u32 = 100;

/// Writes a copy of `database` to `target`. The server may run meanwhile and is not held up: the copy is of one moment,
/// read beside it.
pub fn backup(database: &Path, target: &Path, force: bool) -> Result<()> {
    let refuse_to_replace = || {
        ensure!(
            force || !target.exists(),
            "{}: the file is there already; name another or give --force",
            target.display()
        );
        Ok(())
    };
    refuse_to_replace()?;
    let source = open_to_copy(database)?;
    let partial = beside(target, "partial");
    copy(&source, &partial).with_context(|| format!("{}: cannot write the backup", partial.display()))?;
    check(&partial)?;
    refuse_to_replace()?;
    give_name(&partial, target)
}

/// Puts the backup `source` in the place of `database`, which must not be served. Returns where the former database is
/// now, if there was one: it is never deleted.
pub fn restore(database: &Path, source: &Path, now: Timestamp) -> Result<Option<PathBuf>> {
    let _lock = DatabaseLock::take(database)?;
    check(source)?;
    let partial = beside(database, "restoring");
    copy(&open_to_copy(source)?, &partial)
        .with_context(|| format!("{}: cannot copy the backup", partial.display()))?;
    let replaced = database.exists().then(|| carry_over(database));
    renumber(&partial, replaced.flatten(), now)?;
    settle_journal(&partial)?;
    let aside = move_aside(database, now)?;
    give_name(&partial, database)?;
    Ok(aside)
}

/// A copy of the whole database as of one moment.
fn copy(source: &Connection, target: &Path) -> Result<()> {
    if target.exists() {
        fs::remove_file(target)?;
    }
    let mut copy = Connection::open(target)?;
    // All pages in one step: readers do not hold up the writer, and what is written meanwhile cannot make it start
    // over.
    let backup = Backup::new(source, &mut copy)?;
    let mut attempts = 0..COPY_ATTEMPTS_MAX;
    while backup.step(-1)? != StepResult::Done {
        ensure!(attempts.next().is_some(), "the database stays locked");
        thread::sleep(COPY_RETRY);
    }
    drop(backup);
    drop(copy);
    settle_journal(target)
}

/// Leaves one plain file without a journal beside it.
fn settle_journal(file: &Path) -> Result<()> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "DELETE")?;
    connection.close().map_err(|(_, error)| error)?;
    File::open(file)?.sync_all()?;
    Ok(())
}

fn open_to_copy(file: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(file, flags).with_context(|| format!("{}: cannot be read", file.display()))
}

/// That a file is a whole database of ours.
fn check(file: &Path) -> Result<()> {
    let connection = open_to_copy(file)?;
    let found: rusqlite::Result<String> =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    let found = found.unwrap_or_else(|error| error.to_string());
    ensure!(
        found == "ok",
        "{}: the file is damaged or no database ({found}); use another backup",
        file.display()
    );
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let ours: bool = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE name = 'catchment_committed'",
        [],
        |row| row.get(0),
    )?;
    ensure!(
        ours && version > 0,
        "{}: this is no database of catchment-aggregator",
        file.display()
    );
    Ok(check_version(version, file)?)
}

/// What of the database that is replaced must not be forgotten; nothing if it cannot be read.
fn carry_over(database: &Path) -> Option<Numbers> {
    Sqlite::open_to_read(database)
        .and_then(|store| store.numbers())
        .ok()
}

fn renumber(file: &Path, replaced: Option<Numbers>, now: Timestamp) -> Result<()> {
    let mut store = Sqlite::open(file)?;
    let own = store.numbers()?;
    let Some(replaced) = replaced else {
        let unknown = Numbers {
            pipeline_floor: own.pipeline_floor.saturating_add(PIPELINE_GAP),
            plan_floor: own.plan_floor.saturating_add(PLAN_GAP),
            ..Numbers::default()
        };
        return Ok(store.carry_over(&unknown)?);
    };
    store.carry_over(&replaced)?;
    if let Some(plan) = replaced.plan.filter(|_| replaced.plan_version > own.plan_version) {
        run::apply(&mut store, &plan, "the plan of the replaced database", now)?;
    }
    Ok(())
}

/// Moves a database and what belongs to it aside.
fn move_aside(database: &Path, now: Timestamp) -> Result<Option<PathBuf>> {
    if !database.exists() {
        return Ok(None);
    }
    let stamp = now.as_micros() / 1_000_000;
    let free = |path: &PathBuf| !path.exists();
    let mut names = (0..1_000).map(|count| beside(database, &format!("replaced-{stamp}-{count}")));
    let Some(aside) = names.find(free) else {
        bail!("{}: too many replaced databases lie here", database.display());
    };
    // The log first: one that is left behind would be taken for the new database's.
    for suffix in ["-wal", "-shm"] {
        let (from, to) = (with_suffix(database, suffix), with_suffix(&aside, suffix));
        if from.exists() {
            fs::rename(&from, &to).with_context(|| format!("{}: cannot be moved aside", from.display()))?;
        }
    }
    // A second name, where that is possible, so that at no moment there is no database: a server that starts then would
    // make an empty one.
    if fs::hard_link(database, &aside).is_err() {
        fs::rename(database, &aside)
            .with_context(|| format!("{}: cannot be moved aside", database.display()))?;
    }
    Ok(Some(aside))
}

/// Renames a finished file and makes the new name durable.
fn give_name(partial: &Path, target: &Path) -> Result<()> {
    fs::rename(partial, target).with_context(|| format!("{}: cannot be named", target.display()))?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    with_suffix(file, &format!(".{suffix}"))
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
