//! The agent's sources: what happened to them, what they are told, and what they are asked to send.

use std::collections::BTreeSet;

use catchment_common::time::Now;
use catchment_common::wire::SourceState;

use super::Agent;
use crate::log::journal::sources::Kept;
use crate::log::journal::{Cut, Journal};
use crate::settings::AWAY_SEAL_DELAY;
use crate::source::mqtt::Session;
use crate::source::mqtt::copies::Copy;
use crate::source::{Arrival, Delivery, Settled, SourceEvent, SourceId, SourceRequest};

/// All sources, and how far what they brought is durable.
#[derive(Debug)]
pub(super) struct Sources {
    sessions: Vec<Session>,
    /// Messages taken since the start, and of those the durable ones.
    taken: u64,
    durable: u64,
    /// How often it was noted what a session may hold, and how much of that is durable.
    noted: u64,
    durable_notes: u64,
}

impl Sources {
    pub(super) fn new(mut sessions: Vec<Session>, now: Now) -> Self {
        for session in &mut sessions {
            session.begin(now);
        }
        Self {
            sessions,
            taken: 0,
            durable: 0,
            noted: 0,
            durable_notes: 0,
        }
    }

    /// What belongs to a group of the journal that ends now, with what came into the spool before `until`.
    pub(super) fn cut(&self, until: u64) -> Cut {
        Cut {
            until,
            taken: self.taken,
            noted: self.noted,
        }
    }

    /// What is durable, as the end of a group that was there already.
    pub(super) fn durable(&self) -> Cut {
        Cut {
            until: 0,
            taken: self.durable,
            noted: self.durable_notes,
        }
    }

    /// The number of the message that is taken now.
    pub(super) fn take(&mut self) -> u64 {
        self.taken += 1;
        self.taken
    }

    /// So many of the messages taken, and of what was noted, are durable.
    pub(super) fn handle_durable(&mut self, taken: u64, noted: u64) {
        self.durable = taken;
        self.durable_notes = noted;
    }

    /// Nothing waits to be written.
    pub(super) fn handle_all_durable(&mut self) {
        self.handle_durable(self.taken, self.noted);
    }

    pub(super) fn session(&mut self, source: SourceId) -> &mut Session {
        &mut self.sessions[source.index()]
    }

    /// A copy of a message comes.
    #[inline]
    pub(super) fn handle_copy<'m>(
        &mut self,
        now: Now,
        arrival: &Arrival<'m>,
        hash: u32,
        journal: &mut Journal,
    ) -> Copy<'m> {
        let is_acknowledged = arrival.delivery != Delivery::Unacknowledged;
        let session = self.session(arrival.source);
        let is_first = session.handle_copy(arrival.through, is_acknowledged);
        if is_first {
            self.note(arrival.source, journal);
        }
        Copy {
            through: arrival.through,
            is_acknowledged,
            hash,
            at: now.monotonic,
            is_first,
            is_crossing: false,
            is_repeated: matches!(arrival.delivery, Delivery::Packet { duplicate: true, .. }),
            was_taken: false,
        }
    }

    /// What the session of a source may hold has changed: it must be known after a crash before it is so.
    pub(super) fn note(&mut self, source: SourceId, journal: &mut Journal) {
        self.noted += 1;
        journal.source(source, &self.session(source).kept());
    }

    /// Whether all comes that is wanted of the source with this name, or of all sources: an agent that cannot hear knows
    /// nothing of silence. A source that there is not has nothing to say.
    fn is_heard(&self, name: Option<&str>) -> bool {
        let is_meant = |session: &&Session| name.is_none_or(|name| session.name() == name);
        let mut wanted = self.sessions.iter().filter(|session| session.is_wanted());
        wanted.by_ref().filter(is_meant).all(Session::is_live)
    }

    /// What the journal keeps of all of them.
    pub(super) fn kept(&self) -> Vec<Kept> {
        self.sessions.iter().map(Session::kept).collect()
    }

    /// Segments before `needed` go: what they say of messages that may come again is written down again.
    pub(super) fn carry(&mut self, needed: u32, journal: &mut Journal) {
        for session in &mut self.sessions {
            session.carry(needed, journal);
        }
    }

    fn ids(&self) -> impl Iterator<Item = SourceId> + use<> {
        (0..self.sessions.len() as u16).map(SourceId)
    }
}

impl Agent {
    /// Something happened to a source.
    pub fn handle_source(&mut self, now: Now, source: SourceId, event: SourceEvent) {
        let Self { sources, journal, .. } = self;
        if sources.session(source).handle_event(now, event, journal) {
            sources.note(source, journal);
        }
        self.provide(source);
    }

    /// Asks the sources for what the plan reads.
    pub(super) fn subscribe(&mut self) {
        for source in self.sources.ids() {
            let session = self.sources.session(source);
            let filters = (self.plan.version > 0).then(|| self.intake.filters(session.name()));
            if session.want(filters) {
                self.sources.note(source, &mut self.journal);
            }
            self.provide(source);
        }
    }

    /// Lets watermarks follow the time, if that is known, and where silence means that there is nothing: the sources that are
    /// read are there, and nothing waits at a broker for a clock that is right.
    pub(super) fn follow_clock(&mut self, now: Now, time: Option<Now>) {
        let is_timed = time.is_some() && self.is_timed();
        let Self {
            intake,
            journal,
            out,
            sources,
            ..
        } = self;
        let is_heard = |name: Option<&str>| is_timed && sources.is_heard(name);
        self.close_now |= intake.follow_clock(time.unwrap_or(now), is_heard);
        if is_heard(None) {
            self.close_passed_at = now.monotonic + AWAY_SEAL_DELAY;
        } else if self.close_passed_at <= now.monotonic {
            self.close_passed_at = now.monotonic + AWAY_SEAL_DELAY;
            intake.close_passed(time.unwrap_or(now), is_heard, journal, |journal, section| {
                out.push(section);
                out.cut_if_large(journal, sources);
            });
            out.finish();
            self.trim = true;
            self.uplink.tell_news();
        }
    }

    /// How the sources are, for the aggregator.
    pub(super) fn source_states(&self) -> Vec<SourceState> {
        self.sources.sessions.iter().map(Session::told).collect()
    }

    /// Tells the intake what each of its readers reads of a source.
    fn provide(&mut self, source: SourceId) {
        let session = self.sources.session(source);
        self.intake
            .set_providers(source, session.name(), |filter| session.provider(filter));
    }

    /// The names of sources that the plan reads and this agent does not have, ascending, each once.
    pub fn missing_sources(&self) -> Vec<&str> {
        let named = { self.plan.pipelines.iter() }.filter_map(|(_, pipeline)| pipeline.source.as_deref());
        let has = |name: &str| self.sources.sessions.iter().any(|session| session.name() == name);
        let missing: BTreeSet<&str> = named.filter(|name| !has(name)).collect();
        missing.into_iter().collect()
    }

    /// What was settled next, in the order of arrival at each source.
    pub fn poll_settled(&mut self) -> Option<(SourceId, Settled)> {
        let durable = self.sources.durable;
        self.sources.ids().find_map(|source| {
            let packet = self.sources.session(source).poll_settled(durable)?;
            Some((source, Settled::Packet(packet)))
        })
    }

    /// What a source is to be asked next. To be called when nothing more is settled: what goes out must keep its order.
    pub fn poll_source(&mut self, source: SourceId) -> Option<SourceRequest> {
        while let Some((from, command)) = self.intake.poll_command() {
            self.out
                .count(catchment_common::metrics::Counter::RebirthRequests, 1);
            self.sources.session(from).push_command(command);
        }
        let has_room = self.has_room() && !self.journal.is_half_full() && self.is_timed();
        let may_subscribe = self.sources.durable_notes == self.sources.noted;
        self.sources.session(source).poll_request(may_subscribe, has_room)
    }

    /// Whether a source has anything to be connected for. Without a plan it has not: what its broker keeps would match
    /// nothing, and be gone.
    pub fn wants_source(&self, source: SourceId) -> bool {
        self.sources.sessions[source.index()].wants_connection()
    }

    /// How many sources there are.
    pub fn sources(&self) -> impl Iterator<Item = SourceId> + use<> {
        self.sources.ids()
    }
}

#[cfg(test)]
mod tests {
    use catchment_common::plan::{Pipeline, PipelineId};
    use catchment_common::time::{Instant, Span, Timestamp};
    use catchment_common::wire::AgentPlan;

    use super::*;
    use crate::agent::KeptPlan;
    use crate::log::disk::MemoryDisk;
    use crate::settings::{ClockUnset, Settings};
    use crate::source::{Payload, SourceSettings};

    const A: SourceId = SourceId(0);
    const B: SourceId = SourceId(1);

    fn now(seconds: i64) -> Now {
        Now {
            monotonic: Instant::from_micros(seconds.unsigned_abs() * 1_000_000),
            wall: Timestamp::clamped((1_700_000_000 + seconds) * 1_000_000),
        }
    }

    /// Three pipelines over one topic: of all sources, of `a`, and of a third that is named.
    fn plan(third: &str) -> KeptPlan {
        let of = |source: Option<&str>| Pipeline {
            source: source.map(String::from),
            ..Pipeline::example()
        };
        let pipelines = [None, Some("a"), Some(third)].map(of);
        let plan = AgentPlan {
            version: 1,
            pipelines: (1..).map(PipelineId).zip(pipelines).collect(),
            coarser: Vec::new(),
        };
        KeptPlan { plan, database: None }
    }

    fn source(name: &str, session: u32) -> SourceSettings {
        SourceSettings {
            name: name.into(),
            session,
            redelivery_window: 20,
        }
    }

    fn settings(sources: Vec<SourceSettings>) -> Settings {
        Settings {
            name: "gw-1".into(),
            memory_bytes: 1 << 20,
            payload_bytes_max: 1 << 16,
            spool_bytes: 1 << 20,
            retain_acked: Span::ZERO,
            journal_bytes: 1 << 20,
            commit_delay: Span::ZERO,
            clock_unset: ClockUnset::Hold,
            clock_known: true,
            sources,
        }
    }

    /// An agent with the sources `a` and `b` that runs a plan and knows what time it is.
    fn agent(third: &str) -> (Agent, MemoryDisk) {
        let settings = settings(vec![source("a", 1), source("b", 2)]);
        let disk = MemoryDisk::default();
        let (mut agent, _) = Agent::start(settings, 7, 42, Some(&plan(third)), now(0), &disk).unwrap();
        agent.clock.handle_server_time(now(0), now(0).wall);
        (agent, disk)
    }

    fn work(agent: &mut Agent, disk: &mut MemoryDisk, at: i64) {
        agent.handle_timeout(now(at));
        while let Some(job) = agent.poll_job(now(at), &*disk) {
            disk.execute(&job);
            agent.handle_job_done(now(at), job.id);
        }
    }

    /// Connects a source and grants what it asks for; returns the filters.
    fn connect(agent: &mut Agent, disk: &mut MemoryDisk, source: SourceId, at: i64) -> Vec<String> {
        let connected = SourceEvent::Connected {
            resumed: false,
            identifies: true,
        };
        agent.handle_source(now(at), source, connected);
        work(agent, disk, at);
        let mut asked = Vec::new();
        while let Some(SourceRequest::Subscribe {
            packet,
            subscriptions,
        }) = agent.poll_source(source)
        {
            asked.extend(
                subscriptions
                    .into_iter()
                    .map(|one| (one.filter.to_string(), one.id)),
            );
            let refused = Vec::new();
            agent.handle_source(now(at), source, SourceEvent::Subscribed { packet, refused });
        }
        for (index, (_, id)) in asked.iter().enumerate() {
            let packet = Delivery::Packet {
                id: index as u16 + 1,
                duplicate: false,
            };
            let arrival = Arrival {
                source,
                subject: "s/dev-1",
                payload: Payload::Whole(b"{}"),
                delivery: packet,
                through: &[*id],
            };
            agent.handle_arrival(now(at), arrival);
        }
        asked.into_iter().map(|(filter, _)| filter).collect()
    }

    fn received(agent: &Agent) -> [u64; 3] {
        [1, 2, 3].map(|id| {
            agent
                .metrics()
                .value(PipelineId(id), catchment_common::metrics::Counter::Received)
        })
    }

    /// Seconds that the watermarks have come to, of the pipelines that have one.
    fn watermarks(agent: &Agent) -> Vec<(u64, i64)> {
        let seconds = |at: Timestamp| at.since(now(0).wall).as_micros() / 1_000_000;
        agent
            .intake()
            .watermarks()
            .map(|(id, at)| (id.0, seconds(at)))
            .collect()
    }

    #[test]
    fn readings_are_taken_from_the_source_that_a_pipeline_names() {
        let (mut agent, mut disk) = agent("b");
        assert_eq!(connect(&mut agent, &mut disk, A, 1), ["s/+"]);
        assert_eq!(received(&agent), [1, 1, 0]);
        assert_eq!(connect(&mut agent, &mut disk, B, 1), ["s/+"]);
        assert_eq!(received(&agent), [2, 1, 1]);
        assert!(agent.missing_sources().is_empty());
    }

    /// A session that is older than the agent's memory of it: copies come through filters of before. The agent dies
    /// between two copies of one message; the first comes again and is known, and so is the second.
    #[test]
    fn copies_of_a_message_that_a_crash_comes_between_are_told() {
        let settings = || settings(vec![source("a", 1)]);
        let mut kept = plan("c");
        kept.plan.pipelines.truncate(1);
        let mut disk = MemoryDisk::default();
        let start = |disk: &MemoryDisk, epoch| {
            let (mut agent, _) = Agent::start(settings(), epoch, 42, Some(&kept), now(0), disk).unwrap();
            agent.clock.handle_server_time(now(0), now(0).wall);
            let (resumed, identifies) = (true, true);
            agent.handle_source(now(0), A, SourceEvent::Connected { resumed, identifies });
            agent
        };
        let come = |agent: &mut Agent, id, duplicate, through: u32| {
            let arrival = Arrival {
                source: A,
                subject: "s/dev-1",
                payload: Payload::Whole(b"{}"),
                delivery: Delivery::Packet { id, duplicate },
                through: &[through],
            };
            agent.handle_arrival(now(1), arrival);
            received(agent)[0]
        };
        let mut agent = start(&disk, 7);
        assert_eq!(come(&mut agent, 1, false, 11), 1);
        work(&mut agent, &mut disk, 1);
        let mut agent = start(&disk, 8);
        assert_eq!(come(&mut agent, 1, true, 11), 1, "the first comes again");
        assert_eq!(come(&mut agent, 2, true, 12), 1, "and is the second's message");
        // Its acknowledgement has arrived, so that the rest of it alone comes.
        let mut agent = start(&disk, 9);
        assert_eq!(come(&mut agent, 2, true, 12), 1);
        // Another message says the same.
        come(&mut agent, 3, true, 11);
        assert_eq!(come(&mut agent, 4, true, 12), 2);
    }

    #[test]
    fn a_source_that_is_not_read_is_not_subscribed_to_and_one_that_is_not_there_is_missing() {
        let (mut agent, mut disk) = agent("c");
        agent.plan.pipelines.remove(0);
        let plan = agent.plan.clone();
        agent.handle_plan(now(1), &plan);
        assert_eq!(agent.missing_sources(), ["c"]);
        assert!(agent.wants_source(A) && !agent.wants_source(B));
        assert_eq!(connect(&mut agent, &mut disk, A, 1), ["s/+"]);
        work(&mut agent, &mut disk, 40);
        // What is not there is silent, and B, which nobody reads, holds nothing up.
        assert_eq!(watermarks(&agent), [(2, 40), (3, 40)]);
    }

    /// A source that is away may hold anything of what is read of it, and nothing of the others'.
    #[test]
    fn who_cannot_hear_one_source_knows_of_the_silence_of_the_others() {
        let (mut agent, mut disk) = agent("b");
        connect(&mut agent, &mut disk, A, 1);
        connect(&mut agent, &mut disk, B, 1);
        work(&mut agent, &mut disk, 40);
        assert_eq!(watermarks(&agent), [(1, 40), (2, 40), (3, 40)]);
        agent.handle_source(now(41), B, SourceEvent::Lost);
        for at in 41..100 {
            work(&mut agent, &mut disk, at);
        }
        assert_eq!(watermarks(&agent), [(1, 40), (2, 99), (3, 40)]);
        let states = agent.source_states();
        let states = states
            .iter()
            .map(|state| (state.name.as_str(), state.is_connected));
        assert_eq!(states.collect::<Vec<_>>(), [("a", true), ("b", false)]);
        connect(&mut agent, &mut disk, B, 100);
        work(&mut agent, &mut disk, 129);
        assert_eq!(watermarks(&agent)[2], (3, 100), "what B kept comes first");
        work(&mut agent, &mut disk, 130);
        assert_eq!(watermarks(&agent), [(1, 130), (2, 130), (3, 130)]);
    }

    /// Both brokers use one packet id for one content; after a crash each repeats what is its own, wherever the source
    /// stands now and whatever it is called.
    #[test]
    fn what_each_source_took_is_known_after_a_crash() {
        let (mut agent, mut disk) = agent("b");
        connect(&mut agent, &mut disk, A, 1);
        work(&mut agent, &mut disk, 2);
        drop(agent);
        let sources = vec![source("b", 2), source("renamed", 1)];
        let (mut agent, _) = Agent::start(settings(sources), 8, 43, None, now(3), &disk).unwrap();
        let repeated = |source, agent: &mut Agent| {
            let resumed = SourceEvent::Connected {
                resumed: true,
                identifies: true,
            };
            agent.handle_source(now(4), source, resumed);
            let arrival = Arrival {
                source,
                subject: "s/dev-1",
                payload: Payload::Whole(b"{}"),
                delivery: Delivery::Packet {
                    id: 1,
                    duplicate: true,
                },
                through: &[],
            };
            agent.handle_arrival(now(4), arrival);
            let redelivered = catchment_common::metrics::Counter::Redelivered;
            agent.metrics().value(crate::metrics::AGENT, redelivered)
        };
        assert_eq!(repeated(SourceId(0), &mut agent), 0, "what another source took");
        assert_eq!(repeated(SourceId(1), &mut agent), 1);
    }
}
