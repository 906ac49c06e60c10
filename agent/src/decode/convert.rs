//! From texts to a reading: tags, an event time and exact values, or the reason why not.

use std::borrow::Cow;
use std::num::IntErrorKind;

use catchment_common::metrics::{Reason, Unusable};
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
pub fn value(raw: Raw<'_>, resolution: Option<Resolution>) -> Result<Option<(Value, bool)>, Unusable> {
    let text = match raw {
        Raw::Text(text) => text,
        Raw::Absent => return Ok(None),
        Raw::Blocked => return Err(Unusable::WrongType),
    };
    let parsed = match Value::parse(text.as_bytes()) {
        Ok(parsed) => parsed,
        Err(ValueFault::OutOfRange) => return Err(Unusable::OutOfRange),
        Err(ValueFault::NotFinite) => return Err(Unusable::NotFinite),
        Err(ValueFault::NotANumber) => return Err(not_a_number(text)),
    };
    let value = match resolution {
        Some(resolution) => resolution.round(parsed).ok_or(Unusable::OutOfRange)?,
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
    let units = match Value::parse_floor(text.as_bytes()) {
        Ok(value) => value.units(),
        Err(ValueFault::NotANumber) => return Err(Reason::WrongType),
        Err(ValueFault::NotFinite) => return Err(Reason::NotFinite),
        Err(ValueFault::OutOfRange) => return Err(Reason::BadTime),
    };
    let micros = i64::try_from(units.div_euclid(units_per_micro)).map_err(|_| Reason::BadTime)?;
    Timestamp::from_micros(micros).ok_or(Reason::BadTime)
}

/// A time in nanoseconds. There are more of them since 1970 than a value can be.
fn nanos(text: &str) -> Result<Timestamp, Reason> {
    let micros = if let Some((mantissa, exponent)) = text.split_once(['e', 'E']) {
        // As microseconds with three decimals more. Who writes an exponent writes few digits.
        let exponent: i64 = exponent.parse().map_err(|_| not_a_number(text).reason())?;
        let micros = Short::of(format_args!("{mantissa}e{}", exponent.saturating_sub(3)));
        match Value::parse_floor(micros.as_str().as_bytes()) {
            Ok(value) => Some(value.units().div_euclid(catchment_common::number::decimal::ONE)),
            Err(ValueFault::OutOfRange) => return Err(Reason::BadTime),
            Err(ValueFault::NotANumber | ValueFault::NotFinite) => None,
        }
    } else {
        whole_nanos(text).map(|nanos| nanos.div_euclid(1_000))
    };
    let micros = micros.ok_or_else(|| not_a_number(text).reason())?;
    let micros = i64::try_from(micros).map_err(|_| Reason::BadTime)?;
    Timestamp::from_micros(micros).ok_or(Reason::BadTime)
}

/// A number without an exponent, cut toward the past; none for what is no number. What is too large for any time is
/// cut to what still is.
fn whole_nanos(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let floor = match whole.parse::<i128>() {
        Ok(whole) => whole,
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => i128::MAX,
        Err(error) if *error.kind() == IntErrorKind::NegOverflow => return Some(i128::MIN),
        Err(_) => return None,
    };
    let is_cut = whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0');
    Some(floor - i128::from(is_cut))
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
fn not_a_number(text: &str) -> Unusable {
    let inner = text.trim_matches('"');
    match Value::parse(inner.as_bytes()) {
        Err(ValueFault::NotFinite) => Unusable::NotFinite,
        _ => Unusable::WrongType,
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
        for unit in [
            TimeUnit::Seconds,
            TimeUnit::Millis,
            TimeUnit::Micros,
            TimeUnit::Nanos,
        ] {
            check_time("-0.0000000000000000000000001", unit, Ok(-1));
        }
        check_time(
            "1790000000.9999999999999999999",
            TimeUnit::Seconds,
            Ok(1_790_000_000_999_999),
        );
        check_time(
            "1790000000000.9999999999999999999",
            TimeUnit::Millis,
            Ok(1_790_000_000_000_999),
        );
        check_time(
            "1790000000000999.9999999999999999999",
            TimeUnit::Nanos,
            Ok(1_790_000_000_000),
        );
        let long = format!("1700000000123456789.{}", "0".repeat(60));
        check_time(&long, TimeUnit::Nanos, Ok(1_700_000_000_123_456));
        for text in [&"9".repeat(50), "1e80", "-1e80", &format!("-{}", "9".repeat(50))] {
            check_time(text, TimeUnit::Nanos, Err(Reason::BadTime));
        }
        for text in ["", ".", "1.x", "x", "1e", "1ex", "true", "{}"] {
            check_time(text, TimeUnit::Nanos, Err(Reason::WrongType));
        }
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

    #[test]
    fn forms_of_rfc_3339() {
        let at = |text: &str| {
            let text = format!("\"{text}\"");
            time(Raw::Text(&text), TimeUnit::Rfc3339).map(Timestamp::as_micros)
        };
        const SAME: i64 = 1_483_228_799_000_000;
        for text in [
            "2016-12-31T23:59:59Z",
            "2016-12-31T23:59:60Z",
            "2016-12-31t23:59:59z",
            "2016-12-31 23:59:59Z",
            "2017-01-01T01:59:59+02:00",
            "2017-01-01T01:59:59+0200",
            "2017-01-01T01:59:59+02",
            "20161231T235959Z",
            "2017-01-01T00:59:59+01:00[Europe/Berlin]",
        ] {
            assert_eq!(at(text), Ok(SAME), "{text}");
        }
        assert_eq!(at("2016-12-31T23:59:59,5Z"), Ok(SAME + 500_000));
        for text in [
            "2016-12-31T23:59:59",
            "2016-12-31",
            "2016-12-31T24:00:00Z",
            "2016-1-31T23:59:59Z",
            "Sat, 31 Dec 2016 23:59:59 +0000",
            "2016-12-31T23:59:59 +01:00",
        ] {
            assert_eq!(at(text), Err(Reason::BadTime), "{text}");
        }
    }

    fn check_value(text: &str, expected: Result<&str, Unusable>) {
        let result = value(Raw::Text(text), None).map(|value| value.unwrap().0.to_string());
        assert_eq!(result, expected.map(String::from), "{text}");
    }

    #[test]
    fn values_are_exact_or_refused_by_name() {
        check_value("21.37", Ok("21.37"));
        check_value("\"21.37\"", Err(Unusable::WrongType));
        check_value("true", Err(Unusable::WrongType));
        check_value("{}", Err(Unusable::WrongType));
        check_value("[1]", Err(Unusable::WrongType));
        check_value("\"NaN\"", Err(Unusable::NotFinite));
        check_value("\"-inf\"", Err(Unusable::NotFinite));
        check_value("1e18", Err(Unusable::OutOfRange));
        assert_eq!(value(Raw::Absent, None), Ok(None));
        assert_eq!(value(Raw::Blocked, None), Err(Unusable::WrongType));
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
