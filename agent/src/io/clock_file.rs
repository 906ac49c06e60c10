//! Who else knows whether the wall clock is right: a time service, or an earlier run of the agent.
//!
//! An agent that starts while the aggregator is away must not wait for its welcome if nothing has happened to the clock. So
//! when the clock is confirmed, a file in the state directory says in which run of the kernel that was, for how long the
//! kernel had run, and what the clock showed. In the same run of the kernel the clock and the kernel's own count of seconds,
//! which nobody sets, must have gone on alike. Where the system has no such count, nothing is remembered.
//!
//! ```text
//! file := run of the kernel (a UUID)  seconds since it began  microseconds of the wall clock     in text, with blanks
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use catchment_common::time::{Span, Timestamp};

use crate::clock::CONFIRM_TOLERANCE;

/// systemd's time service makes this file when it has set the clock.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const UPTIME: &str = "/proc/uptime";
/// A clock that nobody sets goes wrong by one second in this number of seconds, at worst.
const DRIFT: i64 = 10_000;

/// Whether a time service says that it has set the clock.
pub fn is_synchronized() -> bool {
    Path::new(SYNCHRONIZED).exists()
}

/// A moment of a run of the kernel, and what the wall clock showed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Moment {
    boot: String,
    uptime: Span,
    wall: Timestamp,
}

/// The file that remembers when the clock was confirmed.
#[derive(Clone, Debug)]
pub struct ClockFile {
    path: PathBuf,
}

impl ClockFile {
    /// The file in this state directory.
    pub fn new(state: &Path) -> Self {
        Self {
            path: state.join("clock"),
        }
    }

    /// Whether the clock was confirmed in this run of the kernel, and has gone on evenly until it shows `wall`.
    pub fn confirms(&self, wall: Timestamp) -> bool {
        let then = fs::read_to_string(&self.path).ok();
        let then = then.and_then(|text| Moment::parse(&text));
        then.zip(Moment::now(wall))
            .is_some_and(|(then, now)| then.leads_to(&now))
    }

    /// The clock is right, and shows `wall`.
    pub fn save(&self, wall: Timestamp) -> io::Result<()> {
        let Some(Moment { boot, uptime, wall }) = Moment::now(wall) else {
            return Ok(());
        };
        let beside = self.path.with_extension("new");
        let seconds = uptime.as_micros() / 1_000_000;
        fs::write(&beside, format!("{boot} {seconds} {}\n", wall.as_micros()))?;
        fs::rename(&beside, &self.path)
    }
}

impl Moment {
    fn now(wall: Timestamp) -> Option<Self> {
        let boot = fs::read_to_string(BOOT_ID).ok()?.trim().to_owned();
        let uptime = fs::read_to_string(UPTIME).ok()?;
        let seconds: u32 = uptime.split(['.', ' ']).next()?.parse().ok()?;
        Some(Self {
            boot,
            uptime: Span::from_secs(seconds.into()),
            wall,
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split_whitespace();
        let moment = Self {
            boot: parts.next()?.to_owned(),
            uptime: parts
                .next()?
                .parse::<u32>()
                .ok()
                .map(|seconds| Span::from_secs(seconds.into()))?,
            wall: Timestamp::from_micros(parts.next()?.parse().ok()?)?,
        };
        parts.next().is_none().then_some(moment)
    }

    fn leads_to(&self, now: &Self) -> bool {
        let elapsed = now.uptime.as_micros() - self.uptime.as_micros();
        let shown = now.wall.since(self.wall).as_micros();
        let allowed = CONFIRM_TOLERANCE.as_micros() + elapsed.max(0) / DRIFT;
        self.boot == now.boot && elapsed >= 0 && (shown - elapsed).abs() <= allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(boot: &str, uptime: i64, wall: i64) -> Moment {
        Moment {
            boot: boot.into(),
            uptime: Span::from_secs(uptime),
            wall: Timestamp::clamped(wall * 1_000_000),
        }
    }

    #[test]
    fn only_a_clock_that_has_gone_on_with_the_kernel_is_the_same() {
        let then = moment("a", 100, 1_800_000_000);
        for (now, leads) in [
            (moment("a", 100, 1_800_000_000), true),
            (moment("a", 1_100, 1_800_001_000), true),
            (moment("a", 1_100, 1_800_001_290), true),
            // Set back by three hours, or ahead by four years.
            (moment("a", 1_100, 1_800_001_000 - 10_800), false),
            (moment("a", 1_100, 1_800_001_000 + 4 * 31_557_600), false),
            // Booted again, with the time that was saved.
            (moment("b", 30, 1_800_000_030), false),
            (moment("a", 99, 1_799_999_999), false),
        ] {
            assert_eq!(then.leads_to(&now), leads, "{now:?}");
        }
    }

    #[test]
    fn files_that_say_nothing_confirm_nothing() {
        let written = moment("a", 100, 1_800_000_000);
        assert_eq!(Moment::parse("a 100 1800000000000000\n"), Some(written));
        for text in [
            "",
            "a",
            "a 1",
            "a x 2",
            "a 1 y",
            "a 1 2 3",
            "a -1 2",
            "a 1 9223372036854775807",
            "a 9223372036854775807 2",
        ] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = ClockFile::new(folder.path());
        let wall = Timestamp::clamped(1_800_000_000_000_000);
        assert!(!file.confirms(wall));
        file.save(wall).unwrap();
        let remembers = Moment::now(wall).is_some();
        assert_eq!(file.confirms(wall), remembers);
        assert!(!file.confirms(wall.minus(Span::from_secs(10_800))));
    }
}
