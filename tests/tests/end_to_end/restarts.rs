//! The aggregator goes and comes back, politely and not, while agents and devices go on: nothing is lost, nothing comes
//! twice.

use std::path::Path;
use std::process::Command;

use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::process::{Process, binary};
use catchment_tests::verdict::{publish_fleet, wait_until_right};
use catchment_tests::wait::until;
use catchment_tests::world::{FLEET_PLAN, World};

use crate::fleet::start_minutes_ago;

/// A fleet that publishes for a while in real time.
fn start_fleet(world: &World, brokers: &[Broker], truth: &Path) -> Process {
    let mut command = Command::new(binary("catchment-fleet"));
    command.args([
        "run",
        "--devices",
        "60",
        "--rate",
        "10",
        "--duration",
        "12s",
        "--disorder",
        "0.05",
        "--truth",
    ]);
    command.arg(truth);
    for broker in brokers {
        command.args(["--broker", &broker.url()]);
    }
    Process::start("fleet", world.folder(), &mut command)
}

fn wait_until_accepted(aggregator: &Aggregator, least: u64) {
    until(&format!("{least} readings accepted"), || {
        (aggregator.counter("accepted") >= least).then_some(())
    });
}

#[test]
fn an_aggregator_that_is_stopped_and_killed_under_load_loses_nothing() {
    let world = World::new();
    let brokers = ["a", "b"].map(|name| Broker::mosquitto(&world, name));
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let mut agents = Vec::new();
    for (index, broker) in brokers.iter().enumerate() {
        let config = AgentConfig::new(&format!("gw-{index}"), &broker.url(), &aggregator);
        agents.push(config.start_subscribed(&world));
    }
    let truth = world.path("truth.jsonl");
    let mut fleet = start_fleet(&world, &brokers, &truth);

    // Each reading counts for two pipelines.
    wait_until_accepted(&aggregator, 1_000);
    assert!(
        aggregator.process().stop().success(),
        "asked to stop, it ends well"
    );
    for agent in &mut agents {
        agent.wait_for("no link to the aggregator");
    }
    aggregator.restart(&world);

    wait_until_accepted(&aggregator, 5_000);
    aggregator.process().kill();
    assert!(fleet.is_running(), "the second death is under load too");
    aggregator.restart(&world);

    assert!(fleet.wait().success());
    let report = wait_until_right(&aggregator, &[truth]);
    assert!(report.contains("7200 readings published"), "{report}");
    assert!(agents.iter_mut().all(Process::is_running));
}

/// An agent that starts while the aggregator is away runs the plan that it kept, and ships when there is somebody
/// again.
#[test]
fn an_agent_that_starts_alone_runs_its_kept_plan() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let config = AgentConfig::new("gw-1", &broker.url(), &aggregator);
    let mut agent = config.start_subscribed(&world);
    assert!(agent.stop().success());
    assert!(aggregator.process().stop().success());

    let mut agent = config.start_subscribed(&world);
    assert!(agent.log().contains("running the kept plan"));
    let truth = world.path("truth.jsonl");
    let start = start_minutes_ago(5);
    let options = [
        "--devices",
        "20",
        "--duration",
        "1m",
        "--unpaced",
        "--start",
        &start,
    ];
    publish_fleet(&[broker.url()], &truth, &options);
    aggregator.restart(&world);
    wait_until_right(&aggregator, &[truth]);
    assert!(agent.is_running());
}

/// An agent that is asked to stop closes its panes and sees them acknowledged first.
#[test]
fn an_agent_that_is_stopped_ships_what_it_has() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, FLEET_PLAN);
    let mut agent = AgentConfig::new("gw-1", &broker.url(), &aggregator).start_subscribed(&world);
    let truth = world.path("truth.jsonl");
    // Event time goes a little beyond now: the last panes are open still.
    publish_fleet(
        &[broker.url()],
        &truth,
        &["--devices", "200", "--duration", "5s", "--unpaced"],
    );
    // What the broker still holds for it would come after the next start.
    until("all messages to be taken in", || {
        (aggregator.counter("messages") >= 1_000).then_some(())
    });
    assert!(agent.stop().success());
    assert!(!agent.log().contains("they are lost"), "{}", agent.log());
    let sum = "SELECT sum(value) FROM catchment_counter WHERE name = 'acknowledged'";
    assert!(
        aggregator
            .sql()
            .query_row(sum, [], |row| row.get::<_, i64>(0))
            .unwrap()
            >= 1
    );
    let started = AgentConfig::new("gw-1", &broker.url(), &aggregator).start_subscribed(&world);
    wait_until_right(&aggregator, &[truth]);
    drop(started);
}
