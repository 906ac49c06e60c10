//! Days, weeks and months of a time zone, by another library with another copy of the zones than the aggregator's.

use catchment_common::plan::Period;
use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// Start and end, in microseconds since the Unix epoch, of the period of a zone that holds an instant; cut to panes. A
/// zone that does not exist counts as UTC: results in it will differ.
pub(super) fn around(period: Period, zone: &str, pane_us: i64, at_us: i64) -> (i64, i64) {
    let zone: Tz = zone.parse().unwrap_or(Tz::UTC);
    let at = DateTime::from_timestamp_micros(at_us).unwrap_or_default();
    let local = at.with_timezone(&zone).date_naive();
    let edge = |first: NaiveDate| first_instant(zone, first).div_euclid(pane_us) * pane_us;
    // The periods around it, by their first dates; the last edge that is not after it begins the one that holds it.
    let around: Vec<NaiveDate> = match period {
        Period::Day => (-3..=3).map(|days| local + TimeDelta::days(days)).collect(),
        Period::Week => {
            let monday = local - Days::new(u64::from(local.weekday().num_days_from_monday()));
            (-2..=2).map(|weeks| monday + TimeDelta::weeks(weeks)).collect()
        }
        Period::Month => {
            let first = local.with_day(1).unwrap_or(local);
            let later = |months| first + Months::new(months);
            vec![first - Months::new(1), first, later(1), later(2)]
        }
    };
    let mut edges: Vec<i64> = around.into_iter().map(edge).collect();
    edges.dedup();
    let next = edges.iter().position(|edge| *edge > at_us);
    let next = next.unwrap_or(edges.len() - 1);
    (edges[next.saturating_sub(1)], edges[next])
}

/// The first instant of a date.
fn first_instant(zone: Tz, date: NaiveDate) -> i64 {
    let midnight = date.and_time(NaiveTime::MIN);
    if let Some(start) = zone.from_local_datetime(&midnight).earliest() {
        return start.timestamp_micros();
    }
    // Clocks skip it: look for the first quarter of an hour that has this date, or a later one.
    let mut at: DateTime<Utc> = midnight.and_utc() - TimeDelta::hours(16);
    while at.with_timezone(&zone).naive_local() < midnight {
        at += TimeDelta::minutes(15);
    }
    at.timestamp_micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(zone: &str, at: &str, start: &str, hours: i64) {
        let micros = |text: &str| text.parse::<DateTime<Utc>>().unwrap().timestamp_micros();
        let (from, to) = around(Period::Day, zone, 900_000_000, micros(at));
        assert_eq!(
            (from, to - from),
            (micros(start), hours * 3_600_000_000),
            "{zone}"
        );
    }

    #[test]
    fn days_by_hand() {
        check(
            "Europe/Berlin",
            "2026-03-29T12:00:00Z",
            "2026-03-28T23:00:00Z",
            23,
        );
        check(
            "Europe/Berlin",
            "2026-10-25T12:00:00Z",
            "2026-10-24T22:00:00Z",
            25,
        );
        check("Asia/Kolkata", "2026-03-29T12:00:00Z", "2026-03-28T18:30:00Z", 24);
        check(
            "America/Sao_Paulo",
            "2018-11-04T12:00:00Z",
            "2018-11-04T03:00:00Z",
            23,
        );
        check(
            "America/Havana",
            "2023-11-05T12:00:00Z",
            "2023-11-05T04:00:00Z",
            25,
        );
        check("Pacific/Apia", "2011-12-30T12:00:00Z", "2011-12-30T10:00:00Z", 24);
    }
}
