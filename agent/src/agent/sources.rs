//! The agent's sources: what happened to them, what they are told, and what they are asked to send.

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
        }
    }

    /// What the session of a source may hold has changed: it must be known after a crash before it is so.
    pub(super) fn note(&mut self, source: SourceId, journal: &mut Journal) {
        self.noted += 1;
        journal.source(source, &self.session(source).kept());
    }

    /// Whether all that a plan asks for comes: an agent that cannot hear knows nothing of silence.
    pub(super) fn are_live(&self) -> bool {
        let mut wanted = self.sessions.iter().filter(|session| session.wants_connection());
        wanted.all(Session::is_live)
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
            let filters = (self.plan.version > 0).then(|| self.intake.filters());
            if self.sources.session(source).want(filters) {
                self.sources.note(source, &mut self.journal);
            }
            self.provide(source);
        }
    }

    /// Lets watermarks follow the time, if that is known, and if silence means that there is nothing: every source is there,
    /// and nothing waits at a broker for a clock that is right.
    pub(super) fn follow_clock(&mut self, now: Now, time: Option<Now>) {
        if let Some(time) = time.filter(|_| self.sources.are_live() && self.is_timed()) {
            self.close_now |= self.intake.follow_clock(time);
            self.close_passed_at = now.monotonic + AWAY_SEAL_DELAY;
            return;
        }
        self.intake.hold_clock(now);
        if self.close_passed_at <= now.monotonic {
            self.close_passed_at = now.monotonic + AWAY_SEAL_DELAY;
            let Self {
                intake,
                journal,
                out,
                sources,
                ..
            } = self;
            intake.close_passed(time.unwrap_or(now), journal, |journal, section| {
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
            .set_providers(source, |filter| session.provider(filter));
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
