//! Payloads that are not JSON, through a real broker: a binary format, a text format, packed bodies, and Sparkplug B
//! with its births, aliases and the request for a rebirth. The bytes are put together by hand, as other programs would
//! send them.

use std::io::Write as _;

use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::mqtt::Publisher;
use catchment_tests::wait::until;
use catchment_tests::world::World;

const PLAN: &str = r#"
[[query]]
name = "packed"
topic = "cbor/{device}"
format = "cbor"
compression = "gzip"
time = { path = "ts", unit = "ms" }
key = ["device"]
fields = { temp = "temp", dew = "temp - (100 - $.values.0) / 5" }
where = "temp > -40 && temp < 125"
window = { size = "1s" }
aggregates = ["sum"]
idle = "1s"

[[query]]
name = "lines"
topic = "influx/+"
format = "influx"
time = { path = "time", unit = "ns", fallback = "arrival" }
tags = { host = "tags.host" }
key = ["host"]
fields = { temp = "fields.temp" }
window = { size = "1s" }
aggregates = ["sum"]
idle = "1s"

[[query]]
name = "sparkplug"
topic = "spBv1.0/{group}/+/{edge}/#"
format = "sparkplug"
time = { path = "timestamp", unit = "ms" }
tags = { device = "device" }
key = ["edge", "device"]
fields = { temp = { path = "metrics.Temp/Inlet" }, level = "metrics.level" }
window = { size = "1s" }
aggregates = ["sum"]
idle = "1s"
"#;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// `{"ts": …, "temp": …, "values": [40]}` in CBOR.
fn cbor(ts: u64, temp: f64) -> Vec<u8> {
    let mut body = b"\xa3\x62ts\x1b".to_vec();
    body.extend(ts.to_be_bytes());
    body.extend(b"\x64temp\xfb");
    body.extend(temp.to_be_bytes());
    body.extend(b"\x66values\x81\x18\x28");
    body
}

/// A protobuf field with a number, or with bytes.
fn varint(out: &mut Vec<u8>, tag: u8, mut value: u64) {
    out.push(tag << 3);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, tag: u8, inner: &[u8]) {
    varint(out, tag, inner.len() as u64);
    let at = out.len() - 1;
    assert!(inner.len() < 0x80);
    out[at - 1] = tag << 3 | 2;
    out.extend(inner);
}

/// A metric: name at birth, alias, data type at birth, and a double.
fn metric(name: Option<&str>, alias: u64, value: f64) -> Vec<u8> {
    let mut metric = Vec::new();
    if let Some(name) = name {
        bytes(&mut metric, 1, name.as_bytes());
    }
    varint(&mut metric, 2, alias);
    if name.is_some() {
        varint(&mut metric, 4, 10);
    }
    metric.push(13 << 3 | 1);
    metric.extend(value.to_le_bytes());
    metric
}

fn sparkplug(ts: u64, metrics: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    varint(&mut payload, 1, ts);
    for metric in metrics {
        bytes(&mut payload, 2, metric);
    }
    payload
}

/// Readings and the sum of a column over all rows of a query.
fn total(aggregator: &Aggregator, query: &str, column: &str) -> (i64, f64) {
    let sql = format!("SELECT coalesce(sum(readings), 0), coalesce(sum({column}), 0) FROM {query}");
    let found = aggregator
        .sql()
        .query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
    // The table comes with the plan.
    found.unwrap_or_default()
}

#[test]
fn readings_in_other_formats_come_through_a_broker() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, PLAN);
    let _agent = AgentConfig::new("gw-1", &broker.url(), &aggregator).start_subscribed(&world);
    let mut publisher = Publisher::connect(broker.address(), "publisher");
    let ts = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap() - 5_000;

    for (temp, packed) in [(21.5, true), (-3.25, true), (200.0, true), (1.0, false)] {
        let body = cbor(ts, temp);
        publisher.publish("cbor/a", &if packed { gzip(&body) } else { body });
    }
    let lines = format!("env,host=a temp=21.5 {ts}000000\nenv,host=a temp=2i");
    publisher.publish("influx/x", lines.as_bytes());
    publisher.publish("influx/x", b"no line");

    until("the rows of both", || {
        let sums = ["packed", "lines"].map(|query| total(&aggregator, query, "temp_sum"));
        (sums == [(2, 18.25), (2, 23.5)]).then_some(())
    });
    // 21.5 − 60/5 and −3.25 − 60/5.
    assert_eq!(total(&aggregator, "packed", "dew_sum"), (2, -5.75));
    aggregator.wait_for_counter("rejected_filtered", 1);
    aggregator.wait_for_counter("rejected_malformed_payload", 2);
    aggregator.wait_for_counter("arrived", 1);
}

#[test]
fn sparkplug_is_understood_from_its_births_and_asks_for_those_it_has_missed() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, PLAN);
    let _agent = AgentConfig::new("gw-1", &broker.url(), &aggregator).start_subscribed(&world);
    let mut edge = Publisher::connect(broker.address(), "edge");
    edge.subscribe("spBv1.0/plant/NCMD/edge-1");
    let mut publisher = Publisher::connect(broker.address(), "publisher");
    let ts = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap() - 5_000;

    // Data of a device that the agent has not seen born.
    let data = sparkplug(ts, &[metric(None, 7, 1.5)]);
    publisher.publish("spBv1.0/plant/DDATA/edge-1/pump", &data);
    let (topic, command) = edge.next_message();
    assert_eq!(topic, "spBv1.0/plant/NCMD/edge-1");
    let asks = command.windows(20).any(|part| part == b"Node Control/Rebirth");
    assert!(asks, "{command:?}");
    aggregator.wait_for_counter("rejected_no_birth", 1);
    aggregator.wait_for_counter("rebirth_requests", 1);

    // The edge node does as it was asked.
    let birth = [metric(Some("Temp/Inlet"), 7, 20.0), metric(Some("level"), 8, 3.0)];
    publisher.publish("spBv1.0/plant/NBIRTH/edge-1", &sparkplug(ts, &[]));
    publisher.publish("spBv1.0/plant/DBIRTH/edge-1/pump", &sparkplug(ts, &birth));
    publisher.publish("spBv1.0/plant/DDATA/edge-1/pump", &data);
    publisher.publish(
        "spBv1.0/plant/DDATA/edge-1/pump",
        &sparkplug(ts + 100, &[metric(None, 8, 0.25), metric(None, 7, 0.5)]),
    );
    until("the rows", || {
        (total(&aggregator, "sparkplug", "temp_sum") == (3, 22.0)).then_some(())
    });
    assert_eq!(total(&aggregator, "sparkplug", "level_sum"), (3, 3.25));

    // After its death the aliases mean nothing any more.
    publisher.publish("spBv1.0/plant/NDEATH/edge-1", &sparkplug(ts, &[]));
    publisher.publish("spBv1.0/plant/DDATA/edge-1/pump", &data);
    aggregator.wait_for_counter("rejected_no_birth", 2);
}

const MORE: &str = r#"
[[query]]
name = "senml"
topic = "senml/{device}"
format = "senml-json"
time = { path = "t", unit = "s" }
tags = { sensor = "name" }
key = ["device", "sensor"]
fields = { v = "v" }
where = "$.u == 'Cel'"
window = { size = "1s" }
aggregates = ["sum"]
idle = "1s"

[[query]]
name = "senml_cbor"
topic = "senml-cbor/{device}"
format = "senml-cbor"
time = { path = "t", unit = "s" }
key = ["device"]
fields = { v = "v" }
window = { size = "1s" }
aggregates = ["sum"]
idle = "1s"

[[query]]
name = "msgpack"
topic = "msgpack/{device}"
format = "msgpack"
time = { path = "ts", unit = "ms" }
key = ["device"]
fields = { v = "data.0.temp" }
window = { size = "1s" }
aggregates = ["sum"]
idle = "1s"

[[query]]
name = "csv"
topic = "csv/{device}"
format = { csv = ["ts", "place", "temp"], delimiter = ";" }
time = { path = "ts", unit = "ms" }
tags = { place = "place" }
key = ["device", "place"]
fields = { v = "temp" }
window = { size = "1s" }
aggregates = ["sum"]
idle = "1s"

[[query]]
name = "number"
topic = "number/{device}/temp"
format = "number"
key = ["device"]
fields = { v = "value" }
window = { size = "1s" }
aggregates = ["sum"]
idle = "1s"
"#;

#[test]
fn senml_message_pack_csv_and_bare_numbers_come_through_a_broker() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let aggregator = Aggregator::start(&world, MORE);
    let _agent = AgentConfig::new("gw-1", &broker.url(), &aggregator).start_subscribed(&world);
    let mut publisher = Publisher::connect(broker.address(), "publisher");
    let ts = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap() - 5_000;

    // A base time, a base name, a base value, and a record of another unit.
    let pack = format!(
        r#"[{{"bn":"urn:dev:1:","bt":{}.5,"bu":"Cel","bv":20,"n":"in","v":1.25}},{{"n":"out","t":-1,"v":-25.5}},{{"n":"hum","u":"%RH","v":1}}]"#,
        ts / 1_000
    );
    publisher.publish("senml/a", pack.as_bytes());
    publisher.publish("senml/a", br#"[{"n":"x","must_":1,"v":1}]"#);
    // [{bn(-2): "a", bt(-3): ts, v(2): 4([-1, 215])}]: a decimal fraction, 21.5.
    let mut body = b"\x81\xa3\x21\x61a\x22\x1b".to_vec();
    body.extend((ts / 1_000).to_be_bytes());
    body.extend(b"\x02\xc4\x82\x20\x18\xd7");
    publisher.publish("senml-cbor/a", &body);
    // {"ts": ts, "data": [{"temp": 0.1 as a 32-bit float}]}
    let mut body = b"\x82\xa2ts\xcf".to_vec();
    body.extend(ts.to_be_bytes());
    body.extend(b"\xa4data\x91\x81\xa4temp\xca");
    body.extend(0.1_f32.to_be_bytes());
    publisher.publish("msgpack/a", &body);
    let lines = format!("{ts};hall;21.5\n{ts}; yard ;-3.25\n{ts};hall;\n");
    publisher.publish("csv/a", lines.as_bytes());
    publisher.publish("number/a/temp", b"21.5");
    publisher.publish("number/a/temp", b" -1e1 ");
    publisher.publish("number/a/temp", b"21,5");

    let expected = [
        ("senml", (2, 15.75)),
        ("senml_cbor", (1, 21.5)),
        ("msgpack", (1, 0.1)),
        ("csv", (2, 18.25)),
        ("number", (2, 11.5)),
    ];
    until("all rows", || {
        let found = expected.map(|(query, _)| (query, total(&aggregator, query, "v_sum")));
        (found == expected).then_some(())
    });
    let rows = "SELECT group_concat(sensor || ' ' || v_sum, ', ' ORDER BY sensor) FROM senml";
    let rows: String = aggregator.sql().query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, "in 21.25, out -5.5");
    // The humidity; the label that must be understood; the empty cell; the comma.
    for reason in ["filtered", "malformed_json", "missing_field", "wrong_type"] {
        aggregator.wait_for_counter(&format!("rejected_{reason}"), 1);
    }
}
