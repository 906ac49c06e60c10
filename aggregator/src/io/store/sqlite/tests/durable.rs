//! What a commit's survival hangs on: the settings of the connections that the product uses.

use super::*;

fn pragma(store: &Sqlite, name: &str) -> String {
    let value = store
        .connection()
        .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
    match value.unwrap() {
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text,
        other => panic!("{name} is {other:?}"),
    }
}

/// FULL is 2: with less, a transaction that returned may be gone after a power loss.
#[test]
fn the_writer_syncs_each_commit_into_a_write_ahead_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("centre.db");
    for _ in 0..2 {
        // A new database, and one that was there.
        let store = Sqlite::open(&path).unwrap();
        assert_eq!(pragma(&store, "synchronous"), "2");
        assert_eq!(pragma(&store, "journal_mode"), "wal");
    }
    let reader = Sqlite::open_to_read(&path).unwrap();
    assert_eq!(pragma(&reader, "journal_mode"), "wal");
    assert!(
        reader
            .connection()
            .execute("DELETE FROM catchment_plan", [])
            .is_err()
    );
}
