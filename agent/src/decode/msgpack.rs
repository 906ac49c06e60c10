//! MessagePack as items. Its timestamps are numbers of seconds.

use catchment_common::metrics::Reason;
use rmp::Marker;
use rmp::decode::{RmpRead, read_marker};

use super::walk::{self, Item};

pub(super) struct Items<'p> {
    rest: &'p [u8],
}

/// The extension type of timestamps.
const TIMESTAMP: i8 = -1;

impl<'p> Items<'p> {
    pub(super) fn new(payload: &'p [u8]) -> Self {
        Self { rest: payload }
    }

    fn item(&mut self) -> Option<Item<'p>> {
        let rest = &mut self.rest;
        let marker = read_marker(rest).ok()?;
        Some(match marker {
            Marker::Null => Item::Null,
            Marker::True => Item::Truth(true),
            Marker::False => Item::Truth(false),
            Marker::FixPos(whole) => Item::Whole(whole.into()),
            Marker::FixNeg(whole) => Item::Whole(whole.into()),
            Marker::U8 => Item::Whole(rest.read_data_u8().ok()?.into()),
            Marker::U16 => Item::Whole(rest.read_data_u16().ok()?.into()),
            Marker::U32 => Item::Whole(rest.read_data_u32().ok()?.into()),
            Marker::U64 => Item::Whole(rest.read_data_u64().ok()?.into()),
            Marker::I8 => Item::Whole(rest.read_data_i8().ok()?.into()),
            Marker::I16 => Item::Whole(rest.read_data_i16().ok()?.into()),
            Marker::I32 => Item::Whole(rest.read_data_i32().ok()?.into()),
            Marker::I64 => Item::Whole(rest.read_data_i64().ok()?.into()),
            Marker::F32 => Item::Single(rest.read_data_f32().ok()?),
            Marker::F64 => Item::Float(rest.read_data_f64().ok()?),
            Marker::FixStr(length) => return self.text(length.into()),
            Marker::Str8 => {
                let length = rest.read_data_u8().ok()?;
                return self.text(length.into());
            }
            Marker::Str16 => {
                let length = rest.read_data_u16().ok()?;
                return self.text(length.into());
            }
            Marker::Str32 => {
                let length = rest.read_data_u32().ok()?;
                return self.text(length as usize);
            }
            Marker::Bin8 => {
                let length = rest.read_data_u8().ok()?;
                return self.bytes(length.into()).map(|_| Item::Other);
            }
            Marker::Bin16 => {
                let length = rest.read_data_u16().ok()?;
                return self.bytes(length.into()).map(|_| Item::Other);
            }
            Marker::Bin32 => {
                let length = rest.read_data_u32().ok()?;
                return self.bytes(length as usize).map(|_| Item::Other);
            }
            Marker::FixArray(length) => Item::List(Some(length.into())),
            Marker::Array16 => Item::List(Some(rest.read_data_u16().ok()?.into())),
            Marker::Array32 => Item::List(Some(rest.read_data_u32().ok()?.into())),
            Marker::FixMap(length) => Item::Map(Some(length.into())),
            Marker::Map16 => Item::Map(Some(rest.read_data_u16().ok()?.into())),
            Marker::Map32 => Item::Map(Some(rest.read_data_u32().ok()?.into())),
            Marker::FixExt1 => return self.extension(1),
            Marker::FixExt2 => return self.extension(2),
            Marker::FixExt4 => return self.extension(4),
            Marker::FixExt8 => return self.extension(8),
            Marker::FixExt16 => return self.extension(16),
            Marker::Ext8 => {
                let length = rest.read_data_u8().ok()?;
                return self.extension(length.into());
            }
            Marker::Ext16 => {
                let length = rest.read_data_u16().ok()?;
                return self.extension(length.into());
            }
            Marker::Ext32 => {
                let length = rest.read_data_u32().ok()?;
                return self.extension(length as usize);
            }
            Marker::Reserved => return None,
        })
    }

    fn bytes(&mut self, length: usize) -> Option<&'p [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    fn text(&mut self, length: usize) -> Option<Item<'p>> {
        std::str::from_utf8(self.bytes(length)?).ok().map(Item::Text)
    }

    fn extension(&mut self, length: usize) -> Option<Item<'p>> {
        let kind = self.rest.read_data_i8().ok()?;
        let bytes = self.bytes(length)?;
        if kind != TIMESTAMP {
            return Some(Item::Other);
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |all, &byte| all << 8 | u64::from(byte));
        let (seconds, nanos) = match bytes.len() {
            4 => (i128::from(number(bytes)), 0),
            8 => {
                let both = number(bytes);
                (i128::from(both & 0x3_ffff_ffff), both >> 34)
            }
            12 => (i128::from(number(&bytes[4..]) as i64), number(&bytes[..4])),
            _ => return Some(Item::Other),
        };
        Some(Item::Decimal(seconds * 1_000_000_000 + i128::from(nanos), -9))
    }
}

impl<'p> walk::Items<'p> for Items<'p> {
    fn next(&mut self) -> Result<Item<'p>, Reason> {
        self.item().ok_or(Reason::MalformedPayload)
    }

    fn is_done(&self) -> bool {
        self.rest.is_empty()
    }
}
