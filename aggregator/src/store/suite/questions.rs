//! Whatever is asked of a store, the answer is that of the store in memory.

use std::fmt::Write as _;

use catchment_common::time::{Span, Timestamp};

use super::{Reopen, story};
use crate::serve::Question;
use crate::serve::explain::Explain;
use crate::store::Result;
use crate::store::lookup::{Cell, Lookup, Page, Selection};
use crate::store::memory::Memory;
use crate::store::text::parse_time_text;
use crate::testing::at;

/// Every answer of a store, as text: for comparison.
pub(crate) fn answers(store: &impl Lookup) -> String {
    let plan = store.plan().unwrap();
    let mut text = format!(
        "{plan:?}\n{:#?}\n{:#?}\n{}\n",
        store.accounts().unwrap(),
        store.losses(None).unwrap(),
        store.unreadable().unwrap()
    );
    let mut say = |what: &dyn std::fmt::Debug| {
        let _ = writeln!(text, "{what:?}");
    };
    for query in &plan.queries {
        say(&store.table_state(query).unwrap());
        let mut after = None;
        loop {
            let page = { store.page(query, &Selection::default(), after.as_ref(), 3) }.unwrap();
            say(&page);
            let place = page
                .columns
                .iter()
                .position(|column| column == "window_start")
                .unwrap();
            let starts = page.rows.iter().filter_map(|row| match &row[place] {
                Cell::Text(text) => parse_time_text(text),
                _ => None,
            });
            for start in starts {
                for is_coarse in [false, true] {
                    say(&store.history(&query.name, start, is_coarse).unwrap());
                }
                let selection = Selection {
                    covers: Some(start),
                    starts_before: Some(start.plus(Span::from_secs(10))),
                    ..Selection::default()
                };
                say(&store.page(query, &selection, None, 2).unwrap());
                let key: Vec<String> = query.row_tags().iter().map(|_| "k1".to_owned()).collect();
                say(&store.nearest(query, &key, start).unwrap());
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    for &pipeline in store.catalog().unwrap().pipelines.keys() {
        for start in store.starts(pipeline, Timestamp::MIN, Timestamp::MAX).unwrap() {
            say(&store.shipped(pipeline, start).unwrap());
        }
    }
    text
}

pub(crate) fn questions_have_the_answers_of_the_store_in_memory(store: impl Reopen) {
    let store = story::play(store).reopen();
    let memory = story::play(Memory::default());
    assert_eq!(answers(&store), answers(&memory));
    let plan = store.plan().unwrap();
    for (tag, value) in [
        ("device", "x"),
        ("site", "b"),
        ("agent", "a"),
        ("device", "nobody"),
    ] {
        let selection = Selection {
            tags: vec![(tag.into(), value.into())],
            ends_after: Some(at(108)),
            ..Selection::default()
        };
        for query in plan
            .queries
            .iter()
            .filter(|query| query.row_tags().contains(&tag))
        {
            let page = |store: &dyn Fn() -> Result<Page>| store().unwrap();
            let own = page(&|| store.page(query, &selection, None, 9));
            assert_eq!(own, page(&|| memory.page(query, &selection, None, 9)));
            assert!(own.rows.is_empty() || value != "nobody");
        }
    }
    for question in ["q", "s", "c"] {
        let keys: [&[(&str, &str)]; 3] = [
            &[("site", "b"), ("device", "x")],
            &[("device", "x")],
            &[("device", "x"), ("agent", "a")],
        ];
        for seconds in [96, 99, 105, 115, 150, 191, 205] {
            for key in keys {
                let key = key
                    .iter()
                    .map(|(tag, value)| (tag.to_string(), value.to_string()));
                let question = Explain {
                    query: question.into(),
                    key: key.collect(),
                    at: at(seconds),
                };
                assert_eq!(question.ask(&store), question.ask(&memory));
            }
        }
    }
}
