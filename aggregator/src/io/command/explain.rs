//! `explain`: what result rows are made of, as tables.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use comfy_table::Table;

use super::show::{instant, table, tag};
use crate::io::store::sqlite::Sqlite;
use crate::serve::Question;
use crate::serve::explain::{Explain, Explained};
use crate::store::text::time_text;

/// Writes to `out` what the rows of a query over an instant (RFC 3339), of the key given as `tag=value,…`, are made of.
pub fn explain(database: &Path, name: &str, key: &str, at: &str, out: &mut impl Write) -> Result<()> {
    let parts = key.split(',').filter(|part| !part.is_empty());
    let question = Explain {
        query: name.to_owned(),
        key: parts.map(tag).collect::<Result<_>>()?,
        at: instant(at)?,
    };
    let store = Sqlite::open_to_read(database)?;
    let _moment = store.moment()?;
    for explained in question.ask(&store)? {
        show(name, &explained, out)?;
    }
    Ok(())
}

fn show(query: &str, explained: &Explained, out: &mut impl Write) -> Result<()> {
    let row = &explained.row;
    writeln!(
        out,
        "{query} [{}] {} to {}: {}, coverage {}, revision {}, {} readings",
        row.tags.join(", "),
        time_text(row.start),
        time_text(row.end),
        row.status,
        row.coverage,
        row.revision,
        row.readings
    )?;
    writeln!(out, "\nits panes, and who shipped them (deltas of all keys):")?;
    writeln!(out, "{}", panes_table(explained))?;
    if let Some(since) = explained.looks_back_to {
        let since = time_text(since);
        writeln!(
            out,
            "\ncounters and means over time go on from what the key had since {since}"
        )?;
    }
    if let Some(agents) = agents_table(explained) {
        writeln!(
            out,
            "\nagents that run it, and how far they were when last heard:"
        )?;
        writeln!(out, "{agents}")?;
    }
    writeln!(out, "\nwhen rows of this window were written:")?;
    writeln!(out, "{}\n", history_table(explained))?;
    Ok(())
}

/// A line for each agent that has shipped of a pane; the pane stands on its first.
fn panes_table(explained: &Explained) -> Table {
    let mut shown = table(&[
        "pipeline", "pane", "readings", "agent", "deltas", "late", "first", "last",
    ]);
    for pane in &explained.panes {
        let mut head = [
            pane.pipeline.to_string(),
            time_text(pane.start),
            pane.readings.to_string(),
        ];
        for agent in &pane.shipped {
            let mut cells: Vec<String> = head.iter_mut().map(std::mem::take).collect();
            cells.extend([
                agent.agent.clone(),
                agent.deltas.to_string(),
                agent.late.to_string(),
                time_text(agent.first),
                time_text(agent.last),
            ]);
            shown.add_row(cells);
        }
        if pane.shipped.is_empty() {
            shown.add_row(head);
        }
    }
    shown
}

fn agents_table(explained: &Explained) -> Option<Table> {
    let mut shown = table(&["agent", "pipeline", "watermark", "has passed the end", "heard"]);
    for agent in explained.agents.as_ref()? {
        let heard = time_text(agent.heard);
        shown.add_row([
            agent.name.clone(),
            agent.pipeline.to_string(),
            time_text(agent.watermark),
            if agent.has_passed { "yes" } else { "no" }.into(),
            if agent.retired {
                format!("{heard}, retired")
            } else {
                heard
            },
        ]);
    }
    Some(shown)
}

fn history_table(explained: &Explained) -> Table {
    let mut shown = table(&["at", "why", "status", "coverage", "rows"]);
    for written in &explained.history {
        shown.add_row([
            time_text(written.at),
            written.why.clone(),
            written.status.clone(),
            written.coverage.to_string(),
            written.rows.to_string(),
        ]);
    }
    shown
}
