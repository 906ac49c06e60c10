//! JSON: serde_json walks the payload once; the tree of the paths decides what to keep, and the rest is skipped.
//!
//! Kept values stay where they are: nothing is copied, and a number's own text is what becomes a value.

use std::fmt;

use catchment_common::metrics::Reason;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{ARENA_BYTES_MAX, Body, Decoded, Node, PathTree, words};

/// Takes an object apart, or an array of objects. An item of the array that is no object is an unreadable part.
///
/// A payload with bare words such as `NaN`, which are not JSON, is taken apart a second time with quotes around the
/// words: they are then texts, unusable where a number is wanted and without harm elsewhere. Only payloads that are no
/// JSON cost that.
pub(super) fn decode<'p>(out: &mut Decoded, tree: &PathTree, payload: &'p [u8]) -> Result<Body<'p>, Reason> {
    let text = std::str::from_utf8(payload).map_err(|_| Reason::InvalidUtf8)?;
    let Err(error) = read(out, tree, text) else {
        return Ok(Body::Payload(text));
    };
    let reason = fault(out, &error);
    if reason != Reason::MalformedJson || !error.is_syntax() || text.len() > ARENA_BYTES_MAX {
        return Err(reason);
    }
    out.clear(tree);
    let mut quoted = std::mem::take(&mut out.arena);
    let result = if words::quote(text, &mut quoted) {
        read(out, tree, &quoted)
    } else {
        Err(error)
    };
    out.arena = quoted;
    result.map(|()| Body::Arena).map_err(|error| fault(out, &error))
}

fn read(out: &mut Decoded, tree: &PathTree, text: &str) -> Result<(), serde_json::Error> {
    let origin = text.as_ptr() as usize;
    let mut json = serde_json::Deserializer::from_str(text);
    let extract = Extract { tree, origin, out };
    if text.trim_start().starts_with('[') {
        json.deserialize_seq(extract)?;
    } else {
        json.deserialize_map(extract)?;
    }
    json.end()
}

/// The reason behind serde_json's error.
fn fault(out: &Decoded, error: &serde_json::Error) -> Reason {
    if error.is_data() && out.has_too_many() {
        Reason::OversizedPayload
    } else {
        Reason::MalformedJson
    }
}

/// What serde_json is told of a payload with too many readings. It is not shown to anybody.
const TOO_MANY: &str = "too many readings";

/// Reads the whole payload: one object, or a sequence of them.
struct Extract<'t, 'd> {
    tree: &'t PathTree,
    origin: usize,
    out: &'d mut Decoded,
}

impl<'de> Visitor<'de> for Extract<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let row = self.out.start_reading().map_err(|_| A::Error::custom(TOO_MANY))?;
        let object = Object {
            tree: self.tree,
            origin: self.origin,
            out: self.out,
            row,
            node: 0,
        };
        object.visit_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { tree, origin, out } = self;
        loop {
            let out = &mut *out;
            let extract = Extract { tree, origin, out };
            let Some(is_object) = seq.next_element_seed(Element(extract))? else {
                return Ok(());
            };
            if !is_object {
                out.give_up_part(Reason::MalformedJson)
                    .map_err(|_| A::Error::custom(TOO_MANY))?;
            }
        }
    }
}

/// One item of an array of readings; whether it is an object, as it must be.
struct Element<'t, 'd>(Extract<'t, 'd>);

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        self.0.visit_map(map).map(|()| true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }
}

/// One object of a reading, at a node of the tree.
struct Object<'t, 'd> {
    tree: &'t PathTree,
    origin: usize,
    out: &'d mut Decoded,
    row: usize,
    node: usize,
}

impl Object<'_, '_> {
    fn at(&mut self, node: usize) -> Object<'_, '_> {
        Object {
            tree: self.tree,
            origin: self.origin,
            out: self.out,
            row: self.row,
            node,
        }
    }

    fn keep(&mut self, path: usize, raw: &str) {
        let start = raw.as_ptr() as usize - self.origin;
        self.out.found[self.row + path] = (start as u32, raw.len() as u32);
    }

    /// Marks everything below the node as out of reach.
    fn block(&mut self) {
        self.out.block(self.row, self.tree, self.node);
    }

    fn take<'de, A: Entries<'de>>(&mut self, child: usize, entries: &mut A) -> Result<bool, A::Fault> {
        let Node { path, children } = &self.tree.nodes[child];
        match (path, children.is_empty()) {
            (Some(path), true) => {
                let Some(raw) = entries.raw()? else {
                    return Ok(false);
                };
                self.keep(*path, raw.get());
            }
            (None, _) => return entries.seed(self.at(child)),
            // A path that is also the beginning of another: keep the text, then look into it.
            (Some(path), false) => {
                let Some(raw) = entries.raw()? else {
                    return Ok(false);
                };
                self.keep(*path, raw.get());
                let mut inner = serde_json::Deserializer::from_str(raw.get());
                self.at(child)
                    .deserialize(&mut inner)
                    .map_err(serde::de::Error::custom)?;
            }
        }
        Ok(true)
    }
}

/// The values of an object or the items of an array, as far as both are alike. False means that there are no more.
trait Entries<'de> {
    type Fault: serde::de::Error;

    fn raw(&mut self) -> Result<Option<&'de RawValue>, Self::Fault>;
    fn seed(&mut self, object: Object<'_, '_>) -> Result<bool, Self::Fault>;
}

struct Values<'a, A>(&'a mut A);

impl<'de, A: MapAccess<'de>> Entries<'de> for Values<'_, A> {
    type Fault = A::Error;

    #[inline]
    fn raw(&mut self) -> Result<Option<&'de RawValue>, A::Error> {
        self.0.next_value().map(Some)
    }

    fn seed(&mut self, object: Object<'_, '_>) -> Result<bool, A::Error> {
        self.0.next_value_seed(object).map(|()| true)
    }
}

struct Items<'a, A>(&'a mut A);

impl<'de, A: SeqAccess<'de>> Entries<'de> for Items<'_, A> {
    type Fault = A::Error;

    fn raw(&mut self) -> Result<Option<&'de RawValue>, A::Error> {
        self.0.next_element()
    }

    fn seed(&mut self, object: Object<'_, '_>) -> Result<bool, A::Error> {
        self.0.next_element_seed(object).map(|found| found.is_some())
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

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) =
            map.next_key_seed(KeyOf(&self.tree.nodes[self.node], self.tree.refuses_unknown))?
        {
            match child {
                Some(child) => {
                    self.take(child, &mut Values(&mut map))?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.out.enter_list(self.row, self.tree, self.node);
        for index in 0.. {
            let more = match self.tree.nodes[self.node].item(index) {
                Some(child) => self.take(child, &mut Items(&mut seq))?,
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
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
struct KeyOf<'t>(&'t Node, bool);

impl<'de> DeserializeSeed<'de> for KeyOf<'_> {
    type Value = Option<usize>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    #[inline]
    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Option<usize>, E> {
        let child = self.0.child(key);
        if self.1 && child.is_none() && key.ends_with('_') {
            return Err(E::custom("a key that must be understood"));
        }
        Ok(child)
    }
}

#[cfg(test)]
mod tests {
    use catchment_common::plan::{Format, Path};
    use catchment_common::time::{Instant, Now, Timestamp};

    use super::super::{Births, Context, Decoder, Raw};
    use super::*;
    use crate::settings::READINGS_PER_MESSAGE_MAX;
    use crate::source::SourceId;

    fn decode_json<'p>(
        decoder: &mut Decoder,
        payload: &'p [u8],
        out: &mut Decoded,
    ) -> Result<Body<'p>, Reason> {
        let now = Now {
            monotonic: Instant::from_micros(0),
            wall: Timestamp::clamped(0),
        };
        let context = Context {
            source: SourceId(0),
            topic: "t",
            now,
            payload_bytes_max: 64 << 10,
        };
        decoder.decode(payload, context, &mut Births::default(), out)
    }

    const PATHS: [&str; 4] = ["temp", "data.hum", "data.deep.x", "data"];

    fn check(payload: &str, paths: &[&str], expected: Result<&[&[Option<&str>]], Reason>) {
        let mut tree = PathTree::default();
        for path in paths {
            tree.add(&Path::parse(path));
        }
        let mut decoder = Decoder::new(Format::Json);
        decoder.tree = tree;
        let mut decoded = Decoded::default();
        let result = decode_json(&mut decoder, payload.as_bytes(), &mut decoded).map(|body| {
            let text = decoded.text(body);
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
    fn numbers_lead_into_arrays() {
        let paths = &["v.0.temp", "v.2", "v.1.0", "v.temp"];
        check(
            r#"{"v":[{"temp":1},[2,3],4,5]}"#,
            paths,
            Ok(&[&[Some("1"), Some("4"), Some("2"), Some("!")]]),
        );
        check(r#"{"v":[7]}"#, paths, Ok(&[&[Some("!"), None, None, Some("!")]]));
        check(
            r#"{"v":{"0":{"temp":1},"2":3}}"#,
            paths,
            Ok(&[&[Some("1"), Some("3"), None, None]]),
        );
        check(r#"{"v":[]}"#, &["v.0", "v"], Ok(&[&[None, Some("[]")]]));
        check(r#"{"v":[1,}"#, paths, Err(Reason::MalformedJson));
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
    fn an_item_that_is_no_object_takes_no_other_along() {
        let paths = &PATHS[..1];
        let payload = r#"[{"temp":1},null,7,-7,0.5,true,"x",[{"temp":9}],{"temp":2}]"#;
        check(payload, paths, Ok(&[&[Some("1")], &[Some("2")]]));
        let mut decoded = Decoded::default();
        for (payload, unreadable) in [(payload, 7), ("[1]", 1)] {
            decode_json(&mut Decoder::new(Format::Json), payload.as_bytes(), &mut decoded).unwrap();
            assert_eq!(decoded.unreadable(), [(Reason::MalformedJson, unreadable)]);
        }
        let many = format!("[{}1]", "1,".repeat(READINGS_PER_MESSAGE_MAX));
        check(&many, paths, Err(Reason::OversizedPayload));
    }

    #[test]
    fn bare_words_are_texts_and_spoil_nothing_else() {
        let text = r#"{"x":{"y":nan},"temp":21.5,"z":"nan, \\"}"#;
        check(text, &PATHS[..1], Ok(&[&[Some("21.5")]]));
        for text in [
            r#"{"temp":NaN}"#,
            r#"{"temp":-Infinity}"#,
            r#"{"temp": Infinity }"#,
            r#"{"x":1,"temp":-nan}"#,
        ] {
            check(text, &PATHS[..1], Ok(&[&[Some("\"NaN\"")]]));
        }
        check(
            r#"{"data":nan,"temp":1}"#,
            &PATHS[..2],
            Ok(&[&[Some("1"), Some("!")]]),
        );
    }

    #[test]
    fn bad_payloads_have_a_reason() {
        for text in [
            "{",
            "nonsense",
            "7",
            "\"x\"",
            r#"{"temp":1}x"#,
            r#"{"temp":}"#,
            r#"[{"temp":1},"#,
        ] {
            check(text, &PATHS[..1], Err(Reason::MalformedJson));
        }
        for text in ["NaN", r#"{"temp":NaN"#, r#"{"temp":NaN,}"#] {
            check(text, &PATHS[..1], Err(Reason::MalformedJson));
        }
        check("", &PATHS[..1], Err(Reason::EmptyPayload));
        let deep = format!("{}{}", r#"{"data":"#.repeat(500), "}".repeat(500));
        check(&deep, &PATHS[..1], Err(Reason::MalformedJson));
        let mut decoder = Decoder::new(Format::Json);
        assert_eq!(
            decode_json(&mut decoder, b"{\"a\":\"\xff\"}", &mut Decoded::default()),
            Err(Reason::InvalidUtf8)
        );
    }
}
