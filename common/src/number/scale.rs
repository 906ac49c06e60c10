//! Powers of ten: multiplying by them, and dividing by them exactly, without a long division.
//!
//! 10^k is 2^k · 5^k. An n-bit number whose k low bits are zero is, shifted, a multiple of the odd 5^k exactly when its
//! product with the inverse of 5^k modulo 2^n is at most ⌊(2^n − 1) / 5^k⌋, and then that product is the quotient
//! (Granlund and Montgomery, "Division by Invariant Integers using Multiplication", 1994, section 9).

use crate::limits::PANE_READINGS_MAX;
use crate::number::decimal::Value;
use crate::stats::{Squares, Sum};

/// Largest scale: 10³⁶ units is the limit of a value.
pub(crate) const SCALE_MAX: u8 = 35;
/// Bits of the largest sum of squares of as many values as a pane holds.
const SQUARES_BITS_MAX: u32 = 240 + PANE_READINGS_MAX.ilog2() + 1;

/// One power of ten with what division by it needs.
pub(crate) struct Scale {
    /// The exponent.
    pub(crate) exponent: u8,
    power: i128,
    /// Largest magnitude of a value in steps of this scale, as far as 64 bits can tell.
    value_max: u64,
    /// One more than the largest magnitude of a value in steps of this scale.
    value_limit: u128,
    /// Its square, where that fits 128 bits.
    square_limit: Option<u128>,
    /// Of 5^exponent, modulo 2¹²⁸.
    inverse: u128,
    quotient_max: u128,
    /// Of 25^exponent, modulo 2¹²⁸.
    square_inverse: u128,
    /// The power squared, where that fits 128 bits.
    square: Option<u128>,
}

static SCALES: [Scale; SCALE_MAX as usize + 1] = {
    let mut scales = [const { Scale::new(0) }; SCALE_MAX as usize + 1];
    let mut exponent = 1;
    while exponent <= SCALE_MAX {
        scales[exponent as usize] = Scale::new(exponent);
        exponent += 1;
    }
    scales
};

impl Scale {
    const fn new(exponent: u8) -> Self {
        let power = 10_i128.pow(exponent as u32);
        let five = 5_u128.pow(exponent as u32);
        let value_limit = Value::LIMIT.unsigned_abs() / power.unsigned_abs();
        Self {
            exponent,
            power,
            value_max: if value_limit > u64::MAX as u128 {
                u64::MAX
            } else {
                (value_limit - 1) as u64
            },
            value_limit,
            square_limit: value_limit.checked_mul(value_limit),
            inverse: inverse(five),
            quotient_max: u128::MAX / five,
            square_inverse: inverse(five.wrapping_mul(five)),
            square: power.unsigned_abs().checked_mul(power.unsigned_abs()),
        }
    }

    /// The scale of this exponent, if there is one.
    #[inline]
    pub(crate) fn of(exponent: u8) -> Option<&'static Self> {
        SCALES.get(usize::from(exponent))
    }

    /// `units` in steps of this scale, if it is a whole number of them.
    #[inline]
    pub(crate) fn exact(&self, units: i128) -> Option<i128> {
        let magnitude = units.unsigned_abs();
        let shifted = magnitude >> self.exponent;
        let quotient = shifted.wrapping_mul(self.inverse);
        let whole = shifted << self.exponent == magnitude && quotient <= self.quotient_max;
        // At scale 0 the quotient of i128::MIN is its magnitude; no sum and no value comes near it.
        whole.then_some(if units < 0 {
            (quotient as i128).wrapping_neg()
        } else {
            quotient as i128
        })
    }

    /// `squares` in steps of this scale squared, if it is a whole number of them below 2¹²⁴.
    #[inline]
    pub(crate) fn exact_squares(&self, squares: &Squares) -> Option<i128> {
        let limbs = squares.limbs();
        let (whole, part) = (usize::from(self.exponent / 32), u32::from(self.exponent % 32) * 2);
        let low = u128::from(limbs[whole]) | (u128::from(limbs[whole + 1]) << 64);
        let low = if part == 0 {
            low
        } else {
            low >> part | u128::from(limbs[whole + 2]) << (128 - part)
        };
        let quotient = low.wrapping_mul(self.square_inverse);
        // The inverse settles only the low bits: multiply back to be sure.
        let fits = quotient >> 124 == 0 && self.squares(quotient).as_ref() == Some(squares);
        fits.then_some(quotient as i128)
    }

    /// So many steps in units, if that is in the range of values.
    #[inline]
    pub(crate) fn units(&self, value: i64) -> Option<i128> {
        (value.unsigned_abs() <= self.value_max).then(|| i128::from(value).wrapping_mul(self.power))
    }

    /// So many steps in units, if that fits.
    #[inline]
    pub(crate) fn times(&self, value: i128) -> Option<i128> {
        value.checked_mul(self.power)
    }

    /// A sum of `count` values from its steps, if so many values can have it.
    #[inline]
    pub(crate) fn sum(&self, sum: i128, count: u64) -> Option<Sum> {
        // A limit beyond 128 bits is above any sum.
        let limit = self.value_limit.checked_mul(u128::from(count));
        if limit.is_some_and(|limit| sum.unsigned_abs() >= limit) {
            return None;
        }
        if let (Ok(sum), Ok(power)) = (i64::try_from(sum), i64::try_from(self.power)) {
            return Some(Sum::from_i128(i128::from(sum) * i128::from(power)));
        }
        let mut scaled = Sum::from_u128(sum.unsigned_abs());
        for power in self.factors() {
            scaled = scaled.times(power);
        }
        Some(if sum < 0 { scaled.negated() } else { scaled })
    }

    /// The sum of the squares of `count` values from its steps, if that many values can have it.
    #[inline]
    pub(crate) fn squares_of(&self, squares: u128, count: u64) -> Option<Squares> {
        // A limit beyond 128 bits is above any number of steps.
        let limit = self
            .square_limit
            .and_then(|limit| limit.checked_mul(u128::from(count)));
        let fits = limit.is_none_or(|limit| squares <= limit);
        fits.then(|| self.squares(squares)).flatten()
    }

    /// A sum of squares from its steps, if the values of a pane can have it.
    #[inline]
    fn squares(&self, squares: u128) -> Option<Squares> {
        if let (Ok(few), Some(square)) = (u64::try_from(squares), self.square) {
            // Below 2⁶⁴ · 10³⁸, which is far below the bound.
            let low = u128::from(few) * u128::from(square as u64);
            let high = u128::from(few) * (square >> 64) + (low >> 64);
            return Some(Squares::from_limbs([
                low as u64,
                high as u64,
                (high >> 64) as u64,
                0,
                0,
            ]));
        }
        let mut scaled = Squares::from_u128(squares);
        if scaled.bits() + 2 * self.power.ilog2() + 2 > SQUARES_BITS_MAX {
            return None;
        }
        for power in self.factors().into_iter().flat_map(|power| [power, power]) {
            scaled = scaled.times(power);
        }
        Some(scaled)
    }

    /// The power as factors that fit 64 bits.
    fn factors(&self) -> [u64; 2] {
        let low = self.exponent.min(19);
        [
            10_u64.pow(u32::from(low)),
            10_u64.pow(u32::from(self.exponent - low)),
        ]
    }
}

/// The inverse of an odd number modulo 2¹²⁸, by Newton's iteration: each round doubles the bits that are right.
const fn inverse(odd: u128) -> u128 {
    let mut inverse = odd; // Right to 3 bits.
    let mut right = 3;
    while right < 128 {
        inverse = inverse.wrapping_mul(2_u128.wrapping_sub(odd.wrapping_mul(inverse)));
        right *= 2;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exact_division_agrees_with_long_division(number in any::<i128>(), shift in 0_u32..127, exponent in 0..=SCALE_MAX, whole in any::<bool>()) {
            let scale = Scale::of(exponent).unwrap();
            let small = number >> shift;
            let number = if whole { small.checked_mul(scale.power).unwrap_or(small) } else { small };
            prop_assume!(number != i128::MIN);
            let expected = (number % scale.power == 0).then(|| number / scale.power);
            prop_assert_eq!(scale.exact(number), expected);
        }

        #[test]
        fn sums_of_squares_scale_up_and_down(steps in 0_u128..1 << 124, shift in 0_u32..124, exponent in 0..=SCALE_MAX, off in 0_u64..3) {
            let scale = Scale::of(exponent).unwrap();
            let steps = steps >> shift;
            let Some(squares) = scale.squares(steps) else {
                prop_assert!(128 - steps.leading_zeros() + 2 * scale.power.ilog2() + 2 > SQUARES_BITS_MAX);
                return Ok(());
            };
            let bytes: alloc::vec::Vec<u8> = squares.limbs().iter().flat_map(|limb| limb.to_le_bytes()).collect();
            let expected = BigUint::from(steps) * BigUint::from(10_u8).pow(2 * u32::from(exponent));
            prop_assert_eq!(BigUint::from_bytes_le(&bytes), expected.clone());
            let mut near = squares;
            near.add(&Squares::from_u128(u128::from(off)));
            let is_whole = (expected + off) % BigUint::from(10_u8).pow(2 * u32::from(exponent)) == BigUint::ZERO;
            prop_assert_eq!(scale.exact_squares(&near).is_some(), is_whole);
            prop_assert_eq!(scale.exact_squares(&squares), Some(steps as i128));
        }

        #[test]
        fn sums_scale_up(steps in any::<i128>(), shift in 0_u32..127, exponent in 0..=SCALE_MAX, count in 1_u64..1 << 40) {
            let (scale, steps) = (Scale::of(exponent).unwrap(), steps >> shift);
            let limit = BigUint::from(scale.value_limit) * count;
            let sum = scale.sum(steps, count);
            prop_assert_eq!(sum.is_some(), BigUint::from(steps.unsigned_abs()) < limit);
            if let Some(sum) = sum {
                let bytes: alloc::vec::Vec<u8> = sum.magnitude().limbs().iter().flat_map(|limb| limb.to_le_bytes()).collect();
                prop_assert_eq!(sum.is_negative(), steps < 0);
                prop_assert_eq!(BigUint::from_bytes_le(&bytes), BigUint::from(steps.unsigned_abs()) * scale.power.unsigned_abs());
            }
        }
    }
}
