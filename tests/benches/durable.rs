//! What durability costs an agent: CPU, bytes on disk and time to an acknowledgement, side by side with an agent that
//! keeps nothing.
//!
//! `cargo bench -p catchment-tests --bench durable` prints a line for each mode and their ratio; `docs/BENCHMARKS.md`
//! has them.

#![allow(
    clippy::disallowed_methods,
    reason = "a bench watches processes from outside, by the clock"
)]
#![allow(dead_code, reason = "the support of all benches has more than this one uses")]

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use support::broker::FakeBroker;
use support::fleet::{self, Dice};
use support::process::Site;

const DEVICES: u64 = 1_000;
const RATE: u64 = 50_000;
const SECONDS: u64 = 20;
/// The agent's default receive maximum.
const WINDOW: u64 = 1_000;

fn main() -> Result<()> {
    let memory = measure("memory")?;
    let disk = measure("disk")?;
    println!("disk ÷ memory: {:.2} × the CPU", disk / memory);
    Ok(())
}

/// The agent's CPU seconds for each million QoS 1 messages in this mode.
fn measure(mode: &str) -> Result<f64> {
    let site = Site::start(support::PLAN)?;
    let broker = FakeBroker::bind()?;
    let agent = site.agent_at(
        broker.address()?,
        1,
        &format!("[durability]\nmode = \"{mode}\"\n"),
    )?;
    let mut subscriber = broker.accept()?;
    let start_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    let mut dice = Dice::new(1);
    let mut message = |number: u64| {
        let device = number % DEVICES;
        let at = start_ms + number * 1_000 / RATE;
        let temp = fleet::hundredths(device as usize, (number / DEVICES) as usize, &mut dice);
        let hum = 4_000 + dice.below(999);
        let payload = format!(
            r#"{{"ts":{at},"temp":{}.{:02},"hum":{}.{:02}}}"#,
            temp / 100,
            temp % 100,
            hum / 100,
            hum % 100
        );
        (
            format!("sensors/site-{}/device-{device:08}/env", device % 10),
            payload,
        )
    };
    let warm = RATE;
    subscriber.feed(warm, RATE, WINDOW, &mut message)?;
    let cpu = agent.cpu()?;
    let count = RATE * SECONDS;
    let fed = subscriber.feed(count, RATE, WINDOW, |number| message(warm + number))?;
    let cpu = agent.cpu()?.saturating_sub(cpu).as_secs_f64() * 1e6 / count as f64;
    site.wait_for("accepted", warm + count)?;
    let at = |part: f64| fed.latencies[((fed.latencies.len() - 1) as f64 * part) as usize];
    let millis = |latency: Duration| latency.as_secs_f64() * 1e3;
    println!(
        "{mode}: {cpu:.2} s of the agent's CPU for each million QoS 1 messages at {:.0}/s; acknowledged after {:.1} ms \
         (p50), {:.1} ms (p99); {:.1} bytes written for each reading; RSS {} KiB",
        count as f64 / fed.wall.as_secs_f64(),
        millis(at(0.5)),
        millis(at(0.99)),
        site.counter("disk_bytes")? as f64 / (warm + count) as f64,
        agent.rss()?.0,
    );
    Ok(cpu)
}
