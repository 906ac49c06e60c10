//! Which sketches a pipeline keeps, beside the components of its fields, and which of them a query's columns read.
//!
//! A sketch is part of a pipeline, not of a field: some are about a tag, and queries that share a pipeline share the
//! sketches that they have in common and carry the others along.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Aggregate, KeyPart, Pipeline, Query};
use crate::limits::{BOUNDS_MAX, SERIES_MAX, SKETCHES_MAX, TOPS_MAX, WATCHED_MAX};
use crate::number::decimal::Value;
use crate::sketch::{Shape, SketchKind};

/// One sketch of a pipeline.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PipelineSketch {
    /// A histogram that answers quantiles of the n-th field: linear if the field has a resolution.
    Quantiles(u8),
    /// A histogram of the n-th field between these bounds.
    Histogram(u8, Vec<i128>),
    /// How many different values the n-th field has.
    DistinctValues(u8),
    /// How many different values the n-th watched tag has.
    DistinctTags(u8),
    /// How often each value of the n-th watched tag comes.
    Top(u8),
    /// The points of the n-th field.
    Series(u8),
}

/// The SQL type of a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnType {
    /// A whole number.
    Integer,
    /// A double.
    Real,
    /// JSON.
    Text,
}

/// What a column shows of its aggregate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// The answer.
    Answer,
    /// How far off it may be.
    Error,
}

/// A value column of a query's result table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// The field that it is about, if it is about one.
    pub field: Option<usize>,
    /// The aggregate, by its place in the query.
    pub aggregate: usize,
    /// What of the aggregate it shows.
    pub shown: Shown,
    /// The sketch that answers it, by its place in [`Query::pipeline`].
    pub sketch: Option<usize>,
}

impl PipelineSketch {
    /// The field that it is about, if it is about one.
    pub const fn field(&self) -> Option<u8> {
        match self {
            Self::Quantiles(field)
            | Self::Histogram(field, _)
            | Self::DistinctValues(field)
            | Self::Series(field) => Some(*field),
            Self::DistinctTags(_) | Self::Top(_) => None,
        }
    }

    /// The watched tag that it is about, if it is about one.
    pub const fn tag(&self) -> Option<u8> {
        match self {
            Self::DistinctTags(tag) | Self::Top(tag) => Some(*tag),
            _ => None,
        }
    }

    /// The same sketch of another field or tag.
    fn about(&self, other: u8) -> Self {
        match self {
            Self::Quantiles(_) => Self::Quantiles(other),
            Self::Histogram(_, bounds) => Self::Histogram(other, bounds.clone()),
            Self::DistinctValues(_) => Self::DistinctValues(other),
            Self::DistinctTags(_) => Self::DistinctTags(other),
            Self::Top(_) => Self::Top(other),
            Self::Series(_) => Self::Series(other),
        }
    }
}

impl Pipeline {
    /// What its sketches are, in their order.
    pub fn sketch_kinds(&self) -> impl ExactSizeIterator<Item = SketchKind> {
        self.sketches.iter().map(|sketch| match sketch {
            PipelineSketch::Quantiles(field) => {
                let field = self.fields.get(usize::from(*field));
                let has_resolution = field.is_some_and(|field| field.resolution.is_some());
                SketchKind::Buckets(if has_resolution { Shape::Linear } else { Shape::Log })
            }
            PipelineSketch::Histogram(_, bounds) => {
                SketchKind::Buckets(Shape::Intervals(bounds.len() as u16 + 1))
            }
            PipelineSketch::DistinctValues(_) | PipelineSketch::DistinctTags(_) => SketchKind::Distinct,
            PipelineSketch::Top(_) => SketchKind::Top,
            PipelineSketch::Series(_) => SketchKind::Series,
        })
    }

    /// For each sketch of `wanted` its place in this pipeline; `None` if this pipeline does not keep it. `fields` says
    /// where in this pipeline the fields of `wanted` are.
    pub fn sketch_places(&self, wanted: &Self, fields: &[Option<usize>]) -> Vec<Option<usize>> {
        let place = |sketch: &PipelineSketch| {
            let about = match (sketch.field(), sketch.tag()) {
                (Some(field), _) => (*fields.get(usize::from(field))?)?,
                (None, Some(tag)) => {
                    let tag = wanted.watched.get(usize::from(tag))?;
                    self.watched.iter().position(|held| held == tag)?
                }
                (None, None) => return None,
            };
            let here = sketch.about(u8::try_from(about).ok()?);
            self.sketches.iter().position(|held| *held == here)
        };
        wanted.sketches.iter().map(place).collect()
    }

    /// Adds the sketches of `wanted`, whose fields are at these places here. [`Pipeline::has_room_for`] must have
    /// agreed.
    pub(super) fn place_sketches(&mut self, wanted: &Self, fields: &[usize]) {
        for sketch in &wanted.sketches {
            let about = match (sketch.field(), sketch.tag()) {
                (Some(field), _) => fields[usize::from(field)],
                (None, Some(tag)) => {
                    let tag = &wanted.watched[usize::from(tag)];
                    let known = self.watched.iter().position(|held| held == tag);
                    known.unwrap_or_else(|| {
                        self.watched.push(tag.clone());
                        self.watched.len() - 1
                    })
                }
                (None, None) => continue,
            };
            let here = sketch.about(about as u8);
            if !self.sketches.contains(&here) {
                self.sketches.push(here);
            }
        }
    }

    /// Whether there is room for those sketches of `wanted` that are not here yet; see [`Pipeline::sketch_places`].
    pub(super) fn has_room_for(&self, wanted: &Self, fields: &[Option<usize>]) -> bool {
        let places = self.sketch_places(wanted, fields);
        let new = wanted
            .sketches
            .iter()
            .zip(&places)
            .filter(|(_, place)| place.is_none());
        let (mut sketches, mut tops, mut series) = (self.sketches.len(), tops(self), series(self));
        for (sketch, _) in new {
            sketches += 1;
            tops += usize::from(matches!(sketch, PipelineSketch::Top(_)));
            series += usize::from(matches!(sketch, PipelineSketch::Series(_)));
        }
        let watched = wanted
            .watched
            .iter()
            .filter(|tag| !self.watched.contains(tag))
            .count();
        sketches <= SKETCHES_MAX
            && tops <= TOPS_MAX
            && series <= SERIES_MAX
            && self.watched.len() + watched <= WATCHED_MAX
    }

    /// Checks the sketches of a pipeline that came over the wire.
    pub(super) fn check_sketches(&self) -> Result<(), &'static str> {
        if self.sketches.len() > SKETCHES_MAX
            || tops(self) > TOPS_MAX
            || series(self) > SERIES_MAX
            || self.watched.len() > WATCHED_MAX
        {
            return Err("too many sketches");
        }
        for sketch in &self.sketches {
            let is_field = |field| usize::from(field) < self.fields.len();
            let is_tag = |tag| usize::from(tag) < self.watched.len();
            if !sketch.field().is_none_or(is_field) || !sketch.tag().is_none_or(is_tag) {
                return Err("a sketch of nothing");
            }
            if let PipelineSketch::Histogram(_, bounds) = sketch {
                let in_range = bounds.iter().all(|&bound| Value::from_units(bound).is_some());
                let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
                if bounds.is_empty() || bounds.len() > BOUNDS_MAX || !ascending || !in_range {
                    return Err("histogram bounds");
                }
            }
        }
        Ok(())
    }
}

/// What `distinct(…)` and `top(…)` name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Named {
    /// A tag.
    Tag(KeyPart),
    /// A field, by its place in the query.
    Field(usize),
}

impl Query {
    /// What a name means in `distinct(…)` and `top(…)`.
    pub(super) fn named(&self, name: &str) -> Option<Named> {
        let tag = super::pipeline::key_part(self, name).map(Named::Tag);
        tag.or_else(|| {
            self.fields
                .iter()
                .position(|field| field.name == name)
                .map(Named::Field)
        })
    }

    /// The sketches of this query and the tags that they watch. What names nothing is left out;
    /// [`super::Plan::validate`] tells of it.
    pub(super) fn sketches(&self) -> (Vec<PipelineSketch>, Vec<KeyPart>) {
        let (mut sketches, mut watched) = (Vec::new(), Vec::new());
        let mut add = |sketch: PipelineSketch| {
            if !sketches.contains(&sketch) {
                sketches.push(sketch);
            }
        };
        let fields = 0..self.fields.len().min(usize::from(u8::MAX)) as u8;
        for aggregate in &self.aggregates {
            match aggregate {
                Aggregate::Median | Aggregate::Quantile(_) => {
                    fields.clone().map(PipelineSketch::Quantiles).for_each(&mut add);
                }
                Aggregate::Histogram(bounds) => fields
                    .clone()
                    .map(|field| PipelineSketch::Histogram(field, bounds.clone()))
                    .for_each(&mut add),
                Aggregate::Distinct(name) | Aggregate::Top { tag: name, .. } => {
                    if let Some(sketch) = self.named_sketch(aggregate, name, &mut watched) {
                        add(sketch);
                    }
                }
                _ => {
                    let named = fields.clone().zip(&self.fields);
                    named
                        .filter(|(_, field)| aggregate.is_of_points(field))
                        .map(|(field, _)| PipelineSketch::Series(field))
                        .for_each(&mut add);
                }
            }
        }
        (sketches, watched)
    }

    /// The sketch of an aggregate that names a tag or field.
    fn named_sketch(
        &self,
        aggregate: &Aggregate,
        name: &str,
        watched: &mut Vec<KeyPart>,
    ) -> Option<PipelineSketch> {
        let is_top = matches!(aggregate, Aggregate::Top { .. });
        match self.named(name)? {
            Named::Tag(tag) => {
                let place = watched.iter().position(|held| *held == tag).unwrap_or_else(|| {
                    watched.push(tag);
                    watched.len() - 1
                }) as u8;
                Some(if is_top {
                    PipelineSketch::Top(place)
                } else {
                    PipelineSketch::DistinctTags(place)
                })
            }
            Named::Field(field) if !is_top => Some(PipelineSketch::DistinctValues(field as u8)),
            Named::Field(_) => None,
        }
    }

    /// The value columns of the result table, after the fixed ones: those of each field, fields outermost, then those
    /// of the query as a whole.
    pub fn columns(&self) -> Vec<Column> {
        let (sketches, mut watched) = self.sketches();
        let mut columns = Vec::new();
        for (field, named) in self.fields.iter().enumerate() {
            for (index, aggregate) in self.aggregates.iter().enumerate() {
                if aggregate.is_of_query() {
                    continue;
                }
                let sketch = match aggregate {
                    Aggregate::Median | Aggregate::Quantile(_) => {
                        Some(PipelineSketch::Quantiles(field as u8))
                    }
                    Aggregate::Histogram(bounds) => {
                        Some(PipelineSketch::Histogram(field as u8, bounds.clone()))
                    }
                    _ if aggregate.is_of_points(named) => Some(PipelineSketch::Series(field as u8)),
                    _ => None,
                };
                columns.push(Column {
                    name: joined(&named.name, &aggregate.name(), ""),
                    kind: match aggregate {
                        Aggregate::Count => ColumnType::Integer,
                        Aggregate::Histogram(_) => ColumnType::Text,
                        _ => ColumnType::Real,
                    },
                    field: Some(field),
                    aggregate: index,
                    shown: Shown::Answer,
                    sketch: sketch.and_then(|sketch| sketches.iter().position(|held| *held == sketch)),
                });
            }
        }
        for (index, aggregate) in self.aggregates.iter().enumerate() {
            let (Aggregate::Distinct(name) | Aggregate::Top { tag: name, .. }) = aggregate else {
                continue;
            };
            let is_top = matches!(aggregate, Aggregate::Top { .. });
            let sketch = self.named_sketch(aggregate, name, &mut watched);
            let sketch = sketch.and_then(|sketch| sketches.iter().position(|held| *held == sketch));
            let parts = [
                (
                    Shown::Answer,
                    if is_top {
                        ColumnType::Text
                    } else {
                        ColumnType::Integer
                    },
                    "",
                ),
                (
                    Shown::Error,
                    if is_top {
                        ColumnType::Integer
                    } else {
                        ColumnType::Real
                    },
                    "_error",
                ),
            ];
            columns.extend(parts.map(|(shown, kind, suffix)| Column {
                name: joined(name, aggregate.word(), suffix),
                kind,
                field: None,
                aggregate: index,
                shown,
                sketch,
            }));
        }
        columns
    }

    /// The names of [`Query::columns`].
    pub fn value_columns(&self) -> impl Iterator<Item = String> {
        self.columns().into_iter().map(|column| column.name)
    }
}

fn tops(pipeline: &Pipeline) -> usize {
    let is_top = |sketch: &&PipelineSketch| matches!(sketch, PipelineSketch::Top(_));
    pipeline.sketches.iter().filter(is_top).count()
}

fn series(pipeline: &Pipeline) -> usize {
    let is_series = |sketch: &&PipelineSketch| matches!(sketch, PipelineSketch::Series(_));
    pipeline.sketches.iter().filter(is_series).count()
}

fn joined(name: &str, function: &str, suffix: &str) -> String {
    alloc::format!("{name}_{function}{suffix}")
}
