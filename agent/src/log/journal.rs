//! The write-ahead log of readings: what is in it counts, whatever happens to the process.
//!
//! ```text
//! segment := group …                     one file; its first record is a snapshot
//! group   := length:u32 crc32c:u32 body  one write and one sync: a group commit
//! body    := record …                    see [`record`]
//! ```
//!
//! A reading is written as what was made of it (pipeline, key, event time, exact values), not as it came: that is a few
//! bytes rather than a payload, and replaying it is one call of the same code that lifted it. Keys are written once per
//! segment and named by number. When panes close, one small record says so; the deltas themselves go to the spool in
//! the same job, and the record names the spool's last number. So at a start each reading is in exactly one of three
//! places: in a batch of the spool, in an open pane again, or (never acknowledged) still with the broker.
//!
//! A segment is dropped once nothing in it is needed: all its readings are in batches, and no message in it can be
//! delivered again. When the journal nears its budget, the partials that hold its oldest segment leave early; and no
//! message is taken while its readings might not fit. So the files stay within the budget at every step, as long as a plan
//! and the tables that are carried on fit one segment, and no message needs more than a segment and more than any before it.

mod context;

mod extent;

mod groups;

pub mod record;

mod replay;

mod snapshot;

pub mod sources;

use std::collections::VecDeque;

use catchment_common::limits::FIELDS_MAX;
use catchment_common::number::decimal::Value;
use catchment_common::plan::PipelineField;
use catchment_common::table::interner::KeyId;
use catchment_common::time::Timestamp;
use catchment_common::wire::cursor::put_varint;

use self::context::PipelineNames;
use self::extent::Extent;
use self::record::{put_tag, put_time, put_value};
use self::sources::Kept;
use crate::aggregate::count_windows::Window;
use crate::aggregate::sketches::TagValues;
use crate::log::disk::frame;
use crate::metrics::Metrics;
use crate::source::SourceId;
use crate::source::dedupe::{Numbers, Place};

pub use self::context::Context;
pub use self::groups::Told;
pub use self::replay::{Replayed, Segments};
pub use self::snapshot::Snapshot;

/// Bytes that a group may gather, of a small journal one part in [`SEGMENTS_MAX`]; with more, no message is taken until
/// some of it is durable.
const GROUP_BYTES_MAX: u64 = 1 << 20;
/// A journal has at most so many segments before its oldest partials must leave.
const SEGMENTS_MAX: u32 = 8;
/// Smallest segment.
const SEGMENT_BYTES_MIN: u64 = 32 << 10;

/// A group that has ended. The job marks it before it is framed: only then is it known where in the spool its batches
/// are.
#[derive(Debug)]
struct Ended {
    segment: u32,
    bytes: Vec<u8>,
    cut: Cut,
}

/// What belongs to a group that has ended, and to those before it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cut {
    /// The first place in the spool whose batch came later.
    pub until: u64,
    /// Messages that were taken.
    pub taken: u64,
    /// What was noted of sources.
    pub noted: u64,
}

/// The log being written.
#[derive(Debug)]
pub struct Journal {
    /// Whether readings are written at all.
    enabled: bool,
    budget: u64,
    segment_bytes: u64,
    segment: u32,
    /// The segments that are kept. The next group that is written goes to the end of the last.
    extent: Extent,
    /// The group in the making: a frame whose body has begun, or nothing.
    group: Vec<u8>,
    body: usize,
    /// Groups that have ended and wait for the next job.
    ended: VecDeque<Ended>,
    ended_bytes: usize,
    last_time: i64,
    /// For each key number the segment that names it.
    named: Box<[u32]>,
    /// For each pipeline and field the scale that its last value was whole at.
    scales: Vec<u8>,
    names: PipelineNames,
    /// Bytes of the snapshot that the segment began with, and of the tables that were last carried on from a segment
    /// that went.
    snapshot_bytes: u64,
    carried_bytes: u64,
    /// Bytes of the message that has taken most of them.
    message_bytes: u64,
}

impl Journal {
    /// A journal of `budget` bytes that begins at `segment`, for key numbers below `keys`, beside the segments that an
    /// earlier run left: their numbers, which follow each other and end before `segment`, and their bytes. A budget of 0
    /// writes nothing.
    pub fn new(budget: u64, left: impl IntoIterator<Item = (u32, u64)>, segment: u32, keys: usize) -> Self {
        Self {
            enabled: budget > 0,
            budget,
            segment_bytes: (budget / u64::from(SEGMENTS_MAX)).max(SEGMENT_BYTES_MIN),
            segment,
            extent: Extent::new(left, segment),
            group: Vec::new(),
            body: 0,
            ended: VecDeque::new(),
            ended_bytes: 0,
            last_time: 0,
            named: vec![0; keys].into_boxed_slice(),
            scales: Vec::new(),
            names: PipelineNames::default(),
            snapshot_bytes: 0,
            carried_bytes: 0,
            message_bytes: 0,
        }
    }

    /// Whether readings are written at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The segment being written.
    #[inline]
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// The oldest segment that is kept.
    pub fn oldest(&self) -> u32 {
        self.extent.oldest()
    }

    /// Bytes that wait for the next job.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.group.len() + self.ended_bytes
    }

    /// Bytes of the files once all that waits is written.
    #[inline]
    fn bytes(&self) -> u64 {
        self.extent.bytes() + self.waiting() as u64
    }

    /// Bytes that a group may gather before no message is taken.
    #[inline]
    fn group_bytes(&self) -> u64 {
        GROUP_BYTES_MAX.min(self.segment_bytes)
    }

    /// Room that is kept for the readings of a message, and for what a segment begins with or carries on.
    #[inline]
    fn reserve(&self) -> u64 {
        self.segment_bytes.max(self.message_bytes) + self.snapshot_bytes + self.carried_bytes
    }

    /// Whether the next message may be taken: its readings have a segment of room beside all that is there, or as much as
    /// the largest message before, with what left the open panes for it, needed. In the only
    /// segment there always is some, so that a plan or tables that are too large for the budget stop nothing.
    #[inline]
    pub fn has_room(&self) -> bool {
        let fits = self.bytes() + self.reserve() <= self.budget || self.oldest() == self.segment;
        !self.enabled || ((self.waiting() as u64) < self.group_bytes() && fits)
    }

    /// Whether so much waits that the next job should not: half of what a group may gather.
    #[inline]
    pub fn is_half_full(&self) -> bool {
        self.enabled && self.waiting() as u64 >= self.group_bytes() / 2
    }

    /// Whether the oldest segment's partials must leave to make room for the next group.
    pub fn is_crowded(&self) -> bool {
        let kept = self.segment - self.oldest();
        let is_full = self.bytes() + self.reserve() + self.group_bytes() > self.budget;
        self.enabled && (kept >= SEGMENTS_MAX - 1 || is_full)
    }

    /// Whether a job would free room although nothing waits for one.
    pub fn can_shrink(&self) -> bool {
        self.is_crowded() && (self.oldest() < self.segment || self.wants_segment())
    }

    /// Whether the next group should begin a segment.
    pub fn wants_segment(&self) -> bool {
        // A segment of little else than its snapshot would be no use, as long as the budget has room for more.
        let least = (4 * self.snapshot_bytes).min(self.budget / 2);
        self.enabled
            && self.extent.newest() == self.segment
            && self.extent.end() >= self.segment_bytes.max(least)
    }

    // Records.

    #[inline]
    fn put(&mut self) -> &mut Vec<u8> {
        if self.group.is_empty() {
            self.body = frame::begin(&mut self.group);
            self.last_time = 0;
        }
        &mut self.group
    }

    /// A QoS 1 message begins: the readings up to the next one are its.
    #[inline]
    pub fn message(&mut self, source: SourceId, id: u16, hash: u32) {
        if self.enabled {
            let out = self.put();
            out.push(record::MESSAGE);
            put_varint(out, source.0.into());
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&hash.to_le_bytes());
        }
    }

    /// A reading was lifted.
    #[inline]
    pub fn reading(
        &mut self,
        pipeline: u16,
        (key, key_bytes): (KeyId, &[u8]),
        at: Timestamp,
        (fields, values): (&[PipelineField], &[Option<Value>]),
        tags: &TagValues,
    ) {
        if !self.enabled {
            return;
        }
        if self.named[key as usize] != self.segment {
            self.named[key as usize] = self.segment;
            let out = self.put();
            out.push(record::KEY);
            put_varint(out, u64::from(key));
            put_varint(out, key_bytes.len() as u64);
            out.extend_from_slice(key_bytes);
        }
        self.put();
        let out = &mut self.group;
        out.push(record::READING);
        put_varint(out, u64::from(pipeline));
        put_varint(out, u64::from(key));
        put_time(out, &mut self.last_time, at);
        let first = usize::from(pipeline) * FIELDS_MAX;
        if self.scales.len() < first + FIELDS_MAX {
            self.scales.resize(first + FIELDS_MAX, 0);
        }
        for ((field, value), scale) in fields.iter().zip(values).zip(&mut self.scales[first..]) {
            put_value(out, *value, field.resolution, scale);
        }
        for tag in tags.iter() {
            put_tag(out, tag);
        }
    }

    /// A key number means another key from now on, or none.
    #[inline]
    pub fn forget_key(&mut self, key: KeyId) {
        if self.enabled {
            self.named[key as usize] = 0;
        }
    }

    /// All partials of a pipeline whose panes end by `watermark` went to the spool.
    pub fn closed(&mut self, pipeline: u16, watermark: Timestamp) {
        if self.enabled {
            let out = self.put();
            out.push(record::CLOSED);
            put_varint(out, u64::from(pipeline));
            out.extend_from_slice(&watermark.as_micros().to_le_bytes());
        }
    }

    /// All partials went to the spool.
    pub fn closed_all(&mut self) {
        if self.enabled {
            self.put().push(record::CLOSED_ALL);
        }
    }

    /// Some partials of one pipeline and pane went to the spool. Each key must have been named in this segment or is
    /// named now.
    pub fn taken<'k>(
        &mut self,
        pipeline: u16,
        pane: Timestamp,
        keys: impl ExactSizeIterator<Item = &'k [u8]>,
    ) {
        if !self.enabled {
            return;
        }
        let out = self.put();
        out.push(record::TAKEN);
        put_varint(out, u64::from(pipeline));
        out.extend_from_slice(&pane.as_micros().to_le_bytes());
        put_varint(out, keys.len() as u64);
        for key in keys {
            put_varint(out, key.len() as u64);
            out.extend_from_slice(key);
        }
    }

    /// What is known of a device that numbers its messages, before its next number.
    pub fn device(&mut self, id: u64, numbers: Numbers, identity: &[u8]) {
        if self.enabled {
            let Numbers {
                place,
                other,
                is_leaping,
            } = numbers;
            let is_settled = other == Place::default() && !is_leaping;
            let out = self.put();
            out.push(if is_settled { record::DEVICE } else { record::LEAPT });
            put_varint(out, id);
            let places = [place, other];
            for Place { last, window } in &places[..=usize::from(!is_settled)] {
                put_varint(out, *last);
                out.extend_from_slice(&window.to_le_bytes());
            }
            if !is_settled {
                out.push(u8::from(is_leaping));
            }
            put_varint(out, identity.len() as u64);
            out.extend_from_slice(identity);
        }
    }

    /// A device's number was taken.
    pub fn sequence(&mut self, device: u64, number: u64) {
        if self.enabled {
            let out = self.put();
            out.push(record::SEQUENCE);
            put_varint(out, device);
            put_varint(out, number);
        }
    }

    /// A key's newest count window, before the next reading of that key.
    pub fn window(&mut self, id: u64, window: Window, identity: &[u8]) {
        if self.enabled {
            let out = self.put();
            out.push(record::WINDOW);
            put_varint(out, id);
            record::put_number(out, window.number);
            put_varint(out, u64::from(window.readings));
            put_varint(out, identity.len() as u64);
            out.extend_from_slice(identity);
        }
    }

    /// The window after that, with the next reading of its key as its first.
    #[inline]
    pub fn next_window(&mut self, id: u64, number: Timestamp) {
        if self.enabled {
            let out = self.put();
            out.push(record::NEXT);
            put_varint(out, id);
            record::put_number(out, number);
        }
    }

    /// A key's newest window was forgotten.
    pub fn window_gone(&mut self, identity: &[u8]) {
        if self.enabled {
            let out = self.put();
            out.push(record::GONE);
            put_varint(out, identity.len() as u64);
            out.extend_from_slice(identity);
        }
    }

    /// The highest number of a window that was forgotten.
    pub fn window_floor(&mut self, number: Timestamp) {
        if self.enabled {
            let out = self.put();
            out.push(record::FLOOR);
            record::put_number(out, number);
        }
    }

    /// The last seq that was given out in this epoch.
    pub fn sealed(&mut self, seq: u64) {
        if self.enabled {
            let out = self.put();
            out.push(record::SEALED);
            put_varint(out, seq);
        }
    }

    /// Counters that changed since the last group.
    pub fn counts(&mut self, metrics: &mut Metrics) {
        if self.enabled {
            let counts = metrics.increases(|_| true);
            if !counts.is_empty() {
                self.put();
                record::put_counts(&mut self.group, &self.names, &counts);
            }
        }
    }

    /// The first records of a segment, in a group of their own: a snapshot and the sources.
    pub fn snapshot(&mut self, snapshot: &Snapshot, sources: &[Kept], cut: Cut) {
        if self.enabled {
            self.put();
            let before = self.group.len();
            self.names = PipelineNames::of(&snapshot.plan);
            self.group.push(record::SNAPSHOT);
            snapshot.put(&mut self.group, &self.names);
            for (source, kept) in (0..).zip(sources) {
                kept.put(source, &mut self.group);
            }
            self.snapshot_bytes = (self.group.len() - before) as u64;
            self.end_group(cut);
        }
    }
}

#[cfg(test)]
mod tests;
