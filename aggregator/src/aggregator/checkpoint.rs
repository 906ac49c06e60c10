//! Checkpoints: what leaves memory, what is written as columns, and what retention lets go.

use catchment_common::plan::PipelineId;
use catchment_common::time::{Now, Span, Timestamp};

use super::Aggregator;
use crate::commit::{Checkpoint, CheckpointPane, Expired};

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
        checkpoint.expired = self.expired(now);
        Some(checkpoint)
    }

    /// What retention says may go. Panes go with the last query that reads them; without retention they stay.
    fn expired(&self, now: Now) -> Expired {
        let queries = self.catalog.queries.iter().enumerate();
        let rows = queries
            .filter_map(|(index, query)| Some((index, now.wall.minus(query.query.retention?))))
            .collect();
        let panes = self.catalog.pipelines.keys().filter_map(|&pipeline| {
            let mut readers = self
                .catalog
                .queries
                .iter()
                .filter_map(|query| {
                    let coarse = query.coarse_reader(pipeline);
                    let width = coarse.map_or(query.query.window.longest(), |reader| reader.pane);
                    (coarse.is_some() || query.reader(pipeline).is_some()).then_some((query, width))
                })
                .peekable();
            readers.peek()?;
            let longest = readers.map(|(query, width)| Some(query.query.retention?.plus(width)));
            let longest = longest.collect::<Option<Vec<Span>>>()?.into_iter().max()?;
            Some((pipeline, now.wall.minus(longest)))
        });
        Expired {
            rows,
            panes: panes.collect(),
        }
    }
}
