//! What quantiles, histograms, distinct counts and top lists must say, from all the values that there were.
//!
//! The definitions are those of the documentation, written anew: buckets are intervals of big integers, found from the
//! sorted values rather than merged, and each answer is held against the truth that it approximates. An answer that
//! lies outside its stated error is a panic, because then the definition itself is wrong.

use std::collections::{BTreeMap, BTreeSet};

use num_bigint::{BigInt, Sign};
use num_integer::Integer;
use num_traits::{Signed, ToPrimitive};

use super::xxh64::hash;

/// Values and how often each came.
pub type Multiset<T> = BTreeMap<T, u64>;

/// Most different buckets of a histogram.
const BUCKETS_MAX: usize = 1_024;
/// Most values that a top list counts.
const COUNTERS_MAX: usize = 1_024;
/// Bits of a value that a logarithmic bucket keeps, after the first.
const LOG_BITS: u64 = 6;

/// The answer to a quantile, given in millionths, in units of 10⁻¹⁸; none of no values.
pub fn quantile(values: &Multiset<BigInt>, millionths: u32, resolution: Option<&BigInt>) -> Option<BigInt> {
    let (min, max) = (values.keys().next()?, values.keys().next_back()?);
    let count: u64 = values.values().sum();
    let rank = (BigInt::from(millionths) * count).div_ceil(&BigInt::from(1_000_000));
    let rank = rank.to_u64().unwrap_or(count).max(1);
    if rank == 1 {
        return Some(min.clone());
    }
    if rank == count {
        return Some(max.clone());
    }
    let mut seen = 0;
    let truth = values.iter().find(|(_, count)| {
        seen += **count;
        seen >= rank
    });
    let truth = truth.map_or(max, |(value, _)| value);
    let (answer, error) = match resolution {
        Some(step) => linear(values, truth, step),
        None => logarithmic(values, truth),
    };
    let answer = answer.max(min.clone()).min(max.clone());
    assert!(
        (&answer - truth).abs() <= error,
        "{answer} is further than {error} from {truth}"
    );
    Some(answer)
}

/// The middle of the linear bucket that a value lies in, and the error that is stated.
fn linear(values: &Multiset<BigInt>, value: &BigInt, step: &BigInt) -> (BigInt, BigInt) {
    let limit = BigInt::from(1_i64 << 62);
    let fits = |level: &u32| {
        let buckets: BTreeSet<BigInt> = values
            .keys()
            .map(|value| value.div_floor(step) >> *level)
            .collect();
        let in_range = |bucket: &BigInt| -&limit <= *bucket && *bucket < limit;
        buckets.len() <= BUCKETS_MAX && buckets.iter().all(in_range)
    };
    let level = (0..=120).find(fits).unwrap_or(120);
    let width = BigInt::from(1) << level;
    let low = value.div_floor(step).div_floor(&width) * &width;
    let middle = low + (&width - 1_u8) / 2_u8;
    (middle * step, step * width / 2_u8)
}

/// The middle of the logarithmic bucket that a value lies in, and the error that is stated.
fn logarithmic(values: &Multiset<BigInt>, value: &BigInt) -> (BigInt, BigInt) {
    let fits = |kept: &u64| {
        let buckets: BTreeSet<BigInt> = values.keys().map(|value| log_bucket(value, *kept).0).collect();
        buckets.len() <= BUCKETS_MAX
    };
    let kept = (0..=LOG_BITS).rev().find(fits).unwrap_or(0);
    let (low, high) = log_bucket(&value.abs(), kept);
    let middle = &low + (high - &low) / 2_u8;
    let error = (value.abs() << (LOG_BITS - kept)) / 128_u8;
    (if value.is_negative() { -middle } else { middle }, error)
}

/// The values that agree with this one in sign, in the place of the first bit, and in `kept` bits after it: the one
/// nearest to zero, and the one furthest from it.
fn log_bucket(value: &BigInt, kept: u64) -> (BigInt, BigInt) {
    let bits = value.magnitude().bits();
    let free = bits.saturating_sub(kept + 1);
    let near = (value.magnitude() >> free) << free;
    let far = &near + ((num_bigint::BigUint::from(1_u8) << free) - 1_u8);
    let signed = |magnitude| {
        BigInt::from_biguint(
            if value.is_negative() {
                Sign::Minus
            } else {
                Sign::Plus
            },
            magnitude,
        )
    };
    (signed(near), signed(far))
}

/// How many values lie below the first bound, from each bound up to the next, and from the last on.
pub fn histogram(values: &Multiset<BigInt>, bounds: &[i128]) -> String {
    let mut counts = vec![0_u64; bounds.len() + 1];
    for (value, count) in values {
        let below = bounds
            .iter()
            .filter(|bound| BigInt::from(**bound) <= *value)
            .count();
        counts[below] += count;
    }
    let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
    format!("[{}]", counts.join(","))
}

/// The estimate of how many different values there are, and its standard error.
pub fn distinct(hashes: impl Iterator<Item = u64>) -> (u64, f64) {
    let mut registers = [0_u32; 2_048];
    let mut different = 0_u32;
    for hash in hashes {
        different += 1;
        let register = (hash >> 53) as usize;
        let rest = hash & ((1 << 53) - 1);
        let rank = if rest == 0 {
            54
        } else {
            rest.leading_zeros() - 11 + 1
        };
        registers[register] = registers[register].max(rank.min(53));
    }
    if different == 0 {
        return (0, 0.0);
    }
    let holding = |rank: u32| registers.iter().filter(|held| **held == rank).count() as f64;
    let mut sum = 0.0_f64;
    for rank in (1..=53).rev() {
        sum = 0.5 * (sum + holding(rank));
    }
    sum += 2_048.0 * sigma(holding(0) / 2_048.0);
    let estimate = 0.721_347_520_444_481_7 * 2_048.0 * (2_048.0 / sum);
    let error = estimate * (1.04 / 2_048.0_f64.sqrt());
    // One in 10¹⁵ for chance; a rank or register that is off would be further.
    assert!(
        (estimate - f64::from(different)).abs() <= 8.0 * error + 3.0,
        "{different} values are estimated as {estimate}"
    );
    ((estimate + 0.5).floor() as u64, error)
}

/// x + Σ x^(2^k) · 2^(k − 1).
fn sigma(x: f64) -> f64 {
    let (mut power, mut weight, mut sum) = (x, 1.0, x);
    loop {
        power *= power;
        let next = sum + power * weight;
        if next == sum {
            return sum;
        }
        (sum, weight) = (next, weight * 2.0);
    }
}

/// The hash of a field's value.
pub fn value_hash(value: &BigInt) -> u64 {
    hash(&value.to_i128().unwrap_or_default().to_le_bytes())
}

/// The hash of a tag's value.
pub fn tag_hash(value: &str) -> u64 {
    hash(value.as_bytes())
}

/// The most frequent values as JSON, and how often values came that have no counter.
pub fn top(values: &Multiset<String>, k: usize) -> (String, u64) {
    let mut by_hash: Vec<(u64, &String)> = values.keys().map(|value| (tag_hash(value), value)).collect();
    by_hash.sort_unstable();
    let counted: Vec<&String> = by_hash
        .iter()
        .take(COUNTERS_MAX)
        .map(|(_, value)| *value)
        .collect();
    let others = by_hash
        .iter()
        .skip(COUNTERS_MAX)
        .map(|(_, value)| values[*value])
        .sum();
    let mut counted: Vec<(std::cmp::Reverse<u64>, &str)> = counted
        .into_iter()
        .map(|value| (std::cmp::Reverse(values[value]), value.as_str()))
        .collect();
    counted.sort_unstable();
    let shown = counted.iter().take(k).map(|(count, value)| {
        let text = serde_json::Value::from(*value);
        format!("{{\"value\":{text},\"count\":{}}}", count.0)
    });
    (format!("[{}]", shown.collect::<Vec<_>>().join(",")), others)
}

/// Adds one multiset to another.
pub fn add<T: Ord + Clone>(held: &mut Multiset<T>, more: &Multiset<T>) {
    for (value, count) in more {
        *held.entry(value.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn multiset(values: &[i64]) -> Multiset<BigInt> {
        let mut set = Multiset::new();
        for &value in values {
            *set.entry(BigInt::from(value)).or_default() += 1;
        }
        set
    }

    #[test]
    fn quantiles_by_hand() {
        let set = multiset(&[1, 2, 3, 4, 100]);
        let of = |millionths| quantile(&set, millionths, Some(&BigInt::from(1))).unwrap();
        assert_eq!(of(0), BigInt::from(1));
        assert_eq!(of(500_000), BigInt::from(3));
        assert_eq!(of(800_000), BigInt::from(4));
        assert_eq!(of(800_001), BigInt::from(100));
        assert_eq!(
            quantile(&multiset(&[0, 0, 0]), 500_000, None),
            Some(BigInt::from(0))
        );
        assert_eq!(quantile(&multiset(&[]), 500_000, None), None);
        // 129 shares a bucket with 128.
        assert_eq!(
            quantile(&multiset(&[1, 129, 500]), 500_000, None),
            Some(BigInt::from(128))
        );
        assert_eq!(
            quantile(&multiset(&[-500, -257, 1]), 500_000, None),
            Some(BigInt::from(-257))
        );
    }

    #[test]
    fn histograms_and_lists_by_hand() {
        assert_eq!(histogram(&multiset(&[-1, 0, 5, 10, 10]), &[0, 10]), "[1,2,2]");
        let tags: Multiset<String> = [("b".into(), 2), ("a".into(), 2), ("\"".into(), 3)].into();
        assert_eq!(
            top(&tags, 2),
            (r#"[{"value":"\"","count":3},{"value":"a","count":2}]"#.into(), 0)
        );
        assert_eq!(distinct(tags.keys().map(|tag| tag_hash(tag))).0, 3);
    }
}
