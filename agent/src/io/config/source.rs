//! The tables `[[source]]`: where readings come from. Each type of source has keys of its own besides `type` and `name`.
//!
//! `[broker]`, which was the only source before there were several, is read as an MQTT source called `broker`.

use std::path::PathBuf;
use std::time::Duration;

use catchment_common::wire::checksum;
use serde::de::{IgnoredAny, IntoDeserializer};
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeValue, Error};

use super::document::{Document, Fault, Step};
use super::{Config, duration};
use crate::source::SourceSettings;

/// What `[broker]` is called as a source.
const NAME_OF_BEFORE: &str = "broker";
/// What `type` may be.
const TYPES: [&str; 1] = ["mqtt"];

/// A place where readings come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Its name, which no other source of this agent has: what queries call it.
    pub name: String,
    /// Which type it has, and what that has to know.
    pub kind: Kind,
}

/// A type of source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `mqtt`.
    Mqtt(Mqtt),
}

/// An MQTT broker to read from.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// `mqtt://host:port`, or `mqtts://host:port` for TLS.
    pub url: String,
    /// MQTT version: `5`, or `4` for brokers that only speak 3.1.1.
    #[serde(default = "default_protocol")]
    pub protocol: u8,
    /// The MQTT client id; see [`Config::client_id`] for the default.
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

/// Sources are read from the document itself: which keys they have depends on their type.
pub(super) fn later<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Source>, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| Vec::new())
}

/// The sources of a file. What keeps one from being read goes to `faults`, unless serde says it.
pub(super) fn read(document: &Document<'_>, faults: &mut Vec<Fault>) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    match document.value("source").map(Spanned::get_ref) {
        Some(DeValue::Array(items)) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                sources.extend(read_one(item, index, faults)?);
            }
        }
        Some(DeValue::Table(_)) => faults.push((
            vec![Step::Key("source")],
            "write `[[source]]`, in two pairs of brackets: there may be several".into(),
        )),
        _ => faults.push((
            Vec::new(),
            "there is no `[[source]]`; write one with type = \"mqtt\", a `name` and the `url` of a broker"
                .into(),
        )),
    }
    Ok(sources)
}

fn read_one(
    item: &Spanned<DeValue<'_>>,
    index: usize,
    faults: &mut Vec<Fault>,
) -> Result<Option<Source>, Error> {
    let path = |key| vec![Step::Key("source"), Step::Item(index), Step::Key(key)];
    let mut item = item.clone();
    let DeValue::Table(table) = item.get_mut() else {
        faults.push((path("type"), "write `[[source]]`: a source is a table".into()));
        return Ok(None);
    };
    let mut text = |key: &'static str, lacking: &str| {
        let value = table.remove(key);
        let text = value.map(|value| String::deserialize(value.into_deserializer()));
        if text.is_none() {
            faults.push((path(key), lacking.into()));
        }
        text.transpose()
    };
    let lacking_name = "is missing: what queries and logs call the source, such as name = \"plant\"";
    let name = text("name", lacking_name)?;
    let kind = text("type", "is missing; write type = \"mqtt\"")?;
    let kind = match kind.as_deref() {
        Some("mqtt") => Some(Kind::Mqtt(Mqtt::deserialize(item.into_deserializer())?)),
        Some(unknown) => {
            let known = TYPES.map(|known| format!("`{known}`")).join(", ");
            let fault = format!(
                "there is no type `{}` of sources; known are {known}",
                unknown.escape_debug()
            );
            faults.push((path("type"), fault));
            None
        }
        None => None,
    };
    Ok(name.zip(kind).map(|(name, kind)| Source { name, kind }))
}

impl Source {
    /// What `[broker]` is.
    pub(super) fn of_before(mqtt: Mqtt) -> Self {
        Self {
            name: NAME_OF_BEFORE.into(),
            kind: Kind::Mqtt(mqtt),
        }
    }

    /// The files that it names.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let Kind::Mqtt(Mqtt {
            ca,
            certificate,
            key,
            password_file,
            ..
        }) = &mut self.kind;
        let optional = [ca, certificate, key, password_file];
        optional.into_iter().filter_map(Option::as_mut)
    }
}

impl Config {
    /// The MQTT client id of a source. By default it is `catchment-` and the agent's name, followed by `:` and the
    /// source's name unless that is `broker`: so what `[broker]` had goes on.
    pub fn client_id(&self, source: &Source) -> String {
        let Kind::Mqtt(mqtt) = &source.kind;
        match &mqtt.client_id {
            Some(id) => id.clone(),
            None if source.name == NAME_OF_BEFORE => format!("catchment-{}", self.name),
            None => format!("catchment-{}:{}", self.name, source.name),
        }
    }

    /// What the machine must know of a source.
    pub(super) fn source_settings(&self, source: &Source) -> SourceSettings {
        let Kind::Mqtt(mqtt) = &source.kind;
        SourceSettings {
            name: source.name.clone(),
            session: checksum(format!("{} {}", mqtt.url, self.client_id(source)).as_bytes()),
            redelivery_window: self.redelivery_window(mqtt),
        }
    }
}

impl Mqtt {
    /// What the types cannot say: a key, and what is wrong with it.
    pub(super) fn faults(&self) -> Vec<(&'static str, &'static str)> {
        let mut faults = Vec::new();
        let mut fault = |key, text| faults.push((key, text));
        if self.address().is_none() {
            fault("url", "must be mqtt://host:port or mqtts://host:port");
        }
        if ![4, 5].contains(&self.protocol) {
            fault("protocol", "must be 5, or 4 for MQTT 3.1.1");
        }
        if self.qos > 1 {
            fault("qos", "must be 0 or 1");
        }
        if self.receive_maximum == 0 {
            fault("receive_maximum", "must be at least 1");
        }
        if self.keep_alive < Duration::from_secs(5) || self.keep_alive > Duration::from_secs(65_535) {
            fault("keep_alive", "must be between 5s and 18h");
        }
        if self.gather > Duration::from_secs(1) {
            fault("gather", "must be at most 1s");
        }
        if self.password.is_some() && self.password_file.is_some() {
            fault("password_file", "give `password` or `password_file`, not both");
        }
        if self.is_tls() && self.ca.is_none() {
            fault(
                "url",
                "mqtts needs `ca`, the authority that the broker's certificate comes from",
            );
        }
        if self.certificate.is_some() != self.key.is_some() {
            let given = if self.key.is_some() { "key" } else { "certificate" };
            fault(given, "`certificate` and `key` go together");
        }
        faults
    }

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
