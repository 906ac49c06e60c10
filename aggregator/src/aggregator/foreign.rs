//! Batches that were gathered for another database.
//!
//! Such a batch is taken when its meaning here is certain: all its pipelines are known here, under the same fingerprint,
//! and every query that has ever read one of them has read nothing else. A query that has read several pipelines was
//! moved from one to the other in *this* database, and in the other one a reading may have gone into both. What is not
//! taken is refused under a reason of its own, and noted as lost.

use catchment_common::limits::LOSSES_MAX;
use catchment_common::plan::PipelineId;
use catchment_common::time::Span;
use catchment_common::wire::{Batch, Loss, LossEntry, RejectReason, Section, SectionView, StatsScratch};

use super::{Aggregator, ConnectionId};
use crate::limits::LOSS_ENTRY_BYTES;

impl Aggregator {
    /// Whether a batch may be taken as one of this database.
    pub(super) fn is_certain(&self, connection: ConnectionId, batch: &Batch<'_>) -> bool {
        let origin = self.sessions.get(&connection);
        let origin = origin.and_then(|session| session.origins.get(&batch.epoch));
        if origin.is_none_or(|origin| *origin == self.database) {
            return true;
        }
        { batch.sections() }.all(|view| {
            // What cannot be read is refused as such.
            let id = view.map_or(PipelineId::NONE, |view| view.pipeline);
            let is_known = id.number().is_none() && self.catalog.pipelines.contains_key(&id);
            id == PipelineId::NONE || (is_known && !self.catalog.uncertain.contains(&id))
        })
    }

    /// Refuses a batch of another database, and notes what it held as lost.
    pub(super) fn refuse_foreign(
        &mut self,
        connection: ConnectionId,
        agent: &str,
        batch: &Batch<'_>,
        bytes: usize,
    ) {
        let (mut section, mut scratch) = (Section::default(), StatsScratch::default());
        let mut entries: Vec<LossEntry> = Vec::new();
        for view in batch.sections() {
            let read = view.and_then(|view: SectionView<'_>| view.read(&mut section, &mut scratch));
            if read.is_ok() {
                add(&mut entries, self.entry(&section));
            }
        }
        self.pending.bytes += (entries.len() + 1) * LOSS_ENTRY_BYTES;
        let loss = Loss {
            epoch: batch.epoch,
            seq: batch.seq,
            entries,
        };
        self.pending.losses.push((agent.to_owned(), loss));
        let name = (batch.epoch, batch.seq);
        self.refuse(connection, agent, name, bytes, RejectReason::OtherDatabase);
    }

    fn entry(&self, section: &Section) -> LossEntry {
        // The width of a pane that is not known here is the least there is.
        let known = self.catalog.pipelines.get(&section.pipeline);
        let width = known.map_or(Span::from_micros(1), |pipeline| pipeline.pane);
        LossEntry {
            pipeline: section.pipeline,
            from: section.pane,
            to: section.pane.plus(width),
            readings: section.readings.iter().sum(),
        }
    }
}

/// Adds an entry to the one of its pipeline.
fn add(entries: &mut Vec<LossEntry>, entry: LossEntry) {
    let has_room = entries.len() < LOSSES_MAX;
    if let Some(held) = entries.iter_mut().find(|held| held.pipeline == entry.pipeline) {
        held.from = held.from.min(entry.from);
        held.to = held.to.max(entry.to);
        held.readings = held.readings.saturating_add(entry.readings);
    } else if has_room {
        entries.push(entry);
    }
}
