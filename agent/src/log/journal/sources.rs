//! What the journal keeps of the sources: who they are, what a broker's session may hold, and which of its messages may
//! come again.
//!
//! ```text
//! SOURCE  := 19 source  length name  session:u32  number  known:u8  count  held × count
//! SETTLED := 20 source  number                      no message up to this number comes again
//! CARRIED := 21 source  number  id:u16  hash:u32     a message of a segment that goes
//!
//! held    := length filter  identifier  seen:u8
//! ```
//!
//! Sources are named by their place in the configuration, and SOURCE says which name that was: the configuration may have
//! changed. It stands behind each snapshot, and again when what it says has changed. `session` tells another broker or
//! client id from the one before. Messages have numbers, in their order; `number` is the next one's. `known` is 1 if the
//! broker's session holds nothing else. `seen` has bit 0 if a copy at QoS 0 has come through the subscription, bit 1 for
//! QoS 1.

use catchment_common::limits::{SOURCE_NAME_BYTES_MAX, SOURCES_MAX, TOPIC_BYTES_MAX};
use catchment_common::topic::filter::Filter;
use catchment_common::wire::WireFault;
use catchment_common::wire::cursor::{Cursor, put_varint};

use super::Journal;
use super::context::take_u32;
use crate::source::SourceId;

pub(super) const SESSION: u8 = 7;
pub(super) const SOURCE: u8 = 19;
pub(super) const SETTLED: u8 = 20;
pub(super) const CARRIED: u8 = 21;

/// Filters that a session is remembered to hold: those of the largest plan, and of several before it whose answers the
/// broker still owes.
pub const HELD_MAX: usize = 4 * catchment_common::limits::QUERIES_MAX;

/// What is kept of a source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// What its session is with: a hash of broker and client id.
    pub session: u32,
    /// The number of its next message.
    pub next: u32,
    /// Whether its session holds nothing but `held`.
    pub is_known: bool,
    /// What its session may hold.
    pub held: Vec<Held>,
}

/// A filter that a session may hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// What was asked for.
    pub filter: Filter,
    /// The subscription's identifier; 0 for one that has none.
    pub id: u32,
    /// Whether a copy has come through it at QoS 0, and at QoS 1.
    pub seen: [bool; 2],
}

impl Kept {
    pub(super) fn put(&self, source: u32, out: &mut Vec<u8>) {
        out.push(SOURCE);
        put_varint(out, source.into());
        put_text(out, &self.name);
        out.extend_from_slice(&self.session.to_le_bytes());
        put_varint(out, u64::from(self.next));
        // What is not written is not known.
        let held = &self.held[..self.held.len().min(HELD_MAX)];
        out.push((self.is_known && held.len() == self.held.len()).into());
        put_varint(out, held.len() as u64);
        for held in held {
            put_text(out, held.filter.as_str());
            put_varint(out, u64::from(held.id));
            out.push(u8::from(held.seen[0]) | u8::from(held.seen[1]) << 1);
        }
    }

    pub(super) fn take(cursor: &mut Cursor<'_>) -> Result<(u32, Self), WireFault> {
        let source = take_source(cursor)?;
        let name = take_text(cursor, SOURCE_NAME_BYTES_MAX)?.to_owned();
        let session = u32::from_le_bytes(cursor.array()?);
        let next = take_u32(cursor)?;
        let is_known = cursor.byte()? != 0;
        let mut held = Vec::new();
        for _ in 0..cursor.length(HELD_MAX, "filters")? {
            let filter = Filter::parse(take_text(cursor, TOPIC_BYTES_MAX)?);
            let (id, seen) = (take_u32(cursor)?, cursor.byte()?);
            held.push(Held {
                filter: filter.ok_or(WireFault::Invalid("filter"))?,
                id,
                seen: [seen & 1 != 0, seen & 2 != 0],
            });
        }
        let kept = Self {
            name,
            session,
            next,
            is_known,
            held,
        };
        Ok((source, kept))
    }
}

pub(super) fn take_source(cursor: &mut Cursor<'_>) -> Result<u32, WireFault> {
    let source = take_u32(cursor)?;
    if (source as usize) < SOURCES_MAX {
        Ok(source)
    } else {
        Err(WireFault::TooLong("source"))
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_text<'b>(cursor: &mut Cursor<'b>, limit: usize) -> Result<&'b str, WireFault> {
    let length = cursor.length(limit, "text")?;
    core::str::from_utf8(cursor.take(length)?).map_err(|_| WireFault::Invalid("text"))
}

impl Journal {
    /// What is known of a source.
    pub fn source(&mut self, source: SourceId, kept: &Kept) {
        if self.enabled {
            kept.put(source.0.into(), self.put());
        }
    }

    /// A source has a new session: no message of it before this comes again.
    pub fn session(&mut self, source: SourceId) {
        if self.enabled {
            let out = self.put();
            out.push(SESSION);
            put_varint(out, u64::from(source.0));
        }
    }

    /// No message of a source up to this number comes again.
    pub fn settled(&mut self, source: SourceId, number: u32) {
        if self.enabled {
            let out = self.put();
            out.push(SETTLED);
            put_varint(out, u64::from(source.0));
            put_varint(out, u64::from(number));
        }
    }

    /// A message may come again that stands in a segment that goes.
    pub fn carried(&mut self, source: SourceId, number: u32, id: u16, hash: u32) {
        if self.enabled {
            let out = self.put();
            out.push(CARRIED);
            put_varint(out, u64::from(source.0));
            put_varint(out, u64::from(number));
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&hash.to_le_bytes());
        }
    }
}
