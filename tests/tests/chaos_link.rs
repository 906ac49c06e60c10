//! The link on networks as they are: addresses change in the middle of a stream, packets are lost, and the line is cut.

use std::process::Command;

use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::process::{Process, binary};
use catchment_tests::proxy::{Proxy, Weather};
use catchment_tests::verdict::wait_until_right;
use catchment_tests::wait::until;
use catchment_tests::world::{FLEET_PLAN, World};

/// A router that forgets its table gives the agent another port towards the aggregator, again and again under load.
#[test]
fn a_link_outlives_changes_of_its_address() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, FLEET_PLAN);
    let proxy = Proxy::start(aggregator.address(), Weather::FAIR, 1);
    let mut config = AgentConfig::new("gw-1", &broker.url(), &aggregator);
    config.aggregator = proxy.address().to_string();
    let mut agent = config.start_subscribed(&world);
    let truth = world.path("truth.jsonl");
    let mut command = Command::new(binary("catchment-fleet"));
    command.args("run --devices 50 --rate 10 --duration 8s --broker".split(' '));
    command.arg(broker.url()).arg("--truth").arg(&truth);
    let mut fleet = Process::start("fleet", world.folder(), &mut command);

    for address in 2..=6 {
        let lifted = aggregator.counter("accepted");
        proxy.rebind();
        until("readings over the new address", || {
            (proxy.addresses() >= address && aggregator.counter("accepted") > lifted).then_some(())
        });
    }
    assert!(fleet.is_running(), "all of it is under load");
    assert!(fleet.wait().success());
    let report = wait_until_right(&aggregator, &[truth]);
    assert!(report.contains("4000 readings published"), "{report}");
    assert_eq!(proxy.addresses(), 6);
    assert_eq!(aggregator.counter("connects"), 1, "the link was never made again");
    assert!(!agent.log().contains("no link to the aggregator") && agent.is_running());
}

/// No process dies here: the packets alone are lost, repeated and late, and for a while none passes.
#[test]
fn a_foul_network_and_a_cut_cost_nothing() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, FLEET_PLAN);
    let proxy = Proxy::start(aggregator.address(), Weather::FOUL, 2);
    let mut config = AgentConfig::new("gw-1", &broker.url(), &aggregator);
    config.aggregator = proxy.address().to_string();
    let _agent = config.start_subscribed(&world);
    let truth = world.path("truth.jsonl");
    let mut command = Command::new(binary("catchment-fleet"));
    command.args("run --devices 50 --rate 10 --duration 10s --broker".split(' '));
    command.arg(broker.url()).arg("--truth").arg(&truth);
    let mut fleet = Process::start("fleet", world.folder(), &mut command);
    until("readings before the cut", || {
        (aggregator.counter("accepted") > 500).then_some(())
    });
    proxy.set_cut(true);
    assert!(fleet.wait().success());
    proxy.set_cut(false);
    let report = wait_until_right(&aggregator, &[truth]);
    assert!(
        report.contains("5000 in results + 0 rejected + 0 lost: balanced"),
        "{report}"
    );
    let (carried, lost) = proxy.packets();
    println!("{carried} packets carried, {lost} lost\n{report}");
}
