//! The running plan: which slices there are, and which query reads which of them.
//!
//! A query reads its own slice and those that it read under earlier plans. An agent counts each reading under exactly
//! one plan, so the panes of old and new slice together hold each reading once, and a change of plan tears no window
//! apart.
//!
//! Each slice has a coarsening ladder of *coarser slices* with numbers of their own: an agent whose spool runs full
//! ships old readings under those. A query also reads the coarser ones of all its slices: where their panes fit its
//! windows they are as good as any, and where not, they give rows of their own.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::plan::{Column, Plan, Query, Slice, SliceId, SliceSketch};
use catchment_common::sketch::SketchKind;
use catchment_common::time::Span;
use catchment_common::wire::{AgentPlan, Coarser};

use crate::window::Grid;

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
    /// The ladders in force.
    pub ladders: Vec<Coarser>,
}

/// Slices and what is known of their numbers.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    /// Every slice that was ever given out, coarser ones included.
    pub all: BTreeMap<SliceId, Slice>,
    /// Of the coarser ones: which slice each is a rung of.
    pub coarser_of: BTreeMap<SliceId, SliceId>,
}

/// A query and what it reads.
#[derive(Clone, Debug)]
pub struct RunningQuery {
    /// What was asked for.
    pub query: Query,
    /// Where its windows start and end, if that does not depend on the data.
    pub grid: Option<Grid>,
    /// Its value columns.
    pub columns: Vec<Column>,
    /// What the sketches are that they read.
    pub sketches: Vec<SketchKind>,
    /// Which of these are series: their places, and the fields that they are of.
    pub series: Vec<(usize, usize)>,
    /// The slices whose panes fit its windows, the current one first.
    pub readers: Vec<Reader>,
    /// The coarser slices whose panes do not: each of their panes gives rows of its own.
    pub coarse: Vec<Reader>,
}

/// How a query reads one slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reader {
    /// The slice.
    pub slice: SliceId,
    /// Its pane width.
    pub pane: Span,
    /// For each field of the query its place in the slice; none if the slice did not have it.
    pub fields: Vec<Option<usize>>,
    /// For each sketch of the query its place in the slice; none if the slice did not have it.
    pub sketches: Vec<Option<usize>>,
}

impl RunningQuery {
    /// A query on its own slice, on the earlier ones among `before`, and on the coarser ones of all of them.
    pub fn new(query: Query, own: SliceId, before: &[SliceId], slices: &Slices) -> Self {
        let fine: Vec<SliceId> = std::iter::once(own)
            .chain(before.iter().copied().filter(|&id| id != own))
            .collect();
        let coarser = slices
            .coarser_of
            .iter()
            .filter(|(_, of)| fine.contains(of))
            .map(|(&id, _)| id);
        let all: Vec<Reader> = fine
            .iter()
            .copied()
            .chain(coarser)
            .filter_map(|id| slices.all.get(&id).and_then(|slice| reader(&query, id, slice)))
            .collect();
        let fits = |reader: &Reader| query.window.fits(reader.pane);
        let (readers, coarse) = all.into_iter().partition(fits);
        Self {
            grid: Grid::new(&query.window),
            columns: query.columns(),
            sketches: query.slice().sketch_kinds().collect(),
            series: series(&query),
            query,
            readers,
            coarse,
        }
    }

    /// The slices whose panes fit its windows.
    pub fn slices(&self) -> Vec<SliceId> {
        self.readers.iter().map(|reader| reader.slice).collect()
    }

    /// How this query reads a slice into its windows, if it does.
    pub fn reader(&self, slice: SliceId) -> Option<&Reader> {
        self.readers.iter().find(|reader| reader.slice == slice)
    }

    /// How this query reads a slice whose panes do not fit its windows, if it does.
    pub fn coarse_reader(&self, slice: SliceId) -> Option<&Reader> {
        self.coarse.iter().find(|reader| reader.slice == slice)
    }
}

fn series(query: &Query) -> Vec<(usize, usize)> {
    let sketches = query.slice().sketches.into_iter().enumerate();
    let series = sketches.filter_map(|(place, sketch)| match sketch {
        SliceSketch::Series(field) => Some((place, usize::from(field))),
        _ => None,
    });
    series.collect()
}

fn reader(query: &Query, id: SliceId, slice: &Slice) -> Option<Reader> {
    let place = |field: &catchment_common::plan::Field| {
        slice
            .fields
            .iter()
            .position(|held| (&held.source, held.resolution) == (&field.source, field.resolution))
    };
    let fields: Vec<Option<usize>> = query.fields.iter().map(place).collect();
    (slice.key.len() == query.key.len()).then_some(Reader {
        slice: id,
        pane: slice.pane,
        sketches: slice.sketch_places(&query.slice(), &fields),
        fields,
    })
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
            coarser: self.ladders.clone(),
        }
    }

    /// Puts `plan` into force. `own` is the slice of each query and `before` what each read under earlier plans, both
    /// in the plan's order.
    pub fn new(plan: Plan, slices: Slices, own: &[SliceId], before: &[Vec<SliceId>]) -> Self {
        let mut current = own.to_vec();
        current.sort_unstable();
        current.dedup();
        let ladders = ladders(&plan, &slices, own);
        let queries = plan
            .queries
            .into_iter()
            .zip(own)
            .zip(before)
            .map(|((query, &own), before)| RunningQuery::new(query, own, before, &slices))
            .collect();
        Self {
            version: plan.version,
            slices: slices.all,
            queries,
            current,
            ladders,
        }
    }

    /// Puts a first plan into force, numbering its slices from 1 in their order and the coarser ones after them.
    pub fn first(plan: Plan) -> Self {
        let sliced = plan.slices();
        let mut slices = Slices::default();
        let mut next = 0;
        let mut number = |slice: Slice, slices: &mut Slices| {
            next += 1;
            slices.all.insert(SliceId(next), slice);
            SliceId(next)
        };
        let numbers: Vec<SliceId> = sliced
            .slices
            .iter()
            .map(|slice| number(slice.clone(), &mut slices))
            .collect();
        for ((&of, slice), ladder) in numbers.iter().zip(&sliced.slices).zip(&sliced.ladders) {
            for &pane in ladder {
                let id = number(
                    Slice {
                        pane,
                        ..slice.clone()
                    },
                    &mut slices,
                );
                slices.coarser_of.insert(id, of);
            }
        }
        let own: Vec<SliceId> = sliced.readers.iter().map(|(index, _)| numbers[*index]).collect();
        let before: Vec<Vec<SliceId>> = own.iter().map(|&id| vec![id]).collect();
        Self::new(plan, slices, &own, &before)
    }
}

/// Whether a slice may go on under its number in a new plan. `queries` are those of the plan: whether each is on the
/// slice, and which slices it has read.
///
/// A query reads all slices that it was ever on, and each reading must be in one of them. So no query may leave a slice
/// that others go on to fill, and none that was elsewhere may join one that was filled meanwhile. In both cases the
/// slice goes on under another number, and what it holds so far stays readable under the old one.
pub fn keeps_its_number<'q>(
    slice: SliceId,
    queries: impl IntoIterator<Item = (bool, &'q [SliceId])>,
) -> bool {
    queries
        .into_iter()
        .all(|(is_on_it, read)| read.is_empty() || read.contains(&slice) == is_on_it)
}

/// The ladders of a plan's slices, whose coarser slices must have their numbers.
fn ladders(plan: &Plan, slices: &Slices, own: &[SliceId]) -> Vec<Coarser> {
    let sliced = plan.slices();
    let numbers: BTreeSet<(SliceId, usize)> = own
        .iter()
        .zip(&sliced.readers)
        .map(|(&id, (index, _))| (id, *index))
        .collect();
    let rung = |of: SliceId, pane| {
        let is_it = |id: &SliceId| slices.all.get(id).is_some_and(|slice| slice.pane == pane);
        let mut rungs = slices.coarser_of.iter().filter(|&(_, &base)| base == of);
        let (&slice, _) = rungs.find(|(id, _)| is_it(id))?;
        Some(Coarser { of, slice, pane })
    };
    numbers
        .into_iter()
        .flat_map(|(id, index)| {
            sliced.ladders[index]
                .iter()
                .filter_map(move |&pane| rung(id, pane))
        })
        .collect()
}
