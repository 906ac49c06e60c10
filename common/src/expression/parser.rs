//! From the text to operations: a Pratt parser that gives out each operation when both of its sides are known.
//!
//! Types are checked on the way, so that a fault can point at the word that caused it. Depth, length and count are
//! bounded before anything is built.

mod names;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::fault::{ExpressionFault, Hint};
use super::lexer::{Token, What, tokens};
use super::{Expression, Kind, Op, Parts, TextTest, check};
use crate::limits::{EXPRESSION_BYTES_MAX, KEY_BYTES_MAX, NESTING_MAX, OPERANDS_MAX, OPS_MAX};
use crate::number::decimal::{Value, ValueFault};
use crate::path::{KeyPart, Path};
use crate::plan::Field;

/// What the names in an expression mean.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'s> {
    /// The field that the expression defines: in it, its own name is the value in the payload.
    pub own: Option<&'s str>,
    /// Fields that may be named.
    pub fields: &'s [Field],
    /// Names of computed fields that are defined further down, and may not.
    pub below: &'s [&'s str],
    /// Tags, which are texts.
    pub tags: &'s [(&'s str, KeyPart)],
}

/// Whether a text that may be a path or an expression is an expression: whether it has an operator, a bracket or a
/// marked path in it.
pub fn is_expression(text: &str) -> bool {
    text.contains([
        '+', '-', '*', '/', '%', '(', ')', '<', '>', '=', '!', '&', '|', '$',
    ])
}

impl Expression {
    /// Reads an expression of the type `wanted`.
    pub fn parse(text: &str, scope: &Scope<'_>, wanted: Kind) -> Result<Self, ExpressionFault> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(ExpressionFault::new(
                0,
                format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes"),
                Hint::Say("compute a part of it in a separate field"),
            ));
        }
        let mut parser = Parser {
            tokens: tokens(text)?,
            next: 0,
            depth: 0,
            scope,
            parts: Parts::default(),
        };
        let left = parser.expression(0)?;
        let end = parser.peek().clone();
        if end.what != What::End {
            return Err(Parser::no_operator(&end));
        }
        let kind = parser.settle(left.clone())?;
        if kind != wanted {
            return Err(Parser::mismatch(left.at, kind, wanted));
        }
        // What is left to go wrong is the depth of the stack.
        Self::new(parser.parts).map_err(|message| {
            ExpressionFault::new(0, message, Hint::Say("compute a part of it in a separate field"))
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "a number",
            Self::Truth => "a condition",
        })
    }
}

/// Something that was read, and where it begins.
#[derive(Clone)]
struct Operand {
    at: usize,
    what: Pending,
}

#[derive(Clone)]
enum Pending {
    /// Its operations are given out.
    Done(Kind),
    /// A value in the payload: a number, or a text when it is compared with one.
    Path(Path),
    /// A tag.
    Tag(String, KeyPart),
    /// A text where none can stand.
    Text,
}

struct Parser<'s> {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    scope: &'s Scope<'s>,
    parts: Parts,
}

/// How tightly an operator binds, and what it does.
fn infix(sign: &str) -> Option<(u8, Op)> {
    Some(match sign {
        "||" => (1, Op::Or),
        "&&" => (2, Op::And),
        "<" => (3, Op::Less),
        "<=" => (3, Op::LessOrEqual),
        ">" => (3, Op::Greater),
        ">=" => (3, Op::GreaterOrEqual),
        "==" => (3, Op::Equal),
        "!=" => (3, Op::NotEqual),
        "+" => (4, Op::Add),
        "-" => (4, Op::Subtract),
        "*" => (5, Op::Multiply),
        "/" => (5, Op::Divide),
        "%" => (5, Op::Remainder),
        _ => return None,
    })
}

/// `-` and `!` bind tighter than every operator between two operands.
const UNARY: u8 = 6;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek().what, What::Sign(held) if held == sign)
    }

    /// An operand and all operators behind it that bind at least as tightly as `least`.
    fn expression(&mut self, least: u8) -> Result<Operand, ExpressionFault> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(ExpressionFault::new(
                self.peek().at,
                format!("the expression is nested deeper than {NESTING_MAX} levels"),
                Hint::Say("compute a part of it in a separate field"),
            ));
        }
        let mut left = self.operand()?;
        while let What::Sign(sign) = self.peek().what
            && let Some((power, op)) = infix(sign)
            && power >= least
        {
            let at = self.take().at;
            left = self.between(left, op, power, at)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    /// The right side of an operator, and the operator.
    fn between(&mut self, left: Operand, op: Op, power: u8, at: usize) -> Result<Operand, ExpressionFault> {
        let is_equality = matches!(op, Op::Equal | Op::NotEqual);
        if is_equality && let What::Text(text) = self.peek().what.clone() {
            let place = self.take().at;
            self.text_test(&left, text, place)?;
            if op == Op::NotEqual {
                self.give(Op::Not, at)?;
            }
            return Ok(Operand {
                at: left.at,
                what: Pending::Done(Kind::Truth),
            });
        }
        let (inputs, output) = check::signature(op);
        let start = left.at;
        let left_kind = self.settle(left)?;
        if left_kind != inputs[0] {
            let mut fault = Self::mismatch(start, left_kind, inputs[0]);
            if power == 3 && left_kind == Kind::Truth {
                fault.at = at;
                fault.hint = Hint::Say("write `1 < x && x < 3` for `1 < x < 3`");
            }
            return Err(fault);
        }
        let right = self.expression(power + 1)?;
        self.typed(right, inputs[1])?;
        self.give(op, at)?;
        Ok(Operand {
            at: start,
            what: Pending::Done(output),
        })
    }

    fn operand(&mut self) -> Result<Operand, ExpressionFault> {
        let token = self.take();
        let what = match token.what {
            What::Number(text) => {
                let units = number(&text, token.at)?;
                self.give(Op::Number(units), token.at)?;
                Pending::Done(Kind::Number)
            }
            What::Text(_) => Pending::Text,
            What::Path(segments) => Pending::Path(names::path(segments, token.at)?),
            What::Name(name) => {
                if self.is_sign("(") {
                    self.call(&name, token.at)?
                } else {
                    self.name(name, token.at)?
                }
            }
            What::Sign("(") => {
                let inner = self.expression(0)?;
                self.expect(")")?;
                inner.what
            }
            What::Sign("-") => {
                let inner = self.expression(UNARY)?;
                self.typed(inner, Kind::Number)?;
                match self.parts.ops.last_mut() {
                    // A literal: `-40` is a number and not an operation.
                    Some(Op::Number(units)) => *units = -*units,
                    _ => self.give(Op::Negate, token.at)?,
                }
                Pending::Done(Kind::Number)
            }
            What::Sign("!") => {
                let inner = self.expression(UNARY)?;
                self.typed(inner, Kind::Truth)?;
                self.give(Op::Not, token.at)?;
                Pending::Done(Kind::Truth)
            }
            What::Sign(_) | What::End => return Err(no_operand(&token)),
        };
        Ok(Operand { at: token.at, what })
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), ExpressionFault> {
        if self.is_sign(sign) {
            self.next += 1;
            return Ok(());
        }
        let found = self.peek().clone();
        if found.what == What::End {
            let message = format!("a `{sign}` is missing at the end");
            return Err(ExpressionFault::new(found.at, message, Hint::Say("close it")));
        }
        Err(Self::no_operator(&found))
    }

    /// Gives out the operations of an operand; returns its type.
    fn settle(&mut self, operand: Operand) -> Result<Kind, ExpressionFault> {
        match operand.what {
            Pending::Done(kind) => Ok(kind),
            Pending::Path(path) => {
                self.load(path, operand.at)?;
                Ok(Kind::Number)
            }
            Pending::Tag(name, _) => Err(ExpressionFault::new(
                operand.at,
                format!("tag `{name}` is a text, and texts can only be compared"),
                Hint::Say("write `site == 'berlin'`"),
            )),
            Pending::Text => Err(ExpressionFault::new(
                operand.at,
                "a text can only stand to the right of `==` or `!=`",
                Hint::Say("write `site == 'berlin'`"),
            )),
        }
    }

    fn typed(&mut self, operand: Operand, wanted: Kind) -> Result<(), ExpressionFault> {
        let at = operand.at;
        let kind = self.settle(operand)?;
        if kind == wanted {
            Ok(())
        } else {
            Err(Self::mismatch(at, kind, wanted))
        }
    }

    fn mismatch(at: usize, kind: Kind, wanted: Kind) -> ExpressionFault {
        let hint = match wanted {
            Kind::Number => "write `if(condition, 1, 0)` to make a number of it",
            Kind::Truth => "compare it: `temp > 0`",
        };
        ExpressionFault::new(
            at,
            format!("this is {kind}, where {wanted} is needed"),
            Hint::Say(hint),
        )
    }

    fn give(&mut self, op: Op, at: usize) -> Result<(), ExpressionFault> {
        if self.parts.ops.len() == OPS_MAX {
            return Err(ExpressionFault::new(
                at,
                format!("the expression has more than {OPS_MAX} operations"),
                Hint::Say("fields that it names count with all of theirs"),
            ));
        }
        self.parts.ops.push(op);
        Ok(())
    }

    fn load(&mut self, path: Path, at: usize) -> Result<(), ExpressionFault> {
        let index = place(&mut self.parts.operands, path, at)?;
        self.give(Op::Load(index), at)
    }

    fn text_test(&mut self, left: &Operand, text: String, at: usize) -> Result<(), ExpressionFault> {
        let source = match &left.what {
            Pending::Path(path) => KeyPart::Payload(path.clone()),
            Pending::Tag(_, source) => source.clone(),
            Pending::Done(_) | Pending::Text => {
                return Err(ExpressionFault::new(
                    left.at,
                    "only a tag or a value of the payload can be compared with a text",
                    Hint::Say("write `site == 'berlin'` or `$.state == 'on'`"),
                ));
            }
        };
        if text.len() > KEY_BYTES_MAX {
            return Err(ExpressionFault::new(
                at,
                format!("the text is longer than {KEY_BYTES_MAX} bytes"),
                Hint::Say(""),
            ));
        }
        let index = place(&mut self.parts.tests, TextTest { source, text }, at)?;
        self.give(Op::Matches(index), at)
    }

    fn no_operator(found: &Token) -> ExpressionFault {
        let (shown, hint) = match &found.what {
            What::Name(name) => (
                name.clone(),
                match name.as_str() {
                    "and" | "AND" => "write `&&`",
                    "or" | "OR" => "write `||`",
                    _ => "an operator is missing before it",
                },
            ),
            What::Sign("=") => ("=".to_owned(), "write `==` to compare"),
            What::Sign("^") => ("^".to_owned(), "write `x * x` for a power"),
            What::Sign(")") => (")".to_owned(), "it closes nothing"),
            What::Sign(sign) => ((*sign).to_owned(), "an operator is missing before it"),
            What::Number(text) | What::Text(text) => (text.clone(), "an operator is missing before it"),
            What::Path(segments) => (segments.join("."), "an operator is missing before it"),
            What::End => (String::new(), "the expression is incomplete"),
        };
        ExpressionFault::new(found.at, format!("`{shown}` cannot stand here"), Hint::Say(hint))
    }
}

/// The index of an item in a list of operands, to which it is added if need be.
fn place<T: PartialEq>(list: &mut Vec<T>, item: T, at: usize) -> Result<u8, ExpressionFault> {
    let index = list.iter().position(|held| *held == item).unwrap_or(list.len());
    if index == OPERANDS_MAX {
        return Err(ExpressionFault::new(
            at,
            format!("the expression looks at more than {OPERANDS_MAX} values"),
            Hint::Say(""),
        ));
    }
    if index == list.len() {
        list.push(item);
    }
    Ok(index as u8)
}

fn no_operand(found: &Token) -> ExpressionFault {
    let (message, hint) = match found.what {
        What::End => (
            "the expression ends where a value is needed".to_owned(),
            Hint::Say("complete it, such as `temp > 0`"),
        ),
        What::Sign(sign) => (
            format!("`{sign}` stands where a value is needed"),
            Hint::Say("write a field, a number or `(`"),
        ),
        _ => (String::new(), Hint::Say("")),
    };
    ExpressionFault::new(found.at, message, hint)
}

fn number(text: &str, at: usize) -> Result<i128, ExpressionFault> {
    let fault = |message: String, hint| Err(ExpressionFault::new(at, message, Hint::Say(hint)));
    match Value::parse(text.as_bytes()) {
        Ok(parsed) if parsed.rounded => fault(
            format!("`{text}` has digits finer than 10^-18"),
            "values have 18 digits behind the point",
        ),
        Ok(parsed) => Ok(parsed.value.units()),
        Err(ValueFault::OutOfRange) => fault(format!("`{text}` is not below 10^18"), ""),
        Err(_) => fault(format!("`{text}` is not a number"), "write 12.5 or 1e-3"),
    }
}
