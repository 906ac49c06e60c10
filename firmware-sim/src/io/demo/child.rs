//! One process of the demo: its log in a file, stopped in order or killed, and never left behind.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child as Process, Command};
use tokio::time::{Instant, sleep, timeout};

use super::DemoFault;

/// How long a process may take to start, and to end when it is asked to.
const START_TIME_MAX: Duration = Duration::from_secs(20);
const STOP_TIME_MAX: Duration = Duration::from_secs(15);
const LOG_POLL: Duration = Duration::from_millis(20);
/// Last lines of a log that a fault shows.
const LOG_LINES_SHOWN: usize = 12;

/// A running process. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    log: PathBuf,
    /// Where this process's lines begin in the log, which may hold those of a process before it.
    log_from: usize,
    process: Process,
}

impl Child {
    /// Starts `program` with its log going to the end of `log`.
    pub(super) fn start(
        name: &str,
        program: &Path,
        arguments: &[&str],
        log: &Path,
    ) -> Result<Self, DemoFault> {
        let fault = |error| DemoFault::Start {
            program: program.into(),
            error,
        };
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(fault)?;
        let log_from = file.metadata().map_err(fault)?.len() as usize;
        let process = Command::new(program)
            .args(arguments)
            // The subscription's own log tells when readings can come.
            .env("CATCHMENT_LOG", "info,catchment_agent::io::mqtt=debug")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            // Ctrl-C in the terminal is for the demo, which ends the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(fault)?;
        Ok(Self {
            name: name.into(),
            log: log.into(),
            log_from,
            process,
        })
    }

    /// The rest of the first line on its standard output that begins with `prefix`. What comes after it is read and
    /// thrown away, so that the process never waits for a reader.
    pub(super) async fn announced(&mut self, prefix: &str) -> Result<String, DemoFault> {
        let Some(output) = self.process.stdout.take() else {
            return Err(self.silent());
        };
        let mut lines = BufReader::new(output).lines();
        let found = timeout(START_TIME_MAX, async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(rest) = line.strip_prefix(prefix) {
                    return Some(rest.to_string());
                }
            }
            None
        });
        let found = found.await.ok().flatten().ok_or_else(|| self.silent())?;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(found)
    }

    /// Waits until its log says `words`.
    pub(super) async fn logged(&mut self, words: &str) -> Result<(), DemoFault> {
        let until = Instant::now() + START_TIME_MAX;
        loop {
            let log = std::fs::read(&self.log).unwrap_or_default();
            if String::from_utf8_lossy(log.get(self.log_from..).unwrap_or_default()).contains(words) {
                return Ok(());
            }
            self.check()?;
            if Instant::now() > until {
                return Err(self.silent());
            }
            sleep(LOG_POLL).await;
        }
    }

    /// A fault if it has ended on its own.
    pub(super) fn check(&mut self) -> Result<(), DemoFault> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(error) => Err(DemoFault::Wait {
                name: self.name.clone(),
                error,
            }),
        }
    }

    /// Kills it, as a power cut would.
    pub(super) async fn kill(mut self) -> Result<(), DemoFault> {
        self.process.kill().await.map_err(|error| DemoFault::Wait {
            name: self.name.clone(),
            error,
        })
    }

    /// Asks it to end and waits until it has.
    pub(super) async fn stop(mut self) -> Result<(), DemoFault> {
        if let Some(id) = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It is gone only when it has ended by itself, which the status will tell.
            let _ = kill_process(id, Signal::TERM);
        }
        match timeout(STOP_TIME_MAX, self.process.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.ended(status)),
            Ok(Err(error)) => Err(DemoFault::Wait {
                name: self.name.clone(),
                error,
            }),
            Err(_) => Err(DemoFault::Stuck {
                name: self.name.clone(),
                log: self.log_end(),
            }),
        }
    }

    fn ended(&self, status: ExitStatus) -> DemoFault {
        DemoFault::Ended {
            name: self.name.clone(),
            status,
            log: self.log_end(),
        }
    }

    fn silent(&self) -> DemoFault {
        DemoFault::Silent {
            name: self.name.clone(),
            log: self.log_end(),
        }
    }

    fn log_end(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n  ")
    }
}
