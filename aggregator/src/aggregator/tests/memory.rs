//! A centre with little memory shows what one with much shows.

use super::*;

/// Five minutes of panes of ten seconds before any is due, with two keys, a settled commit each ten seconds.
fn fill(queries: &[Query], memory: usize) -> World {
    let mut world = World::new(queries.to_vec());
    world.aggregator.settings.memory = memory;
    world.greet(1, "a", Vec::new());
    for index in 0..30 {
        let pane = 999_000 + index * 10;
        let frame = batch(
            index as u64 + 1,
            pane,
            &[("x", &[1 << (index % 20)]), ("y", &[index])],
        );
        world.frame(index * 10, 1, frame).unwrap();
        world.settle(index * 10);
    }
    world
}

#[test]
fn panes_beyond_the_budget_leave_memory_and_come_back_when_they_are_due() {
    for queries in [[query("q", 10, 10)], [query("q", 60, 10)]] {
        let mut little = fill(&queries, 2_000);
        let mut much = fill(&queries, usize::MAX);
        assert_eq!(much.aggregator.panes().partials(), 60);
        assert!(little.aggregator.panes().bytes() <= 2_000);
        assert!(
            little.aggregator.panes().partials() < 20,
            "{}",
            little.aggregator.panes().partials()
        );
        for (second, watermark) in [(300, 999_100), (310, 999_150), (320, 1_000_300)] {
            for world in [&mut little, &mut much] {
                world.heartbeat(second, 1, 30, watermark);
                world.settle(second);
            }
        }
        // A reading for a pane that has left.
        for world in [&mut little, &mut much] {
            world
                .frame(330, 1, batch(31, 999_050, &[("x", &[1_000_000])]))
                .unwrap();
            world.settle(330);
        }
        assert!(little.rows.len() >= 30);
        assert_eq!(little.rows, much.rows);
    }
}
