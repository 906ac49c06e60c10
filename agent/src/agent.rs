//! The agent: intake, outbox, spool and uplink composed into one machine.
//!
//! The caller hands in what happened (`handle_*`, with `now`), then drains what the machine wants (`poll_*`), then
//! sleeps until [`Agent::poll_timeout`]. The machine never blocks, and holds no socket, file or clock.
//!
//! ```
//! use catchment_agent::agent::Agent;
//! use catchment_agent::settings::Settings;
//! use catchment_common::time::{Instant, Now, Timestamp};
//!
//! let settings = Settings {
//!     name: "gw-1".into(), memory_bytes: 1 << 20, spool_bytes: 1 << 20, payload_bytes_max: 1 << 16,
//! };
//! let now = Now { monotonic: Instant::from_micros(0), wall: Timestamp::clamped(0) };
//! let mut agent = Agent::new(settings, 7, 42, now);
//! agent.handle_publish(now, "sensors/berlin/env", b"{}");
//! assert!(agent.poll_connect(now), "a link to the aggregator is wanted at once");
//! ```

use bytes::Bytes;
use catchment_common::counter::{Counter, Reason};
use catchment_common::limits::{COUNTERS_MAX, RANGES_MAX};
use catchment_common::time::{Instant, Now};
use catchment_common::wire::{AgentPlan, Heartbeat, Hello, Message, Section};

use crate::intake::{Closable, Intake, Limits};
use crate::outbox::Outbox;
use crate::settings::{IDLE_CHECK, LATE_SEAL_DELAY, Settings};
use crate::spool::{Lane, Spool};
use crate::tally::{AGENT, Tally};
use crate::uplink::Uplink;

/// Name and version, as a hello gives them.
pub const SOFTWARE: &str = concat!("catchment-agent ", env!("CARGO_PKG_VERSION"));

/// One gateway's machine.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    seed: u64,
    plan_version: u64,
    intake: Intake,
    out: Out,
    uplink: Uplink,
    replies: Vec<Message>,
    close_now: bool,
    close_late_at: Option<Instant>,
    idle_check_at: Instant,
    link_bytes_noted: u64,
}

/// Where closed panes go: kept apart from the intake, so that one can feed the other.
#[derive(Debug)]
struct Out {
    outbox: Outbox,
    spool: Spool,
    tally: Tally,
    lane: Lane,
}

/// What the caller must do after a message from the aggregator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing.
    Done,
    /// A new plan runs: keep it on disk and renew the subscriptions.
    PlanChanged(AgentPlan),
    /// The aggregator does not want this link any more: close it.
    Drain,
}

impl Agent {
    /// An agent without a plan. `epoch` names this run and `seed` sets hashing and jitter: draw both at random.
    pub fn new(settings: Settings, epoch: u64, seed: u64, now: Now) -> Self {
        let mut tally = Tally::default();
        let limits = limits(&settings, seed);
        Self {
            intake: Intake::new(&AgentPlan::default(), None, limits, now, &mut tally),
            out: Out {
                outbox: Outbox::new(epoch),
                spool: Spool::new(settings.spool_bytes),
                tally,
                lane: Lane::Backlog,
            },
            uplink: Uplink::new(now, seed),
            settings,
            seed,
            plan_version: 0,
            replies: Vec::new(),
            close_now: false,
            close_late_at: None,
            idle_check_at: now.monotonic + IDLE_CHECK,
            link_bytes_noted: 0,
        }
    }

    // What happened.

    /// A message came from the broker.
    #[inline]
    pub fn handle_publish(&mut self, now: Now, topic: &str, payload: &[u8]) {
        let Self { intake, out, .. } = self;
        let Out {
            outbox,
            spool,
            tally,
            lane,
        } = out;
        let spill = |section: &Section, tally: &mut Tally| push(outbox, spool, *lane, section, tally);
        let Closable { on_time, late } = intake.handle_publish(now, topic, payload, tally, spill);
        self.close_now |= on_time;
        if late && self.close_late_at.is_none() {
            self.close_late_at = Some(now.monotonic + LATE_SEAL_DELAY);
        }
    }

    /// A message had to be dropped before it was looked at.
    pub fn handle_dropped(&mut self, reason: Reason) {
        let agent = self.out.tally.place(AGENT);
        self.out.tally.add(agent, Counter::Messages, 1);
        self.out.tally.add(agent, Counter::Received, 1);
        self.out.tally.add(agent, Counter::Rejected(reason), 1);
    }

    /// A plan was found on disk or came from the aggregator. Open panes are closed first: deltas of the old plan are
    /// as good as any.
    pub fn handle_plan(&mut self, now: Now, plan: &AgentPlan) {
        let Self { intake, out, .. } = self;
        intake.close_all(|section| out.push(section));
        out.seal();
        let limits = limits(&self.settings, self.seed);
        *intake = Intake::new(plan, Some(intake), limits, now, &mut out.tally);
        self.plan_version = plan.version;
        self.uplink.tell_news();
    }

    /// The link is up and its hello can be sent.
    pub fn handle_connected(&mut self) {
        self.uplink.handle_connected();
        self.link_bytes_noted = 0;
        self.out.spool.requeue();
        self.out.tally.report_all();
        let epoch = self.out.outbox.epoch();
        self.replies.clear();
        self.replies.push(Message::Hello(Hello {
            agent: self.settings.name.clone(),
            software: SOFTWARE.into(),
            epoch,
            plan_version: self.plan_version,
            held: self.out.spool.ranges(epoch, RANGES_MAX - 1),
        }));
    }

    /// The link broke, or could not be made.
    pub fn handle_disconnected(&mut self, now: Now) {
        self.uplink.handle_disconnected(now);
        self.out.lane = Lane::Backlog;
        self.replies.clear();
    }

    /// A message came from the aggregator.
    pub fn handle_message(&mut self, now: Now, message: Message) -> Outcome {
        match message {
            Message::Welcome(welcome) => {
                for epoch in welcome
                    .committed
                    .iter()
                    .filter(|held| held.epoch == self.out.outbox.epoch())
                {
                    self.out.spool.acknowledge(&epoch.ranges);
                }
                self.out.count(Counter::Connects, 1);
                self.out.lane = Lane::Live;
                self.uplink.handle_welcome(now, welcome.heartbeat);
                welcome.plan.map_or(Outcome::Done, |plan| self.adopt(now, plan))
            }
            Message::Ack(ack) if ack.epoch == self.out.outbox.epoch() => {
                let count = self.out.spool.acknowledge(&ack.ranges);
                self.out.count(Counter::Acknowledged, count as u64);
                Outcome::Done
            }
            Message::Reject(refusal) if refusal.epoch == self.out.outbox.epoch() => {
                let lost = self.out.spool.remove(refusal.seq);
                count_lost(
                    &mut self.out.tally,
                    Reason::BatchRefused,
                    lost.into_iter().flatten(),
                );
                Outcome::Done
            }
            Message::Plan(plan) => self.adopt(now, plan),
            Message::Drain => Outcome::Drain,
            // Of another epoch, or not for an agent.
            Message::Ack(_) | Message::Reject(_) | Message::Hello(_) | Message::Heartbeat(_) => Outcome::Done,
        }
    }

    fn adopt(&mut self, now: Now, plan: AgentPlan) -> Outcome {
        self.handle_plan(now, &plan);
        Outcome::PlanChanged(plan)
    }

    /// Time has passed: closes what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.idle_check_at <= now.monotonic {
            self.idle_check_at = now.monotonic + IDLE_CHECK;
            self.close_now |= self.intake.follow_clock(now);
        }
        if self.close_late_at.is_some_and(|at| at <= now.monotonic) {
            self.close_now = true;
        }
        if std::mem::take(&mut self.close_now) {
            self.close_late_at = None;
            let out = &mut self.out;
            self.intake.close_due(|section| out.push(section));
            out.seal();
            self.uplink.tell_news();
        }
    }

    /// The process is about to end: closes all panes, so that what is gathered can still be sent.
    pub fn handle_shutdown(&mut self) {
        let out = &mut self.out;
        self.intake.close_all(|section| out.push(section));
        out.seal();
        self.uplink.tell_news();
    }

    // What it wants.

    /// Whether a link to the aggregator should be made now.
    pub fn poll_connect(&mut self, now: Now) -> bool {
        self.uplink.poll_connect(now)
    }

    /// The next message for the control stream.
    pub fn poll_message(&mut self, now: Now) -> Option<Message> {
        if let Some(reply) = self.replies.pop() {
            return Some(reply);
        }
        if !self.uplink.poll_heartbeat(now) {
            return None;
        }
        Some(Message::Heartbeat(Heartbeat {
            epoch: self.out.outbox.epoch(),
            counting: self.out.outbox.epoch(),
            seq: self.out.outbox.seq(),
            oldest: self.out.spool.oldest().unwrap_or(self.out.outbox.seq() + 1),
            watermarks: self.intake.watermarks().collect(),
            counters: self.out.tally.report(COUNTERS_MAX),
            backlog_batches: self.out.spool.len() as u64,
            backlog_bytes: self.out.spool.bytes() as u64,
        }))
    }

    /// The next batch for this lane, once the aggregator has welcomed the agent.
    pub fn poll_batch(&mut self, lane: Lane) -> Option<Bytes> {
        if self.uplink.is_ready() {
            self.out.spool.next(lane)
        } else {
            None
        }
    }

    /// When the machine next wants [`Agent::handle_timeout`] or [`Agent::poll_connect`].
    pub fn poll_timeout(&self, now: Now) -> Instant {
        if self.close_now {
            return now.monotonic;
        }
        [self.close_late_at, self.uplink.poll_timeout()]
            .into_iter()
            .flatten()
            .fold(self.idle_check_at, Instant::min)
    }

    // How it is.

    /// Adds to one of the agent's own counters.
    pub fn count(&mut self, counter: Counter, more: u64) {
        self.out.count(counter, more);
    }

    /// The link has sent so many UDP payload bytes since it was made.
    pub fn note_link_bytes(&mut self, sent: u64) {
        let more = sent.saturating_sub(self.link_bytes_noted);
        self.link_bytes_noted = sent;
        if more > 0 {
            self.out.count(Counter::LinkBytes, more);
        }
    }

    /// The counters.
    pub fn tally(&self) -> &Tally {
        &self.out.tally
    }

    /// The MQTT filters to subscribe to.
    pub fn filters(&self) -> Vec<String> {
        self.intake.filters()
    }

    /// Open panes and the slices that run.
    pub fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Batches that are not acknowledged.
    pub fn spool(&self) -> &Spool {
        &self.out.spool
    }

    /// Whether the aggregator has welcomed the agent.
    pub fn is_linked(&self) -> bool {
        self.uplink.is_ready()
    }
}

impl Out {
    fn push(&mut self, section: &Section) {
        push(
            &mut self.outbox,
            &mut self.spool,
            self.lane,
            section,
            &mut self.tally,
        );
    }

    fn seal(&mut self) {
        if let Some(sealed) = self.outbox.seal(&mut self.tally) {
            let tally = &mut self.tally;
            self.spool.push(sealed, self.lane, |slice, readings| {
                count_lost(tally, Reason::SpoolFull, [(slice, readings)]);
            });
        }
    }

    fn count(&mut self, counter: Counter, more: u64) {
        let agent = self.tally.place(AGENT);
        self.tally.add(agent, counter, more);
    }
}

fn push(outbox: &mut Outbox, spool: &mut Spool, lane: Lane, section: &Section, tally: &mut Tally) {
    if let Some(sealed) = outbox.push(section, tally) {
        spool.push(sealed, lane, |slice, readings| {
            count_lost(tally, Reason::SpoolFull, [(slice, readings)]);
        });
    }
}

/// Readings that had been lifted and are lost after all.
fn count_lost(
    tally: &mut Tally,
    reason: Reason,
    lost: impl IntoIterator<Item = (catchment_common::plan::SliceId, u64)>,
) {
    for (slice, readings) in lost {
        let place = tally.place(slice);
        tally.add(place, Counter::Rejected(reason), readings);
    }
}

fn limits(settings: &Settings, seed: u64) -> Limits {
    Limits {
        memory_bytes: settings.memory_bytes,
        payload_bytes_max: settings.payload_bytes_max,
        seed,
    }
}
