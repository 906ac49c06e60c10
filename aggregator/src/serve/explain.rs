//! What one result row is made of, and how it came about.
//!
//! Readings come from the panes themselves, as stored and as appended since, so what is shown is what a recomputation
//! of the row would merge. Who shipped a pane is known for the pane as a whole, not key by key: that would be a row for
//! each (pane, key, agent).

use catchment_common::key::KeyBuffer;
use catchment_common::limits::WINDOW_STEP_MIN;
use catchment_common::plan::{Pipeline, PipelineId, Query};
use catchment_common::time::{Span, Timestamp};
use catchment_common::wire::Batch;

use super::rows::Newest;
use super::{AskFault, Question, or_none, query_of};
use crate::catalog::{Catalog, RunningQuery};
use crate::commit::SourceFault;
use crate::merge::Panes;
use crate::store::StoreFault;
use crate::store::lookup::{Cell, Lookup, Page, Selection, Shipped, WrittenAt};
use crate::store::text::{parse_time_text, time_text};

/// Asks what the rows of a key over an instant are made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explain {
    /// The query's name.
    pub query: String,
    /// The tags of the key, each with its value, in any order.
    pub key: Vec<(String, String)>,
    /// An instant in the row's window.
    pub at: Timestamp,
}

/// A row with what it is made of.
#[derive(Clone, PartialEq, Debug)]
pub struct Explained {
    /// The row.
    pub row: ExplainedRow,
    /// Its panes, pipeline by pipeline.
    pub panes: Vec<PaneOf>,
    /// From when on counters and means over time go on from what the key had before the window; none where nothing does.
    pub looks_back_to: Option<Timestamp>,
    /// The agents that run its pipelines; none for a count window, which waits for nobody.
    pub agents: Option<Vec<AgentOf>>,
    /// When rows of this window were written.
    pub history: Vec<WrittenAt>,
}

/// The part of a row that every table has.
#[derive(Clone, PartialEq, Debug)]
pub struct ExplainedRow {
    /// The values of its tags, in the key's order.
    pub tags: Vec<String>,
    /// The start of its window.
    pub start: Timestamp,
    /// The end of its window.
    pub end: Timestamp,
    /// The number of a count window, which stands for its pane and names it.
    pub number: Option<Timestamp>,
    /// Whether it is a coarser pane.
    pub is_coarse: bool,
    /// How often it was written.
    pub revision: i64,
    /// Its status.
    pub status: String,
    /// Its coverage.
    pub coverage: f64,
    /// How many readings it says that it has.
    pub readings: i64,
}

/// A pane that the row is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PaneOf {
    /// Its pipeline.
    pub pipeline: PipelineId,
    /// Its start.
    pub start: Timestamp,
    /// Readings of the key in it.
    pub readings: u64,
    /// Who shipped it.
    pub shipped: Vec<Shipped>,
}

/// An agent that runs a pipeline of the row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentOf {
    /// Its name.
    pub name: String,
    /// The pipeline.
    pub pipeline: PipelineId,
    /// How far it is with it.
    pub watermark: Timestamp,
    /// Whether that is past the window's end.
    pub has_passed: bool,
    /// When it was last heard.
    pub heard: Timestamp,
    /// Whether it is retired.
    pub retired: bool,
}

impl Question for Explain {
    type Answer = Vec<Explained>;

    fn ask(&self, store: &impl Lookup) -> Result<Vec<Explained>, AskFault> {
        let catalog = store.catalog()?;
        let query = query_of(&catalog.asked, &self.query)?;
        let tags = self.tags(query)?;
        let rows = self.rows(store, query, &tags)?;
        if rows.is_empty() {
            return Err(AskFault::NoRow(format!(
                "{} has no row of {} over {}{}",
                query.name,
                or_none(&tags),
                time_text(self.at),
                nearest(store, query, &tags, self.at)?
            )));
        }
        let running = catalog
            .queries
            .iter()
            .filter(|running| running.query.name == self.query);
        let running = running.flat_map(|running| rows.iter().map(move |row| (running, row)));
        let explained = running.map(|(running, row)| explained(store, &catalog, running, row.clone()));
        explained.collect()
    }
}

impl Explain {
    /// The values of the key's tags, in its order.
    fn tags(&self, query: &Query) -> Result<Vec<String>, AskFault> {
        let row_tags = query.row_tags();
        if let Some((unknown, _)) = self.key.iter().find(|(tag, _)| !row_tags.contains(&tag.as_str())) {
            return Err(AskFault::Misfit(format!(
                "`{unknown}` is no tag of `{}`; its key is {}",
                query.name,
                or_none(&row_tags)
            )));
        }
        let value = |tag: &&str| {
            let given = self.key.iter().find(|(given, _)| given == tag);
            let missing = || {
                let all = row_tags.join("=…,");
                AskFault::Misfit(format!("the key lacks `{tag}`; give --key {all}=…"))
            };
            given.map(|(_, value)| value.clone()).ok_or_else(missing)
        };
        row_tags.iter().map(value).collect()
    }

    fn rows(
        &self,
        store: &impl Lookup,
        query: &Query,
        tags: &[String],
    ) -> Result<Vec<ExplainedRow>, AskFault> {
        let names = query.row_tags().into_iter().map(str::to_owned);
        let selection = Selection {
            covers: Some(self.at),
            tags: names.zip(tags.iter().cloned()).collect(),
            ..Selection::default()
        };
        let all = Newest {
            query: query.name.clone(),
            selection,
            rows_max: usize::MAX,
        };
        let page = all.ask(store)?;
        let rows = page.rows.iter();
        Ok(rows.filter_map(|row| row_of(&page, row, tags)).collect())
    }
}

/// The fixed part of a row. Its columns are there in every table.
fn row_of(page: &Page, row: &[Cell], tags: &[String]) -> Option<ExplainedRow> {
    let cell = |name: &str| {
        let place = page.columns.iter().position(|column| column == name);
        place.map(|place| &row[place])
    };
    let integer = |name: &str| match cell(name) {
        Some(Cell::Integer(number)) => Some(*number),
        _ => None,
    };
    let text = |name: &str| match cell(name) {
        Some(Cell::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let number = |number: i64| Timestamp::clamped(number.saturating_mul(WINDOW_STEP_MIN.as_micros()));
    Some(ExplainedRow {
        tags: tags.to_vec(),
        start: parse_time_text(text("window_start")?)?,
        end: parse_time_text(text("window_end")?)?,
        number: integer("window_number").map(number),
        is_coarse: integer("coarse")? != 0,
        revision: integer("revision")?,
        status: text("status")?.to_owned(),
        coverage: match cell("coverage")? {
            Cell::Real(coverage) => *coverage,
            _ => return None,
        },
        readings: integer("readings")?,
    })
}

impl ExplainedRow {
    /// Where its panes are.
    fn range(&self) -> (Timestamp, Timestamp) {
        self.number.map_or((self.start, self.end), |number| {
            (number, number.plus(WINDOW_STEP_MIN))
        })
    }
}

/// Where the key's rows are, for whoever has missed them.
fn nearest(store: &impl Lookup, query: &Query, tags: &[String], at: Timestamp) -> Result<String, AskFault> {
    let near: Vec<String> = { store.nearest(query, tags, at)?.into_iter() }
        .flatten()
        .map(time_text)
        .collect();
    Ok(match near.as_slice() {
        [] => "; it has none at all of this key".into(),
        near => format!("; the nearest begin at {}", near.join(" and ")),
    })
}

fn explained(
    store: &impl Lookup,
    catalog: &Catalog,
    query: &RunningQuery,
    row: ExplainedRow,
) -> Result<Explained, AskFault> {
    let readers = if row.is_coarse {
        &query.coarse
    } else {
        &query.readers
    };
    let pipelines: Vec<(PipelineId, Span)> = readers
        .iter()
        .filter(|reader| !row.is_coarse || reader.pane == row.end.since(row.start))
        .map(|reader| (reader.pipeline, reader.pane))
        .collect();
    let waits = row.number.is_none();
    let lookback = query.query.lookback();
    let looks_back = lookback > Span::ZERO && !row.is_coarse;
    Ok(Explained {
        looks_back_to: looks_back.then(|| row.start.minus(lookback)),
        panes: panes_of(store, catalog, &pipelines, &row)?,
        agents: waits.then(|| agents_of(store, &pipelines, &row)).transpose()?,
        history: store.history(&query.query.name, row.range().0, row.is_coarse)?,
        row,
    })
}

fn panes_of(
    store: &impl Lookup,
    catalog: &Catalog,
    pipelines: &[(PipelineId, Span)],
    row: &ExplainedRow,
) -> Result<Vec<PaneOf>, AskFault> {
    let mut buffer = KeyBuffer::default();
    for tag in &row.tags {
        // The tags of a row that exists.
        buffer.push(tag).ok();
    }
    let mut found = Vec::new();
    for &(pipeline, width) in pipelines {
        let Some(definition) = catalog.pipelines.get(&pipeline) else {
            continue;
        };
        let panes = load(store, catalog, (pipeline, definition), row)?;
        let Some(held) = panes.pipeline(pipeline) else {
            continue;
        };
        let Some(id) = held.find(buffer.as_bytes()) else {
            continue;
        };
        let (from, to) = row.range();
        for (start, pane) in held.range(from.minus(width)..to) {
            let Some((readings, _)) = pane.row(id).filter(|_| start.plus(width) > from) else {
                continue;
            };
            found.push(PaneOf {
                pipeline,
                start,
                readings,
                shipped: store.shipped(pipeline, start)?,
            });
        }
    }
    Ok(found)
}

/// The panes of a pipeline that may be part of a row: as stored, and what was appended since. What cannot be read is
/// left out: the server sets it aside and says so.
fn load(
    store: &impl Lookup,
    catalog: &Catalog,
    (id, pipeline): (PipelineId, &Pipeline),
    row: &ExplainedRow,
) -> Result<Panes, AskFault> {
    let unread = |fault: SourceFault| AskFault::Store(StoreFault::Source(fault));
    let mut panes = Panes::default();
    let (from, to) = row.range();
    let from = from.minus(pipeline.pane);
    for start in store.starts(id, from, to).map_err(unread)? {
        for chunk in store.chunks(id, start).map_err(unread)? {
            panes.load((id, start), Some(pipeline), &chunk);
        }
    }
    store.batches(&mut |appended| {
        let Ok(batch) = Batch::parse(&appended.frame) else {
            return Ok(());
        };
        let views = batch.sections().filter_map(Result::ok);
        for view in views.filter_map(|view| catalog.resolved(view)) {
            if view.pipeline == id && (from..to).contains(&view.pane) {
                panes.merge("", &view).ok();
            }
        }
        Ok(())
    })?;
    Ok(panes)
}

fn agents_of(
    store: &impl Lookup,
    pipelines: &[(PipelineId, Span)],
    row: &ExplainedRow,
) -> Result<Vec<AgentOf>, AskFault> {
    let standings = store.standings()?;
    let mut agents = Vec::new();
    for &(pipeline, _) in pipelines {
        agents.extend(standings.iter().filter_map(|(name, standing)| {
            let watermark = *standing.watermarks.get(&pipeline)?;
            Some(AgentOf {
                name: name.clone(),
                pipeline,
                watermark,
                has_passed: watermark >= row.end,
                heard: standing.heard,
                retired: standing.retired,
            })
        }));
    }
    Ok(agents)
}
