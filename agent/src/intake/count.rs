//! Windows of so many readings as the intake closes them: full ones, and those whose key is forgotten.

use catchment_common::counter::Counter;
use catchment_common::pane::PaneKey;
use catchment_common::plan::{Slice, SliceId};
use catchment_common::time::Timestamp;
use catchment_common::wire::{AgentPlan, Section};

use super::Intake;
use super::lift::Lift;
use crate::counts::{self, Counts, Step, Window};
use crate::journal::Journal;
use crate::panes::{OpenPanes, Place as PanePlace};
use crate::tally::Tally;

impl Intake {
    /// The windows of so many readings.
    pub fn counts(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// For each slice that another plan does not run the windows that stay short of readings.
    pub fn cut_short_by(&self, plan: &AgentPlan) -> Vec<(SliceId, u64)> {
        let gone = { self.slices.iter() }.filter(|(id, _)| plan.slices.iter().all(|(held, _)| held != id));
        gone.filter_map(|(id, slice)| Some((*id, self.counts.unfinished(*id, slice.count?))))
            .collect()
    }
}

impl Lift<'_> {
    /// The window of a key's next reading, if that is how its slice cuts. What must be forgotten for it leaves.
    #[inline]
    pub(super) fn next_window(
        &mut self,
        counts: &mut Counts,
        (index, key): (usize, &[u8]),
        wall: Timestamp,
        mut spilled: impl FnMut(&Section, &mut Tally),
    ) -> Option<Step> {
        let Self {
            slices,
            panes,
            journal,
            tally,
        } = self;
        let (id, slice) = &slices[index];
        let limit = slice.count?;
        let mut has_cut = false;
        let place = counts.place(*id, key, |identity, window| {
            journal.window_gone(identity);
            let cut = leave_early(slices, (identity, window), panes, |index, section| {
                journal.taken(index, section.pane, section.keys.iter());
                spilled(section, tally);
            });
            count_cut(cut, tally);
            has_cut = true;
        });
        let step = counts.take(place, limit, wall, journal);
        Some(Step { has_cut, ..step })
    }
}

/// Hands out the open partial of a window that is no longer known of; returns its slice if it stays short of readings.
fn leave_early(
    slices: &[(SliceId, Slice)],
    (identity, window): (&[u8], Window),
    panes: &mut OpenPanes,
    sink: impl FnMut(u16, &Section),
) -> Option<SliceId> {
    let (of, key) = counts::parts(identity)?;
    let index = slices.iter().position(|(id, _)| *id == of)?;
    let place = PanePlace {
        slice: index as u16,
        pane: window.number,
        key,
    };
    panes.close_one(slices, place, sink);
    is_cut(slices, of, window).then_some(of)
}

/// Whether a window that gets no more readings stays short of them.
pub(super) fn is_cut(slices: &[(SliceId, Slice)], of: SliceId, window: Window) -> bool {
    let slice = slices.iter().find(|(id, _)| *id == of);
    slice.is_some_and(|(_, slice)| slice.count.is_some_and(|limit| window.readings < limit))
}

pub(super) fn count_cut(slice: Option<SliceId>, tally: &mut Tally) {
    if let Some(slice) = slice {
        let place = tally.place(slice);
        tally.add(place, Counter::CutShort, 1);
    }
}

/// Hands out the windows that are full.
pub(super) fn close_full(
    full: &mut Vec<PaneKey>,
    panes: &mut OpenPanes,
    slices: &[(SliceId, Slice)],
    journal: &mut Journal,
    mut sink: impl FnMut(&Section),
) {
    if full.is_empty() {
        return;
    }
    // One that has left before, for want of room, is not there any more.
    panes.close_each(slices, full, |index, section| {
        journal.taken(index, section.pane, section.keys.iter());
        sink(section);
    });
    full.clear();
}
