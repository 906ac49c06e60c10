//! What questions read of a store: rows of result tables, page by page, and what else operators ask for.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use catchment_common::plan::{PipelineId, Plan, Query};
use catchment_common::time::Timestamp;
use serde_json::Value;

use super::changes::ChangedRow;
use super::{Reads, Result};

/// A value in a result table.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// There is none.
    Null,
    /// A count, or a flag.
    Integer(i64),
    /// A measured value.
    Real(f64),
    /// A tag, an instant, a status, a list.
    Text(String),
    /// Bytes in a column that somebody else has added: how many.
    Bytes(usize),
}

impl Cell {
    /// Compares parts of rows' names, which are integers and texts.
    fn cmp_name(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(own), Self::Integer(other)) => own.cmp(other),
            (Self::Text(own), Self::Text(other)) => own.cmp(other),
            // In the order of SQLite.
            (own, other) => own.rank().cmp(&other.rank()),
        }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Integer(_) | Self::Real(_) => 1,
            Self::Text(_) => 2,
            Self::Bytes(_) => 3,
        }
    }
}

/// Compares what names two rows, part by part.
pub fn compare_names<'c>(
    own: impl IntoIterator<Item = &'c Cell>,
    other: impl IntoIterator<Item = &'c Cell>,
) -> Ordering {
    let pairs = own.into_iter().zip(other);
    let unequal = pairs
        .map(|(own, other)| own.cmp_name(other))
        .find(|order| order.is_ne());
    unequal.unwrap_or(Ordering::Equal)
}

/// Which rows of a result table: those for which all of this is true.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// Their windows end after this instant.
    pub ends_after: Option<Timestamp>,
    /// Their windows start at this instant or later.
    pub starts_from: Option<Timestamp>,
    /// Their windows start before this instant.
    pub starts_before: Option<Timestamp>,
    /// Their windows have this instant in them. The last reading of a count window is in it.
    pub covers: Option<Timestamp>,
    /// These tags of the row's key have these values.
    pub tags: Vec<(String, String)>,
}

/// The row after which a page goes on, by the columns of [`page_order`].
#[derive(Clone, PartialEq, Debug)]
pub struct RowCursor(pub Vec<Cell>);

/// A cursor as text, for whoever cannot keep a value: a JSON array.
impl fmt::Display for RowCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |cell: &Cell| match cell {
            Cell::Integer(number) => Value::from(*number),
            Cell::Text(text) => Value::from(text.as_str()),
            // No name of a row has such a part.
            Cell::Null | Cell::Real(_) | Cell::Bytes(_) => Value::Null,
        };
        write!(f, "{}", Value::Array(self.0.iter().map(cell).collect()))
    }
}

/// A text is no cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this is no cursor: take the one that came with the page before")]
pub struct BadCursor;

impl FromStr for RowCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> std::result::Result<Self, BadCursor> {
        let cells: Vec<Value> = serde_json::from_str(text).map_err(|_| BadCursor)?;
        let cell = |value: Value| match value {
            Value::String(text) => Ok(Cell::Text(text)),
            other => other.as_i64().map(Cell::Integer).ok_or(BadCursor),
        };
        cells
            .into_iter()
            .map(cell)
            .collect::<std::result::Result<_, _>>()
            .map(Self)
    }
}

/// Rows of a result table, the newest first, in the order of [`page_order`].
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Page {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// A cell for each column.
    pub rows: Vec<Vec<Cell>>,
    /// Where the next page begins; none if this is the last one.
    pub next: Option<RowCursor>,
}

/// What names a row of a query's table, in the order of pages, which go from the largest down: its window's start first.
pub fn page_order(query: &Query) -> Vec<String> {
    let tags = query.row_tags().into_iter();
    let names: Vec<&str> = if query.window.count().is_some() {
        ["window_start", "window_number"]
            .into_iter()
            .chain(tags)
            .collect()
    } else {
        let names = ["window_start", "window_end"].into_iter().chain(tags);
        names.chain(["coarse"]).collect()
    };
    names.into_iter().map(str::to_owned).collect()
}

impl Page {
    /// The cursor of the page that follows, if there may be one: this one has as many rows as were asked for.
    pub(crate) fn ended(mut self, query: &Query, rows_max: usize) -> Self {
        let is_full = self.rows.len() >= rows_max;
        if let Some(last) = self.rows.last().filter(|_| is_full) {
            let order = page_order(query);
            let place = |name: &String| self.columns.iter().position(|column| column == name);
            let name = order.iter().filter_map(place).map(|place| last[place].clone());
            self.next = Some(RowCursor(name.collect()));
        }
        self
    }
}

/// The columns and cells of one row.
pub type NamedCells = Vec<(String, Cell)>;

/// How a query's table stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableState {
    /// Its rows.
    pub rows: u64,
    /// Those of windows that not all expected agents have passed.
    pub provisional: u64,
    /// Up to where its windows have been shown; none if nothing was.
    pub through: Option<Timestamp>,
}

/// What an agent has counted, over all its eras and pipelines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// Readings accepted.
    pub accepted: u64,
    /// Readings rejected, for whatever reason.
    pub rejected: u64,
    /// Readings that it had to give up.
    pub lost: u64,
}

/// What had to be given up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LossRow {
    /// Whose it was; empty if the centre's.
    pub agent: String,
    /// The epoch of the batch that held it.
    pub epoch: u64,
    /// Its seq.
    pub seq: u64,
    /// The queries that lack it.
    pub queries: Vec<String>,
    /// The start of the earliest pane.
    pub from: Timestamp,
    /// The end of the latest.
    pub to: Timestamp,
    /// How many readings; 0 if that is not known.
    pub readings: u64,
}

/// What an agent has shipped of a pane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shipped {
    /// The agent.
    pub agent: String,
    /// Deltas, over all keys.
    pub deltas: u64,
    /// Of these, those that came when a window over the pane had been shown.
    pub late: u64,
    /// When the first of it was committed.
    pub first: Timestamp,
    /// And the last.
    pub last: Timestamp,
}

/// A time at which rows of a window were written.
#[derive(Clone, PartialEq, Debug)]
pub struct WrittenAt {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub why: String,
    /// The status that they got.
    pub status: String,
    /// The coverage.
    pub coverage: f64,
    /// How many rows.
    pub rows: u64,
}

/// What can be asked of a store besides what the machine needs of it.
pub trait Lookup: Reads {
    /// The plan in force; the empty one before the first.
    fn plan(&self) -> Result<Plan>;

    /// At most `rows_max` rows of a query's table, the newest first, after the row that the cursor names.
    fn page(
        &self,
        query: &Query,
        selection: &Selection,
        after: Option<&RowCursor>,
        rows_max: usize,
    ) -> Result<Page>;

    /// The row of a query's table that a change names, as it is now; none if it is gone.
    fn row(&self, query: &Query, row: &ChangedRow) -> Result<Option<NamedCells>>;

    /// When the last window of a key starts that does so at or before an instant, and the first after it.
    fn nearest(&self, query: &Query, tags: &[String], at: Timestamp) -> Result<[Option<Timestamp>; 2]>;

    /// How a query's table stands.
    fn table_state(&self, query: &Query) -> Result<TableState>;

    /// What agents have counted.
    fn accounts(&self) -> Result<BTreeMap<String, Account>>;

    /// What had to be given up, by one agent or all: the latest data first, then by agent, epoch (as the signed number
    /// of its bits), seq and pipeline.
    fn losses(&self, agent: Option<&str>) -> Result<Vec<LossRow>>;

    /// Who has shipped what of a pane, whoever came first first.
    fn shipped(&self, pipeline: PipelineId, pane: Timestamp) -> Result<Vec<Shipped>>;

    /// When rows of a query's windows were written that start at an instant, or have its number; in order.
    fn history(&self, query: &str, start: Timestamp, is_coarse: bool) -> Result<Vec<WrittenAt>>;

    /// How many stored panes and batches could not be read.
    fn unreadable(&self) -> Result<u64>;
}
