//! `catchment-agent`: one gateway's agent.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use catchment_agent::io::config::Config;
use catchment_agent::io::run;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Catches sensor streams at the edge, summarises them in bounded memory and ships mergeable partial aggregates.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent.
    Run {
        /// The configuration file.
        #[arg(long, env = "CATCHMENT_AGENT_CONFIG")]
        config: PathBuf,
    },
    /// Check a configuration and print what would be in force.
    Check {
        /// The configuration file.
        #[arg(long, env = "CATCHMENT_AGENT_CONFIG")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("CATCHMENT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match execute(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("catchment-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Run { config } => {
            let config = Config::load(&config)?;
            // One thread does it all: a gateway's agent is idle nearly always, and every hand-over is a wake-up.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .context("cannot start the runtime")?
                .block_on(run::run(config))
        }
        Command::Check { config } => {
            print!("{}", Config::load(&config)?.describe());
            Ok(())
        }
    }
}
