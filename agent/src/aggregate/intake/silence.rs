//! What silence means: that there is nothing, if there is somebody to hear; else nothing at all.

use catchment_common::table::pane::PaneKey;
use catchment_common::time::Now;
use catchment_common::wire::Section;

use super::Intake;
use crate::log::journal::Journal;

impl Intake {
    /// Lets the watermarks of silent pipelines follow the clock. `is_heard` says whether all comes that a pipeline reads,
    /// from the source with this name, or from all if it names none: where not, silence says nothing, and the watermark
    /// stays where it is. Returns whether any moved.
    pub fn follow_clock(&mut self, now: Now, is_heard: impl Fn(Option<&str>) -> bool) -> bool {
        let mut has_moved = false;
        for (view, (_, pipeline)) in self.views.iter_mut().zip(&self.pipelines) {
            if is_heard(pipeline.source.as_deref()) {
                has_moved |= view.watermark.follow_clock(now);
            } else {
                view.watermark.hold(now);
            }
        }
        has_moved
    }

    /// Closes the panes that would be over if their pipelines were silent, of those of which nothing can be heard. The
    /// centre should have what there is; that it is all there is, nobody can say, and no watermark moves.
    pub fn close_passed(
        &mut self,
        now: Now,
        is_heard: impl Fn(Option<&str>) -> bool,
        journal: &mut Journal,
        mut sink: impl FnMut(&mut Journal, &Section),
    ) {
        let Self { pipelines, panes, .. } = self;
        let is_over = |key: &PaneKey, _| {
            let pipeline = &pipelines[usize::from(key.pipeline)].1;
            let end = key.pane.plus(pipeline.pane);
            pipeline.count.is_none()
                && !is_heard(pipeline.source.as_deref())
                && end.plus(pipeline.watermark_delay).plus(pipeline.idle) <= now.wall
        };
        panes.close(pipelines, is_over, |index, section| {
            journal.taken(index, section.pane, section.keys.iter());
            sink(journal, section);
        });
    }
}
