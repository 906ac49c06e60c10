//! What devices' own numbers say of a reading.
//!
//! Each pipeline knows the numbers of the readings that *it* takes, because another one may refuse them, for a value or a
//! condition. So a device's identity begins with a hash of what decides which readings a pipeline takes, its *reading*. It
//! stays the same when only windows or functions change. Pipelines of one reading are told apart by their order, which may
//! change: they know the same.

use catchment_common::key::SEPARATOR;
use catchment_common::limits::PIPELINES_MAX;
use catchment_common::metrics::Reason;
use catchment_common::plan::{Components, Pipeline};
use catchment_common::time::{Now, Span};
use catchment_common::wire::{AgentPlan, fingerprint};

use super::view::{Read, Seen, Sequence, View};
use crate::decode::convert;
use crate::log::journal::Journal;
use crate::source::dedupe::{self, Dedupe, IDENTITY_BYTES_MAX};

/// A message's topic, room to put an identity together, and the devices.
pub(super) type Numbers<'n> = (&'n str, &'n mut Vec<u8>, &'n mut Dedupe);

/// The readings of a plan's pipelines, in their order; 0 for one that asks for no numbers.
pub(super) fn readings(plan: &AgentPlan) -> Vec<u64> {
    let mut given: Vec<u64> = Vec::new();
    for (_, pipeline) in &plan.pipelines {
        let same = |nonce| reading(pipeline, nonce);
        let reading = if pipeline.dedupe.is_none() {
            0
        } else {
            (0..=PIPELINES_MAX as u64)
                .map(same)
                .find(|id| !given.contains(id))
                .unwrap_or(0)
        };
        given.push(reading);
    }
    given
}

/// A hash of what decides which readings a pipeline takes, and of a nonce.
fn reading(pipeline: &Pipeline, nonce: u64) -> u64 {
    let mut reading = Pipeline {
        pane: Span::ZERO,
        count: None,
        watermark_delay: Span::ZERO,
        idle: Span::ZERO,
        new_keys: None,
        memory: None,
        watched: Vec::new(),
        sketches: Vec::new(),
        ..pipeline.clone()
    };
    for field in &mut reading.fields {
        field.components = Components::COUNT;
        field.resolution = None;
    }
    fingerprint(&reading, None, nonce).0
}

impl View {
    /// Reads one reading, and refuses it when its device's number says that it was taken before, if the pipeline asks
    /// for numbers.
    #[inline]
    pub(super) fn read_new(
        &mut self,
        seen: Seen<'_>,
        pipeline: &Pipeline,
        now: Now,
        (topic, identity, dedupe): Numbers<'_>,
        journal: &mut Journal,
    ) -> Result<Read, Reason> {
        let read = self.read(seen, pipeline, now)?;
        let Some(sequence) = self.sequence.filter(|_| read.unwanted.is_none()) else {
            return Ok(read);
        };
        let number = convert::sequence(seen.raw(sequence.path))?;
        identify(identity, sequence, topic, self.key_buffer.as_bytes())?;
        if dedupe.take(identity, number, journal) {
            Ok(read)
        } else {
            Err(Reason::Repeated)
        }
    }
}

/// Puts a device's identity together: the pipeline's reading, its rules, its topic and its key.
fn identify(identity: &mut Vec<u8>, sequence: Sequence, topic: &str, key: &[u8]) -> Result<(), Reason> {
    identity.clear();
    dedupe::begin(identity, sequence.reading);
    sequence.rules.begin(identity);
    if identity.len() + topic.len() + 1 + key.len() > IDENTITY_BYTES_MAX {
        return Err(Reason::BadKey);
    }
    identity.extend_from_slice(topic.as_bytes());
    identity.push(SEPARATOR);
    identity.extend_from_slice(key);
    Ok(())
}
