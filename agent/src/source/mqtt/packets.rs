//! Packets in the bytes that a broker sends: where each one ends, and what a PUBLISH says.
//!
//! Only what is read ten thousand times a second is read here: the frame of every packet and the whole of a PUBLISH,
//! without an allocation. All other packets are rare, and the rim reads them with a library.
//!
//! A PUBLISH whose body is larger than any payload that will be looked at is read up to its body alone: [`scan`] says
//! how many bytes the caller has to throw away as they come. So a message of 256 MiB costs as much memory as a small
//! one, and is acknowledged and counted like any other that cannot be used.

use std::ops::Range;

/// The version of MQTT that is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// 3.1.1, whose number on the wire is 4.
    Four,
    /// 5.
    Five,
}

/// Why bytes are not what a broker may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PacketFault {
    /// The length of a packet takes more than four bytes.
    #[error("a packet's length cannot be read")]
    Length,
    /// A packet that is not a PUBLISH is larger than [`OTHER_BYTES_MAX`].
    #[error("a packet of {0} bytes that is not a message")]
    TooLong(usize),
    /// The parts of a PUBLISH do not fit into it, or one of them is not allowed there.
    #[error("a malformed PUBLISH")]
    Publish,
}

/// What stands at the start of some bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scan {
    /// The beginning of a packet; nothing can be said before there are this many bytes.
    Incomplete(usize),
    /// A PUBLISH of this many bytes.
    Publish(Publish, usize),
    /// The beginning of a PUBLISH whose payload is too large. It takes this many bytes in all, of which no more than its
    /// head need be there.
    Oversized(Publish, usize),
    /// Another packet, of this many bytes.
    Other(usize),
}

/// What a PUBLISH says. Ranges are positions in the bytes that were scanned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publish {
    /// The quality of service: 0, 1 or 2.
    pub qos: u8,
    /// Whether the broker says that it has sent this before.
    pub duplicate: bool,
    /// Whether the broker repeats an old value because of a subscription.
    pub retained: bool,
    /// The packet id; 0 at QoS 0.
    pub packet: u16,
    /// The topic.
    pub topic: Range<usize>,
    /// The identifiers of the subscriptions that this copy comes through.
    pub subscriptions: Subscriptions,
    /// The payload; empty for one that is too large.
    pub payload: Range<usize>,
    /// Its length, also of one that is too large.
    pub payload_bytes: usize,
}

/// Identifiers of subscriptions. Nearly all copies come through one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Subscriptions {
    /// The broker names none.
    #[default]
    None,
    /// One.
    One(u32),
    /// Several: the broker sends one copy for all.
    Several(Vec<u32>),
}

impl Subscriptions {
    /// All of them.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Several(ids) => ids,
        }
    }

    fn push(&mut self, id: u32) {
        match self {
            Self::None => *self = Self::One(id),
            Self::One(first) => *self = Self::Several(vec![*first, id]),
            Self::Several(ids) => ids.push(id),
        }
    }
}

/// Largest packet that is not a PUBLISH: the answers to a SUBSCRIBE of all that a plan can ask for are far smaller.
pub const OTHER_BYTES_MAX: usize = 1 << 20;
/// Most bytes of properties that are looked at in a PUBLISH. The properties of one that has more are not known.
const PROPERTIES_BYTES_MAX: usize = 64 << 10;
/// Most identifiers of one PUBLISH: the broker may name each of the agent's subscriptions.
const IDENTIFIERS_MAX: usize = catchment_common::limits::QUERIES_MAX;
/// The bytes of a PUBLISH before its payload, at most: a topic, a packet id and properties with their lengths.
const HEAD_BYTES_MAX: usize = 2 + catchment_common::limits::TOPIC_BYTES_MAX + 2 + 4 + PROPERTIES_BYTES_MAX;

const PUBLISH: u8 = 3;

/// Looks at the packet that begins `bytes`. Payloads above `payload_bytes_max` are not waited for.
pub fn scan(bytes: &[u8], version: Version, payload_bytes_max: usize) -> Result<Scan, PacketFault> {
    let Some((length, head)) = number(bytes.get(1..).unwrap_or_default())? else {
        return Ok(Scan::Incomplete(bytes.len() + 1));
    };
    let body = 1 + head;
    let whole = body + length;
    if bytes[0] >> 4 != PUBLISH {
        return match whole {
            _ if length > OTHER_BYTES_MAX => Err(PacketFault::TooLong(length)),
            _ if bytes.len() < whole => Ok(Scan::Incomplete(whole)),
            _ => Ok(Scan::Other(whole)),
        };
    }
    let may_be_small = length <= payload_bytes_max + HEAD_BYTES_MAX;
    if may_be_small && bytes.len() < whole {
        return Ok(Scan::Incomplete(whole));
    }
    let mut reader = Reader {
        bytes: &bytes[..bytes.len().min(whole)],
        at: body,
        whole,
    };
    Ok(match reader.publish(bytes[0], version)? {
        None => Scan::Incomplete(reader.missing()),
        // Or its properties alone are larger than what is waited for.
        Some(publish) if publish.payload_bytes > payload_bytes_max || bytes.len() < whole => {
            let payload = 0..0;
            Scan::Oversized(Publish { payload, ..publish }, whole)
        }
        Some(publish) => Scan::Publish(publish, whole),
    })
}

/// A variable byte integer and the bytes that it takes; none if it has not come whole.
fn number(bytes: &[u8]) -> Result<Option<(usize, usize)>, PacketFault> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 {
        Ok(None)
    } else {
        Err(PacketFault::Length)
    }
}

/// Reads a PUBLISH of which the beginning is there.
struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Where the packet ends.
    whole: usize,
}

impl Reader<'_> {
    /// Bytes that must be there before the next attempt. All that a head can have: few attempts are made.
    fn missing(&self) -> usize {
        (self.bytes.len() + 1).max((self.at + HEAD_BYTES_MAX).min(self.whole))
    }

    /// The next bytes; none if they have not come.
    fn take(&mut self, count: usize) -> Result<Option<Range<usize>>, PacketFault> {
        let end = self.at + count;
        if end > self.whole {
            return Err(PacketFault::Publish);
        }
        Ok((end <= self.bytes.len()).then(|| std::mem::replace(&mut self.at, end)..end))
    }

    fn u16(&mut self) -> Result<Option<u16>, PacketFault> {
        let range = self.take(2)?;
        Ok(range.map(|range| u16::from_be_bytes([self.bytes[range.start], self.bytes[range.start + 1]])))
    }

    fn number(&mut self) -> Result<Option<usize>, PacketFault> {
        let read = number(&self.bytes[self.at..]).map_err(|_| PacketFault::Publish)?;
        if read.is_none() && self.bytes.len() == self.whole {
            return Err(PacketFault::Publish);
        }
        self.at += read.map_or(0, |(_, length)| length);
        Ok(read.map(|(value, _)| value))
    }

    /// All of it; none if its head has not come whole.
    fn publish(&mut self, first: u8, version: Version) -> Result<Option<Publish>, PacketFault> {
        let start = self.at;
        let head = self.head(first, version)?;
        if head.is_none() {
            self.at = start;
        }
        Ok(head)
    }

    fn head(&mut self, first: u8, version: Version) -> Result<Option<Publish>, PacketFault> {
        let qos = first >> 1 & 3;
        let Some(length) = self.u16()? else {
            return Ok(None);
        };
        let Some(topic) = self.take(length.into())? else {
            return Ok(None);
        };
        let packet = if qos > 0 { self.u16()? } else { Some(0) };
        let Some(packet) = packet else { return Ok(None) };
        let mut subscriptions = Subscriptions::None;
        if version == Version::Five {
            let Some(length) = self.number()? else {
                return Ok(None);
            };
            let from = self.at;
            if length > PROPERTIES_BYTES_MAX && from + length <= self.whole {
                self.at = from + length;
            } else {
                let Some(range) = self.take(length)? else {
                    return Ok(None);
                };
                subscriptions = properties(&self.bytes[range])?;
            }
        }
        // A topic that stands for another is not asked for.
        if qos > 2 || topic.is_empty() || (qos > 0 && packet == 0) {
            return Err(PacketFault::Publish);
        }
        Ok(Some(Publish {
            qos,
            duplicate: first & 8 != 0,
            retained: first & 1 != 0,
            packet,
            topic,
            subscriptions,
            payload: self.at..self.whole,
            payload_bytes: self.whole - self.at,
        }))
    }
}

/// The subscription identifiers among the properties of a PUBLISH (MQTT 5, section 3.3.2.3).
fn properties(mut bytes: &[u8]) -> Result<Subscriptions, PacketFault> {
    let mut found = Subscriptions::None;
    let text = |bytes: &[u8]| match bytes {
        [high, low, ..] => Ok(2 + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => Err(PacketFault::Publish),
    };
    while let Some((&kind, rest)) = bytes.split_first() {
        let length = match kind {
            // Payload format; expiry; alias.
            0x01 => 1,
            0x02 => 4,
            0x23 => 2,
            // Content type, response topic, correlation data.
            0x03 | 0x08 | 0x09 => text(rest)?,
            // A pair of the user's.
            0x26 => {
                let name = text(rest)?;
                name + text(rest.get(name..).ok_or(PacketFault::Publish)?)?
            }
            0x0b => {
                let (id, length) = number(rest)?.ok_or(PacketFault::Publish)?;
                if found.as_slice().len() >= IDENTIFIERS_MAX {
                    return Err(PacketFault::Publish);
                }
                found.push(id as u32);
                length
            }
            _ => return Err(PacketFault::Publish),
        };
        bytes = rest.get(length..).ok_or(PacketFault::Publish)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAYLOAD_MAX: usize = 1_000;

    fn put_number(out: &mut Vec<u8>, mut value: usize) {
        while value > 127 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn put_text(out: &mut Vec<u8>, text: &[u8]) {
        out.extend((text.len() as u16).to_be_bytes());
        out.extend(text);
    }

    fn packet(first: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        put_number(&mut out, body.len());
        out.extend(body);
        out
    }

    /// A PUBLISH at QoS 1 of the packet 258.
    fn publish(version: Version, topic: &str, properties: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        put_text(&mut body, topic.as_bytes());
        body.extend([1, 2]);
        if version == Version::Five {
            put_number(&mut body, properties.len());
            body.extend(properties);
        }
        body.extend(payload);
        packet(0x32, &body)
    }

    fn scanned(bytes: &[u8], version: Version) -> Result<Scan, PacketFault> {
        scan(bytes, version, PAYLOAD_MAX)
    }

    #[test]
    fn a_message_is_read_with_its_subscriptions() {
        let mut properties = vec![0x01, 1, 0x02, 0, 0, 0, 9, 0x0b, 7];
        properties.push(0x26);
        put_text(&mut properties, b"name");
        put_text(&mut properties, b"");
        properties.extend([0x0b, 0x80, 1]);
        let bytes = publish(Version::Five, "s/x", &properties, b"21.5");
        let Scan::Publish(publish, length) = scanned(&bytes, Version::Five).unwrap() else {
            panic!("it is there");
        };
        assert_eq!(length, bytes.len());
        assert_eq!(&bytes[publish.topic.clone()], b"s/x");
        assert_eq!(&bytes[publish.payload.clone()], b"21.5");
        assert_eq!(publish.subscriptions.as_slice(), [7, 128]);
        assert_eq!((publish.qos, publish.packet, publish.duplicate), (1, 258, false));
    }

    #[test]
    fn a_large_body_is_not_waited_for() {
        for version in [Version::Four, Version::Five] {
            let bytes = publish(version, "s/x", b"", &vec![0; 50 << 20]);
            let Scan::Oversized(publish, length) = scanned(&bytes[..200_000], version).unwrap() else {
                panic!("its head is there");
            };
            assert_eq!(
                (length, publish.payload_bytes, publish.packet),
                (bytes.len(), 50 << 20, 258)
            );
            let Scan::Incomplete(needed) = scanned(&bytes[..4], version).unwrap() else {
                panic!("nothing can be said yet");
            };
            assert!(needed < 200_000, "the head alone is waited for: {needed}");
        }
    }

    #[test]
    fn the_limit_is_of_the_payload_alone() {
        let topic = "a".repeat(60_000);
        let bytes = publish(Version::Four, &topic, b"", &[0; PAYLOAD_MAX]);
        assert!(matches!(scanned(&bytes, Version::Four), Ok(Scan::Publish(..))));
        let bytes = publish(Version::Four, &topic, b"", &[0; PAYLOAD_MAX + 1]);
        assert!(matches!(scanned(&bytes, Version::Four), Ok(Scan::Oversized(..))));
    }

    #[test]
    fn properties_without_end_are_thrown_away_with_the_body() {
        let mut properties = Vec::new();
        while properties.len() < 3 << 20 {
            properties.push(0x26);
            put_text(&mut properties, &vec![b'n'; 50_000]);
            put_text(&mut properties, b"");
        }
        let bytes = publish(Version::Five, "s/x", &properties, b"1");
        let Scan::Oversized(publish, length) = scanned(&bytes[..300_000], Version::Five).unwrap() else {
            panic!("its head is there");
        };
        assert_eq!(
            (length, publish.subscriptions),
            (bytes.len(), Subscriptions::None)
        );
    }

    #[test]
    fn other_packets_are_framed_and_bounded() {
        let bytes = packet(0x90, &[0, 1, 0]);
        assert_eq!(scanned(&bytes, Version::Four), Ok(Scan::Other(5)));
        assert_eq!(scanned(&bytes[..3], Version::Four), Ok(Scan::Incomplete(5)));
        assert_eq!(scanned(&[], Version::Four), Ok(Scan::Incomplete(1)));
        let bytes = packet(0x90, &vec![0; OTHER_BYTES_MAX + 1]);
        assert!(matches!(
            scanned(&bytes[..9], Version::Four),
            Err(PacketFault::TooLong(_))
        ));
        assert_eq!(
            scanned(&[0x30, 0xff, 0xff, 0xff, 0xff, 1], Version::Four),
            Err(PacketFault::Length)
        );
    }

    #[test]
    fn a_malformed_message_is_told() {
        let fault = |first: u8, body: &[u8]| scanned(&packet(first, body), Version::Five).unwrap_err();
        assert_eq!(fault(0x36, &[0, 1, b'a', 0, 1, 0]), PacketFault::Publish, "QoS 3");
        assert_eq!(
            fault(0x30, &[0, 9, b'a']),
            PacketFault::Publish,
            "a topic beyond the end"
        );
        assert_eq!(fault(0x30, &[0, 0, 0]), PacketFault::Publish, "no topic");
        assert_eq!(
            fault(0x32, &[0, 1, b'a', 0, 0, 0]),
            PacketFault::Publish,
            "the packet id 0"
        );
        assert_eq!(
            fault(0x30, &[0, 1, b'a', 2, 0x11, 0]),
            PacketFault::Publish,
            "a property of others"
        );
        assert_eq!(
            fault(0x30, &[0, 1, b'a', 9, 0]),
            PacketFault::Publish,
            "properties beyond the end"
        );
        assert_eq!(
            fault(0x30, &[0, 1, b'a', 0x80]),
            PacketFault::Publish,
            "half a length"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), five in any::<bool>()) {
            let version = if five { Version::Five } else { Version::Four };
            match scan(&bytes, version, 20) {
                Ok(Scan::Incomplete(needed)) => prop_assert!(needed > bytes.len()),
                Ok(Scan::Publish(publish, length)) => {
                    prop_assert!(publish.payload.end <= length && length <= bytes.len());
                    prop_assert!(publish.topic.end <= publish.payload.start);
                }
                Ok(Scan::Oversized(publish, length)) => {
                    prop_assert!(publish.topic.end <= bytes.len() && length >= publish.payload_bytes);
                }
                Ok(Scan::Other(length)) => prop_assert!(length <= bytes.len()),
                Err(_) => {}
            }
        }

        #[test]
        fn what_comes_in_pieces_is_read_as_what_comes_at_once(
            payload in prop::collection::vec(any::<u8>(), 0..1_500), ids in prop::collection::vec(1_u8..127, 0..3), cut in 0_usize..1_600
        ) {
            let properties: Vec<u8> = ids.iter().flat_map(|id| [0x0b, *id]).collect();
            let bytes = publish(Version::Five, "s/x", &properties, &payload);
            let whole = scanned(&bytes, Version::Five).unwrap();
            match scanned(&bytes[..cut.min(bytes.len())], Version::Five).unwrap() {
                Scan::Incomplete(needed) => prop_assert!(needed <= bytes.len()),
                part => prop_assert_eq!(part, whole),
            }
        }
    }
}
