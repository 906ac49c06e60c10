//! Windows whose bounds are fixed beforehand: which of them hold a pane, are due, or have new data.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::plan::{Hopping, SliceId, Window};
use catchment_common::time::Timestamp;

use super::rows::{self, Cut};
use super::{Horizon, View};
use crate::commit::QueryResults;
use crate::frontier::Coverage;
use crate::merge::KeyId;

/// Where windows start and end.
#[derive(Clone, Debug)]
pub enum Grid {
    /// In even steps.
    Hopping(Hopping),
}

impl Grid {
    /// The grid of these windows.
    pub fn new(window: &Window) -> Self {
        match window {
            Window::Hopping(hopping) => Self::Hopping(*hopping),
        }
    }

    /// The starts of the windows that hold a pane or an instant, earliest first.
    pub fn over(&self, at: Timestamp) -> impl Iterator<Item = Timestamp> + use<> {
        match self {
            Self::Hopping(hopping) => hopping.over(at),
        }
    }

    /// The end of the window that starts here.
    pub fn end(&self, start: Timestamp) -> Timestamp {
        match self {
            Self::Hopping(hopping) => start.plus(hopping.size),
        }
    }
}

/// Windows behind the horizon with new data: start, then slice and key.
#[derive(Debug, Default)]
pub(super) struct Touched(BTreeMap<Timestamp, BTreeSet<(SliceId, KeyId)>>);

impl Touched {
    /// Data was merged into a pane for these keys.
    pub(super) fn touch(
        &mut self,
        grid: &Grid,
        through: Timestamp,
        slice: SliceId,
        pane: Timestamp,
        keys: &[KeyId],
    ) {
        // The windows over a pane end after it does; of the earliest of them the cheap test is enough for live data.
        if pane >= through {
            return;
        }
        for start in grid.over(pane) {
            if grid.end(start) <= through {
                self.0
                    .entry(start)
                    .or_default()
                    .extend(keys.iter().map(|&key| (slice, key)));
            }
        }
    }

    pub(super) fn starts(&self) -> impl Iterator<Item = Timestamp> {
        self.0.keys().copied()
    }

    /// Rows of the windows that got new data.
    pub(super) fn revise<C: Fn(Timestamp) -> Coverage>(
        &mut self,
        view: &View<'_, C>,
        horizon: &mut Horizon,
        results: &mut QueryResults,
    ) {
        for (start, touched) in std::mem::take(&mut self.0) {
            let end = view.query.grid.end(start);
            // A window that is watched already stays so: its other rows have yet to learn of a new status.
            if !horizon.provisional.contains_key(&(start, end)) {
                horizon.watch(start, end, (view.coverage)(end));
            }
            let keys = rows::keys_of(view.panes, touched);
            results.windows.push(view.rows(Cut::window(start, end), keys));
        }
    }
}

/// Rows of all windows with data that end after the horizon and by `through`.
pub(super) fn show_due<C: Fn(Timestamp) -> Coverage>(
    view: &View<'_, C>,
    horizon: &mut Horizon,
    through: Timestamp,
    results: &mut QueryResults,
) {
    for start in due(view, horizon.through, through) {
        let end = view.query.grid.end(start);
        horizon.watch(start, end, (view.coverage)(end));
        let cut = Cut::window(start, end);
        results.windows.push(view.rows(cut, view.keys_within(start, end)));
    }
}

/// The windows with data that end after `after` and by `through`.
fn due<C>(view: &View<'_, C>, after: Timestamp, through: Timestamp) -> BTreeSet<Timestamp> {
    let (query, mut due) = (view.query, BTreeSet::new());
    for reader in &query.readers {
        let Some(slice) = view.panes.slice(reader.slice) else {
            continue;
        };
        for (pane, _) in slice.range(after.minus(query.query.window.longest())..through) {
            let ends_in_time = |start: &Timestamp| {
                let end = query.grid.end(*start);
                after < end && end <= through
            };
            due.extend(query.grid.over(pane).filter(ends_in_time));
        }
    }
    due
}
