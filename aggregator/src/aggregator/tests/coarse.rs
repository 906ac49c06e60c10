//! Coarser panes: what an agent ships when its spool runs full; and what it had to give up.

use super::*;

const MINUTE: PipelineId = PipelineId(2);
const HOUR: PipelineId = PipelineId(3);

fn coarse(pipeline: PipelineId, seq: u64, pane: i64, rows: &[(&str, &[i64])]) -> Vec<u8> {
    batch_of(pipeline, 1, seq, pane, rows)
}

#[test]
fn a_coarser_pane_that_fits_the_windows_is_one_of_their_panes() {
    // The first query's minutes are assembled from the second's panes of ten seconds, and share its ladder.
    let mut world = World::new(vec![
        coarsening("q", 60, 60, &[3_600]),
        coarsening("fine", 10, 10, &[60, 3_600]),
    ]);
    world.greet(1, "a", Vec::new());
    world.frame(1, 1, batch(1, 60, &[("x", &[1])])).unwrap();
    world
        .frame(1, 1, coarse(MINUTE, 2, 60, &[("x", &[10, 20])]))
        .unwrap();
    world.heartbeat(1, 1, 2, 120);
    world.settle(1);
    world.check(&[(60, "x", 1, true, 3, 31.0)]);
    world.check_coarse(&[]);
    let fine: Vec<_> = world
        .rows
        .iter()
        .filter(|((query, ..), _)| *query == 1)
        .map(|((_, start, width, _), row)| (*start, *width, row.2, row.3))
        .collect();
    let expected = [
        (at(60), Span::ZERO, 1, 1.0),
        (at(60), Span::from_secs(60), 2, 30.0),
    ];
    assert_eq!(fine, expected);
}

#[test]
fn a_coarser_pane_that_fits_no_window_has_rows_of_its_own() {
    let mut world = World::new(vec![coarsening("q", 10, 10, &[60, 3_600])]);
    world.greet(1, "a", Vec::new());
    world.frame(1, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    world
        .frame(1, 1, coarse(MINUTE, 2, 60, &[("x", &[5, 6]), ("y", &[7])]))
        .unwrap();
    world.heartbeat(1, 1, 2, 200);
    world.settle(1);
    world.check(&[(100, "x", 1, true, 1, 1.0)]);
    world.check_coarse(&[(60, 60, "x", 1, 2, 11.0), (60, 60, "y", 1, 1, 7.0)]);
    // More of the same minute, and an hour: only what changed is revised.
    world.frame(2, 1, coarse(MINUTE, 3, 60, &[("x", &[1])])).unwrap();
    for _ in 0..2 {
        world.frame(2, 1, coarse(HOUR, 4, 0, &[("x", &[100])])).unwrap();
    }
    world.settle(2);
    world.check_coarse(&[
        (0, 3_600, "x", 1, 1, 100.0),
        (60, 60, "x", 2, 3, 12.0),
        (60, 60, "y", 1, 1, 7.0),
    ]);
    world.check(&[(100, "x", 1, true, 1, 1.0)]);
}

#[test]
fn a_coarser_pane_is_no_window_even_where_it_begins_and_ends_like_one() {
    let mut world = World::new(vec![coarsening("q", 60, 20, &[60])]);
    world.greet(1, "a", Vec::new());
    world.frame(1, 1, batch(1, 60, &[("x", &[1])])).unwrap();
    world.frame(1, 1, coarse(MINUTE, 2, 60, &[("x", &[10])])).unwrap();
    world.heartbeat(1, 1, 2, 200);
    world.settle(1);
    world.check(&[
        (20, "x", 1, true, 1, 1.0),
        (40, "x", 1, true, 1, 1.0),
        (60, "x", 1, true, 1, 1.0),
    ]);
    world.check_coarse(&[(60, 60, "x", 1, 1, 10.0)]);
}

#[test]
fn a_coarser_pane_revises_after_it_has_left_memory() {
    let mut world = World::new(vec![coarsening("q", 10, 10, &[60])]);
    world.greet(1, "a", Vec::new());
    world
        .frame(1, 1, coarse(MINUTE, 1, 60, &[("x", &[1]), ("y", &[2])]))
        .unwrap();
    world.settle(1);
    world.settle(20);
    world.settle(30);
    assert!(!world.holds(MINUTE, at(60)));
    world
        .frame(31, 1, coarse(MINUTE, 2, 60, &[("x", &[10])]))
        .unwrap();
    world.settle(31);
    world.check_coarse(&[(60, 60, "x", 2, 2, 11.0), (60, 60, "y", 1, 1, 2.0)]);
}

#[test]
fn a_coarser_pane_must_lie_on_its_own_grid() {
    let mut world = World::new(vec![coarsening("q", 10, 10, &[60])]);
    world.greet(1, "a", Vec::new());
    world.frame(1, 1, coarse(MINUTE, 1, 70, &[("x", &[1])])).unwrap();
    world.frame(1, 1, coarse(HOUR, 2, 0, &[("x", &[1])])).unwrap();
    world.settle(1);
    let reasons: Vec<RejectReason> = world
        .sent
        .iter()
        .filter_map(|sent| match sent {
            (_, Transmit::Message(Message::Reject(refusal))) => Some(refusal.reason),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [RejectReason::BadPane, RejectReason::UnknownPipeline]);
    world.check_coarse(&[]);
}

#[test]
fn agents_are_told_the_ladder() {
    let world = World::new(vec![
        coarsening("q", 10, 10, &[60, 3_600]),
        Query {
            dedupe: Some(Dedupe::rising(Path::parse("seq"))),
            ..coarsening("other", 10, 10, &[30])
        },
    ]);
    let plan = world.aggregator.catalog().agent_plan();
    assert_eq!(plan.pipelines.len(), 2, "coarser pipelines are not run");
    let mut ladder: Vec<(PipelineId, PipelineId, i64)> = plan
        .coarser
        .iter()
        .map(|rung| (rung.of, rung.pipeline, rung.pane.as_micros() / 1_000_000))
        .collect();
    let id = |number| world.id(PipelineId(number));
    let mut expected = [(id(1), id(3), 60), (id(1), id(4), 3_600), (id(2), id(5), 30)];
    ladder.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ladder, expected);
    assert!(Message::parse(&Message::Plan(plan).emit()).is_ok());
}

#[test]
fn what_an_agent_gave_up_is_recorded_once_and_settles_its_seq() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    let loss = |seq| Loss {
        epoch: 1,
        seq,
        entries: vec![LossEntry {
            pipeline: PIPELINE,
            from: at(80),
            to: at(100),
            readings: 7,
        }],
    };
    world.frame(1, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    world.settle(1);
    // The batch had come after all: nothing was lost.
    world.frame(2, 1, loss(1).emit()).unwrap();
    world.frame(2, 1, loss(2).emit()).unwrap();
    world.frame(2, 1, loss(2).emit()).unwrap();
    world.frame(2, 1, batch(2, 80, &[("x", &[1])])).unwrap();
    world.heartbeat(2, 1, 2, 110);
    world.settle(2);
    assert_eq!(world.acked(), [(1, 1, 1), (1, 1, 2)]);
    let losses: Vec<&(String, Loss)> = world.commits.iter().flat_map(|commit| &commit.losses).collect();
    let mut expected = loss(2);
    expected.entries[0].pipeline = world.id(PIPELINE);
    assert_eq!(losses, [&("a".to_owned(), expected)]);
    world.check(&[(100, "x", 1, true, 1, 1.0)]);
}
