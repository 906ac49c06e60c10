//! Every format: what is found, what is refused and why, and that no bytes do harm.

use std::io::Write as _;

use catchment_common::limits::COLUMNS_MAX;
use catchment_common::plan::Csv;
use catchment_common::time::{Instant, Timestamp};
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use minicbor::Encoder;
use minicbor::data::{IanaTag, Tag};
use proptest::prelude::*;

use super::*;
use crate::source::SourceId;

const TOPIC: &str = "spBv1.0/plant/DDATA/edge/pump";

pub(super) fn context(topic: &str) -> Context<'_> {
    Context {
        source: SourceId(0),
        topic,
        now: Now {
            monotonic: Instant::from_micros(0),
            wall: Timestamp::clamped(1_700_000_000_000_000),
        },
        payload_bytes_max: 64 << 10,
    }
}

/// What is found at paths, for each reading: `-` for nothing, `!` for out of reach. Then the unreadable parts.
pub(super) fn found(
    format: Format,
    payload: &[u8],
    paths: &[&str],
    births: &mut Births,
    topic: &str,
) -> Result<Vec<String>, Reason> {
    let mut decoder = Decoder::new(format);
    for path in paths {
        decoder.tree.add(&Path::parse(path));
    }
    let mut decoded = Decoded::default();
    let body = decoder.decode(payload, context(topic), births, &mut decoded)?;
    let text = decoded.text(body);
    let row = |reading| {
        let all: Vec<&str> = (0..paths.len())
            .map(|path| match decoded.raw(text, reading, path) {
                Raw::Absent => "-",
                Raw::Blocked => "!",
                Raw::Text(text) => text,
            })
            .collect();
        all.join(" ")
    };
    let unreadable = decoded.unreadable().iter().map(|(reason, count)| {
        let name = reason.name();
        format!("{count} {}", name.strip_prefix("rejected_").unwrap_or(name))
    });
    Ok((0..decoded.readings()).map(row).chain(unreadable).collect())
}

fn check(format: &Format, payload: impl AsRef<[u8]>, paths: &[&str], expected: Result<&[&str], Reason>) {
    let payload = payload.as_ref();
    let result = found(format.clone(), payload, paths, &mut Births::default(), TOPIC);
    let expected = expected.map(|rows| rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>());
    assert_eq!(
        result,
        expected,
        "{format:?} {}",
        String::from_utf8_lossy(payload)
    );
}

fn refused(format: &Format, payloads: &[&[u8]], reason: Reason) {
    for payload in payloads {
        check(
            format,
            payload,
            &["temp", "fields.temp", "v", "value"],
            Err(reason),
        );
    }
}

fn cbor(write: impl FnOnce(&mut Encoder<Vec<u8>>)) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write(&mut encoder);
    encoder.into_writer()
}

#[test]
fn a_number_alone_is_a_value() {
    let format = Format::Number;
    check(&format, " 21.50\n", &["value", "other"], Ok(&["21.50 -"]));
    check(&format, "-1e3", &["value"], Ok(&["-1e3"]));
    check(&format, "open", &["value"], Ok(&["\"open\""]));
    check(&format, " ", &["value"], Ok(&["-"]));
    refused(&format, &[b""], Reason::EmptyPayload);
    refused(&format, &[b"\xff"], Reason::InvalidUtf8);
}

fn csv(columns: Option<&[&str]>, delimiter: u8) -> Format {
    Format::Csv(Csv {
        columns: columns.map(|all| all.iter().map(|name| (*name).into()).collect()),
        delimiter,
    })
}

#[test]
fn csv_has_a_path_for_each_column() {
    let paths = &["temp", "site", "data.hum"];
    let columns = csv(Some(&["site", "temp", "data.hum"]), b',');
    check(&columns, "berlin,21.5,40", paths, Ok(&["21.5 \"berlin\" 40"]));
    check(
        &columns,
        "\"a,\"\"b\",21.5\r\nc\n",
        paths,
        Ok(&["21.5 \"a,\\\"b\" -", "- \"c\" -"]),
    );
    check(
        &columns,
        "x, 1 ,\n\ny,2,3",
        paths,
        Ok(&["1 \"x\" -", "2 \"y\" 3"]),
    );
    check(
        &csv(None, b';'),
        "temp; site\n1,5;a\n2;b\n",
        paths,
        Ok(&["\"1,5\" \"a\" -", "2 \"b\" -"]),
    );
    check(&csv(None, b','), "temp,site", paths, Ok(&[]));
    check(
        &columns,
        "a,1,2,3\nb,2\n1,2,3,4\nc,3",
        paths,
        Ok(&["2 \"b\" -", "3 \"c\" -", "2 malformed_payload"]),
    );
    refused(&columns, &[b""], Reason::EmptyPayload);
    refused(&columns, &[b"a,\xff"], Reason::InvalidUtf8);
    let many = "1\n".repeat(READINGS_PER_MESSAGE_MAX + 1);
    refused(&columns, &[many.as_bytes()], Reason::OversizedPayload);
}

#[test]
fn csv_takes_memory_by_its_longest_cell_and_a_bounded_number_of_columns() {
    let mut decoder = Decoder::new(csv(None, b','));
    decoder.tree.add(&Path::parse("temp"));
    let mut decoded = Decoded::default();
    let mut decode = |payload: &str| {
        let done = decoder.decode(
            payload.as_bytes(),
            context(TOPIC),
            &mut Births::default(),
            &mut decoded,
        );
        (done.map(|_| ()), decoded.scratch.len(), decoded.columns.len())
    };
    let commas = ",".repeat(1 << 20);
    assert_eq!(decode(&commas), (Err(Reason::OversizedPayload), 64, COLUMNS_MAX));
    // One line of as many cells as there were bytes: each costs its own length.
    assert_eq!(decode(&format!("temp\n{commas}")), (Ok(()), 64, 1));
    assert_eq!(decode(&format!("temp\n{}", "1".repeat(100))), (Ok(()), 128, 1));
    let widest = vec!["x"; COLUMNS_MAX].join(",");
    assert_eq!(decode(&widest).0, Ok(()));
}

#[test]
fn lines_of_influx_have_measurement_tags_fields_and_time() {
    let format = Format::Influx;
    let paths = &["measurement", "tags.host", "fields.temp", "time"];
    check(
        &format,
        "cpu,host=a temp=21.370000000000000001 1700000000000000000",
        paths,
        Ok(&["\"cpu\" \"a\" 21.370000000000000001 1700000000000000000"]),
    );
    check(
        &format,
        "# a comment\ncpu temp=1i\n\n  m\\ x,host=b\\,\\=c,z=1 n=t,temp=-2u 5\r\n",
        paths,
        Ok(&["\"cpu\" - 1 -", "\"m x\" \"b,=c\" -2 5"]),
    );
    check(
        &format,
        "s,host=\\q text=\"a\\\"b, =\nc\",temp=T 1",
        &["fields.text", "tags.host", "fields.temp"],
        Ok(&["\"a\\\"b, =\\u000ac\" \"\\\\q\" true"]),
    );
    check(&format, "a temp=NaN", paths, Ok(&["\"a\" - \"NaN\" -"]));
    for line in [
        "cpu",
        "cpu ",
        "cpu temp",
        "cpu temp=",
        "cpu temp=x",
        "cpu temp=1x",
        "cpu temp=1,",
        "cpu temp=1 soon",
        "cpu temp=1 1 1",
        "cpu, temp=1",
        "cpu,host temp=1",
        "cpu,host= temp=1",
        "cpu temp=\"open",
        ",host=a temp=1",
        "cpu text=\"a\nb\",temp=x",
    ] {
        let lines = format!("a temp=1\n{line}\nb temp=2");
        let bad = ["\"a\" - 1 -", "\"b\" - 2 -", "1 malformed_payload"];
        check(&format, lines, paths, Ok(&bad));
    }
    let many = "a\n".repeat(READINGS_PER_MESSAGE_MAX + 1);
    refused(&format, &[many.as_bytes()], Reason::OversizedPayload);
    refused(&format, &[b"cpu temp=\xff"], Reason::InvalidUtf8);
}

#[test]
fn records_of_senml_are_resolved() {
    let format = Format::SenmlJson;
    let paths = &["n", "name", "u", "v", "t"];
    check(
        &format,
        r#"[{"bn":"urn:dev:1:","bt":1.320067464e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},
            {"n":"current","t":-5,"v":1.2},{"n":"current","t":-4,"v":1.30}]"#,
        paths,
        Ok(&[
            "\"urn:dev:1:voltage\" \"voltage\" \"V\" 120.1 1320067464",
            "\"urn:dev:1:current\" \"current\" \"A\" 1.2 1320067459",
            "\"urn:dev:1:current\" \"current\" \"A\" 1.3 1320067460",
        ]),
    );
    check(
        &format,
        r#"[{"n":"a","v":1},{"n":"b","vs":"on\"","t":-2.5},{"bn":"c","bv":20},{"v":1.5,"bs":1,"s":2},{"n":"d","vb":true}]"#,
        &["n", "v", "vs", "vb", "s", "t"],
        Ok(&[
            "\"a\" 1 - - - 1700000000",
            "\"b\" - \"on\\\"\" - - 1699999997.5",
            "\"c\" 21.5 - - 3 1700000000",
            "\"cd\" - - true - 1700000000",
        ]),
    );
    check(&format, "[]", paths, Ok(&[]));
    check(
        &format,
        r#"[{"v":1},{"n":1,"v":1},{"n":"a","v":"1"},{"n":"a","v":2,"t":"now"},3,{"n":"b","v":nan},{"n":"c","v":4}]"#,
        &["n", "v"],
        Ok(&[
            "\"c\" 4",
            "1 malformed_json",
            "1 missing_field",
            "3 wrong_type",
            "1 not_finite",
        ]),
    );
    // What comes behind base values that cannot be read cannot be resolved.
    check(
        &format,
        r#"[{"n":"a","v":1},{"bn":7,"n":"b","v":2},{"bn":"x","n":"c","v":3}]"#,
        &["n", "v"],
        Ok(&["\"a\" 1", "2 wrong_type"]),
    );
    refused(
        &format,
        &[b"[{\"n\":\"a\",\"v\":1,\"bver\":11}]"],
        Reason::MalformedPayload,
    );
    refused(
        &format,
        &[b"[{\"n\":\"a\",\"v\":1,\"must_\":1}]", b"[", b"7"],
        Reason::MalformedJson,
    );
    let packed = cbor(|encoder| {
        let encoder = encoder.array(2).unwrap();
        let encoder = encoder.map(4).unwrap();
        encoder
            .i8(-2)
            .unwrap()
            .str("urn:")
            .unwrap()
            .i8(-3)
            .unwrap()
            .u32(1_700_000_000)
            .unwrap();
        encoder
            .u8(0)
            .unwrap()
            .str("a")
            .unwrap()
            .u8(2)
            .unwrap()
            .f64(120.1)
            .unwrap();
        let encoder = encoder.map(3).unwrap();
        encoder
            .u8(0)
            .unwrap()
            .str("b")
            .unwrap()
            .u8(6)
            .unwrap()
            .i8(-5)
            .unwrap();
        encoder.u8(2).unwrap().u8(7).unwrap();
    });
    check(
        &Format::SenmlCbor,
        packed,
        &["n", "v", "t"],
        Ok(&["\"urn:a\" 120.1 1700000000", "\"urn:b\" 7 1699999995"]),
    );
    refused(
        &Format::SenmlCbor,
        &[b"\x81\xa1\x62a_\x01", b"\x81"],
        Reason::MalformedPayload,
    );
}

#[test]
fn cbor_is_walked_like_json() {
    let format = Format::Cbor;
    let paths = &["temp", "data.hum", "list.1"];
    let payload = cbor(|encoder| {
        let encoder = encoder.map(4).unwrap().str("temp").unwrap().f64(21.37).unwrap();
        let encoder = encoder.str("x").unwrap().bytes(b"skip").unwrap();
        encoder
            .str("data")
            .unwrap()
            .begin_map()
            .unwrap()
            .str("hum")
            .unwrap()
            .f32(40.1)
            .unwrap()
            .end()
            .unwrap();
        encoder
            .str("list")
            .unwrap()
            .begin_array()
            .unwrap()
            .u8(1)
            .unwrap()
            .i64(-2)
            .unwrap()
            .end()
            .unwrap();
    });
    check(&format, &payload, paths, Ok(&["2.137e1 4.01e1 -2"]));
    let exact = cbor(|encoder| {
        let encoder = encoder.array(3).unwrap();
        let fraction = encoder
            .map(1)
            .unwrap()
            .str("temp")
            .unwrap()
            .tag(IanaTag::Decimal)
            .unwrap();
        fraction.array(2).unwrap().i8(-2).unwrap().u16(2_137).unwrap();
        let big = encoder
            .map(1)
            .unwrap()
            .str("temp")
            .unwrap()
            .tag(IanaTag::NegBignum)
            .unwrap();
        big.bytes(&[1, 0]).unwrap();
        let dated = encoder
            .map(1)
            .unwrap()
            .str("temp")
            .unwrap()
            .tag(Tag::new(1))
            .unwrap();
        dated.tag(IanaTag::PosBignum).unwrap().bytes(&[0xff; 40]).unwrap();
    });
    check(&format, &exact, &["temp"], Ok(&["2137e-2", "-257", "1e40"]));
    let odd = cbor(|encoder| {
        let encoder = encoder.map(5).unwrap().u8(7).unwrap().bool(true).unwrap();
        encoder
            .str("temp")
            .unwrap()
            .null()
            .unwrap()
            .str("data")
            .unwrap()
            .u8(1)
            .unwrap();
        encoder
            .str("list")
            .unwrap()
            .map(1)
            .unwrap()
            .str("1")
            .unwrap()
            .str("a\"")
            .unwrap();
        encoder.bytes(b"k").unwrap().undefined().unwrap();
    });
    check(
        &format,
        odd,
        &["7", "temp", "data.hum", "list.1", "list"],
        Ok(&["true - ! \"a\\\"\" {}"]),
    );
    check(&format, b"\xa1\x64temp\xf9\x7e\x00", &["temp"], Ok(&["\"NaN\""]));
}

#[test]
fn what_is_no_cbor_is_refused() {
    let format = Format::Cbor;
    let deep = [[0xa1, 0x61, b'a'].repeat(70), vec![0x01]].concat();
    refused(
        &format,
        &[
            b"\x01",
            b"\xa1",
            b"\xa1\x64temp",
            b"\xa1\x64temp\x01\x01",
            b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xa1\x64temp\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xa1\x62\xff\xff\x01",
            b"\xa1\x64temp\x7f\x61a\xff",
            b"\xa1\xa0\x01",
            b"\xa1\x64temp\xff",
            b"\xff",
            b"\xbf\x64temp\xff",
            &deep,
        ],
        Reason::MalformedPayload,
    );
    refused(&format, &[b""], Reason::EmptyPayload);
    // A number, a list with a map in it and a text take no map along.
    check(
        &format,
        b"\x85\x01\xa1\x64temp\x02\x81\xa1\x64temp\x03\x61a\xa1\x64temp\x04",
        &["temp"],
        Ok(&["2", "4", "3 malformed_payload"]),
    );
    let many = [vec![0x9f], vec![0xa0; READINGS_PER_MESSAGE_MAX + 1], vec![0xff]].concat();
    refused(&format, &[&many], Reason::OversizedPayload);
}

#[test]
fn msgpack_is_walked_like_json() {
    let format = Format::Msgpack;
    let paths = &["temp", "data.hum", "list.1"];
    check(
        &format,
        b"\x83\xa4temp\xcb\x40\x35\x5e\xb8\x51\xeb\x85\x1f\xa4data\x81\xa3hum\xca\x42\x20\x66\x66\xa4list\x92\x01\xfe",
        paths,
        Ok(&["2.137e1 4.01e1 -2"]),
    );
    check(
        &format,
        b"\x92\x81\xa4temp\xd3\xff\xff\xff\xff\xff\xff\xff\x00\x82\xa4temp\xc0\xa1x\xc7\x03\x05abc",
        paths,
        Ok(&["-256 - -", "- - -"]),
    );
    // Timestamps of 4, 8 and 12 bytes.
    check(
        &format,
        b"\x83\xa4temp\xd6\xff\x00\x00\x00\x05\xa1a\xd7\xff\x00\x00\x00\x08\x00\x00\x00\x01\xa1b\xc7\x0c\xff\x00\x00\x00\x07\xff\xff\xff\xff\xff\xff\xff\xff",
        &["temp", "a", "b"],
        Ok(&["5000000000e-9 1000000002e-9 -999999993e-9"]),
    );
    let deep = [[0x81, 0xa1, b'a'].repeat(70), vec![0x01]].concat();
    refused(
        &format,
        &[
            b"\x01",
            b"\x81",
            b"\x81\xa4temp",
            b"\x81\xa4temp\x01\x01",
            b"\xdf\xff\xff\xff\xff",
            b"\xdd\xff\xff\xff\xff",
            b"\x81\xa4temp\xdb\xff\xff\xff\xff",
            b"\x81\xa2\xff\xff\x01",
            b"\x81\xa4temp\xc1",
            b"\x81\x80\x01",
            &deep,
        ],
        Reason::MalformedPayload,
    );
    check(
        &format,
        b"\x93\xc0\x81\xa4temp\x02\x91\x07",
        &["temp"],
        Ok(&["2", "2 malformed_payload"]),
    );
    refused(&format, &[b""], Reason::EmptyPayload);
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(body, ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn packed_bodies_are_unpacked_within_their_bound() {
    let unpacked =
        |compression, body: &[u8], max| unpack(compression, body, max, &mut Vec::new()).map(<[u8]>::to_vec);
    let text = b"{\"temp\":21.5}".repeat(10);
    for (compression, packed) in [(Compression::Gzip, gzip(&text)), (Compression::Zstd, zstd(&text))] {
        assert_eq!(unpacked(compression, &packed, 1_000), Ok(text.clone()));
        assert_eq!(unpacked(compression, &packed, text.len()), Ok(text.clone()));
        assert_eq!(
            unpacked(compression, &packed, text.len() - 1),
            Err(Reason::OversizedPayload)
        );
        for cut in 0..packed.len() {
            let torn = unpacked(compression, &packed[..cut], 1_000);
            assert!(
                torn != Ok(text.clone()) || cut + 4 >= packed.len(),
                "{compression:?} {cut}"
            );
        }
        assert_eq!(
            unpacked(compression, b"{\"temp\":1}", 1_000),
            Err(Reason::MalformedPayload)
        );
        assert_eq!(unpacked(compression, b"", 1_000), Err(Reason::MalformedPayload));
        assert_eq!(
            unpacked(compression, &packed, 10),
            Err(Reason::OversizedPayload),
            "packed too long"
        );
    }
    assert_eq!(unpacked(Compression::None, &text, 1_000), Ok(text));
    // A bomb: 64 MiB of nothing in some kilobytes.
    let bomb = vec![0; 64 << 20];
    for (compression, packed) in [(Compression::Gzip, gzip(&bomb)), (Compression::Zstd, zstd(&bomb))] {
        assert!(packed.len() < 80_000);
        let mut out = Vec::new();
        assert_eq!(
            unpack(compression, &packed, 100_000, &mut out),
            Err(Reason::OversizedPayload)
        );
        assert!(out.capacity() < 1 << 20, "{compression:?} {}", out.capacity());
    }
    // A frame that asks for a window of 3.75 TiB, and one that says it has 2^60 bytes.
    let vast = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff][..], &[0; 9]].concat();
    assert_eq!(
        unpacked(Compression::Zstd, &vast, 1_000),
        Err(Reason::OversizedPayload)
    );
    let long = [
        &[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..],
        &(1_u64 << 60).to_le_bytes(),
        &[0; 9],
    ]
    .concat();
    assert_eq!(
        unpacked(Compression::Zstd, &long, 1_000),
        Err(Reason::OversizedPayload)
    );
}

fn formats() -> Vec<Format> {
    let mut all: Vec<Format> = Format::NAMED.into_iter().map(|(_, format)| format).collect();
    all.extend([csv(None, b','), csv(Some(&["temp", "hum"]), b';')]);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_make_a_decoder_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        for format in formats() {
            for topic in [TOPIC, "spBv1.0/plant/DBIRTH/edge/pump", "spBv1.0/plant/NDEATH/edge"] {
                let paths = ["temp", "data.hum.0", "tags.a", "metrics.b", "n", "v", "t", "value"];
                let _ = found(format.clone(), &payload, &paths, &mut Births::default(), topic);
            }
        }
        for compression in [Compression::Gzip, Compression::Zstd] {
            let _ = unpack(compression, &payload, 1_000, &mut Vec::new());
        }
    }

    #[test]
    fn nor_do_bytes_that_look_like_a_payload(
        text in "[-{}\\[\\]:,\"\\\\a-z0-9 .=#\n]{0,60}",
        bytes in prop::collection::vec(
            prop_oneof![Just(0x81_u8), Just(0xa1), Just(0xbf), Just(0x9f), Just(0xff), Just(0xc4), 0..30_u8, any::<u8>()],
            0..60,
        ),
    ) {
        for format in formats() {
            for payload in [text.as_bytes(), &bytes] {
                let _ = found(format.clone(), payload, &["a", "a.0.b", "0"], &mut Births::default(), TOPIC);
            }
        }
        for magic in [&[0x28_u8, 0xb5, 0x2f, 0xfd][..], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0]] {
            let body = [magic, &bytes].concat();
            let _ = unpack(Compression::Zstd, &body, 1_000, &mut Vec::new());
            let _ = unpack(Compression::Gzip, &body, 1_000, &mut Vec::new());
        }
    }
}
