//! Result tables: one for each query, plain SQL, with names that anyone can read.
//!
//! Query, tag and field names are checked to be `[a-z_][a-z0-9_]*`, so they can stand in SQL; they are quoted all the
//! same, because some are keywords.

use std::fmt::Write as _;

use catchment_common::plan::{Column, ColumnType, Query, Window};
use catchment_common::time::Timestamp;
use rusqlite::types::Value;

use crate::store::text::{number_of, time_text};

/// The primary key's columns before and after the query's tags. A coarser pane may begin and end as a window does and
/// is not the same thing: `coarse` tells their rows apart.
const KEY_BEFORE_TAGS: [&str; 2] = ["window_start", "window_end"];
/// See [`KEY_BEFORE_TAGS`].
const KEY_AFTER_TAGS: [&str; 1] = ["coarse"];

/// The column of a window's number.
const NUMBER: &str = "window_number";

/// The statements of one query's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableSql {
    /// The query's name.
    pub name: String,
    /// Makes the table.
    pub create: String,
    /// Makes the index that finds provisional windows.
    pub create_index: String,
    /// Inserts a row, or revises it.
    pub upsert: String,
    /// What sessions need besides.
    pub session: Option<SessionSql>,
    /// Changes the status of a window's rows.
    pub set_status: String,
    /// Deletes windows that start before an instant, and sessions and coarser panes that end by then; of windows of so
    /// many readings those that the agent began before it.
    pub expire: String,
    /// Whether rows are known by the number of their window, which stands behind the tags; see [`Self::horizon`].
    pub is_counted: bool,
    /// The primary key's columns, in their order.
    pub key: Vec<String>,
    /// Lists provisional windows.
    pub provisional: String,
    /// How many tags a key has.
    pub tags: usize,
    /// Name and SQL type of each value column.
    pub values: Vec<(String, &'static str)>,
    /// Value columns of earlier plans. A row that is written anew has nothing there: what stood there said nothing of
    /// the readings that have come since.
    pub former: Vec<String>,
}

/// The statements for rows that are known by their start alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionSql {
    /// Makes the index that says so, and finds the sessions of a key.
    pub create_index: String,
    /// Inserts a session's row, or revises it, its end included.
    pub upsert: String,
    /// Marks rows of a key that start within a session, after its own start, as part of it.
    pub absorb: String,
}

impl TableSql {
    /// The statements for `query`, whose table has the columns of its plan and no others.
    pub fn new(query: &Query) -> Self {
        Self::with_former(query, Vec::new())
    }

    /// The statements for `query`, whose table also has these value columns of earlier plans.
    pub fn with_former(query: &Query, former: Vec<String>) -> Self {
        let name = &query.name;
        let typed = |column: Column| match column.kind {
            ColumnType::Integer => (column.name, "INTEGER"),
            ColumnType::Real => (column.name, "REAL"),
            ColumnType::Text => (column.name, "TEXT"),
        };
        let values: Vec<(String, &'static str)> = query.columns().into_iter().map(typed).collect();
        let row_tags = query.row_tags();
        let mut tags: Vec<String> = row_tags.iter().map(|tag| format!("\"{tag}\"")).collect();
        let is_counted = query.window.count().is_some();
        let (before, after): (&[&str], &[&str]) = if is_counted {
            (&[NUMBER], &[])
        } else {
            (&KEY_BEFORE_TAGS, &KEY_AFTER_TAGS)
        };
        let mut create = format!(
            "CREATE TABLE IF NOT EXISTS \"{name}\" (window_start TEXT NOT NULL, window_end TEXT NOT NULL"
        );
        for tag in &tags {
            let _ = write!(create, ", {tag} TEXT NOT NULL");
        }
        let names = before.iter().chain(&row_tags).chain(after);
        let names: Vec<String> = names.map(ToString::to_string).collect();
        let quoted = before.iter().copied().chain(tags.iter().map(String::as_str));
        let key = quoted.chain(after.iter().copied()).collect::<Vec<_>>().join(", ");
        let mut conflict = format!("({key}) DO UPDATE SET");
        if is_counted {
            let _ = write!(create, ", {NUMBER} INTEGER NOT NULL");
            // A part that comes may move both.
            conflict.push_str(" window_start = excluded.window_start, window_end = excluded.window_end,");
            tags.push(NUMBER.into());
        }
        create.push_str(
            ", coarse INTEGER NOT NULL, revision INTEGER NOT NULL, status TEXT NOT NULL, coverage REAL NOT NULL, readings INTEGER NOT NULL",
        );
        for (column, kind) in &values {
            let _ = write!(create, ", \"{column}\" {kind}");
        }
        let _ = write!(create, ", PRIMARY KEY ({key})) WITHOUT ROWID");
        Self {
            create,
            create_index: format!(
                "CREATE INDEX IF NOT EXISTS \"catchment_provisional_{name}\" ON \"{name}\" (window_start, coverage) \
                 WHERE status = 'provisional'{}",
                if is_counted {
                    // Which is what rows of other tables are found by with their key.
                    format!(
                        "; CREATE INDEX IF NOT EXISTS \"catchment_start_{name}\" ON \"{name}\" (window_start)"
                    )
                } else {
                    String::new()
                }
            ),
            upsert: upsert(name, &tags, &conflict, (&values, &former)),
            is_counted,
            key: names,
            session: session(query, &tags, (&values, &former)),
            set_status: format!(
                "UPDATE \"{name}\" SET status = ?1, coverage = ?2, revision = revision + 1 \
                 WHERE window_start = ?3 AND window_end = ?4 AND coarse = 0 AND status <> 'merged' AND (status <> ?1 OR coverage <> ?2)"
            ),
            expire: match query.window {
                Window::Session { .. } => {
                    format!("DELETE FROM \"{name}\" WHERE window_start < ?1 AND window_end <= ?1")
                }
                Window::Hopping(_) | Window::Calendar { .. } => format!(
                    "DELETE FROM \"{name}\" WHERE window_start < ?1 AND (coarse = 0 OR window_end <= ?1)"
                ),
                // As its panes do. With those gone, a part that came later would be taken for the whole.
                Window::Count { .. } => format!("DELETE FROM \"{name}\" WHERE {NUMBER} < ?1"),
            },
            provisional: format!(
                "SELECT DISTINCT window_start, window_end, coverage FROM \"{name}\" WHERE status = 'provisional'"
            ),
            tags: row_tags.len(),
            values,
            former,
            name: name.clone(),
        }
    }
}

impl TableSql {
    /// Whether a column is one that every table of this kind has, or a tag of the key.
    pub fn is_fixed(&self, column: &str) -> bool {
        const FIXED: [&str; 7] = [
            "window_start",
            "window_end",
            "coarse",
            "revision",
            "status",
            "coverage",
            "readings",
        ];
        FIXED.contains(&column) || self.key.iter().any(|name| name == column)
    }

    /// The columns of its tags, each with a comma behind it.
    pub fn tag_columns(&self) -> String {
        let first = if self.is_counted { 1 } else { KEY_BEFORE_TAGS.len() };
        let mut columns = String::new();
        for tag in self.key.iter().skip(first).take(self.tags) {
            let _ = write!(columns, "\"{tag}\", ");
        }
        columns
    }

    /// An instant as [`Self::expire`] takes it.
    pub fn horizon(&self, before: Timestamp) -> Value {
        if self.is_counted {
            Value::Integer(number_of(before))
        } else {
            Value::Text(time_text(before))
        }
    }
}

/// Value columns: those of the plan with their types, and those of earlier plans.
type Values<'v> = (&'v [(String, &'static str)], &'v [String]);

/// A session's row keeps its name, its start, while its end moves: the primary key, which every table has alike, cannot
/// tell it. `merged` rows have nothing in them any more.
fn session(query: &Query, tags: &[String], values: Values<'_>) -> Option<SessionSql> {
    let Window::Session { .. } = query.window else {
        return None;
    };
    let name = &query.name;
    let columns: Vec<&str> = tags.iter().map(String::as_str).chain(["window_start"]).collect();
    let columns = columns.join(", ");
    let conflict = format!("({columns}) WHERE coarse = 0 DO UPDATE SET window_end = excluded.window_end,");
    let mut absorb =
        format!("UPDATE \"{name}\" SET status = 'merged', revision = revision + 1, readings = 0");
    let (shown, former) = values;
    for column in shown.iter().map(|(column, _)| column).chain(former) {
        let _ = write!(absorb, ", \"{column}\" = NULL");
    }
    absorb.push_str(" WHERE coarse = 0 AND status <> 'merged' AND window_start > ?1 AND window_start < ?2");
    for (index, tag) in tags.iter().enumerate() {
        let _ = write!(absorb, " AND {tag} = ?{}", index + 3);
    }
    Some(SessionSql {
        create_index: format!(
            "CREATE UNIQUE INDEX IF NOT EXISTS \"catchment_session_{name}\" ON \"{name}\" ({columns}) WHERE coarse = 0"
        ),
        upsert: upsert(name, tags, &conflict, values),
        absorb,
    })
}

/// `conflict` is what comes after `ON CONFLICT`, up to the columns that change.
fn upsert(name: &str, tags: &[String], conflict: &str, (values, former): Values<'_>) -> String {
    let mut columns = String::from("window_start, window_end");
    for tag in tags {
        let _ = write!(columns, ", {tag}");
    }
    columns.push_str(", coarse, revision, status, coverage, readings");
    let mut updates = String::from(
        "revision = revision + 1, status = excluded.status, coverage = excluded.coverage, readings = excluded.readings",
    );
    for (column, _) in values {
        let _ = write!(columns, ", \"{column}\"");
        let _ = write!(updates, ", \"{column}\" = excluded.\"{column}\"");
    }
    for column in former {
        let _ = write!(updates, ", \"{column}\" = NULL");
    }
    // Parameters in order; the first revision is a constant between them.
    let mut places = String::new();
    for index in 1..=3 + tags.len() {
        let _ = write!(places, "?{index}, ");
    }
    places.push('1');
    for index in 4 + tags.len()..7 + tags.len() + values.len() {
        let _ = write!(places, ", ?{index}");
    }
    format!("INSERT INTO \"{name}\" ({columns}) VALUES ({places}) ON CONFLICT {conflict} {updates}")
}
