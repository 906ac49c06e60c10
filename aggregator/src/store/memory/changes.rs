//! The change feed in memory: see [`Changes`].

use std::collections::BTreeMap;

use super::Memory;
use crate::limits::{CHANGES_MAX, CURSORS_MAX};
use crate::store::Result;
use crate::store::changes::{Advance, Change, Changes, Cursor, Extent, Feed, Position, What, is_cursor_name};

/// The feed and its cursors.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    extent: Extent,
    most: u64,
    changes: BTreeMap<Position, (String, What)>,
    cursors: BTreeMap<String, Cursor>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            extent: Extent::default(),
            most: CHANGES_MAX,
            changes: BTreeMap::new(),
            cursors: BTreeMap::new(),
        }
    }
}

impl Kept {
    /// Takes what a commit has changed.
    pub(super) fn take(&mut self, changed: Vec<(String, What)>) {
        let is_read = !self.cursors.is_empty();
        let added = if is_read { changed.len() as u64 } else { 0 };
        if is_read {
            self.changes.extend((self.extent.next..).zip(changed));
        }
        let lowest = self.cursors.values().map(|cursor| cursor.position).min();
        self.extent = self.extent.after(added, lowest, self.most);
        let floor = self.extent.floor;
        self.changes = self.changes.split_off(&floor);
        for cursor in self.cursors.values_mut().filter(|cursor| cursor.position < floor) {
            cursor.position = floor;
            cursor.must_reread = true;
            cursor.gaps += 1;
        }
    }

    /// The tables have been put back: no position is given out twice, and every reader must read them anew.
    pub(super) fn break_off(&mut self, next: Position) {
        let next = next.max(self.extent.next);
        self.extent = Extent { floor: next, next };
        self.changes.clear();
        for cursor in self.cursors.values_mut() {
            cursor.position = next;
            cursor.must_reread = true;
            cursor.gaps += 1;
        }
    }

    /// Where the next change goes.
    pub(super) fn next(&self) -> Position {
        self.extent.next
    }
}

impl Changes for Memory {
    fn cursors(&self) -> Result<Vec<Cursor>> {
        Ok(self.feed.cursors.values().cloned().collect())
    }

    fn extent(&self) -> Result<Extent> {
        Ok(self.feed.extent)
    }

    fn changes(&self, cursor: &str, most: usize) -> Result<Option<Feed>> {
        let feed = |cursor: &Cursor| {
            if cursor.must_reread {
                return Feed::Reread(self.feed.extent.next);
            }
            let changes = self.feed.changes.range(cursor.position..).take(most);
            let change = |(&position, (query, what)): (&Position, &(String, What))| Change {
                position,
                query: query.clone(),
                what: what.clone(),
            };
            Feed::Changes(changes.map(change).collect())
        };
        Ok(self.feed.cursors.get(cursor).map(feed))
    }

    fn open_cursor(&mut self, name: &str) -> Result<bool> {
        let Kept { extent, cursors, .. } = &mut self.feed;
        let is_there = cursors.contains_key(name);
        if is_there || cursors.len() >= CURSORS_MAX || !is_cursor_name(name) {
            return Ok(is_there);
        }
        let cursor = Cursor {
            name: name.to_owned(),
            position: extent.next,
            must_reread: true,
            gaps: 0,
        };
        cursors.insert(name.to_owned(), cursor);
        Ok(true)
    }

    fn advance(&mut self, cursor: &str, position: Position) -> Result<Advance> {
        let next = self.feed.extent.next;
        let Some(cursor) = self.feed.cursors.get_mut(cursor) else {
            return Ok(Advance::Unknown);
        };
        if !(cursor.position..=next).contains(&position) {
            return Ok(Advance::Outside);
        }
        cursor.position = position;
        cursor.must_reread = false;
        Ok(Advance::Done)
    }

    fn drop_cursor(&mut self, name: &str) -> Result<bool> {
        Ok(self.feed.cursors.remove(name).is_some())
    }

    fn keep_changes(&mut self, most: u64) {
        self.feed.most = most;
    }
}
