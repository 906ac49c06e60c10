//! Agents: a configuration, a certificate and a process.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::aggregator::Aggregator;
use crate::process::{Process, binary};
use crate::wait::until;
use crate::world::World;

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Its name.
    pub name: String,
    /// Where it reads from.
    pub sources: Vec<SourceConfig>,
    /// Whether the only source is written as `[broker]`, as configurations of before did.
    pub is_of_before: bool,
    /// The aggregator's `host:port`.
    pub aggregator: String,
    /// Lines of `[limits]`.
    pub limits: String,
    /// The folder of the authority that it trusts and has its certificate from.
    pub authority: String,
}

/// An MQTT source.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Its name.
    pub name: String,
    /// The broker's URL.
    pub url: String,
    /// Further lines.
    pub lines: String,
}

impl AgentConfig {
    /// The smallest configuration: one source, called `broker`.
    pub fn new(name: &str, broker: &str, aggregator: &Aggregator) -> Self {
        let config = Self {
            name: name.into(),
            sources: Vec::new(),
            is_of_before: false,
            aggregator: aggregator.address().to_string(),
            limits: String::new(),
            authority: "pki".into(),
        };
        config.source("broker", broker)
    }

    /// Adds a source.
    pub fn source(mut self, name: &str, url: &str) -> Self {
        self.sources.push(SourceConfig {
            name: name.into(),
            url: url.into(),
            lines: String::new(),
        });
        self
    }

    /// Calls the last source otherwise.
    pub fn source_name(mut self, name: &str) -> Self {
        self.last_source().name = name.into();
        self
    }

    /// Adds a line to the last source.
    pub fn broker_line(mut self, line: &str) -> Self {
        let _ = writeln!(self.last_source().lines, "{line}");
        self
    }

    fn last_source(&mut self) -> &mut SourceConfig {
        self.sources.last_mut().expect("there is a source")
    }

    /// Writes the only source as `[broker]`.
    pub fn of_before(mut self) -> Self {
        assert_eq!(self.sources.len(), 1);
        self.is_of_before = true;
        self
    }

    /// Adds a line to `[limits]`.
    pub fn limit(mut self, line: &str) -> Self {
        let _ = writeln!(self.limits, "{line}");
        self
    }

    /// Writes the configuration and a certificate.
    pub fn write(&self, world: &World) -> PathBuf {
        let Self {
            name,
            sources,
            is_of_before,
            aggregator,
            limits,
            authority,
        } = self;
        world.issue(authority, name);
        let mut config = format!("name = \"{name}\"\nstate = \"{name}.state\"\n");
        for SourceConfig { name, url, lines } in sources {
            if *is_of_before {
                config.push_str("[broker]\n");
            } else {
                let _ = writeln!(config, "[[source]]\ntype = \"mqtt\"\nname = \"{name}\"");
            }
            let _ = writeln!(config, "url = \"{url}\"\n{lines}");
        }
        let _ = write!(
            config,
            "[aggregator]\naddress = \"{aggregator}\"\n[tls]\nca = \"{authority}/ca.pem\"\n\
             certificate = \"{authority}/{name}.pem\"\nkey = \"{authority}/{name}.key\"\n[limits]\n{limits}"
        );
        world.write(&format!("{name}.toml"), config)
    }

    /// Starts the agent.
    pub fn start(&self, world: &World) -> Process {
        self.start_within(world, &[])
    }

    /// Starts the agent behind a command that runs it, such as `nsenter`.
    pub fn start_within(&self, world: &World, wrapper: &[String]) -> Process {
        let config = self.write(world);
        start(&self.name, world, &config, wrapper)
    }

    /// Where it keeps its state.
    pub fn state(&self, world: &World) -> PathBuf {
        world.path(&format!("{}.state", self.name))
    }

    /// Starts the agent and waits until it reads what the plan wants, of all of its sources.
    pub fn start_subscribed(&self, world: &World) -> Process {
        let mut process = self.start(world);
        if let [_] = self.sources[..] {
            process.wait_for("subscribed");
        } else {
            for source in &self.sources {
                wait_subscribed(&process, &source.name);
            }
        }
        process
    }
}

/// Waits until an agent reads what the plan wants of a source.
pub fn wait_subscribed(agent: &Process, source: &str) {
    until(&format!("source {source} to be subscribed"), || {
        let log = agent.log();
        let is_it = |line: &str| line.contains("subscribed") && line.contains(&format!("source={source}"));
        log.lines().any(is_it).then_some(())
    });
}

fn start(name: &str, world: &World, config: &Path, wrapper: &[String]) -> Process {
    let agent = binary("catchment-agent");
    let mut command = match wrapper.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(agent);
            command
        }
        None => Command::new(agent),
    };
    command
        .args(["run", "--config"])
        .arg(config)
        // Tests wait for the subscription, which is a detail to an operator.
        .env("CATCHMENT_LOG", "info,catchment_agent::io::mqtt=debug")
        .env("NO_COLOR", "1");
    Process::start(name, world.folder(), &mut command)
}
