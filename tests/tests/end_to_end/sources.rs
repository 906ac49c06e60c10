//! Agents with several sources: what each query reads of them, and what happens when one of them is away.

use catchment_tests::agent::{AgentConfig, wait_subscribed};
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::mqtt::Publisher;
use catchment_tests::process::{Process, run_ok};
use catchment_tests::wait::until;
use catchment_tests::world::{World, text};

/// A query for all sources and one for each of two.
const PLAN: &str = r#"
[[query]]
name = "anywhere"
topic = "rooms/{room}"
key = ["room"]
fields = { temp = "temp" }
window = { size = "1s" }
aggregates = ["count"]
watermark_delay = "1s"
idle = "1s"
patience = "1s"

[[query]]
name = "of_a"
source = "a"
topic = "rooms/{room}"
key = ["room"]
fields = { temp = "temp" }
window = { size = "1s" }
aggregates = ["count"]
watermark_delay = "1s"
idle = "1s"
patience = "1s"

[[query]]
name = "of_b"
source = "b"
topic = "rooms/{room}"
key = ["room"]
fields = { temp = "temp" }
window = { size = "1s" }
aggregates = ["count"]
watermark_delay = "1s"
idle = "1s"
patience = "1s"
"#;

/// Publishes this many readings, which differ in nothing.
fn publish(publisher: &mut Publisher, count: usize) {
    for _ in 0..count {
        publisher.publish("rooms/kitchen", br#"{"temp":21.5}"#);
    }
}

fn number(aggregator: &Aggregator, sql: &str) -> i64 {
    let number = aggregator.sql().query_row(sql, [], |row| row.get(0));
    // There is no table before the first plan.
    number.unwrap_or(0)
}

fn readings(aggregator: &Aggregator) -> [i64; 3] {
    ["anywhere", "of_a", "of_b"].map(|table| {
        number(
            aggregator,
            &format!("SELECT coalesce(sum(readings), 0) FROM {table}"),
        )
    })
}

/// Waits until the three tables have so many readings; more is a failure.
fn wait_for(aggregator: &Aggregator, expected: [i64; 3]) {
    until(&format!("{expected:?} readings"), || {
        let now = readings(aggregator);
        let is_more = now.iter().zip(&expected).any(|(now, expected)| now > expected);
        assert!(!is_more, "{now:?}, and no more than {expected:?} were published");
        (now == expected).then_some(())
    });
}

fn agents(aggregator: &Aggregator) -> String {
    let database = text(aggregator.database());
    run_ok("catchment-aggregator", &["agents", "--database", database])
}

fn wait_until_shown(aggregator: &Aggregator, shown: &[&str]) {
    until(&format!("{shown:?} of `agents`"), || {
        let agents = agents(aggregator);
        shown.iter().all(|text| agents.contains(text)).then_some(())
    });
}

fn wait_until_all_is_final(aggregator: &Aggregator, table: &str) {
    until(&format!("{table} to be final"), || {
        let open = format!("SELECT count(*) FROM {table} WHERE status <> 'final'");
        (number(aggregator, &open) == 0).then_some(())
    });
}

fn connect(brokers: &[Broker; 2]) -> [Publisher; 2] {
    [0, 1].map(|index: usize| Publisher::connect(brokers[index].address(), "rooms"))
}

/// Kills an agent while both brokers send to it, and publishes on while it is away.
fn kill_under_load(agent: &mut Process, [a, b]: &mut [Publisher; 2]) {
    for _ in 0..100 {
        publish(a, 1);
        publish(b, 1);
    }
    agent.kill();
    publish(a, 50);
    publish(b, 70);
}

#[test]
fn queries_read_the_source_that_they_name_through_failures_of_brokers_and_agent() {
    let world = World::new();
    let mut brokers = ["a", "b"].map(|name| Broker::mosquitto(&world, name));
    let aggregator = Aggregator::start(&world, PLAN);
    let config = AgentConfig::new("gw-1", &brokers[0].url(), &aggregator)
        .source_name("a")
        .source("b", &brokers[1].url());
    let mut agent = config.start_subscribed(&world);
    let [mut a, mut b] = connect(&brokers);
    publish(&mut a, 30);
    publish(&mut b, 50);
    wait_for(&aggregator, [80, 30, 50]);
    wait_until_shown(&aggregator, &["a connected since", "b connected since"]);

    // One broker away: the other's readings come, and its windows are final, because its silence is known to be one.
    brokers[0].process().kill();
    wait_until_shown(&aggregator, &["a away since", "b connected since"]);
    publish(&mut b, 20);
    until("what b brought", || {
        (readings(&aggregator)[1..] == [30, 70]).then_some(())
    });
    wait_until_all_is_final(&aggregator, "of_b");

    // It comes back, with the agent killed meanwhile.
    agent.kill();
    publish(&mut b, 10);
    brokers[0].restart(&world, "a");
    let mut agent = config.start_subscribed(&world);
    let [a, b] = connect(&brokers);
    let mut publishers = [a, b];
    publish(&mut publishers[0], 40);
    wait_for(&aggregator, [150, 70, 80]);

    kill_under_load(&mut agent, &mut publishers);
    let _agent = config.start_subscribed(&world);
    wait_for(&aggregator, [470, 220, 250]);
    for table in ["anywhere", "of_a", "of_b"] {
        wait_until_all_is_final(&aggregator, table);
    }
    wait_for(&aggregator, [470, 220, 250]);
    wait_until_shown(&aggregator, &["a connected since", "b connected since"]);
}

/// Two sessions with one broker: each brings a copy of what is published, to those who read it.
#[test]
fn two_sources_may_be_with_one_broker() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, PLAN);
    let config = AgentConfig::new("gw-1", &broker.url(), &aggregator)
        .source_name("a")
        .source("b", &broker.url())
        .broker_line("protocol = 4");
    let mut agent = config.start_subscribed(&world);
    let mut publisher = Publisher::connect(broker.address(), "rooms");
    publish(&mut publisher, 50);
    wait_for(&aggregator, [100, 50, 50]);
    agent.kill();
    publish(&mut publisher, 25);
    let agent = config.start_subscribed(&world);
    wait_for(&aggregator, [150, 75, 75]);
    assert!(!agent.log().contains("another client"), "{}", agent.log());
}

/// The old form, and the same session under the new one.
#[test]
fn a_configuration_of_before_goes_on_and_can_be_written_anew() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, PLAN);
    let before = AgentConfig::new("gw-1", &broker.url(), &aggregator).of_before();
    let mut agent = before.start_subscribed(&world);
    agent.wait_for("`[broker]` is read by this version and not by the next; write it as `[[source]]`");
    let mut publisher = Publisher::connect(broker.address(), "rooms");
    publish(&mut publisher, 40);
    wait_for(&aggregator, [40, 0, 0]);
    wait_until_shown(&aggregator, &["broker connected since"]);
    agent.kill();
    // The broker holds these for the session.
    publish(&mut publisher, 10);

    let now = AgentConfig::new("gw-1", &broker.url(), &aggregator)
        .source_name("a")
        .broker_line("client_id = \"catchment-gw-1\"");
    let agent = now.start_subscribed(&world);
    publish(&mut publisher, 5);
    wait_for(&aggregator, [55, 15, 0]);
    assert!(!agent.log().contains("`[broker]`"), "{}", agent.log());
}

/// The names of sources that an agent does not have are told once, and nothing is read for them.
#[test]
fn a_source_that_an_agent_does_not_have_is_told() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, PLAN);
    let config = AgentConfig::new("gw-1", &broker.url(), &aggregator).source_name("a");
    let mut agent = config.start(&world);
    let line = agent.wait_for("the plan reads a source that this agent does not have");
    assert!(line.contains("source=b"), "{line}");
    wait_subscribed(&agent, "a");
    let mut publisher = Publisher::connect(broker.address(), "rooms");
    publish(&mut publisher, 10);
    wait_for(&aggregator, [10, 10, 0]);
    wait_until_shown(&aggregator, &["a connected since", "b missing"]);
    for table in ["anywhere", "of_a"] {
        wait_until_all_is_final(&aggregator, table);
    }
    assert_eq!(agent.log().matches("does not have").count(), 1);
}
