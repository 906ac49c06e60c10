//! `catchment-fleet`: devices, their broker, and the oracle.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use catchment_firmware_sim::args::{Arguments, Command};
use catchment_firmware_sim::io::broker::Broker;
use catchment_firmware_sim::io::check::{self, Verdict};
use catchment_firmware_sim::io::run::{self, Progress};
use catchment_firmware_sim::io::{demo, replay};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("CATCHMENT_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    match execute(Arguments::parse().command) {
        Ok(Verdict::Right) => ExitCode::SUCCESS,
        Ok(Verdict::Wrong) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("catchment-fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<Verdict> {
    match command {
        Command::Verify(files) => Ok(check::verify(&files.truth, &files.db, &mut io::stdout().lock())?),
        Command::Audit(files) => Ok(check::audit(&files.truth, &files.db, &mut io::stdout().lock())?),
        other => {
            let runtime = tokio::runtime::Runtime::new().context("the runtime cannot start")?;
            runtime.block_on(publish(other))
        }
    }
}

async fn publish(command: Command) -> Result<Verdict> {
    let progress = Arc::new(Progress::default());
    match command {
        Command::Broker { listen } => {
            let broker = Broker::start(listen).await?;
            println!("listening on {}", broker.local_addr());
            io::stdout().flush()?;
            tokio::signal::ctrl_c().await?;
            broker.shutdown().await;
        }
        Command::Run(arguments) => {
            stop_on_ctrl_c(&progress);
            let settings = arguments.settings(run::now_us());
            run::run(settings, &arguments.options(), &progress).await?;
            println!("{progress}");
        }
        Command::Replay(arguments) => {
            stop_on_ctrl_c(&progress);
            replay::replay(&(*arguments).into(), &progress).await?;
            println!("{progress}");
        }
        Command::Demo(arguments) => return Ok(demo::demo(arguments.into(), &progress).await?),
        Command::Verify(_) | Command::Audit(_) => unreachable!("executed without a runtime"),
    }
    Ok(Verdict::Right)
}

/// The first Ctrl-C ends the run in order: what is in flight is waited for and the truth is written.
fn stop_on_ctrl_c(progress: &Arc<Progress>) {
    let progress = Arc::clone(progress);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            progress.stop();
        }
    });
}
