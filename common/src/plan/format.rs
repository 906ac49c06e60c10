//! How payloads are written.

use alloc::string::String;
use alloc::vec::Vec;

/// A payload format. What the paths of each are is written in `docs/PAYLOADS.md`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Format {
    /// A JSON object, or an array of objects (several readings in one message).
    #[default]
    Json,
    /// One number as text; its path is `value`.
    Number,
    /// Lines of cells.
    Csv(Csv),
    /// Lines of the InfluxDB line protocol.
    Influx,
    /// SenML packs in JSON (RFC 8428); each record is a reading.
    SenmlJson,
    /// SenML packs in CBOR.
    SenmlCbor,
    /// A CBOR map, or an array of maps.
    Cbor,
    /// A MessagePack map, or an array of maps.
    Msgpack,
    /// Sparkplug B.
    Sparkplug,
}

/// How CSV payloads are written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Csv {
    /// The columns' names; none when the first line of each payload has them.
    pub columns: Option<Vec<String>>,
    /// What stands between cells, an ASCII character.
    pub delimiter: u8,
}

/// How payloads are packed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878), without a dictionary.
    Zstd,
}

impl Format {
    /// The formats that need no options, with their names in plans.
    pub const NAMED: [(&'static str, Self); 8] = [
        ("json", Self::Json),
        ("number", Self::Number),
        ("influx", Self::Influx),
        ("senml-json", Self::SenmlJson),
        ("senml-cbor", Self::SenmlCbor),
        ("cbor", Self::Cbor),
        ("msgpack", Self::Msgpack),
        ("sparkplug", Self::Sparkplug),
    ];
}
