//! A measured value as an exact decimal.
//!
//! The text `21.37` means 2137·10⁻², not the binary float next to it. A [`Value`] holds it as an integer in units of
//! 10⁻¹⁸, so that sums are exact and their order cannot matter. Binary floats enter through their shortest decimal
//! form. What does not fit is refused or rounded here and nowhere later: not finite or |x| ≥ 10¹⁸ is refused, digits
//! finer than 10⁻¹⁸ are rounded half to even and the rounding is reported so that it can be counted.

use core::fmt::{self, Write};

/// Digits after the decimal point that a [`Value`] keeps.
pub const DECIMALS: u32 = 18;
/// One, in units of 10⁻¹⁸.
pub const ONE: i128 = 10_i128.pow(DECIMALS);

/// An exact decimal in units of 10⁻¹⁸, in the open range ±10¹⁸.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Value(i128);

/// Why a text or float is not a [`Value`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueFault {
    /// The text is not a decimal number.
    NotANumber,
    /// NaN or an infinity.
    NotFinite,
    /// The magnitude is 10¹⁸ or more.
    OutOfRange,
}

/// A parsed value and how it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// The value.
    pub value: Value,
    /// An upper bound of its digits after the decimal point, 0 to 18.
    pub decimals: u8,
    /// Whether digits finer than 10⁻¹⁸ were rounded away.
    pub rounded: bool,
}

impl Value {
    /// Every value's magnitude in units of 10⁻¹⁸ is below this.
    pub const LIMIT: i128 = 10_i128.pow(36);
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// A value from units of 10⁻¹⁸, or `None` when its magnitude is [`Value::LIMIT`] or more.
    #[inline]
    pub const fn from_units(units: i128) -> Option<Self> {
        if units.unsigned_abs() < Self::LIMIT.unsigned_abs() {
            Some(Self(units))
        } else {
            None
        }
    }

    /// The value in units of 10⁻¹⁸.
    #[inline]
    pub const fn units(self) -> i128 {
        self.0
    }

    /// Parses a decimal number as JSON writes it: `-12.5e-3`. A leading `+`, a bare `.5` and `5.` are accepted too,
    /// because other formats write them.
    pub fn parse(text: &[u8]) -> Result<Parsed, ValueFault> {
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let scan = scan_digits(digits)?;
        let parsed = scale(&scan)?;
        let units = parsed.value.0;
        Ok(Parsed {
            value: Self(if negative { -units } else { units }),
            ..parsed
        })
    }

    /// The same, but digits finer than 10⁻¹⁸ are cut off toward minus infinity: of a time, toward the past.
    pub fn parse_floor(text: &[u8]) -> Result<Self, ValueFault> {
        let parsed = Self::parse(text)?;
        if !parsed.rounded {
            return Ok(parsed.value);
        }
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let Scan {
            mantissa, exponent, ..
        } = scan_digits(digits)?;
        // Something was rounded away and the value is in range, so its last digit is finer than a unit.
        let shift = u32::try_from(-(exponent + i64::from(DECIMALS))).unwrap_or(u32::MAX);
        let whole = 10_u128.checked_pow(shift).map_or(0, |power| mantissa / power);
        let whole = i128::try_from(whole).map_err(|_| ValueFault::OutOfRange)?;
        let units = if negative { -whole - 1 } else { whole };
        Self::from_units(units).ok_or(ValueFault::OutOfRange)
    }

    /// The value of the shortest decimal that reads back as `float`.
    pub fn from_f64(float: f64) -> Result<Parsed, ValueFault> {
        if !float.is_finite() {
            return Err(ValueFault::NotFinite);
        }
        let mut text = ShortText::default();
        // Exponent form is at most 24 bytes for any f64.
        write!(text, "{float:e}").map_err(|_| ValueFault::OutOfRange)?;
        Self::parse(&text.bytes[..text.len])
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let one = ONE.unsigned_abs();
        let (whole, mut fraction) = (magnitude / one, magnitude % one);
        if self.0 < 0 {
            f.write_str("-")?;
        }
        write!(f, "{whole}")?;
        if fraction == 0 {
            return Ok(());
        }
        let mut width = DECIMALS as usize;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        write!(f, ".{fraction:0width$}")
    }
}

/// A sensor's resolution: the step that values are rounded to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resolution {
    units: i128,
    /// Values with at most this many decimals are multiples of the step already; `None` if no count is enough.
    free_decimals: Option<u8>,
}

impl Resolution {
    /// A resolution from its step in units of 10⁻¹⁸; `None` when it is not positive or is 10¹⁸ or more.
    pub fn from_units(units: i128) -> Option<Self> {
        if units <= 0 || units >= Value::LIMIT {
            return None;
        }
        let is_free = |decimals: &u8| 10_i128.pow(DECIMALS - u32::from(*decimals)) % units == 0;
        let free_decimals = (0..=DECIMALS as u8).rev().find(is_free);
        Some(Self { units, free_decimals })
    }

    /// The multiple of the step nearest to the value, ties to the even multiple; `None` if it leaves the range.
    #[inline]
    pub fn round(self, parsed: Parsed) -> Option<Value> {
        if self.free_decimals.is_some_and(|free| parsed.decimals <= free) {
            return Some(parsed.value);
        }
        let units = parsed.value.0;
        let quotient = units.div_euclid(self.units);
        let rest = units.rem_euclid(self.units);
        let twice = rest.checked_mul(2)?;
        let up = twice > self.units || (twice == self.units && quotient & 1 == 1);
        Value::from_units((quotient + i128::from(up)).checked_mul(self.units)?)
    }
}

/// What a scan of digits saw: `mantissa · 10^exponent`, and whether non-zero digits were left out below it.
struct Scan {
    mantissa: u128,
    exponent: i64,
    inexact: bool,
}

/// Digits that always fit a u128 mantissa.
const MANTISSA_DIGITS_MAX: u32 = 38;
/// Exponents beyond this are as good as infinite; stopping here keeps the arithmetic small.
const EXPONENT_MAX: i64 = 100_000;

fn scan_digits(text: &[u8]) -> Result<Scan, ValueFault> {
    if let Some(first) = text.first()
        && first.is_ascii_alphabetic()
    {
        return Err(word_fault(text));
    }
    let mut scan = Scan {
        mantissa: 0,
        exponent: 0,
        inexact: false,
    };
    // Almost all readings have fewer than 19 digits: u64 arithmetic until then.
    let mut small: u64 = 0;
    let mut kept: u32 = 0;
    let mut seen_digit = false;
    let mut seen_point = false;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'0'..=b'9' => {
                seen_digit = true;
                let digit = byte - b'0';
                if kept < 19 {
                    small = small * 10 + u64::from(digit);
                    kept += u32::from(small != 0);
                    scan.mantissa = u128::from(small);
                } else if kept < MANTISSA_DIGITS_MAX {
                    scan.mantissa = scan.mantissa * 10 + u128::from(digit);
                    kept += 1;
                } else {
                    scan.inexact |= digit != 0;
                    scan.exponent += 1;
                }
                scan.exponent -= i64::from(seen_point);
            }
            b'.' if !seen_point => seen_point = true,
            b'e' | b'E' if seen_digit => {
                scan.exponent += scan_exponent(&text[at + 1..])?;
                return Ok(scan);
            }
            _ => return Err(ValueFault::NotANumber),
        }
        at += 1;
    }
    if seen_digit {
        Ok(scan)
    } else {
        Err(ValueFault::NotANumber)
    }
}

fn scan_exponent(text: &[u8]) -> Result<i64, ValueFault> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return Err(ValueFault::NotANumber);
    }
    let mut exponent: i64 = 0;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return Err(ValueFault::NotANumber);
        }
        exponent = (exponent * 10 + i64::from(byte - b'0')).min(EXPONENT_MAX);
    }
    Ok(if negative { -exponent } else { exponent })
}

/// Words that programs write for values that are not finite, whatever their case.
fn word_fault(text: &[u8]) -> ValueFault {
    let not_finite = ["nan", "inf", "infinity"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
    if not_finite {
        ValueFault::NotFinite
    } else {
        ValueFault::NotANumber
    }
}

/// Brings `mantissa · 10^exponent` to units of 10⁻¹⁸.
fn scale(scan: &Scan) -> Result<Parsed, ValueFault> {
    if scan.mantissa == 0 {
        return Ok(Parsed {
            value: Value::ZERO,
            decimals: 0,
            rounded: scan.inexact,
        });
    }
    let shift = scan.exponent + i64::from(DECIMALS);
    let decimals = (-scan.exponent).clamp(0, i64::from(DECIMALS)) as u8;
    if shift >= 0 {
        let power = u32::try_from(shift)
            .ok()
            .and_then(|shift| 10_u128.checked_pow(shift));
        let units = power
            .and_then(|power| scan.mantissa.checked_mul(power))
            .ok_or(ValueFault::OutOfRange)?;
        let value = i128::try_from(units)
            .ok()
            .and_then(Value::from_units)
            .ok_or(ValueFault::OutOfRange)?;
        return Ok(Parsed {
            value,
            decimals,
            rounded: scan.inexact,
        });
    }
    let Some(power) = u32::try_from(-shift)
        .ok()
        .and_then(|shift| 10_u128.checked_pow(shift))
    else {
        // A mantissa of at most 38 digits divided by more than 10^38 is below one half unit.
        return Ok(Parsed {
            value: Value::ZERO,
            decimals,
            rounded: true,
        });
    };
    let (quotient, rest) = (scan.mantissa / power, scan.mantissa % power);
    let half = power / 2;
    let up = rest > half || (rest == half && (scan.inexact || quotient & 1 == 1));
    let units = i128::try_from(quotient + u128::from(up)).map_err(|_| ValueFault::OutOfRange)?;
    let value = Value::from_units(units).ok_or(ValueFault::OutOfRange)?;
    Ok(Parsed {
        value,
        decimals,
        rounded: rest != 0 || scan.inexact,
    })
}

/// A small text buffer on the stack.
#[derive(Default)]
struct ShortText {
    bytes: [u8; 32],
    len: usize,
}

impl Write for ShortText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes
            .get_mut(self.len..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

// The widths of the sums in `stats` rest on this: a magnitude has at most 120 bits.
const _: () = assert!(Value::LIMIT < 1 << 120);

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn check(text: &str, expected: Result<(&str, bool), ValueFault>) {
        let parsed = Value::parse(text.as_bytes());
        let shown = parsed.map(|parsed| (parsed.value.to_string(), parsed.rounded));
        assert_eq!(
            shown,
            expected.map(|(value, rounded)| (value.to_string(), rounded)),
            "{text}"
        );
    }

    #[test]
    fn decimals_are_exact() {
        check("21.37", Ok(("21.37", false)));
        check("-0.01", Ok(("-0.01", false)));
        check("0", Ok(("0", false)));
        check("-0.0", Ok(("0", false)));
        check("1e3", Ok(("1000", false)));
        check("12.5E-3", Ok(("0.0125", false)));
        check("+.5", Ok(("0.5", false)));
        check("74.93588199999998", Ok(("74.93588199999998", false)));
        check("0.000000000000000001", Ok(("0.000000000000000001", false)));
        check(
            "999999999999999999.999999999999999999",
            Ok(("999999999999999999.999999999999999999", false)),
        );
    }

    #[test]
    fn finer_digits_round_half_to_even_and_say_so() {
        check("0.0000000000000000005", Ok(("0", true)));
        check("0.0000000000000000015", Ok(("0.000000000000000002", true)));
        check(
            "0.00000000000000000050000000000000000000000000000000001",
            Ok(("0.000000000000000001", true)),
        );
        check("1e-200", Ok(("0", true)));
        check("0e-200", Ok(("0", false)));
    }

    #[test]
    fn finer_digits_can_be_cut_off_downward() {
        for (text, units) in [
            (
                "1790000000.9999999999999999999",
                1_790_000_000_999_999_999_999_999_999,
            ),
            ("0.0000000000000000019", 1),
            ("-0.0000000000000000011", -2),
            ("-0.0000000000000000010", -1),
            ("1e-200", 0),
            ("-1e-200", -1),
            ("-0e-200", 0),
            ("0.00000000000000000150000000000000000000000000000001", 1),
            ("-0.00000000000000000150000000000000000000000000000001", -2),
            ("1.5", 15 * 10_i128.pow(17)),
        ] {
            assert_eq!(
                Value::parse_floor(text.as_bytes()).map(Value::units),
                Ok(units),
                "{text}"
            );
        }
        assert_eq!(Value::parse_floor(b"1e18"), Err(ValueFault::OutOfRange));
        assert_eq!(Value::parse_floor(b"x"), Err(ValueFault::NotANumber));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        check("1e18", Err(ValueFault::OutOfRange));
        check("-1000000000000000000", Err(ValueFault::OutOfRange));
        check(
            "999999999999999999.9999999999999999999",
            Err(ValueFault::OutOfRange),
        );
        check("1e999999999999999999999", Err(ValueFault::OutOfRange));
        check("NaN", Err(ValueFault::NotFinite));
        check("-Infinity", Err(ValueFault::NotFinite));
        for text in ["", "-", ".", "1.2.3", "1e", "1e+", "abc", "1x", "0x10", "e5"] {
            check(text, Err(ValueFault::NotANumber));
        }
    }

    #[test]
    fn floats_enter_through_their_shortest_decimal() {
        assert_eq!(Value::from_f64(0.1).unwrap().value.to_string(), "0.1");
        assert_eq!(Value::from_f64(-21.37).unwrap().value.to_string(), "-21.37");
        assert_eq!(Value::from_f64(f64::NAN), Err(ValueFault::NotFinite));
        assert_eq!(Value::from_f64(1e300), Err(ValueFault::OutOfRange));
        assert_eq!(
            Value::from_f64(1e-300).unwrap(),
            Parsed {
                value: Value::ZERO,
                decimals: 18,
                rounded: true
            }
        );
    }

    fn rounded(value: &str, step: &str) -> alloc::string::String {
        let step = Resolution::from_units(Value::parse(step.as_bytes()).unwrap().value.units()).unwrap();
        step.round(Value::parse(value.as_bytes()).unwrap())
            .unwrap()
            .to_string()
    }

    #[test]
    fn a_resolution_rounds_to_its_multiples() {
        assert_eq!(rounded("21.374", "0.01"), "21.37");
        assert_eq!(rounded("21.375", "0.01"), "21.38");
        assert_eq!(rounded("21.365", "0.01"), "21.36");
        assert_eq!(rounded("-21.365", "0.01"), "-21.36");
        assert_eq!(rounded("-21.375", "0.01"), "-21.38");
        assert_eq!(rounded("21.3", "0.5"), "21.5");
        assert_eq!(rounded("0.75", "0.5"), "1");
        assert_eq!(rounded("0.25", "0.5"), "0");
        assert_eq!(rounded("7", "3"), "6");
    }
}
