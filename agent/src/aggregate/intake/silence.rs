//! What silence means: that there is nothing, if there is somebody to hear; else nothing at all.

use catchment_common::table::pane::PaneKey;
use catchment_common::time::Now;
use catchment_common::wire::Section;

use super::Intake;
use crate::log::journal::Journal;

impl Intake {
    /// Lets the watermarks of silent pipelines follow the clock; returns whether any moved.
    pub fn follow_clock(&mut self, now: Now) -> bool {
        self.views
            .iter_mut()
            .fold(false, |moved, view| view.watermark.follow_clock(now) | moved)
    }

    /// Nothing can be heard, so that silence says nothing: the watermarks stay where they are.
    pub fn hold_clock(&mut self, now: Now) {
        for view in &mut self.views {
            view.watermark.hold(now);
        }
    }

    /// Closes the panes that would be over if their pipelines were silent, while nothing can be heard. The centre should
    /// have what there is; that it is all there is, nobody can say, and no watermark moves.
    pub fn close_passed(
        &mut self,
        now: Now,
        journal: &mut Journal,
        mut sink: impl FnMut(&mut Journal, &Section),
    ) {
        let Self { pipelines, panes, .. } = self;
        let is_over = |key: &PaneKey, _| {
            let pipeline = &pipelines[usize::from(key.pipeline)].1;
            let end = key.pane.plus(pipeline.pane);
            pipeline.count.is_none() && end.plus(pipeline.watermark_delay).plus(pipeline.idle) <= now.wall
        };
        panes.close(pipelines, is_over, |index, section| {
            journal.taken(index, section.pane, section.keys.iter());
            sink(journal, section);
        });
    }
}
