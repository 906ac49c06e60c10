//! The bytes on the wire, pinned: golden files of every kind of frame, and the page that describes them.
//!
//! Each version has a folder. Files of a version that was released never change, and are read for as long as the version
//! is: `v1` is frozen. A difference in the newest means that agents and aggregators of two builds, or yesterday's
//! database and today's software, do not understand each other. Before its release `CATCHMENT_BLESS=1 cargo test -p
//! catchment-tests --test golden` writes its files anew; after that the version changes (`common/src/wire/v2.rs` says
//! how).

use std::fs;
use std::path::PathBuf;

use catchment_common::expression::{Expression, Kind, Scope};
use catchment_common::number::decimal::Value;
use catchment_common::plan::{
    Aggregate, Components, Compression, Dedupe, Field, FieldSource, Format, KeyPart, NewKeys, Path,
    PayloadTag, Pipeline, PipelineField, PipelineId, PipelineSketch, Plan, Query, TimeSource, TimeUnit,
    Window,
};
use catchment_common::sketch::{
    Buckets, Counters, Divider, Registers, Series, SeriesPoint, Shape, Sketch, SketchKind, hash, logarithm,
};
use catchment_common::stats::Stats;
use catchment_common::time::{Span, Timestamp};
use catchment_common::topic::TopicTemplate;
use catchment_common::wire::lineage::{Ancestor, DatabaseId, Forked, Lineage};
use catchment_common::wire::{
    self, AgentPlan, Batch, BatchWriter, ClockState, Coarser, CounterSample, EpochRange, Heartbeat,
    HeldEpoch, Hello, Loss, LossEntry, Message, Refusal, RejectReason, Section, SectionView, SeqRange,
    SourceState, StatsScratch, Welcome, WireFault, v1,
};

const EPOCH: u64 = 0x0123_4567_89ab_cdef;
/// 2023-11-14T22:13:20Z.
const PANE: i64 = 1_700_000_000_000_000;

fn folder(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(version)
}

fn golden(version: &str, name: &str) -> Vec<u8> {
    fs::read(folder(version).join(name)).unwrap_or_else(|error| panic!("{version}/{name}: {error}"))
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| {
        line.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

/// Compares with the golden file of the newest version, or writes it when blessed.
fn check(name: &str, bytes: &[u8]) {
    if std::env::var_os("CATCHMENT_BLESS").is_some_and(|value| value == "1") {
        fs::create_dir_all(folder("v2")).unwrap();
        fs::write(folder("v2").join(name), bytes).unwrap();
    }
    compare("v2", name, bytes);
}

/// Compares with a golden file.
fn compare(version: &str, name: &str, bytes: &[u8]) {
    let golden = golden(version, name);
    assert!(
        golden == bytes,
        "{version}/{name} has changed.\ngolden:\n{}\nnow:\n{}",
        hex(&golden),
        hex(bytes)
    );
}

fn pipeline(version: u8) -> Pipeline {
    Pipeline {
        topic: TopicTemplate::parse("sensors/{site}/{device}/+/#").unwrap(),
        format: Format::Json,
        compression: Compression::None,
        time: TimeSource::Payload {
            path: Path::parse("meta.ts"),
            unit: TimeUnit::Millis,
            fallback: false,
        },
        key: vec![KeyPart::Capture(0), KeyPart::Payload(Path::parse("meta.line"))],
        fields: vec![
            PipelineField {
                source: FieldSource::path("temp"),
                resolution: None,
                components: Components::STATS,
            },
            PipelineField {
                source: FieldSource::path("data.hum"),
                resolution: Some(10_i128.pow(16)),
                components: Components::SUM,
            },
            PipelineField {
                source: FieldSource::Expression(expression("$.temp * 1.8 + 32", Kind::Number)),
                resolution: None,
                components: Components::COUNT,
            },
        ],
        filter: Some(expression("$.temp < 125 && site != 'test'", Kind::Truth)),
        pane: Span::from_secs(10),
        count: None,
        watermark_delay: Span::from_secs(30),
        allowed_lateness: Span::from_days(1),
        max_ahead: Span::from_secs(300),
        idle: Span::from_secs(30),
        dedupe: Some(Dedupe::rising(Path::parse("meta.seq"))),
        new_keys: Some(NewKeys {
            max: 1_000,
            every: Span::from_secs(60),
        }),
        memory: Some(256 << 10),
        watched: vec![KeyPart::Capture(1), KeyPart::Payload(Path::parse("meta.line"))],
        sketches: vec![
            PipelineSketch::Quantiles(1),
            PipelineSketch::Histogram(0, vec![-10_i128.pow(18), 0, 10_i128.pow(19)]),
            PipelineSketch::DistinctValues(0),
            PipelineSketch::DistinctTags(0),
            PipelineSketch::Top(1),
            PipelineSketch::Series(0),
        ],
        source: (version > 1).then(|| "plant".into()),
    }
}

fn expression(text: &str, kind: Kind) -> Expression {
    let scope = Scope {
        tags: &[("site", KeyPart::Capture(0))],
        ..Scope::default()
    };
    Expression::parse(text, &scope, kind).unwrap()
}

/// The n-th pipeline: a number in version 1, and since then eight bytes.
fn id(version: u8, number: u64) -> PipelineId {
    PipelineId(if version == 1 {
        number
    } else {
        0xfedc_ba98_7654_3200 + number
    })
}

fn agent_plan(version: u8) -> AgentPlan {
    let rung = |pipeline, seconds| Coarser {
        of: id(version, 1),
        pipeline: id(version, pipeline),
        pane: Span::from_secs(seconds),
    };
    AgentPlan {
        version: 3,
        pipelines: vec![(id(version, 1), pipeline(version))],
        coarser: vec![rung(2, 60), rung(3, 600)],
    }
}

fn epochs() -> Vec<EpochRange> {
    let range = |first, last| SeqRange { first, last };
    vec![EpochRange {
        epoch: EPOCH,
        ranges: vec![range(1, 4), range(6, 300)],
    }]
}

/// A message of each kind, with all that this version has.
fn messages(version: u8) -> Vec<(&'static str, Message)> {
    let is_new = version > 1;
    let database = is_new.then_some(DATABASE);
    let counter = |pipeline, counter, value| CounterSample {
        pipeline: if pipeline == 0 {
            PipelineId::NONE
        } else {
            id(version, pipeline)
        },
        counter,
        value,
    };
    let mut all = vec![
        (
            "hello.bin",
            Message::Hello(Hello {
                agent: "gw-17".into(),
                software: "catchment-agent 0.1.0".into(),
                epoch: EPOCH,
                // Version 1 has the plan's version here.
                plan: if is_new { 0x0807_0605_0403_0201 } else { 3 },
                database,
                lineage: is_new.then(|| Lineage {
                    id: 5,
                    generation: 9,
                    sealed: 300,
                    ancestors: vec![Ancestor {
                        generation: 8,
                        epoch: 2,
                        sealed: 17,
                    }],
                }),
                held: { epochs().into_iter() }
                    .map(|batches| HeldEpoch { batches, database })
                    .collect(),
            }),
        ),
        (
            "welcome.bin",
            Message::Welcome(Welcome {
                database,
                numbers: if is_new { vec![(1, id(2, 1))] } else { Vec::new() },
                plan: Some(agent_plan(version)),
                committed: epochs(),
                server_time: Timestamp::clamped(PANE),
                heartbeat: Span::from_secs(5),
            }),
        ),
        ("ack.bin", Message::Ack(epochs().remove(0))),
        (
            "reject.bin",
            Message::Reject(Refusal {
                epoch: EPOCH,
                seq: 5,
                reason: RejectReason::BadPane,
            }),
        ),
        ("plan.bin", Message::Plan(agent_plan(version))),
        ("drain.bin", Message::Drain),
        (
            "heartbeat.bin",
            Message::Heartbeat(Heartbeat {
                epoch: EPOCH,
                era: 9,
                seq: 300,
                oldest: 5,
                watermarks: vec![(id(version, 1), Timestamp::clamped(PANE))],
                counters: vec![counter(0, 0, 12), counter(1, 74, 1), counter(1, 3, u64::MAX)],
                backlog_batches: 2,
                backlog_bytes: 1_000,
                sources: {
                    [SourceState {
                        name: "plant".into(),
                        is_connected: true,
                        since: Timestamp::clamped(PANE),
                    }]
                }
                .into_iter()
                .filter(|_| is_new)
                .collect(),
                clock: is_new.then_some(ClockState {
                    offset: Span::from_secs(-2),
                    is_trusted: true,
                }),
            }),
        ),
    ];
    if is_new {
        let forked = Forked {
            lineage: 5,
            epoch: EPOCH,
        };
        all.push(("forked.bin", Message::Forked(forked)));
    }
    all
}

const DATABASE: DatabaseId = DatabaseId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);

/// A key and its readings: an offset in µs and a decimal text for each field, empty for none.
type Row<'r> = (&'r str, &'r [(i64, &'r [&'r str])]);

/// A section of one field for each of `keep`.
fn section(version: u8, pipeline: u32, keep: &[Components], rows: &[Row<'_>]) -> Section {
    let mut section = Section::default();
    let pane = PANE + i64::from(pipeline) * 10_000_000;
    section.reset(
        id(version, pipeline.into()),
        Timestamp::clamped(pane),
        keep.iter().copied(),
    );
    for (key, readings) in rows {
        section.keys.push(key.as_bytes());
        section.readings.push(readings.len() as u64);
        for (field, &keep) in keep.iter().enumerate() {
            let mut stats = Stats::IDENTITY;
            for (offset, texts) in *readings {
                if !texts[field].is_empty() {
                    let value = Value::parse(texts[field].as_bytes()).unwrap().value;
                    stats.lift(keep, Timestamp::clamped(pane + offset), value);
                }
            }
            section.stats.push(stats);
        }
    }
    section
}

/// The worked example of the page: two devices, one field, everything kept.
fn small(version: u8) -> Vec<Section> {
    vec![section(
        version,
        1,
        &[Components::STATS],
        &[
            (
                "berlin\0dev-1",
                &[(0, &["21.5"]), (2_000_000, &["21.7"]), (4_000_000, &["21.6"])],
            ),
            ("berlin\0dev-2", &[(1_000_000, &["-3"])]),
        ],
    )]
}

/// Every form: narrow with and without extrema, a field that one row does not have, a key without tags, wide numbers,
/// more rows than one block of a column.
fn large(version: u8) -> Vec<Section> {
    let mut sections = small(version);
    let nothing: &[(i64, &[&str])] = &[(5, &["1", ""]), (7, &["2", ""])];
    sections.push(section(
        version,
        2,
        &[Components::SUM | Components::ENDS, Components::EXTREMA],
        &[
            ("a", nothing),
            (
                "ab",
                &[(1_500_000, &["-0.25", "1000"]), (1_500_001, &["1e-6", "-7.5"])],
            ),
        ],
    ));
    sections.push(section(
        version,
        3,
        &[Components::COUNT],
        &[("", &[(0, &["1"]), (1, &["2"]), (2, &["3"])])],
    ));
    sections.push(section(
        version,
        4,
        &[Components::STATS],
        &[(
            "wide",
            &[
                (0, &["0.000000000000000001"]),
                (9_999_999, &["-999999999999999999.999999999999999999"]),
            ],
        )],
    ));
    let keys: Vec<String> = (0..100)
        .map(|device| format!("site-{}\0dev-{device:03}", device / 40))
        .collect();
    let values: Vec<String> = (0..100)
        .map(|device| format!("{}.{}", 20 + device % 7, device % 10))
        .collect();
    let texts: Vec<[&str; 1]> = values.iter().map(|value| [value.as_str()]).collect();
    let readings: Vec<[(i64, &[&str]); 1]> = texts.iter().map(|texts| [(3_000, texts.as_slice())]).collect();
    let rows: Vec<Row<'_>> = keys
        .iter()
        .zip(&readings)
        .map(|(key, readings)| (key.as_str(), readings.as_slice()))
        .collect();
    sections.push(section(
        version,
        5,
        &[Components::SUM | Components::SQUARES | Components::EXTREMA],
        &rows,
    ));
    sections
}

/// Sketches of every kind: some values each, none in the last row.
fn sketched(version: u8) -> Section {
    let keep = Components::EXTREMA;
    let readings: &[(i64, &[&str])] = &[(0, &["20.5"]), (1, &["21"]), (2, &["20.5"])];
    let mut section = section(
        version,
        6,
        &[keep],
        &[("a", readings), ("b", &[(3, &["-7"])]), ("c", &[(4, &[""])])],
    );
    let (linear, log) = (
        SketchKind::Buckets(Shape::Linear),
        SketchKind::Buckets(Shape::Log),
    );
    let intervals = Shape::Intervals(3);
    let kinds = [
        linear,
        log,
        SketchKind::Buckets(intervals),
        SketchKind::Distinct,
        SketchKind::Top,
    ];
    section.set_sketches(kinds.into_iter());
    let halves = Divider::new(10_i128.pow(18) / 2);
    for texts in [&["20.5", "21", "20.5"][..], &["-7"], &[]] {
        let mut buckets = [Buckets::EMPTY; 3];
        let (mut registers, mut counters) = (Registers::EMPTY, Counters::EMPTY);
        for text in texts {
            let value = Value::parse(text.as_bytes()).unwrap().value;
            buckets[0].lift(Shape::Linear, halves.bucket(value));
            buckets[1].lift(Shape::Log, (0, logarithm::bucket_of(value.units())));
            buckets[2].lift(intervals, (0, i64::from(value.units() >= 0) * 2));
            registers.lift(hash(text.as_bytes()));
            counters.lift(text.as_bytes());
        }
        section.sketches.extend(buckets.map(Sketch::Buckets));
        section
            .sketches
            .extend([Sketch::Distinct(registers), Sketch::Top(counters)]);
    }
    section
}

/// A meter that was read three times, one whose points are too many, and one without any.
fn metered(version: u8) -> Section {
    let mut section = Section::default();
    section.reset(
        id(version, 7),
        Timestamp::clamped(PANE + 10_000_000),
        std::iter::empty(),
    );
    section.set_sketches([SketchKind::Series].into_iter());
    let point = |seconds: i64, tenths: i128| SeriesPoint {
        at: Timestamp::clamped(PANE + (10 + seconds) * 1_000_000),
        value: Value::from_units(tenths * 10_i128.pow(17)).unwrap(),
    };
    let points = vec![point(0, 70_215), point(2, 70_230), point(4, 7)];
    for (key, readings, series) in [
        ("m-1", 3, Series::from_unsorted(points)),
        ("m-2", 4_097, Series::TOO_LONG),
        ("m-3", 1, Series::EMPTY),
    ] {
        section.keys.push(key.as_bytes());
        section.readings.push(readings);
        section.sketches.push(Sketch::Series(series));
    }
    section
}

/// All functions: those without arguments, and one of each of the others.
fn aggregates() -> Vec<Aggregate> {
    let more = [
        "median",
        "p99.9",
        "histogram(-1.5, 20)",
        "distinct(line)",
        "top(3, line)",
    ];
    let more = more.map(|text| Aggregate::parse(text).unwrap());
    let all = Aggregate::ALL.into_iter().chain(more);
    all.chain(Aggregate::OF_SERIES).collect()
}

fn frame(sections: &[Section], seq: u64) -> Vec<u8> {
    let mut writer = BatchWriter::default();
    for section in sections {
        writer.push(section);
    }
    let mut frame = Vec::new();
    writer.seal(EPOCH, seq, &mut frame);
    frame
}

fn read(frame: &[u8]) -> (u64, u64, Vec<Section>) {
    let batch = Batch::parse(frame).unwrap();
    let mut scratch = StatsScratch::default();
    let sections = batch.sections().map(|view| {
        let mut section = Section::default();
        view.unwrap().read(&mut section, &mut scratch).unwrap();
        section
    });
    (batch.epoch, batch.seq, sections.collect())
}

#[test]
fn messages_have_these_bytes_and_read_back() {
    for (name, message) in messages(2) {
        check(name, &message.emit());
        assert_eq!(Message::parse(&golden("v2", name)), Ok(message), "{name}");
    }
}

#[test]
fn messages_of_version_1_are_read_and_written_for_its_peers() {
    for (name, message) in messages(1) {
        compare("v1", name, &v1::emit_message(&message).unwrap());
        assert_eq!(Message::parse(&golden("v1", name)), Ok(message), "{name}");
    }
}

fn batches(version: u8) -> [(&'static str, Vec<Section>, u64); 5] {
    [
        ("batch-small.bin", small(version), 1),
        ("batch.bin", large(version), 300),
        ("batch-empty.bin", Vec::new(), 2),
        ("batch-sketches.bin", vec![sketched(version)], 3),
        ("batch-series.bin", vec![metered(version)], 4),
    ]
}

#[test]
fn batches_have_these_bytes_and_read_back() {
    for (name, sections, seq) in batches(2) {
        check(name, &frame(&sections, seq));
        assert_eq!(read(&golden("v2", name)), (EPOCH, seq, sections), "{name}");
    }
}

/// An agent may hold such frames since before, and names them anew without reading them.
#[test]
fn batches_of_version_1_are_read_and_renamed() {
    for (name, sections, seq) in batches(1) {
        let held = golden("v1", name);
        let (mut other, mut back) = (Vec::new(), Vec::new());
        wire::rename(&held, 9, 70, &mut other).unwrap();
        assert_eq!(read(&other), (9, 70, sections.clone()), "{name}");
        wire::rename(&other, EPOCH, seq, &mut back).unwrap();
        assert_eq!(back, held, "{name}");
        assert_eq!(read(&held), (EPOCH, seq, sections), "{name}");
    }
}

fn loss(version: u8) -> Loss {
    let entry = |pipeline, seconds: i64, readings| LossEntry {
        pipeline: id(version, pipeline),
        from: Timestamp::clamped(PANE),
        to: Timestamp::clamped(PANE + seconds * 1_000_000),
        readings,
    };
    Loss {
        epoch: EPOCH,
        seq: 7,
        entries: vec![entry(1, 10, 3), entry(2, 600, 40_000)],
    }
}

#[test]
fn loss_records_have_these_bytes_and_read_back() {
    check("loss.bin", &loss(2).emit());
    for version in [1, 2] {
        let golden = golden(&format!("v{version}"), "loss.bin");
        assert_eq!(Loss::parse(&golden), Ok(loss(version)));
    }
}

/// The forms that the aggregator keeps in its database: a chunk of a pane, a plan, a pipeline's definition.
#[test]
fn stored_forms_have_these_bytes_and_read_back() {
    let mut chunk = Vec::new();
    small(2)[0].emit(0, &mut chunk, &mut StatsScratch::default());
    check("stored-pane.bin", &chunk);
    // Both versions keep a pane under its pipeline, and pass over what stands for that in the bytes.
    for version in [1, 2] {
        let golden = golden(&format!("v{version}"), "stored-pane.bin");
        let mut section = Section::default();
        let view = SectionView::parse_merged(&golden, id(version, 1)).unwrap();
        view.read(&mut section, &mut StatsScratch::default()).unwrap();
        assert_eq!(section, small(version)[0]);
    }
    check("stored-plan.bin", &wire::emit_plan(&plan(2)));
    check("stored-pipeline.bin", &wire::emit_pipeline(&pipeline(2)));
    assert_eq!(wire::parse_plan(&golden("v2", "stored-plan.bin")), Ok(plan(2)));
    assert_eq!(
        wire::parse_pipeline(&golden("v2", "stored-pipeline.bin")),
        Ok(pipeline(2))
    );
    let newer = [&[3], &golden("v2", "stored-plan.bin")[1..]].concat();
    assert_eq!(wire::parse_plan(&newer), Err(WireFault::Version(3)));
}

/// A pipeline's id is for ever, in every database.
#[test]
fn a_pipeline_has_this_fingerprint() {
    let first = wire::fingerprint(&pipeline(2), None, 0);
    let rung = Pipeline {
        pane: Span::from_secs(60),
        ..pipeline(2)
    };
    let all = [
        first,
        wire::fingerprint(&pipeline(2), None, 1),
        wire::fingerprint(&rung, Some(first), 0),
    ];
    let text: Vec<String> = all.iter().map(PipelineId::to_string).collect();
    check("fingerprints.txt", text.join("\n").as_bytes());
}

#[test]
fn stored_forms_of_version_1_are_read() {
    assert_eq!(v1::parse_plan(&golden("v1", "stored-plan.bin")), Ok(plan(1)));
    compare(
        "v1",
        "stored-pipeline.bin",
        &v1::emit_pipeline(&pipeline(1)).unwrap(),
    );
    assert_eq!(
        v1::parse_pipeline(&golden("v1", "stored-pipeline.bin")),
        Ok(pipeline(1))
    );
}

fn plan(version: u8) -> Plan {
    Plan {
        version: 3,
        queries: vec![Query {
            name: "room_climate".into(),
            topic: TopicTemplate::parse("sensors/{site}/{device}/+/#").unwrap(),
            format: Format::Json,
            compression: Compression::None,
            time: TimeSource::Payload {
                path: Path::parse("meta.ts"),
                unit: TimeUnit::Rfc3339,
                fallback: false,
            },
            tags: vec![PayloadTag {
                name: "line".into(),
                path: Path::parse("meta.line"),
            }],
            key: vec!["site".into(), "line".into()],
            fields: vec![Field {
                name: "hum".into(),
                source: FieldSource::path("data.hum"),
                resolution: Some(10_i128.pow(16)),
                kind: catchment_common::plan::FieldKind::Gauge,
            }],
            filter: Some(expression("$.temp > -40", Kind::Truth)),
            window: Window::hopping(Span::from_secs(60), Span::from_secs(10)),
            aggregates: aggregates(),
            watermark_delay: Span::from_secs(30),
            allowed_lateness: Span::from_days(1),
            max_ahead: Span::from_secs(300),
            idle: Span::from_secs(30),
            patience: Span::from_secs(10),
            lookback: (version > 1).then(|| Span::from_secs(40)),
            retention: Some(Span::from_days(30)),
            coarsen: vec![Span::from_secs(60), Span::from_secs(600)],
            dedupe: Some(Dedupe::rising(Path::parse("meta.seq"))),
            new_keys: Some(NewKeys {
                max: 1_000,
                every: Span::from_secs(60),
            }),
            memory: Some(256 << 10),
            source: (version > 1).then(|| "plant".into()),
        }],
    }
}

/// Blocks of `docs/WIRE.md` that begin with ` ```wire VERSION/FILE ` are that golden file, byte for byte: hex, then words.
#[test]
fn the_page_shows_these_bytes() {
    let page = folder("v2").join("../../../docs/WIRE.md");
    let page = fs::read_to_string(page).unwrap();
    let mut shown = 0;
    for block in page.split("```wire ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let lines = rest.split("```").next().unwrap().lines();
        let bytes: Vec<u8> = lines
            .flat_map(|line| line.split("  ").next().unwrap_or_default().split_whitespace())
            .map(|byte| {
                u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("{name}: `{byte}` is no byte"))
            })
            .collect();
        let (version, file) = name.split_once('/').unwrap();
        let golden = golden(version, file);
        assert_eq!(hex(&bytes), hex(&golden), "docs/WIRE.md shows {name} wrongly");
        shown += 1;
    }
    assert!(shown >= 3, "the page has {shown} worked examples");
}
