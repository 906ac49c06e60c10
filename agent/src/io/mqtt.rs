//! A broker as a source: a task that keeps a connection, hands over what comes in groups, and sends what it is asked to.
//!
//! The task decides nothing about messages: what is acknowledged, asked for or left is the machine's affair, which
//! gives it to the task through a [`Handle`]. What the broker sends is bounded by TCP: when the machine is slow, the
//! group in hand fills, the socket is not read, and the broker holds the rest. Packet ids mean nothing on another
//! connection, so each connection has a number, and what is meant for an earlier one is dropped.
//!
//! Two habits that real brokers taught: back off between attempts, and let input gather. At edge rates a wake-up costs
//! more than parsing, so a busy task sleeps for a moment, with the thread, before it reads on. (With the thread, not the
//! task: an edge-triggered socket would wake a waiting runtime for each message all the same.)

mod codec;

mod connection;

mod handle;

mod pulse;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rumqttc::tokio_rustls::TlsConnector;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant as TokioInstant, sleep, sleep_until};
use tracing::{debug, info, warn};

use self::codec::{Client, Said};
use self::connection::Connection;
use self::handle::{Orders, Shared};
use self::pulse::Pulse;
use super::config::{Config, Kind, Mqtt};
use super::tls;
use crate::source::{SourceEvent, SourceId};

pub use self::connection::{Group, Incoming};
pub use self::handle::Handle;

/// What a source tells the machine, in order.
#[derive(Debug)]
pub enum Told {
    /// Something happened to it.
    Happened {
        /// The number of the connection.
        connection: u64,
        /// What.
        event: SourceEvent,
    },
    /// Messages came.
    Messages(Group),
}

/// What may wait for the machine.
pub const EVENTS_MAX: usize = 4;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// A connection that broke sooner was no success: the next attempt waits longer than the last.
const SOUND_AFTER: Duration = Duration::from_secs(30);
/// So many connections in a row that are accepted and cut sooner are no accident.
const SHORT_LIVES: u32 = 2;
/// A task is busy when its last group is less than so many gathering times old.
const BUSY_GATHERS: u32 = 4;

/// When the thread last slept for input to gather: one sleep serves all sources.
pub type Rested = Arc<Mutex<Instant>>;

/// A source's task, ready to be polled.
pub type Subscription = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes the task that reads from the broker until the receiver of `told` goes away. `wanted` says whether there is
/// anything to be connected for.
///
/// Fails only on a configuration that cannot work; a broker that is away is waited for.
pub fn subscribe(
    config: &Config,
    source: SourceId,
    wanted: watch::Receiver<bool>,
    told: mpsc::Sender<(SourceId, Told)>,
    rested: Rested,
) -> Result<(Handle, Subscription)> {
    let configured = config
        .sources
        .get(source.index())
        .context("a source that is not configured")?;
    let Kind::Mqtt(broker) = &configured.kind;
    broker
        .address()
        .context("the broker's URL is not mqtt://host:port")?;
    let shared = Arc::new(Shared {
        orders: Mutex::default(),
        woken: Notify::new(),
        version: codec::version(broker),
        at_least_once: broker.qos > 0,
    });
    let task = Task {
        tls: connector(broker)?,
        login: login(broker)?,
        client_id: config.client_id(configured),
        receive_maximum: config.receive_maximum(broker),
        payload_bytes_max: config.limits.payload.as_u64() as usize,
        broker: broker.clone(),
        name: configured.name.clone(),
        source,
        wanted,
        told,
        shared: Arc::clone(&shared),
        events: VecDeque::new(),
        handed_over: Instant::now(),
        rested,
        short_lives: 0,
    };
    Ok((Handle { shared }, Box::pin(task.run())))
}

fn connector(broker: &Mqtt) -> Result<Option<TlsConnector>> {
    let (true, Some(ca)) = (broker.is_tls(), &broker.ca) else {
        return Ok(None);
    };
    let identity = broker.certificate.as_deref().zip(broker.key.as_deref());
    let config = tls::client(ca, identity)?;
    Ok(Some(Arc::new(config).into()))
}

fn login(broker: &Mqtt) -> Result<Option<(String, String)>> {
    let Some(username) = broker.username.clone() else {
        return Ok(None);
    };
    let password = match (&broker.password, &broker.password_file) {
        (Some(password), _) => password.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .with_context(|| format!("{}: cannot read the broker's password", file.display()))?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
        (None, None) => String::new(),
    };
    Ok(Some((username, password)))
}

/// Why a connection ends.
enum End {
    /// The receiver is gone: the process ends.
    Closed,
    /// It is given up.
    Lost(String),
    /// The other side or the network ended it.
    Cut(String),
    /// Another client came under the same id.
    TakenOver(String),
    /// There is nothing to be connected for any more.
    Unwanted,
    /// The agent wants another one, on which the broker repeats what was left to it.
    Asked,
}

impl From<String> for End {
    fn from(why: String) -> Self {
        Self::Lost(why)
    }
}

/// What wakes a task that has a connection.
enum Woken {
    Written(Result<(), String>),
    Read(Result<(), String>),
    CanTell(OwnedPermit<(SourceId, Told)>),
    Ordered,
    Closed,
    Beat,
}

struct Task {
    broker: Mqtt,
    /// The source's name, for the log.
    name: String,
    tls: Option<TlsConnector>,
    login: Option<(String, String)>,
    client_id: String,
    receive_maximum: u16,
    payload_bytes_max: usize,
    source: SourceId,
    wanted: watch::Receiver<bool>,
    told: mpsc::Sender<(SourceId, Told)>,
    shared: Arc<Shared>,
    /// What the machine does not know yet.
    events: VecDeque<SourceEvent>,
    handed_over: Instant,
    rested: Rested,
    /// Connections in a row that a broker accepted and that were cut soon after.
    short_lives: u32,
}

impl Task {
    async fn run(mut self) {
        let mut retry = RETRY_MIN;
        loop {
            if self.wanted.wait_for(|wanted| *wanted).await.is_err() || self.shared.orders().stop {
                return;
            }
            let begun = Instant::now();
            let ended = match self.connect().await {
                Ok(mut connection) => {
                    let ended = self.serve(&mut connection).await;
                    self.end(connection, &ended).await;
                    let is_sound = begun.elapsed() >= SOUND_AFTER;
                    if is_sound {
                        retry = RETRY_MIN;
                    }
                    self.explain(ended, is_sound)
                }
                Err(error) => End::Lost(error),
            };
            let event = SourceEvent::Lost;
            if matches!(ended, End::Closed) || self.tell(event).await.is_err() {
                return;
            }
            let Self { name, broker, .. } = &self;
            let broker = &broker.url;
            let pause = match ended {
                End::Lost(error) => {
                    warn!(source = %name, %broker, %error, retry_ms = retry.as_millis() as u64, "no connection to the broker");
                    let pause = retry;
                    retry = (retry * 2).min(RETRY_MAX);
                    pause
                }
                // Nothing is wrong with the broker, so there is nothing to be patient with.
                End::Asked => {
                    debug!(source = %name, %broker, "connecting again, to have repeated what was left to the broker");
                    RETRY_MIN
                }
                _ => continue,
            };
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                () = self.told.closed() => return,
            }
        }
    }

    /// Says what the operator should know of an end. Most brokers give no reason when they drop a client for another one
    /// with its id.
    fn explain(&mut self, ended: End, is_sound: bool) -> End {
        let id = &self.client_id;
        let is_cut = matches!(ended, End::Cut(_)) && !is_sound;
        self.short_lives = if is_cut { self.short_lives + 1 } else { 0 };
        match ended {
            End::TakenOver(why) => End::Lost(format!(
                "another client uses the client id {id:?} ({why}); give each client of this broker a `client_id` of its own"
            )),
            End::Cut(error) if self.short_lives >= SHORT_LIVES => End::Lost(format!(
                "{error}, soon after it was accepted, {} times in a row: it seems that another client uses the client id \
                 {id:?}; give each client of this broker a `client_id` of its own",
                self.short_lives
            )),
            End::Cut(error) => End::Lost(error),
            other => other,
        }
    }

    async fn connect(&mut self) -> Result<Connection, String> {
        let client = Client {
            id: &self.client_id,
            login: self.login.as_ref(),
            receive_maximum: self.receive_maximum,
        };
        let opened = Connection::open(&self.broker, self.tls.as_ref(), &client, self.payload_bytes_max).await;
        let (connection, said) = opened?;
        match said {
            Said::Connected {
                resumed,
                identifies,
                keep_alive,
            } => {
                if let Some(seconds) = keep_alive.filter(|seconds| *seconds > 0) {
                    self.broker.keep_alive = Duration::from_secs(seconds.into());
                }
                info!(source = %self.name, broker = %self.broker.url, resumed, "connected to the broker");
                self.events.clear();
                self.events
                    .push_back(SourceEvent::Connected { resumed, identifies });
                Ok(connection)
            }
            Said::Refused(why) => Err(format!("the broker refuses the connection: {why}")),
            _ => Err("the broker did not answer CONNECT".into()),
        }
    }

    /// Ends a connection: what came on it is handed over, what was asked for on it is dropped.
    async fn end(&mut self, mut connection: Connection, ended: &End) {
        while let Some(told) = self.next_told(&mut connection) {
            if self.told.send((self.source, told)).await.is_err() {
                break;
            }
        }
        {
            let mut orders = self.shared.orders();
            let stop = orders.stop;
            let connection = orders.connection + 1;
            *orders = Orders {
                connection,
                stop,
                ..Orders::default()
            };
        }
        if matches!(ended, End::Closed | End::Unwanted) {
            connection.close().await;
        }
    }

    /// Reads and writes until the connection ends.
    async fn serve(&mut self, connection: &mut Connection) -> End {
        let mut pulse = Pulse::new(self.broker.keep_alive);
        loop {
            match self.step(connection, &mut pulse).await {
                Ok(()) => {}
                Err(ended) => return ended,
            }
        }
    }

    async fn step(&mut self, connection: &mut Connection, pulse: &mut Pulse) -> Result<(), End> {
        let is_stopping = self.take_orders(connection, pulse)?;
        while let Some(said) = connection.take_next()? {
            self.hear(said, pulse)?;
        }
        let may_read = connection.has_room() && !is_stopping;
        let has_news = connection.has_group() || !self.events.is_empty();
        let is_written = connection.is_written();
        let (reading, writing) = connection.halves();
        let woken = tokio::select! {
            biased;
            written = writing.write(), if !is_written => Woken::Written(written),
            read = reading.read(), if may_read => Woken::Read(read),
            permit = self.told.clone().reserve_owned(), if has_news => permit.map_or(Woken::Closed, Woken::CanTell),
            () = self.shared.woken.notified() => Woken::Ordered,
            () = self.told.closed(), if is_written => Woken::Closed,
            changed = self.wanted.changed() => if changed.is_ok() { Woken::Ordered } else { Woken::Closed },
            () = sleep_until(pulse.next()) => Woken::Beat,
        };
        match woken {
            Woken::Written(written) => written.map_err(End::Cut)?,
            Woken::Read(read) => {
                read.map_err(End::Cut)?;
                pulse.heard = TokioInstant::now();
            }
            Woken::CanTell(permit) => {
                if let Some(told) = self.next_told(connection) {
                    let is_group = matches!(told, Told::Messages(_));
                    permit.send((self.source, told));
                    if is_group {
                        self.rest().await;
                    }
                }
            }
            Woken::Ordered if !*self.wanted.borrow_and_update() => return Err(End::Unwanted),
            Woken::Ordered => {}
            Woken::Closed => return Err(End::Closed),
            Woken::Beat => pulse.beat(&mut connection.out, may_read)?,
        }
        Ok(())
    }

    /// The next that the machine is to know: what happened comes before the messages that came with it.
    fn next_told(&mut self, connection: &mut Connection) -> Option<Told> {
        if let Some(event) = self.events.pop_front() {
            let connection = self.shared.orders().connection;
            return Some(Told::Happened { connection, event });
        }
        connection
            .has_group()
            .then(|| Told::Messages(connection.take_group()))
    }

    /// Takes what the machine wants to be sent; says whether the task is to end.
    fn take_orders(&self, connection: &mut Connection, pulse: &mut Pulse) -> Result<bool, End> {
        let mut orders = self.shared.orders();
        if !orders.bytes.is_empty() {
            connection.out.extend_from_slice(&orders.bytes);
            orders.bytes.clear();
        }
        if orders.subscribes > 0 {
            pulse.expect(std::mem::take(&mut orders.subscribes));
        }
        if std::mem::take(&mut orders.reconnect) {
            return Err(End::Asked);
        }
        Ok(orders.stop)
    }

    fn hear(&mut self, said: Said, pulse: &mut Pulse) -> Result<(), End> {
        match said {
            Said::Subscribed { packet, refused } => {
                for (place, why) in &refused {
                    warn!(source = %self.name, broker = %self.broker.url, place, why, "the broker refused a subscription");
                }
                if pulse.answered() {
                    debug!(source = %self.name, "subscribed");
                }
                let refused = refused.into_iter().map(|(place, _)| place).collect();
                self.events.push_back(SourceEvent::Subscribed { packet, refused });
            }
            Said::Unsubscribed(packet) => {
                debug!(packet, "the broker has these acknowledgements");
                self.events.push_back(SourceEvent::Unsubscribed { packet });
            }
            Said::Alive => pulse.asked = None,
            Said::Closed {
                taken_over: true,
                why,
            } => return Err(End::TakenOver(why)),
            Said::Closed { why, .. } => return Err(End::Lost(why)),
            Said::Connected { .. } | Said::Refused(_) => {
                return Err(End::Lost("the broker sent a second CONNACK".into()));
            }
        }
        Ok(())
    }

    /// Lets the machine work, which runs on this thread, and input gather.
    async fn rest(&mut self) {
        let gather = self.broker.gather;
        let is_busy = self.handed_over.elapsed() < gather * BUSY_GATHERS;
        self.handed_over = Instant::now();
        tokio::task::yield_now().await;
        let mut rested = self.rested.lock().unwrap_or_else(PoisonError::into_inner);
        // Another source's task may have slept since this one handed over.
        if is_busy && *rested <= self.handed_over {
            std::thread::sleep(gather);
            *rested = Instant::now();
        }
    }

    async fn tell(&self, event: SourceEvent) -> Result<(), ()> {
        let connection = self.shared.orders().connection;
        let told = Told::Happened { connection, event };
        self.told.send((self.source, told)).await.map_err(|_| ())
    }
}

/// Half to all of a wait, so that many clients do not come back together.
fn jittered(wait: Duration) -> Duration {
    let half = wait / 2;
    half + half.mul_f64(f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX))
}
