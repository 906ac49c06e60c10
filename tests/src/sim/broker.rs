//! A broker as one gateway sees it: it keeps the session, sends a window of messages ahead of their acknowledgements,
//! and after a lost connection sends again, in order and marked, what was not acknowledged.

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
    /// The connection is gone.
    Lost,
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
    /// Acknowledgements on the wire, with their connections.
    pub up: VecDeque<(u32, u16)>,
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
        loop {
            // Ids come round soon, as they do within minutes on a busy broker.
            self.last_id = self.last_id % 97 + 1;
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

    /// The next acknowledgement arrives.
    pub fn handle_acknowledgement(&mut self) {
        let Some((connection, id)) = self.up.pop_front() else {
            return;
        };
        if self.connection == Some(connection) {
            self.in_flight.retain(|(held, _)| *held != id);
        }
    }

    /// The connection breaks. Of what is on the wire a part still arrives; returns whether there was a connection.
    pub fn cut(&mut self, dice: &mut Dice) -> bool {
        if self.connection.is_none() {
            return false;
        }
        let arriving = dice.below(self.up.len() as u32 + 1) as usize;
        for _ in 0..arriving {
            self.handle_acknowledgement();
        }
        self.up.clear();
        self.connection = None;
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
