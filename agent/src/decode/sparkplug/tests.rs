//! Births, aliases, deaths, and whom the agent asks for what it does not know.

use std::io::Write as _;

use catchment_common::plan::Format;
use catchment_common::time::{Instant, Now, Span, Timestamp};
use prost::Message as _;

use super::super::tests::found;
use super::*;

const PATHS: [&str; 5] = ["metrics.temp", "metrics.Flow/In.1", "timestamp", "edge", "device"];

fn metric(name: Option<&str>, alias: Option<u64>, datatype: Option<u32>, value: Value) -> Metric {
    Metric {
        name: name.map(Into::into),
        alias,
        datatype,
        value: Some(value),
        ..Metric::default()
    }
}

fn payload(metrics: Vec<Metric>) -> Vec<u8> {
    Payload {
        timestamp: Some(1_700_000_000_000),
        metrics,
        seq: Some(3),
        ..Payload::default()
    }
    .encode_to_vec()
}

fn birth() -> Vec<u8> {
    payload(vec![
        metric(Some("temp"), Some(1), Some(9), Value::Float(21.5)),
        metric(
            Some("Flow/In.1"),
            Some(2),
            Some(2),
            Value::Int(u32::from((-7_i16) as u16)),
        ),
        metric(Some("named"), None, Some(11), Value::Truth(true)),
    ])
}

fn send(births: &mut Births, topic: &str, payload: &[u8]) -> Result<Vec<String>, Reason> {
    found(Format::Sparkplug, payload, &PATHS, births, topic)
}

#[test]
fn aliases_stand_for_what_the_birth_says() {
    let mut births = Births::default();
    let born = send(&mut births, "spBv1.0/g/DBIRTH/e/d", &birth());
    assert_eq!(born.unwrap(), ["2.15e1 -7 1700000000000 \"e\" \"d\""]);
    let data = payload(vec![
        metric(None, Some(2), None, Value::Int(0xffff)),
        metric(None, Some(1), None, Value::Float(0.1)),
    ]);
    let lifted = send(&mut births, "spBv1.0/g/DDATA/e/d", &data);
    assert_eq!(lifted.unwrap(), ["1e-1 -1 1700000000000 \"e\" \"d\""]);
    assert_eq!(births.poll_command(), None);
}

/// A payload as edge nodes pack it.
fn packed(payload: &[u8], algorithm: Option<&str>) -> Vec<u8> {
    let mut body = Vec::new();
    match algorithm {
        Some("GZIP") => {
            let mut encoder = flate2::write::GzEncoder::new(&mut body, flate2::Compression::fast());
            encoder.write_all(payload).unwrap();
        }
        Some("raw") => {
            let mut encoder = flate2::write::DeflateEncoder::new(&mut body, flate2::Compression::fast());
            encoder.write_all(payload).unwrap();
        }
        _ => {
            let mut encoder = flate2::write::ZlibEncoder::new(&mut body, flate2::Compression::fast());
            encoder.write_all(payload).unwrap();
        }
    }
    let named = algorithm.filter(|name| *name != "raw");
    let name = |name: &str| metric(Some("algorithm"), None, Some(12), Value::Text(name.into()));
    Payload {
        metrics: named.map(name).into_iter().collect(),
        uuid: Some("SPBV1.0_COMPRESSED".into()),
        body: Some(body),
        ..Payload::default()
    }
    .encode_to_vec()
}

#[test]
fn packed_payloads_are_unpacked() {
    for algorithm in [None, Some("DEFLATE"), Some("GZIP"), Some("raw")] {
        let mut births = Births::default();
        let born = send(&mut births, "spBv1.0/g/DBIRTH/e/d", &packed(&birth(), algorithm));
        assert_eq!(
            born.unwrap(),
            ["2.15e1 -7 1700000000000 \"e\" \"d\""],
            "{algorithm:?}"
        );
        let data = payload(vec![metric(None, Some(1), None, Value::Float(0.5))]);
        let lifted = send(&mut births, "spBv1.0/g/DDATA/e/d", &packed(&data, algorithm));
        assert_eq!(
            lifted.unwrap(),
            ["5e-1 - 1700000000000 \"e\" \"d\""],
            "{algorithm:?}"
        );
        assert_eq!(births.poll_command(), None, "nobody is asked for what is there");
    }
}

#[test]
fn what_cannot_be_unpacked_is_refused_and_asks_nobody() {
    let mut births = Births::default();
    let bomb = packed(&vec![0; 1 << 20], Some("DEFLATE"));
    let twice = packed(&packed(&birth(), None), None);
    let unknown = packed(&birth(), Some("LZ4"));
    for (payload, reason) in [
        (bomb, Reason::OversizedPayload),
        (twice, Reason::MalformedPayload),
        (unknown, Reason::MalformedPayload),
    ] {
        assert_eq!(send(&mut births, "spBv1.0/g/DDATA/e/d", &payload), Err(reason));
        assert_eq!(births.poll_command(), None);
    }
}

#[test]
fn metrics_of_one_time_are_one_reading() {
    let mut births = Births::default();
    send(&mut births, "spBv1.0/g/NBIRTH/e", &birth()).unwrap();
    let at = |time, value| Metric {
        timestamp: Some(time),
        ..metric(None, Some(1), None, Value::Double(value))
    };
    let null = Metric {
        is_null: Some(true),
        ..metric(None, Some(2), None, Value::Int(1))
    };
    let data = payload(vec![at(5, 1.0), null, at(6, 2.0), at(5, 3.0)]);
    let lifted = send(&mut births, "spBv1.0/g/NDATA/e", &data).unwrap();
    assert_eq!(
        lifted,
        ["3e0 - 5 \"e\" -", "- - 1700000000000 \"e\" -", "2e0 - 6 \"e\" -"]
    );
}

#[test]
fn data_without_its_birth_is_refused_and_asked_for_once_in_a_while() {
    let mut births = Births::default();
    let data = payload(vec![metric(None, Some(1), None, Value::Float(1.0))]);
    let ask = |births: &mut Births, seconds| {
        let source = Source {
            behind: SourceId(0),
            group: "g",
            edge: "e",
            device: Some("d"),
        };
        let now = Now {
            monotonic: Instant::from_micros(0) + Span::from_secs(seconds),
            wall: Timestamp::clamped(0),
        };
        births.ask(source, now);
        births.poll_command().is_some()
    };
    assert_eq!(
        send(&mut births, "spBv1.0/g/DDATA/e/d", &data),
        Err(Reason::NoBirth)
    );
    let command = births.poll_command().unwrap();
    assert_eq!(command.topic, "spBv1.0/g/NCMD/e");
    let asked = Payload::decode(&*command.payload).unwrap();
    assert_eq!(asked.metrics[0].name.as_deref(), Some("Node Control/Rebirth"));
    assert_eq!(asked.metrics[0].value, Some(Value::Truth(true)));
    assert_eq!(
        send(&mut births, "spBv1.0/g/NDATA/e", &data),
        Err(Reason::NoBirth)
    );
    assert_eq!(
        births.poll_command(),
        None,
        "the same edge node was asked already"
    );
    assert!(!ask(&mut births, 9) && ask(&mut births, 10));
    // An alias that the birth does not have.
    send(&mut births, "spBv1.0/g/DBIRTH/e/d", &birth()).unwrap();
    let unknown = payload(vec![
        metric(None, Some(9), None, Value::Float(1.0)),
        metric(None, Some(1), None, Value::Float(2.0)),
        metric(None, Some(8), None, Value::Float(3.0)),
    ]);
    assert_eq!(
        send(&mut births, "spBv1.0/g/DDATA/e/d", &unknown).unwrap(),
        ["2e0 - 1700000000000 \"e\" \"d\"", "2 no_birth"],
        "it takes no other metric along"
    );
    assert!(send(&mut births, "spBv1.0/g/DDATA/e/d", &data).is_ok());
}

#[test]
fn deaths_take_births_away() {
    let mut births = Births::default();
    let data = payload(vec![metric(None, Some(1), None, Value::Float(1.0))]);
    let session = |number| metric(Some("bdSeq"), None, Some(8), Value::Long(number));
    let node_birth = payload(vec![
        session(4),
        metric(Some("temp"), Some(1), Some(9), Value::Float(1.0)),
    ]);
    let known = |births: &mut Births, topic: &str| send(births, topic, &data).is_ok();
    let (node, device, other) = ("spBv1.0/g/NDATA/e", "spBv1.0/g/DDATA/e/d", "spBv1.0/g/DDATA/e2/d");
    send(&mut births, "spBv1.0/g/DBIRTH/e2/d", &birth()).unwrap();
    send(&mut births, "spBv1.0/g/NBIRTH/e", &node_birth).unwrap();
    send(&mut births, "spBv1.0/g/DBIRTH/e/d", &birth()).unwrap();
    assert!(known(&mut births, node) && known(&mut births, device));
    assert_eq!(
        send(&mut births, "spBv1.0/g/DDEATH/e/d", &payload(Vec::new())),
        Ok(Vec::new())
    );
    assert!(known(&mut births, node) && !known(&mut births, device));
    send(&mut births, "spBv1.0/g/DBIRTH/e/d", &birth()).unwrap();
    send(&mut births, "spBv1.0/g/NDEATH/e", &payload(vec![session(3)])).unwrap();
    assert!(known(&mut births, device), "the death of an earlier session");
    send(&mut births, "spBv1.0/g/NDEATH/e", &payload(vec![session(4)])).unwrap();
    assert!(!known(&mut births, node) && !known(&mut births, device) && known(&mut births, other));
    // A birth of the node ends those of its devices.
    send(&mut births, "spBv1.0/g/DBIRTH/e/d", &birth()).unwrap();
    send(&mut births, "spBv1.0/g/NBIRTH/e", &node_birth).unwrap();
    assert!(!known(&mut births, device));
}

#[test]
fn what_is_no_data_is_passed_over_or_refused() {
    let mut births = Births::default();
    for topic in ["spBv1.0/g/NCMD/e", "spBv1.0/g/DCMD/e/d", "spBv1.0/STATE/host/x"] {
        assert_eq!(send(&mut births, topic, b"anything"), Ok(Vec::new()), "{topic}");
    }
    for topic in ["spAv1.0/g/NDATA/e", "spBv1.0/g/NDATA", "spBv1.0/g/DDATA/e/d/x"] {
        assert_eq!(
            send(&mut births, topic, &birth()),
            Err(Reason::MalformedPayload),
            "{topic}"
        );
    }
    for bytes in [
        &b"\x0a"[..],
        b"\x12\xff\xff\xff\xff\x0f",
        b"\x12\x02\x0a\xff",
        b"\x07",
        b"text",
    ] {
        assert_eq!(
            send(&mut births, "spBv1.0/g/NBIRTH/e", bytes),
            Err(Reason::MalformedPayload),
            "{bytes:?}"
        );
    }
    assert_eq!(
        send(&mut births, "spBv1.0/g/NBIRTH/e", b""),
        Err(Reason::EmptyPayload)
    );
}

#[test]
fn births_are_bounded_and_the_silent_go_first() {
    let mut births = Births::default();
    let name = "x".repeat(1_000);
    let big = |number: u64| {
        let long = |index: u64| {
            metric(
                Some(&format!("{name}{index}")),
                Some(index),
                Some(9),
                Value::Float(1.0),
            )
        };
        let mut metrics: Vec<Metric> = (2..1_000).map(long).collect();
        metrics.push(metric(
            Some("temp"),
            Some(1),
            Some(9),
            Value::Double(number as f64),
        ));
        payload(metrics)
    };
    for number in 0..20 {
        send(
            &mut births,
            &format!("spBv1.0/g/NBIRTH/e{number:02}"),
            &big(number),
        )
        .unwrap();
    }
    let data = payload(vec![metric(None, Some(1), None, Value::Float(1.0))]);
    let known = |births: &mut Births, number: u64| {
        send(births, &format!("spBv1.0/g/NDATA/e{number:02}"), &data).is_ok()
    };
    let all = (0..20).filter(|&number| known(&mut births, number)).count();
    assert!(
        all >= 6 && known(&mut births, 19),
        "8 MiB hold {all} of a megabyte each"
    );
    // Requests are bounded too.
    for number in 0..5_000 {
        let _ = send(&mut births, &format!("spBv1.0/g/NDATA/other{number}"), &data);
    }
    let asked = std::iter::from_fn(|| births.poll_command()).count();
    assert!(asked <= 1_024, "{asked}");
}
