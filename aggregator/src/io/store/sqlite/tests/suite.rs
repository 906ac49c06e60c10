//! The suite of all stores on SQLite, and SQLite beside the store in memory.

use proptest::prelude::*;

use super::*;
use crate::store::suite::comparison::{agrees_with_memory, step};
use crate::store::suite::{Reopen, store_suite};

impl Reopen for Sqlite {
    fn fresh(folder: &Path) -> Self {
        let store = Self::open(&folder.join("centre.db")).unwrap();
        // What is tested here is order and content; that SQLite syncs is not.
        let sync = store.connection.pragma_update(None, "synchronous", "OFF");
        sync.unwrap();
        store
    }

    fn reopen(self) -> Self {
        let folder = self.path.parent().unwrap().to_owned();
        drop(self);
        Self::fresh(&folder)
    }
}

store_suite!(Sqlite);

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_and_memory_give_the_same_answers(steps in prop::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        agrees_with_memory(Sqlite::fresh(folder.path()), steps, |_, _| Ok(()))?;
    }
}
