//! One MQTT connection that publishes and loses nothing.
//!
//! rumqttc's event loop runs in its own task and never waits for the publisher; the publisher waits for it when
//! its queue is full. After a broken connection rumqttc forgets what was in flight when the broker has no session
//! left, so this task takes the unacknowledged messages over and hands them back once the connection stands again.
//! MQTT 3.1.1 is spoken: most devices do, and brokers do not limit how much of it may be in flight.
//!
//! A broker that dies can forget messages that it had acknowledged. A careful device therefore keeps what it published
//! in the last moments ([`Link::resend`]) and publishes it again after each reconnect, before anything new, so that a
//! message is never far behind its device's latest.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, Request};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Unacknowledged messages of one connection.
const IN_FLIGHT_MAX: u16 = 256;
/// Messages that wait for the event loop.
const QUEUED_MAX: usize = 256;
/// Largest packet sent; oversized payloads must pass.
const PACKET_BYTES_MAX: usize = 1 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long the first connection may take, attempts included.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a connection may stay broken, and acknowledgements may fail to come.
const STALL_TIME_MAX: Duration = Duration::from_mins(1);
/// Pauses between attempts to connect: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Messages kept for publishing them again.
const KEPT_MAX: usize = 65_536;
const ACKNOWLEDGED_POLL: Duration = Duration::from_millis(2);

/// A broker's address: `mqtt://[user[:password]@]host[:port]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerUrl {
    host: String,
    port: u16,
    credentials: Option<(String, String)>,
}

/// Why publishing failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkFault {
    /// The text is not a broker's address.
    #[error("`{0}` is not a broker's address; write mqtt://host:1883")]
    Url(String),
    /// No connection.
    #[error("no connection to {broker}: {error}")]
    Unreachable {
        /// Host and port.
        broker: String,
        /// The last error.
        error: Box<rumqttc::ConnectionError>,
    },
    /// The broker stopped acknowledging.
    #[error("{missing} messages were not acknowledged by {broker} within a minute")]
    Unacknowledged {
        /// Host and port.
        broker: String,
        /// How many.
        missing: u64,
    },
    /// The topic cannot be published to, or the task has ended.
    #[error("the message cannot be published: {0}")]
    Publish(String),
}

impl std::str::FromStr for BrokerUrl {
    type Err = LinkFault;

    fn from_str(text: &str) -> Result<Self, LinkFault> {
        let fault = || LinkFault::Url(text.into());
        let rest = text.strip_prefix("mqtt://").ok_or_else(fault)?;
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((login, address)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                (Some((user.to_string(), password.to_string())), address)
            }
            None => (None, rest),
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        let (host, port) = match address.rsplit_once(':') {
            // The colons of a bare `[::1]` are not the port's.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| fault())?),
            _ => (address, 1883),
        };
        if host.is_empty() || host.contains('/') {
            return Err(fault());
        }
        Ok(Self {
            host: host.into(),
            port,
            credentials,
        })
    }
}

impl std::fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    broker: String,
    client: AsyncClient,
    qos: QoS,
    resend: Option<Duration>,
    shared: Arc<Shared>,
    task: JoinHandle<Result<(), LinkFault>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Messages published, repetitions included.
    sent: AtomicU64,
    /// Messages that need no more care: acknowledged, or with QoS 0 handed to the socket.
    done: AtomicU64,
    /// Everything is done; the connection may end.
    stopping: AtomicBool,
    /// Messages of before a reconnect are published again; new ones wait.
    catching_up: AtomicBool,
    /// What was published lately, oldest first.
    latest: Mutex<VecDeque<Latest>>,
}

#[derive(Clone, Debug)]
struct Latest {
    at: Instant,
    topic: String,
    payload: Vec<u8>,
}

impl Link {
    /// A connection to `broker` under this client identifier; it is made in the background.
    pub fn new(broker: &BrokerUrl, client_id: &str, qos: QoS) -> Self {
        let mut options = MqttOptions::new(client_id, &broker.host, broker.port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_inflight(IN_FLIGHT_MAX)
            .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        if let Some((user, password)) = &broker.credentials {
            options.set_credentials(user, password);
        }
        let (client, events) = AsyncClient::new(options, QUEUED_MAX);
        let shared = Arc::new(Shared::default());
        let pump = Pump {
            broker: broker.to_string(),
            client: client.clone(),
            events,
            shared: Arc::clone(&shared),
            in_flight: HashSet::new(),
            kept: VecDeque::new(),
            unsent: VecDeque::new(),
        };
        Self {
            broker: broker.to_string(),
            client,
            qos,
            resend: None,
            shared,
            task: tokio::spawn(pump.run()),
        }
    }

    /// After each reconnect, messages that are not older than `age` are published again.
    pub fn resend(mut self, age: Duration) -> Self {
        self.resend = Some(age);
        self
    }

    /// Publishes a message; waits while the queue is full. One that is `kept` may be published again.
    pub async fn publish(&mut self, topic: &str, payload: Vec<u8>, kept: bool) -> Result<(), LinkFault> {
        while self.shared.catching_up.load(Ordering::Relaxed) && !self.task.is_finished() {
            sleep(ACKNOWLEDGED_POLL).await;
        }
        if let Some(age) = self.resend.filter(|_| kept) {
            self.keep(age, topic, &payload);
        }
        let publish = self.client.publish(topic, self.qos, false, payload).await;
        if publish.is_ok() {
            self.shared.sent.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        if self.task.is_finished() {
            self.ended().await?;
        }
        Err(LinkFault::Publish(format!("`{topic}` is refused by the client")))
    }

    fn keep(&self, age: Duration, topic: &str, payload: &[u8]) {
        let mut latest = self.shared.latest();
        while latest.len() >= KEPT_MAX || latest.front().is_some_and(|oldest| oldest.at.elapsed() > age) {
            latest.pop_front();
        }
        latest.push_back(Latest {
            at: Instant::now(),
            topic: topic.into(),
            payload: payload.into(),
        });
    }

    /// Waits until every message is acknowledged, then disconnects.
    pub async fn finish(mut self) -> Result<(), LinkFault> {
        let mut last = (self.shared.done.load(Ordering::Relaxed), Instant::now());
        while last.0 < self.shared.sent.load(Ordering::Relaxed) {
            if self.task.is_finished() {
                return self.ended().await;
            }
            if last.1.elapsed() > STALL_TIME_MAX {
                return Err(LinkFault::Unacknowledged {
                    broker: self.broker,
                    missing: self.shared.sent.load(Ordering::Relaxed) - last.0,
                });
            }
            sleep(ACKNOWLEDGED_POLL).await;
            let done = self.shared.done.load(Ordering::Relaxed);
            if done > last.0 {
                last = (done, Instant::now());
            }
        }
        self.shared.stopping.store(true, Ordering::Relaxed);
        // If the task has ended on its own there is nobody to tell, and nothing left to lose.
        let _ = self.client.disconnect().await;
        self.ended().await
    }

    async fn ended(&mut self) -> Result<(), LinkFault> {
        match (&mut self.task).await {
            Ok(result) => result,
            Err(error) => Err(LinkFault::Publish(error.to_string())),
        }
    }
}

impl Shared {
    fn latest(&self) -> std::sync::MutexGuard<'_, VecDeque<Latest>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that owns the event loop.
struct Pump {
    broker: String,
    client: AsyncClient,
    events: EventLoop,
    shared: Arc<Shared>,
    /// Packet identifiers sent and not acknowledged. An acknowledgement counts once.
    in_flight: HashSet<u16>,
    /// What a broken connection left behind, until the next one stands.
    kept: VecDeque<Request>,
    /// Messages that were still queued when a connection broke: published again as room comes free.
    unsent: VecDeque<Request>,
}

impl Pump {
    async fn run(mut self) -> Result<(), LinkFault> {
        let mut was_connected = false;
        let mut broken_since = Instant::now();
        let mut pause = PAUSE.0;
        loop {
            self.publish_unsent();
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    if was_connected {
                        self.repeat_latest();
                    }
                    (was_connected, pause) = (true, PAUSE.0);
                    self.restore();
                }
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return Ok(()),
                Ok(event) => self.handle(&event),
                Err(error) => {
                    if self.shared.stopping.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    if pause == PAUSE.0 {
                        broken_since = Instant::now();
                        tracing::warn!(broker = self.broker, %error, "connection broken");
                    }
                    self.kept.append(&mut self.events.pending);
                    let patience = if was_connected {
                        STALL_TIME_MAX
                    } else {
                        CONNECT_TIME_MAX
                    };
                    let refused = matches!(error, rumqttc::ConnectionError::ConnectionRefused(_));
                    if broken_since.elapsed() > patience || (refused && !was_connected) {
                        return Err(LinkFault::Unreachable {
                            broker: self.broker,
                            error: Box::new(error),
                        });
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    fn handle(&mut self, event: &Event) {
        let done = match event {
            // QoS 0 messages have no identifier and no acknowledgement.
            Event::Outgoing(Outgoing::Publish(0)) => true,
            Event::Outgoing(Outgoing::Publish(id)) => {
                self.in_flight.insert(*id);
                false
            }
            Event::Incoming(Packet::PubAck(ack)) => self.in_flight.remove(&ack.pkid),
            _ => false,
        };
        if done {
            self.shared.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Publishes again what was published lately: the broker may have forgotten it, whatever it acknowledged.
    fn repeat_latest(&mut self) {
        if self.unsent.len() >= KEPT_MAX {
            // Connections break faster than they catch up; what waits has most of it.
            return;
        }
        let latest = self.shared.latest();
        self.shared.sent.fetch_add(latest.len() as u64, Ordering::Relaxed);
        self.shared
            .catching_up
            .store(!latest.is_empty(), Ordering::Relaxed);
        self.unsent
            .extend(latest.iter().map(|Latest { topic, payload, .. }| {
                Request::Publish(rumqttc::Publish::new(topic, QoS::AtLeastOnce, payload.clone()))
            }));
    }

    /// Hands back what a broken connection left behind: what was in flight to the event loop, which sends it first and
    /// at once; the rest queues again, as the event loop does not limit how much of the former it sends.
    fn restore(&mut self) {
        for request in self.kept.drain(..) {
            match request {
                Request::Publish(publish) if publish.pkid == 0 => {
                    self.unsent.push_back(Request::Publish(publish));
                }
                Request::Publish(mut publish) => {
                    publish.dup = true;
                    self.events.pending.push_back(Request::Publish(publish));
                }
                _ => {}
            }
        }
    }

    fn publish_unsent(&mut self) {
        while let Some(Request::Publish(publish)) = self.unsent.front() {
            let (topic, payload) = (publish.topic.clone(), publish.payload.to_vec());
            if self
                .client
                .try_publish(topic, publish.qos, false, payload)
                .is_err()
            {
                return;
            }
            self.unsent.pop_front();
        }
        self.shared.catching_up.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_brokers() {
        let parse = |text: &str| {
            text.parse::<BrokerUrl>()
                .ok()
                .map(|url| (url.to_string(), url.credentials))
        };
        assert_eq!(
            parse("mqtt://127.0.0.1:18830"),
            Some(("127.0.0.1:18830".into(), None))
        );
        assert_eq!(
            parse("mqtt://broker.lan/"),
            Some(("broker.lan:1883".into(), None))
        );
        assert_eq!(parse("mqtt://[::1]"), Some(("[::1]:1883".into(), None)));
        assert_eq!(parse("mqtt://[::1]:7"), Some(("[::1]:7".into(), None)));
        let login = Some(("u".to_string(), "p:w@x".to_string()));
        assert_eq!(parse("mqtt://u:p:w@x@h:1"), Some(("h:1".into(), login)));
        for text in [
            "",
            "127.0.0.1:1883",
            "mqtt://",
            "mqtt://h:port",
            "mqtt://h:70000",
            "mqtts://h",
            "mqtt://h/x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
