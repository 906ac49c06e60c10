//! Result rows: a key's panes over a span of time, merged from all pipelines that the query reads and lowered once.

use std::collections::BTreeSet;

use catchment_common::limits::WINDOW_STEP_MIN;
use catchment_common::plan::PipelineId;
use catchment_common::stats::Stats;
use catchment_common::time::{Span, Timestamp};

use super::merged::{Merged, Piece};
use super::session::{Part, ends};
use super::{View, status};
use crate::catalog::{Reader, RunningQuery};
use crate::commit::{Row, Why, WindowRows};
use crate::merge::{KeyId, Panes};
use crate::watermarks::Coverage;

/// What a row summarises: a window, or one coarser pane.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    start: Timestamp,
    end: Timestamp,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Window,
    /// All panes with a reading in it lie in it.
    Session,
    Coarse,
}

impl Cut {
    pub(super) fn window(start: Timestamp, end: Timestamp) -> Self {
        Self {
            start,
            end,
            kind: Kind::Window,
        }
    }

    /// From a session's first reading to the gap after its last.
    pub(super) fn session(start: Timestamp, end: Timestamp) -> Self {
        Self {
            start,
            end,
            kind: Kind::Session,
        }
    }

    /// One count window, whose number stands for its pane.
    pub(super) fn number(number: Timestamp) -> Self {
        Self::window(number, number.plus(WINDOW_STEP_MIN))
    }

    pub(super) fn coarse(start: Timestamp, size: Span) -> Self {
        Self {
            start,
            end: start.plus(size),
            kind: Kind::Coarse,
        }
    }

    fn size(self) -> Span {
        self.end.since(self.start)
    }

    /// The pipelines that it is assembled from.
    fn readers(self, query: &RunningQuery) -> impl Iterator<Item = &Reader> {
        let is_coarse = self.kind == Kind::Coarse;
        let all = if is_coarse { &query.coarse } else { &query.readers };
        all.iter()
            .filter(move |reader| !is_coarse || reader.pane == self.size())
    }

    /// The earliest start of a pane that may be part of it.
    fn earliest(self, pane: Span) -> Timestamp {
        match self.kind {
            Kind::Session => self.start.minus(pane),
            Kind::Window | Kind::Coarse => self.start,
        }
    }

    /// Whether a key's part of a pane in reach is in it.
    fn has(self, stats: &[Stats]) -> bool {
        self.kind != Kind::Session
            || ends(stats).is_some_and(|(first, last)| self.start <= first && last < self.end)
    }
}

/// The keys behind these numbers, in order.
pub(super) fn keys_of(panes: &Panes, touched: BTreeSet<(PipelineId, KeyId)>) -> Vec<Box<[u8]>> {
    let keys = touched
        .into_iter()
        .filter_map(|(pipeline, key)| Some(panes.pipeline(pipeline)?.key(key).into()));
    let mut keys: Vec<Box<[u8]>> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

impl<C> View<'_, C> {
    /// The keys with data between these instants, in order.
    pub(super) fn keys_within(&self, start: Timestamp, end: Timestamp) -> Vec<Box<[u8]>> {
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        for reader in &self.query.readers {
            let Some(pipeline) = self.panes.pipeline(reader.pipeline) else {
                continue;
            };
            let mut ids: Vec<KeyId> = Vec::new();
            for (_, pane) in pipeline.range(start..end) {
                ids.extend_from_slice(pane.ids());
            }
            ids.sort_unstable();
            ids.dedup();
            keys.extend(ids.into_iter().map(|id| pipeline.key(id).into()));
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

impl<C: Fn(Timestamp) -> Coverage> View<'_, C> {
    /// The rows of these keys, of those that have any data in the cut.
    pub(super) fn rows(&self, cut: Cut, why: Why, keys: Vec<Box<[u8]>>) -> WindowRows {
        WindowRows {
            status: status((cut.start, cut.end), self.query.since, (self.coverage)(cut.end)),
            why,
            is_coarse: cut.kind == Kind::Coarse,
            is_session: cut.kind == Kind::Session,
            rows: keys.into_iter().filter_map(|key| self.row(cut, key).0).collect(),
        }
    }

    /// The row of a key and count window, and the times of its first and last.
    pub(super) fn counted(&self, cut: Cut, key: Box<[u8]>) -> Option<(Row, Part)> {
        let (merged, _) = self.merge(cut, &key);
        let (first, last) = merged.ends()?;
        let row = merged.lower(key, last.since(first))?;
        Some((row, (first, last)))
    }

    /// The row of a key over the cut, and how many pieces were merged for it.
    pub(super) fn row(&self, cut: Cut, key: Box<[u8]>) -> (Option<Row>, usize) {
        let (merged, pieces) = self.merge(cut, &key);
        let before = match cut.kind {
            Kind::Window => self.before(&key, cut.start),
            Kind::Coarse | Kind::Session => Vec::new(),
        };
        let row = if before.is_empty() {
            merged.lower(key, cut.size())
        } else {
            merged.lower_after(key, cut.size(), cut.start, before)
        };
        (row, pieces)
    }

    /// Merges a key's panes over the cut; returns how many there are, too.
    fn merge(&self, cut: Cut, key: &[u8]) -> (Merged<'_>, usize) {
        let (mut merged, mut pieces) = (Merged::new(self.query), 0);
        self.each(cut, key, |_, piece| {
            merged.add(piece);
            pieces += 1;
        });
        (merged, pieces)
    }

    /// Hands out a key's part of each pane of a cut with the pane's start, from all pipelines that it is assembled from.
    pub(super) fn each<'s>(&'s self, cut: Cut, key: &[u8], mut take: impl FnMut(Timestamp, Piece<'s>)) {
        for reader in cut.readers(self.query) {
            let Some(pipeline) = self.panes.pipeline(reader.pipeline) else {
                continue;
            };
            let Some(id) = pipeline.find(key) else { continue };
            for (start, pane) in pipeline.range(cut.earliest(reader.pane)..cut.end) {
                let Some((readings, stats)) = pane.row(id).filter(|(_, stats)| cut.has(stats)) else {
                    continue;
                };
                let piece = Piece {
                    reader,
                    readings,
                    stats,
                    sketches: pane.sketches(id),
                };
                take(start, piece);
            }
        }
    }
}
