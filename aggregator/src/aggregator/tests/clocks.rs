//! Clocks that are wrong: a gateway's, and the aggregator's.

use super::*;
use crate::limits::WATERMARK_AHEAD_MAX;

const YEARS: i64 = 150_000_000;
/// The wall clock at monotonic second 0.
const WALL: i64 = 1_000_000;

#[test]
fn a_gateway_whose_clock_was_ahead_is_waited_for_when_it_is_right_again() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    world.greet(2, "b", Vec::new());
    world.heartbeat(0, 1, 0, WALL + YEARS);
    world.heartbeat(0, 2, 0, WALL);
    world.settle(0);
    let of_a = |world: &World| {
        let standing = world.aggregator.agents.standing("a").unwrap();
        standing.watermarks.values().copied().max().unwrap()
    };
    assert_eq!(of_a(&world), at(WALL).plus(WATERMARK_AHEAD_MAX));
    // It is right again, and behind the other: windows wait for it.
    world.frame(30, 2, batch(1, WALL + 10, &[("x", &[1])])).unwrap();
    world.heartbeat(30, 2, 1, WALL + 30);
    world.heartbeat(30, 1, 0, WALL + 12);
    world.settle(30);
    world.check(&[]);
    world.frame(31, 1, batch(1, WALL + 10, &[("y", &[2])])).unwrap();
    world.heartbeat(31, 1, 1, WALL + 31);
    world.settle(31);
    world.check(&[
        (WALL + 10, "x", 1, true, 1, 1.0),
        (WALL + 10, "y", 1, true, 1, 2.0),
    ]);
}

#[test]
fn what_was_stored_of_the_future_is_set_back_at_the_next_start() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    let pipeline = world.id(PIPELINE);
    let standing = crate::agents::Standing {
        heard: at(WALL + YEARS),
        retired: false,
        watermarks: BTreeMap::from([(pipeline, at(WALL + YEARS))]),
        about: crate::agents::About::default(),
    };
    world.aggregator.restore_agent("a".into(), standing);
    world
        .aggregator
        .restore_query(0, at(WALL + YEARS), std::iter::empty());
    world.aggregator.restored(now(5));
    let standing = world.aggregator.agents.standing("a").unwrap();
    assert_eq!(standing.heard, now(5).wall);
    assert_eq!(
        standing.watermarks[&pipeline],
        at(WALL + 5).plus(WATERMARK_AHEAD_MAX)
    );
    world.greet(1, "a", Vec::new());
    world.frame(20, 1, batch(1, WALL + 10, &[("x", &[1])])).unwrap();
    world.heartbeat(20, 1, 1, WALL + 20);
    world.settle(20);
    world.check(&[(WALL + 10, "x", 1, true, 1, 1.0)]);
}

#[test]
fn panes_of_times_to_come_are_refused() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    world.frame(0, 1, batch(1, WALL + 60, &[("x", &[1])])).unwrap();
    world.frame(0, 1, batch(2, WALL + 80, &[("x", &[1])])).unwrap();
    world.settle(0);
    let refused = world.sent.iter().filter_map(|sent| match sent {
        (_, Transmit::Message(Message::Reject(refusal))) => Some((refusal.seq, refusal.reason)),
        _ => None,
    });
    assert_eq!(refused.collect::<Vec<_>>(), [(2, RejectReason::TooEarly)]);
    assert!(world.holds(PIPELINE, at(WALL + 60)) && !world.holds(PIPELINE, at(WALL + 80)));
}

/// Rows and panes that retention has let go: the latest instants.
fn expired(world: &World) -> (Option<Timestamp>, Option<Timestamp>) {
    let expired = world
        .commits
        .iter()
        .filter_map(|commit| Some(&commit.checkpoint.as_ref()?.expired));
    let expired: Vec<_> = expired.collect();
    let rows = expired
        .iter()
        .flat_map(|expired| expired.rows.iter().map(|(_, before)| *before))
        .max();
    let panes = expired
        .iter()
        .flat_map(|expired| expired.panes.iter().map(|(_, before)| *before))
        .max();
    (rows, panes)
}

#[test]
fn a_clock_that_is_days_ahead_for_some_seconds_deletes_nothing() {
    let day = 86_400;
    let asked = Query {
        retention: Some(Span::from_secs(day)),
        ..query("q", 10, 10)
    };
    let mut world = World::new(vec![asked]);
    world.greet(1, "a", Vec::new());
    world.frame(0, 1, batch(1, WALL, &[("x", &[1])])).unwrap();
    world.heartbeat(0, 1, 1, WALL);
    world.settle(0);
    for second in 1..30 {
        // The gateway's clock is wrong, too, and the aggregator's is for eight seconds.
        let ahead = if (8..16).contains(&second) { 2 * day } else { 0 };
        let now = Now {
            wall: at(WALL + second + ahead),
            ..now(second)
        };
        let frame = batch(second as u64 + 1, WALL + second / 10 * 10, &[("x", &[1])]);
        world
            .aggregator
            .handle_frame(now, 1, frame.into(), &world.chunks)
            .unwrap();
        let beat = heartbeat(1, second as u64 + 1, WALL + second + ahead);
        world
            .aggregator
            .handle_frame(now, 1, beat.into(), &world.chunks)
            .unwrap();
        while let Some(commit) = world.aggregator.poll_commit(now, &world.chunks).unwrap() {
            world.take(&commit);
            world.aggregator.handle_committed(commit.id);
            world.commits.push(commit);
        }
    }
    let (rows, panes) = expired(&world);
    assert!(rows.is_some() && panes.is_some(), "the test would show nothing");
    // From one checkpoint before to the last of them.
    let furthest = at(WALL + 30 + 13 * crate::limits::RETENTION_PACE - day);
    assert!(rows.max(panes) <= Some(furthest), "{rows:?}, {panes:?}");
}

#[test]
fn retention_goes_by_the_data_if_that_is_behind() {
    let asked = Query {
        retention: Some(Span::from_secs(3_600)),
        ..query("q", 10, 10)
    };
    let mut world = World::new(vec![asked]);
    world.greet(1, "a", Vec::new());
    world
        .frame(0, 1, batch(1, WALL - 900_000, &[("x", &[1])]))
        .unwrap();
    world.heartbeat(0, 1, 1, WALL - 900_000);
    for second in 0..30 {
        world.settle(second);
    }
    let (rows, panes) = expired(&world);
    assert_eq!(rows, Some(at(WALL - 903_600)));
    assert_eq!(panes, Some(at(WALL - 903_610)));
}
