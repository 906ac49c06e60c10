//! A section: the deltas of one pipeline and pane, as columns with the keys in ascending order.
//!
//! ```text
//! section := index:varint  pane:zigzag varint (µs)  rows:varint  fields:varint  components:u8 × fields
//!            sketches:varint  kind × sketches  key-length:varint  keys  readings − 1: column
//!            field × fields  sketch × sketches
//! keys    := shared prefix: column  suffix length: column  suffixes: bytes
//! ```
//!
//! The index says which of the frame's pipelines the section is of: their ids are eight bytes each, and stand once in a
//! frame ([`Pipelines`]).
//!
//! Reading is in two steps, so that a receiver that sees the same keys in pane after pane can recognise them by the
//! bytes of [`SectionView::key_column`] and skip taking them apart.

use alloc::vec::Vec;

use super::WireFault;
use super::column::{put_column, take_column};
use super::cursor::{Cursor, put_varint, unzigzag, zigzag};
use super::sketch::{Room, put_kind, put_sketch, take_kind, take_sketch};
use super::stats::{StatsScratch, put_field, take_field};
use crate::limits::{
    BATCH_DELTAS_MAX, DELTA_READINGS_MAX, FIELDS_MAX, KEY_BYTES_MAX, PANE_READINGS_MAX, PIPELINE_ID_BYTES,
    SECTION_ENTRIES_MAX, SKETCHES_MAX,
};
use crate::plan::{Components, PipelineId};
use crate::sketch::{Sketch, SketchKind};
use crate::stats::Stats;
use crate::time::Timestamp;

/// Keys one after another, without an allocation for each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyList {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl KeyList {
    /// Forgets all keys and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Appends a key.
    pub fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len() as u32);
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The key at `index`, which must be below [`KeyList::len`].
    pub fn key(&self, index: usize) -> &[u8] {
        let start = if index == 0 {
            0
        } else {
            self.ends[index - 1] as usize
        };
        &self.bytes[start..self.ends[index] as usize]
    }

    /// The keys in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.key(index))
    }
}

/// A section in memory: what an agent fills and an aggregator merges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// Whose deltas.
    pub pipeline: PipelineId,
    /// The pane's start.
    pub pane: Timestamp,
    /// What is kept of each field.
    pub keep: Vec<Components>,
    /// The keys, strictly ascending.
    pub keys: KeyList,
    /// For each key: how many readings its delta has, at least 1.
    pub readings: Vec<u64>,
    /// For each key, one partial for each field.
    pub stats: Vec<Stats>,
    /// What the sketches are that each key has.
    pub sketch_kinds: Vec<SketchKind>,
    /// For each key, one sketch of each kind.
    pub sketches: Vec<Sketch>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            pipeline: PipelineId::NONE,
            pane: Timestamp::clamped(0),
            keep: Vec::new(),
            keys: KeyList::default(),
            readings: Vec::new(),
            stats: Vec::new(),
            sketch_kinds: Vec::new(),
            sketches: Vec::new(),
        }
    }
}

impl Section {
    /// Starts anew for this pipeline and pane, without sketches, keeping the memory.
    pub fn reset(&mut self, pipeline: PipelineId, pane: Timestamp, keep: impl Iterator<Item = Components>) {
        self.pipeline = pipeline;
        self.pane = pane;
        self.keep.clear();
        self.keep.extend(keep);
        self.keys.clear();
        self.readings.clear();
        self.stats.clear();
        self.sketch_kinds.clear();
        self.sketches.clear();
    }

    /// Says which sketches each key has; there must be no keys yet.
    pub fn set_sketches(&mut self, kinds: impl Iterator<Item = SketchKind>) {
        self.sketch_kinds.clear();
        self.sketch_kinds.extend(kinds);
    }

    /// How many deltas.
    pub fn rows(&self) -> usize {
        self.readings.len()
    }

    /// The partials of one row, a pipeline of `keep.len()`.
    pub fn row(&self, index: usize) -> &[Stats] {
        &self.stats[index * self.keep.len()..(index + 1) * self.keep.len()]
    }

    /// The sketches of one row, a pipeline of `sketch_kinds.len()`.
    pub fn sketch_row(&self, index: usize) -> &[Sketch] {
        &self.sketches[index * self.sketch_kinds.len()..(index + 1) * self.sketch_kinds.len()]
    }

    /// Appends the section's bytes; its pipeline is the one at `index` of the frame's. Keys must be strictly ascending, and there must be at least one row and at most
    /// [`BATCH_DELTAS_MAX`].
    pub fn emit(&self, index: u64, out: &mut Vec<u8>, scratch: &mut StatsScratch) {
        let rows = self.rows();
        assert!((1..=BATCH_DELTAS_MAX).contains(&rows) && self.keys.len() == rows);
        assert!(self.stats.len() == rows * self.keep.len());
        assert!(self.sketches.len() == rows * self.sketch_kinds.len());
        debug_assert!(self.sketches.iter().map(Sketch::entries).sum::<usize>() <= SECTION_ENTRIES_MAX);
        put_varint(out, index);
        put_varint(out, zigzag(self.pane.as_micros()));
        put_varint(out, rows as u64);
        put_varint(out, self.keep.len() as u64);
        out.extend(self.keep.iter().map(|keep| keep.bits()));
        put_varint(out, self.sketch_kinds.len() as u64);
        self.sketch_kinds.iter().for_each(|&kind| put_kind(out, kind));
        self.emit_keys(out, scratch);
        scratch.column.clear();
        scratch
            .column
            .extend(self.readings.iter().map(|&readings| readings - 1));
        put_column(out, &scratch.column);
        for field in 0..self.keep.len() {
            put_field(out, self, field, scratch);
        }
        for nth in 0..self.sketch_kinds.len() {
            put_sketch(out, self, nth, scratch);
        }
    }

    fn emit_keys(&self, out: &mut Vec<u8>, scratch: &mut StatsScratch) {
        let StatsScratch {
            column, more, bytes, ..
        } = scratch;
        column.clear();
        more.clear();
        let mut previous: &[u8] = &[];
        for key in self.keys.iter() {
            debug_assert!(column.is_empty() || previous < key, "keys ascend");
            let shared = previous.iter().zip(key).take_while(|(a, b)| a == b).count();
            column.push(shared as u64);
            more.push((key.len() - shared) as u64);
            previous = key;
        }
        bytes.clear();
        put_column(bytes, column);
        put_column(bytes, more);
        for (key, &shared) in self.keys.iter().zip(column.iter()) {
            bytes.extend_from_slice(&key[shared as usize..]);
        }
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// Which pipelines the sections of a frame are of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pipelines<'b> {
    /// The index is the pipeline's number itself: frames of version 1.
    Numbers,
    /// Ids one after another, 8 bytes each, least significant first.
    Table(&'b [u8]),
    /// All are of this one, whatever their index says: panes as a store keeps them, under their pipeline.
    One(PipelineId),
}

impl Pipelines<'_> {
    fn take(self, cursor: &mut Cursor<'_>) -> Result<PipelineId, WireFault> {
        match self {
            Self::Numbers => take_number(cursor),
            Self::Table(ids) => {
                let index = usize::try_from(cursor.varint()?).ok();
                let (ids, _) = ids.as_chunks::<PIPELINE_ID_BYTES>();
                let id = index.and_then(|index| ids.get(index));
                id.map(|id| PipelineId(u64::from_le_bytes(*id)))
                    .ok_or(WireFault::Invalid("index of a pipeline"))
            }
            Self::One(id) => cursor.varint().map(|_| id),
        }
    }
}

/// A pipeline's number, as version 1 has it.
pub(super) fn take_number(cursor: &mut Cursor<'_>) -> Result<PipelineId, WireFault> {
    u32::try_from(cursor.varint()?)
        .map(PipelineId::from)
        .map_err(|_| WireFault::Invalid("pipeline number"))
}

/// A section's bytes with its head taken apart and its columns still packed.
#[derive(Clone, Copy)]
pub struct SectionView<'b> {
    /// Whose deltas.
    pub pipeline: PipelineId,
    /// The pane's start.
    pub pane: Timestamp,
    rows: usize,
    readings_max: u64,
    keep: &'b [u8],
    sketches: usize,
    sketch_kinds: &'b [u8],
    keys: &'b [u8],
    columns: &'b [u8],
}

impl<'b> SectionView<'b> {
    /// Takes the head of a section of deltas apart; `bytes` must be exactly one section. A row may have at most
    /// [`DELTA_READINGS_MAX`] readings.
    pub(super) fn parse(bytes: &'b [u8], pipelines: Pipelines<'_>) -> Result<Self, WireFault> {
        Self::take_apart(bytes, pipelines, DELTA_READINGS_MAX)
    }

    /// The same for a section of merged panes of this pipeline: a row may have up to [`PANE_READINGS_MAX`] readings.
    pub fn parse_merged(bytes: &'b [u8], pipeline: PipelineId) -> Result<Self, WireFault> {
        Self::take_apart(bytes, Pipelines::One(pipeline), PANE_READINGS_MAX)
    }

    fn take_apart(bytes: &'b [u8], pipelines: Pipelines<'_>, readings_max: u64) -> Result<Self, WireFault> {
        let mut cursor = Cursor::new(bytes);
        let pipeline = pipelines.take(&mut cursor)?;
        let pane = unzigzag(cursor.varint()?);
        let pane = Timestamp::from_micros(pane).ok_or(WireFault::Invalid("pane start"))?;
        let rows = cursor.length(BATCH_DELTAS_MAX, "rows")?;
        if rows == 0 {
            return Err(WireFault::Invalid("section without rows"));
        }
        let fields = cursor.length(FIELDS_MAX, "fields")?;
        let keep = cursor.take(fields)?;
        for &bits in keep {
            let components = Components::from_bits(bits).ok_or(WireFault::Invalid("components"))?;
            if components.contains(Components::SQUARES) && !components.contains(Components::SUM) {
                return Err(WireFault::Invalid("squares without sum"));
            }
        }
        let sketches = cursor.length(SKETCHES_MAX, "sketches")?;
        let kinds = cursor.rest();
        for _ in 0..sketches {
            take_kind(&mut cursor)?;
        }
        let sketch_kinds = &kinds[..kinds.len() - cursor.rest().len()];
        let key_bytes = cursor.varint()?;
        let keys = cursor.take(usize::try_from(key_bytes).map_err(|_| WireFault::Truncated)?)?;
        Ok(Self {
            pipeline,
            pane,
            rows,
            readings_max,
            keep,
            sketches,
            sketch_kinds,
            keys,
            columns: cursor.rest(),
        })
    }

    /// How many deltas.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The packed keys. Two sections with equal row counts and equal bytes here have equal keys.
    pub fn key_column(&self) -> &'b [u8] {
        self.keys
    }

    /// What is kept of each field.
    pub fn keep(&self) -> impl ExactSizeIterator<Item = Components> {
        self.keep
            .iter()
            .map(|&bits| Components::from_bits(bits).unwrap_or_default())
    }

    /// What the sketches of each row are.
    pub fn sketch_kinds(&self) -> impl ExactSizeIterator<Item = SketchKind> + use<'b> {
        let mut cursor = Cursor::new(self.sketch_kinds);
        (0..self.sketches).map(move |_| take_kind(&mut cursor).unwrap_or(SketchKind::Distinct))
    }

    /// Unpacks the keys, replacing what was in `keys`. They come out strictly ascending, as UTF-8, and within
    /// [`KEY_BYTES_MAX`].
    pub fn read_keys(&self, keys: &mut KeyList, scratch: &mut StatsScratch) -> Result<(), WireFault> {
        keys.clear();
        let StatsScratch {
            column,
            more,
            bytes: current,
            ..
        } = scratch;
        let mut cursor = Cursor::new(self.keys);
        take_column(&mut cursor, self.rows, column)?;
        take_column(&mut cursor, self.rows, more)?;
        current.clear();
        for (row, (&shared, &suffix)) in column.iter().zip(more.iter()).enumerate() {
            if shared > current.len() as u64 || shared.saturating_add(suffix) > KEY_BYTES_MAX as u64 {
                return Err(WireFault::TooLong("key"));
            }
            let suffix = cursor.take(suffix as usize)?;
            if row > 0 && suffix <= &current[shared as usize..] {
                return Err(WireFault::Invalid("keys do not ascend"));
            }
            current.truncate(shared as usize);
            current.extend_from_slice(suffix);
            if core::str::from_utf8(current).is_err() {
                return Err(WireFault::Invalid("key is not UTF-8"));
            }
            keys.push(current);
        }
        cursor.finish()
    }

    /// Unpacks readings, partials and sketches, replacing what was in `readings`, `stats` and `sketches` (row by row,
    /// one partial for each field, one sketch of each kind). Every partial satisfies the invariants of [`Stats`], and
    /// every sketch is in a state that some values have.
    pub fn read_rows(
        &self,
        readings: &mut Vec<u64>,
        stats: &mut Vec<Stats>,
        sketches: &mut Vec<Sketch>,
        scratch: &mut StatsScratch,
    ) -> Result<(), WireFault> {
        readings.clear();
        stats.clear();
        sketches.clear();
        self.append_rows(readings, stats, sketches, scratch)
    }

    /// As [`SectionView::read_rows`], behind what is there already. After a fault something of it may be there.
    pub fn append_rows(
        &self,
        readings: &mut Vec<u64>,
        stats: &mut Vec<Stats>,
        sketches: &mut Vec<Sketch>,
        scratch: &mut StatsScratch,
    ) -> Result<(), WireFault> {
        let mut cursor = Cursor::new(self.columns);
        take_column(&mut cursor, self.rows, &mut scratch.column)?;
        if scratch
            .column
            .iter()
            .any(|&readings| readings >= self.readings_max)
        {
            return Err(WireFault::TooLong("readings"));
        }
        let (first_readings, first_stats) = (readings.len(), stats.len());
        readings.extend(scratch.column.iter().map(|&readings| readings + 1));
        stats.resize(first_stats + self.rows * self.keep.len(), Stats::IDENTITY);
        for (field, keep) in self.keep().enumerate() {
            take_field(
                &mut cursor,
                self.pane,
                keep,
                field,
                self.keep.len(),
                &readings[first_readings..],
                &mut stats[first_stats..],
                scratch,
            )?;
        }
        if self.sketches > 0 {
            self.append_sketches(&mut cursor, &readings[first_readings..], sketches, scratch)?;
        }
        cursor.finish()
    }

    fn append_sketches(
        &self,
        cursor: &mut Cursor<'b>,
        readings: &[u64],
        sketches: &mut Vec<Sketch>,
        scratch: &mut StatsScratch,
    ) -> Result<(), WireFault> {
        let (first, each) = (sketches.len(), self.sketches);
        for _ in 0..self.rows {
            sketches.extend(self.sketch_kinds().map(SketchKind::empty));
        }
        let mut room = Room::new();
        for (nth, kind) in self.sketch_kinds().enumerate() {
            take_sketch(
                cursor,
                kind,
                self.pane,
                readings,
                &mut room,
                scratch,
                |row, sketch| {
                    sketches[first + row * each + nth] = sketch;
                },
            )?;
        }
        Ok(())
    }

    /// Unpacks everything.
    pub fn read(&self, section: &mut Section, scratch: &mut StatsScratch) -> Result<(), WireFault> {
        section.reset(self.pipeline, self.pane, self.keep());
        section.set_sketches(self.sketch_kinds());
        self.read_keys(&mut section.keys, scratch)?;
        self.read_rows(
            &mut section.readings,
            &mut section.stats,
            &mut section.sketches,
            scratch,
        )
    }
}
