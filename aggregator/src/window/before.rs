//! What a key had before a window, for functions that go from reading to reading.
//!
//! A meter that reads once an hour has one reading in each window of an hour, and all that it counts lies between two of
//! them. So `increase`, the `rate` of a counter and `time_weighted_mean` go on from the last reading before the window, as
//! far back as the query looks ([`catchment_common::plan::Query::lookback`]). Nothing is remembered for this: the reading
//! is in a pane like any other, also in a coarser one that fits no window, and late data before a window revises that
//! window, too.
//!
//! Where a pane has values that nobody kept (an earlier plan did not ask for points, or there were too many), only what
//! comes after that pane is known: the last value, if one does, and never a counter's level.

use catchment_common::plan::FieldKind;
use catchment_common::sketch::{Series, Sketch};
use catchment_common::time::{Span, Timestamp};

use super::View;
use super::merged::{Before, Piece};
use crate::catalog::{Reader, RunningQuery};

/// What one pane has of a series.
enum Held<'p> {
    Nothing,
    Points(&'p Series),
    /// Values, and nobody has kept them.
    Lost,
}

/// All readers whose panes may hold what was before a window: none for a query that does not look back.
pub(super) fn readers(query: &RunningQuery) -> impl Iterator<Item = &Reader> {
    let looks = query.query.lookback() > Span::ZERO;
    let readers = query.readers.iter().chain(&query.coarse);
    readers.filter(move |_| looks)
}

impl<C> View<'_, C> {
    /// What each series of a key had before a window that starts here; nothing for a query that does not look back.
    pub(super) fn before(&self, key: &[u8], start: Timestamp) -> Vec<Before<'_>> {
        let lookback = self.query.query.lookback();
        if lookback <= Span::ZERO {
            return Vec::new();
        }
        let nothing = Before {
            parts: Vec::new(),
            from: start.minus(lookback),
            is_lost: false,
        };
        let mut found = vec![nothing; self.query.series.len()];
        for reader in readers(self.query) {
            self.look_back(reader, key, start, &mut found);
        }
        for (before, &(_, field)) in found.iter_mut().zip(&self.query.series) {
            // Of a mean over time only the last value matters; a counter's level may depend on all.
            let is_gauge = self.query.query.fields[field].kind == FieldKind::Gauge;
            let mut points = before.parts.iter().flat_map(|part| part.points());
            before.is_lost &= !(is_gauge && points.any(|point| before.from <= point.at && point.at < start));
        }
        found
    }

    fn look_back<'s>(&'s self, reader: &'s Reader, key: &[u8], start: Timestamp, found: &mut [Before<'s>]) {
        let Some(pipeline) = self.panes.pipeline(reader.pipeline) else {
            return;
        };
        let Some(id) = pipeline.find(key) else { return };
        let earliest = start.minus(self.query.reach(reader.pane));
        for (at, pane) in pipeline.range(earliest..start) {
            let Some((readings, stats)) = pane.row(id) else {
                continue;
            };
            let piece = Piece {
                reader,
                readings,
                stats,
                sketches: pane.sketches(id),
            };
            let end = at.plus(reader.pane).min(start);
            for (before, &(place, field)) in found.iter_mut().zip(&self.query.series) {
                match held(piece, place, field) {
                    Held::Points(series) => before.parts.push(series),
                    Held::Lost if end > before.from => {
                        before.from = end;
                        before.is_lost = true;
                    }
                    Held::Nothing | Held::Lost => {}
                }
            }
        }
    }
}

/// What a pane has of the series in this place of the query, which is about this field.
fn held(piece: Piece<'_>, place: usize, field: usize) -> Held<'_> {
    let Some(held) = piece.reader.fields[field] else {
        return if piece.readings > 0 {
            Held::Lost
        } else {
            Held::Nothing
        };
    };
    if piece.stats.get(held.place).is_none_or(|stats| stats.count == 0) {
        return Held::Nothing;
    }
    let sketch = piece.reader.sketches[place].and_then(|place| piece.sketches.get(place));
    match sketch {
        Some(Sketch::Series(series)) if held.components.is_some() && !series.is_too_long() => {
            Held::Points(series)
        }
        _ => Held::Lost,
    }
}
