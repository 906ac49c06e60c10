//! Where readings come from, and the seam to all of it.
//!
//! A source hands in *arrivals*: a subject, a payload, and a delivery that says how the source wants to be told that
//! the readings are safe. What the machine gives back is *settled*: durable here, and never to come again.
//!
//! ```text
//! source ── Arrival { subject, payload, delivery } ──▶ Agent ── Settled ──▶ source
//!        ── SourceEvent (connected, lost, answers) ──▶       ── SourceRequest ──▶
//! ```
//!
//! Each kind of source has a machine of its own that knows what was taken before: [`mqtt`] by the broker's packet ids.
//! [`dedupe`] knows it by the numbers that devices put into their payloads, whatever they come through.

pub mod dedupe;

pub mod mqtt;

use catchment_common::topic::filter::Filter;

use self::mqtt::subscriptions::Subscription;

/// A source, by its place in the agent's configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SourceId(pub u16);

impl SourceId {
    /// Its place.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// What the machine must know of a source before it says anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceSettings {
    /// Its name: what queries call it, and what its memory is kept under.
    pub name: String,
    /// What its session is with: a hash of broker and client id. What is remembered of another is of no use.
    pub session: u32,
    /// QoS 1 messages that a broker sends ahead of their acknowledgement, if it keeps to what it is told. How many are
    /// remembered in case they come again does not depend on it, but see [`mqtt::in_flight`].
    pub redelivery_window: usize,
}

/// Something that came from a source.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'m> {
    /// Which source.
    pub source: SourceId,
    /// What the payload is about: the topic that it was published on.
    pub subject: &'m str,
    /// What came.
    pub payload: Payload<'m>,
    /// How the source is told that it is settled.
    pub delivery: Delivery,
    /// The subscriptions that this copy came through, if the source names them.
    pub through: &'m [u32],
}

impl<'m> Arrival<'m> {
    /// A message that nobody waits for an answer to, and of which there are no copies.
    pub fn unacknowledged(source: SourceId, subject: &'m str, payload: &'m [u8]) -> Self {
        Self {
            source,
            subject,
            payload: Payload::Whole(payload),
            delivery: Delivery::Unacknowledged,
            through: &[],
        }
    }
}

/// What came with an arrival.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload<'m> {
    /// All of it.
    Whole(&'m [u8]),
    /// So many bytes, more than are looked at: they were thrown away.
    Oversized(usize),
}

impl Payload<'_> {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Oversized(length) => *length,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A hash of the content that is the same after a restart.
    pub(crate) fn hash(&self, subject: &str) -> u32 {
        match self {
            Self::Whole(bytes) => mqtt::in_flight::InFlight::hash(subject, bytes),
            Self::Oversized(length) => {
                mqtt::in_flight::InFlight::hash(subject, &(*length as u64).to_le_bytes())
            }
        }
    }
}

/// How an arrival wants to be settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// Not at all: whether it counts is a matter of luck (QoS 0).
    Unacknowledged,
    /// By the packet id of a broker's session, on the connection that it came on.
    Packet {
        /// The packet id, not 0.
        id: u16,
        /// Whether the broker says that it has sent this before.
        duplicate: bool,
    },
}

/// What the source is told: durable, and not wanted again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// The message with this packet id is to be acknowledged.
    Packet(u16),
}

/// What happened to a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceEvent {
    /// A connection is up.
    Connected {
        /// Whether the broker has kept the session that was there before.
        resumed: bool,
        /// Whether copies will name the subscriptions that they come through.
        identifies: bool,
    },
    /// The connection is gone, or could not be made.
    Lost,
    /// The broker has answered the SUBSCRIBE with this packet id.
    Subscribed {
        /// The packet id.
        packet: u16,
        /// Which of its filters were refused, by their place.
        refused: Vec<usize>,
    },
    /// The broker has answered the UNSUBSCRIBE with this packet id.
    Unsubscribed {
        /// The packet id.
        packet: u16,
    },
}

/// What a source is asked to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceRequest {
    /// To be subscribed to these.
    Subscribe {
        /// The packet id.
        packet: u16,
        /// The filters, with one identifier for all if it is not 0.
        subscriptions: Vec<Subscription>,
    },
    /// To be subscribed to these no more.
    Unsubscribe {
        /// The packet id.
        packet: u16,
        /// The filters.
        filters: Vec<Filter>,
    },
    /// To publish a message, at QoS 0.
    Publish {
        /// Where to.
        topic: String,
        /// What.
        payload: Vec<u8>,
    },
    /// To drop the connection and make it again, so that the broker repeats what was left to it.
    Reconnect,
}
