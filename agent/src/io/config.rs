//! The configuration file: TOML, checked as a whole, with errors that say file, line, column and what to do.

mod clock;
mod describe;
mod document;
mod durability;
mod faults;
mod source;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer};

pub use self::clock::Clock;
pub use self::durability::{Durability, Mode};
pub use self::source::{Kind, Mqtt, Source};

use self::document::{Document, Step};

use catchment_common::time::Span;

use crate::settings::Settings;

/// An agent's configuration. Relative paths are relative to the file.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The agent's name: the one that its certificate was issued for.
    pub name: String,
    /// Where the agent keeps what must survive a restart.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// Where readings come from, in the order of the file.
    #[serde(rename = "source", default, deserialize_with = "source::later")]
    pub sources: Vec<Source>,
    /// One source as configurations of before wrote it. It becomes the only one of `sources`.
    broker: Option<Mqtt>,
    /// The aggregator.
    pub aggregator: Aggregator,
    /// Certificates for the link to the aggregator.
    pub tls: Tls,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// What is kept on disk.
    #[serde(default)]
    pub durability: Durability,
    /// The gateway's clock.
    #[serde(default)]
    pub clock: Clock,
}

/// The aggregator to report to.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregator {
    /// `host:port` (UDP).
    pub address: String,
    /// The name in the aggregator's certificate.
    #[serde(default = "default_server_name")]
    pub server_name: String,
}

/// Certificates, in PEM files.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The authority that the aggregator's certificate must come from.
    pub ca: PathBuf,
    /// The agent's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Bounds of memory and input.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory for open panes and their keys.
    pub memory: ByteSize,
    /// Disk for batches that wait for their acknowledgement, and for a while after it.
    pub spool: ByteSize,
    /// Disk for readings that are not in batches yet.
    pub journal: ByteSize,
    /// Largest payload that is looked at; larger ones are counted and dropped.
    pub payload: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(8),
            spool: ByteSize::mib(64),
            journal: ByteSize::mib(16),
            payload: ByteSize::kib(64),
        }
    }
}

fn default_state() -> PathBuf {
    "state".into()
}

fn default_server_name() -> String {
    "catchment-aggregator".into()
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

/// A configuration that cannot be used. Its text is for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError(format!(
                "{}: cannot read the configuration: {error}",
                path.display()
            ))
        })?;
        let mut config = Self::parse(&text, &path.display().to_string())?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for file in config.paths() {
            if file.is_relative() {
                *file = folder.join(&*file);
            }
        }
        Ok(config)
    }

    /// Checks the text of a file called `name`.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let unreadable = |error: toml::de::Error| ConfigError(document::unreadable(&error, text, name));
        let document = Document::parse(text, name).map_err(unreadable)?;
        let mut config: Self = document.read().map_err(unreadable)?;
        let mut faults = Vec::new();
        match config.broker.clone() {
            Some(_) if document.has("source") => faults.push((
                vec![Step::Key("broker")],
                "is what one `[[source]]` with type = \"mqtt\" was called before: with both there is no telling what is \
                 meant; make a `[[source]]` of it"
                    .to_owned(),
            )),
            Some(mqtt) => config.sources = vec![Source::of_before(mqtt)],
            None => config.sources = source::read(&document, &mut faults).map_err(unreadable)?,
        }
        faults.extend(config.faults());
        if faults.is_empty() {
            return Ok(config);
        }
        Err(ConfigError(document.show(faults)))
    }

    /// Whether the only source is written as in configurations of before.
    pub fn is_of_before(&self) -> bool {
        self.broker.is_some()
    }

    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let of_sources = self.sources.iter_mut().flat_map(Source::paths);
        of_sources.chain([
            &mut self.state,
            &mut self.tls.ca,
            &mut self.tls.certificate,
            &mut self.tls.key,
        ])
    }

    /// The part that the machine needs.
    pub fn settings(&self) -> Settings {
        Settings {
            name: self.name.clone(),
            memory_bytes: self.limits.memory.as_u64() as usize,
            spool_bytes: self.limits.spool.as_u64(),
            journal_bytes: self.journal_bytes(),
            retain_acked: span(self.durability.retain_acked),
            commit_delay: span(self.durability.commit_delay),
            sources: { self.sources.iter() }
                .map(|source| self.source_settings(source))
                .collect(),
            payload_bytes_max: self.limits.payload.as_u64() as usize,
            clock_unset: self.clock.unset,
            // Who starts the machine looks at the clock.
            clock_known: !self.clock.confirm,
        }
    }
}

fn span(duration: Duration) -> Span {
    Span::from_micros(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
