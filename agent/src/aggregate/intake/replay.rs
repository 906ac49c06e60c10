//! What a start needs: readings lifted again, and partials discarded that the journal says are in the spool.

use catchment_common::table::fixed::Full;
use catchment_common::table::pane::PaneKey;
use catchment_common::time::{Now, Timestamp};
use catchment_common::wire::Section;

use super::Intake;
use super::count_windows::{count_cut, is_cut};
use crate::aggregate::count_windows::{self, Window};
use crate::aggregate::panes::{Measured, Partial, Place as PanePlace};
use crate::metrics::Metrics;

impl Intake {
    /// Lifts a reading that was taken before the restart. `window` is its window's number, if that is how the pipeline
    /// cuts.
    pub(crate) fn replay(
        &mut self,
        (pipeline, key): (u16, &[u8]),
        window: Option<Timestamp>,
        reading: Measured<'_>,
        mark: u16,
        now: Now,
    ) -> Result<(), Full> {
        let at = reading.at;
        let (view, (_, running)) = (
            &mut self.views[usize::from(pipeline)],
            &self.pipelines[usize::from(pipeline)],
        );
        let place = PanePlace {
            pipeline,
            pane: window.unwrap_or_else(|| at.pane_start(running.pane)),
            key,
        };
        self.panes.lift(place, running, reading, mark)?;
        view.watermark.observe(at, now);
        Ok(())
    }

    /// Puts back how far a key has come; what is forgotten for it is noted in `gone`, and counted.
    pub(crate) fn restore_count(
        &mut self,
        (identity, window): (&[u8], Window),
        segment: u32,
        gone: &mut Vec<Box<[u8]>>,
        metrics: &mut Metrics,
    ) {
        let Self {
            pipelines,
            count_windows,
            ..
        } = self;
        count_windows.restore(identity, window, segment, |identity, window| {
            gone.push(identity.into());
            let pipeline = count_windows::parts(identity).map(|(pipeline, _)| pipeline);
            count_cut(
                pipeline.filter(|&pipeline| is_cut(pipelines, pipeline, window)),
                metrics,
            );
        });
    }

    /// Finds the open panes that are full windows, or that nothing is known of any more: they leave next.
    pub(crate) fn find_full(&mut self) {
        let Self {
            pipelines,
            panes,
            count_windows,
            full,
            ..
        } = self;
        full.clear();
        full.extend(panes.places().filter(|place| {
            let (id, pipeline) = &pipelines[usize::from(place.pipeline)];
            pipeline.count.is_some_and(|limit| {
                let window = count_windows.window(*id, panes.key(place.key));
                window.is_none_or(|window| window.number != place.pane || window.readings >= limit)
            })
        }));
    }

    /// Lets the coldest partials go, for a reading of this pipeline.
    pub(crate) fn emit_early(&mut self, pipeline: u16, sink: impl FnMut(u16, &Section)) {
        self.panes.emit_early(&self.pipelines, pipeline, sink);
    }

    /// Merges a partial back in that had to go.
    pub(crate) fn absorb(
        &mut self,
        pipeline: u16,
        pane: Timestamp,
        key: &[u8],
        partial: &Partial,
        mark: u16,
    ) -> Result<(), Full> {
        self.panes
            .absorb(PanePlace { pipeline, pane, key }, partial, mark)
    }

    /// Forgets a pipeline's partials that end by `watermark`: they are in the spool.
    pub(crate) fn discard_due(&mut self, pipeline: u16, watermark: Timestamp) {
        let width = self.pipelines[usize::from(pipeline)].1.pane;
        let is_due = |key: &PaneKey, _| key.pipeline == pipeline && key.pane.plus(width) <= watermark;
        self.panes.close(&self.pipelines, is_due, |_, _| {});
    }

    /// Forgets all partials: they are in the spool.
    pub(crate) fn discard_all(&mut self) {
        self.panes.close(&self.pipelines, |_, _| true, |_, _| {});
    }

    /// Forgets one partial: it is in the spool.
    pub(crate) fn discard_one(&mut self, pipeline: u16, pane: Timestamp, key: &[u8]) {
        self.panes
            .close_one(&self.pipelines, PanePlace { pipeline, pane, key }, |_, _| {});
    }
}
