//! The command line, and what its values mean.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rumqttc::QoS;

use crate::dice::Chance;
use crate::fault::Faults;
use crate::fleet::{DEVICES_MAX, Settings};
use crate::io::link::BrokerUrl;
use crate::io::{demo, replay, run};

/// A seeded fleet of devices with ground truth, its broker, and the oracle that checks the results.
#[derive(Parser, Debug)]
#[command(name = "catchment-fleet", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run an MQTT broker in memory, on loopback only.
    Broker {
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Simulate devices that publish to one or more brokers.
    Run(Box<RunArguments>),
    /// Publish a recorded series.
    Replay(Box<ReplayArguments>),
    /// Recompute every window from the truth and compare with the tables.
    Verify(CheckArguments),
    /// Account for every reading: published = in results + rejected.
    Audit(CheckArguments),
    /// Run the whole system (aggregator, three agents, brokers and devices), show it live, and audit it.
    Demo(DemoArguments),
}

/// What to check.
#[derive(Args, Debug)]
pub struct CheckArguments {
    /// A truth file; may be given several times.
    #[arg(long, required = true)]
    pub truth: Vec<PathBuf>,
    /// The aggregator's database.
    #[arg(long)]
    pub db: PathBuf,
}

/// How to run the demo.
#[derive(Args, Debug)]
pub struct DemoArguments {
    /// How long devices publish; without it until Ctrl-C.
    #[arg(long, value_parser = clap::value_parser!(u64).range(5..))]
    seconds: Option<u64>,
    /// Kill an agent and the aggregator (SIGKILL) on the way, and start them again.
    #[arg(long)]
    kill: bool,
    /// Keep the folder with configurations, logs, truth and database.
    #[arg(long)]
    keep: bool,
    /// How many devices, spread over three sites.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    devices: u32,
    /// Readings per second of each device.
    #[arg(long, default_value = "10", value_parser = interval)]
    rate: Interval,
    /// The seed of the devices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder of the agent's and the aggregator's programs; default: where this program is.
    #[arg(long)]
    programs: Option<PathBuf>,
}

/// How to simulate a fleet.
#[derive(Args, Debug)]
pub struct RunArguments {
    /// A broker, such as mqtt://127.0.0.1:1883; devices take the brokers in turn.
    #[arg(long, required = true)]
    broker: Vec<BrokerUrl>,
    /// How many devices.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    devices: u32,
    /// Readings per second of each device.
    #[arg(long, default_value = "1", value_parser = interval)]
    rate: Interval,
    /// How much event time to simulate.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// The seed; one seed and one start give the same messages.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write the truth.
    #[arg(long)]
    truth: PathBuf,
    /// 0: at most once; 1: at least once.
    #[arg(long, default_value = "1", value_parser = quality)]
    qos: QoS,
    /// After each reconnect publish again what was published in so long a time before: a broker that died may have
    /// forgotten what it acknowledged. The plan's `dedupe = "seq"` then counts it once.
    #[arg(long, value_parser = humantime::parse_duration)]
    resend: Option<Duration>,
    /// Event time of the first reading, RFC 3339; default now.
    #[arg(long)]
    start: Option<jiff::Timestamp>,
    /// A site; may be given several times. Default: one for each broker.
    #[arg(long, value_parser = site)]
    site: Vec<String>,
    /// Chance that a reading is published twice.
    #[arg(long, default_value = "0", value_parser = chance)]
    duplicates: Chance,
    /// Chance that a reading is published late, after later ones.
    #[arg(long, default_value = "0", value_parser = chance)]
    disorder: Chance,
    /// How late at most.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    disorder_by: Duration,
    /// How far a device's clock may be off, either way.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    skew: Duration,
    /// Chance, per reading, that the device falls silent for 5 to 60 readings.
    #[arg(long, default_value = "0", value_parser = chance)]
    dropouts: Chance,
    /// Share of readings replaced by bad messages of every kind in turn.
    #[arg(long, default_value = "0", value_parser = chance)]
    bad: Chance,
    /// MQTT connections per broker; devices share them.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Publish as fast as the brokers take it.
    #[arg(long)]
    unpaced: bool,
}

/// How to replay a series.
#[derive(Args, Debug)]
pub struct ReplayArguments {
    /// The series: a CSV file with the header `timestamp,value`.
    #[arg(long)]
    csv: PathBuf,
    /// Where to publish; `{device}` is filled in.
    #[arg(long)]
    topic: String,
    /// The device's name.
    #[arg(long)]
    device: String,
    /// Seconds of event time per second, or `max`.
    #[arg(long, default_value = "max", value_parser = speed)]
    speed: Speed,
    /// The broker, such as mqtt://127.0.0.1:1883.
    #[arg(long)]
    broker: BrokerUrl,
    /// Where to write the truth.
    #[arg(long)]
    truth: PathBuf,
    /// Go on with the truth file rather than start it anew.
    #[arg(long)]
    append: bool,
    /// 0: at most once; 1: at least once.
    #[arg(long, default_value = "1", value_parser = quality)]
    qos: QoS,
    /// What the value is called in the payload.
    #[arg(long, default_value = "value")]
    value_name: String,
}

/// Microseconds between two readings.
#[derive(Clone, Copy, Debug)]
struct Interval(u64);

/// Seconds of event time per second; none is flat out.
#[derive(Clone, Copy, Debug)]
struct Speed(Option<f64>);

/// The sites of the first brokers.
const SITES: [&str; 8] = [
    "berlin", "lisbon", "oslo", "quito", "nairobi", "osaka", "perth", "austin",
];
/// Fastest and slowest device: its interval must be a whole number of microseconds, and no more than a day.
const RATE: (f64, f64) = (1.0 / 86_400.0, 10_000.0);

impl RunArguments {
    /// The fleet, starting at `now_us` (microseconds since the Unix epoch) unless told otherwise.
    pub fn settings(&self, now_us: i64) -> Settings {
        let Interval(interval_us) = self.rate;
        let default_site = |index: usize| {
            SITES
                .get(index)
                .map_or(format!("site-{index}"), ToString::to_string)
        };
        let sites = if self.site.is_empty() {
            (0..self.broker.len()).map(default_site).collect()
        } else {
            self.site.clone()
        };
        Settings {
            devices: self.devices,
            interval_us,
            steps: micros(self.duration) / interval_us,
            seed: self.seed,
            start_us: self.start.map_or(now_us, jiff::Timestamp::as_microsecond),
            sites,
            faults: Faults {
                duplicates: self.duplicates,
                disorder: self.disorder,
                disorder_us: micros(self.disorder_by),
                skew_ms: u32::try_from(self.skew.as_millis()).unwrap_or(u32::MAX),
                dropouts: self.dropouts,
                bad: self.bad,
            },
        }
    }

    /// How to publish it.
    pub fn options(&self) -> run::Options {
        run::Options {
            brokers: self.broker.clone(),
            connections: self.connections,
            qos: self.qos,
            resend: self.resend,
            unpaced: self.unpaced,
            truth: self.truth.clone(),
        }
    }
}

impl From<DemoArguments> for demo::Options {
    fn from(arguments: DemoArguments) -> Self {
        let DemoArguments {
            seconds,
            kill,
            keep,
            devices,
            rate: Interval(interval_us),
            seed,
            programs,
        } = arguments;
        Self {
            seconds,
            kill,
            keep,
            devices,
            interval_us,
            seed,
            programs,
        }
    }
}

impl From<ReplayArguments> for replay::Options {
    fn from(arguments: ReplayArguments) -> Self {
        let ReplayArguments {
            csv,
            topic,
            device,
            speed,
            broker,
            truth,
            append,
            qos,
            value_name,
        } = arguments;
        Self {
            csv,
            topic,
            device,
            value_name,
            speed: speed.0,
            broker,
            qos,
            truth,
            append,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn interval(text: &str) -> Result<Interval, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if (RATE.0..=RATE.1).contains(&rate) {
        Ok(Interval((1_000_000.0 / rate).round() as u64))
    } else {
        Err("give a rate between one a day and 10000 Hz".into())
    }
}

fn chance(text: &str) -> Result<Chance, String> {
    let probability: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    Chance::new(probability).map_err(|error| error.to_string())
}

fn quality(text: &str) -> Result<QoS, String> {
    match text {
        "0" => Ok(QoS::AtMostOnce),
        "1" => Ok(QoS::AtLeastOnce),
        _ => Err("give 0 or 1".into()),
    }
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed(None));
    }
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(Speed(Some(speed))),
        _ => Err("give a number above 0, or `max`".into()),
    }
}

fn site(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', '+', '#', '\0']) {
        return Err("a site is one level of a topic".into());
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(line: &str) -> Result<Settings, String> {
        let words = format!("catchment-fleet run --truth t {line}");
        let arguments = Arguments::try_parse_from(words.split(' ')).map_err(|error| error.to_string())?;
        match arguments.command {
            Command::Run(run) => Ok(run.settings(7)),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_run_in_full() {
        let line = "--broker mqtt://a --broker mqtt://b:7 --devices 30 --rate 10 --duration 1m --seed 5 --skew 2s \
                    --start 2026-11-23T08:12:00Z --duplicates 0.5 --disorder 1 --bad 0.25";
        let settings = settings(line).unwrap();
        assert_eq!(
            (settings.devices, settings.interval_us, settings.steps),
            (30, 100_000, 600)
        );
        assert_eq!((settings.seed, settings.start_us), (5, 1_795_421_520_000_000));
        assert_eq!(settings.sites, ["berlin", "lisbon"]);
        assert_eq!(
            (settings.faults.skew_ms, settings.faults.disorder_us),
            (2_000, 5_000_000)
        );
        assert_eq!(settings.faults.duplicates, Chance::new(0.5).unwrap());
    }

    #[test]
    fn defaults_and_faults() {
        let plain = settings("--broker mqtt://a --site x --site y").unwrap();
        assert_eq!(
            (plain.start_us, plain.sites.len(), plain.faults.bad),
            (7, 2, Chance::NEVER)
        );
        for line in [
            "",
            "--broker nowhere",
            "--broker mqtt://a --rate 0",
            "--broker mqtt://a --rate 1e9",
            "--broker mqtt://a --bad 1.1",
            "--broker mqtt://a --qos 2",
            "--broker mqtt://a --devices 0",
            "--broker mqtt://a --connections 0",
            "--broker mqtt://a --site a/b",
            "--broker mqtt://a --start yesterday",
        ] {
            assert!(settings(line).is_err(), "{line}");
        }
    }
}
