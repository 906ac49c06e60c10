//! From closed panes to sealed batches: sections gather until a batch is worth its frame, then it gets its name.
//!
//! A batch is named (epoch, seq) and immutable from then on. The epoch is drawn anew at each start; seq counts up by
//! one from 1 inside it. For each batch the outbox remembers how many readings of which slice it holds, so that if it
//! is ever lost, what was lost can be said.

use bytes::Bytes;
use catchment_common::counter::Counter;
use catchment_common::limits::{BATCH_BYTES_TARGET, BATCH_DELTAS_MAX, BATCH_SECTIONS_MAX};
use catchment_common::plan::SliceId;
use catchment_common::wire::{BatchWriter, Section};

use crate::tally::Tally;

/// A sealed batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// Its number in the agent's epoch.
    pub seq: u64,
    /// Its frame.
    pub frame: Bytes,
    /// How many readings of which slice it holds.
    pub readings: Vec<(SliceId, u64)>,
}

/// Gathers sections into batches.
#[derive(Debug)]
pub struct Outbox {
    epoch: u64,
    seq: u64,
    writer: BatchWriter,
    readings: Vec<(SliceId, u64)>,
}

impl Outbox {
    /// An outbox for this epoch.
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            seq: 0,
            writer: BatchWriter::default(),
            readings: Vec::new(),
        }
    }

    /// The epoch of all batches.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of the last sealed batch; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Adds a section; returns a batch if that filled one.
    pub fn push(&mut self, section: &Section, tally: &mut Tally) -> Option<Sealed> {
        // A batch that this section would overfill goes first.
        let full = self.writer.deltas() + section.rows() > BATCH_DELTAS_MAX
            || self.writer.sections() + 1 > BATCH_SECTIONS_MAX;
        let sealed = if full { self.seal(tally) } else { None };
        self.writer.push(section);
        let readings: u64 = section.readings.iter().sum();
        match self
            .readings
            .iter_mut()
            .find(|(slice, _)| *slice == section.slice)
        {
            Some((_, count)) => *count += readings,
            None => self.readings.push((section.slice, readings)),
        }
        let place = tally.place(section.slice);
        tally.add(place, Counter::Deltas, section.rows() as u64);
        if sealed.is_none() && self.writer.bytes() >= BATCH_BYTES_TARGET {
            self.seal(tally)
        } else {
            sealed
        }
    }

    /// Seals what has been gathered, if anything.
    pub fn seal(&mut self, tally: &mut Tally) -> Option<Sealed> {
        if self.writer.is_empty() {
            return None;
        }
        self.seq += 1;
        let mut frame = Vec::with_capacity(self.writer.bytes() + FRAME_HEAD);
        self.writer.seal(self.epoch, self.seq, &mut frame);
        let place = tally.place(crate::tally::AGENT);
        tally.add(place, Counter::Batches, 1);
        Some(Sealed {
            seq: self.seq,
            frame: frame.into(),
            readings: std::mem::take(&mut self.readings),
        })
    }
}

/// Room for a frame's envelope besides its sections.
const FRAME_HEAD: usize = 48;
