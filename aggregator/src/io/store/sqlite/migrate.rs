//! Bringing a database of before up to this schema: one transaction, whole or not at all.
//!
//! A step is SQL, or Rust where bytes of ours are to be read and written anew. What Rust makes is a function of what is
//! there, so that a backup of before, when it is brought up to date later, becomes the same database with the same ids.

use std::collections::BTreeMap;
use std::path::Path;

use catchment_common::plan::{Pipeline, PipelineId};
use catchment_common::sketch::hash;
use catchment_common::wire::{self, WireFault, v1};
use rusqlite::{OptionalExtension, Transaction, params};

use super::pipelines::{PipelineRow, bits};
use super::{Result, StoreFault, at};

/// One step from a schema to the next.
enum Step {
    /// These statements.
    Sql(&'static str),
    /// These statements, then this function.
    Then(&'static str, fn(&Transaction<'_>, &Path) -> Result<()>),
}

/// The steps that lead to the schema that this software writes; the first makes [`SCHEMA_FIRST`].
const STEPS: [Step; 13] = [
    Step::Sql(include_str!("../../../../migrations/0001_initial.sql")),
    Step::Sql(include_str!("../../../../migrations/0002_slices_renumbered.sql")),
    Step::Sql(include_str!("../../../../migrations/0003_lineage.sql")),
    Step::Sql(include_str!("../../../../migrations/0004_field_words.sql")),
    Step::Sql(include_str!("../../../../migrations/0005_set_aside.sql")),
    Step::Then(
        include_str!("../../../../migrations/0006_fingerprints.sql"),
        to_version_2,
    ),
    Step::Sql(include_str!("../../../../migrations/0007_forget.sql")),
    Step::Sql(include_str!("../../../../migrations/0008_plan_file.sql")),
    Step::Sql(include_str!("../../../../migrations/0009_since.sql")),
    Step::Sql(include_str!("../../../../migrations/0010_unrevised.sql")),
    Step::Sql(include_str!("../../../../migrations/0011_sources.sql")),
    Step::Sql(include_str!("../../../../migrations/0012_clocks.sql")),
    Step::Sql(include_str!("../../../../migrations/0013_changes.sql")),
];
/// The oldest schema version that can be read. Version 1 was never released.
pub(super) const SCHEMA_FIRST: i64 = 2;
/// The schema version that this software writes.
pub(super) const SCHEMA_VERSION: i64 = SCHEMA_FIRST + STEPS.len() as i64 - 1;

/// Takes all steps from the schema `found`, which is 0 for a new database.
pub(super) fn migrate(transaction: &Transaction<'_>, found: i64, path: &Path) -> Result<()> {
    let done = if found == 0 { 0 } else { found - SCHEMA_FIRST + 1 };
    for step in STEPS.iter().skip(done as usize) {
        match step {
            Step::Sql(statements) => transaction.execute_batch(statements).map_err(at(path))?,
            Step::Then(statements, step) => {
                transaction.execute_batch(statements).map_err(at(path))?;
                step(transaction, path)?;
            }
        }
    }
    transaction
        .pragma_update(None, "user_version", SCHEMA_VERSION)
        .map_err(at(path))
}

/// Gives the database its id, pipelines theirs, and definitions a version.
fn to_version_2(transaction: &Transaction<'_>, path: &Path) -> Result<()> {
    name_database(transaction, path)?;
    let unreadable = |what| {
        move |fault: WireFault| StoreFault::Content {
            path: path.to_owned(),
            what,
            problem: fault.to_string(),
        }
    };
    for (version, bytes) in plans(transaction).map_err(at(path))? {
        // If it cannot be read, its text is: see [`super::Store::load_plan`].
        if let Ok(plan) = v1::parse_plan(&bytes) {
            let update = "UPDATE catchment_plan SET definition = ?2 WHERE version = ?1";
            transaction
                .execute(update, params![version, wire::emit_plan(&plan)])
                .map_err(at(path))?;
        }
    }
    let mut pipelines = Vec::new();
    for (number, bytes, of) in numbered(transaction).map_err(at(path))? {
        let pipeline = v1::parse_pipeline(&bytes).map_err(unreadable("pipeline"))?;
        pipelines.push((number, pipeline, of));
    }
    let rows = fingerprinted(&pipelines);
    let write = || {
        for row in &rows {
            let into_next =
                "INSERT INTO catchment_pipeline_next (id, number, definition, coarser_of, nonce, ordinal)
                             VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            transaction.execute(
                into_next,
                params![
                    bits(row.id),
                    row.number,
                    row.definition,
                    bits(row.coarser_of),
                    row.nonce.cast_signed(),
                    row.ordinal
                ],
            )?;
        }
        transaction.execute_batch(RENUMBER)
    };
    write().map_err(at(path))
}

/// Puts ids in the place of numbers, wherever a pipeline is named. Batches keep their frames, whose numbers are
/// translated when they are read, and panes their columns, in which the number is passed over.
const RENUMBER: &str = "
    UPDATE catchment_query SET pipeline = (SELECT id FROM catchment_pipeline_next WHERE number = pipeline)
        WHERE pipeline IN (SELECT number FROM catchment_pipeline_next);
    UPDATE catchment_reader SET pipeline = (SELECT id FROM catchment_pipeline_next WHERE number = pipeline)
        WHERE pipeline IN (SELECT number FROM catchment_pipeline_next);
    UPDATE catchment_loss SET pipeline = (SELECT id FROM catchment_pipeline_next WHERE number = pipeline)
        WHERE pipeline IN (SELECT number FROM catchment_pipeline_next);
    UPDATE catchment_watermark SET pipeline = (SELECT id FROM catchment_pipeline_next WHERE number = pipeline)
        WHERE pipeline IN (SELECT number FROM catchment_pipeline_next);
    UPDATE catchment_counter SET pipeline = (SELECT id FROM catchment_pipeline_next WHERE number = pipeline)
        WHERE pipeline IN (SELECT number FROM catchment_pipeline_next);
    UPDATE catchment_pane SET pipeline = (SELECT id FROM catchment_pipeline_next WHERE number = pipeline)
        WHERE pipeline IN (SELECT number FROM catchment_pipeline_next);
    UPDATE catchment_contribution SET pipeline = (SELECT id FROM catchment_pipeline_next WHERE number = pipeline)
        WHERE pipeline IN (SELECT number FROM catchment_pipeline_next);
    UPDATE catchment_set_aside SET pipeline = (SELECT id FROM catchment_pipeline_next WHERE number = pipeline)
        WHERE pipeline IN (SELECT number FROM catchment_pipeline_next);
    DROP TABLE catchment_pipeline;
    ALTER TABLE catchment_pipeline_next RENAME TO catchment_pipeline;
    CREATE INDEX catchment_pipeline_ordinal ON catchment_pipeline (ordinal);
";

/// The rows of numbered pipelines. The first of a definition has nonce 0, those after it their number.
fn fingerprinted(pipelines: &[(u32, Pipeline, u32)]) -> Vec<PipelineRow> {
    let mut ids: BTreeMap<u32, PipelineId> = BTreeMap::new();
    let mut rows: Vec<PipelineRow> = Vec::new();
    for (ordinal, (number, pipeline, of)) in (1..).zip(pipelines) {
        let definition = wire::emit_pipeline(pipeline);
        let coarser_of = ids.get(of).copied().filter(|_| *of != 0);
        let parent = coarser_of.unwrap_or(PipelineId::NONE);
        let is_known = { rows.iter() }.any(|row| (row.coarser_of, &row.definition) == (parent, &definition));
        let nonce = if is_known { u64::from(*number) } else { 0 };
        let id = wire::fingerprint(pipeline, coarser_of, nonce);
        ids.insert(*number, id);
        rows.push(PipelineRow {
            id,
            number: *number,
            definition,
            coarser_of: parent,
            nonce,
            ordinal,
        });
    }
    rows
}

/// A new database gets random bits. One of before gets what its first plan and the time of that come to, so that its
/// backups are the same database.
fn name_database(transaction: &Transaction<'_>, path: &Path) -> Result<()> {
    let first = "SELECT applied_at, source FROM catchment_plan ORDER BY version LIMIT 1";
    let first = transaction.query_row(first, [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    });
    let mut id = [0; 16];
    if let Some((at, source)) = first.optional().map_err(at(path))? {
        let halves = [0_u8, 1].map(|half| hash(format!("{half}\n{at}\n{source}").as_bytes()));
        id[..8].copy_from_slice(&halves[0].to_le_bytes());
        id[8..].copy_from_slice(&halves[1].to_le_bytes());
    } else {
        getrandom::fill(&mut id).map_err(|error| StoreFault::Content {
            path: path.to_owned(),
            what: "id of the database",
            problem: format!("the system gives no random numbers: {error}"),
        })?;
    }
    transaction
        .execute("INSERT INTO catchment_database (id) VALUES (?1)", [id])
        .map(|_| ())
        .map_err(at(path))
}

fn plans(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<(i64, Vec<u8>)>> {
    let mut all = transaction.prepare("SELECT version, definition FROM catchment_plan")?;
    all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Numbers, definitions, and of which pipeline each is a rung.
fn numbered(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<(u32, Vec<u8>, u32)>> {
    let all = "SELECT id, definition, coarser_of FROM catchment_pipeline ORDER BY id";
    let mut all = transaction.prepare(all)?;
    all.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}
