//! Pipelines and which query has read them, as rows.

use std::collections::BTreeSet;

use catchment_common::plan::{Pipeline, PipelineId, Plan};
use catchment_common::wire::{self, WireFault};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::pipelines::{Given, Pipelines};

/// An id as SQLite keeps it.
pub(in crate::io) fn bits(id: PipelineId) -> i64 {
    id.0.cast_signed()
}

/// The id in this column.
pub(in crate::io) fn id_at(row: &Row<'_>, column: usize) -> rusqlite::Result<PipelineId> {
    row.get(column).map(|bits: i64| PipelineId(bits.cast_unsigned()))
}

/// A row of a pipeline, its definition not read yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PipelineRow {
    pub(super) id: PipelineId,
    pub(super) number: u32,
    pub(super) definition: Vec<u8>,
    pub(super) coarser_of: PipelineId,
    pub(super) nonce: u64,
    pub(super) ordinal: i64,
}

impl PipelineRow {
    /// All rows, in the order in which they were given out.
    pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<Self>> {
        let all = "SELECT id, number, definition, coarser_of, nonce, ordinal FROM catchment_pipeline ORDER BY ordinal";
        let mut statement = connection.prepare(all)?;
        let rows = statement.query_map([], |row| {
            Ok(Self {
                id: id_at(row, 0)?,
                number: row.get(1)?,
                definition: row.get(2)?,
                coarser_of: id_at(row, 3)?,
                nonce: row.get::<_, i64>(4)?.cast_unsigned(),
                ordinal: row.get(5)?,
            })
        })?;
        rows.collect()
    }

    fn coarser_of(&self) -> Option<PipelineId> {
        Some(self.coarser_of).filter(|of| *of != PipelineId::NONE)
    }

    /// Writes the row, unless there is one of its id or number.
    pub(super) fn insert(&self, connection: &Connection) -> rusqlite::Result<usize> {
        let insert =
            "INSERT OR IGNORE INTO catchment_pipeline (id, number, definition, coarser_of, nonce, ordinal)
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        connection.prepare_cached(insert)?.execute(params![
            bits(self.id),
            self.number,
            self.definition,
            bits(self.coarser_of),
            self.nonce.cast_signed(),
            self.ordinal
        ])
    }
}

/// A pipeline that cannot be read, and why.
type Unreadable = (PipelineId, WireFault);

/// Everything that was given out, and what cannot be read of it: not even made again from the plan in force.
pub(super) fn load(connection: &Connection, plan: &Plan) -> rusqlite::Result<(Pipelines, Vec<Unreadable>)> {
    let first_nonce = "SELECT first_nonce FROM catchment_database";
    let first_nonce = connection.query_row(first_nonce, [], |row| row.get::<_, i64>(0));
    let mut pipelines = Pipelines::default();
    pipelines.first_nonce = first_nonce.optional()?.unwrap_or(0).cast_unsigned();
    let mut unreadable = Vec::new();
    for row in PipelineRow::all(connection)? {
        let definition =
            wire::parse_pipeline(&row.definition).or_else(|fault| planned(&row, plan).ok_or(fault));
        match definition {
            Ok(definition) => pipelines.add(Given {
                id: row.id,
                number: row.number,
                definition,
                coarser_of: row.coarser_of(),
                nonce: row.nonce,
            }),
            Err(fault) => unreadable.push((row.id, fault)),
        }
    }
    for (query, pipeline) in readers(connection)? {
        pipelines.readers.entry(query).or_default().insert(pipeline);
    }
    Ok((pipelines, unreadable))
}

/// The pipeline of a plan that has a row's id.
fn planned(row: &PipelineRow, plan: &Plan) -> Option<Pipeline> {
    let planned = plan.pipelines();
    let rungs = planned.pipelines.iter().zip(&planned.ladders);
    let rungs = rungs
        .flat_map(|(base, ladder)| { ladder.iter() }.map(move |&pane| Pipeline { pane, ..base.clone() }));
    let mut all = planned.pipelines.iter().cloned().chain(rungs);
    all.find(|pipeline| wire::fingerprint(pipeline, row.coarser_of(), row.nonce) == row.id)
}

/// Which pipelines each query has read.
pub(super) fn readers(connection: &Connection) -> rusqlite::Result<BTreeSet<(String, PipelineId)>> {
    let mut statement = connection.prepare("SELECT query, pipeline FROM catchment_reader")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, id_at(row, 1)?)))?;
    rows.collect()
}

/// Writes what was given out now.
pub(super) fn write(transaction: &Transaction<'_>, given: &[Given]) -> rusqlite::Result<()> {
    let next = "SELECT coalesce(max(ordinal), 0) FROM catchment_pipeline";
    let last: i64 = transaction.query_row(next, [], |row| row.get(0))?;
    for (ordinal, given) in (last + 1..).zip(given) {
        let row = PipelineRow {
            id: given.id,
            number: given.number,
            definition: wire::emit_pipeline(&given.definition),
            coarser_of: given.coarser_of.unwrap_or(PipelineId::NONE),
            nonce: given.nonce,
            ordinal,
        };
        row.insert(transaction)?;
    }
    Ok(())
}
