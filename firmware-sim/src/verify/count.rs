//! Rows of count windows. For each key and agent they are laid along the readings in the order in which
//! those were published: each row must be what the next readings make, as many as it says it has. Numbers are the
//! agent's own and are not compared, but they must rise, as the order in which the rows are laid.

use std::collections::BTreeMap;

use super::row::{Row, format_time};
use super::{Comparison, DIFFERENCES_MAX, Losses, faults};
use crate::oracle::Expected;
use crate::oracle::count::Counted;

/// The rows of one key and agent, by number.
type Rows = BTreeMap<i64, Row>;

/// All rows of a table.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By agent, then key.
    rows: BTreeMap<(String, String), Rows>,
}

impl Table {
    pub(super) fn add(&mut self, row: &Row, comparison: &mut Comparison) {
        comparison.rows += 1;
        let (Some(number), Some((agent, key))) = (row.number, row.tags.split_last()) else {
            comparison.extra += 1;
            comparison.describe(format!(
                "extra: a row of {:?} has no number or no agent",
                row.tags
            ));
            return;
        };
        let rows = self.rows.entry((agent.clone(), key.join("\0"))).or_default();
        if rows.insert(number, row.clone()).is_some() {
            comparison.extra += 1;
            comparison.describe(format!("extra: {:?} has two windows {number}", row.tags));
        }
    }

    pub(super) fn finish(self, expected: &Expected, losses: &Losses, comparison: &mut Comparison) {
        let limit = expected.query.window.count().map_or(u64::MAX, u64::from);
        if losses.readings > 0 || losses.unknown > 0 {
            // Which readings are gone, nobody can tell: they may have been in the midst of any window.
            self.compare_totals(expected, losses, comparison);
            return;
        }
        for ((agent, key), readings) in expected.sequences() {
            let is_any = agent.is_empty();
            let of_key = |of: &&(String, String)| of.1 == *key && (is_any || of.0 == *agent);
            if !self.rows.keys().any(|of| of_key(&of)) {
                settle_rest(&format!("[{key}]"), readings.len() as u64, limit, comparison);
            }
        }
        for ((agent, key), rows) in &self.rows {
            let name = format!("{} [{}] of {agent}", expected.query.name, key.replace('\0', ", "));
            lay(&name, rows, expected, expected.sequence(agent, key), comparison);
        }
    }

    fn compare_totals(&self, expected: &Expected, losses: &Losses, comparison: &mut Comparison) {
        let shown = { self.rows.values() }.flat_map(|rows| rows.values());
        let shown: u64 = shown.filter_map(|row| row.readings.count()).sum();
        let truth: u64 = expected
            .sequences()
            .map(|(_, readings)| readings.len() as u64)
            .sum();
        comparison.partial += comparison.rows;
        let told = shown + losses.readings;
        if told > truth || (told < truth && losses.unknown == 0) {
            comparison.different += 1;
            comparison.describe(format!(
                "different: {}: {shown} readings are shown and {} are lost, of {truth}",
                expected.query.name, losses.readings
            ));
        }
    }
}

/// Lays the rows of a key and agent along its readings.
fn lay(
    name: &str,
    rows: &Rows,
    expected: &Expected,
    readings: &[crate::oracle::reading::Reading],
    comparison: &mut Comparison,
) {
    let query = &expected.query;
    let limit = query.window.count().map_or(u64::MAX, u64::from);
    let last = rows.keys().next_back();
    let mut rest = readings;
    for (number, row) in rows {
        let count = row.readings.count().unwrap_or(0);
        let Some((these, after)) = rest.split_at_checked(count as usize).filter(|_| count > 0) else {
            comparison.extra += 1;
            comparison.describe(format!(
                "extra: {name} {number}: it has {count} readings, the truth has {} more",
                rest.len()
            ));
            return;
        };
        rest = after;
        let window = Counted::new(query, these);
        let mut faults = faults(query, row, &window.contents, window.end_us - window.start_us);
        for (what, shown, truth) in [
            ("window_start", &row.start, window.start_us),
            ("window_end", &row.end, window.end_us),
        ] {
            if *shown != format_time(truth) {
                faults.push(format!("{what} is {shown}, truth {}", format_time(truth)));
            }
        }
        if count > limit {
            faults.push(format!("it has {count} readings, and room for {limit}"));
        }
        if row.is_final != (count == limit) {
            faults.push(format!(
                "it has {count} of {limit} readings, final: {}",
                row.is_final
            ));
        }
        if !faults.is_empty() {
            comparison.different += 1;
            comparison.describe(format!("different: {name} {number}: {}", faults.join("; ")));
        } else if count < limit && Some(number) != last {
            // Cut short, as its status says.
            comparison.partial += 1;
        } else {
            comparison.equal += 1;
        }
    }
    settle_rest(name, rest.len() as u64, limit, comparison);
}

/// Readings behind the last row: of a window that is still open at the agent, or missing.
fn settle_rest(name: &str, rest: u64, limit: u64, comparison: &mut Comparison) {
    comparison.open += rest % limit;
    comparison.missing += rest / limit;
    if rest >= limit && comparison.differences.len() < DIFFERENCES_MAX {
        comparison.describe(format!("missing: {name}: {} windows", rest / limit));
    }
}
