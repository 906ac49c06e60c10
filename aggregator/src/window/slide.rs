//! Rows of one key over many neighbouring windows, which share most of their panes.
//!
//! Merging commutes and groups as one likes, but nothing can be taken out again. So a window is put together of two
//! parts: the panes up to a middle, merged from each of them on before any window asks, and those after it, merged as
//! the windows come to them. When the windows have left the middle behind, the next one is where they are. Each pane is
//! merged twice, however many windows are over it.

use catchment_common::time::Timestamp;

use super::View;
use super::aligned::Aligned;
use super::merged::{Merged, Piece};
use super::rows::Cut;
use crate::catalog::RunningQuery;
use crate::commit::Row;
use crate::watermarks::Coverage;

/// Fewer windows are put together one by one.
const SLIDE_MIN: usize = 4;

/// Whether neighbouring windows of a query can share what was merged. Points cannot: a window needs each once, in order.
pub(super) fn shares(query: &RunningQuery) -> bool {
    query.series.is_empty()
}

/// What was merged up to the middle and after it.
struct Slide<'p> {
    pieces: Vec<(Timestamp, Piece<'p>)>,
    /// For each piece from `base` to the middle: it, and all from there to the middle.
    before: Vec<Merged<'p>>,
    base: usize,
    middle: usize,
    after: Merged<'p>,
    low: usize,
    high: usize,
}

impl<'p> Slide<'p> {
    fn new(query: &'p RunningQuery, pieces: Vec<(Timestamp, Piece<'p>)>) -> Self {
        Self {
            pieces,
            before: Vec::new(),
            base: 0,
            middle: 0,
            after: Merged::new(query),
            low: 0,
            high: 0,
        }
    }

    /// All pieces from `start` until `end`. Neither goes back from call to call.
    fn window(&mut self, query: &'p RunningQuery, start: Timestamp, end: Timestamp) -> Merged<'p> {
        while let Some(&(_, piece)) = self.pieces.get(self.high).filter(|(at, _)| *at < end) {
            self.after.add(piece);
            self.high += 1;
        }
        while self.low < self.high && self.pieces[self.low].0 < start {
            self.low += 1;
        }
        if self.low >= self.middle {
            (self.base, self.middle) = (self.low, self.high);
            self.after = Merged::new(query);
            self.before.clear();
            let mut merged = Merged::new(query);
            for (_, piece) in self.pieces[self.low..self.high].iter().rev() {
                merged.add(*piece);
                self.before.push(merged.clone());
            }
            self.before.reverse();
        }
        let mut merged = match self.before.get(self.low - self.base) {
            Some(before) => before.clone(),
            None => Merged::new(query),
        };
        merged.merge(&self.after);
        merged
    }
}

impl<C: Fn(Timestamp) -> Coverage> View<'_, C> {
    /// The rows of a key in the windows that start from `first` to `last`, of those that have any data, and how many
    /// pieces were merged.
    pub(super) fn neighbours(
        &self,
        aligned: &Aligned,
        key: &[u8],
        (first, last): (Timestamp, Timestamp),
    ) -> (Vec<(Timestamp, Row)>, usize) {
        let starts =
            || std::iter::successors(Some(first), |&at| Some(aligned.next(at))).take_while(|at| *at <= last);
        if !shares(self.query) || aligned.count(first, last) < SLIDE_MIN {
            let mut merged = 0;
            let rows = starts().filter_map(|start| {
                let cut = Cut::window(start, aligned.end(start));
                let (row, pieces) = self.row(cut, key.into());
                merged += pieces;
                Some((start, row?))
            });
            return (rows.collect(), merged);
        }
        let pieces = self.pieces(Cut::window(first, aligned.end(last)), key);
        let merged = 2 * pieces.len();
        let mut slide = Slide::new(self.query, pieces);
        let rows = starts().filter_map(|start| {
            let end = aligned.end(start);
            let merged = slide.window(self.query, start, end);
            Some((start, merged.lower(key.into(), end.since(start))?))
        });
        let rows: Vec<_> = rows.collect();
        let merged = merged + 2 * rows.len();
        (rows, merged)
    }

    /// A key's part of each pane of a cut, by the panes' starts.
    fn pieces(&self, cut: Cut, key: &[u8]) -> Vec<(Timestamp, Piece<'_>)> {
        let mut pieces: Vec<(Timestamp, Piece<'_>)> = Vec::new();
        self.each(cut, key, |at, piece| pieces.push((at, piece)));
        pieces.sort_by_key(|(at, _)| *at);
        pieces
    }
}
