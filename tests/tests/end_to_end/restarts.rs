//! The aggregator goes and comes back, politely and not, while agents and devices go on: nothing is lost, nothing comes
//! twice.

use std::path::Path;
use std::process::Command;

use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::{Broker, free_port};
use catchment_tests::mqtt::Publisher;
use catchment_tests::process::{Process, binary, run_ok};
use catchment_tests::verdict::{publish_fleet, wait_until_right};
use catchment_tests::wait::until;
use catchment_tests::world::{FLEET_PLAN, World, text};

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

/// The configuration names a plan's file, and another one is applied by command: a restart and a kill leave it in force,
/// until the configured file is edited.
#[test]
fn a_plan_that_was_applied_by_command_survives_restarts_and_kills() {
    let world = World::new();
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let config = world.path("aggregator.toml");
    let apply = |plan: &Path| {
        let apply = ["plan", "apply", text(plan), "--config", text(&config)];
        run_ok("catchment-aggregator", &apply)
    };
    let other = world.write(
        "other.toml",
        FLEET_PLAN
            .replace("10s", "20s")
            .replace("name = \"", "name = \"other_"),
    );
    let said = apply(&other);
    assert!(said.contains("plan version 2 is in force\n"), "{said}");
    assert!(
        said.contains("plan.toml; it takes this plan's place when it is edited"),
        "{said}"
    );
    let said = apply(&other);
    assert!(said.contains("plan version 2 is in force already"), "{said}");
    let newest = |aggregator: &Aggregator| {
        let newest = "SELECT version, source FROM catchment_plan ORDER BY version DESC LIMIT 1";
        let row = aggregator
            .sql()
            .query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?)));
        row.unwrap()
    };
    let expected: (i64, String) = (2, std::fs::read_to_string(&other).unwrap());
    assert!(aggregator.process().stop().success());
    aggregator.restart(&world);
    assert_eq!(newest(&aggregator), expected);
    aggregator.process().kill();
    aggregator.restart(&world);
    assert_eq!(newest(&aggregator), expected);
    assert!(
        aggregator
            .process()
            .log()
            .contains("the plan in force was applied by command")
    );
    let edited = format!("{FLEET_PLAN}\n# edited\n");
    let file = world.write("plan.toml", &edited);
    assert!(aggregator.process().stop().success());
    aggregator.restart(&world);
    assert_eq!(newest(&aggregator), (3, edited));
    assert!(!apply(&file).contains("note:"), "it is the configured one");
}

/// Somebody removes the database under a running aggregator: nothing is acknowledged from then on, it is said what to do,
/// and what was acknowledged before is in a copy. With that in place, everything is right.
#[test]
fn a_database_that_is_removed_while_it_is_served_is_noticed_and_costs_nothing() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let config = AgentConfig::new("gw-1", &broker.url(), &aggregator);
    let _agent = config.start_subscribed(&world);
    let truth = world.path("truth.jsonl");
    let mut fleet = start_fleet(&world, std::slice::from_ref(&broker), &truth);
    wait_until_accepted(&aggregator, 1_000);
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(world.path(&format!("catchment.db{suffix}"))).unwrap();
    }
    aggregator
        .process()
        .wait_for("all that was committed is in a copy");
    let said = aggregator
        .process()
        .wait_for("was removed or replaced while it was served");
    assert!(said.contains("Stop the aggregator"), "{said}");
    let files = std::fs::read_dir(world.folder()).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let is_copy = |path: &std::path::PathBuf| text(path).contains("catchment.db.rescued-");
    let copy = { files }.find(is_copy).unwrap();
    assert!(fleet.wait().success());
    assert!(aggregator.process().stop().success());
    let database = world.path("catchment.db");
    assert!(!database.exists());
    run_ok(
        "catchment-aggregator",
        &["restore", text(&copy), "--database", text(&database)],
    );
    aggregator.restart(&world);
    wait_until_right(&aggregator, &[truth]);
}

/// A stopping agent closes its link, and the aggregator hears of that before its time-out.
#[test]
fn a_stopped_agent_is_gone_at_once_and_the_next_of_its_name_is_let_in() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "a");
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let config = AgentConfig::new("gw-0", &broker.url(), &aggregator);
    let mut agent = config.start_subscribed(&world);
    agent.wait_for("linked to the aggregator");
    assert!(agent.stop().success());
    let line = aggregator.process().wait_for("disconnected");
    assert!(line.contains("stopping") && !line.contains("timed out"), "{line}");
    let mut next = config.start_subscribed(&world);
    next.wait_for("linked to the aggregator");
    assert!(!next.log().contains("no link"), "{}", next.log());
}

/// An agent that has never heard its broker knows nothing of how far event time has come there: it is expected, and rows
/// are not final without it.
#[test]
fn an_agent_that_never_heard_its_broker_is_waited_for() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let plan = "[[query]]\nname = \"heat\"\ntopic = \"heat/{device}\"\nkey = [\"device\"]\nfields = { value = \"v\" }\n\
                aggregates = [\"count\"]\nwindow = { size = \"1s\" }\nwatermark_delay = \"100ms\"\nidle = \"200ms\"\npatience = \"500ms\"\n";
    let aggregator = Aggregator::start(&world, plan);
    let _heard = AgentConfig::new("gw-a", &broker.url(), &aggregator).start_subscribed(&world);
    let nowhere = format!("mqtt://{}", free_port());
    let mut deaf = AgentConfig::new("gw-b", &nowhere, &aggregator).start(&world);
    deaf.wait_for("no connection to the broker");
    let sql = aggregator.sql();
    until("both agents to have said how they are", || {
        let told = "SELECT count(DISTINCT agent) FROM catchment_counter WHERE name = 'connects'";
        let told: i64 = sql.query_row(told, [], |row| row.get(0)).unwrap();
        (told == 2).then_some(())
    });
    let mut device = Publisher::connect(broker.address(), "device");
    device.publish("heat/d1", b"{\"v\":1}");
    let (status, coverage) = until("a row", || {
        let row = "SELECT status, coverage FROM heat";
        let columns = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, f64>(1)?));
        sql.query_row(row, [], columns).ok()
    });
    assert_eq!((status.as_str(), coverage), ("provisional", 0.5));
}

/// An operator sets the watermarks of an agent back whose clock had been ahead, while the aggregator runs and after a
/// restart of it.
#[test]
fn watermarks_that_an_operator_sets_back_stay_back() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let mut agent = AgentConfig::new("gw-1", &broker.url(), &aggregator).start_subscribed(&world);
    let database = aggregator.database().to_owned();
    let watermark = || {
        let said = run_ok("catchment-aggregator", &["status", "--database", text(&database)]);
        let line = said.lines().find(|line| line.contains("gw-1")).map(String::from);
        line.unwrap_or_default()
    };
    until("a watermark that follows the clock", || {
        watermark().contains('T').then_some(())
    });
    agent.kill();
    let to = "2001-02-03T04:05:06Z";
    run_ok(
        "catchment-aggregator",
        &["set-back", "gw-1", "--to", to, "--database", text(&database)],
    );
    until("the watermark to be back", || {
        watermark().contains("2001-02-03T04:05:06").then_some(())
    });
    aggregator.process().kill();
    aggregator.restart(&world);
    assert!(watermark().contains("2001-02-03T04:05:06"), "{}", watermark());
}
