//! Rows of sections, unpacked: from the check of a batch to its merge.

use catchment_common::limits::{BATCH_DELTAS_MAX, SECTION_ENTRIES_MAX};
use catchment_common::sketch::Sketch;
use catchment_common::stats::Stats;
use catchment_common::wire::{SectionView, StatsScratch, WireFault};

/// Unpacked rows: for each its readings, one partial for each field, and one sketch of each kind.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) readings: Vec<u64>,
    pub(super) partials: Vec<Stats>,
    pub(super) sketches: Vec<Sketch>,
}

/// Some of them.
#[derive(Clone, Copy)]
pub(super) struct RowsView<'r> {
    pub(super) readings: &'r [u64],
    pub(super) partials: &'r [Stats],
    pub(super) sketches: &'r [Sketch],
}

impl Rows {
    pub(super) fn clear(&mut self) {
        self.readings.clear();
        self.partials.clear();
        self.sketches.clear();
    }

    pub(super) fn ends(&self) -> Start {
        Start {
            readings: self.readings.len(),
            partials: self.partials.len(),
            sketches: self.sketches.len(),
        }
    }

    pub(super) fn view(&self) -> RowsView<'_> {
        RowsView {
            readings: &self.readings,
            partials: &self.partials,
            sketches: &self.sketches,
        }
    }
}

/// Where a section's rows begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) readings: usize,
    pub(super) partials: usize,
    pub(super) sketches: usize,
}

/// The rows of the sections of one batch, from the check to the merge. A section that makes them too many is unpacked
/// again when it is merged.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) rows: Rows,
    /// Where each section's rows begin.
    pub(super) starts: Vec<Option<Start>>,
    /// Entries of all sketches.
    pub(super) entries: usize,
}

/// Partials kept from check to merge: more than agents put into a batch, and some megabytes.
const CHECKED_PARTIALS_MAX: usize = 4 * BATCH_DELTAS_MAX;
/// Entries of sketches kept from check to merge.
const CHECKED_ENTRIES_MAX: usize = SECTION_ENTRIES_MAX;

impl Checked {
    /// Unpacks a section's rows and keeps them if there is room.
    pub(super) fn append(
        &mut self,
        view: &SectionView<'_>,
        scratch: &mut StatsScratch,
    ) -> Result<(), WireFault> {
        let start = self.rows.ends();
        let Rows {
            readings,
            partials,
            sketches,
        } = &mut self.rows;
        view.append_rows(readings, partials, sketches, scratch)?;
        let new = sketches[start.sketches..]
            .iter()
            .map(Sketch::entries)
            .sum::<usize>();
        let fits = partials.len() <= CHECKED_PARTIALS_MAX && self.entries + new <= CHECKED_ENTRIES_MAX;
        if fits {
            self.entries += new;
        } else {
            readings.truncate(start.readings);
            partials.truncate(start.partials);
            sketches.truncate(start.sketches);
        }
        self.starts.push(fits.then_some(start));
        Ok(())
    }
}
