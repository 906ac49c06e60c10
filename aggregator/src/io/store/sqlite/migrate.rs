//! Bringing a database of before up to this schema: one transaction, whole or not at all.
//!
//! A step is SQL, or Rust where bytes of ours are to be read and written anew.

use std::path::Path;

use catchment_common::wire::{self, v1};
use rusqlite::{Transaction, params};

use super::{Result, StoreFault, at};

/// One step from a schema to the next.
enum Step {
    /// These statements.
    Sql(&'static str),
    /// This function.
    Rust(fn(&Transaction<'_>, &Path) -> Result<()>),
}

/// The steps that lead to the schema that this software writes; the first makes [`SCHEMA_FIRST`].
const STEPS: [Step; 7] = [
    Step::Sql(include_str!("../../../../migrations/0001_initial.sql")),
    Step::Sql(include_str!("../../../../migrations/0002_slices_renumbered.sql")),
    Step::Sql(include_str!("../../../../migrations/0003_lineage.sql")),
    Step::Sql(include_str!("../../../../migrations/0004_field_words.sql")),
    Step::Sql(include_str!("../../../../migrations/0005_set_aside.sql")),
    Step::Rust(give_definitions_versions),
    Step::Sql(include_str!("../../../../migrations/0007_forget.sql")),
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
            Step::Rust(step) => step(transaction, path)?,
        }
    }
    transaction
        .pragma_update(None, "user_version", SCHEMA_VERSION)
        .map_err(at(path))
}

/// Definitions of plans and pipelines had no version: they are of version 1, and are written anew with one.
fn give_definitions_versions(transaction: &Transaction<'_>, path: &Path) -> Result<()> {
    let unreadable = |what| {
        move |fault: wire::WireFault| StoreFault::Content {
            path: path.to_owned(),
            what,
            problem: fault.to_string(),
        }
    };
    for (key, bytes) in definitions(transaction, "catchment_plan", "version").map_err(at(path))? {
        let plan = v1::parse_plan(&bytes).map_err(unreadable("plan"))?;
        redefine(
            transaction,
            ("catchment_plan", "version", key),
            &wire::emit_plan(&plan),
        )
        .map_err(at(path))?;
    }
    for (key, bytes) in definitions(transaction, "catchment_pipeline", "id").map_err(at(path))? {
        let pipeline = v1::parse_pipeline(&bytes).map_err(unreadable("pipeline"))?;
        let bytes = wire::emit_pipeline(&pipeline);
        redefine(transaction, ("catchment_pipeline", "id", key), &bytes).map_err(at(path))?;
    }
    Ok(())
}

fn definitions(
    transaction: &Transaction<'_>,
    table: &str,
    key: &str,
) -> rusqlite::Result<Vec<(i64, Vec<u8>)>> {
    let mut all = transaction.prepare(&format!("SELECT {key}, definition FROM {table}"))?;
    all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn redefine(
    transaction: &Transaction<'_>,
    (table, key, value): (&str, &str, i64),
    definition: &[u8],
) -> rusqlite::Result<usize> {
    let update = format!("UPDATE {table} SET definition = ?2 WHERE {key} = ?1");
    transaction.execute(&update, params![value, definition])
}
