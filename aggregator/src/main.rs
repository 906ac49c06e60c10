//! `catchment-aggregator`: the centre.

mod arguments;

use std::io::stdout;
use std::process::ExitCode;

use anyhow::{Context, Result};
use catchment_aggregator::io::clock::Clock;
use catchment_aggregator::io::command::{agents, changes, explain, plan, query, status};
use catchment_aggregator::io::config::Config;
use catchment_aggregator::io::store::backup;
use catchment_aggregator::io::store::sqlite::Sqlite;
use catchment_aggregator::io::{pki, run};
use catchment_aggregator::plan_file;
use catchment_aggregator::plan_toml;
use catchment_aggregator::plan_toml::Budget;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use self::arguments::{Arguments, ChangesCommand, Command, PkiCommand, PlanCommand};

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("CATCHMENT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match execute(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<()> {
    let clock = Clock::start();
    match command {
        Command::Serve { config } => {
            let config = Config::load(&config)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build();
            runtime
                .context("cannot start the runtime")?
                .block_on(run::serve(config))
        }
        Command::Plan { command } => change_plan(command, &clock),
        Command::Query {
            name,
            place,
            rows,
            format,
        } => query::query(
            &place.database()?,
            &name,
            &rows.selection(),
            format,
            clock.now(),
            &mut stdout(),
        ),
        Command::Explain {
            query,
            key,
            at,
            place,
        } => explain::explain(&place.database()?, &query, &key, &at, &mut stdout()),
        Command::Status { place } => status::status(&place.database()?, clock.now(), &mut stdout()),
        Command::Agents { place, format } => {
            agents::agents(&place.database()?, clock.now(), format, &mut stdout())
        }
        Command::Losses { agent, place, format } => {
            agents::losses(&place.database()?, agent.as_deref(), format, &mut stdout())
        }
        Command::Retire { agent, forget, place } => {
            agents::retire(&place.database()?, &agent, forget)?;
            println!("{agent} is retired until its next hello");
            if forget {
                println!(
                    "which of its batches have been taken is forgotten (by a running server within seconds); what it still \
                     holds of them would count again"
                );
            }
            Ok(())
        }
        Command::SetBack { agent, to, place } => {
            let to = agents::set_back(&place.database()?, &agent, to.as_deref(), clock.now())?;
            println!("the watermarks of {agent} are no later than {to}");
            Ok(())
        }
        Command::Backup { file, force, place } => {
            backup::backup(&place.database()?, &file, force)?;
            println!("the backup is in {}", file.display());
            Ok(())
        }
        Command::Restore { file, place } => {
            let database = place.database()?;
            let replaced = backup::restore(&database, &file, clock.now().wall)?;
            println!("{} is restored from {}", database.display(), file.display());
            if let Some(replaced) = replaced {
                println!("the former database is now {}", replaced.display());
            }
            println!("agents send again what it lacks, as far as they retain it");
            Ok(())
        }
        Command::Changes { command } => follow_changes(command),
        Command::Pki {
            command: PkiCommand::Init {
                directory,
                server_name,
            },
        } => {
            pki::init(&directory, &server_name)?;
            println!(
                "authority and server certificate are in {}; keep ca.key secret",
                directory.display()
            );
            Ok(())
        }
        Command::Pki {
            command:
                PkiCommand::Issue {
                    directory,
                    agent,
                    out,
                },
        } => {
            let out = out.unwrap_or_else(|| directory.clone());
            pki::issue(&directory, &agent, &out)?;
            println!("certificate and key of {agent} are in {}", out.display());
            Ok(())
        }
    }
}

fn follow_changes(command: ChangesCommand) -> Result<()> {
    match command {
        ChangesCommand::List { place, format } => changes::list(&place.database()?, format, &mut stdout()),
        ChangesCommand::Open { cursor, place } => {
            changes::open(&place.database()?, &cursor)?;
            println!("changes are kept for {cursor}; its reader begins with the tables");
            Ok(())
        }
        ChangesCommand::Read {
            cursor,
            limit,
            look,
            place,
        } => changes::read(&place.database()?, &cursor, limit, look, &mut stdout()),
        ChangesCommand::Drop { cursor, place } => {
            changes::drop(&place.database()?, &cursor)?;
            println!("{cursor} is dropped");
            Ok(())
        }
    }
}

fn change_plan(command: PlanCommand, clock: &Clock) -> Result<()> {
    match command {
        PlanCommand::Check { file, memory, keys } => {
            let budget = Budget {
                memory_bytes: memory.as_u64(),
                keys,
            };
            plan::check_plan(&file, budget, &mut stdout())
        }
        PlanCommand::Apply { file, place } => {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("{}: cannot read the plan", file.display()))?;
            let name = file.display().to_string();
            for warning in plan_toml::parse_within(&text, &name, None)?.1 {
                eprintln!("warning: {warning}");
            }
            let mut store = Sqlite::open(&place.database()?)?;
            let (applied, configured) =
                plan_file::by_command(&mut store, &run::place_of(&file), &text, clock.now().wall)?;
            let version = applied.version;
            if applied.is_new {
                println!("plan version {version} is in force");
            } else {
                println!(
                    "plan version {version} is in force already, and has this text: nothing has changed"
                );
            }
            if let Some(configured) = configured {
                println!(
                    "note: the server's configuration names {configured}; it takes this plan's place when it is edited and \
                     the server starts again"
                );
            }
            Ok(())
        }
    }
}
