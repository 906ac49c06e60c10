//! Panes in memory: for each pipeline and pane, one partial for each key, merged from whatever deltas come.
//!
//! Keys have small numbers within their pipeline. An agent sends the same keys pane after pane, so the numbers that its
//! last key column gave are remembered: equal bytes mean equal keys, and the whole column is settled by one comparison.

mod chunks;

mod numbers;

mod rows;

use std::collections::{BTreeMap, HashMap};

use catchment_common::limits::PANE_READINGS_MAX;
use catchment_common::plan::{Pipeline, PipelineId};
use catchment_common::sketch::{Sketch, SketchKind, merge_rows};
use catchment_common::stats::Stats;
use catchment_common::time::{Span, Timestamp};
use catchment_common::wire::{KeyList, SectionView, StatsScratch, WireFault};
use foldhash::fast::RandomState;

pub use self::chunks::UnreadableChunk;
use self::numbers::KeyNumbers;
use self::rows::{Checked, Rows, RowsView};
use crate::commit::SetAside;
use crate::limits::{CHUNK_KEYS_MAX, KEY_BYTES, PANE_BYTES, ROW_BYTES, SKETCH_ENTRY_BYTES};

/// A key's number within its pipeline.
pub type KeyId = u32;

/// The panes of all pipelines that are in memory.
#[derive(Debug, Default)]
pub struct Panes {
    pipelines: BTreeMap<PipelineId, PipelinePanes>,
    /// What they take, about.
    bytes: usize,
    /// Stored chunks that could not be read.
    set_aside: Vec<SetAside>,
    scratch: Scratch,
}

/// The panes of one pipeline.
#[derive(Debug, Default)]
pub struct PipelinePanes {
    keys: KeyNumbers,
    panes: BTreeMap<Timestamp, Pane>,
    /// Panes that start later than this are all in memory; none are missing if there is no such instant.
    gone_through: Option<Timestamp>,
    last_columns: HashMap<String, LastColumn>,
}

/// The key column that an agent sent last, and the numbers that it gave.
#[derive(Debug, Default)]
struct LastColumn {
    bytes: Vec<u8>,
    ids: Vec<KeyId>,
}

/// One pane's partials, row by row.
#[derive(Debug, Default)]
pub struct Pane {
    index: HashMap<KeyId, u32, RandomState>,
    ids: Vec<KeyId>,
    readings: Vec<u64>,
    stats: Vec<Stats>,
    fields: usize,
    /// Beside the stats and empty for most pipelines, so that merging these stays as fast as it is.
    sketches: Vec<Sketch>,
    kinds: Vec<SketchKind>,
    /// No row has more readings than this; the largest may have fewer.
    most: u64,
    /// What its sketches take besides, as of when they were last read or written.
    sketch_bytes: usize,
    dirty: bool,
}

/// Memory that is used again from section to section.
#[derive(Debug, Default)]
struct Scratch {
    stats: StatsScratch,
    keys: KeyList,
    rows: Rows,
    checked: Checked,
}

impl Pane {
    /// How many keys.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// What it takes, about.
    fn bytes(&self) -> usize {
        let fields = self.fields * size_of::<Stats>() + self.kinds.len() * size_of::<Sketch>();
        PANE_BYTES + self.len() * (fields + ROW_BYTES) + self.sketch_bytes
    }

    /// The numbers of its keys, in no particular order.
    pub fn ids(&self) -> &[KeyId] {
        &self.ids
    }

    /// Readings and partials of one key.
    pub fn row(&self, id: KeyId) -> Option<(u64, &[Stats])> {
        let row = *self.index.get(&id)? as usize;
        Some((
            self.readings[row],
            &self.stats[row * self.fields..(row + 1) * self.fields],
        ))
    }

    /// The sketches of one key, in the order of its pipeline.
    pub fn sketches(&self, id: KeyId) -> &[Sketch] {
        let row = self.index.get(&id).map_or(0, |&row| row as usize);
        let each = self.kinds.len();
        self.sketches
            .get(row * each..(row + 1) * each)
            .unwrap_or_default()
    }

    /// Merges one delta for each of `ids`, which are distinct.
    fn merge(&mut self, ids: &[KeyId], rows: RowsView<'_>) {
        if !self.kinds.is_empty() {
            let entries: usize = rows.sketches.iter().map(Sketch::entries).sum();
            self.sketch_bytes += entries * SKETCH_ENTRY_BYTES;
            self.merge_sketches(ids, rows.sketches);
        }
        self.merge_stats(ids, rows.readings, rows.partials);
    }

    /// Merges the sketches of these rows; those of new keys go where [`Pane::merge_stats`] puts their stats.
    fn merge_sketches(&mut self, ids: &[KeyId], sketches: &[Sketch]) {
        let each = self.kinds.len();
        for (id, more) in ids.iter().zip(sketches.chunks_exact(each)) {
            match self.index.get(id) {
                Some(&row) => {
                    let held = &mut self.sketches[row as usize * each..(row as usize + 1) * each];
                    merge_rows(held, more, self.kinds.iter().copied());
                }
                None => self.sketches.extend_from_slice(more),
            }
        }
    }

    fn merge_stats(&mut self, ids: &[KeyId], readings: &[u64], partials: &[Stats]) {
        let fields = self.fields;
        let most = readings.iter().copied().max().unwrap_or(0);
        self.most = self.most.saturating_add(most);
        if self.is_empty() {
            self.index.reserve(ids.len());
            self.index
                .extend(ids.iter().enumerate().map(|(row, &id)| (id, row as u32)));
            self.ids.extend_from_slice(ids);
            self.readings.extend_from_slice(readings);
            self.stats.extend_from_slice(partials);
            return;
        }
        let mut next = 0;
        for (row, (&id, &readings)) in ids.iter().zip(readings).enumerate() {
            let partials = &partials[row * fields..(row + 1) * fields];
            // Keys come in the order in which they came before: the row after the last one is likely.
            let held = if self.ids.get(next) == Some(&id) {
                next
            } else if let Some(&held) = self.index.get(&id) {
                held as usize
            } else {
                self.index.insert(id, self.ids.len() as u32);
                self.ids.push(id);
                self.readings.push(readings);
                self.stats.extend_from_slice(partials);
                continue;
            };
            next = held + 1;
            self.readings[held] = self.readings[held].saturating_add(readings);
            for (held, more) in self.stats[held * fields..].iter_mut().zip(partials) {
                held.merge(more);
            }
        }
    }
}

impl PipelinePanes {
    /// A pane in memory.
    pub fn pane(&self, start: Timestamp) -> Option<&Pane> {
        self.panes.get(&start)
    }

    /// The panes in memory whose starts are in the range, oldest first.
    pub fn range(
        &self,
        range: impl std::ops::RangeBounds<Timestamp>,
    ) -> impl Iterator<Item = (Timestamp, &Pane)> {
        self.panes.range(range).map(|(&start, pane)| (start, pane))
    }

    /// The bytes of a key.
    pub fn key(&self, id: KeyId) -> &[u8] {
        &self.keys.keys[id as usize]
    }

    /// The number of a key, if it has one here.
    pub fn find(&self, key: &[u8]) -> Option<KeyId> {
        self.keys.find(key)
    }
}

/// Why a section cannot be merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The bytes break an invariant of the format.
    Wire(WireFault),
    /// The pipeline keeps other components, or other tags.
    OtherPipeline,
    /// The pane's start is no multiple of the pipeline's pane width.
    BadPane,
    /// A key names another agent.
    OtherAgent,
    /// With it a pane would have more than [`PANE_READINGS_MAX`] readings of one key.
    TooManyReadings,
}

impl Panes {
    /// The panes of one pipeline.
    pub fn pipeline(&self, id: PipelineId) -> Option<&PipelinePanes> {
        self.pipelines.get(&id)
    }

    /// Whether a pane is in memory.
    pub fn holds(&self, pipeline: PipelineId, pane: Timestamp) -> bool {
        self.pipelines
            .get(&pipeline)
            .is_some_and(|pipeline| pipeline.panes.contains_key(&pane))
    }

    /// Another batch begins: its sections are checked in their order, then merged.
    pub fn start_batch(&mut self) {
        self.scratch.checked.clear();
    }

    /// Checks everything about the batch's next section that merging relies on, so that a batch is taken as a whole or
    /// not at all.
    pub fn check(&mut self, agent: &str, view: &SectionView<'_>, pipeline: &Pipeline) -> Result<(), Refused> {
        let kept = pipeline.fields.iter().map(|field| field.components);
        if !view.keep().eq(kept) || !view.sketch_kinds().eq(pipeline.sketch_kinds()) {
            return Err(Refused::OtherPipeline);
        }
        if view.pane.pane_start(pipeline.pane) != view.pane {
            return Err(Refused::BadPane);
        }
        let Scratch {
            stats, keys, checked, ..
        } = &mut self.scratch;
        checked.append(view, stats).map_err(Refused::Wire)?;
        // Keys are only taken apart when they are not the ones that were checked before.
        let known = self
            .pipelines
            .get(&view.pipeline)
            .and_then(|pipeline| pipeline.last_columns.get(agent))
            .is_some_and(|last| last.is_of(view));
        if known {
            return Ok(());
        }
        view.read_keys(keys, stats).map_err(Refused::Wire)?;
        for key in keys.iter() {
            let tags =
                catchment_common::key::tags_of(key, pipeline.key_tags()).ok_or(Refused::OtherPipeline)?;
            if pipeline.count.is_some() && tags.last() != Some(agent) {
                return Err(Refused::OtherAgent);
            }
        }
        Ok(())
    }

    /// Whether a pane, which must have been loaded, has room for the readings of the batch's `nth` section, which
    /// [`Panes::check`] has passed, and for those of the sections before it. What is merged can then be stored and read
    /// again.
    pub fn check_room(&mut self, view: &SectionView<'_>, nth: usize) -> Result<(), Refused> {
        let Scratch {
            stats, keys, checked, ..
        } = &mut self.scratch;
        let added = checked.add(view.pipeline, view.pane, nth);
        let Some(pipeline) = self.pipelines.get_mut(&view.pipeline) else {
            return room_for(0, added);
        };
        let Some(pane) = pipeline.panes.get_mut(&view.pane) else {
            return room_for(0, added);
        };
        if room_for(pane.most, added).is_ok() {
            return Ok(());
        }
        pane.most = pane.readings.iter().copied().max().unwrap_or(0);
        if room_for(pane.most, added).is_ok() {
            return Ok(());
        }
        view.read_keys(keys, stats).map_err(Refused::Wire)?;
        let held = |key: &[u8]| {
            let row = pipeline.keys.find(key).and_then(|id| pane.row(id));
            row.map_or(0, |(readings, _)| readings)
        };
        keys.iter().try_for_each(|key| room_for(held(key), added))
    }

    /// Merges the batch's `nth` section, which [`Panes::check`] has passed, on behalf of `agent`; returns the numbers
    /// of its keys.
    pub fn merge_checked(
        &mut self,
        agent: &str,
        view: &SectionView<'_>,
        nth: usize,
    ) -> Result<&[KeyId], WireFault> {
        let Some(&Some(start)) = self.scratch.checked.starts.get(nth) else {
            return self.merge(agent, view);
        };
        let Scratch {
            stats, keys, checked, ..
        } = &mut self.scratch;
        let (readings, partials) = (view.rows(), view.rows() * view.keep().len());
        let sketches = view.rows() * view.sketch_kinds().len();
        let rows = RowsView {
            readings: &checked.rows.readings[start.readings..start.readings + readings],
            partials: &checked.rows.partials[start.partials..start.partials + partials],
            sketches: &checked.rows.sketches[start.sketches..start.sketches + sketches],
        };
        let pipeline = self.pipelines.entry(view.pipeline).or_default();
        pipeline.merge(agent, view, rows, keys, stats)
    }

    /// Merges a section on behalf of `agent`; returns the numbers of its keys.
    pub fn merge(&mut self, agent: &str, view: &SectionView<'_>) -> Result<&[KeyId], WireFault> {
        let Scratch {
            stats, keys, rows, ..
        } = &mut self.scratch;
        view.read_rows(&mut rows.readings, &mut rows.partials, &mut rows.sketches, stats)?;
        let pipeline = self.pipelines.entry(view.pipeline).or_default();
        pipeline.merge(agent, view, rows.view(), keys, stats)
    }

    /// Panes of a pipeline that start before this are not in memory, or not all of them.
    pub fn start_from(&mut self, pipeline: PipelineId, from: Timestamp) {
        let held = self.pipelines.entry(pipeline).or_default();
        held.gone_through = Some(from.minus(Span::from_micros(1)));
    }

    /// Panes of a pipeline that start later than this are all in memory.
    pub fn gone_through(&self, pipeline: PipelineId) -> Timestamp {
        let held = self.pipelines.get(&pipeline);
        held.and_then(|held| held.gone_through).unwrap_or(Timestamp::MIN)
    }

    /// Forgets the clean panes of a pipeline that start before `keep_from`, and the keys that only they had.
    pub fn forget(&mut self, pipeline: PipelineId, keep_from: Timestamp) {
        let Some(held) = self.pipelines.get_mut(&pipeline) else {
            return;
        };
        let before = held.panes.len();
        let mut gone = held.gone_through;
        held.panes.retain(|&start, pane| {
            let stays = pane.dirty || start >= keep_from;
            if !stays {
                gone = gone.max(Some(start));
            }
            stays
        });
        held.gone_through = gone;
        if held.panes.len() < before {
            held.renumber_if_few();
        }
    }

    /// Lets clean panes go until what is left takes no more than `bytes`, those first that are needed last. They are
    /// loaded again when a window needs them.
    pub fn keep_within(&mut self, bytes: usize) {
        self.bytes = self.pipelines.values().map(PipelinePanes::bytes).sum();
        if self.bytes <= bytes {
            return;
        }
        let mut clean: Vec<(Timestamp, PipelineId, usize)> = Vec::new();
        for (&id, held) in &self.pipelines {
            let panes = held.panes.iter().filter(|(_, pane)| !pane.dirty);
            clean.extend(panes.map(|(&start, pane)| (start, id, pane.bytes())));
        }
        clean.sort_unstable();
        while self.bytes > bytes
            && let Some((start, id, size)) = clean.pop()
        {
            if let Some(held) = self.pipelines.get_mut(&id) {
                held.panes.remove(&start);
                held.gone_through = held.gone_through.max(Some(start));
            }
            self.bytes -= size;
        }
        for held in self.pipelines.values_mut() {
            held.renumber_if_few();
        }
    }

    /// A stored pane stays where it is.
    pub fn leave_out(&mut self, pipeline: PipelineId, pane: Timestamp) {
        let held = self.pipelines.entry(pipeline).or_default();
        held.gone_through = held.gone_through.max(Some(pane));
    }

    /// What the panes take, about: as of the last checkpoint, and what was restored since.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Partials in memory.
    pub fn partials(&self) -> usize {
        self.pipelines
            .values()
            .flat_map(|pipeline| pipeline.panes.values())
            .map(Pane::len)
            .sum()
    }
}

impl LastColumn {
    /// Whether a section has these keys.
    fn is_of(&self, view: &SectionView<'_>) -> bool {
        self.ids.len() == view.rows() && self.bytes == view.key_column()
    }
}

impl PipelinePanes {
    fn merge(
        &mut self,
        agent: &str,
        view: &SectionView<'_>,
        rows: RowsView<'_>,
        keys: &mut KeyList,
        scratch: &mut StatsScratch,
    ) -> Result<&[KeyId], WireFault> {
        if !self.last_columns.contains_key(agent) {
            self.last_columns.insert(agent.to_owned(), LastColumn::default());
        }
        let last = self.last_columns.get_mut(agent).expect("just inserted");
        if !last.is_of(view) {
            view.read_keys(keys, scratch)?;
            last.ids.clear();
            last.ids.extend(keys.iter().map(|key| self.keys.number(key)));
            last.bytes.clear();
            last.bytes.extend_from_slice(view.key_column());
        }
        let pane = self.panes.entry(view.pane).or_insert_with(|| Pane {
            fields: view.keep().len(),
            kinds: view.sketch_kinds().collect(),
            ..Pane::default()
        });
        pane.dirty = true;
        pane.merge(&last.ids, rows);
        Ok(&last.ids)
    }

    /// What the panes take, and the keys.
    fn bytes(&self) -> usize {
        let keys: usize = self.keys.keys.iter().map(|key| key.len() + KEY_BYTES).sum();
        keys + self.panes.values().map(Pane::bytes).sum::<usize>()
    }

    /// Forgets keys when most of them are in no pane any more.
    fn renumber_if_few(&mut self) {
        let used: usize = self.panes.values().map(Pane::len).sum();
        if self.keys.keys.len() > 2 * used + CHUNK_KEYS_MAX {
            self.renumber();
        }
    }

    /// Gives new numbers to the keys that are in use and forgets the others.
    fn renumber(&mut self) {
        let mut keys = KeyNumbers::default();
        for pane in self.panes.values_mut() {
            for id in &mut pane.ids {
                *id = keys.number(&self.keys.keys[*id as usize]);
            }
            pane.index = pane
                .ids
                .iter()
                .enumerate()
                .map(|(row, &id)| (id, row as u32))
                .collect();
        }
        self.keys = keys;
        self.last_columns.clear();
    }
}

fn room_for(held: u64, more: u64) -> Result<(), Refused> {
    if held.saturating_add(more) > PANE_READINGS_MAX {
        return Err(Refused::TooManyReadings);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use catchment_common::limits::BATCH_DELTAS_MAX;
    use catchment_common::plan::Components;
    use catchment_common::wire::{Batch, BatchWriter, Section};

    use super::*;

    /// So many deltas that checked rows must be unpacked again, and each pane twice: the result is that of merging
    /// one section after the other.
    #[test]
    fn a_batch_beyond_the_kept_rows_is_merged_whole() {
        let mut writer = BatchWriter::default();
        for number in 0..6 {
            let mut section = Section::default();
            let pane = Timestamp::clamped(number % 3);
            section.reset(PipelineId(1), pane, [Components::COUNT].into_iter());
            for key in 0..BATCH_DELTAS_MAX as u64 {
                section.keys.push(format!("key-{key:06}").as_bytes());
                section.readings.push(key + 1);
                section.stats.push(Stats {
                    count: key + 1,
                    ..Stats::IDENTITY
                });
            }
            writer.push(&section);
        }
        let mut frame = Vec::new();
        writer.seal(1, 1, &mut frame);
        let batch = Batch::parse(&frame).unwrap();
        let (mut panes, mut plain) = (Panes::default(), Panes::default());
        panes.start_batch();
        for view in batch.sections() {
            let view = view.unwrap();
            let Scratch { stats, checked, .. } = &mut panes.scratch;
            checked.append(&view, stats).unwrap();
            plain.merge("a", &view).unwrap();
        }
        assert_eq!(panes.scratch.checked.starts.iter().flatten().count(), 4);
        for (nth, view) in batch.sections().enumerate() {
            panes.merge_checked("a", &view.unwrap(), nth).unwrap();
        }
        assert_eq!(panes.partials(), 3 * BATCH_DELTAS_MAX);
        let rows = |panes: &Panes| {
            let pipeline = panes.pipeline(PipelineId(1)).unwrap();
            let rows = pipeline.range(..).flat_map(|(start, pane)| {
                pane.ids().iter().map(move |&id| {
                    (
                        start,
                        pipeline.key(id).to_vec(),
                        pane.row(id).map(|(n, s)| (n, s.to_vec())),
                    )
                })
            });
            rows.collect::<Vec<_>>()
        };
        assert_eq!(rows(&panes), rows(&plain));
    }
}
