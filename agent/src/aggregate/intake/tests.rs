//! What counts, what does not, and under which reason.

use std::collections::BTreeMap;

use catchment_common::expression::{Expression, Kind, Scope};
use catchment_common::limits::FIELDS_MAX;
use catchment_common::plan::{
    Components, Compression, FieldSource, Format, KeyPart, NewKeys, Path, PipelineField, TimeSource, TimeUnit,
};
use catchment_common::time::{Instant, Span};
use catchment_common::topic::TopicTemplate;

use super::*;

mod count_windows;

mod formats;

const PIPELINE: PipelineId = PipelineId(1);

fn now() -> Now {
    Now {
        monotonic: Instant::from_micros(0),
        wall: Timestamp::clamped(1_700_000_000_000_000),
    }
}

fn expression(text: &str, kind: Kind) -> Expression {
    let scope = Scope {
        tags: &[("site", KeyPart::Capture(0))],
        ..Scope::default()
    };
    Expression::parse(text, &scope, kind).unwrap()
}

/// A pipeline over `s/{site}` with `temp` and, if they are given, a condition and a computed field.
fn pipeline(filter: Option<&str>, computed: Option<&str>) -> Pipeline {
    let field = |source| PipelineField {
        source,
        resolution: None,
        components: Components::STATS,
    };
    let mut fields = vec![field(FieldSource::path("temp"))];
    fields.extend(computed.map(|text| field(FieldSource::Expression(expression(text, Kind::Number)))));
    assert!(fields.len() <= FIELDS_MAX);
    Pipeline {
        topic: TopicTemplate::parse("s/{site}").unwrap(),
        time: TimeSource::Payload {
            path: Path::parse("ts"),
            unit: TimeUnit::Seconds,
            fallback: false,
        },
        key: vec![KeyPart::Capture(0)],
        fields,
        filter: filter.map(|text| expression(text, Kind::Truth)),
        pane: Span::from_secs(10),
        ..Pipeline::example()
    }
}

/// An intake of one pipeline with all that it writes to.
struct Bench {
    intake: Intake,
    metrics: Metrics,
    journal: Journal,
}

impl Bench {
    fn new(pipeline: Pipeline) -> Self {
        Self::with(pipeline, 64 << 10)
    }

    fn with(pipeline: Pipeline, memory_bytes: usize) -> Self {
        Self::of(vec![(PIPELINE, pipeline)], memory_bytes)
    }

    fn of(pipelines: Vec<(PipelineId, Pipeline)>, memory_bytes: usize) -> Self {
        let plan = AgentPlan {
            version: 1,
            pipelines,
            coarser: Vec::new(),
        };
        let limits = Limits {
            agent: "gw-1",
            memory_bytes,
            payload_bytes_max: 64 << 10,
            seed: 7,
        };
        let mut metrics = Metrics::default();
        let mut intake = Intake::new(&plan, None, limits, now(), &mut metrics);
        intake.set_providers(SourceId(0), "plant", |_| Some(0));
        let keys = intake.panes().capacity();
        Self {
            intake,
            metrics,
            journal: Journal::new(0, [], 1, keys),
        }
    }

    fn publish(&mut self, payload: &str) -> Closable {
        self.intake.handle_message(
            now(),
            Message::of("s/berlin", payload.as_bytes()),
            &mut self.metrics,
            &mut self.journal,
            |_, _| {},
        )
    }

    /// The counters that are not zero, messages and bytes aside.
    fn counted(&self) -> Vec<(&'static str, u64)> {
        let all = Counter::all().filter(|counter| !matches!(counter, Counter::Messages | Counter::RawBytes));
        all.map(|counter| (counter.name(), self.metrics.value(PIPELINE, counter)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

fn check(filter: Option<&str>, computed: Option<&str>, payload: &str, expected: &[(&str, u64)]) {
    let mut bench = Bench::new(pipeline(filter, computed));
    bench.publish(payload);
    assert_eq!(bench.counted(), expected, "{filter:?} {computed:?} {payload}");
}

#[test]
fn readings_that_a_condition_refuses_are_counted_apart() {
    let filter = Some("$.temp > -40 && $.temp < 125 && site == 'berlin'");
    let lifted = [("received", 1), ("accepted", 1)];
    check(filter, None, r#"{"ts":1699999999,"temp":21.5}"#, &lifted);
    let refused = |reason| [("received", 1), (reason, 1)];
    check(
        filter,
        None,
        r#"{"ts":1699999999,"temp":125}"#,
        &refused("rejected_filtered"),
    );
    check(
        filter,
        None,
        r#"{"ts":1699999999}"#,
        &refused("rejected_undecided"),
    );
    check(
        filter,
        None,
        r#"{"ts":1699999999,"temp":"x"}"#,
        &refused("rejected_wrong_type"),
    );
    check(
        filter,
        None,
        r#"{"ts":1,"temp":125}"#,
        &refused("rejected_too_late"),
    );
    check(
        Some("site != 'berlin'"),
        None,
        r#"{"ts":1699999999,"temp":1}"#,
        &refused("rejected_filtered"),
    );
    let state = Some("$.state == 'on'");
    check(state, None, r#"{"ts":1699999999,"temp":1,"state":"on"}"#, &lifted);
    check(
        state,
        None,
        r#"{"ts":1699999999,"temp":1,"state":"off"}"#,
        &refused("rejected_filtered"),
    );
    check(
        state,
        None,
        r#"{"ts":1699999999,"temp":1}"#,
        &refused("rejected_undecided"),
    );
    check(
        state,
        None,
        r#"{"ts":1699999999,"temp":1,"state":{}}"#,
        &refused("rejected_wrong_type"),
    );
}

#[test]
fn computed_fields_that_have_no_value_are_absent_and_counted() {
    let ratio = Some("$.temp / $.hum");
    check(
        None,
        ratio,
        r#"{"ts":1699999999,"temp":1,"hum":4}"#,
        &[("received", 1), ("accepted", 1)],
    );
    check(
        None,
        ratio,
        r#"{"ts":1699999999,"temp":1,"hum":0}"#,
        &[("received", 1), ("accepted", 1), ("absent", 1), ("uncomputed", 1)],
    );
    check(
        None,
        ratio,
        r#"{"ts":1699999999,"temp":1}"#,
        &[("received", 1), ("accepted", 1), ("absent", 1)],
    );
    check(
        None,
        ratio,
        r#"{"ts":1699999999,"hum":1}"#,
        &[("received", 1), ("rejected_missing_field", 1)],
    );
    check(
        None,
        Some("1 / $.hum"),
        r#"{"ts":1699999999,"hum":0}"#,
        &[("received", 1), ("rejected_uncomputed", 1)],
    );
    check(
        None,
        Some("$.hum * 2"),
        r#"{"ts":1699999999,"temp":1,"hum":0.0000000000000000001}"#,
        &[("received", 1), ("accepted", 1), ("rounded", 1)],
    );
}

/// A value that cannot be used costs its own field, counted by field and reason.
#[test]
fn an_unusable_value_takes_no_other_along() {
    let lifted = [("received", 1), ("accepted", 1), ("absent", 1)];
    let with = |more: &[(&'static str, u64)]| [&lifted[..], more].concat();
    for (payload, computed, expected) in [
        (
            r#"{"ts":1699999999,"temp":21.5,"hum":"unavailable"}"#,
            "$.hum",
            with(&[("unusable_wrong_type_1", 1)]),
        ),
        (
            r#"{"ts":1699999999,"temp":"","hum":1}"#,
            "$.hum",
            with(&[("unusable_wrong_type_0", 1)]),
        ),
        (
            r#"{"ts":1699999999,"temp":nan,"hum":1}"#,
            "$.hum",
            with(&[("unusable_not_finite_0", 1)]),
        ),
        (
            r#"{"ts":1699999999,"temp":1,"hum":-1e18}"#,
            "$.hum",
            with(&[("unusable_out_of_range_1", 1)]),
        ),
        // An operand that cannot be used is absent, and what can do without it has a value.
        (
            r#"{"ts":1699999999,"temp":1,"hum":{}}"#,
            "$.hum / $.temp",
            with(&[("unusable_wrong_type_1", 1)]),
        ),
        (
            r#"{"ts":1699999999,"temp":1,"hum":true}"#,
            "default($.hum, 7)",
            vec![("received", 1), ("accepted", 1), ("unusable_wrong_type_1", 1)],
        ),
        // What nobody reads may be anything.
        (
            r#"{"ts":1699999999,"temp":1,"hum":2,"other":NaN}"#,
            "$.hum",
            vec![("received", 1), ("accepted", 1)],
        ),
        // With no usable field the reading is refused for the first one.
        (
            r#"{"ts":1699999999,"temp":"x","hum":NaN}"#,
            "$.hum",
            vec![("received", 1), ("rejected_wrong_type", 1)],
        ),
        (
            r#"{"ts":1699999999,"hum":NaN}"#,
            "$.hum",
            vec![("received", 1), ("rejected_not_finite", 1)],
        ),
        // Items that are no objects.
        (
            r#"[7,{"ts":1699999999,"temp":1,"hum":2},null]"#,
            "$.hum",
            vec![("received", 3), ("accepted", 1), ("rejected_malformed_json", 2)],
        ),
    ] {
        check(None, Some(computed), payload, &expected);
    }
    // A condition that is decided without the unusable value decides.
    let either = Some("$.temp > 0 || $.hum > 0");
    let payload = r#"{"ts":1699999999,"temp":1,"hum":"x"}"#;
    check(either, None, payload, &[("received", 1), ("accepted", 1)]);
    let payload = r#"{"ts":1699999999,"temp":-1,"hum":"x"}"#;
    check(
        either,
        None,
        payload,
        &[("received", 1), ("rejected_wrong_type", 1)],
    );
}

#[test]
fn a_reading_that_is_filtered_moves_the_watermark() {
    let mut bench = Bench::new(pipeline(Some("$.temp > 0"), None));
    bench.publish(r#"{"ts":1699999989,"temp":1}"#);
    bench
        .intake
        .close_due(&mut bench.journal, Pieces::Together, |_, _| {});
    assert!(!bench.publish(r#"{"ts":1699999985,"temp":0}"#).on_time);
    assert!(
        bench.publish(r#"{"ts":1699999999,"temp":0}"#).on_time,
        "a pane can be closed"
    );
    let watermarks: Vec<_> = bench.intake.watermarks().collect();
    assert_eq!(
        watermarks,
        [(PIPELINE, Timestamp::clamped(1_699_999_999_000_000))]
    );
}

#[test]
fn a_time_that_cannot_be_read_may_be_that_of_arrival() {
    let mut with_fallback = pipeline(None, None);
    with_fallback.time = TimeSource::Payload {
        path: Path::parse("ts"),
        unit: TimeUnit::Seconds,
        fallback: true,
    };
    for (payload, expected) in [
        (
            r#"{"ts":1699999999,"temp":1}"#,
            &[("received", 1), ("accepted", 1)][..],
        ),
        (
            r#"{"temp":1}"#,
            &[("received", 1), ("accepted", 1), ("arrived", 1)],
        ),
        (
            r#"{"ts":"soon","temp":1}"#,
            &[("received", 1), ("accepted", 1), ("arrived", 1)],
        ),
        (
            r#"{"ts":1e17,"temp":1}"#,
            &[("received", 1), ("accepted", 1), ("arrived", 1)],
        ),
        // A time that can be read is believed, or refused.
        (
            r#"{"ts":1,"temp":1}"#,
            &[("received", 1), ("rejected_too_late", 1)],
        ),
        (
            r#"{"ts":4000000000,"temp":1}"#,
            &[("received", 1), ("rejected_too_early", 1)],
        ),
    ] {
        let mut bench = Bench::new(with_fallback.clone());
        bench.publish(payload);
        assert_eq!(bench.counted(), expected, "{payload}");
        let wall = now().wall;
        let at = bench.intake.watermarks().map(|(_, at)| at).next();
        assert!(
            !expected.contains(&("arrived", 1)) || at == Some(wall),
            "{payload}"
        );
    }
}

/// One device invents a site for each message; the known sites stay apart, and the inventions count under one key.
#[test]
fn too_many_new_keys_count_under_the_overflow_key() {
    let mut capped = pipeline(None, None);
    capped.new_keys = Some(NewKeys {
        max: 3,
        every: Span::from_secs(60),
    });
    let mut bench = Bench::new(capped);
    let mut publish = |site: &str, second: u64| {
        let now = Now {
            monotonic: Instant::from_micros(second * 1_000_000),
            ..now()
        };
        let payload = br#"{"ts":1699999999,"temp":21.5}"#;
        let Bench {
            intake,
            metrics,
            journal,
        } = &mut bench;
        intake.handle_message(
            now,
            Message::of(&format!("s/{site}"), payload),
            metrics,
            journal,
            |_, _| {},
        );
    };
    for site in ["berlin", "paris", "rome", "oslo"] {
        publish(site, 1);
    }
    for number in 0..40 {
        publish(&format!("invented-{number}"), 70);
        publish("oslo", 70);
    }
    let mut keys: Vec<(String, u64)> = Vec::new();
    bench
        .intake
        .close_all(&mut bench.journal, Pieces::Together, |_, section| {
            for (key, readings) in section.keys.iter().zip(&section.readings) {
                keys.push((String::from_utf8_lossy(key).into(), *readings));
            }
        });
    let expected = [
        ("(overflow)", 37),
        ("berlin", 1),
        ("invented-0", 1),
        ("invented-1", 1),
        ("invented-2", 1),
        ("oslo", 41),
        ("paris", 1),
        ("rome", 1),
    ];
    let expected: Vec<(String, u64)> = expected.map(|(key, readings)| (key.into(), readings)).into();
    assert_eq!(keys, expected);
    assert_eq!(
        bench.counted(),
        [("received", 84), ("accepted", 84), ("overflowed", 37)]
    );
}

/// A query with too many keys makes room among its own partials; the other's pane is not cut up, and all readings
/// count.
#[test]
fn a_budget_of_its_own_keeps_a_query_from_pushing_out_others() {
    let pipeline_of = |topic: &str, memory: Option<u64>| Pipeline {
        topic: TopicTemplate::parse(topic).unwrap(),
        memory,
        ..pipeline(None, None)
    };
    for (memory, is_cut_up) in [(Some(8 << 10), false), (None, true)] {
        let pipelines = vec![
            (PIPELINE, pipeline_of("s/{site}", None)),
            (PipelineId(9), pipeline_of("many/{site}", memory)),
        ];
        let mut bench = Bench::of(pipelines, 64 << 10);
        let mut seen: BTreeMap<(PipelineId, Vec<u8>), (u64, u64)> = BTreeMap::new();
        let mut note = |section: &Section| {
            for (key, readings) in section.keys.iter().zip(&section.readings) {
                let (parts, sum) = seen.entry((section.pipeline, key.to_vec())).or_default();
                (*parts, *sum) = (*parts + 1, *sum + readings);
            }
        };
        let payload = br#"{"ts":1699999999,"temp":21.5}"#;
        let Bench {
            intake,
            metrics,
            journal,
        } = &mut bench;
        for round in 0..2_000 {
            let quiet = format!("s/quiet-{}", round % 50);
            let topics = (!(50..1_950).contains(&round)).then_some(quiet);
            for topic in topics.into_iter().chain([format!("many/{round}")]) {
                intake.handle_message(
                    now(),
                    Message::of(&topic, payload),
                    metrics,
                    journal,
                    |section, _| {
                        note(section);
                    },
                );
            }
        }
        intake.close_all(journal, Pieces::Together, |_, section| note(section));
        let cut_up = { seen.iter() }.any(|((pipeline, _), (parts, _))| *pipeline == PIPELINE && *parts > 1);
        assert_eq!(cut_up, is_cut_up, "{memory:?}");
        assert_eq!(seen.len(), 2_050);
        assert_eq!(seen.values().map(|(_, sum)| sum).sum::<u64>(), 2_100);
    }
}
