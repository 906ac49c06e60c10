//! Late data for windows that overlap: what it costs, and how it is spread over commits.

use super::*;

const DAY: i64 = 86_400;

/// Windows of a day each minute over a device that reports each ten minutes for two days, all shown and out of memory.
fn two_days(due_rows: usize) -> World {
    let mut world = World::new(vec![query("q", DAY, 60)]);
    world.aggregator.settings.due_rows = due_rows;
    world.greet(1, "a", Vec::new());
    let mut seq = 0;
    for start in (0..2 * DAY).step_by(600) {
        seq += 1;
        world
            .frame(1, 1, batch(seq, DAY * 8 + start, &[("x", &[1])]))
            .unwrap();
    }
    world.heartbeat(1, 1, seq, DAY * 11);
    for second in [1, 2, 20, 30] {
        world.settle(second);
    }
    let (before, last) = (world.aggregator.panes().partials(), at(DAY * 10 - 600));
    assert!(!world.holds(PIPELINE, last), "{before} are in memory");
    world
}

#[test]
fn one_late_reading_asks_the_store_for_its_panes_once_and_merges_each_twice() {
    let mut world = two_days(DUE_ROWS_MAX);
    world.chunks.asked.set(0);
    world
        .frame(40, 1, batch(1_000, DAY * 9, &[("x", &[1_000])]))
        .unwrap();
    world.settle(40);
    let revised = world.commits.last().unwrap().results[0].windows.len();
    assert_eq!(revised, 1_440);
    // 288 panes have data, of 2,880: the others are not asked for, and none twice.
    assert!(world.chunks.asked.get() <= 300, "{}", world.chunks.asked.get());
    let merged = world.aggregator.windows[0].merged();
    assert!(merged <= 2 * 289 + 2 * 1_440, "{merged} pieces");
    for ((_, start, _, _), (revision, _, readings, sum)) in &world.rows {
        let is_over = *start <= at(DAY * 9) && at(DAY * 9) < start.plus(Span::from_secs(DAY));
        assert_eq!(*sum - *readings as f64, if is_over { 999.0 } else { 0.0 });
        assert_eq!(*revision, 1 + u32::from(is_over));
    }
}

#[test]
fn revisions_are_spread_over_commits_and_others_are_acknowledged_meanwhile() {
    let mut world = two_days(100);
    for second in 30..200 {
        world.settle(second);
    }
    world.commits.clear();
    world
        .frame(200, 1, batch(1_000, DAY * 9, &[("x", &[1_000])]))
        .unwrap();
    world
        .frame(200, 1, batch(1_001, DAY * 11, &[("y", &[1])]))
        .unwrap();
    let first = world
        .aggregator
        .poll_commit(now(200), &world.chunks)
        .unwrap()
        .unwrap();
    assert_eq!(
        first.batches.len(),
        2,
        "both are acknowledged with the first commit"
    );
    let (rows, left) = (first.results[0].windows.len(), &first.results[0].unrevised);
    assert!((1..=101).contains(&rows), "{rows}");
    assert!(!left.is_empty(), "what is left is durable with the batch");
    world.take(&first);
    world.aggregator.handle_committed(first.id);
    for second in 200..300 {
        world.settle(second);
    }
    assert!(!world.aggregator.is_to_revise());
    let late = |((_, start, _, key), row): (&RowKey, &(u32, bool, u64, f64))| {
        let is_over = *start <= at(DAY * 9) && at(DAY * 9) < start.plus(Span::from_secs(DAY));
        (key == "x" && is_over).then(|| assert_eq!((row.0, row.3 - row.2 as f64), (2, 999.0)))
    };
    assert_eq!(world.rows.iter().filter_map(late).count(), 1_440);
}

#[test]
fn late_data_in_any_order_gives_the_rows_of_data_in_time() {
    for (size, every) in [(60, 10), (70, 30), (600, 10), (50, 50)] {
        let readings =
            |seed: i64| (0..60).map(move |index| ((index * 37 + seed * 11) % 90, index % 3, index + 1));
        for seed in 0..4 {
            let (mut timely, mut late) = (
                World::new(vec![query("q", size, every)]),
                World::new(vec![query("q", size, every)]),
            );
            late.aggregator.settings.due_rows = [1, 7, 1_000][seed as usize % 3];
            late.greet(1, "a", Vec::new());
            timely.greet(1, "a", Vec::new());
            late.heartbeat(1, 1, 0, 10_000);
            late.settle(1);
            for (seq, (pane, key, value)) in (1..).zip(readings(seed)) {
                let frame = batch(
                    seq,
                    1_000 + pane * 10,
                    &[(["x", "y", "z"][key as usize], &[value])],
                );
                timely.frame(1, 1, frame.clone()).unwrap();
                late.frame(1 + seq as i64 / 9, 1, frame).unwrap();
                if seq % 4 == 0 {
                    late.settle(1 + seq as i64 / 9);
                }
            }
            timely.heartbeat(1, 1, 60, 10_000);
            for second in 1..400 {
                timely.settle(second);
                late.settle(second + 10);
            }
            let rows = |world: &World| -> Vec<(RowKey, u64, f64)> {
                { world.rows.iter() }
                    .map(|(name, row)| (name.clone(), row.2, row.3))
                    .collect()
            };
            assert_eq!(rows(&late), rows(&timely), "{size} every {every}, seed {seed}");
        }
    }
}
