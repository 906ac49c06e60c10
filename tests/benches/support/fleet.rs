//! Sensor readings that look like sensor readings: slow drift, a little noise, two decimals.

use std::fmt::Write as _;

use catchment_common::number::decimal::{Resolution, Value};

/// A small generator (xorshift64*): the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A generator for this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.roll() >> 11) % limit
    }

    /// Noise around zero with a standard deviation of about `width` (the sum of four even throws).
    pub fn noise(&mut self, width: f64) -> f64 {
        let sum: u64 = (0..4).map(|_| self.below(1_000)).sum();
        (sum as f64 - 1_998.0) / 577.0 * width
    }
}

/// The topic of a device, of the form `sensors/site-0/device-00042/env`.
pub fn topic(device: usize) -> String {
    format!("sensors/site-{}/device-{device:05}/env", device % 10)
}

/// A device's temperature in hundredths at its n-th reading: a level of its own, slow drift, noise of 0.05.
pub fn hundredths(device: usize, reading: usize, dice: &mut Dice) -> i64 {
    let level = 1_800 + (device as i64 * 7_919) % 900;
    let drift = (reading as f64 / 60.0).sin() * 100.0;
    level + drift as i64 + dice.noise(5.0) as i64
}

/// A payload of 100 bytes with two measured fields among five.
pub fn payload_100(device: usize, micros: i64, dice: &mut Dice) -> Vec<u8> {
    let temp = hundredths(device, (micros / 1_000_000) as usize, dice);
    let hum = 4_000 + dice.below(999);
    let mut text = format!(
        r#"{{"ts":{},"temp":{}.{:02},"hum":{}.{:02},"battery":3.{:02},"seq":{:06},"status":"ok","#,
        (super::EPOCH + micros) / 1_000,
        temp / 100,
        temp % 100,
        hum / 100,
        hum % 100,
        dice.below(90) + 10,
        100_000 + dice.below(900_000),
    );
    let fill = 100 - text.len() - r#""fw":""}"#.len();
    let _ = write!(text, r#""fw":"{:x<fill$}"}}"#, "2.0.1");
    assert_eq!(text.len(), 100);
    text.into_bytes()
}

/// A value of so many hundredths, as the text of a payload gives it.
pub fn value(hundredths: i64) -> Value {
    let resolution = Resolution::from_units(10_i128.pow(16)).expect("a hundredth is a resolution");
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let parsed = Value::parse(text.as_bytes()).expect("a number");
    resolution.round(parsed).expect("in range")
}
