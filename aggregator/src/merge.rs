//! Panes in memory: for each slice and pane, one partial for each key, merged from whatever deltas come.
//!
//! Keys have small numbers within their slice. An agent sends the same keys pane after pane, so the numbers that its
//! last key column gave are remembered: equal bytes mean equal keys, and the whole column is settled by one comparison.

use std::collections::{BTreeMap, HashMap};

use catchment_common::plan::{Components, Slice, SliceId};
use catchment_common::stats::Stats;
use catchment_common::time::Timestamp;
use catchment_common::wire::{KeyList, Section, SectionView, StatsScratch, WireFault};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use crate::limits::CHUNK_KEYS_MAX;

/// A key's number within its slice.
pub type KeyId = u32;

/// The panes of all slices that are in memory.
#[derive(Debug, Default)]
pub struct Panes {
    slices: BTreeMap<SliceId, SlicePanes>,
    scratch: Scratch,
}

/// The panes of one slice.
#[derive(Debug, Default)]
pub struct SlicePanes {
    keys: KeyNumbers,
    panes: BTreeMap<Timestamp, Pane>,
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
    dirty: bool,
}

/// Memory that is used again from section to section.
#[derive(Debug, Default)]
struct Scratch {
    stats: StatsScratch,
    keys: KeyList,
    readings: Vec<u64>,
    partials: Vec<Stats>,
}

#[derive(Debug, Default)]
struct KeyNumbers {
    keys: Vec<Box<[u8]>>,
    index: HashTable<KeyId>,
    hasher: RandomState,
}

impl KeyNumbers {
    fn number(&mut self, key: &[u8]) -> KeyId {
        let Self { keys, index, hasher } = self;
        let hash = hasher.hash_one(key);
        if let Some(&id) = index.find(hash, |&id| *keys[id as usize] == *key) {
            return id;
        }
        let id = keys.len() as KeyId;
        keys.push(key.into());
        index.insert_unique(hash, id, |&id| hasher.hash_one(&*keys[id as usize]));
        id
    }
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

    fn merge(&mut self, id: KeyId, readings: u64, partials: &[Stats]) {
        if let Some(&row) = self.index.get(&id) {
            let row = row as usize;
            self.readings[row] = self.readings[row].saturating_add(readings);
            let held = &mut self.stats[row * self.fields..(row + 1) * self.fields];
            for (held, more) in held.iter_mut().zip(partials) {
                held.merge(more);
            }
            return;
        }
        self.index.insert(id, self.ids.len() as u32);
        self.ids.push(id);
        self.readings.push(readings);
        self.stats.extend_from_slice(partials);
    }
}

impl SlicePanes {
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
        let hash = self.keys.hasher.hash_one(key);
        self.keys
            .index
            .find(hash, |&id| *self.keys.keys[id as usize] == *key)
            .copied()
    }
}

/// Why a section cannot be merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The bytes break an invariant of the format.
    Wire(WireFault),
    /// The slice keeps other components, or other tags.
    OtherSlice,
    /// The pane's start is no multiple of the slice's pane width.
    BadPane,
}

impl Panes {
    /// The panes of one slice.
    pub fn slice(&self, id: SliceId) -> Option<&SlicePanes> {
        self.slices.get(&id)
    }

    /// Whether a pane is in memory.
    pub fn holds(&self, slice: SliceId, pane: Timestamp) -> bool {
        self.slices
            .get(&slice)
            .is_some_and(|slice| slice.panes.contains_key(&pane))
    }

    /// Checks everything about a section that merging relies on, so that a batch is taken as a whole or not at all.
    pub fn check(&mut self, view: &SectionView<'_>, slice: &Slice) -> Result<(), Refused> {
        let kept = slice.fields.iter().map(|field| field.components);
        if !view.keep().eq(kept) {
            return Err(Refused::OtherSlice);
        }
        if view.pane.pane_start(slice.pane) != view.pane {
            return Err(Refused::BadPane);
        }
        let Scratch {
            stats,
            keys,
            readings,
            partials,
        } = &mut self.scratch;
        view.read_rows(readings, partials, stats).map_err(Refused::Wire)?;
        // Keys are only taken apart when they are not the ones that were checked before.
        let known = self.slices.get(&view.slice).is_some_and(|slice| {
            slice
                .last_columns
                .values()
                .any(|last| last.bytes == view.key_column() && last.ids.len() == view.rows())
        });
        if known {
            return Ok(());
        }
        view.read_keys(keys, stats).map_err(Refused::Wire)?;
        let fits = |key: &[u8]| catchment_common::key::tags_of(key, slice.key.len()).is_some();
        if keys.iter().all(fits) {
            Ok(())
        } else {
            Err(Refused::OtherSlice)
        }
    }

    /// Merges a section that [`Panes::check`] has passed, on behalf of `agent`; returns the numbers of its keys.
    pub fn merge(&mut self, agent: &str, view: &SectionView<'_>) -> Result<&[KeyId], WireFault> {
        let Scratch {
            stats,
            keys,
            readings,
            partials,
        } = &mut self.scratch;
        view.read_rows(readings, partials, stats)?;
        let slice = self.slices.entry(view.slice).or_default();
        if !slice.last_columns.contains_key(agent) {
            slice.last_columns.insert(agent.to_owned(), LastColumn::default());
        }
        let last = slice.last_columns.get_mut(agent).expect("just inserted");
        if last.ids.len() != view.rows() || last.bytes != view.key_column() {
            view.read_keys(keys, stats)?;
            last.ids.clear();
            last.ids.extend(keys.iter().map(|key| slice.keys.number(key)));
            last.bytes.clear();
            last.bytes.extend_from_slice(view.key_column());
        }
        let fields = view.keep().len();
        let pane = slice.panes.entry(view.pane).or_insert_with(|| Pane {
            fields,
            ..Pane::default()
        });
        pane.dirty = true;
        for (row, (&id, &readings)) in last.ids.iter().zip(readings.iter()).enumerate() {
            pane.merge(id, readings, &partials[row * fields..(row + 1) * fields]);
        }
        Ok(&last.ids)
    }

    /// Puts a stored chunk of a pane back into memory.
    pub fn restore(&mut self, chunk: &[u8]) -> Result<(), WireFault> {
        let view = SectionView::parse(chunk)?;
        let before = self
            .slices
            .get(&view.slice)
            .and_then(|slice| slice.panes.get(&view.pane));
        let dirty = before.is_some_and(|pane| pane.dirty);
        self.merge("", &view)?;
        if let Some(pane) = self
            .slices
            .get_mut(&view.slice)
            .and_then(|slice| slice.panes.get_mut(&view.pane))
        {
            pane.dirty = dirty;
        }
        Ok(())
    }

    /// Hands out every dirty pane as chunks of columns, and marks it clean.
    pub fn take_dirty(
        &mut self,
        slices: &BTreeMap<SliceId, Slice>,
        mut sink: impl FnMut(SliceId, Timestamp, u32, Vec<u8>),
    ) {
        for (&id, held) in &mut self.slices {
            let Some(slice) = slices.get(&id) else { continue };
            let keep: Vec<Components> = slice.fields.iter().map(|field| field.components).collect();
            for (&start, pane) in held.panes.iter_mut().filter(|(_, pane)| pane.dirty) {
                pane.dirty = false;
                emit_chunks(
                    id,
                    start,
                    pane,
                    &held.keys,
                    &keep,
                    &mut self.scratch.stats,
                    &mut sink,
                );
            }
        }
    }

    /// Forgets the clean panes of a slice that start before `keep_from`, and the keys that only they had.
    pub fn forget(&mut self, slice: SliceId, keep_from: Timestamp) {
        let Some(held) = self.slices.get_mut(&slice) else {
            return;
        };
        let before = held.panes.len();
        held.panes.retain(|&start, pane| pane.dirty || start >= keep_from);
        let used: usize = held.panes.values().map(Pane::len).sum();
        if held.panes.len() < before && held.keys.keys.len() > 2 * used + CHUNK_KEYS_MAX {
            held.renumber();
        }
    }

    /// Partials in memory.
    pub fn partials(&self) -> usize {
        self.slices
            .values()
            .flat_map(|slice| slice.panes.values())
            .map(Pane::len)
            .sum()
    }
}

impl SlicePanes {
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

fn emit_chunks(
    id: SliceId,
    start: Timestamp,
    pane: &Pane,
    keys: &KeyNumbers,
    keep: &[Components],
    scratch: &mut StatsScratch,
    sink: &mut impl FnMut(SliceId, Timestamp, u32, Vec<u8>),
) {
    let mut rows: Vec<u32> = (0..pane.len() as u32).collect();
    let key = |row: u32| &*keys.keys[pane.ids[row as usize] as usize];
    rows.sort_unstable_by(|&a, &b| key(a).cmp(key(b)));
    let mut section = Section::default();
    for (chunk, rows) in rows.chunks(CHUNK_KEYS_MAX).enumerate() {
        section.reset(id, start, keep.iter().copied());
        for &row in rows {
            let at = row as usize * pane.fields;
            section.keys.push(key(row));
            section.readings.push(pane.readings[row as usize]);
            section.stats.extend_from_slice(&pane.stats[at..at + pane.fields]);
        }
        let mut columns = Vec::new();
        section.emit(&mut columns, scratch);
        sink(id, start, chunk as u32, columns);
    }
}
