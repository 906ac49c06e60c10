//! How a reading goes into the sketches of its partial, and how these leave as part of a section.
//!
//! What a plan says is made ready once: which field or tag each sketch looks at and, for a linear histogram, a divider
//! by the field's resolution. A reading then becomes a few *points*, in memory that is used again. The texts of top
//! lists are held once each, under numbers, in memory taken at the start.

use catchment_common::key::SEPARATOR;
use catchment_common::limits::KEY_BYTES_MAX;
use catchment_common::number::decimal::Value;
use catchment_common::plan::{Pipeline, PipelineSketch};
use catchment_common::sketch::pool::{Drained, Point};
use catchment_common::sketch::{
    Bucket, Buckets, Counter, Counters, Divider, Registers, Series, SeriesPoint, Sketch, SketchKind, hash,
    logarithm, mark_of,
};
use catchment_common::table::fixed::Full;
use catchment_common::table::interner::{Interner, KeyId};
use catchment_common::time::Timestamp;

/// The watched tags of one reading.
#[derive(Clone, Debug, Default)]
pub struct TagValues {
    bytes: Vec<u8>,
    /// Where each ends; the sign bit says that it is not there.
    ends: Vec<u32>,
}

const ABSENT: u32 = 1 << 31;

impl TagValues {
    /// Starts anew.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Adds the next tag; returns whether it is one that counts. What could not be part of a key is as good as absent.
    #[inline]
    pub fn push(&mut self, tag: Option<&[u8]>) -> bool {
        let usable = |tag: &&[u8]| !tag.is_empty() && tag.len() <= KEY_BYTES_MAX && !tag.contains(&SEPARATOR);
        let tag = tag.filter(usable);
        self.bytes.extend_from_slice(tag.unwrap_or_default());
        let end = self.bytes.len() as u32;
        self.ends.push(if tag.is_some() { end } else { end | ABSENT });
        tag.is_some()
    }

    /// The n-th tag, if it is there.
    #[inline]
    pub fn get(&self, nth: usize) -> Option<&[u8]> {
        let end = *self.ends.get(nth)?;
        let start = if nth == 0 { 0 } else { self.ends[nth - 1] & !ABSENT };
        (end & ABSENT == 0).then(|| &self.bytes[start as usize..end as usize])
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.ends.len()).map(|nth| self.get(nth))
    }
}

/// The sketches of one pipeline, made ready.
#[derive(Clone, Debug, Default)]
pub(crate) struct SketchPlan {
    pub(crate) kinds: Vec<SketchKind>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Linear(usize, Divider),
    Log(usize),
    Intervals(usize, Box<[i128]>),
    DistinctValues(usize),
    DistinctTags(usize),
    Top(usize),
    Series(usize),
}

impl SketchPlan {
    pub(crate) fn new(pipeline: &Pipeline) -> Self {
        let step = |sketch: &PipelineSketch| match sketch {
            PipelineSketch::Quantiles(field) => {
                let field = usize::from(*field);
                match pipeline.fields.get(field).and_then(|field| field.resolution) {
                    Some(resolution) => Step::Linear(field, Divider::new(resolution)),
                    None => Step::Log(field),
                }
            }
            PipelineSketch::Histogram(field, bounds) => {
                Step::Intervals(usize::from(*field), bounds.as_slice().into())
            }
            PipelineSketch::DistinctValues(field) => Step::DistinctValues(usize::from(*field)),
            PipelineSketch::DistinctTags(tag) => Step::DistinctTags(usize::from(*tag)),
            PipelineSketch::Top(tag) => Step::Top(usize::from(*tag)),
            PipelineSketch::Series(field) => Step::Series(usize::from(*field)),
        };
        Self {
            kinds: pipeline.sketch_kinds().collect(),
            steps: pipeline.sketches.iter().map(step).collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// How many top lists it has.
    pub(crate) fn tops(&self) -> usize {
        self.kinds.iter().filter(|kind| **kind == SketchKind::Top).count()
    }

    /// Appends what a reading does to each sketch. Values of top lists are taken into use once for each of their
    /// points; see [`SketchPlan::release`].
    pub(crate) fn points(
        &self,
        at: Timestamp,
        values: &[Option<Value>],
        tags: &TagValues,
        texts: &mut Interner,
        points: &mut Vec<Point>,
    ) -> Result<(), Full> {
        let value = |field: usize| values.get(field).copied().flatten();
        for (sketch, step) in self.steps.iter().enumerate() {
            let mut point = Point {
                sketch: sketch as u8,
                level: 0,
                key: 0,
                count: 1,
                value: Value::ZERO,
            };
            match step {
                Step::Linear(field, divider) => {
                    let Some(value) = value(*field) else { continue };
                    (point.level, point.key) = divider.bucket(value);
                }
                Step::Log(field) => {
                    let Some(value) = value(*field) else { continue };
                    point.key = logarithm::bucket_of(value.units());
                }
                Step::Intervals(field, bounds) => {
                    let Some(value) = value(*field) else { continue };
                    point.key = bounds.partition_point(|bound| *bound <= value.units()) as i64;
                }
                Step::DistinctValues(field) => {
                    let Some(value) = value(*field) else { continue };
                    mark(&mut point, &value.units().to_le_bytes());
                }
                Step::DistinctTags(tag) => {
                    let Some(tag) = tags.get(*tag) else { continue };
                    mark(&mut point, tag);
                }
                Step::Top(tag) => {
                    let Some(tag) = tags.get(*tag) else { continue };
                    point.key = top_key(tag, take_into_use(texts, tag)?);
                }
                Step::Series(field) => {
                    let Some(value) = value(*field) else { continue };
                    (point.key, point.value) = (at.as_micros(), value);
                }
            }
            points.push(point);
        }
        Ok(())
    }

    /// Ends the use that [`SketchPlan::points`] made of texts.
    pub(crate) fn release(&self, texts: &mut Interner, points: &[Point]) {
        for point in points {
            if self.kinds[usize::from(point.sketch)] == SketchKind::Top {
                texts.release(point.key as KeyId);
            }
        }
    }
}

/// The n-th sketch of a partial that leaves the pool; its texts are let go.
pub(crate) fn leave(kind: SketchKind, drained: Drained<'_>, texts: &mut Interner) -> Sketch {
    match kind {
        SketchKind::Buckets(shape) => Sketch::Buckets(Buckets::from_unsorted(
            shape,
            drained.level,
            drained.entries.to_vec(),
        )),
        SketchKind::Distinct => {
            let marks = drained.entries.iter();
            Sketch::Distinct(Registers::from_unsorted(
                marks.map(|&(register, rank)| (register as u16, rank as u8)),
            ))
        }
        SketchKind::Top => {
            let counters = drained.entries.iter().map(|&(key, count)| {
                let counter = Counter::new(texts.bytes(key as KeyId), count);
                texts.release(key as KeyId);
                counter
            });
            Sketch::Top(Counters::from_unsorted(counters.collect(), drained.others))
        }
        SketchKind::Series if drained.is_too_long => Sketch::Series(Series::TOO_LONG),
        SketchKind::Series => Sketch::Series(Series::from_unsorted(drained.points.to_vec())),
    }
}

/// The inverse of [`leave`]: entries as the pool has them, with texts taken into use once for each.
pub(crate) struct Returning {
    level: u8,
    others: u64,
    entries: Vec<Bucket>,
    points: Vec<SeriesPoint>,
    is_too_long: bool,
    has_texts: bool,
}

impl Returning {
    /// Nothing has changed when there is no room for the texts.
    pub(crate) fn new(sketch: &Sketch, texts: &mut Interner) -> Result<Self, Full> {
        let mut returning = Self {
            level: 0,
            others: 0,
            entries: Vec::new(),
            points: Vec::new(),
            is_too_long: false,
            has_texts: matches!(sketch, Sketch::Top(_)),
        };
        match sketch {
            Sketch::Buckets(buckets) => {
                returning.level = buckets.level;
                returning.entries.extend_from_slice(&buckets.entries);
            }
            Sketch::Distinct(registers) => {
                let marks = registers.marks();
                let entries = marks.map(|(register, rank)| (i64::from(register), u64::from(rank)));
                returning.entries.extend(entries);
            }
            Sketch::Top(counters) => {
                returning.others = counters.others();
                for counter in counters.entries() {
                    let Ok(id) = take_into_use(texts, &counter.value) else {
                        returning.release(texts);
                        return Err(Full);
                    };
                    returning
                        .entries
                        .push((top_key(&counter.value, id), counter.count));
                }
            }
            Sketch::Series(series) => {
                returning.points.extend_from_slice(series.points());
                returning.is_too_long = series.is_too_long();
            }
        }
        Ok(returning)
    }

    pub(crate) fn drained(&self) -> Drained<'_> {
        Drained {
            level: self.level,
            others: self.others,
            entries: &self.entries,
            points: &self.points,
            is_too_long: self.is_too_long,
        }
    }

    pub(crate) fn release(&self, texts: &mut Interner) {
        if self.has_texts {
            self.entries
                .iter()
                .for_each(|entry| texts.release(entry.0 as KeyId));
        }
    }
}

fn take_into_use(texts: &mut Interner, text: &[u8]) -> Result<KeyId, Full> {
    let id = texts.find(text).map_or_else(|| texts.insert(text), Ok)?;
    texts.retain(id);
    Ok(id)
}

/// A counter's key in the pool: the upper half of the hash, then the number.
fn top_key(text: &[u8], id: KeyId) -> i64 {
    (hash(text) & !u64::from(u32::MAX) | u64::from(id)).cast_signed()
}

fn mark(point: &mut Point, bytes: &[u8]) {
    let (register, rank) = mark_of(hash(bytes));
    (point.key, point.count) = (i64::from(register), u32::from(rank));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_could_be_no_part_of_a_key_are_absent() {
        let mut tags = TagValues::default();
        let long = [b'x'; KEY_BYTES_MAX + 1];
        let given = [
            Some(&b"a"[..]),
            None,
            Some(b""),
            Some(b"a\0b"),
            Some(&long),
            Some(b"dev-1"),
        ];
        let counted: Vec<bool> = given.into_iter().map(|tag| tags.push(tag)).collect();
        assert_eq!(counted, [true, false, false, false, false, true]);
        let held: Vec<Option<&[u8]>> = tags.iter().collect();
        assert_eq!(held, [Some(&b"a"[..]), None, None, None, None, Some(b"dev-1")]);
        assert_eq!(tags.get(6), None);
    }
}
