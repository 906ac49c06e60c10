//! What a counter's increase and rate, and a mean over time, must say, from all the points that there were.
//!
//! The definitions are those of the documentation, summed in another way than the pipeline does: an increase is the sum
//! over a counter's lives, each from where it begins to its highest reading, and an area is cut into layers of value
//! instead of slices of time.

use std::collections::BTreeSet;

use catchment_common::plan::CounterRules;
use num_bigint::BigInt;
use num_traits::{Signed, Zero};

use super::answer::Answer;
use super::decimal::power_of_ten;

/// Event times in microseconds with values in units of 10⁻¹⁸: each once.
pub type Points = BTreeSet<(i64, BigInt)>;

/// A pane keeps no more points. With more in a window, one of its panes may have had too many to answer.
const POINTS_MAX: usize = 4_096;

/// What a counter has gone up in a window: what it had at its end less what it had at its start.
pub fn increase(before: &Points, points: &Points, rules: CounterRules) -> Answer {
    let Some(units) = gained(before, points, rules) else {
        return Answer::None;
    };
    answer(points, units, power_of_ten(18))
}

/// The same for each second between the first point, or the last one before the window, and the last.
pub fn rate(before: &Points, points: &Points, rules: CounterRules) -> Answer {
    let Some(units) = gained(before, points, rules) else {
        return Answer::None;
    };
    let timed = before.last().into_iter().chain(points).cloned().collect();
    let micros = micros(&timed);
    if micros.is_zero() {
        return Answer::None;
    }
    answer(points, units * 1_000_000, power_of_ten(18) * micros)
}

fn gained(before: &Points, points: &Points, rules: CounterRules) -> Option<BigInt> {
    points.first()?;
    let all = before.union(points).cloned().collect();
    let earlier = increase_units(before, rules).unwrap_or_default();
    Some(increase_units(&all, rules)? - earlier)
}

/// The mean over time, each value holding until the next: from the first point to the last, or, with the bounds of the
/// window, until its end, and from its start if there was a point before it.
pub fn time_weighted_mean(
    before: Option<&(i64, BigInt)>,
    points: &Points,
    bounds: Option<(i64, i64)>,
) -> Answer {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Answer::None;
    };
    // The value before, from the window's start; it has no weight if it is no time before the first.
    let carried = { before.zip(bounds) }
        .map(|((_, value), (start, _))| (start, value.clone()))
        .filter(|(start, _)| *start < first.0);
    let until = bounds.map_or(last.0, |(_, end)| end);
    let (from, mut before) = carried.unwrap_or_else(|| first.clone());
    let micros = BigInt::from(until - from);
    if micros.is_zero() {
        return answer(points, last.1.clone(), power_of_ten(18));
    }
    // Each change of value holds from then until the end; the first value holds all the time.
    let mut area = &before * &micros;
    for (at, value) in points {
        area += (value - &before) * BigInt::from(until - at);
        before.clone_from(value);
    }
    answer(points, area, power_of_ten(18) * micros)
}

/// A counter from one beginning to the next: its first and its highest reading.
struct Life {
    start: BigInt,
    peak: BigInt,
}

/// What a counter has gone up: within each of its lives, and from 0 or the end of its range into each but the first.
fn increase_units(points: &Points, rules: CounterRules) -> Option<BigInt> {
    points.first()?;
    let end = rules.wraps_at.map(BigInt::from);
    let lives = lives(points, end.as_ref(), &rules.tolerance.into());
    let within: BigInt = lives.iter().map(|life| &life.peak - &life.start).sum();
    let into = lives.iter().zip(lives.iter().skip(1)).map(|(before, after)| {
        let is_wrap = end.as_ref().filter(|end| before.peak >= *end - *end / 4);
        match is_wrap {
            Some(end) => end - &before.peak + &after.start,
            None => after.start.clone().max(BigInt::zero()),
        }
    });
    Some(within + into.sum::<BigInt>())
}

fn lives(points: &Points, end: Option<&BigInt>, tolerance: &BigInt) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    for (_, value) in points {
        if end.is_some_and(|end| value.is_negative() || value >= end) {
            continue;
        }
        if value > tolerance {
            // Lives that never left 0 were none, if the one before them goes on.
            let lasting = 1 + lives
                .iter()
                .skip(1)
                .rposition(|life| life.peak > *tolerance)
                .map_or(0, |at| at + 1);
            if lives.len() > lasting && *value >= &lives[lasting - 1].peak - tolerance {
                lives.truncate(lasting);
            }
        }
        match lives.last_mut() {
            Some(life) if *value >= &life.peak - tolerance => {
                life.peak = life.peak.clone().max(value.clone());
            }
            _ => lives.push(Life {
                start: value.clone(),
                peak: value.clone(),
            }),
        }
    }
    lives
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
            let rules = CounterRules::default();
            (
                shown(&increase(&Points::new(), &points, rules)),
                shown(&rate(&Points::new(), &points, rules)),
            )
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
    fn falls_by_hand() {
        let of = |wraps_at: Option<i128>, tolerance: i128, values: &[i64]| {
            let timed: Vec<(i64, i64)> = (0..).zip(values.iter().copied()).collect();
            let one = catchment_common::number::decimal::ONE;
            let rules = CounterRules {
                wraps_at: wraps_at.map(|end| end * one),
                tolerance: tolerance * one,
            };
            shown(&increase(&Points::new(), &points(&timed), rules))
        };
        let trembling = [2_156, 2_156, 2_157, 2_156, 2_156, 2_157, 2_156];
        assert_eq!(of(None, 0, &trembling), "4314");
        assert_eq!(of(None, 1, &trembling), "1");
        assert_eq!(of(None, 3, &[100, 99, 98, 97, 101]), "1");
        assert_eq!(of(Some(65_536), 0, &[65_530, 5]), "11");
        assert_eq!(of(Some(65_536), 0, &[40_000, 5]), "5");
        assert_eq!(of(Some(65_536), 0, &[65_530, 70_000, -1, 65_531]), "1");
        assert_eq!(of(None, 0, &[100, 0, 101]), "1");
        assert_eq!(of(None, 0, &[100, 0, -1, 0, 101]), "1");
        assert_eq!(of(None, 0, &[100, 0, 99, 100]), "100");
        assert_eq!(of(None, 0, &[100, 0, 5, 101]), "101");
        assert_eq!(of(None, 0, &[0, -1, 7]), "7");
        assert_eq!(of(None, 0, &[100, 7]), "7");
    }

    #[test]
    fn means_over_time_by_hand() {
        let of = |of: &[(i64, i64)]| shown(&time_weighted_mean(None, &points(of), None));
        assert_eq!(of(&[(3, 8)]), "8");
        assert_eq!(of(&[(3, 8), (3, 9)]), "9");
        assert_eq!(of(&[(0, 10), (9, 20), (10, 1_000)]), "11");
    }

    /// A meter that counts one an hour, in windows of an hour, and a level that changes in the middle of one.
    #[test]
    fn what_was_before_a_window_by_hand() {
        let of = |before: &[(i64, i64)], within: &[(i64, i64)]| {
            let (before, within) = (points(before), points(within));
            let rules = CounterRules::default();
            (
                shown(&increase(&before, &within, rules)),
                shown(&rate(&before, &within, rules)),
            )
        };
        let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(of(&[(0, 7)], &[(10, 8)]), text("1", "0.1"));
        assert_eq!(of(&[], &[(10, 8)]), text("0", "NULL"));
        assert_eq!(of(&[(0, 7)], &[]), text("NULL", "NULL"));
        // A single 0 on either side of the edge.
        assert_eq!(of(&[(0, 100)], &[(10, 0)]).0, "0");
        assert_eq!(of(&[(0, 100), (10, 0)], &[(20, 101)]).0, "1");
        assert_eq!(of(&[(0, 100), (10, 0)], &[(20, 5)]).0, "5");
        let mean = |before: &[(i64, i64)], at: i64| {
            let before = points(before);
            let bounds = Some((0, 3_600_000_000));
            shown(&time_weighted_mean(before.last(), &points(&[(at, 20)]), bounds))
        };
        assert_eq!(mean(&[(-5, 10)], 1_800), "15");
        assert_eq!(mean(&[(-5, 10)], 0), "20");
        assert_eq!(mean(&[], 1_800), "20");
    }
}
