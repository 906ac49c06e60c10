//! The aggregate functions and the components that each of them needs.

use core::ops::BitOr;

use serde::{Deserialize, Serialize};

/// A function of a window's values. All of them are answered from the stats components, exactly until one last
/// rounding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Aggregate {
    /// How many values.
    Count,
    /// Values per second of window.
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
}

impl Aggregate {
    /// Every function, in the order of the documentation.
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

    /// The name used in plans and column names.
    pub fn name(self) -> &'static str {
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
        }
    }

    /// The function with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|aggregate| aggregate.name() == name)
    }

    /// The components it is computed from. The count is always there.
    pub fn components(self) -> Components {
        match self {
            Self::Count | Self::Rate => Components::COUNT,
            Self::Sum | Self::Mean => Components::SUM,
            Self::Min | Self::Max | Self::Range => Components::EXTREMA,
            Self::Variance | Self::Stddev => Components::SUM | Components::SQUARES,
            Self::First | Self::Last | Self::Delta => Components::ENDS,
        }
    }
}

/// A set of components. The count is always kept, so the empty set is [`Components::COUNT`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
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

impl BitOr for Components {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
