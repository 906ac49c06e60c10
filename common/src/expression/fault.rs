//! Why the text of an expression cannot be read, where, and what to write instead.

use alloc::string::String;
use alloc::vec::Vec;

/// What is wrong with an expression, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpressionFault {
    /// Where in the text, in bytes.
    pub at: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Hint,
}

/// What to do about a fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hint {
    /// This; may be empty.
    Say(&'static str),
    /// Perhaps one of `known` was meant, the one whose spelling is nearest to `wanted`; if none is near, `otherwise`.
    Nearest {
        /// What was written.
        wanted: String,
        /// What there is.
        known: Vec<String>,
        /// What to say when nothing is near.
        otherwise: String,
    },
}

impl ExpressionFault {
    pub(super) fn new(at: usize, message: impl Into<String>, hint: Hint) -> Self {
        Self {
            at,
            message: message.into(),
            hint,
        }
    }
}
