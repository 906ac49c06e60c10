//! What travels between agent and aggregator, byte by byte. `docs/WIRE.md` is its page; golden files pin it.
//!
//! A frame is one of two kinds of thing. *Messages* (hello, welcome, heartbeat, acknowledgement, …) are small and rare:
//! a kind byte, a version byte and a postcard body. *Batches* are many and must be small: columns of integers, packed
//! to the bit, with a CRC over the whole; *loss records* stand in for batches that had to be given up. Frames are
//! length-prefixed by the link; each is self-contained.
//!
//! Every decoder here takes bytes from outside: it bounds each length before it allocates, refuses trailing bytes,
//! checks every value against the invariants of the type that it builds, and never panics.

mod batch;

mod column;

pub mod cursor;

pub mod lineage;

mod loss;

mod message;

mod named;

mod section;

mod series;

mod sketch;

mod stats;

pub mod v1;

pub mod v2;

mod versions;

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

pub use batch::{Batch, BatchWriter};
pub use loss::{Loss, LossEntry};
pub use message::{
    AgentPlan, ClockState, Coarser, CounterSample, EpochRange, Heartbeat, HeldEpoch, Hello, Message, Refusal,
    RejectReason, SeqRange, SourceState, Welcome,
};
pub use named::{claimed_name, named, rename, sealed_name};
pub use section::{KeyList, Section, SectionView};
pub use stats::StatsScratch;
pub use versions::{emit_pipeline, emit_plan, fingerprint, parse_pipeline, parse_plan};

/// The version of messages and stored forms that this code writes. It reads the one before, too.
pub const VERSION: u8 = v2::VERSION;
/// The name that both sides must offer in the TLS handshake; its number changes with [`VERSION`].
pub const ALPN: &[u8] = b"catchment/2";

/// Why bytes are not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireFault {
    /// The bytes end before the frame does.
    Truncated,
    /// Bytes follow after the frame's end.
    Trailing,
    /// The version byte is not ours.
    Version(u8),
    /// The kind byte is unknown, or not one that may come here.
    Kind(u8),
    /// The CRC does not match the bytes.
    Checksum,
    /// A length or count is above its limit; names which.
    TooLong(&'static str),
    /// A value breaks an invariant; names which.
    Invalid(&'static str),
}

impl fmt::Display for WireFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "the frame ends too early"),
            Self::Trailing => write!(f, "bytes follow after the frame's end"),
            Self::Version(found) => write!(f, "the frame has version {found}, this side speaks {VERSION}"),
            Self::Kind(found) => write!(f, "frames of kind {found} are not expected here"),
            Self::Checksum => write!(f, "the checksum does not match"),
            Self::TooLong(what) => write!(f, "too many or too long: {what}"),
            Self::Invalid(what) => write!(f, "invalid: {what}"),
        }
    }
}

impl core::error::Error for WireFault {}

/// CRC-32C (Castagnoli), as iSCSI and most storage formats use it: 16 tables, about a byte per cycle in plain Rust.
const CRC: crc::Crc<u32, crc::Table<16>> = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);

/// The CRC-32C of `bytes`.
pub fn checksum(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

/// Appends a mirror type in postcard.
fn put(value: &impl Serialize, out: &mut Vec<u8>) {
    let taken = core::mem::take(out);
    *out = postcard::to_extend(value, taken).expect("a vector takes any length and our types have no maps");
}

/// Reads a mirror type, which must be all of `bytes`.
fn take<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, WireFault> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|error| match error {
        postcard::Error::DeserializeUnexpectedEnd => WireFault::Truncated,
        _ => WireFault::Invalid("body"),
    })?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(WireFault::Trailing)
    }
}

#[cfg(test)]
mod tests;
