//! The pane table: open panes, one partial for each (slice, pane, key), in memory that never grows.
//!
//! Lifting a reading is one lookup and a few additions. When the table is full, the coldest entries leave early as
//! deltas: more bytes, the same answer, because deltas of one pane and key merge. Coldness is judged by a clock hand
//! that gives each entry touched since its last visit another round (Corbató's CLOCK), which costs one bit.
//!
//! The table is generic over where its memory is: [`crate::table::FixedTable`] and a boxed slice on a gateway,
//! `heapless` and an array on a microcontroller. It knows keys only by number, and no I/O.

use crate::decimal::Value;
use crate::key::Keys;
use crate::plan::{Components, SliceField};
use crate::stats::Stats;
use crate::table::{FixedTable, Full, Slot, Table};
use crate::time::Timestamp;

/// Names an open partial.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PaneKey {
    /// The slice's index in the running plan.
    pub slice: u16,
    /// The pane's start.
    pub pane: Timestamp,
    /// The key's number.
    pub key: u32,
}

/// One open partial: its readings, and where its fields' stats begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PaneEntry {
    /// Readings lifted into it.
    readings: u64,
    /// The cell of the first field; the others are linked.
    cells: u32,
    /// Whether it was lifted into since the clock hand last passed.
    touched: bool,
    /// What its opener wanted to remember with it, such as where its first reading is journalled.
    mark: u16,
}

/// The stats of one field of one entry, linked to the next field's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    stats: Stats,
    next: u32,
}

/// The end of a chain of cells.
const END: u32 = u32::MAX;

impl Cell {
    /// A cell not in use.
    pub const VACANT: Self = Self {
        stats: Stats::IDENTITY,
        next: END,
    };
}

/// A delta taken out of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// What it was.
    pub key: PaneKey,
    /// How many readings it has.
    pub readings: u64,
}

/// Open panes in fixed memory.
#[derive(Debug)]
pub struct PaneTable<T, C> {
    table: T,
    cells: C,
    vacant: u32,
    vacant_cells: usize,
    hand: Slot,
}

impl<T, C> PaneTable<T, C>
where
    T: Table<PaneKey, PaneEntry>,
    C: AsRef<[Cell]> + AsMut<[Cell]>,
{
    /// A table that uses `table`, which must be empty, for its entries and `cells` for their fields.
    pub fn new(table: T, mut cells: C) -> Self {
        let all = cells.as_mut();
        let count = all.len().min(END as usize);
        for (index, cell) in all.iter_mut().enumerate() {
            cell.next = if index + 1 < count { index as u32 + 1 } else { END };
        }
        Self {
            table,
            cells,
            vacant: if count == 0 { END } else { 0 },
            vacant_cells: count,
            hand: 0,
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

    /// How many partials can be open at most.
    pub fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Where an open partial is.
    #[inline]
    pub fn find(&self, key: &PaneKey) -> Option<Slot> {
        self.table.find(key)
    }

    /// Whether `slot` is where `key` is: a cheap test of a remembered slot.
    #[inline]
    pub fn is_at(&self, slot: Slot, key: &PaneKey) -> bool {
        self.table.get(slot).is_some_and(|(held, _)| held == key)
    }

    /// Opens a partial of `fields` fields, which must not be open yet, and remembers `mark` with it.
    pub fn open(&mut self, key: PaneKey, fields: usize, mark: u16) -> Result<Slot, Full> {
        if self.vacant_cells < fields {
            return Err(Full);
        }
        let slot = self.table.insert(
            key,
            PaneEntry {
                readings: 0,
                cells: END,
                touched: true,
                mark,
            },
        )?;
        let mut head = END;
        for _ in 0..fields {
            let index = self.vacant;
            let cell = &mut self.cells.as_mut()[index as usize];
            self.vacant = cell.next;
            *cell = Cell {
                stats: Stats::IDENTITY,
                next: head,
            };
            head = index;
        }
        self.vacant_cells -= fields;
        if let Some((_, entry)) = self.table.get_mut(slot) {
            entry.cells = head;
        }
        Ok(slot)
    }

    /// Lifts one reading into the open partial at `slot`: for each of its fields a value or none.
    #[inline]
    pub fn lift(&mut self, slot: Slot, at: Timestamp, fields: &[SliceField], values: &[Option<Value>]) {
        let Some((_, entry)) = self.table.get_mut(slot) else {
            return;
        };
        entry.readings += 1;
        entry.touched = true;
        let mut next = entry.cells;
        let cells = self.cells.as_mut();
        for (field, value) in fields.iter().zip(values) {
            let Some(cell) = cells.get_mut(next as usize) else {
                return;
            };
            if let Some(value) = value {
                cell.stats.lift(field.components, at, *value);
            }
            next = cell.next;
        }
    }

    /// The open partials, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = PaneKey> {
        (0..self.table.slots() as Slot).filter_map(|slot| self.table.get(slot).map(|(key, _)| *key))
    }

    /// The open partials with their marks, in no particular order.
    pub fn marks(&self) -> impl Iterator<Item = (PaneKey, u16)> {
        (0..self.table.slots() as Slot)
            .filter_map(|slot| self.table.get(slot).map(|(key, entry)| (*key, entry.mark)))
    }

    /// Merges what was taken out of another table into the open partial at `slot`.
    pub fn absorb(&mut self, slot: Slot, readings: u64, stats: &[Stats]) {
        let Some((_, entry)) = self.table.get_mut(slot) else {
            return;
        };
        entry.readings += readings;
        let mut next = entry.cells;
        let cells = self.cells.as_mut();
        for more in stats {
            let Some(cell) = cells.get_mut(next as usize) else {
                return;
            };
            cell.stats.merge(more);
            next = cell.next;
        }
    }

    /// Takes a partial out, handing its fields' stats to `visit` in order. Slots of others may change.
    pub fn take(&mut self, key: &PaneKey, visit: impl FnMut(&Stats)) -> Option<Taken> {
        let slot = self.table.find(key)?;
        self.take_slot(slot, visit)
    }

    /// The key of a partial that has not been lifted into for about a round of the clock hand, or of any other if all
    /// are busy; `None` if none is open.
    pub fn coldest(&mut self) -> Option<PaneKey> {
        if self.table.is_empty() {
            return None;
        }
        // Two rounds at most: the first clears every mark, so the second must stop.
        for _ in 0..2 * self.table.slots() {
            let slot = self.hand;
            self.hand = if slot as usize + 1 < self.table.slots() {
                slot + 1
            } else {
                0
            };
            if let Some((key, entry)) = self.table.get_mut(slot) {
                if !entry.touched {
                    return Some(*key);
                }
                entry.touched = false;
            }
        }
        self.keys().next()
    }

    fn take_slot(&mut self, slot: Slot, mut visit: impl FnMut(&Stats)) -> Option<Taken> {
        let (key, entry) = self.table.remove(slot)?;
        let cells = self.cells.as_mut();
        let mut index = entry.cells;
        while let Some(cell) = cells.get_mut(index as usize) {
            visit(&cell.stats);
            let next = cell.next;
            cell.next = self.vacant;
            self.vacant = index;
            self.vacant_cells += 1;
            index = next;
        }
        Some(Taken {
            key,
            readings: entry.readings,
        })
    }
}

/// Bytes that an agent counts for a key; longer ones take from shorter ones' share.
pub const KEY_BYTES_TYPICAL: usize = 40;

/// Bytes of an agent's memory budget that one open partial of so many fields and its key take.
pub const fn entry_bytes(fields: usize) -> usize {
    FixedTable::<PaneKey, PaneEntry>::entry_bytes()
        + fields * size_of::<Cell>()
        + Keys::entry_bytes()
        + KEY_BYTES_TYPICAL
        + size_of::<PaneKey>()
}

/// What of a slice's fields is kept, in their order.
pub fn kept(fields: &[SliceField]) -> impl Iterator<Item = Components> {
    fields.iter().map(|field| field.components)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    use heapless::index_map::FnvIndexMap;
    use proptest::prelude::*;

    use super::*;
    use crate::plan::FieldSource;

    fn fields(count: usize) -> Vec<SliceField> {
        let field = |index: usize| SliceField {
            source: FieldSource::path(&alloc::format!("f{index}")),
            resolution: None,
            components: Components::STATS,
        };
        (0..count).map(field).collect()
    }

    /// Lifts readings with whatever spills a full table forces, and merges all deltas: the result must equal what one
    /// unbounded map holds.
    fn suite<T: Table<PaneKey, PaneEntry>, C: AsRef<[Cell]> + AsMut<[Cell]>>(
        mut panes: PaneTable<T, C>,
        readings: &[(u16, i64, u32, i64)],
    ) {
        let mut merged: BTreeMap<PaneKey, (u64, Vec<Stats>)> = BTreeMap::new();
        let mut expected = merged.clone();
        let collect =
            |merged: &mut BTreeMap<PaneKey, (u64, Vec<Stats>)>, panes: &mut PaneTable<T, C>, key: PaneKey| {
                let mut stats = Vec::new();
                let taken = panes.take(&key, |field| stats.push(*field)).unwrap();
                let (count, held) = merged
                    .entry(key)
                    .or_insert_with(|| (0, alloc::vec![Stats::IDENTITY; stats.len()]));
                *count += taken.readings;
                held.iter_mut()
                    .zip(&stats)
                    .for_each(|(held, more)| held.merge(more));
            };
        for &(slice, pane, key, value) in readings {
            let fields = fields(1 + usize::from(slice));
            let pane_key = PaneKey {
                slice,
                pane: Timestamp::clamped(pane * 10),
                key,
            };
            let at = Timestamp::clamped(pane * 10 + 1);
            let values = alloc::vec![Value::from_units(i128::from(value)); fields.len()];
            let slot = panes.find(&pane_key).unwrap_or_else(|| {
                loop {
                    if let Ok(slot) = panes.open(pane_key, fields.len(), 0) {
                        break slot;
                    }
                    let coldest = panes.coldest().unwrap();
                    collect(&mut merged, &mut panes, coldest);
                }
            });
            assert!(panes.is_at(slot, &pane_key));
            panes.lift(slot, at, &fields, &values);
            let (count, held) = expected
                .entry(pane_key)
                .or_insert_with(|| (0, alloc::vec![Stats::IDENTITY; fields.len()]));
            *count += 1;
            for (stats, value) in held.iter_mut().zip(&values) {
                stats.lift(Components::STATS, at, value.unwrap());
            }
        }
        for key in panes.keys().collect::<Vec<_>>() {
            collect(&mut merged, &mut panes, key);
        }
        assert_eq!(merged, expected);
        assert!(panes.is_empty());
        assert_eq!(panes.vacant_cells, panes.cells.as_ref().len());
    }

    proptest! {
        #[test]
        fn any_spill_schedule_gives_the_same_answer(
            readings in prop::collection::vec((0_u16..3, 0_i64..3, 0_u32..8, -100_i64..100), 0..300),
        ) {
            suite(PaneTable::new(FixedTable::new(8, 7), alloc::vec![Cell::VACANT; 12]), &readings);
            suite(PaneTable::new(FnvIndexMap::<_, _, 8>::new(), [Cell::VACANT; 12]), &readings);
        }
    }

    #[test]
    fn cold_entries_leave_before_busy_ones() {
        let fields = fields(1);
        let mut panes = PaneTable::new(FixedTable::new(4, 7), alloc::vec![Cell::VACANT; 4]);
        let key = |key| PaneKey {
            slice: 0,
            pane: Timestamp::clamped(0),
            key,
        };
        for number in 0..4 {
            panes.open(key(number), 1, 0).unwrap();
        }
        let first = panes.coldest().unwrap();
        assert_eq!(
            first,
            key(0),
            "all were touched once: the hand takes the first after a round"
        );
        let busy = panes.find(&key(1)).unwrap();
        panes.lift(busy, Timestamp::clamped(1), &fields, &[Some(Value::ZERO)]);
        assert_eq!(panes.coldest(), Some(key(2)), "the busy one is passed over");
    }
}
