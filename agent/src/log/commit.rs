//! The group commit: what waits to become durable, as one job after another.
//!
//! A job makes the spool's new batches durable first, then the journal's group that says which readings they hold, and
//! removes files last. A crash between leaves batches that the journal does not know: the next start cuts them off, and
//! their readings come out of the journal again. Nothing is acknowledged to the broker, and no batch is sent, before
//! the job that holds it is done.

use catchment_common::time::{Instant, Now, Span};

use crate::log::disk::{DiskFault, Job, Step};
use crate::settings::{COMMIT_BYTES, DISK_RETRY};

/// Where the commits stand.
#[derive(Debug)]
pub struct Commits {
    delay: Span,
    next_id: u64,
    in_flight: Option<InFlight>,
    /// Since when something waits.
    waiting: Option<Instant>,
}

#[derive(Debug)]
struct InFlight {
    id: u64,
    /// What is durable once the job is done.
    marks: Marks,
    /// The job while it is not under way, and when to try it again.
    failed: Option<(Job, Instant)>,
}

/// How far everything has come.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Marks {
    /// Messages taken.
    pub taken: u64,
    /// What was noted of sources.
    pub noted: u64,
    /// The spool's last record.
    pub ordinal: u64,
    /// How often it was written down whose state this is.
    pub ancestry: u64,
}

impl Commits {
    /// Nothing waits yet. Jobs gather for `delay`.
    pub fn new(delay: Span) -> Self {
        Self {
            delay,
            next_id: 1,
            in_flight: None,
            waiting: None,
        }
    }

    /// Whether a job is under way or waits to be tried again.
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether a job is under way, and not waiting to be tried again.
    pub fn is_under_way(&self) -> bool {
        self.in_flight
            .as_ref()
            .is_some_and(|in_flight| in_flight.failed.is_none())
    }

    /// Whether a job has failed and waits to be tried again.
    pub fn is_failing(&self) -> bool {
        self.is_busy() && !self.is_under_way()
    }

    /// Whether there was a job since the start.
    pub fn has_begun(&self) -> bool {
        self.next_id > 1
    }

    /// A failed job whose time has come.
    pub fn poll_retry(&mut self, now: Now) -> Option<Job> {
        let in_flight = self.in_flight.as_mut()?;
        let (job, _) = in_flight.failed.take_if(|(_, at)| *at <= now.monotonic)?;
        Some(job)
    }

    /// Whether it is time for a job: `bytes` of readings wait, or batches (`urgent`).
    pub fn is_due(&mut self, now: Now, bytes: usize, urgent: bool) -> bool {
        if bytes == 0 && !urgent {
            self.waiting = None;
            return false;
        }
        let since = *self.waiting.get_or_insert(now.monotonic);
        self.in_flight.is_none() && (urgent || bytes >= COMMIT_BYTES || since + self.delay <= now.monotonic)
    }

    /// When [`Commits::is_due`] or [`Commits::poll_retry`] may next say yes.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.in_flight {
            Some(InFlight {
                failed: Some((_, at)),
                ..
            }) => Some(*at),
            // The end of the job wakes the loop.
            Some(_) => None,
            None => self.waiting.map(|since| since + self.delay),
        }
    }

    /// A job of these steps begins; `marks` are durable when it is done.
    pub fn begin(&mut self, steps: Vec<Step>, marks: Marks) -> Job {
        let id = self.next_id;
        self.next_id += 1;
        self.waiting = None;
        self.in_flight = Some(InFlight {
            id,
            marks,
            failed: None,
        });
        Job { id, steps }
    }

    /// A job is done; returns what is durable now.
    pub fn handle_done(&mut self, id: u64) -> Option<Marks> {
        let in_flight = self.in_flight.take_if(|in_flight| in_flight.id == id)?;
        Some(in_flight.marks)
    }

    /// A job failed and is tried again as it stands, after `first`: what makes room.
    pub fn handle_failed(&mut self, now: Now, mut job: Job, fault: &DiskFault, first: Vec<Step>) {
        let Some(in_flight) = self.in_flight.as_mut().filter(|in_flight| in_flight.id == job.id) else {
            return;
        };
        let made_room = *fault == DiskFault::Full && !first.is_empty();
        job.steps.splice(..0, first);
        let wait = if made_room { Span::ZERO } else { DISK_RETRY };
        in_flight.failed = Some((job, now.monotonic + wait));
    }
}
