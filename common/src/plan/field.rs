//! Measured fields, and where their values come from.

use alloc::string::String;

use super::Path;
use crate::expression::{Expression, Op};

/// A measured field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// The field's name; its columns are named after it.
    pub name: String,
    /// Where its value comes from.
    pub source: FieldSource,
    /// The sensor's resolution in units of 10⁻¹⁸: values are rounded to its multiples. `None` keeps every digit.
    pub resolution: Option<i128>,
    /// What its values say of each other.
    pub kind: FieldKind,
}

/// What the values of a field say of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FieldKind {
    /// A measurement: it goes up and down.
    #[default]
    Gauge,
    /// A count of something since some beginning, such as an energy meter's: it goes up, and falls when it begins again
    /// at 0.
    Counter(CounterRules),
}

/// What may make a counter fall, besides beginning again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CounterRules {
    /// The end of its range, in units of 10⁻¹⁸: it goes on from 0 when it gets there. `None` has no end.
    pub wraps_at: Option<i128>,
    /// A fall of no more than this, in units of 10⁻¹⁸, is noise.
    pub tolerance: i128,
}

impl FieldKind {
    /// A counter without an end and without noise.
    pub const COUNTER: Self = Self::Counter(CounterRules {
        wraps_at: None,
        tolerance: 0,
    });

    /// Whether it is a counter.
    pub const fn is_counter(self) -> bool {
        matches!(self, Self::Counter(_))
    }

    /// The rules of a counter; of a gauge those of one without any.
    pub fn rules(self) -> CounterRules {
        match self {
            Self::Gauge => CounterRules::default(),
            Self::Counter(rules) => rules,
        }
    }
}

/// Where a field's value comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FieldSource {
    /// The payload has it.
    Path(Path),
    /// It is computed. Of the type [`crate::expression::Kind::Number`].
    Expression(Expression),
}

impl FieldSource {
    /// A field with this path in the payload.
    pub fn path(text: &str) -> Self {
        Self::Path(Path::parse(text))
    }

    /// The paths that it reads.
    pub fn paths(&self) -> &[Path] {
        match self {
            Self::Path(path) => core::slice::from_ref(path),
            Self::Expression(expression) => expression.operands(),
        }
    }
}

impl From<Expression> for FieldSource {
    /// An expression that is nothing but a path is that path, so that queries that write it either way share a
    /// pipeline.
    fn from(expression: Expression) -> Self {
        match (expression.ops(), expression.operands()) {
            ([Op::Load(_)], [path]) => Self::Path(path.clone()),
            _ => Self::Expression(expression),
        }
    }
}
