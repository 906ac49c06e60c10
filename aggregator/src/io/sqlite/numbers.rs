//! Numbers that are given out once: of slices and of plans. Agents keep them, so a restored backup must not start over.

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Result, Slice, Store, at};

/// What was given out, and the plan in force.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Numbers {
    /// Slices by number: definition, and which slice each is a rung of (0 for none).
    pub slices: Vec<(u32, Vec<u8>, u32)>,
    /// The largest slice number that may have been given out.
    pub slice_floor: u32,
    /// The newest plan's version; 0 before the first.
    pub plan_version: u64,
    /// The largest plan version that may have been given out.
    pub plan_floor: u64,
    /// The newest plan's text.
    pub plan: Option<String>,
}

impl Store {
    /// Everything that was given out.
    pub fn numbers(&self) -> Result<Numbers> {
        let slices = self.rows("SELECT id, definition, coarser_of FROM catchment_slice", |row| {
            Ok((row.get::<_, u32>(0)?, row.get(1)?, row.get(2)?))
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
        let largest = slices.iter().map(|slice| slice.0).max().unwrap_or(0);
        let plan_version = self.plan_version()?;
        Ok(Numbers {
            slice_floor: largest.max(u32::try_from(floor("slice")?).unwrap_or(u32::MAX)),
            slices,
            plan_version,
            plan_floor: plan_version.max(floor("plan")?.cast_unsigned()),
            plan: self.plan_source()?,
        })
    }

    /// Takes over what another database has given out.
    pub fn carry_over(&mut self, other: &Numbers) -> Result<()> {
        let Self { connection, path } = self;
        let mut carry = || {
            let transaction = connection.transaction()?;
            for (id, definition, coarser_of) in &other.slices {
                transaction.execute(
                    "INSERT OR IGNORE INTO catchment_slice (id, definition, coarser_of) VALUES (?1, ?2, ?3)",
                    params![id, definition, coarser_of],
                )?;
            }
            let floors = [
                ("slice", i64::from(other.slice_floor)),
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

/// The number of a slice's definition, given now if it is new. A rung of a ladder is told apart from a slice that
/// happens to be defined alike: both may be in use at once, and a query that read both would count twice.
pub(super) fn slice_id(
    transaction: &Transaction<'_>,
    slice: &Slice,
    coarser_of: Option<u32>,
) -> rusqlite::Result<u32> {
    let definition = postcard::to_allocvec(slice)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let coarser_of = coarser_of.unwrap_or(0);
    transaction.execute(
        "INSERT OR IGNORE INTO catchment_slice (id, definition, coarser_of)
         SELECT 1 + max(coalesce((SELECT max(id) FROM catchment_slice), 0),
                        coalesce((SELECT value FROM catchment_floor WHERE name = 'slice'), 0)), ?1, ?2",
        params![definition, coarser_of],
    )?;
    transaction.query_row(
        "SELECT id FROM catchment_slice WHERE definition = ?1 AND coarser_of = ?2",
        params![definition, coarser_of],
        |row| row.get(0),
    )
}
