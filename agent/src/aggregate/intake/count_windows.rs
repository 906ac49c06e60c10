//! Count windows as the intake closes them: full ones, and those whose key is forgotten.

use catchment_common::metrics::Counter;
use catchment_common::plan::{Pipeline, PipelineId};
use catchment_common::table::pane::PaneKey;
use catchment_common::time::Timestamp;
use catchment_common::wire::{AgentPlan, Section};

use super::Intake;
use super::lift::Lift;
use crate::aggregate::count_windows::{self, CountWindows, Step, Window};
use crate::aggregate::panes::{OpenPanes, Place as PanePlace};
use crate::log::journal::Journal;
use crate::metrics::Metrics;

impl Intake {
    /// The count windows.
    pub fn count_windows(&mut self) -> &mut CountWindows {
        &mut self.count_windows
    }

    /// For each pipeline that another plan does not run the windows that stay short of readings.
    pub fn cut_short_by(&self, plan: &AgentPlan) -> Vec<(PipelineId, u64)> {
        let gone =
            { self.pipelines.iter() }.filter(|(id, _)| plan.pipelines.iter().all(|(held, _)| held != id));
        gone.filter_map(|(id, pipeline)| Some((*id, self.count_windows.unfinished(*id, pipeline.count?))))
            .collect()
    }
}

impl Lift<'_> {
    /// The window of a key's next reading, if that is how its pipeline cuts. What must be forgotten for it leaves.
    #[inline]
    pub(super) fn next_window(
        &mut self,
        count_windows: &mut CountWindows,
        (index, key): (usize, &[u8]),
        wall: Timestamp,
        mut emit: impl FnMut(&Section, &mut Metrics),
    ) -> Option<Step> {
        let Self {
            pipelines,
            panes,
            journal,
            metrics,
        } = self;
        let (id, pipeline) = &pipelines[index];
        let limit = pipeline.count?;
        let mut has_cut = false;
        let place = count_windows.place(*id, key, |identity, window| {
            journal.window_gone(identity);
            let cut = leave_early(pipelines, (identity, window), panes, |index, section| {
                journal.taken(index, section.pane, section.keys.iter());
                emit(section, metrics);
            });
            count_cut(cut, metrics);
            has_cut = true;
        });
        let step = count_windows.take(place, limit, wall, journal);
        Some(Step { has_cut, ..step })
    }
}

/// Hands out the open partial of a window that is no longer known of; returns its pipeline if it stays short of
/// readings.
fn leave_early(
    pipelines: &[(PipelineId, Pipeline)],
    (identity, window): (&[u8], Window),
    panes: &mut OpenPanes,
    sink: impl FnMut(u16, &Section),
) -> Option<PipelineId> {
    let (of, key) = count_windows::parts(identity)?;
    let index = pipelines.iter().position(|(id, _)| *id == of)?;
    let place = PanePlace {
        pipeline: index as u16,
        pane: window.number,
        key,
    };
    panes.close_one(pipelines, place, sink);
    is_cut(pipelines, of, window).then_some(of)
}

/// Whether a window that gets no more readings stays short of them.
pub(super) fn is_cut(pipelines: &[(PipelineId, Pipeline)], of: PipelineId, window: Window) -> bool {
    let pipeline = pipelines.iter().find(|(id, _)| *id == of);
    pipeline.is_some_and(|(_, pipeline)| pipeline.count.is_some_and(|limit| window.readings < limit))
}

pub(super) fn count_cut(pipeline: Option<PipelineId>, metrics: &mut Metrics) {
    if let Some(pipeline) = pipeline {
        let place = metrics.place(pipeline);
        metrics.add(place, Counter::CutShort, 1);
    }
}

/// Hands out the windows that are full.
pub(super) fn close_full(
    full: &mut Vec<PaneKey>,
    panes: &mut OpenPanes,
    pipelines: &[(PipelineId, Pipeline)],
    journal: &mut Journal,
    mut sink: impl FnMut(&mut Journal, &Section),
) {
    if full.is_empty() {
        return;
    }
    // One that has left before, for want of room, is not there any more.
    panes.close_each(pipelines, full, |index, section| {
        journal.taken(index, section.pane, section.keys.iter());
        sink(journal, section);
    });
    full.clear();
}
