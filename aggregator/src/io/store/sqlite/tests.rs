//! The machine on real databases: what is in the tables, after restarts, full disks and restored backups.

mod calendar;

mod changes;

mod centre;

mod count_windows;

mod durable;

mod feed;

mod lineage;

mod place;

mod recovery;

mod sessions;

mod set_aside;

mod suite;

use std::collections::BTreeSet;

use catchment_common::plan::PipelineId;
use catchment_common::wire::{EpochRange, Heartbeat, Loss, LossEntry, Message, RejectReason, SeqRange};

use self::centre::Centre;
use super::*;
use crate::io::command::agents;
use crate::io::command::show::OutputFormat;
use crate::io::store::backup;
use crate::limits::COMMIT_BYTES_MAX;
use crate::store::Reads;
use crate::testing::{PIPELINE, at, batch, batch_of, heartbeat, now};

const PLAN: &str = r#"[[query]]
name = "q"
topic = "s/{device}"
key = ["device"]
fields = { temp = "temp" }
window = { size = "10s" }
aggregates = ["count", "sum"]
watermark_delay = "0s"
coarsen = ["1m"]
"#;
const MINUTE: PipelineId = PipelineId(2);
const ROWS: &str = "SELECT unixepoch(window_start), unixepoch(window_end), device, coarse, revision, status, \
                    coverage, readings, temp_sum FROM q ORDER BY window_start, window_end, device, coarse";

fn held(last: u64) -> Vec<EpochRange> {
    vec![EpochRange {
        epoch: 1,
        ranges: vec![SeqRange { first: 1, last }],
    }]
}

#[test]
fn coarse_rows_stand_in_the_table_and_survive_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = Centre::new(folder.path(), PLAN);
    centre.greet(1, 1, "a", Vec::new());
    centre.frame(1, 1, batch(1, 100, &[("x", &[1])]));
    let minute: &[(&str, &[i64])] = &[("x", &[5, 6]), ("y", &[7])];
    centre.frame(1, 1, batch_of(MINUTE, 1, 2, 60, minute));
    centre.frame(1, 1, heartbeat(1, 2, 200));
    centre.settle(1);
    let first = [
        "60|120|x|1|1|coarse|1|2|11",
        "60|120|y|1|1|coarse|1|1|7",
        "100|110|x|0|1|final|1|1|1",
    ];
    assert_eq!(centre.rows(ROWS), first);
    // From the appended batches, and then from the checkpoint's columns.
    for (restart, seconds) in [20, 40].into_iter().enumerate() {
        centre = centre.crash(seconds);
        assert_eq!(centre.rows(ROWS), first, "restart {restart}");
        centre.settle(seconds + 10);
    }
    assert_eq!(centre.rows("SELECT count(*) FROM catchment_batch"), ["0"]);
    centre = centre.crash(60);
    centre.greet(60, 2, "a", Vec::new());
    centre.frame(60, 2, batch_of(MINUTE, 1, 3, 60, &[("x", &[9])]));
    centre.settle(60);
    assert_eq!(centre.rows(ROWS)[0], "60|120|x|1|2|coarse|1|3|20");
    assert_eq!(centre.rows(ROWS)[1..], first[1..]);
}

#[test]
fn coarse_panes_gathered_under_two_plans_are_one_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = Centre::new(folder.path(), PLAN);
    centre.greet(1, 1, "a", Vec::new());
    centre.frame(1, 1, batch_of(MINUTE, 1, 1, 60, &[("x", &[1])]));
    centre.settle(1);
    centre.settle(20);
    let later = PLAN.replace("watermark_delay = \"0s\"", "watermark_delay = \"1s\"");
    crate::plan_file::apply(&mut centre.writer, &later, "plan", at(1)).unwrap();
    let mut centre = centre.crash(40);
    centre.greet(40, 2, "a", Vec::new());
    centre.frame(40, 2, batch_of(PipelineId(4), 1, 2, 60, &[("x", &[10])]));
    centre.settle(40);
    assert_eq!(centre.rows(ROWS), ["60|120|x|1|2|coarse|1|2|11"]);
    // An agent that has not heard of the new plan yet.
    centre.frame(41, 2, batch_of(MINUTE, 1, 3, 60, &[("x", &[100])]));
    centre.settle(41);
    assert_eq!(centre.rows(ROWS), ["60|120|x|1|3|coarse|1|3|111"]);
}

/// The pipelines that the queries of the plan in force are on.
fn own_pipelines(centre: &Centre) -> Vec<PipelineId> {
    let queries = &centre.aggregator.catalog().queries;
    queries.iter().map(|query| query.readers[0].pipeline).collect()
}

#[test]
fn a_query_that_leaves_a_shared_pipeline_and_comes_back_counts_each_reading_once() {
    let folder = tempfile::tempdir().unwrap();
    let shared = format!("{PLAN}{}", PLAN.replace("name = \"q\"", "name = \"r\""));
    // `q` changes its watermark_delay and leaves; `r` stays as it is.
    let parted = shared.replacen("watermark_delay = \"0s\"", "watermark_delay = \"1s\"", 1);
    let mut centre = Centre::new(folder.path(), &shared);
    let (mut seq, mut used) = (0, Vec::new());
    for (step, plan) in [&shared, &parted, &shared, &parted].into_iter().enumerate() {
        let seconds = 20 * step as i64;
        if step > 0 {
            crate::plan_file::apply(&mut centre.writer, plan, "plan", at(seconds)).unwrap();
            centre = centre.crash(seconds);
        }
        let own = own_pipelines(&centre);
        assert!(
            own.iter().all(|pipeline| !used.contains(pipeline)),
            "{own:?} go on under new numbers"
        );
        centre.greet(seconds, step as u64 + 1, "a", Vec::new());
        // One reading, which an agent counts once for each pipeline of its plan.
        let mut pipelines = own.clone();
        pipelines.dedup();
        for &pipeline in &pipelines {
            seq += 1;
            centre.frame(
                seconds,
                step as u64 + 1,
                batch_of(pipeline, 1, seq, 100, &[("x", &[1 << step])]),
            );
        }
        let watermarks = pipelines
            .iter()
            .map(|&pipeline| (pipeline, at(200 + seconds)))
            .collect();
        let Message::Heartbeat(said) = Message::parse(&heartbeat(1, seq, 0)).unwrap() else {
            unreachable!("a heartbeat was made")
        };
        let said = Heartbeat { watermarks, ..said };
        centre.frame(seconds, step as u64 + 1, Message::Heartbeat(said).emit());
        centre.settle(seconds);
        centre.settle(seconds + 10);
        let expected = format!("{}|{}", step + 1, (1 << (step + 1)) - 1);
        for query in ["q", "r"] {
            let rows = centre.rows(&format!(
                "SELECT readings, temp_sum FROM {query} WHERE coarse = 0"
            ));
            assert_eq!(rows, [&*expected], "{query} after step {step}");
        }
        used = own;
    }
    // A plan that moves nobody renumbers nothing.
    crate::plan_file::apply(&mut centre.writer, &format!("{parted}\n"), "plan", at(90)).unwrap();
    assert_eq!(own_pipelines(&centre.crash(90)), used);
}

#[test]
fn retention_keeps_a_coarse_row_until_all_of_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let plan = format!("{PLAN}retention = \"100s\"\n");
    let mut centre = Centre::new(folder.path(), &plan);
    // The wall clock of `now` runs from a million seconds.
    let wall = 999_960;
    centre.greet(1, 1, "a", Vec::new());
    centre.frame(1, 1, batch_of(MINUTE, 1, 1, wall, &[("x", &[1])]));
    centre.frame(1, 1, batch(2, wall, &[("x", &[1])]));
    centre.frame(1, 1, heartbeat(1, 2, wall + 100));
    let mut kept = Vec::new();
    for (seq, seconds) in [(3, 10), (4, 80), (5, 130)] {
        centre.frame(seconds, 1, batch(seq, wall + 340, &[("x", &[1])]));
        centre.frame(seconds, 1, heartbeat(1, seq, 1_000_000 + seconds));
        centre.settle(seconds);
        let rows = centre.rows("SELECT coarse FROM q ORDER BY coarse").concat();
        let panes = centre
            .rows("SELECT count(*) FROM catchment_pane WHERE pipeline IN (SELECT id FROM catchment_pipeline WHERE number = 2)")
            .concat();
        kept.push((rows, panes));
    }
    let kept: Vec<(&str, &str)> = kept.iter().map(|(rows, panes)| (&**rows, &**panes)).collect();
    assert_eq!(kept, [("01", "1"), ("1", "1"), ("", "0")]);
}

#[test]
fn losses_agents_and_retirement_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = Centre::new(folder.path(), PLAN);
    centre.greet(1, 1, "a", Vec::new());
    let entry = |pipeline, from, readings| LossEntry {
        pipeline,
        from: at(from),
        to: at(from + 60),
        readings,
    };
    let entries = vec![entry(MINUTE, 60, 7), entry(PIPELINE, 100, 3)];
    let losses = [(1, entries), (2, Vec::new())];
    for (seq, entries) in losses {
        let loss = Loss {
            epoch: 1,
            seq,
            entries,
        };
        centre.frame(1, 1, loss.emit());
        centre.frame(1, 1, loss.emit());
    }
    centre.settle(1);
    assert_eq!(centre.acked(1), BTreeSet::from([1, 2]));
    let show = |command: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        command(&mut out);
        String::from_utf8(out).unwrap()
    };
    let path = centre.path.clone();
    let csv = OutputFormat::Csv;
    let losses = show(&|out| agents::losses(&path, None, csv, out).unwrap());
    assert_eq!(
        losses,
        "agent,queries,from,to,readings,epoch,seq\n\
         a,q,1970-01-01T00:01:40.000Z,1970-01-01T00:02:40.000Z,3,0000000000000001,1\n\
         a,q,1970-01-01T00:01:00.000Z,1970-01-01T00:02:00.000Z,7,0000000000000001,1\n\
         a,,1970-01-01T00:00:00.000Z,1970-01-01T00:00:00.000Z,0,0000000000000001,2\n"
    );
    assert_eq!(
        show(&|out| agents::losses(&path, Some("b"), csv, out).unwrap()),
        "agent,queries,from,to,readings,epoch,seq\n"
    );
    agents::retire(&path, "a", false).unwrap();
    assert!(
        agents::retire(&path, "b", false)
            .unwrap_err()
            .to_string()
            .contains("no agent `b`")
    );
    assert_eq!(centre.reader.retired().unwrap(), BTreeSet::from(["a".to_owned()]));
    let agents = show(&|out| agents::agents(&path, now(5), csv, out).unwrap());
    assert_eq!(
        agents,
        "agent,heard,plan,backlog_batches,backlog_bytes,software,sources,retired,lost_readings,conflicts,forks,clock\n\
         a,1970-01-12T13:46:41.000Z,1,0,0,test,,true,10,0,0,\n"
    );
    // Its frames do not bring it back, its hello does; and what is known of it outlives a restart.
    centre.frame(2, 1, heartbeat(3, 2, 0));
    centre.settle(2);
    assert_eq!(centre.reader.retired().unwrap().len(), 1);
    centre = centre.crash(3);
    assert!(show(&|out| agents::agents(&path, now(5), csv, out).unwrap()).contains(",test,,true,10,0"));
    centre.greet(3, 2, "a", Vec::new());
    centre.settle(5);
    assert_eq!(centre.reader.retired().unwrap().len(), 0);
}

#[test]
fn a_full_disk_holds_the_agents_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = Centre::new(folder.path(), PLAN);
    centre.greet(1, 1, "a", Vec::new());
    centre.frame(1, 1, batch(1, 100, &[("x", &[1])]));
    centre.settle(1);
    assert_eq!(centre.acked(1), BTreeSet::from([1]));
    let pages: i64 = centre
        .writer
        .connection()
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .unwrap();
    let limit = |centre: &Centre, pages: i64| {
        let set = format!("PRAGMA max_page_count = {pages}");
        centre
            .writer
            .connection()
            .query_row(&set, [], |_| Ok(()))
            .unwrap();
    };
    limit(&centre, pages);
    // Batches of long keys that share no beginnings, so that few of them fill much.
    let scatter = |key: u128| {
        format!(
            "{:032x}",
            key.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        )
    };
    let keys: BTreeSet<String> = (0..4_000_u128).map(|key| scatter(key).repeat(5)).collect();
    let rows: Vec<(&str, &[i64])> = keys.iter().map(|key| (key.as_str(), &[1_i64][..])).collect();
    let (mut seq, mut bytes, mut seconds) = (1, 0, 2);
    while centre.aggregator.has_room() {
        seq += 1;
        let frame = batch(seq, 100, &rows);
        bytes += frame.len();
        centre.frame(seconds, 1, frame);
        assert_ne!(centre.commit(seconds), Some(true));
        seconds += 1;
        assert!(bytes < 3 * COMMIT_BYTES_MAX, "it must ask for a pause");
    }
    for _ in 0..3 {
        assert_eq!(centre.commit(seconds), Some(false), "tried again once a second");
        assert_eq!(centre.commit(seconds), None);
        seconds += 1;
    }
    assert_eq!(
        centre.acked(1),
        BTreeSet::from([1]),
        "nothing is acknowledged meanwhile"
    );
    limit(&centre, 1_000_000);
    centre.settle(seconds);
    assert_eq!(centre.acked(1), (1..=seq).collect());
    assert!(centre.aggregator.has_room());
    centre.frame(seconds, 1, heartbeat(1, seq, 200));
    centre.settle(seconds);
    let total = centre.rows("SELECT sum(readings) FROM q");
    assert_eq!(total, [((seq - 1) * 4_000 + 1).to_string()]);
}

#[test]
fn an_agent_sends_again_exactly_what_a_restored_backup_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = Centre::new(folder.path(), PLAN);
    // The agent's retained batches, and a twin that never lost anything.
    let retained: Vec<Vec<u8>> = (1..=9)
        .map(|seq| match seq {
            4 | 7 => batch_of(MINUTE, 1, seq, 60, &[("x", &[seq as i64])]),
            _ => batch(
                seq,
                100 + seq as i64 / 3 * 10,
                &[("x", &[seq as i64]), ("y", &[1])],
            ),
        })
        .collect();
    centre.greet(1, 1, "a", Vec::new());
    for frame in &retained[..5] {
        centre.frame(1, 1, frame.clone());
    }
    centre.settle(1);
    let file = folder.path().join("backup.db");
    backup::backup(&centre.path, &file, false).unwrap();
    let error = backup::backup(&centre.path, &file, false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("--force"), "{error}");
    backup::backup(&centre.path, &file, true).unwrap();
    for frame in &retained[5..] {
        centre.frame(2, 1, frame.clone());
    }
    centre.frame(2, 1, heartbeat(10, 9, 200));
    centre.settle(2);
    let truth = centre.rows(&ROWS.replace("revision, ", ""));
    assert_eq!(centre.rows("SELECT sum(readings) FROM q"), ["16"]);
    let path = centre.path.clone();
    drop(centre);

    let aside = backup::restore(&path, &file, at(77)).unwrap().unwrap();
    assert!(aside.exists() && !folder.path().join("centre.db.restoring").exists());
    let mut centre = Centre::open(&path, 3);
    centre.greet(3, 2, "a", held(9));
    assert_eq!(centre.committed(2), (1..=5).collect());
    for frame in &retained[5..] {
        centre.frame(3, 2, frame.clone());
    }
    centre.frame(3, 2, heartbeat(10, 9, 200));
    centre.settle(3);
    assert_eq!(centre.acked(2), (6..=9).collect());
    assert_eq!(centre.rows(&ROWS.replace("revision, ", "")), truth);
    // The former database is whole, too.
    assert_eq!(
        Centre::open(&aside, 4).rows("SELECT sum(readings) FROM q"),
        ["16"]
    );
}

#[test]
fn ids_given_out_after_a_backup_are_not_given_out_again() {
    let folder = tempfile::tempdir().unwrap();
    let centre = Centre::new(folder.path(), PLAN);
    let (path, file) = (centre.path.clone(), folder.path().join("backup.db"));
    drop(centre);
    backup::backup(&path, &file, false).unwrap();
    let later = PLAN.replace("watermark_delay = \"0s\"", "watermark_delay = \"1s\"");
    crate::plan_file::apply(&mut Sqlite::open(&path).unwrap(), &later, "plan", at(1)).unwrap();
    let given_out = |path: &Path| {
        let store = Sqlite::open_to_read(path).unwrap();
        let catalog = store.catalog().unwrap();
        let version = store.given_out().unwrap().plan_version;
        (catalog.pipelines.len(), catalog.current, version)
    };
    let (all, before, version) = given_out(&path);
    assert_eq!((all, version), (4, 2));
    // The replaced database can be read: its plan and its pipelines go on.
    backup::restore(&path, &file, at(2)).unwrap();
    assert_eq!(given_out(&path), (4, before.clone(), 3));
    // It cannot: what agents may hold under that id is not taken for what is given out now.
    std::fs::write(&path, b"no database").unwrap();
    backup::restore(&path, &file, at(3)).unwrap();
    assert_eq!(given_out(&path).0, 2);
    crate::plan_file::apply(&mut Sqlite::open(&path).unwrap(), &later, "plan", at(4)).unwrap();
    let (all, after, version) = given_out(&path);
    assert_eq!((all, version), (4, 1_002));
    assert_ne!(after, before);
    // Of another database nothing is carried over.
    let other = folder.path().join("other.db");
    crate::plan_file::apply(&mut Sqlite::open(&other).unwrap(), &later, "plan", at(5)).unwrap();
    let own = Sqlite::open_to_read(&path).unwrap().database().unwrap();
    backup::restore(&other, &file, at(6)).unwrap();
    assert_eq!(given_out(&other).0, 2);
    assert_eq!(Sqlite::open_to_read(&other).unwrap().database().unwrap(), own);
}

#[test]
fn a_restore_refuses_what_it_must_not_do() {
    let folder = tempfile::tempdir().unwrap();
    let centre = Centre::new(folder.path(), PLAN);
    let (path, file) = (centre.path.clone(), folder.path().join("backup.db"));
    backup::backup(&path, &file, false).unwrap();
    drop(centre);
    let refused = |file: &Path| backup::restore(&path, file, at(1)).unwrap_err().to_string();
    let serving = crate::io::store::lock::DatabaseLock::take(&path).unwrap();
    assert!(refused(&file).ends_with("another catchment-aggregator serves this database; stop it first"));
    drop(serving);
    let other = folder.path().join("other.db");
    std::fs::write(&other, b"this is no database at all, only text").unwrap();
    assert!(
        refused(&other).contains("damaged or no database"),
        "{}",
        refused(&other)
    );
    std::fs::remove_file(&other).unwrap();
    assert!(refused(&other).contains("cannot be read"));
    Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE x (y)")
        .unwrap();
    assert!(refused(&other).contains("no database of catchment-aggregator"));
    let newer = Connection::open(&file).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    newer.close().unwrap();
    assert!(refused(&file).contains("schema version 99"));
    let mut damaged = std::fs::read(&file).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle..].fill(0xff);
    std::fs::write(&file, damaged).unwrap();
    assert!(refused(&file).contains("damaged"));
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !names
            .iter()
            .any(|name| name.to_string_lossy().contains("replaced")),
        "nothing was touched: {names:?}"
    );
}
