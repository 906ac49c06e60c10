//! A batch: sections under one name (agent, epoch, seq). The agent is known from the connection's certificate.
//!
//! ```text
//! batch := kind:u8 = 8  version:u8 = 2  epoch:u64 le  seq:varint  partition:varint = 0
//!          pipelines:varint  id:u64 le × pipelines  sections:varint  (length:varint  section) × sections
//!          crc32c of all before:u32 le
//! ```
//!
//! In version 1 there is no partition and no list of pipelines: each section begins with its pipeline's number.

use alloc::vec::Vec;

use super::cursor::{Cursor, put_varint};
use super::named::{Envelope, put_checksum, put_head};
use super::section::{Pipelines, Section, SectionView};
use super::stats::StatsScratch;
use super::{VERSION, WireFault, v1};
use crate::limits::{BATCH_SECTIONS_MAX, FRAME_BYTES_MAX, PIPELINE_ID_BYTES};
use crate::plan::PipelineId;

/// The kind byte of a batch.
pub(super) const KIND: u8 = 8;

/// Gathers sections and seals them under a name. Used again and again, it allocates nothing once grown.
#[derive(Debug, Default)]
pub struct BatchWriter {
    pipelines: Vec<PipelineId>,
    sections: Vec<u8>,
    count: usize,
    deltas: usize,
    section: Vec<u8>,
    scratch: StatsScratch,
}

impl BatchWriter {
    /// Adds a section; see [`Section::emit`] for what it must satisfy.
    pub fn push(&mut self, section: &Section) {
        self.section.clear();
        // Panes of one pipeline mostly come one after another.
        let known = self.pipelines.iter().rposition(|&id| id == section.pipeline);
        let index = known.unwrap_or_else(|| {
            self.pipelines.push(section.pipeline);
            self.pipelines.len() - 1
        });
        section.emit(index as u64, &mut self.section, &mut self.scratch);
        put_varint(&mut self.sections, self.section.len() as u64);
        self.sections.extend_from_slice(&self.section);
        self.count += 1;
        self.deltas += section.rows();
    }

    /// Whether nothing has been added since the last seal.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Sections added since the last seal.
    pub fn sections(&self) -> usize {
        self.count
    }

    /// Deltas added since the last seal.
    pub fn deltas(&self) -> usize {
        self.deltas
    }

    /// Bytes of sections and of their pipelines' ids since the last seal.
    pub fn bytes(&self) -> usize {
        self.sections.len() + self.pipelines.len() * PIPELINE_ID_BYTES
    }

    /// Appends the whole frame to `frame` under this name and starts anew.
    pub fn seal(&mut self, epoch: u64, seq: u64, frame: &mut Vec<u8>) {
        assert!(self.count <= BATCH_SECTIONS_MAX);
        let start = frame.len();
        put_head(frame, (KIND, VERSION), epoch, seq);
        put_varint(frame, self.pipelines.len() as u64);
        let ids = self.pipelines.iter().flat_map(|id| id.0.to_le_bytes());
        frame.extend(ids);
        put_varint(frame, self.count as u64);
        frame.extend_from_slice(&self.sections);
        put_checksum(frame, start);
        self.pipelines.clear();
        self.sections.clear();
        self.count = 0;
        self.deltas = 0;
    }
}

/// A received batch: its name, and its sections still packed.
#[derive(Clone, Copy)]
pub struct Batch<'b> {
    /// The epoch of the agent that sealed it.
    pub epoch: u64,
    /// Its number in that epoch, from 1; 0 while it has no name of its own.
    pub seq: u64,
    pipelines: Pipelines<'b>,
    count: usize,
    sections: &'b [u8],
}

impl<'b> Batch<'b> {
    /// Whether the frame is a batch at all, judging by its kind byte.
    pub fn is_batch(frame: &[u8]) -> bool {
        frame.first() == Some(&KIND)
    }

    /// Checks the envelope: kind, version, checksum, a sealed name, and that the sections' lengths add up.
    pub fn parse(frame: &'b [u8]) -> Result<Self, WireFault> {
        Self::take_apart(&Envelope::open(frame)?.of_kind(KIND)?.sealed()?)
    }

    /// Like [`Batch::parse`], for a frame that may not have a name of its own yet: any epoch and seq will do.
    pub fn parse_unsealed(frame: &'b [u8]) -> Result<Self, WireFault> {
        Self::take_apart(&Envelope::open(frame)?.of_kind(KIND)?)
    }

    fn take_apart(envelope: &Envelope<'b>) -> Result<Self, WireFault> {
        let mut cursor = Cursor::new(envelope.body);
        let pipelines = if envelope.version == v1::VERSION {
            Pipelines::Numbers
        } else {
            let pipelines = cursor.length(BATCH_SECTIONS_MAX, "pipelines")?;
            Pipelines::Table(cursor.take(pipelines * PIPELINE_ID_BYTES)?)
        };
        let count = cursor.length(BATCH_SECTIONS_MAX, "sections")?;
        let batch = Self {
            epoch: envelope.epoch,
            seq: envelope.seq,
            pipelines,
            count,
            sections: cursor.rest(),
        };
        let mut rest = Cursor::new(batch.sections);
        for _ in 0..count {
            let length = rest.length(FRAME_BYTES_MAX, "section")?;
            rest.take(length)?;
        }
        rest.finish()?;
        Ok(batch)
    }

    /// The sections in order, each with its head taken apart.
    pub fn sections(&self) -> impl Iterator<Item = Result<SectionView<'b>, WireFault>> {
        let (mut cursor, pipelines) = (Cursor::new(self.sections), self.pipelines);
        (0..self.count).map(move |_| {
            let length = cursor.length(FRAME_BYTES_MAX, "section")?;
            SectionView::parse(cursor.take(length)?, pipelines)
        })
    }
}
