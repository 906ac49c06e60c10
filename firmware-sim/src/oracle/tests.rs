//! The oracle against answers worked out by hand, and the small plans that other tests borrow.

use catchment_common::plan::{
    Aggregate, Dedupe, Field, FieldSource, Hopping, Path, PayloadTag, TimeUnit, Window,
};
use catchment_common::time::Span;
use catchment_common::topic::TopicTemplate;

use super::answer::Answer;
use super::*;
use crate::fault::Bad;

/// A query over `sensors/{site}/{device}/env` by device, with `temp` (0.01) and `hum`.
pub(crate) fn query(size_s: i64, every_s: i64) -> Query {
    let field = |name: &str, path: &str, resolution| Field {
        name: name.into(),
        source: FieldSource::path(path),
        resolution,
        kind: catchment_common::plan::FieldKind::Gauge,
    };
    Query {
        name: "room_climate".into(),
        topic: TopicTemplate::parse("sensors/{site}/{device}/env").unwrap(),
        time: TimeSource::Payload {
            path: Path::parse("ts"),
            unit: TimeUnit::Millis,
            fallback: false,
        },
        tags: vec![PayloadTag {
            name: "line".into(),
            path: Path::parse("meta.line"),
        }],
        key: vec!["site".into(), "device".into()],
        fields: vec![
            field("temp", "temp", Some(10_000_000_000_000_000)),
            field("hum", "data.hum", None),
        ],
        window: Window::hopping(Span::from_secs(size_s), Span::from_secs(every_s)),
        aggregates: Aggregate::ALL.to_vec(),
        max_ahead: Span::from_days(1),
        idle: Span::from_secs(1),
        patience: Span::from_secs(1),
        ..Query::example()
    }
}

pub(crate) fn plan(queries: Vec<Query>) -> Plan {
    Plan { version: 1, queries }
}

pub(crate) fn good(payload: &str) -> Entry<'_> {
    Entry::Good {
        topic: "sensors/oslo/dev-1/env".into(),
        payload: payload.into(),
    }
}

fn expected(query: Query, payloads: &[&str]) -> Expected {
    let mut oracle = Oracle::new(&plan(vec![query]));
    for payload in payloads {
        oracle.handle(&good(payload));
    }
    oracle.into_queries().remove(0)
}

#[expect(clippy::needless_pass_by_value, reason = "tables of calls read better")]
fn shown(contents: &Contents, field: usize, aggregate: Aggregate) -> String {
    let text = contents.answer(field, &aggregate, Span::from_secs(60)).show();
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').into()
    } else {
        text
    }
}

#[test]
fn every_aggregate_by_hand() {
    let mut expected = expected(
        query(60, 60),
        &[
            r#"{"ts":60000,"temp":1.004}"#,
            r#"{"ts":61000,"temp":4,"data":{"hum":2.5}}"#,
            r#"{"ts":119999,"temp":2.5e0,"data":null}"#,
            r#"{"ts":119999,"temp":2}"#,
            r#"{"ts":120000,"temp":9}"#,
        ],
    );
    let contents = expected.take("oslo\0dev-1", 60_000_000, 120_000_000).unwrap();
    assert_eq!(contents.readings, 4);
    // 1, 4, 2.5, 2: sum 9.5, squares 27.25, variance (27.25 − 9.5²/4) / 3 = 1.5625.
    for (aggregate, answer) in [
        (Aggregate::Count, "4"),
        (Aggregate::Rate, "0.06666666666666666666"),
        (Aggregate::Sum, "9.5"),
        (Aggregate::Mean, "2.375"),
        (Aggregate::Min, "1"),
        (Aggregate::Max, "4"),
        (Aggregate::Range, "3"),
        (Aggregate::Variance, "1.5625"),
        (Aggregate::Stddev, "1.25"),
        (Aggregate::First, "1"),
        (Aggregate::Last, "2.5"),
        (Aggregate::Delta, "1.5"),
    ] {
        let name = aggregate.name();
        assert_eq!(shown(&contents, 0, aggregate), answer, "{name}");
    }
    assert_eq!(shown(&contents, 1, Aggregate::Count), "1");
    assert_eq!(shown(&contents, 1, Aggregate::Mean), "2.5");
    assert_eq!(
        contents.answer(1, &Aggregate::Variance, Span::from_secs(60)),
        Answer::None
    );
    let next = expected.take("oslo\0dev-1", 120_000_000, 180_000_000).unwrap();
    assert_eq!(
        (next.readings, shown(&next, 1, Aggregate::Sum)),
        (1, "NULL".into())
    );
    assert_eq!(shown(&next, 1, Aggregate::Rate), "0");
    assert_eq!(expected.remaining().count(), 0);
}

#[test]
fn a_reading_is_in_every_window_that_covers_it() {
    let covering = |size, every, at_s: i64| {
        let windows = window::covering(&query(size, every).window, at_s * 1_000_000);
        assert!(windows.iter().all(|(start, end)| end - start == size * 1_000_000));
        let numbers = windows.iter().map(|(start, _)| start / (every * 1_000_000));
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(covering(60, 60, 59), [0]);
    assert_eq!(covering(60, 60, 60), [1]);
    assert_eq!(covering(60, 60, -1), [-1]);
    assert_eq!(covering(60, 20, 60), [1, 2, 3]);
    assert_eq!(covering(60, 20, 79), [1, 2, 3]);
    assert_eq!(covering(50, 20, 40), [0, 1, 2]);
    assert_eq!(covering(50, 20, 50), [1, 2]);
    assert_eq!(covering(60, 20, 0), [-2, -1, 0]);
    let shifted = Hopping {
        size: Span::from_secs(60),
        every: Span::from_secs(60),
        offset: Span::from_secs(10),
    };
    let covering = |at_s: i64| window::covering(&Window::Hopping(shifted), at_s * 1_000_000);
    assert_eq!(covering(69), [(10_000_000, 70_000_000)]);
    assert_eq!(covering(70), [(70_000_000, 130_000_000)]);
    assert_eq!(covering(9), [(-50_000_000, 10_000_000)]);
}

#[test]
fn refused_readings_are_counted_and_in_no_window() {
    let expected = expected(
        query(60, 20),
        &[
            r#"[{"ts":1,"temp":1},{"ts":2},{"temp":1}]"#,
            r#"{"ts":1,"temp":"1"}"#,
            r#"{"ts":1,"temp":"NaN"}"#,
            r#"{"ts":1,"temp":1e18}"#,
            r#"{"ts":1,"data":7}"#,
            r#"{"ts":1e17,"temp":1}"#,
            "nonsense",
        ],
    );
    let reasons: Vec<(&str, u64)> = expected
        .metrics
        .rejected
        .iter()
        .map(|(name, count)| (*name, *count))
        .collect();
    assert_eq!(
        reasons,
        [
            ("bad_time", 1),
            ("malformed_json", 1),
            ("missing_field", 2),
            ("not_finite", 1),
            ("out_of_range", 1),
            ("wrong_type", 2)
        ]
    );
    assert_eq!(
        (
            expected.metrics.published,
            expected.metrics.accepted,
            expected.metrics.row_readings
        ),
        (9, 1, 3)
    );
    assert_eq!(expected.remaining().count(), 3);
}

#[test]
fn bad_entries_count_under_their_reason_where_the_topic_matches() {
    let mut oracle = Oracle::counting(&plan(vec![query(60, 60)]));
    oracle.handle(&Entry::Bad {
        topic: "sensors/oslo/dev-1/env".into(),
        bad: Bad::TooLate,
    });
    oracle.handle(&Entry::Bad {
        topic: "elsewhere".into(),
        bad: Bad::TooLate,
    });
    oracle.handle(&good(r#"{"ts":1,"temp":1}"#));
    let expected = &oracle.queries()[0];
    assert_eq!(
        (expected.metrics.published, expected.metrics.rejected["too_late"]),
        (2, 1)
    );
    assert_eq!(
        expected.remaining().count(),
        0,
        "a counting oracle keeps no windows"
    );
}

#[test]
fn keys_come_from_topic_and_payload() {
    let mut by_line = query(60, 60);
    by_line.key = vec!["line".into(), "site".into()];
    let long = format!(r#"{{"ts":1,"temp":1,"meta":{{"line":"{}"}}}}"#, "x".repeat(188));
    let expected = expected(
        by_line,
        &[
            r#"{"ts":1,"temp":1,"meta":{"line":"a\u0062"}}"#,
            r#"{"ts":1,"temp":1,"meta":{"line":7}}"#,
            r#"{"ts":1,"temp":1,"meta":{"line":""}}"#,
            r#"{"ts":1,"temp":1,"meta":{"line":[]}}"#,
            r#"{"ts":1,"temp":1}"#,
            &long,
        ],
    );
    let mut keys: Vec<&str> = expected.remaining().map(|window| window.key).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["7\0oslo", "ab\0oslo"]);
    let rejected = &expected.metrics.rejected;
    assert_eq!(
        (
            rejected["bad_key"],
            rejected["wrong_type"],
            rejected["missing_field"]
        ),
        (2, 1, 1)
    );
}

#[test]
fn an_unusable_part_takes_no_other_along() {
    let mut of_two = query(60, 60);
    let mut hum = of_two.fields[0].clone();
    hum.name = "hum".into();
    hum.source = FieldSource::path("hum");
    of_two.fields.push(hum);
    let expected = expected(
        of_two,
        &[
            r#"{"ts":1,"temp":1,"hum":"unavailable"}"#,
            r#"{"ts":1,"temp":nan,"hum":2}"#,
            r#"{"ts":1,"temp":"","hum":1e18}"#,
            r#"{"ts":1,"temp":-Infinity,"hum":[1]}"#,
            r#"{"ts":1,"temp":null,"hum":{}}"#,
            r#"{"ts":1,"temp":3,"x":{"y":NaN},"z":"\"nan"}"#,
            r#"[{"ts":1,"temp":4},null,[{"ts":1,"temp":5}],{"ts":1,"hum":6}]"#,
            r#"{"ts":1,"temp":--nan}"#,
            r#"{"ts":1,"temp":nano}"#,
        ],
    );
    let metrics = &expected.metrics;
    assert_eq!((metrics.published, metrics.accepted), (12, 5));
    let rejected: Vec<(&str, u64)> = metrics
        .rejected
        .iter()
        .map(|(name, count)| (*name, *count))
        .collect();
    assert_eq!(
        rejected,
        [("malformed_json", 4), ("not_finite", 1), ("wrong_type", 2)]
    );
}

#[test]
fn times_in_every_unit() {
    let at = |unit, text: &str| {
        let mut query = query(60, 60);
        query.time = TimeSource::Payload {
            path: Path::parse("ts"),
            unit,
            fallback: false,
        };
        let payload = format!(r#"{{"ts":{text},"temp":1}}"#);
        let message = Message::parse("sensors/a/b/env", &payload).unwrap();
        Reader::new(&query)
            .read(message.topic, message.objects[0].as_ref().unwrap())
            .map(|reading| reading.at_us)
    };
    assert_eq!(at(TimeUnit::Seconds, "1.0000019"), Ok(1_000_001));
    assert_eq!(at(TimeUnit::Seconds, "-0.0000001"), Ok(-1));
    assert_eq!(at(TimeUnit::Seconds, "1.9999999999999999999999"), Ok(1_999_999));
    assert_eq!(at(TimeUnit::Millis, "1700000000000.5"), Ok(1_700_000_000_000_500));
    assert_eq!(at(TimeUnit::Micros, "17"), Ok(17));
    assert_eq!(
        at(TimeUnit::Rfc3339, r#""1970-01-01T01:00:00.5+01:00""#),
        Ok(500_000)
    );
    assert_eq!(at(TimeUnit::Rfc3339, "17"), Err(Reason::WrongType));
    assert_eq!(at(TimeUnit::Rfc3339, r#""soon""#), Err(Reason::BadTime));
    assert_eq!(at(TimeUnit::Seconds, "99999999999"), Err(Reason::BadTime));
}

#[test]
fn a_numbered_reading_counts_once_and_devices_do_not_mix() {
    let mut query = query(60, 60);
    query.dedupe = Some(Dedupe::rising(Path::parse("seq")));
    let payload = |seq: u64| format!(r#"{{"seq":{seq},"ts":60000,"temp":1}}"#);
    let mut oracle = Oracle::new(&plan(vec![query]));
    for seq in [5, 7, 5, 6, 6, 7, 8, 5, u64::MAX, u64::MAX] {
        oracle.handle(&good(&payload(seq)));
    }
    oracle.handle(&good(r#"{"ts":60000,"temp":1}"#));
    oracle.handle(&Entry::Good {
        topic: "sensors/oslo/dev-2/env".into(),
        payload: payload(5).into(),
    });
    let metrics = &oracle.queries()[0].metrics;
    assert_eq!((metrics.published, metrics.accepted, metrics.repeated), (7, 6, 5));
    assert_eq!(metrics.rejected[&"missing_field"], 1);
}
