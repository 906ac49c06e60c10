//! Open panes with their keys, within one memory budget.
//!
//! The budget is split once, when a plan starts: so many entries, each with its share of cells, key bytes and index.
//! Nothing here grows afterwards. When something is full, [`OpenPanes::spill`] sends the coldest entries on their way as
//! early deltas, which costs bytes and never readings.

use catchment_common::decimal::Value;
use catchment_common::key::{KeyId, Keys};
use catchment_common::limits::{BATCH_DELTAS_MAX, KEY_BYTES_MAX};
use catchment_common::pane::{Cell, PaneEntry, PaneKey, PaneTable, kept};
use catchment_common::plan::{Slice, SliceId};
use catchment_common::stats::Stats;
use catchment_common::table::{FixedTable, Full, Slot};
use catchment_common::time::Timestamp;
use catchment_common::wire::Section;

/// Arena bytes counted for a key; longer ones take from shorter ones' share.
const KEY_BYTES_TYPICAL: usize = 40;
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

impl OpenPanes {
    /// Takes `memory_bytes` for partials of slices with at most `fields` fields. `seed` should be random.
    pub fn new(memory_bytes: usize, fields: usize, seed: u64) -> Self {
        let capacity = (memory_bytes / Self::entry_bytes(fields)).max(1);
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

    /// Bytes of the budget that one open partial of `fields` fields and its key take.
    pub const fn entry_bytes(fields: usize) -> usize {
        FixedTable::<PaneKey, PaneEntry>::entry_bytes()
            + fields * size_of::<Cell>()
            + Keys::entry_bytes()
            + KEY_BYTES_TYPICAL
            + size_of::<PaneKey>()
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

    /// Lifts a reading. When there is no room for its partial nothing has changed; make room and try again.
    #[inline]
    pub fn lift(
        &mut self,
        place: Place<'_>,
        slice: &Slice,
        at: Timestamp,
        values: &[Option<Value>],
    ) -> Result<(), Full> {
        let known = self.keys.find(place.key);
        if let Some(key) = known {
            let pane_key = PaneKey {
                slice: place.slice,
                pane: place.pane,
                key,
            };
            // Most readings find their partial where the key's last one did.
            let hint = self.keys.hint(key);
            if self.table.is_at(hint, &pane_key) {
                self.table.lift(hint, at, &slice.fields, values);
                return Ok(());
            }
            if let Some(slot) = self.table.find(&pane_key) {
                self.keys.set_hint(key, slot);
                self.table.lift(slot, at, &slice.fields, values);
                return Ok(());
            }
        }
        let slot = self.open(place, known, slice.fields.len())?;
        self.table.lift(slot, at, &slice.fields, values);
        Ok(())
    }

    fn open(&mut self, place: Place<'_>, known: Option<KeyId>, fields: usize) -> Result<Slot, Full> {
        let key = match known {
            Some(key) => key,
            None => self.keys.insert(place.key)?,
        };
        self.keys.retain(key);
        let opened = self.table.open(
            PaneKey {
                slice: place.slice,
                pane: place.pane,
                key,
            },
            fields,
        );
        match opened {
            Ok(slot) => self.keys.set_hint(key, slot),
            Err(Full) => self.keys.release(key),
        }
        opened
    }

    /// Closes the partials that `is_due` selects: hands them to `sink` as sections, in the order of slice, pane and
    /// key, and frees their room.
    pub fn close(
        &mut self,
        slices: &[(SliceId, Slice)],
        is_due: impl Fn(&PaneKey) -> bool,
        sink: impl FnMut(&Section),
    ) {
        self.selected.clear();
        self.selected.extend(self.table.keys().filter(is_due));
        self.hand_out(slices, sink);
    }

    /// Closes the coldest partials to make room; returns how many.
    pub fn spill(&mut self, slices: &[(SliceId, Slice)], sink: impl FnMut(&Section)) -> usize {
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

    fn hand_out(&mut self, slices: &[(SliceId, Slice)], mut sink: impl FnMut(&Section)) {
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
            let (id, slice) = &slices[usize::from(group[0].slice)];
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
                sink(section);
            }
        }
        selected.clear();
    }
}
