//! How one pipeline looks at a decoded message: key, event time, condition, values.

use catchment_common::expression::{Expression, Operands, Outcome};
use catchment_common::key::KeyBuffer;
use catchment_common::limits::TAGS_MAX;
use catchment_common::metrics::{Counter, Reason, Unusable};
use catchment_common::number::decimal::{DECIMALS, Parsed, Resolution, Value};
use catchment_common::plan::{FieldSource, KeyPart, Pipeline, TimeSource, TimeUnit};
use catchment_common::time::{Now, Timestamp};
use catchment_common::topic::Captures;

use super::close_after;
use crate::aggregate::key_cap::{self, KeyCap};
use crate::aggregate::panes::Measured;
use crate::aggregate::sketches::TagValues;
use crate::aggregate::watermark::Watermark;
use crate::decode::convert;
use crate::decode::{Decoded, PathTree, Raw};
use crate::metrics::{Metrics, Place};
use crate::source::dedupe::Rules;

/// One pipeline's look at messages, with what it has seen so far.
#[derive(Debug)]
pub(super) struct View {
    pub(super) place: Place,
    time: Option<Time>,
    key: Vec<TextFrom>,
    /// Where a device's number is, and what it does.
    pub(super) sequence: Option<Sequence>,
    filter: Option<Computed>,
    fields: Vec<(ValueFrom, Option<Resolution>)>,
    pub(super) watermark: Watermark,
    /// The end of the pane that holds the watermark: when the watermark reaches it, panes can be closed.
    pub(super) next_close: Timestamp,
    pub(super) key_buffer: KeyBuffer,
    pub(super) values: Vec<Option<Value>>,
    /// Fields of the reading that have a value which cannot be used, and why, in their order.
    unusable: Vec<(u8, Unusable)>,
    watched: Vec<TextFrom>,
    pub(super) tags: TagValues,
    pub(super) key_cap: Option<KeyCap>,
    /// The agent's name, if it is a tag.
    agent: Option<Box<str>>,
}

/// How a pipeline reads its devices' numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    /// Where they are.
    pub(super) path: usize,
    /// What they do.
    pub(super) rules: Rules,
    /// The pipeline's reading.
    pub(super) reading: u64,
}

/// Where the event time is in the payload.
#[derive(Clone, Copy, Debug)]
struct Time {
    path: usize,
    unit: TimeUnit,
    /// Whether the time of arrival will do.
    fallback: bool,
}

/// Where a text comes from.
#[derive(Clone, Copy, Debug)]
enum TextFrom {
    Capture(usize),
    Path(usize),
}

#[derive(Debug)]
enum ValueFrom {
    Path(usize),
    Computed(Box<Computed>),
}

/// An expression, and where in the decoded message its operands are.
#[derive(Debug)]
struct Computed {
    expression: Expression,
    operands: Vec<usize>,
    tests: Vec<TextFrom>,
}

/// One reading of a decoded message.
#[derive(Clone, Copy)]
pub(super) struct Seen<'m> {
    pub(super) captures: Captures<'m>,
    pub(super) text: &'m str,
    pub(super) decoded: &'m Decoded,
    pub(super) reading: usize,
}

/// What a view read of a reading, besides its key and values.
#[derive(Clone, Copy)]
pub(super) struct Read {
    pub(super) at: Timestamp,
    /// Why the reading is not one of those that the pipeline wants, if so.
    pub(super) unwanted: Option<Reason>,
    rounded: u64,
    absent: u64,
    uncomputed: u64,
    /// It has the time of its arrival for want of its own.
    arrived: bool,
}

impl<'m> Seen<'m> {
    #[inline]
    pub(super) fn raw(&self, path: usize) -> Raw<'m> {
        self.decoded.raw(self.text, self.reading, path)
    }
}

impl View {
    pub(super) fn new(
        pipeline: &Pipeline,
        agent: &str,
        watermark: Watermark,
        place: Place,
        tree: &mut PathTree,
    ) -> Self {
        Self {
            place,
            time: match &pipeline.time {
                TimeSource::Arrival => None,
                TimeSource::Payload { path, unit, fallback } => Some(Time {
                    path: tree.add(path),
                    unit: *unit,
                    fallback: *fallback,
                }),
            },
            key: pipeline
                .key
                .iter()
                .map(|part| TextFrom::new(part, tree))
                .collect(),
            sequence: pipeline.dedupe.as_ref().map(|dedupe| Sequence {
                path: tree.add(&dedupe.path),
                rules: dedupe.into(),
                reading: 0,
            }),
            filter: pipeline.filter.as_ref().map(|filter| Computed::new(filter, tree)),
            fields: pipeline
                .fields
                .iter()
                .map(|field| {
                    let from = match &field.source {
                        FieldSource::Path(path) => ValueFrom::Path(tree.add(path)),
                        FieldSource::Expression(expression) => {
                            ValueFrom::Computed(Box::new(Computed::new(expression, tree)))
                        }
                    };
                    (from, field.resolution.and_then(Resolution::from_units))
                })
                .collect(),
            next_close: close_after(watermark.value(), pipeline),
            watermark,
            key_buffer: KeyBuffer::default(),
            values: Vec::with_capacity(pipeline.fields.len()),
            unusable: Vec::with_capacity(pipeline.fields.len()),
            watched: pipeline
                .watched
                .iter()
                .map(|part| TextFrom::new(part, tree))
                .collect(),
            tags: TagValues::default(),
            key_cap: None,
            agent: pipeline.count.map(|_| agent.into()),
        }
    }

    /// Puts the overflow key in the place of a key that is one too many.
    #[inline]
    pub(super) fn admit(&mut self, now: Now, pipeline: &Pipeline, metrics: &mut Metrics) {
        let Some(known) = &mut self.key_cap else {
            return;
        };
        if !known.admits(self.key_buffer.as_bytes(), now) {
            key_cap::overflow(&mut self.key_buffer, pipeline.key.len());
            if let Some(agent) = &self.agent {
                // It fitted behind a key of the same pipeline before, and its length is bounded.
                let _ = self.key_buffer.push(agent);
            }
            metrics.add(self.place, Counter::Overflowed, 1);
        }
    }

    /// Reads one reading: leaves its key and values in the view.
    #[inline]
    pub(super) fn read(&mut self, seen: Seen<'_>, pipeline: &Pipeline, now: Now) -> Result<Read, Reason> {
        let (at, arrived) = match self.time {
            None => (now.wall, false),
            Some(Time { path, unit, fallback }) => match convert::time(seen.raw(path), unit) {
                Ok(at) => (at, false),
                Err(_) if fallback => (now.wall, true),
                Err(reason) => return Err(reason),
            },
        };
        if at > now.wall.plus(pipeline.max_ahead) {
            return Err(Reason::TooEarly);
        }
        if at < now.wall.minus(pipeline.allowed_lateness) {
            return Err(Reason::TooLate);
        }
        self.key_buffer.clear();
        for tag in &self.key {
            let pushed = match *tag {
                TextFrom::Capture(index) => self.key_buffer.push(seen.captures[index]),
                TextFrom::Path(path) => self.key_buffer.push(&convert::tag(seen.raw(path))?),
            };
            pushed.map_err(|_| Reason::BadKey)?;
        }
        if let Some(agent) = &self.agent {
            self.key_buffer.push(agent).map_err(|_| Reason::BadKey)?;
        }
        let mut read = Read {
            at,
            unwanted: None,
            rounded: 0,
            absent: 0,
            uncomputed: 0,
            arrived,
        };
        if let Some(filter) = &self.filter {
            let (outcome, unusable) = filter.run(seen, &mut read.rounded);
            read.unwanted = match (outcome, unusable) {
                (Outcome::Truth(true), _) => None,
                (Outcome::Truth(false), _) => Some(Reason::Filtered),
                (_, Some(why)) => return Err(why.reason()),
                (Outcome::Number(_) | Outcome::Absent | Outcome::Fault(_), None) => Some(Reason::Undecided),
            };
            if read.unwanted.is_some() {
                return Ok(read);
            }
        }
        self.read_fields(seen, &mut read);
        if read.absent > 0 && read.absent == self.fields.len() as u64 {
            return Err(match self.unusable.first() {
                Some((_, why)) => why.reason(),
                None if read.uncomputed > 0 => Reason::Uncomputed,
                None => Reason::MissingField,
            });
        }
        read.absent += self.watch(seen);
        Ok(read)
    }

    /// Counts a reading that nobody wants; it tells how far event time has come all the same. Returns whether that is
    /// the end of a pane.
    #[inline]
    pub(super) fn pass_over(&mut self, read: &Read, reason: Reason, now: Now, metrics: &mut Metrics) -> bool {
        self.watermark.observe(read.at, now);
        super::reject(metrics, self.place, reason, 1);
        self.watermark.value() >= self.next_close
    }

    /// Reads the fields. One whose value cannot be used is absent and takes no other along.
    #[inline]
    fn read_fields(&mut self, seen: Seen<'_>, read: &mut Read) {
        self.values.clear();
        self.unusable.clear();
        for (place, (from, resolution)) in self.fields.iter().enumerate() {
            let (value, unusable) = match from {
                ValueFrom::Path(path) => match convert::value(seen.raw(*path), *resolution) {
                    Ok(value) => (value, None),
                    Err(why) => (None, Some(why)),
                },
                ValueFrom::Computed(computed) => computed.value(seen, *resolution, read),
            };
            if let Some(why) = unusable {
                self.unusable.push((place as u8, why));
            }
            read.absent += u64::from(value.is_none());
            read.rounded += u64::from(value.is_some_and(|(_, rounded)| rounded));
            self.values.push(value.map(|(value, _)| value));
        }
    }

    /// Reads the watched tags; returns how many are not there. A tag of another type is none: readings are not told
    /// apart by it, so the reading counts all the same.
    #[inline]
    fn watch(&mut self, seen: Seen<'_>) -> u64 {
        self.tags.clear();
        let mut absent = 0;
        for tag in &self.watched {
            let is_there = match *tag {
                TextFrom::Capture(index) => self.tags.push(Some(seen.captures[index].as_bytes())),
                TextFrom::Path(path) => match convert::tag(seen.raw(path)) {
                    Ok(tag) => self.tags.push(Some(tag.as_bytes())),
                    Err(_) => self.tags.push(None),
                },
            };
            absent += u64::from(!is_there);
        }
        absent
    }

    /// What it has just read, for its partial.
    pub(super) fn measured(&self, at: Timestamp) -> Measured<'_> {
        Measured {
            at,
            values: &self.values,
            tags: &self.tags,
        }
    }

    /// Counts a reading that is taken; returns its event time and whether it is late.
    #[inline]
    pub(super) fn count(&mut self, read: &Read, now: Now, metrics: &mut Metrics) -> (Timestamp, bool) {
        let late = read.at < self.watermark.value();
        self.watermark.observe(read.at, now);
        metrics.add(self.place, Counter::Received, 1);
        metrics.add(self.place, Counter::Accepted, 1);
        metrics.add(self.place, Counter::Late, u64::from(late));
        metrics.add(self.place, Counter::Rounded, read.rounded);
        metrics.add(self.place, Counter::Absent, read.absent);
        metrics.add(self.place, Counter::Uncomputed, read.uncomputed);
        metrics.add(self.place, Counter::Arrived, u64::from(read.arrived));
        for &(field, why) in &self.unusable {
            metrics.add(self.place, Counter::Unusable(why, field), 1);
        }
        (read.at, late)
    }
}

impl TextFrom {
    fn new(part: &KeyPart, tree: &mut PathTree) -> Self {
        match part {
            KeyPart::Capture(index) => Self::Capture(usize::from(*index).min(TAGS_MAX - 1)),
            KeyPart::Payload(path) => Self::Path(tree.add(path)),
        }
    }
}

impl Computed {
    fn new(expression: &Expression, tree: &mut PathTree) -> Self {
        let tests = expression.tests().iter();
        Self {
            operands: expression.operands().iter().map(|path| tree.add(path)).collect(),
            tests: tests.map(|test| TextFrom::new(&test.source, tree)).collect(),
            expression: expression.clone(),
        }
    }

    /// Runs the expression; counts operands that were rounded. An operand that cannot be used is absent; the first such
    /// is told of.
    #[inline]
    fn run(&self, seen: Seen<'_>, rounded: &mut u64) -> (Outcome, Option<Unusable>) {
        let mut message = Message {
            computed: self,
            seen,
            rounded,
            unusable: None,
        };
        let outcome = self.expression.evaluate(&mut message);
        (outcome, message.unusable)
    }

    /// The value of a computed field. One that cannot be computed is absent, and counted.
    #[inline]
    fn value(
        &self,
        seen: Seen<'_>,
        resolution: Option<Resolution>,
        read: &mut Read,
    ) -> (Option<(Value, bool)>, Option<Unusable>) {
        let (outcome, unusable) = self.run(seen, &mut read.rounded);
        let computed = match outcome {
            Outcome::Absent => return (None, unusable),
            Outcome::Number(value) => round(value, resolution),
            Outcome::Truth(_) | Outcome::Fault(_) => None,
        };
        read.uncomputed += u64::from(computed.is_none());
        (computed.map(|value| (value, false)), unusable)
    }
}

/// A computed value at a field's resolution; none if that takes it out of range.
#[inline]
fn round(value: Value, resolution: Option<Resolution>) -> Option<Value> {
    let parsed = Parsed {
        value,
        decimals: DECIMALS as u8,
        rounded: false,
    };
    resolution.map_or(Some(value), |resolution| resolution.round(parsed))
}

/// A reading as a source of operands.
struct Message<'c, 'm> {
    computed: &'c Computed,
    seen: Seen<'m>,
    rounded: &'c mut u64,
    /// Why the first operand that cannot be used cannot be.
    unusable: Option<Unusable>,
}

impl Operands for Message<'_, '_> {
    #[inline]
    fn number(&mut self, operand: usize) -> Option<Value> {
        let raw = self.seen.raw(self.computed.operands[operand]);
        match convert::value(raw, None) {
            Ok(value) => {
                *self.rounded += u64::from(value.is_some_and(|(_, rounded)| rounded));
                value.map(|(value, _)| value)
            }
            Err(why) => {
                self.unusable.get_or_insert(why);
                None
            }
        }
    }

    #[inline]
    fn matches(&mut self, test: usize) -> Option<bool> {
        let wanted = &self.computed.expression.tests()[test].text;
        let path = match self.computed.tests[test] {
            TextFrom::Capture(index) => return Some(self.seen.captures[index] == *wanted),
            TextFrom::Path(path) => self.seen.raw(path),
        };
        match convert::tag(path) {
            Ok(text) => Some(*text == **wanted),
            Err(Reason::MissingField) => None,
            Err(_) => {
                self.unusable.get_or_insert(Unusable::WrongType);
                None
            }
        }
    }
}
