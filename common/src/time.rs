//! Time as three types that do not mix.
//!
//! [`Timestamp`] is event time: what a device or the arrival says, microseconds since the Unix epoch in UTC.
//! [`Instant`] is the process's own monotonic clock with an arbitrary origin; deadlines live on it. [`Span`] is a
//! length. A timestamp and an instant cannot be compared, so a device's claim can never arm a timer by accident.
//! Nothing here reads a clock: `now` is always an argument.

use core::fmt;
use core::ops::{Add, Sub};

/// Event times outside these bounds (years 1900 and 2200) are refused before any arithmetic.
pub const TIMESTAMP_MIN_US: i64 = -2_208_988_800_000_000;
/// See [`TIMESTAMP_MIN_US`].
pub const TIMESTAMP_MAX_US: i64 = 7_258_118_400_000_000;

const _: () = assert!(TIMESTAMP_MAX_US < i64::MAX / 4);

/// Event time: microseconds since 1970-01-01T00:00:00Z, leap seconds ignored as in Unix time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest timestamp that the system accepts (the year 1900).
    pub const MIN: Self = Self(TIMESTAMP_MIN_US);
    /// The latest timestamp that the system accepts (the year 2200).
    pub const MAX: Self = Self(TIMESTAMP_MAX_US);

    /// A timestamp from microseconds since the Unix epoch, or `None` outside the years 1900 to 2200.
    pub const fn from_micros(micros: i64) -> Option<Self> {
        if micros < TIMESTAMP_MIN_US || micros > TIMESTAMP_MAX_US {
            None
        } else {
            Some(Self(micros))
        }
    }

    /// A timestamp from microseconds, clamped into [`Timestamp::MIN`]..=[`Timestamp::MAX`].
    pub const fn clamped(micros: i64) -> Self {
        if micros < TIMESTAMP_MIN_US {
            Self::MIN
        } else if micros > TIMESTAMP_MAX_US {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This timestamp moved back by `span`, clamped at [`Timestamp::MIN`].
    pub const fn minus(self, span: Span) -> Self {
        Self::clamped(self.0.saturating_sub(span.0))
    }

    /// This timestamp moved forward by `span`, clamped at [`Timestamp::MAX`].
    pub const fn plus(self, span: Span) -> Self {
        Self::clamped(self.0.saturating_add(span.0))
    }

    /// How far `self` lies after `earlier`; negative when it lies before.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0 - earlier.0)
    }

    /// The start of the pane of `width` that holds this timestamp: the greatest multiple of `width` not after it.
    ///
    /// `width` must be positive.
    pub const fn pane_start(self, width: Span) -> Self {
        Self(self.0.div_euclid(width.0) * width.0)
    }
}

/// A length of time in microseconds; may be negative as the difference of two timestamps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Span(i64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of microseconds.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// A span of milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis * 1_000)
    }

    /// A span of seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds * 1_000_000)
    }

    /// A span of days of 86,400 seconds.
    pub const fn from_days(days: i64) -> Self {
        Self::from_secs(days * 86_400)
    }

    /// Microseconds in this span.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Both spans together; must not overflow, which spans within the limits of a plan cannot.
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Greatest common divisor of two positive spans: the widest pane that divides both.
    pub const fn gcd(self, other: Self) -> Self {
        let (mut a, mut b) = (self.0, other.0);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        Self(a)
    }

    /// Whether `self` is a whole multiple of the positive span `part`.
    pub const fn is_multiple_of(self, part: Self) -> bool {
        self.0 % part.0 == 0
    }
}

/// As plans write it: `1h30m`, `10s`, `7500ms`. Parts of a millisecond are microseconds.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [
            (86_400_000_000, "d"),
            (3_600_000_000, "h"),
            (60_000_000, "m"),
            (1_000_000, "s"),
        ];
        let micros = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        if !micros.is_multiple_of(1_000) {
            return write!(f, "{micros}us");
        }
        if !micros.is_multiple_of(1_000_000) || micros == 0 {
            return write!(f, "{}ms", micros / 1_000);
        }
        let mut left = micros;
        for (unit, name) in UNITS {
            let count = left / unit;
            left %= unit;
            if count > 0 {
                write!(f, "{count}{name}")?;
            }
        }
        Ok(())
    }
}

/// A reading of the monotonic clock in microseconds since an arbitrary origin that is fixed per process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instant(u64);

impl Instant {
    /// An instant from microseconds since the clock's origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the clock's origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this instant lies; zero when it lies before.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0) as i64)
    }
}

impl Add<Span> for Instant {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add_signed(span.0))
    }
}

impl Sub<Span> for Instant {
    type Output = Self;

    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_add_signed(-span.0))
    }
}

/// Both clocks read at one moment: what every `handle_*` call takes as `now`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// The monotonic clock: for deadlines and ages.
    pub monotonic: Instant,
    /// The wall clock: for judging and, by default, giving event times. It may step in either direction.
    pub wall: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pane_of(micros: i64, width: i64) -> i64 {
        Timestamp::from_micros(micros)
            .unwrap()
            .pane_start(Span::from_micros(width))
            .as_micros()
    }

    #[test]
    fn panes_are_aligned_to_the_epoch_on_both_sides_of_it() {
        assert_eq!(pane_of(0, 10), 0);
        assert_eq!(pane_of(9, 10), 0);
        assert_eq!(pane_of(10, 10), 10);
        assert_eq!(pane_of(-1, 10), -10);
        assert_eq!(pane_of(-10, 10), -10);
        assert_eq!(pane_of(-11, 10), -20);
    }

    #[test]
    fn timestamps_outside_two_centuries_are_refused() {
        assert!(Timestamp::from_micros(i64::MAX).is_none());
        assert!(Timestamp::from_micros(TIMESTAMP_MIN_US - 1).is_none());
        assert_eq!(Timestamp::from_micros(TIMESTAMP_MAX_US), Some(Timestamp::MAX));
        assert_eq!(Timestamp::MAX.plus(Span::from_days(1)), Timestamp::MAX);
        assert_eq!(Timestamp::MIN.minus(Span::from_days(1)), Timestamp::MIN);
    }

    #[test]
    fn the_gcd_divides_both() {
        let gcd = Span::from_secs(60).gcd(Span::from_secs(7));
        assert_eq!(gcd, Span::from_secs(1));
        assert_eq!(Span::from_secs(60).gcd(Span::from_secs(10)), Span::from_secs(10));
    }

    #[test]
    fn spans_are_shown_as_plans_write_them() {
        let show = |micros| alloc::format!("{}", Span::from_micros(micros));
        assert_eq!(show(0), "0ms");
        assert_eq!(show(7_500_000), "7500ms");
        assert_eq!(show(90_000_000), "1m30s");
        assert_eq!(show(90_061_000_000), "1d1h1m1s");
        assert_eq!((show(-1_000_000), show(1_001)), ("-1s".into(), "1001us".into()));
    }

    #[test]
    fn instants_never_wrap() {
        assert_eq!(
            Instant::from_micros(5) - Span::from_micros(9),
            Instant::from_micros(0)
        );
        assert_eq!(Instant::from_micros(5).since(Instant::from_micros(9)), Span::ZERO);
    }
}
