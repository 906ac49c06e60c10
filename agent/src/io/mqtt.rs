//! The subscription: messages from the broker, handed over in groups.
//!
//! The event loop is polled in a task of its own that never waits for an acknowledgement of its own: those come from
//! the machine, once a message is durable, through [`Acknowledger`]. What the broker sends is bounded by the receive
//! maximum (MQTT 5) and by TCP: when the machine is slow, this task waits with its group in hand, the socket fills, and
//! the broker holds the rest. Packet ids mean nothing on another connection, so each connection has a number, and
//! acknowledgements of an earlier one are dropped.
//!
//! Three habits that real brokers taught: SUBSCRIBE again on every CONNACK, because a subscription whose SUBACK was cut
//! off is lost otherwise; back off between attempts, because the client does not; and let input gather. At edge rates
//! a wake-up costs more than parsing, so a busy loop sleeps for a moment, with the thread, before it reads on. (With
//! the thread, not the task: an edge-triggered socket would wake a waiting runtime for each message all the same.)

mod session;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use catchment_common::limits::QUERIES_MAX;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, info, warn};

use self::session::{Polled, Requests, Session};
use super::config::Config;
use crate::source::in_flight::Packet;

/// One message from the broker.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its topic.
    pub topic: Bytes,
    /// Its payload.
    pub payload: Bytes,
    /// Whether the broker repeats an old value because of a subscription.
    pub retained: bool,
    /// What to acknowledge, at QoS 1.
    pub packet: Option<Packet>,
}

/// What the subscription tells the machine, in order.
#[derive(Debug)]
pub enum SourceEvent {
    /// A connection was made.
    Connected {
        /// Its number.
        connection: u64,
        /// Whether the broker has kept the session.
        resumed: bool,
    },
    /// Messages came.
    Messages(Vec<Incoming>),
    /// The broker has so many of the acknowledgements that were sent on this connection: the first ones.
    AcknowledgementsArrived(u64),
    /// The connection is gone.
    Lost,
}

/// Events that may wait for the machine.
pub const EVENTS_MAX: usize = 4;
/// Messages and payload bytes of one group.
const GROUP_MESSAGES_MAX: usize = 1_024;
const GROUP_BYTES_MAX: usize = 1 << 20;
/// How long the broker may take to answer a SUBSCRIBE.
const SUBACK_WAIT: Duration = Duration::from_secs(10);
/// UNSUBSCRIBEs that may wait for their answer: one behind acknowledgements, and those of a plan that gives up its
/// topics.
const UNSUBSCRIBING_MAX: usize = 2 * QUERIES_MAX;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// A connection that broke sooner was no success: the next attempt waits longer than the last.
const SOUND_AFTER: Duration = Duration::from_secs(30);
/// A loop is busy when its last group is less than so many gathering times old.
const BUSY_GATHERS: u32 = 4;

/// Acknowledges messages to the broker, and can ask for a new connection.
#[derive(Debug)]
pub struct Acknowledger {
    requests: session::Acknowledgements,
    shared: Arc<Shared>,
}

/// What the subscription and its acknowledger share. Both run on one thread, so nothing comes between a look at the
/// number and the use of it.
#[derive(Debug, Default)]
struct Shared {
    /// The number of the connection that is up, or of the next.
    connection: AtomicU64,
    reconnect: Notify,
}

impl Acknowledger {
    /// Acknowledges a packet that came on this connection. One of an earlier connection comes again instead.
    pub fn acknowledge(&self, connection: u64, packet: u16) {
        if connection == self.shared.connection.load(Ordering::Relaxed) {
            self.requests.acknowledge(packet);
        }
    }

    /// Asks the broker something behind the acknowledgements: its answer says that it has them.
    pub fn barrier(&self) {
        if !self.requests.barrier() {
            debug!("no room for a barrier");
        }
    }

    /// Publishes a message of the agent's own, at QoS 0; false when it cannot be queued.
    pub fn publish(&self, topic: &str, payload: Vec<u8>) -> bool {
        self.requests.publish(topic, payload)
    }

    /// Drops the connection and makes it again, so that the broker repeats what is not acknowledged.
    pub fn reconnect(&self) {
        self.shared.reconnect.notify_one();
    }
}

/// The subscription, ready to be polled.
pub type Subscription = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes a subscription that reads from the broker until the receiver of `events` goes away. `filters` are the topics
/// wanted, which may change.
///
/// Fails only on a configuration that cannot work; a broker that is away is waited for.
pub fn subscribe(
    config: Config,
    filters: watch::Receiver<Vec<String>>,
    events: mpsc::Sender<SourceEvent>,
) -> Result<(Acknowledger, Subscription)> {
    let shared = Arc::new(Shared::default());
    let (requests, source): (_, Subscription) = if config.broker.protocol == 5 {
        let (session, requests) = session::version_5(&config)?;
        let acknowledgements = requests.acknowledgements();
        let source = Source::new(config, filters, events, requests, Arc::clone(&shared));
        (acknowledgements, Box::pin(source.run(session)))
    } else {
        let (session, requests) = session::version_4(&config)?;
        let acknowledgements = requests.acknowledgements();
        let source = Source::new(config, filters, events, requests, Arc::clone(&shared));
        (acknowledgements, Box::pin(source.run(session)))
    };
    Ok((Acknowledger { requests, shared }, source))
}

/// The receiver of events is gone: the process ends.
struct Closed;

struct Source<R> {
    config: Config,
    filters: watch::Receiver<Vec<String>>,
    events: mpsc::Sender<SourceEvent>,
    requests: R,
    shared: Arc<Shared>,
    /// What the broker was last asked for on this connection.
    subscribed: Vec<String>,
    /// Until when the broker must have answered.
    answer_by: Option<tokio::time::Instant>,
    connected: Option<Instant>,
    /// Acknowledgements that went out on this connection.
    acknowledged: u64,
    /// UNSUBSCRIBEs without an answer: packet id, and the acknowledgements that went out before.
    unsubscribing: VecDeque<(u16, u64)>,
    /// Acknowledgements that the broker has, if the machine does not know yet.
    arrived: Option<u64>,
    /// A connection was made and the machine does not know yet; whether the session was resumed.
    announce: Option<bool>,
    group: Vec<Incoming>,
    group_bytes: usize,
    handed_over: Instant,
}

impl<R: Requests> Source<R> {
    fn new(
        config: Config,
        filters: watch::Receiver<Vec<String>>,
        events: mpsc::Sender<SourceEvent>,
        requests: R,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            config,
            filters,
            events,
            requests,
            shared,
            subscribed: Vec::new(),
            answer_by: None,
            connected: None,
            acknowledged: 0,
            unsubscribing: VecDeque::new(),
            arrived: None,
            announce: None,
            group: Vec::new(),
            group_bytes: 0,
            handed_over: Instant::now(),
        }
    }

    async fn run(mut self, mut session: impl Session) {
        let mut retry = RETRY_MIN;
        loop {
            let polled = self.next(pin!(session.poll())).await;
            let handled = match polled {
                Err(Closed) => return,
                Ok(Ok(event)) => self.handle(event),
                Ok(Err(error)) => Err(error),
            };
            let drained = handled.and_then(|()| {
                std::iter::from_fn(|| session.next_buffered()).try_for_each(|event| self.handle(event))
            });
            if let Err(error) = drained {
                if self
                    .connected
                    .take()
                    .is_some_and(|since| since.elapsed() >= SOUND_AFTER)
                {
                    retry = RETRY_MIN;
                }
                let broker = &self.config.broker.url;
                warn!(%broker, %error, retry_ms = retry.as_millis() as u64, "no connection to the broker");
                // From here on acknowledgements of this connection are dropped; those that wait go with the reset.
                self.shared.connection.fetch_add(1, Ordering::Relaxed);
                session.reset();
                self.answer_by = None;
                if self.hand_over().await.is_err() || self.tell(SourceEvent::Lost).await.is_err() {
                    return;
                }
                tokio::time::sleep(jittered(retry)).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
            let full = self.group.len() >= GROUP_MESSAGES_MAX || self.group_bytes >= GROUP_BYTES_MAX;
            if (full || self.announce.is_some()) && self.hand_over().await.is_err() {
                return;
            }
        }
    }

    /// The next event. What is there already comes at once; before waiting, the group is handed over.
    async fn next<P>(&mut self, mut poll: Pin<&mut P>) -> Result<P::Output, Closed>
    where
        P: Future<Output = Result<Polled, String>>,
    {
        let ready = poll_fn(|context| {
            Poll::Ready(match poll.as_mut().poll(context) {
                Poll::Ready(polled) => Some(polled),
                Poll::Pending => None,
            })
        });
        if let Some(polled) = ready.await {
            return Ok(polled);
        }
        if !self.group.is_empty() || self.arrived.is_some() {
            let gather = self.config.broker.gather;
            let busy = self.handed_over.elapsed() < gather * BUSY_GATHERS;
            self.hand_over().await?;
            // The machine runs on this thread: let it work before the thread sleeps.
            tokio::task::yield_now().await;
            if busy {
                std::thread::sleep(gather);
            }
        }
        loop {
            let answer_by = self
                .answer_by
                .unwrap_or_else(|| tokio::time::Instant::now() + SUBACK_WAIT);
            tokio::select! {
                biased;
                polled = &mut poll => return Ok(polled),
                changed = self.filters.changed() => {
                    if changed.is_err() {
                        return Err(Closed);
                    }
                    if let Err(error) = self.change_subscriptions() {
                        return Ok(Err(error));
                    }
                }
                () = tokio::time::sleep_until(answer_by), if self.answer_by.is_some() => {
                    return Ok(Err("the broker did not answer SUBSCRIBE".into()));
                }
                () = self.shared.reconnect.notified() => {
                    return Ok(Err("asked for again, to have repeated what was left to the broker".into()));
                }
                () = self.events.closed() => return Err(Closed),
            }
        }
    }

    fn handle(&mut self, event: Polled) -> Result<(), String> {
        match event {
            Polled::Connected { resumed } => {
                info!(broker = %self.config.broker.url, resumed, "connected to the broker");
                self.connected = Some(Instant::now());
                self.acknowledged = 0;
                self.unsubscribing.clear();
                // Of the connection before, if the client had kept it.
                self.arrived = None;
                self.announce = Some(resumed);
                self.subscribed.clear();
                self.change_subscriptions()
            }
            Polled::Subscribed { refused: 0 } => {
                debug!(filters = self.subscribed.len(), "subscribed");
                self.answer_by = None;
                Ok(())
            }
            Polled::Subscribed { refused } => Err(format!(
                "the broker refused {refused} subscriptions of {:?}",
                self.subscribed
            )),
            Polled::Message(message) => {
                self.group_bytes += message.payload.len() + message.topic.len();
                self.group.push(message);
                Ok(())
            }
            Polled::Acknowledged => {
                self.acknowledged += 1;
                Ok(())
            }
            Polled::Unsubscribing(id) => {
                // Ids come round, so answers are told apart by their order: none may be left out.
                if self.unsubscribing.len() >= UNSUBSCRIBING_MAX {
                    return Err("the broker does not answer UNSUBSCRIBE".into());
                }
                self.unsubscribing.push_back((id, self.acknowledged));
                Ok(())
            }
            Polled::Unsubscribed(id) => {
                // Whatever it was for: all that went out before has arrived.
                if let Some(place) = self.unsubscribing.iter().position(|(asked, _)| *asked == id) {
                    self.arrived = self
                        .unsubscribing
                        .drain(..=place)
                        .next_back()
                        .map(|(_, count)| count);
                }
                Ok(())
            }
            Polled::Other => Ok(()),
        }
    }

    /// Asks the broker for the filters that are wanted and not asked for, and takes back the others.
    fn change_subscriptions(&mut self) -> Result<(), String> {
        let wanted = self.filters.borrow_and_update().clone();
        if self.connected.is_none() {
            return Ok(());
        }
        for filter in self.subscribed.iter().filter(|filter| !wanted.contains(filter)) {
            self.requests.unsubscribe(filter)?;
        }
        let new: Vec<String> = wanted
            .iter()
            .filter(|filter| !self.subscribed.contains(filter))
            .cloned()
            .collect();
        if !new.is_empty() {
            self.requests.subscribe(&new)?;
            self.answer_by = Some(tokio::time::Instant::now() + SUBACK_WAIT);
        }
        self.subscribed = wanted;
        Ok(())
    }

    /// Gives the machine what has come so far.
    async fn hand_over(&mut self) -> Result<(), Closed> {
        if let Some(resumed) = self.announce.take() {
            let connection = self.shared.connection.load(Ordering::Relaxed);
            self.tell(SourceEvent::Connected { connection, resumed }).await?;
        }
        if let Some(count) = self.arrived.take() {
            debug!(count, "the broker has these acknowledgements");
            self.tell(SourceEvent::AcknowledgementsArrived(count)).await?;
        }
        if self.group.is_empty() {
            return Ok(());
        }
        self.group_bytes = 0;
        self.handed_over = Instant::now();
        let group = std::mem::replace(&mut self.group, Vec::with_capacity(GROUP_MESSAGES_MAX / 8));
        self.tell(SourceEvent::Messages(group)).await
    }

    async fn tell(&self, event: SourceEvent) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_| Closed)
    }
}

/// Half to all of a wait, so that many clients do not come back together.
fn jittered(wait: Duration) -> Duration {
    let half = wait / 2;
    half + half.mul_f64(f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX))
}
