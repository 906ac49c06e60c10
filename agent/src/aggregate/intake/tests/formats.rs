//! The same readings in every format are the same partials, bit for bit.

use catchment_common::plan::Csv;
use minicbor::Encoder;

use super::*;

/// The partials of one message, with its counters.
fn partials(pipeline: Pipeline, topic: &str, payload: &[u8]) -> (Vec<Section>, Vec<(&'static str, u64)>) {
    let mut bench = Bench::new(pipeline);
    let Bench {
        intake,
        metrics,
        journal,
    } = &mut bench;
    intake.handle_message(now(), Message::of(topic, payload), metrics, journal, |_, _| {});
    let mut sections = Vec::new();
    intake.close_all(journal, Pieces::Together, |_, section| {
        sections.push(section.clone());
    });
    sections.sort_by_key(|section| section.pane);
    (sections, bench.counted())
}

/// A pipeline over `topic` in a format, by a tag at `key`, with these paths as fields.
fn formatted(format: Format, topic: &str, time: (&str, TimeUnit), key: &str, fields: &[&str]) -> Pipeline {
    let field = |path: &&str| PipelineField {
        source: FieldSource::Path(Path::parse(path)),
        resolution: None,
        components: Components::STATS,
    };
    Pipeline {
        topic: TopicTemplate::parse(topic).unwrap(),
        format,
        time: TimeSource::Payload {
            path: Path::parse(time.0),
            unit: time.1,
            fallback: false,
        },
        key: vec![KeyPart::Payload(Path::parse(key))],
        fields: fields.iter().map(field).collect(),
        filter: None,
        ..pipeline(None, None)
    }
}

#[test]
fn the_same_readings_in_every_format_are_the_same_partials() {
    let json = br#"[{"ts":1699999999000,"device":"a","temp":21.37,"hum":-40},{"ts":1699999980000,"device":"b","temp":0.1}]"#;
    let json_pipeline = |format| formatted(format, "#", ("ts", TimeUnit::Millis), "device", &["temp", "hum"]);
    let expected = partials(json_pipeline(Format::Json), "t", json);
    assert_eq!(expected.0.len(), 2);
    assert_eq!(
        expected.1,
        [("received", 2), ("accepted", 2), ("late", 1), ("absent", 1)]
    );
    let check = |pipeline: Pipeline, topic: &str, payload: &[u8]| {
        let name = format!("{:?} {:?}", pipeline.format, pipeline.compression);
        assert_eq!(partials(pipeline, topic, payload), expected, "{name}");
    };

    let header = "device;hum;ts;temp\na;-40;1699999999000;21.37\nb;;1699999980000;0.1\n";
    let csv = |columns: Option<&[&str]>| {
        json_pipeline(Format::Csv(Csv {
            columns: columns.map(|all| all.iter().map(|name| (*name).into()).collect()),
            delimiter: b';',
        }))
    };
    check(csv(None), "t", header.as_bytes());
    let lines = header.split_once('\n').unwrap().1;
    check(csv(Some(&["device", "hum", "ts", "temp"])), "t", lines.as_bytes());

    let influx = formatted(
        Format::Influx,
        "#",
        ("time", TimeUnit::Nanos),
        "tags.device",
        &["fields.temp", "fields.hum"],
    );
    let lines = "m,device=a temp=21.37,hum=-40i 1699999999000000000\nm,device=b temp=0.1 1699999980000000000";
    check(influx, "t", lines.as_bytes());

    let mut encoder = Encoder::new(Vec::new());
    let map = encoder.array(2).unwrap().map(4).unwrap();
    map.str("ts")
        .unwrap()
        .u64(1_699_999_999_000)
        .unwrap()
        .str("device")
        .unwrap()
        .str("a")
        .unwrap();
    map.str("temp")
        .unwrap()
        .f64(21.37)
        .unwrap()
        .str("hum")
        .unwrap()
        .i8(-40)
        .unwrap();
    let map = encoder.map(3).unwrap();
    map.str("ts")
        .unwrap()
        .u64(1_699_999_980_000)
        .unwrap()
        .str("device")
        .unwrap()
        .str("b")
        .unwrap();
    map.str("temp").unwrap().f32(0.1).unwrap();
    check(json_pipeline(Format::Cbor), "t", &encoder.into_writer());

    let mut packed = b"\x92\x84\xa2ts\xcf".to_vec();
    packed.extend(1_699_999_999_000_u64.to_be_bytes());
    packed.extend(b"\xa6device\xa1a\xa4temp\xcb");
    packed.extend(21.37_f64.to_be_bytes());
    packed.extend(b"\xa3hum\xd0\xd8\x83\xa2ts\xcf");
    packed.extend(1_699_999_980_000_u64.to_be_bytes());
    packed.extend(b"\xa6device\xa1b\xa4temp\xca");
    packed.extend(0.1_f32.to_be_bytes());
    check(json_pipeline(Format::Msgpack), "t", &packed);

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, json).unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(&json[..], ruzstd::encoding::CompressionLevel::Fastest);
    for (compression, body) in [
        (Compression::Gzip, gzip.finish().unwrap()),
        (Compression::Zstd, zstd),
    ] {
        let pipeline = Pipeline {
            compression,
            ..json_pipeline(Format::Json)
        };
        check(pipeline, "t", &body);
    }
}

#[test]
fn records_of_senml_are_the_same_partials_as_readings_in_json() {
    let json = br#"[{"n":"d1:temp","t":1699999999,"v":21.37},{"n":"d1:hum","t":1699999998.5,"v":40}]"#;
    let pipeline = |format| formatted(format, "#", ("t", TimeUnit::Seconds), "n", &["v"]);
    let expected = partials(pipeline(Format::Json), "t", json);
    let senml = br#"[{"bn":"d1:","bt":1.699999999e9,"n":"temp","v":21.37},{"n":"hum","t":-0.5,"v":40}]"#;
    assert_eq!(partials(pipeline(Format::SenmlJson), "t", senml), expected);
    let mut encoder = minicbor::Encoder::new(Vec::new());
    let map = encoder.array(2).unwrap().map(4).unwrap();
    map.i8(-2)
        .unwrap()
        .str("d1:")
        .unwrap()
        .i8(-3)
        .unwrap()
        .u32(1_699_999_999)
        .unwrap();
    map.u8(0)
        .unwrap()
        .str("temp")
        .unwrap()
        .u8(2)
        .unwrap()
        .f64(21.37)
        .unwrap();
    let map = encoder.map(3).unwrap();
    map.u8(0)
        .unwrap()
        .str("hum")
        .unwrap()
        .u8(6)
        .unwrap()
        .f32(-0.5)
        .unwrap()
        .u8(2)
        .unwrap()
        .u8(40)
        .unwrap();
    assert_eq!(
        partials(pipeline(Format::SenmlCbor), "t", &encoder.into_writer()),
        expected
    );
    let number = Pipeline {
        time: TimeSource::Arrival,
        key: vec![KeyPart::Capture(0)],
        ..formatted(
            Format::Number,
            "s/{device}",
            ("t", TimeUnit::Seconds),
            "x",
            &["value"],
        )
    };
    let as_json = Pipeline {
        format: Format::Json,
        ..number.clone()
    };
    let expected = partials(as_json, "s/a", br#"{"value":21.37}"#);
    assert_eq!(partials(number, "s/a", b"21.37"), expected);
}
