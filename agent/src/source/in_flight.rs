//! Messages that the broker may send a second time, so that they count once.
//!
//! A QoS 1 message whose PUBACK did not reach the broker comes again, with the DUP flag and the same packet id. So a
//! message is remembered by its packet id and a hash of its content until the broker is known to have its PUBACK. MQTT
//! never says so; but a broker handles what comes on a connection in order, so when it answers a request that was sent
//! after a PUBACK, it has that too. Such a request, a *barrier*, goes out behind every few acknowledgements. How far a
//! broker sends ahead does not matter then, and it must not: Mosquitto 2.0, told to keep to 1,000 messages, had 4,247
//! under way after some short connections.
//!
//! No packet id is under way twice. One that comes without DUP names another message than before, whose PUBACK has
//! therefore arrived, and there are never more than 65,535 to remember. Messages of an earlier connection come again
//! before new ones do; those that do not are forgotten when a window of new ones has come.

use std::collections::{HashMap, VecDeque};

use crate::log::journal::Journal;

/// Names a QoS 1 message within a broker's session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The packet id, not 0.
    pub id: u16,
    /// Whether the broker says that it has sent this before.
    pub duplicate: bool,
}

/// Bytes of a remembered message in the journal.
const MESSAGE_BYTES: u64 = 7;
/// A barrier is sent when so many acknowledgements are out that none stands behind; or half a window, if that is less.
const BARRIER_EVERY: u64 = 256;
/// Memory for so many messages is kept when fewer are remembered.
const CAPACITY_KEPT: usize = 2_048;

/// How many messages can be remembered beside a journal of this size: they are written down again when their segment
/// goes, and must leave it room for readings.
pub const fn room(journal_bytes: u64) -> usize {
    const IDS: u64 = u16::MAX as u64;
    let carried = journal_bytes / 4 / MESSAGE_BYTES;
    (if journal_bytes == 0 || carried > IDS {
        IDS
    } else {
        carried
    }) as usize
}

/// A message as it is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    id: u16,
    hash: u32,
    segment: u32,
    /// Which acknowledgement of this connection is its; 0 if it came on an earlier one only.
    acknowledgement: u64,
}

/// The messages that may come again.
#[derive(Debug)]
pub struct Tail {
    /// In the order in which they came, with some that are not remembered any more.
    seen: VecDeque<Seen>,
    /// How many have left the front of `seen`.
    left: u64,
    /// For each packet id the message that it names, counted from the first ever.
    places: HashMap<u16, u64>,
    window: usize,
    room: usize,
    connection: Connection,
}

/// What happened on the connection to the broker.
#[derive(Clone, Copy, Default, Debug)]
struct Connection {
    /// Messages that came for the first time.
    new: usize,
    /// Messages that were taken, and so the acknowledgements that there will be.
    taken: u64,
    /// Acknowledgements sent.
    sent: u64,
    /// Acknowledgements that stand before the last barrier.
    barrier: u64,
    /// Acknowledgements that the broker is known to have.
    arrived: u64,
}

impl Tail {
    /// For a broker that sends at most about `window` new messages before it has repeated the old ones. At most `room`
    /// are remembered, the newest.
    pub fn new(window: usize, room: usize) -> Self {
        Self {
            seen: VecDeque::new(),
            left: 0,
            places: HashMap::new(),
            window: window.max(1),
            room: room.max(1),
            connection: Connection::default(),
        }
    }

    /// A hash of a message's content that is the same after a restart.
    pub fn hash(topic: &str, payload: &[u8]) -> u32 {
        catchment_common::wire::checksum(topic.as_bytes())
            ^ catchment_common::wire::checksum(payload).rotate_left(7)
    }

    /// Whether this message was taken before. If so, it must be acknowledged next.
    pub fn recognize(&mut self, packet: Packet, hash: u32) -> bool {
        if !packet.duplicate {
            return false;
        }
        let Some(place) = self.places.get(&packet.id) else {
            return false;
        };
        let next = self.connection.taken + 1;
        let seen = self.seen.get_mut((place - self.left) as usize);
        let Some(seen) = seen.filter(|seen| seen.hash == hash) else {
            return false;
        };
        seen.acknowledgement = next;
        true
    }

    /// A message was taken, stands in this segment of the journal, and must be acknowledged next.
    #[inline]
    pub fn push(&mut self, packet: Packet, hash: u32, segment: u32) {
        let acknowledgement = self.connection.taken + 1;
        self.remember(packet.id, hash, segment, acknowledgement);
        if !packet.duplicate {
            self.connection.new += 1;
            if self.connection.new == self.window {
                self.forget(|seen| seen.acknowledgement == 0);
            }
        }
    }

    #[inline]
    fn remember(&mut self, id: u16, hash: u32, segment: u32, acknowledgement: u64) {
        if self.seen.len() >= self.room {
            self.leave();
        }
        self.places.insert(id, self.left + self.seen.len() as u64);
        self.seen.push_back(Seen {
            id,
            hash,
            segment,
            acknowledgement,
        });
    }

    /// The oldest is remembered no more.
    fn leave(&mut self) {
        if let Some(oldest) = self.seen.pop_front() {
            if self.places.get(&oldest.id) == Some(&self.left) {
                self.places.remove(&oldest.id);
            }
            self.left += 1;
        }
    }

    fn forget(&mut self, is_over: impl Fn(&Seen) -> bool) {
        for (place, seen) in (self.left..).zip(&self.seen) {
            if is_over(seen) && self.places.get(&seen.id) == Some(&place) {
                self.places.remove(&seen.id);
            }
        }
        while let Some(oldest) = self.seen.front()
            && self.places.get(&oldest.id) != Some(&self.left)
        {
            self.leave();
        }
        // A start remembers all that the journal still has.
        if self.seen.capacity() > CAPACITY_KEPT && self.seen.len() < CAPACITY_KEPT / 2 {
            self.seen.shrink_to(CAPACITY_KEPT);
            self.places.shrink_to(CAPACITY_KEPT);
        }
    }

    /// A message will be acknowledged, after all those before it.
    #[inline]
    pub fn will_acknowledge(&mut self) {
        self.connection.taken += 1;
    }

    /// An acknowledgement is sent.
    #[inline]
    pub fn handle_acknowledged(&mut self) {
        self.connection.sent += 1;
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
        let is_due = barrier == arrived && sent - barrier >= every;
        if is_due {
            self.connection.barrier = sent;
        }
        is_due
    }

    /// The broker has so many of this connection's acknowledgements: the first ones.
    pub fn handle_arrived(&mut self, acknowledgements: u64) {
        let arrived = acknowledgements.clamp(self.connection.arrived, self.connection.sent);
        self.connection.arrived = arrived;
        self.connection.barrier = self.connection.barrier.max(arrived);
        self.forget(|seen| (1..=arrived).contains(&seen.acknowledgement));
    }

    /// The connection to the broker is another one, or gone.
    pub fn handle_connection(&mut self) {
        self.connection = Connection::default();
        for seen in &mut self.seen {
            seen.acknowledgement = 0;
        }
    }

    /// The broker has a new session: packet ids start over.
    pub fn clear(&mut self) {
        self.left += self.seen.len() as u64;
        self.seen.clear();
        self.places.clear();
    }

    /// A message stands in this segment of a journal that is read back. One that was carried stands there twice, and
    /// the later place counts.
    pub fn restore(&mut self, id: u16, hash: u32, segment: u32) {
        self.remember(id, hash, segment, 0);
    }

    /// Segments before `needed` go: writes down again which of the messages there may still come again.
    pub fn carry(&mut self, needed: u32, journal: &mut Journal) {
        for (place, seen) in (self.left..).zip(&mut self.seen) {
            if seen.segment < needed && self.places.get(&seen.id) == Some(&place) {
                journal.message(seen.id, seen.hash);
                seen.segment = journal.segment();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 100;

    fn new(id: u16) -> Packet {
        Packet { id, duplicate: false }
    }

    fn again(id: u16) -> Packet {
        Packet { id, duplicate: true }
    }

    /// Takes and acknowledges messages with these ids.
    fn take(tail: &mut Tail, ids: impl IntoIterator<Item = u16>) {
        for id in ids {
            tail.push(new(id), u32::from(id), 1);
            tail.will_acknowledge();
            tail.handle_acknowledged();
        }
    }

    /// The broker sends this again; whether it is recognized.
    fn repeat(tail: &mut Tail, id: u16) -> bool {
        let known = tail.recognize(again(id), u32::from(id));
        if !known {
            tail.push(again(id), u32::from(id), 1);
        }
        tail.will_acknowledge();
        known
    }

    #[test]
    fn only_a_marked_message_with_equal_id_and_content_is_a_repetition() {
        let mut tail = Tail::new(2, ROOM);
        let hash = Tail::hash("a/b", b"21");
        tail.push(new(7), hash, 1);
        assert!(tail.recognize(again(7), hash));
        assert!(!tail.recognize(new(7), hash), "ids are used again");
        assert!(!tail.recognize(again(8), hash));
        assert!(!tail.recognize(again(7), Tail::hash("a/b", b"22")));
        assert_ne!(Tail::hash("a", b"b"), Tail::hash("b", b"a"));
    }

    #[test]
    fn what_the_broker_has_not_answered_for_is_remembered_however_much_it_is() {
        let mut tail = Tail::new(4, ROOM);
        take(&mut tail, 1..=90);
        assert!(tail.poll_barrier());
        take(&mut tail, 91..=95);
        assert!(!tail.poll_barrier(), "one at a time");
        tail.handle_connection();
        assert!((1..=95).all(|id| repeat(&mut tail, id)));
    }

    #[test]
    fn what_it_has_answered_for_is_forgotten() {
        let mut tail = Tail::new(4, ROOM);
        take(&mut tail, 1..=3);
        assert!(tail.poll_barrier());
        take(&mut tail, 4..=4);
        tail.handle_arrived(3);
        tail.handle_connection();
        let known: Vec<bool> = (1..=4).map(|id| repeat(&mut tail, id)).collect();
        assert_eq!(known, [false, false, false, true]);
    }

    #[test]
    fn repetitions_that_were_never_taken_push_out_none_that_were() {
        let mut tail = Tail::new(2, ROOM);
        take(&mut tail, 1..=3);
        for _ in 0..3 {
            tail.handle_connection();
            let known: Vec<bool> = (1..=9).map(|id| repeat(&mut tail, id)).collect();
            assert!(known[..3].iter().all(|known| *known), "{known:?}");
        }
    }

    #[test]
    fn old_ones_are_forgotten_when_a_window_of_new_ones_has_come() {
        let mut tail = Tail::new(3, ROOM);
        take(&mut tail, 1..=2);
        tail.handle_connection();
        assert!(repeat(&mut tail, 2));
        take(&mut tail, 3..=4);
        assert!(tail.places.contains_key(&1), "it may still come");
        take(&mut tail, 5..=5);
        assert!(!tail.places.contains_key(&1));
        assert!(
            tail.places.contains_key(&2),
            "its acknowledgement is not known to have arrived"
        );
    }

    #[test]
    fn an_id_that_is_used_again_names_the_new_message_alone() {
        let mut tail = Tail::new(20, ROOM);
        tail.push(new(7), 1, 1);
        tail.push(new(7), 2, 1);
        assert!(!tail.recognize(again(7), 1));
        assert!(tail.recognize(again(7), 2));
    }

    #[test]
    fn there_is_a_bound_and_a_new_session_clears_all() {
        let mut tail = Tail::new(2, 10);
        take(&mut tail, 1..=50);
        assert_eq!((tail.seen.len(), tail.places.len()), (10, 10));
        assert!(tail.recognize(again(50), 50) && !tail.recognize(again(40), 40));
        tail.clear();
        assert!(!tail.recognize(again(50), 50));
        take(&mut tail, 50..=50);
        assert!(tail.recognize(again(50), 50));
    }

    #[test]
    fn messages_outlive_their_segment() {
        let mut journal = Journal::new(1 << 20, [], 5, 1);
        let mut tail = Tail::new(3, ROOM);
        for (id, segment) in [(1, 2), (2, 4), (3, 5)] {
            tail.restore(id, 0, segment);
        }
        tail.carry(2, &mut journal);
        assert_eq!(journal.waiting(), 0, "nothing goes that is needed");
        tail.carry(3, &mut journal);
        assert!(journal.waiting() > 0);
        assert_eq!(tail.seen.iter().map(|seen| seen.segment).min(), Some(4));
        // A crash before the old segment is gone leaves both places.
        let mut back = Tail::new(3, ROOM);
        for (id, segment) in [(1, 2), (2, 4), (3, 5), (1, 5)] {
            back.restore(id, 0, segment);
        }
        assert!((1..=3).all(|id| back.recognize(again(id), 0)));
        assert_eq!(back.places.len(), 3);
    }
}
