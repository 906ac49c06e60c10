//! What a counter's increase and rate, and a mean over time, must say, from all the points that there were.
//!
//! The definitions are those of the documentation, summed in another way than the pipeline does: an increase is what
//! lies between the ends and what each fall hides, and an area is cut into layers of value instead of pipelines of
//! time.

use std::collections::BTreeSet;

use num_bigint::BigInt;
use num_traits::{Signed, Zero};

use super::answer::Answer;
use super::decimal::power_of_ten;

/// Event times in microseconds with values in units of 10⁻¹⁸: each once.
pub type Points = BTreeSet<(i64, BigInt)>;

/// A pane keeps no more points. With more in a window, one of its panes may have had too many to answer.
const POINTS_MAX: usize = 4_096;

/// What a counter has gone up.
pub fn increase(points: &Points) -> Answer {
    let Some(units) = increase_units(points) else {
        return Answer::None;
    };
    answer(points, units, power_of_ten(18))
}

/// The same for each second between the first and the last point.
pub fn rate(points: &Points) -> Answer {
    let Some(units) = increase_units(points) else {
        return Answer::None;
    };
    let micros = micros(points);
    if micros.is_zero() {
        return Answer::None;
    }
    answer(points, units * 1_000_000, power_of_ten(18) * micros)
}

/// The mean over time, each value holding until the next.
pub fn time_weighted_mean(points: &Points) -> Answer {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Answer::None;
    };
    let micros = micros(points);
    if micros.is_zero() {
        return answer(points, last.1.clone(), power_of_ten(18));
    }
    // Each change of value holds from then until the last point; the first value holds all the time.
    let mut area = &first.1 * &micros;
    for (before, after) in points.iter().zip(points.iter().skip(1)) {
        area += (&after.1 - &before.1) * BigInt::from(last.0 - after.0);
    }
    answer(points, area, power_of_ten(18) * micros)
}

/// What lies between the ends, and for each fall what it took away and the way from 0 to where it ended.
fn increase_units(points: &Points) -> Option<BigInt> {
    let between = &points.last()?.1 - &points.first()?.1;
    let pairs = points.iter().zip(points.iter().skip(1));
    let falls = pairs.filter(|(before, after)| after.1 < before.1);
    let hidden: BigInt = falls
        .map(|(before, after)| {
            let above_zero = if after.1.is_negative() {
                BigInt::zero()
            } else {
                after.1.clone()
            };
            &before.1 - &after.1 + above_zero
        })
        .sum();
    Some(between + hidden)
}

fn micros(points: &Points) -> BigInt {
    match (points.first(), points.last()) {
        (Some(first), Some(last)) => BigInt::from(last.0 - first.0),
        _ => BigInt::zero(),
    }
}

fn answer(points: &Points, top: BigInt, bottom: BigInt) -> Answer {
    if points.len() > POINTS_MAX {
        Answer::FractionOrNone(top, bottom)
    } else {
        Answer::Fraction(top, bottom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(of: &[(i64, i64)]) -> Points {
        { of.iter() }
            .map(|&(at, value)| (at * 1_000_000, BigInt::from(value) * power_of_ten(18)))
            .collect()
    }

    fn shown(answer: &Answer) -> String {
        let text = answer.show();
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    #[test]
    fn counters_by_hand() {
        let of = |of: &[(i64, i64)]| {
            let points = points(of);
            (shown(&increase(&points)), shown(&rate(&points)))
        };
        let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(of(&[]), text("NULL", "NULL"));
        assert_eq!(of(&[(1, 7)]), text("0", "NULL"));
        assert_eq!(of(&[(0, 5), (10, 9)]), text("4", "0.4"));
        // 5 → 9, a reset to 0 → 3, → 4.
        assert_eq!(of(&[(0, 5), (10, 9), (20, 3), (40, 4)]), text("8", "0.2"));
        assert_eq!(of(&[(0, 5), (10, -9), (20, 1)]), text("10", "0.5"));
    }

    #[test]
    fn means_over_time_by_hand() {
        let of = |of: &[(i64, i64)]| shown(&time_weighted_mean(&points(of)));
        assert_eq!(of(&[(3, 8)]), "8");
        assert_eq!(of(&[(3, 8), (3, 9)]), "9");
        assert_eq!(of(&[(0, 10), (9, 20), (10, 1_000)]), "11");
    }
}
