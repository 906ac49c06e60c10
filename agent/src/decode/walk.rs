//! The walk through binary formats that are built like JSON: maps, lists and scalars, one item after the other.

use std::fmt::Write as _;

use catchment_common::metrics::Reason;

use super::text::{self, Short};
use super::{DEPTH_MAX, Decoded, PathTree};

/// One item of a payload. Maps and lists say how many entries follow, or none when an [`Item::End`] will end them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Item<'p> {
    Map(Option<u64>),
    List(Option<u64>),
    End,
    Null,
    Truth(bool),
    Whole(i128),
    /// mantissa · 10^exponent
    Decimal(i128, i64),
    Float(f64),
    Single(f32),
    Half(u16),
    Text(&'p str),
    /// Bytes and whatever else is neither a number nor a text.
    Other,
}

/// A payload as a sequence of items. Each takes at least a byte, so that walks end.
pub(super) trait Items<'p> {
    fn next(&mut self) -> Result<Item<'p>, Reason>;
    fn is_done(&self) -> bool;
}

/// Takes a map apart, or a list of maps. An item of the list that is no map is an unreadable part.
pub(super) fn decode<'p>(
    out: &mut Decoded,
    tree: &PathTree,
    mut items: impl Items<'p>,
) -> Result<(), Reason> {
    match items.next()? {
        Item::Map(length) => reading(out, tree, &mut items, length)?,
        Item::List(length) => {
            let mut left = length;
            while let Some(item) = entry(&mut items, &mut left)? {
                match item {
                    Item::Map(length) => reading(out, tree, &mut items, length)?,
                    other => {
                        out.give_up_part(Reason::MalformedPayload)?;
                        let mut walk = Walk { out, tree, row: 0 };
                        walk.value(&mut items, other, None, 1)?;
                    }
                }
            }
        }
        _ => return Err(Reason::MalformedPayload),
    }
    if items.is_done() {
        Ok(())
    } else {
        Err(Reason::MalformedPayload)
    }
}

fn reading<'p>(
    out: &mut Decoded,
    tree: &PathTree,
    items: &mut impl Items<'p>,
    length: Option<u64>,
) -> Result<(), Reason> {
    let row = out.start_reading()?;
    let mut walk = Walk { out, tree, row };
    walk.map(items, length, Some(0), 0)
}

/// The next item of a map or list, if it has one more.
fn entry<'p>(items: &mut impl Items<'p>, left: &mut Option<u64>) -> Result<Option<Item<'p>>, Reason> {
    match left {
        Some(0) => return Ok(None),
        Some(left) => *left -= 1,
        None => {}
    }
    match items.next()? {
        Item::End if left.is_none() => Ok(None),
        Item::End => Err(Reason::MalformedPayload),
        item => Ok(Some(item)),
    }
}

struct Walk<'o, 't> {
    out: &'o mut Decoded,
    tree: &'t PathTree,
    row: usize,
}

impl Walk<'_, '_> {
    /// The entries of a map; at a node of the tree, or nowhere.
    fn map<'p>(
        &mut self,
        items: &mut impl Items<'p>,
        mut left: Option<u64>,
        node: Option<usize>,
        depth: u32,
    ) -> Result<(), Reason> {
        while let Some(key) = entry(items, &mut left)? {
            let lookup = |key: &str| match node.map(|node| self.tree.nodes[node].child(key)) {
                Some(None) if self.tree.refuses_unknown && key.ends_with('_') => {
                    Err(Reason::MalformedPayload)
                }
                found => Ok(found.flatten()),
            };
            let child = match key {
                Item::Text(key) => lookup(key)?,
                Item::Whole(key) => lookup(Short::of(key).as_str())?,
                Item::Map(_) | Item::List(_) => return Err(Reason::MalformedPayload),
                _ => None,
            };
            let value = items.next()?;
            self.value(items, value, child, depth + 1)?;
        }
        Ok(())
    }

    fn list<'p>(
        &mut self,
        items: &mut impl Items<'p>,
        mut left: Option<u64>,
        node: Option<usize>,
        depth: u32,
    ) -> Result<(), Reason> {
        let mut index = 0;
        while let Some(value) = entry(items, &mut left)? {
            let child = node.and_then(|node| self.tree.nodes[node].item(index));
            self.value(items, value, child, depth + 1)?;
            index += 1;
        }
        Ok(())
    }

    fn value<'p>(
        &mut self,
        items: &mut impl Items<'p>,
        item: Item<'p>,
        node: Option<usize>,
        depth: u32,
    ) -> Result<(), Reason> {
        if depth > DEPTH_MAX {
            return Err(Reason::MalformedPayload);
        }
        let path = node.and_then(|node| self.tree.nodes[node].path);
        if let Some(path) = path {
            self.out.put(self.row, path, |arena| write(arena, item))?;
        }
        match item {
            Item::End => Err(Reason::MalformedPayload),
            Item::Map(length) => self.map(items, length, node, depth),
            Item::List(length) => {
                if let Some(node) = node {
                    self.out.enter_list(self.row, self.tree, node);
                }
                self.list(items, length, node, depth)
            }
            Item::Null => Ok(()),
            _ => {
                if let Some(node) = node {
                    self.out.block(self.row, self.tree, node);
                }
                Ok(())
            }
        }
    }
}

fn write(arena: &mut String, item: Item<'_>) {
    match item {
        Item::Null | Item::End => {}
        Item::Truth(truth) => arena.push_str(if truth { "true" } else { "false" }),
        Item::Whole(whole) => {
            let _ = write!(arena, "{whole}");
        }
        Item::Decimal(mantissa, exponent) => {
            let _ = write!(arena, "{mantissa}e{exponent}");
        }
        Item::Float(float) => text::float(arena, float),
        Item::Single(float) => text::single(arena, float),
        Item::Half(bits) => text::half(arena, bits),
        Item::Text(text) => text::quoted(arena, text),
        Item::Map(_) => arena.push_str("{}"),
        Item::List(_) | Item::Other => arena.push_str("[]"),
    }
}
