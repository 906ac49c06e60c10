//! From a payload's bytes to the texts at the paths that the plan names.
//!
//! Every format ends in the same place: for each reading and each path a text as JSON writes it (`21.37`, `"berlin"`),
//! which [`crate::decode::convert`] turns into exact values. Of JSON the texts are positions in the payload; all other formats
//! write them into an arena that is used again. So no binary float is ever in between that was not in the payload, and
//! what a reading means does not depend on how it travelled.

mod cbor;
pub mod convert;
mod csv;
mod influx;
mod json;
mod msgpack;
mod senml;
mod sparkplug;
mod text;
mod unpack;
mod walk;
mod words;

#[cfg(test)]
mod tests;

use catchment_common::metrics::Reason;
use catchment_common::plan::{Compression, Format, Path};
use catchment_common::time::Now;

use crate::settings::READINGS_PER_MESSAGE_MAX;
use crate::source::SourceId;

pub use sparkplug::{Births, Command};
pub(crate) use text::Short;

/// Deepest nesting of a payload that is looked into; JSON's own limit is 128.
const DEPTH_MAX: u32 = 64;
/// Most bytes of texts that one message may come to: some formats repeat a name for each reading.
const ARENA_BYTES_MAX: usize = 4 << 20;

/// The distinct paths of a source, as a tree.
#[derive(Clone, Debug)]
pub struct PathTree {
    /// The root first.
    nodes: Vec<Node>,
    paths: Vec<Path>,
    /// The paths as they are written, for formats whose names have no structure.
    names: Vec<String>,
    /// Keys that end in `_` and are not in the tree make a payload unreadable, as SenML wants it.
    refuses_unknown: bool,
}

impl Default for PathTree {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            paths: Vec::new(),
            names: Vec::new(),
            refuses_unknown: false,
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
        self.names.push(path.to_string());
        self.nodes[at].path = Some(self.paths.len() - 1);
        self.paths.len() - 1
    }

    /// The path with this name.
    fn named(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|held| held == name)
    }

    /// The paths that lead into `group`, each with the rest of its name.
    fn within<'t>(&'t self, group: &'static str) -> impl Iterator<Item = (usize, &'t str)> {
        let named = self.names.iter().enumerate();
        named.filter_map(move |(index, name)| Some((index, name.strip_prefix(group)?.strip_prefix('.')?)))
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

    /// The child that an array's item leads to.
    fn item(&self, index: usize) -> Option<usize> {
        if self.children.is_empty() {
            return None;
        }
        self.child(Short::of(index).as_str())
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
    /// How many parts of the payload (lines, records, items) there were no readings in, by the reason why.
    unreadable: Vec<(Reason, u64)>,
    /// All of both.
    parts: usize,
    width: usize,
    arena: String,
    /// One cell, and the paths of the columns, of CSV.
    scratch: Vec<u8>,
    columns: Vec<Option<usize>>,
}

/// Start and length of a text in the payload or the arena.
type Position = (u32, u32);
const ABSENT: Position = (0, 0);
const BLOCKED: Position = (1, 0);

/// What positions refer to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body<'p> {
    /// The payload.
    Payload(&'p str),
    /// The arena of what was decoded.
    Arena,
}

/// What decoding a message needs to know besides its payload.
#[derive(Clone, Copy, Debug)]
pub struct Context<'m> {
    /// Which source it came from: two brokers may have edge nodes of one name.
    pub source: SourceId,
    /// Where it was published.
    pub topic: &'m str,
    /// When it came.
    pub now: Now,
    /// Most bytes that may come out of what is packed.
    pub payload_bytes_max: usize,
}

/// Takes payloads of one format apart.
#[derive(Debug)]
pub struct Decoder {
    format: Format,
    senml: Option<Box<senml::Senml>>,
    /// The paths that are looked for.
    pub tree: PathTree,
}

impl Decoder {
    /// A decoder that looks for nothing yet.
    pub fn new(format: Format) -> Self {
        let senml = match format {
            Format::SenmlJson => Some(senml::Senml::json()),
            Format::SenmlCbor => Some(senml::Senml::cbor()),
            _ => None,
        };
        Self {
            format,
            senml: senml.map(Box::new),
            tree: PathTree::default(),
        }
    }

    /// Takes a payload apart. The reason why, if it cannot be; parts of it that cannot be read are in
    /// [`Decoded::unreadable`] and take no other part along.
    #[inline]
    pub fn decode<'p>(
        &mut self,
        payload: &'p [u8],
        context: Context<'_>,
        births: &mut Births,
        out: &mut Decoded,
    ) -> Result<Body<'p>, Reason> {
        let tree = &self.tree;
        out.clear(tree);
        if payload.is_empty() {
            return Err(Reason::EmptyPayload);
        }
        if self.format == Format::Json {
            return json::decode(out, tree, payload);
        }
        let done = match &self.format {
            Format::Cbor => walk::decode(out, tree, cbor::Items::new(payload)),
            Format::Msgpack => walk::decode(out, tree, msgpack::Items::new(payload)),
            Format::Sparkplug => sparkplug::decode(out, tree, payload, context, births),
            Format::SenmlCbor => self.senml(payload, context, out),
            _ => {
                let text = std::str::from_utf8(payload).map_err(|_| Reason::InvalidUtf8)?;
                match &self.format {
                    Format::Csv(csv) => csv::decode(out, tree, text, csv),
                    Format::Influx => influx::decode(out, tree, text),
                    Format::SenmlJson => self.senml(payload, context, out),
                    _ => number(out, tree, text),
                }
            }
        };
        done.map(|()| Body::Arena)
    }

    fn senml(&mut self, payload: &[u8], context: Context<'_>, out: &mut Decoded) -> Result<(), Reason> {
        let senml = self.senml.as_mut().ok_or(Reason::MalformedPayload)?;
        senml.decode(out, &self.tree, payload, context)
    }
}

/// A bare number.
fn number(out: &mut Decoded, tree: &PathTree, text: &str) -> Result<(), Reason> {
    let row = out.start_reading()?;
    match tree.named("value") {
        Some(path) => out.put(row, path, |arena| text::cell(arena, text)),
        None => Ok(()),
    }
}

/// Unpacks a payload into `unpacked`, if it is packed. What comes out may have so many bytes at most.
#[inline]
pub fn unpack<'p>(
    compression: Compression,
    payload: &'p [u8],
    bytes_max: usize,
    unpacked: &'p mut Vec<u8>,
) -> Result<&'p [u8], Reason> {
    if payload.len() > bytes_max {
        return Err(Reason::OversizedPayload);
    }
    match compression {
        Compression::None => Ok(payload),
        packed => unpack::unpack(packed, payload, bytes_max, unpacked),
    }
}

impl Decoded {
    /// How many readings the payload has.
    pub fn readings(&self) -> usize {
        self.readings
    }

    /// How many parts of the payload (lines, records, items) there were no readings in, by the reason why.
    #[inline]
    pub fn unreadable(&self) -> &[(Reason, u64)] {
        &self.unreadable
    }

    /// The text that positions refer to.
    #[inline]
    pub fn text<'t>(&'t self, body: Body<'t>) -> &'t str {
        match body {
            Body::Payload(text) => text,
            Body::Arena => &self.arena,
        }
    }

    /// What stands at a path in one reading, with the text of [`Decoded::text`].
    #[inline]
    pub fn raw<'p>(&self, text: &'p str, reading: usize, path: usize) -> Raw<'p> {
        match self.found[reading * self.width + path] {
            ABSENT => Raw::Absent,
            BLOCKED => Raw::Blocked,
            (start, length) => match &text[start as usize..(start + length) as usize] {
                "null" => Raw::Absent,
                text => Raw::Text(text),
            },
        }
    }

    fn clear(&mut self, tree: &PathTree) {
        self.found.clear();
        self.arena.clear();
        self.unreadable.clear();
        self.readings = 0;
        self.parts = 0;
        self.width = tree.paths.len();
    }

    /// Begins a reading; returns where its positions are.
    fn start_reading(&mut self) -> Result<usize, Reason> {
        self.start_part()?;
        self.readings += 1;
        let row = self.found.len();
        self.found.resize(row + self.width, ABSENT);
        Ok(row)
    }

    /// Gives up the reading that began last: it is an unreadable part.
    fn give_up_reading(&mut self, reason: Reason) {
        self.readings -= 1;
        self.found.truncate(self.readings * self.width);
        self.count_unreadable(reason);
    }

    /// Gives up a part of the payload that no reading has begun for.
    fn give_up_part(&mut self, reason: Reason) -> Result<(), Reason> {
        self.start_part()?;
        self.count_unreadable(reason);
        Ok(())
    }

    fn start_part(&mut self) -> Result<(), Reason> {
        self.parts += 1;
        if self.has_too_many() {
            return Err(Reason::OversizedPayload);
        }
        Ok(())
    }

    /// Whether the payload has more readings and other parts than are looked at.
    fn has_too_many(&self) -> bool {
        self.parts > READINGS_PER_MESSAGE_MAX
    }

    fn count_unreadable(&mut self, reason: Reason) {
        // There are few reasons.
        match self.unreadable.iter_mut().find(|(held, _)| *held == reason) {
            Some((_, count)) => *count += 1,
            None => self.unreadable.push((reason, 1)),
        }
    }

    /// Writes the text at a path into the arena. Nothing written means nothing there.
    fn put(&mut self, row: usize, path: usize, write: impl FnOnce(&mut String)) -> Result<(), Reason> {
        let start = self.arena.len();
        write(&mut self.arena);
        if self.arena.len() > ARENA_BYTES_MAX {
            return Err(Reason::OversizedPayload);
        }
        let length = self.arena.len() - start;
        self.found[row + path] = if length == 0 {
            ABSENT
        } else {
            (start as u32, length as u32)
        };
        Ok(())
    }

    /// Of what is below a list only items can be reached: all else is out of reach, and items may be absent.
    fn enter_list(&mut self, row: usize, tree: &PathTree, node: usize) {
        for (name, child) in &tree.nodes[node].children {
            if !name.bytes().all(|byte| byte.is_ascii_digit()) {
                if let Some(path) = tree.nodes[*child].path {
                    self.found[row + path] = BLOCKED;
                }
                self.block(row, tree, *child);
            }
        }
    }

    /// Marks everything below a node as out of reach.
    fn block(&mut self, row: usize, tree: &PathTree, node: usize) {
        for &(_, child) in &tree.nodes[node].children {
            if let Some(path) = tree.nodes[child].path {
                self.found[row + path] = BLOCKED;
            }
            self.block(row, tree, child);
        }
    }
}
