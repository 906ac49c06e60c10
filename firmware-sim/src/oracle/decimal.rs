//! Decimal text as a big integer in units of 10⁻¹⁸.

use catchment_common::metrics::Reason;
use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::{One, Signed, Zero};

/// Digits after the decimal point that a value keeps.
const DECIMALS: i64 = 18;
/// Digits before the decimal point that a value may have.
const WHOLE_DIGITS: i64 = 18;
/// Exponents are cut here: beyond, they are too large or too small whatever the digits.
const EXPONENT_MAX: i64 = 1_000_000_000;

/// 10 to this power.
pub fn power_of_ten(exponent: u32) -> BigInt {
    match 10_u64.checked_pow(exponent) {
        Some(small) => small.into(),
        None => BigInt::from(10).pow(exponent),
    }
}

/// Reads a JSON number. Digits finer than 10⁻¹⁸ are rounded half to even; 10¹⁸ or more is out of range.
pub fn parse(text: &str) -> Result<BigInt, Reason> {
    let Some(Scan {
        negative,
        digits,
        exponent,
    }) = scan(text)?
    else {
        return Ok(BigInt::zero());
    };
    let length = digits.len() as i64;
    if length + exponent > WHOLE_DIGITS {
        return Err(Reason::OutOfRange);
    }
    if length + exponent < -DECIMALS {
        return Ok(BigInt::zero());
    }
    // Both bounds above hold here, so the shift is at most as long as the text.
    let number = whole(&digits)?;
    let shift = exponent + DECIMALS;
    let power = power_of_ten(shift.unsigned_abs() as u32);
    let units = if shift >= 0 {
        number * power
    } else {
        divide_half_even(&number, &power)
    };
    if units >= power_of_ten((WHOLE_DIGITS + DECIMALS) as u32) {
        return Err(Reason::OutOfRange);
    }
    Ok(if negative { -units } else { units })
}

/// The largest whole number of parts that is not above a JSON number, where 10^`decimals` parts are 1.
pub fn floor(text: &str, decimals: u32) -> Result<BigInt, Reason> {
    let Some(Scan {
        negative,
        digits,
        exponent,
    }) = scan(text)?
    else {
        return Ok(BigInt::zero());
    };
    let shift = exponent + i64::from(decimals);
    let length = digits.len() as i64;
    if length + shift > 100 {
        return Err(Reason::OutOfRange);
    }
    if length + shift < 0 {
        return Ok(if negative { -BigInt::one() } else { BigInt::zero() });
    }
    let magnitude = whole(&digits)?;
    let number = if negative { -magnitude } else { magnitude };
    let power = power_of_ten(shift.unsigned_abs() as u32);
    Ok(if shift >= 0 {
        number * power
    } else {
        number.div_floor(&power)
    })
}

/// A number other than zero: `digits` · 10^`exponent`.
struct Scan {
    negative: bool,
    digits: String,
    exponent: i64,
}

/// A JSON number's parts; none for zero.
fn scan(text: &str) -> Result<Option<Scan>, Reason> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = !whole.is_empty()
        && whole
            .bytes()
            .chain(fraction.bytes())
            .all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(Reason::WrongType);
    }
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0').to_owned();
    let exponent = exponent - fraction.len() as i64;
    Ok((!digits.is_empty()).then_some(Scan {
        negative,
        digits,
        exponent,
    }))
}

fn whole(digits: &str) -> Result<BigInt, Reason> {
    match digits.parse::<u64>() {
        Ok(small) => Ok(small.into()),
        Err(_) => digits.parse().map_err(|_| Reason::WrongType),
    }
}

fn parse_exponent(text: &str) -> Result<i64, Reason> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Reason::WrongType);
    }
    let exponent = digits
        .parse()
        .map_or(EXPONENT_MAX, |exponent: i64| exponent.min(EXPONENT_MAX));
    Ok(if negative { -exponent } else { exponent })
}

/// The multiple of `step` (positive) nearest to `units`; of two, the even one. Out of range at 10¹⁸ and more.
pub fn round_to(units: &BigInt, step: &BigInt) -> Result<BigInt, Reason> {
    let rounded = divide_half_even(units, step) * step;
    if rounded.abs() >= power_of_ten((WHOLE_DIGITS + DECIMALS) as u32) {
        return Err(Reason::OutOfRange);
    }
    Ok(rounded)
}

fn divide_half_even(number: &BigInt, divisor: &BigInt) -> BigInt {
    let (quotient, rest) = number.div_mod_floor(divisor);
    let up = match (&rest * 2_u8).cmp(divisor) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient.is_odd(),
        std::cmp::Ordering::Greater => true,
    };
    quotient + BigInt::from(u8::from(up))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, Reason>) {
        assert_eq!(
            parse(text).map(|units| units.to_string()),
            expected.map(String::from),
            "{text}"
        );
    }

    #[test]
    fn decimals_by_hand() {
        check("21.37", Ok("21370000000000000000"));
        check("-0.5", Ok("-500000000000000000"));
        check("1e3", Ok("1000000000000000000000"));
        check("12.5E-3", Ok("12500000000000000"));
        check("0e999999999999999999999", Ok("0"));
        check("-0.0", Ok("0"));
        check("0.0000000000000000005", Ok("0"));
        check("0.0000000000000000015", Ok("2"));
        check("-0.0000000000000000025", Ok("-2"));
        check(
            "0.00000000000000000050000000000000000000000000000000000000001",
            Ok("1"),
        );
        check("1e-999999999999", Ok("0"));
        check(
            "999999999999999999.999999999999999999",
            Ok("999999999999999999999999999999999999"),
        );
        check("999999999999999999.9999999999999999995", Err(Reason::OutOfRange));
        check("1e18", Err(Reason::OutOfRange));
        check("-1e99999999999999999999", Err(Reason::OutOfRange));
        for text in ["", "-", "x", "1e", "1e+", "1.2.3", ".5", "\"1\"", "true", "--1"] {
            check(text, Err(Reason::WrongType));
        }
    }

    #[test]
    fn floors_by_hand() {
        for (text, decimals, expected) in [
            ("1.99999999999999999999999", 6, 1_999_999),
            ("-1.00000000000000000000001", 6, -1_000_001),
            ("-1e-999999999999", 6, -1),
            ("1e-999999999999", 6, 0),
            ("-0.0", 6, 0),
            ("12e3", 3, 12_000_000),
        ] {
            assert_eq!(floor(text, decimals), Ok(expected.into()), "{text}");
        }
        assert_eq!(floor("1e99999", 0), Err(Reason::OutOfRange));
    }

    #[test]
    fn resolutions_by_hand() {
        let round = |value: &str, step: &str| {
            round_to(&parse(value).unwrap(), &parse(step).unwrap()).map(|units| units.to_string())
        };
        assert_eq!(round("21.374", "0.01"), Ok("21370000000000000000".into()));
        assert_eq!(round("21.375", "0.01"), Ok("21380000000000000000".into()));
        assert_eq!(round("21.365", "0.01"), Ok("21360000000000000000".into()));
        assert_eq!(round("-21.365", "0.01"), Ok("-21360000000000000000".into()));
        assert_eq!(round("7", "3"), Ok("6000000000000000000".into()));
        assert_eq!(round("999999999999999999.9", "1"), Err(Reason::OutOfRange));
    }
}
