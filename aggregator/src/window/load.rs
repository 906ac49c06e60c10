//! Bringing panes back into memory that windows behind the horizon need.

use std::collections::BTreeMap;

use catchment_common::plan::{Pipeline, PipelineId};
use catchment_common::time::{Span, Timestamp};

use crate::commit::{PaneSource, SourceFault};
use crate::merge::Panes;

/// The panes in memory and where the others are.
#[derive(Debug)]
pub struct Loader<'l, S> {
    /// The panes.
    pub panes: &'l mut Panes,
    source: &'l S,
    pipelines: &'l BTreeMap<PipelineId, Pipeline>,
    /// For each pipeline a range of pane starts of which all that are stored are in memory.
    whole: BTreeMap<PipelineId, (Timestamp, Timestamp)>,
    /// Panes brought into memory.
    pub loaded: usize,
}

impl<'l, S: PaneSource> Loader<'l, S> {
    /// Loads panes of these pipelines from `source`.
    pub fn new(panes: &'l mut Panes, source: &'l S, pipelines: &'l BTreeMap<PipelineId, Pipeline>) -> Self {
        Self {
            panes,
            source,
            pipelines,
            whole: BTreeMap::new(),
            loaded: 0,
        }
    }

    /// Brings a pane into memory that may have been stored before.
    pub fn load(&mut self, pipeline: PipelineId, pane: Timestamp) -> Result<(), SourceFault> {
        if self.panes.holds(pipeline, pane) {
            return Ok(());
        }
        self.loaded += 1;
        for chunk in self.source.chunks(pipeline, pane)? {
            self.panes
                .load((pipeline, pane), self.pipelines.get(&pipeline), &chunk);
        }
        Ok(())
    }

    /// Brings all panes of a pipeline into memory that start in `from..=to`, asking the store at most once for each
    /// stretch, and not at all for what cannot have left memory.
    pub(super) fn load_range(
        &mut self,
        pipeline: PipelineId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<(), SourceFault> {
        let to = to.min(self.panes.gone_through(pipeline));
        if from > to {
            return Ok(());
        }
        let step = Span::from_micros(1);
        let (whole_from, whole_to) = match self.whole.get(&pipeline) {
            Some(&(whole_from, whole_to)) if from <= whole_to.plus(step) && to.plus(step) >= whole_from => {
                if from < whole_from {
                    self.load_stored(pipeline, from, whole_from.minus(step))?;
                }
                if to > whole_to {
                    self.load_stored(pipeline, whole_to.plus(step), to)?;
                }
                (whole_from.min(from), whole_to.max(to))
            }
            _ => {
                self.load_stored(pipeline, from, to)?;
                (from, to)
            }
        };
        self.whole.insert(pipeline, (whole_from, whole_to));
        Ok(())
    }

    fn load_stored(
        &mut self,
        pipeline: PipelineId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<(), SourceFault> {
        for pane in self.source.starts(pipeline, from, to)? {
            self.load(pipeline, pane)?;
        }
        Ok(())
    }
}
