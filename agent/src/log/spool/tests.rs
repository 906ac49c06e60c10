//! Stories of the spool, on a disk in memory, with a restart in each: what is held comes back as it was.

use std::collections::BTreeSet;

use catchment_common::limits::{HELD_EPOCHS_MAX, RANGES_MAX};
use catchment_common::number::decimal::Value;
use catchment_common::plan::{Components, FieldSource, Pipeline, PipelineField};
use catchment_common::stats::Stats;
use catchment_common::time::{Instant, Timestamp};
use catchment_common::wire::{
    AgentPlan, Batch, BatchWriter, Coarser, EpochRange, HeldEpoch, Hello, Loss, Message, Section, SeqRange,
    StatsScratch,
};

use catchment_common::wire::rename;

use super::*;
use crate::log::disk::{Disk, MemoryDisk};

const BASE: PipelineId = PipelineId(1);
const MINUTE: PipelineId = PipelineId(2);
const HOUR: PipelineId = PipelineId(3);

fn plan() -> AgentPlan {
    let pipeline = Pipeline {
        fields: vec![PipelineField {
            source: FieldSource::path("a"),
            resolution: None,
            components: Components::STATS,
        }],
        pane: Span::from_secs(10),
        max_ahead: Span::from_secs(1),
        idle: Span::from_secs(1),
        ..Pipeline::example()
    };
    let step = |pipeline, seconds| Coarser {
        of: BASE,
        pipeline,
        pane: Span::from_secs(seconds),
    };
    AgentPlan {
        version: 1,
        pipelines: vec![(BASE, pipeline)],
        coarser: vec![step(MINUTE, 60), step(HOUR, 3_600)],
    }
}

/// A batch of one pane: `keys` keys with one reading each of their own value.
pub(crate) fn frame(pane: i64, keys: u32) -> Bytes {
    let start = Timestamp::clamped(pane * 10_000_000);
    let mut section = Section::default();
    section.reset(BASE, start, [Components::STATS].into_iter());
    for key in 0..keys {
        let mut stats = Stats::IDENTITY;
        let value = Value::from_units(i128::from((i64::from(key) + pane) % 1_000) * 10_i128.pow(16)).unwrap();
        stats.lift(Components::STATS, start, value);
        section.keys.push(format!("key-{key:06}").as_bytes());
        section.readings.push(1);
        section.stats.push(stats);
    }
    let mut writer = BatchWriter::default();
    writer.push(&section);
    let mut frame = Vec::new();
    writer.seal(0, 0, &mut frame);
    frame.into()
}

const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    retain: Span::from_secs(60),
};

fn now(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

/// What a job does: makes all that is written durable.
fn commit(spool: &mut Spool, disk: &mut MemoryDisk) {
    loop {
        let is_last = spool.prepare(None, disk);
        let mut steps = Vec::new();
        spool.take_writes(&mut steps);
        spool.take_removals(&mut steps);
        for step in &steps {
            disk.take(step);
            let on_disk: u64 = disk.list().unwrap().iter().map(|(_, length)| length).sum();
            assert!(on_disk <= LIMITS.bytes, "{on_disk} bytes after {step:?}");
        }
        if is_last {
            break;
        }
    }
    spool.handle_durable(spool.ordinal());
}

fn restart(spool: &Spool, disk: &MemoryDisk) -> Spool {
    let (mut again, found) = Spool::recover(LIMITS, Some(spool.ordinal()), disk).unwrap();
    again.add_ladders(&plan());
    assert_eq!((found.damaged, found.cut_off), (0, 0));
    assert_eq!(
        again.len() + again.retention.len(),
        spool.len() + spool.retention.len()
    );
    assert_eq!(
        again.bytes(),
        spool.bytes(),
        "bytes of files {:?} {:?}",
        again.log,
        spool.log
    );
    let first = again.ordinal();
    assert!(
        again.next(|_| true, disk).is_none(),
        "not before the first job has synced it"
    );
    again.handle_durable(first);
    again
}

fn new_spool() -> Spool {
    let mut spool = Spool::new(LIMITS, 1);
    spool.add_ladders(&plan());
    spool
}

fn drain(spool: &mut Spool, disk: &MemoryDisk) -> Vec<Bytes> {
    std::iter::from_fn(|| spool.next(|_| true, disk))
        .map(|(_, frame)| frame)
        .collect()
}

/// Names, sends and acknowledges until all is delivered, as an aggregator would take it; returns what was sent.
fn deliver(spool: &mut Spool, disk: &mut MemoryDisk, mut first: Name) -> Vec<Bytes> {
    let mut sent = Vec::new();
    spool.resume(&[], |_| true, now(0));
    while !spool.is_empty() {
        first.seq += spool.seal(first);
        commit(spool, disk);
        let frames = drain(spool, disk);
        assert!(!frames.is_empty(), "{} batches are left", spool.len());
        for frame in frames {
            let (epoch, seq) = catchment_common::wire::sealed_name(&frame).unwrap();
            let range = SeqRange {
                first: seq,
                last: seq,
            };
            assert_eq!(spool.acknowledge(epoch, &[range], now(0)), 1);
            sent.push(frame);
        }
    }
    sent
}

fn names(frames: &[Bytes]) -> Vec<u64> {
    frames
        .iter()
        .map(|frame| catchment_common::wire::sealed_name(frame).unwrap().1)
        .collect()
}

/// Readings and sum of all batches, with the pipelines that they are in; and the readings of all losses.
fn totals(frames: &[Bytes]) -> (u64, Stats, BTreeSet<PipelineId>, u64) {
    let (mut readings, mut sum, mut pipelines, mut lost) = (0, Stats::IDENTITY, BTreeSet::new(), 0);
    let (mut section, mut scratch) = (Section::default(), StatsScratch::default());
    for frame in frames {
        if Loss::is_loss(frame) {
            lost += Loss::parse(frame)
                .unwrap()
                .entries
                .iter()
                .map(|entry| entry.readings)
                .sum::<u64>();
            continue;
        }
        for view in Batch::parse(frame).unwrap().sections() {
            view.unwrap().read(&mut section, &mut scratch).unwrap();
            readings += section.readings.iter().sum::<u64>();
            section.stats.iter().for_each(|stats| sum.merge(stats));
            pipelines.insert(section.pipeline);
        }
    }
    (readings, sum, pipelines, lost)
}

const FIRST: Name = Name { epoch: 9, seq: 1 };

#[test]
fn nothing_is_sent_before_it_is_durable_and_everything_until_it_is_acknowledged() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    for seq in 1..=3 {
        spool.push(frame(seq as i64, 2), Some(Name { epoch: 9, seq }), Lane::Live);
    }
    assert!(drain(&mut spool, &disk).is_empty());
    commit(&mut spool, &mut disk);
    assert_eq!(names(&drain(&mut spool, &disk)), [1, 2, 3]);
    assert_eq!(
        spool.acknowledge(
            9,
            &[SeqRange {
                first: 2,
                last: u64::MAX
            }],
            now(0)
        ),
        2
    );
    let mut spool = restart(&spool, &disk);
    // After a restart nobody knows what was acknowledged: the aggregator says.
    let held = spool.ranges(10);
    assert_eq!(
        held,
        [EpochRange {
            epoch: 9,
            ranges: vec![SeqRange { first: 1, last: 3 }]
        }]
    );
    let committed = EpochRange {
        epoch: 9,
        ranges: vec![SeqRange { first: 2, last: 3 }],
    };
    spool.resume(&[committed], |_| true, now(1));
    assert_eq!(names(&drain(&mut spool, &disk)), [1]);
}

/// Three epochs with more gaps than a hello can name, and the aggregator would have let this agent in no more.
#[test]
fn a_hello_is_never_too_long_for_its_reader() {
    for (epochs, each) in [
        (3, 1_500),
        (2, 2_100),
        (1, 4_200),
        (HELD_EPOCHS_MAX as u64 + 9, 1),
    ] {
        let limits = Limits {
            bytes: 16 << 20,
            ..LIMITS
        };
        let (mut spool, mut disk) = (Spool::new(limits, 1), MemoryDisk::default());
        let frame = frame(1, 1);
        for epoch in 1..=epochs {
            for seq in 1..=each {
                let name = Name { epoch, seq: 2 * seq };
                spool.push(frame.clone(), Some(name), Lane::Live);
            }
        }
        commit(&mut spool, &mut disk);
        let hello = Hello {
            agent: "a".into(),
            software: "test".into(),
            epoch: 1,
            plan: 1,
            database: None,
            lineage: None,
            held: { spool.ranges(RANGES_MAX).into_iter() }
                .map(|batches| HeldEpoch {
                    batches,
                    database: None,
                })
                .collect(),
        };
        assert_eq!(hello.held.len(), HELD_EPOCHS_MAX.min(epochs as usize));
        assert!(hello.held.iter().all(|epoch| epoch.batches.ranges[0].first == 2));
        let message = Message::Hello(hello);
        assert_eq!(Message::parse(&message.emit()), Ok(message), "{epochs} epochs");
    }
}

#[test]
fn an_aggregator_that_lost_commits_gets_them_again_while_they_are_kept() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    for seq in 1..=3 {
        spool.push(frame(seq as i64, 2), Some(Name { epoch: 9, seq }), Lane::Live);
    }
    commit(&mut spool, &mut disk);
    drain(&mut spool, &disk);
    spool.acknowledge(9, &[SeqRange { first: 1, last: 3 }], now(0));
    assert!(spool.is_empty());
    let has = |last| {
        [EpochRange {
            epoch: 9,
            ranges: vec![SeqRange { first: 1, last }],
        }]
    };
    spool.handle_disconnected();
    spool.resume(&has(1), |_| true, now(1));
    assert_eq!(names(&drain(&mut spool, &disk)), [2, 3]);
    assert_eq!(spool.take_resent(), 2);
    spool.acknowledge(9, &[SeqRange { first: 1, last: 3 }], now(2));
    spool.expire(now(63));
    spool.resume(&has(1), |_| true, now(64));
    assert!(drain(&mut spool, &disk).is_empty(), "kept long enough");
}

#[test]
fn unsealed_batches_get_their_names_when_the_link_is_up_and_keep_them() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    for pane in 1..=3 {
        spool.push(frame(pane, 2), None, Lane::Backlog);
    }
    commit(&mut spool, &mut disk);
    let mut spool = restart(&spool, &disk);
    assert!(spool.holds_others(9));
    assert_eq!(spool.seal(FIRST), 3);
    assert!(
        drain(&mut spool, &disk).is_empty(),
        "the names are not durable yet"
    );
    commit(&mut spool, &mut disk);
    let sent = drain(&mut spool, &disk);
    assert_eq!(names(&sent), [1, 2, 3]);
    let mut again = restart(&spool, &disk);
    assert!(!again.holds_others(9) && again.holds_others(8));
    assert_eq!(again.seal(Name { epoch: 10, seq: 1 }), 0);
    again.resume(&[], |_| true, now(0));
    assert_eq!(
        drain(&mut again, &disk),
        sent,
        "the same bytes under the same names"
    );
}

#[test]
fn what_the_journal_does_not_know_is_cut_off() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    spool.push(frame(1, 2), None, Lane::Backlog);
    commit(&mut spool, &mut disk);
    let known = spool.ordinal();
    spool.push(frame(2, 2), None, Lane::Backlog);
    commit(&mut spool, &mut disk);
    let (mut again, found) = Spool::recover(LIMITS, Some(known), &disk).unwrap();
    assert_eq!((found.batches, found.cut_off), (1, 1));
    // What comes next takes the same ordinal, and must not be taken for what was cut off.
    again.push(frame(3, 2), None, Lane::Backlog);
    commit(&mut again, &mut disk);
    let (mut last, found) = Spool::recover(LIMITS, Some(again.ordinal()), &disk).unwrap();
    assert_eq!((found.batches, found.cut_off), (2, 0));
    last.seal(FIRST);
    commit(&mut last, &mut disk);
    let (_, expected, _, _) = {
        let mut frames = [frame(1, 2), frame(3, 2)].map(|frame| frame.to_vec());
        let renamed = frames.iter_mut().map(|frame| {
            let mut out = Vec::new();
            rename(frame, 9, 1, &mut out).unwrap();
            Bytes::from(out)
        });
        totals(&renamed.collect::<Vec<_>>())
    };
    assert_eq!(totals(&drain(&mut last, &disk)).1, expected);
}

/// Fills the spool with this many panes of this many keys while the link is down, with restarts between.
fn outage(panes: i64, keys: u32) -> (Spool, MemoryDisk, u64, Stats) {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    let mut expected = Stats::IDENTITY;
    for pane in 0..panes {
        let frame = frame(pane, keys);
        let mut renamed = Vec::new();
        rename(&frame, 1, 1, &mut renamed).unwrap();
        expected.merge(&totals(&[renamed.into()]).1);
        spool.push(frame, None, Lane::Backlog);
        commit(&mut spool, &mut disk);
        assert!(
            spool.bytes() <= LIMITS.bytes,
            "pane {pane}: {} bytes",
            spool.bytes()
        );
        let on_disk: u64 = disk.list().unwrap().iter().map(|(_, length)| length).sum();
        assert_eq!(on_disk, spool.bytes(), "pane {pane}");
        if pane % 97 == 96 {
            spool = restart(&spool, &disk);
        }
    }
    (spool, disk, panes as u64 * u64::from(keys), expected)
}

#[test]
fn a_long_outage_ends_with_exact_totals_in_wider_panes() {
    // A day of 10 s panes of 50 keys: about 6 MB as closed.
    let (mut spool, mut disk, expected, sum) = outage(8_640, 50);
    let sent = deliver(&mut spool, &mut disk, FIRST);
    let (readings, found, pipelines, lost) = totals(&sent);
    assert_eq!((readings, lost), (expected, 0));
    assert_eq!(found, sum, "every sum, square and extreme is exact");
    assert!(
        pipelines.contains(&HOUR) && pipelines.contains(&BASE),
        "{pipelines:?}"
    );
    assert!(spool.take_lost().is_empty());
}

#[test]
fn what_does_not_fit_even_so_is_lost_and_said() {
    // One pane of so many keys that no ladder helps: keys are what takes the room.
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    let keys = 4_000;
    for pane in 0..150 {
        spool.push(frame(pane * 360, keys), None, Lane::Backlog);
        commit(&mut spool, &mut disk);
        assert!(spool.bytes() <= LIMITS.bytes);
    }
    spool = restart(&spool, &disk);
    let (readings, _, _, lost) = totals(&deliver(&mut spool, &mut disk, FIRST));
    assert_eq!(
        readings + lost,
        150 * u64::from(keys),
        "each reading is there or said to be lost"
    );
    assert!(lost > 0 && readings > 0);
}

#[test]
fn a_named_batch_that_is_dropped_leaves_its_name_to_the_record_of_its_loss() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    for seq in 1..=150 {
        spool.push(
            frame(seq as i64 * 360, 4_000),
            Some(Name { epoch: 9, seq }),
            Lane::Live,
        );
        commit(&mut spool, &mut disk);
    }
    let mut spool = restart(&spool, &disk);
    spool.resume(&[], |_| true, now(0));
    let sent = drain(&mut spool, &disk);
    let mut seqs = names(&sent);
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=150).collect::<Vec<u64>>(), "each name is settled once");
    let (readings, _, _, lost) = totals(&sent);
    assert_eq!(readings + lost, 150 * 4_000);
    assert!(lost > 0);
}

#[test]
fn a_batch_that_cannot_be_read_back_is_counted_and_its_name_settled() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    spool.push(frame(1, 2), Some(FIRST), Lane::Live);
    commit(&mut spool, &mut disk);
    let mut spool = restart(&spool, &disk);
    let file = File::Spool(1);
    let last = disk.file_mut(file).unwrap().len() - 6;
    disk.file_mut(file).unwrap()[last] ^= 1;
    spool.resume(&[], |_| true, now(0));
    assert!(drain(&mut spool, &disk).is_empty());
    assert_eq!(spool.take_damaged(), 1);
    commit(&mut spool, &mut disk);
    let sent = drain(&mut spool, &disk);
    assert_eq!(names(&sent), [1]);
    assert!(Loss::parse(&sent[0]).unwrap().entries.is_empty());
}

#[test]
fn acknowledged_batches_make_room_before_anything_else() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    for seq in 1..=400 {
        spool.push(frame(seq as i64, 1_000), Some(Name { epoch: 9, seq }), Lane::Live);
        commit(&mut spool, &mut disk);
        assert!(spool.bytes() <= LIMITS.bytes);
        spool.acknowledge(
            9,
            &[SeqRange {
                first: seq,
                last: seq,
            }],
            now(0),
        );
    }
    assert!(spool.is_empty() && spool.take_lost().is_empty());
    spool.expire(now(61));
    commit(&mut spool, &mut disk);
    assert!(
        spool.bytes() <= spool.log.segment_bytes() + 30_000,
        "only the last segment is left: {:?}",
        spool.log
    );
}

#[test]
fn an_aggregator_that_does_not_even_know_the_epoch_gets_everything_again() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    spool.push(frame(1, 2), Some(FIRST), Lane::Live);
    commit(&mut spool, &mut disk);
    let sent = drain(&mut spool, &disk);
    let range = SeqRange { first: 1, last: 1 };
    assert_eq!(spool.acknowledge(FIRST.epoch, &[range], now(1)), 1);
    spool.handle_disconnected();
    // Its backup is from before this epoch, so its welcome does not name it.
    spool.resume(&[], |_| true, now(2));
    assert_eq!(spool.take_resent(), 1);
    assert_eq!(drain(&mut spool, &disk), sent);
}

#[test]
fn names_stay_what_they_were_when_the_files_of_earlier_ones_are_gone() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    for pane in 0..24 {
        spool.push(frame(pane, 2_000), None, Lane::Backlog);
    }
    commit(&mut spool, &mut disk);
    assert_eq!(spool.seal(FIRST), 24);
    commit(&mut spool, &mut disk);
    let sent = drain(&mut spool, &disk);
    let files = disk.list().unwrap().len();
    spool.acknowledge(FIRST.epoch, &[SeqRange { first: 1, last: 16 }], now(1));
    spool.expire(now(100));
    commit(&mut spool, &mut disk);
    assert!(
        disk.list().unwrap().len() < files,
        "the first batches' files are gone"
    );
    let mut again = restart(&spool, &disk);
    again.resume(&[], |_| true, now(101));
    let mut left = drain(&mut again, &disk);
    left.retain(|frame| names(std::slice::from_ref(frame))[0] > 16);
    assert_eq!(left, sent[16..], "the same bytes under the same names");
}

/// Nothing but a seal is in its file, which a later one follows: without it the batches would get other names.
#[test]
fn a_seal_stays_as_long_as_the_batches_that_it_names() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    for pane in 0..3 {
        spool.push(frame(pane, 2), None, Lane::Backlog);
    }
    commit(&mut spool, &mut disk);
    spool.log.begin_segment();
    assert_eq!(spool.seal(FIRST), 3);
    commit(&mut spool, &mut disk);
    spool.log.begin_segment();
    spool.push(frame(3, 2), Some(Name { seq: 4, ..FIRST }), Lane::Backlog);
    commit(&mut spool, &mut disk);
    assert_eq!(disk.list().unwrap().len(), 3);
    let sent = drain(&mut spool, &disk);
    let mut again = restart(&spool, &disk);
    again.resume(&[], |_| true, now(1));
    let sent_again = drain(&mut again, &disk);
    assert_eq!(names(&sent_again), [1, 2, 3, 4]);
    assert_eq!(sent_again, sent);
}

#[test]
fn what_is_live_goes_before_the_rest_of_the_backlog() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    for pane in 1..=20 {
        spool.push(frame(pane, 2), None, Lane::Backlog);
    }
    commit(&mut spool, &mut disk);
    spool.seal(FIRST);
    commit(&mut spool, &mut disk);
    let mut sent = Vec::new();
    let mut send = |spool: &mut Spool, disk: &MemoryDisk, has_live_room: bool| {
        let (lane, frame) = spool
            .next(|lane| lane == Lane::Backlog || has_live_room, disk)
            .unwrap();
        sent.push((lane, names(&[frame])[0]));
    };
    for _ in 0..5 {
        send(&mut spool, &disk, true);
    }
    for seq in 21..=22 {
        spool.push(frame(seq as i64, 2), Some(Name { epoch: 9, seq }), Lane::Live);
    }
    commit(&mut spool, &mut disk);
    send(&mut spool, &disk, true);
    // A live lane that is full does not hold up the backlog.
    send(&mut spool, &disk, false);
    send(&mut spool, &disk, true);
    send(&mut spool, &disk, true);
    let (live, backlog) = (Lane::Live, Lane::Backlog);
    assert_eq!(
        sent[4..],
        [(backlog, 5), (live, 21), (backlog, 6), (live, 22), (backlog, 7)]
    );
}

#[test]
fn what_comes_in_at_once_and_does_not_fit_is_lost_and_said() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    // Named and unsealed ones, far more than the budget, and no job between.
    let (count, keys) = (160, 4_000);
    for number in 1..=count {
        let name = (number % 2 == 0).then_some(Name {
            epoch: 9,
            seq: number,
        });
        spool.push(frame(number as i64 * 360, keys), name, Lane::Backlog);
    }
    commit(&mut spool, &mut disk);
    let mut spool = restart(&spool, &disk);
    let sent = deliver(&mut spool, &mut disk, Name { epoch: 10, seq: 1 });
    let (readings, _, _, lost) = totals(&sent);
    assert_eq!(readings + lost, count * u64::from(keys));
    assert!(lost > 0 && readings > 0);
    let named = { sent.iter() }.filter(|frame| catchment_common::wire::sealed_name(frame).unwrap().0 == 9);
    assert_eq!(named.count() as u64, count / 2, "each name is settled");
}

#[test]
fn a_seal_gives_names_to_what_waits_in_memory_too() {
    let (mut spool, mut disk) = (new_spool(), MemoryDisk::default());
    spool.push(frame(1, 2), None, Lane::Backlog);
    commit(&mut spool, &mut disk);
    spool.push(frame(2, 2), None, Lane::Backlog);
    assert_eq!(spool.oldest(9), None);
    assert_eq!(spool.seal(FIRST), 2);
    assert_eq!(spool.oldest(9), Some(1), "a watermark may speak for both");
    assert!(!spool.holds_others(9));
    commit(&mut spool, &mut disk);
    let mut again = restart(&spool, &disk);
    again.resume(&[], |_| true, now(0));
    assert_eq!(names(&drain(&mut again, &disk)), [1, 2]);
    assert_eq!(names(&drain(&mut spool, &disk)), [1, 2]);
}

#[test]
fn a_budget_that_was_made_smaller_is_come_down_to() {
    let large = Limits {
        bytes: 2 << 20,
        ..LIMITS
    };
    let (mut spool, mut disk) = (Spool::new(large, 1), MemoryDisk::default());
    spool.add_ladders(&plan());
    let job = |spool: &mut Spool, disk: &mut MemoryDisk| {
        let mut is_last = false;
        while !is_last {
            is_last = spool.prepare(None, disk);
            let mut steps = Vec::new();
            spool.take_writes(&mut steps);
            spool.take_removals(&mut steps);
            for step in &steps {
                disk.take(step);
            }
        }
        spool.handle_durable(spool.ordinal());
    };
    let (count, keys) = (150, 4_000);
    for pane in 0..count {
        spool.push(frame(pane * 360, keys), None, Lane::Backlog);
        job(&mut spool, &mut disk);
    }
    assert!(spool.bytes() > LIMITS.bytes, "{} bytes", spool.bytes());
    let (mut spool, _) = Spool::recover(LIMITS, Some(spool.ordinal()), &disk).unwrap();
    spool.add_ladders(&plan());
    spool.push(frame(count * 360, keys), None, Lane::Backlog);
    job(&mut spool, &mut disk);
    assert!(spool.bytes() <= LIMITS.bytes);
    spool.push(frame(count * 360 + 360, keys), None, Lane::Backlog);
    commit(&mut spool, &mut disk);
    let (readings, _, _, lost) = totals(&deliver(&mut spool, &mut disk, FIRST));
    assert_eq!(readings + lost, (count as u64 + 2) * u64::from(keys));
    assert!(readings > 0);
}
