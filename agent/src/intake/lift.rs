//! A reading's way into its partial, and what leaves to make room for it.

use catchment_common::plan::{Slice, SliceId};
use catchment_common::wire::Section;

use crate::journal::Journal;
use crate::panes::{Lifted, Measured, OpenPanes, Place};
use crate::tally::Tally;

/// What a reading touches besides the view of its slice.
pub(super) struct Lift<'i> {
    pub(super) slices: &'i [(SliceId, Slice)],
    pub(super) panes: &'i mut OpenPanes,
    pub(super) journal: &'i mut Journal,
    pub(super) tally: &'i mut Tally,
}

impl Lift<'_> {
    /// Lifts a reading; returns how many partials had to leave for it.
    #[inline]
    pub(super) fn lift(
        &mut self,
        place: Place<'_>,
        reading: Measured<'_>,
        mark: u16,
        mut spilled: impl FnMut(&Section, &mut Tally),
    ) -> (Lifted, u64) {
        let slice = &self.slices[usize::from(place.slice)].1;
        let mut count = 0;
        loop {
            if let Ok(lifted) = self.panes.lift(place, slice, reading, mark) {
                return (lifted, count);
            }
            let Self { journal, tally, .. } = self;
            let left = self.panes.spill(self.slices, place.slice, |index, section| {
                journal.taken(index, section.pane, section.keys.iter());
                spilled(section, tally);
            });
            count += left as u64;
        }
    }
}
