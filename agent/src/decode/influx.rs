//! The InfluxDB line protocol: `measurement,tag=a field=1.5,other="text" 1700000000000000000`.
//!
//! A parser of our own, because the crates there are hand out binary floats, and `21.370000000000000001` must stay what
//! it is. Each line is a reading, and one that is none takes no other along. The paths of a line are `measurement`,
//! `tags.NAME`, `fields.NAME` and `time`.

use catchment_common::metrics::Reason;
use catchment_common::number::decimal::{Value, ValueFault};

use super::{Decoded, PathTree, text};

pub(super) fn decode(out: &mut Decoded, tree: &PathTree, payload: &str) -> Result<(), Reason> {
    let mut rest = payload;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if rest.is_empty() {
            return Ok(());
        }
        if rest.starts_with('#') {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
            continue;
        }
        let row = out.start_reading()?;
        let mut put = Put {
            out,
            tree,
            row,
            full: false,
        };
        let is_line = line(&mut put, &mut rest).is_some();
        if put.full {
            return Err(Reason::OversizedPayload);
        }
        if !is_line {
            out.give_up_reading(Reason::MalformedPayload);
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        }
    }
}

/// One line; leaves what is behind it in `rest`. None for a line that is none: `rest` then begins with the part that is
/// not what it must be, and the line ends with the first end of a line from there on.
fn line(put: &mut Put<'_, '_>, rest: &mut &str) -> Option<()> {
    let measurement = token(rest, &[',', ' '])?;
    put.word("measurement", "", measurement);
    while let Some(tags) = rest.strip_prefix(',') {
        *rest = tags;
        let key = token(rest, &['='])?;
        *rest = rest.strip_prefix('=')?;
        let value = token(rest, &[',', ' '])?;
        put.word("tags", key, value);
    }
    *rest = rest.strip_prefix(' ')?.trim_start_matches(' ');
    loop {
        let key = token(rest, &['='])?;
        *rest = rest.strip_prefix('=')?;
        *rest = put.field(key, rest)?;
        match rest.strip_prefix(',') {
            Some(more) => *rest = more,
            None => break,
        }
    }
    *rest = rest.trim_start_matches([' ', '\r']);
    let end = rest.find('\n').unwrap_or(rest.len());
    let time = rest[..end].trim_end();
    if !time.is_empty() {
        let digits = time.strip_prefix('-').unwrap_or(time);
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        put.at("time", "", |arena| arena.push_str(time));
    }
    *rest = &rest[end..];
    Some(())
}

/// What is before the first of `ends` that has no backslash before it; leaves the rest from there. Neither empty nor
/// over the end of a line.
fn token<'p>(rest: &mut &'p str, ends: &[char]) -> Option<&'p str> {
    let mut escaped = false;
    for (at, character) in rest.char_indices() {
        if !escaped && ends.contains(&character) {
            let (token, behind) = rest.split_at_checked(at).filter(|_| at > 0)?;
            *rest = behind;
            return Some(token);
        }
        if character == '\n' {
            return None;
        }
        escaped = character == '\\' && !escaped;
    }
    None
}

/// A word without its backslashes.
fn unescaped(word: &str) -> impl Iterator<Item = char> {
    let mut characters = word.chars().peekable();
    std::iter::from_fn(move || {
        let character = characters.next()?;
        let escaped = |next: &char| matches!(next, ',' | ' ' | '=' | '\\' | '"');
        if character == '\\' {
            return characters.next_if(escaped).or(Some('\\'));
        }
        Some(character)
    })
}

struct Put<'o, 't> {
    out: &'o mut Decoded,
    tree: &'t PathTree,
    row: usize,
    full: bool,
}

impl Put<'_, '_> {
    /// Writes what stands under a name, if it is looked for.
    fn at(&mut self, group: &'static str, key: &str, write: impl FnOnce(&mut String)) {
        let path = if key.is_empty() {
            self.tree.named(group)
        } else {
            let mut all = self.tree.within(group);
            all.find(|(_, name)| unescaped(key).eq(name.chars()))
                .map(|(path, _)| path)
        };
        if let Some(path) = path {
            self.full |= self.out.put(self.row, path, write).is_err();
        }
    }

    fn word(&mut self, group: &'static str, key: &str, word: &str) {
        self.at(group, key, |arena| text::quoted_from(arena, unescaped(word)));
    }

    /// The value of a field; returns what is behind it.
    fn field<'p>(&mut self, key: &str, value: &'p str) -> Option<&'p str> {
        if let Some(inner) = value.strip_prefix('"') {
            let mut escaped = false;
            let end = inner.find(|character| {
                let ends = character == '"' && !escaped;
                escaped = character == '\\' && !escaped;
                ends
            })?;
            self.word("fields", key, &inner[..end]);
            return Some(&inner[end + 1..]);
        }
        let end = value.find([',', ' ', '\r', '\n']).unwrap_or(value.len());
        let (value, rest) = value.split_at(end);
        let written = match value {
            "t" | "T" | "true" | "True" | "TRUE" => "true",
            "f" | "F" | "false" | "False" | "FALSE" => "false",
            number => {
                let digits = number.strip_suffix(['i', 'u']).unwrap_or(number);
                match Value::parse(digits.as_bytes()) {
                    Ok(_) | Err(ValueFault::OutOfRange) => digits,
                    // Not of the protocol, but some write it.
                    Err(ValueFault::NotFinite) => "\"NaN\"",
                    Err(ValueFault::NotANumber) => return None,
                }
            }
        };
        self.at("fields", key, |arena| arena.push_str(written));
        Some(rest)
    }
}
