//! The pane table: open panes, one partial for each (pipeline, pane, key), in memory that never grows.
//!
//! Lifting a reading is one lookup and a few additions. When the table is full, the coldest entries leave early as
//! deltas: more bytes, the same answer, because deltas of one pane and key merge. Coldness is judged by a clock hand
//! that gives each entry touched since its last visit another round (Corbató's CLOCK), which costs one bit.
//!
//! The table is generic over where its memory is: [`crate::table::fixed::FixedTable`] and boxed pipelines on a gateway,
//! `heapless` and arrays on a microcontroller. It knows keys only by number, and no I/O. Sketches lie in a
//! [pool](crate::sketch::pool) of blocks beside the cells; a plan without sketches has no blocks and pays nothing for
//! them.

use crate::number::decimal::Value;
use crate::plan::{Components, PipelineField};
use crate::sketch::SketchKind;
use crate::sketch::pool::{Block, Drained, Point, Pool, Use, blocks_to_open};
use crate::stats::Stats;
use crate::table::fixed::{FixedTable, Full, Slot, Table};
use crate::table::interner::Interner;
use crate::time::Timestamp;

/// Names an open partial.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PaneKey {
    /// The pipeline's index in the running plan.
    pub pipeline: u16,
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
    /// The block of the first sketches; the others are linked.
    blocks: u32,
    /// How many sketches.
    sketches: u8,
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
pub struct PaneTable<T, C, B> {
    table: T,
    cells: C,
    vacant: u32,
    vacant_cells: usize,
    pool: Pool<B>,
    hand: Slot,
}

/// How many fields and sketches a partial has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Width {
    /// Fields.
    pub fields: usize,
    /// Sketches, at most [`crate::limits::SKETCHES_MAX`].
    pub sketches: usize,
}

impl<T, C, B> PaneTable<T, C, B>
where
    T: Table<PaneKey, PaneEntry>,
    C: AsRef<[Cell]> + AsMut<[Cell]>,
    B: AsRef<[Block]> + AsMut<[Block]>,
{
    /// A table that uses `table`, which must be empty, for its entries, `cells` for their fields, and `blocks` for
    /// their sketches.
    pub fn new(table: T, mut cells: C, blocks: B) -> Self {
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
            pool: Pool::new(blocks),
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

    /// Whether a reading has room in `count` sketches of an open partial.
    #[inline]
    pub fn has_room(&self, sketches: usize) -> bool {
        self.pool.vacant() >= sketches
    }

    /// Opens a partial, which must not be open yet, and remembers `mark` with it. There is room for one reading in it
    /// then.
    pub fn open(&mut self, key: PaneKey, width: Width, mark: u16) -> Result<Slot, Full> {
        let Width { fields, sketches } = width;
        if self.vacant_cells < fields || self.pool.vacant() < blocks_to_open(sketches) {
            return Err(Full);
        }
        let slot = self.table.insert(
            key,
            PaneEntry {
                readings: 0,
                cells: END,
                blocks: END,
                sketches: sketches as u8,
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
        let blocks = self.pool.open(sketches)?;
        if let Some((_, entry)) = self.table.get_mut(slot) {
            (entry.cells, entry.blocks) = (head, blocks);
        }
        Ok(slot)
    }

    /// Lifts one reading into the open partial at `slot`: for each of its fields a value or none.
    #[inline]
    pub fn lift(&mut self, slot: Slot, at: Timestamp, fields: &[PipelineField], values: &[Option<Value>]) {
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

    /// Lifts one reading into the sketches of the open partial at `slot`, whose kinds these are. There must be room;
    /// see [`PaneTable::has_room`]. `used` is told of values of top lists.
    pub fn lift_sketches(
        &mut self,
        slot: Slot,
        kinds: &[SketchKind],
        points: &[Point],
        mut used: impl FnMut(u32, Use),
    ) -> Result<(), Full> {
        let Some((_, entry)) = self.table.get_mut(slot) else {
            return Ok(());
        };
        let first = entry.blocks;
        for &point in points {
            let kind = kinds[usize::from(point.sketch)];
            self.pool.lift(first, kind, point, &mut used)?;
        }
        Ok(())
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

    /// Merges what was drained from another partial's sketch into one of the open partial at `slot`. There must be room
    /// for as many entries as it has.
    pub fn absorb_sketch(
        &mut self,
        slot: Slot,
        kind: SketchKind,
        sketch: u8,
        drained: Drained<'_>,
        mut used: impl FnMut(u32, Use),
    ) -> Result<(), Full> {
        let Some((_, entry)) = self.table.get_mut(slot) else {
            return Ok(());
        };
        let first = entry.blocks;
        for &(key, count) in drained.entries {
            let point = Point {
                sketch,
                level: drained.level,
                key,
                count: 1,
                value: Value::ZERO,
            };
            self.pool.absorb(first, kind, point, count, &mut used)?;
        }
        if drained.is_too_long {
            self.pool.absorb_too_long(first, sketch);
        }
        for series_point in drained.points {
            let point = Point {
                sketch,
                level: 0,
                key: series_point.at.as_micros(),
                count: 1,
                value: series_point.value,
            };
            self.pool.lift(first, kind, point, &mut used)?;
        }
        if kind == SketchKind::Top {
            self.pool.absorb_others(first, sketch, drained.others);
        }
        Ok(())
    }

    /// Takes a partial out, handing its fields' stats to `visit` in order, and its sketches to `drain`. Slots of others
    /// may change.
    pub fn take(
        &mut self,
        key: &PaneKey,
        visit: impl FnMut(&Stats),
        drain: impl FnMut(usize, Drained<'_>),
    ) -> Option<Taken> {
        let slot = self.table.find(key)?;
        self.take_slot(slot, visit, drain)
    }

    /// The key of a partial among the `wanted` that has not been lifted into for about a round of the clock hand, or of
    /// any other of them if all are busy; `None` if none is open.
    pub fn coldest(&mut self, wanted: impl Fn(&PaneKey) -> bool) -> Option<PaneKey> {
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
            if let Some((key, entry)) = self.table.get_mut(slot)
                && wanted(key)
            {
                if !entry.touched {
                    return Some(*key);
                }
                entry.touched = false;
            }
        }
        self.keys().find(wanted)
    }

    fn take_slot(
        &mut self,
        slot: Slot,
        mut visit: impl FnMut(&Stats),
        drain: impl FnMut(usize, Drained<'_>),
    ) -> Option<Taken> {
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
        self.pool.close(entry.blocks, usize::from(entry.sketches), drain);
        Some(Taken {
            key,
            readings: entry.readings,
        })
    }
}

/// Bytes that an agent counts for a key; longer ones take from shorter ones' share.
pub const KEY_BYTES_TYPICAL: usize = 40;

/// Bytes of an agent's memory budget that one open partial with this number of fields takes, its key included.
pub const fn entry_bytes(fields: usize) -> usize {
    FixedTable::<PaneKey, PaneEntry>::entry_bytes()
        + fields * size_of::<Cell>()
        + Interner::entry_bytes()
        + KEY_BYTES_TYPICAL
        + size_of::<PaneKey>()
}

/// What of a pipeline's fields is kept, in their order.
pub fn kept(fields: &[PipelineField]) -> impl Iterator<Item = Components> {
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
    use crate::sketch::{
        Buckets, Counter, Counters, Registers, Series, SeriesPoint, Shape, Sketch, empty_row, hash, mark_of,
        merge_rows,
    };

    fn fields(count: usize) -> Vec<PipelineField> {
        let field = |index: usize| PipelineField {
            source: FieldSource::path(&alloc::format!("f{index}")),
            resolution: None,
            components: Components::STATS,
        };
        (0..count).map(field).collect()
    }

    const KINDS: [SketchKind; 4] = [
        SketchKind::Buckets(Shape::Linear),
        SketchKind::Distinct,
        SketchKind::Top,
        SketchKind::Series,
    ];

    /// What one key and pane has gathered: readings, stats and sketches.
    type Gathered = (u64, Vec<Stats>, Vec<Sketch>);

    fn nothing(fields: usize) -> Gathered {
        (
            0,
            alloc::vec![Stats::IDENTITY; fields],
            empty_row(KINDS.into_iter()),
        )
    }

    fn points(value: i64) -> [Point; 4] {
        let (register, rank) = mark_of(hash(&value.to_le_bytes()));
        let number = (value + 100) as u32;
        let top = hash(&number.to_le_bytes()) & !u64::from(u32::MAX) | u64::from(number);
        let point = |sketch, key, count| Point {
            sketch,
            level: 0,
            key,
            count,
            value: Value::ZERO,
        };
        [
            point(0, value, 1),
            point(1, i64::from(register), u32::from(rank)),
            point(2, top.cast_signed(), 1),
            Point {
                value: Value::from_units(i128::from(value)).unwrap(),
                ..point(3, value % 7, 1)
            },
        ]
    }

    fn sketch(kind: SketchKind, drained: Drained<'_>) -> Sketch {
        let entries = drained.entries.iter().copied();
        match kind {
            SketchKind::Buckets(shape) => {
                Sketch::Buckets(Buckets::from_unsorted(shape, drained.level, entries.collect()))
            }
            SketchKind::Distinct => {
                let marks = entries.map(|(register, rank)| (register as u16, rank as u8));
                Sketch::Distinct(Registers::from_unsorted(marks))
            }
            SketchKind::Top => {
                let counters = entries.map(|(key, count)| Counter::new(&(key as u32).to_le_bytes(), count));
                Sketch::Top(Counters::from_unsorted(counters.collect(), drained.others))
            }
            SketchKind::Series => Sketch::Series(Series::from_unsorted(drained.points.to_vec())),
        }
    }

    /// Lifts readings with whatever early emissions a full table forces, and merges all deltas: the result must equal
    /// what one unbounded map holds. Every second pipeline has sketches.
    fn suite<T, C, B>(mut panes: PaneTable<T, C, B>, readings: &[(u16, i64, u32, i64)])
    where
        T: Table<PaneKey, PaneEntry>,
        C: AsRef<[Cell]> + AsMut<[Cell]>,
        B: AsRef<[Block]> + AsMut<[Block]>,
    {
        let mut merged: BTreeMap<PaneKey, Gathered> = BTreeMap::new();
        let mut expected = merged.clone();
        let collect =
            |merged: &mut BTreeMap<PaneKey, Gathered>, panes: &mut PaneTable<T, C, B>, key: PaneKey| {
                let mut delta = nothing(0);
                let (stats, sketches) = (&mut delta.1, &mut delta.2);
                let taken = panes
                    .take(
                        &key,
                        |field| stats.push(*field),
                        |place, drained| sketches[place] = sketch(KINDS[place], drained),
                    )
                    .unwrap();
                let held = merged.entry(key).or_insert_with(|| nothing(delta.1.len()));
                held.0 += taken.readings;
                held.1
                    .iter_mut()
                    .zip(&delta.1)
                    .for_each(|(held, more)| held.merge(more));
                merge_rows(&mut held.2, &delta.2, KINDS.into_iter());
            };
        for &(pipeline, pane, key, value) in readings {
            let fields = fields(1 + usize::from(pipeline));
            let width = Width {
                fields: fields.len(),
                sketches: if pipeline % 2 == 1 { KINDS.len() } else { 0 },
            };
            let pane_key = PaneKey {
                pipeline,
                pane: Timestamp::clamped(pane * 10),
                key,
            };
            let at = Timestamp::clamped(pane * 10 + 1);
            let values = alloc::vec![Value::from_units(i128::from(value)); fields.len()];
            let slot = loop {
                let open = panes.find(&pane_key);
                let open = open.map_or_else(|| panes.open(pane_key, width, 0), Ok);
                match open {
                    Ok(slot) if panes.has_room(width.sketches) => break slot,
                    _ => {
                        let coldest = panes.coldest(|_| true).unwrap();
                        collect(&mut merged, &mut panes, coldest);
                    }
                }
            };
            assert!(panes.is_at(slot, &pane_key));
            panes.lift(slot, at, &fields, &values);
            let points = &points(value)[..width.sketches];
            panes.lift_sketches(slot, &KINDS, points, |_, _| {}).unwrap();
            let held = expected.entry(pane_key).or_insert_with(|| nothing(fields.len()));
            held.0 += 1;
            for (stats, value) in held.1.iter_mut().zip(&values) {
                stats.lift(Components::STATS, at, value.unwrap());
            }
            for point in points {
                let more = sketch(
                    KINDS[usize::from(point.sketch)],
                    Drained {
                        level: 0,
                        others: 0,
                        entries: &[(point.key, u64::from(point.count))],
                        points: &[SeriesPoint {
                            at: Timestamp::clamped(point.key),
                            value: point.value,
                        }],
                        is_too_long: false,
                    },
                );
                held.2[usize::from(point.sketch)].merge(KINDS[usize::from(point.sketch)], &more);
            }
        }
        for key in panes.keys().collect::<Vec<_>>() {
            collect(&mut merged, &mut panes, key);
        }
        assert_eq!(merged, expected);
        assert!(panes.is_empty());
        assert_eq!(panes.vacant_cells, panes.cells.as_ref().len());
        assert_eq!(panes.pool.vacant(), panes.pool.blocks());
    }

    proptest! {
        #[test]
        fn any_early_emission_gives_the_same_answer(
            readings in prop::collection::vec((0_u16..3, 0_i64..3, 0_u32..8, -100_i64..100), 0..300),
        ) {
            let blocks = alloc::vec![Block::VACANT; 20];
            suite(PaneTable::new(FixedTable::new(8, 7), alloc::vec![Cell::VACANT; 12], blocks), &readings);
            let blocks = [Block::VACANT; 12];
            suite(PaneTable::new(FnvIndexMap::<_, _, 8>::new(), [Cell::VACANT; 12], blocks), &readings);
        }
    }

    #[test]
    fn cold_entries_leave_before_busy_ones() {
        let fields = fields(1);
        let mut panes = PaneTable::new(FixedTable::new(4, 7), alloc::vec![Cell::VACANT; 4], []);
        let key = |key| PaneKey {
            pipeline: 0,
            pane: Timestamp::clamped(0),
            key,
        };
        for number in 0..4 {
            panes
                .open(
                    key(number),
                    Width {
                        fields: 1,
                        sketches: 0,
                    },
                    0,
                )
                .unwrap();
        }
        let first = panes.coldest(|_| true).unwrap();
        assert_eq!(
            first,
            key(0),
            "all were touched once: the hand takes the first after a round"
        );
        let busy = panes.find(&key(1)).unwrap();
        panes.lift(busy, Timestamp::clamped(1), &fields, &[Some(Value::ZERO)]);
        assert_eq!(
            panes.coldest(|_| true),
            Some(key(2)),
            "the busy one is passed over"
        );
    }
}
