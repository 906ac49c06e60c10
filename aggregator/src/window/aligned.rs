//! Windows whose bounds are fixed beforehand: which of them hold a pane, and which are due.

use catchment_common::plan::{Hopping, Window};
use catchment_common::time::{Span, Timestamp};

use super::calendar::{Calendar, Zone};
use super::rows::Cut;
use super::{Horizon, View, why_due};
use crate::commit::QueryResults;
use crate::merge::PipelinePanes;
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

    /// The start of the window after the one that starts here.
    pub(super) fn next(&self, start: Timestamp) -> Timestamp {
        match self {
            Self::Hopping(hopping) => start.plus(hopping.every),
            Self::Calendar(_) => self.end(start),
        }
    }

    /// How far apart starts are, where all are alike; nothing where they are not.
    pub(super) fn step(&self) -> Span {
        match self {
            Self::Hopping(hopping) => hopping.every,
            Self::Calendar(_) => Span::ZERO,
        }
    }

    /// The first window from `first` on, which is a start, that ends after an instant.
    fn first_after(&self, first: Timestamp, after: Timestamp) -> Timestamp {
        match self {
            Self::Hopping(hopping) if self.end(first) <= after => {
                hopping.last_start(after.minus(hopping.size)).plus(hopping.every)
            }
            Self::Calendar(calendar) if self.end(first) <= after => calendar.around(after).0,
            Self::Hopping(_) | Self::Calendar(_) => first,
        }
    }

    /// The first and the last window over a pane that end by `through`.
    pub(super) fn shown_over(&self, pane: Timestamp, through: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let first = self.over(pane).next()?;
        let last = match self {
            Self::Hopping(hopping) => {
                let last = hopping.last_start(through.minus(hopping.size));
                last.min(hopping.last_start(pane))
            }
            Self::Calendar(_) => first,
        };
        (first <= last && self.end(last) <= through).then_some((first, last))
    }

    /// Stretches of the windows that start after an instant, by `until`, and end by `through`.
    pub(super) fn shown_after(
        &self,
        after: Timestamp,
        until: Timestamp,
        through: Timestamp,
    ) -> Vec<(Timestamp, Timestamp)> {
        match self {
            Self::Hopping(hopping) => {
                let first = hopping.last_start(after).plus(hopping.every);
                let ended = hopping.last_start(through.minus(hopping.size));
                let last = hopping.last_start(until).min(ended);
                if first <= last {
                    vec![(first, last)]
                } else {
                    Vec::new()
                }
            }
            Self::Calendar(calendar) => {
                let first = self.end(calendar.around(after).0);
                let starts = std::iter::successors(Some(first), |&start| Some(self.next(start)));
                starts
                    .take_while(|&start| start <= until && self.end(start) <= through)
                    .map(|start| (start, start))
                    .collect()
            }
        }
    }

    /// How many windows start from `first` to `last`, which are two of them.
    pub(super) fn count(&self, first: Timestamp, last: Timestamp) -> usize {
        match self {
            Self::Hopping(hopping) => {
                let steps = last.since(first).as_micros() / hopping.every.as_micros().max(1);
                usize::try_from(steps).unwrap_or(0) + 1
            }
            // Those of a calendar stand alone.
            Self::Calendar(_) => 1,
        }
    }

    /// The last of at most so many windows, one at least, from `first` to `last`, and how many those are.
    pub(super) fn reach(&self, first: Timestamp, last: Timestamp, most: usize) -> (Timestamp, usize) {
        let count = self.count(first, last).min(most.max(1));
        let steps = i64::try_from(count - 1).unwrap_or(0);
        let reach = self.step().as_micros().saturating_mul(steps);
        (first.plus(Span::from_micros(reach)), count)
    }

    /// The end of the window that starts here.
    pub fn end(&self, start: Timestamp) -> Timestamp {
        match self {
            Self::Hopping(hopping) => start.plus(hopping.size),
            Self::Calendar(calendar) => calendar.around(start).1,
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
    for start in Due::new(view, aligned, horizon.through, through) {
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

/// The windows with data that end after the horizon and by `through`, from the earliest on.
struct Due<'d> {
    aligned: &'d Aligned,
    pipelines: Vec<&'d PipelinePanes>,
    /// The next window may start here, if any does.
    next: Option<Timestamp>,
    through: Timestamp,
}

impl<'d> Due<'d> {
    fn new<C>(view: &View<'d, C>, aligned: &'d Aligned, after: Timestamp, through: Timestamp) -> Self {
        let readers = view.query.readers.iter();
        let pipelines = readers.filter_map(|reader| view.panes.pipeline(reader.pipeline));
        let mut due = Self {
            aligned,
            pipelines: pipelines.collect(),
            next: None,
            through,
        };
        let earliest = due.first_pane(after.minus(view.query.query.window.longest()));
        let first = earliest.and_then(|pane| aligned.over(pane).next());
        due.next = first.map(|first| aligned.first_after(first, after));
        due
    }

    /// The first pane in memory that starts at or after this.
    fn first_pane(&self, from: Timestamp) -> Option<Timestamp> {
        let first = |pipeline: &&PipelinePanes| pipeline.range(from..).next().map(|(start, _)| start);
        self.pipelines.iter().filter_map(first).min()
    }
}

impl Iterator for Due<'_> {
    type Item = Timestamp;

    fn next(&mut self) -> Option<Timestamp> {
        let from = self.next.take()?;
        // Where there are no panes there are no rows, so those windows are passed over.
        let pane = self.first_pane(from)?;
        let start = self.aligned.over(pane).next()?.max(from);
        let is_due = self.aligned.end(start) <= self.through;
        self.next = is_due.then(|| self.aligned.next(start));
        is_due.then_some(start)
    }
}
