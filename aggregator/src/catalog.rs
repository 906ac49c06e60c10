//! The running plan: which pipelines there are, and which query reads which of them.
//!
//! A query reads its own pipeline and those that it read under earlier plans. An agent counts each reading under
//! exactly one plan, so the panes of old and new pipeline together hold each reading once, and a change of plan tears
//! no window apart.
//!
//! Each pipeline has a coarsening ladder of *coarser pipelines* with numbers of their own: an agent whose spool runs
//! full ships old readings under those. A query also reads the coarser ones of all its pipelines: where their panes fit
//! its windows they are as good as any, and where not, they give rows of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catchment_common::plan::{Column, Pipeline, PipelineId, PipelineSketch, Plan, Query};
use catchment_common::sketch::SketchKind;
use catchment_common::time::Span;
use catchment_common::wire::{AgentPlan, Coarser};

use crate::window::Aligned;

/// The plan in force with its pipelines.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The plan's version; 0 before the first plan.
    pub version: u64,
    /// Every pipeline that was ever given out. Agents may still deliver what they gathered under an earlier plan.
    pub pipelines: BTreeMap<PipelineId, Pipeline>,
    /// The queries in force.
    pub queries: Vec<RunningQuery>,
    /// The same as they were asked for, in the same order: what a commit's results are of.
    pub asked: Arc<[Query]>,
    /// The pipelines in force.
    pub current: Vec<PipelineId>,
    /// The ladders in force.
    pub ladders: Vec<Coarser>,
}

/// Pipelines and what is known of their numbers.
#[derive(Clone, Debug, Default)]
pub struct Pipelines {
    /// Every pipeline that was ever given out, coarser ones included.
    pub all: BTreeMap<PipelineId, Pipeline>,
    /// Of the coarser ones: which pipeline each is a rung of.
    pub coarser_of: BTreeMap<PipelineId, PipelineId>,
}

/// A query and what it reads.
#[derive(Clone, Debug)]
pub struct RunningQuery {
    /// What was asked for.
    pub query: Query,
    /// Where its windows start and end, if that does not depend on the data.
    pub aligned: Option<Aligned>,
    /// Its value columns.
    pub columns: Vec<Column>,
    /// What the sketches are that they read.
    pub sketches: Vec<SketchKind>,
    /// Which of these are series: their places, and the fields that they are of.
    pub series: Vec<(usize, usize)>,
    /// The pipelines whose panes fit its windows, the current one first.
    pub readers: Vec<Reader>,
    /// The coarser pipelines whose panes do not: each of their panes gives rows of its own.
    pub coarse: Vec<Reader>,
}

/// How a query reads one pipeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reader {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// Its pane width.
    pub pane: Span,
    /// For each field of the query its place in the pipeline; none if the pipeline did not have it.
    pub fields: Vec<Option<usize>>,
    /// For each sketch of the query its place in the pipeline; none if the pipeline did not have it.
    pub sketches: Vec<Option<usize>>,
}

impl RunningQuery {
    /// A query on its own pipeline, on the earlier ones among `before`, and on the coarser ones of all of them.
    pub fn new(query: Query, own: PipelineId, before: &[PipelineId], pipelines: &Pipelines) -> Self {
        let fine: Vec<PipelineId> = std::iter::once(own)
            .chain(before.iter().copied().filter(|&id| id != own))
            .collect();
        let coarser = pipelines
            .coarser_of
            .iter()
            .filter(|(_, of)| fine.contains(of))
            .map(|(&id, _)| id);
        let all: Vec<Reader> = fine
            .iter()
            .copied()
            .chain(coarser)
            .filter_map(|id| {
                pipelines
                    .all
                    .get(&id)
                    .and_then(|pipeline| reader(&query, id, pipeline))
            })
            .collect();
        let fits = |reader: &Reader| query.window.fits(reader.pane);
        let (readers, coarse) = all.into_iter().partition(fits);
        Self {
            aligned: Aligned::new(&query.window),
            columns: query.columns(),
            sketches: query.pipeline().sketch_kinds().collect(),
            series: series(&query),
            query,
            readers,
            coarse,
        }
    }

    /// The pipelines whose panes fit its windows.
    pub fn pipelines(&self) -> Vec<PipelineId> {
        self.readers.iter().map(|reader| reader.pipeline).collect()
    }

    /// How this query reads a pipeline into its windows, if it does.
    pub fn reader(&self, pipeline: PipelineId) -> Option<&Reader> {
        self.readers.iter().find(|reader| reader.pipeline == pipeline)
    }

    /// How this query reads a pipeline whose panes do not fit its windows, if it does.
    pub fn coarse_reader(&self, pipeline: PipelineId) -> Option<&Reader> {
        self.coarse.iter().find(|reader| reader.pipeline == pipeline)
    }
}

fn series(query: &Query) -> Vec<(usize, usize)> {
    let sketches = query.pipeline().sketches.into_iter().enumerate();
    let series = sketches.filter_map(|(place, sketch)| match sketch {
        PipelineSketch::Series(field) => Some((place, usize::from(field))),
        _ => None,
    });
    series.collect()
}

fn reader(query: &Query, id: PipelineId, pipeline: &Pipeline) -> Option<Reader> {
    let place = |field: &catchment_common::plan::Field| {
        pipeline
            .fields
            .iter()
            .position(|held| (&held.source, held.resolution) == (&field.source, field.resolution))
    };
    let fields: Vec<Option<usize>> = query.fields.iter().map(place).collect();
    ((pipeline.key.len(), pipeline.count) == (query.key.len(), query.window.count())).then_some(Reader {
        pipeline: id,
        pane: pipeline.pane,
        sketches: pipeline.sketch_places(&query.pipeline(), &fields),
        fields,
    })
}

impl Catalog {
    /// What agents are to run.
    pub fn agent_plan(&self) -> AgentPlan {
        let pipelines = self
            .current
            .iter()
            .filter_map(|id| Some((*id, self.pipelines.get(id)?.clone())))
            .collect();
        AgentPlan {
            version: self.version,
            pipelines,
            coarser: self.ladders.clone(),
        }
    }

    /// Puts `plan` into force. `own` is the pipeline of each query and `before` what each read under earlier plans,
    /// both in the plan's order.
    pub fn new(plan: Plan, pipelines: Pipelines, own: &[PipelineId], before: &[Vec<PipelineId>]) -> Self {
        let mut current = own.to_vec();
        current.sort_unstable();
        current.dedup();
        let ladders = ladders(&plan, &pipelines, own);
        let asked = plan.queries.iter().cloned().collect();
        let queries = plan
            .queries
            .into_iter()
            .zip(own)
            .zip(before)
            .map(|((query, &own), before)| RunningQuery::new(query, own, before, &pipelines))
            .collect();
        Self {
            version: plan.version,
            pipelines: pipelines.all,
            queries,
            asked,
            current,
            ladders,
        }
    }

    /// Puts a first plan into force, numbering its pipelines from 1 in their order and the coarser ones after them.
    pub fn first(plan: Plan) -> Self {
        let planned = plan.pipelines();
        let mut pipelines = Pipelines::default();
        let mut next = 0;
        let mut number = |pipeline: Pipeline, pipelines: &mut Pipelines| {
            next += 1;
            pipelines.all.insert(PipelineId(next), pipeline);
            PipelineId(next)
        };
        let numbers: Vec<PipelineId> = planned
            .pipelines
            .iter()
            .map(|pipeline| number(pipeline.clone(), &mut pipelines))
            .collect();
        for ((&of, pipeline), ladder) in numbers.iter().zip(&planned.pipelines).zip(&planned.ladders) {
            for &pane in ladder {
                let id = number(
                    Pipeline {
                        pane,
                        ..pipeline.clone()
                    },
                    &mut pipelines,
                );
                pipelines.coarser_of.insert(id, of);
            }
        }
        let own: Vec<PipelineId> = planned.readers.iter().map(|(index, _)| numbers[*index]).collect();
        let before: Vec<Vec<PipelineId>> = own.iter().map(|&id| vec![id]).collect();
        Self::new(plan, pipelines, &own, &before)
    }
}

/// Whether a pipeline may go on under its number in a new plan. `queries` are those of the plan: whether each is on the
/// pipeline, and which pipelines it has read.
///
/// A query reads all pipelines that it was ever on, and each reading must be in one of them. So no query may leave a
/// pipeline that others go on to fill, and none that was elsewhere may join one that was filled meanwhile. In both
/// cases the pipeline goes on under another number, and what it holds so far stays readable under the old one.
pub fn keeps_its_number<'q>(
    pipeline: PipelineId,
    queries: impl IntoIterator<Item = (bool, &'q [PipelineId])>,
) -> bool {
    queries
        .into_iter()
        .all(|(is_on_it, read)| read.is_empty() || read.contains(&pipeline) == is_on_it)
}

/// The ladders of a plan's pipelines, whose coarser pipelines must have their numbers.
fn ladders(plan: &Plan, pipelines: &Pipelines, own: &[PipelineId]) -> Vec<Coarser> {
    let planned = plan.pipelines();
    let numbers: BTreeSet<(PipelineId, usize)> = own
        .iter()
        .zip(&planned.readers)
        .map(|(&id, (index, _))| (id, *index))
        .collect();
    let rung = |of: PipelineId, pane| {
        let is_it = |id: &PipelineId| {
            pipelines
                .all
                .get(id)
                .is_some_and(|pipeline| pipeline.pane == pane)
        };
        let mut rungs = pipelines.coarser_of.iter().filter(|&(_, &base)| base == of);
        let (&pipeline, _) = rungs.find(|(id, _)| is_it(id))?;
        Some(Coarser { of, pipeline, pane })
    };
    numbers
        .into_iter()
        .flat_map(|(id, index)| {
            planned.ladders[index]
                .iter()
                .filter_map(move |&pane| rung(id, pane))
        })
        .collect()
}
