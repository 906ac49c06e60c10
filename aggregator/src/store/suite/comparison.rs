//! A store beside the one in memory: the same random commits, the same answers.

use catchment_common::plan::PipelineId;
use catchment_common::wire::{Loss, LossEntry};
use proptest::prelude::*;

use super::changes::{Reader, all as feed, pass};
use super::{Machine, Reopen, all, apply, settings};
use crate::store::changes::Changes;
use crate::store::memory::Memory;
use crate::store::{Reads, Store};
use crate::testing::{at, batch_of, counted, heartbeat, now};

/// Changes that are kept: so few that the slow reader falls behind.
const KEPT: u64 = 30;

/// The rung of the first query's pipeline.
const MINUTE: PipelineId = PipelineId(2);

/// Queries of all kinds of windows, and one that is not always there.
const PLANS: [&str; 2] = [
    r#"[[query]]
name = "q"
topic = "s/{device}"
key = ["device"]
fields = { temp = "temp" }
window = { size = "20s", every = "10s" }
aggregates = ["count", "sum"]
watermark_delay = "0s"
patience = "3s"
coarsen = ["1m", "1h"]
[[query]]
name = "r"
topic = "s/{device}"
key = ["device"]
fields = { temp = "temp" }
window = { size = "10s" }
aggregates = ["sum"]
watermark_delay = "0s"
retention = "1m"
"#,
    r#"[[query]]
name = "q"
topic = "s/{device}"
key = ["device"]
fields = { temp = "temp" }
window = { size = "20s", every = "10s" }
aggregates = ["count", "sum", "mean"]
watermark_delay = "0s"
patience = "3s"
coarsen = ["1m", "1h"]
[[query]]
name = "s"
topic = "t/{device}"
key = ["device"]
fields = { temp = "temp" }
window = { session = "10s" }
aggregates = ["count", "sum"]
[[query]]
name = "c"
topic = "u/{device}"
key = ["device"]
fields = { temp = "temp" }
window = { count = 3 }
aggregates = ["sum"]
"#,
];

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A batch of a pipeline, by its place in the catalog, and pane.
    Batch(prop::sample::Index, i64, Vec<(u8, i64)>),
    /// A batch of a count window.
    Counted(i64, Vec<(i64, i64)>),
    /// A loss.
    Lost(i64, u64),
    /// A watermark.
    Tell(i64),
    /// Time passes.
    Settle(i64),
    /// Another plan.
    Plan(usize),
    /// An agent is retired, and perhaps forgotten.
    Retire(bool),
    /// The machine starts anew.
    Crash,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let rows =
        || prop::collection::btree_map(0_u8..4, -9_i64..9, 1..4).prop_map(|rows| rows.into_iter().collect());
    prop_oneof![
        8 => (any::<prop::sample::Index>(), 0_i64..12, rows())
            .prop_map(|(pipeline, pane, rows)| Step::Batch(pipeline, pane, rows)),
        2 => (1_i64..4, prop::collection::vec((0_i64..99, -9_i64..9), 1..4))
            .prop_map(|(number, readings)| Step::Counted(number, readings)),
        1 => (0_i64..50, 1_u64..9).prop_map(|(pane, readings)| Step::Lost(pane, readings)),
        4 => (0_i64..200).prop_map(Step::Tell),
        6 => (0_i64..8).prop_map(Step::Settle),
        1 => (0_usize..2).prop_map(Step::Plan),
        1 => any::<bool>().prop_map(Step::Retire),
        2 => Just(Step::Crash),
    ]
}

/// The store under test and one in memory take the same commits of one machine, and give the same answers. `check`
/// compares what only the two of them know.
pub(crate) fn agrees_with_memory<S: Reopen>(
    mut store: S,
    steps: Vec<Step>,
    check: impl Fn(&S, &Memory) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    apply(&mut store, PLANS[0]).unwrap();
    let mut pair = Pair {
        store,
        machine: Machine::new(Memory::default(), PLANS[0]),
        seq: 0,
    };
    pair.store.keep_changes(KEPT);
    pair.machine.store.keep_changes(KEPT);
    for cursor in ["quick", "slow"] {
        prop_assert!(pair.store.open_cursor(cursor).unwrap());
        prop_assert!(pair.machine.store.open_cursor(cursor).unwrap());
    }
    let mut readers = [Reader::default(), Reader::default()];
    for (number, step) in steps.into_iter().enumerate() {
        pair = pair.take(step)?;
        prop_assert_eq!(all(&pair.store), all(&pair.machine.store));
        prop_assert_eq!(feed(&pair.store), feed(&pair.machine.store));
        check(&pair.store, &pair.machine.store)?;
        for (reader, cursor, every) in [(0, "quick", 1), (1, "slow", 9)] {
            if number % every == 0 {
                readers[reader].follow(&mut pair.store, cursor);
                readers[reader].check(&pair.store);
                // The other store has the same feed, so its reader would have the same.
                pass(&mut pair.machine.store, cursor);
            }
        }
    }
    Ok(())
}

/// The machine on a store in memory, and the other store.
struct Pair<S> {
    store: S,
    machine: Machine<Memory>,
    seq: u64,
}

impl<S: Reopen> Pair<S> {
    fn take(mut self, step: Step) -> Result<Self, TestCaseError> {
        let machine = &mut self.machine;
        match step {
            Step::Batch(..) | Step::Counted(..) | Step::Lost(..) => {
                self.seq += 1;
                machine.frame(frame(machine, self.seq, step));
            }
            Step::Tell(watermark) => machine.frame(heartbeat(1, self.seq, watermark)),
            Step::Settle(more) => {
                machine.seconds += more;
                let now = now(machine.seconds);
                while let Some(commit) = machine.aggregator.poll_commit(now, &machine.store).unwrap() {
                    self.store.commit(&commit).unwrap();
                    machine.store.commit(&commit).unwrap();
                    machine.aggregator.handle_committed(commit.id);
                }
            }
            Step::Plan(index) => {
                let plan = PLANS[index];
                prop_assert_eq!(apply(&mut self.store, plan), apply(&mut machine.store, plan));
                let catalog = machine.store.catalog().unwrap();
                machine.aggregator.handle_catalog(now(machine.seconds), catalog);
            }
            Step::Retire(forget) => {
                let results = [self.store.retire("a", forget), machine.store.retire("a", forget)];
                prop_assert_eq!(&results[0], &results[1]);
                machine
                    .aggregator
                    .handle_forgotten(&machine.store.to_forget().unwrap());
            }
            Step::Crash => {
                self.store = self.store.reopen();
                self.store.keep_changes(KEPT);
                self.machine = self.machine.crash();
                let other = self.store.restore(settings(), now(self.machine.seconds)).unwrap();
                let partials = self.machine.aggregator.panes().partials();
                prop_assert_eq!(other.panes().partials(), partials);
            }
        }
        Ok(self)
    }
}

/// The frame that a step sends.
fn frame(machine: &Machine<Memory>, seq: u64, step: Step) -> Vec<u8> {
    match step {
        Step::Batch(index, pane, rows) => {
            let pipelines = machine.aggregator.catalog().pipelines.iter();
            let pipelines: Vec<_> = pipelines.map(|(id, pipeline)| (*id, pipeline.pane)).collect();
            let (id, width) = *index.get(&pipelines);
            let width = width.as_micros() / 1_000_000;
            let rows: Vec<(String, [i64; 1])> = rows
                .into_iter()
                .map(|(key, value)| (format!("k{key}"), [value]))
                .collect();
            let rows: Vec<(&str, &[i64])> = rows.iter().map(|(key, value)| (&**key, &value[..])).collect();
            // A frame of these fits pipelines that keep a sum alone; others refuse it.
            batch_of(id, 1, seq, pane / 4 * width.max(1), &rows)
        }
        Step::Counted(number, readings) => counted(seq, &[(number * 1_000, "k1\0a", &readings[..])]),
        Step::Lost(pane, readings) => {
            let entries = vec![LossEntry {
                pipeline: MINUTE,
                from: at(pane),
                to: at(pane + 10),
                readings,
            }];
            Loss {
                epoch: 1,
                seq,
                entries,
            }
            .emit()
        }
        _ => unreachable!("other steps send no frame"),
    }
}
