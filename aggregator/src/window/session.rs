//! Sessions: for each key its readings from one pause to the next, over all agents.
//!
//! There is no state of sessions. A pane is no longer than the gap, so all readings of a key in it are of one session,
//! and its first and last reading say where: sessions are recomputed from panes whenever one is due or has new data,
//! by walking from pane to pane while the pauses between them are short. So late data, restarts and restored backups
//! need nothing of their own.
//!
//! Readings only come, they never go. A reading that begins a session today may be inside of a larger one tomorrow,
//! when late data comes before it or bridges a pause; the converse cannot happen. So whoever writes a session's row
//! also marks all rows of the key that begin inside of it as merged ([`crate::commit::WindowRows::is_session`]), and
//! the table is right without a memory of what was shown.
//!
//! A session that was shown and has grown beyond the horizon is shown again when its new end is due.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::plan::PipelineId;
use catchment_common::stats::Stats;
use catchment_common::time::{Span, Timestamp};

use super::load::Loader;
use super::rows::Cut;
use super::{Horizon, View, why_due};
use crate::catalog::RunningQuery;
use crate::commit::{PaneSource, QueryResults, SourceFault, Why};
use crate::limits::SESSION_GAPS_KEPT;
use crate::merge::{KeyId, Panes};
use crate::watermarks::Coverage;

/// What of a query's sessions must be shown.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Panes that begin behind the horizon and have new data, with the keys that have it.
    touched: BTreeMap<(PipelineId, Timestamp), BTreeSet<KeyId>>,
    /// The sessions to show, once their panes are in memory: start and end, then the keys.
    ready: BTreeMap<(Timestamp, Timestamp), BTreeSet<Box<[u8]>>>,
}

/// A part of a session: its first and last reading.
pub(super) type Part = (Timestamp, Timestamp);
/// Parts by key.
type Parts = BTreeSet<(Box<[u8]>, Part)>;

/// The first and last reading of a key in one pane.
pub(super) fn ends(fields: &[Stats]) -> Option<Part> {
    let held = fields.iter().filter(|stats| stats.has_ends());
    let ends = held.map(|stats| (stats.first.at, stats.last.at));
    ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// How finely the horizon of sessions moves: looking for those that are due costs a look at all keys of the newest
/// panes.
fn step(gap: Span) -> Span {
    // Round ones, so that whole seconds are on the grid.
    const STEPS_MS: [i64; 9] = [1_000, 500, 200, 100, 50, 20, 10, 5, 2];
    let mut steps = STEPS_MS.into_iter().map(Span::from_millis);
    let fits = |step: &Span| step.as_micros() * 16 <= gap.as_micros();
    steps.find(fits).unwrap_or(Span::from_millis(1))
}

/// Up to where sessions are shown when `due` is the instant that all have passed.
pub(super) fn horizon(gap: Span, due: Timestamp) -> Timestamp {
    due.pane_start(step(gap)).max(Timestamp::MIN)
}

/// Panes that start before this are needed for sessions behind the horizon, or for very long ones, which load them.
pub(super) fn needed_from(gap: Span, through: Timestamp) -> Timestamp {
    through.minus(Span::from_micros(gap.as_micros() * SESSION_GAPS_KEPT))
}

impl Sessions {
    /// Data was merged into a pane for these keys. A reading at or after the horizon can be of no session that was
    /// shown.
    pub(super) fn touch(
        &mut self,
        through: Timestamp,
        pipeline: PipelineId,
        pane: Timestamp,
        keys: &[KeyId],
    ) {
        if pane < through {
            self.touched.entry((pipeline, pane)).or_default().extend(keys);
        }
    }

    /// Finds the sessions that end after the horizon and by `due`, and those by `due` that have new data.
    pub(super) fn prepare<S: PaneSource>(
        &mut self,
        query: &RunningQuery,
        gap: Span,
        (through, due): (Timestamp, Timestamp),
        loader: &mut Loader<'_, S>,
    ) -> Result<(), SourceFault> {
        self.ready.clear();
        let mut parts = self.touched_parts(loader)?;
        if due > through {
            parts_due(query, gap, (through, due), loader.panes, &mut parts);
        }
        let mut walk = Walk { query, gap, loader };
        for (key, part) in parts {
            let Some((first, last)) = walk.session(&key, part, due)? else {
                continue;
            };
            self.ready.entry((first, last.plus(gap))).or_default().insert(key);
        }
        Ok(())
    }

    fn touched_parts<S: PaneSource>(&self, loader: &mut Loader<'_, S>) -> Result<Parts, SourceFault> {
        let mut parts = Parts::new();
        for (&(pipeline, pane), keys) in &self.touched {
            loader.load(pipeline, pane)?;
            let Some(held) = loader.panes.pipeline(pipeline) else {
                continue;
            };
            let Some(rows) = held.pane(pane) else { continue };
            for &id in keys {
                let part = rows.row(id).and_then(|(_, fields)| ends(fields));
                parts.extend(part.map(|part| (held.key(id).into(), part)));
            }
        }
        Ok(parts)
    }

    /// Rows of the sessions that are ready.
    pub(super) fn show<C: Fn(Timestamp) -> Coverage>(
        &mut self,
        view: &View<'_, C>,
        horizon: &mut Horizon,
        results: &mut QueryResults,
    ) {
        self.touched.clear();
        for ((start, end), keys) in std::mem::take(&mut self.ready) {
            let coverage = (view.coverage)(end);
            horizon.watch(start, end, coverage);
            let why = if end <= horizon.through {
                Why::LateData
            } else {
                why_due(coverage)
            };
            let rows = view.rows(Cut::session(start, end), why, keys.into_iter().collect());
            results.windows.push(rows);
        }
    }
}

/// The last parts of sessions that may end after the horizon and by `due`.
fn parts_due(
    query: &RunningQuery,
    gap: Span,
    (through, due): (Timestamp, Timestamp),
    panes: &Panes,
    parts: &mut Parts,
) {
    for reader in &query.readers {
        let Some(pipeline) = panes.pipeline(reader.pipeline) else {
            continue;
        };
        let from = through.minus(gap).minus(reader.pane);
        for (_, pane) in pipeline.range(from..=due.minus(gap)) {
            for &id in pane.ids() {
                let Some(part) = pane.row(id).and_then(|(_, fields)| ends(fields)) else {
                    continue;
                };
                let end = part.1.plus(gap);
                if through < end && end <= due {
                    parts.insert((pipeline.key(id).into(), part));
                }
            }
        }
    }
}

/// Walks from pane to pane.
struct Walk<'w, 'l, S> {
    query: &'w RunningQuery,
    gap: Span,
    loader: &'w mut Loader<'l, S>,
}

impl<S: PaneSource> Walk<'_, '_, S> {
    /// The session of which `part` is one, if it ends by `due`.
    fn session(&mut self, key: &[u8], part: Part, due: Timestamp) -> Result<Option<Part>, SourceFault> {
        let (mut first, mut last) = part;
        // Forward first: of a session that still goes on, nothing more needs to be known.
        loop {
            let joined = self.join(key, (last, last.plus(self.gap)), (first, last))?.1;
            if joined.plus(self.gap) > due {
                return Ok(None);
            }
            if joined == last {
                break;
            }
            last = joined;
        }
        loop {
            let joined = self.join(key, (first.minus(self.gap), first), (first, last))?.0;
            if joined == first {
                return Ok(Some((first, last)));
            }
            first = joined;
        }
    }

    /// `part` with all panes of the key that have readings within `(from, to)`, both excluded.
    fn join(&mut self, key: &[u8], (from, to): Part, part: Part) -> Result<Part, SourceFault> {
        let mut joined = part;
        for reader in &self.query.readers {
            let (earliest, latest) = (from.minus(reader.pane), to);
            self.loader.load_range(reader.pipeline, earliest, latest)?;
            let Some(pipeline) = self.loader.panes.pipeline(reader.pipeline) else {
                continue;
            };
            let Some(id) = pipeline.find(key) else { continue };
            for (_, pane) in pipeline.range(earliest..latest) {
                let Some((first, last)) = pane.row(id).and_then(|(_, fields)| ends(fields)) else {
                    continue;
                };
                if first < to && last > from {
                    joined = (joined.0.min(first), joined.1.max(last));
                }
            }
        }
        Ok(joined)
    }
}
