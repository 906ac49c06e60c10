//! What a plan costs on the uplink: panes against windows.
//!
//! A slice ships one delta for each pane and key that has readings. Its windows are assembled from them at the centre, so
//! that more queries cost nothing, as long as the panes are no narrower than their steps. Where sizes and steps have
//! little in common, the panes may be more than the windows that they make. That is no fault, but seldom meant.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Hopping, Part, Plan, PlanFault, Problem, SlicedPlan, Window};
use crate::time::Span;

const HOUR: Span = Span::from_secs(3_600);

impl Plan {
    /// What a valid plan would better do otherwise, in the form of faults.
    pub fn warnings(&self) -> Vec<PlanFault> {
        let sliced = self.slices();
        let slices = 0..sliced.slices.len();
        slices
            .filter_map(|slice| self.narrow_panes(&sliced, slice))
            .collect()
    }

    /// A slice of which the panes are more than the windows that they make.
    fn narrow_panes(&self, sliced: &SlicedPlan, slice: usize) -> Option<PlanFault> {
        let homes = self.queries.iter().zip(&sliced.readers).enumerate();
        let mine: Vec<(usize, &Window)> = homes
            .filter(|(_, (_, (home, _)))| *home == slice)
            .map(|(index, (query, _))| (index, &query.window))
            .collect();
        let pane = sliced.slices[slice].pane;
        let panes = per_hour(pane);
        let windows = mine.iter().map(|(_, window)| per_hour(window.step())).sum();
        if panes <= windows {
            return None;
        }
        let (query, hint) = own_step(&mine).unwrap_or_else(|| odd_one_out(&mine));
        let message = format!(
            "windows are made of panes of {pane}: {panes} deltas an hour for each key, more than the {windows} windows"
        );
        Some(PlanFault {
            query,
            part: Part::Window,
            problem: Problem { message, hint },
        })
    }
}

fn per_hour(span: Span) -> u64 {
    HOUR.as_micros()
        .div_euclid(span.as_micros().max(1))
        .unsigned_abs()
}

/// A query whose own size, step and offset have little in common.
fn own_step(mine: &[(usize, &Window)]) -> Option<(usize, String)> {
    let worst = mine.iter().min_by_key(|(_, window)| window.pane())?;
    let &(query, Window::Hopping(Hopping { size, every, offset })) = worst;
    let base = size.gcd(*every);
    if base < *every {
        let hint = format!(
            "an `every` of {} would divide `size`",
            nearest_part(*size, *every)
        );
        return Some((query, hint));
    }
    (base.gcd(*offset) < base).then(|| {
        let hint =
            "without `offset`, or with one that more of the step is a multiple of, panes would be wider";
        (query, hint.to_string())
    })
}

/// The query without which the others' panes would be the widest.
fn odd_one_out(mine: &[(usize, &Window)]) -> (usize, String) {
    let pane_without = |odd: usize| {
        let others = mine.iter().filter(|(query, _)| *query != odd);
        others.fold(Span::ZERO, |pane, (_, window)| pane.gcd(window.pane()))
    };
    let candidates = mine
        .iter()
        .map(|&(query, window)| (pane_without(query), query, window));
    let Some((pane, query, window)) = candidates.max_by_key(|(pane, ..)| *pane) else {
        return (0, String::new());
    };
    let step = window.step().as_micros();
    let multiple = (step + pane.as_micros() / 2) / pane.as_micros().max(1);
    let near = Span::from_micros(multiple.max(1) * pane.as_micros());
    let hint = format!(
        "the other queries on its slice need no less than {pane}: a step and size that are multiples of it, such as {near}, \
         would share them; another `lateness` gives this query panes of its own"
    );
    (query, hint)
}

/// The whole part of `size` that is nearest to `wish`, in whole milliseconds if there is one.
fn nearest_part(size: Span, wish: Span) -> Span {
    let (size_us, wish_us) = (size.as_micros(), wish.as_micros().max(1));
    let around = size_us / wish_us;
    let part = |count: i64| {
        let part = Span::from_micros(size_us / count);
        (size_us % count == 0 && part.is_multiple_of(Span::from_millis(1))).then_some(part)
    };
    // Size itself is a part, so that the search ends; the count of parts is bounded by the plan's rules.
    let fewer = (1..=around.max(1)).rev().find_map(part).unwrap_or(size);
    let more = (around + 1..=around * 2 + 16).find_map(part);
    let distance = |part: &Span| (part.as_micros() - wish_us).abs();
    more.filter(|more| distance(more) < distance(&fewer))
        .unwrap_or(fewer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::slice::tests::query;

    fn warned(windows: &[(i64, i64, i64)]) -> Vec<(usize, String)> {
        let queries = windows
            .iter()
            .enumerate()
            .map(|(index, &(size, every, offset))| {
                let mut query = query(&format!("q{index}"), size, &[]);
                query.window = Window::Hopping(Hopping {
                    size: Span::from_secs(size),
                    every: Span::from_secs(every),
                    offset: Span::from_secs(offset),
                });
                query
            })
            .collect();
        let plan = Plan { version: 1, queries };
        assert_eq!(plan.validate(), []);
        let warnings = plan.warnings().into_iter();
        warnings
            .map(|warning| (warning.query, warning.problem.to_string()))
            .collect()
    }

    #[test]
    fn steps_that_divide_what_they_share_are_fine() {
        assert_eq!(warned(&[(60, 60, 0)]), []);
        assert_eq!(warned(&[(60, 10, 0), (300, 60, 0), (3_600, 600, 0)]), []);
        assert_eq!(warned(&[(60, 20, 0), (120, 40, 0)]), []);
    }

    #[test]
    fn a_step_that_does_not_divide_the_size_is_told_of_with_one_that_does() {
        assert_eq!(
            warned(&[(60, 7, 0)]),
            [(
                0,
                "windows are made of panes of 1s: 3600 deltas an hour for each key, more than the 514 windows; an \
                 `every` of 7500ms would divide `size`"
                    .to_string()
            )]
        );
        assert!(warned(&[(3_600, 3_600, 7)])[0].1.contains("without `offset`"));
    }

    #[test]
    fn the_query_that_narrows_the_panes_of_others_is_told_of() {
        let (query, text) = warned(&[(60, 60, 0), (300, 60, 0), (35, 35, 0)]).remove(0);
        assert_eq!(query, 2);
        assert_eq!(
            text,
            "windows are made of panes of 5s: 720 deltas an hour for each key, more than the 222 windows; the other \
             queries on its slice need no less than 1m: a step and size that are multiples of it, such as 1m, would \
             share them; another `lateness` gives this query panes of its own"
        );
    }
}
