//! The plan's TOML as it is written, before it means anything.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::format::RawFormat;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPlan {
    #[serde(default)]
    pub(super) query: Vec<RawQuery>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQuery {
    pub(super) name: Spanned<String>,
    pub(super) topic: Spanned<String>,
    pub(super) format: Option<Spanned<RawFormat>>,
    pub(super) compression: Option<Spanned<String>>,
    pub(super) time: Option<Spanned<RawTime>>,
    #[serde(default)]
    pub(super) tags: InOrder<Spanned<String>>,
    pub(super) key: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) fields: InOrder<Spanned<RawField>>,
    #[serde(rename = "where")]
    pub(super) filter: Option<Spanned<String>>,
    pub(super) window: Spanned<RawWindow>,
    #[serde(default)]
    pub(super) aggregates: Vec<Spanned<String>>,
    #[serde(alias = "lateness")]
    pub(super) watermark_delay: Option<Spanned<String>>,
    #[serde(alias = "max_late")]
    pub(super) allowed_lateness: Option<Spanned<String>>,
    pub(super) max_ahead: Option<Spanned<String>>,
    pub(super) idle: Option<Spanned<String>>,
    pub(super) patience: Option<Spanned<String>>,
    pub(super) lookback: Option<Spanned<String>>,
    pub(super) retention: Option<Spanned<String>>,
    pub(super) coarsen: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) dedupe: Option<Spanned<RawDedupe>>,
    pub(super) new_keys: Option<Spanned<RawNewKeys>>,
    pub(super) memory: Option<Spanned<String>>,
    pub(super) source: Option<Spanned<String>>,
}

/// `"path"`, or `{ path = "…", wraps_at = 65536, restart = true }`.
pub(super) struct RawDedupe {
    pub(super) path: String,
    pub(super) wraps_at: Option<u64>,
    pub(super) restart: bool,
}

impl<'de> Deserialize<'de> for RawDedupe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            path: String,
            wraps_at: Option<u64>,
            #[serde(default)]
            restart: bool,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawDedupe;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or { path = \"fCnt\", wraps_at = 65536, restart = true }")
            }

            fn visit_str<E>(self, path: &str) -> Result<RawDedupe, E> {
                Ok(RawDedupe {
                    path: path.to_owned(),
                    wraps_at: None,
                    restart: false,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawDedupe, A::Error> {
                let Long {
                    path,
                    wraps_at,
                    restart,
                } = Long::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(RawDedupe {
                    path,
                    wraps_at,
                    restart,
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNewKeys {
    pub(super) max: u32,
    pub(super) every: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTime {
    pub(super) path: Spanned<String>,
    pub(super) unit: Spanned<String>,
    pub(super) fallback: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWindow {
    pub(super) size: Option<Spanned<String>>,
    pub(super) every: Option<Spanned<String>>,
    pub(super) offset: Option<Spanned<String>>,
    pub(super) session: Option<Spanned<String>>,
    pub(super) count: Option<Spanned<i64>>,
    pub(super) timezone: Option<Spanned<String>>,
}

/// `"path"`, `"expression"`, or `{ path = "…", resolution = 0.01, kind = "counter" }` with `expr` in the place of
/// `path`.
pub(super) struct RawField {
    pub(super) source: RawSource,
    pub(super) resolution: Option<Spanned<f64>>,
    pub(super) kind: Option<Spanned<String>>,
    pub(super) wraps_at: Option<Spanned<f64>>,
    pub(super) tolerance: Option<Spanned<f64>>,
}

/// Where a field's value comes from, as far as it is said.
pub(super) enum RawSource {
    /// A path.
    Path(String),
    /// An expression, and where it is written.
    Expression(String, Range<usize>),
    /// One or the other.
    Either(String),
}

impl<'de> Deserialize<'de> for RawField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            path: Option<String>,
            expr: Option<Spanned<String>>,
            resolution: Option<Spanned<f64>>,
            kind: Option<Spanned<String>>,
            wraps_at: Option<Spanned<f64>>,
            tolerance: Option<Spanned<f64>>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawField;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, an expression, or { path = \"…\", resolution = 0.01 }")
            }

            fn visit_str<E>(self, text: &str) -> Result<RawField, E> {
                Ok(RawField {
                    source: RawSource::Either(text.to_owned()),
                    resolution: None,
                    kind: None,
                    wraps_at: None,
                    tolerance: None,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawField, A::Error> {
                let Long {
                    path,
                    expr,
                    resolution,
                    kind,
                    wraps_at,
                    tolerance,
                } = Long::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                let source = match (path, expr) {
                    (Some(path), None) => RawSource::Path(path),
                    (None, Some(expr)) => {
                        let span = expr.span();
                        RawSource::Expression(expr.into_inner(), span)
                    }
                    _ => {
                        return Err(serde::de::Error::custom(
                            "a field has either `path` or `expr`; write { path = \"temp\" } or { expr = \"temp * 2\" }",
                        ));
                    }
                };
                Ok(RawField {
                    source,
                    resolution,
                    kind,
                    wraps_at,
                    tolerance,
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A table whose entries keep the order of the file: columns come in the order in which fields are written.
pub(super) struct InOrder<T>(pub(super) Vec<(String, T)>);

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for InOrder<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = InOrder<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InOrder<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(InOrder(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}
