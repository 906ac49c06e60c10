//! Open panes with their keys, within one memory budget.
//!
//! The budget is split once, when a plan starts: so many entries, each with its share of cells, key bytes and index.
//! Nothing here grows afterwards. When something is full, [`OpenPanes::spill`] sends the coldest entries on their way as
//! early deltas, which costs bytes and never readings.

use catchment_common::decimal::Value;
use catchment_common::key::{KeyId, Keys};
use catchment_common::limits::{BATCH_DELTAS_MAX, KEY_BYTES_MAX};
use catchment_common::pane::{Cell, KEY_BYTES_TYPICAL, PaneEntry, PaneKey, PaneTable, entry_bytes, kept};
use catchment_common::plan::{Slice, SliceId};
use catchment_common::stats::Stats;
use catchment_common::table::{FixedTable, Full, Slot};
use catchment_common::time::Timestamp;
use catchment_common::wire::Section;

/// One part in so many leaves when the table is full: large enough to make good batches, small enough to keep most
/// entries gathering.
const SPILL_PART: usize = 16;
/// Most partials in a section, fields counted: bounds the memory of a section in the making.
const SECTION_STATS_MAX: usize = 4_096;

/// Open partials of all slices.
#[derive(Debug)]
pub struct OpenPanes {
    keys: Keys,
    table: PaneTable<FixedTable<PaneKey, PaneEntry>, Box<[Cell]>>,
    selected: Vec<PaneKey>,
    section: Section,
}

/// Where a reading belongs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'k> {
    /// The slice's index in the running plan.
    pub slice: u16,
    /// The pane's start.
    pub pane: Timestamp,
    /// The key's bytes.
    pub key: &'k [u8],
}

/// Where a reading went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifted {
    /// Its key's number.
    pub key: KeyId,
    /// Whether the number was given to this key just now.
    pub is_new: bool,
}

impl Place<'_> {
    fn pane_key(&self, key: KeyId) -> PaneKey {
        PaneKey {
            slice: self.slice,
            pane: self.pane,
            key,
        }
    }
}

impl OpenPanes {
    /// Takes `memory_bytes` for partials of slices with at most `fields` fields. `seed` should be random.
    pub fn new(memory_bytes: usize, fields: usize, seed: u64) -> Self {
        let capacity = (memory_bytes / entry_bytes(fields)).max(1);
        Self {
            keys: Keys::new(
                capacity,
                (capacity * KEY_BYTES_TYPICAL).max(2 * KEY_BYTES_MAX),
                seed,
            ),
            table: PaneTable::new(
                FixedTable::new(capacity, seed.rotate_left(32)),
                vec![Cell::VACANT; (capacity * fields).max(fields)].into_boxed_slice(),
            ),
            selected: Vec::with_capacity(capacity),
            section: Section::default(),
        }
    }

    /// How many partials are open.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// How many can be open at most.
    pub fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Lifts a reading; returns its key's number. A partial that has to be opened for it remembers `mark`. When there is
    /// no room nothing has changed; make room and try again.
    #[inline]
    pub fn lift(
        &mut self,
        place: Place<'_>,
        slice: &Slice,
        at: Timestamp,
        values: &[Option<Value>],
        mark: u16,
    ) -> Result<Lifted, Full> {
        let known = self.keys.find(place.key);
        if let Some(key) = known {
            let pane_key = place.pane_key(key);
            // Most readings find their partial where the key's last one did.
            let hint = self.keys.hint(key);
            if self.table.is_at(hint, &pane_key) {
                self.table.lift(hint, at, &slice.fields, values);
                return Ok(Lifted { key, is_new: false });
            }
            if let Some(slot) = self.table.find(&pane_key) {
                self.keys.set_hint(key, slot);
                self.table.lift(slot, at, &slice.fields, values);
                return Ok(Lifted { key, is_new: false });
            }
        }
        let (slot, key) = self.open(place, known, slice.fields.len(), mark)?;
        self.table.lift(slot, at, &slice.fields, values);
        Ok(Lifted {
            key,
            is_new: known.is_none(),
        })
    }

    /// Merges a partial that was taken out before back in, or opens it again.
    pub fn absorb(
        &mut self,
        place: Place<'_>,
        fields: usize,
        readings: u64,
        stats: &[Stats],
        mark: u16,
    ) -> Result<(), Full> {
        let known = self.keys.find(place.key);
        let open = known.and_then(|key| self.table.find(&place.pane_key(key)));
        let slot = match open {
            Some(slot) => slot,
            None => self.open(place, known, fields, mark)?.0,
        };
        self.table.absorb(slot, readings, stats);
        Ok(())
    }

    fn open(
        &mut self,
        place: Place<'_>,
        known: Option<KeyId>,
        fields: usize,
        mark: u16,
    ) -> Result<(Slot, KeyId), Full> {
        let key = match known {
            Some(key) => key,
            None => self.keys.insert(place.key)?,
        };
        self.keys.retain(key);
        let opened = self.table.open(place.pane_key(key), fields, mark);
        match opened {
            Ok(slot) => self.keys.set_hint(key, slot),
            Err(Full) => self.keys.release(key),
        }
        opened.map(|slot| (slot, key))
    }

    /// Closes the partials that `is_due` selects by place and mark: hands them to `sink` as sections with their slice's
    /// index, in the order of slice, pane and key, and frees their room.
    pub fn close(
        &mut self,
        slices: &[(SliceId, Slice)],
        is_due: impl Fn(&PaneKey, u16) -> bool,
        sink: impl FnMut(u16, &Section),
    ) {
        self.selected.clear();
        let due = self.table.marks().filter(|(key, mark)| is_due(key, *mark));
        self.selected.extend(due.map(|(key, _)| key));
        self.hand_out(slices, sink);
    }

    /// Closes one partial, if it is open.
    pub fn close_one(
        &mut self,
        slices: &[(SliceId, Slice)],
        place: Place<'_>,
        sink: impl FnMut(u16, &Section),
    ) {
        self.selected.clear();
        if let Some(key) = self.keys.find(place.key) {
            let pane_key = place.pane_key(key);
            self.selected.extend(self.table.find(&pane_key).map(|_| pane_key));
        }
        self.hand_out(slices, sink);
    }

    /// The marks of all open partials.
    pub fn marks(&self) -> impl Iterator<Item = u16> {
        self.table.marks().map(|(_, mark)| mark)
    }

    /// The bytes of a key in use.
    #[inline]
    pub fn key(&self, key: KeyId) -> &[u8] {
        self.keys.bytes(key)
    }

    /// Closes the coldest partials to make room; returns how many.
    pub fn spill(&mut self, slices: &[(SliceId, Slice)], sink: impl FnMut(u16, &Section)) -> usize {
        let part = (self.table.capacity() / SPILL_PART).max(1);
        let Self { selected, table, .. } = self;
        selected.clear();
        selected.extend((0..part).map_while(|_| table.coldest()));
        // The hand moves on with each call, but may come round.
        selected.sort_unstable();
        selected.dedup();
        let count = selected.len();
        self.hand_out(slices, sink);
        count
    }

    fn hand_out(&mut self, slices: &[(SliceId, Slice)], mut sink: impl FnMut(u16, &Section)) {
        let Self {
            keys,
            table,
            selected,
            section,
            ..
        } = self;
        selected.sort_unstable_by(|a, b| {
            (a.slice, a.pane)
                .cmp(&(b.slice, b.pane))
                .then_with(|| keys.bytes(a.key).cmp(keys.bytes(b.key)))
        });
        for group in selected.chunk_by(|a, b| (a.slice, a.pane) == (b.slice, b.pane)) {
            let index = group[0].slice;
            let (id, slice) = &slices[usize::from(index)];
            let rows = (SECTION_STATS_MAX / slice.fields.len().max(1)).min(BATCH_DELTAS_MAX);
            for part in group.chunks(rows) {
                section.reset(*id, part[0].pane, kept(&slice.fields));
                for pane_key in part {
                    let stats: &mut Vec<Stats> = &mut section.stats;
                    let Some(taken) = table.take(pane_key, |field| stats.push(*field)) else {
                        continue;
                    };
                    section.readings.push(taken.readings);
                    section.keys.push(keys.bytes(pane_key.key));
                    keys.release(pane_key.key);
                }
                sink(index, section);
            }
        }
        selected.clear();
    }
}
