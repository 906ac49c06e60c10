//! The pipelines that a database knows, and which of them a plan's pipelines are: the one policy behind every store.
//!
//! A pipeline is known by a fingerprint of its definition, so an id means the same in every database. A definition may
//! have several *generations*, of which the newest is in force: a query reads all pipelines that it was ever on, and
//! each reading must be in one of them. So no query may leave a pipeline that others go on to fill, and none that was
//! elsewhere may join one that was filled meanwhile. In both cases the definition goes on as a new generation, with a
//! random nonce in its fingerprint, and what there is so far stays readable under the old id. Because the nonce is
//! random, a database that was put back to an older state never gives out an id that agents know with another meaning.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::plan::{Pipeline, PipelineId, Plan};
use catchment_common::wire::fingerprint;

/// A pipeline as it was given its id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// Its id.
    pub id: PipelineId,
    /// The number that it has for agents of version 1.
    pub number: u32,
    /// What it is.
    pub definition: Pipeline,
    /// Of which pipeline's ladder it is a rung, if of any.
    pub coarser_of: Option<PipelineId>,
    /// The nonce in its id: 0 for the first generation.
    pub nonce: u64,
}

/// All pipelines that were ever given ids, and who has read them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pipelines {
    /// Every pipeline, rungs included.
    pub all: BTreeMap<PipelineId, Pipeline>,
    /// Of the rungs: which pipeline each is a rung of.
    pub coarser_of: BTreeMap<PipelineId, PipelineId>,
    /// Which pipelines each query has read, those of queries included that are not in the plan any more.
    pub readers: BTreeMap<String, BTreeSet<PipelineId>>,
    /// What agents of version 1 call them.
    pub numbers: BTreeMap<u32, PipelineId>,
    /// The nonce of first generations: 0, but for a database that may have lost what it gave out.
    pub first_nonce: u64,
    /// In the order in which they were given.
    order: Vec<PipelineId>,
}

/// Numbers below are those of databases from before there were ids.
const NUMBER_MIN: u32 = 1 << 16;

impl Pipelines {
    /// Takes up a pipeline, newer than all before it.
    pub fn add(&mut self, given: Given) {
        if let Some(of) = given.coarser_of {
            self.coarser_of.insert(given.id, of);
        }
        self.numbers.insert(given.number, given.id);
        self.order.push(given.id);
        self.all.insert(given.id, given.definition);
    }

    /// The pipeline of each query of a plan, in its order, and those that are given ids now; what the queries read is
    /// noted. `nonce` gives random numbers.
    pub fn assign(&mut self, plan: &Plan, mut nonce: impl FnMut() -> u64) -> (Vec<PipelineId>, Vec<Given>) {
        let planned = plan.pipelines();
        let nothing = BTreeSet::new();
        let read: Vec<BTreeSet<PipelineId>> = { plan.queries.iter() }
            .map(|query| self.readers.get(&query.name).unwrap_or(&nothing).clone())
            .collect();
        let (mut ids, mut given) = (Vec::new(), Vec::new());
        for (index, (base, ladder)) in planned.pipelines.iter().zip(&planned.ladders).enumerate() {
            let queries = planned.readers.iter().zip(&read);
            let queries = queries.map(|((own, _), read)| (*own == index, read));
            let newest = self.newest(base, None);
            let goes_on = newest.filter(|&newest| goes_on(newest, queries));
            let first = if newest.is_some() {
                nonce()
            } else {
                self.first_nonce
            };
            let id = goes_on.unwrap_or_else(|| self.give(base.clone(), None, first, &mut nonce, &mut given));
            for &pane in ladder {
                let rung = Pipeline { pane, ..base.clone() };
                if self.newest(&rung, Some(id)).is_none() {
                    self.give(rung, Some(id), 0, &mut nonce, &mut given);
                }
            }
            ids.push(id);
        }
        let own: Vec<PipelineId> = planned.readers.iter().map(|(index, _)| ids[*index]).collect();
        for (query, &id) in plan.queries.iter().zip(&own) {
            self.readers.entry(query.name.clone()).or_default().insert(id);
        }
        (own, given)
    }

    /// The newest generation of a definition. A rung of a ladder is told apart from a pipeline that happens to be
    /// defined alike: both may be in use at once, and a query that read both would count twice.
    fn newest(&self, definition: &Pipeline, of: Option<PipelineId>) -> Option<PipelineId> {
        let is_it =
            |id: &&PipelineId| self.coarser_of.get(id).copied() == of && self.all.get(id) == Some(definition);
        self.order.iter().rev().find(is_it).copied()
    }

    fn give(
        &mut self,
        definition: Pipeline,
        coarser_of: Option<PipelineId>,
        mut nonce: u64,
        more: &mut impl FnMut() -> u64,
        given: &mut Vec<Given>,
    ) -> PipelineId {
        let mut id = fingerprint(&definition, coarser_of, nonce);
        // Two of 64 bits are never alike, but if they were, one would be taken for the other.
        while self.all.contains_key(&id) {
            nonce = more();
            id = fingerprint(&definition, coarser_of, nonce);
        }
        let new = Given {
            id,
            number: self.number_for(id),
            definition,
            coarser_of,
            nonce,
        };
        self.add(new.clone());
        given.push(new);
        id
    }

    /// A number that no other pipeline has, and in another database most likely none either: a part of the id.
    pub fn number_for(&self, id: PipelineId) -> u32 {
        let folded = (id.0 >> 32) as u32 ^ id.0 as u32;
        let from = folded.max(NUMBER_MIN);
        let mut free = (from..u32::MAX).chain(NUMBER_MIN..from);
        free.find(|number| !self.numbers.contains_key(number))
            .unwrap_or(u32::MAX)
    }

    /// Pipelines of which a batch that was gathered for another database must not be taken: some query has read them and
    /// others, and a reading of that batch may be in both.
    pub fn uncertain(&self) -> BTreeSet<PipelineId> {
        let several = self.readers.values().filter(|read| read.len() > 1);
        let bases: BTreeSet<PipelineId> = several.flatten().copied().collect();
        let rungs = { self.coarser_of.iter() }.filter(|(_, of)| bases.contains(of));
        let rungs: Vec<PipelineId> = rungs.map(|(&rung, _)| rung).collect();
        bases.into_iter().chain(rungs).collect()
    }
}

/// Whether a pipeline may go on under its id in a new plan. `queries` are those of the plan: whether each is on the
/// pipeline, and which pipelines it has read.
fn goes_on<'q>(
    pipeline: PipelineId,
    queries: impl IntoIterator<Item = (bool, &'q BTreeSet<PipelineId>)>,
) -> bool {
    queries
        .into_iter()
        .all(|(is_on_it, read)| read.is_empty() || read.contains(&pipeline) == is_on_it)
}

#[cfg(test)]
mod tests {
    use catchment_common::plan::Query;
    use catchment_common::time::Span;

    use super::*;

    fn plan(queries: &[(&str, i64)]) -> Plan {
        let query = |&(name, delay): &(&str, i64)| Query {
            name: name.into(),
            watermark_delay: Span::from_secs(delay),
            ..Query::example()
        };
        Plan {
            version: 1,
            queries: queries.iter().map(query).collect(),
        }
    }

    /// Applies a plan; the nonces count up from 100.
    fn assign(pipelines: &mut Pipelines, queries: &[(&str, i64)]) -> Vec<PipelineId> {
        let mut next = 100;
        let nonce = || {
            next += 1;
            next
        };
        pipelines.assign(&plan(queries), nonce).0
    }

    #[test]
    fn the_same_plan_has_the_same_ids_in_every_database() {
        let (mut one, mut other) = (Pipelines::default(), Pipelines::default());
        assign(&mut other, &[("else", 7)]);
        assert_eq!(assign(&mut one, &[("a", 1)]), assign(&mut other, &[("b", 1)]));
        assert_ne!(assign(&mut one, &[("a", 2)]), assign(&mut one, &[("a", 1)]));
    }

    #[test]
    fn a_pipeline_that_a_query_leaves_goes_on_as_another_generation() {
        let mut pipelines = Pipelines::default();
        let before = assign(&mut pipelines, &[("a", 1), ("b", 1)]);
        assert_eq!(before[0], before[1]);
        let after = assign(&mut pipelines, &[("a", 2), ("b", 1)]);
        assert_ne!(after[1], before[1], "a has left it");
        assert_eq!(pipelines.uncertain().len(), 3);
        let again = assign(&mut pipelines, &[("a", 2), ("b", 1)]);
        assert_eq!(again, after, "the newest goes on");
    }

    #[test]
    fn a_database_that_may_have_forgotten_ids_gives_out_none_of_them() {
        let (mut known, mut unsure) = (Pipelines::default(), Pipelines::default());
        unsure.first_nonce = 9;
        assert_ne!(assign(&mut known, &[("a", 1)]), assign(&mut unsure, &[("a", 1)]));
    }

    #[test]
    fn numbers_are_a_part_of_the_id_and_are_never_shared() {
        let mut pipelines = Pipelines::default();
        assign(&mut pipelines, &[("a", 1)]);
        let (&number, &id) = pipelines.numbers.first_key_value().unwrap();
        assert_ne!(pipelines.number_for(id), number);
        assert!(number >= NUMBER_MIN);
        assert_eq!(Pipelines::default().number_for(id), number);
        assert!(Pipelines::default().number_for(PipelineId(u64::MAX)) >= NUMBER_MIN);
    }
}
