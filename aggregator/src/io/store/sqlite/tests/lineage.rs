//! `explain` on real databases: what it says of a row, and what it says when there is none.

use super::*;
use crate::io::command::explain::explain;

pub(super) fn explained(centre: &Centre, query: &str, key: &str, at: &str) -> String {
    let mut out = Vec::new();
    match explain(&centre.path, query, key, at, &mut out) {
        Ok(()) => String::from_utf8(out).unwrap(),
        Err(error) => format!("error: {error}"),
    }
}

/// The cells of a table's line that has all of these words.
fn line<'t>(text: &'t str, words: &[&str]) -> Vec<&'t str> {
    let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
    let line = text.lines().find(has_all);
    let line = line.unwrap_or_else(|| panic!("no line with {words:?} in\n{text}"));
    line.split(['┆', '│', '║'])
        .flat_map(|cell| cell.split("  "))
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect()
}

#[test]
fn a_row_is_explained_by_its_panes_agents_and_history() {
    let folder = tempfile::tempdir().unwrap();
    let plan = PLAN
        .replace("\"10s\"", "\"20s\", every = \"10s\"")
        .replace("[\"1m\"]", "[]");
    let mut centre = Centre::new(folder.path(), &plan);
    centre.greet(1, 1, "a", Vec::new());
    centre.greet(1, 2, "b", Vec::new());
    centre.frame(1, 1, batch(1, 100, &[("x", &[1, 2]), ("y", &[3])]));
    centre.frame(1, 2, batch(1, 110, &[("x", &[4])]));
    centre.frame(1, 2, heartbeat(1, 1, 90));
    centre.frame(1, 1, heartbeat(1, 1, 120));
    centre.settle(1);
    centre.settle(12);
    // Patience is over; b is late and then through. The second pane is still only in appended batches.
    centre.frame(13, 2, batch(2, 110, &[("x", &[5])]));
    centre.settle(13);
    centre.frame(14, 2, heartbeat(1, 2, 120));
    centre.settle(14);
    let text = explained(&centre, "q", "device=x", "1970-01-01T00:01:45Z");
    assert!(
        text.contains("q [x] 1970-01-01T00:01:40.000Z to 1970-01-01T00:02:00.000Z: final, coverage 1, revision 3, 4 readings"),
        "{text}"
    );
    assert!(
        text.contains("1970-01-01T00:01:30.000Z to"),
        "both windows over the instant: {text}"
    );
    let first = line(&text, &["00:01:40.000Z", " a "]);
    assert_eq!(
        first[1..6],
        ["1970-01-01T00:01:40.000Z", "2", "a", "2", "0"],
        "{first:?}"
    );
    let second = line(&text, &["00:01:50.000Z", " b "]);
    assert_eq!(
        second[1..6],
        ["1970-01-01T00:01:50.000Z", "2", "b", "2", "1"],
        "{second:?}"
    );
    line(&text, &["a", "1970-01-01T00:02:00.000Z", "yes"]);
    line(&text, &["patience is over", "provisional", "0.5"]);
    line(&text, &["late data", "provisional"]);
    line(&text, &["coverage has changed", "final", "1"]);
    // The same from the checkpoint's columns.
    centre.settle(30);
    assert_eq!(explained(&centre, "q", "device=x", "1970-01-01T00:01:45Z"), text);
}

#[test]
fn what_cannot_be_explained_has_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = Centre::new(folder.path(), PLAN);
    centre.greet(1, 1, "a", Vec::new());
    centre.frame(1, 1, batch(1, 100, &[("x", &[1])]));
    centre.frame(1, 1, heartbeat(1, 1, 120));
    centre.settle(1);
    let at = "1970-01-01T00:01:45Z";
    let check = |query: &str, key: &str, at: &str, expected: &str| {
        assert_eq!(explained(&centre, query, key, at), format!("error: {expected}"));
    };
    check(
        "nothing",
        "device=x",
        at,
        "there is no query `nothing`; the plan has q",
    );
    check("q", "", at, "the key lacks `device`; give --key device=…");
    check(
        "q",
        "devise=x",
        at,
        "`devise` is no tag of `q`; its key is device",
    );
    check("q", "device", at, "`device` is not tag=value");
    check(
        "q",
        "device=x",
        "noon",
        "`noon` is not an instant; write 2026-11-23T08:00:00Z",
    );
    check(
        "q",
        "device=x",
        "1970-01-01T01:00:00Z",
        "q has no row of x over 1970-01-01T01:00:00.000Z; the nearest begin at 1970-01-01T00:01:40.000Z",
    );
    check(
        "q",
        "device=z",
        at,
        "q has no row of z over 1970-01-01T00:01:45.000Z; it has none at all of this key",
    );
}
