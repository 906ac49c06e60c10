//! How panes leave the intake: together, as one group of the journal, or piece by piece, so that a spool that is nearly full
//! finds room for one before the next comes.

use catchment_common::plan::Pipeline;
use catchment_common::table::pane::PaneKey;
use catchment_common::wire::Section;

use super::count_windows::close_full;
use super::{Intake, close_after};
use crate::log::journal::Journal;

/// How panes are closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pieces {
    /// All that is due belongs to one group of the journal.
    Together,
    /// Each section may be in a group of its own: the journal says of each what it was.
    Each,
}

impl Intake {
    /// Closes every pane that its pipeline's watermark has passed, and every full window; hands them to `sink`. If that
    /// goes piece by piece, the journal knows of each piece when `sink` has it.
    pub fn close_due(
        &mut self,
        journal: &mut Journal,
        pieces: Pieces,
        mut sink: impl FnMut(&mut Journal, &Section),
    ) {
        let Self {
            views,
            pipelines,
            panes,
            full,
            ..
        } = self;
        close_full(full, panes, pipelines, journal, &mut sink);
        for (view, (_, pipeline)) in views.iter_mut().zip(pipelines.iter()) {
            view.next_close = close_after(view.watermark.value(), pipeline);
        }
        let is_due = |key: &PaneKey, _| {
            let index = usize::from(key.pipeline);
            let pipeline = &pipelines[index].1;
            pipeline.count.is_none() && key.pane.plus(pipeline.pane) <= views[index].watermark.value()
        };
        let mut closed = None;
        panes.close_panes(pipelines, is_due, |index, section, is_last| {
            if pieces == Pieces::Each {
                close_piece(
                    journal,
                    &pipelines[usize::from(index)].1,
                    (index, section),
                    is_last,
                );
            } else if closed != Some(index) {
                closed = Some(index);
                journal.closed(index, views[usize::from(index)].watermark.value());
            }
            sink(journal, section);
        });
    }

    /// Closes every pane, whether due or not: before another plan takes over.
    pub fn close_all(
        &mut self,
        journal: &mut Journal,
        pieces: Pieces,
        mut sink: impl FnMut(&mut Journal, &Section),
    ) {
        let Self { panes, pipelines, .. } = self;
        let before = panes.len();
        panes.close_panes(
            pipelines,
            |_, _| true,
            |index, section, is_last| {
                if pieces == Pieces::Each {
                    close_piece(
                        journal,
                        &pipelines[usize::from(index)].1,
                        (index, section),
                        is_last,
                    );
                }
                sink(journal, section);
            },
        );
        if before > 0 {
            journal.closed_all();
        }
    }

    /// Closes the partials whose first readings are in old segments of the journal.
    pub fn close_marked(
        &mut self,
        journal: &mut Journal,
        is_old: impl Fn(u16) -> bool,
        mut sink: impl FnMut(&mut Journal, &Section),
    ) {
        self.panes.close(
            &self.pipelines,
            |_, mark| is_old(mark),
            |index, section| {
                journal.taken(index, section.pane, section.keys.iter());
                sink(journal, section);
            },
        );
    }
}

/// Tells the journal that a section is in the spool. The panes of a pipeline are closed in their order, so those before
/// one that is whole are.
fn close_piece(journal: &mut Journal, pipeline: &Pipeline, (index, section): (u16, &Section), is_last: bool) {
    if is_last && pipeline.count.is_none() {
        journal.closed(index, section.pane.plus(pipeline.pane));
    } else {
        journal.taken(index, section.pane, section.keys.iter());
    }
}
