//! The file as it was read, which knows where each key and value stands.
//!
//! A fault names the path of what is wrong, and is shown at the key there. What is lacking is shown where it should
//! stand: at the header of its table.

use std::fmt::Write as _;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer, Error};

/// A step of a path into a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The entry of a table with this key.
    Key(&'static str),
    /// The item of an array at this place.
    Item(usize),
}

/// What is wrong, and the path of it.
pub(super) type Fault = (Vec<Step>, String);

/// A file's text, and what stands where in it.
pub(super) struct Document<'t> {
    text: &'t str,
    name: &'t str,
    root: Spanned<DeTable<'t>>,
}

impl<'t> Document<'t> {
    /// Reads the text of a file called `name`. Fails on what is not TOML.
    pub(super) fn parse(text: &'t str, name: &'t str) -> Result<Self, Error> {
        let root = DeTable::parse(text)?;
        Ok(Self { text, name, root })
    }

    /// All of it as a type.
    pub(super) fn read<T: Deserialize<'t>>(&self) -> Result<T, Error> {
        T::deserialize(Deserializer::from(self.root.clone()))
    }

    /// Whether the file has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.root.get_ref().contains_key(key)
    }

    /// The value of a key of the file.
    pub(super) fn value(&self, key: &str) -> Option<&Spanned<DeValue<'t>>> {
        self.root.get_ref().get(key)
    }

    /// A line for each fault, in the order of the file.
    pub(super) fn show(&self, faults: Vec<Fault>) -> String {
        let mut placed: Vec<(usize, Option<&str>, String)> = { faults.into_iter() }
            .map(|(path, fault)| {
                let key = path.iter().rev().find_map(|step| match step {
                    Step::Key(key) => Some(*key),
                    Step::Item(_) => None,
                });
                (self.place(&path), key, fault)
            })
            .collect();
        placed.sort();
        let mut text = String::new();
        for (place, key, fault) in placed {
            let (line, column) = position(self.text, place);
            let _ = write!(text, "{}:{line}:{column}: ", self.name);
            if let Some(key) = key {
                let _ = write!(text, "{key}: ");
            }
            let _ = writeln!(text, "{fault}");
        }
        text.trim_end().to_owned()
    }

    /// Where the last step of a path stands; where it does not exist, the table in which it should.
    fn place(&self, path: &[Step]) -> usize {
        let mut place = 0;
        let mut tables = Some(self.root.get_ref());
        let mut items: Option<&DeArray<'t>> = None;
        for step in path {
            let value = match step {
                Step::Key(key) => {
                    let Some((key, value)) = tables.and_then(|table| table.get_key_value(*key)) else {
                        break;
                    };
                    place = key.span().start;
                    value
                }
                Step::Item(index) => {
                    let Some(value) = items.and_then(|items| items.get(*index)) else {
                        break;
                    };
                    place = value.span().start;
                    value
                }
            };
            (tables, items) = match value.get_ref() {
                DeValue::Table(table) => (Some(table), None),
                DeValue::Array(array) => (None, Some(array)),
                _ => (None, None),
            };
        }
        place
    }
}

/// What serde says of a file that does not have the right form, with the place and what to do.
pub(super) fn unreadable(error: &Error, text: &str, name: &str) -> String {
    let (line, column) = position(text, error.span().map_or(0, |span| span.start));
    let message = error.message();
    format!(
        "{name}:{line}:{column}: {message}{}{}",
        nearest_key(message),
        what_fits(message)
    )
}

/// Line and column, both from 1, of a byte offset. Columns count characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// For serde's "unknown field `x`, expected one of `a`, `b`": which of the known ones is nearest.
fn nearest_key(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return String::new();
    };
    let mut names = rest.split('`').step_by(2);
    let Some(unknown) = names.next() else {
        return String::new();
    };
    let known = rest.split('`').skip(2).step_by(2);
    let nearest = known
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().max(unknown.len()) / 2);
    nearest.map_or(String::new(), |(_, name)| format!("; did you mean `{name}`?"))
}

/// For serde's "…, expected …", which speaks of Rust's types: what to write instead.
fn what_fits(message: &str) -> &'static str {
    const HINTS: [(&str, &str); 3] = [
        (
            "expected parsable string",
            "; write a size with its unit, such as \"8 MiB\"",
        ),
        ("expected u16", ": a whole number from 0 to 65535"),
        ("expected u8", ": a whole number from 0 to 255"),
    ];
    let hint = HINTS.iter().find(|(wants, _)| message.ends_with(wants));
    hint.map_or("", |(_, hint)| hint)
}
