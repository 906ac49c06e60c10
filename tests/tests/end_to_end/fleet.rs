//! A faulty fleet, three gateways, one centre: every row equals the truth and every reading is accounted for.

use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::process::Process;
use catchment_tests::verdict::{publish_fleet, wait_until_right};
use catchment_tests::world::{FLEET_PLAN, World};

/// Every fault that the fleet knows, at rates that make each happen many times.
const FAULTS: [&str; 12] = [
    "--duplicates",
    "0.05",
    "--disorder",
    "0.1",
    "--disorder-by",
    "20s",
    "--skew",
    "1s",
    "--dropouts",
    "0.002",
    "--bad",
    "0.02",
];

/// The start of event time: past by the time it is played, so that the last windows close at once.
pub(crate) fn start_minutes_ago(minutes: i64) -> String {
    let now = jiff::Timestamp::now();
    (now - jiff::SignedDuration::from_mins(minutes)).to_string()
}

fn check(world: &World, brokers: &[Broker]) {
    let aggregator = Aggregator::start(world, FLEET_PLAN);
    let agents: Vec<Process> = brokers
        .iter()
        .enumerate()
        .map(|(index, broker)| {
            let name = format!("gw-{index}");
            AgentConfig::new(&name, &broker.url(), &aggregator).start_subscribed(world)
        })
        .collect();
    let truth = world.path("truth.jsonl");
    let urls: Vec<String> = brokers.iter().map(Broker::url).collect();
    let start = start_minutes_ago(5);
    let mut options = vec![
        "--devices",
        "60",
        "--rate",
        "2",
        "--duration",
        "2m",
        "--unpaced",
        "--seed",
        "7",
    ];
    options.extend(["--start", &start]);
    options.extend(FAULTS);
    publish_fleet(&urls, &truth, &options);
    let report = wait_until_right(&aggregator, &[truth]);
    for fault in [
        "malformed_json",
        "invalid_utf8",
        "too_early",
        "oversized_payload",
        "bad_key",
    ] {
        assert!(
            report.contains(&format!("rejected {fault}: ")),
            "the fleet's faults came:\n{report}"
        );
    }
    assert!(report.contains(" 0 different, 0 missing, 0 extra"), "{report}");
    drop(agents);
}

#[test]
fn three_agents_behind_mosquitto_give_the_truth() {
    let world = World::new();
    let brokers = ["a", "b", "c"].map(|name| Broker::mosquitto(&world, name));
    check(&world, &brokers);
}

#[test]
fn an_agent_behind_the_embedded_broker_gives_the_truth() {
    let world = World::new();
    let brokers = [Broker::embedded(&world, "a")];
    check(&world, &brokers);
}
