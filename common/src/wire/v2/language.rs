//! What plans and pipelines are made of: topics, paths, formats, times, expressions.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::all;
use crate::expression as program_expression;
use crate::plan as program;
use crate::time::Span;
use crate::topic::{self, TopicTemplate};
use crate::wire::WireFault;

/// A topic template, level by level.
#[derive(Serialize, Deserialize)]
pub(super) struct Topic(Vec<Level>);

#[derive(Serialize, Deserialize)]
enum Level {
    Literal(String),
    Capture(String),
    Any,
    Rest,
}

impl From<&TopicTemplate> for Topic {
    fn from(topic: &TopicTemplate) -> Self {
        let level = |level: &topic::Level| match level {
            topic::Level::Literal(text) => Level::Literal(text.clone()),
            topic::Level::Capture(name) => Level::Capture(name.clone()),
            topic::Level::Any => Level::Any,
            topic::Level::Rest => Level::Rest,
        };
        Self(topic.levels().iter().map(level).collect())
    }
}

impl TryFrom<Topic> for TopicTemplate {
    type Error = WireFault;

    fn try_from(topic: Topic) -> Result<Self, WireFault> {
        let level = |level| match level {
            Level::Literal(text) => topic::Level::Literal(text),
            Level::Capture(name) => topic::Level::Capture(name),
            Level::Any => topic::Level::Any,
            Level::Rest => topic::Level::Rest,
        };
        Self::new(topic.0.into_iter().map(level).collect()).map_err(|_| WireFault::Invalid("topic"))
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Path(Vec<String>);

impl From<&program::Path> for Path {
    fn from(path: &program::Path) -> Self {
        Self(path.segments.clone())
    }
}

impl From<Path> for program::Path {
    fn from(path: Path) -> Self {
        Self { segments: path.0 }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) enum Format {
    Json,
    Number,
    Csv {
        columns: Option<Vec<String>>,
        delimiter: u8,
    },
    Influx,
    SenmlJson,
    SenmlCbor,
    Cbor,
    Msgpack,
    Sparkplug,
}

impl From<&program::Format> for Format {
    fn from(format: &program::Format) -> Self {
        match format {
            program::Format::Json => Self::Json,
            program::Format::Number => Self::Number,
            program::Format::Csv(program::Csv { columns, delimiter }) => Self::Csv {
                columns: columns.clone(),
                delimiter: *delimiter,
            },
            program::Format::Influx => Self::Influx,
            program::Format::SenmlJson => Self::SenmlJson,
            program::Format::SenmlCbor => Self::SenmlCbor,
            program::Format::Cbor => Self::Cbor,
            program::Format::Msgpack => Self::Msgpack,
            program::Format::Sparkplug => Self::Sparkplug,
        }
    }
}

impl From<Format> for program::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Json => Self::Json,
            Format::Number => Self::Number,
            Format::Csv { columns, delimiter } => Self::Csv(program::Csv { columns, delimiter }),
            Format::Influx => Self::Influx,
            Format::SenmlJson => Self::SenmlJson,
            Format::SenmlCbor => Self::SenmlCbor,
            Format::Cbor => Self::Cbor,
            Format::Msgpack => Self::Msgpack,
            Format::Sparkplug => Self::Sparkplug,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl From<program::Compression> for Compression {
    fn from(compression: program::Compression) -> Self {
        match compression {
            program::Compression::None => Self::None,
            program::Compression::Gzip => Self::Gzip,
            program::Compression::Zstd => Self::Zstd,
        }
    }
}

impl From<Compression> for program::Compression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip,
            Compression::Zstd => Self::Zstd,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) enum TimeSource {
    Arrival,
    Payload {
        path: Path,
        unit: TimeUnit,
        fallback: bool,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) enum TimeUnit {
    Seconds,
    Millis,
    Micros,
    Rfc3339,
    Nanos,
}

impl From<&program::TimeSource> for TimeSource {
    fn from(time: &program::TimeSource) -> Self {
        match time {
            program::TimeSource::Arrival => Self::Arrival,
            program::TimeSource::Payload { path, unit, fallback } => Self::Payload {
                path: path.into(),
                unit: match unit {
                    program::TimeUnit::Seconds => TimeUnit::Seconds,
                    program::TimeUnit::Millis => TimeUnit::Millis,
                    program::TimeUnit::Micros => TimeUnit::Micros,
                    program::TimeUnit::Rfc3339 => TimeUnit::Rfc3339,
                    program::TimeUnit::Nanos => TimeUnit::Nanos,
                },
                fallback: *fallback,
            },
        }
    }
}

impl From<TimeSource> for program::TimeSource {
    fn from(time: TimeSource) -> Self {
        match time {
            TimeSource::Arrival => Self::Arrival,
            TimeSource::Payload { path, unit, fallback } => Self::Payload {
                path: path.into(),
                unit: match unit {
                    TimeUnit::Seconds => program::TimeUnit::Seconds,
                    TimeUnit::Millis => program::TimeUnit::Millis,
                    TimeUnit::Micros => program::TimeUnit::Micros,
                    TimeUnit::Rfc3339 => program::TimeUnit::Rfc3339,
                    TimeUnit::Nanos => program::TimeUnit::Nanos,
                },
                fallback,
            },
        }
    }
}

/// Where one tag of a key comes from.
#[derive(Serialize, Deserialize)]
pub(super) enum KeyPart {
    Capture(u8),
    Payload(Path),
}

impl From<&program::KeyPart> for KeyPart {
    fn from(part: &program::KeyPart) -> Self {
        match part {
            program::KeyPart::Capture(index) => Self::Capture(*index),
            program::KeyPart::Payload(path) => Self::Payload(path.into()),
        }
    }
}

impl From<KeyPart> for program::KeyPart {
    fn from(part: KeyPart) -> Self {
        match part {
            KeyPart::Capture(index) => Self::Capture(index),
            KeyPart::Payload(path) => Self::Payload(path.into()),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) enum FieldSource {
    Path(Path),
    Expression(Expression),
}

impl From<&program::FieldSource> for FieldSource {
    fn from(source: &program::FieldSource) -> Self {
        match source {
            program::FieldSource::Path(path) => Self::Path(path.into()),
            program::FieldSource::Expression(expression) => Self::Expression(expression.into()),
        }
    }
}

impl TryFrom<FieldSource> for program::FieldSource {
    type Error = WireFault;

    fn try_from(source: FieldSource) -> Result<Self, WireFault> {
        Ok(match source {
            FieldSource::Path(path) => Self::Path(path.into()),
            FieldSource::Expression(expression) => Self::Expression(expression.try_into()?),
        })
    }
}

/// A device's sequence number.
#[derive(Serialize, Deserialize)]
pub(super) struct Dedupe {
    path: Path,
    wraps_at: Option<u64>,
    restart: bool,
}

impl From<&program::Dedupe> for Dedupe {
    fn from(dedupe: &program::Dedupe) -> Self {
        let program::Dedupe {
            path,
            wraps_at,
            restart,
        } = dedupe;
        Self {
            path: path.into(),
            wraps_at: *wraps_at,
            restart: *restart,
        }
    }
}

impl From<Dedupe> for program::Dedupe {
    fn from(dedupe: Dedupe) -> Self {
        Self {
            path: dedupe.path.into(),
            wraps_at: dedupe.wraps_at,
            restart: dedupe.restart,
        }
    }
}

/// A cap on new keys: at most `max` in each `every`.
#[derive(Serialize, Deserialize)]
pub(super) struct NewKeys {
    max: u32,
    every_us: i64,
}

impl From<program::NewKeys> for NewKeys {
    fn from(program::NewKeys { max, every }: program::NewKeys) -> Self {
        Self {
            max,
            every_us: every.as_micros(),
        }
    }
}

impl From<NewKeys> for program::NewKeys {
    fn from(NewKeys { max, every_us }: NewKeys) -> Self {
        Self {
            max,
            every: Span::from_micros(every_us),
        }
    }
}

/// The operations of an expression, operands first, with what they look at.
#[derive(Serialize, Deserialize)]
pub(super) struct Expression {
    ops: Vec<Op>,
    operands: Vec<Path>,
    tests: Vec<TextTest>,
}

#[derive(Serialize, Deserialize)]
struct TextTest {
    source: KeyPart,
    text: String,
}

#[derive(Serialize, Deserialize)]
enum Op {
    Number(i128),
    Truth(bool),
    Load(u8),
    Matches(u8),
    Negate,
    Abs,
    Floor,
    Ceil,
    Round(i128),
    Root,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Min,
    Max,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    And,
    Or,
    Not,
    Has,
    Default,
    If,
}

impl From<&program_expression::Expression> for Expression {
    fn from(expression: &program_expression::Expression) -> Self {
        let test = |test: &program_expression::TextTest| TextTest {
            source: (&test.source).into(),
            text: test.text.clone(),
        };
        Self {
            ops: all(expression.ops()),
            operands: all(expression.operands()),
            tests: expression.tests().iter().map(test).collect(),
        }
    }
}

impl TryFrom<Expression> for program_expression::Expression {
    type Error = WireFault;

    fn try_from(Expression { ops, operands, tests }: Expression) -> Result<Self, WireFault> {
        let test = |TextTest { source, text }| program_expression::TextTest {
            source: source.into(),
            text,
        };
        let parts = program_expression::Parts {
            ops: ops.into_iter().map(Into::into).collect(),
            operands: operands.into_iter().map(Into::into).collect(),
            tests: tests.into_iter().map(test).collect(),
        };
        Self::new(parts).map_err(WireFault::Invalid)
    }
}

impl From<&program_expression::Op> for Op {
    fn from(op: &program_expression::Op) -> Self {
        match op {
            program_expression::Op::Number(x) => Self::Number(*x),
            program_expression::Op::Truth(x) => Self::Truth(*x),
            program_expression::Op::Load(x) => Self::Load(*x),
            program_expression::Op::Matches(x) => Self::Matches(*x),
            program_expression::Op::Negate => Self::Negate,
            program_expression::Op::Abs => Self::Abs,
            program_expression::Op::Floor => Self::Floor,
            program_expression::Op::Ceil => Self::Ceil,
            program_expression::Op::Round(x) => Self::Round(*x),
            program_expression::Op::Root => Self::Root,
            program_expression::Op::Add => Self::Add,
            program_expression::Op::Subtract => Self::Subtract,
            program_expression::Op::Multiply => Self::Multiply,
            program_expression::Op::Divide => Self::Divide,
            program_expression::Op::Remainder => Self::Remainder,
            program_expression::Op::Min => Self::Min,
            program_expression::Op::Max => Self::Max,
            program_expression::Op::Less => Self::Less,
            program_expression::Op::LessOrEqual => Self::LessOrEqual,
            program_expression::Op::Greater => Self::Greater,
            program_expression::Op::GreaterOrEqual => Self::GreaterOrEqual,
            program_expression::Op::Equal => Self::Equal,
            program_expression::Op::NotEqual => Self::NotEqual,
            program_expression::Op::And => Self::And,
            program_expression::Op::Or => Self::Or,
            program_expression::Op::Not => Self::Not,
            program_expression::Op::Has => Self::Has,
            program_expression::Op::Default => Self::Default,
            program_expression::Op::If => Self::If,
        }
    }
}

impl From<Op> for program_expression::Op {
    fn from(op: Op) -> Self {
        match op {
            Op::Number(x) => Self::Number(x),
            Op::Truth(x) => Self::Truth(x),
            Op::Load(x) => Self::Load(x),
            Op::Matches(x) => Self::Matches(x),
            Op::Negate => Self::Negate,
            Op::Abs => Self::Abs,
            Op::Floor => Self::Floor,
            Op::Ceil => Self::Ceil,
            Op::Round(x) => Self::Round(x),
            Op::Root => Self::Root,
            Op::Add => Self::Add,
            Op::Subtract => Self::Subtract,
            Op::Multiply => Self::Multiply,
            Op::Divide => Self::Divide,
            Op::Remainder => Self::Remainder,
            Op::Min => Self::Min,
            Op::Max => Self::Max,
            Op::Less => Self::Less,
            Op::LessOrEqual => Self::LessOrEqual,
            Op::Greater => Self::Greater,
            Op::GreaterOrEqual => Self::GreaterOrEqual,
            Op::Equal => Self::Equal,
            Op::NotEqual => Self::NotEqual,
            Op::And => Self::And,
            Op::Or => Self::Or,
            Op::Not => Self::Not,
            Op::Has => Self::Has,
            Op::Default => Self::Default,
            Op::If => Self::If,
        }
    }
}
