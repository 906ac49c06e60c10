//! Result rows: a key's panes over a span of time, merged from all slices that the query reads and lowered once.

use std::collections::BTreeSet;

use catchment_common::lower::{Merged, lower};
use catchment_common::plan::{Column, SliceId};
use catchment_common::sketch::{Course, Series, Sketch, SketchKind, empty_row};
use catchment_common::stats::Stats;
use catchment_common::time::{Span, Timestamp};

use super::session::ends;
use super::{View, status};
use crate::catalog::{Reader, RunningQuery};
use crate::commit::{Row, Why, WindowRows};
use crate::frontier::Coverage;
use crate::merge::{KeyId, Panes};

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

    /// The slices that it is assembled from.
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
pub(super) fn keys_of(panes: &Panes, touched: BTreeSet<(SliceId, KeyId)>) -> Vec<Box<[u8]>> {
    let keys = touched
        .into_iter()
        .filter_map(|(slice, key)| Some(panes.slice(slice)?.key(key).into()));
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
            let Some(slice) = self.panes.slice(reader.slice) else {
                continue;
            };
            let mut ids: Vec<KeyId> = Vec::new();
            for (_, pane) in slice.range(start..end) {
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
}

impl<C: Fn(Timestamp) -> Coverage> View<'_, C> {
    /// The rows of these keys, of those that have any data in the cut.
    pub(super) fn rows(&self, cut: Cut, why: Why, keys: Vec<Box<[u8]>>) -> WindowRows {
        WindowRows {
            status: status(cut.start, cut.end, (self.coverage)(cut.end)),
            why,
            is_coarse: cut.kind == Kind::Coarse,
            is_session: cut.kind == Kind::Session,
            rows: keys.into_iter().filter_map(|key| self.row(cut, key)).collect(),
        }
    }

    /// Merges a key's panes over the cut, from all slices that it is assembled from, and lowers the result.
    fn row(&self, cut: Cut, key: Box<[u8]>) -> Option<Row> {
        let RunningQuery {
            query,
            columns,
            sketches: kinds,
            series,
            ..
        } = self.query;
        let mut readings = 0_u64;
        let mut stats = vec![Stats::IDENTITY; query.fields.len()];
        let mut sketches = empty_row(kinds.iter().copied());
        let mut courses = Courses::new(series);
        for reader in cut.readers(self.query) {
            let Some(slice) = self.panes.slice(reader.slice) else {
                continue;
            };
            let Some(id) = slice.find(&key) else { continue };
            for (_, pane) in slice.range(cut.earliest(reader.pane)..cut.end) {
                let Some((count, partials)) = pane.row(id).filter(|(_, partials)| cut.has(partials)) else {
                    continue;
                };
                readings = readings.saturating_add(count);
                for (merged, place) in stats.iter_mut().zip(&reader.fields) {
                    if let Some(more) = place.and_then(|place| partials.get(place)) {
                        merged.merge(more);
                    }
                }
                if sketches.is_empty() {
                    continue;
                }
                let held = pane.sketches(id);
                for ((merged, place), &kind) in sketches.iter_mut().zip(&reader.sketches).zip(kinds) {
                    let more = place.and_then(|place| held.get(place));
                    if let Some(more) = more.filter(|_| kind != SketchKind::Series) {
                        merged.merge(kind, more);
                    }
                }
                courses.add(reader, partials, held);
            }
        }
        let merged = Merged {
            stats: &stats,
            sketches: &sketches,
            courses: &courses.through(kinds.len()),
        };
        let answer = |column: &Column| lower(query, column, merged, cut.size());
        (readings > 0).then(|| Row {
            key,
            readings,
            values: columns.iter().map(answer).collect(),
        })
    }
}

/// The series of one row, gathered pane by pane.
///
/// Their panes are not merged: a window may have far more points than a pane, and needs them once.
struct Courses<'p> {
    /// For each series its place among the sketches, and the field that it is of.
    series: &'p [(usize, usize)],
    /// For each its panes; none if one of them has values whose points were not kept.
    panes: Vec<Option<Vec<&'p Series>>>,
}

impl<'p> Courses<'p> {
    fn new(series: &'p [(usize, usize)]) -> Self {
        Self {
            series,
            panes: vec![Some(Vec::new()); series.len()],
        }
    }

    /// Adds a pane with these partials and sketches, read by `reader`.
    fn add(&mut self, reader: &Reader, partials: &[Stats], sketches: &'p [Sketch]) {
        for (&(place, field), panes) in self.series.iter().zip(&mut self.panes) {
            let held = reader.sketches[place].and_then(|place| sketches.get(place));
            if let (Some(Sketch::Series(series)), Some(panes)) = (held, &mut *panes) {
                panes.push(series);
                continue;
            }
            // An earlier plan's pane: no answer is better than one about some of the values.
            let partial = reader.fields[field].and_then(|field| partials.get(field));
            if partial.is_some_and(|partial| partial.count > 0) {
                *panes = None;
            }
        }
    }

    /// The courses, at the places of their sketches.
    fn through(self, sketches: usize) -> Vec<Option<Course>> {
        let mut courses = vec![None; if self.series.is_empty() { 0 } else { sketches }];
        for (&(place, _), panes) in self.series.iter().zip(self.panes) {
            courses[place] = panes.and_then(Course::through);
        }
        courses
    }
}
