//! The change feed: which rows commits have written, in order, for readers that keep a cursor.
//!
//! A change names a row and its revision and does not repeat its values: whoever reads it looks the row up, and finds
//! that revision or a later one. So applying a change twice, or late, does no harm, and a reader that has applied all of
//! them has the tables. Changes are written with the rows, in one transaction, while there is a cursor; with none,
//! nothing is written or kept.
//!
//! A reader that is new, or has fallen more than the bound behind, is told to read the tables anew ([`Feed::Reread`]) and
//! goes on from where the feed was then. What all cursors have passed is removed by the commits that follow, a bounded
//! piece by each.

use catchment_common::plan::Window;
use catchment_common::time::Timestamp;

use super::text::number_of;
use super::{Reads, Result};
use crate::limits::{CHANGES_REMOVED_MAX, CURSOR_NAME_MAX};

/// A place in the feed. The first is 1; each change has one more than the change before it.
pub type Position = u64;

/// Names a row of a result table. Instants are whole milliseconds, as tables show them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ChangedRow {
    /// The start of its window. A count window's may move.
    pub start: Timestamp,
    /// The end of its window. A session's or count window's may move.
    pub end: Timestamp,
    /// The number of a count window, by which it is known with its key.
    pub number: Option<Timestamp>,
    /// Whether it is a coarser pane.
    pub is_coarse: bool,
    /// The key's bytes.
    pub key: Box<[u8]>,
}

impl ChangedRow {
    /// Names a row by instants of any precision.
    pub(crate) fn new(
        (start, end): (Timestamp, Timestamp),
        number: Option<Timestamp>,
        is_coarse: bool,
        key: &[u8],
    ) -> Self {
        Self {
            start: shown(start),
            end: shown(end),
            number,
            is_coarse,
            key: key.into(),
        }
    }

    /// What the row is known by while other parts of it move: a session by its start, a count window by its number.
    pub fn name(&self, window: &Window) -> Self {
        let moving = Timestamp::MIN;
        let (start, end) = match window {
            Window::Count { .. } => (moving, moving),
            Window::Session { .. } if !self.is_coarse => (self.start, moving),
            _ => (self.start, self.end),
        };
        Self {
            start,
            end,
            ..self.clone()
        }
    }

    /// Whether retention lets this row of a query with such a window go, of windows before an instant.
    pub fn is_expired(&self, window: &Window, before: Timestamp) -> bool {
        let before = shown(before);
        match window {
            Window::Count { .. } => self
                .number
                .is_some_and(|number| number_of(number) < number_of(before)),
            Window::Session { .. } => self.start < before && self.end <= before,
            Window::Hopping(_) | Window::Calendar { .. } => {
                self.start < before && (!self.is_coarse || self.end <= before)
            }
        }
    }
}

/// An instant as tables show it.
fn shown(at: Timestamp) -> Timestamp {
    Timestamp::clamped(number_of(at).saturating_mul(1_000))
}

/// What a commit did to a result table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// A row was written; it has had this revision since.
    Written(ChangedRow, u64),
    /// Retention let rows go: see [`ChangedRow::is_expired`].
    Expired(Timestamp),
}

/// A change with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its place in the feed.
    pub position: Position,
    /// The query whose table it is.
    pub query: String,
    /// What happened.
    pub what: What,
}

/// What a reader gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Feed {
    /// The changes from its cursor on, and none if there are none yet.
    Changes(Vec<Change>),
    /// It is new, or changes that it has not read are gone: it must read the tables, and then advance to this position.
    Reread(Position),
}

/// How a cursor stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// Its name.
    pub name: String,
    /// The next change that it has not passed.
    pub position: Position,
    /// Whether its reader must read the tables anew first.
    pub must_reread: bool,
    /// How often its reader fell behind what was kept.
    pub gaps: u64,
}

/// What became of an advance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advance {
    /// The cursor is there.
    Done,
    /// There is no such cursor.
    Unknown,
    /// The position is behind the cursor, which has moved on or fell behind again, or nobody has come so far.
    Outside,
}

/// Which part of the feed is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first change that is kept.
    pub floor: Position,
    /// Where the next one goes.
    pub next: Position,
}

impl Default for Extent {
    fn default() -> Self {
        Self { floor: 1, next: 1 }
    }
}

impl Extent {
    /// What is kept after a commit has added changes, when `lowest` is the position of the cursor that is farthest
    /// behind, and at most so many changes are kept. What a commit removes is bounded too.
    pub fn after(self, added: u64, lowest: Option<Position>, kept_max: u64) -> Self {
        let next = self.next + added;
        let wanted = lowest.unwrap_or(next).max(next.saturating_sub(kept_max));
        let reach = self.floor + added + CHANGES_REMOVED_MAX;
        Self {
            floor: wanted.max(self.floor).min(reach),
            next,
        }
    }
}

/// Whether a cursor may have this name: letters, digits, `-`, `_` and `.`.
pub fn is_cursor_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= CURSOR_NAME_MAX && name.bytes().all(fits)
}

/// The change feed of a store.
pub trait Changes: Reads {
    /// All cursors, by name.
    fn cursors(&self) -> Result<Vec<Cursor>>;

    /// Which part of the feed is kept.
    fn extent(&self) -> Result<Extent>;

    /// At most so many changes from a cursor on; none if there is no such cursor.
    fn changes(&self, cursor: &str, most: usize) -> Result<Option<Feed>>;

    /// Makes a cursor, if there is none of this name and there is room for one more; returns whether it is there now. Its
    /// reader must read the tables first.
    fn open_cursor(&mut self, name: &str) -> Result<bool>;

    /// A reader has applied what is before a position, or read the tables after it was told that position.
    fn advance(&mut self, cursor: &str, position: Position) -> Result<Advance>;

    /// Drops a cursor; returns whether there was one. What it alone needed is removed by the next commits.
    fn drop_cursor(&mut self, name: &str) -> Result<bool>;

    /// Keeps at most so many changes, in place of [`crate::limits::CHANGES_MAX`], as long as this store is open.
    fn keep_changes(&mut self, most: u64);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However cursors and commits go, positions rise, no more is kept than the bound, nothing that a cursor within
        /// the bound needs is removed, and each commit removes a bounded piece.
        #[test]
        fn what_is_kept_is_bounded_and_needed(
            steps in prop::collection::vec((0_u64..40_000, prop::option::of(0_u64..100_000)), 1..30),
            kept_max in 1_u64..90_000,
        ) {
            let mut extent = Extent::default();
            for (added, behind) in steps {
                let before = extent;
                let lowest = behind.map(|behind| extent.next.saturating_sub(behind).max(extent.floor));
                extent = extent.after(added, lowest, kept_max);
                prop_assert_eq!(extent.next, before.next + added);
                prop_assert!(extent.floor >= before.floor && extent.floor <= extent.next);
                prop_assert!(extent.next - extent.floor <= kept_max.max(before.next - before.floor));
                prop_assert!(extent.floor - before.floor <= added + CHANGES_REMOVED_MAX);
                if let Some(lowest) = lowest {
                    prop_assert!(extent.floor <= lowest.max(extent.next.saturating_sub(kept_max)).max(before.floor));
                }
            }
        }
    }
}
