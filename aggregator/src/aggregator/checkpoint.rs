//! Checkpoints: what leaves memory, what is written as columns, and what retention lets go.

use catchment_common::plan::{PipelineId, Window};
use catchment_common::time::{Now, Span, Timestamp};

use super::Aggregator;
use crate::commit::{Checkpoint, CheckpointPane, Expired};
use crate::limits::SESSION_LONGEST;

impl Aggregator {
    /// Dirty panes as columns; clean panes that no window needs any more leave memory.
    pub(super) fn checkpoint(&mut self, now: Now) -> Option<Checkpoint> {
        // Before the dirty ones are marked clean: a pane may only leave memory when the store has it, and what this
        // checkpoint writes it does not have until the commit is durable.
        let needed: Vec<(PipelineId, Timestamp)> = self
            .catalog
            .pipelines
            .keys()
            .map(|&pipeline| (pipeline, self.needed_from(pipeline)))
            .collect();
        for (pipeline, from) in needed {
            self.panes.forget(pipeline, from);
        }
        self.panes.keep_within(self.settings.memory);
        if self.journal_bytes == 0 {
            return None;
        }
        let mut checkpoint = Checkpoint::default();
        self.panes
            .take_dirty(&self.catalog.pipelines, |pipeline, start, chunks| {
                checkpoint.panes.push(CheckpointPane {
                    pipeline,
                    start,
                    chunks,
                });
            });
        self.journal_bytes = 0;
        self.present.advance(now);
        checkpoint.expired = self.expired();
        Some(checkpoint)
    }

    /// What retention says may go. Panes go with the last query that reads them; without retention they stay.
    fn expired(&self) -> Expired {
        let present = |pipelines: &[PipelineId]| self.present.of(self.agents.newest(pipelines));
        let queries = self.catalog.queries.iter().enumerate();
        let rows = queries.filter_map(|(index, query)| {
            let retention = query.query.retention?;
            Some((index, present(&query.pipelines())?.minus(retention)))
        });
        let panes = self.catalog.pipelines.keys().filter_map(|&pipeline| {
            let readers = self.catalog.queries.iter().filter_map(|query| {
                let coarse = query.coarse_reader(pipeline);
                let width = coarse.map_or(kept_beyond(&query.query.window), |reader| reader.pane);
                // Windows whose rows are kept may look back to it.
                let width = width.plus(query.reach(width));
                (coarse.is_some() || query.reader(pipeline).is_some()).then_some((query, width))
            });
            // Until the last of them lets go; none if one keeps all, or of one there is no data yet.
            let let_go = readers.map(|(query, width)| {
                let keeps = query.query.retention?.plus(width);
                Some(present(&query.pipelines())?.minus(keeps))
            });
            let let_go = let_go.collect::<Option<Vec<Timestamp>>>()?;
            Some((pipeline, let_go.into_iter().min()?))
        });
        Expired {
            rows: rows.collect(),
            panes: panes.collect(),
        }
    }
}

/// How much longer than its rows the panes of a window are kept: those of a session that is still open are needed when
/// it ends.
fn kept_beyond(window: &Window) -> Span {
    match window {
        Window::Session { gap } => gap.plus(SESSION_LONGEST),
        Window::Hopping(_) | Window::Calendar { .. } | Window::Count { .. } => window.longest(),
    }
}
