//! A gateway: the production agent with its disk, its broker and its clock, driven as the rim drives it.

mod disk;

mod source;

use bytes::Bytes;
use catchment_agent::agent::{Agent, KeptPlan};
use catchment_agent::log::disk::Job;
use catchment_agent::log::spool::Lane;
use catchment_agent::metrics::AGENT;
use catchment_agent::settings::{ClockUnset, Settings};
use catchment_agent::source::SourceSettings;
use catchment_common::metrics::Counter;
use catchment_common::plan::PipelineId;
use catchment_common::time::{Now, Span, Timestamp};
use catchment_common::wire::{AgentPlan, Message};

use super::broker::Broker;
use super::case::{Case, SECOND};
use super::disk::SimDisk;
use super::link::Link;
use super::world::{Event, World};

/// What a gateway's sources are called.
pub(super) const SOURCE_NAMES: [&str; 2] = ["broker", "second"];

/// One source of a gateway: a broker, and what the rim keeps of the session with it.
pub(super) struct Side {
    pub(super) broker: Broker,
    /// Arrivals from the broker that wait because the agent is backed up.
    held_arrivals: usize,
    /// The broker's connection that the agent knows of.
    connection: u32,
    forget_session: bool,
}

/// One gateway.
pub(super) struct Gateway {
    pub(super) agent: Option<Agent>,
    pub(super) disk: SimDisk,
    pub(super) sides: Vec<Side>,
    pub(super) link: Option<u64>,
    /// The crash that waits for so many disk steps, whether the power fails, and how long it takes.
    pub(super) doom: Option<(u32, bool, u64)>,
    pub(super) cut_until: u64,
    pub(super) disk_heals_at: u64,
    pub(super) offset_us: i64,
    pub(super) asleep_until: u64,
    settings: Settings,
    plan_file: KeptPlan,
    life: u32,
    boot: u64,
    /// The job under way and its next step.
    job: Option<(Job, usize)>,
    wake: u64,
    /// The watermarks when the last connection to a broker was lost.
    frozen: Option<Vec<(PipelineId, Timestamp)>>,
}

impl Gateway {
    pub(super) fn new(index: usize, case: &Case, plan: KeptPlan) -> Self {
        let side = |_| {
            let mut broker = Broker::new(case.window * case.windows, case.habits);
            if let Some(earlier) = case.earlier {
                broker.remember(earlier.filters());
            }
            Side {
                broker,
                held_arrivals: 0,
                connection: 0,
                forget_session: false,
            }
        };
        let mut plan_file = plan;
        if case.earlier.is_some() {
            plan_file.plan = AgentPlan::default();
        }
        let settings = Settings {
            name: format!("gw-{index}"),
            memory_bytes: case.memory_bytes,
            payload_bytes_max: 1 << 20,
            spool_bytes: case.spool_bytes,
            retain_acked: Span::from_secs(case.retain_seconds),
            journal_bytes: case.journal_bytes,
            commit_delay: Span::from_millis(case.commit_delay_ms),
            // A clock that jumps to 1970 must change no reading of these plans.
            clock_unset: if case.behind > 0 {
                ClockUnset::Hold
            } else {
                ClockUnset::Take
            },
            clock_known: case.behind == 0,
            sources: { SOURCE_NAMES[..case.sources].iter().zip(0..) }
                .map(|(name, session)| SourceSettings {
                    name: (*name).into(),
                    session,
                    redelivery_window: case.window,
                })
                .collect(),
        };
        Self {
            agent: None,
            disk: SimDisk::default(),
            sides: (0..case.sources).map(side).collect(),
            link: None,
            doom: None,
            cut_until: 0,
            disk_heals_at: 0,
            offset_us: -case.behind * 1_000_000,
            asleep_until: 0,
            settings,
            plan_file,
            life: 0,
            boot: 0,
            job: None,
            wake: u64::MAX,
            frozen: None,
        }
    }

    /// Brokers that a plan's filters are given to from outside have those that their source is read for.
    fn set_filters(&mut self) {
        let Some(agent) = &self.agent else { return };
        for (side, name) in self.sides.iter_mut().zip(SOURCE_NAMES) {
            if !side.broker.habits.subscribes {
                side.broker.set_filters(agent.intake().filters(name));
            }
        }
    }

    /// Until when nothing reaches it, if it sleeps.
    pub(super) fn sleeps(&self, now: u64) -> Option<u64> {
        (self.asleep_until > now).then_some(self.asleep_until)
    }

    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    /// What is still to be done.
    pub(super) fn busy(&self) -> Option<String> {
        let name = self.name();
        let Some(agent) = &self.agent else {
            return Some(format!("{name} is down"));
        };
        if self.sides.iter().any(|side| !side.broker.is_empty()) {
            Some(format!("{name}'s broker waits for acknowledgements"))
        } else if !agent.is_durable() {
            Some(format!("{name} has something that is not durable"))
        } else if !agent.intake().panes().is_empty() {
            Some(format!(
                "{name} has {} open partials",
                agent.intake().panes().len()
            ))
        } else if !agent.spool().is_empty() {
            Some(format!("{name} holds {} batches", agent.spool().len()))
        } else {
            None
        }
    }
}

impl World<'_> {
    pub(super) fn gateway_clock(&self, index: usize) -> Now {
        let gateway = &self.gateways[index];
        self.clock(gateway.boot, gateway.offset_us)
    }

    pub(super) fn start_gateway(&mut self, index: usize) {
        let (epoch, seed) = (self.number(), self.number());
        self.gateways[index].boot = self.now;
        let now = self.gateway_clock(index);
        let gateway = &mut self.gateways[index];
        gateway.life += 1;
        let started = Agent::start(
            gateway.settings.clone(),
            epoch,
            seed,
            Some(&gateway.plan_file),
            now,
            &gateway.disk,
        );
        let (agent, started) = started.expect("a simulated disk can be listed");
        gateway.agent = Some(agent);
        gateway.set_filters();
        gateway.wake = u64::MAX;
        gateway.job = None;
        gateway.freeze(true);
        self.log(|| format!("gw-{index} starts: {started:?}"));
        for source in 0..self.case.sources {
            self.soon(500_000, Event::BrokerTry(index, source));
        }
        self.drain_gateway(index);
    }

    pub(super) fn crash_gateway(&mut self, index: usize, power: bool, down: u64) {
        let gateway = &mut self.gateways[index];
        gateway.doom = None;
        let Some(agent) = gateway.agent.take() else { return };
        self.figures.crashes += 1;
        self.figures.emitted_early += agent.metrics().value(AGENT, Counter::EmittedEarly);
        if power {
            gateway.disk.lose_power(&mut self.dice);
        } else {
            gateway.disk.kill();
        }
        gateway.job = None;
        for side in &mut gateway.sides {
            side.held_arrivals = 0;
            side.connection = 0;
            side.broker.cut(&mut self.dice);
            side.broker.down.clear();
        }
        let link = gateway.link.take();
        self.log(|| format!("gw-{index} crashes, power lost: {power}"));
        if let Some(link) = link {
            self.break_link(link);
        }
        self.at(self.now + down + 1, Event::Restart(index));
    }

    /// Count windows stay open for ever when no more come: all that is open now leaves early, as when a
    /// gateway is shut down. What time closes must close by itself.
    pub(super) fn send_open_windows(&mut self) {
        for index in 0..self.gateways.len() {
            let Some(agent) = &mut self.gateways[index].agent else {
                continue;
            };
            let intake = agent.intake();
            let is_counted = |pipeline: u16| intake.pipelines()[usize::from(pipeline)].1.count.is_some();
            let panes = intake.panes();
            if !panes.is_empty() && panes.places().all(|place| is_counted(place.pipeline)) {
                agent.handle_shutdown();
                self.log(|| format!("gw-{index} sends its open windows"));
                self.after(index);
            }
        }
    }

    /// The machine after an event, as in the rim's loop.
    fn after(&mut self, index: usize) {
        let now = self.gateway_clock(index);
        if let Some(agent) = &mut self.gateways[index].agent {
            agent.handle_timeout(now);
        }
        self.check_hearing(index);
        self.drain_gateway(index);
    }

    pub(super) fn handle_wake(&mut self, index: usize, life: u32) {
        if self.gateways[index].life != life {
            return;
        }
        // An earlier wake-up has taken this one's place; were it followed, each would beget another for ever.
        if self.gateways[index].wake != self.now {
            return;
        }
        if let Some(until) = self.gateways[index].sleeps(self.now) {
            self.gateways[index].wake = until;
            return self.at(until, Event::Wake(index, life));
        }
        self.gateways[index].wake = u64::MAX;
        self.after(index);
    }

    // Its link.

    pub(super) fn handle_link_made(&mut self, index: usize, life: u32) {
        if self.gateways[index].life != life || self.gateways[index].agent.is_none() {
            return;
        }
        if let Some(until) = self.gateways[index].sleeps(self.now) {
            return self.at(until, Event::LinkMade(index, life));
        }
        let now = self.gateway_clock(index);
        let reachable = self.gateways[index].cut_until <= self.now && self.centre.is_up();
        let id = self.next_link;
        let fresh = self.fresh();
        let gateway = &mut self.gateways[index];
        let Some(agent) = &mut gateway.agent else { return };
        if reachable {
            gateway.link = Some(id);
            self.next_link += 1;
            agent.handle_connected(fresh);
            self.links.insert(id, Link::new(index));
            self.centre.handle_connected(id, gateway.settings.name.as_str());
            self.log(|| format!("gw-{index} link {id} is up"));
            self.check_retention(index);
        } else {
            agent.handle_disconnected(now);
        }
        self.after(index);
    }

    pub(super) fn take_message(&mut self, index: usize, message: Message) {
        let now = self.gateway_clock(index);
        let text = format!("gw-{index} ← {}", show_message(&message));
        self.log(|| text);
        let gateway = &mut self.gateways[index];
        let Some(agent) = &mut gateway.agent else { return };
        if let Message::Reject(refusal) = &message {
            let text = format!("gw-{index} is refused a batch: {refusal:?}");
            self.fail(text);
        } else {
            agent.handle_message(now, message, &gateway.disk);
        }
        self.after(index);
    }

    // What it wants.

    pub(super) fn drain_gateway(&mut self, index: usize) {
        if self.gateways[index].sleeps(self.now).is_some() || self.fault.is_some() {
            return;
        }
        let now = self.gateway_clock(index);
        self.drain_disk(index, now);
        let gateway = &mut self.gateways[index];
        let life = gateway.life;
        let Some(agent) = &mut gateway.agent else { return };
        if let Some(kept) = agent.poll_plan() {
            gateway.plan_file = kept;
            gateway.set_filters();
        }
        for source in 0..self.case.sources {
            let gateway = &mut self.gateways[index];
            let Some(agent) = &gateway.agent else { return };
            let held = &mut gateway.sides[source].held_arrivals;
            if *held > 0 && !agent.is_backed_up() {
                let held = std::mem::take(held);
                self.come_down(index, source, held);
            }
        }
        let gateway = &mut self.gateways[index];
        let Some(agent) = &mut gateway.agent else { return };
        if agent.poll_connect(now) {
            self.soon(2 * self.case.link_us, Event::LinkMade(index, life));
        }
        if let Some(link) = self.gateways[index].link {
            self.drain_link(index, link, now);
        }
        let gateway = &mut self.gateways[index];
        let Some(agent) = &mut gateway.agent else { return };
        let link = gateway.link.and_then(|link| self.links.get(&link));
        let can_speak = link.is_some_and(|link| link.has_room(0));
        let due = agent.poll_timeout(now, can_speak).as_micros() + gateway.boot - SECOND;
        let due = due.max(self.now + 1);
        if due < gateway.wake {
            gateway.wake = due;
            self.at(due, Event::Wake(index, life));
        }
    }

    fn drain_link(&mut self, index: usize, link: u64, now: Now) {
        let stream = |lane| match lane {
            Lane::Live => 1,
            Lane::Backlog => 2,
        };
        loop {
            let gateway = &mut self.gateways[index];
            let Some(agent) = &mut gateway.agent else { return };
            let links = &self.links;
            let has_room = |lane| links.get(&link).is_some_and(|link| link.has_room(stream(lane)));
            let Some((lane, frame)) = agent.poll_batch(has_room, &gateway.disk) else {
                break;
            };
            self.log(|| {
                format!(
                    "gw-{index} → {lane:?} {:?}",
                    catchment_common::wire::claimed_name(&frame)
                )
            });
            self.send_up(link, stream(lane), frame);
        }
        while self.links.get(&link).is_some_and(|link| link.has_room(0)) {
            let Some(agent) = &mut self.gateways[index].agent else {
                return;
            };
            let Some(message) = agent.poll_message(now) else {
                break;
            };
            let frame: Bytes = message.emit().into();
            self.send_up(link, 0, frame);
        }
    }
}

fn show(step: &catchment_agent::log::disk::Step) -> String {
    use catchment_agent::log::disk::Step;
    match step {
        Step::Write { file, at, bytes } => format!("write {file:?} at {at}, {} bytes", bytes.len()),
        other => format!("{other:?}"),
    }
}

fn show_message(message: &Message) -> String {
    match message {
        Message::Plan(plan) => format!("plan {}", plan.version),
        Message::Welcome(welcome) => format!(
            "welcome, plan {:?}, committed {:?}",
            welcome.plan.as_ref().map(|plan| plan.version),
            welcome.committed
        ),
        other => format!("{other:?}"),
    }
}
