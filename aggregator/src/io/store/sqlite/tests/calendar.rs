//! Days of a time zone in their table, where clocks change.

use super::*;
use crate::testing::readings;

const HOUR: i64 = 3_600;
/// 2026-03-28T23:00:00Z: midnight in Berlin, where the next day has 23 hours.
const MIDNIGHT: i64 = 1_774_738_800;
/// The tests' second of a time after that; their wall clock begins at a million.
const TODAY: i64 = MIDNIGHT + 100 * HOUR - 1_000_000;
const ROWS: &str =
    "SELECT window_start, window_end, revision, status, readings, temp_sum FROM q ORDER BY window_start";

#[test]
fn a_day_without_an_hour_is_made_of_its_own_panes_and_revised_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let plan = PLAN
        .replace("size = \"10s\"", "size = \"1d\", timezone = \"Europe/Berlin\"")
        .replace("[\"count\", \"sum\"]", "[\"sum\", \"first\"]")
        .replace("[\"1m\"]", "[]");
    let mut centre = Centre::new(folder.path(), &plan).crash(TODAY);
    centre.greet(TODAY, 1, "a", Vec::new());
    let rows = [
        ("x", MIDNIGHT - 1, 1),
        ("x", MIDNIGHT, 2),
        ("x", MIDNIGHT + 23 * HOUR - 1, 4),
        ("x", MIDNIGHT + 23 * HOUR, 8),
    ];
    centre.frame(TODAY + 1, 1, readings(1, HOUR, &rows));
    centre.frame(TODAY + 1, 1, heartbeat(1, 1, MIDNIGHT + 23 * HOUR));
    centre.settle(TODAY + 1);
    let shown = [
        "2026-03-27T23:00:00.000Z|2026-03-28T23:00:00.000Z|1|final|1|1",
        "2026-03-28T23:00:00.000Z|2026-03-29T22:00:00.000Z|1|final|2|6",
    ];
    assert_eq!(centre.rows(ROWS), shown);
    centre.settle(TODAY + 20);
    let mut centre = centre.crash(TODAY + 30);
    centre.greet(TODAY + 30, 1, "a", Vec::new());
    centre.frame(
        TODAY + 30,
        1,
        readings(2, HOUR, &[("x", MIDNIGHT + 5 * HOUR, 16)]),
    );
    centre.frame(TODAY + 30, 1, heartbeat(1, 2, MIDNIGHT + 47 * HOUR));
    centre.settle(TODAY + 30);
    let revised = [
        shown[0],
        "2026-03-28T23:00:00.000Z|2026-03-29T22:00:00.000Z|2|final|3|22",
        "2026-03-29T22:00:00.000Z|2026-03-30T22:00:00.000Z|1|final|1|8",
    ];
    assert_eq!(centre.rows(ROWS), revised);
}
