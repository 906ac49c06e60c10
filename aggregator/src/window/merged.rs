//! What a key has over a cut, merged from panes of all pipelines that the query reads, and what is known of it.
//!
//! A pipeline of an earlier plan may lack a field, a component or a sketch that the query asks for today. Its readings
//! count all the same, and what they would have said is lost: no answer is better than one about some of the readings.
//! So beside each field and sketch stands what *every* part with something to say has kept of it, and a column whose
//! function needs more is NULL.

use catchment_common::lower::{self, lower};
use catchment_common::plan::{Column, Components};
use catchment_common::sketch::{Course, Edges, Series, Sketch, SketchKind, empty_row, merge_rows};
use catchment_common::stats::{Lowered, Stats};
use catchment_common::time::{Span, Timestamp};

use super::session::{Part, ends};
use crate::catalog::{Reader, RunningQuery};
use crate::commit::Row;

/// What a key has over a cut.
#[derive(Clone)]
pub(super) struct Merged<'p> {
    query: &'p RunningQuery,
    readings: u64,
    /// For each field of the query.
    stats: Vec<Stats>,
    /// For each field what all parts have kept of it: none if one of them may have values that were never counted.
    kept: Vec<Option<Components>>,
    /// For each sketch of the query.
    sketches: Vec<Sketch>,
    /// For each sketch whether all parts have kept it.
    is_whole: Vec<bool>,
    /// The panes of each series, which are not merged: a window may have far more points than a pane, and needs them
    /// once.
    series: Vec<Vec<&'p Series>>,
    /// The times of the first and the last reading.
    ends: Option<Part>,
}

/// One key's part of one pane.
#[derive(Clone, Copy)]
pub(super) struct Piece<'p> {
    pub(super) reader: &'p Reader,
    pub(super) readings: u64,
    pub(super) stats: &'p [Stats],
    pub(super) sketches: &'p [Sketch],
}

/// What one series of a key had before a window.
#[derive(Clone, Debug)]
pub(super) struct Before<'p> {
    /// The panes that have points of that time, in no order.
    pub(super) parts: Vec<&'p Series>,
    /// Points before this do not matter, or others beside them are not known.
    pub(super) from: Timestamp,
    /// Whether there were values that would have to be known.
    pub(super) is_lost: bool,
}

impl<'p> Merged<'p> {
    /// Of nothing.
    pub(super) fn new(query: &'p RunningQuery) -> Self {
        Self {
            readings: 0,
            stats: vec![Stats::IDENTITY; query.query.fields.len()],
            kept: vec![Some(Components::STATS); query.query.fields.len()],
            sketches: empty_row(query.sketches.iter().copied()),
            is_whole: vec![true; query.sketches.len()],
            series: vec![Vec::new(); query.series.len()],
            ends: None,
            query,
        }
    }

    /// Adds a part.
    pub(super) fn add(&mut self, piece: Piece<'p>) {
        self.readings = self.readings.saturating_add(piece.readings);
        let ends = [self.ends, ends(piece.stats)].into_iter().flatten();
        self.ends = ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        self.add_stats(piece);
        if !self.sketches.is_empty() {
            self.add_sketches(piece);
        }
    }

    fn add_stats(&mut self, piece: Piece<'p>) {
        let fields = self.stats.iter_mut().zip(&mut self.kept);
        for ((merged, kept), held) in fields.zip(&piece.reader.fields) {
            let Some(held) = held else {
                *kept = None;
                continue;
            };
            let Some(more) = piece.stats.get(held.place).filter(|more| more.count > 0) else {
                continue;
            };
            if let Some(components) = held.components {
                merged.merge(more);
                *kept = kept.map(|kept| kept & components);
            } else {
                // Values that were rounded otherwise: how many they are is all that they have in common.
                merged.count = merged.count.saturating_add(more.count);
                *kept = kept.and(Some(Components::COUNT));
            }
        }
    }

    fn add_sketches(&mut self, piece: Piece<'p>) {
        let RunningQuery {
            sketches: kinds,
            about,
            series,
            ..
        } = self.query;
        let places = piece.reader.sketches.iter().zip(about);
        for (index, (place, about)) in places.enumerate() {
            let Some(more) = place.and_then(|place| piece.sketches.get(place)) else {
                // What says nothing of its field has kept all there was.
                let field = about.and_then(|field| piece.reader.fields[field].as_ref());
                let is_silent = field
                    .and_then(|held| piece.stats.get(held.place))
                    .is_some_and(|stats| stats.count == 0);
                self.is_whole[index] &= is_silent;
                continue;
            };
            match (kinds[index], more) {
                (SketchKind::Series, Sketch::Series(points)) => {
                    let place = series.iter().position(|(place, _)| *place == index);
                    self.series[place.unwrap_or_default()].push(points);
                }
                (kind, more) => self.sketches[index].merge(kind, more),
            }
        }
    }

    /// Adds all that another has, of the same query.
    pub(super) fn merge(&mut self, more: &Self) {
        self.readings = self.readings.saturating_add(more.readings);
        let ends = [self.ends, more.ends].into_iter().flatten();
        self.ends = ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        for (held, more) in self.stats.iter_mut().zip(&more.stats) {
            held.merge(more);
        }
        for (kept, more) in self.kept.iter_mut().zip(&more.kept) {
            *kept = kept.zip(*more).map(|(kept, more)| kept & more);
        }
        merge_rows(
            &mut self.sketches,
            &more.sketches,
            self.query.sketches.iter().copied(),
        );
        for (whole, more) in self.is_whole.iter_mut().zip(&more.is_whole) {
            *whole &= more;
        }
        for (held, more) in self.series.iter_mut().zip(&more.series) {
            held.extend(more);
        }
    }

    /// The times of the first and the last reading.
    pub(super) fn ends(&self) -> Option<Part> {
        self.ends
    }

    /// What stands in a row that covers so much time; none without readings.
    pub(super) fn lower(self, key: Box<[u8]>, span: Span) -> Option<Row> {
        self.lower_after(key, span, Timestamp::MIN, Vec::new())
    }

    /// What stands in the row of a window that starts here. `before` says what each series had before it, and is empty
    /// for a query that does not look back.
    pub(super) fn lower_after(
        mut self,
        key: Box<[u8]>,
        span: Span,
        start: Timestamp,
        before: Vec<Before<'p>>,
    ) -> Option<Row> {
        if self.readings == 0 {
            return None;
        }
        let RunningQuery {
            query,
            columns,
            series,
            ..
        } = self.query;
        let mut courses = vec![None; if series.is_empty() { 0 } else { self.sketches.len() }];
        let mut before = before.into_iter();
        for (&(place, field), panes) in series.iter().zip(self.series) {
            let before = before.next();
            self.is_whole[place] &= before.as_ref().is_none_or(|before| !before.is_lost);
            let edges = before.map(|Before { parts, from, .. }| Edges {
                before: parts,
                from,
                start,
                end: start.plus(span),
            });
            courses[place] = Course::through(panes, query.fields[field].kind.rules(), edges);
        }
        let held = lower::Merged {
            stats: &self.stats,
            sketches: &self.sketches,
            courses: &courses,
        };
        let is_known = |column: &Column| {
            let needed = query.aggregates[column.aggregate].components();
            let field = column.field.and_then(|field| self.kept[field]);
            (column.field.is_none() || field.is_some_and(|kept| kept.contains(needed)))
                && column.sketch.is_none_or(|place| self.is_whole[place])
        };
        let answer = |column: &Column| -> Option<Lowered> {
            is_known(column)
                .then(|| lower(query, column, held, span))
                .flatten()
        };
        Some(Row {
            key,
            readings: self.readings,
            values: columns.iter().map(answer).collect(),
        })
    }
}
