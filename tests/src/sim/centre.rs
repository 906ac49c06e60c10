//! The aggregator: the production machine with a store in memory, driven as the rim drives it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use catchment_aggregator::aggregator::{Aggregator, Settings, Transmit};
use catchment_aggregator::catalog::Catalog;
use catchment_aggregator::commit::Commit;
use catchment_aggregator::store::memory::Memory;
use catchment_aggregator::store::{Reads, Store, StoreFault};
use catchment_common::plan::{Plan, Query};
use catchment_common::time::{Span, Timestamp};
use catchment_common::wire::VERSION;
use catchment_common::wire::lineage::DatabaseId;

use super::case::{Case, MS, SECOND, START_US};
use super::edits;
use super::plans::Variant;
use super::world::{Event, World};

/// The aggregator.
pub(super) struct Centre {
    machine: Option<Aggregator>,
    pub(super) store: Memory,
    pub(super) backup: Option<Box<Memory>>,
    pub(super) life: u32,
    pub(super) fails_until: u64,
    boot: u64,
    job: Option<Commit>,
    wake: u64,
    /// When queries came that were not there from the start.
    pub(super) added: BTreeMap<String, u64>,
    /// Queries that were once taken out of the plan.
    pub(super) removed: BTreeSet<String>,
    /// Names of batches that a restored backup does not know and that their agents have not offered again: agent, epoch
    /// and seq.
    pub(super) forgotten: BTreeSet<(String, u64, u64)>,
}

impl Centre {
    pub(super) fn new(case: &Case) -> Self {
        let mut store = Memory::new(DatabaseId(u128::from(case.seed)));
        let at = Timestamp::clamped(START_US);
        apply(&mut store, case.queries(case.plan), at).expect("the first plan is taken");
        Self {
            machine: None,
            store,
            backup: None,
            life: 0,
            fails_until: 0,
            boot: 0,
            job: None,
            wake: u64::MAX,
            added: BTreeMap::new(),
            removed: BTreeSet::new(),
            forgotten: BTreeSet::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    pub(super) fn handle_connected(&mut self, link: u64, agent: &str) {
        if let Some(machine) = &mut self.machine {
            machine.handle_connected(link, agent, VERSION);
        }
    }

    pub(super) fn busy(&self) -> Option<String> {
        let is_done = |machine: &Aggregator| !machine.is_to_revise();
        let up = self.machine.as_ref().is_some_and(is_done) && self.job.is_none();
        (!up).then(|| "the aggregator has not committed all".into())
    }
}

impl World<'_> {
    fn centre_clock(&self) -> catchment_common::time::Now {
        self.clock(self.centre.boot, 0)
    }

    pub(super) fn start_centre(&mut self) {
        self.centre.boot = self.now;
        let now = self.centre_clock();
        let settings = Settings {
            lease: Span::from_secs(120),
            heartbeat: Span::from_secs(1),
            due_rows: self.case.due_rows,
            // Little in a third of all runs.
            memory: if self.case.seed.is_multiple_of(3) {
                20_000
            } else {
                usize::MAX
            },
        };
        let machine = self.centre.store.restore(settings, now);
        let machine = machine.expect("a store in memory can be read");
        self.note_plan(machine.catalog());
        self.centre.machine = Some(machine);
        self.centre.life += 1;
        self.centre.wake = u64::MAX;
        self.centre.job = None;
        self.log(|| "the aggregator starts".into());
        self.drain_centre();
    }

    pub(super) fn crash_centre(&mut self, durable: bool, down: u64) {
        if self.centre.machine.take().is_none() {
            return;
        }
        self.figures.crashes += 1;
        self.centre.life += 1;
        if let Some(commit) = self.centre.job.take()
            && durable
            && self.centre.fails_until <= self.now
        {
            commit_to(&mut self.centre.store, &commit);
        }
        let links: Vec<u64> = self.links.keys().copied().collect();
        for link in links {
            self.break_link(link);
        }
        self.at(self.now + down + 1, Event::RestartCentre);
    }

    pub(super) fn restore_backup(&mut self, down: u64) {
        let Some(backup) = self.centre.backup.clone() else {
            return;
        };
        if self.centre.machine.is_some() {
            self.crash_centre(false, down);
        }
        let had = names_of(&self.centre.store);
        let has = names_of(&backup);
        self.centre.forgotten.extend(had.difference(&has).cloned());
        let at = self.centre_clock().wall;
        self.centre.store.restore_backup(&backup, at);
    }

    /// An agent says what it holds. What a restored backup lacks must be there, as far as the spool's budget reaches:
    /// beyond that nothing is promised.
    pub(super) fn check_retention(&mut self, index: usize) {
        let gateway = &self.gateways[index];
        let Some(agent) = &gateway.agent else { return };
        let name = gateway.name().to_owned();
        let spool = agent.spool();
        let ranges = spool.ranges(usize::MAX);
        let held: BTreeSet<(u64, u64)> = { ranges.iter() }
            .flat_map(|held| held.ranges.iter().map(|range| (held.epoch, *range)))
            .flat_map(|(epoch, range)| (range.first..=range.last).map(move |seq| (epoch, seq)))
            .collect();
        let forgotten = std::mem::take(&mut self.centre.forgotten);
        let (own, others): (BTreeSet<_>, BTreeSet<_>) =
            forgotten.into_iter().partition(|(agent, _, _)| *agent == name);
        self.centre.forgotten = others;
        let lacking = own
            .iter()
            .filter(|(_, epoch, seq)| !held.contains(&(*epoch, *seq)));
        let lacking = lacking.count();
        if lacking == 0 {
            return;
        }
        let (bytes, budget) = (spool.bytes(), self.case.spool_bytes);
        if bytes > budget / 8 * 3 {
            self.log(|| {
                format!("{name} has let {lacking} acknowledged batches go: its spool has {bytes} bytes")
            });
            self.unpromised = true;
        } else {
            self.fail(format!(
                "{name} lacks {lacking} batches that a restored backup does not know, with {bytes} bytes in a spool of {budget}"
            ));
        }
    }

    pub(super) fn apply_plan(&mut self, variant: Variant) {
        let queries = self.case.queries(variant);
        let before = catalog(&self.centre.store);
        let must_be_refused = edits::must_be_refused(self.centre.store.plans(), &queries);
        let at = self.centre_clock().wall;
        match (
            apply(&mut self.centre.store, queries.clone(), at),
            must_be_refused,
        ) {
            (Ok(_), None) => {}
            (Err(fault), Some(_)) => return self.log(|| format!("{variant:?} is refused: {fault}")),
            (Ok(_), Some(why)) => return self.fail(format!("{variant:?} should be refused: {why}")),
            (Err(fault), None) => return self.fail(format!("{variant:?} is refused: {fault}")),
        }
        for query in &queries {
            if !before.queries.iter().any(|held| held.query.name == query.name) {
                self.centre.added.insert(query.name.clone(), self.now);
            }
        }
        for held in before.queries {
            if !queries.iter().any(|query| query.name == held.query.name) {
                self.centre.removed.insert(held.query.name);
            }
        }
        let catalog = catalog(&self.centre.store);
        self.note_plan(&catalog);
        let life = self.centre.life;
        self.soon(1_000_000, Event::TakeUp(life));
    }

    pub(super) fn handle_take_up(&mut self, life: u32) {
        let now = self.centre_clock();
        let (Some(machine), true) = (&mut self.centre.machine, self.centre.life == life) else {
            return;
        };
        let catalog = catalog(&self.centre.store);
        if catalog.version != machine.catalog().version {
            machine.handle_catalog(now, catalog);
            self.log(|| "the aggregator takes up a plan".into());
        }
        self.drain_centre();
    }

    pub(super) fn take_frame(&mut self, link: u64, frame: Bytes) {
        let now = self.centre_clock();
        let Centre { machine, store, .. } = &mut self.centre;
        let Some(machine) = machine else { return };
        if let Err(fault) = machine.handle_frame(now, link, frame, store) {
            self.fail(format!("the aggregator closes link {link}: {fault}"));
        }
        self.drain_centre();
    }

    pub(super) fn handle_lost_above(&mut self, link: u64) {
        if let Some(machine) = &mut self.centre.machine {
            machine.handle_disconnected(link);
        }
    }

    pub(super) fn handle_committed(&mut self, life: u32) {
        if self.centre.life != life {
            return;
        }
        let now = self.centre_clock();
        let Centre {
            machine,
            store,
            job,
            fails_until,
            ..
        } = &mut self.centre;
        let Some(machine) = machine else { return };
        let Some(commit) = job.take() else { return };
        if *fails_until > self.now {
            machine.handle_commit_failed(now, commit);
        } else {
            commit_to(store, &commit);
            machine.handle_committed(commit.id);
        }
        self.drain_centre();
    }

    pub(super) fn drain_centre(&mut self) {
        let now = self.centre_clock();
        let Centre {
            machine, store, job, ..
        } = &mut self.centre;
        let Some(machine) = machine else { return };
        if job.is_none()
            && let Some(commit) = machine
                .poll_commit(now, store)
                .expect("a store in memory can be read")
        {
            let text = format!(
                "commit {}: {} batches, committed {:?}, checkpoint: {}",
                commit.id,
                commit.batches.len(),
                commit.committed,
                commit.checkpoint.is_some()
            );
            let is_worth_telling = !commit.batches.is_empty() || commit.checkpoint.is_some();
            *job = Some(commit);
            if is_worth_telling {
                self.log(|| text);
            }
            let life = self.centre.life;
            self.soon(30 * MS as u32, Event::Committed(life));
        }
        self.transmit();
        let Some(machine) = &self.centre.machine else {
            return;
        };
        let due = machine.poll_timeout().as_micros() + self.centre.boot - SECOND;
        let due = due.max(self.now + 1);
        if due < self.centre.wake || self.centre.wake <= self.now {
            self.centre.wake = due;
            let life = self.centre.life;
            self.at(due, Event::CentreWake(life));
        }
    }

    fn transmit(&mut self) {
        while let Some((link, transmit)) = self.centre.machine.as_mut().and_then(Aggregator::poll_transmit) {
            match transmit {
                Transmit::Message(message) => self.send_down(link, message),
                Transmit::Close(_) => {
                    self.break_link(link);
                    if let Some(machine) = &mut self.centre.machine {
                        machine.handle_disconnected(link);
                    }
                }
                Transmit::Conflict { with } => {
                    self.fail(format!("link {link} is taken for a second agent beside {with}"));
                }
            }
        }
    }
}

/// Puts a plan of these queries into force.
fn apply(store: &mut Memory, queries: Vec<Query>, at: Timestamp) -> Result<u64, StoreFault> {
    store.apply_plan(Plan { version: 0, queries }, "", at)
}

/// The plan in force.
pub(super) fn catalog(store: &Memory) -> Catalog {
    store.catalog().expect("a store in memory can be read")
}

fn commit_to(store: &mut Memory, commit: &Commit) {
    assert_eq!(commit.set_aside, [], "all that is stored can be read");
    store.commit(commit).expect("a store in memory takes everything");
}

/// The names of all batches that a store has taken.
fn names_of(store: &Memory) -> BTreeSet<(String, u64, u64)> {
    let mut names = BTreeSet::new();
    store
        .committed(&mut |agent, epoch, range| {
            names.extend((range.first..=range.last).map(|seq| (agent.to_owned(), epoch, seq)));
        })
        .expect("a store in memory can be read");
    names
}
