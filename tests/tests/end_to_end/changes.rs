//! A reader that follows the change feed has the table, while the aggregator is killed and goes on.

use std::collections::BTreeMap;

use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::mqtt::Publisher;
use catchment_tests::process::{run, run_ok, text as output_text};
use catchment_tests::wait::until;
use catchment_tests::world::{World, text};
use serde_json::Value;

const PLAN: &str = r#"
[[query]]
name = "forces"
topic = "press/{line}"
time = { path = "ts", unit = "ms" }
key = ["line"]
fields = { force = "force" }
window = { size = "2s", every = "1s" }
aggregates = ["sum"]
watermark_delay = "1s"
"#;

/// What is known of rows by start and line: revision and sum.
type Rows = BTreeMap<(String, String), (u64, f64)>;

fn table(aggregator: &Aggregator) -> Rows {
    let connection = aggregator.sql();
    let mut statement = connection
        .prepare("SELECT window_start, line, revision, force_sum FROM forces")
        .unwrap();
    let rows = statement.query_map([], |row| {
        Ok((
            (row.get(0)?, row.get(1)?),
            (row.get::<_, i64>(2)?.unsigned_abs(), row.get(3)?),
        ))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// What `changes read` says, line by line.
fn read(aggregator: &Aggregator, arguments: &[&str]) -> Vec<Value> {
    let database = ["--database", text(aggregator.database())];
    let command = ["changes", "read", "sink"];
    let command: Vec<&str> = { command.iter().chain(arguments).chain(&database) }
        .copied()
        .collect();
    let lines = run_ok("catchment-aggregator", &command);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Takes lines up; returns how many changes were among them.
fn apply(rows: &mut Rows, last: &mut u64, lines: &[Value], aggregator: &Aggregator) -> usize {
    let mut changes = 0;
    for line in lines {
        let position = line["position"].as_u64().unwrap();
        if line.get("reread").is_some() {
            *rows = table(aggregator);
            *last = position - 1;
            continue;
        }
        assert_eq!(position, *last + 1);
        *last = position;
        let name = |field: &Value| field.as_str().unwrap().to_owned();
        let row = (name(&line["window_start"]), name(&line["key"]["line"]));
        let now = &line["row"];
        let revision = now["revision"].as_u64().unwrap();
        assert!(revision >= line["revision"].as_u64().unwrap());
        rows.insert(row, (revision, now["force_sum"].as_f64().unwrap()));
        changes += 1;
    }
    changes
}

#[test]
fn a_reader_of_the_feed_has_the_table_whoever_is_killed() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let mut aggregator = Aggregator::start(&world, PLAN);
    let database = aggregator.database().to_owned();
    let changes = |command: &[&str]| {
        let command: Vec<&str> = { ["changes"].iter().chain(command) }
            .chain(&["--database", text(&database)])
            .copied()
            .collect();
        run("catchment-aggregator", &command)
    };
    let refused = changes(&["read", "sink"]);
    assert!(output_text(&refused).contains("there is no cursor `sink`"));
    assert!(changes(&["open", "sink"]).status.success());

    let config = AgentConfig::new("gw-1", &broker.url(), &aggregator);
    let mut agent = config.start_subscribed(&world);
    let mut publisher = Publisher::connect(broker.address(), "press");
    let start = (jiff::Timestamp::now().as_millisecond() / 1_000 - 20) * 1_000;
    let mut publish = |number: i64| {
        let payload = format!("{{\"ts\":{},\"force\":{number}}}", start + number * 500);
        for line in ["a", "b"] {
            publisher.publish(&format!("press/{line}"), payload.as_bytes());
        }
    };
    let (mut rows, mut last) = (Rows::new(), 0);
    for round in 0..3 {
        (round * 8..round * 8 + 8).for_each(&mut publish);
        aggregator.wait_for_counter("accepted", 16 * (round.unsigned_abs() + 1));
        let lines = read(&aggregator, &["--limit", "3"]);
        apply(&mut rows, &mut last, &lines, &aggregator);
        if round == 1 {
            aggregator.process().kill();
            aggregator.restart(&world);
        }
    }
    until("all windows but those that are open", || {
        (table(&aggregator).len() >= 20).then_some(())
    });
    let looked = read(&aggregator, &["--look"]);
    assert!(!looked.is_empty());
    let again = read(&aggregator, &["--look"]);
    assert_eq!(
        again[0]["position"], looked[0]["position"],
        "looking advances nothing"
    );
    assert!(agent.stop().success());
    until("a feed that is read to its end", || {
        let lines = read(&aggregator, &[]);
        let settled = lines.is_empty();
        apply(&mut rows, &mut last, &lines, &aggregator);
        (settled && rows == table(&aggregator)).then_some(())
    });
    let listed = output_text(&changes(&["list", "--format", "csv"]));
    assert!(
        listed.contains(&format!("sink,{},0,false,0", last + 1)),
        "{listed}"
    );
    assert!(changes(&["drop", "sink"]).status.success());
    assert!(!changes(&["drop", "sink"]).status.success());
}
