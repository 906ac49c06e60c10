//! Count windows: the agent says which readings are of which, by the number that stands in the place of a
//! pane. Nothing here waits for time: a row is written when a part of its window comes, and is final when all have.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::plan::PipelineId;
use catchment_common::time::Timestamp;

use super::View;
use super::load::Loader;
use super::rows::{self, Cut};
use crate::catalog::RunningQuery;
use crate::commit::{CountedRow, PaneSource, QueryResults, SourceFault};
use crate::merge::KeyId;
use crate::watermarks::Coverage;

/// Windows with new data: number, then pipeline and key.
#[derive(Debug, Default)]
pub(super) struct Counted(BTreeMap<Timestamp, BTreeSet<(PipelineId, KeyId)>>);

impl Counted {
    /// Data was merged into windows of this number for these keys.
    pub(super) fn touch(&mut self, pipeline: PipelineId, number: Timestamp, keys: &[KeyId]) {
        let touched = self.0.entry(number).or_default();
        touched.extend(keys.iter().map(|&key| (pipeline, key)));
    }

    /// Brings all parts of the windows that got new data into memory.
    pub(super) fn prepare<S: PaneSource>(
        &self,
        query: &RunningQuery,
        loader: &mut Loader<'_, S>,
    ) -> Result<(), SourceFault> {
        for &number in self.0.keys() {
            for reader in &query.readers {
                loader.load(reader.pipeline, number)?;
            }
        }
        Ok(())
    }

    /// Rows of the windows that got new data.
    pub(super) fn show<C: Fn(Timestamp) -> Coverage>(
        &mut self,
        view: &View<'_, C>,
        limit: u32,
        results: &mut QueryResults,
    ) {
        for (number, touched) in std::mem::take(&mut self.0) {
            for key in rows::keys_of(view.panes, touched) {
                let Some((row, (start, end))) = view.counted(Cut::number(number), key) else {
                    continue;
                };
                results.counted.push(CountedRow {
                    number,
                    start,
                    end,
                    is_final: row.readings >= u64::from(limit),
                    row,
                });
            }
        }
    }
}
