//! What queries that need every point of a field ask of their pipelines: panes that are narrow enough, and keys that
//! are one counter each.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Aggregate, Field, Part, Plan, PlanFault, Problem, Query, Window};
use crate::limits::{PANES_PER_WINDOW_MAX, WINDOW_STEP_MIN};
use crate::time::Span;

/// How many times its length a window looks back if the plan says nothing else: over one neighbour without a reading. The
/// centre keeps panes in memory for so much longer, and a late reading revises so many windows more.
const LOOKBACK_WINDOWS: i64 = 2;
/// Widest pane of a series, if its windows do not take more than [`PANES_PER_WINDOW_MAX`] of these:
/// [`crate::limits::SERIES_POINTS_MAX`] points are then six readings a second.
const PANE_MAX: Span = Span::from_secs(600);

impl Aggregate {
    /// Whether it is answered from the points of this field.
    pub fn is_of_points(&self, field: &Field) -> bool {
        match self {
            Self::Increase | Self::TimeWeightedMean => true,
            Self::Rate => field.kind.is_counter(),
            _ => false,
        }
    }
}

impl Query {
    /// How far back from a window's start readings before it matter. A function that goes from reading to reading goes on
    /// from the last of them, so that the step over the window's edge is in one of the two windows. Zero where no function
    /// does, and for windows without an edge to go over: sessions, between which there is a pause, and windows with `count`.
    /// Twice the window's length if the plan says nothing else.
    pub fn lookback(&self) -> Span {
        let has_edges = matches!(self.window, Window::Hopping(_) | Window::Calendar { .. });
        let is_of_points =
            |aggregate: &Aggregate| self.fields.iter().any(|field| aggregate.is_of_points(field));
        if !has_edges || !self.aggregates.iter().any(is_of_points) {
            return Span::ZERO;
        }
        let longest = self.window.longest().as_micros();
        self.lookback
            .unwrap_or(Span::from_micros(longest.saturating_mul(LOOKBACK_WINDOWS)))
    }

    /// The widest pane that this query can have. Windows that need points are made of narrower ones than they could:
    /// the bound is per pane, and a window has no bound.
    pub(super) fn pane(&self) -> Span {
        let pane = self.window.pane();
        if !self.needs_points() {
            return pane;
        }
        let panes = PANES_PER_WINDOW_MAX / 2;
        let widest = PANE_MAX
            .as_micros()
            .max(self.window.longest().as_micros() / panes);
        let fewest = (pane.as_micros() + widest - 1) / widest;
        // A pane of whole milliseconds has a whole part soon after; if not, it stays what it is.
        let part = |parts: &i64| {
            let part = Span::from_micros(pane.as_micros() / parts);
            pane.as_micros() % parts == 0 && part.is_multiple_of(WINDOW_STEP_MIN)
        };
        let parts = (fewest.max(1)..=fewest.max(1) * 2).find(part).unwrap_or(1);
        Span::from_micros(pane.as_micros() / parts)
    }

    /// The first aggregate, by its place, that is answered from the points of a field, and the field.
    pub(super) fn first_of_points(&self) -> Option<(usize, &Field)> {
        let mut aggregates = self.aggregates.iter().enumerate();
        aggregates.find_map(|(place, aggregate)| {
            let field = self.fields.iter().find(|field| aggregate.is_of_points(field));
            field.map(|field| (place, field))
        })
    }

    fn needs_points(&self) -> bool {
        self.first_of_points().is_some()
    }
}

impl Plan {
    /// Queries that take what may be several counters for one: their key leaves a part of the topic out.
    pub(super) fn mixed_points(&self) -> Vec<PlanFault> {
        let queries = self.queries.iter().enumerate();
        queries
            .filter_map(|(index, query)| {
                let (place, field) = query.first_of_points()?;
                let (what, hint) = left_out(query)?;
                let (aggregate, name) = (&query.aggregates[place], &field.name);
                let message = format!(
                    "`{aggregate}` of `{name}` takes all readings of a key for one series, and the key leaves out {what}"
                );
                Some(PlanFault {
                    query: index,
                    part: Part::Aggregate(place),
                    problem: Problem { message, hint },
                })
            })
            .collect()
    }
}

/// What of the topic the key leaves out, and what to do about it.
fn left_out(query: &Query) -> Option<(String, String)> {
    let mut captures = query.topic.captures();
    if let Some(capture) = captures.find(|capture| !query.key.iter().any(|tag| tag == capture)) {
        let hint = format!("put `{capture}` into the key, and add up its rows with SQL");
        return Some((format!("`{{{capture}}}`"), hint));
    }
    // A tag of the payload is most likely what tells devices apart.
    let has_paid = query.tags.iter().any(|tag| query.key.contains(&tag.name));
    (query.topic.has_wildcard() && !has_paid).then(|| {
        let hint = "capture it with a name and put that into the key, if more than one device of a key publishes there";
        (String::from("what `+` or `#` in the topic stands for"), hint.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::pipeline::tests::query;
    use crate::plan::{FieldKind, FieldSource, Window};
    use crate::topic::TopicTemplate;

    fn counting(size: i64) -> Query {
        let mut query = query("q", size, &[]);
        query.aggregates = alloc::vec![Aggregate::Increase];
        query.key = alloc::vec!["device".into()];
        query.fields = alloc::vec![Field {
            name: "kwh".into(),
            source: FieldSource::path("kwh"),
            resolution: None,
            kind: FieldKind::COUNTER,
        }];
        query
    }

    #[test]
    fn panes_of_points_are_narrow_and_whole_parts() {
        for (size, pane_ms) in [
            (10, 10_000),
            (600, 600_000),
            (900, 450_000),
            (3_600, 600_000),
            (86_400, 600_000),
            // Ten days: a part that divides them.
            (864_000, 600_000),
            (366 * 86_400, 6_324_480),
        ] {
            let mut query = counting(size);
            assert_eq!(query.pane(), Span::from_millis(pane_ms), "{size} s");
            assert!(query.window.fits(query.pane()));
            query.aggregates = alloc::vec![Aggregate::Sum];
            assert_eq!(query.pane(), Span::from_secs(size), "one value is enough");
        }
        let mut odd = counting(1);
        // A prime of milliseconds has no part but itself.
        odd.window = Window::tumbling(Span::from_millis(1_000_003));
        assert_eq!(odd.pane(), Span::from_millis(1_000_003));
    }

    #[test]
    fn a_rung_of_the_ladder_is_the_pane_that_the_windows_could_have() {
        let mut query = counting(3_600);
        query.coarsen = query.window.default_ladder();
        let plan = Plan {
            version: 1,
            queries: alloc::vec![query],
        };
        assert_eq!(plan.validate(), []);
        assert_eq!(plan.warnings(), [], "narrow panes are meant");
        let planned = plan.pipelines();
        assert_eq!(planned.pipelines[0].pane, Span::from_secs(600));
        assert_eq!(
            planned.ladders[0][..2],
            [Span::from_secs(3_600), Span::from_secs(21_600)]
        );
    }

    #[test]
    fn keys_that_may_be_several_counters_are_told_of() {
        let warned = |topic: &str, key: &[&str], aggregate: Aggregate| {
            let mut query = counting(60);
            query.topic = TopicTemplate::parse(topic).unwrap();
            query.key = key.iter().map(|tag| (*tag).into()).collect();
            query.aggregates = alloc::vec![Aggregate::Count, aggregate];
            let plan = Plan {
                version: 1,
                queries: alloc::vec![query],
            };
            let warnings = plan.warnings().into_iter();
            let texts = warnings.map(|warning| {
                assert_eq!((warning.query, warning.part), (0, Part::Aggregate(1)));
                alloc::string::ToString::to_string(&warning.problem)
            });
            texts.collect::<Vec<_>>()
        };
        assert_eq!(
            warned("s/{site}/{device}", &["site"], Aggregate::Rate),
            [
                "`rate` of `kwh` takes all readings of a key for one series, and the key leaves out `{device}`; put \
              `device` into the key, and add up its rows with SQL"
            ]
        );
        assert_eq!(
            warned("s/{site}/+", &["site"], Aggregate::TimeWeightedMean),
            [
                "`time_weighted_mean` of `kwh` takes all readings of a key for one series, and the key leaves out what `+` \
              or `#` in the topic stands for; capture it with a name and put that into the key, if more than one device \
              of a key publishes there"
            ]
        );
        assert_eq!(
            warned("s/{site}/{device}", &["device", "site"], Aggregate::Increase),
            [""; 0]
        );
        assert_eq!(warned("s/{site}/{device}", &["site"], Aggregate::Sum), [""; 0]);
    }
}
