//! Messages that the broker may send a second time, so that they count once.
//!
//! A QoS 1 message whose PUBACK did not reach the broker comes again, with the DUP flag and the same packet id. We
//! acknowledge in the order of arrival, and a broker sends at most a window of messages ahead of their
//! acknowledgements; so of all messages only the last ones can come again: a window, or some, because not every broker
//! keeps to it. They are remembered here by packet id and a hash of their content. A message without DUP is always new,
//! because packet ids are used again and again.

use std::collections::VecDeque;

use crate::journal::Journal;

/// Names a QoS 1 message within a broker's session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The packet id, not 0.
    pub id: u16,
    /// Whether the broker says that it has sent this before.
    pub duplicate: bool,
}

/// A message as it is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    id: u16,
    hash: u32,
    segment: u32,
}

/// The last window of messages.
#[derive(Debug)]
pub struct Tail {
    seen: VecDeque<Seen>,
    window: usize,
}

impl Tail {
    /// Remembers the last `window` messages.
    pub fn new(window: usize) -> Self {
        Self {
            seen: VecDeque::with_capacity(window),
            window: window.max(1),
        }
    }

    /// A hash of a message's content that is the same after a restart.
    pub fn hash(topic: &str, payload: &[u8]) -> u32 {
        catchment_common::wire::checksum(topic.as_bytes())
            ^ catchment_common::wire::checksum(payload).rotate_left(7)
    }

    /// Whether this message was taken before.
    pub fn has(&self, packet: Packet, hash: u32) -> bool {
        packet.duplicate
            && self
                .seen
                .iter()
                .any(|seen| seen.id == packet.id && seen.hash == hash)
    }

    /// A message was taken and stands in this segment of the journal.
    #[inline]
    pub fn push(&mut self, id: u16, hash: u32, segment: u32) {
        if self.seen.len() >= self.window {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen { id, hash, segment });
    }

    /// The broker has a new session: packet ids start over.
    pub fn clear(&mut self) {
        self.seen.clear();
    }

    /// A message stands in this segment of a journal that is read back. One that was carried stands there twice, and the
    /// later place counts.
    pub fn restore(&mut self, id: u16, hash: u32, segment: u32) {
        self.seen.retain(|seen| (seen.id, seen.hash) != (id, hash));
        self.push(id, hash, segment);
    }

    /// Segments before `needed` go: if messages stand there, writes all of them down again, in their order. They are
    /// few, and however old one is the broker may still send it again.
    pub fn carry(&mut self, needed: u32, journal: &mut Journal) {
        if self.seen.front().is_none_or(|oldest| oldest.segment >= needed) {
            return;
        }
        for seen in &mut self.seen {
            journal.message(seen.id, seen.hash);
            seen.segment = journal.segment();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_marked_message_with_equal_id_and_content_is_a_repetition() {
        let mut tail = Tail::new(2);
        let hash = Tail::hash("a/b", b"21");
        tail.push(7, hash, 1);
        let packet = |id, duplicate| Packet { id, duplicate };
        assert!(tail.has(packet(7, true), hash));
        assert!(!tail.has(packet(7, false), hash), "ids are used again");
        assert!(!tail.has(packet(8, true), hash));
        assert!(!tail.has(packet(7, true), Tail::hash("a/b", b"22")));
        assert_ne!(Tail::hash("a", b"b"), Tail::hash("b", b"a"));
    }

    #[test]
    fn the_window_slides_and_a_new_session_clears_it() {
        let mut tail = Tail::new(2);
        for id in 1..=3 {
            tail.push(id, 0, u32::from(id));
        }
        let packet = |id| Packet { id, duplicate: true };
        assert!(!tail.has(packet(1), 0));
        assert!(tail.has(packet(2), 0));
        tail.clear();
        assert!(!tail.has(packet(3), 0));
    }

    #[test]
    fn messages_outlive_their_segment() {
        let mut journal = Journal::new(1 << 20, 5, 5, 1);
        let mut tail = Tail::new(3);
        for (id, segment) in [(1, 2), (2, 4), (3, 5)] {
            tail.push(id, 0, segment);
        }
        tail.carry(2, &mut journal);
        assert_eq!(journal.waiting(), 0, "nothing goes that is needed");
        tail.carry(3, &mut journal);
        assert!(journal.waiting() > 0);
        // A crash before the old segments are gone leaves both places.
        let mut again = Tail::new(3);
        for (id, segment) in [(1, 2), (2, 4), (3, 5), (1, 5), (2, 5), (3, 5)] {
            again.restore(id, 0, segment);
        }
        assert_eq!(again.seen, tail.seen);
    }
}
