//! What goes wrong between a sensor and the broker, at chances that the caller sets.
//!
//! Faults have their own dice, so that switching one on changes no measured value. A bad message is one that the
//! agent must refuse, and its [`Bad`] names the reason that the agent must count it under.

use crate::dice::{Chance, Dice};

/// How often each fault happens, per reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// The device publishes the same reading a second time.
    pub duplicates: Chance,
    /// The reading is published late, after later ones.
    pub disorder: Chance,
    /// How late at most, in microseconds.
    pub disorder_us: u64,
    /// Each device's clock is off by a constant of at most this number of milliseconds, either way.
    pub skew_ms: u32,
    /// The device falls silent for 5 to 60 readings.
    pub dropouts: Chance,
    /// The reading is replaced by a bad message.
    pub bad: Chance,
}

/// What happens to one reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is never published.
    Silent,
    /// A bad message is published in its place.
    Bad,
    /// It is published `late_us` microseconds late (0: in time), once or twice.
    Published {
        /// Microseconds between the reading and its publication.
        late_us: u64,
        /// Whether it is published twice.
        twice: bool,
    },
}

/// The faults of one device.
#[derive(Clone, Debug)]
pub struct FaultLine {
    dice: Dice,
    /// What this device's clock shows less the truth, in milliseconds.
    pub skew_ms: i64,
    silent: u32,
}

/// A drop-out's shortest length and what may be added to it, in readings.
const SILENT_READINGS: (u32, u32) = (5, 56);

impl FaultLine {
    /// The faults of a device; `dice` must be its own.
    pub fn new(mut dice: Dice, faults: &Faults) -> Self {
        let skew_ms = dice.around_zero(faults.skew_ms);
        Self {
            dice,
            skew_ms,
            silent: 0,
        }
    }

    /// The fate of the next reading.
    pub fn step(&mut self, faults: &Faults) -> Fate {
        // As in `Signal::step`: always the same number of draws.
        let twice = self.dice.hits(faults.duplicates);
        let late = self.dice.hits(faults.disorder);
        let late_ms = 1 + self
            .dice
            .below(u32::try_from(faults.disorder_us / 1_000).unwrap_or(u32::MAX));
        let bad = self.dice.hits(faults.bad);
        let drop_out = self.dice.hits(faults.dropouts);
        let silent = SILENT_READINGS.0 + self.dice.below(SILENT_READINGS.1);
        if self.silent > 0 {
            self.silent -= 1;
            return Fate::Silent;
        }
        if drop_out {
            self.silent = silent - 1;
            return Fate::Silent;
        }
        if bad {
            return Fate::Bad;
        }
        Fate::Published {
            late_us: if late { u64::from(late_ms) * 1_000 } else { 0 },
            twice,
        }
    }
}

/// A kind of bad message, named by the reason that the agent must count it under. What is bad about values is bad about
/// both of them: one good value is a reading.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bad {
    /// Not JSON.
    MalformedJson,
    /// Values that are not numbers.
    WrongType,
    /// Neither time nor values.
    MissingField,
    /// NaN or an infinity.
    NotFinite,
    /// Values of 10¹⁸ or more.
    OutOfRange,
    /// Bytes that are not UTF-8.
    InvalidUtf8,
    /// No bytes.
    EmptyPayload,
    /// More bytes than an agent takes.
    OversizedPayload,
    /// Site and device names that are too long for a key.
    BadKey,
    /// An event time in 2099.
    TooEarly,
    /// An event time in 1971.
    TooLate,
}

/// Longer than an agent's default limit of 64 KiB for one payload.
const OVERSIZED_BYTES: usize = 70 << 10;
/// Longer than the longest key of 192 bytes.
const LONG_NAME_BYTES: usize = 201;
/// 2099-01-01 in milliseconds since the Unix epoch.
const FUTURE_MS: i64 = 4_070_908_800_000;
/// 1971-01-01 in milliseconds since the Unix epoch.
const PAST_MS: i64 = 31_536_000_000;

impl Bad {
    /// Every kind, in the order in which the fleet cycles through them.
    pub const ALL: [Self; 11] = [
        Self::MalformedJson,
        Self::WrongType,
        Self::MissingField,
        Self::NotFinite,
        Self::OutOfRange,
        Self::InvalidUtf8,
        Self::EmptyPayload,
        Self::OversizedPayload,
        Self::BadKey,
        Self::TooEarly,
        Self::TooLate,
    ];

    /// The reason's name, as in the truth file and, behind `rejected_`, in `catchment_counter`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::WrongType => "wrong_type",
            Self::MissingField => "missing_field",
            Self::NotFinite => "not_finite",
            Self::OutOfRange => "out_of_range",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::EmptyPayload => "empty_payload",
            Self::OversizedPayload => "oversized_payload",
            Self::BadKey => "bad_key",
            Self::TooEarly => "too_early",
            Self::TooLate => "too_late",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bad| bad.name() == name)
    }

    /// A bad message's topic and payload, for the device `device` at `site` at `ts` milliseconds.
    pub fn message(self, site: &str, device: &str, ts: i64) -> (String, Vec<u8>) {
        let topic = match self {
            // Both names: the message is then bad for every query that has one of them in its key.
            Self::BadKey => {
                let long = "x".repeat(LONG_NAME_BYTES);
                format!("sensors/{site}-{long}/{device}-{long}/env")
            }
            _ => format!("sensors/{site}/{device}/env"),
        };
        (topic, self.payload(ts))
    }

    fn payload(self, ts: i64) -> Vec<u8> {
        let reading = |ts: i64, temp: &str, hum: &str| {
            format!(r#"{{"ts":{ts},"temp":{temp},"data":{{"hum":{hum}}}}}"#).into_bytes()
        };
        match self {
            Self::MalformedJson => format!(r#"{{"ts":{ts},"temp":21.3"#).into_bytes(),
            Self::WrongType => reading(ts, r#""warm""#, "[45]"),
            Self::MissingField => br#"{"battery":3.1}"#.to_vec(),
            Self::NotFinite => {
                let (temp, hum) = [("NaN", "nan"), ("-Infinity", "\"inf\"")][usize::from(ts % 2 == 0)];
                reading(ts, temp, hum)
            }
            Self::OutOfRange => reading(ts, "1e300", "-1000000000000000000"),
            Self::InvalidUtf8 => {
                let mut payload = reading(ts, "21.3", "45.2");
                payload.extend_from_slice(b"\xc3\x28");
                payload
            }
            Self::EmptyPayload => Vec::new(),
            Self::OversizedPayload => {
                let pad = "x".repeat(OVERSIZED_BYTES);
                format!(r#"{{"ts":{ts},"temp":21.3,"data":{{"hum":45.2}},"pad":"{pad}"}}"#).into_bytes()
            }
            Self::BadKey => reading(ts, "21.3", "45.2"),
            Self::TooEarly => reading(FUTURE_MS, "21.3", "45.2"),
            Self::TooLate => reading(PAST_MS, "21.3", "45.2"),
        }
    }
}

#[cfg(test)]
mod tests {
    use catchment_common::metrics::Reason;

    use super::*;

    #[test]
    fn names_are_those_that_the_agent_counts() {
        for bad in Bad::ALL {
            let counter = format!("rejected_{}", bad.name());
            assert!(
                Reason::ALL.iter().any(|reason| reason.name() == counter),
                "{counter}"
            );
            assert_eq!(Bad::from_name(bad.name()), Some(bad));
        }
        assert_eq!(Bad::from_name("no_match"), None);
    }

    #[test]
    fn every_bad_message_is_bad() {
        for bad in Bad::ALL {
            let (topic, payload) = bad.message("oslo", "dev-0001", 1_700_000_000_000);
            let json = serde_json::from_slice::<serde_json::Value>(&payload);
            let is_json = json.is_ok();
            let expected = !matches!(
                bad,
                // 1e300 is JSON; the agent refuses it as a value.
                Bad::MalformedJson | Bad::NotFinite | Bad::InvalidUtf8 | Bad::EmptyPayload
            );
            assert_eq!(is_json, expected, "{}", bad.name());
            assert_eq!(std::str::from_utf8(&payload).is_err(), bad == Bad::InvalidUtf8);
            assert_eq!(payload.len() > 64 << 10, bad == Bad::OversizedPayload);
            assert_eq!(topic.len() > 400, bad == Bad::BadKey);
        }
    }

    #[test]
    fn fates_come_at_their_chances() {
        let half = Chance::new(0.5).unwrap();
        let faults = Faults {
            duplicates: half,
            disorder: half,
            disorder_us: 5_000_000,
            ..Faults::default()
        };
        let mut line = FaultLine::new(Dice::new(1, 0), &faults);
        let fates: Vec<Fate> = (0..1_000).map(|_| line.step(&faults)).collect();
        let twice = fates
            .iter()
            .filter(|fate| matches!(fate, Fate::Published { twice: true, .. }))
            .count();
        let late = |fate: &&Fate| {
            matches!(
                fate,
                Fate::Published {
                    late_us: 1..=5_000_000,
                    ..
                }
            )
        };
        let late = fates.iter().filter(late).count();
        assert!(
            (400..600).contains(&twice) && (400..600).contains(&late),
            "{twice} {late}"
        );
        assert_eq!(line.skew_ms, 0);
    }

    #[test]
    fn a_drop_out_lasts_a_while_and_ends() {
        let faults = Faults {
            dropouts: Chance::new(0.01).unwrap(),
            ..Faults::default()
        };
        let mut line = FaultLine::new(Dice::new(4, 0), &faults);
        let silent: Vec<bool> = (0..5_000).map(|_| line.step(&faults) == Fate::Silent).collect();
        let runs: Vec<usize> = silent
            .chunk_by(|a, b| a == b)
            .filter(|run| run[0])
            .map(<[bool]>::len)
            .collect();
        assert!(runs.len() > 10, "{runs:?}");
        assert!(runs.iter().all(|run| *run >= 5), "{runs:?}");
        assert!(runs.iter().any(|run| *run <= 60), "{runs:?}");
    }

    #[test]
    fn skew_is_within_its_limit_and_differs() {
        let faults = Faults {
            skew_ms: 2_000,
            ..Faults::default()
        };
        let skews: Vec<i64> = (0..100)
            .map(|device| FaultLine::new(Dice::new(1, device), &faults).skew_ms)
            .collect();
        assert!(skews.iter().all(|skew| skew.abs() <= 2_000));
        assert!(skews.iter().any(|skew| *skew < -1_000) && skews.iter().any(|skew| *skew > 1_000));
    }
}
