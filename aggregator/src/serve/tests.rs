//! Questions on a store that has everything, page by page.

use catchment_common::time::Timestamp;

use super::explain::Explain;
use super::plan::InForce;
use super::rows::{Newest, Rows};
use super::*;
use crate::limits::PAGE_ROWS_MAX;
use crate::store::lookup::{Cell, RowCursor, Selection};
use crate::store::memory::Memory;
use crate::store::suite::{Reopen, story};
use crate::testing::at;

fn store() -> Memory {
    story::play(Memory::default())
}

fn rows(query: &str, rows_max: usize, after: Option<RowCursor>) -> Rows {
    Rows {
        query: query.into(),
        selection: Selection::default(),
        after,
        rows_max,
    }
}

#[test]
fn pages_follow_each_other_without_gap_or_overlap() {
    let store = store();
    for query in ["q", "s", "c"] {
        let all = rows(query, PAGE_ROWS_MAX, None).ask(&store).unwrap();
        assert!(all.rows.len() > 1 && all.next.is_none());
        for size in 1..=all.rows.len() {
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = rows(query, size, after).ask(&store).unwrap();
                assert!(page.rows.len() <= size);
                paged.extend(page.rows);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(paged, all.rows, "{query} by {size}");
        }
    }
}

#[test]
fn a_cursor_survives_as_text() {
    let store = store();
    let page = rows("q", 2, None).ask(&store).unwrap();
    let cursor = page.next.unwrap();
    let read: RowCursor = cursor.to_string().parse().unwrap();
    assert_eq!(read, cursor);
    for text in ["", "[", "[1.5]", "{}", "[null]", "[[]]"] {
        assert!(text.parse::<RowCursor>().is_err(), "{text}");
    }
    // One that does not fit the query is refused, not passed over.
    let question = rows("q", 2, Some(RowCursor(vec![Cell::Integer(1)])));
    assert!(matches!(question.ask(&store), Err(AskFault::Misfit(_))));
}

#[test]
fn no_page_is_larger_than_the_bound() {
    let store = story::many(Memory::default(), PAGE_ROWS_MAX + 100);
    let page = rows("q", usize::MAX, None).ask(&store).unwrap();
    assert_eq!(page.rows.len(), PAGE_ROWS_MAX);
    let page = rows("q", usize::MAX, page.next).ask(&store).unwrap();
    assert_eq!((page.rows.len(), page.next), (100, None));
    let newest = Newest {
        query: "q".into(),
        selection: Selection::default(),
        rows_max: usize::MAX,
    };
    assert_eq!(newest.ask(&store).unwrap().rows.len(), PAGE_ROWS_MAX + 100);
}

#[test]
fn the_newest_are_given_oldest_first() {
    let store = store();
    let newest = Newest {
        query: "q".into(),
        selection: Selection::default(),
        rows_max: 3,
    };
    let page = newest.ask(&store).unwrap();
    let mut largest = rows("q", 3, None).ask(&store).unwrap();
    largest.rows.reverse();
    assert_eq!(page.rows, largest.rows);
}

#[test]
fn what_does_not_fit_is_told() {
    let store = store();
    let unknown = rows("nobody", 1, None).ask(&store).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "there is no query `nobody`; the plan has q, s, c"
    );
    let explain = |key: &[(&str, &str)], at: Timestamp| {
        let key = key
            .iter()
            .map(|(tag, value)| (tag.to_string(), value.to_string()));
        let question = Explain {
            query: "q".into(),
            key: key.collect(),
            at,
        };
        question.ask(&store)
    };
    let key = [("device", "x"), ("site", "b")];
    assert_eq!(explain(&key, at(105)).unwrap().len(), 2);
    assert!(matches!(explain(&key, at(900)), Err(AskFault::NoRow(_))));
    assert!(matches!(explain(&key[..1], at(105)), Err(AskFault::Misfit(_))));
    assert!(matches!(
        explain(&[("room", "1")], at(105)),
        Err(AskFault::Misfit(_))
    ));
}

#[test]
fn the_plan_in_force_is_the_newest() {
    let plan = InForce.ask(&store()).unwrap();
    assert_eq!((plan.version, plan.source), (2, story::second()));
    assert_eq!(plan.queries, ["q", "s", "c"]);
    let none = InForce.ask(&Memory::default().reopen()).unwrap();
    assert_eq!((none.version, none.source), (0, String::new()));
}
