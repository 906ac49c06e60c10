//! Is this double the one nearest to that exact number?
//!
//! No double is computed here. The double is taken apart into m · 2ᵉ, and the exact number must lie between the
//! midpoints to its two neighbours; on a midpoint, m must be even. For a square root the squares are compared.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_traits::Signed;

/// Whether `float` is the double nearest to `top`/`bottom`, ties to even. `bottom` must be positive.
pub fn is_nearest(float: f64, top: &BigInt, bottom: &BigInt) -> bool {
    let Some(parts) = Parts::of(float) else {
        return false;
    };
    let top = if float.is_sign_negative() {
        -top
    } else {
        top.clone()
    };
    let exponent = parts.exponent - 2;
    let compare = |quarters: i64| compare_scaled(&top, bottom, &BigInt::from(quarters), exponent);
    parts.holds(compare)
}

/// Whether `float` is the double nearest to the square root of `top`/`bottom`, ties to even. `bottom` must be positive
/// and `top` not negative.
pub fn is_nearest_root(float: f64, top: &BigInt, bottom: &BigInt) -> bool {
    if top.is_negative() || (float.is_sign_negative() && float != 0.0) {
        return false;
    }
    let Some(parts) = Parts::of(float) else {
        return false;
    };
    let exponent = parts.exponent - 2;
    let compare = |quarters: i64| {
        if quarters < 0 {
            // A root is never below a negative bound.
            return Ordering::Greater;
        }
        compare_scaled(top, bottom, &BigInt::from(quarters).pow(2), 2 * exponent)
    };
    parts.holds(compare)
}

/// A finite double's magnitude: `mantissa · 2^exponent`.
struct Parts {
    mantissa: i64,
    exponent: i64,
    /// The double is a power of two, so its neighbour below is only half as far as the one above.
    near_below: bool,
}

const MANTISSA_BITS: u32 = 52;
const EXPONENT_BIAS: i64 = 1_075;

impl Parts {
    fn of(float: f64) -> Option<Self> {
        if !float.is_finite() {
            return None;
        }
        let bits = float.abs().to_bits();
        let fraction = (bits & ((1 << MANTISSA_BITS) - 1)) as i64;
        let field = (bits >> MANTISSA_BITS) as i64;
        if field == 0 {
            return Some(Self {
                mantissa: fraction,
                exponent: 1 - EXPONENT_BIAS,
                near_below: false,
            });
        }
        Some(Self {
            mantissa: fraction | 1 << MANTISSA_BITS,
            exponent: field - EXPONENT_BIAS,
            near_below: fraction == 0 && field > 1,
        })
    }

    /// Whether a number lies between the midpoints. `compare` tells how the number stands to a bound that is given in
    /// quarters of the double's last place, so that both midpoints are whole.
    fn holds(&self, compare: impl Fn(i64) -> Ordering) -> bool {
        let middle = 4 * self.mantissa;
        let below = compare(middle - if self.near_below { 1 } else { 2 });
        let above = compare(middle + 2);
        let is_even = self.mantissa % 2 == 0;
        let in_below = below == Ordering::Greater || (below == Ordering::Equal && is_even);
        let in_above = above == Ordering::Less || (above == Ordering::Equal && is_even);
        in_below && in_above
    }
}

/// How `top`/`bottom` stands to `bound · 2^exponent`.
fn compare_scaled(top: &BigInt, bottom: &BigInt, bound: &BigInt, exponent: i64) -> Ordering {
    let shift = exponent.unsigned_abs();
    if exponent >= 0 {
        top.cmp(&((bound * bottom) << shift))
    } else {
        (top << shift).cmp(&(bound * bottom))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(float: f64, top: i64, bottom: i64) {
        let is = |float| is_nearest(float, &top.into(), &bottom.into());
        assert!(is(float), "{float} is {top}/{bottom}");
        assert!(
            !is(float.next_up()) && !is(float.next_down()),
            "{float} is not alone at {top}/{bottom}"
        );
    }

    fn check_root(float: f64, top: i64, bottom: i64) {
        let is = |float| is_nearest_root(float, &top.into(), &bottom.into());
        assert!(is(float), "{float} is the root of {top}/{bottom}");
        assert!(
            !is(float.next_up()) && !is(float.next_down()),
            "{float} is not alone"
        );
    }

    #[test]
    fn known_doubles() {
        check(0.1, 1, 10);
        check(-0.1, -1, 10);
        check(1.0 / 3.0, 1, 3);
        check(2.0 / 3.0, 2, 3);
        check(21.37, 2_137, 100);
        check(1.0, 1, 1);
        check(0.5, 1, 2);
        check(1e15, 1_000_000_000_000_000, 1);
        assert!(!is_nearest(0.1, &(-1).into(), &10.into()));
        assert!(!is_nearest(f64::NAN, &1.into(), &1.into()));
        assert!(!is_nearest(f64::INFINITY, &1.into(), &1.into()));
        assert!(is_nearest(0.0, &0.into(), &1.into()) && !is_nearest(0.0, &1.into(), &10.into()));
        assert!(!is_nearest(f64::MIN_POSITIVE, &0.into(), &1.into()));
    }

    #[test]
    fn ties_go_to_even() {
        let two_53 = 1_i64 << 53;
        // 2^53 + 1 lies between 2^53 (even) and 2^53 + 2 (odd mantissa).
        assert!(is_nearest(two_53 as f64, &(two_53 + 1).into(), &1.into()));
        assert!(!is_nearest((two_53 + 2) as f64, &(two_53 + 1).into(), &1.into()));
        assert!(is_nearest((two_53 + 4) as f64, &(two_53 + 3).into(), &1.into()));
        // Below a power of two the neighbours are closer: 1 − 2⁻⁵⁴ is a tie of 1 − 2⁻⁵³ and 1.
        let bottom = 1_i64 << 54;
        assert!(is_nearest(1.0, &(bottom - 1).into(), &bottom.into()));
        assert!(!is_nearest(
            1.0_f64.next_down(),
            &(bottom - 1).into(),
            &bottom.into()
        ));
        assert!(!is_nearest(
            1.0,
            &(2 * BigInt::from(bottom) - 3_u8),
            &(2 * BigInt::from(bottom))
        ));
    }

    #[test]
    fn known_roots() {
        check_root(std::f64::consts::SQRT_2, 2, 1);
        check_root(3.0, 9, 1);
        check_root(1.5, 9, 4);
        check_root(2.0_f64.sqrt() / 2.0, 1, 2);
        assert!(is_nearest_root(0.0, &0.into(), &1.into()));
        assert!(!is_nearest_root(-3.0, &9.into(), &1.into()));
        assert!(!is_nearest_root(3.0, &(-9).into(), &1.into()));
    }

    proptest! {
        /// A double is nearest to itself; the standard library's division and root are correctly rounded.
        #[test]
        fn agrees_with_the_machine(top in -(1_i64 << 52)..1 << 52, bottom in 1_i64..1 << 52) {
            let quotient = top as f64 / bottom as f64;
            prop_assert!(is_nearest(quotient, &top.into(), &bottom.into()));
            prop_assert!(!is_nearest(quotient.next_up(), &top.into(), &bottom.into()));
            prop_assert!(!is_nearest(quotient.next_down(), &top.into(), &bottom.into()));
            let root = (top.unsigned_abs() as f64).sqrt();
            prop_assert!(is_nearest_root(root, &top.abs().into(), &1.into()));
            prop_assert!(!is_nearest_root(root.next_up(), &top.abs().into(), &1.into()));
        }
    }
}
