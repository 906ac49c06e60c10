//! What whole processes cost: CPU for each million messages, memory, bytes on the link, and time to a visible row.
//!
//! `cargo bench -p catchment-tests --bench processes -- flat mosquitto memory connections queries latency` runs the
//! named measurements, or all without a name. Each prints one line or a few; `docs/BENCHMARKS.md` has them.

#![allow(
    clippy::disallowed_methods,
    reason = "a bench watches processes from outside, by the clock"
)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use support::broker::{FakeBroker, Publisher, put_publish};
use support::fleet::{self, Dice};
use support::links;
use support::process::{Process, Site};

type Measure = fn() -> Result<()>;

fn main() -> Result<()> {
    let all: [(&str, Measure); 6] = [
        ("flat", flat),
        ("mosquitto", mosquitto),
        ("memory", memory),
        ("connections", connections),
        ("queries", queries),
        ("latency", latency),
    ];
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    for (name, measure) in all {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            measure().with_context(|| format!("measuring `{name}`"))?;
        }
    }
    Ok(())
}

const WINDOW_MS: i64 = 10_000;
const PACKET_BYTES: usize = 84;

/// The wall clock, in milliseconds.
fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

/// A window's start, some windows before now.
fn windows_ago(count: i64) -> i64 {
    now_ms() / WINDOW_MS * WINDOW_MS - count * WINDOW_MS
}

/// Prepared packets of 84 bytes: each device once a second of event time.
fn packets(devices: usize, from_ms: i64, seconds: usize, dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::with_capacity(devices * seconds * PACKET_BYTES);
    for second in 0..seconds {
        for device in 0..devices {
            let at = from_ms + second as i64 * 1_000 + (device * 1_000 / devices) as i64;
            put_reading(&mut out, device, at, second, dice);
        }
    }
    assert_eq!(out.len(), devices * seconds * PACKET_BYTES);
    out
}

fn put_reading(out: &mut Vec<u8>, device: usize, at_ms: i64, second: usize, dice: &mut Dice) {
    let temp = fleet::hundredths(device, second, dice);
    let hum = 4_000 + dice.below(999);
    let payload = format!(
        r#"{{"ts":{at_ms},"temp":{}.{:02},"hum":{}.{:02}}}"#,
        temp / 100,
        temp % 100,
        hum / 100,
        hum % 100
    );
    let topic = format!("sensors/site-{}/device-{device:08}/env", device % 10);
    put_publish(out, &topic, payload.as_bytes());
}

/// The agent's CPU for each million messages, fed as fast as it reads.
fn flat() -> Result<()> {
    const DEVICES: usize = 1_000;
    const SECONDS: usize = 2_000;
    const WARM_SECONDS: usize = 100;
    let site = Site::start(support::PLAN)?;
    let broker = FakeBroker::bind()?;
    let agent = site.agent(broker.address()?, "memory = \"8 MiB\"")?;
    let mut subscriber = broker.accept()?;
    let from = windows_ago((SECONDS + WARM_SECONDS) as i64 / 10 + 10);
    let mut dice = Dice::new(1);
    subscriber.send(&packets(DEVICES, from, WARM_SECONDS, &mut dice))?;
    let warm = (DEVICES * WARM_SECONDS) as u64;
    site.wait_for("messages", warm)?;
    let feed = packets(DEVICES, from + WARM_SECONDS as i64 * 1_000, SECONDS, &mut dice);
    let (cpu, start) = (agent.cpu()?, Instant::now());
    subscriber.send(&feed)?;
    let count = (DEVICES * SECONDS) as u64;
    site.wait_for("messages", warm + count)?;
    let (cpu, wall) = (agent.cpu()?.saturating_sub(cpu), start.elapsed());
    report_messages("flat out", &site, &agent, cpu, wall, count)
}

fn report_messages(
    name: &str,
    site: &Site,
    agent: &Process,
    cpu: Duration,
    wall: Duration,
    count: u64,
) -> Result<()> {
    let (rss, peak) = agent.rss()?;
    println!(
        "{name}: {:.3} s of the agent's CPU for each million messages ({count} in {:.2} s, {} rejected, RSS {rss} KiB, \
         peak {peak} KiB)",
        cpu.as_secs_f64() * 1e6 / count as f64,
        wall.as_secs_f64(),
        site.counter("received")? - site.counter("accepted")?,
    );
    Ok(())
}

/// The same through Mosquitto at 10,000 messages a second.
fn mosquitto() -> Result<()> {
    const DEVICES: usize = 1_000;
    const RATE: u64 = 10_000;
    const SECONDS: u64 = 30;
    let site = Site::start(support::PLAN)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = site.folder().join("mosquitto.conf");
    std::fs::write(
        &config,
        format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"),
    )?;
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(config).env("PATH", path);
    let broker = match Process::spawn("Mosquitto", &mut command, &site.folder().join("mosquitto.log")) {
        Ok(broker) => broker,
        Err(error) => {
            println!("mosquitto: not measured: {error:#}");
            return Ok(());
        }
    };
    let address = ([127, 0, 0, 1], port).into();
    let mut publisher = Publisher::connect(address)?;
    let agent = site.agent(address, "memory = \"8 MiB\"")?;
    // One reading again and again until one arrives: then the agent has subscribed.
    let (mut dice, from, mut one) = (Dice::new(1), windows_ago(10), Vec::new());
    put_reading(&mut one, 0, from, 0, &mut dice);
    while site.counter("messages")? == 0 {
        publisher.send(&one)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(2));
    let before = site.counter("messages")?;
    let feed = packets(DEVICES, from, (RATE * SECONDS) as usize / DEVICES, &mut dice);
    let (cpu, broker_cpu, start) = (agent.cpu()?, broker.cpu()?, Instant::now());
    let (count, mut sent) = (RATE * SECONDS, 0);
    while sent < count {
        let due = (start.elapsed().as_micros() as u64 * RATE / 1_000_000).min(count);
        publisher.send(&feed[sent as usize * PACKET_BYTES..due as usize * PACKET_BYTES])?;
        sent = due;
        std::thread::sleep(Duration::from_micros(50));
    }
    site.wait_for("messages", before + count)?;
    let (cpu, wall) = (agent.cpu()?.saturating_sub(cpu), start.elapsed());
    report_messages("through Mosquitto at 10,000/s", &site, &agent, cpu, wall, count)?;
    let broker_cpu = broker.cpu()?.saturating_sub(broker_cpu).as_secs_f64() * 1e6 / count as f64;
    println!("  Mosquitto itself: {broker_cpu:.2} s for each million");
    Ok(())
}

/// The agent's memory at 10,000 keys of two fields, pane after pane.
fn memory() -> Result<()> {
    const DEVICES: usize = 10_000;
    const WINDOWS: i64 = 30;
    let site = Site::start(support::PLAN)?;
    let broker = FakeBroker::bind()?;
    let agent = site.agent(broker.address()?, "memory = \"13 MiB\"\nspool = \"4 MiB\"")?;
    let mut subscriber = broker.accept()?;
    let (mut dice, from, mut marks) = (Dice::new(1), windows_ago(WINDOWS + 10), Vec::new());
    for window in 0..WINDOWS {
        subscriber.send(&packets(DEVICES, from + window * WINDOW_MS, 10, &mut dice))?;
        site.wait_for("messages", (window + 1) as u64 * DEVICES as u64 * 10)?;
        marks.push(agent.rss()?.0);
    }
    let (_, peak) = agent.rss()?;
    println!(
        "memory: agent's RSS with {DEVICES} keys of 2 fields: {} KiB after 3 windows, {} after 15, {} after 30; peak {peak} \
         KiB = {:.1} MiB; {} deltas emitted early",
        marks[2],
        marks[14],
        marks[29],
        peak as f64 / 1_024.0,
        site.counter("emitted_early")?,
    );
    Ok(())
}

/// The aggregator's memory for each connected idle agent.
fn connections() -> Result<()> {
    const AGENTS: usize = 500;
    let site = Site::start(support::PLAN)?;
    let mut fleet = links::Fleet::new(&site)?;
    // The first few settle what is paid once.
    fleet.connect(20)?;
    let (before, _) = site.aggregator.rss()?;
    fleet.connect(AGENTS)?;
    std::thread::sleep(Duration::from_secs(3));
    let (after, peak) = site.aggregator.rss()?;
    println!(
        "connections: {:.1} KiB of the aggregator's RSS for each of {AGENTS} idle agents ({before} KiB before, {after} \
         after, peak {peak})",
        (after - before) as f64 / AGENTS as f64
    );
    Ok(())
}

/// What 999 queries more on the same pipeline add to the link.
fn queries() -> Result<()> {
    let one = link_bytes(1)?;
    let many = link_bytes(1_000)?;
    println!(
        "queries: {} B of frames and {} B of UDP payload with 1 query, {} and {} with 1,000: ratio {:.4} and {:.4}",
        one.0,
        one.1,
        many.0,
        many.1,
        many.0 as f64 / one.0 as f64,
        many.1 as f64 / one.1 as f64,
    );
    Ok(())
}

fn link_bytes(queries: usize) -> Result<(u64, u64)> {
    const DEVICES: usize = 500;
    const SECONDS: usize = 600;
    let mut plan = support::PLAN.to_owned();
    for index in 1..queries {
        plan += &support::PLAN
            .replace("\"climate\"", &format!("\"climate_{index}\""))
            .replace("size = \"10s\"", &format!("size = \"{}h\"", 1 + index % 24));
    }
    let site = Site::start(&plan)?;
    let broker = FakeBroker::bind()?;
    let _agent = site.agent(broker.address()?, "memory = \"8 MiB\"")?;
    let mut subscriber = broker.accept()?;
    let (mut dice, from) = (Dice::new(1), windows_ago(SECONDS as i64 / 10 + 10));
    let feed = packets(DEVICES, from, SECONDS, &mut dice);
    // A window at a time, as time would have it: all have the same batches.
    for (window, packets) in feed.chunks(DEVICES * 10 * PACKET_BYTES).enumerate() {
        subscriber.send(packets)?;
        site.wait_for("messages", ((window + 1) * DEVICES * 10) as u64)?;
    }
    std::thread::sleep(Duration::from_secs(2));
    Ok((site.counter("uplink_bytes")?, site.counter("link_bytes")?))
}

/// From the reading that makes a pane closable to its row in the result table.
fn latency() -> Result<()> {
    const DEVICES: usize = 100;
    const WINDOWS: i64 = 300;
    let site = Site::start(support::PLAN)?;
    let broker = FakeBroker::bind()?;
    let _agent = site.agent(broker.address()?, "memory = \"8 MiB\"")?;
    let mut subscriber = broker.accept()?;
    let database = site.database()?;
    let mut newest = database.prepare("SELECT count(*) FROM climate WHERE window_start = ?1")?;
    let (mut dice, from, mut times) = (Dice::new(1), windows_ago(WINDOWS + 10), Vec::new());
    for window in 0..WINDOWS {
        let start = from + window * WINDOW_MS;
        let mut feed = Vec::new();
        for device in 0..DEVICES {
            put_reading(&mut feed, device, start + 5_000, 0, &mut dice);
        }
        subscriber.send(&feed)?;
        // Not in step with anything the processes do.
        std::thread::sleep(Duration::from_millis(30) + Duration::from_micros(dice.below(20_000)));
        let mut closing = Vec::new();
        put_reading(&mut closing, 0, start + WINDOW_MS + 1_000, 0, &mut dice);
        let name = time_text(start)?;
        let sent = Instant::now();
        subscriber.send(&closing)?;
        while newest.query_row([&name], |row| row.get::<_, i64>(0))? == 0 {
            anyhow::ensure!(sent.elapsed() < support::process::PATIENCE, "no row of {name}");
            std::thread::sleep(Duration::from_micros(100));
        }
        times.push(sent.elapsed());
    }
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 1_000].as_secs_f64() * 1e3;
    println!(
        "latency: pane closable to row visible and durable: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, worst {:.1} ms \
         ({DEVICES} rows a window, {WINDOWS} windows; one fdatasync of 4 KiB on this disk: p50 {:.1} ms)",
        at(500),
        at(900),
        at(990),
        times[times.len() - 1].as_secs_f64() * 1e3,
        sync_time(site.folder())?.as_secs_f64() * 1e3,
    );
    Ok(())
}

fn time_text(ms: i64) -> Result<String> {
    let at = catchment_common::time::Timestamp::from_micros(ms * 1_000).context("time")?;
    Ok(catchment_aggregator::store::text::time_text(at))
}

/// The median time that this disk takes to make 4 KiB durable.
fn sync_time(folder: &std::path::Path) -> Result<Duration> {
    use std::io::Write;
    let mut file = std::fs::File::create(folder.join("sync"))?;
    let mut times = Vec::new();
    for _ in 0..101 {
        file.write_all(&[0; 4_096])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[50])
}
