//! The envelope of frames that have a name: batches, and the loss records that stand in for them.
//!
//! ```text
//! named := kind:u8  version:u8 = 2  epoch:u64 le  seq:varint  partition:varint = 0  body
//!          crc32c of all before:u32 le
//! ```
//!
//! The partition is room for what comes: a reader refuses any but 0. Version 1, which has none, is read too: an agent
//! may hold such frames since before, and sends them as they are.
//!
//! A frame that waits in a spool without a name of its own yet is stored under (0, 0) and renamed when it is sealed.

use alloc::vec::Vec;

use super::cursor::{Cursor, put_varint};
use super::{VERSION, WireFault, batch, checksum, loss, v1};
use crate::limits::FRAME_BYTES_MAX;

/// A frame whose envelope has been checked.
pub(super) struct Envelope<'b> {
    pub(super) kind: u8,
    pub(super) version: u8,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) body: &'b [u8],
}

impl<'b> Envelope<'b> {
    /// Checks kind, version and checksum.
    pub(super) fn open(frame: &'b [u8]) -> Result<Self, WireFault> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(WireFault::TooLong("frame"));
        }
        let (all, crc) = frame.split_last_chunk::<4>().ok_or(WireFault::Truncated)?;
        let mut cursor = Cursor::new(all);
        let (kind, version) = (cursor.byte()?, cursor.byte()?);
        if !named(frame) {
            return Err(WireFault::Kind(kind));
        }
        if version != VERSION && version != v1::VERSION {
            return Err(WireFault::Version(version));
        }
        if checksum(all) != u32::from_le_bytes(*crc) {
            return Err(WireFault::Checksum);
        }
        let (epoch, seq) = (u64::from_le_bytes(cursor.array()?), cursor.varint()?);
        if version != v1::VERSION && cursor.varint()? != 0 {
            return Err(WireFault::Invalid("partition"));
        }
        Ok(Self {
            kind,
            version,
            epoch,
            seq,
            body: cursor.rest(),
        })
    }

    /// Requires this kind.
    pub(super) fn of_kind(self, kind: u8) -> Result<Self, WireFault> {
        if self.kind == kind {
            Ok(self)
        } else {
            Err(WireFault::Kind(self.kind))
        }
    }

    /// Requires a seq that a sealed frame can have: 0 means unsealed, and after the largest there would be no next.
    pub(super) fn sealed(self) -> Result<Self, WireFault> {
        if self.seq == 0 || self.seq == u64::MAX {
            Err(WireFault::Invalid("seq"))
        } else {
            Ok(self)
        }
    }
}

/// Appends kind, version and name.
pub(super) fn put_head(frame: &mut Vec<u8>, (kind, version): (u8, u8), epoch: u64, seq: u64) {
    frame.push(kind);
    frame.push(version);
    frame.extend_from_slice(&epoch.to_le_bytes());
    put_varint(frame, seq);
    if version != v1::VERSION {
        put_varint(frame, PARTITION);
    }
}

/// Batches are not parted yet.
const PARTITION: u64 = 0;

/// Appends the checksum of the frame that began at `start`.
pub(super) fn put_checksum(frame: &mut Vec<u8>, start: usize) {
    let crc = checksum(&frame[start..]);
    frame.extend_from_slice(&crc.to_le_bytes());
}

/// Whether a frame is of a kind that has a name, judging by its kind byte: a batch or a loss record.
pub fn named(frame: &[u8]) -> bool {
    matches!(frame.first(), Some(&(batch::KIND | loss::KIND)))
}

/// The name (epoch, seq) of a named frame whose contents may be damaged, so that it can be refused by name. It is only
/// a claim: nothing is checked.
pub fn claimed_name(frame: &[u8]) -> Option<(u64, u64)> {
    if !named(frame) {
        return None;
    }
    let mut cursor = Cursor::new(frame.get(2..)?);
    let epoch = u64::from_le_bytes(cursor.array().ok()?);
    Some((epoch, cursor.varint().ok()?))
}

/// The name of a named frame whose envelope is whole: kind, version and checksum are right, and the seq is one that a
/// sealed frame can have. The body is not looked at.
pub fn sealed_name(frame: &[u8]) -> Result<(u64, u64), WireFault> {
    let envelope = Envelope::open(frame)?.sealed()?;
    Ok((envelope.epoch, envelope.seq))
}

/// Appends to `out` the same frame, of the same version, under another name, with a checksum of its own. The checksum of `frame` is checked,
/// its body is not looked at. On an error nothing is appended.
pub fn rename(frame: &[u8], epoch: u64, seq: u64, out: &mut Vec<u8>) -> Result<(), WireFault> {
    let envelope = Envelope::open(frame)?;
    let start = out.len();
    put_head(out, (envelope.kind, envelope.version), epoch, seq);
    out.extend_from_slice(envelope.body);
    put_checksum(out, start);
    if out.len() - start > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(WireFault::TooLong("frame"));
    }
    Ok(())
}
