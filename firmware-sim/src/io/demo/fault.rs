//! Why a demo cannot go on.

use std::path::PathBuf;
use std::process::ExitStatus;

use crate::io::broker::BrokerFault;
use crate::io::check::CheckFault;
use crate::io::database::DatabaseFault;
use crate::io::run::RunFault;

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoFault {
    /// A program cannot be started.
    #[error("{} cannot be started: {error}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// A process cannot be waited for.
    #[error("{name} cannot be waited for: {error}")]
    Wait {
        /// The process.
        name: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// A process has ended when it should not, or badly.
    #[error("{name} has ended: {status}; the end of its log:\n  {log}")]
    Ended {
        /// The process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        log: String,
    },
    /// A process did not become ready.
    #[error("{name} is not ready after 20 s; the end of its log:\n  {log}")]
    Silent {
        /// The process.
        name: String,
        /// Its last lines.
        log: String,
    },
    /// A process did not end when it was asked to.
    #[error("{name} does not stop within 15 s; the end of its log:\n  {log}")]
    Stuck {
        /// The process.
        name: String,
        /// Its last lines.
        log: String,
    },
    /// A broker cannot run.
    #[error(transparent)]
    Broker(#[from] BrokerFault),
    /// The devices cannot publish.
    #[error(transparent)]
    Run(#[from] RunFault),
    /// The database cannot be read.
    #[error(transparent)]
    Database(#[from] DatabaseFault),
    /// The results cannot be checked.
    #[error(transparent)]
    Check(#[from] CheckFault),
    /// A task died.
    #[error("a task died: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// A file cannot be written or read.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// A signal, or a second Ctrl-C.
    #[error("interrupted; nothing is audited")]
    Interrupted,
}
