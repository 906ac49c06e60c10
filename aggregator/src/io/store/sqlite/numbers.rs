//! Numbers that are given out once: of pipelines and of plans. Agents keep them, so a restored backup must not start
//! over.

use catchment_common::plan::{Pipeline, PipelineId, Plan, PlannedPipelines, Query};
use catchment_common::wire;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Sqlite, at};
use crate::catalog::keeps_its_number;
use crate::store::{Reads, Result};

/// What was given out, and the plan in force.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Numbers {
    /// Pipelines by number: definition, and which pipeline each is a rung of (0 for none).
    pub pipelines: Vec<(u32, Vec<u8>, u32)>,
    /// Which pipelines each query has read: what agents still hold of them is the query's.
    pub readers: Vec<(String, u32)>,
    /// The largest pipeline number that may have been given out.
    pub pipeline_floor: u32,
    /// The newest plan's version; 0 before the first.
    pub plan_version: u64,
    /// The largest plan version that may have been given out.
    pub plan_floor: u64,
    /// The newest plan's text.
    pub plan: Option<String>,
}

impl Sqlite {
    /// Everything that was given out.
    pub fn numbers(&self) -> Result<Numbers> {
        let pipelines = self.rows(
            "SELECT id, definition, coarser_of FROM catchment_pipeline",
            |row| Ok((row.get::<_, u32>(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let readers = self.rows("SELECT query, pipeline FROM catchment_reader", |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        let floor = |name: &str| {
            let floor = "SELECT value FROM catchment_floor WHERE name = ?1";
            let value = self
                .connection
                .query_row(floor, [name], |row| row.get::<_, i64>(0));
            value
                .optional()
                .map_err(at(&self.path))
                .map(|value| value.unwrap_or(0))
        };
        let largest = pipelines.iter().map(|pipeline| pipeline.0).max().unwrap_or(0);
        let plan_version = self.plan_version()?;
        Ok(Numbers {
            pipeline_floor: largest.max(u32::try_from(floor("pipeline")?).unwrap_or(u32::MAX)),
            pipelines,
            readers,
            plan_version,
            plan_floor: plan_version.max(floor("plan")?.cast_unsigned()),
            plan: self.plan_source()?,
        })
    }

    /// Takes over what another database has given out.
    pub fn carry_over(&mut self, other: &Numbers) -> Result<()> {
        let Self { connection, path, .. } = self;
        let mut carry = || {
            let transaction = connection.transaction()?;
            for (id, definition, coarser_of) in &other.pipelines {
                transaction.execute(
                    "INSERT OR IGNORE INTO catchment_pipeline (id, definition, coarser_of) VALUES (?1, ?2, ?3)",
                    params![id, definition, coarser_of],
                )?;
            }
            for (query, pipeline) in &other.readers {
                transaction.execute(
                    "INSERT OR IGNORE INTO catchment_reader (query, pipeline) VALUES (?1, ?2)",
                    params![query, pipeline],
                )?;
            }
            let floors = [
                ("pipeline", i64::from(other.pipeline_floor)),
                ("plan", other.plan_floor.cast_signed()),
            ];
            for (name, value) in floors {
                transaction.execute(
                    "INSERT INTO catchment_floor (name, value) VALUES (?1, ?2)
                     ON CONFLICT DO UPDATE SET value = max(value, ?2)",
                    params![name, value],
                )?;
            }
            transaction.commit()
        };
        carry().map_err(at(path))
    }
}

/// The number of each of a plan's pipelines, given now where it needs a new one; their ladders' rungs have theirs too.
pub(super) fn for_plan(
    transaction: &Transaction<'_>,
    plan: &Plan,
    planned: &PlannedPipelines,
) -> rusqlite::Result<Vec<u32>> {
    let read = plan
        .queries
        .iter()
        .map(|query| pipelines_read(transaction, query));
    let read = read.collect::<rusqlite::Result<Vec<Vec<PipelineId>>>>()?;
    let mut numbers = Vec::new();
    for (index, (base, ladder)) in planned.pipelines.iter().zip(&planned.ladders).enumerate() {
        let queries = planned.readers.iter().zip(&read);
        let queries = queries.map(|((own, _), read)| (*own == index, read.as_slice()));
        let known =
            known_number(transaction, base, 0)?.filter(|&known| keeps_its_number(PipelineId(known), queries));
        let id = known.map_or_else(|| give_number(transaction, base, 0), Ok)?;
        for &pane in ladder {
            let rung = Pipeline { pane, ..base.clone() };
            if known_number(transaction, &rung, id)?.is_none() {
                give_number(transaction, &rung, id)?;
            }
        }
        numbers.push(id);
    }
    Ok(numbers)
}

/// The pipelines that a query has read under earlier plans.
fn pipelines_read(transaction: &Transaction<'_>, query: &Query) -> rusqlite::Result<Vec<PipelineId>> {
    transaction
        .prepare_cached("SELECT pipeline FROM catchment_reader WHERE query = ?1")?
        .query_map([&query.name], |row| row.get(0).map(PipelineId))?
        .collect()
}

/// The newest number of a pipeline's definition. A rung of a ladder is told apart from a pipeline that happens to be
/// defined alike: both may be in use at once, and a query that read both would count twice.
fn known_number(
    transaction: &Transaction<'_>,
    pipeline: &Pipeline,
    coarser_of: u32,
) -> rusqlite::Result<Option<u32>> {
    let newest = "SELECT max(id) FROM catchment_pipeline WHERE definition = ?1 AND coarser_of = ?2";
    transaction.query_row(
        newest,
        params![wire::emit_pipeline(pipeline), coarser_of],
        |row| row.get(0),
    )
}

/// Gives a definition a number that was never given out.
fn give_number(transaction: &Transaction<'_>, pipeline: &Pipeline, coarser_of: u32) -> rusqlite::Result<u32> {
    transaction.query_row(
        "INSERT INTO catchment_pipeline (id, definition, coarser_of)
         SELECT 1 + max(coalesce((SELECT max(id) FROM catchment_pipeline), 0),
                        coalesce((SELECT value FROM catchment_floor WHERE name = 'pipeline'), 0)), ?1, ?2
         RETURNING id",
        params![wire::emit_pipeline(pipeline), coarser_of],
        |row| row.get(0),
    )
}
