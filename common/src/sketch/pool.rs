//! Sketches of open panes, in fixed blocks of memory that is taken at the start and never grows.
//!
//! A block is 64 bytes, one cache line, and is one of four things:
//!
//! ```text
//! heads     := (root  meta  others: 2 words) × 3   next  unused × 3      the sketches of one partial
//! leaf      := (key: 2 words  count) × 5           next                  entries, in no order; a count of 0 is vacant
//! directory := root × 16                                                 leaves, chained by the entry's key
//! log       := points, packed                           next             those of a series; see [`log`]
//! ```
//!
//! A sketch begins as a chain of leaves, which is searched from the front; with more than some tens of entries it gets
//! a directory, so that a search stays short. Which of the two it is, and in what order entries lie, depends on history
//! and on how much room there was; it never shows, because entries are sorted when they leave. Bounds that do show (the
//! level of a histogram, which values a top list counts) follow the rules of the canonical state.

mod log;

mod reshape;

use alloc::vec::Vec;

use super::{Bucket, SeriesPoint, SketchKind};
use crate::limits::{SKETCHES_MAX, TOP_VALUES_MAX};
use crate::number::decimal::Value;
use crate::table::fixed::Full;
use crate::time::Timestamp;

const WORDS: usize = 16;
const END: u32 = u32::MAX;
/// Entries of a leaf.
const LEAF: usize = 5;
/// Words of an entry.
const ENTRY: usize = 3;
/// Where a leaf's chain goes on.
const LEAF_NEXT: usize = LEAF * ENTRY;
/// Sketches of a block of heads.
const HEADS: usize = 3;
const HEAD: usize = 4;
const HEADS_NEXT: usize = HEADS * HEAD;
/// More entries than this get a directory.
const CHAIN_MAX: u32 = 40;
/// Vacant blocks for a directory: itself, a leaf begun in each of its chains, and one for each other sketch that the
/// same reading goes into.
const DIRECTORY_ROOM: usize = 1 + WORDS + SKETCHES_MAX;
/// A top list holds this number of counters before it drops those that the canonical state does not keep.
const COUNTERS_MAX: u32 = 2 * TOP_VALUES_MAX as u32;

/// What happens to the values of top lists: their numbers must be kept, or can be freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// A list counts the value from now on.
    Begins,
    /// A list has forgotten it.
    Ends,
}

/// A piece of the pool's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block([u32; WORDS]);

impl Block {
    /// A block not in use.
    pub const VACANT: Self = Self([END; WORDS]);
}

/// What a reading does to one sketch: an entry's key, and what it adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    /// The sketch's place among those of its partial.
    pub sketch: u8,
    /// The level that a histogram needs for this bucket.
    pub level: u8,
    /// The bucket; the register; a value's number in the lower half and its hash's upper half in the upper; or the
    /// event time of a series' point, in microseconds.
    pub key: i64,
    /// The register's rank; otherwise 1.
    pub count: u32,
    /// The value of a series' point; otherwise 0.
    pub value: Value,
}

/// The entries of a sketch that leaves the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drained<'p> {
    /// A histogram's level.
    pub level: u8,
    /// A top list's values without a counter.
    pub others: u64,
    /// Keys and counts, ascending.
    pub entries: &'p [Bucket],
    /// The points of a series, in no order, some perhaps twice.
    pub points: &'p [SeriesPoint],
    /// Whether a series has had more points than it may have, and keeps none.
    pub is_too_long: bool,
}

/// The head of a sketch, taken apart.
#[derive(Clone, Copy)]
struct Head {
    root: u32,
    entries: u32,
    level: u8,
    has_directory: bool,
    has_log: bool,
    others: u64,
}

/// Where a head is.
#[derive(Clone, Copy)]
struct HeadAt {
    block: u32,
    word: usize,
}

/// The pool; generic over where its memory is.
#[derive(Debug)]
pub struct Pool<B> {
    blocks: B,
    vacant: u32,
    vacant_count: usize,
    drained: Vec<Bucket>,
    drained_points: Vec<SeriesPoint>,
}

/// Blocks that a partial with this number of sketches takes when each of them has seen one value.
pub const fn blocks_to_open(sketches: usize) -> usize {
    sketches.div_ceil(HEADS) + sketches
}

impl<B: AsRef<[Block]> + AsMut<[Block]>> Pool<B> {
    /// A pool in these blocks.
    pub fn new(mut blocks: B) -> Self {
        let all = blocks.as_mut();
        let count = all.len().min(END as usize);
        for (index, block) in all.iter_mut().enumerate() {
            block.0[0] = if index + 1 < count { index as u32 + 1 } else { END };
        }
        Self {
            blocks,
            vacant: if count == 0 { END } else { 0 },
            vacant_count: count,
            drained: Vec::new(),
            drained_points: Vec::new(),
        }
    }

    /// How many blocks are not in use.
    #[inline]
    pub fn vacant(&self) -> usize {
        self.vacant_count
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.blocks.as_ref().len()
    }

    /// Opens `count` empty sketches; returns their first block, or [`u32::MAX`] if `count` is 0.
    pub fn open(&mut self, sketches: usize) -> Result<u32, Full> {
        if self.vacant_count < sketches.div_ceil(HEADS) {
            return Err(Full);
        }
        let mut first = END;
        for _ in 0..sketches.div_ceil(HEADS) {
            let index = self.give()?;
            let block = &mut self.blocks.as_mut()[index as usize].0;
            for head in 0..HEADS {
                block[head * HEAD..(head + 1) * HEAD].copy_from_slice(&[END, 0, 0, 0]);
            }
            block[HEADS_NEXT] = first;
            first = index;
        }
        Ok(first)
    }

    /// Takes a value into one of the sketches that begin at `first`. Needs a vacant block. `used` is told of the
    /// numbers of values that a top list counts from now on or forgets.
    #[inline]
    pub fn lift(
        &mut self,
        first: u32,
        kind: SketchKind,
        point: Point,
        used: &mut impl FnMut(u32, Use),
    ) -> Result<(), Full> {
        let at = self.head_at(first, usize::from(point.sketch));
        let mut head = self.head(at);
        if kind == SketchKind::Series {
            let series_point = SeriesPoint {
                at: Timestamp::clamped(point.key),
                value: point.value,
            };
            let result = self.append_point(&mut head, series_point);
            self.set_head(at, head);
            return result;
        }
        let mut key = point.key;
        if let SketchKind::Buckets(shape) = kind {
            if point.level > head.level {
                let up = point.level - head.level;
                self.rebuild(&mut head, |held, _| Some(shape.raise(held, up)));
                head.level = point.level;
            }
            key = shape.raise(key, head.level - point.level);
        }
        let entries = head.entries;
        let result = self.insert(&mut head, key, point.count, kind == SketchKind::Distinct);
        if head.entries > entries {
            match kind {
                SketchKind::Top => {
                    used(key as u32, Use::Begins);
                    if head.entries > COUNTERS_MAX {
                        self.prune(&mut head, used);
                    }
                }
                SketchKind::Buckets(shape) => self.raise_until_fit(&mut head, shape),
                SketchKind::Distinct | SketchKind::Series => {}
            }
            self.add_directory(&mut head);
        }
        self.set_head(at, head);
        result
    }

    /// Takes `count` values of one bucket, register or counter in, as they were drained from another partial. A level
    /// below that of the sketch is raised, one above raises the sketch.
    pub fn absorb(
        &mut self,
        first: u32,
        kind: SketchKind,
        point: Point,
        count: u64,
        used: &mut impl FnMut(u32, Use),
    ) -> Result<(), Full> {
        let mut rest = count;
        while rest > 0 {
            let part = rest.min(u64::from(u32::MAX)) as u32;
            self.lift(first, kind, Point { count: part, ..point }, used)?;
            rest -= u64::from(part);
        }
        Ok(())
    }

    /// Counts values of a top list that have no counter.
    pub fn absorb_others(&mut self, first: u32, sketch: u8, others: u64) {
        let at = self.head_at(first, usize::from(sketch));
        let mut head = self.head(at);
        head.others = head.others.saturating_add(others);
        self.set_head(at, head);
    }

    /// Makes a series one that has had too many points.
    pub fn absorb_too_long(&mut self, first: u32, sketch: u8) {
        let at = self.head_at(first, usize::from(sketch));
        let mut head = self.head(at);
        self.give_up(&mut head);
        self.set_head(at, head);
    }

    /// Takes the sketches that begin at `first` out, of which there are so many, handing each to `visit` in order, and
    /// frees their blocks.
    pub fn close(&mut self, first: u32, sketches: usize, mut visit: impl FnMut(usize, Drained<'_>)) {
        let mut drained = core::mem::take(&mut self.drained);
        let mut points = core::mem::take(&mut self.drained_points);
        for sketch in 0..sketches {
            let mut head = self.head(self.head_at(first, sketch));
            drained.clear();
            points.clear();
            if head.has_log {
                self.take_points(&mut head, |point| points.push(point));
                head.others = 0;
            }
            let mut next = self.unchain(head);
            while next != END {
                let leaf = self.blocks.as_ref()[next as usize].0;
                drained.extend(entries_of(&leaf).map(|(key, count)| (key, u64::from(count))));
                self.free(next);
                next = leaf[LEAF_NEXT];
            }
            // One entry for each key, whatever its count.
            drained.sort_unstable();
            drained.dedup_by(|more, held| {
                let same = more.0 == held.0;
                if same {
                    held.1 += more.1;
                }
                same
            });
            visit(
                sketch,
                Drained {
                    level: head.level,
                    others: head.others,
                    entries: &drained,
                    points: &points,
                    is_too_long: head.has_log && head.level == log::TOO_LONG,
                },
            );
        }
        self.drained = drained;
        self.drained_points = points;
        let mut next = first;
        while next != END {
            let block = next;
            next = self.blocks.as_ref()[block as usize].0[HEADS_NEXT];
            self.free(block);
        }
    }

    fn head_at(&self, first: u32, sketch: usize) -> HeadAt {
        let mut block = first;
        for _ in 0..sketch / HEADS {
            block = self.blocks.as_ref()[block as usize].0[HEADS_NEXT];
        }
        HeadAt {
            block,
            word: sketch % HEADS * HEAD,
        }
    }

    #[inline]
    fn head(&self, at: HeadAt) -> Head {
        let words = &self.blocks.as_ref()[at.block as usize].0[at.word..at.word + HEAD];
        Head {
            root: words[0],
            entries: words[1] >> 16,
            level: (words[1] >> 8) as u8,
            has_directory: words[1] & 1 == 1,
            has_log: words[1] & 2 == 2,
            others: u64::from(words[2]) | u64::from(words[3]) << 32,
        }
    }

    #[inline]
    fn set_head(&mut self, at: HeadAt, head: Head) {
        let forms = u32::from(head.has_directory) | u32::from(head.has_log) << 1;
        let meta = head.entries << 16 | u32::from(head.level) << 8 | forms;
        let others = [head.others as u32, (head.others >> 32) as u32];
        let words = &mut self.blocks.as_mut()[at.block as usize].0[at.word..at.word + HEAD];
        words.copy_from_slice(&[head.root, meta, others[0], others[1]]);
    }

    fn give(&mut self) -> Result<u32, Full> {
        let index = self.vacant;
        let block = self.blocks.as_ref().get(index as usize).ok_or(Full)?;
        self.vacant = block.0[0];
        self.vacant_count -= 1;
        Ok(index)
    }

    fn free(&mut self, index: u32) {
        self.blocks.as_mut()[index as usize].0[0] = self.vacant;
        self.vacant = index;
        self.vacant_count += 1;
    }

    /// Adds to the entry with this key, or makes one.
    #[inline]
    fn insert(&mut self, head: &mut Head, key: i64, count: u32, is_maximum: bool) -> Result<(), Full> {
        let (low, high) = (key as u32, (key >> 32) as u32);
        let first = self.chain(*head, key);
        let blocks = self.blocks.as_mut();
        let mut next = first;
        let mut is_known = false;
        while let Some(Block(leaf)) = blocks.get_mut(next as usize) {
            for at in (0..LEAF_NEXT).step_by(ENTRY) {
                if leaf[at] == low && leaf[at + 1] == high && leaf[at + 2] > 0 {
                    if is_maximum {
                        leaf[at + 2] = leaf[at + 2].max(count);
                        return Ok(());
                    }
                    if let Some(sum) = leaf[at + 2].checked_add(count) {
                        leaf[at + 2] = sum;
                        return Ok(());
                    }
                    // A count of 2³²: the key gets another entry, and they are added up when they leave.
                    is_known = true;
                }
            }
            next = leaf[LEAF_NEXT];
        }
        self.append(head, first, key, count)?;
        head.entries += u32::from(!is_known);
        Ok(())
    }

    /// Makes an entry in the chain that begins at `first`. Only its first leaf can have a vacant place.
    fn append(&mut self, head: &mut Head, first: u32, key: i64, count: u32) -> Result<(), Full> {
        let words = [key as u32, (key >> 32) as u32, count];
        if let Some(Block(leaf)) = self.blocks.as_mut().get_mut(first as usize)
            && let Some(at) = (0..LEAF_NEXT).step_by(ENTRY).find(|at| leaf[at + 2] == 0)
        {
            leaf[at..at + ENTRY].copy_from_slice(&words);
            return Ok(());
        }
        let index = self.give()?;
        let mut leaf = [0; WORDS];
        leaf[..ENTRY].copy_from_slice(&words);
        leaf[LEAF_NEXT] = first;
        self.blocks.as_mut()[index as usize].0 = leaf;
        if head.has_directory {
            self.blocks.as_mut()[head.root as usize].0[place(key)] = index;
        } else {
            head.root = index;
        }
        Ok(())
    }

    #[inline]
    fn chain(&self, head: Head, key: i64) -> u32 {
        if head.has_directory {
            self.blocks.as_ref()[head.root as usize].0[place(key)]
        } else {
            head.root
        }
    }

    /// Joins the chains of a directory, which is freed; returns the first leaf.
    fn unchain(&mut self, head: Head) -> u32 {
        if !head.has_directory {
            return head.root;
        }
        let roots = self.blocks.as_ref()[head.root as usize].0;
        let mut first = END;
        for root in roots.into_iter().filter(|&root| root != END) {
            let mut last = root;
            loop {
                let next = self.blocks.as_ref()[last as usize].0[LEAF_NEXT];
                if next == END {
                    break;
                }
                last = next;
            }
            self.blocks.as_mut()[last as usize].0[LEAF_NEXT] = first;
            first = root;
        }
        self.free(head.root);
        first
    }
}

/// The entries of a leaf.
#[inline]
fn entries_of(leaf: &[u32; WORDS]) -> impl Iterator<Item = (i64, u32)> + use<'_> {
    leaf[..LEAF_NEXT]
        .chunks_exact(ENTRY)
        .filter(|entry| entry[2] > 0)
        .map(|entry| {
            (
                (u64::from(entry[0]) | u64::from(entry[1]) << 32).cast_signed(),
                entry[2],
            )
        })
}

/// The chain of a directory that a key belongs to.
#[inline]
fn place(key: i64) -> usize {
    (key.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize
}
