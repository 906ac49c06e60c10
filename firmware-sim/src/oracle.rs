//! The oracle: every window of every query, recomputed from the truth.
//!
//! It shares the plan's *meaning* with the rest of the system (types, names, limits) and none of its arithmetic:
//! values are big integers, answers are exact fractions, and whether a double is the nearest one is decided by
//! comparing the fraction with the midpoints to its neighbours. What the oracle and the pipeline agree on, two
//! independent programs agree on. Memory is bounded by windows × keys, not by readings; that of sessions by
//! the distinct times of readings, and of functions that need every point by the readings.

pub mod answer;

mod calendar;

pub mod count;

pub mod decimal;

pub mod edges;

pub mod expression;

pub mod history;

pub mod reading;

pub mod window;

pub mod sketch;

pub mod series;

pub mod xxh64;

pub mod nearest;

mod numbers;

use std::collections::{BTreeMap, HashMap};

use catchment_common::metrics::Reason;
use catchment_common::plan::{self, Plan, Query, TimeSource};
use catchment_common::time::Span;

use crate::truth::Entry;

use edges::Past;
use numbers::Numbers;
use reading::{Message, Reader, Reading, quoted};
use window::Contents;

/// What the truth says about each query of a plan.
#[derive(Debug)]
pub struct Oracle {
    queries: Vec<Expected>,
    payload_bytes: u64,
}

/// What the truth says about one query.
#[derive(Debug)]
pub struct Expected {
    /// The query.
    pub query: Query,
    /// How many readings were published and what must become of them.
    pub metrics: Metrics,
    reader: Reader,
    /// By key (tags joined by NUL), then by the window's start: its end and contents.
    keys: HashMap<Box<str>, BTreeMap<i64, (i64, Contents)>>,
    /// By key, all that windows may go on from, for a query that looks back.
    past: HashMap<Box<str>, Past>,
    keeps_windows: bool,
    /// Of count windows: by agent and key (`""` stands for any agent) the readings in their order.
    sequences: BTreeMap<(String, String), Vec<Reading>>,
    /// Of each device (agent, topic and key) that numbers its readings: the numbers so far.
    numbers: HashMap<Box<str>, Numbers>,
}

/// A window of the truth.
#[derive(Clone, Copy, Debug)]
pub struct Window<'e> {
    /// The key's tags joined by NUL.
    pub key: &'e str,
    /// Its start, in microseconds since the Unix epoch.
    pub start_us: i64,
    /// Its end.
    pub end_us: i64,
    /// What is in it.
    pub contents: &'e Contents,
}

/// Readings published for one query.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    /// All of them.
    pub published: u64,
    /// Those that must be in the result.
    pub accepted: u64,
    /// Over all accepted readings, in how many windows each of them is.
    pub row_readings: u64,
    /// Those that must be refused, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Beside all of these, readings that devices published again under the same number: they count once.
    pub repeated: u64,
}

impl Oracle {
    /// An oracle that recomputes windows.
    pub fn new(plan: &Plan) -> Self {
        Self::with(plan, true)
    }

    /// An oracle that counts readings only, in memory that does not grow with them.
    pub fn counting(plan: &Plan) -> Self {
        Self::with(plan, false)
    }

    fn with(plan: &Plan, keeps_windows: bool) -> Self {
        let expected = |query: &Query| Expected {
            query: query.clone(),
            metrics: Metrics::default(),
            reader: Reader::new(query),
            keys: HashMap::new(),
            past: HashMap::new(),
            keeps_windows,
            sequences: BTreeMap::new(),
            numbers: HashMap::new(),
        };
        Self {
            queries: plan.queries.iter().map(expected).collect(),
            payload_bytes: 0,
        }
    }

    /// Takes in one published message.
    pub fn handle(&mut self, entry: &Entry<'_>) {
        self.handle_of("", entry);
    }

    /// Takes in one published message that this agent took, and no other; `""` says that every agent did, or that it
    /// does not matter.
    pub fn handle_of(&mut self, agent: &str, entry: &Entry<'_>) {
        let matching = |expected: &&mut Expected| expected.query.topic.matches(entry.topic()).is_some();
        let mut queries = self.queries.iter_mut().filter(matching).peekable();
        if queries.peek().is_none() {
            return;
        }
        match entry {
            Entry::Bad { bad, .. } => queries.for_each(|expected| expected.metrics.reject(bad.name())),
            Entry::Good { topic, payload } => {
                self.payload_bytes += payload.len() as u64;
                let payload = quoted(payload);
                let message = Message::parse(topic, &payload);
                queries.for_each(|expected| expected.handle(agent, &message));
            }
        }
    }

    /// Payload bytes of good messages to topics that any query reads.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// The queries, in the plan's order.
    pub fn queries(&self) -> &[Expected] {
        &self.queries
    }

    /// The queries, in the plan's order, once all messages are in.
    pub fn into_queries(mut self) -> Vec<Expected> {
        let sessions = self.queries.iter_mut();
        let sessions =
            sessions.filter(|expected| matches!(expected.query.window, plan::Window::Session { .. }));
        for parts in sessions.flat_map(|expected| expected.keys.values_mut()) {
            *parts = window::join_sessions(std::mem::take(parts));
        }
        self.queries
    }
}

impl Expected {
    /// Whether the truth can say anything: not when only the agent may have known the time, or which keys were new to
    /// it.
    pub fn is_known(&self) -> bool {
        matches!(self.query.time, TimeSource::Payload { fallback: false, .. })
            && self.query.new_keys.is_none()
    }

    /// Removes and returns what must be in the window of one key with these bounds, in microseconds.
    pub fn take(&mut self, key: &str, start_us: i64, end_us: i64) -> Option<Contents> {
        let windows = self.keys.get_mut(key)?;
        let (end, _) = windows.get(&start_us)?;
        let contents = if *end == end_us {
            windows.remove(&start_us)
        } else {
            None
        };
        if windows.is_empty() {
            self.keys.remove(key);
        }
        let mut contents = contents.map(|(_, contents)| contents)?;
        contents.edges = self
            .past
            .get(key)
            .and_then(|past| past.edges(&self.query, (start_us, end_us)));
        Some(contents)
    }

    /// The readings of one key from one event time up to another, in microseconds: what can be told from windows that
    /// have not been taken, where none of them is across an edge and no reading is in two.
    pub fn readings(&self, key: &str, from_us: i64, to_us: i64) -> Option<u64> {
        if !self.query.window.is_disjoint() {
            return None;
        }
        let longest = self.query.window.longest().as_micros();
        let windows = self.keys.get(key).into_iter();
        let near = windows.flat_map(|windows| windows.range(from_us - longest..to_us));
        let mut overlapping = near.filter(|(_, (end, _))| *end > from_us);
        overlapping.try_fold(0, |sum, (start, (end, contents))| {
            (*start >= from_us && *end <= to_us).then_some(sum + contents.readings)
        })
    }

    /// Whether an instant lies within a window of one key that has not been taken, after its start.
    pub fn is_within(&self, key: &str, at_us: i64) -> bool {
        let before = self
            .keys
            .get(key)
            .and_then(|windows| windows.range(..at_us).next_back());
        before.is_some_and(|(_, (end, _))| at_us < *end)
    }

    /// By agent and key, the readings of count windows, in their order.
    pub fn sequences(&self) -> impl Iterator<Item = (&(String, String), &[Reading])> {
        self.sequences
            .iter()
            .map(|(name, readings)| (name, readings.as_slice()))
    }

    /// Those of one agent and key.
    pub fn sequence(&self, agent: &str, key: &str) -> &[Reading] {
        let of = |agent: &str| self.sequences.get(&(agent.to_owned(), key.to_owned()));
        of(agent).or_else(|| of("")).map_or(&[], Vec::as_slice)
    }

    /// The windows that have not been taken.
    pub fn remaining(&self) -> impl Iterator<Item = Window<'_>> {
        self.keys.iter().flat_map(|(key, windows)| {
            windows.iter().map(|(&start_us, (end_us, contents))| Window {
                key,
                start_us,
                end_us: *end_us,
                contents,
            })
        })
    }

    /// Whether an agent has taken the reading before, by its device's number.
    fn is_repeated(&mut self, agent: &str, topic: &str, reading: &Reading) -> bool {
        let Some(number) = reading.number else {
            return false;
        };
        let device = format!("{agent}\0{topic}\0{}", reading.key);
        let numbers = self.numbers.entry(device.into());
        !numbers
            .or_insert_with(|| Numbers::new(self.query.dedupe.as_ref()))
            .insert(number)
    }

    fn handle(&mut self, agent: &str, message: &Result<Message<'_>, Reason>) {
        let message = match message {
            Ok(message) => message,
            Err(reason) => return self.metrics.reject(short_name(*reason)),
        };
        for object in &message.objects {
            let Some(object) = object else {
                self.metrics.reject(short_name(Reason::MalformedJson));
                continue;
            };
            match self.reader.read(message.topic, object) {
                Err(reason) => self.metrics.reject(short_name(reason)),
                Ok(reading) if self.is_repeated(agent, message.topic, &reading) => self.metrics.repeated += 1,
                Ok(reading) => {
                    let covering = window::covering(&self.query.window, reading.at_us);
                    self.metrics.published += 1;
                    self.metrics.accepted += 1;
                    self.metrics.row_readings += covering.len() as u64;
                    if !self.keeps_windows {
                        continue;
                    }
                    if self.query.window.count().is_some() {
                        let name = (agent.to_owned(), reading.key.clone());
                        self.sequences.entry(name).or_default().push(reading);
                        continue;
                    }
                    if !self.keys.contains_key(&*reading.key) {
                        self.keys.insert(reading.key.as_str().into(), BTreeMap::new());
                    }
                    let Some(windows) = self.keys.get_mut(&*reading.key) else {
                        continue;
                    };
                    let query = &self.query;
                    if query.lookback() > Span::ZERO {
                        let past = self.past.entry(reading.key.as_str().into()).or_default();
                        past.add(reading.at_us, &reading.values);
                    }
                    for (start, end) in covering {
                        let window = windows.entry(start);
                        let (_, contents) = window.or_insert_with(|| (end, Contents::new(query)));
                        contents.add(&reading);
                    }
                }
            }
        }
    }
}

impl Metrics {
    fn reject(&mut self, reason: &'static str) {
        self.published += 1;
        *self.rejected.entry(reason).or_default() += 1;
    }
}

/// A reason's name without `rejected_`, as in the truth file.
fn short_name(reason: Reason) -> &'static str {
    let name = reason.name();
    name.strip_prefix("rejected_").unwrap_or(name)
}

#[cfg(test)]
pub(crate) mod tests;
