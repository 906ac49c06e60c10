//! A reading's way into its partial, and what leaves to make room for it.

use catchment_common::plan::{Pipeline, PipelineId};
use catchment_common::wire::Section;

use crate::aggregate::panes::{Lifted, Measured, OpenPanes, Place};
use crate::log::journal::Journal;
use crate::metrics::Metrics;

/// What a reading touches besides the view of its pipeline.
pub(super) struct Lift<'i> {
    pub(super) pipelines: &'i [(PipelineId, Pipeline)],
    pub(super) panes: &'i mut OpenPanes,
    pub(super) journal: &'i mut Journal,
    pub(super) metrics: &'i mut Metrics,
}

impl Lift<'_> {
    /// Lifts a reading; returns how many partials had to leave for it.
    #[inline]
    pub(super) fn lift(
        &mut self,
        place: Place<'_>,
        reading: Measured<'_>,
        mark: u16,
        mut emit: impl FnMut(&Section, &mut Metrics),
    ) -> (Lifted, u64) {
        let pipeline = &self.pipelines[usize::from(place.pipeline)].1;
        let mut count = 0;
        loop {
            if let Ok(lifted) = self.panes.lift(place, pipeline, reading, mark) {
                return (lifted, count);
            }
            let Self { journal, metrics, .. } = self;
            let left = self
                .panes
                .emit_early(self.pipelines, place.pipeline, |index, section| {
                    journal.taken(index, section.pane, section.keys.iter());
                    emit(section, metrics);
                });
            count += left as u64;
        }
    }
}
