//! From a payload's bytes to the texts at the paths that the plan names.
//!
//! serde_json walks the payload once; a tree of the paths decides what to keep, and the rest is skipped. Kept values
//! stay text (`21.37`, `"berlin"`): [`crate::reading`] turns them into exact values, so no binary float is ever in
//! between. Nothing is copied: the result is positions in the payload, in memory that is used again.

use catchment_common::counter::Reason;
use catchment_common::plan::Path;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::settings::READINGS_PER_MESSAGE_MAX;

/// The distinct paths of a source, as a tree.
#[derive(Clone, Debug)]
pub struct PathTree {
    /// The root first.
    nodes: Vec<Node>,
    paths: Vec<Path>,
}

impl Default for PathTree {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            paths: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<(Box<str>, usize)>,
    path: Option<usize>,
}

impl PathTree {
    /// The number of `path` in this tree, which is added if need be.
    pub fn add(&mut self, path: &Path) -> usize {
        if let Some(index) = self.paths.iter().position(|held| held == path) {
            return index;
        }
        let mut at = 0;
        for segment in &path.segments {
            let child = self.nodes[at].child(segment);
            at = child.unwrap_or_else(|| {
                self.nodes.push(Node::default());
                let new = self.nodes.len() - 1;
                self.nodes[at].children.push((segment.as_str().into(), new));
                new
            });
        }
        self.paths.push(path.clone());
        self.nodes[at].path = Some(self.paths.len() - 1);
        self.paths.len() - 1
    }
}

impl Node {
    #[inline]
    fn child(&self, key: &str) -> Option<usize> {
        self.children
            .iter()
            .find(|(name, _)| **name == *key)
            .map(|&(_, index)| index)
    }
}

/// What stands at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Raw<'p> {
    /// Nothing, or `null`.
    Absent,
    /// Something that cannot lead to it: the path goes on where the payload has no object.
    Blocked,
    /// This JSON text.
    Text(&'p str),
}

/// The texts of all readings of one payload. Used again from message to message.
#[derive(Debug, Default)]
pub struct Decoded {
    /// For each reading, one position for each path.
    found: Vec<Position>,
    readings: usize,
    width: usize,
}

/// Start and length of a text in the payload.
type Position = (u32, u32);
const ABSENT: Position = (0, 0);
const BLOCKED: Position = (1, 0);

impl Decoded {
    /// How many readings the payload has.
    pub fn readings(&self) -> usize {
        self.readings
    }

    /// What stands at a path in one reading of `payload`, which must be the payload that was decoded.
    #[inline]
    pub fn raw<'p>(&self, payload: &'p str, reading: usize, path: usize) -> Raw<'p> {
        match self.found[reading * self.width + path] {
            ABSENT => Raw::Absent,
            BLOCKED => Raw::Blocked,
            (start, length) => match &payload[start as usize..(start + length) as usize] {
                "null" => Raw::Absent,
                text => Raw::Text(text),
            },
        }
    }

    /// Takes a JSON payload apart: an object, or an array of objects. The payload as text is returned for
    /// [`Decoded::raw`]. A payload is taken as a whole or, with the reason, not at all.
    pub fn decode<'p>(&mut self, tree: &PathTree, payload: &'p [u8]) -> Result<&'p str, Reason> {
        self.found.clear();
        self.readings = 0;
        self.width = tree.paths.len();
        if payload.is_empty() {
            return Err(Reason::EmptyPayload);
        }
        let text = std::str::from_utf8(payload).map_err(|_| Reason::InvalidUtf8)?;
        let origin = text.as_ptr() as usize;
        let is_array = text.trim_start().starts_with('[');
        let mut json = serde_json::Deserializer::from_str(text);
        let extract = Extract {
            tree,
            origin,
            out: self,
        };
        let result = if is_array {
            json.deserialize_seq(extract)
        } else {
            json.deserialize_map(extract)
        };
        result
            .and_then(|()| json.end())
            .map_err(|error| self.fault(text, &error))?;
        Ok(text)
    }

    /// The reason behind serde_json's error. NaN and infinities are not JSON; who wrote them should be told so.
    fn fault(&self, text: &str, error: &serde_json::Error) -> Reason {
        if self.readings > READINGS_PER_MESSAGE_MAX {
            return Reason::OversizedPayload;
        }
        if !error.is_syntax() {
            return Reason::MalformedJson;
        }
        let line = text
            .lines()
            .nth(error.line().saturating_sub(1))
            .unwrap_or_default();
        let around = error.column().saturating_sub(3)..=error.column();
        let words = ["NaN", "nan", "Infinity", "inf"];
        let is_word = |start| {
            line.get(start..)
                .is_some_and(|rest| words.iter().any(|word| rest.starts_with(word)))
        };
        if around.into_iter().any(is_word) {
            Reason::NotFinite
        } else {
            Reason::MalformedJson
        }
    }

    fn start_reading(&mut self) -> usize {
        let row = self.found.len();
        self.found.resize(row + self.width, ABSENT);
        self.readings += 1;
        row
    }
}

/// Reads the whole payload: one object, or a sequence of them.
struct Extract<'t, 'd> {
    tree: &'t PathTree,
    origin: usize,
    out: &'d mut Decoded,
}

impl<'de> Visitor<'de> for Extract<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object or an array of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let row = self.out.start_reading();
        let object = Object {
            tree: self.tree,
            origin: self.origin,
            row: &mut self.out.found[row..],
            node: 0,
        };
        object.visit_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq
            .next_element_seed(Element(Extract {
                tree: self.tree,
                origin: self.origin,
                out: self.out,
            }))?
            .is_some()
        {
            if self.out.readings > READINGS_PER_MESSAGE_MAX {
                return Err(serde::de::Error::custom("too many readings"));
            }
        }
        Ok(())
    }
}

/// One element of an array of readings: must be an object.
struct Element<'t, 'd>(Extract<'t, 'd>);

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self.0)
    }
}

/// One object of a reading, at a node of the tree.
struct Object<'t, 'd> {
    tree: &'t PathTree,
    origin: usize,
    row: &'d mut [Position],
    node: usize,
}

impl Object<'_, '_> {
    fn at(&mut self, node: usize) -> Object<'_, '_> {
        Object {
            tree: self.tree,
            origin: self.origin,
            row: self.row,
            node,
        }
    }

    fn keep(&mut self, path: usize, raw: &str) {
        let start = raw.as_ptr() as usize - self.origin;
        self.row[path] = (start as u32, raw.len() as u32);
    }

    /// Marks everything below the node as out of reach.
    fn block(&mut self) {
        let tree = self.tree;
        for &(_, child) in &tree.nodes[self.node].children {
            if let Some(path) = tree.nodes[child].path {
                self.row[path] = BLOCKED;
            }
            self.at(child).block();
        }
    }

    fn take<'de, A: MapAccess<'de>>(&mut self, child: usize, map: &mut A) -> Result<(), A::Error> {
        let Node { path, children } = &self.tree.nodes[child];
        match (path, children.is_empty()) {
            (Some(path), true) => {
                let raw: &RawValue = map.next_value()?;
                self.keep(*path, raw.get());
            }
            (None, _) => map.next_value_seed(self.at(child))?,
            // A path that is also the beginning of another: keep the text, then look into it.
            (Some(path), false) => {
                let raw: &RawValue = map.next_value()?;
                self.keep(*path, raw.get());
                let mut inner = serde_json::Deserializer::from_str(raw.get());
                self.at(child)
                    .deserialize(&mut inner)
                    .map_err(serde::de::Error::custom)?;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Object<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(KeyOf(&self.tree.nodes[self.node]))? {
            match child {
                Some(child) => self.take(child, &mut map)?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.block();
        Ok(())
    }

    fn visit_bool<E>(mut self, _: bool) -> Result<(), E> {
        self.block();
        Ok(())
    }

    fn visit_i64<E>(mut self, _: i64) -> Result<(), E> {
        self.block();
        Ok(())
    }

    fn visit_u64<E>(mut self, _: u64) -> Result<(), E> {
        self.block();
        Ok(())
    }

    fn visit_f64<E>(mut self, _: f64) -> Result<(), E> {
        self.block();
        Ok(())
    }

    fn visit_str<E>(mut self, _: &str) -> Result<(), E> {
        self.block();
        Ok(())
    }

    /// `null` leads nowhere, as if the key were not there.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Finds the child that an object's key leads to, without copying the key.
struct KeyOf<'t>(&'t Node);

impl<'de> DeserializeSeed<'de> for KeyOf<'_> {
    type Value = Option<usize>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    #[inline]
    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.0.child(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&str; 4] = ["temp", "data.hum", "data.deep.x", "data"];

    fn check(payload: &str, paths: &[&str], expected: Result<&[&[Option<&str>]], Reason>) {
        let mut tree = PathTree::default();
        for path in paths {
            tree.add(&Path::parse(path));
        }
        let mut decoded = Decoded::default();
        let result = decoded.decode(&tree, payload.as_bytes()).map(|text| {
            let row = |reading| {
                (0..paths.len())
                    .map(|path| match decoded.raw(text, reading, path) {
                        Raw::Absent => None,
                        Raw::Blocked => Some("!"),
                        Raw::Text(text) => Some(text),
                    })
                    .collect::<Vec<_>>()
            };
            (0..decoded.readings()).map(row).collect::<Vec<_>>()
        });
        let expected = expected.map(|rows| rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>());
        assert_eq!(result, expected, "{payload}");
    }

    #[test]
    fn texts_are_found_at_their_paths() {
        let paths = &PATHS[..3];
        check(
            r#"{"temp":21.37,"data":{"hum":4.50}}"#,
            paths,
            Ok(&[&[Some("21.37"), Some("4.50"), None]]),
        );
        check(
            r#"{"x":[1,{"temp":2}],"temp": 1e2 }"#,
            paths,
            Ok(&[&[Some("1e2"), None, None]]),
        );
        check(r#"{"te\u006dp":1}"#, paths, Ok(&[&[Some("1"), None, None]]));
        check(r#"{"temp":1,"temp":2}"#, paths, Ok(&[&[Some("2"), None, None]]));
        check(r#"{"temp":null,"data":null}"#, paths, Ok(&[&[None, None, None]]));
        check(
            r#"{"temp":"a\"b","data":{"deep":{"x":true}}}"#,
            paths,
            Ok(&[&[Some(r#""a\"b""#), None, Some("true")]]),
        );
        check(r#"{"data":7}"#, paths, Ok(&[&[None, Some("!"), Some("!")]]));
        check(r#"{"data":[1]}"#, paths, Ok(&[&[None, Some("!"), Some("!")]]));
        check(
            r#"{"data":{"hum":1}}"#,
            &PATHS[1..],
            Ok(&[&[Some("1"), None, Some(r#"{"hum":1}"#)]]),
        );
        check("{}", &[], Ok(&[&[]]));
    }

    #[test]
    fn arrays_hold_several_readings() {
        check(
            r#" [{"temp":1},{"temp":2}]"#,
            &PATHS[..1],
            Ok(&[&[Some("1")], &[Some("2")]]),
        );
        check("[]", &PATHS[..1], Ok(&[]));
        let many = format!("[{}{{}}]", "{},".repeat(READINGS_PER_MESSAGE_MAX));
        check(&many, &PATHS[..1], Err(Reason::OversizedPayload));
    }

    #[test]
    fn bad_payloads_have_a_reason() {
        for text in [
            "{",
            "nonsense",
            "7",
            "\"x\"",
            "[1]",
            r#"{"temp":1}x"#,
            r#"{"temp":}"#,
            r#"[{"temp":1},"#,
        ] {
            check(text, &PATHS[..1], Err(Reason::MalformedJson));
        }
        for text in [
            r#"{"temp":NaN}"#,
            r#"{"temp":-Infinity}"#,
            r#"{"temp": Infinity }"#,
            r#"{"x":1,"temp":nan}"#,
        ] {
            check(text, &PATHS[..1], Err(Reason::NotFinite));
        }
        check("", &PATHS[..1], Err(Reason::EmptyPayload));
        let deep = format!("{}{}", r#"{"data":"#.repeat(500), "}".repeat(500));
        check(&deep, &PATHS[..1], Err(Reason::MalformedJson));
        let mut decoded = Decoded::default();
        assert_eq!(
            decoded.decode(&PathTree::default(), b"{\"a\":\"\xff\"}"),
            Err(Reason::InvalidUtf8)
        );
    }
}
