//! A broker as one gateway sees it: it keeps the session, sends a window of messages ahead of their acknowledgements,
//! and after a lost connection sends again, in order and marked, what was not acknowledged. Its window need not be the
//! one that it was told.

use std::collections::VecDeque;

use catchment_firmware_sim::dice::Dice;

/// What a broker has for a gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
        /// Which of the case's publishes.
        publish: usize,
    },
    /// It has so many of the acknowledgements of this connection.
    Arrived(u64),
    /// The connection is gone.
    Lost,
}

/// What a gateway sends to its broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToBroker {
    /// The message with this packet id was taken.
    Acknowledgement(u16),
    /// To be answered; so many acknowledgements of this connection were sent before.
    Barrier(u64),
}

/// The broker's side of one gateway's session.
#[derive(Clone, Debug)]
pub struct Broker {
    /// The most messages that are sent ahead of their acknowledgement.
    window: usize,
    /// Accepted from publishers and not sent yet.
    queue: VecDeque<usize>,
    in_flight: VecDeque<(u16, usize)>,
    last_id: u16,
    /// The connection that is up.
    connection: Option<u32>,
    connections: u32,
    /// On the wire to the gateway.
    pub down: VecDeque<FromBroker>,
    /// On the wire to the broker, with the connections.
    pub up: VecDeque<(u32, ToBroker)>,
    /// Topic filters that the session has subscribed to.
    pub filters: Vec<String>,
    /// Until then nobody can connect.
    pub closed_until: u64,
}

impl Broker {
    /// A broker without a connection.
    pub fn new(window: usize, filters: Vec<String>) -> Self {
        Self {
            window,
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            last_id: 0,
            connection: None,
            connections: 0,
            down: VecDeque::new(),
            up: VecDeque::new(),
            filters,
            closed_until: 0,
        }
    }

    /// Takes a message from a publisher; returns whether the session has subscribed to its topic.
    pub fn accept(&mut self, topic: &str, publish: usize) -> bool {
        let accepted = self.filters.iter().any(|filter| matches(filter, topic));
        if accepted {
            self.queue.push_back(publish);
        }
        accepted
    }

    /// Puts on the wire what the window allows; returns how much that is.
    pub fn send(&mut self) -> usize {
        let before = self.down.len();
        while self.connection.is_some() && self.in_flight.len() < self.window {
            let Some(publish) = self.queue.pop_front() else {
                break;
            };
            let id = self.next_id();
            self.in_flight.push_back((id, publish));
            self.down.push_back(FromBroker::Message {
                id,
                duplicate: false,
                publish,
            });
        }
        self.down.len() - before
    }

    fn next_id(&mut self) -> u16 {
        let ids = (self.window as u16 * 2).max(97);
        loop {
            // Ids come round soon, as they do within minutes on a busy broker.
            self.last_id = self.last_id % ids + 1;
            if self.in_flight.iter().all(|(id, _)| *id != self.last_id) {
                return self.last_id;
            }
        }
    }

    /// A connection comes up; returns how much is put on the wire. The session is lost if `forget` and it is owed
    /// nothing.
    pub fn connect(&mut self, forget: bool) -> usize {
        self.connections += 1;
        self.connection = Some(self.connections);
        let resumed = !(forget && self.is_empty()) && self.connections > 1;
        if !resumed {
            self.last_id = 0;
        }
        let before = self.down.len();
        self.down.push_back(FromBroker::Connected {
            connection: self.connections,
            resumed,
        });
        for &(id, publish) in &self.in_flight {
            self.down.push_back(FromBroker::Message {
                id,
                duplicate: true,
                publish,
            });
        }
        self.send();
        self.down.len() - before
    }

    /// The next of what is on the wire arrives; returns how many answers go back.
    pub fn handle_next(&mut self) -> usize {
        let next = self.up.pop_front();
        let Some((_, next)) = next.filter(|(connection, _)| self.connection == Some(*connection)) else {
            return 0;
        };
        match next {
            ToBroker::Acknowledgement(id) => {
                self.in_flight.retain(|(held, _)| *held != id);
                0
            }
            ToBroker::Barrier(count) => {
                self.down.push_back(FromBroker::Arrived(count));
                1
            }
        }
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

/// Whether an MQTT filter with `+` matches a topic.
fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (None, None) => return true,
            (Some(level), Some(text)) if level == "+" || level == text => {}
            _ => return false,
        }
    }
}
