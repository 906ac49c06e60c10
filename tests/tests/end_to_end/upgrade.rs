//! A fleet of version 1 goes on with the software of today: its database, its plan in the words of then, batches that
//! were waiting, and open panes. Nothing is lost and nothing counts twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use catchment_common::wire::checksum;
use catchment_firmware_sim::verify::format_time;
use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::mqtt::Publisher;
use catchment_tests::wait::until;
use catchment_tests::world::{FLEET_PLAN, World};

/// The time of reading 0, in milliseconds.
const START: i64 = 1_795_852_800_000;
/// Readings that the fleet of then has taken.
const TAKEN: i64 = 1_000;
/// With those that come after the upgrade.
const ALL: i64 = 1_200;

fn device(number: i64) -> String {
    format!("dev-{}", number % 3)
}

fn time(number: i64) -> i64 {
    START + 700 * number
}

fn temperature(number: i64) -> i64 {
    number * 37 % 101 - 50
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1/fleet")
}

fn copy_fleet(world: &World) -> String {
    fs::copy(fixture().join("catchment.db"), world.path("catchment.db")).unwrap();
    let state = world.path("gw-1.state");
    fs::create_dir(&state).unwrap();
    for entry in fs::read_dir(fixture().join("gw-1.state")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), state.join(entry.file_name())).unwrap();
    }
    fs::read_to_string(fixture().join("plan.toml")).unwrap()
}

/// Count, sum, least and greatest of each window and key.
type Rows = BTreeMap<(String, String), (i64, i64, i64, i64)>;

/// What windows of a minute hold of the first readings, reckoned one by one.
fn minutes(readings: i64) -> Rows {
    let mut rows = Rows::new();
    for number in 0..readings {
        let minute = time(number).div_euclid(60_000) * 60;
        let start = format_time(minute * 1_000_000);
        let row = rows
            .entry((start, device(number)))
            .or_insert((0, 0, i64::MAX, i64::MIN));
        let value = temperature(number);
        *row = (row.0 + 1, row.1 + value, row.2.min(value), row.3.max(value));
    }
    rows
}

fn stored(aggregator: &Aggregator) -> Rows {
    let sql = aggregator.sql();
    let all =
        "SELECT window_start, device, temp_count, temp_sum, temp_min, temp_max FROM climate WHERE coarse = 0";
    let mut statement = sql.prepare(all).unwrap();
    let number = |row: &rusqlite::Row<'_>, column| row.get::<_, f64>(column).map(|value| value as i64);
    let rows = statement.query_map([], |row| {
        let name = (row.get(0)?, row.get(1)?);
        let values = (row.get(2)?, number(row, 3)?, number(row, 4)?, number(row, 5)?);
        Ok((name, values))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn sum(aggregator: &Aggregator, column: &str, table: &str) -> i64 {
    let sum = format!("SELECT coalesce(sum({column}), 0) FROM {table}");
    aggregator.sql().query_row(&sum, [], |row| row.get(0)).unwrap()
}

fn wait_until_all(aggregator: &Aggregator, readings: i64) {
    let expected = minutes(readings);
    until(&format!("the rows of {readings} readings"), || {
        (stored(aggregator) == expected).then_some(())
    });
    for table in ["meters", "visits", "packs"] {
        until(&format!("{readings} readings in {table}"), || {
            (sum(aggregator, "readings", table) == readings).then_some(())
        });
    }
    // Each reading is in six windows of an hour, one every ten minutes.
    until(&format!("{readings} readings in windows that overlap"), || {
        (sum(aggregator, "readings", "site_hours") == 6 * readings).then_some(())
    });
}

#[test]
fn a_fleet_of_version_1_goes_on_with_what_it_holds() {
    let world = World::new();
    let plan = copy_fleet(&world);
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, &plan);
    let config = AgentConfig::new("gw-1", &broker.url(), &aggregator).of_before();
    let mut agent = config.start_subscribed(&world);

    // What the fleet of then had taken arrives, whole.
    wait_until_all(&aggregator, TAKEN);
    let mut client = Publisher::connect(broker.address(), "devices");
    for number in TAKEN..ALL {
        let payload = format!(
            r#"{{"ts":{},"temp":{},"meter":{}}}"#,
            time(number),
            temperature(number),
            2 * number
        );
        client.publish(
            &format!("sensors/berlin/{}/env", device(number)),
            payload.as_bytes(),
        );
    }
    wait_until_all(&aggregator, ALL);
    assert_eq!(sum(&aggregator, "readings", "catchment_loss"), 0);

    // A second start finds only what today's software has written.
    assert!(agent.stop().success());
    let mut agent = config.start_subscribed(&world);
    wait_until_all(&aggregator, ALL);
    assert!(agent.is_running());
}

/// A rollback: the state is of newer software. Nothing of it is changed, and the operator is told what to do.
#[test]
fn a_journal_of_newer_software_is_refused_and_left_alone() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, FLEET_PLAN);
    let config = AgentConfig::new("gw-1", &broker.url(), &aggregator);
    let mut agent = config.start_subscribed(&world);
    assert!(agent.stop().success());
    let state = world.path("gw-1.state");
    let files = || -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    };
    for (path, mut bytes) in files() {
        if path.to_string_lossy().contains("journal-") {
            // Length, checksum, then the snapshot's kind and version.
            let length = u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
            bytes[9] = 3;
            let sum = checksum(&bytes[8..8 + length]);
            bytes[4..8].copy_from_slice(&sum.to_le_bytes());
            fs::write(path, bytes).unwrap();
        }
    }
    let before = files();
    let mut agent = config.start(&world);
    agent.wait_for("was written by newer software (version 3): run that, or move the state directory away");
    assert!(!agent.wait().success());
    assert_eq!(files(), before);
}
