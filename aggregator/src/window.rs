//! From panes to result rows: which windows are due, what is in them, and how complete they are.
//!
//! Each query has a horizon: every window that ends by it has been shown. The horizon moves when all expected agents
//! have passed, or when patience for the silent ones has run out, and never back. Data for a window behind the horizon
//! revises its row at once. A provisional window is watched until all expected agents have passed it.
//!
//! Panes of coarser pipelines that fit the windows are part of them like any others. One that fits none cannot be taken
//! apart again: it gives rows of its own beside the windows' rows, each time that it has new data, so that totals over
//! the table stay exact and every row says which readings it is made of.
//!
//! Windows with fixed bounds are in `aligned`, sessions in `session`, and count windows, which have no
//! horizon, in `count`.

mod calendar;

mod count;

mod aligned;

mod before;

mod load;

mod merged;

mod revise;

mod rows;

mod session;

mod slide;

mod stretches;

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::plan::{PipelineId, Window};
use catchment_common::time::{Instant, Now, Span, Timestamp};

use self::count::Counted;
use self::revise::Touched;
use self::rows::Cut;
use self::session::Sessions;
use crate::agents::Agents;
use crate::catalog::RunningQuery;
use crate::commit::{PaneSource, QueryResults, SourceFault, Unrevised, Why, WindowStatus};
use crate::limits::PROVISIONAL_MAX;
use crate::merge::{KeyId, Panes};
use crate::watermarks::{Coverage, Patience};

pub use self::aligned::Aligned;
pub use self::calendar::{UnknownZone, Zone};
pub use self::load::Loader;
pub use self::revise::Budget;

/// How far one query has been shown, and what must be shown again.
#[derive(Debug)]
pub struct QueryWindows {
    horizon: Horizon,
    changes: Changes,
    /// Coarser panes with new data: width and start, then pipeline and key.
    touched_coarse: BTreeMap<(Span, Timestamp), BTreeSet<(PipelineId, KeyId)>>,
    /// Whether windows are due for which there was no room.
    is_behind: bool,
    /// Pieces merged for revisions at last.
    merged: usize,
}

/// What lies behind the horizon and has new data.
#[derive(Debug)]
enum Changes {
    /// Windows with fixed bounds.
    Fixed(Touched),
    /// Sessions.
    Sessions(Sessions),
    /// Count windows.
    Counted(Counted),
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
    fn due(
        &mut self,
        query: &RunningQuery,
        pipelines: &[PipelineId],
        agents: &Agents,
        now: Now,
    ) -> Timestamp {
        let exhausted = self
            .patience
            .observe(agents.front(pipelines, now), query.query.patience, now);
        let low = agents.low(pipelines, self.through, now);
        let due = low.max(exhausted).unwrap_or(Timestamp::MIN);
        let due = match query.query.window {
            Window::Session { gap } => session::horizon(gap, due),
            Window::Hopping(_) | Window::Calendar { .. } | Window::Count { .. } => due,
        };
        self.through.max(due)
    }

    /// A window was shown with this coverage.
    fn watch(&mut self, start: Timestamp, end: Timestamp, coverage: Coverage) {
        if !coverage.is_complete() && self.provisional.len() < PROVISIONAL_MAX {
            self.provisional.insert((start, end), coverage.ratio());
        }
    }

    /// Provisional windows whose coverage has changed.
    fn settle(
        &mut self,
        since: Timestamp,
        coverage: &impl Fn(Timestamp) -> Coverage,
        results: &mut QueryResults,
    ) {
        self.provisional.retain(|&(start, end), shown| {
            let current = coverage(end);
            if current.ratio() == *shown {
                return true;
            }
            *shown = current.ratio();
            results.statuses.push(status((start, end), since, current));
            !current.is_complete()
        });
    }
}

impl QueryWindows {
    /// The windows of a query of which nothing was shown.
    pub fn new(query: &RunningQuery) -> Self {
        Self::through(query, Timestamp::MIN)
    }

    fn through(query: &RunningQuery, through: Timestamp) -> Self {
        Self {
            horizon: Horizon::new(through),
            changes: match query.query.window {
                Window::Hopping(_) | Window::Calendar { .. } => Changes::Fixed(Touched::default()),
                Window::Session { .. } => Changes::Sessions(Sessions::default()),
                Window::Count { .. } => Changes::Counted(Counted::default()),
            },
            touched_coarse: BTreeMap::new(),
            is_behind: false,
            merged: 0,
        }
    }

    /// A query that passes over windows that start before `from`, if there is such an instant: earlier panes may have
    /// left memory. Data that still comes for them shows them all the same.
    pub fn starting(query: &RunningQuery, from: Option<Timestamp>) -> Self {
        let has_horizon = query.query.window.count().is_none();
        let Some(from) = from.filter(|from| has_horizon && *from > Timestamp::MIN) else {
            return Self::new(query);
        };
        let through = match (&query.aligned, &query.query.window) {
            // The window that starts on the step before is the last that is passed over.
            (Some(aligned), _) => {
                let before = aligned.over(from.minus(Span::from_micros(1))).last();
                before.map_or(from, |start| aligned.end(start))
            }
            // A session that ends later has its last reading in a pane from there on; those before it can be loaded.
            (None, window) => from.plus(window.longest()).plus(window.pane()),
        };
        Self::through(query, through)
    }

    /// What a store gave back: the horizon, and the provisional windows.
    pub fn restore(&mut self, through: Timestamp, provisional: impl Iterator<Item = Provisional>) {
        self.horizon.through = through;
        self.horizon.provisional = provisional
            .map(|(start, end, coverage)| ((start, end), coverage))
            .collect();
    }

    /// Nothing later than this has been shown: what was stored says otherwise because a clock was wrong.
    pub fn set_back(&mut self, furthest: Timestamp) {
        self.horizon.through = self.horizon.through.min(furthest);
    }

    /// Every window that ends by then has been shown.
    pub fn emitted_through(&self) -> Timestamp {
        self.horizon.through
    }

    /// Whether windows were due for which [`QueryWindows::advance`] had no room.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Panes that start before this can only matter to windows that were shown, and to sessions that load them.
    pub fn needed_from(&self, query: &RunningQuery) -> Timestamp {
        let window = &query.query.window;
        match window {
            Window::Session { gap } => session::needed_from(*gap, self.horizon.through),
            Window::Hopping(_) | Window::Calendar { .. } => {
                let widest = query.readers.iter().map(|reader| reader.pane).max();
                let first = self.horizon.through.minus(window.longest());
                first.minus(query.reach(widest.unwrap_or(Span::ZERO)))
            }
            // A part that comes loads the others.
            Window::Count { .. } => Timestamp::MAX,
        }
    }

    /// Data was merged into a pane for these keys.
    pub fn touch(&mut self, pipeline: PipelineId, pane: Timestamp, keys: &[KeyId]) {
        let through = self.horizon.through;
        match &mut self.changes {
            Changes::Fixed(touched) => touched.touch(through, pipeline, pane, keys),
            Changes::Sessions(sessions) => sessions.touch(through, pipeline, pane, keys),
            Changes::Counted(counted) => counted.touch(pipeline, pane, keys),
        }
    }

    /// Data was merged for these keys into a pane that fits no window.
    pub fn touch_coarse(&mut self, width: Span, pipeline: PipelineId, pane: Timestamp, keys: &[KeyId]) {
        if let Changes::Fixed(touched) = &mut self.changes {
            // Windows may go on from it.
            touched.touch(self.horizon.through, pipeline, pane, keys);
        }
        self.touched_coarse
            .entry((width, pane))
            .or_default()
            .extend(keys.iter().map(|&key| (pipeline, key)));
    }

    /// When patience runs out next.
    pub fn deadline(&self, query: &RunningQuery) -> Option<Instant> {
        self.horizon.patience.deadline(query.query.patience)
    }

    /// What a store gave back of windows that were to be revised.
    pub fn restore_unrevised(&mut self, unrevised: Unrevised) {
        if let Changes::Fixed(touched) = &mut self.changes {
            touched.restore(unrevised);
        }
    }

    /// How many keys and panes wait with windows to revise.
    pub fn waiting(&self) -> usize {
        match &self.changes {
            Changes::Fixed(touched) => touched.waiting(),
            Changes::Sessions(_) | Changes::Counted(_) => 0,
        }
    }

    /// Whether windows with new data wait that [`QueryWindows::prepare`] had no room for.
    pub fn is_to_revise(&self) -> bool {
        matches!(&self.changes, Changes::Fixed(touched) if touched.is_behind())
    }

    /// How many pieces were merged for the revisions of the last [`QueryWindows::advance`].
    pub fn merged(&self) -> usize {
        self.merged
    }

    /// Brings all panes into memory that [`QueryWindows::advance`] will need, as far as there is a budget for revisions.
    /// When one cannot be read nothing has changed.
    pub fn prepare<S: PaneSource>(
        &mut self,
        query: &RunningQuery,
        agents: &Agents,
        now: Now,
        loader: &mut Loader<'_, S>,
        budget: &mut Budget,
    ) -> Result<(), SourceFault> {
        for &(width, start) in self.touched_coarse.keys() {
            for reader in query.coarse.iter().filter(|reader| reader.pane == width) {
                loader.load(reader.pipeline, start)?;
            }
        }
        let through = self.horizon.through;
        match (&mut self.changes, &query.aligned) {
            (Changes::Fixed(touched), Some(aligned)) => {
                let due = self.horizon.due(query, &query.pipelines(), agents, now);
                if due > through {
                    let from = through.minus(query.query.window.longest());
                    load_due(query, from, due, loader)?;
                    for reader in before::readers(query) {
                        let from = from.minus(query.reach(reader.pane));
                        loader.load_range(reader.pipeline, from, due)?;
                    }
                }
                touched.prepare(query, aligned, through, loader, budget)
            }
            (Changes::Sessions(sessions), _) => {
                let due = self.horizon.due(query, &query.pipelines(), agents, now);
                let gap = query.query.window.longest();
                if due > through {
                    load_due(query, through.minus(gap).minus(gap), due, loader)?;
                }
                sessions.prepare(query, query.query.window.longest(), (through, due), loader)
            }
            (Changes::Counted(counted), _) => counted.prepare(query, loader),
            (Changes::Fixed(_), None) => Ok(()),
        }
    }

    /// Brings the results up to date with panes and agents; `None` when nothing changed. At the same `now`, and with
    /// nothing merged since, everything must have been prepared. Windows with fixed bounds are shown as long as there
    /// is `room` for their rows; whether some are left says [`QueryWindows::is_behind`].
    pub fn advance(
        &mut self,
        index: usize,
        query: &RunningQuery,
        panes: &Panes,
        agents: &Agents,
        now: Now,
        room: &mut usize,
    ) -> Option<QueryResults> {
        if let (Changes::Counted(counted), Some(limit)) = (&mut self.changes, query.query.window.count()) {
            let coverage = |_| Coverage {
                passed: 0,
                expected: 0,
            };
            let view = View {
                query,
                panes,
                coverage: &coverage,
            };
            let mut results = QueryResults {
                query: index,
                ..QueryResults::default()
            };
            counted.show(&view, limit, &mut results);
            return (!results.counted.is_empty()).then_some(results);
        }
        let pipelines = query.pipelines();
        let due = self.horizon.due(query, &pipelines, agents, now);
        let mut results = QueryResults {
            query: index,
            ..QueryResults::default()
        };
        let coverage = |end: Timestamp| agents.coverage(&pipelines, end, now);
        let view = View {
            query,
            panes,
            coverage: &coverage,
        };
        for ((width, start), touched) in std::mem::take(&mut self.touched_coarse) {
            let cut = Cut::coarse(start, width);
            let keys = rows::keys_of(panes, touched);
            results.windows.push(view.rows(cut, Why::CoarsePane, keys));
        }
        let mut reached = due;
        match (&mut self.changes, &query.aligned) {
            (Changes::Fixed(touched), Some(aligned)) => {
                self.merged = touched.revise(&view, aligned, &mut self.horizon, &mut results);
                reached = aligned::show_due(&view, aligned, &mut self.horizon, due, room, &mut results);
            }
            (Changes::Sessions(sessions), _) => sessions.show(&view, &mut self.horizon, &mut results),
            (Changes::Counted(_), _) | (Changes::Fixed(_), None) => {}
        }
        self.is_behind = reached < due;
        if reached > self.horizon.through {
            self.horizon.through = reached;
            results.emitted_through = Some(reached);
        }
        self.horizon.settle(query.since, &coverage, &mut results);
        let changed = results.emitted_through.is_some()
            || !results.windows.is_empty()
            || !results.statuses.is_empty()
            || !results.unrevised.is_empty();
        changed.then_some(results)
    }
}

/// Brings panes into memory that left it, for want of room, before they were due. In most cases there are none, and the
/// store is not asked.
fn load_due<S: PaneSource>(
    query: &RunningQuery,
    from: Timestamp,
    due: Timestamp,
    loader: &mut Loader<'_, S>,
) -> Result<(), SourceFault> {
    for reader in &query.readers {
        loader.load_range(reader.pipeline, from, due)?;
    }
    Ok(())
}

/// What results are made from at one moment.
struct View<'v, C> {
    query: &'v RunningQuery,
    panes: &'v Panes,
    /// How many have passed an instant.
    coverage: &'v C,
}

/// Why a window is shown for the first time.
fn why_due(coverage: Coverage) -> Why {
    if coverage.is_complete() {
        Why::Complete
    } else {
        Why::Patience
    }
}

fn status((start, end): (Timestamp, Timestamp), since: Timestamp, coverage: Coverage) -> WindowStatus {
    WindowStatus {
        start,
        end,
        is_final: coverage.is_complete(),
        is_whole: start >= since,
        coverage: coverage.ratio(),
    }
}
