//! `changes`: the cursors of the change feed, and what comes next for one of them, as JSON lines.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::show::{self, OutputFormat};
use crate::io::store::sqlite::Sqlite;
use crate::serve::changes::{Changed, Next, cursors, next};
use crate::store::changes::{Advance, Changes, What};
use crate::store::text::{number_of, time_text};

/// Writes a row for each cursor to `out`.
pub fn list(database: &Path, format: OutputFormat, out: &mut impl Write) -> Result<()> {
    let store = Sqlite::open_to_read(database)?;
    let _moment = store.moment()?;
    let answer = cursors(&store)?;
    let columns = ["cursor", "position", "waiting", "must_reread", "gaps"];
    let rows = answer.cursors.into_iter().map(|cursor| {
        vec![
            Value::from(cursor.name),
            cursor.position.into(),
            answer.next.saturating_sub(cursor.position).into(),
            cursor.must_reread.into(),
            cursor.gaps.into(),
        ]
    });
    show::show(&columns.map(String::from), rows.collect(), format, out)
}

/// Makes a cursor, if there is none of this name.
pub fn open(database: &Path, cursor: &str) -> Result<()> {
    if !Sqlite::open(database)?.open_cursor(cursor)? {
        bail!(
            "the cursor `{cursor}` cannot be made: a name has up to 64 letters, digits, `-`, `_` and `.`, and there are at \
             most 64 cursors (`changes list`)"
        );
    }
    Ok(())
}

/// Drops a cursor.
pub fn drop(database: &Path, cursor: &str) -> Result<()> {
    if !Sqlite::open(database)?.drop_cursor(cursor)? {
        bail!("there is no cursor `{cursor}`; `changes list` shows those that there are");
    }
    Ok(())
}

/// Writes what comes next for a cursor to `out`, a line of JSON for each change, and then, unless it only looks, advances
/// the cursor over it.
pub fn read(database: &Path, cursor: &str, most: usize, only_look: bool, out: &mut impl Write) -> Result<()> {
    let mut store = Sqlite::open(database)?;
    let mut left = most;
    while left > 0 {
        let position = match next(&store, cursor, left)? {
            Next::Reread(position, queries) => {
                let line = json!({"reread": queries, "position": position});
                writeln!(out, "{line}")?;
                position
            }
            Next::Changes(changes) => {
                let Some(last) = changes.last() else { break };
                let position = last.change.position + 1;
                left -= changes.len();
                for changed in changes {
                    writeln!(out, "{}", line(changed))?;
                }
                position
            }
        };
        out.flush()?;
        if only_look {
            break;
        }
        match store.advance(cursor, position)? {
            Advance::Done => {}
            Advance::Unknown => bail!("the cursor `{cursor}` was dropped meanwhile"),
            Advance::Outside => bail!(
                "the cursor `{cursor}` was moved meanwhile, by another reader or because too much was written: read again"
            ),
        }
    }
    Ok(())
}

fn line(changed: Changed) -> Value {
    let change = changed.change;
    match change.what {
        What::Expired(before) => json!({
            "position": change.position,
            "query": change.query,
            "expired_before": time_text(before),
        }),
        What::Written(row, revision) => {
            let tags = changed.tags.into_iter().map(|(tag, value)| (tag, value.into()));
            let now = changed.row.map(|row| {
                let cells = row.into_iter().map(|(column, cell)| (column, show::json(cell)));
                cells.collect::<Map<String, Value>>()
            });
            json!({
                "position": change.position,
                "query": change.query,
                "window_start": time_text(row.start),
                "window_end": time_text(row.end),
                "window_number": row.number.map(number_of),
                "coarse": row.is_coarse,
                "key": tags.collect::<Map<String, Value>>(),
                "revision": revision,
                "row": now,
            })
        }
    }
}
