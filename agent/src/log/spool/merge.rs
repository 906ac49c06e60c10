//! Merging unsealed batches into few.
//!
//! The memory that a pass takes is bounded by partials, not by input: when that many are gathered they are written out,
//! and the same pane and key may then stand in several batches, to be merged by a later pass or by the aggregator.

use std::collections::BTreeMap;

use catchment_common::limits::{BATCH_BYTES_TARGET, BATCH_DELTAS_MAX, BATCH_SECTIONS_MAX};
use catchment_common::plan::{Components, PipelineId};
use catchment_common::sketch::{Series, Sketch, SketchKind, merge_rows};
use catchment_common::time::Timestamp;
use catchment_common::wire::{Batch, BatchWriter, Section, StatsScratch, WireFault};

use super::ladder::Ladders;
use crate::aggregate::panes::{Partial, fill};

/// Partials that one pass holds in memory.
const PASS_PARTIALS_MAX: usize = 16_384;
/// So many entries of sketches count as one partial.
const ENTRIES_PER_PARTIAL: usize = 8;

/// Partials of one pipeline and pane while they are merged.
#[derive(Default)]
struct MergedPane {
    keep: Vec<Components>,
    kinds: Vec<SketchKind>,
    keys: BTreeMap<Box<[u8]>, Partial>,
}

/// What becomes of some batches.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Batches without a name.
    pub(super) frames: Vec<Vec<u8>>,
    /// How many could not be read back.
    pub(super) damaged: u64,
    /// Readings whose points were given up, by pipeline.
    pub(super) pointless: BTreeMap<PipelineId, u64>,
    /// Whether there were points.
    pub(super) has_points: bool,
}

impl Outcome {
    pub(super) fn bytes(&self) -> u64 {
        self.frames.iter().map(|frame| frame.len() as u64).sum()
    }
}

/// One pass over batches.
pub(super) struct Pass<'l> {
    ladders: &'l Ladders,
    stage: u8,
    merged: BTreeMap<(PipelineId, Timestamp), MergedPane>,
    partials: usize,
    section: Section,
    scratch: StatsScratch,
    writer: BatchWriter,
    outcome: Outcome,
}

impl<'l> Pass<'l> {
    /// A pass that takes deltas to where they are in `stage`.
    pub(super) fn new(ladders: &'l Ladders, stage: u8) -> Self {
        Self {
            ladders,
            stage,
            merged: BTreeMap::new(),
            partials: 0,
            section: Section::default(),
            scratch: StatsScratch::default(),
            writer: BatchWriter::default(),
            outcome: Outcome::default(),
        }
    }

    /// Adds a batch, or one that cannot be read back.
    pub(super) fn take(&mut self, frame: Option<&[u8]>) {
        let is_read = frame.is_some_and(|frame| self.read(frame).is_ok());
        self.outcome.damaged += u64::from(!is_read);
    }

    fn read(&mut self, frame: &[u8]) -> Result<(), WireFault> {
        let batch = Batch::parse_unsealed(frame)?;
        for view in batch.sections() {
            let mut section = std::mem::take(&mut self.section);
            let read = view.and_then(|view| view.read(&mut section, &mut self.scratch));
            if read.is_ok() {
                self.merge(&mut section);
            }
            self.section = section;
            read?;
            if self.partials >= PASS_PARTIALS_MAX {
                self.write_out();
            }
        }
        Ok(())
    }

    fn merge(&mut self, section: &mut Section) {
        if self.stage > self.ladders.widest() {
            give_up_points(section, &mut self.outcome.pointless);
        }
        self.outcome.has_points |= section.sketch_kinds.contains(&SketchKind::Series);
        let target = self.ladders.target(section.pipeline, section.pane, self.stage);
        let MergedPane { keep, kinds, keys } = self.merged.entry(target).or_default();
        if keys.is_empty() {
            keep.clone_from(&section.keep);
            kinds.clone_from(&section.sketch_kinds);
        }
        for (row, key) in section.keys.iter().enumerate() {
            let (stats, sketches) = (section.row(row), section.sketch_row(row));
            let entries = |sketches: &[Sketch]| sketches.iter().map(Sketch::entries).sum::<usize>();
            if let Some(held) = keys.get_mut(key) {
                held.readings = held.readings.saturating_add(section.readings[row]);
                held.stats
                    .iter_mut()
                    .zip(stats)
                    .for_each(|(held, more)| held.merge(more));
                let before = entries(&held.sketches);
                merge_rows(&mut held.sketches, sketches, kinds.iter().copied());
                self.partials += entries(&held.sketches).saturating_sub(before) / ENTRIES_PER_PARTIAL;
            } else {
                let partial = Partial {
                    readings: section.readings[row],
                    stats: stats.to_vec(),
                    sketches: sketches.to_vec(),
                };
                self.partials += 1 + entries(sketches) / ENTRIES_PER_PARTIAL;
                keys.insert(key.into(), partial);
            }
        }
    }

    fn write_out(&mut self) {
        self.partials = 0;
        let mut section = std::mem::take(&mut self.section);
        for ((pipeline, pane), merged) in std::mem::take(&mut self.merged) {
            let mut rows = merged.keys.into_iter().peekable();
            while rows.peek().is_some() {
                section.reset(pipeline, pane, merged.keep.iter().copied());
                section.set_sketches(merged.kinds.iter().copied());
                fill(&mut section, &mut rows);
                if self.writer.sections() == BATCH_SECTIONS_MAX
                    || self.writer.deltas() + section.rows() > BATCH_DELTAS_MAX
                    || self.writer.bytes() > BATCH_BYTES_TARGET
                {
                    self.seal();
                }
                self.writer.push(&section);
            }
        }
        self.section = section;
        self.seal();
    }

    fn seal(&mut self) {
        if !self.writer.is_empty() {
            let mut frame = Vec::new();
            self.writer.seal(0, 0, &mut frame);
            self.outcome.frames.push(frame);
        }
    }

    /// What became of all of it.
    pub(super) fn finish(mut self) -> Outcome {
        self.write_out();
        self.outcome
    }
}

/// Keeps that there were points, and none of them.
fn give_up_points(section: &mut Section, pointless: &mut BTreeMap<PipelineId, u64>) {
    let each = section.sketch_kinds.len();
    for (row, sketches) in section.sketches.chunks_mut(each.max(1)).enumerate() {
        let mut is_less = false;
        for sketch in sketches {
            if let Sketch::Series(series) = sketch
                && !series.points().is_empty()
            {
                *series = Series::TOO_LONG;
                is_less = true;
            }
        }
        if is_less {
            let readings = pointless.entry(section.pipeline).or_default();
            *readings = readings.saturating_add(section.readings[row]);
        }
    }
}
