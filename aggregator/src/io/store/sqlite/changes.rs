//! The change feed as rows: see [`Changes`]. It is written by the commit that writes the rows.

use std::borrow::Cow;

use catchment_common::key::KeyBuffer;
use catchment_common::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Statement, Transaction, params};

use super::{Sqlite, at};
use crate::limits::CURSORS_MAX;
use crate::store::Result;
use crate::store::changes::{
    Advance, Change, ChangedRow, Changes, Cursor, Extent, Feed, Position, What, is_cursor_name,
};
use crate::store::text::{number_of, parse_time_text};

/// What one commit adds to the feed.
pub(super) struct Added<'t> {
    transaction: &'t Transaction<'t>,
    extent: Extent,
    /// The position of the cursor that is farthest behind; none if nobody reads.
    lowest: Option<Position>,
    count: u64,
}

impl<'t> Added<'t> {
    pub(super) fn begin(transaction: &'t Transaction<'t>) -> rusqlite::Result<Self> {
        let mut lowest = transaction.prepare_cached("SELECT min(position) FROM catchment_cursor")?;
        let lowest = lowest.query_row([], |row| row.get::<_, Option<i64>>(0))?;
        Ok(Self {
            transaction,
            extent: extent(transaction)?,
            lowest: lowest.map(i64::cast_unsigned),
            count: 0,
        })
    }

    /// Whether anybody reads the feed.
    pub(super) fn is_read(&self) -> bool {
        self.lowest.is_some()
    }

    /// A statement that tells these columns of the rows that it writes, if anybody reads the feed.
    pub(super) fn asking<'s>(&self, statement: &'s str, columns: &str) -> Cow<'s, str> {
        if self.is_read() {
            format!("{statement} RETURNING {columns}").into()
        } else {
            statement.into()
        }
    }

    /// Executes a statement whose parameters are bound, which writes one row and tells its revision.
    pub(super) fn write(
        &mut self,
        statement: &mut Statement<'_>,
        query: &str,
        row: impl FnOnce() -> ChangedRow,
    ) -> rusqlite::Result<()> {
        if !self.is_read() {
            return statement.raw_execute().map(|_| ());
        }
        let mut revision = 0;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            revision = position(row, 0)?;
        }
        drop(rows);
        self.written(query, &row(), revision)
    }

    /// Executes a statement whose parameters are bound, which marks sessions of a key as merged, and tells when they
    /// start and end and their revisions.
    pub(super) fn merge(
        &mut self,
        statement: &mut Statement<'_>,
        query: &str,
        key: &[u8],
    ) -> rusqlite::Result<()> {
        if !self.is_read() {
            return statement.raw_execute().map(|_| ());
        }
        let mut merged = Vec::new();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let time = |column| -> rusqlite::Result<Timestamp> {
                Ok(parse_time_text(row.get_ref(column)?.as_str()?).unwrap_or(Timestamp::MIN))
            };
            let window = (time(0)?, time(1)?);
            merged.push((ChangedRow::new(window, None, false, key), position(row, 2)?));
        }
        drop(rows);
        merged.sort_unstable();
        for (row, revision) in merged {
            self.written(query, &row, revision)?;
        }
        Ok(())
    }

    /// A row was written.
    pub(super) fn written(&mut self, query: &str, row: &ChangedRow, revision: u64) -> rusqlite::Result<()> {
        self.insert(
            query,
            (row.start, Some(row.end), row.number),
            (row.is_coarse, &row.key, revision),
        )
    }

    /// Retention let rows go.
    pub(super) fn expired(&mut self, query: &str, before: Timestamp) -> rusqlite::Result<()> {
        if self.is_read() {
            self.insert(query, (before, None, None), (false, &[], 0))?;
        }
        Ok(())
    }

    fn insert(
        &mut self,
        query: &str,
        (start, end, number): (Timestamp, Option<Timestamp>, Option<Timestamp>),
        (is_coarse, key, revision): (bool, &[u8], u64),
    ) -> rusqlite::Result<()> {
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO catchment_change (position, query, start_us, end_us, number, coarse, key, revision)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        insert.execute(params![
            (self.extent.next + self.count).cast_signed(),
            query,
            start.as_micros(),
            end.map(Timestamp::as_micros),
            number.map(number_of),
            is_coarse,
            key,
            revision.cast_signed()
        ])?;
        self.count += 1;
        Ok(())
    }

    /// Removes what nobody needs any more, and tells readers that have fallen behind.
    pub(super) fn end(self, kept_max: u64) -> rusqlite::Result<()> {
        let extent = self.extent.after(self.count, self.lowest, kept_max);
        if extent == self.extent {
            return Ok(());
        }
        let transaction = self.transaction;
        let floor = extent.floor.cast_signed();
        transaction
            .prepare_cached("UPDATE catchment_feed SET floor = ?1, next = ?2")?
            .execute(params![floor, extent.next.cast_signed()])?;
        transaction
            .prepare_cached("DELETE FROM catchment_change WHERE position < ?1")?
            .execute([floor])?;
        if self.lowest.is_some_and(|lowest| lowest < extent.floor) {
            let fell =
                "UPDATE catchment_cursor SET position = ?1, reread = 1, gaps = gaps + 1 WHERE position < ?1";
            transaction.execute(fell, [floor])?;
        }
        Ok(())
    }
}

fn extent(connection: &Connection) -> rusqlite::Result<Extent> {
    let mut extent = connection.prepare_cached("SELECT floor, next FROM catchment_feed")?;
    extent.query_row([], |row| {
        Ok(Extent {
            floor: position(row, 0)?,
            next: position(row, 1)?,
        })
    })
}

fn position(row: &Row<'_>, column: usize) -> rusqlite::Result<Position> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

/// The key of a row, by its tags, which begin at a column.
pub(super) fn key_of(row: &Row<'_>, first: usize, tags: usize) -> rusqlite::Result<Box<[u8]>> {
    let mut key = KeyBuffer::default();
    for column in first..first + tags {
        // They came out of a key.
        key.push(row.get_ref(column)?.as_str()?).ok();
    }
    Ok(key.as_bytes().into())
}

fn change(row: &Row<'_>) -> rusqlite::Result<Change> {
    let time = |column| {
        row.get::<_, Option<i64>>(column)
            .map(|at| at.map(Timestamp::clamped))
    };
    let start = Timestamp::clamped(row.get(2)?);
    let what = match time(3)? {
        None => What::Expired(start),
        Some(end) => {
            let number: Option<i64> = row.get(4)?;
            let changed = ChangedRow {
                start,
                end,
                number: number.map(|number| Timestamp::clamped(number.saturating_mul(1_000))),
                is_coarse: row.get(5)?,
                key: row.get::<_, Vec<u8>>(6)?.into(),
            };
            What::Written(changed, position(row, 7)?)
        }
    };
    Ok(Change {
        position: position(row, 0)?,
        query: row.get(1)?,
        what,
    })
}

fn cursor(row: &Row<'_>) -> rusqlite::Result<Cursor> {
    Ok(Cursor {
        name: row.get(0)?,
        position: position(row, 1)?,
        must_reread: row.get(2)?,
        gaps: position(row, 3)?,
    })
}

const CURSOR: &str = "SELECT name, position, reread, gaps FROM catchment_cursor WHERE name = ?1";

impl Sqlite {
    /// The tables have been put back: no position is given out twice, and every reader must read them anew.
    pub fn break_feed(&mut self, next: Position) -> Result<()> {
        let Self { connection, path, .. } = self;
        let mut break_off = || {
            let transaction = connection.transaction()?;
            let next = extent(&transaction)?.next.max(next).cast_signed();
            transaction.execute("UPDATE catchment_feed SET floor = ?1, next = ?1", [next])?;
            transaction.execute("DELETE FROM catchment_change", [])?;
            let all = "UPDATE catchment_cursor SET position = ?1, reread = 1, gaps = gaps + 1";
            transaction.execute(all, [next])?;
            transaction.commit()
        };
        break_off().map_err(at(path))
    }
}

impl Changes for Sqlite {
    fn cursors(&self) -> Result<Vec<Cursor>> {
        let all = "SELECT name, position, reread, gaps FROM catchment_cursor ORDER BY name";
        self.rows(all, cursor)
    }

    fn extent(&self) -> Result<Extent> {
        extent(&self.connection).map_err(at(&self.path))
    }

    fn changes(&self, name: &str, most: usize) -> Result<Option<Feed>> {
        let read = || {
            let Some(cursor) = self.connection.query_row(CURSOR, [name], cursor).optional()? else {
                return Ok(None);
            };
            if cursor.must_reread {
                return Ok(Some(Feed::Reread(extent(&self.connection)?.next)));
            }
            let mut statement = self.connection.prepare_cached(
                "SELECT position, query, start_us, end_us, number, coarse, key, revision FROM catchment_change
                 WHERE position >= ?1 ORDER BY position LIMIT ?2",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let changes = statement.query_map(params![cursor.position.cast_signed(), most], change)?;
            Ok(Some(Feed::Changes(changes.collect::<rusqlite::Result<_>>()?)))
        };
        read().map_err(at(&self.path))
    }

    fn open_cursor(&mut self, name: &str) -> Result<bool> {
        let Self { connection, path, .. } = self;
        let mut open = || {
            let transaction = connection.transaction()?;
            let is_there = transaction
                .query_row(CURSOR, [name], cursor)
                .optional()?
                .is_some();
            let count = "SELECT count(*) FROM catchment_cursor";
            let count: u64 = transaction.query_row(count, [], |row| position(row, 0))?;
            if is_there || count >= CURSORS_MAX as u64 || !is_cursor_name(name) {
                return Ok(is_there);
            }
            let open = "INSERT INTO catchment_cursor (name, position, reread, gaps)
                        SELECT ?1, next, 1, 0 FROM catchment_feed";
            transaction.execute(open, [name])?;
            transaction.commit()?;
            Ok(true)
        };
        open().map_err(at(path))
    }

    fn advance(&mut self, name: &str, position: Position) -> Result<Advance> {
        let Self { connection, path, .. } = self;
        let mut advance = || {
            let transaction = connection.transaction()?;
            let next = extent(&transaction)?.next;
            let Some(cursor) = transaction.query_row(CURSOR, [name], cursor).optional()? else {
                return Ok(Advance::Unknown);
            };
            if !(cursor.position..=next).contains(&position) {
                return Ok(Advance::Outside);
            }
            let advance = "UPDATE catchment_cursor SET position = ?2, reread = 0 WHERE name = ?1";
            transaction.execute(advance, params![name, position.cast_signed()])?;
            transaction.commit()?;
            Ok(Advance::Done)
        };
        advance().map_err(at(path))
    }

    fn drop_cursor(&mut self, name: &str) -> Result<bool> {
        let drop = "DELETE FROM catchment_cursor WHERE name = ?1";
        let dropped = self.connection.execute(drop, [name]);
        dropped.map(|dropped| dropped > 0).map_err(at(&self.path))
    }

    fn keep_changes(&mut self, most: u64) {
        self.changes_max = most;
    }
}
