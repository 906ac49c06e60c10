//! The fleet step by step: what is due when, what each fault does, and one seed, one fleet.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::dice::Chance;

fn settings() -> Settings {
    Settings {
        devices: 20,
        interval_us: 100_000,
        steps: 200,
        seed: 42,
        start_us: 1_700_000_000_000_000,
        sites: vec!["berlin".into(), "lisbon".into()],
        faults: Faults::default(),
    }
}

fn faulty() -> Faults {
    let chance = |probability| Chance::new(probability).unwrap();
    Faults {
        duplicates: chance(0.05),
        disorder: chance(0.1),
        disorder_us: 5_000_000,
        skew_ms: 2_000,
        dropouts: chance(0.005),
        bad: chance(0.02),
    }
}

fn all(settings: Settings) -> Vec<Message> {
    let mut fleet = Fleet::new(settings);
    let messages = std::iter::from_fn(|| fleet.poll_message(u64::MAX)).collect();
    assert!(fleet.is_finished());
    messages
}

fn stamp(message: &Message) -> i64 {
    let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    json["ts"].as_i64().unwrap()
}

#[test]
fn one_seed_one_fleet_however_it_is_polled() {
    let faults = faulty();
    let expected = all(Settings { faults, ..settings() });
    let mut fleet = Fleet::new(Settings { faults, ..settings() });
    let mut polled = Vec::new();
    let mut elapsed_us = 0;
    while !fleet.is_finished() {
        polled.extend(std::iter::from_fn(|| fleet.poll_message(elapsed_us)));
        elapsed_us += 7_777;
    }
    assert_eq!(polled, expected);
    assert_ne!(
        all(Settings {
            faults,
            seed: 43,
            ..settings()
        }),
        expected
    );
}

#[test]
fn without_faults_every_reading_is_published_once_and_in_time() {
    let messages = all(settings());
    assert_eq!(messages.len(), 4_000);
    assert!(messages.is_sorted_by_key(stamp));
    let first = &messages[0];
    assert_eq!(
        (first.topic.as_str(), stamp(first)),
        ("sensors/berlin/dev-0000/env", 1_700_000_000_000)
    );
    assert_eq!(messages[1].topic, "sensors/lisbon/dev-0001/env");
    assert_eq!(stamp(&messages[20]), 1_700_000_000_100);
    let topics: BTreeSet<&str> = messages.iter().map(|message| message.topic.as_str()).collect();
    assert_eq!(topics.len(), 20);
}

#[test]
fn messages_wait_for_their_time() {
    let mut fleet = Fleet::new(settings());
    // One step of 20 devices is 100 ms: 5 ms each.
    let due = |fleet: &mut Fleet, elapsed| std::iter::from_fn(|| fleet.poll_message(elapsed)).count();
    assert_eq!(due(&mut fleet, 0), 1);
    assert_eq!(due(&mut fleet, 4_999), 0);
    assert_eq!(due(&mut fleet, 50_000), 10);
}

#[test]
fn faults_leave_the_measured_values_alone() {
    let clean: BTreeSet<Vec<u8>> = all(settings())
        .into_iter()
        .map(|message| message.payload)
        .collect();
    let faults = Faults {
        skew_ms: 0,
        ..faulty()
    };
    let messages = all(Settings { faults, ..settings() });
    let (bad, good): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| message.bad.is_some());
    assert!(good.iter().all(|message| clean.contains(&message.payload)));
    assert!(good.len() < 4_000 && !bad.is_empty());
    let kinds: BTreeSet<Bad> = bad.iter().filter_map(|message| message.bad).collect();
    assert_eq!(kinds.len(), Bad::ALL.len(), "every kind in turn");
}

#[test]
fn devices_number_their_readings_and_never_start_over() {
    let number = |message: &Message| {
        let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        json["seq"].as_u64().unwrap()
    };
    let numbers = |settings: Settings, device: u32| -> Vec<u64> {
        let all = all(settings).into_iter();
        all.filter(|message| message.device == device)
            .map(|message| number(&message))
            .collect()
    };
    for device in [0, 7, 19] {
        let first = numbers(settings(), device);
        assert!(first.windows(2).all(|pair| pair[1] == pair[0] + 1));
        let start_us = settings().start_us + 20_000_000;
        let next = numbers(
            Settings {
                start_us,
                ..settings()
            },
            device,
        );
        assert_eq!(next[0], first[199] + 1, "a run that follows goes on");
    }
}

#[test]
fn duplicates_and_late_readings_keep_their_content() {
    let faults = Faults {
        dropouts: Chance::NEVER,
        bad: Chance::NEVER,
        skew_ms: 0,
        ..faulty()
    };
    let messages = all(Settings { faults, ..settings() });
    let mut counts: BTreeMap<(&str, &[u8]), usize> = BTreeMap::new();
    for message in &messages {
        *counts.entry((&message.topic, &message.payload)).or_default() += 1;
    }
    assert_eq!(counts.len(), 4_000, "nothing is lost");
    let twice = counts.values().filter(|count| **count == 2).count();
    assert!((100..300).contains(&twice), "{twice}");
    assert!(!messages.is_sorted_by_key(stamp));
    let mut newest = 0;
    for message in &messages {
        newest = newest.max(stamp(message));
        assert!(newest - stamp(message) <= 5_001);
    }
}

#[test]
fn held_messages_are_bounded_by_the_devices() {
    let always = Chance::new(1.0).unwrap();
    let faults = Faults {
        disorder: always,
        duplicates: always,
        disorder_us: 3_600_000_000,
        ..Faults::default()
    };
    let mut fleet = Fleet::new(Settings { faults, ..settings() });
    let mut published = 0;
    while fleet.poll_message(u64::MAX).is_some() {
        published += 1;
        assert!(fleet.held.len() <= fleet.held_max + 2);
    }
    assert_eq!(published, 8_000);
}

#[test]
fn decimals_have_all_their_places() {
    assert_eq!(decimal(2_137, 2), "21.37");
    assert_eq!(decimal(5, 2), "0.05");
    assert_eq!(decimal(-5, 2), "-0.05");
    assert_eq!(decimal(-2_130, 2), "-21.30");
    assert_eq!(decimal(1_000, 1), "100.0");
}
