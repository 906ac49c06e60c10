//! What goes out comes back, and what is not sound does not come in.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::language::Expression as Mirror;
use super::*;
use crate::expression::{Expression, Kind, Op, Operands, Parts, Scope};
use crate::number::decimal::Value;
use crate::plan::{Compression, Format, KeyPart, Path, Pipeline, TimeSource};
use crate::time::Span;
use crate::topic::TopicTemplate;

fn emit(expression: &Expression) -> Vec<u8> {
    let mut out = Vec::new();
    put(&Mirror::from(expression), &mut out);
    out
}

fn parse(bytes: &[u8]) -> Result<Expression, WireFault> {
    into::<Mirror, _>(bytes)
}

struct Ones;

impl Operands for Ones {
    fn number(&mut self, _: usize) -> Option<Value> {
        Value::from_units(1)
    }

    fn matches(&mut self, _: usize) -> Option<bool> {
        Some(true)
    }
}

fn pipeline(topic: &str, filter: Option<Expression>) -> Pipeline {
    Pipeline {
        topic: TopicTemplate::parse(topic).unwrap(),
        format: Format::Json,
        compression: Compression::Gzip,
        time: TimeSource::Arrival,
        key: alloc::vec![KeyPart::Payload(Path::parse("a.b"))],
        fields: Vec::new(),
        filter,
        pane: Span::from_secs(10),
        count: None,
        watermark_delay: Span::ZERO,
        allowed_lateness: Span::ZERO,
        max_ahead: Span::ZERO,
        idle: Span::ZERO,
        dedupe: None,
        new_keys: None,
        memory: None,
        watched: Vec::new(),
        sketches: Vec::new(),
        source: None,
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoded_expression_panic(bytes in prop::collection::vec(0_u8..32, 0..80)) {
        if let Ok(expression) = parse(&bytes) {
            let _ = expression.evaluate(&mut Ones);
            prop_assert_eq!(parse(&emit(&expression)), Ok(expression));
        }
    }

    #[test]
    fn expressions_and_topics_round_trip(
        text in "[$][.](temp|hum|dew)( [-+*/%] ([$][.]temp|[1-9])){0,9} > 1",
        topic in "[a-z]{1,5}(/([a-z]{0,5}|\\+)){0,9}(/#)?",
    ) {
        let filter = Expression::parse(&text, &Scope::default(), Kind::Truth).unwrap();
        prop_assert_eq!(parse(&emit(&filter)), Ok(filter.clone()));
        let pipeline = pipeline(&topic, Some(filter));
        let mut out = Vec::new();
        put_pipeline(&pipeline, &mut out);
        prop_assert_eq!(take_pipeline(&out), Ok(pipeline.clone()));
        let old = crate::wire::v1::emit_pipeline(&pipeline).unwrap();
        prop_assert_eq!(crate::wire::v1::parse_pipeline(&old), Ok(pipeline));
    }
}

#[test]
fn an_unsound_expression_is_refused() {
    // An addition without anything to add.
    let parts = Parts {
        ops: alloc::vec![Op::Add],
        ..Parts::default()
    };
    let why = Expression::new(parts).unwrap_err();
    assert_eq!(parse(&[1, 10, 0, 0]), Err(WireFault::Invalid(why)));
}

#[test]
fn an_unsound_topic_is_refused() {
    let mut out = Vec::new();
    put_pipeline(&pipeline("a/b", None), &mut out);
    // Two literals of one byte, the first of which becomes `#`.
    assert_eq!(out[..5], [2, 0, 1, b'a', 0]);
    out[3] = b'#';
    assert_eq!(take_pipeline(&out), Err(WireFault::Invalid("topic")));
}

/// Agents of version 1 have one source without a name: a pipeline that names one is not for them.
#[test]
fn version_1_has_no_sources() {
    let pipeline = Pipeline {
        source: Some("plant".into()),
        ..pipeline("s/{device}", None)
    };
    let fault = crate::wire::v1::emit_pipeline(&pipeline).map_err(|fault| alloc::format!("{fault}"));
    assert_eq!(
        fault.unwrap_err(),
        "version 1 of the wire has no name of a source"
    );
    let bytes = crate::wire::emit_pipeline(&pipeline);
    assert_eq!(crate::wire::parse_pipeline(&bytes).as_ref(), Ok(&pipeline));
    let ids = [pipeline.source.clone(), Some("lab".into()), None].map(|source| {
        let pipeline = Pipeline {
            source,
            ..pipeline.clone()
        };
        crate::wire::fingerprint(&pipeline, None, 0)
    });
    assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
    let odd = Pipeline {
        source: Some("a b".into()),
        ..pipeline
    };
    assert!(crate::wire::parse_pipeline(&crate::wire::emit_pipeline(&odd)).is_err());
}
