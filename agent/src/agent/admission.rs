//! Which messages are looked at: not those that were taken before, nor any while the disk does not keep up or the clock
//! is not set. What is not looked at stays with the broker as long as it can.

use catchment_common::metrics::{Counter, Reason};
use catchment_common::time::Now;

use super::Agent;
use crate::settings::ClockUnset;
use crate::source::mqtt::copies::Copy;
use crate::source::mqtt::in_flight::{Known, Packet};
use crate::source::{Arrival, Delivery, SourceId};

impl Agent {
    /// A hash of what came, if it is to be looked at; 0 where nobody asks for it.
    #[inline]
    pub(super) fn admit(&mut self, now: Now, arrival: &Arrival<'_>) -> Option<u32> {
        self.clock.look(now);
        match arrival.delivery {
            Delivery::Unacknowledged => self.admit_unacknowledged(arrival),
            Delivery::Packet { id, duplicate } => self.admit_packet(now, arrival, Packet { id, duplicate }),
        }
    }

    fn admit_unacknowledged(&mut self, arrival: &Arrival<'_>) -> Option<u32> {
        if !self.is_timed() {
            self.reject_unseen(Reason::ClockUnset);
            return None;
        }
        if !self.has_room() {
            self.reject_unseen(Reason::JournalFull);
            return None;
        }
        let compares = self.sources.session(arrival.source).compares(false);
        Some(if compares {
            arrival.payload.hash(arrival.subject)
        } else {
            0
        })
    }

    fn admit_packet(&mut self, now: Now, arrival: &Arrival<'_>, packet: Packet) -> Option<u32> {
        let hash = arrival.payload.hash(arrival.subject);
        let known = self.sources.session(arrival.source).handle_message(packet, hash);
        if !matches!(known, Known::New | Known::Unsure) {
            self.out.count(Counter::Redelivered, 1);
        }
        match known {
            Known::Taken | Known::TakenBefore => {
                let number = self.sources.take();
                self.sources.session(arrival.source).take_again(packet, number);
                if known == Known::TakenBefore {
                    self.recall_copy(now, arrival, hash);
                }
                return None;
            }
            Known::UnderWay => return None,
            Known::New | Known::Unsure => {}
        }
        if !self.is_timed() && self.settings.clock_unset == ClockUnset::Reject {
            self.handle_dropped(Reason::ClockUnset, arrival.source, arrival.delivery);
            return None;
        }
        let has_room = self.has_room() && self.is_timed();
        let session = self.sources.session(arrival.source);
        if !has_room || !session.has_room() {
            session.leave();
            self.out.count(Counter::HeldBack, 1);
            return None;
        }
        if known == Known::Unsure {
            self.out.count(Counter::MaybeRepeated, 1);
        }
        let number = self.sources.take();
        let session = self.sources.session(arrival.source);
        session.take(packet, hash, number, &mut self.journal);
        Some(hash)
    }

    /// A copy of a message was read before this process began. Other copies of the message may follow, which are told by
    /// what was read of it: so this one goes the way of a new one, and is not read.
    fn recall_copy(&mut self, now: Now, arrival: &Arrival<'_>, hash: u32) {
        let Self {
            sources,
            intake,
            journal,
            ..
        } = self;
        let was_taken = true;
        let copy = Copy {
            was_taken,
            ..sources.handle_copy(now, arrival, hash, journal)
        };
        let readers = sources.session(arrival.source).readers(copy);
        intake.pass_over(arrival.source, arrival.subject, readers);
    }

    /// A message had to be dropped before it was looked at.
    pub fn handle_dropped(&mut self, reason: Reason, source: SourceId, delivery: Delivery) {
        self.reject_unseen(reason);
        if let Delivery::Packet { id, duplicate } = delivery {
            let number = self.sources.take();
            let packet = Packet { id, duplicate };
            self.sources.session(source).drop_message(packet, number);
        }
    }

    /// Whether journal and spool have room for the next message.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.journal.has_room() && !self.out.spool.is_congested()
    }

    /// Whether the disk is behind with what was taken: the next job should begin before more is handed in.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.journal.is_half_full() || !self.has_room()
    }

    /// Whether the disk is at work and behind, so that the caller should hand in no message before it is done: a disk
    /// that is merely slower than the broker holds the broker back, and nothing has to be left to it or rejected.
    pub fn is_backed_up(&self) -> bool {
        self.commits.is_under_way() && self.is_behind()
    }

    /// Whether readings can be given a time, and a time of their own be judged.
    #[inline]
    pub(super) fn is_timed(&self) -> bool {
        self.clock.is_right() || self.settings.clock_unset == ClockUnset::Take
    }
}

#[cfg(test)]
mod tests {
    use catchment_common::time::{Instant, Span, Timestamp};

    use super::*;
    use crate::log::disk::MemoryDisk;
    use crate::log::spool::Lane;
    use crate::metrics::AGENT;
    use crate::settings::{CLOCK_SET_FROM, Settings};
    use crate::source::{SourceEvent, SourceRequest, SourceSettings};

    const SOURCE: SourceId = SourceId(0);

    fn now(wall: Timestamp) -> Now {
        Now {
            monotonic: Instant::from_micros(5),
            wall,
        }
    }

    fn agent_of(clock_unset: ClockUnset, clock_known: bool) -> Agent {
        let settings = Settings {
            name: "gw-1".into(),
            memory_bytes: 1 << 20,
            payload_bytes_max: 1 << 16,
            spool_bytes: 1 << 20,
            retain_acked: Span::ZERO,
            journal_bytes: 1 << 20,
            commit_delay: Span::ZERO,
            clock_unset,
            clock_known,
            sources: vec![SourceSettings {
                name: "broker".into(),
                session: 0,
                redelivery_window: 20,
            }],
        };
        let disk = MemoryDisk::default();
        let started = Agent::start(settings, 7, 42, None, now(Timestamp::clamped(0)), &disk);
        let (mut agent, _) = started.unwrap();
        agent.handle_source(now(Timestamp::clamped(0)), SOURCE, connected());
        agent
    }

    fn connected() -> SourceEvent {
        SourceEvent::Connected {
            resumed: true,
            identifies: false,
        }
    }

    fn arrival(delivery: Delivery) -> Arrival<'static> {
        Arrival {
            delivery,
            ..Arrival::unacknowledged(SOURCE, "a", b"{}")
        }
    }

    fn agent(clock_unset: ClockUnset) -> Agent {
        agent_of(clock_unset, true)
    }

    /// Messages counted under (no match, clock not set, held back) after one of each quality of service in 1970.
    fn counted(agent: &mut Agent) -> (u64, u64, u64) {
        let packet = Delivery::Packet {
            id: 1,
            duplicate: false,
        };
        for delivery in [Delivery::Unacknowledged, packet] {
            agent.handle_arrival(now(Timestamp::clamped(0)), arrival(delivery));
        }
        let of = |counter| agent.metrics().value(AGENT, counter);
        (
            of(Counter::Rejected(Reason::NoMatch)),
            of(Counter::Rejected(Reason::ClockUnset)),
            of(Counter::HeldBack),
        )
    }

    #[test]
    fn without_a_clock_messages_stay_with_the_broker_until_there_is_one() {
        let mut agent = agent(ClockUnset::Hold);
        assert_eq!(counted(&mut agent), (0, 1, 1), "QoS 0 cannot stay");
        assert_eq!(agent.poll_source(SOURCE), None);
        agent.handle_timeout(now(CLOCK_SET_FROM));
        assert_eq!(agent.poll_source(SOURCE), Some(SourceRequest::Reconnect));
        assert_eq!(agent.poll_source(SOURCE), None);
        agent.handle_source(now(Timestamp::clamped(0)), SOURCE, connected());
        let packet = Delivery::Packet {
            id: 1,
            duplicate: true,
        };
        agent.handle_arrival(now(CLOCK_SET_FROM), arrival(packet));
        assert_eq!(
            agent.metrics().value(AGENT, Counter::Rejected(Reason::NoMatch)),
            1,
            "looked at"
        );
    }

    /// A gateway that boots three hours behind, with the time that was saved last: a message is looked at once the clock
    /// is set, by the aggregator's time, and not before.
    #[test]
    fn a_clock_that_is_hours_behind_at_boot_judges_no_reading() {
        let behind = Timestamp::clamped(1_800_000_000_000_000);
        let right = behind.plus(Span::from_secs(3 * 3_600));
        let take = |agent: &mut Agent, at: Timestamp, duplicate| {
            agent.handle_arrival(now(at), arrival(Delivery::Packet { id: 1, duplicate }));
            agent.metrics().value(AGENT, Counter::Rejected(Reason::NoMatch))
        };
        let mut agent = agent_of(ClockUnset::Hold, false);
        assert_eq!(take(&mut agent, behind, false), 0, "nobody has confirmed it");
        agent.clock.handle_server_time(now(behind), right);
        assert_eq!(take(&mut agent, behind, true), 0);
        assert_eq!(agent.poll_source(SOURCE), None);
        agent.handle_timeout(now(right));
        let request = agent.poll_source(SOURCE);
        assert_eq!(request, Some(SourceRequest::Reconnect), "the clock is set");
        agent.handle_source(now(right), SOURCE, connected());
        assert_eq!(take(&mut agent, right, true), 1);

        let mut agent = agent_of(ClockUnset::Hold, false);
        agent.confirm_clock();
        assert_eq!(
            take(&mut agent, behind, false),
            1,
            "a time service has confirmed it"
        );
        let mut agent = agent_of(ClockUnset::Take, false);
        assert_eq!(take(&mut agent, behind, false), 1, "the policy says to take it");
    }

    /// What leaves a spool that is used up is counted, whoever asks first: operators, or the centre through a record of
    /// the loss.
    #[test]
    fn readings_that_a_full_spool_drops_are_counted() {
        const KEYS: u32 = 2_000;
        let (mut agent, mut disk) = (agent(ClockUnset::Take), MemoryDisk::default());
        let panes = 1_000;
        for pane in 0..panes {
            let frame = crate::log::spool::tests::frame(pane, KEYS);
            agent.out.spool.push(frame, None, Lane::Backlog);
        }
        while let Some(job) = agent.poll_job(now(CLOCK_SET_FROM), &disk) {
            job.steps.iter().for_each(|step| disk.take(step));
            agent.handle_job_done(now(CLOCK_SET_FROM), job.id);
        }
        let held = agent.out.spool.len() as u64;
        let dropped = agent.metrics().sum(Counter::Dropped);
        assert!(dropped > 0 && dropped % u64::from(KEYS) == 0, "{dropped}");
        assert!(
            dropped / u64::from(KEYS) + held >= panes.unsigned_abs(),
            "{dropped} readings, {held} batches"
        );
    }

    #[test]
    fn other_policies_refuse_or_take_them() {
        assert_eq!(counted(&mut agent(ClockUnset::Reject)), (0, 2, 0));
        assert_eq!(counted(&mut agent(ClockUnset::Take)), (2, 0, 0));
    }
}
