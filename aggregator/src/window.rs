//! From panes to result rows: which windows are due, what is in them, and how complete they are.
//!
//! Each query has a horizon: every window that ends by it has been shown. The horizon moves when all expected agents
//! have passed, or when patience for the silent ones has run out, and never back. Data for a window behind the horizon
//! revises its row at once. A provisional window is watched until all expected agents have passed it.
//!
//! Panes of coarser slices that fit the windows are part of them like any others. One that fits none cannot be taken
//! apart again: it gives rows of its own beside the windows' rows, each time that it has new data, so that totals over
//! the table stay exact and every row says which readings it is made of.

mod grid;

mod rows;

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::plan::{SliceId, Window};
use catchment_common::time::{Instant, Now, Span, Timestamp};

use self::grid::Touched;
use self::rows::Cut;
use crate::catalog::RunningQuery;
use crate::commit::{QueryResults, WindowStatus};
use crate::frontier::{Coverage, Frontier, Patience};
use crate::limits::PROVISIONAL_MAX;
use crate::merge::{KeyId, Panes};

pub use self::grid::Grid;

/// How far one query has been shown, and what must be shown again.
#[derive(Debug)]
pub struct QueryWindows {
    horizon: Horizon,
    /// Windows behind the horizon with new data.
    touched: Touched,
    /// Coarser panes with new data: width and start, then slice and key.
    touched_coarse: BTreeMap<(Span, Timestamp), BTreeSet<(SliceId, KeyId)>>,
}

/// What has been shown.
#[derive(Debug)]
struct Horizon {
    /// Every window that ends by then.
    through: Timestamp,
    /// Windows shown before all had passed, by start and end, with the coverage that they show.
    provisional: BTreeMap<(Timestamp, Timestamp), f64>,
    patience: Patience,
}

/// A provisional window of a store: its start and end, and the coverage that it shows.
pub type Provisional = (Timestamp, Timestamp, f64);

impl Horizon {
    fn new(through: Timestamp) -> Self {
        Self {
            through,
            provisional: BTreeMap::new(),
            patience: Patience::default(),
        }
    }

    /// Up to where windows are due.
    fn due(&mut self, query: &RunningQuery, slices: &[SliceId], frontier: &Frontier, now: Now) -> Timestamp {
        let exhausted = self
            .patience
            .observe(frontier.front(slices, now), query.query.patience, now);
        let low = frontier.low(slices, self.through, now);
        self.through.max(low.max(exhausted).unwrap_or(Timestamp::MIN))
    }

    /// A window was shown with this coverage.
    fn watch(&mut self, start: Timestamp, end: Timestamp, coverage: Coverage) {
        if !coverage.is_complete() && self.provisional.len() < PROVISIONAL_MAX {
            self.provisional.insert((start, end), coverage.ratio());
        }
    }

    /// Provisional windows whose coverage has changed.
    fn settle(&mut self, coverage: &impl Fn(Timestamp) -> Coverage, results: &mut QueryResults) {
        self.provisional.retain(|&(start, end), shown| {
            let current = coverage(end);
            if current.ratio() == *shown {
                return true;
            }
            *shown = current.ratio();
            results.statuses.push(status(start, end, current));
            !current.is_complete()
        });
    }
}

impl QueryWindows {
    /// The windows of a query of which nothing was shown.
    pub fn new(_query: &RunningQuery) -> Self {
        Self::through(Timestamp::MIN)
    }

    fn through(through: Timestamp) -> Self {
        Self {
            horizon: Horizon::new(through),
            touched: Touched::default(),
            touched_coarse: BTreeMap::new(),
        }
    }

    /// A query that passes over windows that start before `from`, if there is such an instant. Data that still comes for
    /// them shows them all the same.
    pub fn starting(query: &RunningQuery, from: Option<Timestamp>) -> Self {
        let Some(from) = from.filter(|from| *from > Timestamp::MIN) else {
            return Self::new(query);
        };
        // The window that starts on the step before is the last that is passed over.
        let before = query.grid.over(from.minus(Span::from_micros(1))).last();
        Self::through(before.map_or(from, |start| query.grid.end(start)))
    }

    /// What a store gave back: the horizon, and the provisional windows.
    pub fn restore(&mut self, through: Timestamp, provisional: impl Iterator<Item = Provisional>) {
        self.horizon.through = through;
        self.horizon.provisional = provisional
            .map(|(start, end, coverage)| ((start, end), coverage))
            .collect();
    }

    /// Every window that ends by then has been shown.
    pub fn emitted_through(&self) -> Timestamp {
        self.horizon.through
    }

    /// Panes that start before this can only matter to windows that were shown.
    pub fn needed_from(&self, window: &Window) -> Timestamp {
        self.horizon.through.minus(window.longest())
    }

    /// Data was merged into a pane for these keys.
    pub fn touch(&mut self, query: &RunningQuery, slice: SliceId, pane: Timestamp, keys: &[KeyId]) {
        self.touched
            .touch(&query.grid, self.horizon.through, slice, pane, keys);
    }

    /// Windows behind the horizon with new data, as start and end: they need all of their panes in memory.
    pub fn touched_windows(&self, query: &RunningQuery) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        self.touched.starts().map(|start| (start, query.grid.end(start)))
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
        self.horizon.patience.deadline(query.query.patience)
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
        let slices: Vec<SliceId> = query.readers.iter().map(|reader| reader.slice).collect();
        let due = self.horizon.due(query, &slices, frontier, now);
        let mut results = QueryResults {
            query: index,
            ..QueryResults::default()
        };
        let coverage = |end: Timestamp| frontier.coverage(&slices, end, now);
        let view = View {
            query,
            panes,
            coverage: &coverage,
        };
        self.touched.revise(&view, &mut self.horizon, &mut results);
        for ((width, start), touched) in std::mem::take(&mut self.touched_coarse) {
            let cut = Cut::coarse(start, width);
            let keys = rows::keys_of(panes, touched);
            results.windows.push(view.rows(cut, keys));
        }
        if due > self.horizon.through {
            grid::show_due(&view, &mut self.horizon, due, &mut results);
            self.horizon.through = due;
            results.emitted_through = Some(due);
        }
        self.horizon.settle(&coverage, &mut results);
        let changed =
            results.emitted_through.is_some() || !results.windows.is_empty() || !results.statuses.is_empty();
        changed.then_some(results)
    }
}

/// What results are made from at one moment.
struct View<'v, C> {
    query: &'v RunningQuery,
    panes: &'v Panes,
    /// How many have passed an instant.
    coverage: &'v C,
}

fn status(start: Timestamp, end: Timestamp, coverage: Coverage) -> WindowStatus {
    WindowStatus {
        start,
        end,
        is_final: coverage.is_complete(),
        coverage: coverage.ratio(),
    }
}
