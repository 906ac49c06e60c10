//! The configuration file: TOML, checked as a whole, with errors that say file, line, column and what to do.

mod clock;
mod durability;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer};

pub use self::clock::Clock;
pub use self::durability::{Durability, Mode};

use catchment_common::time::Span;
use catchment_common::wire::checksum;

use crate::settings::{JOURNAL_BYTES_MIN, MEMORY_BYTES_MIN, SPOOL_BYTES_MIN, Settings};
use crate::source::SourceSettings;

/// An agent's configuration. Relative paths are relative to the file.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The agent's name: the one that its certificate was issued for.
    pub name: String,
    /// Where the agent keeps what must survive a restart.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// The MQTT broker.
    pub broker: Broker,
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

/// The MQTT broker to read from.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// `mqtt://host:port`, or `mqtts://host:port` for TLS.
    pub url: String,
    /// MQTT version: `5`, or `4` for brokers that only speak 3.1.1.
    #[serde(default = "default_protocol")]
    pub protocol: u8,
    /// The MQTT client id; by default `catchment-` and the agent's name.
    pub client_id: Option<String>,
    /// User name, if the broker wants one.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// A file that holds the password, instead of `password`.
    pub password_file: Option<PathBuf>,
    /// Quality of service to subscribe with: 0 or 1.
    #[serde(default = "default_qos")]
    pub qos: u8,
    /// Most QoS 1 messages that the broker may send ahead of their acknowledgement (MQTT 5).
    #[serde(default = "default_receive_maximum")]
    pub receive_maximum: u16,
    /// How often an idle connection shows that it is alive.
    #[serde(default = "default_keep_alive", deserialize_with = "duration")]
    pub keep_alive: Duration,
    /// How long the broker keeps messages for an agent that is away (MQTT 5).
    #[serde(default = "default_session_expiry", deserialize_with = "duration")]
    pub session_expiry: Duration,
    /// After input has been read, wait this long before reading again: fewer, larger reads cost less power. 0 reads at
    /// once.
    #[serde(default = "default_gather", deserialize_with = "duration")]
    pub gather: Duration,
    /// For `mqtts`: the authority that the broker's certificate must come from.
    pub ca: Option<PathBuf>,
    /// For `mqtts` with client certificates: the agent's certificate.
    pub certificate: Option<PathBuf>,
    /// For `mqtts` with client certificates: its key.
    pub key: Option<PathBuf>,
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

fn default_protocol() -> u8 {
    5
}

fn default_qos() -> u8 {
    1
}

fn default_receive_maximum() -> u16 {
    1_000
}

fn default_keep_alive() -> Duration {
    Duration::from_secs(30)
}

fn default_session_expiry() -> Duration {
    Duration::from_hours(7 * 24)
}

fn default_gather() -> Duration {
    Duration::from_millis(2)
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
        let config: Self = toml::from_str(text).map_err(|error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            let message = error.message();
            ConfigError(format!(
                "{name}:{line}:{column}: {message}{}{}",
                nearest_key(message),
                what_fits(message)
            ))
        })?;
        let faults = config.faults();
        if faults.is_empty() {
            return Ok(config);
        }
        let mut message = String::new();
        for (key, fault) in faults {
            let (line, column) = position(text, find_key(text, key));
            let _ = writeln!(message, "{name}:{line}:{column}: {key}: {fault}");
        }
        Err(ConfigError(message.trim_end().into()))
    }

    /// What the types cannot say. The key is the last part of the dotted path.
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut fault = |key, text: &str| faults.push((key, text.to_owned()));
        if self.name.is_empty() || self.name.len() > catchment_common::limits::AGENT_NAME_BYTES_MAX {
            fault("name", "must have 1 to 64 bytes");
        }
        if self.broker.address().is_none() {
            fault("url", "must be mqtt://host:port or mqtts://host:port");
        }
        if ![4, 5].contains(&self.broker.protocol) {
            fault("protocol", "must be 5, or 4 for MQTT 3.1.1");
        }
        if self.broker.qos > 1 {
            fault("qos", "must be 0 or 1");
        }
        if self.broker.receive_maximum == 0 {
            fault("receive_maximum", "must be at least 1");
        }
        if self.broker.keep_alive < Duration::from_secs(5)
            || self.broker.keep_alive > Duration::from_secs(65_535)
        {
            fault("keep_alive", "must be between 5s and 18h");
        }
        if self.broker.gather > Duration::from_secs(1) {
            fault("gather", "must be at most 1s");
        }
        if self.broker.password.is_some() && self.broker.password_file.is_some() {
            fault("password_file", "give `password` or `password_file`, not both");
        }
        if self.broker.is_tls() && self.broker.ca.is_none() {
            fault(
                "url",
                "mqtts needs `ca`, the authority that the broker's certificate comes from",
            );
        }
        if self.broker.certificate.is_some() != self.broker.key.is_some() {
            fault("certificate", "`certificate` and `key` go together");
        }
        if !self.aggregator.address.contains(':') {
            fault("address", "must be host:port");
        }
        if (self.limits.memory.as_u64() as usize) < MEMORY_BYTES_MIN {
            fault(
                "memory",
                &format!("must be at least {} KiB", MEMORY_BYTES_MIN >> 10),
            );
        }
        if self.limits.journal.as_u64() < JOURNAL_BYTES_MIN {
            fault(
                "journal",
                &format!("must be at least {} KiB", JOURNAL_BYTES_MIN >> 10),
            );
        }
        if self.durability.commit_delay > Duration::from_secs(1) {
            fault("commit_delay", "must be at most 1s");
        }
        if self.durability.retain_acked > Duration::from_hours(30 * 24) {
            fault("retain_acked", "must be at most 30 days");
        }
        if self.limits.spool.as_u64() < SPOOL_BYTES_MIN {
            fault(
                "spool",
                &format!("must be at least {} KiB", SPOOL_BYTES_MIN >> 10),
            );
        }
        if !(1..=16 << 20).contains(&self.limits.payload.as_u64()) {
            fault("payload", "must be between 1 byte and 16 MiB");
        }
        faults
    }

    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let Broker {
            ca,
            certificate,
            key,
            password_file,
            ..
        } = &mut self.broker;
        let optional = [ca, certificate, key, password_file]
            .into_iter()
            .filter_map(Option::as_mut);
        optional.chain([
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
            sources: vec![SourceSettings {
                name: "broker".into(),
                session: checksum(format!("{} {}", self.broker.url, self.client_id()).as_bytes()),
                redelivery_window: self.redelivery_window(),
            }],
            payload_bytes_max: self.limits.payload.as_u64() as usize,
            clock_unset: self.clock.unset,
            // Who starts the machine looks at the clock.
            clock_known: !self.clock.confirm,
        }
    }

    /// The effective configuration, for the operator to read. Passwords are not shown.
    pub fn describe(&self) -> String {
        let Self {
            name,
            state,
            broker,
            aggregator,
            tls,
            limits,
            durability,
            clock,
        } = self;
        let mut text = String::new();
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(text, "{key} = {value}");
        };
        let quoted = |text: &str| format!("{text:?}");
        let path = |path: &Path| format!("{:?}", path.display().to_string());
        let duration = |duration| format!("\"{}\"", humantime::format_duration(duration));
        line("name", &quoted(name));
        line("state", &path(state));
        line("broker.url", &quoted(&broker.url));
        line("broker.protocol", &broker.protocol);
        line("broker.client_id", &quoted(&self.client_id()));
        if let Some(username) = &broker.username {
            line("broker.username", &quoted(username));
        }
        if broker.password.is_some() {
            line("broker.password", &quoted("(hidden)"));
        }
        line("broker.qos", &broker.qos);
        line("broker.receive_maximum", &broker.receive_maximum);
        line("broker.keep_alive", &duration(broker.keep_alive));
        line("broker.session_expiry", &duration(broker.session_expiry));
        line("broker.gather", &duration(broker.gather));
        let files = [
            ("broker.password_file", &broker.password_file),
            ("broker.ca", &broker.ca),
            ("broker.certificate", &broker.certificate),
            ("broker.key", &broker.key),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                line(key, &path(file));
            }
        }
        line("aggregator.address", &quoted(&aggregator.address));
        line("aggregator.server_name", &quoted(&aggregator.server_name));
        line("tls.ca", &path(&tls.ca));
        line("tls.certificate", &path(&tls.certificate));
        line("tls.key", &path(&tls.key));
        line("limits.memory", &quoted(&limits.memory.to_string()));
        line("limits.spool", &quoted(&limits.spool.to_string()));
        line("limits.journal", &quoted(&limits.journal.to_string()));
        line("limits.payload", &quoted(&limits.payload.to_string()));
        let mode = match durability.mode {
            Mode::Disk => "disk",
            Mode::Memory => "memory",
        };
        line("clock.unset", &quoted(clock.name()));
        line("clock.confirm", &clock.confirm.to_string());
        line("durability.mode", &quoted(mode));
        line("durability.commit_delay", &duration(durability.commit_delay));
        line("durability.retain_acked", &duration(durability.retain_acked));
        text
    }

    /// The MQTT client id.
    pub fn client_id(&self) -> String {
        self.broker
            .client_id
            .clone()
            .unwrap_or_else(|| format!("catchment-{}", self.name))
    }
}

impl Broker {
    /// Host and port of the URL; the port defaults to 1883, or 8883 for `mqtts`.
    pub fn address(&self) -> Option<(&str, u16)> {
        let (scheme, rest) = self.url.split_once("://")?;
        let default = match scheme {
            "mqtt" => 1883,
            "mqtts" => 8883,
            _ => return None,
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            // The colons of a bare IPv6 address in brackets are not a port's.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (rest, default),
        };
        (!host.is_empty() && !host.contains(['/', '@'])).then_some((host, port))
    }

    /// Whether the URL asks for TLS.
    pub fn is_tls(&self) -> bool {
        self.url.starts_with("mqtts://")
    }
}

fn span(duration: Duration) -> Span {
    Span::from_micros(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

/// Line and column, both from 1, of a byte offset. Columns count characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// Where a key is set; the start of the file when it is not.
fn find_key(text: &str, key: &str) -> usize {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        let sets = trimmed
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with('='));
        if sets {
            return offset + line.len() - trimmed.len();
        }
        offset += line.len();
    }
    0
}

/// For serde's "unknown field `x`, expected one of `a`, `b`": which of the known ones is nearest.
fn nearest_key(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return String::new();
    };
    let mut names = rest.split('`').step_by(2);
    let Some(unknown) = names.next() else {
        return String::new();
    };
    let known = rest.split('`').skip(2).step_by(2);
    let nearest = known
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().max(unknown.len()) / 2);
    nearest.map_or(String::new(), |(_, name)| format!("; did you mean `{name}`?"))
}

/// For serde's "…, expected …", which speaks of Rust's types: what to write instead.
fn what_fits(message: &str) -> &'static str {
    const HINTS: [(&str, &str); 3] = [
        (
            "expected parsable string",
            "; write a size with its unit, such as \"8 MiB\"",
        ),
        ("expected u16", ": a whole number from 0 to 65535"),
        ("expected u8", ": a whole number from 0 to 255"),
    ];
    let hint = HINTS.iter().find(|(wants, _)| message.ends_with(wants));
    hint.map_or("", |(_, hint)| hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"name = "gw-1"
[broker]
url = "mqtt://127.0.0.1:1883"
[aggregator]
address = "127.0.0.1:7443"
[tls]
ca = "ca.pem"
certificate = "gw-1.pem"
key = "gw-1.key"
"#;

    fn check(from: &str, to: &str, expected: &str) {
        assert!(GOOD.contains(from));
        let error = Config::parse(&GOOD.replace(from, to), "agent.toml").unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn the_smallest_configuration_has_sound_defaults() {
        let config = Config::parse(GOOD, "agent.toml").unwrap();
        assert_eq!(config.client_id(), "catchment-gw-1");
        assert_eq!(config.broker.address(), Some(("127.0.0.1", 1883)));
        assert_eq!(config.settings().memory_bytes, 8 << 20);
        let shown = Config::parse(&config.describe(), "shown.toml").unwrap();
        assert_eq!(shown.settings(), config.settings());
    }

    #[test]
    fn errors_say_where_and_what_to_do() {
        check(
            "[broker]",
            "[broker]\nqoss = 1",
            "agent.toml:3:1: unknown field `qoss`, expected one of `url`, \
            `protocol`, `client_id`, `username`, `password`, `password_file`, `qos`, `receive_maximum`, `keep_alive`, \
            `session_expiry`, `gather`, `ca`, `certificate`, `key`; did you mean `qos`?",
        );
        check(
            "url = \"mqtt:",
            "qos = 2\nurl = \"mqtt:",
            "agent.toml:3:1: qos: must be 0 or 1",
        );
        check(
            "mqtt://",
            "http://",
            "agent.toml:3:1: url: must be mqtt://host:port or mqtts://host:port",
        );
        check(
            "mqtt://",
            "mqtts://",
            "agent.toml:3:1: url: mqtts needs `ca`, the authority that the broker's \
            certificate comes from",
        );
        check("name = \"gw-1\"\n", "", "agent.toml:1:1: missing field `name`");
        check(
            "[tls]",
            "[limits]\nmemory = \"1 KiB\"\n[tls]",
            "agent.toml:7:1: memory: must be at least 64 KiB",
        );
        check(
            "[tls]",
            "[limits]\nmemory = \"-5 MiB\"\n[tls]",
            "agent.toml:7:10: invalid value: string \"-5 MiB\", expected parsable string; write a size with its unit, such \
            as \"8 MiB\"",
        );
        check(
            "url = \"mqtt:",
            "receive_maximum = 70000\nurl = \"mqtt:",
            "agent.toml:3:19: invalid value: integer `70000`, expected u16: a whole number from 0 to 65535",
        );
        check(
            "\"gw-1\"",
            "7",
            "agent.toml:1:8: invalid type: integer `7`, expected a string",
        );
    }

    #[test]
    fn addresses_of_every_kind() {
        let address = |url: &str| {
            let mut config = Config::parse(GOOD, "agent.toml").unwrap();
            config.broker.url = url.into();
            config
                .broker
                .address()
                .map(|(host, port)| format!("{host} {port}"))
        };
        assert_eq!(address("mqtt://broker"), Some("broker 1883".into()));
        assert_eq!(address("mqtts://broker/"), Some("broker 8883".into()));
        assert_eq!(address("mqtt://[::1]:7"), Some("[::1] 7".into()));
        assert_eq!(address("mqtt://[::1]"), Some("[::1] 1883".into()));
        assert_eq!(address("mqtt://:1883"), None);
        assert_eq!(address("broker:1883"), None);
        assert_eq!(address("mqtt://broker:99999"), None);
    }
}
