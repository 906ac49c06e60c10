//! The only reader of the clocks.

use std::time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH};

use catchment_common::time::{Instant, Now, Timestamp};

/// The process's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: StdInstant,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    pub fn start() -> Self {
        Self {
            origin: StdInstant::now(),
        }
    }

    /// Both clocks, read together. A wall clock outside the years 1900 to 2200 is clamped into them.
    pub fn now(&self) -> Now {
        let monotonic = Instant::from_micros(self.origin.elapsed().as_micros() as u64);
        let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        Now {
            monotonic,
            wall: Timestamp::clamped(wall),
        }
    }

    /// The moment of `instant` on tokio's clock.
    pub fn deadline(&self, instant: Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.origin + Duration::from_micros(instant.as_micros()))
    }
}
