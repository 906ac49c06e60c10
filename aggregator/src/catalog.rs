//! The running plan: which slices there are, and which query reads which of them.
//!
//! A query reads its own slice and those that it read under earlier plans. An agent counts each reading under exactly
//! one plan, so the panes of old and new slice together hold each reading once, and a change of plan tears no window
//! apart.

use std::collections::BTreeMap;

use catchment_common::plan::{Plan, Query, Slice, SliceId};
use catchment_common::wire::AgentPlan;

/// The plan in force with its slices.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The plan's version; 0 before the first plan.
    pub version: u64,
    /// Every slice that was ever given out. Agents may still deliver what they gathered under an earlier plan.
    pub slices: BTreeMap<SliceId, Slice>,
    /// The queries in force.
    pub queries: Vec<RunningQuery>,
    /// The slices in force.
    pub current: Vec<SliceId>,
}

/// A query and what it reads.
#[derive(Clone, Debug)]
pub struct RunningQuery {
    /// What was asked for.
    pub query: Query,
    /// The slices it reads, the current one first.
    pub readers: Vec<Reader>,
}

/// How a query reads one slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reader {
    /// The slice.
    pub slice: SliceId,
    /// For each field of the query its place in the slice; none if the slice did not have it.
    pub fields: Vec<Option<usize>>,
}

impl RunningQuery {
    /// A query on its own slice and on the earlier ones among `before` that fit its windows.
    pub fn new(query: Query, own: SliceId, before: &[SliceId], slices: &BTreeMap<SliceId, Slice>) -> Self {
        let readers = std::iter::once(own)
            .chain(before.iter().copied().filter(|&id| id != own))
            .filter_map(|id| slices.get(&id).and_then(|slice| reader(&query, id, slice)))
            .collect();
        Self { query, readers }
    }

    /// How this query reads a slice, if it does.
    pub fn reader(&self, slice: SliceId) -> Option<&Reader> {
        self.readers.iter().find(|reader| reader.slice == slice)
    }
}

fn reader(query: &Query, id: SliceId, slice: &Slice) -> Option<Reader> {
    let place = |field: &catchment_common::plan::Field| {
        slice
            .fields
            .iter()
            .position(|held| (&held.path, held.resolution) == (&field.path, field.resolution))
    };
    let fits = query.window.size.is_multiple_of(slice.pane) && query.window.every.is_multiple_of(slice.pane);
    let fields = query.fields.iter().map(place).collect();
    (fits && slice.key.len() == query.key.len()).then_some(Reader { slice: id, fields })
}

impl Catalog {
    /// What agents are to run.
    pub fn agent_plan(&self) -> AgentPlan {
        let slices = self
            .current
            .iter()
            .filter_map(|id| Some((*id, self.slices.get(id)?.clone())))
            .collect();
        AgentPlan {
            version: self.version,
            slices,
        }
    }

    /// Puts `plan` into force. `own` is the slice of each query and `before` what each read under earlier plans, both
    /// in the plan's order.
    pub fn new(
        plan: Plan,
        slices: BTreeMap<SliceId, Slice>,
        own: &[SliceId],
        before: &[Vec<SliceId>],
    ) -> Self {
        let mut current = own.to_vec();
        current.sort_unstable();
        current.dedup();
        let queries = plan
            .queries
            .into_iter()
            .zip(own)
            .zip(before)
            .map(|((query, &own), before)| RunningQuery::new(query, own, before, &slices))
            .collect();
        Self {
            version: plan.version,
            slices,
            queries,
            current,
        }
    }
}
