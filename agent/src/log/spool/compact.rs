//! Making room without a loss: merging unsealed batches, and cleaning segments that are nearly empty.
//!
//! Merging goes over the oldest run of batches of one *stage*. The first pass merges deltas of the same pane and key,
//! which loses nothing. Each later pass moves deltas one step up their pipeline's ladder of wider panes: totals and
//! sketches stay exact, resolution in time is what is given up, and it is given up by the oldest data first. The memory
//! that a pass takes is bounded by partials, not by input: when that many are gathered they are written out, and the
//! same pane and key may then stand in several batches, to be merged by a later pass or by the aggregator. What a pass
//! would not make smaller stays as it is, and counts as of the next stage.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::limits::{BATCH_BYTES_TARGET, BATCH_DELTAS_MAX, BATCH_SECTIONS_MAX};
use catchment_common::plan::{Components, PipelineId};
use catchment_common::sketch::{Sketch, SketchKind, merge_rows};
use catchment_common::time::{Span, Timestamp};
use catchment_common::wire::{AgentPlan, Batch, BatchWriter, Section, StatsScratch, WireFault};

use super::incoming::{Freed, RECORD_HEAD_MAX};
use super::{Held, Slot, Spool};
use crate::aggregate::panes::{Partial, fill};
use crate::log::disk::Disk;

/// Source bytes of one pass; of a small spool fewer, so that there is room for what becomes of them.
const PASS_BYTES_MAX: u64 = 256 << 10;
/// Partials that one pass holds in memory.
const PASS_PARTIALS_MAX: usize = 16_384;
/// So many entries of sketches count as one partial.
const ENTRIES_PER_PARTIAL: usize = 8;
/// Fewer batches than this of the last stage are not worth a pass of their own.
const PASS_RECORDS_MIN: usize = 16;
/// A segment of which one part in so many is in use is worth moving that part.
const SPARSE_PART: u64 = 4;

/// The wider panes that each pipeline's deltas may be merged into, step by step.
#[derive(Clone, Debug, Default)]
pub struct Ladders {
    /// For each pipeline, itself included: all of its family, from narrow to wide.
    families: BTreeMap<PipelineId, Vec<(PipelineId, Span)>>,
}

impl Ladders {
    /// Adds what a plan says. Ladders of earlier plans stay known.
    pub(super) fn add(&mut self, plan: &AgentPlan) {
        for (id, pipeline) in &plan.pipelines {
            let steps = plan
                .coarser
                .iter()
                .filter(|step| step.of == *id)
                .map(|step| (step.pipeline, step.pane));
            let family: Vec<(PipelineId, Span)> =
                std::iter::once((*id, pipeline.pane)).chain(steps).collect();
            for (member, _) in &family {
                // A pipeline that another query uses as it is keeps its own ladder.
                if member == id || !self.families.contains_key(member) {
                    self.families.insert(*member, family.clone());
                }
            }
        }
    }

    /// Where a delta of `pipeline` belongs after a pass into `stage`.
    fn target(&self, pipeline: PipelineId, pane: Timestamp, stage: u8) -> (PipelineId, Timestamp) {
        let Some(family) = self.families.get(&pipeline) else {
            return (pipeline, pane);
        };
        let own = family
            .iter()
            .position(|(member, _)| *member == pipeline)
            .unwrap_or(0);
        let step = usize::from(stage.saturating_sub(1))
            .min(family.len() - 1)
            .max(own);
        let (target, width) = family[step];
        (target, pane.pane_start(width))
    }

    /// The width of a pipeline's panes; the least there is for a pipeline of a plan that is not known any more.
    pub(super) fn width(&self, pipeline: PipelineId) -> Span {
        let family = self.families.get(&pipeline).into_iter().flatten();
        family
            .clone()
            .find(|(member, _)| *member == pipeline)
            .map_or(Span::from_micros(1), |&(_, width)| width)
    }

    /// The last stage that any ladder has.
    fn last_stage(&self) -> u8 {
        let longest = self.families.values().map(Vec::len).max().unwrap_or(1);
        longest.min(usize::from(u8::MAX)) as u8
    }
}

/// Partials of one pipeline and pane while they are merged.
#[derive(Default)]
struct MergedPane {
    keep: Vec<Components>,
    kinds: Vec<SketchKind>,
    keys: BTreeMap<Box<[u8]>, Partial>,
}

type Merged = BTreeMap<(PipelineId, Timestamp), MergedPane>;

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
            self.frames.push(frame);
        }
    }
}

impl Spool {
    /// Merges runs of unsealed batches until one has become smaller, or after so many passes.
    pub(super) fn compact(&mut self, disk: &impl Disk, passes: usize) -> Freed {
        for _ in 0..passes {
            let Some((stage, run)) = self.choose_run() else {
                return Freed::Nothing;
            };
            let target = (stage + 1).min(self.ladders.last_stage());
            let (frames, damaged) = self.merge_run(&run, target, disk);
            let before: u64 = { run.iter() }
                .filter_map(|slot| self.records.get(slot))
                .map(|held| u64::from(held.length))
                .sum();
            let after: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
            if after * 8 > before * 7 && frames.len() * 2 > run.len() && damaged == 0 {
                self.pass_over(&run, stage, target);
                continue;
            }
            // Should it gain nothing after all, there must still be room to drop a segment.
            if after + frames.len() as u64 * RECORD_HEAD_MAX + self.segment_bytes() > self.room() {
                return Freed::TooTight;
            }
            self.damaged += damaged;
            self.replace_run(&run, target, frames);
            return Freed::Some;
        }
        Freed::Nothing
    }

    /// What becomes of a run, and how many of its batches could not be read back.
    fn merge_run(&self, run: &[Slot], stage: u8, disk: &impl Disk) -> (Vec<Vec<u8>>, u64) {
        let mut pass = Pass {
            ladders: &self.ladders,
            stage,
            merged: Merged::new(),
            partials: 0,
            section: Section::default(),
            scratch: StatsScratch::default(),
            writer: BatchWriter::default(),
            frames: Vec::new(),
        };
        let mut damaged = 0;
        for &slot in run {
            let frame = self.frame(slot, disk);
            damaged += u64::from(frame.is_none_or(|frame| pass.take(&frame).is_err()));
        }
        pass.write_out();
        (pass.frames, damaged)
    }

    /// Leaves a run as it is. Its stage goes up in memory alone: after a restart it is looked at once more.
    fn pass_over(&mut self, run: &[Slot], stage: u8, target: u8) {
        if stage == target {
            self.tired = run.last().copied();
        }
        for slot in run {
            if let Some(held) = self.records.get_mut(slot) {
                held.stage = target;
            }
        }
    }

    fn replace_run(&mut self, run: &[Slot], stage: u8, frames: Vec<Vec<u8>>) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return;
        };
        let mut sources = BTreeSet::new();
        for &slot in run {
            sources.extend(self.records.get(&slot).map(|held| held.segment));
            self.release(slot);
        }
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
    }

    /// The run to merge: the oldest batches of the lowest stage that is worth it.
    fn choose_run(&self) -> Option<(u8, Vec<Slot>)> {
        let last_stage = self.ladders.last_stage();
        let can_merge = |slot: Slot, held: &Held| {
            let is_tired = held.stage >= last_stage && self.tired.is_some_and(|tired| slot <= tired);
            held.name.is_none() && !held.is_loss && held.ordinal <= self.settled && !is_tired
        };
        let mut stages: BTreeMap<u8, (u64, usize)> = BTreeMap::new();
        for (_, held) in self.records.iter().filter(|(slot, held)| can_merge(**slot, held)) {
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
        let most = PASS_BYTES_MAX.min(2 * self.segment_bytes());
        let mut bytes = 0;
        let of_stage = self
            .records
            .iter()
            .skip_while(|(slot, held)| !can_merge(**slot, held) || held.stage != stage);
        let run: Vec<Slot> = of_stage
            .take_while(|(slot, held)| {
                // Records of losses lie between; they are left where they are.
                held.is_loss
                    || (can_merge(**slot, held) && held.stage == stage && bytes < most && {
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

    /// Moves what is left in segments that are nearly empty, so that they can go.
    pub(super) fn clean(&mut self, disk: &impl Disk) -> Freed {
        let Some((segments, bytes)) = self.choose_sparse() else {
            return Freed::Nothing;
        };
        if bytes + self.segment_bytes() > self.room() {
            return Freed::TooTight;
        }
        for segment in segments {
            for slot in self.slots_of(segment) {
                if self.records.get(&slot).is_some_and(|held| held.acknowledged) {
                    self.release(slot);
                } else if let Some(frame) = self.frame(slot, disk) {
                    self.rewrite(slot, frame);
                } else {
                    self.damaged += 1;
                    self.release(slot);
                }
            }
        }
        Freed::Some
    }

    /// Segments to empty, and the bytes to move: one that is sparse by itself, or the oldest ones, if little is left in
    /// them and in those that wait for them alone.
    fn choose_sparse(&self) -> Option<(Vec<u32>, u64)> {
        let mut live: BTreeMap<u32, u64> = BTreeMap::new();
        for held in self.records.values() {
            *live.entry(held.segment).or_default() += u64::from(held.length) + RECORD_HEAD_MAX;
        }
        let fresh: BTreeSet<u32> = { self.records.values() }
            .filter(|held| held.ordinal > self.settled)
            .map(|held| held.segment)
            .collect();
        let of = |number: u32| live.get(&number).copied().unwrap_or(0);
        let can_go = |number: u32| number != self.current && !fresh.contains(&number);
        let sparse = self.segments.iter().find(|(number, segment)| {
            // What names or replaces records elsewhere must outlive those.
            can_go(**number) && segment.after.is_empty() && of(**number) * SPARSE_PART <= segment.bytes
        });
        if let Some((&number, _)) = sparse {
            return Some((vec![number], of(number)));
        }
        let (mut oldest, mut moved, mut freed) = (Vec::new(), 0, 0);
        for (&number, segment) in &self.segments {
            if !can_go(number) || moved > self.room() {
                return None;
            }
            oldest.push(number);
            (moved, freed) = (moved + of(number), freed + segment.bytes);
            let is_worth = |freed: u64| moved * SPARSE_PART <= freed;
            if is_worth(freed + self.waiting_for(&oldest)) {
                return Some((oldest, moved));
            }
        }
        None
    }

    /// Bytes of segments in which nothing is left, and that wait for these alone.
    fn waiting_for(&self, oldest: &[u32]) -> u64 {
        let mut gone: BTreeSet<u32> = oldest.iter().copied().collect();
        let mut bytes = 0;
        for (&number, segment) in &self.segments {
            let is_empty = segment.live == 0 && number != self.current && !gone.contains(&number);
            if is_empty && segment.after.is_subset(&gone) {
                gone.insert(number);
                bytes += segment.bytes;
            }
        }
        bytes
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
