//! The change feed where only a file can fail or go back: commits that do not become durable, and restored backups.

use std::fs;

use super::*;
use crate::store::changes::{Advance, Changes, Feed, What};

/// A reader that has seen everything so far.
fn reader(centre: &mut Centre) {
    assert!(centre.writer.open_cursor("sink").unwrap());
    let next = centre.writer.extent().unwrap().next;
    assert_eq!(centre.writer.advance("sink", next), Ok(Advance::Done));
}

fn revisions(store: &Sqlite) -> Vec<(u64, u64)> {
    let Some(Feed::Changes(changes)) = store.changes("sink", 99).unwrap() else {
        panic!("nothing is lost");
    };
    let revision = |what: &What| match what {
        What::Written(_, revision) => *revision,
        What::Expired(_) => 0,
    };
    changes
        .iter()
        .map(|change| (change.position, revision(&change.what)))
        .collect()
}

#[test]
fn what_no_commit_has_made_durable_is_not_told_and_then_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = Centre::new(folder.path(), PLAN);
    centre.greet(1, 1, "a", Vec::new());
    reader(&mut centre);
    centre.frame(1, 1, batch(1, 100, &[("x", &[1])]));
    centre.frame(1, 1, heartbeat(1, 1, 200));
    let aside = folder.path().join("aside.db");
    fs::rename(&centre.path, &aside).unwrap();
    for seconds in [2, 4] {
        assert_eq!(centre.commit(seconds), Some(false));
        assert_eq!(revisions(&centre.writer), []);
    }
    fs::rename(&aside, &centre.path).unwrap();
    centre.settle(6);
    let told = revisions(&centre.writer);
    assert_eq!(told.len(), centre.rows("SELECT 1 FROM q").len());
    assert!(!told.is_empty() && told.iter().all(|(_, revision)| *revision == 1));
    assert_eq!(revisions(&centre.crash(7).writer), told);
}

#[test]
fn retention_is_one_change_and_a_reader_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let plan = PLAN.replace("[[query]]", "[[query]]\nretention = \"1m\"");
    let mut centre = Centre::new(folder.path(), &plan);
    let first = 1_000_000;
    centre.greet(0, 1, "a", Vec::new());
    reader(&mut centre);
    centre.frame(1, 1, batch(1, first, &[("x", &[1]), ("y", &[1])]));
    centre.frame(1, 1, heartbeat(1, 1, first + 30));
    centre.settle(10);
    let written = revisions(&centre.writer).len();
    centre.frame(200, 1, batch(2, first + 190, &[("x", &[1])]));
    centre.frame(200, 1, heartbeat(1, 2, first + 200));
    centre.settle(200);
    let told = revisions(&centre.writer);
    let expired = told[written..].iter().filter(|(_, revision)| *revision == 0);
    assert_eq!(expired.count(), 1, "{told:?}");
    assert_eq!(centre.rows("SELECT count(*) FROM q WHERE device = 'y'"), ["0"]);
}

#[test]
fn after_a_restore_every_reader_begins_with_the_tables_and_no_position_comes_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = Centre::new(folder.path(), PLAN);
    centre.greet(1, 1, "a", Vec::new());
    reader(&mut centre);
    let file = folder.path().join("backup.db");
    backup::backup(&centre.path, &file, false).unwrap();
    centre.frame(1, 1, batch(1, 100, &[("x", &[1])]));
    centre.frame(1, 1, heartbeat(1, 1, 200));
    centre.settle(2);
    let last = revisions(&centre.writer).last().unwrap().0;
    let path = centre.path.clone();
    drop(centre);
    backup::restore(&path, &file, at(77)).unwrap();
    let mut store = Sqlite::open(&path).unwrap();
    assert_eq!(store.changes("sink", 9), Ok(Some(Feed::Reread(last + 1))));
    assert_eq!(store.cursors().unwrap()[0].gaps, 1);
    assert_eq!(store.advance("sink", last + 1), Ok(Advance::Done));
    // Of a database that cannot be read nobody knows how far its feed had come.
    drop(store);
    fs::write(&path, b"no database").unwrap();
    backup::restore(&path, &file, at(78)).unwrap();
    let next = Sqlite::open(&path).unwrap().extent().unwrap().next;
    assert!(next > last + 1_000_000, "{next}");
}
