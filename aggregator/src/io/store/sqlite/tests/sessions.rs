//! Sessions in their table: over agents, bridged and moved by late data, over restarts, and when their panes have left
//! memory.

use super::*;
use crate::limits::SESSION_GAPS_KEPT;
use crate::testing::readings;

const PLAN: &str = r#"[[query]]
name = "q"
topic = "s/{device}"
key = ["device"]
fields = { temp = "temp" }
window = { session = "10s" }
aggregates = ["sum", "rate"]
watermark_delay = "0s"
"#;
const ROWS: &str = "SELECT device, unixepoch(window_start), unixepoch(window_end), revision, status, readings, temp_sum \
                    FROM q ORDER BY device, window_start";

fn centre(folder: &Path) -> Centre {
    let mut centre = Centre::new(folder, PLAN);
    centre.greet(1, 1, "a", Vec::new());
    centre
}

/// Agent `a`, on connection 1, sends readings of seconds and values, and says how far it is.
fn send(centre: &mut Centre, seconds: i64, seq: u64, rows: &[(&str, i64, i64)], watermark: i64) {
    centre.frame(seconds, 1, readings(seq, 10, rows));
    centre.frame(seconds, 1, heartbeat(1, seq, watermark));
    centre.settle(seconds);
}

#[test]
fn a_pause_as_long_as_the_gap_parts_sessions_and_a_shorter_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = centre(folder.path());
    let rows = [
        ("x", 100, 1),
        ("x", 109, 2),
        ("x", 118, 4),
        ("x", 128, 8),
        ("y", 103, 16),
    ];
    send(&mut centre, 1, 1, &rows, 127);
    assert_eq!(
        centre.rows(ROWS),
        ["y|103|113|1|final|1|16"],
        "one that may go on is not shown"
    );
    send(&mut centre, 2, 2, &[], 128);
    assert_eq!(
        centre.rows(ROWS),
        ["x|100|128|1|final|3|7", "y|103|113|1|final|1|16"]
    );
    send(&mut centre, 3, 3, &[], 140);
    assert_eq!(centre.rows(ROWS)[1], "x|128|138|1|final|1|8");
    let rate = "SELECT round(temp_rate * 28, 9) FROM q WHERE unixepoch(window_start) = 100";
    assert_eq!(centre.rows(rate), ["3"], "values per second of the row's span");
}

#[test]
fn agents_make_one_session_together_and_a_silent_one_makes_it_provisional() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = centre(folder.path());
    centre.greet(1, 2, "b", Vec::new());
    centre.frame(1, 2, heartbeat(1, 0, 90));
    send(&mut centre, 1, 1, &[("x", 100, 1), ("x", 112, 2)], 200);
    assert_eq!(centre.rows(ROWS), [""; 0], "b may have more");
    centre.settle(12);
    let torn = ["x|100|110|1|provisional|1|1", "x|112|122|1|provisional|1|2"];
    assert_eq!(centre.rows(ROWS), torn, "patience is over");
    let mut centre = centre.crash(13);
    centre.greet(13, 2, "b", Vec::new());
    centre.frame(13, 2, readings(1, 10, &[("x", 105, 4)]));
    centre.settle(13);
    let whole = ["x|100|122|2|provisional|3|7", "x|112|122|2|merged|0|-"];
    assert_eq!(centre.rows(ROWS), whole);
    centre.frame(14, 2, heartbeat(1, 1, 122));
    centre.settle(14);
    assert_eq!(centre.rows(ROWS), ["x|100|122|3|final|3|7", whole[1]]);
}

#[test]
fn late_data_bridges_sessions_and_moves_starts_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = centre(folder.path());
    let rows = [("x", 100, 1), ("x", 115, 2), ("x", 130, 4), ("y", 100, 8)];
    send(&mut centre, 1, 1, &rows, 200);
    // From the appended batches first, then from the checkpoint's columns.
    for (restart, seconds) in [20, 40].into_iter().enumerate() {
        centre = centre.crash(seconds);
        assert_eq!(centre.rows(ROWS).len(), 4, "restart {restart}");
        centre.settle(seconds + 10);
    }
    centre = centre.crash(60);
    centre.greet(60, 1, "a", Vec::new());
    send(&mut centre, 60, 2, &[("x", 109, 16)], 200);
    let bridged = [
        "x|100|125|2|final|3|19",
        "x|115|125|2|merged|0|-",
        "x|130|140|1|final|1|4",
        "y|100|110|1|final|1|8",
    ];
    assert_eq!(centre.rows(ROWS), bridged);
    // Before the start, and into the pause that is left, in one commit.
    centre.frame(61, 1, readings(3, 10, &[("x", 122, 32)]));
    send(&mut centre, 61, 4, &[("x", 91, 64)], 200);
    let all = [
        "x|91|140|1|final|6|119",
        "x|100|125|3|merged|0|-",
        "x|115|125|2|merged|0|-",
        "x|130|140|2|merged|0|-",
        "y|100|110|1|final|1|8",
    ];
    assert_eq!(centre.rows(ROWS), all);
    let centre = centre.crash(80);
    assert_eq!(centre.rows(ROWS), all);
    assert_eq!(
        centre.rows("SELECT sum(readings), sum(temp_sum) FROM q"),
        ["7|127"]
    );
}

#[test]
fn a_session_that_grows_beyond_the_horizon_is_shown_again_when_its_new_end_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = centre(folder.path());
    send(&mut centre, 1, 1, &[("x", 100, 1)], 112);
    assert_eq!(centre.rows(ROWS), ["x|100|110|1|final|1|1"]);
    send(&mut centre, 2, 2, &[("x", 109, 2), ("x", 113, 4)], 114);
    assert_eq!(centre.rows(ROWS), ["x|100|110|1|final|1|1"], "it goes on");
    let mut centre = centre.crash(3);
    centre.greet(3, 1, "a", Vec::new());
    send(&mut centre, 3, 3, &[], 123);
    assert_eq!(centre.rows(ROWS), ["x|100|123|2|final|3|7"]);
}

#[test]
fn a_session_whose_panes_have_left_memory_is_whole_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = centre(folder.path());
    let last = 100 + 9 * (SESSION_GAPS_KEPT + 20);
    let mut count = 0;
    for (seq, second) in (100..=last).step_by(9).enumerate() {
        send(
            &mut centre,
            second,
            seq as u64 + 1,
            &[("x", second, 1), ("y", second / 40 * 40, 1)],
            second,
        );
        count += 1;
    }
    assert!(
        !centre.aggregator.panes().holds(PIPELINE, at(100)),
        "the test would show nothing"
    );
    assert_eq!(centre.rows("SELECT count(*) FROM q WHERE device = 'x'"), ["0"]);
    let mut centre = centre.crash(last + 10);
    assert!(!centre.aggregator.panes().holds(PIPELINE, at(100)));
    centre.greet(last + 10, 1, "a", Vec::new());
    send(&mut centre, last + 10, 1_000, &[], 10_000);
    centre.frame(last + 10, 1, heartbeat(1_000, 1_000, 10_000));
    centre.settle(last + 10);
    let row = format!("x|100|{}|1|final|{count}|{count}", last + 10);
    assert_eq!(centre.rows(ROWS)[0], row);
    // And again by a reading before all of them.
    send(&mut centre, last + 20, 1_001, &[("x", 92, 1)], 10_000);
    assert_eq!(
        centre.rows(ROWS)[..2],
        [
            format!("x|92|{}|1|final|{}|{}", last + 10, count + 1, count + 1),
            format!("x|100|{}|2|merged|0|-", last + 10),
        ]
    );
}

#[test]
fn sessions_are_kept_by_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let plan = format!("{PLAN}retention = \"1000s\"\n");
    let mut centre = Centre::new(folder.path(), &plan);
    centre.greet(1, 1, "a", Vec::new());
    // The wall clock is a million seconds ahead of the tests' seconds.
    let base = 1_000_000 - 995;
    let rows = [
        ("x", base, 1),
        ("x", base + 9, 1),
        ("x", base + 18, 1),
        ("y", base, 1),
        ("z", base + 15, 1),
    ];
    send(&mut centre, 1, 1, &rows, base + 40);
    assert_eq!(centre.rows("SELECT count(*) FROM q"), ["3"]);
    send(&mut centre, 26, 2, &[], 1_000_000 + 26);
    let left = "SELECT device FROM q ORDER BY device";
    assert_eq!(
        centre.rows(left),
        ["x", "z"],
        "y ended more than 1000 s ago, x only began then"
    );
}

#[test]
fn a_session_that_is_longer_than_retention_is_shown_whole_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let plan = format!("{PLAN}retention = \"60s\"\n");
    let mut centre = Centre::new(folder.path(), &plan);
    centre.greet(1, 1, "a", Vec::new());
    let readings = 115;
    for index in 0..readings {
        let second = 100 + index * 9;
        send(
            &mut centre,
            second,
            index.unsigned_abs() + 1,
            &[("x", second, 1)],
            second,
        );
    }
    let last = 100 + (readings - 1) * 9;
    send(&mut centre, last + 20, 1_000, &[], last + 10);
    let beat = heartbeat(1_000, 1_000, last + 10);
    centre.frame(last + 20, 1, beat);
    centre.settle(last + 20);
    assert_eq!(
        centre.rows(ROWS),
        [format!("x|100|{}|1|final|{readings}|{readings}", last + 10)]
    );
}
