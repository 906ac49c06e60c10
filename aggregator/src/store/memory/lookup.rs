//! Answers to what operators and users ask, from maps: see [`Lookup`].

use std::collections::BTreeMap;

use catchment_common::key::tags_of;
use catchment_common::metrics::Counter;
use catchment_common::plan::{PipelineId, Plan, Query};
use catchment_common::stats::Lowered;
use catchment_common::time::Timestamp;

use super::Memory;
use super::table::{CountedName, Defined, RowName, Stored, Table};
use crate::commit::{CountedRow, Row, WindowStatus};
use crate::store::Result;
use crate::store::changes::ChangedRow;
use crate::store::lookup::{
    Account, Cell, Lookup, LossRow, NamedCells, Page, RowCursor, Selection, Shipped, TableState, WrittenAt,
    compare_names, page_order,
};
use crate::store::text::{number_of, status_text, time_text, whole};

/// What every row has, in the order of the table's columns around its tags.
struct Fixed {
    start: Timestamp,
    end: Timestamp,
    number: Option<Timestamp>,
    is_coarse: bool,
    revision: u64,
    status: &'static str,
    coverage: f64,
    readings: u64,
}

impl Table {
    fn all_columns(&self) -> Vec<String> {
        let (tags, is_counted) = &self.key;
        let number = is_counted.then_some("window_number");
        let before = ["window_start", "window_end"].into_iter();
        let before = before.chain(tags.iter().map(String::as_str)).chain(number);
        let after = ["coarse", "revision", "status", "coverage", "readings"];
        let names = before.chain(after).chain(self.columns.iter().map(String::as_str));
        names.map(str::to_owned).collect()
    }

    fn cells(&self, fixed: &Fixed, row: &Row, defined: &Defined) -> Vec<Cell> {
        let text = |text: &str| Cell::Text(text.to_owned());
        let mut cells = vec![text(&time_text(fixed.start)), text(&time_text(fixed.end))];
        let tags = tags_of(&row.key, self.key.0.len()).into_iter().flatten();
        cells.extend(tags.map(text));
        cells.extend(fixed.number.map(|number| Cell::Integer(number_of(number))));
        cells.extend([
            Cell::Integer(fixed.is_coarse.into()),
            Cell::Integer(whole(fixed.revision)),
            text(fixed.status),
            Cell::Real(fixed.coverage),
            Cell::Integer(whole(fixed.readings)),
        ]);
        let own: Vec<String> = defined.value_columns().collect();
        cells.extend(self.columns.iter().map(|column| {
            let place = own.iter().position(|own| own == column);
            let value = place.and_then(|place| row.values[place].as_ref());
            match value {
                None => Cell::Null,
                Some(Lowered::Integer(number)) => Cell::Integer(whole(*number)),
                Some(Lowered::Real(number)) => Cell::Real(*number),
                Some(Lowered::Text(text)) => Cell::Text(text.clone()),
            }
        }));
        cells
    }

    fn row(&self, (name, stored): (&RowName, &Stored)) -> Vec<Cell> {
        let window = WindowStatus {
            start: name.0,
            end: name.1,
            is_final: stored.is_final,
            is_whole: stored.is_whole,
            coverage: stored.coverage,
        };
        let fixed = Fixed {
            start: name.0,
            end: name.1,
            number: None,
            is_coarse: name.2,
            revision: stored.revision,
            status: if stored.is_merged {
                "merged"
            } else {
                status_text(&window, name.2)
            },
            coverage: stored.coverage,
            readings: stored.row.readings,
        };
        self.cells(&fixed, &stored.row, &stored.query)
    }

    fn counted(&self, (name, held): (&CountedName, &(CountedRow, u64, Defined))) -> Vec<Cell> {
        let (counted, writes, defined) = held;
        let fixed = Fixed {
            start: counted.start,
            end: counted.end,
            number: Some(name.1),
            is_coarse: false,
            revision: *writes,
            status: if counted.is_final { "final" } else { "provisional" },
            coverage: 1.0,
            readings: counted.row.readings,
        };
        self.cells(&fixed, &counted.row, defined)
    }

    fn all_rows(&self) -> Vec<Vec<Cell>> {
        let rows = self.rows.iter().map(|row| self.row(row));
        rows.chain(self.counted.iter().map(|row| self.counted(row)))
            .collect()
    }
}

/// Whether a selection has a row.
fn has(selection: &Selection, columns: &[String], row: &[Cell], is_counted: bool) -> bool {
    let text = |name: &str| {
        let place = columns.iter().position(|column| column == name);
        match place.map(|place| &row[place]) {
            Some(Cell::Text(text)) => text.as_str(),
            _ => "",
        }
    };
    let (start, end) = (text("window_start"), text("window_end"));
    let holds =
        |at: Option<Timestamp>, check: &dyn Fn(&str) -> bool| at.is_none_or(|at| check(&time_text(at)));
    holds(selection.ends_after, &|at| end > at)
        && holds(selection.starts_from, &|at| start >= at)
        && holds(selection.starts_before, &|at| start < at)
        && holds(selection.covers, &|at| {
            start <= at && (end > at || (is_counted && end == at))
        })
        && selection.tags.iter().all(|(tag, value)| text(tag) == value)
}

impl Lookup for Memory {
    fn plan(&self) -> Result<Plan> {
        Ok(self.plan.clone())
    }

    fn page(
        &self,
        query: &Query,
        selection: &Selection,
        after: Option<&RowCursor>,
        rows_max: usize,
    ) -> Result<Page> {
        let table = &self.tables[&query.name];
        let columns = table.all_columns();
        let order = page_order(query);
        let places: Vec<usize> = { order.iter() }
            .filter_map(|name| columns.iter().position(|column| column == name))
            .collect();
        let is_counted = query.window.count().is_some();
        let mut rows = table.all_rows();
        rows.retain(|row| {
            let name = places.iter().map(|&place| &row[place]);
            let is_after = after.is_none_or(|RowCursor(after)| compare_names(name, after).is_lt());
            is_after && has(selection, &columns, row, is_counted)
        });
        rows.sort_by(|own, other| {
            let name = |row: &'_ [Cell]| places.iter().map(|&place| row[place].clone()).collect::<Vec<_>>();
            compare_names(&name(other), &name(own))
        });
        rows.truncate(rows_max);
        let page = Page {
            columns,
            rows,
            next: None,
        };
        Ok(page.ended(query, rows_max))
    }

    fn row(&self, query: &Query, row: &ChangedRow) -> Result<Option<NamedCells>> {
        let table = &self.tables[&query.name];
        let name = row.name(&query.window);
        let rows = table.rows.iter().map(|(own, stored)| {
            let named = ChangedRow::new((own.0, own.1), None, own.2, &own.3);
            (named, table.row((own, stored)))
        });
        let counted = table.counted.iter().map(|(own, held)| {
            let window = (held.0.start, held.0.end);
            let named = ChangedRow::new(window, Some(own.1), false, &own.0);
            (named, table.counted((own, held)))
        });
        let mut all = rows.chain(counted);
        let found = all.find(|(own, _)| own.name(&query.window) == name);
        Ok(found.map(|(_, cells)| table.all_columns().into_iter().zip(cells).collect()))
    }

    fn nearest(&self, query: &Query, tags: &[String], at: Timestamp) -> Result<[Option<Timestamp>; 2]> {
        let table = &self.tables[&query.name];
        let is_of_key = |key: &[u8]| {
            let own = tags_of(key, tags.len()).into_iter().flatten();
            own.eq(tags.iter().map(String::as_str))
        };
        let rows = table
            .rows
            .keys()
            .filter(|name| is_of_key(&name.3))
            .map(|name| name.0);
        let counted = { table.counted.values() }.filter(|(row, ..)| is_of_key(&row.row.key));
        let counted = counted.map(|(row, ..)| row.start);
        let starts: Vec<Timestamp> = rows.chain(counted).collect();
        // As tables have them: whole milliseconds.
        let shown = |at: Timestamp| Timestamp::clamped(number_of(at) * 1_000);
        let starts = || starts.iter().copied().map(shown);
        Ok([
            starts().filter(|start| *start <= shown(at)).max(),
            starts().filter(|start| *start > shown(at)).min(),
        ])
    }

    fn table_state(&self, query: &Query) -> Result<TableState> {
        let table = &self.tables[&query.name];
        let columns = table.all_columns();
        let rows = table.all_rows();
        let status = columns.iter().position(|column| column == "status");
        let is_provisional =
            |row: &&Vec<Cell>| status.is_some_and(|place| row[place] == Cell::Text("provisional".into()));
        Ok(TableState {
            rows: rows.len() as u64,
            provisional: rows.iter().filter(is_provisional).count() as u64,
            through: table.through,
        })
    }

    fn accounts(&self) -> Result<BTreeMap<String, Account>> {
        let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
        for ((agent, _, _, counter), value) in &self.counters {
            match counter {
                Counter::Accepted => accounts.entry(agent.clone()).or_default().accepted += value,
                Counter::Rejected(_) => accounts.entry(agent.clone()).or_default().rejected += value,
                _ => {}
            }
        }
        for ((agent, ..), (_, readings)) in &self.losses {
            accounts.entry(agent.clone()).or_default().lost += readings;
        }
        Ok(accounts)
    }

    fn losses(&self, agent: Option<&str>) -> Result<Vec<LossRow>> {
        let all = self
            .losses
            .iter()
            .filter(|((of, ..), _)| agent.is_none_or(|agent| agent == of));
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|((agent, epoch, seq, pipeline, from), _)| {
            let signed = (epoch.cast_signed(), seq.cast_signed(), pipeline.0.cast_signed());
            (std::cmp::Reverse(*from), agent.as_str(), signed)
        });
        let queries = |pipeline: &PipelineId| {
            let of = self.pipelines.coarser_of.get(pipeline);
            let lacks = |read: &&PipelineId| *read == pipeline || Some(*read) == of;
            let readers = self.pipelines.readers.iter();
            let queries = readers.flat_map(|(query, read)| read.iter().filter(lacks).map(|_| query.clone()));
            queries.collect()
        };
        let losses = all
            .into_iter()
            .map(|((agent, epoch, seq, pipeline, from), (to, readings))| LossRow {
                agent: agent.clone(),
                epoch: *epoch,
                seq: *seq,
                queries: queries(pipeline),
                from: *from,
                to: *to,
                readings: *readings,
            });
        Ok(losses.collect())
    }

    fn shipped(&self, pipeline: PipelineId, pane: Timestamp) -> Result<Vec<Shipped>> {
        let all = self.contributions.range((pipeline, pane, String::new())..);
        let of_pane = all.take_while(|((own, start, _), _)| (*own, *start) == (pipeline, pane));
        let mut shipped: Vec<Shipped> = of_pane
            .map(|((_, _, agent), (contribution, first, last))| Shipped {
                agent: agent.clone(),
                deltas: contribution.deltas,
                late: contribution.late,
                first: *first,
                last: *last,
            })
            .collect();
        shipped.sort_by_key(|shipped| shipped.first);
        Ok(shipped)
    }

    fn history(&self, query: &str, start: Timestamp, is_coarse: bool) -> Result<Vec<WrittenAt>> {
        let written = self
            .tables
            .get(query)
            .into_iter()
            .flat_map(|table| &table.written);
        let of_window =
            written.filter(|written| (written.window.start, written.is_coarse) == (start, is_coarse));
        Ok(of_window
            .map(|written| WrittenAt {
                at: written.at,
                why: written.why.text().to_owned(),
                status: status_text(&written.window, written.is_coarse).to_owned(),
                coverage: written.window.coverage,
                rows: written.rows as u64,
            })
            .collect())
    }

    fn unreadable(&self) -> Result<u64> {
        Ok(self.set_aside.len() as u64)
    }
}
