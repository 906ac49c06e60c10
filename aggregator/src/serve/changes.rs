//! The change feed: how its cursors stand, and what comes next for one of them, with the rows as they are now.

use catchment_common::key::tags_of;
use catchment_common::plan::Query;

use super::AskFault;
use crate::limits::CHANGES_READ_MAX;
use crate::store::changes::{Change, ChangedRow, Changes, Cursor, Feed, Position, What};
use crate::store::lookup::{Lookup, NamedCells};

/// Cursors, and which part of the feed is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CursorsAnswer {
    /// The cursors, by name.
    pub cursors: Vec<Cursor>,
    /// The place of the next change: a cursor there has seen everything.
    pub next: Position,
}

/// How the cursors stand.
pub fn cursors(store: &impl Changes) -> Result<CursorsAnswer, AskFault> {
    Ok(CursorsAnswer {
        cursors: store.cursors()?,
        next: store.extent()?.next,
    })
}

/// What comes next for a cursor.
#[derive(Clone, PartialEq, Debug)]
pub enum Next {
    /// Its reader must read the tables of these queries anew, and then advance to this position.
    Reread(Position, Vec<String>),
    /// These changes, in order; none if there are none yet.
    Changes(Vec<Changed>),
}

/// A change, with the row that it names.
#[derive(Clone, PartialEq, Debug)]
pub struct Changed {
    /// The change.
    pub change: Change,
    /// The values of the row's tags with their names; empty if the query is in the plan no more.
    pub tags: Vec<(String, String)>,
    /// Columns and cells of the row as it is now, of the change's revision or a later one; none if it is gone, or its
    /// query is in the plan no more.
    pub row: Option<NamedCells>,
}

/// What comes next for a cursor: at most so many changes, and no more than [`CHANGES_READ_MAX`] at once.
pub fn next(store: &(impl Changes + Lookup), cursor: &str, most: usize) -> Result<Next, AskFault> {
    let feed = store.changes(cursor, most.min(CHANGES_READ_MAX))?;
    let plan = store.plan()?;
    match feed {
        None => Err(AskFault::NoCursor(cursor.to_owned())),
        Some(Feed::Reread(position)) => {
            let queries = plan.queries.into_iter().map(|query| query.name);
            Ok(Next::Reread(position, queries.collect()))
        }
        Some(Feed::Changes(changes)) => {
            let with_row = |change: Change| {
                let query = plan.queries.iter().find(|query| query.name == change.query);
                match (query, &change.what) {
                    (Some(query), What::Written(row, _)) => Ok(Changed {
                        tags: tags(query, row),
                        row: store.row(query, row)?,
                        change,
                    }),
                    _ => Ok(Changed {
                        change,
                        tags: Vec::new(),
                        row: None,
                    }),
                }
            };
            let changes = changes.into_iter().map(with_row);
            Ok(Next::Changes(changes.collect::<Result<_, AskFault>>()?))
        }
    }
}

fn tags(query: &Query, row: &ChangedRow) -> Vec<(String, String)> {
    let names = query.row_tags().into_iter();
    let values = tags_of(&row.key, names.len()).into_iter().flatten();
    names.map(str::to_owned).zip(values.map(str::to_owned)).collect()
}
