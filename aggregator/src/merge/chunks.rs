//! Panes as the store keeps them: chunks of columns in key order, out of memory and back.
//!
//! Whatever was merged can be read back; see [`Panes::check_room`]. Still a chunk may be damaged, or left behind by software
//! of before. Such a chunk is noted and left out: it must not keep the rest of its pane, or anybody else's, from being used.

use std::collections::BTreeMap;

use catchment_common::limits::{SECTION_WEIGHT_TARGET, WINDOW_STEP_MIN};
use catchment_common::plan::{Components, Pipeline, PipelineId};
use catchment_common::sketch::Sketch;
use catchment_common::time::Timestamp;
use catchment_common::wire::{Section, SectionView, StatsScratch, WireFault};

use super::numbers::KeyNumbers;
use super::{Pane, Panes, Scratch};
use crate::commit::{SetAside, StoredChunk, Unreadable};
use crate::limits::{CHUNK_KEYS_MAX, SKETCH_ENTRY_BYTES};

/// Why a stored chunk of a pane is not put back into memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnreadableChunk {
    /// The bytes break an invariant of the format.
    #[error("{0}")]
    Wire(#[from] WireFault),
    /// Its pipeline is not known.
    #[error("its pipeline is not known")]
    UnknownPipeline,
    /// It says that it belongs to another pane than the one that it was stored for.
    #[error("it names another pane")]
    OtherPane,
    /// It has other components or sketches than its pipeline keeps.
    #[error("it keeps other components than its pipeline")]
    OtherPipeline,
    /// Keys that an earlier chunk of the pane has: an older state of the pane had more chunks than the newer one.
    #[error("its keys stand in an earlier chunk of the pane")]
    Repeated,
}

impl Panes {
    /// Puts a stored chunk of a pane back into memory, the chunks of a pane one after another and before anything else
    /// is merged into it. A chunk that is refused has changed nothing.
    pub fn restore(
        &mut self,
        (id, pane): (PipelineId, Timestamp),
        pipeline: &Pipeline,
        chunk: &[u8],
    ) -> Result<(), UnreadableChunk> {
        let view = SectionView::parse_merged(chunk, id)?;
        if view.pane != pane {
            return Err(UnreadableChunk::OtherPane);
        }
        let kept = pipeline.fields.iter().map(|field| field.components);
        if !view.keep().eq(kept) || !view.sketch_kinds().eq(pipeline.sketch_kinds()) {
            return Err(UnreadableChunk::OtherPipeline);
        }
        let Scratch {
            stats, keys, rows, ..
        } = &mut self.scratch;
        view.read_rows(&mut rows.readings, &mut rows.partials, &mut rows.sketches, stats)?;
        let held = self.pipelines.entry(id).or_default();
        if let Some(pane) = held.panes.get(&pane) {
            view.read_keys(keys, stats)?;
            let is_held = |key: &[u8]| {
                let id = held.keys.find(key);
                id.is_some_and(|id| pane.index.contains_key(&id))
            };
            if keys.iter().any(is_held) {
                return Err(UnreadableChunk::Repeated);
            }
        }
        let dirty = held.panes.get(&pane).is_some_and(|pane| pane.dirty);
        let before = held.panes.get(&pane).map_or(0, Pane::bytes);
        held.merge("", &view, rows.view(), keys, stats)?;
        if let Some(pane) = held.panes.get_mut(&pane) {
            pane.dirty = dirty;
            self.bytes += pane.bytes() - before;
        }
        Ok(())
    }

    /// Puts a stored chunk of a pane back into memory as [`Panes::restore`] does, or notes that it cannot be read: what
    /// a pane lacks must not keep the rest of it, or anybody else's panes, from being used.
    pub fn load(&mut self, name: (PipelineId, Timestamp), pipeline: Option<&Pipeline>, chunk: &StoredChunk) {
        let result = pipeline
            .ok_or(UnreadableChunk::UnknownPipeline)
            .and_then(|pipeline| self.restore(name, pipeline, &chunk.columns));
        if let Err(fault) = result {
            let (id, pane) = name;
            let width = pipeline.map_or(WINDOW_STEP_MIN, |pipeline| pipeline.pane);
            self.set_aside.push(SetAside {
                what: Unreadable::Chunk {
                    pipeline: id,
                    pane,
                    end: pane.plus(width),
                    number: chunk.number,
                },
                reason: fault.to_string(),
            });
        }
    }

    /// What could not be read since this was last asked.
    pub fn take_set_aside(&mut self) -> Vec<SetAside> {
        std::mem::take(&mut self.set_aside)
    }

    /// Hands out every dirty pane as chunks of columns, and marks it clean.
    pub fn take_dirty(
        &mut self,
        pipelines: &BTreeMap<PipelineId, Pipeline>,
        mut sink: impl FnMut(PipelineId, Timestamp, Vec<Vec<u8>>),
    ) {
        for (&id, held) in &mut self.pipelines {
            let Some(pipeline) = pipelines.get(&id) else {
                continue;
            };
            let keep: Vec<Components> = pipeline.fields.iter().map(|field| field.components).collect();
            for (&start, pane) in held.panes.iter_mut().filter(|(_, pane)| pane.dirty) {
                pane.dirty = false;
                // Merging may have joined many.
                let entries: usize = pane.sketches.iter().map(Sketch::entries).sum();
                pane.sketch_bytes = entries * SKETCH_ENTRY_BYTES;
                let scratch = &mut self.scratch.stats;
                sink(
                    id,
                    start,
                    emit_chunks(id, start, pane, &held.keys, &keep, scratch),
                );
            }
        }
    }
}

fn emit_chunks(
    id: PipelineId,
    start: Timestamp,
    pane: &Pane,
    keys: &KeyNumbers,
    keep: &[Components],
    scratch: &mut StatsScratch,
) -> Vec<Vec<u8>> {
    let mut rows: Vec<u32> = (0..pane.len() as u32).collect();
    let key = |row: u32| &*keys.keys[pane.ids[row as usize] as usize];
    rows.sort_unstable_by(|&a, &b| key(a).cmp(key(b)));
    let mut section = Section::default();
    let each = pane.kinds.len();
    let mut rest = rows.into_iter().peekable();
    let mut chunks = Vec::new();
    while rest.peek().is_some() {
        section.reset(id, start, keep.iter().copied());
        section.set_sketches(pane.kinds.iter().copied());
        let mut weight = 0;
        while section.rows() < CHUNK_KEYS_MAX && weight < SECTION_WEIGHT_TARGET {
            let Some(row) = rest.next() else { break };
            let at = row as usize * pane.fields;
            section.keys.push(key(row));
            section.readings.push(pane.readings[row as usize]);
            section.stats.extend_from_slice(&pane.stats[at..at + pane.fields]);
            let sketches = &pane.sketches[row as usize * each..(row as usize + 1) * each];
            weight += sketches.iter().map(Sketch::weight).sum::<usize>();
            section.sketches.extend_from_slice(sketches);
        }
        let mut columns = Vec::new();
        section.emit(0, &mut columns, scratch);
        chunks.push(columns);
    }
    chunks
}
