//! What the truth says of a query whose definition was changed while readings came.
//!
//! Each reading counts as the definition has it under which an agent took it. A window's readings may therefore have
//! come under several definitions, of which each knows other things: a definition that had not asked for a function,
//! or for a field, has not kept what would answer it. So a row's column shows either what all the readings say or
//! nothing, and nothing only where one of the definitions did not ask.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use catchment_common::plan::{Aggregate, Column, Dedupe, Field, FieldKind, Query, Window};
use catchment_common::time::Span;

use super::answer::Answer;
use super::edges::{Edges, Past};
use super::numbers::Numbers;
use super::reading::{Message, Reader, Reading, quoted};
use super::window::{Contents, covering};
use crate::truth::Entry;

/// A query through all its definitions.
#[derive(Debug)]
pub struct History {
    definitions: Vec<Definition>,
    /// By key (tags joined by NUL), then by the window's start.
    keys: HashMap<String, BTreeMap<i64, Cut>>,
    /// Of count windows: by agent and key the readings in the order in which the agent took them.
    sequences: BTreeMap<(String, String), Vec<(usize, Reading)>>,
    /// Of each device (definition of its numbers, agent, topic and key) the numbers so far.
    numbers: BTreeMap<(Option<Dedupe>, String), Numbers>,
    /// By key, what each definition took.
    past: HashMap<String, Vec<Past>>,
    accepted: u64,
}

#[derive(Debug)]
struct Definition {
    /// As it stood in the plan.
    query: Query,
    /// With the functions of all definitions, for which the readings know the answer even where the plan did not ask.
    asked: Query,
    reader: Reader,
}

/// What one window holds.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The window's end, in microseconds since the Unix epoch.
    pub end_us: i64,
    /// By definition, what came under it.
    parts: BTreeMap<usize, Contents>,
}

/// What a column must show.
#[derive(Clone, PartialEq, Debug)]
pub enum Wanted {
    /// This.
    Exactly(Answer),
    /// This or nothing: a definition did not ask, and may have known it all the same.
    OrNothing(Answer),
    /// Whatever it was: nothing rewrites it any more.
    Anything,
}

impl History {
    /// A query with these definitions, which must be of one kind of window and have keys of the same tags.
    pub fn new<'q>(definitions: impl IntoIterator<Item = &'q Query>) -> Self {
        let queries: Vec<&Query> = definitions.into_iter().collect();
        let all: BTreeSet<&Aggregate> = queries.iter().flat_map(|query| &query.aggregates).collect();
        let definition = |query: &&Query| {
            // Those that name what a definition does not have would name nothing; no part of it can answer them.
            let mut asked = (*query).clone();
            let more = all
                .iter()
                .filter(|aggregate| !query.aggregates.contains(aggregate));
            asked.aggregates.extend(more.map(|&aggregate| aggregate.clone()));
            Definition {
                reader: Reader::new(&asked),
                asked,
                query: (*query).clone(),
            }
        };
        Self {
            definitions: queries.iter().map(definition).collect(),
            keys: HashMap::new(),
            sequences: BTreeMap::new(),
            numbers: BTreeMap::new(),
            past: HashMap::new(),
            accepted: 0,
        }
    }

    /// Takes in a message that an agent took under the `definition` of that index.
    pub fn handle(&mut self, definition: usize, agent: &str, entry: &Entry<'_>) {
        let Definition { asked, reader, .. } = &self.definitions[definition];
        let Entry::Good { topic, payload } = entry else {
            return;
        };
        if asked.topic.matches(topic).is_none() {
            return;
        }
        let payload = quoted(payload);
        let Ok(message) = Message::parse(topic, &payload) else {
            return;
        };
        for object in message.objects.iter().flatten() {
            let Ok(reading) = reader.read(message.topic, object) else {
                continue;
            };
            if let Some(number) = reading.number {
                let device = format!("{agent}\0{topic}\0{}", reading.key);
                let numbers = self.numbers.entry((asked.dedupe.clone(), device));
                let numbers = numbers.or_insert_with(|| Numbers::new(asked.dedupe.as_ref()));
                if !numbers.insert(number) {
                    continue;
                }
            }
            self.accepted += 1;
            if asked.window.count().is_some() {
                let name = (agent.to_owned(), reading.key.clone());
                self.sequences
                    .entry(name)
                    .or_default()
                    .push((definition, reading));
                continue;
            }
            let past = self.past.entry(reading.key.clone()).or_default();
            past.resize(past.len().max(definition + 1), Past::default());
            past[definition].add(reading.at_us, &reading.values);
            let windows = self.keys.entry(reading.key.clone()).or_default();
            for (start, end_us) in covering(&asked.window, reading.at_us) {
                let cut = windows.entry(start).or_insert_with(|| Cut {
                    end_us,
                    parts: BTreeMap::new(),
                });
                let part = cut.parts.entry(definition);
                part.or_insert_with(|| Contents::new(asked)).add(&reading);
            }
        }
    }

    /// Once all messages are in: sessions that overlap are one.
    pub fn finish(&mut self) {
        let is_session = |definition: &Definition| matches!(definition.query.window, Window::Session { .. });
        if !self.definitions.iter().any(is_session) {
            return;
        }
        for windows in self.keys.values_mut() {
            let mut joined: BTreeMap<i64, Cut> = BTreeMap::new();
            for (start, cut) in std::mem::take(windows) {
                match joined.last_entry() {
                    Some(mut before) if start < before.get().end_us => before.get_mut().join(cut),
                    _ => {
                        joined.insert(start, cut);
                    }
                }
            }
            *windows = joined;
        }
    }

    /// How many readings count.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Every window: key, start and what is in it.
    pub fn windows(&self) -> impl Iterator<Item = (&str, i64, &Cut)> {
        self.keys.iter().flat_map(|(key, windows)| {
            windows
                .iter()
                .map(move |(&start, cut)| (key.as_str(), start, cut))
        })
    }

    /// The window of a key that starts here.
    pub fn window(&self, key: &str, start_us: i64) -> Option<&Cut> {
        self.keys.get(key)?.get(&start_us)
    }

    /// Whether an instant lies within a window of a key, after its start.
    pub fn is_within(&self, key: &str, at_us: i64) -> bool {
        let before = self
            .keys
            .get(key)
            .and_then(|windows| windows.range(..at_us).next_back());
        before.is_some_and(|(_, cut)| at_us < cut.end_us)
    }

    /// By agent and key the readings that count windows are cut from.
    pub fn sequences(&self) -> impl Iterator<Item = (&(String, String), &[(usize, Reading)])> {
        self.sequences
            .iter()
            .map(|(name, readings)| (name, readings.as_slice()))
    }

    /// A count window of these readings.
    pub fn counted(&self, readings: &[(usize, Reading)]) -> Cut {
        let mut parts = BTreeMap::new();
        for (definition, reading) in readings {
            let asked = &self.definitions[*definition].asked;
            let part = parts.entry(*definition).or_insert_with(|| Contents::new(asked));
            part.add(reading);
        }
        let end_us = readings
            .iter()
            .map(|(_, reading)| reading.at_us)
            .max()
            .unwrap_or(i64::MIN);
        Cut { end_us, parts }
    }

    /// What a window has of the fields and functions of `shown`, from all definitions that have them. `at` is its key and
    /// start.
    pub fn merged(&self, shown: &Query, at: (&str, i64), cut: &Cut) -> Contents {
        let mut merged = Contents::new(shown);
        for (&index, part) in &cut.parts {
            merged.adopt(shown, part, &self.definitions[index].asked);
        }
        merged.edges = self.edges(shown, at, cut.end_us);
        merged
    }

    /// What was before a window, of the fields of `shown`, under all definitions that have them.
    fn edges(&self, shown: &Query, (key, start_us): (&str, i64), end_us: i64) -> Option<Edges> {
        let mut edges = Past::default().edges(shown, (start_us, end_us))?;
        let from = start_us - shown.lookback().as_micros();
        let past = self.past.get(key).into_iter().flatten();
        for (definition, past) in self.definitions.iter().zip(past) {
            for (before, field) in edges.before.iter_mut().zip(&shown.fields) {
                let same =
                    |held: &Field| (&held.source, held.resolution) == (&field.source, field.resolution);
                let place = definition.asked.fields.iter().position(same);
                before.extend(
                    place
                        .into_iter()
                        .flat_map(|place| past.points(place, from, start_us)),
                );
            }
        }
        Some(edges)
    }

    /// What the columns of a row must show that was written while the query was defined as `shown`, over so much time.
    pub fn wanted(&self, shown: &Query, at: (&str, i64), cut: &Cut, size: Span) -> Vec<(Column, Wanted)> {
        let merged = self.merged(shown, at, cut);
        let wanted = |column: Column| {
            let wanted = self.of_column(shown, &column, cut, &merged, size);
            let field = column.field.map(|field| &shown.fields[field]);
            let goes_on = field.is_some_and(|field| shown.aggregates[column.aggregate].is_of_points(field));
            match wanted {
                _ if goes_on && self.looks_back_less(shown, at) => (column, Wanted::Anything),
                // A definition that asked for other things may not have kept what was before the window.
                Wanted::Exactly(answer) if goes_on && self.was_other_before(shown, at) => {
                    (column, Wanted::OrNothing(answer))
                }
                wanted => (column, wanted),
            }
        };
        shown.columns().into_iter().map(wanted).collect()
    }

    /// Whether a window has readings to look back to, and a definition looks back less than `shown`: then it may be that
    /// none of them has rewritten the row.
    fn looks_back_less(&self, shown: &Query, (key, start_us): (&str, i64)) -> bool {
        let lookback = shown.lookback();
        let mut past = self.past.get(key).into_iter().flatten();
        // Those without a function stand for pipelines that the query has joined since.
        let mut queries = { self.definitions.iter() }
            .map(|definition| &definition.query)
            .filter(|query| !query.aggregates.is_empty());
        queries.any(|query| query.lookback() < lookback)
            && past.any(|past| past.has(start_us - lookback.as_micros(), start_us))
    }

    /// Whether readings to which a window looks back came under a definition that keeps other things than `shown`.
    fn was_other_before(&self, shown: &Query, (key, start_us): (&str, i64)) -> bool {
        // A pane may reach further back, and is not longer than a window.
        let reach = shown.lookback().as_micros() + shown.window.longest().as_micros();
        let keeps = |query: &Query| (query.fields.clone(), query.aggregates.clone());
        let past = self.past.get(key).into_iter().flatten();
        let mut past =
            { self.definitions.iter().zip(past) }.filter(|(_, past)| past.has(start_us - reach, start_us));
        past.any(|(definition, _)| keeps(&definition.query) != keeps(shown))
    }

    fn of_column(&self, shown: &Query, column: &Column, cut: &Cut, merged: &Contents, size: Span) -> Wanted {
        let aggregate = &shown.aggregates[column.aggregate];
        let answer = merged.column(shown, column, size);
        let Some(field) = field_of(shown, column) else {
            // Of a tag, which all definitions have.
            let mut parts = cut.parts.keys().map(|&index| &self.definitions[index].query);
            return if parts.all(|query| query.aggregates.contains(aggregate)) {
                Wanted::Exactly(answer)
            } else {
                Wanted::OrNothing(answer)
            };
        };
        // A part that could have had values and has none says so, however they would have been rounded.
        let speaks = |(index, part): &(&usize, &Contents)| {
            let Definition { query, asked, .. } = &self.definitions[**index];
            !has(query, field, |_| true) || part.values_from(asked, &field.source) > 0
        };
        let parts = || {
            { cut.parts.iter() }
                .filter(speaks)
                .map(|(&index, _)| &self.definitions[index].query)
        };
        if parts().all(|query| has(query, field, |held| held.resolution == field.resolution)) {
            return if parts().all(|query| asks(query, aggregate, field)) {
                Wanted::Exactly(answer)
            } else {
                Wanted::OrNothing(answer)
            };
        }
        // How many there are does not depend on how they were rounded.
        let is_count =
            *aggregate == Aggregate::Count || *aggregate == Aggregate::Rate && field.kind == FieldKind::Gauge;
        if is_count && parts().all(|query| has(query, field, |_| true)) {
            let counts = cut.parts.iter().map(|(&index, part)| {
                let of = &self.definitions[index].asked;
                part.values_from(of, &field.source)
            });
            return Wanted::Exactly(Contents::of_count(aggregate, counts.sum(), size));
        }
        Wanted::Exactly(Answer::None)
    }
}

/// The field that a column is about.
fn field_of<'q>(query: &'q Query, column: &Column) -> Option<&'q Field> {
    let named = match &query.aggregates[column.aggregate] {
        Aggregate::Distinct(name) => query.fields.iter().find(|field| field.name == *name),
        _ => None,
    };
    column.field.map(|field| &query.fields[field]).or(named)
}

impl Cut {
    /// How many readings it holds.
    pub fn readings(&self) -> u64 {
        self.parts.values().map(|part| part.readings).sum()
    }

    /// The definitions under which they came.
    pub fn definitions(&self) -> impl Iterator<Item = usize> {
        self.parts.keys().copied()
    }

    fn join(&mut self, later: Self) {
        self.end_us = later.end_us;
        for (definition, part) in later.parts {
            match self.parts.entry(definition) {
                std::collections::btree_map::Entry::Occupied(mut held) => held.get_mut().merge(&part),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(part);
                }
            }
        }
    }
}

/// Whether a definition asks for this function of a field. What `rate` means depends on the kind of the field.
fn asks(query: &Query, aggregate: &Aggregate, field: &Field) -> bool {
    query.aggregates.contains(aggregate)
        && (*aggregate != Aggregate::Rate || has(query, field, |held| held.kind == field.kind))
}

/// Whether a definition has a field from the same source, of which this holds.
fn has(query: &Query, field: &Field, holds: impl Fn(&Field) -> bool) -> bool {
    { query.fields.iter() }.any(|held| held.source == field.source && holds(held))
}
