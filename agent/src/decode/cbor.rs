//! CBOR (RFC 8949) as items.
//!
//! Tags are passed over, but for those that make numbers: decimal fractions stay exact, and big integers that are
//! larger than any value are out of range. Texts in chunks are not read: no sensor sends them.

use catchment_common::metrics::Reason;
use minicbor::Decoder;
use minicbor::data::Type;

use super::walk::{self, Item};

pub(super) struct Items<'p> {
    payload: &'p [u8],
    decoder: Decoder<'p>,
}

/// A number that no value can be.
const TOO_LARGE: (i128, i64) = (1, 40);
const BIG: u64 = 2;
const BIG_NEGATIVE: u64 = 3;
const DECIMAL_FRACTION: u64 = 4;

impl<'p> Items<'p> {
    pub(super) fn new(payload: &'p [u8]) -> Self {
        Self {
            payload,
            decoder: Decoder::new(payload),
        }
    }

    fn item(&mut self) -> Result<Item<'p>, Fault> {
        let decoder = &mut self.decoder;
        Ok(match decoder.datatype()? {
            Type::Bool => Item::Truth(decoder.bool()?),
            Type::Null => {
                decoder.null()?;
                Item::Null
            }
            Type::Undefined => {
                decoder.undefined()?;
                Item::Null
            }
            Type::U8
            | Type::U16
            | Type::U32
            | Type::U64
            | Type::I8
            | Type::I16
            | Type::I32
            | Type::I64
            | Type::Int => Item::Whole(decoder.int()?.into()),
            Type::F16 => {
                let at = decoder.position();
                let bits = self.payload.get(at + 1..at + 3).ok_or(Fault)?;
                decoder.set_position(at + 3);
                Item::Half(u16::from_be_bytes([bits[0], bits[1]]))
            }
            Type::F32 => Item::Single(decoder.f32()?),
            Type::F64 => Item::Float(decoder.f64()?),
            Type::String => Item::Text(decoder.str()?),
            Type::Bytes => {
                decoder.bytes()?;
                Item::Other
            }
            Type::Array | Type::ArrayIndef => Item::List(decoder.array()?),
            Type::Map | Type::MapIndef => Item::Map(decoder.map()?),
            Type::Tag => {
                let tag = decoder.tag()?.as_u64();
                return self.tagged(tag);
            }
            Type::Break => {
                decoder.set_position(decoder.position() + 1);
                Item::End
            }
            Type::Simple => {
                decoder.simple()?;
                Item::Other
            }
            Type::BytesIndef | Type::StringIndef | Type::Unknown(_) => return Err(Fault),
        })
    }

    fn tagged(&mut self, mut tag: u64) -> Result<Item<'p>, Fault> {
        // Tags may be tagged; a loop, because there may be as many as bytes.
        loop {
            match tag {
                BIG | BIG_NEGATIVE => {
                    let magnitude = big(self.decoder.bytes()?);
                    let whole =
                        magnitude.map(|magnitude| if tag == BIG { magnitude } else { -1 - magnitude });
                    return Ok(whole.map_or(Item::Decimal(TOO_LARGE.0, TOO_LARGE.1), Item::Whole));
                }
                DECIMAL_FRACTION => {
                    if self.decoder.array()? != Some(2) {
                        return Err(Fault);
                    }
                    let exponent = self.decoder.i64()?;
                    let Item::Whole(mantissa) = self.mantissa()? else {
                        return Ok(Item::Decimal(TOO_LARGE.0, TOO_LARGE.1));
                    };
                    return Ok(Item::Decimal(mantissa, exponent));
                }
                _ if self.decoder.datatype()? == Type::Tag => tag = self.decoder.tag()?.as_u64(),
                _ => return self.item(),
            }
        }
    }

    /// The mantissa of a decimal fraction: an integer, small or big.
    fn mantissa(&mut self) -> Result<Item<'p>, Fault> {
        if self.decoder.datatype()? != Type::Tag {
            return Ok(Item::Whole(self.decoder.int()?.into()));
        }
        match self.decoder.tag()?.as_u64() {
            tag @ (BIG | BIG_NEGATIVE) => self.tagged(tag),
            _ => Err(Fault),
        }
    }
}

/// The bytes of a big integer; none at 2¹²⁶ or more.
fn big(bytes: &[u8]) -> Option<i128> {
    let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    if bytes.len() > 16 || (bytes.len() == 16 && bytes[0] >= 0x40) {
        return None;
    }
    Some(bytes.iter().fold(0, |all, &byte| all << 8 | i128::from(byte)))
}

/// What is wrong with CBOR does not matter to anyone.
struct Fault;

impl From<minicbor::decode::Error> for Fault {
    fn from(_: minicbor::decode::Error) -> Self {
        Self
    }
}

impl<'p> walk::Items<'p> for Items<'p> {
    fn next(&mut self) -> Result<Item<'p>, Reason> {
        self.item().map_err(|Fault| Reason::MalformedPayload)
    }

    fn is_done(&self) -> bool {
        self.decoder.position() >= self.payload.len()
    }
}
