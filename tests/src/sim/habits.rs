//! What brokers do that better ones would not.
//!
//! Each habit is one of a real broker: Mosquitto sends a copy for each subscription, keeps the filters of a session for
//! ever, handles acknowledgements long after they came, sends far more ahead than it is told, and uses packet ids of
//! messages that are under way.

use catchment_firmware_sim::dice::Dice;

/// What a broker does that a better one would not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Habits {
    /// Subscriptions are asked for over the wire. Else the session holds what the gateway wants, always.
    pub subscribes: bool,
    /// How often a message comes that several subscriptions match.
    pub copies: Copies,
    /// Copies name the subscriptions that they come through.
    pub identifies: bool,
    /// For each acknowledgement a window of messages is sent, whatever is under way.
    pub is_eager: bool,
    /// Packet ids come round after so many, and are used although they are under way; 0 for a broker that does not.
    pub ids: u16,
    /// What comes from the gateway is handled so much later, in microseconds, at most.
    pub lag_us: u32,
    /// Most messages that wait; what has no room is dropped.
    pub queue_max: usize,
}

/// How often a message comes that several subscriptions match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copies {
    /// Once.
    Once,
    /// Once for each, the widest filter last.
    Each,
    /// Once for each, the widest filter first.
    EachBackwards,
}

impl Habits {
    /// A broker that is kind to its clients.
    pub const KIND: Self = Self {
        subscribes: false,
        copies: Copies::Once,
        identifies: false,
        is_eager: false,
        ids: 0,
        lag_us: 2_000,
        queue_max: usize::MAX,
    };
}

/// Seeds from here on have brokers with habits, and topics that overlap: up to `KIND_FROM`, and from `CLOCK_FROM` on
/// one in two.
pub const BROKERS_FROM: u64 = 40_000;
/// Seeds from here on are of the time before brokers had habits.
const KIND_FROM: u64 = 100_000;
/// The seeds that sweeps begin with are drawn from the clock, in milliseconds. Those of before keep their meaning.
const CLOCK_FROM: u64 = 1_795_850_000_000;

/// Of the seeds before `KIND_FROM`, those from here to `SOURCES_END` have two brokers for each gateway.
pub const SOURCES_FROM: u64 = 60_000;
const SOURCES_END: u64 = 70_000;

/// How many brokers a seed's gateways read from.
pub fn sources(seed: u64) -> usize {
    let has_two =
        (SOURCES_FROM..SOURCES_END).contains(&seed) || (seed >= CLOCK_FROM && seed.is_multiple_of(3));
    1 + usize::from(has_two)
}

/// Whether a seed's brokers have habits.
pub(super) fn are_drawn(seed: u64) -> bool {
    (BROKERS_FROM..KIND_FROM).contains(&seed) || (seed >= CLOCK_FROM && seed % 2 == 1)
}

impl Habits {
    /// Brokers are what they are.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let copies = [Copies::Once, Copies::Each, Copies::EachBackwards][dice.below(3) as usize];
        Self {
            subscribes: true,
            copies,
            // Copies without names are sent by few brokers; those that do send one for each subscription.
            identifies: dice.below(3) > 0,
            is_eager: dice.below(3) == 0,
            ids: [0, 0, 3, 50][dice.below(4) as usize],
            lag_us: [2_000, 50_000, 3_000_000][dice.below(3) as usize],
            queue_max: usize::MAX,
        }
    }

    /// Whether copies come that nothing tells apart: in the moment in which a plan changes, and in a session with filters
    /// that nobody remembers.
    pub(super) fn are_nameless(&self) -> bool {
        !self.identifies && self.copies != Copies::Once
    }
}
