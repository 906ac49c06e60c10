//! Hostile peers: bad frames over a good connection, bad certificates, and noise on the port. Each is refused with a
//! reason, and the aggregator serves on.

use std::net::UdpSocket;

use catchment_aggregator::plan_toml;
use catchment_common::limits::FRAME_BYTES_MAX;
use catchment_common::number::decimal::Value;
use catchment_common::plan::{Components, PipelineId};
use catchment_common::stats::Stats;
use catchment_common::time::Timestamp;
use catchment_common::wire::{
    ALPN, BatchWriter, EpochRange, Heartbeat, Message, Refusal, RejectReason, Section, SeqRange, VERSION,
    checksum, fingerprint,
};
use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::intruder::Intruder;
use catchment_tests::mqtt::Publisher;
use catchment_tests::wait::until;
use catchment_tests::world::{FLEET_PLAN, World};

const EPOCH: u64 = 7;
const PANE: i64 = 1_700_000_000_000_000;

/// The head of batches of version 1: kind, version, epoch; seq follows.
fn head() -> Vec<u8> {
    let mut head = vec![8, 1];
    head.extend(EPOCH.to_le_bytes());
    head
}

/// The pipeline of the plan's first query.
fn climate() -> PipelineId {
    let plan = plan_toml::parse(FLEET_PLAN, "plan.toml").unwrap();
    fingerprint(&plan.pipelines().pipelines[0], None, 0)
}

/// A batch of one section, sealed as an agent would.
fn batch(seq: u64, pipeline: PipelineId, pane: i64, fields: usize) -> Vec<u8> {
    let mut section = Section::default();
    let keep = vec![Components::STATS; fields];
    section.reset(pipeline, Timestamp::clamped(pane), keep.into_iter());
    section.keys.push(b"berlin\0dev-1");
    section.readings.push(1);
    let mut stats = Stats::IDENTITY;
    stats.lift(Components::STATS, Timestamp::clamped(pane), Value::ZERO);
    section.stats.extend(vec![stats; fields]);
    let mut writer = BatchWriter::default();
    writer.push(&section);
    let mut frame = Vec::new();
    writer.seal(EPOCH, seq, &mut frame);
    frame
}

fn ack(seq: u64) -> Message {
    Message::Ack(EpochRange {
        epoch: EPOCH,
        ranges: vec![SeqRange {
            first: seq,
            last: seq,
        }],
    })
}

/// Bytes with a right checksum behind them.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = checksum(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// The aggregator still takes in readings, end to end.
fn check_alive(world: &World, aggregator: &mut Aggregator) {
    let broker = Broker::embedded(world, "broker");
    let _agent = AgentConfig::new("gw-good", &broker.url(), aggregator).start_subscribed(world);
    let before = aggregator.counter("accepted");
    let mut publisher = Publisher::connect(broker.address(), "publisher");
    let now = jiff::Timestamp::now().as_millisecond();
    publisher.publish(
        "sensors/berlin/dev-1/env",
        format!(r#"{{"ts":{now},"temp":1}}"#).as_bytes(),
    );
    aggregator.wait_for_counter("accepted", before + 2);
    assert!(aggregator.process().is_running());
    let log = aggregator.process().log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_bad_batch_is_refused_by_name_and_the_connection_goes_on() {
    let world = World::new();
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let mut intruder = Intruder::greeted(&world, "gw-1", aggregator.address());
    let changed = |at_end: usize, bits: u8, mut frame: Vec<u8>| {
        let at = frame.len() - at_end;
        frame[at] ^= bits;
        frame
    };
    let with = |rest: &[u8]| sealed([&head()[..], rest].concat());
    let two_fields = 2;
    let cases: Vec<(&str, Vec<u8>, RejectReason)> = vec![
        (
            "a wrong checksum",
            changed(1, 1, batch(1, climate(), PANE, two_fields)),
            RejectReason::Checksum,
        ),
        (
            "a flipped bit inside",
            changed(9, 4, batch(2, climate(), PANE, two_fields)),
            RejectReason::Checksum,
        ),
        (
            "version 3",
            {
                let mut frame = batch(3, climate(), PANE, two_fields);
                frame[1] = 3;
                frame
            },
            RejectReason::Version,
        ),
        ("seq 0", with(&[0, 0]), RejectReason::Malformed),
        (
            "more sections than any batch has",
            with(&[5, 0xff, 0xff, 0x7f]),
            RejectReason::Malformed,
        ),
        (
            "a section that is not there",
            with(&[6, 1]),
            RejectReason::Malformed,
        ),
        (
            "a section longer than the frame",
            with(&[7, 1, 0xff, 0x7f, 1]),
            RejectReason::Malformed,
        ),
        (
            "bytes after the last section",
            with(&[8, 0, 1, 2, 3]),
            RejectReason::Malformed,
        ),
        (
            "a section of noise",
            with(&[9, 1, 5, 0xff, 0xff, 0xff, 0xff, 0xff]),
            RejectReason::Malformed,
        ),
        (
            "rows that are not there",
            with(&[10, 1, 5, 1, 0, 0xff, 0x1f, 0]),
            RejectReason::Malformed,
        ),
        (
            "an unknown pipeline",
            batch(11, PipelineId(u64::MAX - 9), PANE, two_fields),
            RejectReason::UnknownPipeline,
        ),
        (
            "other fields than the pipeline has",
            batch(12, climate(), PANE, 1),
            RejectReason::UnknownPipeline,
        ),
        (
            "a pane that does not fit",
            batch(13, climate(), PANE + 1, two_fields),
            RejectReason::BadPane,
        ),
    ];
    for (what, frame, reason) in cases {
        intruder.send_frame(&frame);
        let answer = intruder.receive();
        let Some(Message::Reject(refusal)) = answer else {
            panic!("{what}: {answer:?}");
        };
        let seq = u64::from(frame[10]);
        assert_eq!(
            refusal,
            Refusal {
                epoch: EPOCH,
                seq,
                reason
            },
            "{what}"
        );
    }
    // A good one is taken on the same connection.
    intruder.send_frame(&batch(20, climate(), PANE, two_fields));
    assert_eq!(intruder.receive(), Some(ack(20)));
    check_alive(&world, &mut aggregator);
}

/// The acknowledgement may be lost in any way: the batch comes again on the same connection, on the next one, and to an
/// aggregator that was killed in between. Each time it is acknowledged again, and its reading counts once.
#[test]
fn a_batch_that_comes_again_is_merged_once() {
    let world = World::new();
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let frame = batch(1, climate(), PANE, 2);
    let mut intruder = Intruder::greeted(&world, "gw-1", aggregator.address());
    for _ in 0..2 {
        intruder.send_frame(&frame);
        assert_eq!(intruder.receive(), Some(ack(1)));
    }
    drop(intruder);
    let mut intruder = Intruder::greeted(&world, "gw-1", aggregator.address());
    intruder.send_frame(&frame);
    assert_eq!(intruder.receive(), Some(ack(1)));
    aggregator.process().kill();
    aggregator.restart(&world);
    let mut intruder = Intruder::greeted(&world, "gw-1", aggregator.address());
    intruder.send_frame(&frame);
    assert_eq!(intruder.receive(), Some(ack(1)));
    intruder.send_message(&Message::Heartbeat(Heartbeat {
        watermarks: vec![(climate(), Timestamp::clamped(PANE + 60_000_000))],
        seq: 1,
        ..heartbeat()
    }));
    let readings = until("the window's row", || {
        let row = "SELECT readings FROM room_climate WHERE status = 'final' AND temp_count = readings";
        let sql = aggregator.sql();
        sql.query_row(row, [], |row| row.get::<_, i64>(0)).ok()
    });
    assert_eq!(readings, 1);
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        epoch: EPOCH,
        era: 1,
        seq: 0,
        oldest: 1,
        watermarks: Vec::new(),
        counters: Vec::new(),
        backlog_batches: 0,
        backlog_bytes: 0,
        sources: Vec::new(),
        clock: None,
    }
}

#[test]
fn bytes_that_are_no_frame_end_the_connection_and_nothing_else() {
    let world = World::new();
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let address = aggregator.address();
    let drain = Message::Drain.emit();
    let mut old_hello = Message::Drain.emit();
    old_hello[0] = 1;
    old_hello[1] = 9;
    let heartbeat = Message::Heartbeat(heartbeat());
    let trailing = [heartbeat.emit(), vec![0]].concat();
    let cases: [(&str, &[u8], &str); 9] = [
        ("an empty frame", &[], "the frame ends too early"),
        ("one byte", &[7], "the frame ends too early"),
        (
            "an unknown kind",
            &[200, 1],
            "frames of kind 200 are not expected here",
        ),
        (
            "another version",
            &old_hello,
            "the frame has version 9, this side speaks 2",
        ),
        ("a cut heartbeat", &[7, VERSION, 0x80], "the frame ends too early"),
        (
            "noise",
            &[
                7, VERSION, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
            "invalid: body",
        ),
        (
            "a list of four thousand million",
            &[7, VERSION, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f],
            "the frame ends too early",
        ),
        ("bytes too many", &trailing, "bytes follow after the frame's end"),
        (
            "an aggregator's message",
            &drain,
            "a message that only an aggregator sends",
        ),
    ];
    for (what, frame, expected) in cases {
        let mut intruder = Intruder::greeted(&world, "gw-1", address);
        intruder.send_frame(frame);
        let reason = intruder.reason();
        assert!(reason.contains(expected), "{what}: `{reason}`");
    }
    // Longer than any frame: refused by its length, unread.
    for length in [FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut intruder = Intruder::greeted(&world, "gw-1", address);
        intruder.send_bytes(&length.to_be_bytes());
        let reason = intruder.reason();
        assert!(reason.contains("frame size too big"), "{reason}");
    }
    // On a batch stream just the same.
    let mut intruder = Intruder::greeted(&world, "gw-1", address);
    intruder.send_stream(&[0xff; 64]);
    assert!(intruder.reason().contains("frame size too big"));
    check_alive(&world, &mut aggregator);
}

#[test]
fn an_agent_must_be_who_it_says_and_say_so_first() {
    let world = World::new();
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let address = aggregator.address();

    let mut early = Intruder::connect(&world, "pki", "gw-1", address, ALPN).unwrap();
    early.send_frame(&batch(1, climate(), PANE, 2));
    assert!(early.reason().contains("a batch before the hello"));

    let mut liar = Intruder::connect(&world, "pki", "gw-1", address, ALPN).unwrap();
    let Message::Hello(mut hello) = liar.hello() else {
        unreachable!()
    };
    hello.agent = "gw-2".into();
    liar.send_message(&Message::Hello(hello));
    assert!(
        liar.reason()
            .contains("the hello's name is not the certificate's")
    );

    // The same identity twice: the newer connection is the one that works.
    let mut older = Intruder::greeted(&world, "gw-1", address);
    let mut newer = Intruder::greeted(&world, "gw-1", address);
    assert!(
        older
            .reason()
            .contains("a newer one of this agent has taken over")
    );
    newer.send_frame(&batch(2, climate(), PANE, 2));
    assert!(matches!(newer.receive(), Some(Message::Ack(_))));
    check_alive(&world, &mut aggregator);
}

#[test]
fn strangers_and_noise_do_not_get_in() {
    let world = World::new();
    let mut aggregator = Aggregator::start(&world, FLEET_PLAN);
    let address = aggregator.address();
    world.make_authority("other");

    let stranger = Intruder::connect(&world, "other", "gw-1", address, ALPN);
    let error = stranger.map_or_else(|error| error, |mut stranger| stranger.reason());
    assert!(
        error.contains("certificate") || error.contains("BadSignature"),
        "{error}"
    );
    let error =
        Intruder::connect(&world, "pki", "gw-1", address, b"catchment/9").expect_err("another protocol");
    assert!(error.contains("known protocol"), "{error}");

    // The other way round: an agent does not talk to an aggregator of another authority, says so and tries again.
    let broker = Broker::embedded(&world, "broker-of-stranger");
    let mut config = AgentConfig::new("gw-2", &broker.url(), &aggregator);
    config.authority = "other".into();
    let mut agent = config.start(&world);
    let line = agent.wait_for("no link to the aggregator");
    assert!(
        line.contains("certificate") || line.contains("UnknownIssuer") || line.contains("BadSignature"),
        "{line}"
    );
    assert!(agent.is_running());

    // Noise on the port.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut seed = 1_u64;
    for length in (0..1_400).step_by(7) {
        let noise: Vec<u8> = (0..length)
            .map(|_| {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (seed >> 56) as u8
            })
            .collect();
        socket.send_to(&noise, address).unwrap();
    }
    check_alive(&world, &mut aggregator);
}
