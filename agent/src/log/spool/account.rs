//! What became of readings and batches, until somebody asks.

use std::collections::BTreeMap;

use catchment_common::plan::PipelineId;
use catchment_common::wire::LossEntry;

/// Since the last question.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Readings that were lost, by pipeline.
    pub(super) lost: BTreeMap<PipelineId, u64>,
    /// Readings whose points were given up, by pipeline.
    pub(super) pointless: BTreeMap<PipelineId, u64>,
    /// Records that could not be read back.
    pub(super) damaged: u64,
    /// Acknowledged batches that are sent again.
    pub(super) resent: u64,
}

impl Account {
    /// What a batch held is lost; none if that is not known.
    pub(super) fn lose(&mut self, entries: Option<&[LossEntry]>) {
        self.damaged += u64::from(entries.is_none());
        for entry in entries.unwrap_or_default() {
            let lost = self.lost.entry(entry.pipeline).or_default();
            *lost = lost.saturating_add(entry.readings);
        }
    }

    /// Batches of these readings keep no points.
    pub(super) fn give_up_points(&mut self, readings: &BTreeMap<PipelineId, u64>) {
        for (&pipeline, &more) in readings {
            let pointless = self.pointless.entry(pipeline).or_default();
            *pointless = pointless.saturating_add(more);
        }
    }
}
