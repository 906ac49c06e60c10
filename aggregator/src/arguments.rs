//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use catchment_aggregator::io::command::query::Selection;
use catchment_aggregator::io::command::show::OutputFormat;
use catchment_aggregator::io::config::Config;
use clap::{Args, Parser, Subcommand};

/// Merges partial aggregates by key, exactly, and serves windows as plain SQL tables.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the aggregator.
    Serve {
        /// The configuration file.
        #[arg(long, env = "CATCHMENT_AGGREGATOR_CONFIG")]
        config: PathBuf,
    },
    /// Check a plan or put it into force.
    Plan {
        #[command(subcommand)]
        command: PlanCommand,
    },
    /// Show rows of a query's result table.
    Query {
        /// The query's name.
        name: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        rows: Rows,
        /// How to show them.
        #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
        format: OutputFormat,
    },
    /// Show what a result row is made of: its panes, who shipped them, and when and why it was written.
    Explain {
        /// The query's name.
        query: String,
        /// The key's tags, such as site=berlin,device=dev-042.
        #[arg(long, default_value = "")]
        key: String,
        /// An instant that the row covers, such as 2026-11-23T08:00:00Z.
        #[arg(long)]
        at: String,
        #[command(flatten)]
        place: Place,
    },
    /// Show how agents and queries stand.
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Show agents: when each was heard, its plan, backlog, losses, and conflicts over its name.
    Agents {
        #[command(flatten)]
        place: Place,
        /// How to show them.
        #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
        format: OutputFormat,
    },
    /// Show what agents had to give up when an outage outlasted their disks.
    Losses {
        /// Only this agent's.
        #[arg(long)]
        agent: Option<String>,
        #[command(flatten)]
        place: Place,
        /// How to show them.
        #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
        format: OutputFormat,
    },
    /// Wait for an agent no longer: windows are final without it. Its next hello brings it back.
    Retire {
        /// The agent's name.
        agent: String,
        /// Also forget which of its batches have been taken: for an agent whose state directory is gone, or that has
        /// started too often to be remembered. What it still holds of them would count again.
        #[arg(long)]
        forget: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Set an agent's watermarks back, because its clock had been ahead: windows wait for it again.
    SetBack {
        /// The agent's name.
        agent: String,
        /// The instant (2026-11-28T10:00:00Z); without it, now.
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Copy the database to a file, also while it is served.
    Backup {
        /// The file to write.
        file: PathBuf,
        /// Replace the file if it is there.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Put a backup in the database's place. The server must be stopped; the former database is kept beside it.
    Restore {
        /// The backup.
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Follow the rows that commits write: cursors of the change feed.
    Changes {
        #[command(subcommand)]
        command: ChangesCommand,
    },
    /// Make certificates.
    Pki {
        #[command(subcommand)]
        command: PkiCommand,
    },
}

#[derive(Subcommand)]
pub(crate) enum PlanCommand {
    /// Check a plan file and show what it costs an agent; faults are shown with file, line and column.
    Check {
        /// The plan, in TOML.
        file: PathBuf,
        /// An agent's memory for open panes, its `limits.memory`.
        #[arg(long, default_value = "8MiB")]
        memory: ByteSize,
        /// Keys that must fit in it, at one agent.
        #[arg(long, default_value_t = 1)]
        keys: u64,
    },
    /// Check a plan file and put it into force. A running aggregator takes it up and tells its agents.
    Apply {
        /// The plan, in TOML.
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Subcommand)]
pub(crate) enum ChangesCommand {
    /// Show the cursors: how much waits for each, and how often its reader fell behind.
    List {
        #[command(flatten)]
        place: Place,
        /// How to show them.
        #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
        format: OutputFormat,
    },
    /// Make a cursor. From now on changes are kept for it.
    Open {
        /// Its name.
        cursor: String,
        #[command(flatten)]
        place: Place,
    },
    /// Show what comes next for a cursor, a line of JSON for each change, and advance it.
    Read {
        /// Its name.
        cursor: String,
        /// Most changes.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
        /// Do not advance it.
        #[arg(long)]
        look: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Drop a cursor. What it alone needed is kept no longer.
    Drop {
        /// Its name.
        cursor: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Subcommand)]
pub(crate) enum PkiCommand {
    /// Make an authority and the aggregator's certificate.
    Init {
        /// The folder to make them in.
        #[arg(long)]
        directory: PathBuf,
        /// Names that agents know the aggregator by.
        #[arg(long, default_value = "catchment-aggregator")]
        server_name: Vec<String>,
    },
    /// Make an agent's certificate.
    Issue {
        /// The folder of the authority.
        #[arg(long)]
        directory: PathBuf,
        /// The agent's name.
        #[arg(long)]
        agent: String,
        /// Where to put certificate and key; by default the authority's folder.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

/// Where the database is.
#[derive(Args)]
pub(crate) struct Place {
    /// The database file.
    #[arg(long, env = "CATCHMENT_DATABASE")]
    database: Option<PathBuf>,
    /// The aggregator's configuration, which names the database.
    #[arg(long, env = "CATCHMENT_AGGREGATOR_CONFIG", conflicts_with = "database")]
    config: Option<PathBuf>,
}

impl Place {
    pub(crate) fn database(self) -> Result<PathBuf> {
        match (self.database, self.config) {
            (Some(database), _) => Ok(database),
            (None, Some(config)) => Ok(Config::load(&config)?.database),
            (None, None) => anyhow::bail!("name the database with --database FILE or --config FILE"),
        }
    }
}

/// Which rows.
#[derive(Args)]
pub(crate) struct Rows {
    /// Windows that ended within this time, such as 10m.
    #[arg(long, value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Windows that start at or after this instant.
    #[arg(long)]
    from: Option<String>,
    /// Windows that start before this instant.
    #[arg(long)]
    to: Option<String>,
    /// A tag's value, such as site=berlin; may be given several times.
    #[arg(long = "where", value_name = "TAG=VALUE")]
    tags: Vec<String>,
    /// Most rows; the newest are shown.
    #[arg(long, default_value_t = 1_000)]
    limit: u32,
}

impl Rows {
    pub(crate) fn selection(self) -> Selection {
        let Self {
            since,
            from,
            to,
            tags,
            limit,
        } = self;
        Selection {
            since,
            from,
            to,
            tags,
            limit,
        }
    }
}
