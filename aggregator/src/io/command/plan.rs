//! `plan check`: what a plan would make agents do.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use catchment_common::limits::SERIES_POINTS_MAX;
use catchment_common::plan::{Hopping, PlanCost, PlannedPipelines, SERIES_POINT_BYTES, Window};
use catchment_common::time::Span;
use comfy_table::Table;

use super::show::table;
use crate::plan_toml::Budget;
use crate::serve::plan::{Checked, check};

/// Checks a plan file and writes what it would make agents do to `out`.
pub fn check_plan(file: &Path, budget: Budget, out: &mut impl Write) -> Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("{}: cannot read the plan", file.display()))?;
    let Checked {
        plan,
        planned,
        cost,
        warnings,
    } = check(&text, &file.display().to_string(), budget)?;
    let mut shown = table(&["query", "pipeline", "window", "pane", "columns"]);
    for (query, (pipeline, _)) in plan.queries.iter().zip(&planned.readers) {
        shown.add_row([
            query.name.clone(),
            (pipeline + 1).to_string(),
            window_text(&query.window),
            planned.pipelines[*pipeline].pane.to_string(),
            (query.value_columns().count() + query.key.len() + 7).to_string(),
        ]);
    }
    writeln!(out, "{shown}")?;
    writeln!(out, "{}", cost_table(&planned, &cost))?;
    writeln!(
        out,
        "{}: {} queries on {} pipelines; a key costs an agent {} bytes, so {} keys fit in {} bytes of limits.memory",
        file.display(),
        plan.queries.len(),
        planned.pipelines.len(),
        cost.bytes_per_key(),
        cost.keys_within(budget.memory_bytes),
        budget.memory_bytes
    )?;
    for (number, (pipeline, cost_of)) in (1..).zip(planned.pipelines.iter().zip(&cost.pipelines)) {
        if let Some(bytes) = pipeline.memory {
            let keys = bytes / (cost_of.open_panes * cost.entry_bytes).max(1);
            writeln!(out, "pipeline {number}: {keys} keys fit in its own {bytes} bytes")?;
        }
        if cost_of.series > 0 {
            writeln!(out, "{}", series_text(number, pipeline.pane, cost_of.series))?;
        }
    }
    for warning in warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

/// What a pipeline costs that keeps points.
fn series_text(pipeline: usize, pane: Span, series: u64) -> String {
    let most = SERIES_POINTS_MAX as f64 * 1e6 / pane.as_micros() as f64;
    format!(
        "pipeline {pipeline}: every point of {series} {} is kept, about {SERIES_POINT_BYTES} bytes each until its pane closes; \
         a window is NULL \
         where a key has more than {SERIES_POINTS_MAX} in a pane of {pane} ({most:.1} a second)",
        if series == 1 { "field" } else { "fields" }
    )
}

fn cost_table(planned: &PlannedPipelines, cost: &PlanCost) -> Table {
    let mut shown = table(&[
        "pipeline",
        "queries",
        "pane",
        "open panes",
        "bytes per key",
        "deltas per key and hour",
        "coarsened to",
    ]);
    let ladders = planned.pipelines.iter().zip(&planned.ladders);
    for (index, ((pipeline, ladder), cost_of)) in ladders.zip(&cost.pipelines).enumerate() {
        let queries = planned.readers.iter().filter(|(home, _)| *home == index);
        let ladder: Vec<String> = ladder.iter().map(Span::to_string).collect();
        shown.add_row([
            (index + 1).to_string(),
            queries.count().to_string(),
            pipeline.pane.to_string(),
            cost_of.open_panes.to_string(),
            (cost_of.open_panes * cost.entry_bytes).to_string(),
            cost_of.deltas_per_hour.to_string(),
            ladder.join(", "),
        ]);
    }
    shown
}

/// A window as a plan writes it.
fn window_text(window: &Window) -> String {
    match window {
        Window::Hopping(Hopping { size, every, offset }) => {
            let mut text = size.to_string();
            if every != size {
                let _ = write!(text, " every {every}");
            }
            if *offset > Span::ZERO {
                let _ = write!(text, " offset {offset}");
            }
            text
        }
        Window::Session { gap } => format!("session {gap}"),
        Window::Count { readings } => format!("{readings} readings"),
        Window::Calendar { period, zone, .. } => format!("{} in {zone}", period.name()),
    }
}
