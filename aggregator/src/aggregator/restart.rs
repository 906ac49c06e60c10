//! Start: what the store gave back. The same bytes in give the same state out.

use catchment_common::plan::PipelineId;
use catchment_common::time::{Now, Timestamp};
use catchment_common::wire::{Batch, RejectReason, SeqRange, WireFault};

use super::Aggregator;
use super::retention::Present;
use crate::agents::Standing;
use crate::commit::{AppendedBatch, PaneSource, SetAside, SourceFault, StoredChunk, Unreadable, Unrevised};
use crate::limits::WATERMARK_AHEAD_MAX;
use crate::lineages::Newest;
use crate::window::{Loader, Provisional};

/// Why a stored batch cannot be merged again.
enum Unmergeable {
    Wire(WireFault),
    Refused(RejectReason),
    Source(SourceFault),
}

impl From<WireFault> for Unmergeable {
    fn from(fault: WireFault) -> Self {
        Self::Wire(fault)
    }
}

impl From<RejectReason> for Unmergeable {
    fn from(reason: RejectReason) -> Self {
        Self::Refused(reason)
    }
}

impl From<SourceFault> for Unmergeable {
    fn from(fault: SourceFault) -> Self {
        Self::Source(fault)
    }
}

impl Aggregator {
    /// A stored seq range.
    pub fn restore_range(&mut self, agent: &str, epoch: u64, range: SeqRange) {
        self.committed.insert_range(agent, epoch, range);
    }

    /// A stored agent.
    pub fn restore_agent(&mut self, agent: String, standing: Standing) {
        self.agents.restore(agent, standing);
    }

    /// A stored lineage of an agent's state, the one that greeted last first.
    pub fn restore_lineage(&mut self, agent: &str, newest: Newest) {
        self.lineages.restore(agent, newest);
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

    /// Windows of a query that were to be revised.
    pub fn restore_unrevised(&mut self, index: usize, unrevised: Unrevised) {
        self.windows[index].restore_unrevised(unrevised);
    }

    /// Everything about agents and queries is restored. What lies in the future was stored when a clock was wrong, and is
    /// set back; what windows would have been shown by then is shown again when it is due.
    pub fn restored(&mut self, now: Now) {
        self.present = Present::new(now, self.agents.last_heard());
        let furthest = now.wall.plus(WATERMARK_AHEAD_MAX);
        let set_back = self.agents.set_back(now.wall, furthest);
        self.pending.watermarks.extend(set_back);
        for windows in &mut self.windows {
            windows.set_back(furthest);
        }
    }

    /// A stored chunk of a pane that may still be needed. If it cannot be read, it is set aside with the next commit.
    pub fn restore_chunk(&mut self, pipeline: PipelineId, pane: Timestamp, chunk: &StoredChunk) {
        // A pane is in memory whole or not at all.
        let goes_on = chunk.number > 0 && self.panes.holds(pipeline, pane);
        if !goes_on && (chunk.number > 0 || self.panes.bytes() >= self.settings.memory) {
            self.panes.leave_out(pipeline, pane);
            return;
        }
        self.panes
            .load((pipeline, pane), self.catalog.pipelines.get(&pipeline), chunk);
    }

    /// A batch that was appended after the last checkpoint: merged again, and nothing else, because its seq and its
    /// results were committed with it. If it cannot be read, it is set aside with the next commit.
    pub fn replay(&mut self, batch: &AppendedBatch, source: &impl PaneSource) -> Result<(), SourceFault> {
        self.journal_bytes += batch.frame.len();
        let reason = match self.merge_again(batch, source) {
            Ok(()) => return Ok(()),
            Err(Unmergeable::Source(fault)) => return Err(fault),
            Err(Unmergeable::Wire(fault)) => fault.to_string(),
            Err(Unmergeable::Refused(reason)) => format!("{reason:?}"),
        };
        self.pending.set_aside.push(SetAside {
            what: Unreadable::Batch {
                agent: batch.agent.clone(),
                epoch: batch.epoch,
                seq: batch.seq,
            },
            reason,
        });
        Ok(())
    }

    /// All of a batch, or nothing of it.
    fn merge_again(&mut self, batch: &AppendedBatch, source: &impl PaneSource) -> Result<(), Unmergeable> {
        let agent = &batch.agent;
        let batch = Batch::parse(&batch.frame)?;
        let views = self.check(agent, &batch)?;
        for (nth, view) in views.iter().enumerate() {
            Loader::new(&mut self.panes, source, &self.catalog.pipelines).load(view.pipeline, view.pane)?;
            self.panes.check_room(view, nth).map_err(RejectReason::from)?;
        }
        for (nth, view) in views.iter().enumerate() {
            self.panes.merge_checked(agent, view, nth)?;
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
            .map(|(query, windows)| windows.needed_from(query))
            .min()
            .unwrap_or(Timestamp::MAX)
    }
}
