//! Messages that the broker may send a second time, so that they count once.
//!
//! A QoS 1 message whose PUBACK did not reach the broker comes again, with the DUP flag and the same packet id. So a
//! message is remembered by its packet id and a hash of its content until the broker is known to have its PUBACK. MQTT
//! never says so; but a broker handles what comes on a connection in order, so when it answers a request that was sent
//! after a PUBACK, it has that too. Such a request, a *barrier*, goes out behind every few acknowledgements.
//!
//! What is remembered does not depend on what a broker promises. Mosquitto 2.0, told to keep to 1,000 messages, sends
//! up to a thousand for each PUBACK that it handles late, had more than 65,535 under way, and used packet ids of
//! messages that were. So two messages may have one packet id, each is remembered for itself, and nothing that comes
//! pushes out what is remembered: when there is no room for another message, it is left to the broker until a barrier
//! is answered.
//!
//! Messages of an earlier connection come again before new ones do. Those that have not come when a window of new
//! ones has were acknowledged in time, and are forgotten. A broker need not send a whole window: when old messages leave
//! no room for what comes, the broker is asked, and if it answers before it has repeated any, the oldest half is forgotten.
//!
//! Until the first new message each remembered one stands for one repetition: a second one with the same id and content
//! is another message. After it, a repetition of what came on this connection is the broker's impatience: its PUBACK is
//! on the way.

use std::collections::VecDeque;

use crate::log::journal::Journal;
use crate::source::SourceId;

/// Names a QoS 1 message within a broker's session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The packet id, not 0.
    pub id: u16,
    /// Whether the broker says that it has sent this before.
    pub duplicate: bool,
}

/// What a message with a packet id is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// It was taken before, and its acknowledgement has not arrived: it must be acknowledged again, next.
    Taken,
    /// The same, and it was taken before this process began, which knows nothing else of it.
    TakenBefore,
    /// It was taken on this connection, where its acknowledgement is on the way.
    UnderWay,
    /// It was not taken before.
    New,
    /// It was not taken before as far as is known; but older messages had to be forgotten without the broker's word.
    Unsure,
}

/// Bytes of a remembered message in the journal, as it is carried on.
const MESSAGE_BYTES: u64 = 12;
/// Most messages that are remembered: four times the packet ids that there are, 4 MiB. A broker that handles nothing at
/// all is this far ahead of itself at 10,000 messages a second within half a minute.
const MESSAGES_MAX: u64 = 1 << 18;
/// A barrier is sent when so many acknowledgements are out that none stands behind; or half a window, if that is less.
const BARRIER_EVERY: u64 = 256;
/// Memory for so many messages is kept when fewer are remembered.
const CAPACITY_KEPT: usize = 2_048;
/// Most messages of this connection that are compared with a repetition: brokers that lose patience keep to their
/// window.
const COMPARED_MAX: usize = 4_096;

/// How many messages can be remembered beside a journal of this size: they are written down again when their segment
/// goes, and must leave it room for readings.
pub const fn room(journal_bytes: u64) -> usize {
    let carried = journal_bytes / 4 / MESSAGE_BYTES;
    (if journal_bytes == 0 || carried > MESSAGES_MAX {
        MESSAGES_MAX
    } else {
        carried
    }) as usize
}

/// How many messages each of so many sources can have remembered, so that all of them together keep to [`room`].
pub const fn share(journal_bytes: u64, sources: usize) -> usize {
    let share = room(journal_bytes) / if sources > 0 { sources } else { 1 };
    if share > 0 { share } else { 1 }
}

/// A message as it is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    /// Which message of all that were taken; it comes round.
    number: u32,
    id: u16,
    hash: u32,
    segment: u32,
}

impl Seen {
    /// Stands for an acknowledgement of a message that need not be known again.
    const NOTHING: Self = Self {
        number: 0,
        id: 0,
        hash: 0,
        segment: u32::MAX,
    };

    fn key(&self) -> u64 {
        key(self.id, self.hash)
    }
}

/// What a repetition is known by.
fn key(id: u16, hash: u32) -> u64 {
    u64::from(hash) << 16 | u64::from(id)
}

/// The messages that may come again.
#[derive(Debug)]
pub struct InFlight {
    /// Taken on earlier connections, and not come again on this one.
    old: Old,
    /// Acknowledged on this connection, or about to be, in that order; those that the broker has are gone.
    fresh: VecDeque<Seen>,
    /// The number of the next message, and of the first of this process.
    next: u32,
    began: u32,
    window: usize,
    room: usize,
    /// Old messages had to be forgotten to go on, and the broker may still send some of them.
    is_unsure: bool,
    connection: Connection,
}

/// What happened on the connection to the broker.
#[derive(Clone, Copy, Default, Debug)]
struct Connection {
    /// Messages that the broker sends for the first time.
    new: usize,
    /// Messages that found no room.
    left: usize,
    /// The broker is asked whether any of the old messages are still to come.
    is_probing: bool,
    /// Acknowledgements sent.
    sent: u64,
    /// Acknowledgements that stand before the last barrier.
    barrier: u64,
    /// Acknowledgements that the broker is known to have.
    arrived: u64,
    /// Old messages were forgotten because a window of new ones had come.
    is_unsure: bool,
    /// What came again did not come in its order.
    is_disordered: bool,
}

impl InFlight {
    /// For a broker that sends at most about `window` new messages before it has repeated the old ones. At most `room`
    /// are remembered.
    pub fn new(window: usize, room: usize) -> Self {
        Self {
            old: Old::default(),
            fresh: VecDeque::new(),
            next: 0,
            began: 0,
            window: window.max(1),
            room: room.max(1),
            is_unsure: false,
            connection: Connection::default(),
        }
    }

    /// A hash of a message's content that is the same after a restart.
    pub fn hash(topic: &str, payload: &[u8]) -> u32 {
        catchment_common::wire::checksum(topic.as_bytes())
            ^ catchment_common::wire::checksum(payload).rotate_left(7)
    }

    /// Whether one more message can be remembered.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.old.live + self.fresh.len() < self.room
    }

    /// A message has come; says whether it was taken before.
    pub fn handle_message(&mut self, packet: Packet, hash: u32) -> Known {
        if !packet.duplicate {
            self.connection.new += 1;
            if self.connection.new == self.window {
                self.connection.is_unsure = self.old.live > 0;
                self.is_unsure = false;
                self.old.clear();
            }
            self.connection.left += usize::from(!self.has_room());
            return Known::New;
        }
        let key = key(packet.id, hash);
        if let Some(seen) = self.old.take(key) {
            let is_before = |last: &Seen| last.number.wrapping_sub(seen.number) < u32::MAX / 2;
            let last = self.fresh.back().filter(|last| **last != Seen::NOTHING);
            self.connection.is_disordered |= last.is_some_and(is_before);
            self.fresh.push_back(seen);
            let is_before = seen.number.wrapping_sub(self.began) > u32::MAX / 2;
            return if is_before {
                Known::TakenBefore
            } else {
                Known::Taken
            };
        }
        let is_it = |held: &Seen| held.key() == key && *held != Seen::NOTHING;
        if self.connection.new > 0 && self.fresh.iter().rev().take(COMPARED_MAX).any(is_it) {
            return Known::UnderWay;
        }
        self.connection.left += usize::from(!self.has_room());
        if self.is_unsure || self.connection.is_unsure {
            Known::Unsure
        } else {
            Known::New
        }
    }

    /// Whether there is room for what was left to the broker, which comes again with the next connection. For a few
    /// messages alone that would be too dear: all that follow them come again, too.
    pub fn has_room_for_left(&self) -> bool {
        let used = self.old.live + self.fresh.len();
        used < self.room && (self.connection.left == 0 || used <= self.room / 2)
    }

    /// Whether old messages keep those out that come, and nothing is under way that would make room.
    fn is_stuck(&self) -> bool {
        self.connection.left > 0 && self.fresh.is_empty() && !self.has_room_for_left()
    }

    /// A message is taken, stands in this segment of the journal, and will be acknowledged next.
    #[inline]
    pub fn push(&mut self, packet: Packet, hash: u32, segment: u32) {
        self.fresh.push_back(Seen {
            number: self.next,
            id: packet.id,
            hash,
            segment,
        });
        self.next = self.next.wrapping_add(1);
    }

    /// A message will be acknowledged next that may be looked at again when it comes again.
    #[inline]
    pub fn push_nothing(&mut self) {
        self.fresh.push_back(Seen::NOTHING);
    }

    /// An acknowledgement is sent.
    #[inline]
    pub fn handle_acknowledged(&mut self) {
        self.connection.sent += 1;
    }

    /// Acknowledgements sent on this connection.
    pub fn acknowledged(&self) -> u64 {
        self.connection.sent
    }

    /// Whether a barrier is to be sent now. One is under way at a time.
    pub fn poll_barrier(&mut self) -> bool {
        let Connection {
            sent,
            barrier,
            arrived,
            ..
        } = self.connection;
        let every = BARRIER_EVERY.min(self.window as u64 / 2).max(1);
        let waits = sent - barrier >= every || (sent > barrier && !self.has_room_for_left());
        let probes = self.is_stuck() && !self.connection.is_probing;
        let is_due = barrier == arrived && (waits || probes);
        if is_due {
            self.connection.barrier = sent;
            self.connection.is_probing = probes;
        }
        is_due
    }

    /// The broker has so many of this connection's acknowledgements: the first ones. Returns the number up to which no
    /// message comes again, if that is known.
    pub fn handle_arrived(&mut self, acknowledgements: u64) -> Option<u32> {
        let Connection { arrived, sent, .. } = self.connection;
        let now = acknowledgements.clamp(arrived, sent);
        let count = ((now - arrived) as usize).min(self.fresh.len());
        let mut gone = self.fresh.drain(..count).filter(|seen| *seen != Seen::NOTHING);
        let last = gone.next_back().map(|seen| seen.number);
        drop(gone);
        self.connection.arrived = now;
        self.connection.barrier = self.connection.barrier.max(now);
        if std::mem::take(&mut self.connection.is_probing) && self.is_stuck() {
            // What the broker would have sent again came before its answer and before the messages that were left.
            self.is_unsure = true;
            self.old.forget_half(self.room);
        }
        if self.fresh.capacity() > CAPACITY_KEPT && self.fresh.len() < CAPACITY_KEPT / 2 {
            self.fresh.shrink_to(CAPACITY_KEPT);
        }
        last.filter(|_| self.old.live == 0 && !self.connection.is_disordered)
    }

    /// The connection to the broker is another one, or gone.
    pub fn handle_connection(&mut self) {
        self.connection = Connection::default();
        self.old
            .extend(self.fresh.drain(..).filter(|seen| *seen != Seen::NOTHING));
    }

    /// The broker has a new session: packet ids start over.
    pub fn clear(&mut self) {
        self.is_unsure = false;
        self.old.clear();
        self.fresh.clear();
    }

    /// The number of the next message.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Segments before `needed` go: writes down again which of the messages there may still come again.
    pub fn carry(&mut self, source: SourceId, needed: u32, journal: &mut Journal) {
        for seen in self.old.seen.iter_mut().chain(&mut self.fresh) {
            if seen.segment < needed && *seen != GONE {
                journal.carried(source, seen.number, seen.id, seen.hash);
                seen.segment = journal.segment();
            }
        }
    }

    // What a journal says, in the order in which it was written.

    /// Messages have numbers from here on.
    pub fn restore_next(&mut self, next: u32) {
        (self.next, self.began) = (next, next);
    }

    /// A message was taken, and stands in this segment.
    pub fn restore(&mut self, id: u16, hash: u32, segment: u32) {
        let number = self.next;
        self.restore_next(number.wrapping_add(1));
        let seen = Seen {
            number,
            id,
            hash,
            segment,
        };
        self.old.restore(seen, self.room);
    }

    /// A message was carried on to this segment.
    pub fn restore_carried(&mut self, number: u32, id: u16, hash: u32, segment: u32) {
        let seen = Seen {
            number,
            id,
            hash,
            segment,
        };
        self.old.restore_carried(seen, self.next);
    }

    /// No message up to this number comes again.
    pub fn restore_settled(&mut self, number: u32) {
        self.old.settle(number, self.next);
    }
}

/// Messages of earlier connections, in the order in which they were taken.
#[derive(Debug, Default)]
struct Old {
    /// With gaps where one has come again.
    seen: Vec<Seen>,
    live: usize,
    /// Key and place of each, ascending: made when the first repetition comes.
    index: Vec<(u64, u32)>,
}

/// In the place of a message that has come again.
const GONE: Seen = Seen {
    number: 0,
    id: 0,
    hash: 0,
    segment: 0,
};

impl Old {
    /// The oldest with this key, which is taken out.
    fn take(&mut self, key: u64) -> Option<Seen> {
        if self.live == 0 {
            return None;
        }
        if self.index.is_empty() {
            let places = self.seen.iter().zip(0..);
            let live = places.filter(|(seen, _)| **seen != GONE);
            self.index = live.map(|(seen, place)| (seen.key(), place)).collect();
            self.index.sort_unstable();
        }
        let first = self.index.partition_point(|(held, _)| *held < key);
        let equal = self.index[first..].iter().take_while(|(held, _)| *held == key);
        let place = { equal }
            .map(|(_, place)| *place as usize)
            .find(|place| self.seen[*place] != GONE)?;
        self.live -= 1;
        let seen = std::mem::replace(&mut self.seen[place], GONE);
        if self.live == 0 {
            self.clear();
        }
        Some(seen)
    }

    /// Forgets the oldest, until they take half the room at most. A broker sends the newest last.
    fn forget_half(&mut self, room: usize) {
        self.index = Vec::new();
        self.seen.retain(|seen| *seen != GONE);
        let count = self.seen.len().saturating_sub(room / 2);
        self.seen.drain(..count);
        self.live = self.seen.len();
    }

    fn extend(&mut self, more: impl Iterator<Item = Seen>) {
        self.index = Vec::new();
        self.seen.retain(|seen| *seen != GONE);
        self.seen.extend(more);
        self.live = self.seen.len();
    }

    fn restore(&mut self, seen: Seen, room: usize) {
        self.seen.push(seen);
        if self.seen.len() >= 2 * room {
            self.seen.drain(..room);
        }
        self.live = self.seen.len();
    }

    /// How long ago a message was taken, counted in messages.
    fn age(seen: &Seen, next: u32) -> u32 {
        next.wrapping_sub(seen.number)
    }

    fn restore_carried(&mut self, seen: Seen, next: u32) {
        let age = Self::age(&seen, next);
        // In the order of their numbers, which is that of their age backwards.
        let place = self.seen.partition_point(|held| Self::age(held, next) > age);
        match self.seen.get_mut(place) {
            Some(held) if held.number == seen.number => *held = seen,
            _ => self.seen.insert(place, seen),
        }
        self.live = self.seen.len();
    }

    fn settle(&mut self, number: u32, next: u32) {
        let age = next.wrapping_sub(number);
        let count = self.seen.partition_point(|held| Self::age(held, next) >= age);
        self.seen.drain(..count);
        self.live = self.seen.len();
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: usize = 100;
    const SOURCE: SourceId = SourceId(0);

    fn new(id: u16) -> Packet {
        Packet { id, duplicate: false }
    }

    fn again(id: u16) -> Packet {
        Packet { id, duplicate: true }
    }

    /// A message comes; it is taken if it is new and there is room. Says what it is.
    fn come(held: &mut InFlight, packet: Packet, hash: u32) -> Known {
        let known = held.handle_message(packet, hash);
        match known {
            Known::New | Known::Unsure if held.has_room() => {
                held.push(packet, hash, 1);
                held.handle_acknowledged();
            }
            Known::Taken => held.handle_acknowledged(),
            _ => {}
        }
        known
    }

    /// Takes and acknowledges messages with these ids.
    fn take(held: &mut InFlight, ids: impl IntoIterator<Item = u16>) {
        for id in ids {
            assert_eq!(come(held, new(id), u32::from(id)), Known::New);
        }
    }

    /// The broker sends these again; which are recognized.
    fn repeat(held: &mut InFlight, ids: impl IntoIterator<Item = u16>) -> Vec<bool> {
        let ids = ids.into_iter();
        ids.map(|id| come(held, again(id), u32::from(id)) == Known::Taken)
            .collect()
    }

    #[test]
    fn only_a_marked_message_with_equal_id_and_content_is_a_repetition() {
        let mut held = InFlight::new(2, ROOM);
        let hash = InFlight::hash("a/b", b"21");
        held.push(new(7), hash, 1);
        held.handle_connection();
        assert_eq!(held.handle_message(again(8), hash), Known::New);
        assert_eq!(
            held.handle_message(again(7), InFlight::hash("a/b", b"22")),
            Known::New
        );
        assert_eq!(held.handle_message(again(7), hash), Known::Taken);
        assert_eq!(
            held.handle_message(new(7), hash),
            Known::New,
            "ids are used again"
        );
        assert_ne!(InFlight::hash("a", b"b"), InFlight::hash("b", b"a"));
    }

    #[test]
    fn what_the_broker_has_not_answered_for_is_remembered_however_much_it_is() {
        let mut held = InFlight::new(4, ROOM);
        take(&mut held, 1..=90);
        assert!(held.poll_barrier());
        take(&mut held, 91..=95);
        assert!(!held.poll_barrier(), "one at a time");
        held.handle_connection();
        assert_eq!(repeat(&mut held, 1..=95), [true; 95]);
    }

    #[test]
    fn what_it_has_answered_for_is_forgotten() {
        let mut held = InFlight::new(4, ROOM);
        take(&mut held, 1..=3);
        assert!(held.poll_barrier());
        take(&mut held, 4..=4);
        held.handle_arrived(3);
        held.handle_connection();
        assert_eq!(repeat(&mut held, 1..=4), [false, false, false, true]);
    }

    /// A broker takes all acknowledgements and answers no barrier; then it sends everything again.
    #[test]
    fn more_than_fits_is_left_to_the_broker_and_nothing_is_taken_twice() {
        let mut held = InFlight::new(20, ROOM);
        let messages = || (1..=250_u16).map(|id| (id, u32::from(id)));
        let mut taken = Vec::new();
        let mut step = |held: &mut InFlight, is_first: bool| {
            for (id, hash) in messages() {
                let packet = if is_first { new(id) } else { again(id) };
                let known = held.handle_message(packet, hash);
                if known == Known::Taken {
                    held.handle_acknowledged();
                } else if held.has_room() {
                    held.push(packet, hash, 1);
                    held.handle_acknowledged();
                    taken.push(id);
                }
            }
        };
        step(&mut held, true);
        for _ in 0..3 {
            held.handle_connection();
            step(&mut held, false);
        }
        let first: Vec<u16> = (1..=100).collect();
        assert_eq!(taken, first, "as many as are remembered, each once");
        assert!(held.poll_barrier());
        held.handle_arrived(100);
        held.handle_connection();
        assert!(held.has_room(), "an answer makes room for the others");
    }

    #[test]
    fn repetitions_that_were_never_taken_push_out_none_that_were() {
        let mut held = InFlight::new(20, 10);
        take(&mut held, 1..=10);
        held.handle_connection();
        assert_eq!(repeat(&mut held, 11..=20), [false; 10]);
        assert_eq!(repeat(&mut held, 1..=10), [true; 10]);
    }

    /// All that is remembered was acknowledged in time, which nobody said; what comes was never seen.
    #[test]
    fn a_full_memory_of_what_never_comes_again_ends() {
        let mut held = InFlight::new(1_000, 10);
        take(&mut held, 1..=10);
        held.handle_connection();
        assert!(!held.poll_barrier(), "nothing came that needs room");
        assert_eq!(repeat(&mut held, [11]), [false]);
        assert!(held.poll_barrier());
        assert!(!held.poll_barrier(), "one at a time");
        assert!(!held.has_room());
        held.handle_arrived(0);
        assert!(held.has_room());
        held.handle_connection();
        assert_eq!(come(&mut held, again(11), 11), Known::Unsure, "and it is told");
        assert_eq!(
            repeat(&mut held, [5, 6]),
            [false, true],
            "the newest may still come"
        );
    }

    /// A broker that sends few messages ahead gets no further than the first that finds no room.
    #[test]
    fn old_messages_that_come_after_the_question_are_known() {
        let mut held = InFlight::new(1_000, 4);
        take(&mut held, 1..=4);
        held.handle_connection();
        assert_eq!(repeat(&mut held, [9]), [false]);
        assert!(held.poll_barrier());
        assert_eq!(repeat(&mut held, 1..=4), [true; 4]);
        held.handle_arrived(0);
        assert_eq!(held.fresh.len(), 4, "their acknowledgements are under way");
    }

    #[test]
    fn old_ones_are_forgotten_when_a_window_of_new_ones_has_come() {
        let mut held = InFlight::new(3, ROOM);
        take(&mut held, 1..=2);
        held.handle_connection();
        assert_eq!(repeat(&mut held, [2]), [true]);
        take(&mut held, 3..=4);
        assert_eq!(held.old.live, 1, "it may still come");
        take(&mut held, 5..=5);
        assert_eq!(held.old.live, 0);
        assert_eq!(
            held.fresh.len(),
            4,
            "none of this connection is known to have arrived"
        );
    }

    /// Packet ids of messages under way are used for others.
    #[test]
    fn messages_with_one_id_are_told_apart() {
        let mut held = InFlight::new(20, ROOM);
        for hash in [1, 2, 2] {
            come(&mut held, new(7), hash);
        }
        held.handle_connection();
        let known: Vec<Known> = [1, 2, 2, 2, 1].map(|hash| come(&mut held, again(7), hash)).into();
        assert_eq!(
            known,
            [Known::Taken, Known::Taken, Known::Taken, Known::New, Known::New],
            "as often as they were taken"
        );
    }

    #[test]
    fn a_broker_without_patience_repeats_what_is_under_way() {
        let mut held = InFlight::new(20, ROOM);
        take(&mut held, 1..=3);
        assert_eq!(come(&mut held, again(2), 2), Known::UnderWay);
        assert_eq!(come(&mut held, again(4), 4), Known::New, "it was left before");
    }

    #[test]
    fn a_new_session_clears_all() {
        let mut held = InFlight::new(2, 10);
        take(&mut held, 1..=5);
        held.handle_connection();
        held.clear();
        assert_eq!(repeat(&mut held, [5]), [false]);
    }

    #[test]
    fn a_barrier_goes_out_early_when_there_is_no_room() {
        let mut held = InFlight::new(1_000, 10);
        take(&mut held, 1..=9);
        assert!(!held.poll_barrier());
        take(&mut held, 10..=10);
        assert!(held.poll_barrier());
    }

    #[test]
    fn messages_outlive_their_segment() {
        let mut journal = Journal::new(1 << 20, [], 5, 1);
        let mut held = InFlight::new(3, ROOM);
        for (id, segment) in [(1, 2), (2, 4), (3, 5)] {
            held.restore(id, 0, segment);
        }
        held.carry(SOURCE, 2, &mut journal);
        assert_eq!(journal.waiting(), 0, "nothing goes that is needed");
        held.carry(SOURCE, 3, &mut journal);
        assert!(journal.waiting() > 0);
        assert_eq!(held.old.seen.iter().map(|seen| seen.segment).min(), Some(4));
    }

    #[test]
    fn a_journal_gives_back_what_may_still_come_and_each_once() {
        let mut back = InFlight::new(3, ROOM);
        back.restore_next(u32::MAX - 2);
        for (id, segment) in [(1, 2), (2, 2), (3, 4), (3, 4), (4, 5)] {
            back.restore(id, 0, segment);
        }
        // A crash before the old segment is gone leaves both places; the first was settled by then.
        back.restore_settled(u32::MAX - 2);
        back.restore_carried(u32::MAX - 1, 2, 0, 5);
        let known = [1, 2, 3, 3, 3, 4].map(|id| back.handle_message(again(id), 0) == Known::TakenBefore);
        assert_eq!(known, [false, true, true, true, false, true]);
        // Or only the later one.
        let mut back = InFlight::new(3, ROOM);
        back.restore_next(7);
        back.restore(4, 0, 5);
        back.restore_carried(5, 2, 0, 5);
        assert_eq!(back.old.seen[0].number, 5, "in their order");
        assert_eq!(back.handle_message(again(2), 0), Known::TakenBefore);
    }

    #[test]
    fn what_is_settled_is_known_by_its_number() {
        let mut held = InFlight::new(4, ROOM);
        take(&mut held, 1..=3);
        held.push_nothing();
        held.handle_acknowledged();
        assert_eq!(held.handle_arrived(2), Some(1));
        assert_eq!(held.handle_arrived(4), Some(2));
        take(&mut held, 4..=5);
        held.handle_connection();
        assert_eq!(repeat(&mut held, [5]), [true]);
        assert_eq!(held.handle_arrived(1), None, "4 may still come");
        assert_eq!(repeat(&mut held, [4]), [true]);
        take(&mut held, 6..=6);
        assert_eq!(held.handle_arrived(3), Some(5), "all have come");
        take(&mut held, 7..=8);
        held.handle_connection();
        assert_eq!(repeat(&mut held, [8, 7]), [true; 2]);
        assert_eq!(held.handle_arrived(1), None, "nothing is known out of order");
    }

    /// A broker that is trusted with its order alone: it handles acknowledgements late, uses ids that are under way,
    /// answers barriers when it likes, and loses connections.
    struct Broker {
        held: InFlight,
        ids: u16,
        last: u16,
        /// Contents repeat so soon.
        contents: u32,
        queue: VecDeque<u32>,
        /// Messages that it has not had an acknowledgement of: id and number.
        under_way: VecDeque<(u16, u32)>,
        /// On the wire to the agent, and back: acknowledgements, and barriers.
        wire: VecDeque<(Packet, u32)>,
        back: VecDeque<Option<u16>>,
        has_left: bool,
        counts: Vec<u8>,
        /// Most messages that it sends ahead of their acknowledgement.
        ahead: usize,
        /// What it has on disk: the queue and what was under way.
        saved: (VecDeque<u32>, VecDeque<(u16, u32)>),
    }

    const MESSAGES: u32 = 400;

    impl Broker {
        fn new(room: usize, ids: u16, contents: u32) -> Self {
            Self {
                held: InFlight::new(8, room),
                ids,
                last: 0,
                contents,
                queue: (0..MESSAGES).collect(),
                under_way: VecDeque::new(),
                wire: VecDeque::new(),
                back: VecDeque::new(),
                has_left: false,
                counts: vec![0; MESSAGES as usize],
                ahead: usize::MAX,
                saved: ((0..MESSAGES).collect(), VecDeque::new()),
            }
        }

        fn send(&mut self) {
            if self.under_way.len() >= self.ahead {
                return;
            }
            if let Some(number) = self.queue.pop_front() {
                self.last = self.last % self.ids + 1;
                self.under_way.push_back((self.last, number));
                self.wire.push_back((new(self.last), number));
            }
        }

        fn receive(&mut self) {
            let Some((packet, number)) = self.wire.pop_front() else {
                return;
            };
            let hash = number % self.contents;
            match self.held.handle_message(packet, hash) {
                Known::Taken | Known::TakenBefore => {
                    self.held.handle_acknowledged();
                    self.back.push_back(Some(packet.id));
                }
                Known::UnderWay => {}
                Known::New | Known::Unsure => {
                    self.has_left |= !self.held.has_room();
                    if !self.has_left {
                        self.held.push(packet, hash, 1);
                        self.held.handle_acknowledged();
                        self.back.push_back(Some(packet.id));
                        self.counts[number as usize] += 1;
                    }
                }
            }
            self.ask();
        }

        fn ask(&mut self) {
            if self.held.poll_barrier() {
                self.back.push_back(None);
            }
        }

        fn handle(&mut self) {
            match self.back.pop_front() {
                Some(Some(id)) => {
                    let place = self.under_way.iter().position(|(held, _)| *held == id);
                    self.under_way.remove(place.expect("it was sent"));
                }
                Some(None) => {
                    self.held.handle_arrived(self.held.connection.barrier);
                    self.ask();
                }
                None => {}
            }
        }

        fn lose(&mut self) {
            self.held.handle_connection();
            self.back.clear();
            let repeated = self.under_way.iter();
            self.wire = repeated.map(|&(id, number)| (again(id), number)).collect();
            self.has_left = false;
        }

        fn save(&mut self) {
            self.saved = (self.queue.clone(), self.under_way.clone());
        }

        /// It ends, and begins again with what it has on disk.
        fn kill(&mut self) {
            (self.queue, self.under_way) = self.saved.clone();
            self.lose();
        }

        /// Nothing goes wrong from now on, and a connection ends when the agent asks for that alone. Returns how often
        /// the agent asks.
        fn calm_down(&mut self) -> usize {
            let mut asked = 0;
            self.lose();
            for _ in 0..20 * MESSAGES {
                self.send();
                self.receive();
                self.handle();
                if self.has_left && self.held.has_room_for_left() {
                    self.lose();
                    asked += 1;
                }
            }
            asked
        }
    }

    proptest! {
        #[test]
        fn each_message_is_taken_once_whatever_the_broker_does(
            room in 4_usize..60, ids in 2_u16..40, ahead in 1_usize..100,
            steps in prop::collection::vec((any::<u8>(), 1_u8..17), 1..120)
        ) {
            let mut broker = Broker::new(room, ids, MESSAGES);
            broker.ahead = ahead;
            for (what, count) in steps {
                for _ in 0..count {
                    match what % 8 {
                        0 | 1 => broker.send(),
                        2..=4 => broker.receive(),
                        5 | 6 => broker.handle(),
                        _ => {
                            broker.lose();
                            break;
                        }
                    }
                }
                prop_assert!(broker.held.old.live + broker.held.fresh.len() <= room);
            }
            broker.calm_down();
            prop_assert!(broker.counts.iter().all(|count| *count == 1), "{:?}", broker.counts);
        }

        /// A broker may send fewer messages ahead than it was told, and forget with a crash what it was told since it saved.
        #[test]
        fn no_message_is_left_for_good(
            room in 4_usize..60, ahead in 1_usize..20,
            steps in prop::collection::vec((any::<u8>(), 1_u8..17), 1..120)
        ) {
            let mut broker = Broker::new(room, u16::MAX, MESSAGES);
            broker.ahead = ahead;
            for (what, count) in steps {
                for _ in 0..count {
                    match what % 9 {
                        0 | 1 => broker.send(),
                        2..=4 => broker.receive(),
                        5 | 6 => broker.handle(),
                        7 => broker.save(),
                        _ => {
                            if count % 2 == 0 { broker.kill() } else { broker.lose() }
                            break;
                        }
                    }
                }
            }
            let asked = broker.calm_down();
            prop_assert!(broker.counts.iter().all(|count| *count > 0), "{:?}", broker.counts);
            prop_assert!(asked <= 2 + 2 * MESSAGES as usize / room, "each connection makes progress: {asked}");
        }

        /// Nobody can tell apart what has one id and one content, but how often there is such a message is known.
        #[test]
        fn equal_messages_under_equal_ids_are_taken_as_often_as_they_are_under_way(
            copies in 1_usize..20, taken in 0_usize..20
        ) {
            let mut held = InFlight::new(8, ROOM);
            for _ in 0..taken.min(copies) {
                come(&mut held, new(1), 9);
            }
            held.handle_connection();
            let again = (0..copies).filter(|_| come(&mut held, again(1), 9) != Known::Taken).count();
            prop_assert_eq!(again + taken.min(copies), copies);
        }
    }
}
