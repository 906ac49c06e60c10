//! Disks that run full, cannot be written, lose files, tear the last write and flip bytes, under the real agent. It
//! lives through all of it, needs nobody to delete files, and goes on as soon as it can.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::process::{Process, binary, run, text};
use catchment_tests::small_disk::SmallDisk;
use catchment_tests::verdict::{publish_fleet, wait_until_right};
use catchment_tests::wait::until;
use catchment_tests::world::{FLEET_PLAN, World, text as path_text};

const LIMITS: [&str; 2] = ["spool = \"1 MiB\"", "journal = \"256 KiB\""];
/// Looks in a row that find an agent's files unchanged before it counts as at rest.
const LOOKS_AT_REST: u32 = 50;
const FAILED: &str = "the disk fails";

fn config(broker: &Broker, aggregator: &Aggregator) -> AgentConfig {
    let config = AgentConfig::new("gw-1", &broker.url(), aggregator);
    LIMITS.iter().fold(config, |config, line| config.limit(line))
}

fn start_fleet(world: &World, broker: &Broker, seconds: u64) -> Process {
    let mut command = Command::new(binary("catchment-fleet"));
    let seconds = format!("{seconds}s");
    command.args([
        "run",
        "--devices",
        "50",
        "--rate",
        "10",
        "--duration",
        &seconds,
        "--broker",
        &broker.url(),
    ]);
    command.arg("--truth").arg(world.path("truth.jsonl"));
    Process::start("fleet", world.folder(), &mut command)
}

fn wait_until_accepted(aggregator: &Aggregator, least: u64) {
    until(&format!("{least} readings accepted"), || {
        (aggregator.counter("accepted") >= least).then_some(())
    });
}

/// Readings of the minute that began so many minutes ago.
fn publish_minute(world: &World, broker: &Broker, name: &str, minutes_ago: i64) -> PathBuf {
    let truth = world.path(name);
    let start = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes_ago);
    let start = start.to_string();
    let options = [
        "--devices",
        "50",
        "--duration",
        "1m",
        "--unpaced",
        "--start",
        &start,
    ];
    publish_fleet(&[broker.url()], &truth, &options);
    truth
}

#[test]
fn an_agent_lives_through_a_full_disk_and_loses_nothing_that_it_acknowledged() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, FLEET_PLAN);
    let config = config(&broker, &aggregator);
    let Some(disk) = SmallDisk::mount(&world, &config.state(&world), 3) else {
        return;
    };
    let mut agent = config.start_within(&world, &disk.wrapper());
    agent.wait_for("subscribed");
    let mut fleet = start_fleet(&world, &broker, 12);
    wait_until_accepted(&aggregator, 1_000);

    // It makes room as long as it can: the ballast follows until there is none.
    until("the disk to stay full", || {
        disk.fill();
        (aggregator.counter("disk_faults") >= 3).then_some(())
    });
    agent.wait_for(FAILED);
    assert!(agent.is_running());
    // What it acknowledged is on the disk; what it did not, is the broker's.
    agent.kill();
    let mut agent = config.start_within(&world, &disk.wrapper());
    agent.wait_for(FAILED);
    assert!(fleet.is_running(), "all of it is under load");
    disk.free();

    assert!(fleet.wait().success());
    let report = wait_until_right(&aggregator, &[world.path("truth.jsonl")]);
    println!("{report}disk_faults {}", aggregator.counter("disk_faults"));
    assert!(
        report.contains("6000 readings published = 6000 in results"),
        "{report}"
    );
    assert!(agent.is_running());
    assert!(aggregator.counter("disk_faults") > 0);
}

/// Not even what was spooled is sent: a batch is named durably before it leaves, or else it would leave under another
/// name after the next crash and count twice.
#[test]
fn an_agent_with_a_read_only_disk_lives_and_acknowledges_nothing_until_it_can_write() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let config = config(&broker, &aggregator);
    let Some(disk) = SmallDisk::mount(&world, &config.state(&world), 3) else {
        return;
    };
    let mut agent = config.start_within(&world, &disk.wrapper());
    agent.wait_for("subscribed");
    aggregator.process().kill();
    let first = publish_minute(&world, &broker, "first.jsonl", 9);
    until("batches on the disk", || {
        (bytes_of(&disk.path(), "spool-") > 1_000).then_some(())
    });
    agent.kill();
    disk.set_read_only(true);

    let mut agent = config.start_within(&world, &disk.wrapper());
    agent.wait_for("the state directory cannot be written");
    aggregator.restart(&world);
    let second = publish_minute(&world, &broker, "second.jsonl", 6);
    agent.wait_for("subscribed");
    agent.wait_for(FAILED);
    // Killed in this state, it has acknowledged nothing that it could not keep.
    agent.kill();
    let mut agent = config.start_within(&world, &disk.wrapper());
    agent.wait_for(FAILED);
    assert!(agent.is_running());

    disk.set_read_only(false);
    let report = wait_until_right(&aggregator, &[first, second]);
    println!("{report}");
    assert!(
        report.contains("6000 readings published = 6000 in results"),
        "{report}"
    );
    assert!(agent.is_running());
}

fn bytes_of(folder: &Path, prefix: &str) -> u64 {
    files(folder, prefix)
        .iter()
        .map(|path| fs::metadata(path).map_or(0, |data| data.len()))
        .sum()
}

fn files(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    let mut files: Vec<PathBuf> = entries.filter(is_ours).collect();
    files.sort();
    files
}

/// What the audit says of a run in which the agent's files were harmed while it was down.
struct Harmed {
    audit: String,
    damaged: u64,
    unknown: usize,
}

impl Harmed {
    /// Some readings are missing, and so many losses of unknown size say so.
    fn check_loss(&self, unknown: usize) {
        assert!(self.audit.contains("are missing"), "{}", self.audit);
        assert_eq!(self.unknown, unknown, "{}", self.audit);
    }
}

/// An agent has a minute of readings on its disk that nobody else has, is killed, and starts with files that `harm` had
/// its hands on. Another minute follows, which must arrive whole in any case.
fn harmed(harm: impl Fn(&Path)) -> Harmed {
    harmed_after(&[9], harm)
}

/// The same with the minutes that began so many minutes ago. Of one that is yet to come the newest panes stay open.
fn harmed_after(minutes_ago: &[i64], harm: impl Fn(&Path)) -> Harmed {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let config = config(&broker, &aggregator);
    let mut agent = config.start_subscribed(&world);
    aggregator.process().kill();
    let publish = |minutes: &i64| publish_minute(&world, &broker, &format!("{minutes}.jsonl"), *minutes);
    let mut truths: Vec<PathBuf> = minutes_ago.iter().map(publish).collect();
    let state = config.state(&world);
    until("batches on the disk", || {
        (bytes_of(&state, "spool-") > 1_000).then_some(())
    });
    // All of it is the agent's: the broker has nothing left to repeat. A loaded machine may pause the agent for a
    // while.
    let (mut before, mut looks) = (0, 0);
    until("the broker to be rid of all", || {
        let bytes = bytes_of(&state, "");
        looks = if bytes == before { looks + 1 } else { 0 };
        before = bytes;
        (looks >= LOOKS_AT_REST).then_some(())
    });
    agent.kill();
    harm(&state);

    let mut agent = config.start_subscribed(&world);
    aggregator.restart(&world);
    truths.push(publish(&6));
    let whole = "SELECT coalesce(sum(readings), 0) FROM room_climate WHERE NOT coarse AND window_start BETWEEN ?1 AND ?2";
    let now = jiff::Timestamp::now();
    let since = now - jiff::SignedDuration::from_secs(7 * 60);
    until("the second minute to be whole", || {
        let sum = aggregator
            .sql()
            .query_row(whole, [since.to_string(), now.to_string()], |row| {
                row.get::<_, i64>(0)
            });
        (sum.unwrap() >= 3_000).then_some(())
    });
    // What is still under way from the first minute arrives, too.
    until("the spool to be empty", || {
        let backlog = "SELECT backlog_batches FROM catchment_agent WHERE name = 'gw-1'";
        let batches = aggregator
            .sql()
            .query_row(backlog, [], |row| row.get::<_, i64>(0));
        (batches.unwrap() == 0).then_some(())
    });
    let mut arguments = vec!["audit", "--db", path_text(aggregator.database())];
    arguments.extend(truths.iter().flat_map(|truth| ["--truth", path_text(truth)]));
    let audit = text(&run("catchment-fleet", &arguments));
    assert!(agent.is_running());
    let unknown = "SELECT count(*) FROM catchment_loss WHERE pipeline = 0";
    let unknown = aggregator
        .sql()
        .query_row(unknown, [], |row| row.get::<_, i64>(0))
        .unwrap() as usize;
    let harmed = Harmed {
        audit,
        damaged: aggregator.counter("damaged"),
        unknown,
    };
    let first_line = harmed.audit.lines().next().unwrap_or_default();
    println!(
        "{first_line}; damaged {}, losses of unknown size {}",
        harmed.damaged, harmed.unknown
    );
    harmed
}

fn append(path: &Path, bytes: &[u8]) {
    let mut content = fs::read(path).unwrap();
    content.extend_from_slice(bytes);
    fs::write(path, content).unwrap();
}

#[test]
fn a_torn_tail_is_what_a_crash_leaves_and_costs_nothing() {
    let harmed = harmed(|state| {
        for prefix in ["journal-", "spool-"] {
            let files = files(state, prefix);
            let newest = files.last().unwrap();
            // The beginning of a record whose rest never reached the disk.
            let content = fs::read(newest).unwrap();
            append(newest, &content[..content.len().min(40)]);
        }
    });
    assert!(
        harmed
            .audit
            .contains("6000 in results + 0 rejected + 0 lost: balanced"),
        "{}",
        harmed.audit
    );
    assert!(harmed.damaged > 0 && harmed.unknown == 0);
}

/// Flips a bit in the last frame but one (length, checksum, body) of the file with the most frames: no torn tail.
fn flip(state: &Path, prefix: &str) {
    let frames = |path: &PathBuf| {
        let content = fs::read(path).unwrap();
        let (mut starts, mut at) = (Vec::new(), 0);
        while let Some(length) = content.get(at..at + 4) {
            starts.push(at);
            at += 8 + u32::from_le_bytes(length.try_into().unwrap()) as usize;
        }
        starts
    };
    let longest = files(state, prefix)
        .into_iter()
        .max_by_key(|path| frames(path).len())
        .unwrap();
    let starts = frames(&longest);
    assert!(starts.len() > 1, "{} has but one frame", longest.display());
    let mut content = fs::read(&longest).unwrap();
    content[starts[starts.len() - 2] + 8] ^= 1;
    fs::write(longest, content).unwrap();
}

fn remove(state: &Path, prefix: &str) {
    for path in files(state, prefix) {
        fs::remove_file(path).unwrap();
    }
}

/// What bad sectors took is gone, from there to the end of the segment. The agent says so: a loss of unknown size.
#[test]
fn a_flipped_bit_in_the_spool_is_a_reported_loss_of_unknown_size() {
    let harmed = harmed(|state| flip(state, "spool-"));
    harmed.check_loss(1);
    assert!(harmed.damaged > 0);
}

/// What a bad group held may have been in a batch already; so the agent cannot say how much is lost, or whether any is.
#[test]
fn a_flipped_bit_in_the_journal_is_a_reported_loss_of_unknown_size() {
    let harmed = harmed(|state| flip(state, "journal-"));
    assert_eq!(harmed.unknown, 1, "{}", harmed.audit);
    assert!(harmed.damaged > 0);
}

#[test]
fn a_journal_that_is_gone_is_a_reported_loss_of_unknown_size() {
    harmed_after(&[9, -2], |state| remove(state, "journal-")).check_loss(1);
}

/// Batches that are acknowledged leave no trace either, so nothing tells that these were not.
#[test]
fn a_spool_that_is_gone_takes_its_batches_with_it_and_the_agent_goes_on() {
    harmed(|state| remove(state, "spool-")).check_loss(0);
}
