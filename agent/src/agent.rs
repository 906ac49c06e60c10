//! The agent: intake, journal, batcher, spool and uplink composed into one machine.
//!
//! The caller hands in what happened (`handle_*`, with `now`), then drains what the machine wants (`poll_*`), then
//! sleeps until [`Agent::poll_timeout`]. The machine never blocks, and holds no socket, file or clock.
//!
//! ```
//! use catchment_agent::agent::Agent;
//! use catchment_agent::log::disk::MemoryDisk;
//! use catchment_agent::settings::{ClockUnset, Settings};
//! use catchment_agent::source::{Arrival, Delivery, Payload, Settled, SourceId, SourceSettings};
//! use catchment_common::time::{Instant, Now, Span, Timestamp};
//!
//! let settings = Settings {
//!     name: "gw-1".into(), memory_bytes: 1 << 20, payload_bytes_max: 1 << 16, spool_bytes: 1 << 20,
//!     retain_acked: Span::ZERO, journal_bytes: 1 << 20, commit_delay: Span::ZERO,
//!     clock_unset: ClockUnset::Hold, clock_known: true,
//!     sources: vec![SourceSettings { name: "plant".into(), session: 0, redelivery_window: 20 }],
//! };
//! let now = Now { monotonic: Instant::from_micros(0), wall: Timestamp::clamped(1_800_000_000_000_000) };
//! let mut disk = MemoryDisk::default();
//! let (mut agent, _) = Agent::start(settings, 7, 42, None, now, &disk).unwrap();
//! let source = SourceId(0);
//! agent.handle_arrival(now, Arrival {
//!     source, subject: "sensors/berlin/env", payload: Payload::Whole(b"{}"), through: &[],
//!     delivery: Delivery::Packet { id: 1, duplicate: false },
//! });
//! assert!(agent.poll_connect(now), "a link to the aggregator is wanted at once");
//! assert_eq!(agent.poll_settled(), None, "not before it is durable");
//! let job = agent.poll_job(now, &disk).unwrap();
//! disk.execute(&job);
//! agent.handle_job_done(now, job.id);
//! assert_eq!(agent.poll_settled(), Some((source, Settled::Packet(1))));
//! ```

mod admission;
mod durable;
mod greeting;
mod sources;

use bytes::Bytes;
use catchment_common::limits::COUNTERS_MAX;
use catchment_common::metrics::{Counter, Reason};
use catchment_common::time::{Instant, Now, Timestamp};
use catchment_common::wire::{AgentPlan, ClockState, CounterSample, Heartbeat, Message, Section};

use crate::aggregate::intake::{Closable, Intake, Limits, Message as Incoming, Pieces};
use crate::ancestry::Ancestry;
use crate::clock::WallClock;
use crate::log::batcher::Batcher;
use crate::log::commit::Commits;
use crate::log::disk::Disk;
use crate::log::journal::Journal;
use crate::log::spool::{Lane, Spool};
use crate::metrics::{AGENT, Metrics};
use crate::settings::{COUNT_SEAL_DELAY, IDLE_CHECK, LATE_SEAL_DELAY, Settings};
use crate::source::Arrival;
use crate::uplink::Uplink;

pub use self::durable::Started;
use self::greeting::Greeting;
pub use self::greeting::{KeptPlan, Outcome};
use self::sources::Sources;

/// Name and version, as a hello gives them.
pub const SOFTWARE: &str = concat!("catchment-agent ", env!("CARGO_PKG_VERSION"));

/// One gateway's machine.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    seed: u64,
    plan: AgentPlan,
    ancestry: Ancestry,
    /// The last seq that the journal was told of.
    told_seq: u64,
    /// The era of the counters.
    era: u64,
    intake: Intake,
    journal: Journal,
    sources: Sources,
    commits: Commits,
    clock: WallClock,
    /// When panes that would be over are closed, although a source is away.
    close_passed_at: Instant,
    /// Something left the open panes since journal segments were last looked at.
    trim: bool,
    /// The spool's ordinal that the journal has been told of.
    spooled: u64,
    out: Out,
    uplink: Uplink,
    greeting: Greeting,
    close_now: bool,
    close_late_at: Option<Instant>,
    idle_check_at: Instant,
    link_bytes_noted: u64,
}

/// Where closed panes go: kept apart from the intake, so that one can feed the other.
#[derive(Debug)]
struct Out {
    batcher: Batcher,
    spool: Spool,
    metrics: Metrics,
    lane: Lane,
}

impl Agent {
    // What happened.

    /// Something came from a source.
    #[inline]
    pub fn handle_arrival(&mut self, now: Now, arrival: Arrival<'_>) {
        let Some(hash) = self.admit(now, &arrival) else {
            return;
        };
        let before = self.journal.waiting();
        self.take_arrival(now, arrival, hash);
        self.journal.note_message(self.journal.waiting() - before);
    }

    fn take_arrival(&mut self, now: Now, arrival: Arrival<'_>, hash: u32) {
        let Self {
            intake,
            journal,
            out,
            sources,
            ..
        } = self;
        let copy = sources.handle_copy(now, &arrival, hash, journal);
        let message = Incoming {
            source: arrival.source,
            topic: arrival.subject,
            payload: arrival.payload,
            readers: sources.session(arrival.source).readers(copy),
        };
        let lane = out.lane();
        let Out {
            batcher,
            spool,
            metrics,
            ..
        } = out;
        let emit = |section: &Section, metrics: &mut Metrics| push(batcher, spool, lane, section, metrics);
        let Closable {
            on_time,
            late,
            emitted_early,
            full,
        } = intake.handle_message(now, message, metrics, journal, emit);
        if emitted_early {
            self.out.finish();
            self.out.cut_if_large(&mut self.journal, &self.sources);
            self.trim = true;
        }
        self.close_now |= on_time;
        if late && self.close_late_at.is_none() {
            self.close_late_at = Some(now.monotonic + LATE_SEAL_DELAY);
        }
        if full {
            let at = now.monotonic + COUNT_SEAL_DELAY;
            self.close_late_at = Some(self.close_late_at.map_or(at, |late| late.min(at)));
        }
    }

    fn reject_unseen(&mut self, reason: Reason) {
        let agent = self.out.metrics.place(AGENT);
        self.out.metrics.add(agent, Counter::Messages, 1);
        self.out.metrics.add(agent, Counter::Received, 1);
        self.out.metrics.add(agent, Counter::Rejected(reason), 1);
    }

    /// A plan was found on disk or came from the aggregator. Open panes are closed first: deltas of the old plan are
    /// as good as any.
    pub fn handle_plan(&mut self, now: Now, plan: &AgentPlan) {
        self.close_all();
        for (pipeline, windows) in self.intake.cut_short_by(plan) {
            let place = self.out.metrics.place(pipeline);
            self.out.metrics.add(place, Counter::CutShort, windows);
        }
        let Self { intake, out, .. } = self;
        let limits = limits(&self.settings, self.seed);
        *intake = Intake::new(plan, Some(intake), limits, now, &mut out.metrics);
        out.spool.add_ladders(plan);
        self.plan = plan.clone();
        self.subscribe();
        self.begin_journal_segment();
        self.uplink.tell_news();
    }

    fn close_all(&mut self) {
        let Self {
            intake,
            journal,
            out,
            sources,
            ..
        } = self;
        intake.close_all(journal, out.pieces(), |journal, section| {
            out.push(section);
            out.cut_if_large(journal, sources);
        });
        out.finish();
        self.trim = true;
    }

    /// Time has passed: closes what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.clock.look(now);
        if self.idle_check_at <= now.monotonic {
            self.idle_check_at = now.monotonic + IDLE_CHECK;
            self.look_at_clock(now);
        }
        if self.close_late_at.is_some_and(|at| at <= now.monotonic) {
            self.close_now = true;
        }
        if std::mem::take(&mut self.close_now) {
            self.close_late_at = None;
            let Self {
                intake,
                journal,
                out,
                sources,
                ..
            } = self;
            intake.close_due(journal, out.pieces(), |journal, section| {
                out.push(section);
                out.cut_if_large(journal, sources);
            });
            out.finish();
            self.trim = true;
            self.uplink.tell_news();
        }
    }

    /// Judges the wall clock, and lets silent pipelines follow the time.
    fn look_at_clock(&mut self, now: Now) {
        if self.clock.judge(now) {
            self.out.count(Counter::ClockOff, 1);
            self.uplink.tell_news();
        }
        self.follow_clock(now, self.clock.time(now));
    }

    /// How the wall clock is; none before the aggregator has said what time it is.
    pub fn clock_state(&self, now: Now) -> Option<ClockState> {
        self.clock.state(now)
    }

    /// The process is about to end: closes all panes, so that what is gathered can still be sent.
    pub fn handle_shutdown(&mut self) {
        self.close_all();
        self.uplink.tell_news();
    }

    // What it wants.

    /// Whether a link to the aggregator should be made now.
    pub fn poll_connect(&mut self, now: Now) -> bool {
        self.uplink.poll_connect(now)
    }

    /// The next message for the control stream.
    pub fn poll_message(&mut self, now: Now) -> Option<Message> {
        if let Some(hello) = self.poll_hello() {
            return Some(hello);
        }
        if !self.uplink.poll_heartbeat(now) {
            return None;
        }
        let (epoch, seq) = (self.out.batcher.epoch(), self.out.batcher.seq());
        let spool = &self.out.spool;
        // A watermark speaks for this epoch's seqs. While anything else waits to be sent, the agent gives the lowest
        // timestamp: an agent that runs a pipeline is expected to report, also before it has heard anything.
        let settled = !spool.holds_others(epoch);
        let told = |at: Timestamp| if settled { at } else { Timestamp::MIN };
        let watermarks = { self.intake.watermarks() }.map(|(pipeline, at)| (pipeline, told(at)));
        Some(Message::Heartbeat(Heartbeat {
            epoch,
            era: self.era,
            seq,
            oldest: spool.oldest(epoch).unwrap_or(seq + 1),
            watermarks: watermarks.collect(),
            backlog_batches: spool.len() as u64,
            backlog_bytes: spool.held_bytes(),
            counters: self.out.metrics.report(COUNTERS_MAX),
            sources: self.source_states(),
            clock: self.clock.state(now),
        }))
    }

    /// The next batch, once the aggregator has welcomed the agent, and its lane, which must have room: live first.
    pub fn poll_batch(&mut self, has_room: impl Fn(Lane) -> bool, disk: &impl Disk) -> Option<(Lane, Bytes)> {
        if self.uplink.is_ready() {
            self.out.spool.next(has_room, disk)
        } else {
            None
        }
    }

    /// When the machine next wants [`Agent::handle_timeout`], [`Agent::poll_connect`], [`Agent::poll_job`] or, if the
    /// link has room for a message (`can_speak`), [`Agent::poll_message`].
    pub fn poll_timeout(&self, now: Now, can_speak: bool) -> Instant {
        if self.close_now {
            return now.monotonic;
        }
        [
            self.close_late_at,
            self.uplink.poll_timeout(can_speak),
            self.commits.poll_timeout(),
        ]
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

    /// A time service says that the wall clock is right.
    pub fn confirm_clock(&mut self) {
        self.clock.confirm();
    }

    /// What is known of the wall clock.
    pub fn clock(&self) -> &WallClock {
        &self.clock
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.out.metrics
    }

    /// Open panes and the pipelines that run.
    pub fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Batches that are not acknowledged.
    pub fn spool(&self) -> &Spool {
        &self.out.spool
    }

    /// The plan that runs.
    pub fn plan(&self) -> &AgentPlan {
        &self.plan
    }

    /// Whether everything taken is durable.
    pub fn is_durable(&self) -> bool {
        !self.commits.is_busy() && self.journal.waiting() == 0 && !self.out.spool.has_work()
    }

    /// Whether the aggregator has welcomed the agent.
    pub fn is_linked(&self) -> bool {
        self.uplink.is_ready()
    }
}

impl Out {
    /// The lane of what closes now. While too much waits for its acknowledgement that is the backlog.
    fn lane(&self) -> Lane {
        if self.lane == Lane::Live && self.spool.wants_names() {
            Lane::Live
        } else {
            Lane::Backlog
        }
    }

    /// How panes are to be closed. What has no name yet may have to be merged to make room for more of it, so it should
    /// come piece by piece.
    fn pieces(&self) -> Pieces {
        match self.lane() {
            Lane::Live => Pieces::Together,
            Lane::Backlog => Pieces::Each,
        }
    }

    fn push(&mut self, section: &Section) {
        let lane = self.lane();
        push(
            &mut self.batcher,
            &mut self.spool,
            lane,
            section,
            &mut self.metrics,
        );
    }

    fn finish(&mut self) {
        let lane = self.lane();
        if let Some(finished) = self.batcher.finish(lane, &mut self.metrics) {
            self.spool.push(finished.frame, finished.name, lane);
        }
    }

    /// Ends the journal's group if much has come into the spool with it: all of a group needs room at once. The journal
    /// must have been told of all that came.
    fn cut_if_large(&mut self, journal: &mut Journal, sources: &Sources) {
        if self.pieces() == Pieces::Each && self.spool.wants_cut() {
            self.cut(journal, sources);
        }
    }

    /// Ends the journal's group.
    fn cut(&mut self, journal: &mut Journal, sources: &Sources) {
        self.finish();
        journal.counts(&mut self.metrics);
        let until = self.spool.cut();
        journal.end_group(sources.cut(until));
    }

    /// Counts what the spool lost or could not read back.
    fn count_losses(&mut self) {
        for (pipeline, readings) in self.spool.take_lost() {
            let place = self.metrics.place(pipeline);
            self.metrics.add(place, Counter::Dropped, readings);
        }
        for (pipeline, readings) in self.spool.take_pointless() {
            let place = self.metrics.place(pipeline);
            self.metrics.add(place, Counter::PointsGivenUp, readings);
        }
        let damaged = self.spool.take_damaged();
        self.count(Counter::Damaged, damaged);
    }

    /// What counts of losses have come since the journal was last told of counters: the others belong to what waits.
    fn losses_since(&mut self) -> Vec<CounterSample> {
        const LOSSES: [Counter; 3] = [Counter::Dropped, Counter::PointsGivenUp, Counter::Damaged];
        let codes = LOSSES.map(Counter::code);
        self.metrics.increases(|code| codes.contains(&code))
    }

    fn count(&mut self, counter: Counter, more: u64) {
        let agent = self.metrics.place(AGENT);
        self.metrics.add(agent, counter, more);
    }
}

fn push(batcher: &mut Batcher, spool: &mut Spool, lane: Lane, section: &Section, metrics: &mut Metrics) {
    if let Some(finished) = batcher.push(section, lane, metrics) {
        spool.push(finished.frame, finished.name, lane);
    }
}

fn limits(settings: &Settings, seed: u64) -> Limits<'_> {
    Limits {
        agent: &settings.name,
        memory_bytes: settings.memory_bytes,
        payload_bytes_max: settings.payload_bytes_max,
        seed,
    }
}

#[cfg(test)]
mod tests;
