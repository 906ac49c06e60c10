//! Days, weeks and months as a place on earth has them.
//!
//! The zones' rules are compiled in, so that no file of the machine is read and the same plan cuts time alike
//! everywhere. Agents know nothing of zones: they ship panes that no edge of a day crosses, an hour in most zones and a
//! quarter of an hour in some, and a day across the change to daylight saving time is 23 or 25 of them.

use catchment_common::plan::Period;
use catchment_common::time::{Span, Timestamp};
use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

/// The narrowest pane of a calendar: since 1972 every zone is whole quarters of an hour from UTC.
const QUARTER: Span = Span::from_secs(900);
/// The widest.
const HOUR: Span = Span::from_secs(3_600);
/// 1973-01-01, when the last zone had joined the quarters, and 2200-01-01, the end of time here.
const KNOWN_SECONDS: std::ops::Range<i64> = 94_694_400..7_258_118_400;

/// The rules of a zone.
#[derive(Clone, Debug)]
pub struct Zone(TimeZone);

/// There is no zone of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownZone {
    /// All names that there are.
    pub known: Vec<String>,
}

impl Zone {
    /// The zone of this name in the IANA database; upper and lower case do not matter.
    pub fn find(name: &str) -> Result<Self, UnknownZone> {
        let database = TimeZoneDatabase::bundled();
        database.get(name).map(Self).map_err(|_| UnknownZone {
            known: database.available().map(|name| name.to_string()).collect(),
        })
    }

    /// Its name as the database writes it.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The widest pane that no edge of a day crosses.
    pub fn pane(&self) -> Span {
        let instant = |seconds| jiff::Timestamp::from_second(seconds).unwrap_or_default();
        let first = instant(KNOWN_SECONDS.start);
        let changes = self
            .0
            .following(first)
            .take_while(|change| change.timestamp() < instant(KNOWN_SECONDS.end));
        let offsets = changes
            .map(|change| change.offset())
            .chain([self.0.to_offset(first)]);
        let pane = offsets.fold(HOUR, |pane, offset| {
            pane.gcd(Span::from_secs(i64::from(offset.seconds().abs())))
        });
        if pane.is_multiple_of(QUARTER) {
            pane
        } else {
            QUARTER
        }
    }
}

/// Where the days, weeks or months of a zone begin, at whole panes.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: Zone,
    period: Period,
    pane: Span,
}

impl Calendar {
    /// The calendar of a zone. Before 1973 some zones were minutes and seconds off the panes: there an edge is the
    /// beginning of its pane.
    pub fn new(zone: Zone, period: Period, pane: Span) -> Self {
        Self { zone, period, pane }
    }

    /// The start of the period that holds an instant, and its end.
    pub fn around(&self, at: Timestamp) -> (Timestamp, Timestamp) {
        let local = self.zone.0.to_datetime(instant(at));
        // Where clocks were put back across midnight a date has begun before its eve is over.
        let later = local.date().tomorrow().unwrap_or(Date::MAX);
        let mut first = self.first_date(later);
        let mut start = self.start_of(first);
        while start > at && first > Date::MIN {
            first = self.first_date(first.yesterday().unwrap_or(Date::MIN));
            start = self.start_of(first);
        }
        let mut next = self.next_date(first);
        // A date that a zone has left out has no length.
        while self.start_of(next) <= start && next < Date::MAX {
            next = self.next_date(next);
        }
        (start, self.start_of(next))
    }

    /// The first date of the period that a date is in.
    fn first_date(&self, date: Date) -> Date {
        match self.period {
            Period::Day => date,
            Period::Week => {
                let days = i64::from(date.weekday().to_monday_zero_offset());
                date.saturating_sub(jiff::Span::new().days(days))
            }
            Period::Month => date.first_of_month(),
        }
    }

    /// The first date of the period after the one that begins at a date.
    fn next_date(&self, first: Date) -> Date {
        let span = match self.period {
            Period::Day => jiff::Span::new().days(1),
            Period::Week => jiff::Span::new().days(7),
            Period::Month => jiff::Span::new().months(1),
        };
        first.saturating_add(span)
    }

    /// The first instant of a date, cut to the pane.
    fn start_of(&self, date: Date) -> Timestamp {
        let midnight = date.to_datetime(Time::midnight());
        let zone = &self.zone.0;
        let ambiguous = zone.to_ambiguous_timestamp(midnight);
        let is_gap = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
        let Ok(start) = ambiguous.compatible() else {
            return Timestamp::MAX;
        };
        // Where clocks skip midnight, the date begins when they do.
        let skip = zone.preceding(start + jiff::SignedDuration::from_nanos(1)).next();
        let start = skip.filter(|_| is_gap).map_or(start, |skip| skip.timestamp());
        Timestamp::clamped(start.as_microsecond()).pane_start(self.pane)
    }
}

fn instant(at: Timestamp) -> jiff::Timestamp {
    // Within the years 1900 to 2200, which jiff covers.
    jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let time: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_micros(time.as_microsecond()).unwrap()
    }

    fn calendar(zone: &str, period: Period) -> Calendar {
        let zone = Zone::find(zone).unwrap();
        let pane = zone.pane();
        Calendar::new(zone, period, pane)
    }

    /// The period around an instant, in UTC without seconds, and its hours.
    fn check(zone: &str, period: Period, around: &str, start: &str, hours: f64) {
        let calendar = calendar(zone, period);
        let (from, to) = calendar.around(at(around));
        assert_eq!(from, at(start), "{zone} around {around}");
        assert_eq!(
            to.since(from).as_micros() as f64 / 3.6e9,
            hours,
            "{zone} from {start}"
        );
        // The edges belong to one side each.
        let microsecond = Span::from_micros(1);
        assert_eq!(calendar.around(from), (from, to));
        assert_eq!(calendar.around(to.minus(microsecond)), (from, to));
        assert_eq!(calendar.around(to).0, to);
        assert_eq!(calendar.around(from.minus(microsecond)).1, from);
    }

    #[test]
    fn days_are_longer_or_shorter_where_clocks_change() {
        let day = Period::Day;
        check(
            "Europe/Berlin",
            day,
            "2026-03-28T23:00:00Z",
            "2026-03-28T23:00:00Z",
            23.0,
        );
        check(
            "Europe/Berlin",
            day,
            "2026-03-29T21:59:59Z",
            "2026-03-28T23:00:00Z",
            23.0,
        );
        check(
            "Europe/Berlin",
            day,
            "2026-03-30T12:00:00Z",
            "2026-03-29T22:00:00Z",
            24.0,
        );
        check(
            "Europe/Berlin",
            day,
            "2026-10-25T12:00:00Z",
            "2026-10-24T22:00:00Z",
            25.0,
        );
        check(
            "Asia/Kolkata",
            day,
            "2026-03-29T12:00:00Z",
            "2026-03-28T18:30:00Z",
            24.0,
        );
        check(
            "Asia/Kathmandu",
            day,
            "2026-03-29T12:00:00Z",
            "2026-03-28T18:15:00Z",
            24.0,
        );
        check(
            "Australia/Lord_Howe",
            day,
            "2026-04-05T00:00:00Z",
            "2026-04-04T13:00:00Z",
            24.5,
        );
        check(
            "Australia/Lord_Howe",
            day,
            "2026-10-04T00:00:00Z",
            "2026-10-03T13:30:00Z",
            23.5,
        );
        check(
            "America/New_York",
            day,
            "2026-03-08T12:00:00Z",
            "2026-03-08T05:00:00Z",
            23.0,
        );
        check(
            "America/New_York",
            day,
            "2026-11-01T12:00:00Z",
            "2026-11-01T04:00:00Z",
            25.0,
        );
        check("UTC", day, "2026-11-01T12:00:00Z", "2026-11-01T00:00:00Z", 24.0);
    }

    #[test]
    fn days_begin_when_clocks_that_skip_midnight_do_and_once_when_it_comes_twice() {
        let day = Period::Day;
        // São Paulo skipped midnight, Havana goes back to it, and Samoa left out a whole date.
        check(
            "America/Sao_Paulo",
            day,
            "2018-11-04T12:00:00Z",
            "2018-11-04T03:00:00Z",
            23.0,
        );
        check(
            "America/Sao_Paulo",
            day,
            "2018-02-17T12:00:00Z",
            "2018-02-17T02:00:00Z",
            25.0,
        );
        check(
            "America/Havana",
            day,
            "2023-11-05T12:00:00Z",
            "2023-11-05T04:00:00Z",
            25.0,
        );
        check(
            "Pacific/Apia",
            day,
            "2011-12-29T12:00:00Z",
            "2011-12-29T10:00:00Z",
            24.0,
        );
        check(
            "Pacific/Apia",
            day,
            "2011-12-30T12:00:00Z",
            "2011-12-30T10:00:00Z",
            24.0,
        );
    }

    #[test]
    fn weeks_begin_on_mondays_and_months_on_the_first() {
        check(
            "Europe/Berlin",
            Period::Week,
            "2026-03-29T12:00:00Z",
            "2026-03-22T23:00:00Z",
            167.0,
        );
        check(
            "Europe/Berlin",
            Period::Week,
            "2026-01-01T00:00:00Z",
            "2025-12-28T23:00:00Z",
            168.0,
        );
        check(
            "Europe/Berlin",
            Period::Month,
            "2026-03-29T12:00:00Z",
            "2026-02-28T23:00:00Z",
            743.0,
        );
        check(
            "Europe/Berlin",
            Period::Month,
            "2026-10-31T12:00:00Z",
            "2026-09-30T22:00:00Z",
            745.0,
        );
        check(
            "UTC",
            Period::Month,
            "2024-02-29T23:59:59Z",
            "2024-02-01T00:00:00Z",
            696.0,
        );
    }

    #[test]
    fn panes_fit_the_zone() {
        let pane = |name| Zone::find(name).unwrap().pane();
        let minutes = |minutes: i64| Span::from_secs(60 * minutes);
        assert_eq!(pane("Europe/Berlin"), minutes(60));
        assert_eq!(pane("UTC"), minutes(60));
        assert_eq!(pane("Asia/Kolkata"), minutes(30));
        assert_eq!(pane("Australia/Lord_Howe"), minutes(30));
        assert_eq!(pane("Asia/Kathmandu"), minutes(15));
    }

    #[test]
    fn every_zone_cuts_two_centuries_into_whole_panes_without_a_gap() {
        for name in TimeZoneDatabase::bundled().available() {
            let calendar = calendar(&name.to_string(), Period::Month);
            let mut at = at("1901-01-01T00:00:00Z");
            let mut edge = calendar.around(at).1;
            while edge < Timestamp::clamped(6_000_000_000_000_000) {
                let (start, end) = calendar.around(edge);
                assert_eq!(start, edge, "{name:?}");
                assert!(
                    end.pane_start(calendar.pane) == end && end > start,
                    "{name:?} {end:?}"
                );
                assert!(end.since(start) <= Period::Month.longest(), "{name:?} {end:?}");
                (at, edge) = (start, end);
            }
            assert!(at < edge);
        }
    }

    #[test]
    fn names_are_found_in_any_case_and_unknown_ones_are_not() {
        assert_eq!(Zone::find("europe/BERLIN").unwrap().name(), "Europe/Berlin");
        let known = Zone::find("Europe/Berln").unwrap_err().known;
        assert!(known.contains(&"Europe/Berlin".to_owned()));
    }
}
