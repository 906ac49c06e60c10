//! The InfluxDB line protocol: `measurement,tag=a field=1.5,other="text" 1700000000000000000`.
//!
//! A parser of our own, because the crates there are hand out binary floats, and `21.370000000000000001` must stay what
//! it is. Each line is a reading. Its paths are `measurement`, `tags.NAME`, `fields.NAME` and `time`.

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
        rest = line(out, tree, rest).ok_or(Reason::MalformedPayload)??;
    }
}

/// One line; returns what is behind it. None for a line that is none.
fn line<'p>(out: &mut Decoded, tree: &PathTree, text: &'p str) -> Option<Result<&'p str, Reason>> {
    let row = match out.start_reading() {
        Ok(row) => row,
        Err(reason) => return Some(Err(reason)),
    };
    let mut put = Put {
        out,
        tree,
        row,
        full: false,
    };
    let (measurement, mut rest) = token(text, &[',', ' '])?;
    put.word("measurement", "", measurement);
    while let Some(tags) = rest.strip_prefix(',') {
        let (key, value) = token(tags, &['='])?;
        let (value, after) = token(value.strip_prefix('=')?, &[',', ' '])?;
        put.word("tags", key, value);
        rest = after;
    }
    rest = rest.strip_prefix(' ')?.trim_start_matches(' ');
    loop {
        let (key, value) = token(rest, &['='])?;
        rest = put.field(key, value.strip_prefix('=')?)?;
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    rest = rest.trim_start_matches([' ', '\r']);
    let end = rest.find('\n').unwrap_or(rest.len());
    let time = rest[..end].trim_end();
    if !time.is_empty() {
        let digits = time.strip_prefix('-').unwrap_or(time);
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        put.at("time", "", |arena| arena.push_str(time));
    }
    if put.full {
        return Some(Err(Reason::OversizedPayload));
    }
    Some(Ok(&rest[end..]))
}

/// What is before the first of `ends` that has no backslash before it, and the rest from there. Neither empty nor over
/// the end of a line.
fn token<'p>(text: &'p str, ends: &[char]) -> Option<(&'p str, &'p str)> {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        if !escaped && ends.contains(&character) {
            return (at > 0).then(|| text.split_at(at));
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
