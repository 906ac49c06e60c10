//! The loop: one event after another in the order of a virtual clock.

use std::collections::BTreeMap;

use catchment_agent::agent::KeptPlan;
use catchment_aggregator::catalog::Catalog;
use catchment_common::plan::{PipelineId, Query};
use catchment_common::time::{Instant, Now, Timestamp};
use catchment_common::wire::AgentPlan;
use catchment_firmware_sim::dice::Dice;

use super::broker::Copy;
use super::case::{Case, Fault, MS, SECOND, START_US};
use super::centre::{Centre, catalog};
use super::gateway::Gateway;
use super::link::Link;

/// Everything that can happen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A device publishes.
    Publish(usize),
    /// Something from one of its brokers reaches a gateway.
    FromBroker(usize, usize, u32),
    /// An acknowledgement reaches the broker.
    ToBroker(usize, usize),
    /// A gateway tries to connect to its broker.
    BrokerTry(usize, usize),
    /// A gateway's disk takes a step.
    DiskStep(usize, u32),
    /// A gateway's machine wants to be asked.
    Wake(usize, u32),
    /// An attempt to reach the aggregator ends.
    LinkMade(usize, u32),
    /// A frame reaches the aggregator, on one of three streams.
    Up(u64, usize),
    /// A message reaches a gateway.
    Down(u64),
    /// A gateway learns that its link is gone.
    LostBelow(u64),
    /// The aggregator learns it.
    LostAbove(u64),
    /// The aggregator's machine wants to be asked.
    CentreWake(u32),
    /// A commit is written, or has failed.
    Committed(u32),
    /// The aggregator takes up what the operator has put into its store.
    TakeUp(u32),
    /// A gateway comes back.
    Restart(usize),
    /// The aggregator comes back.
    RestartCentre,
    /// A fault of the case strikes.
    Fault(usize),
    /// Publishing and faults are over.
    Heal,
    /// Is everything settled?
    Look,
}

/// Events after which a run counts as one that never settles.
const EVENTS_MAX: u64 = 2_000_000;
/// So many more for each second of a long run.
const EVENTS_PER_SECOND_MAX: u64 = 100;
/// After the faults, panes close within this time.
const CLOSE_WAIT: u64 = 60 * SECOND;
/// How often it is looked whether all is delivered: out of step with agents, which look at their clocks four times a
/// second and let the aggregator commit each time.
const LOOK_EVERY: u64 = 487 * MS + 913;
/// After that, everything is delivered within this time.
const SETTLE_WAIT: u64 = 1_800 * SECOND;
/// And this long after, all that was delivered is shown.
const SHOW_WAIT: u64 = 12 * SECOND;

/// A run's figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Events.
    pub events: u64,
    /// Readings that must be in results.
    pub readings: u64,
    /// Rows compared.
    pub rows: u64,
    /// Of those, rows of coarser panes.
    pub coarse_rows: u64,
    /// Crashes of gateways and of the aggregator.
    pub crashes: u64,
    /// Messages recognised as delivered again.
    pub redelivered: u64,
    /// Readings refused because their device had numbered them before.
    pub repeated: u64,
    /// Batches sent again to an aggregator that had lost them.
    pub resent: u64,
    /// Rows of count windows, and of these such that stay short of readings with others behind them.
    pub counted_rows: u64,
    /// See there.
    pub cut_short: u64,
    /// Readings given up and reported.
    pub lost: u64,
    /// Runs whose rows are not compared, because a restored backup lacked more than agents keep.
    pub unpromised: u64,
    /// Most bytes that a gateway's files took.
    pub disk_bytes_max: u64,
    /// Jobs that failed.
    pub disk_faults: u64,
    /// Deltas that left early.
    pub emitted_early: u64,
}

/// A copy of a message that a gateway took.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Read {
    pub(super) copy: Copy,
    /// The plan that it ran, and the pipelines that read it.
    pub(super) version: u64,
    pub(super) pipelines: Vec<PipelineId>,
}

/// A run under way.
pub(super) struct World<'c> {
    pub(super) case: &'c Case,
    pub(super) now: u64,
    pub(super) dice: Dice,
    bits: Dice,
    pub(super) gateways: Vec<Gateway>,
    pub(super) centre: Centre,
    pub(super) links: BTreeMap<u64, Link>,
    pub(super) next_link: u64,
    /// For each publish whether a broker took it.
    pub(super) accepted: Vec<bool>,
    /// For each gateway what it took, in that order. What a crash took back stands here again when it was delivered
    /// again.
    pub(super) reads: Vec<Vec<Read>>,
    pub(super) plans: BTreeMap<u64, AgentPlan>,
    /// The queries of each of these.
    pub(super) definitions: BTreeMap<u64, Vec<Query>>,
    /// When each plan was put into force.
    pub(super) applied: BTreeMap<u64, u64>,
    pub(super) healed: bool,
    pub(super) figures: Figures,
    pub(super) trace: Option<Vec<String>>,
    pub(super) fault: Option<String>,
    /// A restored backup lacks more than agents keep, so rows need not be whole.
    pub(super) unpromised: bool,
    queue: BTreeMap<(u64, u64), Event>,
    serial: u64,
    settled_at: Option<u64>,
}

impl<'c> World<'c> {
    pub(super) fn new(case: &'c Case, trace: bool) -> Self {
        let mut world = Self {
            case,
            now: 0,
            dice: Dice::new(case.seed, 3),
            bits: Dice::new(case.seed, 5),
            gateways: Vec::new(),
            centre: Centre::new(case),
            links: BTreeMap::new(),
            next_link: 1,
            accepted: vec![false; case.publishes.len()],
            reads: vec![Vec::new(); case.gateways],
            plans: BTreeMap::new(),
            definitions: BTreeMap::new(),
            applied: BTreeMap::new(),
            healed: false,
            figures: Figures::default(),
            trace: trace.then(Vec::new),
            fault: None,
            unpromised: false,
            queue: BTreeMap::new(),
            serial: 0,
            settled_at: None,
        };
        let catalog = catalog(&world.centre.store);
        let plan = catalog.agent_plan();
        world.note_plan(&catalog);
        for index in 0..case.gateways {
            let kept = KeptPlan {
                plan: plan.clone(),
                database: Some(world.centre.store.database),
            };
            world.gateways.push(Gateway::new(index, case, kept));
            world.start_gateway(index);
        }
        world.at(0, Event::RestartCentre);
        for (index, publish) in case.publishes.iter().enumerate() {
            world.at(publish.at, Event::Publish(index));
        }
        for (index, (at, _)) in case.faults.iter().enumerate() {
            world.at(*at, Event::Fault(index));
        }
        world.at(case.end, Event::Heal);
        world
    }

    /// Runs to the end; the error says what broke.
    pub(super) fn run(&mut self) -> Result<(), String> {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = self.now.max(at);
            self.figures.events += 1;
            if self.figures.events > EVENTS_MAX + self.case.end / SECOND * EVENTS_PER_SECOND_MAX {
                return Err(format!("too many events: at {} us {event:?}", self.now));
            }
            self.handle(event);
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            if let Some(settled_at) = self.settled_at
                && self.now >= settled_at + SHOW_WAIT
            {
                return Ok(());
            }
        }
        Err("nothing happens any more".into())
    }

    /// Keeps what a plan says, for the check.
    pub(super) fn note_plan(&mut self, catalog: &Catalog) {
        let queries = catalog.queries.iter().map(|query| query.query.clone());
        self.plans.insert(catalog.version, catalog.agent_plan());
        self.definitions.insert(catalog.version, queries.collect());
        self.applied.entry(catalog.version).or_insert(self.now);
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.queue.insert((at, self.serial), event);
    }

    /// Schedules an event after a random time of at most `most` microseconds.
    pub(super) fn soon(&mut self, most: u32, event: Event) {
        let delay = u64::from(self.dice.below(most)) + 1;
        self.at(self.now + delay, event);
    }

    pub(super) fn number(&mut self) -> u64 {
        u64::from(self.dice.below(u32::MAX)) << 32 | u64::from(self.dice.below(u32::MAX))
    }

    /// Random bits of a stream of their own, so that drawing them changes nothing else.
    pub(super) fn fresh(&mut self) -> u64 {
        u64::from(self.bits.below(u32::MAX)) << 32 | u64::from(self.bits.below(u32::MAX))
    }

    pub(super) fn log(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>12.6} {}", self.now as f64 / 1e6, text()));
        }
    }

    pub(super) fn fail(&mut self, text: String) {
        self.log(|| format!("FAULT {text}"));
        self.fault.get_or_insert(text);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Publish(index) => self.handle_publish(index),
            Event::FromBroker(gateway, source, life) => self.handle_from_broker(gateway, source, life),
            Event::ToBroker(gateway, source) => self.handle_to_broker(gateway, source),
            Event::BrokerTry(gateway, source) => self.handle_broker_try(gateway, source),
            Event::DiskStep(gateway, life) => self.handle_disk_step(gateway, life),
            Event::Wake(gateway, life) => self.handle_wake(gateway, life),
            Event::LinkMade(gateway, life) => self.handle_link_made(gateway, life),
            Event::Up(link, stream) => self.handle_up(link, stream),
            Event::Down(link) => self.handle_down(link),
            Event::LostBelow(link) => self.handle_lost_below(link),
            Event::LostAbove(link) => self.handle_lost_above(link),
            Event::CentreWake(life) => {
                if self.centre.life == life {
                    self.drain_centre();
                }
            }
            Event::Committed(life) => self.handle_committed(life),
            Event::TakeUp(life) => self.handle_take_up(life),
            Event::Restart(gateway) => self.start_gateway(gateway),
            Event::RestartCentre => self.start_centre(),
            Event::Fault(index) => self.strike(self.case.faults[index].1),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    /// The clocks of something that began at `boot` and whose wall clock is off.
    pub(super) fn clock(&self, boot: u64, offset_us: i64) -> Now {
        Now {
            monotonic: Instant::from_micros(self.now - boot + SECOND),
            wall: Timestamp::clamped(START_US + self.now as i64 + offset_us),
        }
    }

    fn strike(&mut self, fault: Fault) {
        self.log(|| format!("fault {fault:?}"));
        match fault {
            Fault::Crash {
                gateway,
                power,
                after_steps,
                down,
            } => {
                if after_steps == 0 {
                    self.crash_gateway(gateway, power, down);
                } else {
                    self.gateways[gateway].doom = Some((after_steps, power, down));
                }
            }
            Fault::CentreCrash { durable, down } => self.crash_centre(durable, down),
            Fault::Backup => self.centre.backup = Some(Box::new(self.centre.store.clone())),
            Fault::Restore { down } => self.restore_backup(down),
            Fault::Cut { gateway, down } => {
                self.gateways[gateway].cut_until = self.now + down;
                if let Some(link) = self.gateways[gateway].link {
                    self.break_link(link);
                }
            }
            Fault::BrokerCut {
                gateway,
                forget,
                down,
            } => self.cut_a_broker(gateway, forget, down),
            Fault::Full { gateway, room, down } => {
                let disk = &mut self.gateways[gateway].disk;
                disk.capacity = Some(disk.bytes() + room);
                self.gateways[gateway].disk_heals_at = self.now + down;
            }
            Fault::DiskFails { gateway, down } => {
                self.gateways[gateway].disk.failing = true;
                self.gateways[gateway].disk_heals_at = self.now + down;
            }
            Fault::StoreFails { down } => self.centre.fails_until = self.now + down,
            Fault::Clock { gateway, offset } => {
                self.gateways[gateway].offset_us = offset.saturating_mul(1_000_000);
            }
            Fault::Suspend { gateway, down } => self.gateways[gateway].asleep_until = self.now + down,
            Fault::Plan(variant) => self.apply_plan(variant),
        }
    }

    fn heal(&mut self) {
        self.log(|| "all faults end".into());
        self.healed = true;
        for gateway in &mut self.gateways {
            gateway.doom = None;
            gateway.cut_until = self.now;
            for side in &mut gateway.sides {
                side.broker.closed_until = self.now;
            }
            gateway.disk.kill();
            gateway.offset_us = 0;
            gateway.asleep_until = self.now;
        }
        self.centre.fails_until = self.now;
        self.at(self.now + CLOSE_WAIT, Event::Look);
    }

    /// Whether all is delivered; if not, looks again later.
    fn look(&mut self) {
        if self.settled_at.is_some() {
            return;
        }
        self.send_open_windows();
        let busy = self.gateways.iter().find_map(Gateway::busy);
        let busy = busy.or_else(|| self.centre.busy());
        let Some(busy) = busy else {
            self.log(|| "settled".into());
            self.settled_at = Some(self.now);
            // Something must happen for the run to end.
            self.at(self.now + SHOW_WAIT, Event::Look);
            return;
        };
        if self.now > self.case.end + CLOSE_WAIT + SETTLE_WAIT {
            self.fail(format!("it does not settle: {busy}"));
        }
        self.at(self.now + LOOK_EVERY, Event::Look);
    }
}
