//! The accounting: what was published is in the results, was rejected under a reason, or was given up and reported as
//! lost. Nothing is lost in silence. What devices and brokers repeat is not published a second time: it stands beside
//! the balance.

use std::collections::BTreeMap;
use std::fmt::Write;

use catchment_common::plan::Query;

use crate::oracle::Metrics;

/// A counter of an agent, summed over agents and epochs: (pipeline, name) → value. Pipeline 0 is the agent as a whole.
pub type Counters = BTreeMap<(i64, String), u64>;

/// Readings in a result table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RowReadings {
    /// In the windows' rows, each as often as it is in windows.
    pub windows: u64,
    /// In coarse rows.
    pub coarse: u64,
}

/// The account of one query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// The query's name.
    pub query: String,
    /// Readings published to its topic.
    pub published: u64,
    /// Readings in the result table; `None` when they cannot be told from the rows.
    pub in_results: Option<u64>,
    /// Readings that the agents rejected, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Readings that agents gave up and reported.
    pub lost: u64,
    /// Readings that agents recognised, by their number, as taken before; and how many of them devices published on
    /// purpose.
    pub repeated: (u64, u64),
    /// Readings that the truth says must be rejected, by reason.
    pub must_reject: BTreeMap<String, u64>,
}

/// Bytes in and bytes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Payload bytes of good messages that devices have published, by the truth.
    pub raw_bytes: u64,
    /// Bytes of frames that agents have handed to their links.
    pub frame_bytes: u64,
    /// Bytes that the links have sent, with all that QUIC and TLS add.
    pub link_bytes: u64,
}

const REJECTED: &str = "rejected_";
/// A retained message that the broker repeats was not published now: it is no part of the balance.
const RETAINED: &str = "retained";
/// Nor was a reading that a device publishes again.
const REPEATED: &str = "repeated";

impl Account {
    /// The account of a query that runs as `pipeline`, and of which agents lost `lost` readings.
    pub fn new(
        query: &Query,
        metrics: &Metrics,
        rows: RowReadings,
        lost: u64,
        pipeline: i64,
        counters: &Counters,
    ) -> Self {
        let of_pipeline = counters
            .iter()
            .filter(|((of, _), count)| *of == pipeline && **count > 0);
        let mut rejected: BTreeMap<String, u64> = of_pipeline
            .filter_map(|((_, name), count)| Some((name.strip_prefix(REJECTED)?.to_string(), *count)))
            .filter(|(reason, _)| reason != RETAINED)
            .collect();
        let recognised = rejected.remove(REPEATED).unwrap_or(0);
        Self {
            query: query.name.clone(),
            published: metrics.published,
            in_results: in_results(query, metrics, rows),
            rejected,
            lost,
            repeated: (recognised, metrics.repeated),
            must_reject: metrics
                .rejected
                .iter()
                .map(|(name, count)| ((*name).to_string(), *count))
                .collect(),
        }
    }

    /// Readings rejected under any reason.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// Whether published = in results + rejected + lost.
    pub fn is_balanced(&self) -> bool {
        self.in_results
            .is_some_and(|in_results| self.published == in_results + self.rejected_total() + self.lost)
    }

    /// The account for people.
    pub fn show(&self) -> String {
        let Self {
            query,
            published,
            lost,
            repeated: (recognised, repeated),
            ..
        } = self;
        let rejected = self.rejected_total();
        let in_results = self
            .in_results
            .map_or("an unknown number".into(), |count| count.to_string());
        let verdict = match self.in_results.map(|in_results| in_results + rejected + lost) {
            Some(found) if found == *published => "balanced".into(),
            Some(found) if found < *published => format!("NOT BALANCED: {} are missing", published - found),
            Some(found) => format!("NOT BALANCED: {} too many", found - published),
            None => "NOT BALANCED: the rows hold no whole number of readings".into(),
        };
        let mut text = format!(
            "{query}: {published} readings published = {in_results} in results + {rejected} rejected + {lost} lost: {verdict}\n"
        );
        if *recognised > 0 || *repeated > 0 {
            let _ = writeln!(
                text,
                "  repeated by devices and counted once: {recognised} recognised, {repeated} in the truth"
            );
        }
        let mut reasons: Vec<&String> = self.rejected.keys().chain(self.must_reject.keys()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons {
            let count = |of: &BTreeMap<String, u64>| of.get(reason).copied().unwrap_or(0);
            let (counted, due) = (count(&self.rejected), count(&self.must_reject));
            // Writing to a string cannot fail.
            let _ = write!(text, "  rejected {reason}: {counted}");
            let _ = if counted == due {
                writeln!(text)
            } else {
                writeln!(text, " (truth {due})")
            };
        }
        text
    }
}

impl Traffic {
    /// What all agents have sent, beside the bytes of payload.
    pub fn new(raw_bytes: u64, counters: &Counters) -> Self {
        let agent = |name: &str| counters.get(&(0, name.to_string())).copied().unwrap_or(0);
        Self {
            raw_bytes,
            frame_bytes: agent("uplink_bytes"),
            link_bytes: agent("link_bytes"),
        }
    }

    /// The traffic for people.
    pub fn show(self) -> String {
        let Self {
            raw_bytes,
            frame_bytes,
            link_bytes,
        } = self;
        let text = format!(
            "uplink {frame_bytes} bytes, {link_bytes} with QUIC and TLS, for {raw_bytes} bytes of payload"
        );
        if frame_bytes == 0 || link_bytes == 0 {
            return format!("{text}: nothing was sent");
        }
        let less = |bytes: u64| raw_bytes as f64 / bytes as f64;
        format!(
            "{text}: {:.1} and {:.1} times less",
            less(frame_bytes),
            less(link_bytes)
        )
    }
}

/// How many readings the rows hold. Each reading is in size/every windows or in one coarse row; where that is not a
/// whole number it is in one window more or less, depending on its time, and only the truth's own total can tell.
fn in_results(query: &Query, metrics: &Metrics, rows: RowReadings) -> Option<u64> {
    let (size, every) = (
        query.window.longest().as_micros(),
        query.window.step().as_micros(),
    );
    let RowReadings { windows, coarse } = rows;
    if size % every == 0 {
        let each = (size / every) as u64;
        windows.is_multiple_of(each).then(|| windows / each + coarse)
    } else {
        (windows == metrics.row_readings && coarse == 0).then_some(metrics.accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::tests::query;

    fn metrics() -> Metrics {
        let rejected = [("bad_key", 2), ("too_late", 1)].into();
        Metrics {
            published: 13,
            accepted: 10,
            row_readings: 30,
            rejected,
            repeated: 5,
        }
    }

    fn counters(rows: &[(i64, &str, u64)]) -> Counters {
        rows.iter()
            .map(|(pipeline, name, count)| ((*pipeline, (*name).to_string()), *count))
            .collect()
    }

    fn account(size: i64, every: i64, windows: u64, rows: &[(i64, &str, u64)]) -> Account {
        let readings = RowReadings { windows, coarse: 0 };
        Account::new(&query(size, every), &metrics(), readings, 0, 4, &counters(rows))
    }

    const REJECTIONS: [(i64, &str, u64); 6] = [
        (4, "rejected_repeated", 9),
        (4, "rejected_bad_key", 2),
        (4, "rejected_too_late", 1),
        (4, "rejected_retained", 50),
        (4, "received", 60),
        (5, "rejected_bad_key", 70),
    ];

    #[test]
    fn a_full_account_balances() {
        let account = account(60, 60, 10, &REJECTIONS);
        assert!(account.is_balanced());
        let expected = "room_climate: 13 readings published = 10 in results + 3 rejected + 0 lost: balanced\n  \
                        repeated by devices and counted once: 9 recognised, 5 in the truth\n  rejected bad_key: 2\n  rejected too_late: 1\n";
        assert_eq!(account.show(), expected);
    }

    #[test]
    fn what_is_lost_or_doubled_is_told() {
        let lost = account(60, 60, 9, &REJECTIONS);
        assert!(!lost.is_balanced() && lost.show().contains("NOT BALANCED: 1 are missing"));
        let doubled = account(60, 60, 11, &REJECTIONS);
        assert!(!doubled.is_balanced() && doubled.show().contains("NOT BALANCED: 1 too many"));
        let uncounted = account(60, 60, 10, &REJECTIONS[..2]);
        assert!(!uncounted.is_balanced() && uncounted.show().contains("rejected too_late: 0 (truth 1)"));
    }

    #[test]
    fn hopping_windows_are_divided() {
        assert!(account(60, 20, 30, &REJECTIONS).is_balanced());
        assert!(!account(60, 20, 29, &REJECTIONS).is_balanced());
        assert_eq!(account(60, 20, 31, &REJECTIONS).in_results, None);
        // 50/20: a reading is in two or three windows; only the truth's total balances.
        assert!(account(50, 20, 30, &REJECTIONS).is_balanced());
        assert!(!account(50, 20, 31, &REJECTIONS).is_balanced());
    }

    #[test]
    fn coarse_rows_and_reported_losses_are_part_of_the_balance() {
        let account = |windows, coarse, lost| {
            let readings = RowReadings { windows, coarse };
            Account::new(
                &query(60, 20),
                &metrics(),
                readings,
                lost,
                4,
                &counters(&REJECTIONS),
            )
        };
        assert!(account(15, 4, 1).is_balanced());
        assert!(
            account(15, 4, 1)
                .show()
                .contains("= 9 in results + 3 rejected + 1 lost: balanced")
        );
        assert!(!account(15, 4, 0).is_balanced() && !account(15, 4, 2).is_balanced());
        assert!(!account(15, 5, 1).is_balanced());
    }

    #[test]
    fn traffic_is_that_of_the_agents() {
        let counters = counters(&[
            (0, "link_bytes", 50),
            (0, "uplink_bytes", 40),
            (4, "link_bytes", 7),
        ]);
        let expected =
            "uplink 40 bytes, 50 with QUIC and TLS, for 1000 bytes of payload: 25.0 and 20.0 times less";
        assert_eq!(Traffic::new(1_000, &counters).show(), expected);
        assert!(Traffic::default().show().ends_with("nothing was sent"));
    }
}
