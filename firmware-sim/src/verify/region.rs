//! Where rows cannot be compared one by one: under coarse rows and in ranges that agents gave up.
//!
//! An agent whose spool ran full ships wider panes. Their rows stand beside the windows' rows, and the readings of a
//! window are then partly in its own row and partly in coarse rows over it. What must still hold: no row has more than
//! the truth has in its span, and over a *region* (the windows under coarse rows that touch each other) all rows
//! together hold exactly what the truth holds, less what agents say they lost. With windows that overlap a reading is
//! in several rows, so that there the region is all time of the key, and only readings are compared.

use std::collections::{BTreeMap, HashMap};

use catchment_common::plan::{Aggregate, Column, Query, Window};
use catchment_common::time::Span;

use super::row::{Cell, Row};
use crate::oracle::answer::Answer;
use crate::oracle::window::Contents;

/// What agents say they lost of one query.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Losses {
    /// Event times, from and to, in microseconds since the Unix epoch.
    pub ranges: Vec<(i64, i64)>,
    /// Readings lost in them.
    pub readings: u64,
    /// Records that could not say what was lost. Nothing can be balanced then.
    pub unknown: u64,
}

/// The regions of one query.
#[derive(Debug)]
pub(super) struct Regions {
    tumbling: bool,
    /// In how many windows each reading is.
    windows: u64,
    lost: Spans,
    /// By key: where its coarse rows and the losses lie.
    spans: HashMap<String, Spans>,
    /// By key and start.
    all: BTreeMap<(String, i64), Region>,
}

/// Ranges of time that do not touch: start → end.
#[derive(Clone, Debug, Default)]
struct Spans(BTreeMap<i64, i64>);

/// All rows of a region beside the truth.
#[derive(Debug, Default)]
struct Region {
    /// Readings in rows, each as often as a reading is in windows.
    found: u64,
    fields: Vec<Found>,
    truth: Option<Contents>,
    truth_readings: u64,
}

/// A field over all rows of a region.
#[derive(Clone, Debug, Default)]
struct Found {
    count: Option<i64>,
    sum: Option<f64>,
    sum_of_magnitudes: f64,
    min: Option<f64>,
    max: Option<f64>,
}

/// Sums of rounded values may be off by this part of the sum of their magnitudes: thousands of rows, each off by half
/// a unit in the last place and, where it is mean times count, by two.
const SUM_TOLERANCE: f64 = 1e-11;

impl Regions {
    pub(super) fn new(query: &Query, losses: &Losses) -> Self {
        let window = &query.window;
        let mut lost = Spans::default();
        for &(from, to) in &losses.ranges {
            lost.add(from, to);
        }
        Self {
            // A session may be torn where readings are lost, so that its parts are only compared together.
            tumbling: !matches!(window, Window::Session { .. }) && window.is_disjoint(),
            windows: (window.longest().as_micros() / window.step().as_micros()) as u64,
            lost,
            spans: HashMap::new(),
            all: BTreeMap::new(),
        }
    }

    /// Takes in a coarse row, before any window's row. `most` is what the truth has in its span, where it can tell.
    pub(super) fn add_coarse(
        &mut self,
        query: &Query,
        row: &Row,
        span: (i64, i64),
        most: Option<u64>,
    ) -> Vec<String> {
        let (start, end) = span;
        let mut faults = Vec::new();
        let is_rung = query.coarsen.iter().any(|rung| rung.as_micros() == end - start);
        if !is_rung || start % (end - start) != 0 {
            faults.push("its span is no pane of the query's ladder".into());
        }
        let readings = row.readings.count().unwrap_or(0);
        if let Some(most) = most.filter(|most| readings > *most) {
            faults.push(format!("it has {readings} readings, the truth at most {most}"));
        }
        let key = row.tags.join("\0");
        let lost = &self.lost;
        let spans = self.spans.entry(key).or_insert_with(|| lost.clone());
        spans.add(start, end);
        faults
    }

    /// Counts a coarse row's readings, once all coarse rows are there.
    pub(super) fn settle_coarse(&mut self, query: &Query, row: &Row, start: i64) {
        let windows = self.windows;
        if let Some(region) = self.region(&row.tags.join("\0"), start, start + 1) {
            region.found += row.readings.count().unwrap_or(0) * windows;
            region.add(query, row);
        }
    }

    /// Whether a window's row need not be whole, because part of it may lie elsewhere.
    pub(super) fn covers(&self, key: &str, start: i64, end: i64) -> bool {
        self.spans
            .get(key)
            .unwrap_or(&self.lost)
            .find(start, end)
            .is_some()
    }

    /// Takes in a window's row where [`Regions::covers`] says so.
    pub(super) fn add_window(&mut self, query: &Query, row: &Row, (start, end): (i64, i64)) {
        if let Some(region) = self.region(&row.tags.join("\0"), start, end) {
            region.found += row.readings.count().unwrap_or(0);
            region.add(query, row);
        }
    }

    /// Takes in what the truth has in a window that is covered.
    pub(super) fn add_truth(&mut self, key: &str, (start, end): (i64, i64), contents: &Contents) {
        let tumbling = self.tumbling;
        let Some(region) = self.region(key, start, end) else {
            return;
        };
        region.truth_readings += contents.readings;
        if tumbling {
            match &mut region.truth {
                Some(truth) => truth.merge(contents),
                none => *none = Some(contents.clone()),
            }
        }
    }

    /// What is wrong with the regions, as key and text, given what agents say they lost.
    pub(super) fn finish(self, query: &Query, losses: &Losses) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut missing_of_all: u64 = 0;
        for ((key, start), region) in &self.all {
            let mut fault = |text: String| faults.push((key.clone(), text));
            match region.truth_readings.checked_sub(region.found) {
                None => fault(format!(
                    "all rows from {} on have {} readings, the truth {}",
                    super::format_time(*start),
                    region.found / self.windows,
                    region.truth_readings / self.windows
                )),
                Some(0) => region.faults(query).into_iter().for_each(fault),
                Some(missing) => {
                    missing_of_all += missing;
                    let end = self.spans.get(key).unwrap_or(&self.lost).0.get(start);
                    let end = end.copied().unwrap_or(i64::MAX);
                    if losses.unknown == 0 && self.lost.find(*start, end).is_none() {
                        let missing = missing / self.windows;
                        fault(format!("coarse and other rows lack {missing} readings"));
                    }
                }
            }
        }
        if losses.unknown == 0 && missing_of_all != losses.readings * self.windows && faults.is_empty() {
            let missing = missing_of_all / self.windows;
            let text = format!(
                "agents lost {} readings, and the rows lack {missing}",
                losses.readings
            );
            faults.push((String::new(), text));
        }
        faults
    }

    fn region(&mut self, key: &str, start: i64, end: i64) -> Option<&mut Region> {
        let span = self.spans.get(key).unwrap_or(&self.lost).find(start, end)?;
        let start = if self.tumbling { span } else { i64::MIN };
        Some(self.all.entry((key.to_string(), start)).or_default())
    }
}

impl Spans {
    /// Adds a range; those that it touches become one with it.
    fn add(&mut self, mut start: i64, mut end: i64) {
        while let Some((&first, &last)) = self
            .0
            .range(..=end)
            .next_back()
            .filter(|(_, last)| **last >= start)
        {
            self.0.remove(&first);
            (start, end) = (start.min(first), end.max(last));
        }
        self.0.insert(start, end);
    }

    /// The start of a range that overlaps this one.
    fn find(&self, start: i64, end: i64) -> Option<i64> {
        let (&first, _) = self
            .0
            .range(..end)
            .next_back()
            .filter(|(_, last)| **last > start)?;
        Some(first)
    }
}

impl Region {
    fn add(&mut self, query: &Query, row: &Row) {
        self.fields.resize(query.fields.len(), Found::default());
        for (field, found) in self.fields.iter_mut().enumerate() {
            let cell = |aggregate: &Aggregate| value(query, row, field, aggregate);
            let count = cell(&Aggregate::Count)
                .and_then(Cell::count)
                .map(u64::cast_signed);
            let sum = cell(&Aggregate::Sum).and_then(Cell::real).or_else(|| {
                let mean = cell(&Aggregate::Mean).and_then(Cell::real)?;
                Some(mean * count? as f64)
            });
            if let Some(count) = count {
                found.count = Some(found.count.unwrap_or(0) + count);
            }
            if let Some(sum) = sum {
                found.sum = Some(found.sum.unwrap_or(0.0) + sum);
                found.sum_of_magnitudes += sum.abs();
            }
            if let Some(min) = cell(&Aggregate::Min).and_then(Cell::real) {
                found.min = Some(found.min.map_or(min, |least| least.min(min)));
            }
            if let Some(max) = cell(&Aggregate::Max).and_then(Cell::real) {
                found.max = Some(found.max.map_or(max, |most| most.max(max)));
            }
        }
    }

    /// What is wrong with the values of a region that has all of its readings.
    fn faults(&self, query: &Query) -> Vec<String> {
        let Some(truth) = &self.truth else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        for (index, (field, found)) in query.fields.iter().zip(&self.fields).enumerate() {
            let mut compare = |aggregate: &Aggregate, cell: Option<Cell>| {
                let answer: Answer = truth.answer(index, aggregate, Span::ZERO);
                if let Some(cell) = cell.filter(|cell| !cell.is(&answer)) {
                    let (name, of) = (&field.name, aggregate.name());
                    faults.push(format!(
                        "{of} of {name} over coarse and other rows is {}, truth {}",
                        cell.show(),
                        answer.show()
                    ));
                }
            };
            compare(&Aggregate::Count, found.count.map(Cell::Integer));
            compare(&Aggregate::Min, found.min.map(Cell::Real));
            compare(&Aggregate::Max, found.max.map(Cell::Real));
            if let Some(sum) = found.sum {
                let exact = truth.answer(index, &Aggregate::Sum, Span::ZERO).show();
                let off = exact
                    .parse::<f64>()
                    .map_or(f64::INFINITY, |exact| (exact - sum).abs());
                if off > found.sum_of_magnitudes * SUM_TOLERANCE {
                    let name = &field.name;
                    faults.push(format!(
                        "sum of {name} over coarse and other rows is {sum}, truth {exact}"
                    ));
                }
            }
        }
        faults
    }
}

/// A field's aggregate in a row, if the query has it.
fn value<'r>(query: &Query, row: &'r Row, field: usize, aggregate: &Aggregate) -> Option<&'r Cell> {
    let is_it = |column: &Column| {
        column.field == Some(field) && query.aggregates.get(column.aggregate) == Some(aggregate)
    };
    row.values.get(query.columns().iter().position(is_it)?)
}

/// Why a row cannot be part of its window: it has more than the truth, or values beyond it.
pub(super) fn excesses(query: &Query, row: &Row, contents: &Contents) -> Vec<String> {
    let mut faults = Vec::new();
    let readings = row.readings.count();
    if readings.is_none_or(|readings| readings > contents.readings) {
        let (shown, truth) = (row.readings.show(), contents.readings);
        faults.push(format!("readings is {shown}, truth at most {truth}"));
    }
    for (index, field) in query.fields.iter().enumerate() {
        let real = |aggregate: &Aggregate| value(query, row, index, aggregate).and_then(Cell::real);
        let truth = |aggregate: &Aggregate| {
            let answer = contents.answer(index, aggregate, Span::ZERO).show();
            answer.parse::<f64>().ok()
        };
        for (aggregate, is_beyond) in [
            (Aggregate::Min, f64::lt as fn(&f64, &f64) -> bool),
            (Aggregate::Max, f64::gt),
        ] {
            let (limit, of) = (truth(&aggregate), aggregate.name());
            if let (Some(value), Some(limit)) = (real(&aggregate), limit)
                && is_beyond(&value, &limit)
            {
                let name = &field.name;
                faults.push(format!("{name}_{of} is {value}, beyond the truth's {limit}"));
            }
        }
    }
    faults
}
