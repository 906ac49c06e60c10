//! Answers to what operators and users ask: see [`Lookup`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use catchment_common::key::tags_of;
use catchment_common::plan::{PipelineId, Plan, Query, Window};
use catchment_common::time::Timestamp;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Row, Transaction, params, params_from_iter};

use super::pipelines::bits;
use super::{Sqlite, at};
use crate::store::Result;
use crate::store::changes::ChangedRow;
use crate::store::lookup::{
    Account, Cell, Lookup, LossRow, NamedCells, Page, RowCursor, Selection, Shipped, TableState, WrittenAt,
    page_order,
};
use crate::store::text::{number_of, parse_time_text, time_text};

impl Sqlite {
    /// Everything that is read until this is dropped is of one moment.
    pub fn moment(&self) -> Result<Transaction<'_>> {
        self.connection.unchecked_transaction().map_err(at(&self.path))
    }

    /// The instant in a column of a result table.
    fn time_of(&self, text: Option<String>) -> Result<Option<Timestamp>> {
        let parse = |text: String| {
            parse_time_text(&text).ok_or_else(|| self.content("result row", format!("`{text}` is no time")))
        };
        text.map(parse).transpose()
    }
}

/// A statement that selects rows, and its parameters.
struct Select {
    sql: String,
    parameters: Vec<Value>,
}

impl Select {
    fn of(query: &Query, selection: &Selection, after: Option<&RowCursor>, rows_max: usize) -> Self {
        let mut select = Self {
            sql: format!("SELECT * FROM \"{}\" WHERE 1", query.name),
            parameters: Vec::new(),
        };
        let time = |at: &Option<Timestamp>| at.map(|at| Value::Text(time_text(at)));
        select.and("window_end >", time(&selection.ends_after));
        select.and("window_start >=", time(&selection.starts_from));
        select.and("window_start <", time(&selection.starts_before));
        select.and("window_start <=", time(&selection.covers));
        let is_counted = query.window.count().is_some();
        let ends = if is_counted {
            "window_end >="
        } else {
            "window_end >"
        };
        select.and(ends, time(&selection.covers));
        for (tag, value) in &selection.tags {
            select.and(&format!("\"{tag}\" ="), Some(Value::Text(value.clone())));
        }
        let order: Vec<String> = page_order(query)
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        if let Some(RowCursor(name)) = after.filter(|after| after.0.len() == order.len()) {
            let places = (1..=name.len()).map(|place| format!("?{}", select.parameters.len() + place));
            let places: Vec<String> = places.collect();
            let _ = write!(
                select.sql,
                " AND ({}) < ({})",
                order.join(", "),
                places.join(", ")
            );
            select.parameters.extend(name.iter().map(value));
        }
        let most = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let _ = write!(
            select.sql,
            " ORDER BY {} DESC LIMIT {most}",
            order.join(" DESC, ")
        );
        select
    }

    fn and(&mut self, condition: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.parameters.push(value);
            let _ = write!(self.sql, " AND {condition} ?{}", self.parameters.len());
        }
    }
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Null | Cell::Bytes(_) => Value::Null,
        Cell::Integer(number) => Value::Integer(*number),
        Cell::Real(number) => Value::Real(*number),
        Cell::Text(text) => Value::Text(text.clone()),
    }
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Cell::Bytes(bytes.len()),
    }
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::clamped)
}

impl Lookup for Sqlite {
    fn plan(&self) -> Result<Plan> {
        Ok(self.load_plan()?.unwrap_or_default())
    }

    fn page(
        &self,
        query: &Query,
        selection: &Selection,
        after: Option<&RowCursor>,
        rows_max: usize,
    ) -> Result<Page> {
        let select = Select::of(query, selection, after, rows_max);
        let read = || {
            let mut statement = self.connection.prepare(&select.sql)?;
            let columns: Vec<String> = statement.column_names().map(String::from).collect();
            let rows = statement.query_map(params_from_iter(&select.parameters), |row| {
                let cells = (0..columns.len()).map(|index| row.get_ref(index).map(cell));
                cells.collect::<rusqlite::Result<Vec<Cell>>>()
            })?;
            let rows = rows.collect::<rusqlite::Result<_>>()?;
            Ok(Page {
                columns,
                rows,
                next: None,
            })
        };
        let page: Page = read().map_err(at(&self.path))?;
        Ok(page.ended(query, rows_max))
    }

    fn row(&self, query: &Query, row: &ChangedRow) -> Result<Option<NamedCells>> {
        let mut select = Select {
            sql: format!("SELECT * FROM \"{}\" WHERE 1", query.name),
            parameters: Vec::new(),
        };
        if let Some(number) = row.number {
            select.and("window_number =", Some(Value::Integer(number_of(number))));
        } else {
            select.and("window_start =", Some(Value::Text(time_text(row.start))));
            select.and("coarse =", Some(Value::Integer(row.is_coarse.into())));
            let is_session = matches!(query.window, Window::Session { .. });
            let end = Value::Text(time_text(row.end));
            select.and("window_end =", (!is_session || row.is_coarse).then_some(end));
        }
        let tags = tags_of(&row.key, query.row_tags().len()).into_iter().flatten();
        for (tag, value) in query.row_tags().into_iter().zip(tags) {
            select.and(&format!("\"{tag}\" ="), Some(Value::Text(value.to_owned())));
        }
        let read = || {
            // Not one of before: its columns would be those of before, if a plan has added some.
            let mut statement = self.connection.prepare(&select.sql)?;
            let columns: Vec<String> = statement.column_names().map(String::from).collect();
            let mut rows = statement.query(params_from_iter(&select.parameters))?;
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            let cells = columns.into_iter().enumerate();
            let cells = cells.map(|(index, column)| Ok((column, cell(row.get_ref(index)?))));
            cells.collect::<rusqlite::Result<NamedCells>>().map(Some)
        };
        read().map_err(at(&self.path))
    }

    fn nearest(&self, query: &Query, tags: &[String], instant: Timestamp) -> Result<[Option<Timestamp>; 2]> {
        let mut of_key = String::new();
        for (index, tag) in query.row_tags().iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(of_key, " AND \"{tag}\" = ?{}", 2 + index);
        }
        let extreme = |what: &str, condition: &str| {
            let name = &query.name;
            let sql = format!("SELECT {what} FROM \"{name}\" WHERE window_start {condition} ?1{of_key}");
            let parameters = std::iter::once(time_text(instant)).chain(tags.iter().cloned());
            let found = self
                .connection
                .query_row(&sql, params_from_iter(parameters), |row| row.get(0));
            self.time_of(found.map_err(at(&self.path))?)
        };
        Ok([
            extreme("max(window_start)", "<=")?,
            extreme("min(window_start)", ">")?,
        ])
    }

    fn table_state(&self, query: &Query) -> Result<TableState> {
        let name = &query.name;
        let rows = format!("SELECT count(*) FROM \"{name}\" ");
        let provisional = format!("SELECT count(*) FROM \"{name}\" WHERE status = 'provisional'");
        let through = "SELECT emitted_through_us FROM catchment_query WHERE name = ?1";
        let read = || {
            let through = self
                .connection
                .query_row(through, [name], |row| row.get::<_, Option<i64>>(0));
            Ok(TableState {
                rows: self.connection.query_row(&rows, [], |row| count(row, 0))?,
                provisional: self.connection.query_row(&provisional, [], |row| count(row, 0))?,
                through: through?.map(Timestamp::clamped),
            })
        };
        read().map_err(at(&self.path))
    }

    fn accounts(&self) -> Result<BTreeMap<String, Account>> {
        let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
        self.each(
            "SELECT agent, name = 'accepted', sum(value) FROM catchment_counter
             WHERE name = 'accepted' OR name LIKE 'rejected_%' GROUP BY 1, 2",
            [],
            |row| {
                let account = accounts.entry(row.get(0)?).or_default();
                if row.get(1)? {
                    account.accepted = count(row, 2)?;
                } else {
                    account.rejected = count(row, 2)?;
                }
                Ok(())
            },
        )?;
        let lost = "SELECT agent, sum(readings) FROM catchment_loss GROUP BY 1";
        self.each(lost, [], |row| {
            accounts.entry(row.get(0)?).or_default().lost = count(row, 1)?;
            Ok(())
        })?;
        Ok(accounts)
    }

    /// A loss names the pipeline that it was gathered for; a coarser one stands for the one that it is a rung of.
    fn losses(&self, agent: Option<&str>) -> Result<Vec<LossRow>> {
        let mut losses = Vec::new();
        self.each(
            "SELECT agent, epoch, seq, from_us, to_us, readings,
                    (SELECT group_concat(query, ' ') FROM
                         (SELECT query FROM catchment_reader r WHERE r.pipeline IN (l.pipeline, s.coarser_of) ORDER BY query))
             FROM catchment_loss l LEFT JOIN catchment_pipeline s ON s.id = l.pipeline
             WHERE ?1 IS NULL OR agent = ?1 ORDER BY from_us DESC, agent, epoch, seq, l.pipeline",
            [agent],
            |row| {
                let queries: Option<String> = row.get(6)?;
                let queries = queries.unwrap_or_default();
                losses.push(LossRow {
                    agent: row.get(0)?,
                    epoch: count(row, 1)?,
                    seq: count(row, 2)?,
                    from: time(row, 3)?,
                    to: time(row, 4)?,
                    readings: count(row, 5)?,
                    queries: queries.split_whitespace().map(str::to_owned).collect(),
                });
                Ok(())
            },
        )?;
        Ok(losses)
    }

    fn shipped(&self, pipeline: PipelineId, pane: Timestamp) -> Result<Vec<Shipped>> {
        let mut shipped = Vec::new();
        self.each(
            "SELECT agent, deltas, late, first_us, last_us FROM catchment_contribution
             WHERE pipeline = ?1 AND start_us = ?2 ORDER BY first_us, agent",
            params![bits(pipeline), pane.as_micros()],
            |row| {
                shipped.push(Shipped {
                    agent: row.get(0)?,
                    deltas: count(row, 1)?,
                    late: count(row, 2)?,
                    first: time(row, 3)?,
                    last: time(row, 4)?,
                });
                Ok(())
            },
        )?;
        Ok(shipped)
    }

    fn history(&self, query: &str, start: Timestamp, is_coarse: bool) -> Result<Vec<WrittenAt>> {
        let mut history = Vec::new();
        self.each(
            "SELECT at_us, reason, status, coverage, rows FROM catchment_shown
             WHERE query = ?1 AND start_us = ?2 AND coarse = ?3 ORDER BY id",
            params![query, start.as_micros(), is_coarse],
            |row| {
                history.push(WrittenAt {
                    at: time(row, 0)?,
                    why: row.get(1)?,
                    status: row.get(2)?,
                    coverage: row.get(3)?,
                    rows: count(row, 4)?,
                });
                Ok(())
            },
        )?;
        Ok(history)
    }

    fn unreadable(&self) -> Result<u64> {
        let all = "SELECT count(*) FROM catchment_set_aside";
        let all = self.connection.query_row(all, [], |row| count(row, 0));
        all.map_err(at(&self.path))
    }
}
