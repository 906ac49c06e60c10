//! Open panes with their keys, within one memory budget.
//!
//! The budget is split once, when a plan starts: so many entries, each with its share of cells, key bytes and index;
//! with sketches in the plan, one half is for these, and the other for blocks of sketches and the texts of top lists.
//! Nothing here grows afterwards. When something is full, [`OpenPanes::emit_early`] sends the coldest entries on their
//! way as early deltas, which costs bytes and never readings. A pipeline with a budget of its own makes room among its
//! own entries alone, so that a query with too many keys does not cut the others' panes up.

mod hand_out;

use catchment_common::limits::{BATCH_DELTAS_MAX, KEY_BYTES_MAX, SECTION_WEIGHT_TARGET};
use catchment_common::number::decimal::Value;
use catchment_common::plan::{Pipeline, PipelineId};
use catchment_common::sketch::Sketch;
use catchment_common::sketch::pool::{Block, Point, Use, blocks_to_open};
use catchment_common::stats::Stats;
use catchment_common::table::fixed::{FixedTable, Full, Slot};
use catchment_common::table::interner::{Interner, KeyId};
use catchment_common::table::pane::{
    Cell, KEY_BYTES_TYPICAL, PaneEntry, PaneKey, PaneTable, Width, entry_bytes,
};
use catchment_common::time::Timestamp;
use catchment_common::wire::Section;

use crate::aggregate::sketches::{Returning, SketchPlan, TagValues};

/// One part in so many leaves when the table is full: large enough to make good batches, small enough to keep most
/// entries gathering.
const SPILL_PART: usize = 16;

/// One part in so many of the memory for sketches is for texts, if there are top lists.
const TEXTS_PART: usize = 4;

type Table = PaneTable<FixedTable<PaneKey, PaneEntry>, Box<[Cell]>, Box<[Block]>>;

/// Open partials of all pipelines.
#[derive(Debug)]
pub struct OpenPanes {
    keys: Interner,
    table: Table,
    plans: Vec<SketchPlan>,
    /// One for each pipeline.
    shares: Vec<Share>,
    texts: Interner,
    points: Vec<Point>,
    selected: Vec<PaneKey>,
    section: Section,
}

/// How much of the table one pipeline has.
#[derive(Clone, Copy, Debug)]
struct Share {
    open: usize,
    /// So many partials are in its budget.
    most: usize,
}

impl Share {
    fn new(pipeline: &Pipeline, capacity: usize) -> Self {
        let budget = pipeline.memory.map_or(usize::MAX, |bytes| {
            usize::try_from(bytes).unwrap_or(usize::MAX) / entry_bytes(pipeline.fields.len())
        });
        Self {
            open: 0,
            most: budget.clamp(1, capacity),
        }
    }

    fn is_full(self) -> bool {
        self.open >= self.most
    }
}

/// One reading, as far as its partial is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'r> {
    /// Its event time.
    pub at: Timestamp,
    /// For each field of the pipeline its value, if it is there.
    pub values: &'r [Option<Value>],
    /// The pipeline's watched tags.
    pub tags: &'r TagValues,
}

/// What a partial held that has left the table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Partial {
    /// How many readings.
    pub readings: u64,
    /// One for each field.
    pub stats: Vec<Stats>,
    /// One for each sketch of the pipeline.
    pub sketches: Vec<Sketch>,
}

/// Moves rows into a section that was begun for them, until it is as large as merged sections are made.
pub(crate) fn fill(section: &mut Section, rows: &mut impl Iterator<Item = (Box<[u8]>, Partial)>) {
    let mut weight = 0;
    while section.rows() < BATCH_DELTAS_MAX / 4 && weight < SECTION_WEIGHT_TARGET {
        let Some((key, partial)) = rows.next() else { break };
        weight += partial.sketches.iter().map(Sketch::weight).sum::<usize>();
        section.keys.push(&key);
        section.readings.push(partial.readings);
        section.stats.extend(partial.stats);
        section.sketches.extend(partial.sketches);
    }
}

/// Where a reading belongs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'k> {
    /// The pipeline's index in the running plan.
    pub pipeline: u16,
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
    pub(crate) fn pane_key(&self, key: KeyId) -> PaneKey {
        PaneKey {
            pipeline: self.pipeline,
            pane: self.pane,
            key,
        }
    }
}

impl OpenPanes {
    /// Takes `memory_bytes` for partials of these pipelines. `seed` should be random.
    pub fn new(memory_bytes: usize, pipelines: &[(PipelineId, Pipeline)], seed: u64) -> Self {
        let widest = pipelines.iter().map(|(_, pipeline)| pipeline.fields.len()).max();
        let fields = widest.unwrap_or(1);
        let plans: Vec<SketchPlan> = pipelines
            .iter()
            .map(|(_, pipeline)| SketchPlan::new(pipeline))
            .collect();
        let sketches = plans.iter().map(|plan| plan.kinds.len()).max().unwrap_or(0);
        let tops = plans.iter().map(SketchPlan::tops).max().unwrap_or(0);
        let for_sketches = if sketches == 0 { 0 } else { memory_bytes / 2 };
        let for_texts = if tops == 0 { 0 } else { for_sketches / TEXTS_PART };
        let capacity = ((memory_bytes - for_sketches) / entry_bytes(fields)).max(1);
        // One partial and one reading always fit.
        let blocks = ((for_sketches - for_texts) / size_of::<Block>()).max(blocks_to_open(sketches));
        let texts = (for_texts / (Interner::entry_bytes() + KEY_BYTES_TYPICAL)).max(2 * tops);
        let blocks = if sketches == 0 { 0 } else { blocks };
        Self {
            keys: Interner::new(
                capacity,
                (capacity * KEY_BYTES_TYPICAL).max(2 * KEY_BYTES_MAX),
                seed,
            ),
            table: PaneTable::new(
                FixedTable::new(capacity, seed.rotate_left(32)),
                vec![Cell::VACANT; (capacity * fields).max(fields)].into_boxed_slice(),
                vec![Block::VACANT; blocks].into_boxed_slice(),
            ),
            plans,
            shares: pipelines
                .iter()
                .map(|(_, pipeline)| Share::new(pipeline, capacity))
                .collect(),
            texts: Interner::new(
                texts,
                (texts * KEY_BYTES_TYPICAL).max(4 * tops * KEY_BYTES_MAX),
                seed.rotate_left(48),
            ),
            points: Vec::with_capacity(sketches),
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

    /// Lifts a reading; returns its key's number. A partial that has to be opened for it remembers `mark`. When there
    /// is no room nothing has changed; make room and try again.
    #[inline]
    pub fn lift(
        &mut self,
        place: Place<'_>,
        pipeline: &Pipeline,
        reading: Measured<'_>,
        mark: u16,
    ) -> Result<Lifted, Full> {
        if !self.plans[usize::from(place.pipeline)].is_empty() {
            return self.lift_with_sketches(place, pipeline, reading, mark);
        }
        let (slot, lifted) = self.find_or_open(place, pipeline.fields.len(), mark)?;
        self.table
            .lift(slot, reading.at, &pipeline.fields, reading.values);
        Ok(lifted)
    }

    fn lift_with_sketches(
        &mut self,
        place: Place<'_>,
        pipeline: &Pipeline,
        reading: Measured<'_>,
        mark: u16,
    ) -> Result<Lifted, Full> {
        let plan = usize::from(place.pipeline);
        self.points.clear();
        let result = self.plans[plan]
            .points(
                reading.at,
                reading.values,
                reading.tags,
                &mut self.texts,
                &mut self.points,
            )
            .and_then(|()| self.find_or_open(place, pipeline.fields.len(), mark))
            .and_then(|(slot, lifted)| {
                if !self.table.has_room(self.points.len()) {
                    return Err(Full);
                }
                self.table
                    .lift(slot, reading.at, &pipeline.fields, reading.values);
                let Self {
                    table,
                    plans,
                    texts,
                    points,
                    ..
                } = self;
                table.lift_sketches(slot, &plans[plan].kinds, points, |id, change| {
                    use_text(texts, id, change);
                })?;
                Ok(lifted)
            });
        self.plans[plan].release(&mut self.texts, &self.points);
        result
    }

    /// Where a partial is open, or is opened now.
    #[inline]
    fn find_or_open(&mut self, place: Place<'_>, fields: usize, mark: u16) -> Result<(Slot, Lifted), Full> {
        let known = self.keys.find(place.key);
        if let Some(key) = known {
            let pane_key = place.pane_key(key);
            // Most readings find their partial where the key's last one did.
            let hint = self.keys.hint(key);
            if self.table.is_at(hint, &pane_key) {
                return Ok((hint, Lifted { key, is_new: false }));
            }
            if let Some(slot) = self.table.find(&pane_key) {
                self.keys.set_hint(key, slot);
                return Ok((slot, Lifted { key, is_new: false }));
            }
        }
        let (slot, key) = self.open(place, known, fields, mark)?;
        let is_new = known.is_none();
        Ok((slot, Lifted { key, is_new }))
    }

    /// Merges a partial that was taken out before back in, or opens it again. When there is no room nothing has
    /// changed.
    pub fn absorb(&mut self, place: Place<'_>, partial: &Partial, mark: u16) -> Result<(), Full> {
        let needed: usize = partial.sketches.iter().map(Sketch::entries).sum();
        if !self
            .table
            .has_room(needed + blocks_to_open(partial.sketches.len()))
        {
            return Err(Full);
        }
        let mut sketches: Vec<Returning> = Vec::with_capacity(partial.sketches.len());
        for sketch in &partial.sketches {
            let Ok(returning) = Returning::new(sketch, &mut self.texts) else {
                for held in &sketches {
                    held.release(&mut self.texts);
                }
                return Err(Full);
            };
            sketches.push(returning);
        }
        let known = self.keys.find(place.key);
        let open = known.and_then(|key| self.table.find(&place.pane_key(key)));
        let slot = match open {
            Some(slot) => Ok(slot),
            None => self
                .open(place, known, partial.stats.len(), mark)
                .map(|(slot, _)| slot),
        };
        let Self {
            table, plans, texts, ..
        } = self;
        let absorbed = slot.and_then(|slot| {
            let kinds = plans[usize::from(place.pipeline)].kinds.iter();
            for (nth, (returning, &kind)) in (0..).zip(sketches.iter().zip(kinds)) {
                table.absorb_sketch(slot, kind, nth, returning.drained(), |id, change| {
                    use_text(texts, id, change);
                })?;
            }
            table.absorb(slot, partial.readings, &partial.stats);
            Ok(())
        });
        for held in &sketches {
            held.release(texts);
        }
        absorbed
    }

    fn open(
        &mut self,
        place: Place<'_>,
        known: Option<KeyId>,
        fields: usize,
        mark: u16,
    ) -> Result<(Slot, KeyId), Full> {
        let share = &mut self.shares[usize::from(place.pipeline)];
        if share.is_full() {
            return Err(Full);
        }
        let key = match known {
            Some(key) => key,
            None => self.keys.insert(place.key)?,
        };
        self.keys.retain(key);
        let width = Width {
            fields,
            sketches: self.plans[usize::from(place.pipeline)].kinds.len(),
        };
        let opened = self.table.open(place.pane_key(key), width, mark);
        match opened {
            Ok(slot) => {
                share.open += 1;
                self.keys.set_hint(key, slot);
            }
            Err(Full) => self.keys.release(key),
        }
        opened.map(|slot| (slot, key))
    }

    /// Closes the partials that `is_due` selects by place and mark: hands them to `sink` as sections with their
    /// pipeline's index, in the order of pipeline, pane and key, and frees their room.
    pub fn close(
        &mut self,
        pipelines: &[(PipelineId, Pipeline)],
        is_due: impl Fn(&PaneKey, u16) -> bool,
        mut sink: impl FnMut(u16, &Section),
    ) {
        self.close_panes(pipelines, is_due, |index, section, _| sink(index, section));
    }

    /// The same, and says with each section whether it is the last of its pane.
    pub fn close_panes(
        &mut self,
        pipelines: &[(PipelineId, Pipeline)],
        is_due: impl Fn(&PaneKey, u16) -> bool,
        sink: impl FnMut(u16, &Section, bool),
    ) {
        self.selected.clear();
        let due = self.table.marks().filter(|(key, mark)| is_due(key, *mark));
        self.selected.extend(due.map(|(key, _)| key));
        self.hand_out_panes(pipelines, sink);
    }

    /// Closes one partial, if it is open.
    pub fn close_one(
        &mut self,
        pipelines: &[(PipelineId, Pipeline)],
        place: Place<'_>,
        sink: impl FnMut(u16, &Section),
    ) {
        self.selected.clear();
        if let Some(key) = self.keys.find(place.key) {
            let pane_key = place.pane_key(key);
            self.selected.extend(self.table.find(&pane_key).map(|_| pane_key));
        }
        self.hand_out(pipelines, sink);
    }

    /// Closes these partials, as far as they are open.
    pub fn close_each(
        &mut self,
        pipelines: &[(PipelineId, Pipeline)],
        keys: &[PaneKey],
        sink: impl FnMut(u16, &Section),
    ) {
        let Self { selected, table, .. } = self;
        selected.clear();
        selected.extend(keys.iter().filter(|key| table.find(key).is_some()));
        // One that has left, and whose key's number came to mean another key of the same window, stands twice.
        selected.sort_unstable();
        selected.dedup();
        self.hand_out(pipelines, sink);
    }

    /// Where all open partials are.
    pub fn places(&self) -> impl Iterator<Item = PaneKey> {
        self.table.keys()
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

    /// Closes the coldest partials to make room for a reading of this pipeline; returns how many. If its budget is full
    /// they are its own.
    pub fn emit_early(
        &mut self,
        pipelines: &[(PipelineId, Pipeline)],
        pipeline: u16,
        sink: impl FnMut(u16, &Section),
    ) -> usize {
        let share = self.shares[usize::from(pipeline)];
        let own = share.is_full();
        let all = if own { share.most } else { self.table.capacity() };
        let Self { selected, table, .. } = self;
        selected.clear();
        let coldest = (0..(all / SPILL_PART).max(1))
            .map_while(|_| table.coldest(|key| !own || key.pipeline == pipeline));
        selected.extend(coldest);
        // The hand moves on with each call, but may come round.
        selected.sort_unstable();
        selected.dedup();
        let count = selected.len();
        self.hand_out(pipelines, sink);
        count
    }
}

fn use_text(texts: &mut Interner, id: KeyId, change: Use) {
    match change {
        Use::Begins => texts.retain(id),
        Use::Ends => texts.release(id),
    }
}
