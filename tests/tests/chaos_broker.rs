//! A broker that lags: Mosquitto gets the processor for less than a third of the time, while four connections publish
//! thousands of messages a second, and the agent is killed in the middle. What the broker has sent ahead and has no
//! acknowledgement of is then tens of thousands of messages, which it sends again. Each must count once, without any
//! help of the plan's `dedupe`.
//!
//! The agent dies after some seconds here, or after as many as `CATCHMENT_CHAOS_SECONDS` says, and devices publish for
//! as long again (`tests/chaos --lagging` runs it in full, many times).

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::process::{Process, binary};
use catchment_tests::verdict::wait_until_right;
use catchment_tests::world::{FLEET_PLAN, World};
use rustix::process::{Pid, Signal, kill_process};

/// When the agent dies, in the regular test run.
const SECONDS: u64 = 4;
/// How long it is away.
const AWAY: Duration = Duration::from_secs(2);
/// The broker stands for so long, and runs for so long, in turn.
const STANDS: Duration = Duration::from_millis(70);
const RUNS: Duration = Duration::from_millis(30);
/// 10,000 messages a second.
const FLEET: &str = "run --devices 1000 --rate 10 --connections 4";

/// Lets a process run for a part of the time, until it is dropped.
struct Lag {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lag {
    fn of(process: &Process) -> Self {
        let pid = Pid::from_raw(process.id().cast_signed()).expect("a process has an id");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let send = |signal| kill_process(pid, signal).expect("the broker runs");
            while !over.load(Ordering::Relaxed) {
                send(Signal::STOP);
                pause(STANDS);
                send(Signal::CONT);
                pause(RUNS);
            }
        });
        Self {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the broker stands and the agent is away in real time"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn an_agent_that_is_killed_while_its_broker_lags_doubles_nothing() {
    let seconds = std::env::var("CATCHMENT_CHAOS_SECONDS").ok();
    let seconds = seconds.map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    let world = World::new();
    let mut broker = Broker::mosquitto_that_sends_ahead(&world, "broker", 1_000);
    let aggregator = Aggregator::start(&world, FLEET_PLAN);
    let config = AgentConfig::new("gw-1", &broker.url(), &aggregator);
    let mut agent = config.start_subscribed(&world);
    let truth = world.path("truth.jsonl");
    let mut command = Command::new(binary("catchment-fleet"));
    command.args(FLEET.split(' '));
    command.args([
        "--duration",
        &format!("{}s", 2 * seconds),
        "--broker",
        &broker.url(),
    ]);
    command.arg("--truth").arg(&truth);

    let lag = Lag::of(broker.process());
    let mut fleet = Process::start("fleet", world.folder(), &mut command);
    pause(Duration::from_secs(seconds));
    assert!(agent.is_running() && fleet.is_running(), "it dies under load");
    agent.kill();
    pause(AWAY);
    let mut agent = config.start(&world);
    pause(Duration::from_secs(seconds));
    drop(lag);
    assert!(fleet.wait().success(), "{}", fleet.log());

    let report = wait_until_right(&aggregator, &[truth]);
    let counted = ["redelivered", "held_back", "maybe_repeated"]
        .map(|name| format!("{name} {}", aggregator.counter(name)))
        .join(", ");
    println!("{counted}\n{report}");
    assert_eq!(report.matches("+ 0 lost: balanced").count(), 2, "{report}");
    assert!(agent.is_running());
}
