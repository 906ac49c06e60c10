//! The watermark of one pipeline: "readings before this instant are late from now on".
//!
//! It trails the newest event time by the pipeline's delay. When the pipeline falls silent it follows the
//! wall clock, so that the last windows of a sleeping site still close; idleness is declared here, where it is known,
//! and never guessed at the centre. While nothing can be heard, because the broker is away, there is no silence. It never
//! goes back, unless a wrong clock had moved it. A device whose clock is ahead cannot push it beyond
//! `max_ahead`, because readings further ahead are refused before they reach it.

use catchment_common::plan::Pipeline;
use catchment_common::time::{Instant, Now, Span, Timestamp};

/// How far a pipeline's event time has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watermark {
    delay: Span,
    idle: Span,
    max_ahead: Span,
    newest: Timestamp,
    heard: Instant,
    value: Timestamp,
}

impl Watermark {
    /// A watermark of a pipeline that starts at `now`, before its first reading.
    pub fn new(pipeline: &Pipeline, now: Now) -> Self {
        Self {
            delay: pipeline.watermark_delay,
            idle: pipeline.idle,
            max_ahead: pipeline.max_ahead,
            newest: Timestamp::MIN,
            heard: now.monotonic,
            value: Timestamp::MIN,
        }
    }

    /// The watermark; [`Timestamp::MIN`] until there is one.
    #[inline]
    pub fn value(&self) -> Timestamp {
        self.value
    }

    /// Takes note of a reading.
    #[inline]
    pub fn observe(&mut self, at: Timestamp, now: Now) {
        self.heard = now.monotonic;
        if at > self.newest {
            self.newest = at;
            self.value = self.value.max(at.minus(self.delay));
        }
    }

    /// Nothing can be heard now, so silence does not count.
    pub fn hold(&mut self, now: Now) {
        self.heard = now.monotonic;
    }

    /// Lets the watermark of a silent pipeline follow the time; returns whether it moved. One that is further ahead than
    /// readings may be was moved by a clock that was wrong, and is taken back.
    pub fn follow_clock(&mut self, now: Now) -> bool {
        let before = self.value;
        let furthest = now.wall.plus(self.max_ahead);
        if self.value > furthest {
            self.newest = self.newest.min(now.wall);
            self.value = now.wall.minus(self.delay);
        }
        if now.monotonic.since(self.heard) >= self.idle {
            self.value = self.value.max(now.wall.minus(self.delay));
        }
        self.value != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watermark() -> Watermark {
        Watermark {
            delay: Span::from_secs(5),
            idle: Span::from_secs(30),
            max_ahead: Span::from_secs(300),
            newest: Timestamp::MIN,
            heard: Instant::from_micros(0),
            value: Timestamp::MIN,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::clamped(seconds * 1_000_000)
    }

    fn now(seconds: i64) -> Now {
        Now {
            monotonic: Instant::from_micros(seconds as u64 * 1_000_000),
            wall: at(1_000 + seconds),
        }
    }

    #[test]
    fn it_trails_the_newest_reading_and_never_goes_back() {
        let mut watermark = watermark();
        watermark.observe(at(100), now(1));
        assert_eq!(watermark.value(), at(95));
        watermark.observe(at(90), now(2));
        assert_eq!(watermark.value(), at(95));
        watermark.observe(at(101), now(3));
        assert_eq!(watermark.value(), at(96));
    }

    #[test]
    fn who_cannot_hear_knows_nothing_of_silence() {
        let mut watermark = watermark();
        watermark.observe(at(100), now(1));
        for second in 2..100 {
            watermark.hold(now(second));
        }
        assert!(!watermark.follow_clock(now(128)), "what was kept comes first");
        assert_eq!(watermark.value(), at(95));
        assert!(watermark.follow_clock(now(129)));
    }

    #[test]
    fn a_silent_pipeline_follows_the_wall_clock() {
        let mut watermark = watermark();
        watermark.observe(at(100), now(1));
        assert!(!watermark.follow_clock(now(30)));
        assert!(watermark.follow_clock(now(31)));
        assert_eq!(watermark.value(), at(1_026));
        watermark.observe(at(200), now(32));
        assert_eq!(
            watermark.value(),
            at(1_026),
            "a reading from the past does not pull it back"
        );
        let back = Now {
            wall: at(900),
            ..now(70)
        };
        assert!(
            !watermark.follow_clock(back),
            "nor does a wall clock that steps back"
        );
    }

    #[test]
    fn what_a_wrong_clock_moved_is_taken_back() {
        let mut watermark = watermark();
        watermark.observe(at(160_000_000), now(1));
        assert_eq!(watermark.value(), at(159_999_995));
        watermark.follow_clock(now(2));
        assert_eq!(watermark.value(), at(997));
        watermark.observe(at(1_003), now(3));
        assert_eq!(watermark.value(), at(998), "and goes on from there");
    }
}
