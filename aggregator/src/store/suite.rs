//! What a store does, as tests that every store must pass, and a comparison of one with the store in memory.
//!
//! A store runs the suite with [`store_suite!`]; the machine is the production one, driven as the rim drives it.

pub(crate) mod changes;

pub(crate) mod comparison;

pub(crate) mod questions;

pub(crate) mod story;

use std::path::Path;

use catchment_common::wire::{EpochRange, VERSION};

pub(crate) use self::changes::{
    a_change_comes_with_its_row, a_reader_that_falls_behind_is_told, a_reader_that_follows_has_the_tables,
    a_row_has_the_columns_of_the_newest_plan, cursors_are_few_and_have_names,
    what_is_not_advanced_over_comes_again, without_a_cursor_nothing_is_kept,
};
use self::questions::answers;
pub(crate) use self::questions::questions_have_the_answers_of_the_store_in_memory;
use super::changes::Changes;
use super::lookup::Lookup;
use super::memory::Memory;
use super::*;
use crate::aggregator::{ConnectionId, Transmit};
use crate::commit::{SetAside, Unreadable};
use crate::plan_toml;
use crate::testing::{at, batch_of, heartbeat_of, hello, now};

/// A store that can be made and opened again.
pub(crate) trait Reopen: Store + Lookup + Changes + Sized {
    /// A new store in an empty folder.
    fn fresh(folder: &Path) -> Self;

    /// The same store after its process has ended.
    fn reopen(self) -> Self;
}

impl Reopen for Memory {
    fn fresh(_: &Path) -> Self {
        Self::default()
    }

    fn reopen(self) -> Self {
        self
    }
}

/// Runs every test of the suite on a store.
macro_rules! store_suite {
    ($store:ty) => {
        $crate::store::suite::store_suite! {
            $store:
            plans_follow_each_other,
            a_plan_that_does_not_fit_changes_nothing,
            a_restarted_machine_goes_on_where_it_was,
            a_checkpoint_takes_the_place_of_batches_and_panes,
            a_retired_agent_is_back_with_its_hello,
            epochs_are_forgotten_when_an_operator_says_so,
            what_is_set_aside_is_read_no_more,
            retention_lets_rows_and_panes_go,
            questions_have_the_answers_of_the_store_in_memory,
            a_reader_that_follows_has_the_tables,
            a_change_comes_with_its_row,
            a_row_has_the_columns_of_the_newest_plan,
            what_is_not_advanced_over_comes_again,
            without_a_cursor_nothing_is_kept,
            a_reader_that_falls_behind_is_told,
            cursors_are_few_and_have_names
        }
    };
    ($store:ty: $($test:ident),*) => {
        $(
            #[test]
            fn $test() {
                let folder = tempfile::tempdir().unwrap();
                let store = <$store as $crate::store::suite::Reopen>::fresh(folder.path());
                $crate::store::suite::$test(store);
            }
        )*
    };
}
pub(crate) use store_suite;

const PLAN: &str = r#"[[query]]
name = "q"
topic = "s/{device}"
key = ["device"]
fields = { temp = "temp" }
window = { size = "10s" }
aggregates = ["count", "sum"]
watermark_delay = "0s"
coarsen = ["1m"]
"#;

fn settings() -> Settings {
    Settings {
        lease: catchment_common::time::Span::from_secs(1_000),
        heartbeat: catchment_common::time::Span::from_secs(1),
        due_rows: 3,
        memory: usize::MAX,
    }
}

/// The pipeline of the plan's query, the same in every database.
fn pipeline() -> PipelineId {
    Catalog::first(plan_toml::parse(PLAN, "plan").unwrap()).current[0]
}

fn batch(seq: u64, pane: i64, rows: &[(&str, &[i64])]) -> Vec<u8> {
    batch_of(pipeline(), 1, seq, pane, rows)
}

fn heartbeat(oldest: u64, seq: u64, watermark: i64) -> Vec<u8> {
    heartbeat_of(pipeline(), oldest, seq, watermark)
}

fn apply(store: &mut impl Store, text: &str) -> Result<u64> {
    store.apply_plan(plan_toml::parse(text, "plan").unwrap(), text, at(0))
}

/// The machine on a store.
struct Machine<S> {
    store: S,
    aggregator: Aggregator,
    connection: ConnectionId,
    seconds: i64,
}

impl<S: Reopen> Machine<S> {
    fn new(mut store: S, plan: &str) -> Self {
        apply(&mut store, plan).unwrap();
        Self::start(store, 0)
    }

    fn start(store: S, seconds: i64) -> Self {
        let aggregator = store.restore(settings(), now(seconds)).unwrap();
        let mut machine = Self {
            store,
            aggregator,
            connection: 0,
            seconds,
        };
        machine.greet(Vec::new());
        machine
    }

    fn greet(&mut self, held: Vec<EpochRange>) {
        self.connection += 1;
        self.aggregator.handle_connected(self.connection, "a", VERSION);
        self.frame(hello("a", 1, held));
    }

    fn frame(&mut self, frame: Vec<u8>) {
        self.aggregator
            .handle_frame(now(self.seconds), self.connection, frame.into(), &self.store)
            .unwrap();
    }

    /// Makes everything durable that is due after so many seconds more.
    fn settle(&mut self, more: i64) {
        self.seconds += more;
        let now = now(self.seconds);
        while let Some(commit) = self.aggregator.poll_commit(now, &self.store).unwrap() {
            self.store.commit(&commit).unwrap();
            self.aggregator.handle_committed(commit.id);
        }
    }

    fn crash(self) -> Self {
        let seconds = self.seconds;
        Self::start(self.store.reopen(), seconds)
    }

    fn readings(&self) -> Vec<(Timestamp, u64)> {
        let panes = self
            .aggregator
            .panes()
            .pipeline(pipeline())
            .into_iter()
            .flat_map(|pipeline| pipeline.range(..));
        let rows = panes.flat_map(|(start, pane)| {
            let rows = pane.ids().iter().filter_map(|&id| pane.row(id));
            rows.map(move |(readings, _)| (start, readings))
        });
        rows.collect()
    }
}

/// Everything that can be read of a store, as text: for comparison.
pub(crate) fn all(store: &impl Lookup) -> String {
    let catalog = store.catalog().unwrap();
    let mut committed = Vec::new();
    store
        .committed(&mut |agent, epoch, range| committed.push((agent.to_owned(), epoch, range)))
        .unwrap();
    let mut batches = Vec::new();
    store
        .batches(&mut |batch| {
            batches.push(batch);
            Ok(())
        })
        .unwrap();
    let mut panes = Vec::new();
    for &pipeline in catalog.pipelines.keys() {
        let mut starts = BTreeSet::new();
        store
            .panes_from(pipeline, Timestamp::MIN, &mut |start, chunk| {
                starts.insert(start);
                panes.push((pipeline, start, chunk));
            })
            .unwrap();
        let found = store.starts(pipeline, Timestamp::MIN, Timestamp::MAX).unwrap();
        assert_eq!(found, starts.into_iter().collect::<Vec<_>>());
    }
    let mut chunks = Vec::new();
    for name in panes
        .iter()
        .map(|(pipeline, start, _)| (*pipeline, *start))
        .collect::<BTreeSet<_>>()
    {
        let held = store.chunks(name.0, name.1).unwrap();
        chunks.extend(held.into_iter().map(|chunk| (name.0, name.1, chunk)));
    }
    assert_eq!(chunks, panes);
    let queries = catalog.asked.iter();
    let shown: Vec<_> = queries.map(|query| store.shown_through(query).unwrap()).collect();
    format!(
        "{}plan {} {:?} {:?}\ncurrent {:?} ladders {:?}\nretired {:?} forget {:?}\n{:#?}\n{committed:#?}\n{batches:?}\n{panes:?}\n{shown:#?}",
        answers(store),
        store.plan_version().unwrap(),
        store.plan_source().unwrap(),
        catalog.asked,
        catalog.current,
        catalog.ladders,
        store.retired().unwrap(),
        store.to_forget().unwrap(),
        store.standings().unwrap(),
    )
}

pub(crate) fn plans_follow_each_other(mut store: impl Reopen) {
    assert_eq!(store.plan_version(), Ok(0));
    assert_eq!(store.plan_source(), Ok(None));
    assert!(store.catalog().unwrap().queries.is_empty());
    assert_eq!(apply(&mut store, PLAN), Ok(1));
    let second = format!("{PLAN}{}", PLAN.replace("name = \"q\"", "name = \"r\""));
    assert_eq!(apply(&mut store, &second), Ok(2));
    let store = store.reopen();
    assert_eq!(store.plan_version(), Ok(2));
    assert_eq!(store.plan_source(), Ok(Some(second)));
    let catalog = store.catalog().unwrap();
    assert_eq!(catalog.queries.len(), 2);
    assert_eq!(
        catalog.current,
        [pipeline()],
        "both are on the pipeline of the first"
    );
    assert_eq!(catalog.pipelines.len(), 2, "and on its rung");
}

pub(crate) fn a_plan_that_does_not_fit_changes_nothing(mut store: impl Reopen) {
    apply(&mut store, PLAN).unwrap();
    let before = all(&store);
    let other_key = PLAN
        .replace("key = [\"device\"]", "key = []")
        .replace("{device}", "+");
    for (plan, problem) in [
        (
            PLAN.replace("10s", "20s"),
            "its windows were of another kind, size or step; give the query a new name",
        ),
        (other_key, "it had another key; give the query a new name"),
    ] {
        let fault = StoreFault::Plan {
            query: "q".into(),
            problem: problem.into(),
        };
        assert_eq!(apply(&mut store, &plan), Err(fault));
        assert_eq!(all(&store), before);
    }
    assert_eq!(all(&store.reopen()), before);
}

pub(crate) fn a_restarted_machine_goes_on_where_it_was(store: impl Reopen) {
    let mut machine = Machine::new(store, PLAN);
    machine.frame(batch(1, 100, &[("x", &[1])]));
    machine.frame(heartbeat(1, 1, 110));
    machine.settle(1);
    machine.frame(batch(2, 110, &[("x", &[2]), ("y", &[3])]));
    machine.settle(1);
    // Taken and not committed: it is not known after the crash.
    machine.frame(batch(3, 110, &[("z", &[4])]));
    let before = all(&machine.store);
    let mut machine = machine.crash();
    assert_eq!(all(&machine.store), before);
    let rows = [(at(100), 1), (at(110), 1), (at(110), 1)];
    assert_eq!(machine.readings(), rows);
    let range = |first, last| vec![SeqRange { first, last }];
    machine.greet(vec![EpochRange {
        epoch: 1,
        ranges: range(1, 3),
    }]);
    let mut sent = std::iter::from_fn(|| machine.aggregator.poll_transmit());
    let welcome = sent.find_map(|(connection, transmit)| match transmit {
        Transmit::Message(catchment_common::wire::Message::Welcome(welcome)) if connection == 2 => {
            Some(welcome)
        }
        _ => None,
    });
    assert_eq!(welcome.unwrap().committed[0].ranges, range(1, 2));
}

pub(crate) fn a_checkpoint_takes_the_place_of_batches_and_panes(store: impl Reopen) {
    let mut machine = Machine::new(store, PLAN);
    for seq in 1..=3 {
        machine.frame(batch(seq, 100, &[("x", &[1])]));
        machine.settle(10);
    }
    let mut count = 0;
    machine
        .store
        .batches(&mut |_| {
            count += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(count, 0);
    assert_eq!(machine.store.chunks(pipeline(), at(100)).unwrap().len(), 1);
    assert_eq!(machine.crash().readings(), [(at(100), 3)]);
}

pub(crate) fn a_retired_agent_is_back_with_its_hello(store: impl Reopen) {
    let mut machine = Machine::new(store, PLAN);
    machine.settle(2);
    assert_eq!(machine.store.retire("nobody", false), Ok(false));
    assert_eq!(machine.store.retire("a", false), Ok(true));
    let retired = machine.store.retired().unwrap();
    assert_eq!(retired, BTreeSet::from(["a".to_owned()]));
    machine.aggregator.handle_retired(&retired);
    // What it says is taken, and brings it not back; its hello does.
    machine.frame(heartbeat(1, 0, 50));
    machine.settle(2);
    let mut store = machine.store.reopen();
    assert!(store.standings().unwrap()["a"].retired);
    let mut machine = Machine::start(store, 10);
    machine.settle(2);
    store = machine.store;
    assert!(store.retired().unwrap().is_empty());
    assert!(!store.standings().unwrap()["a"].retired);
}

/// Epoch, first and last seq of all committed ranges.
fn known(store: &impl Reads) -> Vec<(u64, u64, u64)> {
    let mut known = Vec::new();
    store
        .committed(&mut |_, epoch, range| known.push((epoch, range.first, range.last)))
        .unwrap();
    known
}

pub(crate) fn epochs_are_forgotten_when_an_operator_says_so(store: impl Reopen) {
    let mut machine = Machine::new(store, PLAN);
    for seq in [1, 2, 4, 3, 7] {
        machine.frame(batch(seq, 100, &[("x", &[1])]));
        machine.settle(1);
    }
    assert_eq!(known(&machine.store), [(1, 1, 4), (1, 7, 7)]);
    // The agent is connected, and may send again what it has sent.
    assert_eq!(machine.store.retire("a", true), Ok(true));
    let names = machine.store.to_forget().unwrap();
    assert_eq!(names, BTreeSet::from(["a".to_owned()]));
    machine.aggregator.handle_forgotten(&names);
    machine.settle(1);
    assert_eq!(known(&machine.store).len(), 2);
    assert!(machine.store.to_forget().unwrap().is_empty());
    // With nobody connected, and the server away at first.
    machine.aggregator.handle_disconnected(machine.connection);
    assert_eq!(machine.store.retire("a", true), Ok(true));
    let seconds = machine.seconds;
    let mut machine = Machine::start(machine.store.reopen(), seconds);
    machine.settle(1);
    assert_eq!(known(&machine.store), []);
    assert!(machine.store.to_forget().unwrap().is_empty());
    machine.frame(batch(9, 100, &[("x", &[1])]));
    machine.settle(1);
    assert_eq!(known(&machine.store), [(1, 9, 9)]);
}

pub(crate) fn what_is_set_aside_is_read_no_more(store: impl Reopen) {
    let mut machine = Machine::new(store, PLAN);
    machine.frame(batch(1, 100, &[("x", &[1])]));
    machine.settle(10);
    machine.frame(batch(2, 110, &[("x", &[1])]));
    machine.settle(1);
    let chunk = Unreadable::Chunk {
        pipeline: pipeline(),
        pane: at(100),
        end: at(110),
        number: 0,
    };
    let appended = Unreadable::Batch {
        agent: "a".into(),
        epoch: 1,
        seq: 2,
    };
    let commit = Commit {
        id: 1,
        set_aside: [chunk, appended]
            .map(|what| SetAside {
                what,
                reason: "a test".into(),
            })
            .to_vec(),
        ..Commit::default()
    };
    machine.store.commit(&commit).unwrap();
    assert_eq!(machine.store.chunks(pipeline(), at(100)), Ok(Vec::new()));
    machine.store.batches(&mut |_| panic!("a batch is left")).unwrap();
    assert_eq!(machine.crash().readings(), []);
}

pub(crate) fn retention_lets_rows_and_panes_go(store: impl Reopen) {
    let plan = PLAN.replace("coarsen", "retention = \"1m\"\ncoarsen");
    let mut machine = Machine::new(store, &plan);
    let first = 1_000_000;
    machine.frame(batch(1, first, &[("x", &[1])]));
    machine.frame(heartbeat(1, 1, first + 10));
    machine.settle(10);
    assert_eq!(machine.store.chunks(pipeline(), at(first)).unwrap().len(), 1);
    machine.seconds = 100;
    machine.frame(batch(2, first + 90, &[("x", &[1])]));
    machine.frame(heartbeat(1, 2, first + 100));
    machine.settle(10);
    assert_eq!(machine.store.chunks(pipeline(), at(first)), Ok(Vec::new()));
    assert_eq!(machine.store.chunks(pipeline(), at(first + 90)).unwrap().len(), 1);
}

mod memory {
    use super::super::memory::Memory;

    super::store_suite!(Memory);
}
