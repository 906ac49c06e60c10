//! What a column must show, exactly.

use num_bigint::BigInt;
use num_traits::Zero;

use super::decimal::power_of_ten;

/// Decimals shown.
const SHOWN: u32 = 20;

/// An exact answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// There is none: NULL.
    None,
    /// A whole number.
    Count(u64),
    /// Numerator and positive denominator.
    Fraction(BigInt, BigInt),
    /// The same; or NULL, where there was too much to keep.
    FractionOrNone(BigInt, BigInt),
    /// The square root of this fraction, which is not negative.
    Root(BigInt, BigInt),
    /// Exactly this double.
    Double(f64),
    /// Exactly this text.
    Text(String),
}

impl Answer {
    /// The answer with twenty decimals, for people.
    pub fn show(&self) -> String {
        match self {
            Self::None => "NULL".into(),
            Self::Count(count) => count.to_string(),
            Self::Fraction(top, bottom) | Self::FractionOrNone(top, bottom) => {
                show_scaled(&(top * power_of_ten(SHOWN) / bottom))
            }
            Self::Root(top, bottom) => show_scaled(&(top * power_of_ten(2 * SHOWN) / bottom).sqrt()),
            Self::Double(double) => format!("{double:?}"),
            Self::Text(text) => format!("`{text}`"),
        }
    }
}

fn show_scaled(scaled: &BigInt) -> String {
    let sign = if *scaled < BigInt::zero() { "-" } else { "" };
    let digits = format!(
        "{:0>width$}",
        scaled.magnitude().to_string(),
        width = SHOWN as usize + 1
    );
    let (whole, fraction) = digits.split_at(digits.len() - SHOWN as usize);
    format!("{sign}{whole}.{fraction}")
}
