//! How instants, numbers and statuses stand in result tables, whichever store keeps them.

use catchment_common::time::Timestamp;

use crate::commit::WindowStatus;

/// An instant as result tables show it: RFC 3339 in UTC with milliseconds, which sorts as text.
pub fn time_text(at: Timestamp) -> String {
    // Within the years 1900 to 2200, which jiff covers.
    jiff::Timestamp::from_microsecond(at.as_micros())
        .map_or_else(|_| at.as_micros().to_string(), |at| format!("{at:.3}"))
}

/// The inverse of [`time_text`].
pub fn parse_time_text(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Timestamp::from_micros(time.as_microsecond())
}

/// The number of a count window, as tables show it: milliseconds since the Unix epoch.
pub fn number_of(number: Timestamp) -> i64 {
    number.as_micros().div_euclid(1_000)
}

/// A count as tables hold numbers. Windows of honest agents stay far below the largest.
pub fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The status of rows of a window, or of a coarser pane.
pub fn status_text(window: &WindowStatus, is_coarse: bool) -> &'static str {
    match (is_coarse, window.is_final, window.is_whole) {
        (true, ..) => "coarse",
        (false, false, _) => "provisional",
        (false, true, true) => "final",
        (false, true, false) => "partial",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sort_as_text_and_read_back() {
        let at = |micros| Timestamp::clamped(micros);
        assert_eq!(time_text(at(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_text(at(1_700_000_000_500_000)), "2023-11-14T22:13:20.500Z");
        assert_eq!(time_text(Timestamp::MIN), "1900-01-01T00:00:00.000Z");
        assert_eq!(
            parse_time_text("2023-11-14T22:13:20.500Z"),
            Some(at(1_700_000_000_500_000))
        );
        assert!(time_text(at(-1_000)) < time_text(at(0)));
    }
}
