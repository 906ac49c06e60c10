//! Count windows in their table: parts that come apart, agents that stay apart, restarts, retention.

use super::lineage::explained;
use super::*;
use crate::aggregator::Transmit;
use crate::testing::counted;

const PLAN: &str = r#"[[query]]
name = "q"
topic = "s/{device}"
key = ["device"]
fields = { temp = "temp" }
window = { count = 3 }
aggregates = ["sum", "rate", "last"]
"#;
const ROWS: &str = "SELECT window_number, unixepoch(window_start), unixepoch(window_end), device, agent, coarse, revision, \
                    status, coverage, readings, temp_sum, temp_rate FROM q ORDER BY window_number, device, agent";

fn centre(folder: &Path, plan: &str) -> Centre {
    let mut centre = Centre::new(folder, plan);
    centre.greet(1, 1, "a", Vec::new());
    centre.greet(1, 2, "b", Vec::new());
    centre
}

/// When windows were begun, in milliseconds: what retention looks at.
const BEGUN: i64 = 1_000_000_000;

#[test]
fn a_row_is_provisional_until_its_window_is_full_and_no_watermark_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = centre(folder.path(), PLAN);
    let full = [(100, 1), (104, 2), (102, 4)];
    centre.frame(
        1,
        1,
        counted(1, &[(BEGUN, "x\0a", &full), (BEGUN + 1, "x\0a", &[(90, 8)])]),
    );
    centre.settle(1);
    let first = "1000000000|100|104|x|a|0|1|final|1|3|7|0.75";
    assert_eq!(
        centre.rows(ROWS),
        [first, "1000000001|90|90|x|a|0|1|provisional|1|1|8|-"],
        "readings of one instant have no rate"
    );
    // After a checkpoint the pane is only in the store.
    centre.settle(30);
    assert_eq!(centre.aggregator.panes().partials(), 2);
    centre.settle(60);
    centre.frame(61, 1, counted(2, &[(BEGUN + 1, "x\0a", &[(80, 16)])]));
    centre.settle(61);
    let second = |row: &str| [first.to_owned(), format!("1000000001|{row}")];
    assert_eq!(centre.rows(ROWS), second("80|90|x|a|0|2|provisional|1|2|24|0.2"));
    let mut centre = centre.crash(62);
    assert_eq!(centre.rows(ROWS), second("80|90|x|a|0|2|provisional|1|2|24|0.2"));
    centre.greet(63, 1, "a", Vec::new());
    centre.frame(63, 1, counted(3, &[(BEGUN + 1, "x\0a", &[(95, 32)])]));
    // It came before: nothing is counted twice.
    centre.frame(63, 1, counted(2, &[(BEGUN + 1, "x\0a", &[(80, 16)])]));
    centre.settle(63);
    assert_eq!(centre.rows(ROWS), second("80|95|x|a|0|3|final|1|3|56|0.2"));
}

#[test]
fn agents_have_rows_of_their_own_and_none_writes_those_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = centre(folder.path(), PLAN);
    centre.frame(1, 1, counted(1, &[(BEGUN, "x\0a", &[(100, 1)])]));
    centre.frame(1, 2, counted(1, &[(BEGUN, "x\0b", &[(100, 2)])]));
    centre.settle(1);
    let rows = [
        "1000000000|100|100|x|a|0|1|provisional|1|1|1|-",
        "1000000000|100|100|x|b|0|1|provisional|1|1|2|-",
    ];
    assert_eq!(centre.rows(ROWS), rows);
    for (seq, key) in [(2, "x\0a"), (3, "x"), (4, "x\0a\0b"), (5, "a\0x")] {
        centre.frame(2, 2, counted(seq, &[(BEGUN, key, &[(100, 2)])]));
    }
    centre.settle(2);
    assert_eq!(centre.rows(ROWS), rows);
    let refused = centre.sent.iter().filter_map(|(to, transmit)| match transmit {
        Transmit::Message(Message::Reject(refusal)) => Some((*to, refusal.seq, refusal.reason)),
        _ => None,
    });
    use RejectReason::{OtherAgent, UnknownPipeline};
    assert_eq!(
        refused.collect::<Vec<_>>(),
        [
            (2, 2, OtherAgent),
            (2, 3, UnknownPipeline),
            (2, 4, UnknownPipeline),
            (2, 5, OtherAgent)
        ]
    );
}

#[test]
fn rows_and_their_panes_go_together_by_when_their_windows_were_begun() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = centre(folder.path(), &format!("{PLAN}retention = \"1h\"\n"));
    // The wall clock of these tests shows the second 1,000,000 and more.
    let hour = 3_600_000;
    let (old, young) = (BEGUN - hour, BEGUN + 20_000 - hour);
    centre.frame(
        1,
        1,
        counted(1, &[(old, "x\0a", &[(100, 1)]), (young, "x\0a", &[(1, 2)])]),
    );
    centre.settle(1);
    assert_eq!(centre.rows(ROWS).len(), 2);
    centre.frame(12, 1, heartbeat(1, 1, 1_000_012));
    centre.settle(12);
    assert_eq!(centre.rows("SELECT window_number FROM q"), [young.to_string()]);
    assert_eq!(
        centre.rows("SELECT start_us FROM catchment_pane"),
        [(young * 1_000).to_string()]
    );
    assert_eq!(
        centre.rows("SELECT start_us FROM catchment_shown"),
        [(young * 1_000).to_string()]
    );
}

#[test]
fn a_window_is_explained_by_its_parts() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = centre(folder.path(), PLAN);
    centre.frame(1, 1, counted(1, &[(BEGUN, "x\0a", &[(100, 1), (101, 1)])]));
    centre.settle(1);
    centre.frame(2, 1, counted(2, &[(BEGUN, "x\0a", &[(105, 1)])]));
    centre.settle(2);
    let text = explained(&centre, "q", "device=x,agent=a", "1970-01-01T00:01:45Z");
    for part in [
        "q [x, a] 1970-01-01T00:01:40.000Z to 1970-01-01T00:01:45.000Z: final, coverage 1, revision 2, 3 readings",
        "1970-01-12T13:46:40.000Z",
        "a part of it",
        "it is full",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let error = explained(&centre, "q", "device=x", "1970-01-01T00:01:45Z");
    assert_eq!(error, "error: the key lacks `agent`; give --key device=…,agent=…");
}

#[test]
fn a_plan_that_counts_otherwise_needs_a_name_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = centre(folder.path(), PLAN);
    let apply = |centre: &mut Centre, plan: &str| {
        let applied = crate::plan_file::apply(&mut centre.writer, plan, "plan", at(0));
        applied.map(|_| ()).map_err(|error| format!("{error:#}"))
    };
    let other = PLAN.replace("count = 3", "count = 4");
    assert!(
        apply(&mut centre, &other)
            .unwrap_err()
            .contains("its windows were of another kind, size or step")
    );
    assert_eq!(
        apply(&mut centre, &PLAN.replace("\"sum\"", "\"sum\", \"min\"")),
        Ok(())
    );
    assert_eq!(apply(&mut centre, &(other.replace("\"q\"", "\"r\""))), Ok(()));
}
