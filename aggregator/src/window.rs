//! From panes to result rows: which windows are due, what is in them, and how complete they are.
//!
//! Each query has a horizon: every window that ends by it has been shown. The horizon moves when all expected agents
//! have passed, or when patience for the silent ones has run out, and never back. Data for a window behind the horizon
//! revises its row at once. A provisional window is watched until all expected agents have passed it.
//!
//! Panes of coarser slices that fit the windows are part of them like any others. One that fits none cannot be taken
//! apart again: it gives rows of its own beside the windows' rows, each time that it has new data, so that totals over
//! the table stay exact and every row says which readings it is made of.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::plan::{SliceId, Window};
use catchment_common::stats::Stats;
use catchment_common::time::{Instant, Now, Span, Timestamp};

use crate::catalog::{Reader, RunningQuery};
use crate::commit::{QueryResults, Row, WindowRows, WindowStatus};
use crate::frontier::{Coverage, Frontier, Patience};
use crate::limits::PROVISIONAL_MAX;
use crate::merge::{KeyId, Panes};

/// How far one query has been shown, and what must be shown again.
#[derive(Debug)]
pub struct QueryWindows {
    emitted_through: Timestamp,
    /// Windows shown before all had passed, by end, with the coverage that they show.
    provisional: BTreeMap<Timestamp, f64>,
    patience: Patience,
    /// Windows behind the horizon with new data: start, then slice and key.
    touched: BTreeMap<Timestamp, BTreeSet<(SliceId, KeyId)>>,
    /// Coarser panes with new data: width and start, then slice and key.
    touched_coarse: BTreeMap<(Span, Timestamp), BTreeSet<(SliceId, KeyId)>>,
}

impl Default for QueryWindows {
    fn default() -> Self {
        Self {
            emitted_through: Timestamp::MIN,
            provisional: BTreeMap::new(),
            patience: Patience::default(),
            touched: BTreeMap::new(),
            touched_coarse: BTreeMap::new(),
        }
    }
}

impl QueryWindows {
    /// A query that passes over windows that start before `from`, if there is such an instant. Data that still comes for
    /// them shows them all the same.
    pub fn starting(from: Option<Timestamp>, window: Window) -> Self {
        let Some(from) = from.filter(|from| *from > Timestamp::MIN) else {
            return Self::default();
        };
        // The window that starts on the step before is the last that is passed over.
        let before = from.minus(Span::from_micros(1)).pane_start(window.every);
        Self {
            emitted_through: before.plus(window.size),
            ..Self::default()
        }
    }

    /// What a store gave back: the horizon, and the provisional windows' starts with the coverage that they show.
    pub fn restore(
        &mut self,
        emitted_through: Timestamp,
        provisional: impl Iterator<Item = (Timestamp, f64)>,
        window: Window,
    ) {
        self.emitted_through = emitted_through;
        self.provisional = provisional
            .map(|(start, coverage)| (start.plus(window.size), coverage))
            .collect();
    }

    /// Every window that ends by then has been shown.
    pub fn emitted_through(&self) -> Timestamp {
        self.emitted_through
    }

    /// Panes that start before this can only matter to windows that were shown.
    pub fn needed_from(&self, window: Window) -> Timestamp {
        self.emitted_through.minus(window.size)
    }

    /// Data was merged into a pane for these keys.
    pub fn touch(&mut self, window: Window, slice: SliceId, pane: Timestamp, keys: &[KeyId]) {
        // The windows over a pane end after it does; of the earliest of them the cheap test is enough for live data.
        if pane >= self.emitted_through {
            return;
        }
        for start in windows_over(window, pane) {
            if start.plus(window.size) <= self.emitted_through {
                self.touched
                    .entry(start)
                    .or_default()
                    .extend(keys.iter().map(|&key| (slice, key)));
            }
        }
    }

    /// Windows behind the horizon with new data, which need all of their panes in memory.
    pub fn touched_windows(&self) -> impl Iterator<Item = Timestamp> {
        self.touched.keys().copied()
    }

    /// Data was merged for these keys into a pane that fits no window.
    pub fn touch_coarse(&mut self, width: Span, slice: SliceId, pane: Timestamp, keys: &[KeyId]) {
        self.touched_coarse
            .entry((width, pane))
            .or_default()
            .extend(keys.iter().map(|&key| (slice, key)));
    }

    /// Coarser panes with new data, by width and start; those of all slices are needed in memory.
    pub fn touched_coarse(&self) -> impl Iterator<Item = (Span, Timestamp)> {
        self.touched_coarse.keys().copied()
    }

    /// When patience runs out next.
    pub fn deadline(&self, query: &RunningQuery) -> Option<Instant> {
        self.patience.deadline(query.query.patience)
    }

    /// Brings the results up to date with panes and frontier; `None` when nothing changed.
    pub fn advance(
        &mut self,
        index: usize,
        query: &RunningQuery,
        panes: &Panes,
        frontier: &Frontier,
        now: Now,
    ) -> Option<QueryResults> {
        let window = query.query.window;
        let slices: Vec<SliceId> = query.readers.iter().map(|reader| reader.slice).collect();
        let exhausted = self
            .patience
            .observe(frontier.front(&slices, now), query.query.patience, now);
        let low = frontier.low(&slices, self.emitted_through, now);
        let due = self
            .emitted_through
            .max(low.max(exhausted).unwrap_or(Timestamp::MIN));
        let mut results = QueryResults {
            query: index,
            ..QueryResults::default()
        };
        let coverage = |start: Timestamp| frontier.coverage(&slices, start.plus(window.size), now);
        self.revise(query, panes, &coverage, &mut results);
        for ((width, start), touched) in std::mem::take(&mut self.touched_coarse) {
            let coverage = frontier.coverage(&slices, start.plus(width), now);
            let keys = keys_of(panes, touched);
            results
                .windows
                .push(rows(query, panes, Cut::coarse(start, width), coverage, keys));
        }
        if due > self.emitted_through {
            for start in due_windows(query, panes, self.emitted_through, due) {
                let keys = all_keys(query, panes, start);
                let coverage = coverage(start);
                self.watch(start.plus(window.size), coverage);
                let cut = Cut::window(start, window);
                results.windows.push(rows(query, panes, cut, coverage, keys));
            }
            self.emitted_through = due;
            results.emitted_through = Some(due);
        }
        self.settle(window, &coverage, &mut results);
        let changed =
            results.emitted_through.is_some() || !results.windows.is_empty() || !results.statuses.is_empty();
        changed.then_some(results)
    }

    /// Rows of windows behind the horizon that got new data.
    fn revise(
        &mut self,
        query: &RunningQuery,
        panes: &Panes,
        coverage: &impl Fn(Timestamp) -> Coverage,
        results: &mut QueryResults,
    ) {
        for (start, touched) in std::mem::take(&mut self.touched) {
            let coverage = coverage(start);
            let end = start.plus(query.query.window.size);
            // A window that is watched already stays so: its other rows have yet to learn of a new status.
            if !self.provisional.contains_key(&end) {
                self.watch(end, coverage);
            }
            let cut = Cut::window(start, query.query.window);
            let keys = keys_of(panes, touched);
            results.windows.push(rows(query, panes, cut, coverage, keys));
        }
    }

    fn watch(&mut self, end: Timestamp, coverage: Coverage) {
        if !coverage.is_complete() && self.provisional.len() < PROVISIONAL_MAX {
            self.provisional.insert(end, coverage.ratio());
        }
    }

    /// Provisional windows whose coverage has changed.
    fn settle(
        &mut self,
        window: Window,
        coverage: &impl Fn(Timestamp) -> Coverage,
        results: &mut QueryResults,
    ) {
        self.provisional.retain(|&end, shown| {
            let start = end.minus(window.size);
            let current = coverage(start);
            if current.ratio() == *shown {
                return true;
            }
            *shown = current.ratio();
            results.statuses.push(status(start, current));
            !current.is_complete()
        });
    }
}

/// The starts of the windows that hold a pane, earliest first. Windows start at multiples of their step.
pub fn windows_over(window: Window, pane: Timestamp) -> impl Iterator<Item = Timestamp> {
    let last = pane.pane_start(window.every);
    let count =
        (window.size.as_micros() - pane.since(last).as_micros() - 1).div_euclid(window.every.as_micros());
    let step = window.every.as_micros();
    (0..=count)
        .rev()
        .map(move |back| Timestamp::clamped(last.as_micros() - back * step))
}

/// The windows with data that end after `after` and by `through`.
fn due_windows(
    query: &RunningQuery,
    panes: &Panes,
    after: Timestamp,
    through: Timestamp,
) -> BTreeSet<Timestamp> {
    let window = query.query.window;
    let mut due = BTreeSet::new();
    for reader in &query.readers {
        let Some(slice) = panes.slice(reader.slice) else {
            continue;
        };
        for (pane, _) in slice.range(after.minus(window.size)..through) {
            let ends_in_time =
                |start: &Timestamp| (after < start.plus(window.size)) & (start.plus(window.size) <= through);
            due.extend(windows_over(window, pane).filter(ends_in_time));
        }
    }
    due
}

/// The keys with data in a window, in order.
fn all_keys(query: &RunningQuery, panes: &Panes, start: Timestamp) -> Vec<Box<[u8]>> {
    let mut keys: Vec<Box<[u8]>> = Vec::new();
    for reader in &query.readers {
        let Some(slice) = panes.slice(reader.slice) else {
            continue;
        };
        let mut ids: Vec<KeyId> = Vec::new();
        for (_, pane) in slice.range(start..start.plus(query.query.window.size)) {
            ids.extend_from_slice(pane.ids());
        }
        ids.sort_unstable();
        ids.dedup();
        keys.extend(ids.into_iter().map(|id| slice.key(id).into()));
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The keys behind these numbers, in order.
fn keys_of(panes: &Panes, touched: BTreeSet<(SliceId, KeyId)>) -> Vec<Box<[u8]>> {
    let keys = touched
        .into_iter()
        .filter_map(|(slice, key)| Some(panes.slice(slice)?.key(key).into()));
    let mut keys: Vec<Box<[u8]>> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// What a row summarises: a window, or one coarser pane.
#[derive(Clone, Copy)]
struct Cut {
    start: Timestamp,
    size: Span,
    is_coarse: bool,
}

impl Cut {
    fn window(start: Timestamp, window: Window) -> Self {
        Self {
            start,
            size: window.size,
            is_coarse: false,
        }
    }

    fn coarse(start: Timestamp, size: Span) -> Self {
        Self {
            start,
            size,
            is_coarse: true,
        }
    }

    /// The slices that it is assembled from.
    fn readers(self, query: &RunningQuery) -> impl Iterator<Item = &Reader> {
        let all = if self.is_coarse {
            &query.coarse
        } else {
            &query.readers
        };
        all.iter()
            .filter(move |reader| !self.is_coarse || reader.pane == self.size)
    }
}

fn rows(
    query: &RunningQuery,
    panes: &Panes,
    cut: Cut,
    coverage: Coverage,
    keys: Vec<Box<[u8]>>,
) -> WindowRows {
    let rows = keys
        .into_iter()
        .filter_map(|key| row(query, panes, cut, key))
        .collect();
    WindowRows {
        status: status(cut.start, coverage),
        coarse: cut.is_coarse.then_some(cut.size),
        rows,
    }
}

fn status(start: Timestamp, coverage: Coverage) -> WindowStatus {
    WindowStatus {
        start,
        is_final: coverage.is_complete(),
        coverage: coverage.ratio(),
    }
}

/// Merges a key's panes over the cut, from all slices that it is assembled from, and lowers the result.
fn row(query: &RunningQuery, panes: &Panes, cut: Cut, key: Box<[u8]>) -> Option<Row> {
    let query_fields = query.query.fields.len();
    let mut readings = 0_u64;
    let mut merged = vec![Stats::IDENTITY; query_fields];
    for reader in cut.readers(query) {
        let Some(slice) = panes.slice(reader.slice) else {
            continue;
        };
        let Some(id) = slice.find(&key) else { continue };
        for (_, pane) in slice.range(cut.start..cut.start.plus(cut.size)) {
            let Some((count, stats)) = pane.row(id) else {
                continue;
            };
            readings = readings.saturating_add(count);
            for (merged, place) in merged.iter_mut().zip(&reader.fields) {
                if let Some(more) = place.and_then(|place| stats.get(place)) {
                    merged.merge(more);
                }
            }
        }
    }
    let lower = |stats: &Stats| {
        let stats = *stats;
        query
            .query
            .aggregates
            .iter()
            .map(move |&aggregate| stats.lower(aggregate, cut.size))
    };
    (readings > 0).then(|| Row {
        key,
        readings,
        values: merged.iter().flat_map(lower).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(size: i64, every: i64, pane: i64, expected: &[i64]) {
        let window = Window {
            size: Span::from_micros(size),
            every: Span::from_micros(every),
        };
        let starts: Vec<i64> = windows_over(window, Timestamp::clamped(pane))
            .map(Timestamp::as_micros)
            .collect();
        assert_eq!(starts, expected, "size {size} every {every} pane {pane}");
    }

    #[test]
    fn the_windows_over_a_pane() {
        check(10, 10, 20, &[20]);
        check(60, 10, 60, &[10, 20, 30, 40, 50, 60]);
        check(60, 60, 30, &[0]);
        check(60, 40, 40, &[0, 40]);
        check(60, 40, 60, &[40]);
        check(60, 40, 20, &[0]);
        check(60, 40, 0, &[-40, 0]);
        check(60, 10, -10, &[-60, -50, -40, -30, -20, -10]);
    }
}
