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

use super::Name;
use super::records::Slot;
use crate::log::disk::frame;

const BATCH: u8 = 1;
const SEAL: u8 = 2;
const MOVED: u8 = 3;
/// Nothing that counts up by one comes near this: a larger number is damage, and a sum of two does not overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// What is common to records that carry a batch or a loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry<'b> {
    pub(super) ordinal: u64,
    pub(super) slot: Slot,
    pub(super) stage: u8,
    pub(super) name: Option<Name>,
    /// The batch's own frame.
    pub(super) frame: &'b [u8],
}

/// What a part takes the place of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Replaced {
    /// The first number; its own for part 0.
    pub(super) from: u64,
    /// Whether this is the last part.
    pub(super) is_last: bool,
}

/// A record, as it is written and read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Record<'b> {
    Batch(Entry<'b>, Replaced),
    Seal {
        ordinal: u64,
        first: Name,
        /// Which, as [`put_slots`] wrote them.
        slots: &'b [u8],
    },
    Moved(Entry<'b>),
}

impl<'b> Record<'b> {
    /// A batch as it was closed.
    pub(super) fn closed(entry: Entry<'b>) -> Self {
        let from = entry.slot.number;
        Self::Batch(entry, Replaced { from, is_last: true })
    }

    pub(super) fn ordinal(&self) -> u64 {
        match *self {
            Self::Batch(Entry { ordinal, .. }, _)
            | Self::Seal { ordinal, .. }
            | Self::Moved(Entry { ordinal, .. }) => ordinal,
        }
    }

    /// Appends the framed record; returns where in `out` the batch's own frame begins.
    pub(super) fn put(&self, out: &mut Vec<u8>) -> usize {
        let start = frame::begin(out);
        let mut frame_at = start;
        match *self {
            Self::Batch(entry, Replaced { from, is_last }) => {
                out.push(BATCH);
                put_slot(out, &entry);
                out.push(u8::from(is_last));
                put_varint(out, from);
                frame_at = put_rest(out, &entry);
            }
            Self::Moved(entry) => {
                out.push(MOVED);
                put_slot(out, &entry);
                frame_at = put_rest(out, &entry);
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

    /// Reads a frame's body. What it gives can be counted on from without overflowing, and ranges run forwards.
    pub(super) fn parse(body: &'b [u8]) -> Result<Self, WireFault> {
        let mut cursor = Cursor::new(body);
        match cursor.byte()? {
            BATCH => {
                let (ordinal, slot) = take_slot(&mut cursor)?;
                let is_last = cursor.byte()? != 0;
                let from = take_number(&mut cursor)?;
                if from > slot.number {
                    return Err(WireFault::Invalid("range"));
                }
                let entry = take_rest(&mut cursor, ordinal, slot)?;
                Ok(Self::Batch(entry, Replaced { from, is_last }))
            }
            MOVED => {
                let (ordinal, slot) = take_slot(&mut cursor)?;
                Ok(Self::Moved(take_rest(&mut cursor, ordinal, slot)?))
            }
            SEAL => {
                let ordinal = take_number(&mut cursor)?;
                let first = Name {
                    epoch: u64::from_le_bytes(cursor.array()?),
                    seq: take_number(&mut cursor)?,
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

fn put_slot(out: &mut Vec<u8>, entry: &Entry<'_>) {
    put_varint(out, entry.ordinal);
    put_varint(out, entry.slot.number);
    put_varint(out, u64::from(entry.slot.part));
}

/// Appends what follows; returns where the batch's own frame begins.
fn put_rest(out: &mut Vec<u8>, entry: &Entry<'_>) -> usize {
    out.push(entry.stage);
    let Name { epoch, seq } = entry.name.unwrap_or(Name { epoch: 0, seq: 0 });
    out.extend_from_slice(&epoch.to_le_bytes());
    put_varint(out, seq);
    let frame_at = out.len();
    out.extend_from_slice(entry.frame);
    frame_at
}

fn take_slot(cursor: &mut Cursor<'_>) -> Result<(u64, Slot), WireFault> {
    let ordinal = take_number(cursor)?;
    let slot = Slot {
        number: take_number(cursor)?,
        part: take_part(cursor)?,
    };
    Ok((ordinal, slot))
}

fn take_rest<'b>(cursor: &mut Cursor<'b>, ordinal: u64, slot: Slot) -> Result<Entry<'b>, WireFault> {
    let stage = cursor.byte()?;
    let epoch = u64::from_le_bytes(cursor.array()?);
    let seq = take_number(cursor)?;
    Ok(Entry {
        ordinal,
        slot,
        stage,
        name: (seq > 0).then_some(Name { epoch, seq }),
        frame: cursor.rest(),
    })
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
        number = number.saturating_add(step);
        if number > NUMBER_MAX {
            return Err(WireFault::Invalid("number"));
        }
        let part = take_part(&mut cursor)?;
        slots.push(Slot { number, part });
    }
    Ok(slots)
}

/// A number that counts up by one, and has a long way to go.
fn take_number(cursor: &mut Cursor<'_>) -> Result<u64, WireFault> {
    let number = cursor.varint()?;
    if number > NUMBER_MAX {
        return Err(WireFault::Invalid("number"));
    }
    Ok(number)
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
        let entry = Entry {
            ordinal: 9,
            slot: Slot { number: 300, part: 2 },
            stage: 3,
            name: Some(name),
            frame: b"frame",
        };
        let replaced = Replaced {
            from: 200,
            is_last: true,
        };
        for record in [
            Record::Batch(entry, replaced),
            Record::Moved(Entry { name: None, ..entry }),
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
            if let Record::Batch(entry, _) | Record::Moved(entry) = record {
                assert_eq!(&out[at..], entry.frame);
            }
            for length in 0..8.min(body.len()) {
                assert!(Record::parse(&body[..length]).is_err());
            }
        }
    }
    #[test]
    fn odd_numbers_are_refused() {
        let entry = Entry {
            ordinal: 9,
            slot: Slot::first(300),
            stage: 0,
            name: None,
            frame: b"frame",
        };
        let number = |number| Entry {
            slot: Slot::first(number),
            ..entry
        };
        let named = |seq| Entry {
            name: Some(Name { epoch: 1, seq }),
            ..entry
        };
        let ordinal = |ordinal| Entry { ordinal, ..entry };
        let backwards = Replaced {
            from: 301,
            is_last: true,
        };
        let far = NUMBER_MAX + 1;
        for record in [
            Record::closed(number(far)),
            Record::closed(ordinal(u64::MAX)),
            Record::Moved(named(far)),
            Record::Batch(entry, backwards),
            Record::Seal {
                ordinal: 1,
                first: Name { epoch: 1, seq: far },
                slots: &[],
            },
            Record::Seal {
                ordinal: 1,
                first: Name { epoch: 1, seq: 1 },
                slots: &put_slots(&[Slot::first(far)]),
            },
        ] {
            let mut out = Vec::new();
            record.put(&mut out);
            let body = frame::body(&out).unwrap();
            assert!(Record::parse(body).is_err(), "{record:?}");
        }
        let mut out = Vec::new();
        Record::closed(number(NUMBER_MAX)).put(&mut out);
        assert!(Record::parse(frame::body(&out).unwrap()).is_ok());
    }
}
