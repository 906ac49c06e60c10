//! A loss record: what an agent had to give up, under the name of the batch that held it.
//!
//! When a spool is full even after coarsening, the oldest batches go. Each is replaced by a record of what it held, so
//! that the centre learns of every lost reading, and its seq is settled: watermarks need not wait for it. If the batch
//! had reached the centre after all, its seq is known there and nothing was lost.
//!
//! ```text
//! loss  := kind:u8 = 9  version:u8 = 2  epoch:u64 le  seq:varint  partition:varint = 0
//!          entries:varint  entry × entries  crc32c of all before:u32 le
//! entry := pipeline:u64 le  from:zigzag varint (µs)  to − from:varint (µs)  readings:varint
//! ```
//!
//! In version 1 there is no partition, and a pipeline is a number, as a varint.

use alloc::vec::Vec;

use super::cursor::{Cursor, put_varint, unzigzag, zigzag};
use super::named::{Envelope, put_checksum, put_head};
use super::section::take_number;
use super::{VERSION, WireFault, v1};
use crate::limits::LOSSES_MAX;
use crate::plan::PipelineId;
use crate::time::Timestamp;

/// The kind byte of a loss record.
pub(super) const KIND: u8 = 9;

/// What was lost under one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// The epoch of the batch that it stands for.
    pub epoch: u64,
    /// The seq of that batch.
    pub seq: u64,
    /// What the batch held, at most [`LOSSES_MAX`] entries; none if that is no longer known.
    pub entries: Vec<LossEntry>,
}

/// Lost readings of one pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LossEntry {
    /// Whose.
    pub pipeline: PipelineId,
    /// The start of the earliest lost pane.
    pub from: Timestamp,
    /// The end of the latest, after `from`.
    pub to: Timestamp,
    /// How many readings.
    pub readings: u64,
}

impl Loss {
    /// Whether the frame is a loss record at all, judging by its kind byte.
    pub fn is_loss(frame: &[u8]) -> bool {
        frame.first() == Some(&KIND)
    }

    /// The frame's bytes. There must be at most [`LOSSES_MAX`] entries, each with `from` before `to`.
    pub fn emit(&self) -> Vec<u8> {
        assert!(self.entries.len() <= LOSSES_MAX);
        let mut frame = Vec::new();
        put_head(&mut frame, (KIND, VERSION), self.epoch, self.seq);
        put_varint(&mut frame, self.entries.len() as u64);
        for entry in &self.entries {
            assert!(entry.from < entry.to);
            frame.extend_from_slice(&entry.pipeline.0.to_le_bytes());
            put_varint(&mut frame, zigzag(entry.from.as_micros()));
            put_varint(&mut frame, entry.to.since(entry.from).as_micros().unsigned_abs());
            put_varint(&mut frame, entry.readings);
        }
        put_checksum(&mut frame, 0);
        frame
    }

    /// Reads a whole record and checks it.
    pub fn parse(frame: &[u8]) -> Result<Self, WireFault> {
        let envelope = Envelope::open(frame)?.of_kind(KIND)?.sealed()?;
        let mut cursor = Cursor::new(envelope.body);
        let count = cursor.length(LOSSES_MAX, "losses")?;
        let entries = (0..count).map(|_| entry(&mut cursor, envelope.version));
        let entries = entries.collect::<Result<_, _>>()?;
        cursor.finish()?;
        Ok(Self {
            epoch: envelope.epoch,
            seq: envelope.seq,
            entries,
        })
    }
}

fn entry(cursor: &mut Cursor<'_>, version: u8) -> Result<LossEntry, WireFault> {
    let pipeline = if version == v1::VERSION {
        take_number(cursor)?
    } else {
        PipelineId(u64::from_le_bytes(cursor.array()?))
    };
    let from = Timestamp::from_micros(unzigzag(cursor.varint()?)).ok_or(WireFault::Invalid("timestamp"))?;
    let length = i64::try_from(cursor.varint()?).map_err(|_| WireFault::Invalid("timestamp"))?;
    let to = from
        .as_micros()
        .checked_add(length)
        .filter(|_| length > 0)
        .and_then(Timestamp::from_micros)
        .ok_or(WireFault::Invalid("timestamp"))?;
    Ok(LossEntry {
        pipeline,
        from,
        to,
        readings: cursor.varint()?,
    })
}
