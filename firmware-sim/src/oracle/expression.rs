//! Expressions worked out by walking a tree, with fractions of big integers.
//!
//! The plan gives the operations of an expression; a tree is built of them and its nodes are worked out from the root,
//! each result as an exact fraction that is then rounded to 10⁻¹⁸ as the rule of its node says. Nothing here runs
//! the agents' evaluator.

use catchment_common::expression::{Expression, Op};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

use super::decimal::power_of_ten;

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    /// What it does.
    pub op: Op,
    /// Its inputs, first to last.
    pub inputs: Vec<Self>,
}

/// What a node comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A number.
    Number(BigRational),
    /// True or false.
    Truth(bool),
    /// An operand is absent.
    Absent,
    /// It has no value.
    Fault,
}

impl Tree {
    /// The tree of an expression.
    pub fn of(expression: &Expression) -> Self {
        let mut stack: Vec<Self> = Vec::new();
        for &op in expression.ops() {
            let inputs = stack.split_off(stack.len() - arity(op));
            stack.push(Self { op, inputs });
        }
        stack.pop().expect("a checked expression has one result")
    }

    /// Works it out. `number` gives an operand in units of 10⁻¹⁸, `text` says whether a text matches.
    pub fn answer(
        &self,
        number: &dyn Fn(usize) -> Option<BigInt>,
        text: &dyn Fn(usize) -> Option<bool>,
    ) -> Answer {
        let inputs: Vec<Answer> = self
            .inputs
            .iter()
            .map(|input| input.answer(number, text))
            .collect();
        match self.op {
            Op::Load(index) => number(usize::from(index)).map_or(Answer::Absent, |units| of_units(&units)),
            Op::Matches(index) => text(usize::from(index)).map_or(Answer::Absent, Answer::Truth),
            Op::Number(units) => of_units(&units.into()),
            Op::Truth(truth) => Answer::Truth(truth),
            Op::Has => Answer::Truth(has_value(&inputs[0])),
            Op::Default => inputs[usize::from(!has_value(&inputs[0]))].clone(),
            Op::And if inputs.contains(&Answer::Truth(false)) => Answer::Truth(false),
            Op::Or if inputs.contains(&Answer::Truth(true)) => Answer::Truth(true),
            Op::If => match &inputs[0] {
                Answer::Truth(true) => inputs[1].clone(),
                Answer::Truth(false) => inputs[2].clone(),
                without => without.clone(),
            },
            op => {
                if inputs.contains(&Answer::Fault) {
                    return Answer::Fault;
                }
                if inputs.contains(&Answer::Absent) {
                    return Answer::Absent;
                }
                strict(op, &inputs)
            }
        }
    }
}

/// How many inputs an operation has.
pub fn arity(op: Op) -> usize {
    match op {
        Op::Number(_) | Op::Truth(_) | Op::Load(_) | Op::Matches(_) => 0,
        Op::Negate | Op::Abs | Op::Floor | Op::Ceil | Op::Round(_) | Op::Root | Op::Not | Op::Has => 1,
        Op::If => 3,
        _ => 2,
    }
}

fn has_value(answer: &Answer) -> bool {
    !matches!(answer, Answer::Absent | Answer::Fault)
}

fn of_units(units: &BigInt) -> Answer {
    Answer::Number(BigRational::new(units.clone(), power_of_ten(18)))
}

fn strict(op: Op, inputs: &[Answer]) -> Answer {
    match inputs {
        [Answer::Truth(p)] => Answer::Truth(!p),
        [Answer::Truth(p), Answer::Truth(q)] => Answer::Truth(match op {
            Op::And => *p && *q,
            _ => *p || *q,
        }),
        [Answer::Number(x)] => of_number(op, x),
        [Answer::Number(x), Answer::Number(y)] => of_numbers(op, x, y),
        _ => Answer::Fault,
    }
}

fn of_number(op: Op, x: &BigRational) -> Answer {
    match op {
        Op::Negate => bounded(-x),
        Op::Abs => bounded(x.abs()),
        Op::Floor => bounded(x.floor()),
        Op::Ceil => bounded(x.ceil()),
        Op::Round(step) => {
            let step = BigRational::new(step.into(), power_of_ten(18));
            bounded(half_even(&(x / &step)) * step)
        }
        Op::Root if x.is_negative() => Answer::Fault,
        Op::Root => {
            // Of the two multiples around the root, the one whose distance is smaller: the middle, squared, tells.
            let unit = BigRational::new(BigInt::one(), power_of_ten(18));
            let square = (x * power_of_ten(36)).to_integer();
            let floor = BigRational::from(square.sqrt());
            let middle = &floor + BigRational::new(BigInt::one(), 2.into());
            let is_above = &middle * &middle < BigRational::from(square);
            let root = if is_above {
                floor + BigRational::one()
            } else {
                floor
            };
            bounded(root * unit)
        }
        _ => Answer::Fault,
    }
}

fn of_numbers(op: Op, x: &BigRational, y: &BigRational) -> Answer {
    match op {
        Op::Add => bounded(x + y),
        Op::Subtract => bounded(x - y),
        Op::Multiply => rounded(&(x * y)),
        Op::Divide | Op::Remainder if y.is_zero() => Answer::Fault,
        Op::Divide => rounded(&(x / y)),
        Op::Remainder => bounded(x - (x / y).trunc() * y),
        Op::Min => Answer::Number(x.min(y).clone()),
        Op::Max => Answer::Number(x.max(y).clone()),
        Op::Less => Answer::Truth(x < y),
        Op::LessOrEqual => Answer::Truth(x <= y),
        Op::Greater => Answer::Truth(x > y),
        Op::GreaterOrEqual => Answer::Truth(x >= y),
        Op::Equal => Answer::Truth(x == y),
        Op::NotEqual => Answer::Truth(x != y),
        _ => Answer::Fault,
    }
}

/// The multiple of 10⁻¹⁸ nearest to a number, if it is below 10¹⁸.
fn rounded(exact: &BigRational) -> Answer {
    let scale = BigRational::from(power_of_ten(18));
    bounded(half_even(&(exact * &scale)) / scale)
}

fn bounded(number: BigRational) -> Answer {
    if number.abs() < BigRational::from(power_of_ten(18)) {
        Answer::Number(number)
    } else {
        Answer::Fault
    }
}

/// The whole number nearest to a fraction; of two, the even one.
fn half_even(number: &BigRational) -> BigRational {
    let floor = number.floor();
    let two = BigInt::from(2);
    let twice = (number - &floor) * BigRational::from(two.clone());
    let is_odd = !(floor.to_integer() % two).is_zero();
    if twice > BigRational::one() || (twice.is_one() && is_odd) {
        floor + BigRational::one()
    } else {
        floor
    }
}

#[cfg(test)]
mod tests;
