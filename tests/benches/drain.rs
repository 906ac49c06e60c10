//! What an outage leaves behind, and how it goes: the start of an agent whose spool holds millions of partials, and how
//! fast they drain while live batches go on. All times begin with the agent's process: its start, its link and its
//! hello are in them.
//!
//! `cargo bench -p catchment-tests --bench drain` prints a line for each; `docs/BENCHMARKS.md` has them.

#![allow(
    clippy::disallowed_methods,
    reason = "a bench watches processes from outside, by the clock"
)]
#![allow(dead_code, reason = "the support of all benches has more than this one uses")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use support::broker::{FakeBroker, Subscriber, put_publish};
use support::fleet::{self, Dice};
use support::process::{PATIENCE, Process, Site};

const KEYS: usize = 1_000;
const PANES: i64 = 2_000;
const WINDOW_MS: i64 = 10_000;
/// Live panes close this often, with so many keys each.
const LIVE_EVERY: Duration = Duration::from_millis(20);
const LIVE_KEYS: usize = 100;
/// So many seconds longer than the backlog drains.
const LIVE_AFTER: f64 = 15.0;
/// Panes of event time that are left for the live ones.
const LIVE_PANES: i64 = 6_000;
const LIMITS: &str = "memory = \"8 MiB\"\nspool = \"64 MiB\"";

fn main() -> Result<()> {
    // Silence between the parts must not make their readings late.
    let plan = support::PLAN.to_owned() + "idle = \"1h\"\n";
    let mut site = Site::start(&plan)?;
    let broker = FakeBroker::bind()?;
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64);
    let mut feed = Feed {
        dice: Dice::new(1),
        from: now_ms / WINDOW_MS * WINDOW_MS - (PANES + LIVE_PANES) * WINDOW_MS,
    };
    let agent = site.agent(broker.address()?, LIMITS)?;
    let mut subscriber = broker.accept()?;
    subscriber.send(&feed.pane(0, 1))?;
    site.wait_for("accepted", 1)?;
    site.stop_aggregator();
    // Until it knows, the agent names what it closes.
    wait_for_log(&site, &mut subscriber, "no link to the aggregator")?;
    for pane in 1..=PANES {
        subscriber.send(&feed.pane(pane, KEYS))?;
    }
    wait_until_idle(&agent)?;
    let (rss, peak) = agent.rss()?;
    println!(
        "spool: {} KiB of files for {} partials; RSS {rss} KiB, peak {peak} KiB",
        spool_bytes(&site)? >> 10,
        PANES * KEYS as i64
    );
    drop((agent, subscriber));
    let agent = restart(&site, &broker)?;
    drop(agent);
    drain(&mut site, &broker, &mut feed)
}

/// Starts the agent on what its spool holds, without an aggregator.
fn restart(site: &Site, broker: &FakeBroker) -> Result<Process> {
    let start = Instant::now();
    let agent = site.agent(broker.address()?, LIMITS)?;
    let subscriber = broker.accept()?;
    let ready = start.elapsed();
    println!(
        "restart: {:.2} s of wall and {:.2} s of CPU until it has subscribed; it holds {} batches",
        ready.as_secs_f64(),
        agent.cpu()?.as_secs_f64(),
        batches(site)?,
    );
    drop(subscriber);
    Ok(agent)
}

/// Lets the backlog go, and closes live panes meanwhile.
fn drain(site: &mut Site, broker: &FakeBroker, feed: &mut Feed) -> Result<()> {
    site.start_aggregator()?;
    let database = site.database()?;
    let before = committed(&database)?;
    let (centre_cpu, start) = (site.aggregator.cpu()?, Instant::now());
    let agent = site.agent(broker.address()?, LIMITS)?;
    let mut subscriber = broker.accept()?;
    // The first live reading closes the last pane of the outage; from then on each pane that closes is one batch.
    subscriber.send(&feed.pane(PANES + 1, 1))?;
    // A moment, or it would be one batch with the first of those.
    std::thread::sleep(Duration::from_millis(100));
    let backlog = batches(site)? + 1;
    let mut live = Live {
        first: backlog + 1,
        pane: PANES + 1,
        sent: Vec::new(),
        done: 0,
        latencies: Vec::new(),
    };
    let mut ended = None;
    // When all is committed, the rows of all its windows are still to be written.
    let goes_on = |ended: Option<f64>| ended.is_none_or(|at| start.elapsed().as_secs_f64() < at + LIVE_AFTER);
    while goes_on(ended) || live.done < live.sent.len() {
        if goes_on(ended) {
            live.feed(start, feed, &mut subscriber)?;
        }
        // This run's epoch is the one that is new.
        let ranges = { committed(&database)?.into_iter() }.find(|(epoch, _)| !before.contains_key(epoch));
        let ranges = ranges.map(|(_, ranges)| ranges).unwrap_or_default();
        let now = Instant::now();
        live.note(&ranges, now);
        let seen: u64 = { ranges.iter() }
            .map(|&(first, last)| (last.min(backlog) + 1).saturating_sub(first))
            .sum();
        ensure!(
            start.elapsed() < PATIENCE,
            "{seen} of {backlog} batches and {} of {} live ones are committed: {ranges:?}",
            live.done,
            live.sent.len()
        );
        if seen >= backlog && ended.is_none() {
            ended = Some(start.elapsed().as_secs_f64());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let wall = ended.context("the backlog never ended")?;
    let count = live.latencies.len();
    ensure!(count > 0, "no live batch was committed");
    live.latencies.sort_unstable();
    let at = |part: usize| live.latencies[(count * part / 100).min(count - 1)].as_secs_f64() * 1e3;
    let partials = PANES as f64 * KEYS as f64;
    println!(
        "drain: {:.0} partials/s ({partials:.0} in {wall:.2} s from the agent's start, {backlog} batches); CPU {:.2} s of the \
         agent, {:.2} s of the aggregator",
        partials / wall,
        agent.cpu()?.as_secs_f64(),
        site.aggregator.cpu()?.saturating_sub(centre_cpu).as_secs_f64(),
    );
    println!(
        "live meanwhile: closed to committed p50 {:.0} ms, p99 {:.0} ms, worst {:.0} ms ({count} batches of {LIVE_KEYS} \
         keys, one after another, {} ms apart at least)",
        at(50),
        at(99),
        at(100),
        LIVE_EVERY.as_millis(),
    );
    Ok(())
}

/// Live batches: when their panes closed, and how long until they were committed.
struct Live {
    /// The seq of the first.
    first: u64,
    pane: i64,
    sent: Vec<Instant>,
    /// So many of them are committed.
    done: usize,
    latencies: Vec<Duration>,
}

impl Live {
    /// Closes a pane when it is time: the one before is committed, so that each is a batch of its own.
    fn feed(&mut self, start: Instant, feed: &mut Feed, subscriber: &mut Subscriber) -> Result<()> {
        let is_early = self.sent.last().unwrap_or(&start).elapsed() < LIVE_EVERY;
        if is_early || self.done < self.sent.len() {
            return Ok(());
        }
        ensure!(self.pane < PANES + LIVE_PANES, "out of event time");
        subscriber.send(&feed.pane(self.pane, LIVE_KEYS))?;
        self.pane += 1;
        let closing = feed.pane(self.pane, 1);
        self.sent.push(Instant::now());
        subscriber.send(&closing)
    }

    /// Notes which are committed.
    fn note(&mut self, ranges: &[(u64, u64)], now: Instant) {
        while let Some(&sent) = self.sent.get(self.done) {
            let seq = self.first + self.done as u64;
            if !ranges.iter().any(|&(first, last)| (first..=last).contains(&seq)) {
                break;
            }
            self.latencies.push(now - sent);
            self.done += 1;
        }
    }
}

/// Readings, pane by pane.
struct Feed {
    dice: Dice,
    from: i64,
}

impl Feed {
    /// One reading each of so many keys in the middle of a pane.
    fn pane(&mut self, pane: i64, keys: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for key in 0..keys {
            let at = self.from + pane * WINDOW_MS + 5_000 + key as i64 % 1_000;
            let temp = fleet::hundredths(key, pane as usize, &mut self.dice);
            let hum = 4_000 + self.dice.below(999);
            let payload = format!(
                r#"{{"ts":{at},"temp":{}.{:02},"hum":{}.{:02}}}"#,
                temp / 100,
                temp % 100,
                hum / 100,
                hum % 100
            );
            let topic = format!("sensors/site-{}/device-{key:08}/env", key % 10);
            put_publish(&mut out, &topic, payload.as_bytes());
        }
        out
    }
}

/// The ranges of seqs that are committed, epoch by epoch.
fn committed(database: &Connection) -> Result<BTreeMap<i64, Vec<(u64, u64)>>> {
    let mut all =
        database.prepare_cached("SELECT epoch, first, last FROM catchment_committed WHERE agent = 'gw-1'")?;
    let rows = all.query_map([], |row| {
        let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        Ok((row.get::<_, i64>(0)?, number(1)?, number(2)?))
    })?;
    let mut epochs: BTreeMap<i64, Vec<(u64, u64)>> = BTreeMap::new();
    for row in rows {
        let (epoch, first, last) = row?;
        epochs.entry(epoch).or_default().push((first, last));
    }
    Ok(epochs)
}

/// Batches that the agent found at its last start, as its log says.
fn batches(site: &Site) -> Result<u64> {
    let log = std::fs::read_to_string(site.folder().join("agent.log"))?;
    let line = log.lines().rev().find(|line| line.contains(" batches="));
    let number = line.and_then(|line| line.split(" batches=").nth(1)?.split_whitespace().next());
    Ok(number.context("no start in the log")?.parse()?)
}

fn spool_bytes(site: &Site) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(site.folder().join("state"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("spool-") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn wait_for_log(site: &Site, subscriber: &mut Subscriber, text: &str) -> Result<()> {
    let start = Instant::now();
    while !std::fs::read_to_string(site.folder().join("agent.log"))?.contains(text) {
        ensure!(start.elapsed() < PATIENCE, "the agent never says `{text}`");
        // Its pings are answered meanwhile.
        subscriber.answer()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Until the agent has done all that there is to do.
fn wait_until_idle(agent: &Process) -> Result<()> {
    let (start, mut before) = (Instant::now(), Duration::MAX);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let cpu = agent.cpu()?;
        if cpu.abs_diff(before) <= Duration::from_millis(20) {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "the agent does not come to rest");
        before = cpu;
    }
}
