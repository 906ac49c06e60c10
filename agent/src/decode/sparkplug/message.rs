//! The messages of Sparkplug B (specification 3.0, section 6.4), as far as they are read. Fields that are left out here
//! (properties, data sets, templates) are passed over.

use prost::{Message, Oneof};

/// A payload.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Payload {
    /// When it was sent, in milliseconds.
    #[prost(uint64, optional, tag = "1")]
    pub(super) timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    pub(super) metrics: Vec<Metric>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) seq: Option<u64>,
    /// What kind of payload this is, if it is another one.
    #[prost(string, optional, tag = "4")]
    pub(super) uuid: Option<String>,
    /// What it is then.
    #[prost(bytes = "vec", optional, tag = "5")]
    pub(super) body: Option<Vec<u8>>,
}

/// A metric.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Metric {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) alias: Option<u64>,
    /// When it was measured, in milliseconds.
    #[prost(uint64, optional, tag = "3")]
    pub(super) timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub(super) datatype: Option<u32>,
    #[prost(bool, optional, tag = "7")]
    pub(super) is_null: Option<bool>,
    #[prost(oneof = "Value", tags = "10, 11, 12, 13, 14, 15, 16")]
    pub(super) value: Option<Value>,
}

/// A metric's value.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Value {
    #[prost(uint32, tag = "10")]
    Int(u32),
    #[prost(uint64, tag = "11")]
    Long(u64),
    #[prost(float, tag = "12")]
    Float(f32),
    #[prost(double, tag = "13")]
    Double(f64),
    #[prost(bool, tag = "14")]
    Truth(bool),
    #[prost(string, tag = "15")]
    Text(String),
    #[prost(bytes = "vec", tag = "16")]
    Bytes(Vec<u8>),
}

/// The numbers of data types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DataType(u32);

impl DataType {
    pub(super) const INT8: Self = Self(1);
    pub(super) const INT16: Self = Self(2);
    pub(super) const INT32: Self = Self(3);
    pub(super) const INT64: Self = Self(4);
    /// The number of a boolean.
    pub(super) const BOOLEAN: u32 = 11;
}

impl Metric {
    pub(super) fn data_type(&self) -> DataType {
        DataType(self.datatype.unwrap_or(0))
    }
}
