//! What must hold at the end of a run, against the oracle.

use std::collections::{BTreeMap, BTreeSet};

use catchment_agent::agent::Agent;
use catchment_agent::metrics::AGENT;
use catchment_aggregator::catalog::RunningQuery;
use catchment_aggregator::commit::{Row, Why};
use catchment_aggregator::limits::WATERMARK_AHEAD_MAX;
use catchment_aggregator::store::memory::{Stored, Table};
use catchment_common::limits::SPAN_MAX;
use catchment_common::metrics::{Counter, Reason};
use catchment_common::plan::{Aggregate, Column, PipelineId, Query, Window};
use catchment_common::stats::Lowered;
use catchment_common::time::Span;
use catchment_common::wire::AgentPlan;
use catchment_firmware_sim::oracle::answer::Answer;
use catchment_firmware_sim::oracle::history::{Cut, History};
use catchment_firmware_sim::oracle::window::Contents;

use super::case::START_US;
use super::centre::catalog;
use super::gateway::SOURCE_NAMES;
use super::rows::{differences, key_text, seconds, show};
use super::world::{Read, World};

/// Differences told of.
const TOLD_MAX: usize = 6;

impl World<'_> {
    /// Compares the tables with the truth, and the counters with each other.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.check_subscriptions()?;
        self.check_readers()?;
        if self.unpromised {
            self.figures.unpromised = 1;
            return Ok(());
        }
        let catalog = catalog(&self.centre.store);
        for running in &catalog.queries {
            self.check_query(running)?;
        }
        self.check_counters()
    }

    /// What a gateway took, the last time if a crash took it back before.
    pub(super) fn taken(&self, gateway: usize) -> Vec<&Read> {
        let mut seen = BTreeSet::new();
        let reads = self.reads[gateway].iter().rev();
        let mut last: Vec<&Read> = reads.filter(|read| seen.insert(&read.copy)).collect();
        last.reverse();
        last
    }

    /// When all is quiet, every gateway is subscribed to what its plan wants.
    fn check_subscriptions(&self) -> Result<(), String> {
        for gateway in &self.gateways {
            let Some(agent) = &gateway.agent else { continue };
            for (side, name) in gateway.sides.iter().zip(SOURCE_NAMES) {
                let wanted = agent.intake().filters(name);
                if let Some(filter) = wanted.iter().find(|filter| !side.broker.has(filter)) {
                    return Err(format!("{} is not subscribed to {filter}", gateway.name()));
                }
            }
        }
        Ok(())
    }

    /// Each message that a broker accepted was read by every pipeline that ran whenever a copy of it came, and by none
    /// twice.
    fn check_readers(&self) -> Result<(), String> {
        let mut of: BTreeMap<usize, Vec<&Read>> = BTreeMap::new();
        for gateway in 0..self.reads.len() {
            for read in self.taken(gateway) {
                of.entry(read.copy.publish).or_default().push(read);
            }
        }
        for (index, publish) in self.case.publishes.iter().enumerate() {
            let reads = of.get(&index).map_or(&[][..], Vec::as_slice);
            if self.accepted[index] && reads.is_empty() {
                return Err(format!("message {index} was never taken"));
            }
            let times = |id: PipelineId| reads.iter().filter(|read| read.pipelines.contains(&id)).count();
            let ids = reads.iter().flat_map(|read| read.pipelines.iter().copied());
            if let Some(id) = { ids }.find(|id| times(*id) > 1) {
                return Err(format!("message {index} was read twice by pipeline {}", id.0));
            }
            let plans: Vec<&AgentPlan> = reads
                .iter()
                .filter_map(|read| self.plans.get(&read.version))
                .collect();
            let Some(plan) = plans.first() else { continue };
            let runs = |id: PipelineId| {
                plans
                    .iter()
                    .all(|plan| plan.pipelines.iter().any(|(held, _)| *held == id))
            };
            for (id, pipeline) in &plan.pipelines {
                if pipeline.topic.matches(&publish.topic).is_some() && runs(*id) && times(*id) == 0 {
                    return Err(format!("message {index} was not read by pipeline {}", id.0));
                }
            }
        }
        Ok(())
    }

    fn check_query(&mut self, running: &RunningQuery) -> Result<(), String> {
        if running.query.window.count().is_some() {
            return self.check_counted(running);
        }
        let name = &running.query.name;
        let told = self.told(running);
        let table = &self.centre.store.tables[name];
        let coarse = table.rows.keys().filter(|(_, _, coarse, _)| *coarse).count();
        self.figures.rows += table.rows.len() as u64;
        self.figures.coarse_rows += coarse as u64;
        self.figures.readings += told.accepted();
        let family = self.centre.store.family(name);
        let lost: u64 = self
            .centre
            .store
            .losses
            .iter()
            .filter(|((_, _, _, pipeline, _), _)| family.contains(pipeline))
            .map(|(_, (_, readings))| readings)
            .sum();
        self.figures.lost += lost;
        if self.centre.removed.contains(name) {
            // What was shown while a query was away is not promised.
            return Ok(());
        }
        let added = self.centre.added.get(name).copied();
        let gave_up = |agent: &Agent| {
            let count = |id: &PipelineId| agent.metrics().value(*id, Counter::PointsGivenUp);
            family.iter().map(count).sum::<u64>()
        };
        let pointless = { self.gateways.iter() }.any(|gateway| gateway.agent.as_ref().map_or(0, gave_up) > 0);
        let mut faults = Vec::new();
        if coarse > 0 || lost > 0 {
            check_totals(&running.query, &told, table, lost, &mut faults);
        } else {
            check_windows(&running.query, &told, table, (added, pointless), &mut faults);
            self.check_covered(running, &mut faults);
        }
        check_statuses(table, &mut faults);
        check_times(table, &mut faults);
        if faults.is_empty() {
            return Ok(());
        }
        let more = faults.len().saturating_sub(TOLD_MAX);
        faults.truncate(TOLD_MAX);
        Err(format!("{name}: {}; and {more} more", faults.join("; ")))
    }

    /// Every reading is accounted for, at each gateway and at the centre.
    fn check_counters(&mut self) -> Result<(), String> {
        for gateway in &self.gateways {
            let Some(agent) = &gateway.agent else { continue };
            let (name, metrics) = (gateway.name(), agent.metrics());
            let pipelines: BTreeSet<PipelineId> = self
                .plans
                .values()
                .flat_map(|plan| plan.pipelines.iter())
                .map(|(id, _)| *id)
                .collect();
            let sum = |counter| -> u64 {
                std::iter::once(AGENT)
                    .chain(pipelines.iter().copied())
                    .map(|pipeline| metrics.value(pipeline, counter))
                    .sum()
            };
            let refused = sum(Counter::Rejected(Reason::BatchRefused));
            let (received, lifted) = (sum(Counter::Received), sum(Counter::Accepted));
            if received != lifted + metrics.rejected() - refused {
                return Err(format!(
                    "{name} received {received} readings, lifted {lifted}, rejected {}",
                    metrics.rejected()
                ));
            }
            self.figures.redelivered += sum(Counter::Redelivered);
            self.figures.repeated += sum(Counter::Rejected(Reason::Repeated));
            self.figures.resent += sum(Counter::Resent);
            self.figures.disk_faults += sum(Counter::DiskFaults);
            self.figures.emitted_early += sum(Counter::EmittedEarly);
            for &pipeline in &pipelines {
                let at_centre: u64 = self
                    .centre
                    .store
                    .counters
                    .iter()
                    .filter(|((agent, _, of, counter), _)| {
                        agent == name && *of == pipeline && *counter == Counter::Accepted
                    })
                    .map(|(_, value)| value)
                    .sum();
                let here = metrics.value(pipeline, Counter::Accepted);
                // A heartbeat may tell of what a crash takes back. What a pipeline counts later corrects that, if
                // anything.
                if at_centre != here && here > 0 {
                    return Err(format!(
                        "{name} lifted {here} readings for pipeline {}, the centre knows of {at_centre}",
                        pipeline.0
                    ));
                }
            }
        }
        self.check_lifted()
    }

    /// The counters say what was published, pipeline by pipeline.
    fn check_lifted(&self) -> Result<(), String> {
        let mut expected: BTreeMap<(usize, PipelineId), u64> = BTreeMap::new();
        for gateway in 0..self.reads.len() {
            for read in self.taken(gateway) {
                // A payload is good for all pipelines of its topic or for none, and then it does not parse.
                let readings = readings_of(&self.case.publishes[read.copy.publish].payload);
                for id in &read.pipelines {
                    *expected.entry((gateway, *id)).or_default() += readings;
                }
            }
        }
        for ((gateway, pipeline), expected) in expected {
            let Some(agent) = &self.gateways[gateway].agent else {
                continue;
            };
            // Whether a condition refuses the right ones, the rows show.
            let refused = [
                Reason::Filtered,
                Reason::Undecided,
                Reason::WrongType,
                Reason::NotFinite,
                Reason::OutOfRange,
                Reason::Repeated,
            ];
            let refused = refused.map(Counter::Rejected);
            let lifted = std::iter::once(Counter::Accepted)
                .chain(refused)
                .map(|counter| agent.metrics().value(pipeline, counter))
                .sum::<u64>();
            if lifted != expected {
                return Err(format!(
                    "gw-{gateway} lifted or filtered {lifted} readings for pipeline {}, of {expected} published",
                    pipeline.0
                ));
            }
        }
        Ok(())
    }
}

/// Readings of a payload that are lifted or refused for what a value is. One of the bad ones has such a value as its
/// time, the others have no reading.
fn readings_of(payload: &str) -> u64 {
    let of = |text: &str| payload.matches(text).count() as u64;
    of("\"watts\"") + of("\"ts\":\"x\"")
}

/// Every window equals the truth, value by value. A query may be `added` later, and a full spool may have given up points
/// (`pointless`).
fn check_windows(
    query: &Query,
    history: &History,
    table: &Table,
    (added, pointless): (Option<u64>, bool),
    faults: &mut Vec<String>,
) {
    let (merged, shown): (Vec<_>, Vec<_>) = table.rows.iter().partition(|(_, stored)| stored.is_merged);
    for (name, stored) in merged {
        let is_within = history.is_within(&key_text(query, &name.3), name.0.as_micros());
        if stored.row.readings > 0 || !is_within {
            faults.push(format!("{} is merged and should not be", show(name)));
        }
    }
    let mut found: BTreeSet<(String, i64)> = BTreeSet::new();
    for (name, stored) in shown {
        let (start, end) = (name.0.as_micros(), name.1.as_micros());
        let show = || show(name);
        let key = key_text(query, &name.3);
        let Some(cut) = history.window(&key, start).filter(|cut| cut.end_us == end) else {
            faults.push(format!(
                "{} should not be there: {} readings",
                show(),
                stored.row.readings
            ));
            continue;
        };
        found.insert((key.clone(), start));
        let size = (name.1.since(name.0), pointless);
        for fault in differences(history, &stored.query, &stored.row, ((&key, start), cut), size) {
            faults.push(format!("{}: {fault}", show()));
        }
    }
    let is_missing = |(key, start, _): &(&str, i64, &Cut)| !found.contains(&((*key).to_owned(), *start));
    let mut missing: Vec<_> = history.windows().filter(is_missing).collect();
    missing.sort_by_key(|(key, start, _)| (*start, *key));
    for (key, start, cut) in missing {
        // A query that came later need not show what was over by then.
        let end = cut.end_us - START_US;
        if added.is_some_and(|added| end < added as i64 + 60_000_000) {
            continue;
        }
        faults.push(format!(
            "{key:?} {} s is missing: {} readings",
            seconds(start),
            cut.readings()
        ));
    }
}

/// A window of a tumbling query that is cut into coarser panes: within each of the widest panes all adds up.
fn check_totals(query: &Query, told: &History, table: &Table, lost: u64, faults: &mut Vec<String>) {
    if !query.window.is_disjoint() {
        return;
    }
    let widest = match query.window {
        // They may be torn anywhere.
        Window::Session { .. } => SPAN_MAX,
        Window::Hopping(_) | Window::Calendar { .. } | Window::Count { .. } => {
            query.coarsen.last().copied().unwrap_or(query.window.longest())
        }
    };
    let bucket = |key: &str, at_us: i64| (key.to_owned(), at_us.div_euclid(widest.as_micros()));
    let mut truth: BTreeMap<(String, i64), Total> = BTreeMap::new();
    for (key, start, cut) in told.windows() {
        let total = truth.entry(bucket(key, start)).or_default();
        total.add_truth(&told.merged(query, ("", 0), cut));
    }
    let mut shown: BTreeMap<(String, i64), Total> = BTreeMap::new();
    for ((start, _, _, key), stored) in &table.rows {
        let total = shown
            .entry(bucket(&key_text(query, key), start.as_micros()))
            .or_default();
        total.add_row(query, &stored.row);
    }
    let sum =
        |totals: &BTreeMap<(String, i64), Total>| totals.values().map(|total| total.readings).sum::<u64>();
    if sum(&shown) + lost != sum(&truth) {
        faults.push(format!(
            "{} readings are shown, {lost} reported lost, of {}",
            sum(&shown),
            sum(&truth)
        ));
    }
    for (name, total) in &shown {
        let truth = truth.get(name).copied().unwrap_or_default();
        if (lost == 0 && *total != truth) || total.readings > truth.readings {
            faults.push(format!("{name:?}: {total:?} is shown, {truth:?} is true"));
        }
    }
}

/// What of a query adds up: the first field's sum, in quarters, and its extrema.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Total {
    readings: u64,
    quarters: f64,
    min: Option<f64>,
    max: Option<f64>,
}

impl Total {
    fn add(&mut self, readings: u64, sum: Option<f64>, min: Option<f64>, max: Option<f64>) {
        self.readings += readings;
        self.quarters += sum.unwrap_or(0.0) * 4.0;
        self.min = [self.min, min].into_iter().flatten().reduce(f64::min);
        self.max = [self.max, max].into_iter().flatten().reduce(f64::max);
    }

    fn add_row(&mut self, query: &Query, row: &Row) {
        let value = |aggregate| {
            let is_it = |column: &Column| {
                column.field == Some(0) && query.aggregates.get(column.aggregate) == Some(&aggregate)
            };
            let place = query.columns().iter().position(is_it)?;
            match row.values[place].as_ref()? {
                Lowered::Real(value) => Some(*value),
                Lowered::Integer(value) => Some(*value as f64),
                Lowered::Text(_) => None,
            }
        };
        let (sum, min, max) = (
            value(Aggregate::Sum),
            value(Aggregate::Min),
            value(Aggregate::Max),
        );
        self.add(row.readings, sum, min, max);
    }

    fn add_truth(&mut self, contents: &Contents) {
        // Quarters below 2⁵⁰ are exact as doubles, and so is their text.
        let value = |aggregate| match contents.answer(0, &aggregate, Span::ZERO) {
            Answer::None => None,
            answer => answer.show().parse::<f64>().ok(),
        };
        let (sum, min, max) = (
            value(Aggregate::Sum),
            value(Aggregate::Min),
            value(Aggregate::Max),
        );
        self.add(contents.readings, sum, min, max);
    }
}

/// All agents have passed everything: nothing is provisional any more.
fn check_statuses(table: &Table, faults: &mut Vec<String>) {
    for (name, stored) in &table.rows {
        let Stored {
            is_final, coverage, ..
        } = stored;
        if !name.2 && !stored.is_merged && (!is_final || *coverage != 1.0) {
            faults.push(format!("{} is not final, coverage {coverage}", show(name)));
        }
    }
}

/// Nobody's word that a window is over counts before it is, however wrong clocks are: the aggregator's is right here.
fn check_times(table: &Table, faults: &mut Vec<String>) {
    for written in &table.written {
        let ahead = written.window.end.since(written.at);
        if written.why == Why::Complete && ahead > WATERMARK_AHEAD_MAX {
            faults.push(format!(
                "the window from {} s was final {} s before its end",
                seconds(written.window.start.as_micros()),
                ahead.as_micros() / 1_000_000
            ));
        }
    }
}
