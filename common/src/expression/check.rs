//! What an expression must keep to, found without running it: depth, types, bounds.

use super::Kind::{Number, Truth};
use super::{Kind, Op, Parts};
use crate::limits::{KEY_BYTES_MAX, OPERANDS_MAX, OPS_MAX, PATH_DEPTH_MAX, STACK_MAX, TAGS_MAX};
use crate::number::decimal::Value;
use crate::path::{KeyPart, Path};

/// What an operation takes from the stack, first input first, and what it leaves.
#[inline]
pub(super) const fn signature(op: Op) -> (&'static [Kind], Kind) {
    match op {
        Op::Number(_) | Op::Load(_) => (&[], Number),
        Op::Truth(_) | Op::Matches(_) => (&[], Truth),
        Op::Negate | Op::Abs | Op::Floor | Op::Ceil | Op::Round(_) | Op::Root => (&[Number], Number),
        Op::Add
        | Op::Subtract
        | Op::Multiply
        | Op::Divide
        | Op::Remainder
        | Op::Min
        | Op::Max
        | Op::Default => (&[Number, Number], Number),
        Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual | Op::Equal | Op::NotEqual => {
            (&[Number, Number], Truth)
        }
        Op::And | Op::Or => (&[Truth, Truth], Truth),
        Op::Not => (&[Truth], Truth),
        Op::Has => (&[Number], Truth),
        Op::If => (&[Truth, Number, Number], Number),
    }
}

/// The type of an expression that keeps to everything.
pub(super) fn kind(parts: &Parts) -> Result<Kind, &'static str> {
    if parts.ops.len() > OPS_MAX {
        return Err("an expression with too many operations");
    }
    if parts.operands.len() > OPERANDS_MAX || parts.tests.len() > OPERANDS_MAX {
        return Err("an expression with too many operands");
    }
    let sources = parts.tests.iter().filter_map(|test| match &test.source {
        KeyPart::Payload(path) => Some(path),
        KeyPart::Capture(_) => None,
    });
    if !parts.operands.iter().chain(sources).all(is_path) {
        return Err("an expression with a bad path");
    }
    if parts.tests.iter().any(|test| test.text.len() > KEY_BYTES_MAX) {
        return Err("an expression with a long text");
    }
    let mut stack = [Number; STACK_MAX];
    let mut depth = 0_usize;
    for &op in &parts.ops {
        let fits = match op {
            Op::Number(units) => Value::from_units(units).is_some(),
            Op::Round(step) => step > 0 && step < Value::LIMIT,
            Op::Load(index) => usize::from(index) < parts.operands.len(),
            Op::Matches(index) => usize::from(index) < parts.tests.len(),
            _ => true,
        };
        if !fits {
            return Err("an expression with a bad constant or operand");
        }
        let (inputs, output) = signature(op);
        let below = depth
            .checked_sub(inputs.len())
            .ok_or("an expression that lacks an operand")?;
        if stack[below..depth] != *inputs {
            return Err("an expression with a mismatch of types");
        }
        if below == STACK_MAX {
            return Err("an expression that is nested too deeply");
        }
        stack[below] = output;
        depth = below + 1;
    }
    if depth == 1 {
        Ok(stack[0])
    } else {
        Err("an expression without one result")
    }
}

fn is_path(path: &Path) -> bool {
    let depth = path.segments.len();
    depth > 0 && depth <= PATH_DEPTH_MAX
}

/// Whether a topic with this number of captures has the texts that an expression looks at.
pub(crate) fn captures_exist(parts: &[super::TextTest], captures: usize) -> bool {
    parts.iter().all(|test| match test.source {
        KeyPart::Capture(index) => usize::from(index) < captures.min(TAGS_MAX),
        KeyPart::Payload(_) => true,
    })
}
