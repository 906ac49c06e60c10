//! The running plan: which pipelines there are, and which query reads which of them.
//!
//! A query reads its own pipeline and those that it read under earlier plans. An agent counts each reading under
//! exactly one plan, so the panes of old and new pipeline together hold each reading once, and a change of plan tears
//! no window apart.
//!
//! Each pipeline has a coarsening ladder of *coarser pipelines* with ids of their own: an agent whose spool runs
//! full ships old readings under those. A query also reads the coarser ones of all its pipelines: where their panes fit
//! its windows they are as good as any, and where not, they give rows of their own.

pub mod change;

pub mod since;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catchment_common::plan::{Column, Components, Field, Pipeline, PipelineId, PipelineSketch, Plan, Query};
use catchment_common::sketch::SketchKind;
use catchment_common::time::{Span, Timestamp};
use catchment_common::wire::{AgentPlan, Coarser, SectionView, v1};

use crate::pipelines::Pipelines;
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
    /// What agents of version 1 call the pipelines.
    pub numbers: BTreeMap<u32, PipelineId>,
    /// See [`Pipelines::uncertain`].
    pub uncertain: BTreeSet<PipelineId>,
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
    /// Which of the query's fields each of these is about; none if it is about a tag.
    pub about: Vec<Option<usize>>,
    /// Which of these are series: their places, and the fields that they are of.
    pub series: Vec<(usize, usize)>,
    /// The pipelines whose panes fit its windows, the current one first.
    pub readers: Vec<Reader>,
    /// The coarser pipelines whose panes do not: each of their panes gives rows of its own.
    pub coarse: Vec<Reader>,
    /// Since when its readings are taken. A window that starts before may lack some; see [`since`].
    pub since: Timestamp,
}

/// How a query reads one pipeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reader {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// Its pane width.
    pub pane: Span,
    /// What the pipeline keeps of each field of the query; none if the pipeline does not have it.
    pub fields: Vec<Option<KeptField>>,
    /// For each sketch of the query its place in the pipeline; none if the pipeline did not have it.
    pub sketches: Vec<Option<usize>>,
}

/// What a pipeline keeps of a query's field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptField {
    /// The field's place in the pipeline.
    pub place: usize,
    /// The components that are kept of its values; none if they were rounded to another resolution than the query asks
    /// for, so that only their count says anything.
    pub components: Option<Components>,
}

impl RunningQuery {
    /// A query on its own pipeline, on the earlier ones that it has read, and on the coarser ones of all of them.
    pub fn new(query: Query, own: PipelineId, pipelines: &Pipelines) -> Self {
        let read = pipelines.readers.get(&query.name).into_iter().flatten();
        let fine: Vec<PipelineId> = std::iter::once(own)
            .chain(read.copied().filter(|&id| id != own))
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
            about: about(&query),
            series: series(&query),
            query,
            readers,
            coarse,
            since: Timestamp::MIN,
        }
    }

    /// The pipelines whose panes fit its windows.
    pub fn pipelines(&self) -> Vec<PipelineId> {
        self.readers.iter().map(|reader| reader.pipeline).collect()
    }

    /// How far before a window's start panes of this width may start that the window looks back to; nothing if it does not.
    pub fn reach(&self, pane: Span) -> Span {
        match self.query.lookback() {
            Span::ZERO => Span::ZERO,
            lookback => lookback.plus(pane),
        }
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

fn about(query: &Query) -> Vec<Option<usize>> {
    let sketches = query.pipeline().sketches.into_iter();
    sketches.map(|sketch| sketch.field().map(usize::from)).collect()
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
    let fields: Vec<Option<KeptField>> = query.fields.iter().map(|field| kept(pipeline, field)).collect();
    let exact = |field: &Option<KeptField>| field.filter(|kept| kept.components.is_some());
    let places: Vec<Option<usize>> = { fields.iter() }
        .map(|field| exact(field).map(|kept| kept.place))
        .collect();
    ((pipeline.key.len(), pipeline.count) == (query.key.len(), query.window.count())).then_some(Reader {
        pipeline: id,
        pane: pipeline.pane,
        sketches: pipeline.sketch_places(&query.pipeline(), &places),
        fields,
    })
}

/// What a pipeline keeps of a field: at the same resolution, or else how many values there were.
fn kept(pipeline: &Pipeline, field: &Field) -> Option<KeptField> {
    let from_it = || { pipeline.fields.iter().enumerate() }.filter(|(_, held)| held.source == field.source);
    let exact = from_it().find(|(_, held)| held.resolution == field.resolution);
    let counted = || {
        from_it().next().map(|(place, _)| KeptField {
            place,
            components: None,
        })
    };
    let exact = exact.map(|(place, held)| KeptField {
        place,
        components: Some(held.components),
    });
    exact.or_else(counted)
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

    /// What an agent that speaks this version of the wire is to run.
    pub fn plan_for(&self, version: u8) -> AgentPlan {
        if version == v1::VERSION {
            self.agent_plan_v1().0
        } else {
            self.agent_plan()
        }
    }

    /// What agents of version 1 are to run, with numbers in the place of ids, and how many pipelines are left out because
    /// version 1 cannot express them. Its version is a fingerprint, so that it is the same in no other database.
    pub fn agent_plan_v1(&self) -> (AgentPlan, usize) {
        let number_of: BTreeMap<PipelineId, u32> =
            self.numbers.iter().map(|(&number, &id)| (id, number)).collect();
        let number = |id: &PipelineId| Some(PipelineId::from(*number_of.get(id)?));
        let current = { self.current.iter() }.filter_map(|id| {
            let pipeline = self.pipelines.get(id)?;
            v1::emit_pipeline(pipeline).ok()?;
            Some((number(id)?, pipeline.clone()))
        });
        let mut plan = AgentPlan {
            version: 0,
            pipelines: current.collect(),
            coarser: Vec::new(),
        };
        plan.coarser = { self.ladders.iter() }
            .filter_map(|rung| {
                Some(Coarser {
                    of: number(&rung.of).filter(|of| plan.pipelines.iter().any(|(id, _)| id == of))?,
                    pipeline: number(&rung.pipeline)?,
                    pane: rung.pane,
                })
            })
            .collect();
        plan.version = plan.fingerprint();
        let left_out = self.current.len() - plan.pipelines.len();
        (plan, left_out)
    }

    /// The pipeline that is meant: numbers of version 1 are those of this database. None for a number that it has not
    /// given out.
    pub fn resolve(&self, id: PipelineId) -> Option<PipelineId> {
        match id.number() {
            None | Some(0) => Some(id),
            Some(number) => self.numbers.get(&number).copied(),
        }
    }

    /// A section of a batch, as one of the pipeline that is meant; see [`Catalog::resolve`].
    pub fn resolved<'b>(&self, mut view: SectionView<'b>) -> Option<SectionView<'b>> {
        view.pipeline = self.resolve(view.pipeline)?;
        Some(view)
    }

    /// Puts `plan` into force. `own` is the pipeline of each query, in the plan's order.
    pub fn new(plan: Plan, pipelines: Pipelines, own: &[PipelineId]) -> Self {
        let mut current = own.to_vec();
        current.sort_unstable();
        current.dedup();
        let ladders = ladders(&plan, &pipelines, own);
        let asked = plan.queries.iter().cloned().collect();
        let running = |(query, &own): (Query, &PipelineId)| RunningQuery::new(query, own, &pipelines);
        let queries = plan.queries.into_iter().zip(own).map(running).collect();
        Self {
            version: plan.version,
            queries,
            asked,
            current,
            ladders,
            uncertain: pipelines.uncertain(),
            pipelines: pipelines.all,
            numbers: pipelines.numbers,
        }
    }

    /// Notes since when the readings of each query are taken, in the plan's order.
    #[must_use]
    pub fn since(mut self, since: impl IntoIterator<Item = Timestamp>) -> Self {
        for (query, since) in self.queries.iter_mut().zip(since) {
            query.since = since;
        }
        self
    }

    /// Puts a first plan into force, in a database of its own.
    pub fn first(plan: Plan) -> Self {
        let mut pipelines = Pipelines::default();
        // There is nothing yet that a generation could be told apart from.
        let (own, _) = pipelines.assign(&plan, || 0);
        Self::new(plan, pipelines, &own)
    }
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
