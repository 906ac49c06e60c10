//! Who is connected: reconnecting agents, copied certificates, retired agents, and what a welcome says.

use super::*;

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first, last }
}

fn held(first: u64, last: u64) -> Vec<EpochRange> {
    vec![EpochRange {
        epoch: 1,
        ranges: vec![range(first, last)],
    }]
}

impl World {
    fn sent_to(&mut self, connection: ConnectionId) -> Vec<Transmit> {
        self.sent
            .extend(std::iter::from_fn(|| self.aggregator.poll_transmit()));
        let sent = self.sent.iter().filter(|(to, _)| *to == connection);
        sent.map(|(_, transmit)| transmit.clone()).collect()
    }

    /// What the welcome on this connection says is committed.
    fn committed(&mut self, connection: ConnectionId) -> Vec<SeqRange> {
        let sent = self.sent_to(connection);
        let welcome = sent.iter().find_map(|transmit| match transmit {
            Transmit::Message(Message::Welcome(welcome)) => Some(welcome.clone()),
            _ => None,
        });
        let committed = welcome.expect("a welcome").committed;
        committed.into_iter().flat_map(|epoch| epoch.ranges).collect()
    }

    fn conflicts(&self, agent: &str) -> u64 {
        self.aggregator.agents.standing(agent).unwrap().about.conflicts
    }
}

#[test]
fn a_welcome_names_what_is_durable_and_nothing_more() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    for seq in [1, 2, 4] {
        world.frame(1, 1, batch(seq, 100, &[("x", &[1])])).unwrap();
    }
    world.settle(1);
    world.frame(2, 1, batch(3, 100, &[("x", &[1])])).unwrap();
    let commit = world
        .aggregator
        .poll_commit(now(2), &world.chunks)
        .unwrap()
        .unwrap();
    world.frame(2, 1, batch(5, 100, &[("x", &[1])])).unwrap();
    world.greet(2, "a", held(1, 9));
    assert_eq!(
        world.committed(2),
        [range(1, 2), range(4, 4)],
        "3 is being written, 5 waits"
    );
    world.aggregator.handle_committed(commit.id);
    world.settle(2);
    world.greet(3, "a", held(2, 9));
    assert_eq!(world.committed(3), [range(2, 5)]);
}

#[test]
fn a_welcome_is_never_too_long_for_its_reader() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    for seq in (1..20_000).step_by(2) {
        world.aggregator.restore_range("a", 1, range(seq, seq));
    }
    world.greet(2, "a", held(1, 20_000));
    assert!(world.committed(2).len() > 4_000);
    for transmit in world.sent_to(2) {
        let Transmit::Message(message) = transmit else {
            panic!("{transmit:?}")
        };
        assert!(Message::parse(&message.emit()).is_ok());
    }
}

#[test]
fn acknowledgements_are_never_too_long_for_their_reader() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    let seqs = (1..20_000).step_by(2);
    for seq in seqs.clone() {
        world.aggregator.restore_range("a", 1, range(seq, seq));
        world.frame(1, 1, batch(seq, 100, &[("x", &[1])])).unwrap();
    }
    world.settle(1);
    assert_eq!(world.acked().len(), seqs.count());
    for (_, transmit) in &world.sent {
        if let Transmit::Message(message) = transmit {
            assert!(Message::parse(&message.emit()).is_ok());
        }
    }
}

#[test]
fn a_restarted_agent_takes_over_from_its_former_self() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet_as(1, "a", 1, Vec::new());
    world.greet_as(2, "a", 2, Vec::new());
    assert!(world.sent_to(1).contains(&Transmit::Close(REPLACED)));
    world.greet_as(3, "a", 2, Vec::new());
    assert!(world.sent_to(2).contains(&Transmit::Close(REPLACED)));
    assert_eq!(world.aggregator.connections(), 1);
    assert_eq!(
        world.conflicts("a"),
        0,
        "a restart is no conflict, nor is a new link"
    );
}

#[test]
fn two_living_agents_with_one_name_do_not_throw_each_other_out_in_turn() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet_as(1, "a", 1, Vec::new());
    world.greet_as(2, "a", 2, Vec::new());
    // The first is alive and comes back: now it is clear that there are two.
    for (connection, conflicts) in [(3, 1), (4, 2)] {
        world.greet_as(connection, "a", 1, Vec::new());
        assert_eq!(world.sent_to(connection), [Transmit::Conflict { with: 2 }]);
        assert_eq!(world.conflicts("a"), conflicts);
    }
    assert!(!world.sent_to(2).contains(&Transmit::Close(REPLACED)));
    world.frame(1, 4, batch(1, 100, &[("x", &[1])])).unwrap();
    world.settle(1);
    assert_eq!(world.acked(), [], "what the refused one sends is not looked at");
    // When the second one is gone, the first may come in, and then the second may not.
    world.aggregator.handle_disconnected(2);
    world.greet_as(5, "a", 1, Vec::new());
    assert!(matches!(
        world.sent_to(5)[..],
        [Transmit::Message(Message::Welcome(_))]
    ));
    world.greet_as(6, "a", 2, Vec::new());
    assert_eq!(world.sent_to(6), [Transmit::Conflict { with: 5 }]);
    world.settle(2);
    let rows = world.commits.iter().flat_map(|commit| &commit.agents);
    assert_eq!(rows.map(|row| row.conflicts).max(), Some(3));
}

#[test]
fn nobody_waits_for_a_retired_agent_and_its_hello_brings_it_back() {
    let mut world = World::new(vec![query("q", 10, 10)]);
    world.greet(1, "a", Vec::new());
    world.greet(2, "b", Vec::new());
    world.heartbeat(0, 1, 0, 100);
    world.heartbeat(0, 2, 0, 100);
    world.frame(1, 1, batch(1, 100, &[("x", &[1])])).unwrap();
    world.heartbeat(1, 1, 1, 110);
    world.settle(1);
    world.check(&[]);
    let retired = BTreeSet::from(["b".to_owned()]);
    world.aggregator.handle_retired(&retired);
    world.settle(1);
    world.check(&[(100, "x", 1, true, 1, 1.0)]);
    // What it still has to say counts, though nobody waits for it.
    world.frame(2, 2, batch(1, 100, &[("x", &[2])])).unwrap();
    world.settle(2);
    world.check(&[(100, "x", 2, true, 2, 3.0)]);
    world.greet(3, "b", Vec::new());
    // The store has not heard of its return yet, and says so until the commit is durable.
    let is_retired = |world: &World| world.aggregator.agents.standing("b").unwrap().retired;
    world.aggregator.handle_retired(&retired);
    assert!(!is_retired(&world));
    let commit = world
        .aggregator
        .poll_commit(now(4), &world.chunks)
        .unwrap()
        .unwrap();
    world.aggregator.handle_retired(&retired);
    assert!(!is_retired(&world));
    assert!(
        commit
            .agents
            .iter()
            .any(|agent| agent.name == "b" && agent.returned)
    );
    world.aggregator.handle_committed(commit.id);
    world.heartbeat(5, 3, 1, 111);
    world.settle(5);
    world.frame(5, 1, batch(2, 110, &[("x", &[1])])).unwrap();
    world.heartbeat(5, 1, 2, 120);
    world.settle(5);
    assert_eq!(world.rows.len(), 1, "b is waited for again");
    world.heartbeat(6, 3, 1, 120);
    world.settle(6);
    assert_eq!(world.rows.len(), 2);
}
