//! Agents: a configuration, a certificate and a process.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::aggregator::Aggregator;
use crate::process::{Process, binary};
use crate::world::World;

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Its name.
    pub name: String,
    /// The broker's URL.
    pub broker: String,
    /// The aggregator's `host:port`.
    pub aggregator: String,
    /// Further lines of `[broker]`.
    pub broker_lines: String,
    /// Lines of `[limits]`.
    pub limits: String,
    /// The folder of the authority that it trusts and has its certificate from.
    pub authority: String,
}

impl AgentConfig {
    /// The smallest configuration.
    pub fn new(name: &str, broker: &str, aggregator: &Aggregator) -> Self {
        Self {
            name: name.into(),
            broker: broker.into(),
            aggregator: aggregator.address().to_string(),
            broker_lines: String::new(),
            limits: String::new(),
            authority: "pki".into(),
        }
    }

    /// Adds a line to `[broker]`.
    pub fn broker_line(mut self, line: &str) -> Self {
        let _ = writeln!(self.broker_lines, "{line}");
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
            broker,
            aggregator,
            broker_lines,
            limits,
            authority,
        } = self;
        world.issue(authority, name);
        let config = format!(
            "name = \"{name}\"\nstate = \"{name}.state\"\n[broker]\nurl = \"{broker}\"\n{broker_lines}[aggregator]\n\
             address = \"{aggregator}\"\n[tls]\nca = \"{authority}/ca.pem\"\ncertificate = \"{authority}/{name}.pem\"\n\
             key = \"{authority}/{name}.key\"\n[limits]\n{limits}"
        );
        world.write(&format!("{name}.toml"), config)
    }

    /// Starts the agent.
    pub fn start(&self, world: &World) -> Process {
        let config = self.write(world);
        start(&self.name, world, &config)
    }

    /// Starts the agent and waits until it reads what the plan wants.
    pub fn start_subscribed(&self, world: &World) -> Process {
        let mut process = self.start(world);
        process.wait_for("subscribed");
        process
    }
}

fn start(name: &str, world: &World, config: &Path) -> Process {
    let mut command = Command::new(binary("catchment-agent"));
    command
        .args(["run", "--config"])
        .arg(config)
        // Tests wait for the subscription, which is a detail to an operator.
        .env("CATCHMENT_LOG", "info,catchment_agent::io::mqtt=debug");
    Process::start(name, world.folder(), &mut command)
}
