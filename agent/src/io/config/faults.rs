//! What is wrong with a configuration that has the right form.

use std::collections::BTreeMap;
use std::time::Duration;

use catchment_common::limits::{AGENT_NAME_BYTES_MAX, SOURCES_MAX};
use catchment_common::plan::is_source_name;

use super::document::{Fault, Step};
use super::{Config, Kind, Source};
use crate::settings::{JOURNAL_BYTES_MIN, MEMORY_BYTES_MIN, SPOOL_BYTES_MIN};

impl Config {
    /// What the types cannot say.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = self.source_faults();
        let mut fault = |path: &[&'static str], text: &str| {
            faults.push((path.iter().copied().map(Step::Key).collect(), text.to_owned()));
        };
        if self.name.is_empty() || self.name.len() > AGENT_NAME_BYTES_MAX {
            fault(&["name"], "must have 1 to 64 bytes");
        }
        if !self.aggregator.address.contains(':') {
            fault(&["aggregator", "address"], "must be host:port");
        }
        if (self.limits.memory.as_u64() as usize) < MEMORY_BYTES_MIN {
            fault(
                &["limits", "memory"],
                &format!("must be at least {} KiB", MEMORY_BYTES_MIN >> 10),
            );
        }
        if self.limits.journal.as_u64() < JOURNAL_BYTES_MIN {
            fault(
                &["limits", "journal"],
                &format!("must be at least {} KiB", JOURNAL_BYTES_MIN >> 10),
            );
        }
        if self.durability.commit_delay > Duration::from_secs(1) {
            fault(&["durability", "commit_delay"], "must be at most 1s");
        }
        if self.durability.retain_acked > Duration::from_hours(30 * 24) {
            fault(&["durability", "retain_acked"], "must be at most 30 days");
        }
        if self.limits.spool.as_u64() < SPOOL_BYTES_MIN {
            fault(
                &["limits", "spool"],
                &format!("must be at least {} KiB", SPOOL_BYTES_MIN >> 10),
            );
        }
        if !(1..=16 << 20).contains(&self.limits.payload.as_u64()) {
            fault(&["limits", "payload"], "must be between 1 byte and 16 MiB");
        }
        faults
    }

    fn source_faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut names = BTreeMap::new();
        let mut sessions = BTreeMap::new();
        for (index, source) in self.sources.iter().enumerate() {
            let mut fault = |key: &'static str, text: String| {
                let path = if self.is_of_before() {
                    vec![Step::Key("broker"), Step::Key(key)]
                } else {
                    vec![Step::Key("source"), Step::Item(index), Step::Key(key)]
                };
                faults.push((path, text));
            };
            let Source { name, kind } = source;
            if index == SOURCES_MAX {
                fault("type", format!("more than {SOURCES_MAX} sources"));
            }
            if !is_source_name(name) {
                fault(
                    "name",
                    "must have 1 to 64 letters, digits, `_`, `-` and `.`".into(),
                );
            } else if names.insert(name, index).is_some() {
                fault(
                    "name",
                    format!("there are two sources `{name}`; give each a name of its own"),
                );
            }
            let Kind::Mqtt(mqtt) = kind;
            for (key, text) in mqtt.faults() {
                fault(key, text.into());
            }
            let session = (mqtt.address(), self.client_id(source));
            if let Some(other) = sessions.insert(session, name) {
                let text = format!(
                    "the sources `{other}` and `{name}` have one client id at one broker, which would take each other's \
                     connection; give each a `client_id` of its own"
                );
                let is_given = mqtt.client_id.is_some();
                fault(if is_given { "client_id" } else { "url" }, text);
            }
        }
        faults
    }
}
