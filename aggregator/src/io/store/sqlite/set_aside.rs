//! What was stored and cannot be read: moved, with its bytes, to where nothing reads it, and told as a loss.

use rusqlite::{Transaction, params};

use super::pipelines::bits;
use crate::commit::{Commit, SetAside, Unreadable};

/// Moves everything that a commit sets aside. It must come before the checkpoint, which replaces panes and batches.
pub(super) fn write(transaction: &Transaction<'_>, commit: &Commit) -> rusqlite::Result<()> {
    for SetAside { what, reason } in &commit.set_aside {
        match what {
            Unreadable::Chunk {
                pipeline,
                pane,
                end,
                number,
            } => {
                let name = params![bits(*pipeline), pane.as_micros(), number];
                transaction.execute(
                    "INSERT INTO catchment_set_aside (kind, at_us, reason, pipeline, start_us, chunk, bytes)
                     SELECT 'pane', ?4, ?5, pipeline, start_us, chunk, columns FROM catchment_pane
                     WHERE pipeline = ?1 AND start_us = ?2 AND chunk = ?3",
                    params![
                        bits(*pipeline),
                        pane.as_micros(),
                        number,
                        commit.at.as_micros(),
                        reason
                    ],
                )?;
                transaction.execute(
                    "DELETE FROM catchment_pane WHERE pipeline = ?1 AND start_us = ?2 AND chunk = ?3",
                    name,
                )?;
                lose(
                    transaction,
                    ("", 0, 0),
                    (bits(*pipeline), pane.as_micros(), end.as_micros()),
                )?;
            }
            Unreadable::Batch { agent, epoch, seq } => {
                let (epoch, seq) = (epoch.cast_signed(), seq.cast_signed());
                transaction.execute(
                    "INSERT INTO catchment_set_aside (kind, at_us, reason, agent, epoch, seq, bytes)
                     SELECT 'batch', ?4, ?5, agent, epoch, seq, frame FROM catchment_batch
                     WHERE agent = ?1 AND epoch = ?2 AND seq = ?3",
                    params![agent, epoch, seq, commit.at.as_micros(), reason],
                )?;
                transaction.execute(
                    "DELETE FROM catchment_batch WHERE agent = ?1 AND epoch = ?2 AND seq = ?3",
                    params![agent, epoch, seq],
                )?;
                lose(transaction, (agent, epoch, seq), (0, 0, 0))?;
            }
        }
    }
    Ok(())
}

/// Notes a loss whose readings cannot be counted. The centre's own have no agent.
fn lose(
    transaction: &Transaction<'_>,
    (agent, epoch, seq): (&str, i64, i64),
    (pipeline, from, to): (i64, i64, i64),
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO catchment_loss (agent, epoch, seq, pipeline, from_us, to_us, readings)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0) ON CONFLICT DO NOTHING",
        params![agent, epoch, seq, pipeline, from, to],
    )?;
    Ok(())
}
