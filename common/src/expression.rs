//! Expressions: which readings a query takes (`where`), and fields that are computed from others.
//!
//! A text such as `temp > -40 && temp < 125` becomes a short list of operations for a stack machine
//! ([`Expression::parse`]). Agents never see the text, only the operations, so what arrives over the wire is checked
//! again: an [`Expression`] that exists has at most [`OPS_MAX`] operations, fits a stack of [`STACK_MAX`] places at
//! every step and has the right types throughout. There are no jumps and no loops, so its cost is known, and running it
//! allocates nothing.
//!
//! Numbers are the decimals of [`crate::number::decimal`]. Sums and differences are exact; products, quotients and roots are
//! the multiple of 10⁻¹⁸ nearest to the exact result, ties to even. A result of 10¹⁸ or more, a division by zero or the
//! root of a negative number has no value: it is a [`Fault`], which like an absent operand makes everything absent that
//! needs it. Only `&&` and `||` can do without one side, as in SQL: `false && x` is false whatever `x` is.

mod arithmetic;
mod check;
mod fault;
mod lexer;
mod parser;

use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::{OPS_MAX, STACK_MAX};
use crate::number::decimal::Value;
use crate::path::{KeyPart, Path};

pub(crate) use check::captures_exist;
pub use fault::{ExpressionFault, Hint};
pub use parser::{Scope, is_expression};

/// A checked expression. Two texts that mean the same operations are equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Expression {
    parts: Parts,
    kind: Kind,
}

/// What an expression is made of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Parts {
    /// The operations, operands first.
    pub ops: Vec<Op>,
    /// Where the numbers are that [`Op::Load`] takes.
    pub operands: Vec<Path>,
    /// What [`Op::Matches`] compares.
    pub tests: Vec<TextTest>,
}

/// Whether a text of the reading equals a given one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TextTest {
    /// Where the text is.
    pub source: KeyPart,
    /// What it must be.
    pub text: String,
}

/// The type of an expression.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A decimal.
    Number,
    /// True or false.
    Truth,
}

/// One operation. Each takes its inputs from the stack and leaves one result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Op {
    /// A number, in units of 10⁻¹⁸.
    Number(i128),
    /// True or false.
    Truth(bool),
    /// The n-th operand.
    Load(u8),
    /// The n-th test of a text.
    Matches(u8),
    /// `-x`
    Negate,
    /// `abs(x)`
    Abs,
    /// `floor(x)`
    Floor,
    /// `ceil(x)`
    Ceil,
    /// `round(x, step)`: the nearest multiple of a step in units of 10⁻¹⁸, ties to the even one.
    Round(i128),
    /// `sqrt(x)`
    Root,
    /// `x + y`
    Add,
    /// `x - y`
    Subtract,
    /// `x * y`
    Multiply,
    /// `x / y`
    Divide,
    /// `x % y`: what is left of `x` after whole multiples of `y`, with the sign of `x`.
    Remainder,
    /// `min(x, y)`
    Min,
    /// `max(x, y)`
    Max,
    /// `x < y`
    Less,
    /// `x <= y`
    LessOrEqual,
    /// `x > y`
    Greater,
    /// `x >= y`
    GreaterOrEqual,
    /// `x == y`
    Equal,
    /// `x != y`
    NotEqual,
    /// `p && q`
    And,
    /// `p || q`
    Or,
    /// `!p`
    Not,
    /// `has(x)`: whether there is a value.
    Has,
    /// `default(x, y)`: `x`, or `y` where `x` has no value.
    Default,
    /// `if(p, x, y)`
    If,
}

/// Why a computation has no value although its operands have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// `x / 0` or `x % 0`.
    DivisionByZero,
    /// A result, also one on the way, is 10¹⁸ or more in magnitude.
    OutOfRange,
    /// The root of a negative number.
    NegativeRoot,
}

/// What an expression comes to for one reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A number.
    Number(Value),
    /// True or false.
    Truth(bool),
    /// An operand that it needs is absent.
    Absent,
    /// It has no value.
    Fault(Fault),
}

/// Where the operands of one reading come from.
pub trait Operands {
    /// The number at the n-th of [`Expression::operands`]; none when it is absent.
    fn number(&mut self, operand: usize) -> Option<Value>;

    /// Whether the n-th of [`Expression::tests`] holds; none when the text is absent.
    fn matches(&mut self, test: usize) -> Option<bool>;
}

/// One place of the stack. Truth is 0 or 1.
#[derive(Clone, Copy)]
enum Slot {
    Is(i128),
    Absent,
    Fault(Fault),
}

impl Expression {
    /// Checks what an expression must keep to; the text says what is wrong.
    pub fn new(parts: Parts) -> Result<Self, &'static str> {
        let kind = check::kind(&parts)?;
        Ok(Self { parts, kind })
    }

    /// The operations.
    pub fn ops(&self) -> &[Op] {
        &self.parts.ops
    }

    /// The paths of its numbers.
    pub fn operands(&self) -> &[Path] {
        &self.parts.operands
    }

    /// Its tests of texts.
    pub fn tests(&self) -> &[TextTest] {
        &self.parts.tests
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Runs it for one reading. Every operand is looked at, needed or not, so that what is counted of one does not
    /// depend on the values of others.
    #[inline]
    pub fn evaluate<O: Operands>(&self, operands: &mut O) -> Outcome {
        let mut stack = [Slot::Absent; STACK_MAX];
        let mut top = 0;
        for op in &self.parts.ops {
            let taken = check::signature(*op).0.len();
            top -= taken;
            let inputs = &stack[top..top + taken];
            stack[top] = match *op {
                Op::Load(index) => Slot::of(operands.number(usize::from(index)).map(Value::units)),
                Op::Matches(index) => Slot::of(operands.matches(usize::from(index)).map(i128::from)),
                op => apply(op, inputs),
            };
            top += 1;
        }
        match (stack[0], self.kind) {
            (Slot::Absent, _) => Outcome::Absent,
            (Slot::Fault(fault), _) => Outcome::Fault(fault),
            (Slot::Is(truth), Kind::Truth) => Outcome::Truth(truth != 0),
            (Slot::Is(units), Kind::Number) => {
                Value::from_units(units).map_or(Outcome::Fault(Fault::OutOfRange), Outcome::Number)
            }
        }
    }
}

impl Slot {
    #[inline]
    fn of(value: Option<i128>) -> Self {
        value.map_or(Self::Absent, Self::Is)
    }
}

/// One operation that needs nothing but its inputs, of which the check has made sure that they are there.
#[inline]
fn apply(op: Op, inputs: &[Slot]) -> Slot {
    match (op, inputs) {
        (Op::Number(units), _) => Slot::Is(units),
        (Op::Truth(truth), _) => Slot::Is(i128::from(truth)),
        (Op::Has, [x]) => Slot::Is(i128::from(matches!(x, Slot::Is(_)))),
        (Op::Default, [x, y]) => match x {
            Slot::Is(_) => *x,
            _ => *y,
        },
        (Op::And, [p, q]) => either(*p, *q, 0),
        (Op::Or, [p, q]) => either(*p, *q, 1),
        (Op::If, [Slot::Is(truth), x, y]) => {
            if *truth == 0 {
                *y
            } else {
                *x
            }
        }
        (Op::If, [without, ..]) => *without,
        (op, [Slot::Is(x)]) => settle(arithmetic::unary(op, *x)),
        (op, [Slot::Is(x), Slot::Is(y)]) => settle(arithmetic::binary(op, *x, *y)),
        (_, [x, y]) => missing(*x, *y),
        (_, inputs) => inputs.first().copied().unwrap_or(Slot::Absent),
    }
}

/// `&&` and `||`: one side that is `decisive` is enough.
fn either(p: Slot, q: Slot, decisive: i128) -> Slot {
    match (p, q) {
        (Slot::Is(one), _) | (_, Slot::Is(one)) if one == decisive => Slot::Is(decisive),
        (Slot::Is(_), Slot::Is(_)) => Slot::Is(1 - decisive),
        _ => missing(p, q),
    }
}

/// Of two inputs of which one has no value: why. A fault tells more than an absence.
fn missing(x: Slot, y: Slot) -> Slot {
    match (x, y) {
        (Slot::Fault(_), _) => x,
        (_, Slot::Fault(_)) => y,
        _ => Slot::Absent,
    }
}

fn settle(result: Result<i128, Fault>) -> Slot {
    match result {
        Ok(units) => Slot::Is(units),
        Err(fault) => Slot::Fault(fault),
    }
}

const _: () = assert!(OPS_MAX >= STACK_MAX && OPS_MAX <= 256);

#[cfg(test)]
mod tests;
