//! What goes wrong with time in other systems: silent, dead, returning and late agents. `docs/WINDOWS.md` names each.

use super::*;

#[test]
fn a_dead_agent_holds_windows_for_patience_and_no_message_is_needed_to_show_them() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    world.greet(2, "b", Vec::new());
    world.frame(0, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    world.heartbeat(0, 1, 1, 120);
    world.heartbeat(0, 2, 0, 50);
    world.settle(0);
    world.check(&[]);
    let deadline = world.aggregator.poll_timeout().as_micros();
    assert!(deadline <= 10_000_000, "the machine asks to be woken");
    world.settle(10);
    world.check(&[(100, "x", 1, false, 1, 1.0)]);
}

#[test]
fn the_order_in_which_agents_fall_silent_does_not_matter() {
    // Heartbeats of three agents in every order; the last windows come out alike.
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let mut seen = BTreeSet::new();
    for order in orders {
        let mut world = World::new(vec![query("q", 10, 10)]);
        for (connection, name) in [(1, "a"), (2, "b"), (3, "c")] {
            world.greet(connection, name, Vec::new());
        }
        world.frame(0, 1, batch(1, 100, &[("x", &[1])])).unwrap();
        world.settle(0);
        for (step, agent) in order.into_iter().enumerate() {
            let seq = u64::from(agent == 0);
            world.heartbeat(step as i64, agent + 1, seq, 200 + 10 * agent as i64);
            world.settle(step as i64);
        }
        world.check(&[(100, "x", 1, true, 1, 1.0)]);
        seen.insert(format!("{:?}", world.rows));
    }
    assert_eq!(seen.len(), 1);
}

#[test]
fn an_agent_that_comes_back_with_a_backlog_revises_and_moves_nothing_back() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    world.greet(2, "b", Vec::new());
    world.heartbeat(0, 2, 0, 100);
    world.frame(0, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    world.heartbeat(0, 1, 1, 130);
    world.settle(0);
    world.settle(10);
    world.check(&[(100, "x", 1, false, 1, 1.0)]);
    // While b catches up, a goes on, and its newer windows do not wait.
    world.frame(11, 1, batch(2, 130, &[("x", &[2])])).unwrap();
    world.heartbeat(11, 1, 2, 140);
    world.frame(11, 2, batch(1, 100, &[("x", &[4])])).unwrap();
    world.heartbeat(11, 2, 1, 110);
    world.settle(11);
    world.check(&[(100, "x", 2, true, 2, 5.0), (130, "x", 1, false, 1, 2.0)]);
    world.heartbeat(12, 2, 1, 140);
    world.settle(12);
    world.check(&[(100, "x", 2, true, 2, 5.0), (130, "x", 2, true, 1, 2.0)]);
}

#[test]
fn a_late_reading_is_in_every_window_that_needs_its_pane_shown_or_not() {
    // Windows over 100: those from 80 and 90 have been shown, that from 100 has not.
    let mut world = World::new(vec![query("q", 30, 10)]);
    world.greet(1, "a", Vec::new());
    world.frame(1, 1, batch(1, 80, &[("x", &[1])])).unwrap();
    world.heartbeat(1, 1, 1, 120);
    world.settle(1);
    // A checkpoint, after which panes may leave memory.
    world.settle(20);
    world.frame(21, 1, batch(2, 100, &[("x", &[2])])).unwrap();
    world.settle(21);
    world.heartbeat(22, 1, 2, 140);
    world.settle(22);
    world.check(&[
        (60, "x", 1, true, 1, 1.0),
        (70, "x", 1, true, 1, 1.0),
        (80, "x", 2, true, 2, 3.0),
        (90, "x", 1, true, 1, 2.0),
        (100, "x", 1, true, 1, 2.0),
    ]);
}

/// After an outage all its windows are due at once. They come with several commits, so that a live batch is
/// acknowledged with the first; each window once, the earliest first, and no query waits for all windows of another.
#[test]
fn windows_that_are_due_together_are_shown_by_and_by() {
    const KEYS: usize = 1_000;
    const WINDOWS: i64 = 80;
    let slower = |query: Query| Query {
        watermark_delay: Span::from_secs(1),
        ..query
    };
    let mut world = World::new(vec![query("a", 10, 10), slower(query("b", 10, 10))]);
    world.greet(1, "gw-1", Vec::new());
    let names: Vec<String> = (0..KEYS).map(|key| format!("{key:04}")).collect();
    let rows: Vec<(&str, &[i64])> = names.iter().map(|name| (name.as_str(), &[1][..])).collect();
    let pipelines = [PIPELINE, PipelineId(2)];
    let mut seq = 0;
    for pane in 0..WINDOWS {
        for pipeline in pipelines {
            seq += 1;
            world
                .frame(0, 1, batch_of(pipeline, 1, seq, pane * 10, &rows))
                .unwrap();
        }
    }
    let passed = pipelines.map(|pipeline| (pipeline, at(WINDOWS * 10))).to_vec();
    let heartbeat = Message::Heartbeat(catchment_common::wire::Heartbeat {
        watermarks: passed,
        epoch: 1,
        era: 1,
        seq,
        oldest: 1,
        counters: Vec::new(),
        backlog_batches: 0,
        backlog_bytes: 0,
        sources: Vec::new(),
        clock: None,
    });
    world.frame(0, 1, heartbeat.emit()).unwrap();
    world.settle(0);
    assert_eq!(world.acked(), [(1, 1, seq)], "with the first commit");
    let shown = |commit: &Commit, query: usize| -> Vec<Timestamp> {
        let results = commit.results.iter().filter(|results| results.query == query);
        let windows = results.flat_map(|results| &results.windows);
        windows.map(|window| window.status.start).collect()
    };
    let expected: Vec<Timestamp> = (0..WINDOWS).map(|window| at(window * 10)).collect();
    for query in 0..2 {
        let all: Vec<Timestamp> = { world.commits.iter() }
            .flat_map(|commit| shown(commit, query))
            .collect();
        assert_eq!(all, expected);
    }
    for commit in &world.commits {
        let windows = shown(commit, 0).len() + shown(commit, 1).len();
        assert!(
            windows * KEYS < DUE_ROWS_MAX + KEYS,
            "{windows} windows in one commit"
        );
    }
    let with_b = { world.commits.iter() }.position(|commit| !shown(commit, 1).is_empty());
    let last_a = { world.commits.iter() }.rposition(|commit| !shown(commit, 0).is_empty());
    assert!(with_b < last_a, "one query waits for the other");
}
