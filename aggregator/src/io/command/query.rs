//! `query`: rows of a result table.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use catchment_common::time::{Now, Span, Timestamp};

use super::show::{OutputFormat, instant, json, show, tag};
use crate::io::store::sqlite::Sqlite;
use crate::serve::Question;
use crate::serve::rows::Newest;
use crate::store::lookup;

/// Which rows of a result table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection {
    /// Windows that end after so long ago.
    pub since: Option<Duration>,
    /// Windows that start at or after this instant (RFC 3339).
    pub from: Option<String>,
    /// Windows that start before this instant (RFC 3339).
    pub to: Option<String>,
    /// Tags that must have these values: `tag=value`.
    pub tags: Vec<String>,
    /// At most so many rows, the newest.
    pub limit: u32,
}

impl Selection {
    fn parse(&self, now: Now) -> Result<lookup::Selection> {
        let ago = |since: Duration| -> Timestamp {
            let since = Span::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
            now.wall.minus(since)
        };
        let parsed = |text: &Option<String>| text.as_deref().map(instant).transpose();
        Ok(lookup::Selection {
            ends_after: self.since.map(ago),
            starts_from: parsed(&self.from)?,
            starts_before: parsed(&self.to)?,
            covers: None,
            tags: self.tags.iter().map(|text| tag(text)).collect::<Result<_>>()?,
        })
    }
}

/// Writes rows of a query's result table to `out`: the newest, oldest first.
pub fn query(
    database: &Path,
    name: &str,
    selection: &Selection,
    format: OutputFormat,
    now: Now,
    out: &mut impl Write,
) -> Result<()> {
    let question = Newest {
        query: name.to_owned(),
        rows_max: selection.limit as usize,
        selection: selection.parse(now)?,
    };
    let store = Sqlite::open_to_read(database)?;
    let _moment = store.moment()?;
    let page = question.ask(&store)?;
    let rows = page.rows.into_iter();
    let rows = rows.map(|row| row.into_iter().map(json).collect()).collect();
    show(&page.columns, rows, format, out)
}
