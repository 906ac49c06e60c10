//! The wider panes that each pipeline's deltas may be merged into, step by step.

use std::collections::BTreeMap;

use catchment_common::plan::PipelineId;
use catchment_common::sketch::SketchKind;
use catchment_common::time::{Span, Timestamp};
use catchment_common::wire::AgentPlan;

/// The ladders of all plans since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Ladders {
    /// For each pipeline, itself included: all of its family, from narrow to wide.
    families: BTreeMap<PipelineId, Vec<(PipelineId, Span)>>,
    /// Some pipeline keeps points.
    has_points: bool,
}

impl Ladders {
    /// Adds what a plan says. Ladders of earlier plans stay known.
    pub(super) fn add(&mut self, plan: &AgentPlan) {
        for (id, pipeline) in &plan.pipelines {
            let steps = plan
                .coarser
                .iter()
                .filter(|step| step.of == *id)
                .map(|step| (step.pipeline, step.pane));
            let family: Vec<(PipelineId, Span)> =
                std::iter::once((*id, pipeline.pane)).chain(steps).collect();
            for (member, _) in &family {
                // A pipeline that another query uses as it is keeps its own ladder.
                if member == id || !self.families.contains_key(member) {
                    self.families.insert(*member, family.clone());
                }
            }
            self.has_points |= pipeline.sketch_kinds().any(|kind| kind == SketchKind::Series);
        }
    }

    /// A batch has points: of a plan that is not known any more, perhaps.
    pub(super) fn note_points(&mut self) {
        self.has_points = true;
    }

    /// Where a delta of `pipeline` belongs after a pass into `stage`.
    pub(super) fn target(&self, pipeline: PipelineId, pane: Timestamp, stage: u8) -> (PipelineId, Timestamp) {
        let Some(family) = self.families.get(&pipeline) else {
            return (pipeline, pane);
        };
        let own = family
            .iter()
            .position(|(member, _)| *member == pipeline)
            .unwrap_or(0);
        let step = usize::from(stage.saturating_sub(1))
            .min(family.len() - 1)
            .max(own);
        let (target, width) = family[step];
        (target, pane.pane_start(width))
    }

    /// The width of a pipeline's panes; the least there is for a pipeline of a plan that is not known any more.
    pub(super) fn width(&self, pipeline: PipelineId) -> Span {
        let family = self.families.get(&pipeline).into_iter().flatten();
        family
            .clone()
            .find(|(member, _)| *member == pipeline)
            .map_or(Span::from_micros(1), |&(_, width)| width)
    }

    /// The stage in which every ladder is at its widest panes.
    pub(super) fn widest(&self) -> u8 {
        let longest = self.families.values().map(Vec::len).max().unwrap_or(1);
        longest.min(usize::from(u8::MAX - 1)) as u8
    }

    /// The last stage there is: where points have been given up, if there are any.
    pub(super) fn last(&self) -> u8 {
        self.widest() + u8::from(self.has_points)
    }
}
