//! From closed panes to batches: sections gather until a batch is worth its frame.
//!
//! A batch that closes while the link is up gets its name at once: (epoch, seq). The epoch is drawn anew at each start
//! and seq counts up by one from 1 inside it. While the link is down batches stay without a name, so that the spool may
//! still merge them.

use bytes::Bytes;
use catchment_common::limits::{BATCH_BYTES_TARGET, BATCH_DELTAS_MAX, BATCH_SECTIONS_MAX};
use catchment_common::metrics::Counter;
use catchment_common::wire::{BatchWriter, Section};

use crate::log::spool::{Lane, Name};
use crate::metrics::{AGENT, Metrics};

/// A finished batch: its frame, and its name unless it has none yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finished {
    /// The frame, under its name or under (0, 0).
    pub frame: Bytes,
    /// The name.
    pub name: Option<Name>,
}

/// Gathers sections into batches.
#[derive(Debug)]
pub struct Batcher {
    epoch: u64,
    seq: u64,
    writer: BatchWriter,
}

impl Batcher {
    /// An batcher for this epoch.
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            seq: 0,
            writer: BatchWriter::default(),
        }
    }

    /// The epoch of all names.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The last seq given out; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The name that comes next; `count` names from it on are given out.
    pub fn take_names(&mut self, count: u64) -> Name {
        let first = Name {
            epoch: self.epoch,
            seq: self.seq + 1,
        };
        self.seq += count;
        first
    }

    /// Adds a section; returns a batch if that filled one.
    pub fn push(&mut self, section: &Section, lane: Lane, metrics: &mut Metrics) -> Option<Finished> {
        // A batch that this section would overfill goes first.
        let full = self.writer.deltas() + section.rows() > BATCH_DELTAS_MAX
            || self.writer.sections() + 1 > BATCH_SECTIONS_MAX;
        let finished = if full { self.finish(lane, metrics) } else { None };
        self.writer.push(section);
        let place = metrics.place(section.pipeline);
        metrics.add(place, Counter::Deltas, section.rows() as u64);
        if finished.is_none() && self.writer.bytes() >= BATCH_BYTES_TARGET {
            self.finish(lane, metrics)
        } else {
            finished
        }
    }

    /// Finishes what has been gathered, if anything.
    pub fn finish(&mut self, lane: Lane, metrics: &mut Metrics) -> Option<Finished> {
        if self.writer.is_empty() {
            return None;
        }
        let name = match lane {
            Lane::Live => Some(self.take_names(1)),
            Lane::Backlog => None,
        };
        let mut frame = Vec::with_capacity(self.writer.bytes() + FRAME_HEAD);
        let Name { epoch, seq } = name.unwrap_or(Name { epoch: 0, seq: 0 });
        self.writer.seal(epoch, seq, &mut frame);
        let place = metrics.place(AGENT);
        metrics.add(place, Counter::Batches, 1);
        Some(Finished {
            frame: frame.into(),
            name,
        })
    }
}

/// Room for a frame's envelope besides its sections.
const FRAME_HEAD: usize = 48;
