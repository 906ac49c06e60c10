//! A file that is taken away, or another that is put in its place, under an open store.

use std::fs;

use super::*;
use crate::store::StoreFault;

#[test]
fn a_commit_to_a_file_that_lost_its_name_fails_and_counts_once_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = Centre::new(folder.path(), PLAN);
    centre.greet(1, 1, "a", Vec::new());
    centre.frame(1, 1, batch(1, 100, &[("x", &[1])]));
    centre.settle(1);
    let aside = folder.path().join("aside.db");
    fs::rename(&centre.path, &aside).unwrap();
    centre.frame(2, 1, batch(2, 100, &[("x", &[2])]));
    for seconds in [2, 4] {
        assert_eq!(centre.commit(seconds), Some(false));
        assert_eq!(centre.acked(1), BTreeSet::from([1]));
    }
    // Another file in its place changes nothing.
    fs::copy(&aside, &centre.path).unwrap();
    assert_eq!(centre.commit(6), Some(false));
    assert!(matches!(
        centre.writer.check_place(),
        Err(StoreFault::Moved { .. })
    ));
    // All that was acknowledged is in the copy.
    let copy = backup::rescue(&centre.reader, &centre.path, at(7)).unwrap();
    let copied = Sqlite::open_to_read(&copy).unwrap();
    let batches = "SELECT count(*) FROM catchment_batch";
    let count: i64 = copied
        .connection()
        .query_row(batches, [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 1);
    fs::rename(&aside, &centre.path).unwrap();
    centre.settle(8);
    assert_eq!(centre.acked(1), BTreeSet::from([1, 2]));
    centre.frame(9, 1, heartbeat(1, 2, 200));
    centre.settle(9);
    let centre = centre.crash(10);
    assert_eq!(centre.rows("SELECT readings, temp_sum FROM q"), ["2|3"]);
}
