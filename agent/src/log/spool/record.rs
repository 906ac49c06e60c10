//! The spool's records, byte by byte. Each is the body of a frame ([`crate::log::disk::frame`]); integers are LEB128 varints
//! unless a width is named.
//!
//! ```text
//! BATCH := 1  ordinal  number  part  last:u8  from  stage:u8  epoch:u64 le  seq  frame …
//! SEAL  := 2  ordinal  epoch:u64 le  seq  (number − the one before  part) …
//! MOVED := 3  ordinal  number  part  stage:u8  epoch:u64 le  seq  frame …
//! ```
//!
//! The *ordinal* counts records as they are written; the journal names the last one that belongs to its history. The
//! *number* is a record's place in time, from old to new. A record of part 0 is as it was closed. Parts 1 to `last`
//! together take the place of the unsealed batches numbered `from` to `number`: those, merged, or the record of their
//! loss. `seq` 0 means unsealed. A SEAL names the records at these places, in their order, from `seq` on; one that is
//! not there any more has been settled since, and its name stays its own. MOVED is a record that stood in an earlier
//! segment, written again as it is so that the segment can go. Of two records with one name or one place the later one
//! counts.

use catchment_common::wire::WireFault;
use catchment_common::wire::cursor::{Cursor, put_varint};

use super::{Name, Slot};
use crate::log::disk::frame;

const BATCH: u8 = 1;
const SEAL: u8 = 2;
const MOVED: u8 = 3;

/// A record, as it is written and read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Record<'b> {
    Batch {
        ordinal: u64,
        slot: Slot,
        /// Whether this is the last part.
        last: bool,
        /// The first number that it takes the place of; its own for part 0.
        from: u64,
        stage: u8,
        name: Option<Name>,
        frame: &'b [u8],
    },
    Seal {
        ordinal: u64,
        first: Name,
        /// Which, as [`put_slots`] wrote them.
        slots: &'b [u8],
    },
    Moved {
        ordinal: u64,
        slot: Slot,
        stage: u8,
        name: Option<Name>,
        frame: &'b [u8],
    },
}

impl<'b> Record<'b> {
    pub(super) fn ordinal(&self) -> u64 {
        match *self {
            Self::Batch { ordinal, .. } | Self::Seal { ordinal, .. } | Self::Moved { ordinal, .. } => ordinal,
        }
    }

    /// Appends the framed record; returns where in `out` the batch's own frame begins.
    pub(super) fn put(&self, out: &mut Vec<u8>) -> usize {
        let start = frame::begin(out);
        let mut frame_at = start;
        match *self {
            Self::Batch {
                ordinal,
                slot,
                last,
                from,
                stage,
                name,
                frame,
            } => {
                out.push(BATCH);
                put_varint(out, ordinal);
                put_varint(out, slot.number);
                put_varint(out, u64::from(slot.part));
                out.push(u8::from(last));
                put_varint(out, from);
                out.push(stage);
                put_name(out, name);
                frame_at = out.len();
                out.extend_from_slice(frame);
            }
            Self::Moved {
                ordinal,
                slot,
                stage,
                name,
                frame,
            } => {
                out.push(MOVED);
                put_varint(out, ordinal);
                put_varint(out, slot.number);
                put_varint(out, u64::from(slot.part));
                out.push(stage);
                put_name(out, name);
                frame_at = out.len();
                out.extend_from_slice(frame);
            }
            Self::Seal {
                ordinal,
                first,
                slots,
            } => {
                out.push(SEAL);
                put_varint(out, ordinal);
                out.extend_from_slice(&first.epoch.to_le_bytes());
                put_varint(out, first.seq);
                out.extend_from_slice(slots);
            }
        }
        frame::end(out, start);
        frame_at
    }

    /// Reads a frame's body.
    pub(super) fn parse(body: &'b [u8]) -> Result<Self, WireFault> {
        let mut cursor = Cursor::new(body);
        match cursor.byte()? {
            BATCH => {
                let ordinal = cursor.varint()?;
                let number = cursor.varint()?;
                let part = take_part(&mut cursor)?;
                let last = cursor.byte()? != 0;
                let from = cursor.varint()?;
                let stage = cursor.byte()?;
                let name = take_name(&mut cursor)?;
                Ok(Self::Batch {
                    ordinal,
                    slot: Slot { number, part },
                    last,
                    from,
                    stage,
                    name,
                    frame: cursor.rest(),
                })
            }
            MOVED => {
                let (ordinal, number) = (cursor.varint()?, cursor.varint()?);
                let slot = Slot {
                    number,
                    part: take_part(&mut cursor)?,
                };
                let stage = cursor.byte()?;
                let name = take_name(&mut cursor)?;
                let frame = cursor.rest();
                Ok(Self::Moved {
                    ordinal,
                    slot,
                    stage,
                    name,
                    frame,
                })
            }
            SEAL => {
                let ordinal = cursor.varint()?;
                let first = Name {
                    epoch: u64::from_le_bytes(cursor.array()?),
                    seq: cursor.varint()?,
                };
                let slots = cursor.rest();
                take_slots(slots)?;
                Ok(Self::Seal {
                    ordinal,
                    first,
                    slots,
                })
            }
            other => Err(WireFault::Kind(other)),
        }
    }
}

/// Places in ascending order, as a seal lists them.
pub(super) fn put_slots(slots: &[Slot]) -> Vec<u8> {
    let (mut out, mut before) = (Vec::new(), 0);
    for slot in slots {
        put_varint(&mut out, slot.number - before);
        put_varint(&mut out, u64::from(slot.part));
        before = slot.number;
    }
    out
}

/// Reads what [`put_slots`] wrote.
pub(super) fn take_slots(bytes: &[u8]) -> Result<Vec<Slot>, WireFault> {
    let mut cursor = Cursor::new(bytes);
    let (mut slots, mut number) = (Vec::new(), 0_u64);
    while !cursor.rest().is_empty() {
        let step = cursor.varint()?;
        number = number.checked_add(step).ok_or(WireFault::Invalid("number"))?;
        let part = take_part(&mut cursor)?;
        slots.push(Slot { number, part });
    }
    Ok(slots)
}

fn put_name(out: &mut Vec<u8>, name: Option<Name>) {
    let Name { epoch, seq } = name.unwrap_or(Name { epoch: 0, seq: 0 });
    out.extend_from_slice(&epoch.to_le_bytes());
    put_varint(out, seq);
}

fn take_name(cursor: &mut Cursor<'_>) -> Result<Option<Name>, WireFault> {
    let epoch = u64::from_le_bytes(cursor.array()?);
    let seq = cursor.varint()?;
    Ok((seq > 0).then_some(Name { epoch, seq }))
}

fn take_part(cursor: &mut Cursor<'_>) -> Result<u32, WireFault> {
    u32::try_from(cursor.varint()?).map_err(|_| WireFault::Invalid("part"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        let name = Name {
            epoch: u64::MAX,
            seq: 7,
        };
        let slots = [(1, 0), (3, 1), (3, 2), (700, 0)].map(|(number, part)| Slot { number, part });
        let listed = put_slots(&slots);
        assert_eq!(take_slots(&listed), Ok(slots.to_vec()));
        for record in [
            Record::Batch {
                ordinal: 9,
                slot: Slot { number: 300, part: 2 },
                last: true,
                from: 200,
                stage: 3,
                name: Some(name),
                frame: b"frame",
            },
            Record::Moved {
                ordinal: 9,
                slot: Slot { number: 300, part: 2 },
                stage: 3,
                name: None,
                frame: b"frame",
            },
            Record::Seal {
                ordinal: 10,
                first: name,
                slots: &listed,
            },
        ] {
            let mut out = vec![1, 2, 3];
            let at = record.put(&mut out);
            let body = frame::body(&out[3..]).unwrap();
            assert_eq!(Record::parse(body), Ok(record));
            if let Record::Batch { frame, .. } | Record::Moved { frame, .. } = record {
                assert_eq!(&out[at..], frame);
            }
            for length in 0..8.min(body.len()) {
                assert!(Record::parse(&body[..length]).is_err());
            }
        }
    }
}
