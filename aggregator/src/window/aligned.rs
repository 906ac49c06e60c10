//! Windows whose bounds are fixed beforehand: which of them hold a pane, are due, or have new data.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::plan::{Hopping, PipelineId, Window};
use catchment_common::time::Timestamp;

use super::calendar::{Calendar, Zone};
use super::load::Loader;
use super::rows::{self, Cut};
use super::{Horizon, View, why_due};
use crate::catalog::RunningQuery;
use crate::commit::{PaneSource, QueryResults, SourceFault, Why};
use crate::merge::KeyId;
use crate::watermarks::Coverage;

/// Where windows start and end.
#[derive(Clone, Debug)]
pub enum Aligned {
    /// In even steps.
    Hopping(Hopping),
    /// As a zone's calendar has them.
    Calendar(Calendar),
}

impl Aligned {
    /// The aligned of these windows; none if they follow the data, or their zone is not known.
    pub fn new(window: &Window) -> Option<Self> {
        match window {
            Window::Hopping(hopping) => Some(Self::Hopping(*hopping)),
            Window::Session { .. } | Window::Count { .. } => None,
            Window::Calendar { period, zone, pane } => {
                let zone = Zone::find(zone).ok()?;
                Some(Self::Calendar(Calendar::new(zone, *period, *pane)))
            }
        }
    }

    /// The starts of the windows that hold a pane or an instant, earliest first.
    pub fn over(&self, at: Timestamp) -> impl Iterator<Item = Timestamp> + use<> {
        let (hopping, calendar) = match self {
            Self::Hopping(hopping) => (Some(hopping.over(at)), None),
            Self::Calendar(calendar) => (None, Some(calendar.around(at).0)),
        };
        hopping.into_iter().flatten().chain(calendar)
    }

    /// The end of the window that starts here.
    pub fn end(&self, start: Timestamp) -> Timestamp {
        match self {
            Self::Hopping(hopping) => start.plus(hopping.size),
            Self::Calendar(calendar) => calendar.around(start).1,
        }
    }
}

/// Windows behind the horizon with new data: start, then pipeline and key.
#[derive(Debug, Default)]
pub(super) struct Touched(BTreeMap<Timestamp, BTreeSet<(PipelineId, KeyId)>>);

impl Touched {
    /// Data was merged into a pane for these keys.
    pub(super) fn touch(
        &mut self,
        aligned: &Aligned,
        through: Timestamp,
        pipeline: PipelineId,
        pane: Timestamp,
        keys: &[KeyId],
    ) {
        // The windows over a pane end after it does; of the earliest of them the cheap test is enough for live data.
        if pane >= through {
            return;
        }
        for start in aligned.over(pane) {
            if aligned.end(start) <= through {
                self.0
                    .entry(start)
                    .or_default()
                    .extend(keys.iter().map(|&key| (pipeline, key)));
            }
        }
    }

    /// Brings all panes of the windows that got new data into memory.
    pub(super) fn prepare<S: PaneSource>(
        &self,
        query: &RunningQuery,
        aligned: &Aligned,
        loader: &mut Loader<'_, S>,
    ) -> Result<(), SourceFault> {
        for &start in self.0.keys() {
            for reader in &query.readers {
                loader.load_each(reader.pipeline, start, aligned.end(start))?;
            }
        }
        Ok(())
    }

    /// Rows of the windows that got new data.
    pub(super) fn revise<C: Fn(Timestamp) -> Coverage>(
        &mut self,
        view: &View<'_, C>,
        aligned: &Aligned,
        horizon: &mut Horizon,
        results: &mut QueryResults,
    ) {
        for (start, touched) in std::mem::take(&mut self.0) {
            let end = aligned.end(start);
            // A window that is watched already stays so: its other rows have yet to learn of a new status.
            if !horizon.provisional.contains_key(&(start, end)) {
                horizon.watch(start, end, (view.coverage)(end));
            }
            let keys = rows::keys_of(view.panes, touched);
            let rows = view.rows(Cut::window(start, end), Why::LateData, keys);
            results.windows.push(rows);
        }
    }
}

/// Rows of the windows with data that end after the horizon and by `through`, the earliest first, until `room` for rows
/// is used up. Returns up to where that is.
pub(super) fn show_due<C: Fn(Timestamp) -> Coverage>(
    view: &View<'_, C>,
    aligned: &Aligned,
    horizon: &mut Horizon,
    through: Timestamp,
    room: &mut usize,
    results: &mut QueryResults,
) -> Timestamp {
    let mut reached = horizon.through;
    for start in due(view, aligned, horizon.through, through) {
        if *room == 0 {
            return reached;
        }
        let end = aligned.end(start);
        let coverage = (view.coverage)(end);
        horizon.watch(start, end, coverage);
        let (cut, keys) = (Cut::window(start, end), view.keys_within(start, end));
        let shown = view.rows(cut, why_due(coverage), keys);
        *room = room.saturating_sub(shown.rows.len());
        results.windows.push(shown);
        reached = end;
    }
    through
}

/// The windows with data that end after `after` and by `through`.
fn due<C>(
    view: &View<'_, C>,
    aligned: &Aligned,
    after: Timestamp,
    through: Timestamp,
) -> BTreeSet<Timestamp> {
    let (query, mut due) = (view.query, BTreeSet::new());
    for reader in &query.readers {
        let Some(pipeline) = view.panes.pipeline(reader.pipeline) else {
            continue;
        };
        for (pane, _) in pipeline.range(after.minus(query.query.window.longest())..through) {
            let ends_in_time = |start: &Timestamp| {
                let end = aligned.end(*start);
                after < end && end <= through
            };
            due.extend(aligned.over(pane).filter(ends_in_time));
        }
    }
    due
}
