//! Everything at once: agents, aggregator and Mosquitto are killed at random moments under load, while the network
//! between agents and aggregator loses, repeats and reorders packets and is cut for a while. Then every row must equal
//! the truth, and every reading must be accounted for: nothing lost, nothing twice.
//!
//! A Mosquitto that is killed forgets what it has acknowledged since it last saved, so devices number their messages,
//! publish the last ten seconds again after a reconnect, and the plan counts what comes twice once. The faults last
//! twenty seconds here, or as long as `CATCHMENT_CHAOS_SECONDS` says (`tests/chaos` runs the full minute, many times).
//! `CATCHMENT_CHAOS_SEED` repeats a schedule; what the processes do at each blow is theirs.

use std::time::{Duration, Instant};

use catchment_firmware_sim::dice::Dice;
use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::Broker;
use catchment_tests::process::{Process, binary};
use catchment_tests::proxy::{Proxy, Weather};
use catchment_tests::verdict::wait_until_right;
use catchment_tests::world::{FLEET_PLAN, World};

/// How long faults last in the regular test run.
const SECONDS: u64 = 20;
/// Before the first blow: subscriptions must be on the brokers' disks, or else there is nothing to keep messages for.
const CALM: Duration = Duration::from_secs(3);
/// How long the link is cut, at most a third of the time.
const CUT_SECONDS_MAX: u64 = 20;
/// Dedupe publish on for so long after the last blow, so that what a broker forgot is published again.
const AFTER_SECONDS: u64 = 5;
const NAMES: [&str; 2] = ["a", "b"];
/// Between two blows, and how long who was struck stays away, at most.
const PAUSE_MS: u32 = 2_500;
const AWAY_MS: u32 = 2_000;

struct Chaos {
    dice: Dice,
    brokers: Vec<Broker>,
    agents: Vec<Process>,
    configs: Vec<AgentConfig>,
    aggregator: Aggregator,
    proxy: Proxy,
    blows: [u32; 3],
    world: World,
}

/// Who is struck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Agent(usize),
    Broker(usize),
    Aggregator,
}

impl Chaos {
    fn start(seed: u64, limits: &[&str]) -> Self {
        let world = World::new();
        let plan = FLEET_PLAN.replace("[[query]]", "[[query]]\ndedupe = \"seq\"");
        let aggregator = Aggregator::start(&world, &plan);
        let proxy = Proxy::start(aggregator.address(), Weather::FOUL, seed);
        let brokers: Vec<Broker> = NAMES
            .iter()
            .map(|name| Broker::persistent_mosquitto(&world, &format!("broker-{name}")))
            .collect();
        let config = |(name, broker): (&&str, &Broker)| {
            let mut config = AgentConfig::new(&format!("gw-{name}"), &broker.url(), &aggregator);
            config.aggregator = proxy.address().to_string();
            limits.iter().fold(config, |config, line| config.limit(line))
        };
        let configs: Vec<AgentConfig> = NAMES.iter().zip(&brokers).map(config).collect();
        let agents = configs
            .iter()
            .map(|config| config.start_subscribed(&world))
            .collect();
        Self {
            dice: Dice::new(seed, 1),
            brokers,
            agents,
            configs,
            aggregator,
            proxy,
            blows: [0; 3],
            world,
        }
    }

    fn fleet(&self, seed: u64, seconds: u64) -> Process {
        let mut command = std::process::Command::new(binary("catchment-fleet"));
        let words =
            "run --devices 200 --rate 5 --resend 10s --disorder 0.02 --disorder-by 1s --duplicates 0.01";
        command.args(words.split(' '));
        command.args(["--seed", &seed.to_string(), "--duration", &format!("{seconds}s")]);
        command.arg("--truth").arg(self.world.path("truth.jsonl"));
        for broker in &self.brokers {
            command.args(["--broker", &broker.url()]);
        }
        Process::start("fleet", self.world.folder(), &mut command)
    }

    /// Strikes until the time is over, with the link cut in the second third of it.
    #[allow(clippy::disallowed_methods, reason = "the blows fall in real time")]
    fn rage(&mut self, seconds: u64) {
        pause(CALM);
        let begin = Instant::now();
        let cut_from = seconds / 3;
        let cut_to = cut_from + (seconds / 3).min(CUT_SECONDS_MAX);
        while begin.elapsed().as_secs() < seconds {
            let is_cut = (cut_from..cut_to).contains(&begin.elapsed().as_secs());
            self.proxy.set_cut(is_cut);
            if self.dice.below(8) == 0 {
                self.proxy.rebind();
            }
            // Mostly one, sometimes several at a time.
            let mut victims = vec![self.victim()];
            while self.dice.below(3) == 0 {
                let next = self.victim();
                if !victims.contains(&next) {
                    victims.push(next);
                }
            }
            for &victim in &victims {
                self.kill(victim);
            }
            pause(Duration::from_millis(self.dice.below(AWAY_MS).into()));
            for victim in victims {
                self.revive(victim);
            }
            pause(Duration::from_millis(self.dice.below(PAUSE_MS).into()));
        }
        self.proxy.set_cut(false);
    }

    fn victim(&mut self) -> Victim {
        match self.dice.below(5) {
            0 => Victim::Aggregator,
            number @ (1 | 2) => Victim::Agent(number as usize - 1),
            number => Victim::Broker(number as usize - 3),
        }
    }

    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Agent(index) => {
                assert!(self.agents[index].is_running(), "an agent ended by itself");
                self.agents[index].kill();
                self.blows[0] += 1;
            }
            Victim::Broker(index) => {
                assert!(
                    self.brokers[index].process().is_running(),
                    "a broker ended by itself"
                );
                self.brokers[index].process().kill();
                self.blows[1] += 1;
            }
            Victim::Aggregator => {
                assert!(
                    self.aggregator.process().is_running(),
                    "the aggregator ended by itself"
                );
                self.aggregator.process().kill();
                self.blows[2] += 1;
            }
        }
    }

    fn revive(&mut self, victim: Victim) {
        match victim {
            Victim::Agent(index) => self.agents[index] = self.configs[index].start(&self.world),
            Victim::Broker(index) => {
                let name = format!("broker-{}", NAMES[index]);
                self.brokers[index].restart(&self.world, &name);
            }
            Victim::Aggregator => self.aggregator.restart(&self.world),
        }
    }

    fn check(mut self, fleet: &mut Process) {
        let status = fleet.wait();
        assert!(status.success(), "{}", fleet.log());
        let report = wait_until_right(&self.aggregator, &[self.world.path("truth.jsonl")]);
        let counters: Vec<String> = [
            "redelivered",
            "rejected_repeated",
            "held_back",
            "dropped",
            "damaged",
        ]
        .iter()
        .map(|name| format!("{name} {}", self.aggregator.counter(name)))
        .collect();
        let [agents, brokers, aggregators] = self.blows;
        let (carried, lost) = self.proxy.packets();
        println!(
            "killed: agents {agents}, brokers {brokers}, aggregator {aggregators}; packets: {carried} carried, {lost} lost; {}",
            counters.join(", ")
        );
        println!("{report}");
        assert!(self.agents.iter_mut().all(Process::is_running));
        assert_eq!(
            report.matches("+ 0 lost: balanced").count(),
            2,
            "nothing was given up"
        );
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a schedule of blows is the point of the test"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

fn survive(limits: &[&str]) {
    let random = || u64::from(rand_word());
    let seed = number("CATCHMENT_CHAOS_SEED").unwrap_or_else(random);
    let seconds = number("CATCHMENT_CHAOS_SECONDS").unwrap_or(SECONDS);
    println!("seed {seed}, faults for {seconds} s");
    let mut chaos = Chaos::start(seed, limits);
    let mut fleet = chaos.fleet(seed, CALM.as_secs() + seconds + AFTER_SECONDS);
    chaos.rage(seconds);
    assert!(fleet.is_running(), "the last blow is under load too");
    chaos.check(&mut fleet);
}

fn rand_word() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as u32
}

#[test]
fn processes_that_are_killed_at_random_on_a_foul_network_lose_nothing_and_double_nothing() {
    survive(&[]);
}

#[test]
fn nor_do_they_with_the_smallest_disk_budget() {
    survive(&["spool = \"1 MiB\"", "journal = \"256 KiB\""]);
}
