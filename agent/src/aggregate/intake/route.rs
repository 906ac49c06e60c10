//! Which pipelines read a message, and of which source's copies.

use std::collections::BTreeSet;

use catchment_common::metrics::Reason;
use catchment_common::plan::{Compression, Format};
use catchment_common::time::Now;
use catchment_common::topic::filter::Filter;
use catchment_common::topic::{Captures, TopicTemplate};

use super::Intake;
use crate::decode::{self, Births, Body, Context, Decoded, Decoder};
use crate::source::mqtt::copies::Readers;
use crate::source::{Payload, SourceId};

/// Topics that are read alike: matched once and decoded once.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) topic: TopicTemplate,
    /// The name of the source that is read; all of them if none is named.
    pub(super) source: Option<String>,
    pub(super) format: Format,
    pub(super) compression: Compression,
    pub(super) decoder: Decoder,
    pub(super) views: Vec<usize>,
    /// For each source the subscription whose copies are read; none where nothing is read of it.
    pub(super) providers: Vec<Option<u32>>,
    /// What names the readers of its topic filter, whatever the plan.
    pub(super) reader: u32,
}

impl Route {
    /// Whether the source with this name is read.
    fn reads(&self, source: &str) -> bool {
        self.source.as_deref().is_none_or(|name| name == source)
    }

    /// What a topic's levels are, and the subscription that brings messages on it; none if they are not read.
    #[inline]
    pub(super) fn matches<'t>(&self, source: SourceId, topic: &'t str) -> Option<(Captures<'t>, u32)> {
        let captures = self.topic.matches(topic)?;
        let provider = self.providers.get(source.index()).copied().flatten()?;
        Some((captures, provider))
    }

    /// Takes a payload apart; a packed one is unpacked as far as it may be long.
    #[inline]
    pub(super) fn decode<'u>(
        &mut self,
        payload: Payload<'u>,
        context: Context<'_>,
        unpacked: &'u mut Vec<u8>,
        births: &mut Births,
        decoded: &mut Decoded,
    ) -> Result<Body<'u>, Reason> {
        let Payload::Whole(payload) = payload else {
            return Err(Reason::OversizedPayload);
        };
        let payload = decode::unpack(self.compression, payload, context.payload_bytes_max, unpacked)?;
        self.decoder.decode(payload, context, births, decoded)
    }
}

/// A message as it comes to the intake.
pub struct Message<'m, 'r> {
    /// Where it comes from.
    pub source: SourceId,
    /// Its topic.
    pub topic: &'m str,
    /// Its payload.
    pub payload: Payload<'m>,
    /// Who reads this copy of it.
    pub readers: Readers<'r>,
}

impl<'m> Message<'m, '_> {
    /// A message from the first source that every reader of its topic reads.
    pub fn of(topic: &'m str, payload: &'m [u8]) -> Self {
        Self {
            source: SourceId(0),
            topic,
            payload: Payload::Whole(payload),
            readers: Readers::All,
        }
    }
}

impl Intake {
    /// What decoding a message needs to know.
    #[inline]
    pub(super) fn context<'t>(&self, source: SourceId, topic: &'t str, now: Now) -> Context<'t> {
        Context {
            source,
            topic,
            now,
            payload_bytes_max: self.payload_bytes_max,
        }
    }

    /// What the plan reads of the source with this name, as topic filters.
    pub fn filters(&self, source: &str) -> Vec<Filter> {
        let routes = self.routes.iter().filter(|route| route.reads(source));
        let filters = routes.map(|route| Filter::parse(&route.topic.filter()));
        let all: BTreeSet<Filter> = filters.flatten().collect();
        all.into_iter().collect()
    }

    /// A message was read before: it is asked who reads this copy of it, as for every other, and nobody does.
    pub fn pass_over(&mut self, source: SourceId, topic: &str, mut readers: Readers<'_>) {
        for route in &self.routes {
            if let Some((_, provider)) = route.matches(source, topic) {
                readers.include(route.reader, provider);
            }
        }
    }

    /// Says for each of these filters which subscription of a source, with this name, brings what it asks for.
    pub fn set_providers(&mut self, source: SourceId, name: &str, provider: impl Fn(&Filter) -> Option<u32>) {
        for route in &mut self.routes {
            let count = route.providers.len().max(source.index() + 1);
            route.providers.resize(count, None);
            let filter = Filter::parse(&route.topic.filter()).filter(|_| route.reads(name));
            route.providers[source.index()] = filter.and_then(|filter| provider(&filter));
        }
    }
}
