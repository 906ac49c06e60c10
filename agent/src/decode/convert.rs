//! From texts to a reading: tags, an event time and exact values, or the reason why not.

use std::borrow::Cow;

use catchment_common::metrics::Reason;
use catchment_common::number::decimal::{Resolution, Value, ValueFault};
use catchment_common::plan::TimeUnit;
use catchment_common::time::Timestamp;

use crate::decode::{Raw, Short};

/// A tag's value: a string, or a number's or boolean's own text.
pub fn tag(raw: Raw<'_>) -> Result<Cow<'_, str>, Reason> {
    let text = present(raw)?.ok_or(Reason::MissingField)?;
    match text.as_bytes()[0] {
        b'"' => string(text),
        b'{' | b'[' => Err(Reason::WrongType),
        _ => Ok(Cow::Borrowed(text)),
    }
}

/// A field's value and whether it had to be rounded; none when the reading does not have the field.
#[inline]
pub fn value(raw: Raw<'_>, resolution: Option<Resolution>) -> Result<Option<(Value, bool)>, Reason> {
    let Some(text) = present(raw)? else {
        return Ok(None);
    };
    let parsed = match Value::parse(text.as_bytes()) {
        Ok(parsed) => parsed,
        Err(ValueFault::OutOfRange) => return Err(Reason::OutOfRange),
        Err(ValueFault::NotFinite) => return Err(Reason::NotFinite),
        Err(ValueFault::NotANumber) => return Err(not_a_number(text)),
    };
    let value = match resolution {
        Some(resolution) => resolution.round(parsed).ok_or(Reason::OutOfRange)?,
        None => parsed.value,
    };
    Ok(Some((value, parsed.rounded)))
}

/// An event time as its unit says.
#[inline]
pub fn time(raw: Raw<'_>, unit: TimeUnit) -> Result<Timestamp, Reason> {
    let text = present(raw)?.ok_or(Reason::MissingField)?;
    if unit == TimeUnit::Rfc3339 {
        let text = if text.starts_with('"') {
            string(text)?
        } else {
            return Err(Reason::WrongType);
        };
        let time: jiff::Timestamp = text.parse().map_err(|_| Reason::BadTime)?;
        return Timestamp::from_micros(floor_micros(time)).ok_or(Reason::BadTime);
    }
    if unit == TimeUnit::Nanos {
        return nanos(text);
    }
    let (per_unit, units_per_micro) = match unit {
        TimeUnit::Seconds => (1_000_000, 1_000_000_000_000),
        TimeUnit::Millis => (1_000, 1_000_000_000_000_000),
        TimeUnit::Micros | TimeUnit::Nanos | TimeUnit::Rfc3339 => (1, 1_000_000_000_000_000_000),
    };
    // Whole numbers, as nearly all are, need no decimal arithmetic.
    if let Some(whole) = small_whole(text) {
        let micros = whole.checked_mul(per_unit).ok_or(Reason::BadTime)?;
        return Timestamp::from_micros(micros).ok_or(Reason::BadTime);
    }
    let units = match Value::parse(text.as_bytes()) {
        Ok(parsed) => parsed.value.units(),
        Err(ValueFault::NotANumber) => return Err(Reason::WrongType),
        Err(ValueFault::NotFinite) => return Err(Reason::NotFinite),
        Err(ValueFault::OutOfRange) => return Err(Reason::BadTime),
    };
    let micros = i64::try_from(units.div_euclid(units_per_micro)).map_err(|_| Reason::BadTime)?;
    Timestamp::from_micros(micros).ok_or(Reason::BadTime)
}

/// A time in nanoseconds. There are more of them since 1970 than a value can be, so they are read as microseconds with
/// three decimals more.
fn nanos(text: &str) -> Result<Timestamp, Reason> {
    if let Ok(whole) = text.parse::<i128>() {
        let micros = i64::try_from(whole.div_euclid(1_000)).map_err(|_| Reason::BadTime)?;
        return Timestamp::from_micros(micros).ok_or(Reason::BadTime);
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let micros = match exponent.trim_start_matches('+').parse::<i32>() {
        Ok(exponent) => Short::of(format_args!("{mantissa}e{}", i64::from(exponent) - 3)),
        Err(_) => return Err(not_a_number(text)),
    };
    match Value::parse(micros.as_str().as_bytes()) {
        Ok(parsed) => {
            let micros = parsed
                .value
                .units()
                .div_euclid(catchment_common::number::decimal::ONE);
            let micros = i64::try_from(micros).map_err(|_| Reason::BadTime)?;
            Timestamp::from_micros(micros).ok_or(Reason::BadTime)
        }
        Err(ValueFault::NotANumber) => Err(not_a_number(text)),
        Err(ValueFault::NotFinite) => Err(Reason::NotFinite),
        Err(ValueFault::OutOfRange) => Err(Reason::BadTime),
    }
}

/// A device's sequence number: a whole number from 0 on.
pub fn sequence(raw: Raw<'_>) -> Result<u64, Reason> {
    let text = present(raw)?.ok_or(Reason::MissingField)?;
    text.parse().map_err(|_| Reason::WrongType)
}

fn present(raw: Raw<'_>) -> Result<Option<&str>, Reason> {
    match raw {
        Raw::Absent => Ok(None),
        Raw::Blocked => Err(Reason::WrongType),
        Raw::Text(text) => Ok(Some(text)),
    }
}

fn string(text: &str) -> Result<Cow<'_, str>, Reason> {
    let inner = &text[1..text.len() - 1];
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str(text)
        .map(Cow::Owned)
        .map_err(|_| Reason::MalformedJson)
}

/// A string such as `"NaN"` says that there is no finite value; any other non-number has the wrong type.
fn not_a_number(text: &str) -> Reason {
    let inner = text.trim_matches('"');
    match Value::parse(inner.as_bytes()) {
        Err(ValueFault::NotFinite) => Reason::NotFinite,
        _ => Reason::WrongType,
    }
}

/// jiff counts nanoseconds on both sides of the epoch toward zero; event times are cut toward the past.
fn floor_micros(time: jiff::Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond().div_euclid(1_000)).unwrap_or(i64::MAX)
}

/// A whole number of at most 18 digits.
#[inline]
fn small_whole(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.is_empty() || bytes.len() > 18 {
        return None;
    }
    bytes.iter().try_fold(0_i64, |number, &byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_time(text: &str, unit: TimeUnit, expected: Result<i64, Reason>) {
        assert_eq!(
            time(Raw::Text(text), unit).map(Timestamp::as_micros),
            expected,
            "{text}"
        );
    }

    #[test]
    fn times_in_every_unit() {
        check_time("1700000000000", TimeUnit::Millis, Ok(1_700_000_000_000_000));
        check_time("1700000000", TimeUnit::Seconds, Ok(1_700_000_000_000_000));
        check_time("1700000000.1234567", TimeUnit::Seconds, Ok(1_700_000_000_123_456));
        check_time("-0.0000001", TimeUnit::Seconds, Ok(-1));
        check_time("17", TimeUnit::Micros, Ok(17));
        check_time("1700000000123456789", TimeUnit::Nanos, Ok(1_700_000_000_123_456));
        check_time("1.7e18", TimeUnit::Nanos, Ok(1_700_000_000_000_000));
        check_time("-1.5", TimeUnit::Nanos, Ok(-1));
        check_time("1999.5", TimeUnit::Nanos, Ok(1));
        check_time("\"1\"", TimeUnit::Nanos, Err(Reason::WrongType));
        check_time("\"NaN\"", TimeUnit::Nanos, Err(Reason::NotFinite));
        check_time("1e99", TimeUnit::Nanos, Err(Reason::BadTime));
        check_time("1.7e12", TimeUnit::Millis, Ok(1_700_000_000_000_000));
        check_time(
            "\"2023-11-14T22:13:20Z\"",
            TimeUnit::Rfc3339,
            Ok(1_700_000_000_000_000),
        );
        check_time(
            "\"2023-11-14T23:13:20.5+01:00\"",
            TimeUnit::Rfc3339,
            Ok(1_700_000_000_500_000),
        );
        check_time("\"yesterday\"", TimeUnit::Rfc3339, Err(Reason::BadTime));
        check_time("1700000000", TimeUnit::Rfc3339, Err(Reason::WrongType));
        check_time("\"1700000000\"", TimeUnit::Seconds, Err(Reason::WrongType));
        check_time("1e17", TimeUnit::Millis, Err(Reason::BadTime));
        check_time("999999999999999999", TimeUnit::Seconds, Err(Reason::BadTime));
        assert_eq!(time(Raw::Absent, TimeUnit::Millis), Err(Reason::MissingField));
    }

    fn check_value(text: &str, expected: Result<&str, Reason>) {
        let result = value(Raw::Text(text), None).map(|value| value.unwrap().0.to_string());
        assert_eq!(result, expected.map(String::from), "{text}");
    }

    #[test]
    fn values_are_exact_or_refused_by_name() {
        check_value("21.37", Ok("21.37"));
        check_value("\"21.37\"", Err(Reason::WrongType));
        check_value("true", Err(Reason::WrongType));
        check_value("{}", Err(Reason::WrongType));
        check_value("[1]", Err(Reason::WrongType));
        check_value("\"NaN\"", Err(Reason::NotFinite));
        check_value("\"-inf\"", Err(Reason::NotFinite));
        check_value("1e18", Err(Reason::OutOfRange));
        assert_eq!(value(Raw::Absent, None), Ok(None));
        assert_eq!(value(Raw::Blocked, None), Err(Reason::WrongType));
        assert_eq!(value(Raw::Text("1e-30"), None), Ok(Some((Value::ZERO, true))));
    }

    #[test]
    fn tags_are_text() {
        assert_eq!(tag(Raw::Text("\"berlin\"")).unwrap(), "berlin");
        assert_eq!(tag(Raw::Text(r#""a\u0062""#)).unwrap(), "ab");
        assert_eq!(tag(Raw::Text("42")).unwrap(), "42");
        assert_eq!(tag(Raw::Text("true")).unwrap(), "true");
        assert_eq!(tag(Raw::Text("{}")), Err(Reason::WrongType));
        assert_eq!(tag(Raw::Absent), Err(Reason::MissingField));
    }
}
