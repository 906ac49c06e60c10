//! The aggregate functions, how they are written, and the components that each of them needs.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::{BitAnd, BitOr};

use super::Problem;
use crate::limits::{BOUNDS_MAX, TOP_K_MAX};
use crate::number::decimal::Value;
use crate::topic::is_name;

/// A function of a window's values, or of the values of a tag. Those without arguments, but for the median, are
/// answered from the stats components, exactly until one last rounding; the others from sketches.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Aggregate {
    /// How many values.
    Count,
    /// Values per second of window; of a counter, its increase for each second from its first reading to its last.
    Rate,
    /// Their sum.
    Sum,
    /// Their arithmetic mean.
    Mean,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// Largest less smallest.
    Range,
    /// Sample variance (n − 1); none for fewer than two values.
    Variance,
    /// Square root of the sample variance.
    Stddev,
    /// The value with the earliest event time; of several, the smallest.
    First,
    /// The value with the latest event time; of several, the largest.
    Last,
    /// Last less first.
    Delta,
    /// The same as `p50`.
    Median,
    /// `p99`: the smallest value that is not below this share of all values.
    Quantile(Quantile),
    /// `histogram(b0, b1, …)`: how many values lie below the first bound, from each bound up to the next, and from the
    /// last on. Bounds in units of 10⁻¹⁸, ascending.
    Histogram(Vec<i128>),
    /// `distinct(x)`: about how many different values a tag or a field has.
    Distinct(String),
    /// `top(k, tag)`: the tag values that come most often, with their counts.
    Top {
        /// How many.
        k: u16,
        /// The tag.
        tag: String,
    },
    /// What a counter has gone up, resets included. Only of counters.
    Increase,
    /// The mean over time, where each value holds until the next.
    TimeWeightedMean,
}

/// A share of all values, in millionths from 0 to 1,000,000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Quantile(pub u32);

/// Why a text is no aggregate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AggregateFault {
    /// No function has this name.
    Unknown(String),
    /// The function is known and its arguments are wrong.
    Arguments(Problem),
}

impl Quantile {
    /// All values.
    pub const WHOLE: u32 = 1_000_000;
    /// The middle.
    pub const MEDIAN: Self = Self(Self::WHOLE / 2);

    /// The rank of the value that answers it among `count` values, from 1 for the smallest: nearest rank, ⌈q·n⌉.
    pub fn rank(self, count: u64) -> u64 {
        let scaled = u128::from(self.0) * u128::from(count);
        // At most `count`, which fits.
        (scaled.div_ceil(u128::from(Self::WHOLE)) as u64).max(1)
    }

    /// Reads the percentage behind the `p`: up to four decimals.
    fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(decimals) || whole.len() > 3 || decimals.len() > 4 {
            return None;
        }
        let decimals = format!("{decimals:0<4}");
        let millionths = whole.parse::<u32>().ok()? * 10_000 + decimals.parse::<u32>().ok()?;
        (millionths <= Self::WHOLE).then_some(Self(millionths))
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0 / 10_000)?;
        let decimals = format!("{:04}", self.0 % 10_000);
        let decimals = decimals.trim_end_matches('0');
        if decimals.is_empty() {
            Ok(())
        } else {
            write!(f, ".{decimals}")
        }
    }
}

/// How functions that are answered from sketches are written, for hints.
const FORMS: [&str; 7] = [
    "increase",
    "time_weighted_mean",
    "p99",
    "median",
    "histogram(0, 10)",
    "distinct(device)",
    "top(3, device)",
];

impl Aggregate {
    /// Every function that is answered from the stats components, in the order of the documentation.
    pub const ALL: [Self; 12] = [
        Self::Count,
        Self::Rate,
        Self::Sum,
        Self::Mean,
        Self::Min,
        Self::Max,
        Self::Range,
        Self::Variance,
        Self::Stddev,
        Self::First,
        Self::Last,
        Self::Delta,
    ];

    /// The functions that are always answered from a series of points.
    pub const OF_SERIES: [Self; 2] = [Self::Increase, Self::TimeWeightedMean];

    /// How all functions are written, for messages.
    pub fn forms() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(Self::word).chain(FORMS)
    }

    /// The names of all functions that have one.
    pub fn words() -> impl Iterator<Item = &'static str> {
        Self::ALL
            .iter()
            .map(Self::word)
            .chain(Self::OF_SERIES.iter().map(Self::word))
            .chain(["median", "histogram", "distinct", "top"])
    }

    /// The function's name, without its arguments.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Rate => "rate",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::Range => "range",
            Self::Variance => "variance",
            Self::Stddev => "stddev",
            Self::First => "first",
            Self::Last => "last",
            Self::Delta => "delta",
            Self::Median => "median",
            Self::Quantile(_) => "p",
            Self::Histogram(_) => "histogram",
            Self::Distinct(_) => "distinct",
            Self::Top { .. } => "top",
            Self::Increase => "increase",
            Self::TimeWeightedMean => "time_weighted_mean",
        }
    }

    /// What columns of this function are called after the field or tag: `mean`, `p99_9`.
    pub fn name(&self) -> String {
        match self {
            Self::Quantile(quantile) => quantile.to_string().replace('.', "_"),
            _ => self.word().into(),
        }
    }

    /// Whether it is answered once for a query rather than for each of its fields.
    pub fn is_of_query(&self) -> bool {
        matches!(self, Self::Distinct(_) | Self::Top { .. })
    }

    /// The share of values that it asks for, if it is a quantile.
    pub fn quantile(&self) -> Option<Quantile> {
        match self {
            Self::Median => Some(Quantile::MEDIAN),
            Self::Quantile(quantile) => Some(*quantile),
            _ => None,
        }
    }

    /// The function that a plan's text names: `mean`, `p99.9`, `top(3, device)`.
    pub fn parse(text: &str) -> Result<Self, AggregateFault> {
        let unknown = || AggregateFault::Unknown(text.to_string());
        let mut plain = Self::ALL.into_iter().chain(Self::OF_SERIES);
        if let Some(plain) = plain.find(|aggregate| aggregate.word() == text) {
            return Ok(plain);
        }
        if text == "median" {
            return Ok(Self::Median);
        }
        let percentage = text
            .strip_prefix('p')
            .filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
        if let Some(percentage) = percentage {
            return Quantile::parse(percentage).map(Self::Quantile).ok_or_else(|| {
                fault(
                    format!("`{text}` is no percentile"),
                    "write p0 to p100 with at most four decimals, such as \"p99.9\"",
                )
            });
        }
        let Some((word, rest)) = text.split_once('(') else {
            return match text {
                "histogram" => Err(histogram_fault("`histogram` has no bounds".into())),
                "distinct" => Err(distinct_fault("`distinct` names no tag or field".into())),
                "top" => Err(top_fault("`top` names no tag".into())),
                _ => Err(unknown()),
            };
        };
        let word = word.trim_end();
        let arguments = rest.trim_end().strip_suffix(')').map(|inner| {
            let inner = inner.trim();
            if inner.is_empty() {
                Vec::new()
            } else {
                inner.split(',').map(str::trim).collect()
            }
        });
        if !Self::words().any(|known| known == word) {
            return Err(AggregateFault::Unknown(word.to_string()));
        }
        let Some(arguments) = arguments else {
            return Err(fault(format!("`{text}` has no closing parenthesis"), ""));
        };
        match (word, arguments.as_slice()) {
            ("histogram", bounds) => histogram(bounds),
            ("distinct", [name]) if is_name(name) => Ok(Self::Distinct((*name).into())),
            ("distinct", _) => Err(distinct_fault(format!("`{text}` does not name one tag or field"))),
            ("top", [k, tag]) if is_name(tag) => {
                let k = k
                    .parse()
                    .ok()
                    .filter(|k| (1..=TOP_K_MAX).contains(k))
                    .ok_or_else(|| top_fault(format!("`{k}` is no number of rows from 1 to {TOP_K_MAX}")))?;
                Ok(Self::Top {
                    k,
                    tag: (*tag).into(),
                })
            }
            ("top", _) => Err(top_fault(format!("`{text}` does not give a number and one tag"))),
            _ => Err(fault(
                format!("`{word}` takes no arguments"),
                format!("write \"{word}\""),
            )),
        }
    }

    /// The components it is computed from. The count is always there.
    pub fn components(&self) -> Components {
        match self {
            Self::Count
            | Self::Rate
            | Self::Histogram(_)
            | Self::Distinct(_)
            | Self::Top { .. }
            | Self::Increase
            | Self::TimeWeightedMean => Components::COUNT,
            Self::Sum | Self::Mean => Components::SUM,
            // Quantiles are kept between the extrema.
            Self::Min | Self::Max | Self::Range | Self::Median | Self::Quantile(_) => Components::EXTREMA,
            Self::Variance | Self::Stddev => Components::SUM | Components::SQUARES,
            Self::First | Self::Last | Self::Delta => Components::ENDS,
        }
    }
}

/// As it is written in a plan.
impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantile(quantile) => quantile.fmt(f),
            Self::Histogram(bounds) => {
                f.write_str("histogram(")?;
                for (index, bound) in bounds.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{}", Value::from_units(*bound).unwrap_or_default())?;
                }
                f.write_str(")")
            }
            Self::Distinct(name) => write!(f, "distinct({name})"),
            Self::Top { k, tag } => write!(f, "top({k}, {tag})"),
            _ => f.write_str(self.word()),
        }
    }
}

fn histogram(texts: &[&str]) -> Result<Aggregate, AggregateFault> {
    if texts.is_empty() || texts.len() > BOUNDS_MAX {
        return Err(histogram_fault(format!(
            "a histogram has 1 to {BOUNDS_MAX} bounds, not {}",
            texts.len()
        )));
    }
    let mut bounds: Vec<i128> = Vec::with_capacity(texts.len());
    for text in texts {
        let parsed = Value::parse(text.as_bytes())
            .ok()
            .filter(|parsed| !parsed.rounded);
        let Some(parsed) = parsed else {
            return Err(histogram_fault(format!(
                "bound `{text}` is not a decimal number in range"
            )));
        };
        let units = parsed.value.units();
        if bounds.last().is_some_and(|last| *last >= units) {
            return Err(histogram_fault(format!(
                "bound `{text}` is not above the one before"
            )));
        }
        bounds.push(units);
    }
    Ok(Aggregate::Histogram(bounds))
}

fn fault(message: String, hint: impl Into<String>) -> AggregateFault {
    AggregateFault::Arguments(Problem {
        message,
        hint: hint.into(),
    })
}

fn histogram_fault(message: String) -> AggregateFault {
    fault(
        message,
        "write ascending bounds, such as \"histogram(0, 10, 20)\"",
    )
}

fn distinct_fault(message: String) -> AggregateFault {
    fault(message, "write \"distinct(device)\"")
}

fn top_fault(message: String) -> AggregateFault {
    fault(message, "write \"top(3, device)\"")
}

/// A set of components. The count is always kept, so the empty set is [`Components::COUNT`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Components(u8);

impl Components {
    /// The count alone.
    pub const COUNT: Self = Self(0);
    /// The exact sum.
    pub const SUM: Self = Self(1);
    /// The exact sum of squares.
    pub const SQUARES: Self = Self(2);
    /// Smallest and largest value.
    pub const EXTREMA: Self = Self(4);
    /// Earliest and latest value.
    pub const ENDS: Self = Self(8);
    /// All of them.
    pub const STATS: Self = Self(15);

    /// The set as bits, for the wire.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// A set from bits, or `None` if a bit is unknown here.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !Self::STATS.0 == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// Whether every component of `other` is in this set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitAnd for Components {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Components {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_read_as_they_are_written() {
        for text in [
            "mean",
            "median",
            "p0",
            "p50",
            "p99.9",
            "p100",
            "p0.0001",
            "histogram(-1.5, 0, 20)",
            "distinct(device)",
            "top(3, device)",
        ] {
            assert_eq!(Aggregate::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Aggregate::parse(" top( 3,device ) ".trim()).unwrap().to_string(),
            "top(3, device)"
        );
        assert_eq!(Aggregate::parse("p99.90").unwrap().name(), "p99_9");
    }

    #[test]
    fn ranks_are_nearest_ranks() {
        let rank = |text, count| Aggregate::parse(text).unwrap().quantile().unwrap().rank(count);
        assert_eq!((rank("p0", 10), rank("p100", 10)), (1, 10));
        assert_eq!((rank("p50", 10), rank("p50", 11), rank("median", 1)), (5, 6, 1));
        assert_eq!((rank("p99", 100), rank("p99", 101)), (99, 100));
        assert_eq!(rank("p100", u64::MAX), u64::MAX);
    }
}
