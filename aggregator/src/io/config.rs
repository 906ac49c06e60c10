//! The configuration file: TOML, checked as a whole, with errors that say file, line, column and what to do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use catchment_common::time::Span;
use serde::{Deserialize, Deserializer};

use crate::aggregator::Settings;
use crate::limits::{DUE_ROWS_MAX, MEMORY_DEFAULT, MEMORY_MIN};

/// An aggregator's configuration. Relative paths are relative to the file.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and UDP port to listen on.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The database file.
    #[serde(default = "default_database")]
    pub database: PathBuf,
    /// A plan to put into force at start when its file has changed since it was last taken.
    pub plan: Option<PathBuf>,
    /// An agent that was not heard for so long is no longer expected.
    #[serde(default = "default_lease", deserialize_with = "duration")]
    pub lease: Duration,
    /// How often agents are asked for heartbeats.
    #[serde(default = "default_heartbeat", deserialize_with = "duration")]
    pub heartbeat: Duration,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// Certificates.
    pub tls: Tls,
}

/// Bounds of memory.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory for panes. Those beyond it stay in the database and are loaded when a window needs them.
    #[serde(deserialize_with = "memory")]
    pub memory: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize::b(MEMORY_DEFAULT as u64),
        }
    }
}

/// Where certificates are: a folder made by `pki init`, or files.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A folder with `ca.pem`, `server.pem` and `server.key`.
    pub pki: Option<PathBuf>,
    /// The authority that agents' certificates must come from.
    pub ca: Option<PathBuf>,
    /// The aggregator's certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

fn default_listen() -> SocketAddr {
    ([127, 0, 0, 1], 7443).into()
}

fn default_database() -> PathBuf {
    "catchment.db".into()
}

fn default_lease() -> Duration {
    Duration::from_hours(1)
}

fn default_heartbeat() -> Duration {
    Duration::from_secs(5)
}

fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if size.as_u64() < MEMORY_MIN as u64 {
        let least = ByteSize::b(MEMORY_MIN as u64);
        return Err(serde::de::Error::custom(format!(
            "{size} is too little memory for panes; write at least \"{least}\""
        )));
    }
    Ok(size)
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
        let Tls {
            pki,
            ca,
            certificate,
            key,
        } = &mut config.tls;
        let optional = [pki, ca, certificate, key, &mut config.plan]
            .into_iter()
            .filter_map(Option::as_mut);
        for file in optional.chain([&mut config.database]) {
            if file.is_relative() {
                *file = folder.join(&*file);
            }
        }
        Ok(config)
    }

    /// Checks the text of a file called `name`.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            let message = error.message();
            ConfigError(format!(
                "{name}:{line}:{column}: {message}{}",
                unknown_key_hint(message)
            ))
        })?;
        let tls = &config.tls;
        let files = [&tls.ca, &tls.certificate, &tls.key];
        let complete = if tls.pki.is_some() {
            files.iter().all(|file| file.is_none())
        } else {
            files.iter().all(|file| file.is_some())
        };
        if !complete {
            let place = text.find("[tls]").unwrap_or(0);
            let (line, column) = position(text, place);
            let message =
                "tls: give either `pki`, the folder that `pki init` made, or `ca`, `certificate` and `key`";
            return Err(ConfigError(format!("{name}:{line}:{column}: {message}")));
        }
        Ok(config)
    }

    /// The part that the machine needs.
    pub fn settings(&self) -> Settings {
        let span =
            |duration: Duration| Span::from_micros(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX));
        Settings {
            lease: span(self.lease),
            heartbeat: span(self.heartbeat),
            due_rows: DUE_ROWS_MAX,
            memory: usize::try_from(self.limits.memory.as_u64()).unwrap_or(usize::MAX),
        }
    }
}

impl Tls {
    /// The files of authority, certificate and key.
    pub fn files(&self) -> (PathBuf, PathBuf, PathBuf) {
        let file = |own: &Option<PathBuf>, name: &str| {
            own.clone()
                .unwrap_or_else(|| self.pki.clone().unwrap_or_default().join(name))
        };
        (
            file(&self.ca, "ca.pem"),
            file(&self.certificate, "server.pem"),
            file(&self.key, "server.key"),
        )
    }
}

/// Line and column, both from 1, of a byte offset. Columns count characters.
pub fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// For serde's "unknown field `x`, expected one of `a`, `b`": which of the known ones is nearest.
pub fn unknown_key_hint(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return String::new();
    };
    let mut names = rest.split('`').step_by(2);
    let Some(unknown) = names.next() else {
        return String::new();
    };
    nearest(unknown, names).map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}

/// The name nearest to `unknown`, if any is near.
pub fn nearest<'n>(unknown: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    known
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().max(unknown.len()) / 2)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_configuration_has_sound_defaults() {
        let config = Config::parse("[tls]\npki = \"pki\"\n", "a.toml").unwrap();
        assert_eq!(config.listen.port(), 7443);
        assert!(config.listen.ip().is_loopback());
        assert_eq!(config.tls.files().1, Path::new("pki/server.pem"));
        assert_eq!(config.settings().lease, Span::from_secs(3_600));
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(Config::parse(text, "a.toml").unwrap_err().to_string(), expected);
    }

    #[test]
    fn errors_say_where_and_what_to_do() {
        check(
            "lisen = \"x\"\n[tls]\npki = \"p\"",
            "a.toml:1:1: unknown field `lisen`, expected one of `listen`, \
            `database`, `plan`, `lease`, `heartbeat`, `limits`, `tls`; did you mean `listen`?",
        );
        check(
            "listen = \"x\"\n[tls]\npki = \"p\"",
            "a.toml:1:10: invalid socket address syntax",
        );
        check(
            "\n[tls]\npki = \"p\"\nca = \"c\"",
            "a.toml:2:1: tls: give either `pki`, the folder that `pki init` \
            made, or `ca`, `certificate` and `key`",
        );
        check(
            "[limits]\nmemory = \"1 MiB\"\n[tls]\npki = \"p\"",
            "a.toml:2:10: 1.0 MiB is too little memory for panes; write at least \"16.0 MiB\"",
        );
        check(
            "lease = \"soon\"\n[tls]\npki = \"p\"",
            "a.toml:1:9: expected number at 0",
        );
    }
}
