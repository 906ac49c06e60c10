//! A result table in memory: what the SQL statements of a query do to its rows, done to a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use catchment_common::plan::{Query, Window};
use catchment_common::time::Timestamp;

use crate::commit::{CountedRow, QueryResults, Row, Unrevised, Why, WindowRows, WindowStatus};
use crate::store::changes::ChangedRow;

/// Names a row: start, end, whether coarse, key.
pub type RowName = (Timestamp, Timestamp, bool, Box<[u8]>);

/// Names a row of a count window: key and number.
pub type CountedName = (Box<[u8]>, Timestamp);

/// A result row as it stands in its table.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored {
    /// The row.
    pub row: Row,
    /// Whether all expected agents have passed its end.
    pub is_final: bool,
    /// Whether its window began when the readings of its query were taken already.
    pub is_whole: bool,
    /// What it says about who has.
    pub coverage: f64,
    /// How often it was written.
    pub revision: u64,
    /// How often the row itself was written: changes of status alone count as revisions, and not here.
    pub writes: u64,
    /// Whether it has become part of an earlier session.
    pub is_merged: bool,
    /// How its query was defined when it was last written: its values are those of that query's columns, and all other
    /// columns of the table are empty.
    pub query: Defined,
}

/// One of the queries that a commit was made for.
#[derive(Clone, PartialEq, Debug)]
pub struct Defined {
    all: Arc<[Query]>,
    index: usize,
}

impl std::ops::Deref for Defined {
    type Target = Query;

    fn deref(&self) -> &Query {
        &self.all[self.index]
    }
}

/// Takes a row that was written, and its revision.
type Note<'n> = &'n mut dyn FnMut(ChangedRow, u64);

fn changed(name: &RowName) -> ChangedRow {
    ChangedRow::new((name.0, name.1), None, name.2, &name.3)
}

/// A query's table.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Table {
    /// The horizon.
    pub through: Option<Timestamp>,
    /// The rows.
    pub rows: BTreeMap<RowName, Stored>,
    /// The rows of count windows: by key, whose last tag is the agent, and number; how often each was written, and
    /// how the query was defined then.
    pub counted: BTreeMap<CountedName, (CountedRow, u64, Defined)>,
    /// The windows that are yet to be revised, by key.
    pub unrevised: BTreeMap<Box<[u8]>, Unrevised>,
    /// Each time that rows of a window were written, in order.
    pub written: Vec<Written>,
    /// The names of the row's tags, and whether it has count windows: what its rows are known by.
    pub(super) key: (Vec<String>, bool),
    /// The value columns of all plans, in the order in which they came.
    pub(super) columns: Vec<String>,
}

/// Rows of a window were written.
#[derive(Clone, PartialEq, Debug)]
pub struct Written {
    /// The window, or the number of a count window, and how complete it was.
    pub window: WindowStatus,
    /// Whether it is not a window but a coarser pane.
    pub is_coarse: bool,
    /// Why.
    pub why: Why,
    /// When.
    pub at: Timestamp,
    /// How many rows.
    pub rows: usize,
}

impl Table {
    /// Adds the columns that the table lacks.
    pub(super) fn widen(&mut self, query: &Query) {
        for column in query.value_columns() {
            if !self.columns.contains(&column) {
                self.columns.push(column);
            }
        }
    }

    /// An empty table for a query.
    pub(super) fn of(query: &Query) -> Self {
        let tags = query.row_tags().into_iter().map(str::to_owned).collect();
        Self {
            key: (tags, query.window.count().is_some()),
            ..Self::default()
        }
    }

    /// The windows whose rows say that not all expected agents have passed them.
    pub(super) fn provisional(&self) -> Vec<(Timestamp, Timestamp, f64)> {
        let open = |(name, stored): &(&RowName, &Stored)| !name.2 && !stored.is_final && !stored.is_merged;
        let open = self.rows.iter().filter(open);
        let open: BTreeMap<(Timestamp, Timestamp), f64> = open
            .map(|(name, stored)| ((name.0, name.1), stored.coverage))
            .collect();
        open.into_iter()
            .map(|((start, end), coverage)| (start, end, coverage))
            .collect()
    }

    /// Lets go of what retention says; returns whether there was any.
    pub(super) fn expire(&mut self, query: &Query, before: Timestamp) -> bool {
        let count = self.rows.len() + self.counted.len();
        let is_session = matches!(query.window, Window::Session { .. });
        self.rows.retain(|&(start, end, coarse, _), _| {
            start >= before || ((is_session || coarse) && end > before)
        });
        // Tables show numbers in milliseconds.
        let number = |at: Timestamp| at.as_micros().div_euclid(1_000);
        self.counted.retain(|(_, at), _| number(*at) >= number(before));
        self.written
            .retain(|written| written.window.start >= before || written.window.end > before);
        self.rows.len() + self.counted.len() < count
    }

    fn write_down(
        &mut self,
        window: WindowStatus,
        (is_coarse, rows): (bool, usize),
        why: Why,
        at: Timestamp,
    ) {
        self.written.push(Written {
            window,
            is_coarse,
            why,
            at,
            rows,
        });
    }

    /// Takes a session's row out, whatever its end was, and marks those of its key that start within it as merged, which
    /// are noted.
    fn take_session(&mut self, name: &RowName, merged: &mut Vec<(ChangedRow, u64)>) -> Option<Stored> {
        let (start, end, _, key) = name;
        let same_key = |(_, _, coarse, of): &RowName| !coarse && of == key;
        let within = |at: &Timestamp| start < at && at < end;
        for (name, stored) in self
            .rows
            .iter_mut()
            .filter(|(name, _)| same_key(name) && within(&name.0))
        {
            if !stored.is_merged {
                stored.is_merged = true;
                stored.revision += 1;
                stored.writes += 1;
                stored.row.readings = 0;
                stored.row.values.fill(None);
                merged.push((changed(name), stored.revision));
            }
        }
        let old = self.rows.keys().find(|name| same_key(name) && name.0 == *start);
        let old = old.cloned()?;
        self.rows.remove(&old)
    }

    /// Gives a window's rows another status.
    fn settle(&mut self, status: WindowStatus, note: Note<'_>) {
        for (name, stored) in &mut self.rows {
            let (start, end, coarse, _) = name;
            let differs = (stored.is_final, stored.coverage) != (status.is_final, status.coverage);
            let is_of_it = (*start, *end) == (status.start, status.end) && !coarse && !stored.is_merged;
            if is_of_it && differs {
                stored.is_final = status.is_final;
                stored.is_whole = status.is_whole;
                stored.coverage = status.coverage;
                stored.revision += 1;
                note(changed(name), stored.revision);
            }
        }
    }

    /// Writes a row of a window.
    fn write_row(&mut self, window: &WindowRows, row: &Row, query: &Defined, note: Note<'_>) {
        let WindowStatus {
            start,
            end,
            is_final,
            is_whole,
            coverage,
        } = window.status;
        let name = (start, end, window.is_coarse, row.key.clone());
        let mut merged = Vec::new();
        let before = if window.is_session {
            self.take_session(&name, &mut merged)
        } else {
            self.rows.remove(&name)
        };
        let (revision, writes) = before.map_or((1, 1), |stored| (stored.revision + 1, stored.writes + 1));
        let stored = Stored {
            row: row.clone(),
            is_final,
            is_whole,
            coverage,
            revision,
            writes,
            is_merged: false,
            query: query.clone(),
        };
        note(changed(&name), revision);
        for (row, revision) in merged {
            note(row, revision);
        }
        self.rows.insert(name, stored);
    }

    /// Writes the row of a count window.
    fn write_counted(&mut self, row: &CountedRow, query: &Defined, at: Timestamp, note: Note<'_>) {
        let number = WindowStatus {
            start: row.number,
            end: row.number,
            is_final: row.is_final,
            is_whole: true,
            coverage: 1.0,
        };
        let why = if row.is_final { Why::Full } else { Why::Part };
        self.write_down(number, (false, 1), why, at);
        let held = self.counted.entry((row.row.key.clone(), row.number));
        let held = held.or_insert_with(|| (row.clone(), 0, query.clone()));
        *held = (row.clone(), held.1 + 1, query.clone());
        let window = (row.start, row.end);
        note(
            ChangedRow::new(window, Some(row.number), false, &row.row.key),
            held.1,
        );
    }

    /// Writes what a commit says of this query, which is one of these.
    pub(super) fn write(
        &mut self,
        results: &QueryResults,
        queries: &Arc<[Query]>,
        at: Timestamp,
        note: Note<'_>,
    ) {
        let query = Defined {
            all: Arc::clone(queries),
            index: results.query,
        };
        for window in &results.windows {
            let (is_coarse, rows) = (window.is_coarse, window.rows.len());
            self.write_down(window.status, (is_coarse, rows), window.why, at);
            for row in &window.rows {
                self.write_row(window, row, &query, note);
            }
        }
        for &status in &results.statuses {
            self.write_down(status, (false, 0), Why::Coverage, at);
            self.settle(status, note);
        }
        for row in &results.counted {
            self.write_counted(row, &query, at, note);
        }
        for unrevised in &results.unrevised {
            self.unrevised.remove(&unrevised.key);
            if !unrevised.windows.is_empty() {
                self.unrevised.insert(unrevised.key.clone(), unrevised.clone());
            }
        }
        self.through = results.emitted_through.or(self.through);
    }
}
