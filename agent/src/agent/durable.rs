//! The agent's side of durability: its start from what is on disk, and its jobs.

use catchment_common::metrics::Counter;
use catchment_common::time::Now;
use catchment_common::wire::lineage::DatabaseId;

use super::greeting::{Greeting, KeptPlan};
use super::{Agent, Out, Sources, limits};
use crate::aggregate::intake::Limits;
use crate::ancestry::Ancestry;
use crate::clock::WallClock;
use crate::log::batcher::Batcher;
use crate::log::commit::{Commits, Marks};
use crate::log::disk::{Disk, DiskFault, File, Job, Step};
use crate::log::journal::{Journal, Snapshot, Told};
use crate::log::spool::{self, Lane, Spool};
use crate::recovery::Recovery;
use crate::settings::{AWAY_SEAL_DELAY, IDLE_CHECK, Settings};
use crate::uplink::Uplink;

/// What a start found, for the operator.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Started {
    /// Readings replayed from the journal.
    pub readings: u64,
    /// Partials that are open again.
    pub partials: usize,
    /// Batches in the spool.
    pub batches: usize,
    /// Ends of files that were torn or damaged. A crash leaves one; more of them are a bad disk.
    pub damaged: usize,
    /// Files with something whole in them that was not read, and that the first job removes: set them aside.
    pub unread: Vec<File>,
}

impl Agent {
    /// An agent with what its disk has kept. `epoch` names this run and `seed` sets hashing, jitter and, on a new disk,
    /// the counters' era and the state's lineage: draw both at random. `kept` is the plan that was kept beside, which runs
    /// if there is no journal.
    pub fn start(
        settings: Settings,
        epoch: u64,
        seed: u64,
        kept: Option<&KeptPlan>,
        now: Now,
        disk: &impl Disk,
    ) -> Result<(Self, Started), DiskFault> {
        let name = settings.name.clone();
        let limits = Limits {
            agent: &name,
            ..limits(&settings, seed)
        };
        let mut recovery = Recovery::replay(disk, limits, &settings, now)?;
        let mut rest = Vec::new();
        recovery.settle_overflow(|pipeline, section| rest.push((pipeline, section.clone())));
        recovery.intake.find_full();
        let spool_limits = spool::Limits {
            bytes: settings.spool_bytes,
            retain: settings.retain_acked,
        };
        let (mut spool, found) = Spool::recover(spool_limits, recovery.replayed.spooled, disk)?;
        spool.add_ladders(&recovery.plan);
        let started = Started {
            readings: recovery.readings,
            partials: recovery.intake.panes().len(),
            batches: found.batches,
            damaged: recovery.replayed.damaged + found.damaged,
            unread: recovery.unread(),
        };
        let newest = recovery
            .segments
            .newest()
            .or(recovery.segments.broken().last().copied())
            .unwrap_or(0);
        let keys = recovery.intake.panes().capacity();
        let database = kept.and_then(|kept| kept.database);
        let ancestry = begin(recovery.ancestry, &spool, (epoch, seed), database);
        let mut agent = Self {
            seed,
            plan: recovery.plan.clone(),
            ancestry,
            told_seq: 0,
            era: recovery.era.unwrap_or(seed.rotate_left(8) ^ epoch),
            journal: Journal::new(
                settings.journal_bytes,
                recovery.segments.sizes(),
                newest + 1,
                keys,
            ),
            intake: recovery.intake,
            sources: Sources::new(recovery.sessions, now),
            commits: Commits::new(settings.commit_delay),
            clock: WallClock::new(settings.clock_known),
            trim: true,
            spooled: spool.ordinal(),
            out: Out {
                batcher: Batcher::new(epoch),
                spool,
                metrics: recovery.metrics,
                lane: Lane::Backlog,
            },
            uplink: Uplink::new(now, seed),
            greeting: Greeting::default(),
            close_now: true,
            close_late_at: None,
            idle_check_at: now.monotonic + IDLE_CHECK,
            close_passed_at: now.monotonic + AWAY_SEAL_DELAY,
            link_bytes_noted: 0,
            settings,
        };
        for &number in recovery.segments.broken() {
            agent.out.spool.remove_first(File::Journal(number));
        }
        // A killed process may have written what it never synced: it counts from now on, so it must be made to last.
        for (number, _) in recovery.segments.sizes() {
            agent.out.spool.sync_first(File::Journal(number));
        }
        agent.begin_snapshot();
        for identity in &recovery.gone {
            agent.journal.window_gone(identity);
        }
        agent.out.count(Counter::Damaged, started.damaged as u64);
        // Batches without a journal that knows them: it was removed, and with it what was in no batch yet.
        let is_new = recovery.era.is_none();
        let is_journal_gone = is_new && started.batches > 0;
        if found.lost || recovery.replayed.lost || is_journal_gone {
            agent.out.spool.push_loss_of_unknown_size();
        }
        for (pipeline, section) in &rest {
            agent.journal.taken(*pipeline, section.pane, section.keys.iter());
            agent.out.push(section);
            agent.out.cut_if_large(&mut agent.journal, &agent.sources);
        }
        // What was gathered before the start is kept apart from what comes now: should this state be an older copy, the
        // one may have been delivered already, and the other not.
        agent.close_all();
        agent.greeting = Greeting::new(agent.out.spool.next_place());
        agent.out.spool.keep_apart();
        agent.out.metrics.note_recovered();
        agent.subscribe();
        if let Some(kept) = kept.filter(|_| is_new) {
            agent.handle_plan(now, &kept.plan);
        }
        Ok((agent, started))
    }

    /// The journal refers to the plan by index, and says whose state this is, in the snapshot of each segment: when
    /// either changes, what has been written before must end with the old one.
    pub(super) fn begin_journal_segment(&mut self) {
        // The group may say that all panes went to the spool. The job marks it with where they are there, as it does the
        // snapshot: that is in another file, and may not become durable with it.
        self.out.cut(&mut self.journal, &self.sources);
        self.begin_segment();
        self.handle_snapshot();
    }

    fn begin_segment(&mut self) {
        self.journal.begin_segment(self.intake.panes().capacity());
        self.begin_snapshot();
        self.trim = true;
    }

    /// What a segment begins with.
    fn begin_snapshot(&mut self) {
        let until = self.out.spool.cut();
        let (snapshot, cut) = (self.snapshot(), self.sources.cut(until));
        self.journal.snapshot(&snapshot, &self.sources.kept(), cut);
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            era: self.era,
            spooled: self.out.spool.ordinal(),
            plan: self.plan.clone(),
            ancestry: Some(Ancestry {
                sealed: self.out.batcher.seq(),
                ..self.ancestry.clone()
            }),
            counts: self.out.metrics.all(),
            ..Snapshot::default()
        }
    }

    /// What to make durable next, if it is time and nothing is under way. Report its end with
    /// [`Agent::handle_job_done`] or [`Agent::handle_job_failed`].
    pub fn poll_job(&mut self, now: Now, disk: &impl Disk) -> Option<Job> {
        if self.commits.is_busy() {
            return self.commits.poll_retry(now);
        }
        let waiting = self.journal.waiting() + usize::from(self.out.spool.has_work());
        // The first job is the journal's snapshot alone: batches on a disk without a journal could not be told from
        // those that a crash left behind.
        let is_urgent = self.out.spool.has_writes()
            || !self.commits.has_begun()
            || self.journal.is_half_full()
            || self.journal.can_shrink();
        if !self.commits.is_due(now, waiting, is_urgent) {
            if waiting == 0 {
                // Nothing was written for the latest messages, so nothing keeps them.
                self.sources.handle_all_durable();
            }
            return None;
        }
        self.leave_early();
        self.out.spool.expire(now.monotonic);
        let mut steps = Vec::new();
        let (mut done, mut ancestry) = (self.sources.durable(), self.greeting.durable());
        // Group by group: all of one needs room at once, and what was written for one may be merged for the next.
        loop {
            let cut = self.journal.first_ended();
            if !self.make_room(cut.map(|cut| cut.until), disk, &mut steps) {
                break;
            }
            let Some(cut) = cut else {
                (done, ancestry) = (self.sources.cut(0), self.greeting.changes());
                self.take_group(&mut steps);
                break;
            };
            self.take_ended(&mut steps);
            done = cut;
            if written(&steps) > JOB_BYTES_MAX {
                break;
            }
        }
        let ordinal = self.out.spool.ordinal();
        let marks = Marks {
            taken: done.taken,
            noted: done.noted,
            ordinal,
            ancestry,
        };
        let job = self.commits.begin(steps, marks);
        self.out.count(Counter::DiskBytes, job.bytes());
        Some(job)
    }

    /// Within the journal's budget: what must leave, leaves now.
    fn leave_early(&mut self) {
        if !self.journal.is_crowded() {
            return;
        }
        let (oldest, current) = (self.journal.oldest() as u16, self.journal.segment() as u16);
        let age = |mark: u16| current.wrapping_sub(mark);
        let is_old = |mark: u16| age(mark) >= age(oldest).saturating_sub(1);
        let Self {
            intake,
            journal,
            out,
            sources,
            ..
        } = self;
        intake.close_marked(journal, is_old, |journal, section| {
            out.push(section);
            out.cut_if_large(journal, sources);
        });
        out.finish();
        self.trim = true;
    }

    /// Makes room in the spool for what came in before the place `until`, or for all; returns whether it is there. If not,
    /// the job is large enough, and the next one goes on.
    fn make_room(&mut self, until: Option<u64>, disk: &impl Disk, steps: &mut Vec<Step>) -> bool {
        while !self.out.spool.prepare(until, disk) {
            self.out.count_losses();
            self.out.spool.take_writes(steps);
            if let Some(ordinal) = self.news() {
                let told = self.told();
                self.journal.mark(ordinal, &told, steps);
            }
            self.out.spool.take_removals(steps);
            if written(steps) > JOB_BYTES_MAX {
                return false;
            }
        }
        self.out.count_losses();
        let resent = self.out.spool.take_resent();
        self.out.count(Counter::Resent, resent);
        let forgotten = self.intake.dedupe().take_forgotten();
        self.out.count(Counter::Forgotten, forgotten);
        true
    }

    /// The spool's last record, if the journal was not told of it.
    fn news(&mut self) -> Option<u64> {
        let ordinal = self.out.spool.ordinal();
        let told = std::mem::replace(&mut self.spooled, ordinal);
        (told != ordinal).then_some(ordinal)
    }

    /// What a group that was ended before says besides. Batches are sent after it, so it is known for good which seqs were
    /// given out.
    fn told(&mut self) -> Told {
        let seq = self.out.batcher.seq();
        let sealed = (self.told_seq != seq).then_some(seq);
        // Another segment may be of another epoch, and must say so itself.
        if self.journal.is_at_newest() {
            self.told_seq = seq;
        }
        Told {
            sealed,
            counts: self.out.losses_since(),
        }
    }

    /// The first group that has ended becomes durable, with what came into the spool before its end.
    fn take_ended(&mut self, steps: &mut Vec<Step>) {
        self.out.spool.take_writes(steps);
        let begins = self.journal.begins_segment();
        let news = self.news().or(begins.then_some(self.spooled));
        let told = self.told();
        self.journal.take_ended(news, &told, steps);
        self.out.spool.take_removals(steps);
    }

    /// The group in the making becomes durable, and what it makes superfluous goes.
    fn take_group(&mut self, steps: &mut Vec<Step>) {
        self.out.spool.take_writes(steps);
        let needed = self.needed_segment();
        if let Some(needed) = needed {
            let before = self.journal.waiting();
            self.intake.dedupe().carry(needed, &mut self.journal);
            self.intake.count_windows().carry(needed, &mut self.journal);
            self.sources.carry(needed, &mut self.journal);
            self.journal.note_carried(self.journal.waiting() - before);
        }
        let is_full = self.journal.wants_segment();
        let news = self.news();
        if is_full || news.is_some() || self.journal.waiting() > 0 {
            self.journal.counts(&mut self.out.metrics);
        }
        let seq = self.out.batcher.seq();
        if std::mem::replace(&mut self.told_seq, seq) != seq {
            self.journal.sealed(seq);
        }
        self.journal.take_group(news, steps);
        if is_full {
            self.begin_segment();
        }
        self.out.spool.take_removals(steps);
        if let Some(needed) = needed {
            self.journal.trim(needed, steps);
        }
    }

    /// Names what has no name, as long as there is a link.
    pub(super) fn seal(&mut self) {
        if self.out.lane == Lane::Live {
            let first = self.out.batcher.take_names(0);
            let sealed = self.out.spool.seal(first);
            self.out.batcher.take_names(sealed);
        }
    }

    /// The oldest segment that something needs, if it may have changed.
    fn needed_segment(&mut self) -> Option<u32> {
        if !std::mem::take(&mut self.trim) || self.journal.oldest() == self.journal.segment() {
            return None;
        }
        let current = self.journal.segment();
        let age = |mark: u16| u32::from((current as u16).wrapping_sub(mark));
        let oldest_pane = self.intake.panes().marks().map(age).max().unwrap_or(0);
        let needed = current - oldest_pane.min(current);
        (needed > self.journal.oldest()).then_some(needed)
    }

    /// A job is done: what it held may be acknowledged and sent.
    pub fn handle_job_done(&mut self, now: Now, id: u64) {
        if let Some(marks) = self.commits.handle_done(id) {
            self.sources.handle_durable(marks.taken, marks.noted);
            self.out.spool.handle_durable(marks.ordinal);
            self.handle_ancestry_durable(marks.ancestry);
            // What was lost meanwhile, or found no room in the seal.
            self.seal();
            self.try_to_move(now);
        }
    }

    /// A job failed. It is tried again after a while; nothing is acknowledged until it is done.
    pub fn handle_job_failed(&mut self, now: Now, job: Job, fault: &DiskFault) {
        self.out.count(Counter::DiskFaults, 1);
        let mut first: Vec<Step> = Vec::new();
        if *fault == DiskFault::Full {
            self.out.spool.handle_full();
            self.out.spool.take_removals(&mut first);
        }
        self.commits.handle_failed(now, job, fault, first);
    }
}

/// The epoch of this run, in the lineage that the journal has, or in one of its own. If there is no journal, what is held
/// is of the database that the plan was kept with.
fn begin(
    before: Option<Ancestry>,
    spool: &Spool,
    (epoch, seed): (u64, u64),
    database: Option<DatabaseId>,
) -> Ancestry {
    let Some(mut ancestry) = before else {
        let mut ancestry = Ancestry::new(seed.rotate_left(24) ^ epoch, epoch);
        ancestry.database = database;
        let origins = spool.epochs().into_iter();
        ancestry.origins = origins.filter_map(|epoch| Some((epoch, database?))).collect();
        return ancestry;
    };
    // Names in the spool may be newer than what the journal was told of last.
    ancestry.sealed = ancestry.sealed.max(spool.last_seq(ancestry.epoch));
    ancestry.begin(epoch);
    ancestry
}

/// Bytes that these steps write.
fn written(steps: &[Step]) -> u64 {
    steps.iter().map(Step::bytes).sum()
}

/// Bytes that one job writes before it leaves the rest to the next: what is merged for it is in memory until it is done.
const JOB_BYTES_MAX: u64 = 4 << 20;
