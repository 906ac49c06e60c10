//! Start: what the store gave back. The same bytes in give the same state out.

use catchment_common::plan::PipelineId;
use catchment_common::time::Timestamp;
use catchment_common::wire::{Batch, SeqRange, WireFault};

use super::{Aggregator, Fault};
use crate::agents::Standing;
use crate::commit::PaneSource;
use crate::window::{Loader, Provisional};

impl Aggregator {
    /// A stored seq range.
    pub fn restore_range(&mut self, agent: &str, epoch: u64, range: SeqRange) {
        self.committed.set_mut(agent, epoch).insert_range(range);
    }

    /// A stored agent.
    pub fn restore_agent(&mut self, agent: String, standing: Standing) {
        self.agents.restore(agent, standing);
    }

    /// A query's horizon, and its provisional windows.
    pub fn restore_query(
        &mut self,
        index: usize,
        emitted_through: Timestamp,
        provisional: impl Iterator<Item = Provisional>,
    ) {
        self.windows[index].restore(emitted_through, provisional);
    }

    /// A stored chunk of a pane that may still be needed.
    pub fn restore_chunk(&mut self, columns: &[u8]) -> Result<(), WireFault> {
        self.panes.restore(columns)
    }

    /// A batch that was appended after the last checkpoint: merged again, and nothing else, because its seq and its
    /// results were committed with it.
    pub fn replay(&mut self, agent: &str, frame: &[u8], source: &impl PaneSource) -> Result<(), Fault> {
        let batch = Batch::parse(frame).map_err(Fault::Wire)?;
        self.journal_bytes += frame.len();
        for view in batch.sections() {
            let view = view.map_err(Fault::Wire)?;
            Loader::new(&mut self.panes, source, &self.catalog.pipelines).load(view.pipeline, view.pane)?;
            self.panes.merge(agent, &view).map_err(Fault::Wire)?;
        }
        Ok(())
    }

    /// From where on the stored panes of a pipeline must be handed in now, before any batch is replayed. Earlier ones
    /// are loaded when something needs them.
    pub fn restore_panes_from(&mut self, pipeline: PipelineId) -> Timestamp {
        let from = self.needed_from(pipeline);
        if from > Timestamp::MIN {
            self.panes.start_from(pipeline, from);
        }
        from
    }

    /// Panes that start before this need not be in memory.
    pub fn needed_from(&self, pipeline: PipelineId) -> Timestamp {
        let reading = self
            .catalog
            .queries
            .iter()
            .zip(&self.windows)
            .filter(|(query, _)| query.reader(pipeline).is_some());
        reading
            .map(|(query, windows)| windows.needed_from(&query.query.window))
            .min()
            .unwrap_or(Timestamp::MAX)
    }
}
