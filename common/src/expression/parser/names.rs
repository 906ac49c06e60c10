//! What the names in an expression mean: fields, tags, values of the payload, functions.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{ExpressionFault, Hint, Operand, Parser, Pending, place};
use crate::expression::{Kind, Op};
use crate::limits::PATH_DEPTH_MAX;
use crate::number::decimal::Value;
use crate::plan::{FieldSource, Path};

/// The functions and how they are written.
const FUNCTIONS: [(&str, &str); 11] = [
    ("min", "min(x, y, …)"),
    ("max", "max(x, y, …)"),
    ("abs", "abs(x)"),
    ("round", "round(x) or round(x, 0.5)"),
    ("floor", "floor(x)"),
    ("ceil", "ceil(x)"),
    ("clamp", "clamp(x, low, high)"),
    ("sqrt", "sqrt(x)"),
    ("has", "has(x)"),
    ("default", "default(x, y)"),
    ("if", "if(condition, x, y)"),
];

/// A path of the payload.
pub(super) fn path(segments: Vec<String>, at: usize) -> Result<Path, ExpressionFault> {
    if segments.len() > PATH_DEPTH_MAX {
        let message = format!("the path is deeper than {PATH_DEPTH_MAX} levels");
        return Err(ExpressionFault::new(at, message, Hint::Say("")));
    }
    Ok(Path { segments })
}

impl Parser<'_> {
    /// The meaning of a name without a bracket behind it.
    pub(super) fn name(&mut self, name: String, at: usize) -> Result<Pending, ExpressionFault> {
        if matches!(name.as_str(), "true" | "false") {
            self.give(Op::Truth(name == "true"), at)?;
            return Ok(Pending::Done(Kind::Truth));
        }
        let scope = self.scope;
        if scope.own == Some(&name) {
            return Ok(Pending::Path(Path {
                segments: Vec::from([name]),
            }));
        }
        if let Some(field) = scope.fields.iter().find(|field| field.name == name) {
            return self.field(&field.source, field.resolution, at);
        }
        if let Some((_, source)) = scope.tags.iter().find(|(tag, _)| *tag == name) {
            return Ok(Pending::Tag(name, source.clone()));
        }
        if scope.below.contains(&name.as_str()) {
            let message = format!("field `{name}` is computed further down");
            return Err(ExpressionFault::new(
                at,
                message,
                Hint::Say("move it above this one"),
            ));
        }
        let fields = scope.fields.iter().map(|field| field.name.clone());
        let tags = scope.tags.iter().map(|(tag, _)| (*tag).to_owned());
        let hint = Hint::Nearest {
            known: fields.chain(tags).collect(),
            otherwise: format!("write `$.{name}` for a value of the payload that is no field"),
            wanted: name.clone(),
        };
        Err(ExpressionFault::new(
            at,
            format!("there is no field or tag `{name}`"),
            hint,
        ))
    }

    /// Another field: its value, or all of its operations.
    fn field(
        &mut self,
        source: &FieldSource,
        resolution: Option<i128>,
        at: usize,
    ) -> Result<Pending, ExpressionFault> {
        match source {
            FieldSource::Path(path) if resolution.is_none() => return Ok(Pending::Path(path.clone())),
            FieldSource::Path(path) => self.load(path.clone(), at)?,
            FieldSource::Expression(inner) => {
                for &op in inner.ops() {
                    let op = match op {
                        Op::Load(index) => {
                            let path = inner.operands()[usize::from(index)].clone();
                            Op::Load(place(&mut self.parts.operands, path, at)?)
                        }
                        Op::Matches(index) => {
                            let test = inner.tests()[usize::from(index)].clone();
                            Op::Matches(place(&mut self.parts.tests, test, at)?)
                        }
                        other => other,
                    };
                    self.give(op, at)?;
                }
            }
        }
        if let Some(step) = resolution.filter(|step| *step > 0 && *step < Value::LIMIT) {
            self.give(Op::Round(step), at)?;
        }
        Ok(Pending::Done(Kind::Number))
    }

    /// A function and its arguments.
    pub(super) fn call(&mut self, name: &str, at: usize) -> Result<Pending, ExpressionFault> {
        let Some((_, usage)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
            let known = FUNCTIONS.iter().map(|(known, _)| (*known).to_owned()).collect();
            let hint = Hint::Nearest {
                wanted: name.to_owned(),
                known,
                otherwise: "known are min, max, abs, round, floor, ceil, clamp, sqrt, has, default and if"
                    .to_owned(),
            };
            return Err(ExpressionFault::new(
                at,
                format!("there is no function `{name}`"),
                hint,
            ));
        };
        self.next += 1;
        let mut count = 0;
        if !self.is_sign(")") {
            loop {
                let argument = self.expression(0)?;
                self.argument(name, usage, count, argument)?;
                count += 1;
                if !self.is_sign(",") {
                    break;
                }
                self.next += 1;
            }
        }
        self.expect(")")?;
        let fits = match name {
            "min" | "max" => count >= 2,
            "round" => count == 1 || count == 2,
            "clamp" | "if" => count == 3,
            "default" => count == 2,
            _ => count == 1,
        };
        if !fits {
            return Err(wrong_arguments(name, usage, at));
        }
        let op = match name {
            "abs" => Op::Abs,
            "floor" => Op::Floor,
            "ceil" => Op::Ceil,
            "sqrt" => Op::Root,
            "has" => Op::Has,
            "default" => Op::Default,
            "if" => Op::If,
            "round" if count == 1 => Op::Round(crate::number::decimal::ONE),
            // Given out argument by argument.
            _ => return Ok(Pending::Done(Kind::Number)),
        };
        self.give(op, at)?;
        let is_test = op == Op::Has;
        Ok(Pending::Done(if is_test { Kind::Truth } else { Kind::Number }))
    }

    /// The n-th argument of a function. Some functions are operations between each two of their arguments.
    fn argument(
        &mut self,
        name: &str,
        usage: &str,
        nth: usize,
        argument: Operand,
    ) -> Result<(), ExpressionFault> {
        let at = argument.at;
        let wanted = if name == "if" && nth == 0 {
            Kind::Truth
        } else {
            Kind::Number
        };
        self.typed(argument, wanted)?;
        match (name, nth) {
            ("min", 1..) | ("clamp", 2) => self.give(Op::Min, at),
            ("max", 1..) | ("clamp", 1) => self.give(Op::Max, at),
            // Whatever else ends in another operation.
            ("round", 1) => match self.parts.ops.last() {
                Some(&Op::Number(step)) if step > 0 => {
                    self.parts.ops.pop();
                    self.give(Op::Round(step), at)
                }
                _ => Err(ExpressionFault::new(
                    at,
                    "the step of `round` must be a number above 0",
                    Hint::Say("write `round(x, 0.5)`"),
                )),
            },
            ("min" | "max" | "clamp" | "if", _) | (_, 0) | ("default", 1) => Ok(()),
            _ => Err(wrong_arguments(name, usage, at)),
        }
    }
}

fn wrong_arguments(name: &str, usage: &str, at: usize) -> ExpressionFault {
    let hint = Hint::Nearest {
        wanted: String::new(),
        known: Vec::new(),
        otherwise: format!("write {usage}"),
    };
    ExpressionFault::new(at, format!("`{name}` has another number of arguments"), hint)
}
