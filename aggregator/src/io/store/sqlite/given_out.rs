//! What a database has given out and agents know: what a restored backup takes over from the database that it replaces.

use catchment_common::plan::PipelineId;
use catchment_common::wire::lineage::DatabaseId;
use rusqlite::{OptionalExtension, params};

use super::pipelines::{PipelineRow, bits, readers};
use super::{Sqlite, at};
use crate::store::changes::{Changes, Position};
use crate::store::{Reads, Result};

/// What was given out, and the plan in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenOut {
    /// Which database has done so.
    pub database: DatabaseId,
    pipelines: Vec<PipelineRow>,
    /// Which pipelines each query has read: what agents still hold of them is the query's.
    readers: Vec<(String, PipelineId)>,
    /// The newest plan's version; 0 before the first.
    pub plan_version: u64,
    /// The largest plan version that may have been given out.
    pub plan_floor: u64,
    /// The newest plan's text.
    pub plan: Option<String>,
    /// Where the next change of the feed goes.
    pub feed_next: Position,
}

impl Sqlite {
    /// Everything that was given out.
    pub fn given_out(&self) -> Result<GivenOut> {
        let plan_version = self.plan_version()?;
        let read = || Ok((PipelineRow::all(&self.connection)?, readers(&self.connection)?));
        let (pipelines, readers) = read().map_err(at(&self.path))?;
        Ok(GivenOut {
            database: self.database()?,
            pipelines,
            readers: readers.into_iter().collect(),
            plan_version,
            plan_floor: plan_version.max(self.plan_floor()?),
            plan: self.plan_source()?,
            feed_next: self.extent()?.next,
        })
    }

    fn plan_floor(&self) -> Result<u64> {
        let floor = "SELECT value FROM catchment_floor WHERE name = 'plan'";
        let value = self.connection.query_row(floor, [], |row| row.get::<_, i64>(0));
        let value = value.optional().map_err(at(&self.path))?;
        Ok(value.unwrap_or(0).cast_unsigned())
    }

    /// Takes over what the same database, in a newer state, has given out.
    pub fn carry_over(&mut self, newer: &GivenOut) -> Result<()> {
        let Self { connection, path, .. } = self;
        let mut carry = || {
            let transaction = connection.transaction()?;
            for row in &newer.pipelines {
                row.insert(&transaction)?;
            }
            for (query, pipeline) in &newer.readers {
                transaction.execute(
                    "INSERT OR IGNORE INTO catchment_reader (query, pipeline) VALUES (?1, ?2)",
                    params![query, bits(*pipeline)],
                )?;
            }
            transaction.commit()
        };
        carry().map_err(at(path))?;
        self.raise_plan_floor(newer.plan_floor)
    }

    /// No plan is given this version or a smaller one.
    pub fn raise_plan_floor(&mut self, floor: u64) -> Result<()> {
        let raise = "INSERT INTO catchment_floor (name, value) VALUES ('plan', ?1)
                     ON CONFLICT DO UPDATE SET value = max(value, ?1)";
        let raised = self.connection.execute(raise, [floor.cast_signed()]);
        raised.map(|_| ()).map_err(at(&self.path))
    }

    /// What this database gave out after its backup was made is not known, and agents may hold some of it: what it gives
    /// out from now on is told apart from that by this nonce.
    pub fn begin_branch(&mut self, nonce: u64) -> Result<()> {
        let begin = "UPDATE catchment_database SET first_nonce = ?1";
        let begun = self.connection.execute(begin, [nonce.cast_signed()]);
        begun.map(|_| ()).map_err(at(&self.path))
    }
}
