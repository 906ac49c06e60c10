//! The logarithmic buckets: from a value to a bucket and back, in integers.
//!
//! A value's magnitude in units of 10⁻¹⁸ is below 2¹²⁰. Its bucket is the position of its top bit followed by the next
//! [`MANTISSA_BITS`] bits, which is a piecewise linear stand-in for the logarithm: monotone, exact on every machine
//! (`ln` differs between libraries), and a bucket is never wider than 1/64 of its lower bound. Negative values mirror
//! positive ones, and zero has its own bucket.

/// Bits after the top bit that tell buckets apart.
pub const MANTISSA_BITS: u32 = 6;
/// Buckets of one sign are numbered 1 to this: 120 positions of the top bit, 64 buckets each.
pub const BUCKET_MAX: i64 = 120 << MANTISSA_BITS;

/// The bucket of a value, given in units of 10⁻¹⁸.
#[inline]
pub fn bucket_of(units: i128) -> i64 {
    let magnitude = units.unsigned_abs();
    if magnitude == 0 {
        return 0;
    }
    let exponent = magnitude.ilog2();
    // The top bit moves to bit 127; the bits behind it are the mantissa.
    let mantissa = ((magnitude << (127 - exponent)) >> (127 - MANTISSA_BITS)) as i64;
    let index = (i64::from(exponent) << MANTISSA_BITS) + mantissa - (1 << MANTISSA_BITS);
    if units < 0 { -1 - index } else { 1 + index }
}

/// The smallest magnitude in units that the bucket with this index (from 0) and those above it have.
fn lower_bound(index: i64) -> u128 {
    let (exponent, mantissa) = (index >> MANTISSA_BITS, index & ((1 << MANTISSA_BITS) - 1));
    let scaled = ((1 << MANTISSA_BITS) + mantissa).unsigned_abs() as u128;
    if exponent >= i64::from(MANTISSA_BITS) {
        scaled << (exponent - i64::from(MANTISSA_BITS))
    } else {
        // Fewer integers than buckets here: the next one up.
        scaled.div_ceil(1 << (i64::from(MANTISSA_BITS) - exponent))
    }
}

/// The value in units that stands for a bucket at `level`, where 2^level buckets are one: the middle of its integers.
pub fn middle(bucket: i64, level: u8) -> i128 {
    if bucket == 0 {
        return 0;
    }
    let index = bucket.abs() - 1;
    let low = lower_bound(index << level);
    let high = (lower_bound((index + 1) << level) - 1).max(low);
    let middle = (low + (high - low) / 2).cast_signed();
    if bucket < 0 { -middle } else { middle }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;
    use proptest::prelude::*;

    use super::*;
    use crate::number::decimal::Value;

    #[test]
    fn buckets_by_hand() {
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(1), 1);
        assert_eq!(bucket_of(-1), -1);
        assert_eq!(bucket_of(64), 1 + (6 << 6));
        assert_eq!(bucket_of(65), 2 + (6 << 6));
        assert_eq!(bucket_of(128), 1 + (7 << 6));
        assert_eq!(bucket_of(129), 1 + (7 << 6), "two integers in one bucket");
        assert_eq!(bucket_of(Value::LIMIT - 1), 7_649);
        assert!(bucket_of(Value::LIMIT - 1) <= BUCKET_MAX);
        assert_eq!(middle(1 + (7 << 6), 0), 128);
        assert_eq!(middle(-1 - (8 << 6), 0), -257);
        assert_eq!(middle(1, 0), 1);
    }

    fn units() -> impl Strategy<Value = i128> {
        (any::<bool>(), 0_u32..120, any::<u128>()).prop_map(|(negative, bits, noise)| {
            let magnitude = ((1 << bits) | (noise & ((1 << bits) - 1))).cast_signed();
            let magnitude = magnitude.min(Value::LIMIT - 1);
            if negative { -magnitude } else { magnitude }
        })
    }

    proptest! {
        #[test]
        fn greater_values_never_have_smaller_buckets(a in units(), b in units()) {
            let (a, b) = (a.min(b), a.max(b));
            prop_assert!(bucket_of(a) <= bucket_of(b));
            prop_assert!(bucket_of(a) <= bucket_of(a + 1));
        }

        /// The stated error: half a bucket, 1/128 of the lower bound, doubling with each level.
        #[test]
        fn the_middle_is_near_every_value(units in units(), level in 0_u8..5) {
            let bucket = bucket_of(units);
            let at_level = bucket.signum() * (((bucket.abs() - 1) >> level) + 1);
            let off = BigInt::from(middle(at_level, level)) - units;
            prop_assert!(BigInt::from(off.magnitude().clone()) * 128 <= BigInt::from(units.unsigned_abs()) << level);
        }
    }
}
