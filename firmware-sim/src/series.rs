//! A recorded series: rows of a CSV file become messages, each value exactly as the file has it.

/// One row of a series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// Event time in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The value's text, a JSON number.
    pub value: String,
}

/// What is wrong with a row.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRow {
    /// The first column is not a time.
    #[error(
        "`{0}` is not a time: write `2014-04-01 00:00:00` (read as UTC), RFC 3339, or milliseconds since 1970"
    )]
    Time(String),
    /// The second column is not a number.
    #[error("`{0}` is not a decimal number such as `21.37` or `-1.5e3`")]
    Value(String),
    /// The row has not two columns.
    #[error("the row has {0} columns; expected `timestamp,value`")]
    Columns(usize),
    /// The header is not `timestamp,value`.
    #[error("the header is `{0}`; expected `timestamp,value`")]
    Header(String),
}

impl Point {
    /// Reads a row's two columns.
    pub fn parse(timestamp: &str, value: &str) -> Result<Self, BadRow> {
        let at_ms = parse_time(timestamp).ok_or_else(|| BadRow::Time(timestamp.into()))?;
        if !is_json_number(value) {
            return Err(BadRow::Value(value.into()));
        }
        Ok(Self {
            at_ms,
            value: value.into(),
        })
    }

    /// The payload of this row, its value under `name`.
    pub fn payload(&self, name: &str) -> String {
        format!(
            r#"{{"ts":{},{}:{}}}"#,
            self.at_ms,
            serde_json::Value::from(name),
            self.value
        )
    }
}

/// `template` with `{device}` filled in.
pub fn topic(template: &str, device: &str) -> String {
    template.replace("{device}", device)
}

/// Milliseconds since the Unix epoch.
fn parse_time(text: &str) -> Option<i64> {
    if let Ok(millis) = text.parse::<i64>() {
        return Some(millis);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_millisecond());
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    Some(jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?.as_millisecond())
}

fn is_json_number(text: &str) -> bool {
    let starts_well = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    starts_well
        && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok_and(|raw| raw.get() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(timestamp: &str, value: &str, expected: Result<&str, BadRow>) {
        let payload = Point::parse(timestamp, value).map(|point| point.payload("value"));
        assert_eq!(payload, expected.map(String::from), "{timestamp},{value}");
    }

    #[test]
    fn values_stay_as_they_are_written() {
        check(
            "2013-12-02 21:15:00",
            "73.96732207",
            Ok(r#"{"ts":1386018900000,"value":73.96732207}"#),
        );
        check(
            "2013-12-02 21:20:00",
            "74.93588199999998",
            Ok(r#"{"ts":1386019200000,"value":74.93588199999998}"#),
        );
        check(
            "2013-12-02T22:15:00.5+01:00",
            "-1.50e3",
            Ok(r#"{"ts":1386018900500,"value":-1.50e3}"#),
        );
        check("1386018900000", "0", Ok(r#"{"ts":1386018900000,"value":0}"#));
    }

    #[test]
    fn bad_rows_say_what_is_wrong() {
        check("yesterday", "1", Err(BadRow::Time("yesterday".into())));
        check(
            "2013-13-02 21:15:00",
            "1",
            Err(BadRow::Time("2013-13-02 21:15:00".into())),
        );
        for value in ["", "x", "1,5", "NaN", "1.", ".5", "01", "1 ", "\"1\"", "+1"] {
            check("1386018900000", value, Err(BadRow::Value(value.into())));
        }
    }

    #[test]
    fn names_are_filled_in_and_quoted() {
        assert_eq!(topic("machines/{device}/temp", "m1"), "machines/m1/temp");
        assert_eq!(
            Point::parse("0", "1").unwrap().payload("a\"b"),
            r#"{"ts":0,"a\"b":1}"#
        );
    }
}
