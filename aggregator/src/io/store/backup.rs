//! Backups: a whole copy of the database while it is served, and the way back.
//!
//! A backup is one plain SQLite file. It is written beside its place, checked, made durable and then given its name, so
//! that a file of that name is always a whole backup. After a restore the agents are told what the old database has
//! committed, and send again what it lacks from the batches that they retain.
//!
//! **Nothing is given out twice.** A backup is the same database as the one that it was made of, and agents go on with it.
//! They hold batches of pipelines that were given out after the backup was made. If the replaced database is the same
//! one and can still be read, its pipelines and its plan are carried over; if it cannot be read, whatever is given out
//! from now on gets ids of its own, and plan versions go on above any that it can have had.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use catchment_common::time::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::io::store::lock::DatabaseLock;
use crate::io::store::sqlite::{GivenOut, Sqlite, check_version};
use crate::plan_toml;

/// How far plan versions go on after a restore whose replaced database cannot be read: more plans than anybody applies
/// between two backups.
const PLAN_GAP: u64 = 1_000;

/// How far positions of the change feed go on then: more rows than are written between two backups.
const FEED_GAP: u64 = 1 << 40;

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

/// Copies a database whose file has lost its name, from the open connection of `store`, to a file beside its place, and
/// returns where that is. Without it, all that was acknowledged would be gone with the process.
pub fn rescue(store: &Sqlite, database: &Path, now: Timestamp) -> Result<PathBuf> {
    let stamp = now.as_micros() / 1_000_000;
    let target = beside(database, &format!("rescued-{stamp}"));
    ensure!(
        !target.exists(),
        "{}: the file is there already",
        target.display()
    );
    let partial = beside(&target, "partial");
    copy(store.connection(), &partial)
        .with_context(|| format!("{}: cannot write the copy", partial.display()))?;
    check(&partial)?;
    give_name(&partial, &target)?;
    Ok(target)
}

/// Puts the backup `source` in the place of `database`, which must not be served. Returns where the former database is
/// now, if there was one: it is never deleted.
pub fn restore(database: &Path, source: &Path, now: Timestamp) -> Result<Option<PathBuf>> {
    let _lock = DatabaseLock::take(database)?;
    check(source)?;
    let partial = beside(database, "restoring");
    copy(&open_to_copy(source)?, &partial)
        .with_context(|| format!("{}: cannot copy the backup", partial.display()))?;
    let replaced = replaced(database);
    carry_over(&partial, &replaced, now)?;
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

/// The database that a backup replaces.
enum Replaced {
    /// There is none.
    Nothing,
    /// What it has given out.
    Known(Box<GivenOut>),
    /// It cannot be read.
    Unreadable,
}

/// What of the database that is replaced must not be forgotten. It is read from a copy, brought up to date, so that the
/// file itself stays as it is.
fn replaced(database: &Path) -> Replaced {
    if !database.exists() {
        return Replaced::Nothing;
    }
    let beside = beside(database, "reading");
    let read = || -> Result<GivenOut> {
        copy(&open_to_copy(database)?, &beside)?;
        let given_out = Sqlite::open(&beside)?.given_out()?;
        settle_journal(&beside)?;
        Ok(given_out)
    };
    let found = read().map_or(Replaced::Unreadable, |known| Replaced::Known(Box::new(known)));
    fs::remove_file(&beside).ok();
    found
}

fn carry_over(file: &Path, replaced: &Replaced, now: Timestamp) -> Result<()> {
    let mut store = Sqlite::open(file)?;
    let own = store.given_out()?;
    let feed_next = match replaced {
        Replaced::Known(known) if known.database == own.database => known.feed_next,
        _ => own.feed_next.saturating_add(FEED_GAP),
    };
    store.break_feed(feed_next)?;
    match replaced {
        Replaced::Nothing => {}
        Replaced::Unreadable => {
            let mut nonce = [0; 8];
            getrandom::fill(&mut nonce)
                .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
            store.begin_branch(u64::from_le_bytes(nonce))?;
            store.raise_plan_floor(own.plan_floor.saturating_add(PLAN_GAP))?;
        }
        // Another database: its agents will see that this is not theirs.
        Replaced::Known(known) if known.database != own.database => {}
        Replaced::Known(known) => {
            store.carry_over(known)?;
            if let Some(text) = known
                .plan
                .as_ref()
                .filter(|_| known.plan_version > own.plan_version)
            {
                // It was in force: how it came from the backup's, which may be much older, does not matter.
                let parsed = plan_toml::parse(text, "the plan of the replaced database")?;
                store.put_into_force(parsed, text, now)?;
            }
        }
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
