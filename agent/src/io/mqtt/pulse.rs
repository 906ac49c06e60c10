//! The pulse of a connection: when a sign of life is due, and when a broker has shown none for too long.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant as TokioInstant;

use super::{End, codec};

/// How long the broker may take to answer a SUBSCRIBE.
const SUBACK_WAIT: Duration = Duration::from_secs(10);

/// What must happen on a connection by when.
pub(super) struct Pulse {
    every: Duration,
    /// When the next sign of life is due.
    beat_at: TokioInstant,
    /// When one was sent that has no answer.
    pub(super) asked: Option<TokioInstant>,
    /// When something came.
    pub(super) heard: TokioInstant,
    /// SUBSCRIBEs without an answer, and until when they must have one.
    subscribes: usize,
    answer_by: TokioInstant,
}

impl Pulse {
    pub(super) fn new(every: Duration) -> Self {
        let now = TokioInstant::now();
        Self {
            every,
            beat_at: now + every,
            asked: None,
            heard: now,
            subscribes: 0,
            answer_by: now,
        }
    }

    pub(super) fn next(&self) -> TokioInstant {
        if self.subscribes > 0 {
            self.beat_at.min(self.answer_by)
        } else {
            self.beat_at
        }
    }

    pub(super) fn expect(&mut self, subscribes: usize) {
        self.subscribes += subscribes;
        self.answer_by = TokioInstant::now() + SUBACK_WAIT;
    }

    /// A SUBSCRIBE is answered; returns whether all are.
    pub(super) fn answered(&mut self) -> bool {
        self.subscribes = self.subscribes.saturating_sub(1);
        self.subscribes == 0
    }

    /// Shows a sign of life, or gives up on a broker that shows none. One that is not read cannot show any.
    pub(super) fn beat(&mut self, out: &mut BytesMut, is_read: bool) -> Result<(), End> {
        let now = TokioInstant::now();
        if self.subscribes > 0 && self.answer_by <= now {
            return Err(End::Lost("the broker did not answer SUBSCRIBE".into()));
        }
        if self.beat_at > now {
            return Ok(());
        }
        if is_read && self.asked.is_some_and(|asked| self.heard < asked) {
            return Err(End::Lost("the broker gives no sign of life".into()));
        }
        self.asked = Some(now);
        self.beat_at = now + self.every;
        codec::ping(out);
        Ok(())
    }
}
