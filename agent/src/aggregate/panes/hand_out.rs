//! How closed partials are put into sections: pane by pane, keys in order, each section of a bounded size.

use catchment_common::limits::{BATCH_DELTAS_MAX, SECTION_WEIGHT_TARGET};
use catchment_common::plan::{Pipeline, PipelineId};
use catchment_common::table::pane::kept;
use catchment_common::wire::Section;

use super::OpenPanes;
use crate::aggregate::sketches::leave;

/// Most partials in a section, fields counted: bounds the memory of a section in the making.
const SECTION_STATS_MAX: usize = 4_096;

impl OpenPanes {
    pub(super) fn hand_out(
        &mut self,
        pipelines: &[(PipelineId, Pipeline)],
        mut sink: impl FnMut(u16, &Section),
    ) {
        self.hand_out_panes(pipelines, |index, section, _| sink(index, section));
    }

    pub(super) fn hand_out_panes(
        &mut self,
        pipelines: &[(PipelineId, Pipeline)],
        mut sink: impl FnMut(u16, &Section, bool),
    ) {
        let Self {
            keys,
            table,
            selected,
            section,
            plans,
            shares,
            texts,
            ..
        } = self;
        selected.sort_unstable_by(|a, b| {
            (a.pipeline, a.pane)
                .cmp(&(b.pipeline, b.pane))
                .then_with(|| keys.bytes(a.key).cmp(keys.bytes(b.key)))
        });
        for group in selected.chunk_by(|a, b| (a.pipeline, a.pane) == (b.pipeline, b.pane)) {
            let index = group[0].pipeline;
            let (id, pipeline) = &pipelines[usize::from(index)];
            let rows = (SECTION_STATS_MAX / pipeline.fields.len().max(1)).min(BATCH_DELTAS_MAX);
            let plan = &plans[usize::from(index)];
            let mut rest = group.iter().peekable();
            while let Some(first) = rest.peek() {
                section.reset(*id, first.pane, kept(&pipeline.fields));
                section.set_sketches(plan.kinds.iter().copied());
                let mut weight = 0;
                while section.rows() < rows && weight < SECTION_WEIGHT_TARGET {
                    let Some(pane_key) = rest.next() else { break };
                    let Section { stats, sketches, .. } = &mut *section;
                    let taken = table.take(
                        pane_key,
                        |field| stats.push(*field),
                        |nth, drained| {
                            let sketch = leave(plan.kinds[nth], drained, texts);
                            weight += sketch.weight();
                            sketches.push(sketch);
                        },
                    );
                    let Some(taken) = taken else { continue };
                    shares[usize::from(index)].open -= 1;
                    section.readings.push(taken.readings);
                    section.keys.push(keys.bytes(pane_key.key));
                    keys.release(pane_key.key);
                }
                if section.rows() > 0 {
                    sink(index, section, rest.peek().is_none());
                }
            }
        }
        selected.clear();
    }
}
