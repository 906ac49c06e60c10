//! What must stand in a row, whichever definitions of its query its readings came under.

use std::collections::{BTreeMap, BTreeSet};

use catchment_aggregator::catalog::RunningQuery;
use catchment_aggregator::commit::Row;
use catchment_aggregator::store::memory::RowName;
use catchment_common::key::tags_of;
use catchment_common::plan::{Pipeline, PipelineField, PipelineId, Query};
use catchment_common::stats::Lowered;
use catchment_common::time::Span;
use catchment_firmware_sim::oracle::answer::Answer;
use catchment_firmware_sim::oracle::history::{Cut, History, Wanted};
use catchment_firmware_sim::oracle::nearest::{is_nearest, is_nearest_root};
use catchment_firmware_sim::truth::Entry;

use super::case::START_US;
use super::world::{Read, World};

impl World<'_> {
    /// What the messages say about a query: those that were taken under a plan that had it, and those that were
    /// taken for a pipeline that the query has come to read since.
    pub(super) fn told(&self, running: &RunningQuery) -> History {
        self.history(running, None)
    }

    /// The same with all messages that were published before the query came, `added`, as if it had been there.
    fn told_with_missed(&self, running: &RunningQuery, added: u64) -> History {
        self.history(running, Some(added))
    }

    fn history(&self, running: &RunningQuery, missed_until: Option<u64>) -> History {
        let named = |queries: &Vec<Query>| {
            queries
                .iter()
                .find(|query| query.name == running.query.name)
                .cloned()
        };
        let shown: BTreeMap<u64, Query> = { self.definitions.iter() }
            .filter_map(|(&version, queries)| Some((version, named(queries)?)))
            .collect();
        let mut definitions = vec![running.query.clone()];
        for query in shown.values() {
            if !definitions.contains(query) {
                definitions.push(query.clone());
            }
        }
        // What a pipeline kept before the query joined it, the query does not know.
        let own_count = definitions.len();
        let joining: Vec<Query> = { definitions.iter() }
            .map(|query| Query {
                aggregates: Vec::new(),
                ..query.clone()
            })
            .collect();
        definitions.extend(joining);
        let readers = running.readers.iter().chain(&running.coarse);
        let read: BTreeSet<PipelineId> = readers.map(|reader| reader.pipeline).collect();
        let mut history = History::new(&definitions);
        let is_own = |taken: &Read| taken.pipelines.iter().any(|id| read.contains(id));
        for gateway in 0..self.gateways.len() {
            let all = self.taken(gateway);
            let own: BTreeSet<usize> = { all.iter() }
                .filter(|taken| is_own(taken))
                .map(|taken| taken.copy.publish)
                .collect();
            let mut seen = BTreeSet::new();
            for taken in all {
                let number = taken.copy.publish;
                let publish = &self.case.publishes[number];
                let is_missed = missed_until.is_some_and(|until| publish.at < until)
                    && !own.contains(&number)
                    && !shown.contains_key(&taken.version)
                    && !self.lagged(taken);
                if !(is_own(taken) || is_missed) || !seen.insert(number) {
                    continue;
                }
                let definition = if is_missed {
                    Some(0)
                } else if let Some(query) = shown.get(&taken.version) {
                    definitions.iter().position(|held| held == query)
                } else {
                    let plan = self.plans.get(&taken.version);
                    let mut pipelines = plan.into_iter().flat_map(|plan| &plan.pipelines);
                    let joined = pipelines.find(|(id, _)| read.contains(id));
                    let place = |(_, pipeline): &(PipelineId, Pipeline)| {
                        { definitions.iter() }.position(|held| lets_in(held, pipeline))
                    };
                    joined.and_then(place).map(|place| own_count + place)
                };
                let entry = Entry::Good {
                    topic: publish.topic.as_str().into(),
                    payload: publish.payload.as_str().into(),
                };
                if let Some(definition) = definition {
                    history.handle(definition, self.gateways[gateway].name(), &entry);
                }
            }
        }
        history.finish();
        history
    }

    /// Whether a gateway took a message under a plan that was no longer in force when it was published: without a link it
    /// knows of no other.
    fn lagged(&self, taken: &Read) -> bool {
        let next = self.applied.range(taken.version + 1..).next();
        next.is_some_and(|(_, &applied)| applied <= self.case.publishes[taken.copy.publish].at)
    }

    /// A row says that it does not cover its window if its query came after the window had begun and readings were taken
    /// before that; and only then.
    pub(super) fn check_covered(&self, running: &RunningQuery, faults: &mut Vec<String>) {
        let name = &running.query.name;
        let shown = { self.centre.store.tables[name].rows.iter() }
            .filter(|(name, stored)| !name.2 && !stored.is_merged);
        let Some(&added) = self.centre.added.get(name) else {
            let partial = shown.filter(|(_, stored)| !stored.is_whole);
            faults.extend(partial.map(|(name, _)| format!("{} is partial and should not be", show(name))));
            return;
        };
        let missed = self.told_with_missed(running, added);
        for (name, stored) in shown.filter(|(_, stored)| stored.is_whole) {
            let start = name.0.as_micros();
            let cut = missed.window(&key_text(&running.query, &name.3), start);
            let truth = cut.map_or(0, Cut::readings);
            if start < START_US + added as i64 && truth > stored.row.readings {
                faults.push(format!(
                    "{} does not say that it lacks readings: {}, and {truth} were taken",
                    show(name),
                    stored.row.readings
                ));
            }
        }
    }
}

/// Whether a query lets those readings count that the pipeline does: then it may have joined it.
fn lets_in(query: &Query, pipeline: &Pipeline) -> bool {
    let fields = |fields: &[PipelineField]| {
        let fields = { fields.iter() }.map(|field| (field.source.clone(), field.resolution));
        fields.collect::<BTreeSet<_>>()
    };
    let own = query.pipeline();
    own.topic.shape() == pipeline.topic.shape()
        && (&own.time, &own.filter) == (&pipeline.time, &pipeline.filter)
        && fields(&own.fields) == fields(&pipeline.fields)
}

/// What is wrong with a row that was written while its query was defined as `shown`. If a full spool gave up points
/// (`pointless`), answers that need them may be missing.
pub(super) fn differences(
    told: &History,
    shown: &Query,
    row: &Row,
    (at, cut): ((&str, i64), &Cut),
    (size, pointless): (Span, bool),
) -> Vec<String> {
    let mut faults = Vec::new();
    if row.readings != cut.readings() {
        faults.push(format!("{} readings, truth {}", row.readings, cut.readings()));
        return faults;
    }
    for ((column, wanted), value) in told.wanted(shown, at, cut, size).into_iter().zip(&row.values) {
        let (answer, nothing) = match wanted {
            Wanted::Exactly(answer) => (answer, false),
            Wanted::OrNothing(answer) => (answer, true),
            Wanted::Anything => continue,
        };
        let field = column.field.map(|field| &shown.fields[field]);
        let is_of_points = field.is_some_and(|field| shown.aggregates[column.aggregate].is_of_points(field));
        let nothing = nothing || pointless && is_of_points;
        if !(is(value.as_ref(), &answer) || nothing && value.is_none()) {
            let name = &column.name;
            faults.push(format!("{name} is {value:?}, truth {}", answer.show()));
        }
    }
    faults
}

fn is(value: Option<&Lowered>, answer: &Answer) -> bool {
    match (value, answer) {
        (None, Answer::None | Answer::FractionOrNone(..)) => true,
        (Some(Lowered::Integer(integer)), Answer::Count(count)) => integer == count,
        (Some(Lowered::Real(real)), Answer::Fraction(top, bottom) | Answer::FractionOrNone(top, bottom)) => {
            is_nearest(*real, top, bottom)
        }
        (Some(Lowered::Real(real)), Answer::Root(top, bottom)) => is_nearest_root(*real, top, bottom),
        (Some(Lowered::Real(real)), Answer::Double(double)) => real == double,
        (Some(Lowered::Text(text)), Answer::Text(truth)) => text == truth,
        _ => false,
    }
}

pub(super) fn key_text(query: &Query, key: &[u8]) -> String {
    let tags: Vec<&str> = tags_of(key, query.key.len()).into_iter().flatten().collect();
    tags.join("\0")
}

pub(super) fn show(name: &RowName) -> String {
    let (start, end, coarse, key) = name;
    format!(
        "{:?} {} to {} s{}",
        String::from_utf8_lossy(key),
        seconds(start.as_micros()),
        seconds(end.as_micros()),
        if *coarse { ", coarse" } else { "" }
    )
}

pub(super) fn seconds(at_us: i64) -> i64 {
    (at_us - START_US) / 1_000_000
}
