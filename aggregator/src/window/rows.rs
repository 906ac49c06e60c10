//! Result rows: a key's panes over a span of time, merged from all pipelines that the query reads and lowered once.

use std::collections::BTreeSet;

use catchment_common::limits::WINDOW_STEP_MIN;
use catchment_common::lower::{self, lower};
use catchment_common::plan::{Column, PipelineId, Query};
use catchment_common::sketch::{Course, Series, Sketch, SketchKind, empty_row};
use catchment_common::stats::Stats;
use catchment_common::time::{Span, Timestamp};

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

/// What a key has over a cut.
struct Merged {
    readings: u64,
    /// For each field of the query.
    stats: Vec<Stats>,
    /// For each sketch of the query.
    sketches: Vec<Sketch>,
    /// At the places of series: see [`Courses::through`].
    courses: Vec<Option<Course>>,
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
            status: status(cut.start, cut.end, (self.coverage)(cut.end)),
            why,
            is_coarse: cut.kind == Kind::Coarse,
            is_session: cut.kind == Kind::Session,
            rows: keys.into_iter().filter_map(|key| self.row(cut, key)).collect(),
        }
    }

    /// The row of a key and count window, and the times of its first and last.
    pub(super) fn counted(&self, cut: Cut, key: Box<[u8]>) -> Option<(Row, Part)> {
        let merged = self.merge(cut, &key);
        let (first, last) = ends(&merged.stats)?;
        let row = self.lower(key, &merged, last.since(first))?;
        Some((row, (first, last)))
    }

    /// The row of a key over the cut.
    fn row(&self, cut: Cut, key: Box<[u8]>) -> Option<Row> {
        let merged = self.merge(cut, &key);
        self.lower(key, &merged, cut.size())
    }

    /// Merges a key's panes over the cut, from all pipelines that it is assembled from.
    fn merge(&self, cut: Cut, key: &[u8]) -> Merged {
        let RunningQuery {
            query,
            sketches: kinds,
            series,
            ..
        } = self.query;
        let mut readings = 0_u64;
        let mut stats = vec![Stats::IDENTITY; query.fields.len()];
        let mut sketches = empty_row(kinds.iter().copied());
        let mut courses = Courses::new(query, series);
        for reader in cut.readers(self.query) {
            let Some(pipeline) = self.panes.pipeline(reader.pipeline) else {
                continue;
            };
            let Some(id) = pipeline.find(key) else { continue };
            for (_, pane) in pipeline.range(cut.earliest(reader.pane)..cut.end) {
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
        Merged {
            courses: courses.through(kinds.len()),
            readings,
            stats,
            sketches,
        }
    }

    /// What stands in a row that covers so much time; none without readings.
    fn lower(&self, key: Box<[u8]>, merged: &Merged, span: Span) -> Option<Row> {
        let RunningQuery { query, columns, .. } = self.query;
        let held = lower::Merged {
            stats: &merged.stats,
            sketches: &merged.sketches,
            courses: &merged.courses,
        };
        let answer = |column: &Column| lower(query, column, held, span);
        (merged.readings > 0).then(|| Row {
            key,
            readings: merged.readings,
            values: columns.iter().map(answer).collect(),
        })
    }
}

/// The series of one row, gathered pane by pane.
///
/// Their panes are not merged: a window may have far more points than a pane, and needs them once.
struct Courses<'p> {
    query: &'p Query,
    /// For each series its place among the sketches, and the field that it is of.
    series: &'p [(usize, usize)],
    /// For each its panes; none if one of them has values whose points were not kept.
    panes: Vec<Option<Vec<&'p Series>>>,
}

impl<'p> Courses<'p> {
    fn new(query: &'p Query, series: &'p [(usize, usize)]) -> Self {
        Self {
            query,
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
        for (&(place, field), panes) in self.series.iter().zip(self.panes) {
            let rules = self.query.fields[field].kind.rules();
            courses[place] = panes.and_then(|panes| Course::through(panes, rules));
        }
        courses
    }
}
