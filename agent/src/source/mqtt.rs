//! One session with an MQTT broker: what was taken, what is subscribed to, and what is still to be asked for.
//!
//! A broker is trusted with nothing but its protocol. It may send one copy for each subscription or one for all
//! ([`copies`]), keep filters of an earlier plan ([`subscriptions`]), send far more ahead than it was told, and use
//! packet ids of messages that are under way ([`in_flight`]). What must hold of it is that it handles what comes on a
//! connection in its order, and repeats old messages before new ones.
//!
//! What cannot be taken now is left to the broker, unacknowledged, and with it all that follows on the connection: the
//! order of arrival is kept. When there is room, a new connection is asked for, on which the broker repeats it.

pub mod copies;

pub mod in_flight;

pub mod packets;

pub mod subscriptions;

use std::collections::VecDeque;

use catchment_common::time::{Now, Timestamp};
use catchment_common::topic::filter::Filter;
use catchment_common::wire::SourceState;

use self::copies::{Copies, Copy, Readers};
use self::in_flight::{InFlight, Known, Packet};
use self::subscriptions::{Change, Subscriptions};
use super::{SourceEvent, SourceId, SourceRequest, SourceSettings};
use crate::decode::Command;
use crate::log::journal::Journal;
use crate::log::journal::sources::Kept;

/// The machine of one broker's session.
#[derive(Debug)]
pub struct Session {
    source: SourceId,
    /// Its name, and what it is with: a hash of broker and client id.
    name: String,
    identity: u32,
    in_flight: InFlight,
    /// Packets to acknowledge on this connection, each once so many messages are durable.
    packets: VecDeque<(u64, u16)>,
    subscriptions: Subscriptions,
    copies: Copies,
    /// Messages were left to the broker on this connection.
    has_left: bool,
    /// It was asked to be made anew for them.
    is_over: bool,
    /// Requests without an answer, in their order.
    asked: VecDeque<Asked>,
    last_packet: u16,
    commands: VecDeque<Command>,
    state: State,
    /// Since when what is wanted comes, or does not.
    since: Timestamp,
    /// Filters that the broker refused on this connection.
    refused: Vec<Filter>,
}

/// Where the connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Away,
    Connected,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Asked {
    packet: u16,
    /// Acknowledgements that went out before.
    acknowledged: u64,
    what: Change,
}

/// No plan has this filter, and no broker asks for a permission to unsubscribe.
const BARRIER_FILTER: &str = "catchment/acknowledged";
/// Most messages of the agent's own that wait for a connection.
const COMMANDS_MAX: usize = 1_024;

impl Session {
    /// A session of which nothing is known, with a number drawn at random. See [`InFlight::new`] for `room`.
    pub fn new(source: SourceId, settings: &SourceSettings, room: usize, random: u64) -> Self {
        Self {
            source,
            name: settings.name.clone(),
            identity: settings.session,
            in_flight: InFlight::new(settings.redelivery_window, room),
            packets: VecDeque::new(),
            subscriptions: Subscriptions::new(random),
            copies: Copies::default(),
            has_left: false,
            is_over: false,
            asked: VecDeque::new(),
            last_packet: 0,
            commands: VecDeque::new(),
            state: State::Away,
            since: Timestamp::MIN,
            refused: Vec::new(),
        }
    }

    /// The agent starts.
    pub(crate) fn begin(&mut self, now: Now) {
        self.since = now.wall;
    }

    // What happened.

    /// Something happened to the connection; returns whether what the session may hold has changed.
    pub(crate) fn handle_event(&mut self, now: Now, event: SourceEvent, journal: &mut Journal) -> bool {
        let was_live = self.is_live();
        let has_changed = self.take_event(now, event, journal);
        if self.is_live() != was_live {
            self.since = now.wall;
        }
        has_changed
    }

    fn take_event(&mut self, now: Now, event: SourceEvent, journal: &mut Journal) -> bool {
        match event {
            SourceEvent::Connected { resumed, identifies } => {
                self.begin_connection();
                self.state = State::Connected;
                self.copies.handle_connected(now.monotonic);
                if !resumed {
                    self.in_flight.clear();
                    self.copies.clear();
                    journal.session(self.source);
                }
                self.subscriptions.handle_connected(resumed, identifies)
            }
            SourceEvent::Lost => {
                self.begin_connection();
                self.state = State::Away;
                self.subscriptions.handle_lost();
                false
            }
            SourceEvent::Subscribed { packet, refused } => {
                if let Some(Change::Subscribe(asked)) = self.take_answered(packet, journal) {
                    self.subscriptions.handle_subscribed(&asked);
                    let refused = refused.into_iter().filter_map(|place| asked.get(place));
                    self.refused.extend(refused.map(|asked| asked.filter.clone()));
                }
                false
            }
            SourceEvent::Unsubscribed { packet } => match self.take_answered(packet, journal) {
                Some(Change::Unsubscribe(filters)) => self.subscriptions.handle_unsubscribed(&filters),
                _ => false,
            },
        }
    }

    fn begin_connection(&mut self) {
        self.packets.clear();
        self.in_flight.handle_connection();
        self.asked.clear();
        self.refused.clear();
        self.has_left = false;
        self.is_over = false;
    }

    /// What was asked with this packet id. All that went out before has arrived, acknowledgements too.
    fn take_answered(&mut self, packet: u16, journal: &mut Journal) -> Option<Change> {
        let place = self.asked.iter().position(|asked| asked.packet == packet)?;
        let asked = self.asked.remove(place)?;
        if matches!(asked.what, Change::Unsubscribe(_)) {
            let settled = self.in_flight.handle_arrived(asked.acknowledged);
            if let Some(number) = settled {
                journal.settled(self.source, number);
            }
        }
        Some(asked.what)
    }

    /// What a plan wants to read; none without a plan. Returns whether what the session may hold has changed.
    pub(crate) fn want(&mut self, filters: Option<Vec<Filter>>) -> bool {
        self.subscriptions.want(filters)
    }

    /// A message of the agent's own is to be published.
    pub(crate) fn push_command(&mut self, command: Command) {
        if self.commands.len() < COMMANDS_MAX {
            self.commands.push_back(command);
        }
    }

    // Messages.

    /// A message has come; says whether it was taken before.
    pub(crate) fn handle_message(&mut self, packet: Packet, hash: u32) -> Known {
        self.in_flight.handle_message(packet, hash)
    }

    /// Whether one more message can be taken on this connection.
    pub(crate) fn has_room(&self) -> bool {
        !self.has_left && self.in_flight.has_room()
    }

    /// A message is left to the broker.
    pub(crate) fn leave(&mut self) {
        self.has_left = true;
    }

    /// A message is taken as the `number`th of all.
    pub(crate) fn take(&mut self, packet: Packet, hash: u32, number: u64, journal: &mut Journal) {
        self.in_flight.push(packet, hash, journal.segment());
        journal.message(self.source, packet.id, hash);
        self.packets.push_back((number, packet.id));
    }

    /// A message that was taken before must be acknowledged again.
    pub(crate) fn take_again(&mut self, packet: Packet, number: u64) {
        self.packets.push_back((number, packet.id));
    }

    /// A message is done with and need not be known again.
    pub(crate) fn drop_message(&mut self, packet: Packet, number: u64) {
        self.in_flight.push_nothing();
        self.packets.push_back((number, packet.id));
    }

    /// Whether copies may have to be told apart by what is in them: [`Session::readers`] then wants a hash of it.
    #[inline]
    pub(crate) fn compares(&self, is_acknowledged: bool) -> bool {
        if self.subscriptions.identifies() {
            let has_new = self.subscriptions.has_new(is_acknowledged.into());
            has_new || self.copies.compares() || self.subscriptions.may_overlap()
        } else {
            self.subscriptions.has_stale()
        }
    }

    /// A copy comes; returns whether it is the first through a subscription, which the journal must know.
    #[inline]
    pub(crate) fn handle_copy(&mut self, through: &[u32], is_acknowledged: bool) -> bool {
        self.subscriptions.handle_copy(through, is_acknowledged.into())
    }

    /// Who reads a copy, of which a hash is wanted if copies are compared.
    #[inline]
    pub(crate) fn readers<'c>(&'c mut self, copy: Copy<'c>) -> Readers<'c> {
        if self.subscriptions.identifies() {
            let is_crossing = self.subscriptions.may_overlap();
            let copy = Copy { is_crossing, ..copy };
            self.copies.readers(self.subscriptions.providers(), copy)
        } else if self.subscriptions.has_stale() {
            self.copies.nameless(copy.hash)
        } else {
            Readers::All
        }
    }

    /// The place of the subscription that brings what `filter` asks for.
    pub(crate) fn provider(&self, filter: &Filter) -> Option<u32> {
        self.subscriptions.provider(filter)
    }

    // What it wants.

    /// The next packet to acknowledge to the broker, in the order of arrival: its message is durable.
    pub(crate) fn poll_settled(&mut self, durable: u64) -> Option<u16> {
        let (_, id) = self.packets.pop_front_if(|(number, _)| *number <= durable)?;
        self.in_flight.handle_acknowledged();
        Some(id)
    }

    /// The next request. `may_subscribe` says that what the session may hold is durable here. `has_room` says that
    /// messages can be taken.
    pub(crate) fn poll_request(&mut self, may_subscribe: bool, has_room: bool) -> Option<SourceRequest> {
        if self.state == State::Away {
            return None;
        }
        if may_subscribe && let Some(change) = self.subscriptions.poll_change() {
            return Some(self.ask(change));
        }
        if self.in_flight.poll_barrier() {
            let barrier = Filter::parse(BARRIER_FILTER)?;
            return Some(self.ask(Change::Unsubscribe(vec![barrier])));
        }
        if let Some(Command { topic, payload }) = self.commands.pop_front() {
            return Some(SourceRequest::Publish { topic, payload });
        }
        if self.has_left && !self.is_over && has_room && self.in_flight.has_room_for_left() {
            self.is_over = true;
            return Some(SourceRequest::Reconnect);
        }
        None
    }

    fn ask(&mut self, what: Change) -> SourceRequest {
        let packet = self.free_packet();
        let request = match &what {
            Change::Subscribe(subscriptions) => SourceRequest::Subscribe {
                packet,
                subscriptions: subscriptions.clone(),
            },
            Change::Unsubscribe(filters) => SourceRequest::Unsubscribe {
                packet,
                filters: filters.clone(),
            },
        };
        self.asked.push_back(Asked {
            packet,
            acknowledged: self.in_flight.acknowledged(),
            what,
        });
        request
    }

    /// The next packet id that no request waits under. There are far fewer requests than ids.
    fn free_packet(&mut self) -> u16 {
        loop {
            self.last_packet = self.last_packet % u16::MAX + 1;
            if self.asked.iter().all(|asked| asked.packet != self.last_packet) {
                return self.last_packet;
            }
        }
    }

    // How it is.

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a plan reads anything that comes through it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.subscriptions.is_wanted()
    }

    /// Whether there is anything to be connected for.
    pub fn wants_connection(&self) -> bool {
        self.subscriptions.wants_connection()
    }

    /// Whether what is wanted comes: the broker is there and has granted every subscription.
    pub fn is_live(&self) -> bool {
        let asks = |asked: &Asked| matches!(asked.what, Change::Subscribe(_));
        self.state == State::Connected
            && self.subscriptions.has_asked()
            && self.refused.is_empty()
            && !self.asked.iter().any(asks)
    }

    /// How it is, for the aggregator.
    pub(crate) fn told(&self) -> SourceState {
        SourceState {
            name: self.name.clone(),
            is_connected: self.is_live(),
            since: self.since,
        }
    }

    /// What the journal keeps of it.
    pub(crate) fn kept(&self) -> Kept {
        Kept {
            name: self.name.clone(),
            session: self.identity,
            next: self.in_flight.next(),
            is_known: self.subscriptions.is_known(),
            held: self.subscriptions.held().to_vec(),
        }
    }

    /// See [`InFlight::carry`].
    pub(crate) fn carry(&mut self, needed: u32, journal: &mut Journal) {
        self.in_flight.carry(self.source, needed, journal);
    }

    // What a journal says.

    /// Whether this is the session that a journal keeps something of, under whatever name; what it keeps of another one
    /// is of no use.
    pub(crate) fn is(&self, kept: &Kept) -> bool {
        self.identity == kept.session
    }

    pub(crate) fn restore(&mut self, kept: Kept) {
        self.in_flight.restore_next(kept.next);
        self.subscriptions.restore(kept.held, kept.is_known);
    }

    pub(crate) fn restore_message(&mut self, id: u16, hash: u32, segment: u32) {
        self.in_flight.restore(id, hash, segment);
        self.copies.restore(hash);
    }

    pub(crate) fn restore_carried(&mut self, number: u32, id: u16, hash: u32, segment: u32) {
        self.in_flight.restore_carried(number, id, hash, segment);
        self.copies.restore_carried(hash);
    }

    pub(crate) fn restore_settled(&mut self, number: u32) {
        self.in_flight.restore_settled(number);
    }

    pub(crate) fn restore_session(&mut self) {
        self.in_flight.clear();
    }
}
