//! Which messages are looked at: not those that were taken before, nor any while the disk does not keep up or the clock
//! is not set. What is not looked at stays with the broker as long as it can.

use catchment_common::metrics::{Counter, Reason};
use catchment_common::time::Now;

use super::Agent;
use crate::settings::{CLOCK_SET_FROM, ClockUnset};
use crate::source::in_flight::{Packet, Tail};

impl Agent {
    /// Whether a message is to be looked at.
    #[inline]
    pub(super) fn admit(&mut self, now: Now, topic: &str, payload: &[u8], packet: Option<Packet>) -> bool {
        let has_room = self.has_room();
        self.wall = now.wall;
        let is_timed = self.is_timed();
        let Some(packet) = packet else {
            if !is_timed {
                self.reject_unseen(Reason::ClockUnset);
            } else if !has_room {
                self.reject_unseen(Reason::JournalFull);
            }
            return is_timed && has_room;
        };
        let hash = Tail::hash(topic, payload);
        if self.tail.recognize(packet, hash) {
            self.out.count(Counter::Redelivered, 1);
            self.acknowledge_later(packet);
            return false;
        }
        if !is_timed && self.settings.clock_unset == ClockUnset::Reject {
            self.handle_dropped(Reason::ClockUnset, Some(packet));
            return false;
        }
        if !has_room || !is_timed {
            self.out.count(Counter::HeldBack, 1);
            self.held_back = true;
            return false;
        }
        self.tail.push(packet, hash, self.journal.segment());
        self.journal.message(packet.id, hash);
        self.acknowledge_later(packet);
        true
    }

    /// Whether journal and spool have room for the next message.
    #[inline]
    fn has_room(&self) -> bool {
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

    /// Whether readings can be given a time.
    #[inline]
    fn is_timed(&self) -> bool {
        self.wall >= CLOCK_SET_FROM || self.settings.clock_unset == ClockUnset::Take
    }

    /// Whether the connection to the broker is to be made anew, so that the broker sends again what was left to it.
    pub fn poll_redelivery(&mut self) -> bool {
        let has_room = self.has_room() && !self.journal.is_half_full();
        let is_due = self.held_back && has_room && self.is_timed();
        self.held_back &= !is_due;
        is_due
    }
}

#[cfg(test)]
mod tests {
    use catchment_common::time::{Instant, Span, Timestamp};

    use super::*;
    use crate::log::disk::MemoryDisk;
    use crate::metrics::AGENT;
    use crate::settings::Settings;

    fn now(wall: Timestamp) -> Now {
        Now {
            monotonic: Instant::from_micros(5),
            wall,
        }
    }

    fn agent(clock_unset: ClockUnset) -> Agent {
        let settings = Settings {
            name: "gw-1".into(),
            memory_bytes: 1 << 20,
            payload_bytes_max: 1 << 16,
            spool_bytes: 1 << 20,
            retain_acked: Span::ZERO,
            journal_bytes: 1 << 20,
            commit_delay: Span::ZERO,
            redelivery_window: 20,
            clock_unset,
        };
        let disk = MemoryDisk::default();
        Agent::start(settings, 7, 42, None, now(Timestamp::clamped(0)), &disk)
            .unwrap()
            .0
    }

    /// Messages counted under (no match, clock not set, held back) after one of each quality of service in 1970.
    fn counted(agent: &mut Agent) -> (u64, u64, u64) {
        let packet = Packet {
            id: 1,
            duplicate: false,
        };
        for packet in [None, Some(packet)] {
            agent.handle_publish(now(Timestamp::clamped(0)), "a", b"{}", packet);
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
        assert!(!agent.poll_redelivery());
        agent.handle_timeout(now(CLOCK_SET_FROM));
        assert!(agent.poll_redelivery() && !agent.poll_redelivery());
        let packet = Packet {
            id: 1,
            duplicate: true,
        };
        agent.handle_publish(now(CLOCK_SET_FROM), "a", b"{}", Some(packet));
        assert_eq!(
            agent.metrics().value(AGENT, Counter::Rejected(Reason::NoMatch)),
            1,
            "looked at"
        );
    }

    #[test]
    fn other_policies_refuse_or_take_them() {
        assert_eq!(counted(&mut agent(ClockUnset::Reject)), (0, 2, 0));
        assert_eq!(counted(&mut agent(ClockUnset::Take)), (2, 0, 0));
    }
}
