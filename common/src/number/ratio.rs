//! The one rounding: from an exact ratio, or the square root of one, to the nearest double.
//!
//! Everything before this is integers, so a result does not depend on the order or grouping of what went in. Here the
//! exact result is rounded once, to nearest, ties to even, as IEEE 754 rounds a single operation.

use crate::number::wide::Wide;

/// Wide enough for the numerator of a variance (a 64-bit count times 320 bits of squares, and the square of 192 bits
/// of sum) shifted left by the bits of its denominator (128 bits of counts and 120 of decimals) and the quotient's.
pub type Exact = Wide<12>;

/// The double nearest to `numerator / denominator`, ties to even. The denominator must not be zero.
pub fn nearest(numerator: &Exact, denominator: &Exact) -> f64 {
    let negative = numerator.is_negative();
    let numerator = numerator.magnitude();
    if numerator.is_zero() {
        return 0.0;
    }
    if let (Some(small), Some(by)) = (small(&numerator), small(denominator)) {
        // Both are exact doubles, and one IEEE division rounds correctly.
        let quotient = small as f64 / by as f64;
        return if negative { -quotient } else { quotient };
    }
    // 66 or 67 quotient bits: 53 for the result, the rest and a sticky bit for rounding.
    let shift = 66 + denominator.bits() as i32 - numerator.bits() as i32;
    let (quotient, inexact) = scaled_division(&numerator, denominator, shift);
    let magnitude = round(quotient, inexact, -shift);
    if negative { -magnitude } else { magnitude }
}

/// The double nearest to the square root of `numerator / denominator`, ties to even. The numerator must not be
/// negative and the denominator not zero.
pub fn nearest_sqrt(numerator: &Exact, denominator: &Exact) -> f64 {
    if numerator.is_zero() {
        return 0.0;
    }
    // A quotient of 120 or 121 bits has a root of 60 or 61. The shift must be even to halve it.
    let shift = (120 + denominator.bits() as i32 - numerator.bits() as i32) & !1;
    let (quotient, inexact) = scaled_division(numerator, denominator, shift);
    let root = quotient.isqrt();
    round(root, inexact || root * root != quotient, -shift / 2)
}

/// `numerator · 2^shift / denominator` rounded down, and whether anything was cut off. The quotient must fit 128 bits.
fn scaled_division(numerator: &Exact, denominator: &Exact, shift: i32) -> (u128, bool) {
    let (quotient, inexact) = if shift >= 0 {
        numerator.shifted_left(shift.unsigned_abs()).div(denominator)
    } else {
        numerator.div(&denominator.shifted_left(shift.unsigned_abs()))
    };
    (
        quotient.to_u128().expect("the shift leaves at most 122 bits"),
        inexact,
    )
}

/// Magnitudes below 2⁵³ are exact doubles.
fn small(number: &Exact) -> Option<u64> {
    number
        .to_u128()
        .filter(|&number| number < 1 << 53)
        .map(|number| number as u64)
}

/// `number · 2^exponent`, plus something below one unit of `number` if `inexact`, as the nearest double. `number` must
/// have more than 54 bits, and the result must be a normal double: the widths above keep it within 10^±80.
fn round(number: u128, inexact: bool, exponent: i32) -> f64 {
    let bits = 128 - number.leading_zeros();
    let cut = bits - 53;
    let kept = (number >> cut) as u64;
    let rest = number & ((1 << cut) - 1);
    let half = 1_u128 << (cut - 1);
    let up = rest > half || (rest == half && (inexact || kept & 1 == 1));
    // Rounding up may carry into a 54th bit; the double is exact all the same.
    let mantissa = (kept + u64::from(up)) as f64;
    mantissa * power_of_two(exponent + cut as i32)
}

/// Two to a power in the range of normal doubles; `core` has no `powi`.
fn power_of_two(exponent: i32) -> f64 {
    assert!(
        (-1022..=1023).contains(&exponent),
        "the result is a normal double"
    );
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;
    use num_rational::BigRational;
    use num_traits::Signed;
    use proptest::prelude::*;

    use super::*;

    /// Whether `result` is the double nearest to `exact`: it lies between the midpoints to its neighbours.
    fn is_nearest(exact: &BigRational, result: f64) -> bool {
        let as_exact = |float: f64| BigRational::from_float(float).unwrap();
        let middle = |a: f64, b: f64| (as_exact(a) + as_exact(b)) / BigInt::from(2);
        let (below, above) = (
            middle(result.next_down(), result),
            middle(result, result.next_up()),
        );
        let even = result.to_bits() & 1 == 0;
        if even {
            &below <= exact && exact <= &above
        } else {
            &below < exact && exact < &above
        }
    }

    proptest! {
        #[test]
        fn ratios_are_rounded_to_nearest(
            numerator in any::<i128>(), more in any::<u64>(), denominator in 1..u128::MAX,
        ) {
            let numerator_exact = BigInt::from(numerator) * BigInt::from(more);
            let mut wide = Exact::from_i128(numerator).magnitude().times(more);
            if numerator < 0 { wide = wide.negated(); }
            let result = nearest(&wide, &Exact::from_u128(denominator));
            let exact = BigRational::new(numerator_exact, BigInt::from(denominator));
            prop_assert!(is_nearest(&exact, result), "{exact} gave {result}");
        }

        #[test]
        fn small_ratios_are_rounded_to_nearest(numerator in -10_000_i128..10_000, denominator in 1_u128..10_000) {
            let result = nearest(&Exact::from_i128(numerator), &Exact::from_u128(denominator));
            let exact = BigRational::new(BigInt::from(numerator), BigInt::from(denominator));
            prop_assert!(numerator == 0 && result == 0.0 || is_nearest(&exact, result));
        }

        #[test]
        fn roots_are_rounded_to_nearest(numerator in 1..u128::MAX, denominator in 1..u128::MAX) {
            let result = nearest_sqrt(&Exact::from_u128(numerator), &Exact::from_u128(denominator));
            let exact = BigRational::new(BigInt::from(numerator), BigInt::from(denominator));
            let as_exact = |float: f64| BigRational::from_float(float).unwrap();
            let below = (as_exact(result.next_down()) + as_exact(result)) / BigInt::from(2);
            let above = (as_exact(result.next_up()) + as_exact(result)) / BigInt::from(2);
            prop_assert!(&below * &below <= exact && exact <= &above * &above && !exact.is_negative());
        }
    }

    #[test]
    fn perfect_roots_are_exact() {
        let root = |n: u128, d: u128| nearest_sqrt(&Exact::from_u128(n), &Exact::from_u128(d));
        assert_eq!(root(4, 1), 2.0);
        assert_eq!(root(9, 16), 0.75);
        assert_eq!(root(2, 1), 2.0_f64.sqrt());
    }
}
