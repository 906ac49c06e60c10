//! The format of payloads: a name, or CSV with what it needs to be told.

use std::fmt;

use catchment_common::limits::COLUMNS_MAX;
use catchment_common::plan::{Compression, Csv, Format};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::Faults;
use crate::io::config::nearest;

/// `"json"`, or `{ csv = ["ts", "temp"], delimiter = ";" }`.
pub(super) enum RawFormat {
    Name(String),
    Csv {
        columns: Option<Vec<Spanned<String>>>,
        delimiter: Option<Spanned<String>>,
    },
}

/// `format` of a query.
pub(super) fn format(raw: Option<&Spanned<RawFormat>>, faults: &mut Faults) -> Format {
    let Some(raw) = raw else { return Format::Json };
    match raw.get_ref() {
        RawFormat::Name(name) if name == "csv" => csv(None, None, raw.span().start, faults),
        RawFormat::Name(name) => named(name).unwrap_or_else(|| {
            let known = Format::NAMED.iter().map(|(known, _)| *known).chain(["csv"]);
            let hint = nearest(name, known).map_or_else(
                || {
                    "known are json, number, csv, influx, senml-json, senml-cbor, cbor, msgpack and sparkplug"
                        .to_owned()
                },
                |near| format!("did you mean `{near}`?"),
            );
            faults.push((raw.span().start, format!("there is no format `{name}`; {hint}")));
            Format::Json
        }),
        RawFormat::Csv { columns, delimiter } => {
            csv(columns.as_deref(), delimiter.as_ref(), raw.span().start, faults)
        }
    }
}

fn named(name: &str) -> Option<Format> {
    let mut all = Format::NAMED.into_iter();
    all.find(|(known, _)| *known == name).map(|(_, format)| format)
}

fn csv(
    columns: Option<&[Spanned<String>]>,
    delimiter: Option<&Spanned<String>>,
    place: usize,
    faults: &mut Faults,
) -> Format {
    if let Some(columns) = columns {
        if columns.is_empty() || columns.len() > COLUMNS_MAX {
            faults.push((place, format!("CSV must have 1 to {COLUMNS_MAX} columns")));
        }
        for (index, name) in columns.iter().enumerate() {
            let is_other = |other: &Spanned<String>| other.get_ref() == name.get_ref();
            if columns[..index].iter().any(is_other) {
                let message = format!("column `{}` stands twice; rename one", name.get_ref());
                faults.push((name.span().start, message));
            }
        }
    }
    let delimiter = delimiter.map_or(b',', |text| match text.get_ref().as_bytes() {
        &[byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => byte,
        _ => {
            let message = "the delimiter must be one ASCII character; write \";\"".to_owned();
            faults.push((text.span().start, message));
            b','
        }
    });
    Format::Csv(Csv {
        columns: columns.map(|all| all.iter().map(|name| name.get_ref().clone()).collect()),
        delimiter,
    })
}

/// `compression` of a query.
pub(super) fn compression(raw: Option<&Spanned<String>>, faults: &mut Faults) -> Compression {
    let Some(raw) = raw else { return Compression::None };
    match raw.get_ref().as_str() {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        other => {
            let message = format!("compression `{other}` is none of none, gzip, zstd");
            faults.push((raw.span().start, message));
            Compression::None
        }
    }
}

/// The names of columns, or none for `"header"`.
struct Columns(Option<Vec<Spanned<String>>>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of columns, or \"header\"")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Columns, E> {
                if word == "header" {
                    return Ok(Columns(None));
                }
                Err(E::custom(
                    "`csv` is a list of columns, or \"header\"; write { csv = [\"ts\", \"temp\"] }",
                ))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Columns, A::Error> {
                let all = Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(seq))?;
                Ok(Columns(Some(all)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for RawFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            csv: Columns,
            delimiter: Option<Spanned<String>>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawFormat;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a format, or { csv = [\"ts\", \"temp\"] }")
            }

            fn visit_str<E>(self, name: &str) -> Result<RawFormat, E> {
                Ok(RawFormat::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawFormat, A::Error> {
                let Long { csv, delimiter } =
                    Long::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(RawFormat::Csv {
                    columns: csv.0,
                    delimiter,
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use catchment_common::plan::{Query, TimeSource, TimeUnit};

    fn query(lines: &str) -> Result<Query, String> {
        let text = format!(
            "[[query]]\nname = \"a\"\ntopic = \"s/+\"\n{lines}\nkey = []\nfields = {{ temp = \"temp\" }}\n\
             window = {{ size = \"60s\" }}\naggregates = [\"mean\"]\n"
        );
        parse(&text, "p")
            .map(|mut plan| plan.queries.remove(0))
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn formats_are_read() {
        for (name, format) in Format::NAMED {
            assert_eq!(query(&format!("format = \"{name}\"")).unwrap().format, format);
        }
        let csv = |columns: Option<&[&str]>, delimiter| {
            Format::Csv(Csv {
                columns: columns.map(|all| all.iter().map(|name| (*name).into()).collect()),
                delimiter,
            })
        };
        let format = |line: &str| query(&format!("format = {line}")).unwrap().format;
        assert_eq!(format("\"csv\""), csv(None, b','));
        assert_eq!(format("{ csv = \"header\", delimiter = \";\" }"), csv(None, b';'));
        assert_eq!(
            format("{ csv = [\"ts\", \"temp\"] }"),
            csv(Some(&["ts", "temp"]), b',')
        );
        let query =
            query("compression = \"zstd\"\ntime = { path = \"t\", unit = \"ns\", fallback = \"arrival\" }");
        let query = query.unwrap();
        assert_eq!(query.compression, Compression::Zstd);
        assert!(matches!(
            query.time,
            TimeSource::Payload {
                unit: TimeUnit::Nanos,
                fallback: true,
                ..
            }
        ));
    }

    #[test]
    fn each_fault_of_a_format_has_its_place() {
        let fault = |lines: &str| query(lines).unwrap_err();
        assert_eq!(
            fault("format = \"jason\""),
            "p:4:10: there is no format `jason`; did you mean `json`?"
        );
        assert_eq!(
            fault("format = { csv = [\"ts\", \"ts\"] }"),
            "p:4:25: column `ts` stands twice; rename one"
        );
        assert_eq!(
            fault("format = { csv = [] }"),
            "p:4:10: CSV must have 1 to 256 columns"
        );
        assert_eq!(
            fault("format = { csv = [\"ts\"], delimiter = \"ab\" }"),
            "p:4:38: the delimiter must be one ASCII character; write \";\""
        );
        assert_eq!(
            fault("format = { csv = \"first\" }"),
            "p:4:18: `csv` is a list of columns, or \"header\"; write { csv = [\"ts\", \"temp\"] }"
        );
        assert_eq!(
            fault("compression = \"rar\""),
            "p:4:15: compression `rar` is none of none, gzip, zstd"
        );
        assert_eq!(
            fault("time = { path = \"ts\", unit = \"s\", fallback = \"now\" }"),
            "p:4:46: fallback `now` is not known; write \"arrival\", or leave it out to refuse such readings"
        );
    }
}
