//! Start: the machine from what a store gives back.

use catchment_common::plan::PipelineId;
use catchment_common::time::Now;

use super::{Reads, Result};
use crate::aggregator::{Aggregator, Settings};

/// The machine as it was when the last commit became durable: who is known and what was taken, then how far windows have
/// been shown, which says which panes must be in memory, and at last the batches that no checkpoint holds yet.
pub(super) fn restore(store: &impl Reads, settings: Settings, now: Now) -> Result<Aggregator> {
    let mut aggregator = Aggregator::new(settings, store.database()?, store.catalog()?, now);
    for (name, standing) in store.standings()? {
        aggregator.restore_agent(name, standing);
    }
    for (agent, newest) in store.lineages()? {
        aggregator.restore_lineage(&agent, newest);
    }
    store.committed(&mut |agent, epoch, range| aggregator.restore_range(agent, epoch, range))?;
    for (index, query) in std::sync::Arc::clone(&aggregator.catalog().asked)
        .iter()
        .enumerate()
    {
        if let Some(shown) = store.shown_through(query)? {
            aggregator.restore_query(index, shown.through, shown.provisional.into_iter());
            for unrevised in shown.unrevised {
                aggregator.restore_unrevised(index, unrevised);
            }
        }
    }
    aggregator.restored(now);
    let pipelines: Vec<PipelineId> = aggregator.catalog().pipelines.keys().copied().collect();
    for pipeline in pipelines {
        let from = aggregator.restore_panes_from(pipeline);
        store.panes_from(pipeline, from, &mut |start, chunk| {
            aggregator.restore_chunk(pipeline, start, &chunk);
        })?;
    }
    store.batches(&mut |batch| aggregator.replay(&batch, store))?;
    aggregator.handle_forgotten(&store.to_forget()?);
    Ok(aggregator)
}
