//! Copies of one message: a broker may send it once for each subscription that it comes through.
//!
//! Each subscription has an identifier, and each copy says which subscriptions it comes through. Who reads a topic
//! reads the copies of one subscription, the *provider*, and no other: so every message is read once, whether the broker
//! sends a copy for each subscription or one for all.
//!
//! A subscription that has just been asked for has no copy of what came before it, through filters of an earlier plan
//! or through others that overlap. Until its first copy comes such *strays* are read in its stead, and after it none
//! are: a session is a queue, so what comes behind a copy of a subscription came to the broker while that was there.
//! (Two queues, in fact: messages at QoS 0 overtake the others.) Only at the very border may a stray and a copy be of
//! one message, also when a change of plan falls between them. They come one after the other, with little in between,
//! and are told by what is in them.

use std::collections::VecDeque;

use catchment_common::time::{Instant, Span};

/// Brokers send the copies of a message one after the other, with messages of others in between if many publish at
/// once. So many that were read are compared with what comes, and for so long.
const READ_MAX: usize = 256;
const READ_SPAN: Span = Span::from_secs(60);

/// A subscription as those see it who read what comes through it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Provider {
    /// What copies call it; 0 where copies name nothing.
    pub(super) id: u32,
    /// Whether a copy has come through it at QoS 0, and at QoS 1.
    pub(super) seen: [bool; 2],
    /// Whether the broker has said on this connection, or before it, that it is there.
    pub(super) is_granted: bool,
}

/// A message that somebody has read.
#[derive(Clone, Debug)]
struct Read {
    hash: u32,
    reader: u32,
    /// What its copies came through; 0 for one that names nothing.
    through: Vec<u32>,
    /// A copy through the reader's provider may follow.
    has_copy: bool,
    at: Instant,
}

/// What tells copies apart.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// What was read of which a copy may still come.
    read: VecDeque<Read>,
    /// The readers that were asked about in this message, and whether they read it.
    asked: Vec<(u32, bool)>,
    /// Contents of messages that were taken before a crash, and since when the connection is up on which copies of them
    /// come.
    before: VecDeque<u32>,
    connected: Option<Instant>,
    /// The content of the last of them, until something else comes: the crash may have come between its copies.
    last: Option<u32>,
    /// The content of the last message, where copies name nothing.
    previous: Option<u32>,
}

impl Copies {
    /// The broker has a new session: no copy of before comes any more.
    pub(super) fn clear(&mut self) {
        self.read.clear();
        self.before.clear();
        self.last = None;
    }

    /// A connection is up, on which the copies come that the last one was too short for.
    pub(super) fn handle_connected(&mut self, at: Instant) {
        self.previous = None;
        self.connected = Some(at);
        self.read.iter_mut().for_each(|read| read.at = at);
    }

    /// A message was taken before the restart.
    pub(super) fn restore(&mut self, hash: u32) {
        self.restore_carried(hash);
        self.last = Some(hash);
    }

    /// The same, of a message that was not the last.
    pub(super) fn restore_carried(&mut self, hash: u32) {
        if self.before.len() >= READ_MAX {
            self.before.pop_front();
        }
        self.before.push_back(hash);
    }

    /// Whether the contents of messages matter: [`Copies::readers`] then wants a hash.
    #[inline]
    pub(super) fn compares(&self) -> bool {
        !self.read.is_empty()
    }

    /// Who reads a copy that names what it came through.
    #[inline]
    pub(super) fn readers<'c>(&'c mut self, providers: &'c [Provider], copy: Copy<'c>) -> Readers<'c> {
        let is_over = |read: &Read| copy.at.since(read.at) > READ_SPAN;
        while self.read.front().is_some_and(is_over) {
            self.read.pop_front();
        }
        self.asked.clear();
        if copy.is_acknowledged && !copy.was_taken {
            self.last = self.last.filter(|hash| *hash == copy.hash);
        }
        Readers::Through {
            copies: self,
            providers,
            copy,
        }
    }

    /// Who reads a copy that names nothing, while filters that overlap may be held. The next with equal content is a
    /// copy: for a moment, and of brokers that send copies at all.
    pub(super) fn nameless(&mut self, hash: u32) -> Readers<'_> {
        let is_copy = self.previous == Some(hash);
        self.previous = (!is_copy).then_some(hash);
        if is_copy { Readers::Nobody } else { Readers::All }
    }

    fn is_read(&mut self, providers: &[Provider], copy: Copy<'_>, reader: u32, place: u32) -> bool {
        let Some(provider) = providers.get(place as usize) else {
            return false;
        };
        let is_alike = |read: &Read| (read.hash, read.reader) == (copy.hash, reader);
        if copy.through.contains(&provider.id) {
            let place = self.read.iter().rposition(|read| read.has_copy && is_alike(read));
            let is_known = place.and_then(|place| self.read.remove(place)).is_some();
            let is_soon = self.connected.is_none_or(|at| copy.at.since(at) <= READ_SPAN);
            let was_taken = copy.is_first && is_soon && self.before.contains(&copy.hash);
            let is_read = !is_known && !was_taken;
            if is_read && copy.is_crossing {
                self.note(copy, reader, false);
            }
            return is_read;
        }
        if provider.seen[copy.queue()] {
            return false;
        }
        // Several strays of one message come through different subscriptions.
        let names = copy.names();
        let is_new = |read: &Read| !names.iter().any(|id| read.through.contains(id));
        let known = self.read.iter_mut().rfind(|read| is_alike(read) && is_new(read));
        if let Some(read) = known {
            read.through.extend(names);
            return false;
        }
        if copy.is_repeated && self.last == Some(copy.hash) && !self.read.iter().any(is_alike) {
            self.note(copy, reader, false);
            return false;
        }
        // The copy through the provider that may follow one of before is its first: that is looked for in `before`.
        self.note(copy, reader, provider.is_granted && !copy.was_taken);
        true
    }

    fn note(&mut self, copy: Copy<'_>, reader: u32, has_copy: bool) {
        if self.read.len() >= READ_MAX {
            self.read.pop_front();
        }
        self.read.push_back(Read {
            hash: copy.hash,
            reader,
            through: copy.names().into(),
            has_copy,
            at: copy.at,
        });
    }
}

/// What is known of a copy.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "five things that may each be so")]
pub struct Copy<'c> {
    /// The subscriptions that it came through.
    pub(crate) through: &'c [u32],
    /// Whether it came at QoS 1.
    pub(crate) is_acknowledged: bool,
    /// A hash of its content.
    pub(crate) hash: u32,
    /// When it came.
    pub(crate) at: Instant,
    /// Whether it is the first through a subscription.
    pub(crate) is_first: bool,
    /// Whether there are subscriptions that overlap.
    pub(crate) is_crossing: bool,
    /// Whether the broker has sent it before.
    pub(crate) is_repeated: bool,
    /// Whether it was taken before this process began, and nobody reads it now.
    pub(crate) was_taken: bool,
}

impl Copy<'_> {
    /// What it came through; 0 if it names nothing.
    fn names(&self) -> &[u32] {
        if self.through.is_empty() {
            &[0]
        } else {
            self.through
        }
    }

    /// Which of the session's two queues it stood in.
    pub(super) fn queue(&self) -> usize {
        self.is_acknowledged.into()
    }
}

/// Who of those that read its topic reads a copy.
#[derive(Debug)]
pub enum Readers<'c> {
    /// All of them: there is one copy of each message.
    All,
    /// None of them: it is a copy of what was read.
    Nobody,
    /// Those whose provider says so.
    Through {
        /// What was read before.
        #[allow(private_interfaces, reason = "only what is asked is seen outside")]
        copies: &'c mut Copies,
        /// The subscriptions.
        #[allow(private_interfaces, reason = "only what is asked is seen outside")]
        providers: &'c [Provider],
        /// What is known of the copy.
        copy: Copy<'c>,
    },
}

impl Readers<'_> {
    /// Whether `reader`, who reads what comes through the subscription at `place`, reads this copy.
    #[inline]
    pub fn include(&mut self, reader: u32, place: u32) -> bool {
        match self {
            Self::All => true,
            Self::Nobody => false,
            Self::Through {
                copies,
                providers,
                copy,
            } => {
                let known = copies.asked.iter().find(|(asked, _)| *asked == reader);
                if let Some((_, is_read)) = known {
                    return *is_read;
                }
                let is_read = copies.is_read(providers, *copy, reader, place);
                copies.asked.push((reader, is_read));
                is_read
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The subscription that the plan wants, beside 1 of an earlier plan.
    const WANTED: u32 = 2;
    const READER: u32 = 9;

    struct Reader {
        copies: Copies,
        providers: [Provider; 1],
        now: Instant,
    }

    impl Reader {
        fn new() -> Self {
            Self {
                copies: Copies::default(),
                providers: [Provider {
                    id: WANTED,
                    seen: [false; 2],
                    is_granted: true,
                }],
                now: Instant::from_micros(0),
            }
        }

        /// Whether a copy with this content that came through these subscriptions is read.
        fn read(&mut self, hash: u32, through: &[u32]) -> bool {
            let is_its = through.contains(&WANTED);
            let copy = Copy {
                through,
                is_acknowledged: true,
                hash,
                at: self.now,
                is_first: is_its && !self.providers[0].seen[1],
                is_crossing: false,
                is_repeated: false,
                was_taken: false,
            };
            let mut readers = self.copies.readers(&self.providers, copy);
            let is_read = readers.include(READER, 0);
            assert_eq!(
                readers.include(READER, 0),
                is_read,
                "all with one filter read the same"
            );
            self.providers[0].seen[1] |= is_its;
            is_read
        }
    }

    fn check(copies: &[(u32, &[u32])], expected: &[bool]) {
        let mut reader = Reader::new();
        let read: Vec<bool> = copies
            .iter()
            .map(|(hash, through)| reader.read(*hash, through))
            .collect();
        assert_eq!(read, expected, "{copies:?}");
    }

    #[test]
    fn a_message_is_read_once_whatever_it_comes_through() {
        check(&[(7, &[2])], &[true]);
        check(&[(7, &[1, 2])], &[true]);
        check(&[(7, &[1])], &[true]);
        check(&[(7, &[])], &[true]);
        check(&[(7, &[1]), (7, &[2])], &[true, false]);
        check(&[(7, &[2]), (7, &[1])], &[true, false]);
        check(
            &[(7, &[1]), (8, &[1]), (7, &[2]), (8, &[2])],
            &[true, true, false, false],
        );
    }

    #[test]
    fn strays_of_one_message_are_told_from_equal_messages() {
        check(&[(7, &[1]), (7, &[3]), (7, &[2])], &[true, false, false]);
        check(
            &[(7, &[1]), (7, &[1]), (7, &[3]), (7, &[3])],
            &[true, true, false, false],
        );
    }

    #[test]
    fn behind_the_first_copy_of_a_subscription_no_stray_is_read() {
        check(
            &[(7, &[1]), (8, &[1]), (9, &[2]), (9, &[1]), (7, &[1]), (7, &[2])],
            &[true, true, true, false, false, false],
        );
    }

    #[test]
    fn messages_at_quality_0_overtake_the_others() {
        let mut reader = Reader::new();
        reader.providers[0].seen[0] = true;
        assert!(reader.read(7, &[1]), "it waited in the other queue");
    }

    #[test]
    fn a_stray_stands_for_its_own_message_alone() {
        let mut reader = Reader::new();
        assert!(reader.read(7, &[1]));
        reader.now = Instant::from_micros(61_000_000);
        assert!(
            reader.read(7, &[2]),
            "the next message of a device that repeats itself"
        );
        let mut reader = Reader::new();
        reader.providers[0].is_granted = false;
        assert!(
            reader.read(7, &[1]) && reader.read(7, &[2]),
            "it came before the subscription"
        );
    }

    #[test]
    fn a_copy_of_what_was_taken_before_a_crash_is_not_read() {
        let mut reader = Reader::new();
        reader.copies.restore(7);
        assert!(!reader.read(7, &[2]), "a stray of it was");
        assert!(reader.read(7, &[2]));
    }

    /// The first message of a new session was dropped if its content was that of one before the crash.
    #[test]
    fn a_new_session_has_no_copies_of_what_was_taken_before_a_crash() {
        let mut reader = Reader::new();
        reader.copies.restore(7);
        reader.copies.clear();
        assert!(reader.read(7, &[2]), "a device that repeats itself");
        let mut reader = Reader::new();
        reader.copies.restore(7);
        reader.copies.handle_connected(reader.now);
        reader.now = Instant::from_micros(61_000_000);
        assert!(reader.read(7, &[2]), "nor has one that has stood for a while");
    }

    /// Subscriptions 2 and 3 cross; then the plan changes to 4, and 2 and 3 are strays.
    #[test]
    fn a_change_of_plan_between_two_copies_counts_none_twice() {
        let provider = |id, is_seen| Provider {
            id,
            seen: [is_seen; 2],
            is_granted: true,
        };
        let mut copies = Copies::default();
        let mut read = |providers: &[Provider], through: &[u32], place| {
            let copy = Copy {
                through,
                is_acknowledged: true,
                hash: 7,
                at: Instant::from_micros(0),
                is_first: false,
                is_crossing: true,
                is_repeated: false,
                was_taken: false,
            };
            copies.readers(providers, copy).include(READER, place)
        };
        let before = [provider(2, true), provider(3, true)];
        assert!(read(&before, &[2], 0));
        let after = [provider(4, false)];
        assert!(!read(&after, &[3], 0), "it was read under the plan before");
        assert!(read(&after, &[3], 0), "the next message with equal content");
    }

    #[test]
    fn where_copies_have_no_names_an_equal_neighbour_is_one() {
        let mut copies = Copies::default();
        let mut read = |hash| copies.nameless(hash).include(READER, 0);
        assert_eq!([7, 7, 7, 8, 7].map(&mut read), [true, false, true, true, true]);
    }
}
