//! `status`: how agents and queries stand.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use catchment_common::time::Now;

use super::show::{ago, table};
use crate::io::store::sqlite::Sqlite;
use crate::serve::Question;
use crate::serve::status::Status;
use crate::store::text::time_text;

/// Writes how agents and queries stand to `out`.
pub fn status(database: &Path, now: Now, out: &mut impl Write) -> Result<()> {
    let store = Sqlite::open_to_read(database)?;
    let _moment = store.moment()?;
    let status = Status.ask(&store)?;
    let mut agents = table(&[
        "agent",
        "heard",
        "plan",
        "software",
        "watermark",
        "accepted",
        "rejected",
    ]);
    for agent in status.agents {
        agents.add_row([
            agent.name,
            ago(now, agent.heard),
            agent.plan_version.to_string(),
            agent.software,
            agent.watermark.map_or("-".into(), time_text),
            agent.accepted.to_string(),
            agent.rejected.to_string(),
        ]);
    }
    let mut queries = table(&["query", "rows", "provisional", "shown through"]);
    for query in status.queries {
        queries.add_row([
            query.name,
            query.table.rows.to_string(),
            query.table.provisional.to_string(),
            query.table.through.map_or("-".into(), time_text),
        ]);
    }
    writeln!(out, "{agents}\n\n{queries}")?;
    if status.unreadable > 0 {
        let count = status.unreadable;
        writeln!(
            out,
            "\n{count} stored panes or batches could not be read: their bytes are kept in catchment_set_aside, and \
             `losses` lists what they held"
        )?;
    }
    Ok(())
}
