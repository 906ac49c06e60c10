//! Publishes a simulated fleet: the machine is asked for what is due, the links carry it, the truth is written down.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rumqttc::QoS;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::link::{BrokerUrl, Link, LinkFault};
use super::truth_file::{TruthFault, TruthWriter};
use crate::fleet::{self, Fleet, Message};
use crate::truth::Entry;

/// How often due messages are looked for: below a hundred messages per wake-up at ten thousand a second.
const TICK: Duration = Duration::from_millis(5);

/// How a fleet is published.
#[derive(Clone, Debug)]
pub struct Options {
    /// The brokers that the devices are spread over in turn; at least one.
    pub brokers: Vec<BrokerUrl>,
    /// Connections per broker; devices share them. At least one.
    pub connections: u32,
    /// At least once, or at most once.
    pub qos: QoS,
    /// After each reconnect devices publish again, at least once, what they published in so long a time before.
    pub resend: Option<Duration>,
    /// Publish as fast as the brokers take it; event time goes on by the fleet's own step.
    pub unpaced: bool,
    /// Where the truth is written.
    pub truth: PathBuf,
}

/// What a run has done so far; watched and stopped from other tasks.
#[derive(Debug, Default)]
pub struct Progress {
    /// Messages published, bad ones included. Each counts as one reading.
    pub readings: AtomicU64,
    /// Their payload bytes.
    pub bytes: AtomicU64,
    /// Of the messages, the bad ones.
    pub bad: AtomicU64,
    /// Of the payload bytes, those of bad messages.
    pub bad_bytes: AtomicU64,
    stop: AtomicBool,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunFault {
    /// Publishing failed.
    #[error(transparent)]
    Link(#[from] LinkFault),
    /// The truth cannot be written.
    #[error(transparent)]
    Truth(#[from] TruthFault),
}

impl Progress {
    /// Ends the run early: no more is published, what is in flight is waited for.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Counts one message.
    pub fn count(&self, payload_bytes: usize, is_bad: bool) {
        self.readings.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(payload_bytes as u64, Ordering::Relaxed);
        if is_bad {
            self.bad.fetch_add(1, Ordering::Relaxed);
            self.bad_bytes.fetch_add(payload_bytes as u64, Ordering::Relaxed);
        }
    }

    /// Whether the run is to end.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (readings, bytes, bad) = (of(&self.readings), of(&self.bytes), of(&self.bad));
        write!(
            f,
            "published {readings} readings, {bytes} bytes of payload, {bad} bad"
        )
    }
}

/// Publishes a fleet until its last message is acknowledged and the truth is on disk.
pub async fn run(settings: fleet::Settings, options: &Options, progress: &Progress) -> Result<(), RunFault> {
    let mut publisher = Publisher {
        links: links(options, settings.seed),
        connections: options.connections as usize,
        brokers: options.brokers.len(),
        truth: TruthWriter::create(&options.truth)?,
        progress,
    };
    let mut fleet = Fleet::new(settings);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begin = Instant::now();
    while !fleet.is_finished() && !progress.is_stopping() {
        ticks.tick().await;
        let elapsed_us = if options.unpaced {
            u64::MAX
        } else {
            u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
        };
        while let Some(message) = fleet.poll_message(elapsed_us) {
            publisher.publish(message).await?;
            if progress.is_stopping() {
                break;
            }
        }
    }
    publisher.finish().await
}

fn links(options: &Options, seed: u64) -> Vec<Link> {
    let process = std::process::id();
    let link = |broker, connection: u32| {
        // Two fleets on one broker must not take each other's place.
        let client_id = format!("fleet-{seed}-{process}-{connection}");
        let link = Link::new(broker, &client_id, options.qos);
        match options.resend {
            Some(age) => link.resend(age),
            None => link,
        }
    };
    let of_broker = |broker| (0..options.connections).map(move |connection| link(broker, connection));
    options.brokers.iter().flat_map(of_broker).collect()
}

struct Publisher<'p> {
    /// All connections of the first broker, then those of the next.
    links: Vec<Link>,
    connections: usize,
    brokers: usize,
    truth: TruthWriter,
    progress: &'p Progress,
}

impl Publisher<'_> {
    async fn publish(&mut self, message: Message) -> Result<(), RunFault> {
        let Message {
            device,
            topic,
            payload,
            bad,
        } = message;
        let (broker, turn) = (device as usize % self.brokers, device as usize / self.brokers);
        let link = &mut self.links[broker * self.connections + turn % self.connections];
        let bytes = payload.len();
        let text = if bad.is_none() {
            String::from_utf8_lossy(&payload).into_owned()
        } else {
            String::new()
        };
        // A bad message has no number that the agent could recognise it by.
        link.publish(&topic, payload, bad.is_none()).await?;
        let topic = topic.into();
        let entry = match bad {
            Some(bad) => Entry::Bad { topic, bad },
            None => Entry::Good {
                topic,
                payload: text.into(),
            },
        };
        self.truth.write(&entry)?;
        self.progress.count(bytes, bad.is_some());
        Ok(())
    }

    async fn finish(self) -> Result<(), RunFault> {
        for link in self.links {
            link.finish().await?;
        }
        Ok(self.truth.finish()?)
    }
}

/// The wall clock, in microseconds since the Unix epoch.
pub fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
