//! Every kind of bad message, with the exact reason that it must be counted under. First through the machine, one case
//! at a time; then all of them through a real agent over MQTT.

use catchment_agent::agent::Agent;
use catchment_agent::log::disk::MemoryDisk;
use catchment_agent::settings::{ClockUnset, Settings};
use catchment_agent::source::{Arrival, SourceEvent, SourceId, SourceSettings};
use catchment_aggregator::plan_toml;
use catchment_common::metrics::{Counter, Reason, Unusable};
use catchment_common::plan::PipelineId;
use catchment_common::time::{Instant, Now, Span, Timestamp};
use catchment_common::wire::AgentPlan;
use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::mqtt::Publisher;
use catchment_tests::world::World;

/// The agent's only source.
const BROKER: SourceId = SourceId(0);
const PLAN: &str = r#"
[[query]]
name = "climate"
topic = "sensors/{site}/{device}/env"
time = { path = "ts", unit = "ms" }
tags = { line = "meta.line" }
key = ["site", "device", "line"]
fields = { temp = "temp", hum = { path = "data.hum", resolution = 0.01 } }
window = { size = "10s" }
aggregates = ["count", "mean", "max"]
idle = "1s"
"#;

const TOPIC: &str = "sensors/berlin/dev-1/env";
const PAYLOAD_MAX: usize = 64 << 10;
/// The place of `hum` among the plan's fields.
const HUM: u8 = 1;

struct Case {
    topic: String,
    payload: Vec<u8>,
    /// `None` for input that looks bad and is good.
    reason: Option<Reason>,
    /// A value that costs its own field and no other, by the field's place in the plan.
    unusable: Option<(Unusable, u8)>,
    /// Readings that count.
    accepted: u64,
}

impl Case {
    fn new(topic: &str, payload: Vec<u8>, reason: Option<Reason>) -> Self {
        Self {
            topic: topic.into(),
            payload,
            reason,
            unusable: None,
            accepted: u64::from(reason.is_none()),
        }
    }

    /// The counter of the value that cannot be used.
    fn unusable(&self) -> Option<&'static str> {
        self.unusable
            .map(|(why, field)| Counter::Unusable(why, field).name())
    }
}

/// `@ts` in a payload stands for now, in milliseconds.
#[expect(clippy::too_many_lines, reason = "a table")]
fn cases(now_ms: i64) -> Vec<Case> {
    use Reason::{
        BadKey, BadTime, EmptyPayload, InvalidUtf8, MalformedJson, MissingField, NotFinite, OutOfRange,
        OversizedPayload, TooEarly, TooLate, WrongType,
    };
    let stamped = |payload: &str| payload.replace("@ts", &now_ms.to_string()).into_bytes();
    let of = |payload: &str, reason| Case::new(TOPIC, stamped(payload), reason);
    let on = |topic: &str, reason| {
        let payload = r#"{"ts":@ts,"temp":1,"meta":{"line":"a"}}"#;
        Case::new(topic, stamped(payload), reason)
    };
    let with = |payload: &[u8], reason| Case::new(TOPIC, payload.to_vec(), reason);
    let part = |payload: &str, why| Case {
        unusable: Some((why, HUM)),
        ..of(payload, None)
    };
    let reading = |inside: &str| format!(r#"{{"ts":@ts,"meta":{{"line":"a"}},{inside}}}"#);
    let time = |ts: &str| format!(r#"{{"ts":{ts},"meta":{{"line":"a"}},"temp":1}}"#);
    let line = |line: &str| format!(r#"{{"ts":@ts,"meta":{{"line":{line}}},"temp":1}}"#);
    let day = 86_400_000;
    let long = "x".repeat(200);
    let many = format!("[{}{{}}]", "{},".repeat(10_000));
    let deep = format!("{}1{}", r#"{"data":"#.repeat(300), "}".repeat(300));
    let oversized = reading(&format!(r#""temp":1,"pad":"{}""#, "x".repeat(PAYLOAD_MAX)));
    vec![
        // Not JSON.
        of("{", Some(MalformedJson)),
        of("nonsense", Some(MalformedJson)),
        of("7", Some(MalformedJson)),
        of("null", Some(MalformedJson)),
        of("[1]", Some(MalformedJson)),
        of(&reading(r#""temp":1"#).replace('}', ""), Some(MalformedJson)),
        of(&(reading(r#""temp":1"#) + "x"), Some(MalformedJson)),
        of(&reading(r#""temp":0x10"#), Some(MalformedJson)),
        of(&reading(r#""temp":01"#), Some(MalformedJson)),
        of(&reading(r#""temp":+1"#), Some(MalformedJson)),
        of(&reading(r#""temp":1,"#), Some(MalformedJson)),
        with(b"", Some(EmptyPayload)),
        with(b"\0", Some(MalformedJson)),
        with(b"\xff\xfe{}", Some(InvalidUtf8)),
        with(b"{\"ts\":1,\"temp\":\"\xc3\x28\"}", Some(InvalidUtf8)),
        with(&[0x1f, 0x8b, 8, 0], Some(InvalidUtf8)),
        of(&oversized, Some(OversizedPayload)),
        of(&many, Some(OversizedPayload)),
        // Wrong types.
        of(&reading(r#""temp":"21.5""#), Some(WrongType)),
        of(&reading(r#""temp":true"#), Some(WrongType)),
        of(&reading(r#""temp":[1]"#), Some(WrongType)),
        of(&reading(r#""temp":{"c":1}"#), Some(WrongType)),
        of(&reading(r#""data":{"hum":""}"#), Some(WrongType)),
        of(&line("{}"), Some(WrongType)),
        of(&time(r#""now""#), Some(WrongType)),
        of(&time("true"), Some(WrongType)),
        of(&time("[1]"), Some(WrongType)),
        // Missing. What no path leads to is passed over, however deep, without recursion.
        of(&deep, Some(MissingField)),
        of("{}", Some(MissingField)),
        of(&reading(r#""other":1"#), Some(MissingField)),
        of(&reading(r#""temp":null"#), Some(MissingField)),
        of(r#"{"ts":@ts,"temp":1}"#, Some(MissingField)),
        of(r#"{"ts":@ts,"temp":1,"meta":{"line":null}}"#, Some(MissingField)),
        of(r#"{"temp":1,"meta":{"line":"a"}}"#, Some(MissingField)),
        of(&time("null"), Some(MissingField)),
        // Numbers that are none, and numbers beyond the range.
        of(&reading(r#""temp":NaN"#), Some(NotFinite)),
        of(&reading(r#""temp":-Infinity"#), Some(NotFinite)),
        of(&reading(r#""temp":"NaN""#), Some(NotFinite)),
        of(&reading(r#""temp":"-inf""#), Some(NotFinite)),
        of(&reading(r#""temp":1e18"#), Some(OutOfRange)),
        of(&reading(r#""temp":-1000000000000000000"#), Some(OutOfRange)),
        of(&reading(r#""temp":1e999999999999"#), Some(OutOfRange)),
        of(
            &reading(r#""data":{"hum":999999999999999999.999}"#),
            Some(OutOfRange),
        ),
        // One value that cannot be used does not take the others with it.
        part(&reading(r#""data":7,"temp":1"#), Unusable::WrongType),
        part(&reading(r#""data":{"hum":"n/a"},"temp":1"#), Unusable::WrongType),
        part(&reading(r#""data":{"hum":NaN},"temp":1"#), Unusable::NotFinite),
        part(&reading(r#""temp":1,"data":{"hum":1e300}"#), Unusable::OutOfRange),
        // Times.
        of(&time("1e30"), Some(BadTime)),
        of(&time("-9223372036854775808"), Some(BadTime)),
        of(&time("7258118400001"), Some(BadTime)),
        of(&time(&(now_ms + 600_000).to_string()), Some(TooEarly)),
        of(&time("4070908800000"), Some(TooEarly)),
        of(&time(&(now_ms - 2 * day).to_string()), Some(TooLate)),
        of(&time("0"), Some(TooLate)),
        of(&time("-1"), Some(TooLate)),
        // Keys.
        on(&format!("sensors/{long}/dev-1/env"), Some(BadKey)),
        on("sensors//dev-1/env", Some(BadKey)),
        of(&line(r#""""#), Some(BadKey)),
        of(&line(r#""a\u0000b""#), Some(BadKey)),
        of(&line(&format!("{long:?}")), Some(BadKey)),
        // Nor does one bad reading in an array; one bad byte does.
        Case {
            accepted: 1,
            ..of(
                r#"[{"ts":@ts,"temp":"x","meta":{"line":"a"}},{"ts":@ts,"temp":1,"meta":{"line":"a"}}]"#,
                Some(WrongType),
            )
        },
        Case {
            accepted: 1,
            ..of(
                r#"[7,{"ts":@ts,"temp":1,"meta":{"line":"a"}}]"#,
                Some(MalformedJson),
            )
        },
        of(
            r#"[{"ts":@ts,"temp":1,"meta":{"line":"a"}},{"ts"]"#,
            Some(MalformedJson),
        ),
        // Odd and good.
        of(&reading(r#""temp":1"#), None),
        of(&reading(r#""temp":-0.0e-5"#), None),
        of(&reading(r#""temp":1e-40"#), None),
        of(&reading(r#""temp":999999999999999999.999999999999999999"#), None),
        of(&reading(r#""temp":1,"temp":2"#), None),
        of(&reading(r#""te\u006dp":1"#), None),
        of(&line("7"), None),
        of(&line(r#""ü/ b+#""#), None),
        of(&time(&format!("{now_ms}.5")), None),
        of(&(" \n".to_owned() + &reading(r#""temp":1"#) + "\n"), None),
    ]
}

#[test]
fn each_bad_message_is_counted_under_its_reason() {
    let now_ms = 1_700_000_000_000;
    let now = Now {
        monotonic: Instant::from_micros(0),
        wall: Timestamp::clamped(now_ms * 1_000),
    };
    let plan = plan_toml::parse(PLAN, "plan.toml").unwrap();
    let pipelines = plan.pipelines().pipelines;
    let pipelines = pipelines
        .into_iter()
        .map(|pipeline| (PipelineId(1), pipeline))
        .collect();
    let settings = || Settings {
        name: "gw-1".into(),
        memory_bytes: 1 << 20,
        payload_bytes_max: PAYLOAD_MAX,
        spool_bytes: 1 << 20,
        retain_acked: Span::ZERO,
        journal_bytes: 1 << 20,
        commit_delay: Span::ZERO,
        sources: vec![SourceSettings {
            name: "broker".into(),
            session: 0,
            redelivery_window: 20,
        }],
        clock_unset: ClockUnset::Hold,
        clock_known: true,
    };
    let start = || {
        let started = Agent::start(settings(), 1, 1, None, now, &MemoryDisk::default());
        let (mut agent, _) = started.unwrap();
        let (resumed, identifies) = (false, false);
        agent.handle_source(now, BROKER, SourceEvent::Connected { resumed, identifies });
        agent
    };
    let plan = AgentPlan {
        version: 1,
        pipelines,
        ..AgentPlan::default()
    };
    for case in cases(now_ms) {
        let mut agent = start();
        agent.handle_plan(now, &plan);
        agent.handle_arrival(now, Arrival::unacknowledged(BROKER, &case.topic, &case.payload));
        let shown = String::from_utf8_lossy(&case.payload[..case.payload.len().min(100)]).into_owned();
        let expected: Vec<(&str, u64)> = case.reason.iter().map(|reason| (reason.name(), 1)).collect();
        assert_eq!(agent.metrics().reasons(), expected, "{} {shown}", case.topic);
        assert_eq!(
            agent.metrics().value(PipelineId(1), Counter::Accepted),
            case.accepted,
            "{shown}"
        );
        let expected: Vec<(&str, u64)> = case.unusable().map(|name| (name, 1)).into_iter().collect();
        assert_eq!(agent.metrics().unusable(), expected, "{shown}");
    }
    // A subscription that another plan left behind.
    let mut agent = start();
    agent.handle_plan(now, &plan);
    for topic in [
        "other",
        "sensors/berlin/env",
        "sensors/berlin/dev-1/env/",
        "$SYS/berlin/dev-1/env",
        "",
    ] {
        agent.handle_arrival(now, Arrival::unacknowledged(BROKER, topic, b"{}"));
    }
    assert_eq!(agent.metrics().reasons(), [(Reason::NoMatch.name(), 5)]);
}

#[test]
fn bad_messages_over_mqtt_stall_nothing_and_are_all_accounted_for() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, PLAN);
    let mut publisher = Publisher::connect(broker.address(), "publisher");
    let cases = cases(jiff::Timestamp::now().as_millisecond());
    // Kept from before the agent's time: an old value and not a reading.
    publisher.publish_retained(TOPIC, &cases.last().unwrap().payload);
    let mut agent = AgentConfig::new("gw-1", &broker.url(), &aggregator).start_subscribed(&world);
    for case in &cases {
        publisher.publish(&case.topic, &case.payload);
    }
    aggregator.wait_for_counter("messages", cases.len() as u64 + 1);
    aggregator.wait_for_counter("accepted", cases.iter().map(|case| case.accepted).sum());
    for reason in Reason::ALL {
        let expected = cases.iter().filter(|case| case.reason == Some(reason)).count();
        let kept = usize::from(reason == Reason::Retained);
        aggregator.wait_for_counter(reason.name(), (expected + kept) as u64);
    }
    for name in cases.iter().filter_map(Case::unusable) {
        let expected = cases.iter().filter(|case| case.unusable() == Some(name)).count();
        aggregator.wait_for_counter(name, expected as u64);
    }
    let received = aggregator.counter("received");
    let rejected: u64 = Reason::ALL
        .iter()
        .map(|reason| aggregator.counter(reason.name()))
        .sum();
    assert_eq!(
        received,
        aggregator.counter("accepted") + rejected,
        "every reading is accounted for"
    );
    // Told, and not sixty times.
    let log = agent.log();
    let told = log
        .lines()
        .filter(|line| line.contains("readings were rejected"))
        .count();
    assert!(
        (1..=3).contains(&told),
        "the log tells of rejections at a limited rate, not {told} times"
    );
    assert!(agent.is_running());
}

/// The broker repeats what it keeps: the agent refuses it, and says how much it was.
#[test]
fn a_retained_message_is_no_reading_in_either_version_of_mqtt() {
    for protocol in [4, 5] {
        let world = World::new();
        let broker = Broker::mosquitto(&world, "broker");
        let aggregator = Aggregator::start(&world, PLAN);
        let mut publisher = Publisher::connect(broker.address(), "publisher");
        let now = jiff::Timestamp::now().as_millisecond();
        let payload = format!(r#"{{"ts":{now},"temp":1,"meta":{{"line":"a"}}}}"#);
        publisher.publish_retained(TOPIC, payload.as_bytes());
        let agent = AgentConfig::new("gw-1", &broker.url(), &aggregator);
        let agent = agent.broker_line(&format!("protocol = {protocol}"));
        let _agent = agent.start_subscribed(&world);
        publisher.publish(TOPIC, payload.as_bytes());
        aggregator.wait_for_counter("accepted", 1);
        aggregator.wait_for_counter("rejected_retained", 1);
    }
}
