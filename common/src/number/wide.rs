//! Integers wider than 128 bits, just what the exact sums need.
//!
//! [`Wide`] is a little-endian array of 64-bit limbs in two's complement. The sums use it with three and five limbs;
//! the one rounding at output ([`crate::number::ratio`]) uses twelve. Widths are chosen so that nothing can overflow; the proof
//! stands in [`crate::stats`].

/// A two's complement integer of `N` limbs of 64 bits, least significant first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Wide<const N: usize>([u64; N]);

impl<const N: usize> Default for Wide<N> {
    fn default() -> Self {
        Self::ZERO
    }
}

impl<const N: usize> Wide<N> {
    /// Zero.
    pub const ZERO: Self = Self([0; N]);

    /// The limbs, least significant first.
    #[inline]
    pub const fn limbs(&self) -> &[u64; N] {
        &self.0
    }

    /// From limbs, least significant first.
    #[inline]
    pub const fn from_limbs(limbs: [u64; N]) -> Self {
        Self(limbs)
    }

    /// From a signed number, sign-extended. `N` must be at least 2.
    #[inline]
    pub fn from_i128(number: i128) -> Self {
        let mut limbs = [(number >> 127) as u64; N];
        limbs[0] = number as u64;
        limbs[1] = (number >> 64) as u64;
        Self(limbs)
    }

    /// From an unsigned number. `N` must be at least 2.
    #[inline]
    pub fn from_u128(number: u128) -> Self {
        let mut limbs = [0; N];
        limbs[0] = number as u64;
        limbs[1] = (number >> 64) as u64;
        Self(limbs)
    }

    /// The number as an i128, if it fits.
    #[inline]
    pub fn to_i128(&self) -> Option<i128> {
        let low = i128::from(self.0[0]) | (i128::from(self.0[1]) << 64);
        let sign = (low >> 127) as u64;
        self.0[2..].iter().all(|&limb| limb == sign).then_some(low)
    }

    /// The number as a u128, if it fits.
    #[inline]
    pub fn to_u128(&self) -> Option<u128> {
        let low = u128::from(self.0[0]) | (u128::from(self.0[1]) << 64);
        self.0[2..].iter().all(|&limb| limb == 0).then_some(low)
    }

    /// Whether the number is below zero.
    #[inline]
    pub const fn is_negative(&self) -> bool {
        (self.0[N - 1] as i64) < 0
    }

    /// Whether the number is zero.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|&limb| limb == 0)
    }

    /// Adds, wrapping at the width.
    #[inline]
    pub fn add(&mut self, other: &Self) {
        let mut carry = false;
        for (limb, &more) in self.0.iter_mut().zip(&other.0) {
            let (sum, first) = limb.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first | second;
        }
    }

    /// The negated number, wrapping at the width.
    pub fn negated(&self) -> Self {
        let mut limbs = self.0.map(|limb| !limb);
        for limb in &mut limbs {
            let (sum, carry) = limb.overflowing_add(1);
            *limb = sum;
            if !carry {
                break;
            }
        }
        Self(limbs)
    }

    /// Subtracts, wrapping at the width.
    pub fn sub(&mut self, other: &Self) {
        self.add(&other.negated());
    }

    /// The magnitude, to be read as unsigned.
    pub fn magnitude(&self) -> Self {
        if self.is_negative() { self.negated() } else { *self }
    }

    /// The number in a wider or narrower integer, sign-extended or cut off.
    pub fn resized<const M: usize>(&self) -> Wide<M> {
        let mut limbs = [if self.is_negative() { u64::MAX } else { 0 }; M];
        for (limb, &source) in limbs.iter_mut().zip(&self.0) {
            *limb = source;
        }
        Wide(limbs)
    }

    /// Adds the square of `number`, whose magnitude must be below 2¹²⁰. `N` must be at least 4.
    #[inline]
    pub fn add_square(&mut self, number: i128) {
        let magnitude = number.unsigned_abs();
        let (low, high) = (magnitude as u64, (magnitude >> 64) as u64);
        let low_square = u128::from(low) * u128::from(low);
        // 2·low·high < 2·2⁶⁴·2⁵⁶ fits.
        let cross = u128::from(low) * u128::from(high) * 2;
        let high_square = u128::from(high) * u128::from(high);
        let (middle, carry) = (low_square >> 64).overflowing_add(cross);
        let top = high_square + (middle >> 64) + (u128::from(carry) << 64);
        let mut square = [0; N];
        square[0] = low_square as u64;
        square[1] = middle as u64;
        square[2] = top as u64;
        square[3] = (top >> 64) as u64;
        self.add(&Self(square));
    }

    /// The product of the magnitude with a 64-bit number, cut off at the width.
    pub fn times(&self, factor: u64) -> Self {
        let mut limbs = [0; N];
        let mut carry: u128 = 0;
        for (limb, &source) in limbs.iter_mut().zip(&self.0) {
            carry += u128::from(source) * u128::from(factor);
            *limb = carry as u64;
            carry >>= 64;
        }
        Self(limbs)
    }

    /// The product of two magnitudes, cut off at the width.
    pub fn product(&self, other: &Self) -> Self {
        let mut limbs = [0; N];
        for (i, &a) in self.0.iter().enumerate().filter(|(_, limb)| **limb != 0) {
            let mut carry: u128 = 0;
            for (limb, &b) in limbs[i..].iter_mut().zip(&other.0) {
                carry += u128::from(a) * u128::from(b) + u128::from(*limb);
                *limb = carry as u64;
                carry >>= 64;
            }
        }
        Self(limbs)
    }

    /// Divides the magnitude by a 64-bit number; returns the quotient and the rest.
    pub fn div_rem_u64(&self, divisor: u64) -> (Self, u64) {
        let mut limbs = [0; N];
        let mut rest: u64 = 0;
        for (limb, &source) in limbs.iter_mut().zip(&self.0).rev() {
            if rest == 0 && source == 0 {
                continue;
            }
            let dividend = (u128::from(rest) << 64) | u128::from(source);
            *limb = (dividend / u128::from(divisor)) as u64;
            rest = (dividend % u128::from(divisor)) as u64;
        }
        (Self(limbs), rest)
    }

    /// Bits needed for the magnitude; 0 for zero.
    pub fn bits(&self) -> u32 {
        let used = N - self.0.iter().rev().take_while(|&&limb| limb == 0).count();
        if used == 0 {
            0
        } else {
            used as u32 * 64 - self.0[used - 1].leading_zeros()
        }
    }

    /// The magnitude shifted left; bits pushed out are lost.
    pub fn shifted_left(&self, shift: u32) -> Self {
        let (whole, part) = ((shift / 64) as usize, shift % 64);
        let mut limbs = [0; N];
        let mut carried = 0;
        for (limb, &source) in limbs[whole..].iter_mut().zip(&self.0) {
            *limb = source << part | carried;
            carried = if part > 0 { source >> (64 - part) } else { 0 };
        }
        Self(limbs)
    }

    /// Divides magnitudes by schoolbook long division (Knuth, TAOCP volume 2, 4.3.1, algorithm D); returns the
    /// quotient and whether a rest is left. The divisor must not be zero.
    pub fn div(&self, divisor: &Self) -> (Self, bool) {
        let width = N - divisor.0.iter().rev().take_while(|&&limb| limb == 0).count();
        assert!(width > 0, "division by zero");
        if width == 1 {
            let (quotient, rest) = self.div_rem_u64(divisor.0[0]);
            return (quotient, rest != 0);
        }
        // Normalise so that the divisor's top bit is set; the dividend may grow by one limb.
        let shift = divisor.0[width - 1].leading_zeros();
        let divisor = divisor.shifted_left(shift);
        let mut rest = self.shifted_left(shift);
        let mut overflow = if shift > 0 {
            self.0[N - 1] >> (64 - shift)
        } else {
            0
        };
        let mut quotient = [0; N];
        for at in (0..=N - width).rev() {
            let top = if at + width < N {
                rest.0[at + width]
            } else {
                overflow
            };
            let digit = divide_step(&mut rest.0[at..at + width], top, &divisor.0[..width]);
            if at + width < N {
                rest.0[at + width] = 0;
            } else {
                overflow = 0;
            }
            quotient[at] = digit;
        }
        debug_assert_eq!(overflow, 0);
        (Self(quotient), !rest.is_zero())
    }
}

/// One digit of long division: divides `top:rest` by the normalised `divisor` of the same length as `rest`, leaves the
/// remainder in `rest` and returns the digit.
fn divide_step(rest: &mut [u64], top: u64, divisor: &[u64]) -> u64 {
    let last = divisor.len() - 1;
    let leading = u128::from(divisor[last]);
    let dividend = (u128::from(top) << 64) | u128::from(rest[last]);
    let (mut digit, mut remainder) = if u128::from(top) >= leading {
        (u128::from(u64::MAX), dividend - u128::from(u64::MAX) * leading)
    } else {
        (dividend / leading, dividend % leading)
    };
    // The estimate is at most two too large; the second limb settles nearly all of it.
    while remainder >> 64 == 0
        && digit * u128::from(divisor[last - 1]) > ((remainder << 64) | u128::from(rest[last - 1]))
    {
        digit -= 1;
        remainder += leading;
    }
    let mut borrow: u128 = 0;
    for (limb, &part) in rest.iter_mut().zip(divisor) {
        let product = digit * u128::from(part) + borrow;
        let (difference, under) = limb.overflowing_sub(product as u64);
        *limb = difference;
        borrow = (product >> 64) + u128::from(under);
    }
    if borrow > u128::from(top) {
        digit -= 1;
        let mut carry = false;
        for (limb, &part) in rest.iter_mut().zip(divisor) {
            let (sum, first) = limb.overflowing_add(part);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first | second;
        }
    }
    digit as u64
}

#[cfg(test)]
mod tests {
    use num_bigint::{BigInt, BigUint, Sign};
    use proptest::prelude::*;

    use super::*;

    fn big<const N: usize>(wide: &Wide<N>) -> BigUint {
        let bytes: alloc::vec::Vec<u8> = wide.limbs().iter().flat_map(|limb| limb.to_le_bytes()).collect();
        BigUint::from_bytes_le(&bytes)
    }

    fn signed<const N: usize>(wide: &Wide<N>) -> BigInt {
        let sign = if wide.is_negative() {
            Sign::Minus
        } else {
            Sign::Plus
        };
        BigInt::from_biguint(sign, big(&wide.magnitude()))
    }

    /// Limbs that are often all zeros or all ones: the carries live there.
    fn limb() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), Just(u64::MAX), Just(1 << 63), any::<u64>()]
    }

    proptest! {
        #[test]
        fn division_agrees_with_arbitrary_precision(
            a in prop::array::uniform6(limb()), b in prop::array::uniform6(limb()), cut in 0_usize..6,
        ) {
            let mut divisor = b;
            divisor[6 - cut..].fill(0);
            let (dividend, divisor) = (Wide::from_limbs(a), Wide::from_limbs(divisor));
            prop_assume!(!divisor.is_zero());
            let (quotient, inexact) = dividend.div(&divisor);
            prop_assert_eq!(big(&quotient), big(&dividend) / big(&divisor));
            prop_assert_eq!(inexact, big(&dividend) % big(&divisor) != BigUint::ZERO);
        }

        #[test]
        fn sums_and_squares_agree_with_arbitrary_precision(
            numbers in prop::collection::vec(-(10_i128.pow(36)) + 1..10_i128.pow(36), 0..20),
        ) {
            let (mut sum, mut squares) = (Wide::<3>::ZERO, Wide::<5>::ZERO);
            let (mut expected_sum, mut expected_squares) = (BigInt::ZERO, BigInt::ZERO);
            for number in numbers {
                sum.add(&Wide::from_i128(number));
                squares.add_square(number);
                expected_sum += BigInt::from(number);
                expected_squares += BigInt::from(number) * BigInt::from(number);
            }
            prop_assert_eq!(signed(&sum), expected_sum);
            prop_assert_eq!(signed(&squares), expected_squares);
        }

        #[test]
        fn products_and_shifts_agree_with_arbitrary_precision(
            a in prop::array::uniform3(limb()), b in prop::array::uniform3(limb()), shift in 0_u32..192,
        ) {
            let (a, b): (Wide<6>, Wide<6>) =
                (Wide([a[0], a[1], a[2], 0, 0, 0]), Wide([b[0], b[1], b[2], 0, 0, 0]));
            prop_assert_eq!(big(&a.product(&b)), big(&a) * big(&b));
            prop_assert_eq!(big(&a.shifted_left(shift)), big(&a) << shift);
            prop_assert_eq!(u64::from(a.bits()), big(&a).bits());
        }
    }

    #[test]
    fn the_hardest_squares_do_not_overflow() {
        let mut squares = Wide::<5>::ZERO;
        squares.add_square(-(10_i128.pow(36) - 1));
        assert_eq!(big(&squares), (BigUint::from(10_u8).pow(36) - 1_u8).pow(2));
    }
}
