//! The whole system on one machine: an aggregator, three agents with a broker each, and the devices; live, then
//! audited.
//!
//! Aggregator and agents are the real programs, each in its own process, in a temporary folder; brokers and devices
//! run in this process. However the demo ends (in time, by Ctrl-C, by a fault), the processes end before it and the
//! folder is removed.

mod fault;

mod signals;

mod screen;

mod child;

mod folder;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rumqttc::QoS;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::child::Child;
pub use self::fault::DemoFault;
use self::folder::{Folder, agent_name};
use self::screen::Screen;
use self::signals::Signals;
use super::broker::Broker;
use super::check::{self, Verdict};
use super::database::{Database, DatabaseFault};
use super::run::{self, Progress, RunFault};
use crate::audit::Traffic;
use crate::demo::{Blow, SITES, View, blows};
use crate::dice::Chance;
use crate::fault::Faults;
use crate::fleet::Settings;

/// A demo without an end in sight ends after so long.
const SECONDS_MAX: u64 = 30 * 86_400;
/// How often the line in the terminal is renewed.
const LOOK: Duration = Duration::from_secs(1);
/// How long the last windows may take to close: their size, the watermark_delay and idle time of the plan, many times
/// over.
const DRAIN_TIME_MAX: Duration = Duration::from_mins(2);
/// MQTT connections for each broker.
const CONNECTIONS: u32 = 4;
/// Of how many readings one is published late, makes its device fall silent, is bad.
const DISORDER: Chance = Chance::one_in(100);
const DISORDER_US: u64 = 1_500_000;
const DROP_OUTS: Chance = Chance::one_in(2_000);
const BAD: Chance = Chance::one_in(2_000);

/// What to show.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long devices publish; `None` is until Ctrl-C.
    pub seconds: Option<u64>,
    /// Whether an agent and the aggregator are killed on the way.
    pub kill: bool,
    /// Whether the folder stays.
    pub keep: bool,
    /// How many devices.
    pub devices: u32,
    /// Microseconds between two readings of a device.
    pub interval_us: u64,
    /// The devices' seed.
    pub seed: u64,
    /// Where the programs are; `None` is where this one is.
    pub programs: Option<PathBuf>,
}

/// Runs the demo to its audit.
pub async fn demo(options: Options, progress: &Arc<Progress>) -> Result<Verdict, DemoFault> {
    let mut signals = Signals::new()?;
    let folder = Folder::make(options.programs.clone(), options.keep).await?;
    let mut demo = Demo::new(options, folder, Arc::clone(progress));
    let verdict = demo.run(&mut signals).await;
    // Also after a fault: no process outlives the demo, and none writes into the folder while it is removed.
    demo.end().await;
    verdict
}

struct Demo {
    options: Options,
    progress: Arc<Progress>,
    aggregator_address: String,
    aggregator: Option<Child>,
    agents: [Option<Child>; SITES.len()],
    brokers: Vec<Broker>,
    screen: Screen,
    folder: Folder,
}

impl Demo {
    fn new(options: Options, folder: Folder, progress: Arc<Progress>) -> Self {
        Self {
            options,
            progress,
            aggregator_address: String::new(),
            aggregator: None,
            agents: SITES.map(|_| None),
            brokers: Vec::new(),
            screen: Screen::new(),
            folder,
        }
    }

    async fn run(&mut self, signals: &mut Signals) -> Result<Verdict, DemoFault> {
        tokio::select! {
            started = self.start() => started?,
            () = signals.any() => return Err(DemoFault::Interrupted),
        }
        self.publish(signals).await?;
        tokio::select! {
            verdict = self.drain_and_audit() => verdict,
            () = signals.any() => Err(DemoFault::Interrupted),
        }
    }

    /// Kills what still runs.
    async fn end(&mut self) {
        for child in self
            .agents
            .iter_mut()
            .chain([&mut self.aggregator])
            .filter_map(Option::take)
        {
            // It fails only for a process that has ended already.
            let _ = child.kill().await;
        }
    }

    async fn start(&mut self) -> Result<(), DemoFault> {
        self.folder.configure_aggregator(([127, 0, 0, 1], 0).into())?;
        self.start_aggregator().await?;
        for (index, site) in SITES.into_iter().enumerate() {
            let broker = Broker::start(([127, 0, 0, 1], 0).into()).await?;
            self.folder
                .configure_agent(site, &broker.url(), &self.aggregator_address)?;
            self.brokers.push(broker);
            self.start_agent(index).await?;
        }
        let devices = self.options.devices;
        let rate = 1_000_000.0 / self.options.interval_us as f64;
        self.screen.say(&format!(
            "{devices} devices at {} sites publish {rate} readings a second each; Ctrl-C ends it with an audit",
            SITES.len()
        ));
        Ok(())
    }

    /// Starts the aggregator and remembers its address, so that it comes back where agents look for it.
    async fn start_aggregator(&mut self) -> Result<(), DemoFault> {
        let (config, log) = (
            self.folder.text("aggregator.toml"),
            self.folder.file("aggregator.log"),
        );
        let arguments = ["serve", "--config", &config];
        let child = Child::start("the aggregator", &self.folder.aggregator(), &arguments, &log)?;
        // Ours before it is ready: whatever comes next, it will be ended.
        let child = self.aggregator.insert(child);
        self.aggregator_address = child.announced("listening on ").await?;
        if let Ok(address) = self.aggregator_address.parse() {
            self.folder.configure_aggregator(address)?;
        }
        Ok(())
    }

    /// Starts a site's agent and waits until its broker has taken its subscription.
    async fn start_agent(&mut self, index: usize) -> Result<(), DemoFault> {
        let name = agent_name(SITES[index]);
        let config = self.folder.text(&format!("{name}.toml"));
        let log = self.folder.file(&format!("{name}.log"));
        let child = Child::start(&name, &self.folder.agent(), &["run", "--config", &config], &log)?;
        self.agents[index].insert(child).logged("subscribed").await
    }

    /// Lets the devices publish until their time is over or Ctrl-C ends it.
    async fn publish(&mut self, signals: &mut Signals) -> Result<(), DemoFault> {
        let fleet = self.fleet()?;
        let kill = self.options.kill;
        tokio::pin!(fleet);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let begin = Instant::now();
        let mut blows = blows(self.options.seconds)
            .into_iter()
            .filter(move |_| kill)
            .peekable();
        loop {
            tokio::select! {
                result = &mut fleet => {
                    result??;
                    break;
                }
                _ = looks.tick() => {}
                is_interrupt = signals.is_interrupt() => {
                    if !is_interrupt || self.progress.is_stopping() {
                        return Err(DemoFault::Interrupted);
                    }
                    self.progress.stop();
                }
            }
            let seconds = begin.elapsed().as_secs();
            while let Some((_, blow)) = blows.next_if(|(at, _)| *at <= seconds) {
                self.strike(blow).await?;
            }
            self.check()?;
            self.look(seconds).await?;
        }
        // Whatever is still away comes back, so that what is held anywhere can arrive.
        for (_, blow) in blows {
            if matches!(blow, Blow::StartAgent | Blow::StartAggregator) {
                self.strike(blow).await?;
            }
        }
        Ok(())
    }

    fn fleet(&self) -> Result<JoinHandle<Result<(), RunFault>>, DemoFault> {
        let options = &self.options;
        let seconds = options.seconds.unwrap_or(SECONDS_MAX);
        let settings = Settings {
            devices: options.devices,
            interval_us: options.interval_us,
            steps: seconds * 1_000_000 / options.interval_us,
            seed: options.seed,
            start_us: run::now_us(),
            sites: SITES.map(String::from).to_vec(),
            faults: Faults {
                disorder: DISORDER,
                disorder_us: DISORDER_US,
                dropouts: DROP_OUTS,
                bad: BAD,
                ..Faults::default()
            },
        };
        let brokers = self.brokers.iter().map(|broker| broker.url().parse());
        let brokers = brokers.collect::<Result<_, _>>().map_err(RunFault::Link)?;
        let (connections, truth) = (CONNECTIONS, self.folder.file("truth.jsonl"));
        let options = run::Options {
            brokers,
            connections,
            qos: QoS::AtLeastOnce,
            resend: None,
            unpaced: false,
            truth,
        };
        let progress = Arc::clone(&self.progress);
        Ok(tokio::spawn(async move {
            run::run(settings, &options, &progress).await
        }))
    }

    async fn strike(&mut self, blow: Blow) -> Result<(), DemoFault> {
        let name = agent_name(SITES[0]);
        match blow {
            Blow::KillAgent => {
                if let Some(agent) = self.agents[0].take() {
                    agent.kill().await?;
                    self.screen.say(&format!("killed {name} (SIGKILL)"));
                }
            }
            Blow::StartAgent if self.agents[0].is_none() => {
                self.start_agent(0).await?;
                self.screen.say(&format!("started {name} again"));
            }
            Blow::KillAggregator => {
                if let Some(aggregator) = self.aggregator.take() {
                    aggregator.kill().await?;
                    self.screen.say("killed the aggregator (SIGKILL)");
                }
            }
            Blow::StartAggregator if self.aggregator.is_none() => {
                self.start_aggregator().await?;
                self.screen.say("started the aggregator again");
            }
            Blow::StartAgent | Blow::StartAggregator => {}
        }
        Ok(())
    }

    /// A fault if a process has ended that was not killed.
    fn check(&mut self) -> Result<(), DemoFault> {
        self.agents
            .iter_mut()
            .chain([&mut self.aggregator])
            .flatten()
            .try_for_each(Child::check)
    }

    /// Shows how things stand.
    async fn look(&mut self, seconds: u64) -> Result<(), DemoFault> {
        let (view, _) = self.read(seconds).await?;
        self.screen.show(view);
        Ok(())
    }

    /// How things stand, and whether every agent's watermarks have passed `settled`'s instant.
    async fn read(&self, seconds: u64) -> Result<(View, Watermarks), DemoFault> {
        let path = self.folder.file("catchment.db");
        let agents = SITES.len() as u64;
        let read = tokio::task::spawn_blocking(move || {
            let database = Database::open(&path)?;
            let plan = database.plan()?;
            let mut view = View {
                seconds,
                ..View::default()
            };
            let mut pipelines = Vec::new();
            let mut latest_window_us = 0;
            for query in &plan.queries {
                view.rows += database.row_count(&query.name)?;
                pipelines.push(database.pipeline(&query.name)?);
                latest_window_us = latest_window_us.max(query.window.longest().as_micros());
            }
            pipelines.sort_unstable();
            pipelines.dedup();
            view.bytes_out = Traffic::new(0, &database.counters()?).link_bytes;
            let (count, earliest_us) = database.watermarks()?;
            let complete = count == agents * pipelines.len() as u64;
            Ok::<_, DatabaseFault>((
                view,
                Watermarks {
                    complete,
                    earliest_us,
                    latest_window_us,
                },
            ))
        });
        let (mut view, watermarks) = read.await??;
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        view.published = of(&self.progress.readings);
        view.bytes_in = of(&self.progress.bytes).saturating_sub(of(&self.progress.bad_bytes));
        Ok((view, watermarks))
    }

    /// Waits until the last windows have closed, stops everything in order, and audits what is in the database.
    async fn drain_and_audit(&mut self) -> Result<Verdict, DemoFault> {
        self.screen
            .say("the devices have stopped; waiting for the last windows to close");
        let (begin, ended_us) = (Instant::now(), run::now_us());
        loop {
            let (_, watermarks) = self.read(0).await?;
            if watermarks.have_passed(ended_us) {
                break;
            }
            if begin.elapsed() > DRAIN_TIME_MAX {
                self.screen
                    .say("not every window has closed; auditing all the same");
                break;
            }
            self.check()?;
            tokio::time::sleep(LOOK / 4).await;
        }
        for agent in self.agents.iter_mut().filter_map(Option::take) {
            agent.stop().await?;
        }
        if let Some(aggregator) = self.aggregator.take() {
            aggregator.stop().await?;
        }
        for broker in std::mem::take(&mut self.brokers) {
            broker.shutdown().await;
        }
        self.audit()
    }

    fn audit(&mut self) -> Result<Verdict, DemoFault> {
        let (truth, database) = (
            [self.folder.file("truth.jsonl")],
            self.folder.file("catchment.db"),
        );
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nrows against the truth")?;
        let rows = check::verify(&truth, &database, &mut out)?;
        writeln!(out, "\nreadings against the truth")?;
        let readings = check::audit(&truth, &database, &mut out)?;
        if self.folder.is_kept() {
            writeln!(out, "\nkept: {}", self.folder.path().display())?;
        }
        if (rows, readings) == (Verdict::Right, Verdict::Right) {
            writeln!(
                out,
                "\nRIGHT: every reading is accounted for, and every row equals the truth"
            )?;
            Ok(Verdict::Right)
        } else {
            writeln!(out, "\nWRONG: see above for what is lost, doubled or different")?;
            Ok(Verdict::Wrong)
        }
    }
}

/// How far the agents have come, by what is committed.
#[derive(Clone, Copy, Debug)]
struct Watermarks {
    /// Every agent has one for every pipeline.
    complete: bool,
    earliest_us: i64,
    /// The longest window.
    latest_window_us: i64,
}

impl Watermarks {
    /// Whether every window that holds a reading of `at_us` or before has closed.
    fn have_passed(self, at_us: i64) -> bool {
        self.complete && self.earliest_us >= at_us + self.latest_window_us
    }
}
