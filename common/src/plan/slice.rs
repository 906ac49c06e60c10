//! Slices: what agents run. Queries that read the same messages, take the same key and treat time alike share one.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Components, Format, Path, Plan, Query, TimeSource};
use crate::decimal::Value;
use crate::limits::{FIELDS_MAX, PATH_DEPTH_MAX, SPAN_MAX, TAGS_MAX, WINDOW_SIZE_MAX, WINDOW_STEP_MIN};
use crate::time::Span;
use crate::topic::TopicTemplate;

/// A slice's number, given by the aggregator and never used again for another definition. 0 means "the agent itself"
/// where counters are reported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SliceId(pub u32);

/// The part of a plan that an agent runs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Slice {
    /// Which messages.
    pub topic: TopicTemplate,
    /// How their payloads are written.
    pub format: Format,
    /// Where the event time comes from.
    pub time: TimeSource,
    /// Where each tag of the key comes from, in the key's order.
    pub key: Vec<KeyPart>,
    /// The measured fields and what is kept of each.
    pub fields: Vec<SliceField>,
    /// The pane width.
    pub pane: Span,
    /// See [`Query::lateness`].
    pub lateness: Span,
    /// See [`Query::max_late`].
    pub max_late: Span,
    /// See [`Query::max_ahead`].
    pub max_ahead: Span,
    /// See [`Query::idle`].
    pub idle: Span,
}

/// Where one tag of a key comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum KeyPart {
    /// The n-th capture of the topic.
    Capture(u8),
    /// A value in the payload.
    Payload(Path),
}

/// A field as an agent keeps it. It has no name here: queries may call the same path differently.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SliceField {
    /// Where its value is.
    pub path: Path,
    /// See [`super::Field::resolution`].
    pub resolution: Option<i128>,
    /// What is kept of it.
    pub components: Components,
}

impl Slice {
    /// Checks what the rest of the code relies on, for slices that come over the wire. The text names what is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        let spans = [self.lateness, self.max_late, self.max_ahead, self.idle];
        let paths = self.fields.iter().map(|field| &field.path);
        let tags = self.key.iter().filter_map(|part| match part {
            KeyPart::Payload(path) => Some(path),
            KeyPart::Capture(_) => None,
        });
        let captures = self.topic.captures().count();
        if self.pane < WINDOW_STEP_MIN || self.pane > WINDOW_SIZE_MAX {
            Err("pane width")
        } else if spans.iter().any(|span| *span < Span::ZERO || *span > SPAN_MAX) {
            Err("span")
        } else if self.key.len() > TAGS_MAX || self.fields.len() > FIELDS_MAX || captures > TAGS_MAX {
            Err("too many tags or fields")
        } else if self
            .key
            .iter()
            .any(|part| matches!(part, KeyPart::Capture(index) if usize::from(*index) >= captures))
        {
            Err("key names a capture that does not exist")
        } else if paths
            .chain(tags)
            .any(|path| path.segments.is_empty() || path.segments.len() > PATH_DEPTH_MAX)
        {
            Err("path")
        } else if self.fields.iter().any(|field| {
            field
                .resolution
                .is_some_and(|step| step <= 0 || step >= Value::LIMIT)
        }) {
            Err("resolution")
        } else if self
            .fields
            .iter()
            .any(|field| Components::from_bits(field.components.bits()).is_none())
        {
            Err("components")
        } else {
            Ok(())
        }
    }
}

/// The slices of a plan and, for each query, how it reads its slice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SlicedPlan {
    /// The distinct slices, in the order of the queries that first need them.
    pub slices: Vec<Slice>,
    /// For each query of the plan: the index of its slice, and for each of its fields the index within the slice.
    pub readers: Vec<(usize, Vec<usize>)>,
}

impl Plan {
    /// Derives the slices of a valid plan: queries that can share one do, and each slice carries the union of the
    /// components and the widest pane that serves all its queries.
    ///
    /// A query whose key names a tag that does not exist must have been refused by [`Plan::validate`] before.
    pub fn slices(&self) -> SlicedPlan {
        let mut sliced = SlicedPlan::default();
        for query in &self.queries {
            let wanted = slice_of(query);
            let home = sliced.slices.iter().position(|slice| can_share(slice, &wanted));
            let index = home.unwrap_or_else(|| {
                sliced.slices.push(Slice {
                    fields: Vec::new(),
                    ..wanted.clone()
                });
                sliced.slices.len() - 1
            });
            let slice = &mut sliced.slices[index];
            slice.pane = slice.pane.gcd(wanted.pane);
            let fields = wanted
                .fields
                .iter()
                .map(|field| place_field(slice, field))
                .collect();
            sliced.readers.push((index, fields));
        }
        sliced
    }
}

fn slice_of(query: &Query) -> Slice {
    let components = query
        .aggregates
        .iter()
        .fold(Components::COUNT, |all, aggregate| all | aggregate.components());
    let fields = query
        .fields
        .iter()
        .map(|field| SliceField {
            path: field.path.clone(),
            resolution: field.resolution,
            components,
        })
        .collect();
    Slice {
        topic: query.topic.clone(),
        format: query.format,
        time: query.time.clone(),
        key: query.key.iter().filter_map(|tag| key_part(query, tag)).collect(),
        fields,
        pane: query.window.pane(),
        lateness: query.lateness,
        max_late: query.max_late,
        max_ahead: query.max_ahead,
        idle: query.idle,
    }
}

/// Where the tag called `name` comes from in `query`, if it exists there.
pub(super) fn key_part(query: &Query, name: &str) -> Option<KeyPart> {
    if let Some(index) = query.topic.captures().position(|capture| capture == name) {
        return Some(KeyPart::Capture(index as u8));
    }
    query
        .tags
        .iter()
        .find(|tag| tag.name == name)
        .map(|tag| KeyPart::Payload(tag.path.clone()))
}

fn can_share(slice: &Slice, wanted: &Slice) -> bool {
    let new_fields = wanted
        .fields
        .iter()
        .filter(|field| find_field(slice, field).is_none())
        .count();
    // Whether a reading counts depends on which fields it has: only queries over the same set of fields agree on
    // that, except that a superset of fields is a different population of readings.
    new_fields == 0
        && wanted.fields.len() == slice.fields.len()
        && slice.fields.len() <= FIELDS_MAX
        && slice.topic.shape() == wanted.topic.shape()
        && (slice.format, &slice.time, &slice.key) == (wanted.format, &wanted.time, &wanted.key)
        && (slice.lateness, slice.max_late, slice.max_ahead, slice.idle)
            == (wanted.lateness, wanted.max_late, wanted.max_ahead, wanted.idle)
}

fn find_field(slice: &Slice, wanted: &SliceField) -> Option<usize> {
    slice
        .fields
        .iter()
        .position(|field| (&field.path, field.resolution) == (&wanted.path, wanted.resolution))
}

fn place_field(slice: &mut Slice, wanted: &SliceField) -> usize {
    if let Some(index) = find_field(slice, wanted) {
        let field = &mut slice.fields[index];
        field.components = field.components | wanted.components;
        return index;
    }
    slice.fields.push(wanted.clone());
    slice.fields.len() - 1
}
