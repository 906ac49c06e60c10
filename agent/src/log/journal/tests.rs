//! What is written is what is read, up to where the bytes are whole.

use catchment_common::number::decimal::Value;
use catchment_common::plan::{Components, FieldSource, KeyPart, Path, Pipeline, PipelineField, PipelineId};
use catchment_common::time::{Span, Timestamp};
use catchment_common::wire::AgentPlan;
use proptest::prelude::*;

use super::record::Record;
use super::*;
use crate::log::disk::{File, Job, MemoryDisk, Step, frame};

fn plan() -> AgentPlan {
    let field = |path: &str, resolution| PipelineField {
        source: FieldSource::path(path),
        resolution,
        components: Components::STATS,
    };
    let pipeline = Pipeline {
        fields: vec![field("a", None), field("b", Some(10_i128.pow(16)))],
        pane: Span::from_secs(10),
        max_ahead: Span::from_secs(1),
        idle: Span::from_secs(1),
        ..Pipeline::example()
    };
    AgentPlan {
        version: 1,
        pipelines: vec![
            (PipelineId(1), pipeline.clone()),
            (
                PipelineId(2),
                Pipeline {
                    watched: vec![KeyPart::Capture(0), KeyPart::Payload(Path::parse("tag"))],
                    ..pipeline
                },
            ),
        ],
        coarser: Vec::new(),
    }
}

fn journal(disk: &mut MemoryDisk) -> Journal {
    let mut journal = Journal::new(1 << 20, [], 1, 8);
    journal.snapshot(
        &Snapshot {
            plan: plan(),
            ..Snapshot::default()
        },
        &[],
        Cut::default(),
    );
    flush(&mut journal, disk);
    journal
}

fn flush(journal: &mut Journal, disk: &mut MemoryDisk) {
    let mut steps = Vec::new();
    while journal.first_ended().is_some() {
        journal.take_ended(None, &Told::default(), &mut steps);
    }
    journal.take_group(None, &mut steps);
    disk.execute(&Job { id: 1, steps });
}

/// Pipeline, key, time, values and tags of all readings that are read back, keys by their bytes.
type Readings = Vec<(u16, Vec<u8>, Timestamp, Vec<Option<Value>>, Vec<Option<Vec<u8>>>)>;

fn readings(disk: &MemoryDisk) -> (Readings, Replayed) {
    let (mut all, mut keys, mut at) = (Vec::new(), std::collections::BTreeMap::new(), 0);
    let replayed = Segments::find(disk).unwrap().replay(disk, |segment, _, record| {
        if segment != at {
            keys.clear();
            at = segment;
        }
        match record {
            Record::Key { number, bytes } => {
                keys.insert(number, bytes.to_vec());
            }
            Record::Reading {
                pipeline,
                key,
                at,
                values,
                tags,
            } => {
                let tags = tags.into_iter().map(|tag| tag.map(<[u8]>::to_vec)).collect();
                all.push((pipeline, keys[&key].clone(), at, values, tags));
            }
            _ => {}
        }
    });
    (all, replayed)
}

proptest! {
    #[test]
    fn readings_come_back_as_they_were(
        input in prop::collection::vec(
            (
                0_u16..2,
                0_u32..8,
                -4_000_000_000_000_000_i64..4_000_000_000_000_000,
                prop::option::of(-10_i128.pow(36) + 1..10_i128.pow(36)),
                prop::option::of(-10_i128.pow(12)..10_i128.pow(12)),
                0_u8..4,
            ),
            1..60,
        ),
    ) {
        let mut disk = MemoryDisk::default();
        let mut journal = journal(&mut disk);
        let fields = plan().pipelines[0].1.fields.clone();
        let mut expected = Vec::new();
        for (pipeline, key, micros, units, steps, then) in input {
            let at = Timestamp::clamped(micros);
            let values = vec![
                units.and_then(Value::from_units),
                steps.and_then(|steps| Value::from_units(steps * 10_i128.pow(16))),
            ];
            let name = [b'k', key as u8];
            // The second pipeline watches two tags, of which one is not there.
            let mut tags = TagValues::default();
            if pipeline == 1 {
                tags.push(None);
                tags.push(Some(&name));
            }
            journal.reading(pipeline, (key, &name), at, (&fields, &values), &tags);
            let tags = tags.iter().map(|tag| tag.map(<[u8]>::to_vec)).collect();
            expected.push((pipeline, name.to_vec(), at, values, tags));
            match then {
                0 => flush(&mut journal, &mut disk),
                1 => {
                    flush(&mut journal, &mut disk);
                    journal.begin_segment(8);
                    journal.snapshot(&Snapshot { plan: plan(), ..Snapshot::default() }, &[], Cut::default());
                }
                2 => journal.forget_key(key),
                _ => {}
            }
        }
        flush(&mut journal, &mut disk);
        let (found, replayed) = readings(&disk);
        prop_assert_eq!(found, expected);
        prop_assert_eq!(replayed.damaged, 0);
    }
}

#[test]
fn a_typical_reading_takes_few_bytes() {
    let mut disk = MemoryDisk::default();
    let mut journal = journal(&mut disk);
    let fields = plan().pipelines[0].1.fields.clone();
    let value = |text: &str| Some(Value::parse(text.as_bytes()).unwrap().value);
    for number in 0..1_000_u32 {
        let at = Timestamp::clamped(1_700_000_000_000_000 + i64::from(number) * 10_000);
        let name = format!("berlin\0dev-{:03}", number % 8);
        journal.message(SourceId(0), number as u16 + 1, number);
        let values = [value("21.37"), value("47.25")];
        journal.reading(
            0,
            (number % 8, name.as_bytes()),
            at,
            (&fields, &values),
            &TagValues::default(),
        );
    }
    let bytes = journal.waiting();
    assert!(
        bytes <= 24 * 1_000,
        "{bytes} bytes for 1,000 readings of two fields"
    );
}

#[test]
fn a_torn_or_damaged_end_is_cut_off_and_counted_and_what_is_before_it_stays() {
    let mut disk = MemoryDisk::default();
    let mut journal = journal(&mut disk);
    let fields = plan().pipelines[0].1.fields.clone();
    let at = Timestamp::clamped(0);
    let mut last_group = 0;
    for _ in 0..2 {
        last_group = disk.file_mut(File::Journal(1)).unwrap().len();
        journal.reading(
            0,
            (1, b"k"),
            at,
            (&fields, &[Some(Value::ZERO), None]),
            &TagValues::default(),
        );
        flush(&mut journal, &mut disk);
    }
    let whole = disk.file_mut(File::Journal(1)).unwrap().clone();
    for length in last_group + 1..whole.len() {
        let mut torn = disk.clone();
        torn.file_mut(File::Journal(1)).unwrap().truncate(length);
        let (found, replayed) = readings(&torn);
        assert_eq!(found.len(), 1, "cut at {length}");
        assert_eq!(replayed.damaged, 1);
    }
    let mut flipped = disk.clone();
    flipped.file_mut(File::Journal(1)).unwrap()[last_group + 12] ^= 1;
    assert_eq!(readings(&flipped).0.len(), 1);
}

#[test]
fn segments_before_a_gap_are_not_read() {
    let mut disk = MemoryDisk::default();
    let mut journal = journal(&mut disk);
    let fields = plan().pipelines[0].1.fields.clone();
    for _ in 0..3 {
        let at = Timestamp::clamped(i64::from(journal.segment()));
        journal.reading(
            0,
            (1, b"k"),
            at,
            (&fields, &[Some(Value::ZERO), None]),
            &TagValues::default(),
        );
        flush(&mut journal, &mut disk);
        journal.begin_segment(8);
        journal.snapshot(
            &Snapshot {
                plan: plan(),
                ..Snapshot::default()
            },
            &[],
            Cut::default(),
        );
    }
    disk.take(&Step::Remove(File::Journal(2)));
    let segments = Segments::find(&disk).unwrap();
    let kept: Vec<u32> = segments.sizes().map(|(number, _)| number).collect();
    assert_eq!((kept, segments.newest()), (vec![3], Some(3)));
    assert_eq!(segments.broken(), [1]);
    assert_eq!(readings(&disk).0.len(), 1);
}

/// Frames a changed body again, as software that means it would have.
fn reframe(file: &mut Vec<u8>, change: impl FnOnce(&mut [u8])) {
    let length = u32::from_le_bytes(*file.first_chunk().unwrap()) as usize;
    let mut first = Vec::new();
    let start = frame::begin(&mut first);
    first.extend_from_slice(&file[frame::HEAD..frame::HEAD + length]);
    change(&mut first[start..]);
    frame::end(&mut first, start);
    file.splice(..frame::HEAD + length, first);
}

#[test]
fn a_segment_of_newer_software_is_told_from_a_damaged_one() {
    let mut disk = MemoryDisk::default();
    journal(&mut disk);
    let mut newer = disk.clone();
    reframe(newer.file_mut(File::Journal(1)).unwrap(), |body| {
        assert_eq!(body[..2], [10, 2], "kind and version of a snapshot");
        body[1] = 3;
    });
    let (_, replayed) = readings(&newer);
    assert_eq!((replayed.newer, replayed.unread), (Some((1, 3)), vec![1]));
    // A whole group with a record of an unknown kind: a copy of it is to be kept.
    let mut unknown = disk.clone();
    reframe(unknown.file_mut(File::Journal(1)).unwrap(), |body| body[0] = 0xee);
    let (_, replayed) = readings(&unknown);
    assert_eq!((replayed.newer, replayed.unread), (None, vec![1]));
    assert!(replayed.lost);
    let (_, replayed) = readings(&disk);
    assert_eq!((replayed.newer, replayed.unread), (None, vec![]));
}
