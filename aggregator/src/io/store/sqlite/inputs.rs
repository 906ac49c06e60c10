//! What agents sent and said, as rows.

use catchment_common::time::{Span, Timestamp};
use rusqlite::{Transaction, params};

use super::pipelines::bits;
use crate::commit::{AgentRow, Commit, Forgotten};
use crate::io::store::sources;
use crate::limits::LINEAGES_MAX;
use crate::lineages::Newest;

/// Writes everything of a commit that came from agents, except the batches.
pub(super) fn write(transaction: &Transaction<'_>, commit: &Commit) -> rusqlite::Result<()> {
    write_committed(transaction, commit)?;
    for (agent, pipeline, watermark) in &commit.watermarks {
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO catchment_watermark (agent, pipeline, watermark_us) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![agent, bits(*pipeline), watermark.as_micros()])?;
    }
    for agent in &commit.set_back {
        transaction.execute("DELETE FROM catchment_set_back WHERE agent = ?1", [agent])?;
    }
    for agent in &commit.agents {
        write_agent(transaction, agent)?;
    }
    for (agent, newest) in &commit.lineages {
        write_lineage(transaction, agent, *newest, commit.at)?;
    }
    write_losses(transaction, commit)?;
    for (agent, era, pipeline, counter, value) in &commit.counters {
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO catchment_counter (agent, era, pipeline, name, value) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![agent, era.cast_signed(), bits(*pipeline), counter.name(), value.cast_signed()])?;
    }
    Ok(())
}

fn write_committed(transaction: &Transaction<'_>, commit: &Commit) -> rusqlite::Result<()> {
    for Forgotten { agent, epochs } in &commit.forgotten {
        let mut forget =
            transaction.prepare_cached("DELETE FROM catchment_committed WHERE agent = ?1 AND epoch = ?2")?;
        for epoch in epochs {
            forget.execute(params![agent, epoch.cast_signed()])?;
        }
        transaction.execute("DELETE FROM catchment_forget WHERE agent = ?1", [agent])?;
    }
    let mut absorb = transaction.prepare_cached(
        "DELETE FROM catchment_committed WHERE agent = ?1 AND epoch = ?2 AND first BETWEEN ?3 AND ?4",
    )?;
    let mut put = transaction.prepare_cached(
        "INSERT INTO catchment_committed (agent, epoch, first, last) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (agent, epoch, ranges) in &commit.committed {
        for range in ranges {
            let row = params![
                agent,
                epoch.cast_signed(),
                range.first.cast_signed(),
                range.last.cast_signed()
            ];
            absorb.execute(row)?;
            put.execute(row)?;
        }
    }
    Ok(())
}

fn write_agent(transaction: &Transaction<'_>, agent: &AgentRow) -> rusqlite::Result<()> {
    // Whether an agent is retired is the operator's word; its own hello is what takes it back.
    transaction
        .prepare_cached(
            "INSERT INTO catchment_agent
                 (name, last_heard_us, plan_version, software, backlog_batches, backlog_bytes, conflicts, forks,
                  sources, clock_offset_us)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?9, ?10, ?11)
             ON CONFLICT DO UPDATE SET last_heard_us = ?2, plan_version = ?3, software = ?4, backlog_batches = ?5,
                 backlog_bytes = ?6, conflicts = ?7, forks = ?9, sources = ?10, clock_offset_us = ?11,
                 retired = retired AND NOT ?8",
        )?
        .execute(params![
            agent.name,
            agent.heard.as_micros(),
            agent.plan_version.cast_signed(),
            agent.software,
            agent.backlog_batches.cast_signed(),
            agent.backlog_bytes.cast_signed(),
            agent.conflicts.cast_signed(),
            agent.returned,
            agent.forks.cast_signed(),
            sources::to_text(&agent.sources),
            agent.clock_offset.map(Span::as_micros),
        ])?;
    Ok(())
}

/// Notes an epoch that greeted in a lineage, and forgets the lineages that are too many.
fn write_lineage(
    transaction: &Transaction<'_>,
    agent: &str,
    newest: Newest,
    at: Timestamp,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO catchment_lineage (agent, lineage, generation, epoch, at_us)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            agent,
            newest.lineage.cast_signed(),
            newest.generation.cast_signed(),
            newest.epoch.cast_signed(),
            at.as_micros()
        ])?;
    transaction
        .prepare_cached(
            "DELETE FROM catchment_lineage WHERE agent = ?1 AND lineage IN
                 (SELECT lineage FROM catchment_lineage WHERE agent = ?1 ORDER BY at_us DESC LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![agent, LINEAGES_MAX as i64])?;
    Ok(())
}

fn write_losses(transaction: &Transaction<'_>, commit: &Commit) -> rusqlite::Result<()> {
    let mut put = transaction.prepare_cached(
        "INSERT INTO catchment_loss (agent, epoch, seq, pipeline, from_us, to_us, readings)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET to_us = max(to_us, excluded.to_us), readings = readings + excluded.readings",
    )?;
    for (agent, loss) in &commit.losses {
        let name = (agent, loss.epoch.cast_signed(), loss.seq.cast_signed());
        for entry in &loss.entries {
            put.execute(params![
                name.0,
                name.1,
                name.2,
                bits(entry.pipeline),
                entry.from.as_micros(),
                entry.to.as_micros(),
                entry.readings.cast_signed()
            ])?;
        }
        if loss.entries.is_empty() {
            put.execute(params![name.0, name.1, name.2, 0, 0, 0, 0])?;
        }
    }
    Ok(())
}
