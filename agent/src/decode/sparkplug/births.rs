//! Who was born, and what the aliases of each stand for; and whom to ask for a rebirth.
//!
//! Births are kept in memory alone: after a restart of the agent edge nodes are asked again. All of it is bounded. When
//! there is no room for a birth, those that were silent for longest are forgotten; their next data asks for them again.

use std::collections::{BTreeMap, VecDeque};

use catchment_common::metrics::Reason;
use catchment_common::time::{Instant, Now, Span};
use prost::Message;

use super::message::{DataType, Metric, Payload, Value};
use crate::source::SourceId;

/// Most edge nodes and devices that are known at once.
const SOURCES_MAX: usize = 4_096;
/// Most bytes of their metrics' names, with what it takes to keep each.
const BYTES_MAX: usize = 8 << 20;
/// What a metric costs beside its name.
const METRIC_BYTES: usize = 96;
/// An edge node is asked this often at most: a birth may be large, and a node that cannot give it must not be pressed.
const ASK_EVERY: Span = Span::from_secs(10);
/// Most edge nodes whose last request is remembered, and most requests that wait to be sent.
const ASKED_MAX: usize = 1_024;

/// An edge node, or one of its devices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'t> {
    /// Of which source of the agent's: edge nodes behind two brokers may have one name.
    pub(super) behind: SourceId,
    pub(super) group: &'t str,
    pub(super) edge: &'t str,
    pub(super) device: Option<&'t str>,
}

impl Source<'_> {
    fn key(self) -> String {
        self.node() + self.device.unwrap_or_default()
    }

    fn node(self) -> String {
        format!("{}/{}/{}/", self.behind.0, self.group, self.edge)
    }
}

/// What a birth says about metrics, by alias.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Metrics {
    by_alias: BTreeMap<u64, (Box<str>, u32)>,
    by_name: BTreeMap<Box<str>, u32>,
    bytes: usize,
}

impl Metrics {
    pub(super) fn of(payload: &Payload) -> Self {
        let mut metrics = Self::default();
        for metric in &payload.metrics {
            let (Some(name), datatype) = (&metric.name, metric.datatype.unwrap_or(0)) else {
                continue;
            };
            metrics.bytes += name.len() + METRIC_BYTES;
            match metric.alias {
                Some(alias) => {
                    metrics.by_alias.insert(alias, (name.as_str().into(), datatype));
                }
                None => {
                    metrics.by_name.insert(name.as_str().into(), datatype);
                }
            }
        }
        metrics
    }
}

#[derive(Clone, Debug)]
struct Birth {
    session: Option<u64>,
    metrics: Metrics,
    heard: Instant,
}

/// What is to be published: a request for a rebirth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The topic of the edge node's commands.
    pub topic: String,
    /// The command.
    pub payload: Vec<u8>,
}

/// Everyone that was born.
#[derive(Clone, Debug, Default)]
pub struct Births {
    /// By source, group, edge node and device.
    known: BTreeMap<String, Birth>,
    bytes: usize,
    asked: BTreeMap<String, Instant>,
    waiting: VecDeque<Command>,
}

impl Births {
    /// A birth. That of an edge node ends those of its devices, which are born again after it.
    pub(super) fn begin(
        &mut self,
        source: Source<'_>,
        session: Option<u64>,
        metrics: Metrics,
        now: Now,
    ) -> Result<(), Reason> {
        if metrics.bytes > BYTES_MAX {
            return Err(Reason::OversizedPayload);
        }
        if source.device.is_none() {
            self.end(source, None);
        }
        self.forget(&source.key());
        while self.known.len() >= SOURCES_MAX || self.bytes + metrics.bytes > BYTES_MAX {
            let silent = self.known.iter().min_by_key(|(_, birth)| birth.heard);
            let Some(silent) = silent.map(|(key, _)| key.clone()) else {
                break;
            };
            self.forget(&silent);
        }
        self.bytes += metrics.bytes;
        let birth = Birth {
            session,
            metrics,
            heard: now.monotonic,
        };
        self.known.insert(source.key(), birth);
        Ok(())
    }

    /// A death: of a device, or of an edge node with all of its devices. A death that names another session than the
    /// birth is of a connection before it.
    pub(super) fn end(&mut self, source: Source<'_>, session: Option<u64>) {
        if source.device.is_some() {
            return self.forget(&source.key());
        }
        let born = self.known.get(&source.key()).and_then(|birth| birth.session);
        if session.is_some() && born.is_some() && session != born {
            return;
        }
        let node = source.node();
        let all: Vec<String> = {
            let from_node = self.known.range(node.clone()..);
            let its = from_node.take_while(|(key, _)| key.starts_with(&node));
            its.map(|(key, _)| key.clone()).collect()
        };
        for key in &all {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: &str) {
        if let Some(birth) = self.known.remove(key) {
            self.bytes -= birth.metrics.bytes;
        }
    }

    /// Gives the metrics of data the names and types of their birth, and takes those out that it does not have; returns
    /// how many. None if the source was not born.
    pub(super) fn complete(
        &mut self,
        source: Source<'_>,
        metrics: &mut Vec<Metric>,
        now: Now,
    ) -> Option<usize> {
        let birth = self.known.get_mut(&source.key())?;
        birth.heard = now.monotonic;
        let all = metrics.len();
        metrics.retain_mut(|metric| {
            let known = match (metric.alias, &metric.name) {
                (Some(alias), _) => birth
                    .metrics
                    .by_alias
                    .get(&alias)
                    .map(|(name, kind)| (&**name, *kind)),
                (None, Some(name)) => {
                    let kind = birth.metrics.by_name.get(name.as_str());
                    kind.map(|kind| (name.as_str(), *kind))
                }
                (None, None) => None,
            };
            let Some((name, datatype)) = known else {
                return false;
            };
            if metric.name.is_none() {
                metric.name = Some(name.to_owned());
            }
            metric.datatype.get_or_insert(datatype);
            true
        });
        Some(all - metrics.len())
    }

    /// Asks the edge node of a source for its births, unless it was asked a moment ago.
    pub(super) fn ask(&mut self, source: Source<'_>, now: Now) {
        let node = source.node();
        let is_due = |last: &Instant| now.monotonic.since(*last) >= ASK_EVERY;
        if self.asked.get(&node).is_some_and(|last| !is_due(last)) {
            return;
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.retain(|_, last| !is_due(last));
        }
        if self.asked.len() >= ASKED_MAX || self.waiting.len() >= ASKED_MAX {
            return;
        }
        self.asked.insert(node, now.monotonic);
        let rebirth = Metric {
            name: Some("Node Control/Rebirth".into()),
            datatype: Some(DataType::BOOLEAN),
            value: Some(Value::Truth(true)),
            ..Metric::default()
        };
        let payload = Payload {
            timestamp: u64::try_from(now.wall.as_micros() / 1_000).ok(),
            metrics: vec![rebirth],
            seq: None,
            ..Payload::default()
        };
        self.waiting.push_back(Command {
            topic: [super::NAMESPACE, "/", source.group, "/NCMD/", source.edge].concat(),
            payload: payload.encode_to_vec(),
        });
    }

    /// The next request to publish.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.waiting.pop_front()
    }
}
