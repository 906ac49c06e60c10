//! Making room without a loss: merging unsealed batches, and cleaning segments that are nearly empty.
//!
//! Merging goes over the oldest run of batches of one *stage*. The first pass merges deltas of the same pane and key,
//! which loses nothing. Each later pass moves deltas one step up their slice's ladder of wider panes: totals and
//! sketches stay exact, resolution in time is what is given up, and it is given up by the oldest data first. The
//! memory that a pass takes is bounded by partials, not by input: when that many are gathered they are written out, and
//! the same pane and key may then stand in several batches, to be merged by a later pass or by the aggregator.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::limits::{
    BATCH_BYTES_TARGET, BATCH_DELTAS_MAX, BATCH_SECTIONS_MAX, SECTION_WEIGHT_TARGET,
};
use catchment_common::plan::{Components, SliceId};
use catchment_common::sketch::{Sketch, SketchKind, merge_rows};
use catchment_common::time::{Span, Timestamp};
use catchment_common::wire::{AgentPlan, Batch, BatchWriter, Section, StatsScratch, WireFault};

use super::{Held, Slot, Spool};
use crate::disk::Disk;
use crate::panes::Partial;

/// Source bytes of one pass.
const PASS_BYTES_MAX: u64 = 256 << 10;
/// Partials that one pass holds in memory.
const PASS_PARTIALS_MAX: usize = 16_384;
/// So many entries of sketches count as one partial.
const ENTRIES_PER_PARTIAL: usize = 8;
/// Fewer batches than this of the last stage are not worth a pass of their own.
const PASS_RECORDS_MIN: usize = 16;
/// A segment of which one part in so many is in use is worth moving that part.
const SPARSE_PART: u64 = 4;

/// The wider panes that each slice's deltas may be merged into, step by step.
#[derive(Clone, Debug, Default)]
pub struct Ladders {
    /// For each slice, itself included: all of its family, from narrow to wide.
    families: BTreeMap<SliceId, Vec<(SliceId, Span)>>,
}

impl Ladders {
    /// Adds what a plan says. Ladders of earlier plans stay known.
    pub(super) fn add(&mut self, plan: &AgentPlan) {
        for (id, slice) in &plan.slices {
            let steps = plan
                .coarser
                .iter()
                .filter(|step| step.of == *id)
                .map(|step| (step.slice, step.pane));
            let family: Vec<(SliceId, Span)> = std::iter::once((*id, slice.pane)).chain(steps).collect();
            for (member, _) in &family {
                // A slice that another query uses as it is keeps its own ladder.
                if member == id || !self.families.contains_key(member) {
                    self.families.insert(*member, family.clone());
                }
            }
        }
    }

    /// Where a delta of `slice` belongs after a pass into `stage`.
    fn target(&self, slice: SliceId, pane: Timestamp, stage: u8) -> (SliceId, Timestamp) {
        let Some(family) = self.families.get(&slice) else {
            return (slice, pane);
        };
        let own = family
            .iter()
            .position(|(member, _)| *member == slice)
            .unwrap_or(0);
        let step = usize::from(stage.saturating_sub(1))
            .min(family.len() - 1)
            .max(own);
        let (target, width) = family[step];
        (target, pane.pane_start(width))
    }

    /// The width of a slice's panes; the least there is for a slice of a plan that is not known any more.
    pub(super) fn width(&self, slice: SliceId) -> Span {
        let family = self.families.get(&slice).into_iter().flatten();
        family
            .clone()
            .find(|(member, _)| *member == slice)
            .map_or(Span::from_micros(1), |&(_, width)| width)
    }

    /// The last stage that any ladder has.
    fn last_stage(&self) -> u8 {
        let longest = self.families.values().map(Vec::len).max().unwrap_or(1);
        longest.min(usize::from(u8::MAX)) as u8
    }
}

/// Partials of one slice and pane while they are merged.
#[derive(Default)]
struct MergedPane {
    keep: Vec<Components>,
    kinds: Vec<SketchKind>,
    keys: BTreeMap<Box<[u8]>, Partial>,
}

type Merged = BTreeMap<(SliceId, Timestamp), MergedPane>;

/// Merges batches into few.
struct Pass<'l> {
    ladders: &'l Ladders,
    stage: u8,
    merged: Merged,
    partials: usize,
    section: Section,
    scratch: StatsScratch,
    writer: BatchWriter,
    frames: Vec<Vec<u8>>,
}

impl Pass<'_> {
    fn take(&mut self, frame: &[u8]) -> Result<(), WireFault> {
        let batch = Batch::parse_unsealed(frame)?;
        for view in batch.sections() {
            let mut section = std::mem::take(&mut self.section);
            let read = view.and_then(|view| view.read(&mut section, &mut self.scratch));
            if read.is_ok() {
                self.merge(&section);
            }
            self.section = section;
            read?;
            if self.partials >= PASS_PARTIALS_MAX {
                self.write_out();
            }
        }
        Ok(())
    }

    fn merge(&mut self, section: &Section) {
        let target = self.ladders.target(section.slice, section.pane, self.stage);
        let MergedPane { keep, kinds, keys } = self.merged.entry(target).or_default();
        if keys.is_empty() {
            keep.clone_from(&section.keep);
            kinds.clone_from(&section.sketch_kinds);
        }
        for (row, key) in section.keys.iter().enumerate() {
            let (stats, sketches) = (section.row(row), section.sketch_row(row));
            let entries = |sketches: &[Sketch]| sketches.iter().map(Sketch::entries).sum::<usize>();
            if let Some(held) = keys.get_mut(key) {
                held.readings += section.readings[row];
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
        for ((slice, pane), merged) in std::mem::take(&mut self.merged) {
            let mut rows = merged.keys.into_iter().peekable();
            while rows.peek().is_some() {
                section.reset(slice, pane, merged.keep.iter().copied());
                section.set_sketches(merged.kinds.iter().copied());
                let mut weight = 0;
                while section.rows() < BATCH_DELTAS_MAX / 4 && weight < SECTION_WEIGHT_TARGET {
                    let Some((key, partial)) = rows.next() else { break };
                    weight += partial.sketches.iter().map(Sketch::weight).sum::<usize>();
                    section.keys.push(&key);
                    section.readings.push(partial.readings);
                    section.stats.extend(partial.stats);
                    section.sketches.extend(partial.sketches);
                }
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
            self.frames.push(frame);
        }
    }
}

impl Spool {
    /// Merges one run of unsealed batches; returns whether there was one.
    pub(super) fn compact(&mut self, disk: &impl Disk) -> bool {
        let Some((stage, run)) = self.choose_run() else {
            return false;
        };
        let stage = (stage + 1).min(self.ladders.last_stage());
        let ladders = std::mem::take(&mut self.ladders);
        let mut pass = Pass {
            ladders: &ladders,
            stage,
            merged: Merged::new(),
            partials: 0,
            section: Section::default(),
            scratch: StatsScratch::default(),
            writer: BatchWriter::default(),
            frames: Vec::new(),
        };
        let mut sources = BTreeSet::new();
        for &slot in &run {
            let taken = self
                .frame(slot, disk)
                .is_some_and(|frame| pass.take(&frame).is_ok());
            self.damaged += u64::from(!taken);
        }
        pass.write_out();
        let frames = pass.frames;
        self.ladders = ladders;
        for &slot in &run {
            sources.extend(self.records.get(&slot).map(|held| held.segment));
            self.release(slot);
        }
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return false;
        };
        let parts = frames.len();
        for (part, frame) in (1..).zip(frames) {
            let slot = Slot {
                number: last.number,
                part: last.part + part,
            };
            let is_last = part as usize == parts;
            let segment = self.write(slot, is_last, first.number, stage, None, frame.into(), false);
            // The last part says that all are there, so it must outlive what they replace; the others need not.
            if is_last {
                self.pin(segment, std::mem::take(&mut sources));
            }
        }
        true
    }

    /// The run to merge: the oldest batches of the lowest stage that is worth it.
    fn choose_run(&self) -> Option<(u8, Vec<Slot>)> {
        let last_stage = self.ladders.last_stage();
        let can_merge = |held: &Held| held.name.is_none() && !held.is_loss && held.ordinal <= self.durable;
        let mut stages: BTreeMap<u8, (u64, usize)> = BTreeMap::new();
        for held in self.records.values().filter(|held| can_merge(held)) {
            let (bytes, records) = stages.entry(held.stage).or_default();
            *bytes += u64::from(held.length);
            *records += 1;
        }
        stages.retain(|&stage, (_, records)| stage < last_stage || *records >= PASS_RECORDS_MIN);
        let worth = self.limits.bytes / 8;
        let stage = stages
            .iter()
            .find(|(_, (bytes, records))| *bytes >= worth || *records >= super::RECORDS_MAX / 8)
            .or_else(|| stages.iter().max_by_key(|(_, (bytes, _))| *bytes))
            .map(|(&stage, _)| stage)?;
        let mut bytes = 0;
        let of_stage = self
            .records
            .iter()
            .skip_while(|(_, held)| !can_merge(held) || held.stage != stage);
        let run: Vec<Slot> = of_stage
            .take_while(|(_, held)| {
                // Records of losses lie between; they are left where they are.
                held.is_loss
                    || (can_merge(held) && held.stage == stage && bytes < PASS_BYTES_MAX && {
                        bytes += u64::from(held.length);
                        true
                    })
            })
            .filter(|(_, held)| !held.is_loss)
            .map(|(&slot, _)| slot)
            .collect();
        // A run must not end within the parts of one pass: they are replaced together or not at all.
        let run = whole_numbers(run, &self.records);
        (!run.is_empty()).then_some((stage, run))
    }

    /// Moves what is left in a segment that is nearly empty, so that the segment can go; returns whether there was one.
    pub(super) fn clean(&mut self, disk: &impl Disk) -> bool {
        let mut live: BTreeMap<u32, (u64, bool)> = BTreeMap::new();
        for held in self.records.values() {
            let (bytes, durable) = live.entry(held.segment).or_insert((0, true));
            *bytes += u64::from(held.length);
            *durable &= held.ordinal <= self.durable;
        }
        let is_sparse = |(number, segment): &(&u32, &super::Segment)| {
            let (bytes, durable) = live.get(number).copied().unwrap_or((0, true));
            // What names or replaces records elsewhere cannot be moved, only outlived.
            **number != self.current
                && segment.after.is_empty()
                && durable
                && bytes * SPARSE_PART <= segment.bytes
        };
        let Some(segment) = self.segments.iter().find(is_sparse).map(|(&number, _)| number) else {
            return false;
        };
        let slots = self.slots_of(segment);
        for slot in slots {
            if self.records.get(&slot).is_some_and(|held| held.acknowledged) {
                self.release(slot);
                continue;
            }
            if let Some(frame) = self.frame(slot, disk) {
                self.rewrite(slot, frame);
            } else {
                self.damaged += 1;
                self.release(slot);
            }
        }
        true
    }
}

/// Cuts the run off before a number of which it has not all parts.
fn whole_numbers(mut run: Vec<Slot>, records: &BTreeMap<Slot, Held>) -> Vec<Slot> {
    let Some(last) = run.last().copied() else {
        return run;
    };
    let all = Slot {
        number: last.number,
        part: 0,
    }..=Slot {
        number: last.number,
        part: u32::MAX,
    };
    let missing = records
        .range(all)
        .any(|(slot, held)| !held.is_loss && held.name.is_none() && !run.contains(slot));
    if missing {
        run.retain(|slot| slot.number != last.number);
    }
    run
}
