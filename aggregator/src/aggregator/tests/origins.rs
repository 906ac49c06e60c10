//! Where batches come from: another database, an older copy of an agent's state, an agent of version 1.

use catchment_common::plan::Plan;
use catchment_common::wire::lineage::{Ancestor, DatabaseId, Forked, Lineage};
use catchment_common::wire::{Hello, Loss, v1};

use super::*;
use crate::pipelines::Pipelines;

const OTHER: DatabaseId = DatabaseId(2);

fn hello_of(epoch: u64, database: Option<DatabaseId>, lineage: Option<Lineage>) -> Vec<u8> {
    let hello = Hello {
        agent: "a".into(),
        software: "test".into(),
        epoch,
        plan: 0,
        database,
        lineage,
        held: Vec::new(),
    };
    Message::Hello(hello).emit()
}

fn reject_reasons(world: &World) -> Vec<RejectReason> {
    let refused = world.sent.iter().filter_map(|sent| match sent {
        (_, Transmit::Message(Message::Reject(refusal))) => Some(refusal.reason),
        _ => None,
    });
    refused.collect()
}

/// The queries `a` and `b` on one pipeline, then `b` on another: the first plan's pipeline has two generations.
fn parted() -> Catalog {
    let slow = |query: Query| Query {
        watermark_delay: Span::from_secs(9),
        ..query
    };
    let plan = |version, second: Query| {
        let third = Query {
            idle: Span::from_secs(77),
            ..query("c", 10, 10)
        };
        Plan {
            version,
            queries: vec![query("a", 10, 10), second, third],
        }
    };
    let mut pipelines = Pipelines::default();
    pipelines.assign(&plan(1, query("b", 10, 10)), || 5);
    let parted = plan(2, slow(query("b", 10, 10)));
    let (own, _) = pipelines.assign(&parted, || 5);
    Catalog::new(parted, pipelines, &own)
}

#[test]
fn a_batch_of_another_database_counts_where_its_meaning_is_certain() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    let own = world.id(PIPELINE);
    world.aggregator.handle_connected(1, "a", VERSION);
    world.frame(0, 1, hello_of(1, Some(OTHER), None)).unwrap();
    world
        .frame(1, 1, batch_of(own, 1, 1, 100, &[("x", &[1])]))
        .unwrap();
    // What the other database knows, and a number, which means something in one database only.
    for (seq, id) in [(2, PipelineId(u64::MAX)), (3, PIPELINE)] {
        world
            .frame(1, 1, batch_of(id, 1, seq, 100, &[("x", &[5, 6])]))
            .unwrap();
    }
    world.heartbeat(1, 1, 3, 0);
    world.settle(1);
    assert_eq!(world.acked(), [(1, 1, 1)]);
    assert_eq!(reject_reasons(&world), [RejectReason::OtherDatabase; 2]);
    let losses: Vec<&Loss> = { world.commits.iter() }
        .flat_map(|commit| commit.losses.iter().map(|(_, loss)| loss))
        .collect();
    let told: Vec<(u64, PipelineId, u64)> = { losses.iter() }
        .map(|loss| (loss.seq, loss.entries[0].pipeline, loss.entries[0].readings))
        .collect();
    assert_eq!(told, [(2, PipelineId(u64::MAX), 2), (3, PIPELINE, 2)]);
    // The names are settled: a watermark waits for none of them.
    world.frame(2, 1, heartbeat(4, 3, 120)).unwrap();
    world.settle(2);
    world.check(&[(100, "x", 1, true, 1, 1.0)]);
}

/// In the other database a reading may have gone into both pipelines that `b` has read here.
#[test]
fn a_batch_of_another_database_is_refused_when_a_query_has_read_more_than_its_pipeline() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.aggregator.handle_catalog(now(0), parted());
    world.aggregator.handle_connected(1, "a", VERSION);
    world.frame(0, 1, hello_of(1, Some(OTHER), None)).unwrap();
    let catalog = world.aggregator.catalog();
    let (certain, uncertain): (Vec<PipelineId>, Vec<PipelineId>) =
        { catalog.pipelines.keys().copied() }.partition(|id| !catalog.uncertain.contains(id));
    assert_eq!((certain.len(), uncertain.len()), (1, 3), "c alone has read one");
    for (seq, &id) in (1..).zip(certain.iter().chain(&uncertain)) {
        world
            .frame(1, 1, batch_of(id, 1, seq, 100, &[("x", &[1])]))
            .unwrap();
    }
    world.settle(1);
    assert_eq!(world.acked(), [(1, 1, 1)]);
    assert_eq!(reject_reasons(&world), [RejectReason::OtherDatabase; 3]);
}

#[test]
fn an_older_copy_is_told_so_and_its_hello_counts_for_nothing() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    let lineage = |id, generation, sealed, ancestors: &[(u64, u64)]| Lineage {
        id,
        generation,
        sealed,
        ancestors: (1..)
            .zip(ancestors)
            .map(|(generation, &(epoch, sealed))| Ancestor {
                generation,
                epoch,
                sealed,
            })
            .collect(),
    };
    world.aggregator.handle_connected(1, "a", VERSION);
    world
        .frame(0, 1, hello_of(1, Some(DATABASE), Some(lineage(7, 1, 0, &[]))))
        .unwrap();
    world.frame(1, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    world.frame(1, 1, batch(2, 110, &[("x", &[1])])).unwrap();
    world.settle(1);
    assert_eq!(world.commits[0].lineages.len(), 1);
    world.sent.clear();
    // The copy was made when one batch had been named.
    world.aggregator.handle_connected(2, "a", VERSION);
    let copy = lineage(7, 2, 0, &[(1, 1)]);
    world
        .frame(2, 2, hello_of(3, Some(DATABASE), Some(copy)))
        .unwrap();
    world.settle(2);
    let forked = Forked { lineage: 7, epoch: 1 };
    assert_eq!(world.sent, [(2, Transmit::Message(Message::Forked(forked)))]);
    let about = &world.aggregator.agents.standing("a").unwrap().about;
    assert_eq!((about.forks, about.conflicts), (1, 0));
    assert!(matches!(
        world.frame(2, 2, batch_of(PIPELINE, 3, 1, 120, &[("x", &[1])])),
        Err(Fault::Unexpected(_))
    ));
    // As a lineage of its own it is welcome; so is the next start of the state itself.
    world
        .frame(3, 2, hello_of(3, Some(DATABASE), Some(lineage(8, 1, 0, &[]))))
        .unwrap();
    world.aggregator.handle_disconnected(2);
    world.aggregator.handle_connected(3, "a", VERSION);
    let next = lineage(7, 2, 0, &[(1, 2)]);
    world
        .frame(4, 3, hello_of(4, Some(DATABASE), Some(next)))
        .unwrap();
    world.settle(4);
    let welcomes = world
        .sent
        .iter()
        .filter(|sent| matches!(sent.1, Transmit::Message(Message::Welcome(_))));
    assert_eq!(welcomes.count(), 2);
}

#[test]
fn an_agent_of_version_1_is_served_by_numbers() {
    let mut world = World::new(vec![coarsening("q", 10, 10, &[60])]);
    world.aggregator.handle_connected(1, "a", v1::VERSION);
    let hello = |plan| Hello {
        agent: "a".into(),
        software: "test".into(),
        epoch: 1,
        plan,
        database: None,
        lineage: None,
        held: Vec::new(),
    };
    let hello_1 = |plan| v1::emit_message(&Message::Hello(hello(plan))).unwrap();
    world.frame(0, 1, hello_1(3)).unwrap();
    world.settle(0);
    let Some((_, Transmit::Message(welcome))) = world.sent.pop() else {
        panic!("no welcome");
    };
    // As the peer reads it: numbers, and a version that is the same in no other database.
    let Message::Welcome(told) = Message::parse(&v1::emit_message(&welcome).unwrap()).unwrap() else {
        panic!("{welcome:?}");
    };
    let plan = told.plan.unwrap();
    assert_eq!(plan.pipelines[0].0, PIPELINE);
    assert_eq!(plan.coarser[0].of, PIPELINE);
    assert!(plan.version > u64::from(u32::MAX));
    world.frame(1, 1, hello_1(plan.version)).unwrap();
    world.settle(1);
    assert!(
        matches!(&world.sent[..], [(1, Transmit::Message(Message::Welcome(welcome)))] if welcome.plan.is_none())
    );
    world.frame(2, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    world.frame(2, 1, heartbeat(1, 1, 120)).unwrap();
    world.settle(2);
    world.check(&[(100, "x", 1, true, 1, 1.0)]);
}
