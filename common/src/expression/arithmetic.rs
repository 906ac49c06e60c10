//! The arithmetic of expressions on units of 10⁻¹⁸: exact, or the nearest multiple of 10⁻¹⁸ with ties to even.
//!
//! Operands are below 10³⁶ units in magnitude (120 bits), so that sums fit an i128. Products and scaled dividends may
//! need 240 bits; nearly all fit 128, and take the short way.

use super::{Fault, Op};
use crate::number::decimal::{ONE, Value};
use crate::number::wide::Wide;

/// Wide enough for twice a product of two operands, and for an operand scaled by 10¹⁸.
type Product = Wide<4>;

/// 10¹⁸, which has 60 bits.
const SCALE: u64 = ONE as u64;

pub(super) fn unary(op: Op, x: i128) -> Result<i128, Fault> {
    match op {
        Op::Negate => Ok(-x),
        Op::Abs => Ok(x.abs()),
        Op::Floor => in_range(x.div_euclid(ONE) * ONE),
        Op::Ceil => in_range(-((-x).div_euclid(ONE) * ONE)),
        Op::Round(step) => round(x, step),
        Op::Root => root(x),
        // Truth.
        Op::Not => Ok(1 - x),
        // No other operation takes one input that must be there.
        _ => Ok(x),
    }
}

pub(super) fn binary(op: Op, x: i128, y: i128) -> Result<i128, Fault> {
    match op {
        Op::Add => in_range(x + y),
        Op::Subtract => in_range(x - y),
        Op::Multiply => multiply(x, y),
        Op::Divide => divide(x, y),
        Op::Remainder => x.checked_rem(y).ok_or(Fault::DivisionByZero),
        Op::Min => Ok(x.min(y)),
        Op::Max => Ok(x.max(y)),
        Op::Less => Ok(i128::from(x < y)),
        Op::LessOrEqual => Ok(i128::from(x <= y)),
        Op::Greater => Ok(i128::from(x > y)),
        Op::GreaterOrEqual => Ok(i128::from(x >= y)),
        Op::Equal => Ok(i128::from(x == y)),
        Op::NotEqual => Ok(i128::from(x != y)),
        // No other operation takes two inputs that must be there.
        _ => Ok(x),
    }
}

fn in_range(units: i128) -> Result<i128, Fault> {
    if units.unsigned_abs() < Value::LIMIT.unsigned_abs() {
        Ok(units)
    } else {
        Err(Fault::OutOfRange)
    }
}

fn signed(magnitude: u128, negative: bool) -> Result<i128, Fault> {
    let units = i128::try_from(magnitude).map_err(|_| Fault::OutOfRange)?;
    in_range(if negative { -units } else { units })
}

fn multiply(x: i128, y: i128) -> Result<i128, Fault> {
    let (a, b) = (x.unsigned_abs(), y.unsigned_abs());
    let negative = (x < 0) != (y < 0);
    let magnitude = match a.checked_mul(b) {
        Some(product) => nearest(product, u128::from(SCALE)),
        None => wide_nearest(&wide_product(a, b), &Product::from_u128(u128::from(SCALE)))?,
    };
    signed(magnitude, negative)
}

fn divide(x: i128, y: i128) -> Result<i128, Fault> {
    if y == 0 {
        return Err(Fault::DivisionByZero);
    }
    let (a, b) = (x.unsigned_abs(), y.unsigned_abs());
    let negative = (x < 0) != (y < 0);
    let magnitude = match a.checked_mul(u128::from(SCALE)) {
        Some(dividend) => nearest(dividend, b),
        None => wide_nearest(&Product::from_u128(a).times(SCALE), &Product::from_u128(b))?,
    };
    signed(magnitude, negative)
}

/// The multiple of `step` nearest to `x`, of two the even one.
fn round(x: i128, step: i128) -> Result<i128, Fault> {
    let (quotient, rest) = (x.div_euclid(step), x.rem_euclid(step));
    // Both are below 10³⁶, so twice the rest fits.
    let up = 2 * rest > step || (2 * rest == step && quotient & 1 == 1);
    in_range((quotient + i128::from(up)) * step)
}

/// The multiple of 10⁻¹⁸ nearest to the square root. There are no ties: (n + ½)² is no integer.
fn root(x: i128) -> Result<i128, Fault> {
    if x < 0 {
        return Err(Fault::NegativeRoot);
    }
    let x = x.unsigned_abs();
    let magnitude = match x.checked_mul(u128::from(SCALE)) {
        Some(square) => {
            let floor = square.isqrt();
            floor + u128::from(square - floor * floor > floor)
        }
        None => wide_root(&Product::from_u128(x).times(SCALE)),
    };
    signed(magnitude, false)
}

/// The whole number nearest to `dividend / divisor`, ties to even.
fn nearest(dividend: u128, divisor: u128) -> u128 {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    let left = divisor - rest;
    quotient + u128::from(rest > left || (rest == left && quotient & 1 == 1))
}

/// The same for wide numbers: twice the quotient has one bit more, which with what is left says on which side of the
/// middle the result is.
fn wide_nearest(dividend: &Product, divisor: &Product) -> Result<u128, Fault> {
    let (twice, inexact) = dividend.shifted_left(1).div(divisor);
    let twice = twice.to_u128().ok_or(Fault::OutOfRange)?;
    let quotient = twice >> 1;
    let up = twice & 1 == 1 && (inexact || quotient & 1 == 1);
    Ok(quotient + u128::from(up))
}

fn wide_product(a: u128, b: u128) -> Product {
    let a = Product::from_u128(a);
    let mut product = a.times((b >> 64) as u64).shifted_left(64);
    product.add(&a.times(b as u64));
    product
}

/// The nearest root of a number of at most 180 bits, bit by bit.
fn wide_root(square: &Product) -> u128 {
    let is_above = |root: u128| {
        let mut rest = *square;
        rest.sub(&wide_product(root, root));
        rest.is_negative()
    };
    let floor = (0..90).rev().fold(0, |root: u128, bit| {
        let next = root | 1 << bit;
        if is_above(next) { root } else { next }
    });
    let mut rest = *square;
    rest.sub(&wide_product(floor, floor));
    // A rest above the root means nearer to the next: (n + ½)² = n² + n + ¼. It has at most 91 bits.
    floor + u128::from(rest.to_u128().is_some_and(|rest| rest > floor))
}

const _: () = assert!(SCALE as i128 == ONE);
