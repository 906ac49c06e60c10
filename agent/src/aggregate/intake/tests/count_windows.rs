//! Count windows, from the reading to the section that leaves.

use super::*;

/// The agent's intake with windows of three readings in this memory, and what has left: window (milliseconds after the
/// first instant), key and readings.
struct Windows {
    bench: Bench,
    sections: Vec<(i64, String, u64)>,
    at: i64,
}

fn counted(count: u32) -> Pipeline {
    Pipeline {
        count: Some(count),
        pane: Span::from_millis(1),
        ..pipeline(None, None)
    }
}

impl Windows {
    fn new(count: u32, memory_bytes: usize) -> Self {
        Self {
            bench: Bench::with(counted(count), memory_bytes),
            sections: Vec::new(),
            at: 0,
        }
    }

    fn now(&self) -> Now {
        Now {
            wall: now().wall.plus(Span::from_millis(self.at)),
            ..now()
        }
    }

    fn publish(&mut self, site: &str) -> Closable {
        let (wall, sections) = (self.now(), &mut self.sections);
        let Bench {
            intake,
            metrics,
            journal,
        } = &mut self.bench;
        let payload = br#"{"ts":1699999999,"temp":1}"#;
        let topic = format!("s/{site}");
        intake.handle_message(
            wall,
            Message::of(&topic, payload),
            metrics,
            journal,
            |section, _| {
                sections.extend(rows(section));
            },
        )
    }

    fn close(&mut self) -> Vec<(i64, String, u64)> {
        let Self { bench, sections, .. } = self;
        bench
            .intake
            .close_due(&mut bench.journal, Pieces::Together, |_, section| {
                sections.extend(rows(section));
            });
        std::mem::take(sections)
    }
}

fn rows(section: &Section) -> Vec<(i64, String, u64)> {
    let number = section.pane.since(now().wall).as_micros() / 1_000;
    let keys = section.keys.iter().zip(&section.readings);
    keys.map(|(key, &readings)| (number, String::from_utf8_lossy(key).replace('\0', "/"), readings))
        .collect()
}

#[test]
fn full_windows_leave_and_others_stay_whatever_the_watermark() {
    let mut windows = Windows::new(3, 64 << 10);
    for (at, site) in [(0, "a"), (1, "b"), (2, "a"), (3, "a"), (4, "a")] {
        windows.at = at;
        let closable = windows.publish(site);
        assert_eq!(
            (closable.full, closable.on_time, closable.late),
            (at == 3, false, false)
        );
    }
    assert_eq!(windows.close(), [(0, "a/gw-1".into(), 3)]);
    assert_eq!(
        windows.bench.intake.panes().len(),
        2,
        "those of b and the next of a"
    );
    assert_eq!(windows.close(), []);
    for _ in 0..2 {
        windows.publish("b");
        windows.publish("a");
    }
    assert_eq!(
        windows.close(),
        [(1, "b/gw-1".into(), 3), (4, "a/gw-1".into(), 3)]
    );
}

#[test]
fn more_keys_than_fit_cut_windows_short_and_lose_no_reading() {
    let mut windows = Windows::new(10, 4 << 10);
    let (mut published, mut left) = (0, Vec::new());
    for _ in 0..30 {
        for site in 0..60 {
            windows.at += 1;
            windows.publish(&format!("site-{site}"));
            windows.publish("busy");
            published += 2;
        }
        left.extend(windows.close());
    }
    let Bench {
        intake,
        journal,
        metrics,
    } = &mut windows.bench;
    intake.close_all(journal, Pieces::Together, |_, section| left.extend(rows(section)));
    let mut by_window = std::collections::BTreeMap::<(String, i64), u64>::new();
    for (number, key, readings) in left {
        *by_window.entry((key, number)).or_default() += readings;
    }
    assert_eq!(by_window.values().sum::<u64>(), published);
    assert!(by_window.values().all(|&readings| readings <= 10));
    let busy = by_window.iter().filter(|((key, _), _)| key == "busy/gw-1");
    assert_eq!(
        busy.map(|(_, &readings)| readings).collect::<Vec<_>>(),
        [10; 180],
        "what is known stays whole"
    );
    let short = by_window.values().filter(|&&readings| readings < 10).count() as u64;
    let told = metrics.value(PIPELINE, Counter::CutShort);
    assert!(
        told > 1_000 && told <= short && short <= told + 60,
        "{told} of {short}"
    );
}

#[test]
fn a_crowd_of_full_windows_leaves_in_time() {
    let mut windows = Windows::new(1, 64 << 10);
    for number in 0..10_000 {
        windows.at += 1;
        windows.publish(&format!("site-{}", number % 50));
        assert!(windows.bench.intake.panes().len() <= windows.bench.intake.panes().capacity());
    }
    windows.close();
    assert!(windows.bench.intake.panes().is_empty());
    assert_eq!(windows.bench.metrics.value(PIPELINE, Counter::CutShort), 0);
}
