//! Rows as a result table shows them.

use crate::oracle::answer::Answer;
use crate::oracle::nearest::{is_nearest, is_nearest_root};

/// A row of a result table, as far as the truth knows it.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// `window_start`.
    pub start: String,
    /// `window_end`.
    pub end: String,
    /// The key's tags, in the key's order; the agent behind them for count windows.
    pub tags: Vec<String>,
    /// `coarse`: not a window but a coarser pane.
    pub is_coarse: bool,
    /// `status` is `merged`: a session that has become part of an earlier one.
    pub is_merged: bool,
    /// `status` is `final`.
    pub is_final: bool,
    /// `window_number`, of count windows.
    pub number: Option<i64>,
    /// `readings`.
    pub readings: Cell,
    /// The value columns: fields outermost, in the plan's order.
    pub values: Vec<Cell>,
}

/// What stands in a column.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// NULL.
    Null,
    /// An INTEGER.
    Integer(i64),
    /// A REAL.
    Real(f64),
    /// Anything else, as text.
    Other(String),
}

/// RFC 3339 in UTC with three fractional digits.
pub fn format_time(micros: i64) -> String {
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{micros} µs"),
    }
}

impl Cell {
    /// For people. Rust shows the shortest text that reads back as the same double.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Null => "NULL".into(),
            Self::Integer(integer) => integer.to_string(),
            Self::Real(real) => format!("{real:?}"),
            Self::Other(text) => format!("`{text}`"),
        }
    }

    /// A count, if it is one.
    pub(super) fn count(&self) -> Option<u64> {
        match self {
            Self::Integer(integer) => u64::try_from(*integer).ok(),
            _ => None,
        }
    }

    pub(super) fn real(&self) -> Option<f64> {
        match self {
            Self::Real(real) => Some(*real),
            _ => None,
        }
    }

    pub(super) fn is(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Null, Answer::None | Answer::FractionOrNone(..)) => true,
            (Self::Integer(integer), Answer::Count(count)) => u64::try_from(*integer) == Ok(*count),
            (Self::Real(real), Answer::Fraction(top, bottom) | Answer::FractionOrNone(top, bottom)) => {
                is_nearest(*real, top, bottom)
            }
            (Self::Real(real), Answer::Root(top, bottom)) => is_nearest_root(*real, top, bottom),
            (Self::Real(real), Answer::Double(double)) => real == double,
            (Self::Other(text), Answer::Text(truth)) => text == truth,
            _ => false,
        }
    }
}
