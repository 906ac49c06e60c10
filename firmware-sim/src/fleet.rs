//! All devices on one schedule: a machine that gives out messages as event time goes on.
//!
//! Step `k` of device `d` is due at `k·interval + d·interval/devices` after the start, so that the fleet's load is
//! smooth. Each device numbers its readings; one that it publishes again keeps its number. Memory is bounded by the
//! number of devices: late readings are held back only while there is room for them. The caller says how much event
//! time has passed; the fleet knows no clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::dice::Dice;
use crate::fault::{Bad, Fate, FaultLine, Faults};
use crate::signal::{Sample, Signal};

/// What a fleet is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How many devices, 1 to [`DEVICES_MAX`].
    pub devices: u32,
    /// Microseconds between two readings of one device, at least 1.
    pub interval_us: u64,
    /// How many readings each device takes.
    pub steps: u64,
    /// The seed of everything that is left to chance.
    pub seed: u64,
    /// Event time of the first reading, microseconds since the Unix epoch.
    pub start_us: i64,
    /// The sites that the devices are spread over in turn; at least one.
    pub sites: Vec<String>,
    /// What goes wrong and how often.
    pub faults: Faults,
}

/// One PUBLISH of one device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The device's number, 0 to devices − 1.
    pub device: u32,
    /// Where to.
    pub topic: String,
    /// The payload; for a good message it is JSON text.
    pub payload: Vec<u8>,
    /// Set when the message is bad: why.
    pub bad: Option<Bad>,
}

/// The fleet. See [`Fleet::poll_message`].
#[derive(Debug)]
pub struct Fleet {
    settings: Settings,
    devices: Vec<Device>,
    /// The number of the next reading over all devices: step · devices + device.
    next: u64,
    held: BinaryHeap<Reverse<Held>>,
    held_max: usize,
    /// Counts messages held back, to keep their order.
    holds: u64,
    bad_messages: usize,
}

#[derive(Debug)]
struct Device {
    signal: Signal,
    faults: FaultLine,
}

/// A message that is published later than its reading was taken, ordered by when.
#[derive(Debug)]
struct Held {
    release_us: u64,
    order: u64,
    message: Message,
}

/// Most devices of one fleet: about a kilobyte each.
pub const DEVICES_MAX: u32 = 1_000_000;
/// Messages held back per device; beyond it readings are published in time.
const HELD_PER_DEVICE_MAX: usize = 16;
/// Each device has two streams of dice: what it measures and what goes wrong.
const STREAMS_PER_DEVICE: u64 = 2;

impl Fleet {
    /// A fleet at its start.
    pub fn new(settings: Settings) -> Self {
        assert!((1..=DEVICES_MAX).contains(&settings.devices) && !settings.sites.is_empty());
        assert!(settings.interval_us > 0);
        let dice = |stream| Dice::new(settings.seed, stream);
        let device = |number: u32| {
            let stream = u64::from(number) * STREAMS_PER_DEVICE;
            Device {
                signal: Signal::new(dice(stream)),
                faults: FaultLine::new(dice(stream + 1), &settings.faults),
            }
        };
        Self {
            devices: (0..settings.devices).map(device).collect(),
            next: 0,
            held: BinaryHeap::new(),
            held_max: HELD_PER_DEVICE_MAX * settings.devices as usize,
            holds: 0,
            bad_messages: 0,
            settings,
        }
    }

    /// The next message that is due when `elapsed_us` microseconds of event time have passed since the start, or
    /// `None` if none is. After the last step, what was held back is due at once.
    pub fn poll_message(&mut self, elapsed_us: u64) -> Option<Message> {
        loop {
            let due_us = self.due_us();
            let held_us = self.held.peek().map(|held| held.0.release_us);
            match (due_us, held_us) {
                (None, None) => return None,
                (None, Some(_)) => return self.held.pop().map(|held| held.0.message),
                (Some(due), Some(held)) if held <= due => {
                    return (held <= elapsed_us)
                        .then(|| self.held.pop().map(|held| held.0.message))
                        .flatten();
                }
                (Some(due), _) => {
                    if due > elapsed_us {
                        return None;
                    }
                    if let Some(message) = self.step(due) {
                        return Some(message);
                    }
                }
            }
        }
    }

    /// Whether every message has been given out.
    pub fn is_finished(&self) -> bool {
        self.due_us().is_none() && self.held.is_empty()
    }

    /// When the next reading is due, in microseconds since the start.
    fn due_us(&self) -> Option<u64> {
        let devices = u64::from(self.settings.devices);
        if self.next / devices >= self.settings.steps {
            return None;
        }
        let due = u128::from(self.next) * u128::from(self.settings.interval_us) / u128::from(devices);
        u64::try_from(due).ok()
    }

    /// Takes the next reading. Returns a message unless the reading is late or the device silent.
    fn step(&mut self, due_us: u64) -> Option<Message> {
        let number = (self.next % u64::from(self.settings.devices)) as u32;
        self.next += 1;
        let at_us = self.settings.start_us + due_us as i64;
        let device = &mut self.devices[number as usize];
        let sample = device.signal.step(at_us);
        let fate = device.faults.step(&self.settings.faults);
        let ts = at_us.div_euclid(1_000) + device.faults.skew_ms;
        match fate {
            Fate::Silent => None,
            Fate::Bad => {
                let bad = Bad::ALL[self.bad_messages % Bad::ALL.len()];
                self.bad_messages += 1;
                let (topic, payload) = bad.message(self.site(number), &device_name(number), ts);
                Some(Message {
                    device: number,
                    topic,
                    payload,
                    bad: Some(bad),
                })
            }
            Fate::Published { late_us, twice } => {
                let topic = format!("sensors/{}/{}/env", self.site(number), device_name(number));
                let message = Message {
                    device: number,
                    topic,
                    payload: payload(self.number(at_us), ts, sample),
                    bad: None,
                };
                let late_us = if self.held.len() < self.held_max {
                    late_us
                } else {
                    0
                };
                if twice {
                    self.hold(due_us + late_us, message.clone());
                }
                if late_us == 0 {
                    return Some(message);
                }
                self.hold(due_us + late_us, message);
                None
            }
        }
    }

    fn hold(&mut self, release_us: u64, message: Message) {
        self.holds += 1;
        self.held.push(Reverse(Held {
            release_us,
            order: self.holds,
            message,
        }));
    }

    /// A message's number: the device's intervals since 1970, by the fleet's clock. One more with each reading, and it
    /// does not start over with another run.
    fn number(&self, at_us: i64) -> u64 {
        at_us.max(0).unsigned_abs() / self.settings.interval_us
    }

    fn site(&self, device: u32) -> &str {
        &self.settings.sites[device as usize % self.settings.sites.len()]
    }
}

/// A device's name.
fn device_name(device: u32) -> String {
    format!("dev-{device:04}")
}

fn payload(seq: u64, ts: i64, sample: Sample) -> Vec<u8> {
    let (temp, hum) = (decimal(sample.temp_centi, 2), decimal(sample.hum_deci, 1));
    format!(r#"{{"seq":{seq},"ts":{ts},"temp":{temp},"data":{{"hum":{hum}}}}}"#).into_bytes()
}

/// `number` · 10^−`places` as text, with all its places.
fn decimal(number: i64, places: usize) -> String {
    let sign = if number < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", number.unsigned_abs(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    format!("{sign}{whole}.{fraction}")
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.release_us, self.order).cmp(&(other.release_us, other.order))
    }
}

#[cfg(test)]
mod tests;
