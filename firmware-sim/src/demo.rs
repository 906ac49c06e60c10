//! The demo's plan of action and what it shows, without the processes that it is about.

use std::fmt::Write as _;

/// The three gateways' sites, one broker and one agent each.
pub const SITES: [&str; 3] = ["berlin", "lisbon", "oslo"];

/// How long a killed process stays away, in seconds.
const AWAY_SECONDS: u64 = 2;

/// What is done to the system on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// The first site's agent is killed.
    KillAgent,
    /// It is started again.
    StartAgent,
    /// The aggregator is killed.
    KillAggregator,
    /// It is started again.
    StartAggregator,
}

/// When, in seconds after the devices began, each blow falls: an agent dies after a third of the time, the aggregator
/// after two thirds. Without an end in sight, after 10 and 20 seconds.
pub fn blows(seconds: Option<u64>) -> [(u64, Blow); 4] {
    let whole = seconds.unwrap_or(30);
    let (agent, aggregator) = (whole / 3, whole * 2 / 3);
    // However short the demo, one is back before the other goes.
    let aggregator = aggregator.max(agent + AWAY_SECONDS + 1);
    [
        (agent, Blow::KillAgent),
        (agent + AWAY_SECONDS, Blow::StartAgent),
        (aggregator, Blow::KillAggregator),
        (aggregator + AWAY_SECONDS, Blow::StartAggregator),
    ]
}

/// How things stand at one moment.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct View {
    /// Seconds since the devices began.
    pub seconds: u64,
    /// Readings published in the last second.
    pub per_second: f64,
    /// Readings published so far.
    pub published: u64,
    /// Rows in the result tables: windows × keys.
    pub rows: u64,
    /// Payload bytes that devices have published in good messages.
    pub bytes_in: u64,
    /// Bytes that agents have sent to the aggregator, QUIC and TLS included.
    pub bytes_out: u64,
}

impl View {
    /// One line for people, for a terminal of 80 columns.
    pub fn line(&self) -> String {
        let Self {
            seconds,
            per_second,
            rows,
            bytes_in,
            bytes_out,
            ..
        } = *self;
        let per_second = grouped(per_second.round() as u64);
        let (rows, raw, out) = (grouped(rows), bytes(bytes_in), bytes(bytes_out));
        let mut line =
            format!("{seconds:>4} s  {per_second} readings/s  {rows} windows  {raw} in  {out} out");
        if bytes_out > 0 && !rows.starts_with('0') {
            // Writing to a string cannot fail.
            let _ = write!(line, "  {:.0} times less", bytes_in as f64 / bytes_out as f64);
        }
        line
    }
}

/// A number with its thousands apart: `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in decimal units: `1.2 MB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if number < 1_000 {
        return format!("{number} B");
    }
    let mut scaled = number as f64 / 1_000.0;
    let mut unit = 0;
    while scaled >= 999.95 && unit + 1 < UNITS.len() {
        scaled /= 1_000.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        let shown = [0, 999, 1_000, 999_949, 999_950, 12_345_678].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "12.3 MB"]);
    }

    #[test]
    fn one_line_says_it_all() {
        let view = View {
            seconds: 12,
            per_second: 2_999.6,
            published: 36_000,
            rows: 306,
            bytes_in: 1_908_000,
            bytes_out: 15_900,
        };
        let expected = "  12 s  3,000 readings/s  306 windows  1.9 MB in  15.9 kB out  120 times less";
        assert!(expected.len() < 80);
        assert_eq!(view.line(), expected);
        assert!(
            !View {
                bytes_out: 7,
                ..View::default()
            }
            .line()
            .contains("less"),
            "no rows, no factor yet"
        );
    }

    #[test]
    fn one_is_back_before_the_other_goes() {
        for seconds in (5..200).map(Some).chain([None]) {
            let blows = blows(seconds);
            assert!(
                blows.windows(2).all(|pair| pair[0].0 < pair[1].0),
                "{seconds:?}: {blows:?}"
            );
        }
        assert_eq!(blows(Some(60))[0], (20, Blow::KillAgent));
        assert_eq!(blows(Some(60))[2], (40, Blow::KillAggregator));
    }
}
