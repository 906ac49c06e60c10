//! The text of an expression as words, each with its place.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::fault::{ExpressionFault, Hint};

/// A word and where it begins, in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) what: What,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// A number as it is written.
    Number(String),
    /// A name of one part.
    Name(String),
    /// A path into the payload: written with dots, or behind `$.`.
    Path(Vec<String>),
    /// A text between quotes.
    Text(String),
    /// An operator, bracket or comma.
    Sign(&'static str),
    /// The end.
    End,
}

/// Longer signs before those that they begin with.
const SIGNS: [&str; 19] = [
    "&&", "||", "<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "%", "!", "(", ")", ",", "=", "^",
];

/// All words of a text, the end included.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ExpressionFault> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        let rest = &text[at..];
        let Some(first) = rest.chars().next() else {
            tokens.push(Token { at, what: What::End });
            return Ok(tokens);
        };
        let (what, length) = match first {
            '0'..='9' => number(rest),
            '"' | '\'' => {
                let (inner, length) = quoted(rest, at)?;
                (What::Text(inner), length)
            }
            '$' => path(rest, 1, Vec::new(), at)?,
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = word(rest);
                path(rest, length, Vec::from([String::from(&rest[..length])]), at)?
            }
            _ => sign(rest).ok_or_else(|| unknown(first, at))?,
        };
        tokens.push(Token { at, what });
        at += length;
    }
}

fn word(text: &str) -> usize {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.find(|character| !is_part(character)).unwrap_or(text.len())
}

/// Digits and points; an exponent may have a sign.
fn number(text: &str) -> (What, usize) {
    let bytes = text.as_bytes();
    let mut length = 0;
    while let Some(&byte) = bytes.get(length) {
        let after_e = length > 0 && matches!(bytes[length - 1], b'e' | b'E');
        let is_part = byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_';
        let is_sign = after_e && matches!(byte, b'+' | b'-');
        if !is_part && !is_sign {
            break;
        }
        length += 1;
    }
    (What::Number(String::from(&text[..length])), length)
}

/// A text in single or double quotes; there are no escapes, the other kind of quote may stand inside.
fn quoted(text: &str, at: usize) -> Result<(String, usize), ExpressionFault> {
    let quote = &text[..1];
    let Some(end) = text[1..].find(quote) else {
        return Err(ExpressionFault::new(
            at,
            "this quote has no end",
            Hint::Say("close it"),
        ));
    };
    Ok((String::from(&text[1..=end]), end + 2))
}

/// The parts of a path behind `length` bytes of `text` that are its beginning.
fn path(
    text: &str,
    mut length: usize,
    mut segments: Vec<String>,
    at: usize,
) -> Result<(What, usize), ExpressionFault> {
    let is_marked = segments.is_empty();
    while text[length..].starts_with('.') {
        let rest = &text[length + 1..];
        let (segment, taken) = if rest.starts_with(['"', '\'']) {
            quoted(rest, at + length + 1)?
        } else {
            let taken = word(rest);
            (String::from(&rest[..taken]), taken)
        };
        if segment.is_empty() {
            return Err(ExpressionFault::new(
                at + length,
                "a path has an empty segment",
                Hint::Say("write `$.outer.inner`, and quote what is no plain word: `$.'flow-rate'`"),
            ));
        }
        segments.push(segment);
        length += 1 + taken;
    }
    let what = match (is_marked, segments.len()) {
        (true, 0) => {
            return Err(ExpressionFault::new(
                at,
                "`$` is the payload, not a value in it",
                Hint::Say("write `$.temp`"),
            ));
        }
        (false, 1) => What::Name(segments.remove(0)),
        _ => What::Path(segments),
    };
    Ok((what, length))
}

fn sign(text: &str) -> Option<(What, usize)> {
    let sign = SIGNS.into_iter().find(|sign| text.starts_with(sign))?;
    Some((What::Sign(sign), sign.len()))
}

fn unknown(character: char, at: usize) -> ExpressionFault {
    let hint = match character {
        '&' => "write `&&` for and",
        '|' => "write `||` for or",
        '[' | ']' | '#' => "write `$.values.0`: an item of a list is a number between dots",
        letter if !letter.is_ascii() => "quote a name that is no plain word: `$.'Außen.°C'`",
        _ => "",
    };
    ExpressionFault::new(
        at,
        format!("`{character}` means nothing in an expression"),
        Hint::Say(hint),
    )
}
