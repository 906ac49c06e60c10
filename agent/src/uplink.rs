//! The session with the aggregator: connect, hello, welcome, then batches and heartbeats until the link breaks.
//!
//! This machine decides when to connect and when to speak; it carries no bytes. Attempts are spaced by an exponential
//! back-off with full jitter, so that a fleet whose aggregator restarts does not come back all at once.

use catchment_common::time::{Instant, Now, Span};

use crate::settings::{RETRY_MAX, RETRY_MIN};

/// Where the session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No link; the next attempt is due then.
    Waiting { until: Instant },
    /// An attempt is under way.
    Connecting,
    /// The link is up and the hello is sent.
    Greeting,
    /// Welcomed: batches may go.
    Ready,
}

/// The session machine.
#[derive(Debug)]
pub struct Uplink {
    state: State,
    /// Attempts since the last welcome.
    attempts: u32,
    jitter: u64,
    heartbeat: Span,
    next_heartbeat: Instant,
    /// Something worth a heartbeat has happened.
    news: bool,
}

/// Until the aggregator says otherwise.
const HEARTBEAT_DEFAULT: Span = Span::from_secs(5);
/// Heartbeats are never asked for more often.
const HEARTBEAT_MIN: Span = Span::from_millis(100);

impl Uplink {
    /// A session that is due to connect at once. `seed` sets the jitter.
    pub fn new(now: Now, seed: u64) -> Self {
        Self {
            state: State::Waiting { until: now.monotonic },
            attempts: 0,
            jitter: seed | 1,
            heartbeat: HEARTBEAT_DEFAULT,
            next_heartbeat: now.monotonic,
            news: false,
        }
    }

    /// Whether batches may be sent.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether an attempt to connect is due; the caller makes it and reports how it went.
    pub fn poll_connect(&mut self, now: Now) -> bool {
        let due = matches!(self.state, State::Waiting { until } if until <= now.monotonic);
        if due {
            self.state = State::Connecting;
        }
        due
    }

    /// The link is up: the caller sends a hello.
    pub fn handle_connected(&mut self) {
        self.state = State::Greeting;
    }

    /// The aggregator has answered.
    pub fn handle_welcome(&mut self, now: Now, heartbeat: Span) {
        self.state = State::Ready;
        self.attempts = 0;
        self.heartbeat = heartbeat.max(HEARTBEAT_MIN);
        self.next_heartbeat = now.monotonic;
        self.news = true;
    }

    /// The link broke, or an attempt failed.
    pub fn handle_disconnected(&mut self, now: Now) {
        self.attempts = self.attempts.saturating_add(1);
        let ceiling = RETRY_MIN.as_micros() << self.attempts.min(16);
        let ceiling = ceiling.min(RETRY_MAX.as_micros());
        let wait = RETRY_MIN.as_micros() / 4 + (self.random() % ceiling.unsigned_abs()) as i64;
        self.state = State::Waiting {
            until: now.monotonic + Span::from_micros(wait),
        };
    }

    /// A watermark moved or a batch was sealed: the aggregator should hear soon.
    pub fn tell_news(&mut self) {
        self.news = true;
    }

    /// Whether a heartbeat is due now.
    pub fn poll_heartbeat(&mut self, now: Now) -> bool {
        let due = self.is_ready() && (self.news || self.next_heartbeat <= now.monotonic);
        if due {
            self.news = false;
            self.next_heartbeat = now.monotonic + self.heartbeat;
        }
        due
    }

    /// When this machine next wants to be asked. While the link takes no message (`can_speak`) a heartbeat waits for
    /// room and not for a time: one that is due would else wake the caller again and again.
    pub fn poll_timeout(&self, can_speak: bool) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Ready => can_speak.then_some(self.next_heartbeat),
            State::Connecting | State::Greeting => None,
        }
    }

    /// Xorshift64: enough to spread attempts apart.
    fn random(&mut self) -> u64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        self.jitter
    }
}

#[cfg(test)]
mod tests {
    use catchment_common::time::Timestamp;

    use super::*;

    fn now(micros: u64) -> Now {
        Now {
            monotonic: Instant::from_micros(micros),
            wall: Timestamp::clamped(0),
        }
    }

    #[test]
    fn attempts_back_off_within_bounds_and_start_over_after_a_welcome() {
        let mut uplink = Uplink::new(now(0), 42);
        let mut clock = 0;
        let mut longest = 0;
        for _ in 0..100 {
            assert!(uplink.poll_connect(now(clock)));
            assert!(!uplink.poll_connect(now(clock)), "one attempt at a time");
            uplink.handle_disconnected(now(clock));
            let until = uplink.poll_timeout(true).unwrap().as_micros();
            let wait = until - clock;
            assert!(wait <= (RETRY_MAX.as_micros() + RETRY_MIN.as_micros()) as u64);
            assert!(!uplink.poll_connect(now(until - 1)));
            longest = longest.max(wait);
            clock = until;
        }
        assert!(longest > 10_000_000, "waits grow: {longest}");
        uplink.poll_connect(now(clock));
        uplink.handle_connected();
        assert!(!uplink.is_ready());
        uplink.handle_welcome(now(clock), Span::from_secs(1));
        assert!(uplink.is_ready());
        uplink.handle_disconnected(now(clock));
        assert!(uplink.poll_timeout(true).unwrap().as_micros() - clock < 1_000_000);
    }

    #[test]
    fn heartbeats_come_with_news_and_at_their_interval() {
        let mut uplink = Uplink::new(now(0), 42);
        assert!(!uplink.poll_heartbeat(now(0)));
        uplink.poll_connect(now(0));
        uplink.handle_connected();
        uplink.handle_welcome(now(0), Span::from_secs(1));
        assert!(uplink.poll_heartbeat(now(0)));
        assert!(!uplink.poll_heartbeat(now(10)));
        uplink.tell_news();
        assert!(uplink.poll_heartbeat(now(10)));
        assert!(!uplink.poll_heartbeat(now(1_000_009)));
        assert!(uplink.poll_heartbeat(now(1_000_010)));
    }
    #[test]
    fn a_heartbeat_that_finds_no_room_does_not_wake_anybody() {
        let mut uplink = Uplink::new(now(0), 42);
        uplink.poll_connect(now(0));
        assert_eq!(uplink.poll_timeout(false), None);
        uplink.handle_connected();
        uplink.handle_welcome(now(0), Span::from_secs(1));
        assert_eq!(uplink.poll_timeout(true), Some(now(0).monotonic), "one is due");
        assert_eq!(uplink.poll_timeout(false), None, "and waits for room");
        uplink.handle_disconnected(now(0));
        assert!(
            uplink.poll_timeout(false).is_some(),
            "without a link there is an attempt to make"
        );
    }
}
