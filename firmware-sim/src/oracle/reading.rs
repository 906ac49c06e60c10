//! From a message's text to readings, as a query's definition says and in the simplest possible way.

use std::collections::BTreeMap;

use catchment_common::expression::{Expression, Op};
use catchment_common::limits::KEY_BYTES_MAX;
use catchment_common::metrics::Reason;
use catchment_common::plan::{Aggregate, FieldSource, KeyPart, Path, Query, TimeSource, TimeUnit};
use catchment_common::time::Timestamp;
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::ToPrimitive;
use serde_json::value::RawValue;

use super::decimal;
use super::expression::{Answer, Tree};

/// A message taken apart as far as its top-level keys.
#[derive(Debug)]
pub struct Message<'m> {
    /// Where it was published.
    pub topic: &'m str,
    /// One object for each reading; none for an item of the array that is no object.
    pub objects: Vec<Option<Object<'m>>>,
}

/// A JSON object: the texts of its values.
pub type Object<'m> = BTreeMap<String, &'m RawValue>;

impl<'m> Message<'m> {
    /// Takes a payload apart: an object, or an array of objects. Bare words must be [`quoted`].
    pub fn parse(topic: &'m str, payload: &'m str) -> Result<Self, Reason> {
        if payload.is_empty() {
            return Err(Reason::EmptyPayload);
        }
        let malformed = |_| Reason::MalformedJson;
        let objects = if payload.trim_start().starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(payload).map_err(malformed)?;
            let object = |item: &&'m RawValue| serde_json::from_str(item.get()).ok();
            items.iter().map(object).collect()
        } else {
            vec![Some(serde_json::from_str(payload).map_err(malformed)?)]
        };
        Ok(Self { topic, objects })
    }
}

/// A payload with quotes around the bare words that stand for values which are not finite: `NaN`, `-inf`.
pub fn quoted(payload: &str) -> String {
    // Every second part is within quotes, where a backslash takes the next character with it.
    let (mut out, mut word) = (String::new(), String::new());
    let mut characters = payload.chars();
    while let Some(character) = characters.next() {
        if !" \t\r\n,:[]{}\"".contains(character) {
            word.push(character);
            continue;
        }
        end_word(&mut word, &mut out);
        out.push(character);
        if character == '"' {
            while let Some(character) = characters.next() {
                out.push(character);
                match character {
                    '"' => break,
                    '\\' => out.extend(characters.next()),
                    _ => {}
                }
            }
        }
    }
    end_word(&mut word, &mut out);
    out
}

fn end_word(word: &mut String, out: &mut String) {
    let plain = word.trim_start_matches(['-', '+']).to_lowercase();
    let is_signed_once = word.len() <= plain.len() + 1;
    if is_signed_once && ["nan", "inf", "infinity"].contains(&plain.as_str()) {
        *word = format!("\"{word}\"");
    }
    out.push_str(word);
    word.clear();
}

/// One reading, as one query sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The key's tags joined by NUL.
    pub key: String,
    /// Event time in microseconds since the Unix epoch.
    pub at_us: i64,
    /// For each field of the query its value in units of 10⁻¹⁸, if it is there.
    pub values: Vec<Option<BigInt>>,
    /// For each aggregate of the query the value of the tag that it names, if it names one and that is there.
    pub watched: Vec<Option<String>>,
    /// The device's sequence number, if the query asks for it.
    pub number: Option<u64>,
}

/// What one query reads.
#[derive(Debug)]
pub struct Reader {
    query: Query,
    tags: Vec<TagFrom>,
    watched: Vec<TagFrom>,
    steps: Vec<Option<BigInt>>,
}

#[derive(Debug)]
enum TagFrom {
    Capture(usize),
    Payload(Path),
    /// The plan names a tag that does not exist; every reading lacks it.
    Nowhere,
}

impl Reader {
    /// The reader of a query.
    pub fn new(query: &Query) -> Self {
        let tag_from = |name: &String| {
            if let Some(index) = query.topic.captures().position(|capture| capture == name) {
                return TagFrom::Capture(index);
            }
            let tag = query.tags.iter().find(|tag| tag.name == *name);
            tag.map_or(TagFrom::Nowhere, |tag| TagFrom::Payload(tag.path.clone()))
        };
        Self {
            tags: query.key.iter().map(tag_from).collect(),
            watched: query
                .aggregates
                .iter()
                .map(|aggregate| match aggregate {
                    Aggregate::Distinct(name) | Aggregate::Top { tag: name, .. } => tag_from(name),
                    _ => TagFrom::Nowhere,
                })
                .collect(),
            steps: query
                .fields
                .iter()
                .map(|field| field.resolution.map(BigInt::from))
                .collect(),
            query: query.clone(),
        }
    }

    /// The reading in one object of a message, or why it does not count.
    pub fn read(&self, topic: &str, object: &Object<'_>) -> Result<Reading, Reason> {
        let at_us = match &self.query.time {
            TimeSource::Payload { path, unit, .. } => time(find(object, path)?, *unit)?,
            TimeSource::Arrival => 0,
        };
        let key = self.key(topic, object)?;
        if let Some(filter) = &self.query.filter {
            match self.compute(topic, object, filter)? {
                (Answer::Truth(true), _) => {}
                (Answer::Truth(false), _) => return Err(Reason::Filtered),
                (_, Some(unusable)) => return Err(unusable),
                (Answer::Number(_) | Answer::Absent | Answer::Fault, None) => return Err(Reason::Undecided),
            }
        }
        let values = self.values(topic, object)?;
        let number = match &self.query.dedupe {
            None => None,
            Some(dedupe) => {
                let raw = find(object, &dedupe.path)?.ok_or(Reason::MissingField)?;
                Some(raw.parse().map_err(|_| Reason::WrongType)?)
            }
        };
        Ok(Reading {
            key,
            at_us,
            values,
            watched: self
                .watched
                .iter()
                .map(|tag| watched(tag, topic, object, self))
                .collect(),
            number,
        })
    }

    /// For each field its value, if it has one that can be used; or why none of them does.
    fn values(&self, topic: &str, object: &Object<'_>) -> Result<Vec<Option<BigInt>>, Reason> {
        let (mut values, mut unusable, mut is_uncomputed) = (Vec::new(), None, false);
        for (field, step) in self.query.fields.iter().zip(&self.steps) {
            let value = match &field.source {
                FieldSource::Path(path) => match find(object, path) {
                    Ok(None) => None,
                    Ok(Some(raw)) => number(raw)
                        .and_then(|number| at_step(number, step.as_ref()))
                        .map_err(|reason| unusable.get_or_insert(reason))
                        .ok(),
                    Err(reason) => {
                        unusable.get_or_insert(reason);
                        None
                    }
                },
                FieldSource::Expression(expression) => {
                    let (answer, of_operands) = self.compute(topic, object, expression)?;
                    unusable = unusable.or(of_operands);
                    match answer {
                        Answer::Number(number) => at_step(units(&number), step.as_ref())
                            .inspect_err(|_| is_uncomputed = true)
                            .ok(),
                        Answer::Absent => None,
                        Answer::Truth(_) | Answer::Fault => {
                            is_uncomputed = true;
                            None
                        }
                    }
                }
            };
            values.push(value);
        }
        if !values.is_empty() && values.iter().all(Option::is_none) {
            return Err(match unusable {
                Some(reason) => reason,
                None if is_uncomputed => Reason::Uncomputed,
                None => Reason::MissingField,
            });
        }
        Ok(values)
    }

    /// What an expression comes to for one object, and the reason why the first of its operands that cannot be used
    /// cannot be. Such operands are absent.
    fn compute(
        &self,
        topic: &str,
        object: &Object<'_>,
        expression: &Expression,
    ) -> Result<(Answer, Option<Reason>), Reason> {
        let captures = self.query.topic.matches(topic).ok_or(Reason::NoMatch)?;
        let mut numbers = vec![None; expression.operands().len()];
        let mut texts = vec![None; expression.tests().len()];
        let mut unusable = None;
        for op in expression.ops() {
            let reason = match *op {
                Op::Load(index) => {
                    let index = usize::from(index);
                    let found = find(object, &expression.operands()[index]);
                    let found = found.and_then(|found| found.map(number).transpose());
                    found.map(|found| numbers[index] = found).err()
                }
                Op::Matches(index) => {
                    let index = usize::from(index);
                    let test = &expression.tests()[index];
                    let found = match &test.source {
                        KeyPart::Capture(capture) => Ok(Some(captures[usize::from(*capture)].to_string())),
                        KeyPart::Payload(path) => {
                            find(object, path).and_then(|found| found.map(text).transpose())
                        }
                    };
                    let found = found.map(|found| texts[index] = found.map(|found| found == test.text));
                    found.map_err(|_| Reason::WrongType).err()
                }
                _ => None,
            };
            unusable = unusable.or(reason);
        }
        let answer = Tree::of(expression).answer(&|index| numbers[index].clone(), &|index| texts[index]);
        Ok((answer, unusable))
    }

    fn key(&self, topic: &str, object: &Object<'_>) -> Result<String, Reason> {
        let captures = self.query.topic.matches(topic).ok_or(Reason::NoMatch)?;
        let mut key = String::new();
        for (index, tag) in self.tags.iter().enumerate() {
            let value = match tag {
                TagFrom::Capture(capture) => captures[*capture].to_string(),
                TagFrom::Payload(path) => text(find(object, path)?.ok_or(Reason::MissingField)?)?,
                TagFrom::Nowhere => return Err(Reason::MissingField),
            };
            if value.is_empty() || value.contains('\0') {
                return Err(Reason::BadKey);
            }
            if index > 0 {
                key.push('\0');
            }
            key.push_str(&value);
        }
        if key.len() > KEY_BYTES_MAX {
            Err(Reason::BadKey)
        } else {
            Ok(key)
        }
    }
}

/// A tag that an aggregate names, if it is there and could be part of a key.
fn watched(from: &TagFrom, topic: &str, object: &Object<'_>, reader: &Reader) -> Option<String> {
    let value = match from {
        TagFrom::Capture(capture) => reader.query.topic.matches(topic)?[*capture].to_string(),
        TagFrom::Payload(path) => text(find(object, path).ok()??).ok()?,
        TagFrom::Nowhere => return None,
    };
    (!value.is_empty() && !value.contains('\0') && value.len() <= KEY_BYTES_MAX).then_some(value)
}

/// A number in units of 10⁻¹⁸; those of expressions are multiples of it.
fn units(number: &BigRational) -> BigInt {
    (number * decimal::power_of_ten(18)).to_integer()
}

fn at_step(units: BigInt, step: Option<&BigInt>) -> Result<BigInt, Reason> {
    match step {
        Some(step) => decimal::round_to(&units, step),
        None => Ok(units),
    }
}

/// The text at a path; nothing where the path or its value is missing or `null`.
fn find<'m>(object: &Object<'m>, path: &Path) -> Result<Option<&'m str>, Reason> {
    let Some((first, rest)) = path.segments.split_first() else {
        return Ok(None);
    };
    let mut found = object.get(first).map(|raw| raw.get());
    for segment in rest {
        let Some(text) = found.filter(|text| *text != "null") else {
            return Ok(None);
        };
        found = if text.starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Reason::WrongType)?;
            let is_index = segment.bytes().all(|byte| byte.is_ascii_digit());
            let index = segment
                .parse()
                .ok()
                .filter(|index: &usize| index.to_string() == *segment);
            if !is_index {
                return Err(Reason::WrongType);
            }
            index.and_then(|index| items.get(index)).map(|raw| raw.get())
        } else {
            let inner: Object<'m> = serde_json::from_str(text).map_err(|_| Reason::WrongType)?;
            inner.get(segment).map(|raw| raw.get())
        };
    }
    Ok(found.filter(|text| *text != "null"))
}

fn number(raw: &str) -> Result<BigInt, Reason> {
    let word = raw
        .trim_matches('"')
        .trim_start_matches(['-', '+'])
        .to_ascii_lowercase();
    if raw.starts_with('"') && ["nan", "inf", "infinity"].contains(&word.as_str()) {
        return Err(Reason::NotFinite);
    }
    decimal::parse(raw)
}

fn text(raw: &str) -> Result<String, Reason> {
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map_err(|_| Reason::MalformedJson),
        Some(b'{' | b'[') | None => Err(Reason::WrongType),
        Some(_) => Ok(raw.to_string()),
    }
}

fn time(raw: Option<&str>, unit: TimeUnit) -> Result<i64, Reason> {
    let raw = raw.ok_or(Reason::MissingField)?;
    let micros = match unit {
        TimeUnit::Rfc3339 => {
            let text: String = serde_json::from_str(raw).map_err(|_| Reason::WrongType)?;
            let time: jiff::Timestamp = text.parse().map_err(|_| Reason::BadTime)?;
            i64::try_from(time.as_nanosecond().div_euclid(1_000)).map_err(|_| Reason::BadTime)?
        }
        TimeUnit::Seconds => floor_micros(raw, 6)?,
        TimeUnit::Millis => floor_micros(raw, 3)?,
        TimeUnit::Micros => floor_micros(raw, 0)?,
        TimeUnit::Nanos => {
            let nanos: BigInt = raw.parse().map_err(|_| Reason::WrongType)?;
            nanos.div_floor(&1_000.into()).to_i64().ok_or(Reason::BadTime)?
        }
    };
    Timestamp::from_micros(micros)
        .map(Timestamp::as_micros)
        .ok_or(Reason::BadTime)
}

/// A number's microseconds, of which one of its units has 10^`decimals`, cut toward the past.
fn floor_micros(raw: &str, decimals: u32) -> Result<i64, Reason> {
    // What is out of range even as a value is no time, and a word is what it is as a value.
    match number(raw) {
        Ok(_) | Err(Reason::OutOfRange) => {}
        Err(reason) => return Err(reason),
    }
    let micros = decimal::floor(raw, decimals).map_err(|_| Reason::BadTime)?;
    micros.to_i64().ok_or(Reason::BadTime)
}
