//! The change feed of any store: what a reader that follows it has, whatever happens to the process and to the reader.

use std::collections::BTreeMap;

use catchment_common::key::KeyBuffer;
use catchment_common::plan::Window;
use catchment_common::time::Timestamp;

use super::{Machine, PLAN, Reopen, apply, batch, heartbeat, story};
use crate::limits::{CURSOR_NAME_MAX, CURSORS_MAX};
use crate::serve::changes::{self, Next};
use crate::store::changes::{Advance, Change, ChangedRow, Changes, Cursor, Extent, Feed, What};
use crate::store::lookup::{Cell, Lookup, Selection};
use crate::store::memory::Memory;
use crate::store::text::{parse_time_text, time_text};

/// The rows of one table by their names, each as it was written last and its revision.
type Rows = BTreeMap<ChangedRow, (ChangedRow, u64)>;

/// A reader that keeps what it was told of rows, by query.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    tables: BTreeMap<String, Rows>,
    windows: BTreeMap<String, Window>,
    /// Tables that were read anew.
    pub(crate) rereads: u64,
    last: u64,
}

impl Reader {
    /// Reads all that there is for a cursor.
    pub(crate) fn follow(&mut self, store: &mut (impl Changes + Lookup), cursor: &str) {
        for query in store.plan().unwrap().queries {
            self.windows.insert(query.name, query.window);
        }
        loop {
            let position = match store.changes(cursor, 3).unwrap().unwrap() {
                Feed::Reread(position) => {
                    self.rereads += 1;
                    self.tables = rows(store);
                    position
                }
                Feed::Changes(changes) => {
                    let Some(last) = changes.last() else { return };
                    let position = last.position + 1;
                    for change in changes {
                        self.apply(change);
                    }
                    position
                }
            };
            self.last = position - 1;
            assert_eq!(store.advance(cursor, position), Ok(Advance::Done));
        }
    }

    fn apply(&mut self, change: Change) {
        assert_eq!(change.position, self.last + 1, "each has its place, without gaps");
        self.last = change.position;
        let window = &self.windows[&change.query];
        let rows = self.tables.entry(change.query).or_default();
        match change.what {
            What::Written(row, revision) => {
                let before = rows.insert(row.name(window), (row, revision));
                let before = before.map_or(0, |(_, revision)| revision);
                assert!(revision > before, "revisions come in order");
            }
            What::Expired(before) => rows.retain(|_, (row, _)| !row.is_expired(window, before)),
        }
    }

    /// What the reader has is what is in the tables of the plan in force.
    pub(crate) fn check(&self, store: &impl Lookup) {
        for (query, rows) in rows(store) {
            let own = self.tables.get(&query).cloned().unwrap_or_default();
            assert_eq!(own, rows, "{query}");
        }
    }
}

/// All rows of the tables of the plan in force.
fn rows(store: &impl Lookup) -> BTreeMap<String, Rows> {
    let plan = store.plan().unwrap();
    let tables = plan.queries.iter().map(|query| {
        let page = store
            .page(query, &Selection::default(), None, usize::MAX)
            .unwrap();
        let place = |name: &str| page.columns.iter().position(|column| column == name);
        let row = |cells: &Vec<Cell>| {
            let time = |name: &str| match &cells[place(name).unwrap()] {
                Cell::Text(text) => parse_time_text(text).unwrap(),
                other => panic!("{other:?}"),
            };
            let number = |name: &str| match place(name).map(|place| &cells[place]) {
                Some(Cell::Integer(number)) => Some(*number),
                _ => None,
            };
            let mut key = KeyBuffer::default();
            for tag in query.row_tags() {
                let Cell::Text(tag) = &cells[place(tag).unwrap()] else {
                    panic!("a tag");
                };
                key.push(tag).unwrap();
            }
            let row = ChangedRow {
                start: time("window_start"),
                end: time("window_end"),
                number: number("window_number").map(|number| Timestamp::clamped(number * 1_000)),
                is_coarse: number("coarse") == Some(1),
                key: key.as_bytes().into(),
            };
            (
                row.name(&query.window),
                (row, number("revision").unwrap().cast_unsigned()),
            )
        };
        (query.name.clone(), page.rows.iter().map(row).collect())
    });
    tables.collect()
}

/// Advances a cursor over all that there is.
pub(crate) fn pass(store: &mut impl Changes, cursor: &str) {
    let next = store.extent().unwrap().next;
    assert_eq!(store.advance(cursor, next), Ok(Advance::Done));
}

/// Everything that is known of the feed, as text, with the rows that changes name.
pub(crate) fn all(store: &(impl Changes + Lookup)) -> String {
    let cursors = store.cursors().unwrap();
    let feeds = { cursors.iter() }.map(|cursor| changes::next(store, &cursor.name, usize::MAX).unwrap());
    let feeds: Vec<Next> = feeds.collect();
    format!("{:?} {cursors:?} {feeds:?}", store.extent().unwrap())
}

pub(crate) fn a_reader_that_follows_has_the_tables(mut store: impl Reopen) {
    assert!(store.open_cursor("sink").unwrap());
    let mut store = story::play(store).reopen();
    let mut reader = Reader::default();
    reader.follow(&mut store, "sink");
    reader.check(&store);
    assert_eq!(reader.rereads, 1, "a new reader begins with the tables");

    // One that reads from before the first commit on has every revision.
    let mut memory = Memory::default();
    for _ in 0..2 {
        assert!(memory.open_cursor("early").unwrap());
    }
    assert_eq!(memory.advance("early", 1), Ok(Advance::Done));
    let mut memory = story::play(memory);
    let mut reader = Reader::default();
    reader.follow(&mut memory, "early");
    reader.check(&memory);
    assert_eq!(reader.rereads, 0);
}

pub(crate) fn a_change_comes_with_its_row(mut store: impl Reopen) {
    assert!(changes::next(&store, "sink", 1).is_err(), "there is no cursor");
    store.open_cursor("sink").unwrap();
    store.advance("sink", 1).unwrap();
    let store = story::play(store);
    let Next::Changes(all) = changes::next(&store, "sink", usize::MAX).unwrap() else {
        panic!("nothing is lost");
    };
    assert!(all.len() > 10);
    for changed in &all {
        let What::Written(named, revision) = &changed.change.what else {
            panic!("nothing is expired");
        };
        let row = changed.row.as_ref().unwrap();
        let cell = |name: &str| &row.iter().find(|(column, _)| column == name).unwrap().1;
        assert_eq!(cell("window_start"), &Cell::Text(time_text(named.start)));
        let Cell::Integer(now) = cell("revision") else {
            panic!("a revision");
        };
        assert!(now.cast_unsigned() >= *revision);
        for (tag, value) in &changed.tags {
            assert_eq!(cell(tag), &Cell::Text(value.clone()));
        }
    }
}

/// A statement that was prepared before the plan changed showed the row without the new columns.
pub(crate) fn a_row_has_the_columns_of_the_newest_plan(mut store: impl Reopen) {
    store.open_cursor("sink").unwrap();
    store.advance("sink", 1).unwrap();
    let mut machine = Machine::new(store, PLAN);
    machine.frame(batch(1, 100, &[("x", &[7])]));
    machine.frame(heartbeat(1, 1, 110));
    machine.settle(1);
    let mut columns = || {
        let Ok(Next::Changes(all)) = changes::next(&machine.store, "sink", 1) else {
            panic!("nothing is lost");
        };
        let row = all[0].row.clone().unwrap();
        let columns: Vec<String> = row.into_iter().map(|(column, _)| column).collect();
        apply(
            &mut machine.store,
            &PLAN.replace("[\"count\", \"sum\"]", "[\"count\", \"sum\", \"mean\"]"),
        )
        .unwrap();
        columns
    };
    assert!(!columns().contains(&"temp_mean".to_owned()));
    assert!(columns().contains(&"temp_mean".to_owned()));
}

pub(crate) fn what_is_not_advanced_over_comes_again(mut store: impl Reopen) {
    store.open_cursor("sink").unwrap();
    store.advance("sink", 1).unwrap();
    let store = story::play(store);
    let first = store.changes("sink", 4).unwrap();
    let mut store = store.reopen();
    assert_eq!(store.changes("sink", 4).unwrap(), first);
    let Some(Feed::Changes(changes)) = first else {
        panic!("{first:?}");
    };
    assert_eq!(changes.len(), 4);
    assert_eq!(store.advance("sink", changes[1].position + 1), Ok(Advance::Done));
    let store = store.reopen();
    let again = store.changes("sink", 2).unwrap();
    assert_eq!(again, Some(Feed::Changes(changes[2..].to_vec())));
}

pub(crate) fn without_a_cursor_nothing_is_kept(store: impl Reopen) {
    let store = story::play(store).reopen();
    assert_eq!(store.extent(), Ok(Extent::default()));
    assert_eq!(store.changes("sink", 9), Ok(None));
    // And what a cursor needed goes with it.
    let mut machine = Machine::start(store, 60);
    machine.store.open_cursor("sink").unwrap();
    machine.frame(batch(99, 100, &[("z", &[1])]));
    machine.settle(10);
    let kept = machine.store.extent().unwrap();
    machine.store.drop_cursor("sink").unwrap();
    machine.frame(heartbeat(1, 99, 400));
    machine.settle(10);
    let extent = machine.store.extent().unwrap();
    assert_eq!(extent.floor, extent.next);
    assert_eq!(extent.next, kept.next, "nor are positions used up");
}

pub(crate) fn a_reader_that_falls_behind_is_told(mut store: impl Reopen) {
    store.keep_changes(2);
    for name in ["quick", "slow"] {
        store.open_cursor(name).unwrap();
        assert_eq!(store.advance(name, 1), Ok(Advance::Done));
    }
    let mut machine = Machine::new(store, PLAN);
    let (mut quick, mut slow) = (Reader::default(), Reader::default());
    for (number, pane) in (1..).zip([100, 110, 120, 130]) {
        machine.frame(batch(number, pane, &[("x", &[1])]));
        machine.frame(heartbeat(1, number, pane + 10));
        machine.settle(1);
        quick.follow(&mut machine.store, "quick");
        quick.check(&machine.store);
    }
    assert_eq!(quick.rereads, 0);
    let cursors = machine.store.cursors().unwrap();
    let gaps: Vec<(u64, bool)> = cursors
        .iter()
        .map(|cursor| (cursor.gaps, cursor.must_reread))
        .collect();
    assert_eq!(gaps, [(0, false), (2, true)]);
    // While it reads the tables more is written, and too much: it must begin again.
    let Some(Feed::Reread(position)) = machine.store.changes("slow", 9).unwrap() else {
        panic!("it fell behind");
    };
    machine.frame(batch(5, 140, &[("x", &[1]), ("y", &[1]), ("z", &[1])]));
    machine.frame(heartbeat(1, 5, 150));
    machine.settle(1);
    assert_eq!(machine.store.advance("slow", position), Ok(Advance::Outside));
    slow.follow(&mut machine.store, "slow");
    slow.check(&machine.store);
    assert_eq!(slow.rereads, 1);
}

pub(crate) fn cursors_are_few_and_have_names(mut store: impl Reopen) {
    for name in ["", "a b", "ä", &"x".repeat(CURSOR_NAME_MAX + 1)] {
        assert_eq!(store.open_cursor(name), Ok(false), "{name}");
    }
    for number in 0..CURSORS_MAX {
        assert_eq!(store.open_cursor(&format!("c-{number:02}")), Ok(true));
    }
    assert_eq!(store.open_cursor("one.more"), Ok(false));
    assert_eq!(store.open_cursor("c-07"), Ok(true), "it is there");
    assert_eq!(store.drop_cursor("c-07"), Ok(true));
    assert_eq!(store.drop_cursor("c-07"), Ok(false));
    assert_eq!(store.open_cursor("one.more"), Ok(true));
    assert_eq!(store.advance("c-07", 1), Ok(Advance::Unknown));
    for (position, advance) in [(0, Advance::Outside), (2, Advance::Outside), (1, Advance::Done)] {
        assert_eq!(store.advance("c-08", position), Ok(advance));
    }
    let cursors = store.reopen().cursors().unwrap();
    assert_eq!(cursors.len(), CURSORS_MAX);
    let cursor = Cursor {
        name: "c-08".into(),
        position: 1,
        must_reread: false,
        gaps: 0,
    };
    assert!(cursors.contains(&cursor));
}
