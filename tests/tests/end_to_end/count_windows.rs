//! Count windows through a real broker, with an agent that is killed in the midst of them.

use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::mqtt::Publisher;
use catchment_tests::process::run_ok;
use catchment_tests::verdict::{publish_fleet, wait_until_right};
use catchment_tests::wait::until;
use catchment_tests::world::{World, text};

const PLAN: &str = r#"
[[query]]
name = "batches"
topic = "press/{line}"
time = { path = "ts", unit = "ms" }
key = ["line"]
fields = { force = "force" }
window = { count = 5 }
aggregates = ["sum", "first", "last"]

[[query]]
name = "dozens"
topic = "sensors/{site}/{device}/env"
time = { path = "ts", unit = "ms" }
key = ["site", "device"]
fields = { temp = "temp", hum = { path = "data.hum", resolution = 0.01 } }
window = { count = 12 }
aggregates = ["count", "mean", "p50", "stddev", "first", "last", "rate"]
"#;

fn rows(aggregator: &Aggregator) -> Vec<String> {
    let sql = "SELECT line, agent, readings, status, revision, force_sum, force_first, force_last,
                      unixepoch(window_end) - unixepoch(window_start) FROM batches ORDER BY line, window_number";
    let connection = aggregator.sql();
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        let [sum, first, last] = [5, 6, 7].map(|index| row.get::<_, f64>(index));
        Ok(format!(
            "{} {} {} {} {}: {} {} {} in {} s",
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, i64>(2)?,
            row.get::<_, String>(3)?,
            row.get::<_, i64>(4)?,
            sum?,
            first?,
            last?,
            row.get::<_, i64>(8)?
        ))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_killed_agent_goes_on_in_the_midst_of_a_window() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, PLAN);
    let config = AgentConfig::new("gw-1", &broker.url(), &aggregator);
    let mut agent = config.start_subscribed(&world);
    let mut publisher = Publisher::connect(broker.address(), "press");
    let start = jiff::Timestamp::now().as_millisecond();
    let mut publish = |line: &str, number: i64| {
        let payload = format!("{{\"ts\":{},\"force\":{number}}}", start + number * 1_000);
        publisher.publish(&format!("press/{line}"), payload.as_bytes());
    };
    (1..=7).for_each(|number| publish("a", number));
    (1..=3).for_each(|number| publish("b", number));
    let full = "a gw-1 5 final 1: 15 1 5 in 4 s";
    until("the first window", || (rows(&aggregator) == [full]).then_some(()));
    // Durable once it is counted at the centre: the heartbeat tells of no more than that.
    aggregator.wait_for_counter("accepted", 10);

    agent.kill();
    (8..=9).for_each(|number| publish("a", number));
    (4..=4).for_each(|number| publish("b", number));
    let mut agent = config.start_subscribed(&world);
    aggregator.wait_for_counter("accepted", 13);
    // What was open when it was killed leaves at the start; what has come since stays until its window is full.
    let parts = [
        full,
        "a gw-1 2 provisional 1: 13 6 7 in 1 s",
        "b gw-1 3 provisional 1: 6 1 3 in 2 s",
    ];
    until("the parts that were open", || {
        (rows(&aggregator) == parts).then_some(())
    });
    agent.kill();
    let mut agent = config.start_subscribed(&world);
    publish("a", 10);
    publish("b", 5);
    let expected = [
        full,
        "a gw-1 5 final 3: 40 6 10 in 4 s",
        "b gw-1 5 final 3: 15 1 5 in 4 s",
    ];
    until("the windows that were open", || {
        (rows(&aggregator) == expected).then_some(())
    });

    // What is open when an agent is asked to stop leaves early, and the row says so until the rest has come.
    publish("b", 6);
    aggregator.wait_for_counter("accepted", 16);
    assert!(agent.stop().success());
    until("a part of a window", || {
        (rows(&aggregator).last().unwrap() == "b gw-1 1 provisional 1: 6 6 6 in 0 s").then_some(())
    });
    let agent = config.start_subscribed(&world);
    (7..=10).for_each(|number| publish("b", number));
    until("the rest of it", || {
        (rows(&aggregator).last().unwrap() == "b gw-1 5 final 2: 40 6 10 in 4 s").then_some(())
    });
    let now = jiff::Timestamp::from_millisecond(start + 6_000)
        .unwrap()
        .to_string();
    let explained = run_ok(
        "catchment-aggregator",
        &[
            "explain",
            "batches",
            "--key",
            "line=b,agent=gw-1",
            "--at",
            &now,
            "--database",
            text(aggregator.database()),
        ],
    );
    assert!(explained.contains("it is full"), "{explained}");
    drop(agent);
}

#[test]
fn a_fleet_is_counted_off_while_its_agents_are_killed() {
    let world = World::new();
    let brokers = ["a", "b"].map(|name| Broker::mosquitto(&world, name));
    let aggregator = Aggregator::start(&world, PLAN);
    let configs: Vec<AgentConfig> = { brokers.iter().enumerate() }
        .map(|(index, broker)| AgentConfig::new(&format!("gw-{index}"), &broker.url(), &aggregator))
        .collect();
    let mut agents: Vec<_> = configs
        .iter()
        .map(|config| config.start_subscribed(&world))
        .collect();
    let mut truth = Vec::new();
    for round in 0..3 {
        let file = world.path(&format!("truth-{round}.jsonl"));
        let urls: Vec<String> = brokers.iter().map(Broker::url).collect();
        let seed = round.to_string();
        // QoS 1 and one connection for each broker: a device's readings come in the order of the truth.
        publish_fleet(
            &urls,
            &file,
            &[
                "--devices",
                "40",
                "--duration",
                "5s",
                "--unpaced",
                "--disorder",
                "0",
                "--seed",
                &seed,
            ],
        );
        truth.push(file);
        agents = { agents.into_iter().zip(&configs) }
            .map(|(mut agent, config)| {
                agent.kill();
                config.start_subscribed(&world)
            })
            .collect();
    }
    until("all messages to be taken in", || {
        (aggregator.counter("accepted") >= 600).then_some(())
    });
    for agent in &mut agents {
        assert!(agent.stop().success());
    }
    let report = wait_until_right(&aggregator, &truth);
    assert!(
        report.contains("dozens: ") && !report.contains("partial"),
        "{report}"
    );
}
