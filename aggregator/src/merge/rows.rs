//! Rows of sections, unpacked: from the check of a batch to its merge.

use std::collections::BTreeMap;

use catchment_common::limits::{BATCH_DELTAS_MAX, SECTION_ENTRIES_MAX};
use catchment_common::plan::PipelineId;
use catchment_common::sketch::Sketch;
use catchment_common::stats::Stats;
use catchment_common::time::Timestamp;
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
    /// The most readings of a row, for each section.
    most: Vec<u64>,
    /// For each pane the sum of these, over the sections that were looked at so far.
    added: BTreeMap<(PipelineId, Timestamp), u64>,
}

/// Partials kept from check to merge: more than agents put into a batch, and some megabytes.
const CHECKED_PARTIALS_MAX: usize = 4 * BATCH_DELTAS_MAX;
/// Entries of sketches kept from check to merge.
const CHECKED_ENTRIES_MAX: usize = SECTION_ENTRIES_MAX;

impl Checked {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.starts.clear();
        self.entries = 0;
        self.most.clear();
        self.added.clear();
    }

    /// The most readings that a row of a pane can get from the `nth` section and those before it that were added.
    pub(super) fn add(&mut self, pipeline: PipelineId, pane: Timestamp, nth: usize) -> u64 {
        let added = self.added.entry((pipeline, pane)).or_default();
        *added = added.saturating_add(self.most.get(nth).copied().unwrap_or(0));
        *added
    }

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
        let most = readings[start.readings..].iter().copied().max();
        self.most.push(most.unwrap_or(0));
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
