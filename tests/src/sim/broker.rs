//! A broker as one gateway sees it, with the habits of real ones.
//!
//! It keeps the session and its subscriptions, sends a window of messages ahead of their acknowledgement, and after a
//! lost connection sends again, in order and marked, what was not acknowledged. [`Habits`] are what it need not do well:
//! its window need not be the one that it was told, it may send a copy for each subscription, handle acknowledgements
//! long after they came, use packet ids of messages that are under way, and drop what its queue has no room for.

use std::collections::VecDeque;

use catchment_agent::source::SourceRequest;
use catchment_common::topic::filter::{Filter, disjoint, widest};
use catchment_common::wire::checksum;
use catchment_firmware_sim::dice::Dice;

use super::habits::{Copies, Habits};

/// What a broker has for a gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromBroker {
    /// A connection is up, with the session that was there before or a new one.
    Connected {
        /// Names the connection.
        connection: u32,
        /// Whether the session was there before.
        resumed: bool,
    },
    /// A message.
    Message {
        /// Its packet id.
        id: u16,
        /// Whether it was sent before.
        duplicate: bool,
        /// What it is.
        copy: Copy,
    },
    /// It subscribes the session to what was asked for with this packet id.
    Subscribed(u16),
    /// It has taken back what was asked for with this packet id.
    Unsubscribed(u16),
    /// The connection is gone.
    Lost,
}

/// One copy of a message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Copy {
    /// Which of the case's publishes.
    pub publish: usize,
    /// Which of its copies.
    pub number: usize,
    /// The identifiers of the subscriptions that it comes through.
    pub through: Vec<u32>,
}

/// What a gateway sends to its broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToBroker {
    /// The message with this packet id was taken.
    Acknowledgement(u16),
    /// A SUBSCRIBE or UNSUBSCRIBE, to be answered.
    Request(SourceRequest),
}

/// The broker's side of one gateway's session.
#[derive(Clone, Debug)]
pub struct Broker {
    /// What it does that a better one would not.
    pub habits: Habits,
    /// The most messages that are sent ahead of their acknowledgement.
    window: usize,
    /// Accepted from publishers and not sent yet.
    queue: VecDeque<Copy>,
    in_flight: VecDeque<(u16, Copy)>,
    last_id: u16,
    /// There is a session.
    has_session: bool,
    /// The connection that is up.
    connection: Option<u32>,
    connections: u32,
    /// On the wire to the gateway.
    pub down: VecDeque<FromBroker>,
    /// On the wire to the broker, with the connections.
    pub up: VecDeque<(u32, ToBroker)>,
    /// What the session is subscribed to, with identifiers.
    filters: Vec<(Filter, u32)>,
    /// Until then nobody can connect.
    pub closed_until: u64,
}

impl Broker {
    /// A broker without a connection.
    pub fn new(window: usize, habits: Habits) -> Self {
        Self {
            habits,
            window,
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            last_id: 0,
            has_session: false,
            connection: None,
            connections: 0,
            down: VecDeque::new(),
            up: VecDeque::new(),
            filters: Vec::new(),
            closed_until: 0,
        }
    }

    /// The session is subscribed to these and to nothing else.
    pub fn set_filters(&mut self, filters: Vec<Filter>) {
        self.filters = filters.into_iter().map(|filter| (filter, 0)).collect();
    }

    /// Whether the session is subscribed to all that a filter asks for.
    pub fn has(&self, filter: &Filter) -> bool {
        self.filters.iter().any(|(held, _)| held.covers(filter))
    }

    /// There is a session from before, with these filters.
    pub fn remember(&mut self, filters: Vec<Filter>) {
        self.has_session = true;
        let identifies = self.habits.identifies;
        let id = |filter: &Filter| checksum(filter.as_str().as_bytes()) % 268_435_455 + 1;
        let filters = if identifies {
            widest(filters)
        } else {
            disjoint(filters)
        };
        self.filters = filters
            .into_iter()
            .map(|filter| {
                let id = if identifies { id(&filter) } else { 0 };
                (filter, id)
            })
            .collect();
    }

    /// Takes a message from a publisher; returns whether it will be sent to the gateway.
    pub fn accept(&mut self, topic: &str, publish: usize) -> bool {
        let matching = self.filters.iter().filter(|(filter, _)| filter.matches(topic));
        let mut matching: Vec<(Filter, u32)> = matching.cloned().collect();
        if matching.is_empty() || self.queue.len() >= self.habits.queue_max {
            return false;
        }
        matching.sort_by_key(|(filter, _)| filter.as_str().contains('#'));
        let identifies = self.habits.identifies;
        let named = |id: u32| if identifies { vec![id] } else { Vec::new() };
        let mut copies: Vec<Vec<u32>> = match self.habits.copies {
            Copies::Once if identifies => vec![matching.iter().map(|(_, id)| *id).collect()],
            Copies::Once => vec![Vec::new()],
            Copies::Each | Copies::EachBackwards => matching.iter().map(|(_, id)| named(*id)).collect(),
        };
        if self.habits.copies == Copies::EachBackwards {
            copies.reverse();
        }
        let copies = copies.into_iter().enumerate().map(|(number, mut through)| {
            // Subscriptions that were made without an identifier have none to name.
            through.retain(|id| *id > 0);
            Copy {
                publish,
                number,
                through,
            }
        });
        self.queue.extend(copies);
        true
    }

    /// Puts on the wire what the window allows; returns how much that is.
    pub fn send(&mut self) -> usize {
        let before = self.down.len();
        while self.connection.is_some() && self.in_flight.len() < self.window {
            if !self.send_next() {
                break;
            }
        }
        self.down.len() - before
    }

    fn send_next(&mut self) -> bool {
        let Some(copy) = self.queue.pop_front() else {
            return false;
        };
        let id = self.next_id();
        self.in_flight.push_back((id, copy.clone()));
        self.down.push_back(FromBroker::Message {
            id,
            duplicate: false,
            copy,
        });
        true
    }

    fn next_id(&mut self) -> u16 {
        if self.habits.ids > 0 {
            self.last_id = self.last_id % self.habits.ids + 1;
            return self.last_id;
        }
        let ids = (self.window as u16 * 2).max(97);
        loop {
            // Ids come round soon, as they do within minutes on a busy broker.
            self.last_id = self.last_id % ids + 1;
            let is_free = self.in_flight.iter().all(|(id, _)| *id != self.last_id);
            if is_free || self.in_flight.len() >= usize::from(ids) {
                return self.last_id;
            }
        }
    }

    /// A connection comes up; returns how much is put on the wire. The session is lost if `forget` and it is owed
    /// nothing.
    pub fn connect(&mut self, forget: bool) -> usize {
        self.connections += 1;
        self.connection = Some(self.connections);
        let is_kept = !self.habits.subscribes && self.connections > 1;
        let resumed = !(forget && self.is_empty()) && (self.has_session || is_kept);
        self.has_session = true;
        if !resumed {
            self.last_id = 0;
            if self.habits.subscribes {
                self.filters.clear();
            }
        }
        let before = self.down.len();
        self.down.push_back(FromBroker::Connected {
            connection: self.connections,
            resumed,
        });
        for (id, copy) in &self.in_flight {
            self.down.push_back(FromBroker::Message {
                id: *id,
                duplicate: true,
                copy: copy.clone(),
            });
        }
        self.send();
        self.down.len() - before
    }

    /// The next of what is on the wire arrives; returns how much goes back.
    pub fn handle_next(&mut self) -> usize {
        let next = self.up.pop_front();
        let Some((_, next)) = next.filter(|(connection, _)| self.connection == Some(*connection)) else {
            return 0;
        };
        let before = self.down.len();
        match next {
            ToBroker::Acknowledgement(id) => {
                let place = self.in_flight.iter().position(|(held, _)| *held == id);
                place.map(|place| self.in_flight.remove(place));
                for _ in 0..self.window * usize::from(self.habits.is_eager) {
                    self.send_next();
                }
            }
            ToBroker::Request(SourceRequest::Subscribe {
                packet,
                subscriptions,
            }) => {
                for asked in subscriptions {
                    self.filters.retain(|(filter, _)| *filter != asked.filter);
                    self.filters.push((asked.filter, asked.id));
                }
                self.down.push_back(FromBroker::Subscribed(packet));
            }
            ToBroker::Request(SourceRequest::Unsubscribe { packet, filters }) => {
                self.filters.retain(|(filter, _)| !filters.contains(filter));
                self.down.push_back(FromBroker::Unsubscribed(packet));
            }
            ToBroker::Request(SourceRequest::Publish { .. } | SourceRequest::Reconnect) => {}
        }
        self.down.len() - before
    }

    /// The connection breaks. Of what is on the wire a part still arrives; returns whether there was a connection.
    pub fn cut(&mut self, dice: &mut Dice) -> bool {
        if self.connection.is_none() {
            return false;
        }
        let arriving = dice.below(self.up.len() as u32 + 1) as usize;
        let on_the_wire = self.down.len();
        for _ in 0..arriving {
            self.handle_next();
        }
        self.up.clear();
        self.connection = None;
        // Answers that it gave just now are lost with the connection.
        self.down.truncate(on_the_wire);
        let arriving = dice.below(self.down.len() as u32 + 1) as usize;
        self.down.truncate(arriving);
        self.down.push_back(FromBroker::Lost);
        true
    }

    /// Whether a connection is up.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether everything that it accepted is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }
}
