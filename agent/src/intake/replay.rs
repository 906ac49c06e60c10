//! What a start needs: readings lifted again, and partials discarded that the journal says are in the spool.

use catchment_common::pane::PaneKey;
use catchment_common::table::Full;
use catchment_common::time::{Now, Timestamp};
use catchment_common::wire::Section;

use super::Intake;
use super::count::{count_cut, is_cut};
use crate::counts::{self, Window};
use crate::panes::{Measured, Partial, Place as PanePlace};
use crate::tally::Tally;

impl Intake {
    /// Lifts a reading that was taken before the restart. `window` is its window's number, if that is how the slice cuts.
    pub(crate) fn replay(
        &mut self,
        (slice, key): (u16, &[u8]),
        window: Option<Timestamp>,
        reading: Measured<'_>,
        mark: u16,
        now: Now,
    ) -> Result<(), Full> {
        let at = reading.at;
        let (view, (_, running)) = (
            &mut self.views[usize::from(slice)],
            &self.slices[usize::from(slice)],
        );
        let place = PanePlace {
            slice,
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
        tally: &mut Tally,
    ) {
        let Self { slices, counts, .. } = self;
        counts.restore(identity, window, segment, |identity, window| {
            gone.push(identity.into());
            let slice = counts::parts(identity).map(|(slice, _)| slice);
            count_cut(slice.filter(|&slice| is_cut(slices, slice, window)), tally);
        });
    }

    /// Finds the open panes that are full windows, or that nothing is known of any more: they leave next.
    pub(crate) fn find_full(&mut self) {
        let Self {
            slices,
            panes,
            counts,
            full,
            ..
        } = self;
        full.clear();
        full.extend(panes.places().filter(|place| {
            let (id, slice) = &slices[usize::from(place.slice)];
            slice.count.is_some_and(|limit| {
                let window = counts.window(*id, panes.key(place.key));
                window.is_none_or(|window| window.number != place.pane || window.readings >= limit)
            })
        }));
    }

    /// Lets the coldest partials go, for a reading of this slice.
    pub(crate) fn spill(&mut self, slice: u16, sink: impl FnMut(u16, &Section)) {
        self.panes.spill(&self.slices, slice, sink);
    }

    /// Merges a partial back in that had to go.
    pub(crate) fn absorb(
        &mut self,
        slice: u16,
        pane: Timestamp,
        key: &[u8],
        partial: &Partial,
        mark: u16,
    ) -> Result<(), Full> {
        self.panes.absorb(PanePlace { slice, pane, key }, partial, mark)
    }

    /// Forgets a slice's partials that end by `watermark`: they are in the spool.
    pub(crate) fn discard_due(&mut self, slice: u16, watermark: Timestamp) {
        let width = self.slices[usize::from(slice)].1.pane;
        let is_due = |key: &PaneKey, _| key.slice == slice && key.pane.plus(width) <= watermark;
        self.panes.close(&self.slices, is_due, |_, _| {});
    }

    /// Forgets all partials: they are in the spool.
    pub(crate) fn discard_all(&mut self) {
        self.panes.close(&self.slices, |_, _| true, |_, _| {});
    }

    /// Forgets one partial: it is in the spool.
    pub(crate) fn discard_one(&mut self, slice: u16, pane: Timestamp, key: &[u8]) {
        self.panes
            .close_one(&self.slices, PanePlace { slice, pane, key }, |_, _| {});
    }
}
