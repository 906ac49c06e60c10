//! What one agent can make the centre remember is bounded, and is said.

use catchment_common::limits::HELD_EPOCHS_MAX;
use catchment_common::wire::{CounterSample, Heartbeat};

use super::*;
use crate::committed::NoRoom;
use crate::limits::{CLAIM_MAX, EPOCH_RANGES_MAX, EPOCHS_MAX};

/// A batch that is refused: its pane is on no grid.
fn refused(epoch: u64, seq: u64) -> Vec<u8> {
    batch_of(PIPELINE, epoch, seq, 105, &[("x", &[1])])
}

fn held(epochs: impl Iterator<Item = u64>) -> Vec<EpochRange> {
    let range = SeqRange { first: 1, last: 9 };
    epochs
        .map(|epoch| EpochRange {
            epoch,
            ranges: vec![range],
        })
        .collect()
}

#[test]
fn batches_of_epochs_that_the_hello_did_not_name_end_the_connection() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", held(5..7));
    for epoch in [1, 5, 6] {
        world
            .frame(1, 1, batch_of(PIPELINE, epoch, 1, 100, &[("x", &[1])]))
            .unwrap();
    }
    let other = batch_of(PIPELINE, 7, 1, 100, &[("x", &[1])]);
    let fault = Err(Fault::Unexpected(
        "a batch of an epoch that the hello did not name",
    ));
    assert_eq!(world.frame(1, 1, other.clone()), fault);
    assert_eq!(world.frame(1, 1, refused(7, 1)), fault);
    let lost = Loss {
        epoch: 7,
        seq: 1,
        entries: Vec::new(),
    };
    assert_eq!(world.frame(1, 1, lost.emit()), fault);
    assert_eq!(world.aggregator.committed.epochs("a"), 3);
    // A hello that names as many as it can may have left some out.
    world.greet_as(2, "a", 1, held(1_000..1_000 + HELD_EPOCHS_MAX as u64));
    world.frame(2, 2, other).unwrap();
}

/// A hundred thousand refused batches, each of an epoch of its own, and the agent's name was locked out for ever.
#[test]
fn refused_batches_fill_no_epochs() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    for round in 0..3 {
        let first = 10 + round * 2_000;
        world.greet(round + 1, "a", held(first..first + 2_000));
        for epoch in first..first + 2_000 {
            world.frame(1, round + 1, refused(epoch, 1)).unwrap();
        }
        world.settle(1);
    }
    assert_eq!(world.aggregator.committed.epochs("a"), 0);
    assert!(world.commits.iter().all(|commit| commit.committed.is_empty()));
    // Of its own epoch it is settled, or its watermark would wait for ever.
    world.frame(2, 3, refused(1, 1)).unwrap();
    world.settle(2);
    assert_eq!(world.commits.last().unwrap().committed.len(), 1);
}

#[test]
fn refused_batches_count_towards_the_room_of_a_commit() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    let mut seq = 0;
    while world.aggregator.has_room() {
        seq += 1;
        assert!(seq < 1 << 20, "there is always room");
        world.frame(1, 1, refused(1, seq)).unwrap();
    }
    world.settle(1);
    assert!(world.aggregator.has_room());
}

/// Forty thousand sparse seqs, and each batch after them rewrote the whole set.
#[test]
fn a_commit_tells_the_ranges_that_changed_and_gaps_are_bounded() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    for seq in 1..=EPOCH_RANGES_MAX as u64 {
        world.frame(1, 1, batch(2 * seq, 100, &[("x", &[1])])).unwrap();
    }
    world.settle(1);
    world.frame(2, 1, batch(3, 100, &[("x", &[1])])).unwrap();
    world.settle(2);
    let range = SeqRange { first: 2, last: 4 };
    let expected = vec![("a".to_owned(), 1, vec![range])];
    assert_eq!(world.commits.last().unwrap().committed, expected);
    world
        .frame(3, 1, batch(4 * EPOCH_RANGES_MAX as u64, 100, &[("x", &[1])]))
        .unwrap();
    let apart = batch(8 * EPOCH_RANGES_MAX as u64, 100, &[("x", &[1])]);
    assert_eq!(world.frame(3, 1, apart), Err(Fault::NoRoom(NoRoom::Ranges)));
    assert_eq!(
        world.frame(3, 1, batch(1 << 63, 100, &[("x", &[1])])),
        Err(Fault::NoRoom(NoRoom::Seq))
    );
}

#[test]
fn an_agent_with_too_many_epochs_is_told_and_can_be_forgotten() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    for epoch in 0..EPOCHS_MAX as u64 {
        let range = SeqRange { first: 1, last: 1 };
        world.aggregator.restore_range("a", 1_000 + epoch, range);
    }
    world.greet(1, "a", Vec::new());
    let frame = batch(1, 100, &[("x", &[1])]);
    assert_eq!(
        world.frame(1, 1, frame.clone()),
        Err(Fault::NoRoom(NoRoom::Epochs))
    );
    world.aggregator.handle_disconnected(1);
    let names = BTreeSet::from(["a".to_owned()]);
    world.aggregator.handle_forgotten(&names);
    world.settle(1);
    let forgotten = &world.commits.last().unwrap().forgotten;
    assert_eq!(forgotten.len(), 1);
    assert_eq!(forgotten[0].epochs.len(), EPOCHS_MAX);
    world.greet(2, "a", Vec::new());
    world.frame(2, 2, frame).unwrap();
    // The store names it until the commit is durable; it is forgotten once.
    world.aggregator.handle_forgotten(&names);
    world.settle(2);
    assert_eq!(world.aggregator.committed.epochs("a"), 1);
}

#[test]
fn one_agent_too_many_is_not_let_in() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    for number in 0..AGENTS_MAX as u64 {
        world.greet(number, &format!("a{number}"), Vec::new());
        world.aggregator.handle_disconnected(number);
    }
    let last = AGENTS_MAX as u64;
    world.aggregator.handle_connected(last, "b", VERSION);
    assert_eq!(
        world.frame(1, last, hello("b", 1, Vec::new())),
        Err(Fault::Agents)
    );
    assert_eq!(world.aggregator.agents.len(), AGENTS_MAX);
    world.greet(last + 1, "a7", Vec::new());
}

/// One agent whose counters were at 2⁶³ − 1, and nobody's could be read any more.
#[test]
fn what_agents_say_of_themselves_is_bounded() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    let sample = |pipeline| CounterSample {
        pipeline,
        counter: Counter::Accepted.code(),
        value: u64::MAX,
    };
    let heartbeat = Heartbeat {
        epoch: 1,
        era: 1,
        seq: 0,
        oldest: 1,
        watermarks: vec![(PIPELINE, at(5)), (PipelineId(77), at(5))],
        counters: vec![sample(PIPELINE), sample(PipelineId(77))],
        backlog_batches: u64::MAX,
        backlog_bytes: u64::MAX,
        sources: Vec::new(),
        clock: None,
    };
    world.frame(1, 1, Message::Heartbeat(heartbeat).emit()).unwrap();
    let lost = Loss {
        epoch: 1,
        seq: 1,
        entries: vec![LossEntry {
            pipeline: PIPELINE,
            from: at(0),
            to: at(10),
            readings: u64::MAX,
        }],
    };
    world.frame(1, 1, lost.emit()).unwrap();
    world.settle(2);
    let pipeline = world.id(PIPELINE);
    let commit = world.commits.last().unwrap();
    assert_eq!(
        commit.counters,
        [("a".to_owned(), 1, pipeline, Counter::Accepted, CLAIM_MAX)]
    );
    assert_eq!(commit.watermarks, [("a".to_owned(), pipeline, at(5))]);
    let row = &commit.agents[0];
    assert_eq!((row.backlog_batches, row.backlog_bytes), (CLAIM_MAX, CLAIM_MAX));
    assert!(commit.losses[0].1.entries[0].readings < CLAIM_MAX);
}
