//! Windows with fixed bounds that were shown and have new data.
//!
//! One late reading touches every window over its pane: of windows of a day in steps of a minute 1,440. So what must be
//! revised is kept as stretches of windows for each key, neighbours share what they merge ([`super::slide`]), and a
//! commit revises only as much as its [`Budget`] has room for. What is left is written down with it: were it forgotten by
//! a crash, the batch would be merged and its rows would never show it.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::plan::PipelineId;
use catchment_common::time::{Span, Timestamp};

use super::aligned::Aligned;
use super::before;
use super::load::Loader;
use super::slide::shares;
use super::stretches::Stretches;
use super::{Horizon, View, status};
use crate::catalog::RunningQuery;
use crate::commit::{PaneSource, QueryResults, Row, SourceFault, Unrevised, Why, WindowRows};
use crate::limits::{REVISED_LOADS_MAX, REVISED_PIECES_MAX};
use crate::merge::{KeyId, Panes};
use crate::watermarks::Coverage;

/// How much one commit may revise. The window that reaches a bound is revised whole.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    rows: usize,
    /// Panes of keys, to be merged.
    pieces: usize,
    /// Panes, to be brought into memory.
    loads: usize,
}

impl Budget {
    /// Room for so many rows, and for what [`crate::limits`] says of the rest.
    pub fn of(rows: usize) -> Self {
        Self {
            rows,
            pieces: REVISED_PIECES_MAX,
            loads: REVISED_LOADS_MAX,
        }
    }

    /// No room.
    pub const NOTHING: Self = Self {
        rows: 0,
        pieces: 0,
        loads: 0,
    };

    /// Whether there is no room left.
    pub fn is_used_up(&self) -> bool {
        self.rows == 0 || self.pieces == 0 || self.loads == 0
    }
}

/// Windows behind the horizon with new data.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Panes with data that has come since the last commit, and the keys that have it.
    fresh: BTreeMap<(PipelineId, Timestamp), BTreeSet<KeyId>>,
    /// For each key the starts of the windows to revise.
    pending: BTreeMap<Box<[u8]>, Stretches>,
    /// What of it the store knows.
    stored: BTreeMap<Box<[u8]>, Stretches>,
    /// What the next commit revises; its panes are in memory.
    ready: Vec<(Box<[u8]>, Stretches)>,
    /// The key that is next.
    next: Option<Box<[u8]>>,
    /// Stretches that were left by the last commit.
    left: usize,
}

impl Touched {
    /// Data was merged into a pane for these keys.
    pub(super) fn touch(
        &mut self,
        through: Timestamp,
        pipeline: PipelineId,
        pane: Timestamp,
        keys: &[KeyId],
    ) {
        // The windows over a pane end after it does; of the earliest of them the cheap test is enough for live data.
        if pane < through {
            self.fresh.entry((pipeline, pane)).or_default().extend(keys);
        }
    }

    /// What a store gave back.
    pub(super) fn restore(&mut self, unrevised: Unrevised) {
        let mut stretches = Stretches::default();
        for (first, last) in unrevised.windows {
            stretches.insert(first, last, Span::ZERO);
        }
        self.pending.insert(unrevised.key.clone(), stretches.clone());
        self.stored.insert(unrevised.key, stretches);
    }

    /// How many stretches and panes wait.
    pub(super) fn waiting(&self) -> usize {
        self.left + self.fresh.len()
    }

    /// Whether windows wait to be revised.
    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Chooses what the next commit revises, and brings its panes into memory.
    pub(super) fn prepare<S: PaneSource>(
        &mut self,
        query: &RunningQuery,
        aligned: &Aligned,
        through: Timestamp,
        loader: &mut Loader<'_, S>,
        budget: &mut Budget,
    ) -> Result<(), SourceFault> {
        // What an attempt has chosen that failed.
        for (key, stretches) in std::mem::take(&mut self.ready) {
            let held = self.pending.entry(key).or_default();
            for (first, last) in stretches.iter() {
                held.insert(first, last, aligned.step());
            }
        }
        self.resolve(query, aligned, through, loader.panes);
        let spans = self.choose(query, aligned, budget);
        for (from, to) in spans.iter() {
            let to = to.minus(Span::from_micros(1));
            for reader in &query.readers {
                loader.load_range(reader.pipeline, from, to)?;
            }
            for reader in before::readers(query) {
                let from = from.minus(query.reach(reader.pane));
                loader.load_range(reader.pipeline, from, to)?;
            }
        }
        Ok(())
    }

    /// Which windows are over the panes that have new data, or go on from them.
    fn resolve(&mut self, query: &RunningQuery, aligned: &Aligned, through: Timestamp, panes: &Panes) {
        for ((pipeline, pane), keys) in std::mem::take(&mut self.fresh) {
            let windows = affected(query, aligned, (pipeline, pane), through);
            if windows.is_empty() {
                continue;
            }
            let Some(held) = panes.pipeline(pipeline) else {
                continue;
            };
            for key in keys {
                let key = held.key(key);
                if !self.pending.contains_key(key) {
                    self.pending.insert(key.into(), Stretches::default());
                }
                let stretches = self.pending.get_mut(key).expect("just inserted");
                for &(first, last) in &windows {
                    stretches.insert(first, last, aligned.step());
                }
            }
        }
    }

    /// Moves what there is room for from the windows that wait to those that are ready; returns the time that these
    /// cover.
    fn choose(&mut self, query: &RunningQuery, aligned: &Aligned, budget: &mut Budget) -> Stretches {
        let pane = query.readers.iter().map(|reader| reader.pane).min();
        let pane = pane.map_or(1, Span::as_micros).max(1);
        let panes_in = |span: Span| usize::try_from(span.as_micros() / pane).unwrap_or(usize::MAX);
        let shares = shares(query);
        let mut spans = Stretches::default();
        while !budget.is_used_up()
            && let Some((key, mut waiting)) = self.take_next()
        {
            let mut chosen = Stretches::default();
            while !budget.is_used_up()
                && let Some((first, last)) = waiting.first()
            {
                let whole = panes_in(aligned.end(first).since(first));
                let each = if shares {
                    2 + 2 * panes_in(aligned.step())
                } else {
                    whole.max(1)
                };
                let most = budget.rows.min(1 + budget.pieces.saturating_sub(whole) / each);
                let (until, count) = aligned.reach(first, last, most);
                budget.rows = budget.rows.saturating_sub(count);
                budget.pieces = budget
                    .pieces
                    .saturating_sub(whole.saturating_add(count.saturating_mul(each)));
                let from = first.minus(query.query.lookback());
                let loads = panes_in(spans.insert(from, aligned.end(until), Span::ZERO));
                budget.loads = budget.loads.saturating_sub(loads);
                chosen.insert(first, until, aligned.step());
                waiting.cut(aligned.next(until));
            }
            if !waiting.is_empty() {
                self.next = Some(key.clone());
                self.pending.insert(key.clone(), waiting);
            }
            self.ready.push((key, chosen));
        }
        spans
    }

    /// The next key that waits and its windows. Each key has its turn, whatever comes for those before it.
    fn take_next(&mut self) -> Option<(Box<[u8]>, Stretches)> {
        let from = self.next.take().unwrap_or_default();
        let key = self
            .pending
            .range(from..)
            .next()
            .or(self.pending.first_key_value())?
            .0
            .clone();
        let stretches = self.pending.remove(&key)?;
        let mut after = key.to_vec();
        after.push(0);
        self.next = Some(after.into());
        Some((key, stretches))
    }

    /// Rows of the windows that are ready, and what is left for later; returns how many pieces were merged.
    pub(super) fn revise<C: Fn(Timestamp) -> Coverage>(
        &mut self,
        view: &View<'_, C>,
        aligned: &Aligned,
        horizon: &mut Horizon,
        results: &mut QueryResults,
    ) -> usize {
        let mut merged = 0;
        let mut windows: BTreeMap<Timestamp, Vec<Row>> = BTreeMap::new();
        for (key, stretches) in std::mem::take(&mut self.ready) {
            for stretch in stretches.iter() {
                let (rows, pieces) = view.neighbours(aligned, &key, stretch);
                merged += pieces;
                for (start, row) in rows {
                    windows.entry(start).or_default().push(row);
                }
            }
        }
        for (start, mut rows) in windows {
            let end = aligned.end(start);
            let coverage = (view.coverage)(end);
            // A window that is watched already stays so: its other rows have yet to learn of a new status.
            if !horizon.provisional.contains_key(&(start, end)) {
                horizon.watch(start, end, coverage);
            }
            rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            results.windows.push(WindowRows {
                status: status((start, end), view.query.since, coverage),
                why: Why::LateData,
                is_coarse: false,
                is_session: false,
                rows,
            });
        }
        self.note_left(results);
        merged
    }

    /// Notes what the store must know of the windows that are left.
    fn note_left(&mut self, results: &mut QueryResults) {
        self.left = self.pending.values().map(Stretches::len).sum();
        let nothing = Stretches::default();
        let gone = self.stored.keys().filter(|key| !self.pending.contains_key(*key));
        let gone: Vec<Box<[u8]>> = gone.cloned().collect();
        let changed = { self.pending.iter() }.filter(|(key, left)| self.stored.get(*key) != Some(*left));
        let changed: Vec<(Box<[u8]>, Stretches)> =
            changed.map(|(key, left)| (key.clone(), left.clone())).collect();
        for (key, left) in gone.into_iter().map(|key| (key, nothing.clone())).chain(changed) {
            results.unrevised.push(Unrevised {
                key: key.clone(),
                windows: left.iter().collect(),
            });
            if left.is_empty() {
                self.stored.remove(&key);
            } else {
                self.stored.insert(key, left);
            }
        }
    }
}

/// Stretches of the windows that were shown and that data in a pane matters to: those over it, of a pane that fits them,
/// and those that look back to it.
fn affected(
    query: &RunningQuery,
    aligned: &Aligned,
    (pipeline, pane): (PipelineId, Timestamp),
    through: Timestamp,
) -> Vec<(Timestamp, Timestamp)> {
    let mut windows: Vec<_> = match query.reader(pipeline) {
        Some(_) => aligned.shown_over(pane, through).into_iter().collect(),
        None => Vec::new(),
    };
    if let Some(reader) = before::readers(query).find(|reader| reader.pipeline == pipeline) {
        let until = pane.plus(query.reach(reader.pane));
        windows.extend(aligned.shown_after(pane, until, through));
    }
    windows
}
