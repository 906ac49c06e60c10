//! What a plan costs an agent in memory, and on the uplink: panes against windows.
//!
//! A pipeline ships one delta for each pane and key that has readings. Its windows are assembled from them at the
//! centre, so that more queries cost nothing, as long as the panes are no narrower than their steps. Where sizes and
//! steps have little in common, the panes may be more than the windows that they make. That is no fault, but seldom
//! meant.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::plan::{Hopping, Part, Pipeline, Plan, PlanFault, PlannedPipelines, Problem, Window};
use crate::sketch::SketchKind;
use crate::table::pane::entry_bytes;
use crate::time::Span;

const HOUR: Span = Span::from_secs(3_600);

/// Bytes of an agent's memory that a sensor's reading takes in a series until its pane closes: six or seven of them
/// share a block of 64.
pub const SERIES_POINT_BYTES: u64 = 10;

/// What a plan costs each agent that runs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanCost {
    /// Bytes of one open partial, for a key of typical length: as many as the pipeline with the most fields needs.
    pub entry_bytes: u64,
    /// Whether any pipeline keeps sketches: those have half of the memory to themselves, and use it as their data
    /// needs.
    pub has_sketches: bool,
    /// Pipeline by pipeline.
    pub pipelines: Vec<PipelineCost>,
}

/// What one pipeline costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PipelineCost {
    /// Panes of one key that are open at once: that of now, and those that `watermark_delay` holds back.
    pub open_panes: u64,
    /// Deltas shipped in an hour for each key that always has readings; 0 for windows with `count`, whose deltas are as
    /// many as the windows that fill.
    pub deltas_per_hour: u64,
    /// Fields of which every point is kept.
    pub series: u64,
}

/// More windows over one reading are worth a warning: a late reading writes as many rows.
const WINDOWS_OVER_WARNED: i64 = 1_000;
/// More panes in one window are: late data brings them all into memory.
const PANES_WARNED: i64 = 5_000;

impl PlanCost {
    /// Open partials of one key over all pipelines.
    pub fn open_panes(&self) -> u64 {
        self.pipelines.iter().map(|pipeline| pipeline.open_panes).sum()
    }

    /// Bytes of an agent's memory budget for each key, sketches aside.
    pub fn bytes_per_key(&self) -> u64 {
        self.open_panes().saturating_mul(self.entry_bytes)
    }

    /// Keys whose panes are all open in this many bytes. With more keys, partials leave early: more bytes on the
    /// uplink, the same results.
    pub fn keys_within(&self, memory_bytes: u64) -> u64 {
        let memory_bytes = if self.has_sketches {
            memory_bytes / 2
        } else {
            memory_bytes
        };
        (memory_bytes / self.entry_bytes)
            .checked_div(self.open_panes())
            .unwrap_or(0)
    }
}

impl PlannedPipelines {
    /// What these pipelines cost each agent.
    pub fn cost(&self) -> PlanCost {
        let fields = self.pipelines.iter().map(|pipeline| pipeline.fields.len()).max();
        let pipeline_cost = |pipeline: &Pipeline| {
            if pipeline.count.is_some() {
                // One window is open, whatever the time. How often it fills is for the devices to say.
                return PipelineCost {
                    open_panes: 1,
                    deltas_per_hour: 0,
                    series: 0,
                };
            }
            let (watermark_delay, pane) = (pipeline.watermark_delay.as_micros(), pipeline.pane.as_micros());
            PipelineCost {
                open_panes: (watermark_delay.unsigned_abs().div_ceil(pane.unsigned_abs())) + 1,
                deltas_per_hour: per_hour(pipeline.pane),
                series: pipeline
                    .sketch_kinds()
                    .filter(|kind| *kind == SketchKind::Series)
                    .count() as u64,
            }
        };
        PlanCost {
            entry_bytes: entry_bytes(fields.unwrap_or(1)) as u64,
            has_sketches: self
                .pipelines
                .iter()
                .any(|pipeline| !pipeline.sketches.is_empty()),
            pipelines: self.pipelines.iter().map(pipeline_cost).collect(),
        }
    }
}

impl Plan {
    /// What a valid plan would better do otherwise, in the form of faults.
    pub fn warnings(&self) -> Vec<PlanFault> {
        let planned = self.pipelines();
        let pipelines = 0..planned.pipelines.len();
        pipelines
            .filter_map(|pipeline| self.narrow_panes(&planned, pipeline))
            .chain(self.mixed_points())
            .chain(self.wide_windows(&planned))
            .chain(super::shared::crossings(self))
            .collect()
    }

    /// Windows that make late data dear at the centre: so many are over one reading, or each is made of so many panes.
    fn wide_windows(&self, planned: &PlannedPipelines) -> impl Iterator<Item = PlanFault> {
        let homes = self.queries.iter().zip(&planned.readers).enumerate();
        homes.filter_map(|(query, (asked, (home, _)))| {
            let pane = planned.pipelines[*home].pane;
            let (longest, step) = (asked.window.longest(), asked.window.step());
            if !matches!(asked.window, Window::Hopping(_) | Window::Calendar { .. }) {
                return None;
            }
            let per = |part: Span| longest.as_micros() / part.as_micros().max(1);
            let (rows, panes) = (per(step), per(pane));
            let (message, hint) = if !asked.window.is_disjoint() && rows > WINDOWS_OVER_WARNED {
                (
                    format!("each late reading revises {rows} rows of its key, some thousands in each commit"),
                    "a wider `every` has fewer".to_string(),
                )
            } else if panes > PANES_WARNED {
                (
                    format!("a late reading puts a window of {longest} together from up to {panes} panes of {pane}"),
                    "a query of its own `watermark_delay` has panes of its own, as wide as its windows allow".to_string(),
                )
            } else {
                return None;
            };
            Some(PlanFault {
                query,
                part: Part::Window,
                problem: Problem { message, hint },
            })
        })
    }

    /// Why agents with this much memory cannot hold the open panes of `keys` keys; `None` if they can.
    pub fn over_budget(&self, memory_bytes: u64, keys: u64) -> Option<PlanFault> {
        let planned = self.pipelines();
        let cost = planned.cost();
        let fitting = cost.keys_within(memory_bytes);
        if self.queries.is_empty() || fitting >= keys {
            return None;
        }
        let pipelines = cost.pipelines.iter().enumerate();
        let (most, pipeline) = pipelines.max_by_key(|(_, pipeline)| pipeline.open_panes)?;
        let query = planned.readers.iter().position(|(home, _)| *home == most)?;
        let message = format!(
            "an agent has {memory_bytes} bytes for open panes: {fitting} keys of {} bytes fit, not {keys}",
            cost.bytes_per_key()
        );
        let hint = format!(
            "this query's pipeline has {} panes of {} open at once for each key; shorten `watermark_delay`, widen the step, or give \
             agents more (limits.memory, and --memory here)",
            pipeline.open_panes, planned.pipelines[most].pane
        );
        Some(PlanFault {
            query,
            part: Part::WatermarkDelay,
            problem: Problem { message, hint },
        })
    }

    /// A pipeline of which the panes are more than the windows that they make.
    fn narrow_panes(&self, planned: &PlannedPipelines, pipeline: usize) -> Option<PlanFault> {
        let homes = self.queries.iter().zip(&planned.readers).enumerate();
        let mine: Vec<(usize, &Window)> = homes
            .filter(|(_, (_, (home, _)))| *home == pipeline)
            .map(|(index, (query, _))| (index, &query.window))
            .collect();
        // Those of series are narrower on purpose.
        let pane = mine
            .iter()
            .fold(Span::ZERO, |pane, (_, window)| pane.gcd(window.pane()));
        let panes = per_hour(pane);
        let windows = mine.iter().map(|(_, window)| per_hour(wanted(window))).sum();
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

/// How far apart the deltas of a window's own would be. A calendar's edges are not known to agents: it needs its panes.
fn wanted(window: &Window) -> Span {
    match window {
        Window::Calendar { pane, .. } => *pane,
        Window::Hopping(_) | Window::Session { .. } | Window::Count { .. } => window.step(),
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
    let &(query, Window::Hopping(Hopping { size, every, offset })) = worst else {
        return None;
    };
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
        "the other queries on its pipeline need no less than {pane}: a step and size that are multiples of it, such as {near}, \
         would share them; another `watermark_delay` gives this query separate panes"
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
    use crate::plan::pipeline::tests::query;

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
    fn windows_that_make_late_data_dear_are_told() {
        let (query, text) = warned(&[(86_400, 60, 0)]).remove(0);
        assert_eq!(query, 0);
        assert!(
            text.contains("each late reading revises 1440 rows of its key"),
            "{text}"
        );
        let (query, text) = warned(&[(86_400 * 7, 86_400 * 7, 0), (60, 60, 0)]).remove(0);
        assert_eq!(query, 0);
        assert!(text.contains("from up to 10080 panes of 1m"), "{text}");
    }

    #[test]
    fn a_plan_costs_what_its_pipelines_hold_open() {
        let mut late = query("late", 10, &[]);
        late.watermark_delay = Span::from_secs(25);
        let plan = Plan {
            version: 1,
            queries: alloc::vec![query("q", 60, &[]), query("r", 30, &[]), late],
        };
        let cost = plan.pipelines().cost();
        let pipelines: Vec<(u64, u64)> = cost
            .pipelines
            .iter()
            .map(|pipeline| (pipeline.open_panes, pipeline.deltas_per_hour))
            .collect();
        assert_eq!(pipelines, [(1, 120), (4, 360)]);
        assert_eq!(cost.entry_bytes, entry_bytes(1).min(entry_bytes(0)) as u64);
        assert_eq!(cost.bytes_per_key(), 5 * cost.entry_bytes);
        assert_eq!(cost.keys_within(50 * cost.entry_bytes + 1), 10);
        assert_eq!(plan.over_budget(50 * cost.entry_bytes, 10), None);
        let fault = plan.over_budget(50 * cost.entry_bytes, 11).unwrap();
        assert_eq!((fault.query, fault.part), (2, Part::WatermarkDelay));
        assert!(fault.problem.hint.contains("4 panes of 10s open at once"));
        assert_eq!(Plan::default().over_budget(0, 1), None);
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
             queries on its pipeline need no less than 1m: a step and size that are multiples of it, such as 1m, would \
             share them; another `watermark_delay` gives this query separate panes"
        );
    }
}
