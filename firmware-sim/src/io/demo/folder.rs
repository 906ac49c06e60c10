//! The demo's folder: configurations, certificates, logs, truth and database, removed at the end unless kept.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use super::DemoFault;
use crate::demo::SITES;

/// The queries that the demo runs; an example to read, too.
const PLAN: &str = include_str!("../../../../deploy/examples/demo.toml");
const AGENT: &str = "catchment-agent";
const AGGREGATOR: &str = "catchment-aggregator";

/// The folder and the programs.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Removes the folder when dropped.
    guard: Option<TempDir>,
    programs: PathBuf,
}

impl Folder {
    /// Makes a folder with certificates for the aggregator and each site's agent.
    pub(super) async fn make(programs: Option<PathBuf>, keep: bool) -> Result<Self, DemoFault> {
        let programs = match programs {
            Some(programs) => programs,
            None => std::env::current_exe()?
                .parent()
                .map(Path::to_path_buf)
                .unwrap_or_default(),
        };
        let guard = TempDir::with_prefix("catchment-demo-")?;
        let (path, guard) = if keep {
            (guard.keep(), None)
        } else {
            (guard.path().to_path_buf(), Some(guard))
        };
        let folder = Self {
            path,
            guard,
            programs,
        };
        std::fs::write(folder.file("plan.toml"), PLAN)?;
        let pki = folder.text("pki");
        folder.aggregate(&["pki", "init", "--directory", &pki]).await?;
        for site in SITES {
            folder
                .aggregate(&["pki", "issue", "--directory", &pki, "--agent", &agent_name(site)])
                .await?;
        }
        Ok(folder)
    }

    /// Runs the aggregator's program to its end.
    async fn aggregate(&self, arguments: &[&str]) -> Result<(), DemoFault> {
        let program = self.aggregator();
        let fault = |error| DemoFault::Start {
            program: program.clone(),
            error,
        };
        let output = Command::new(&program)
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(fault)?;
        if output.status.success() {
            return Ok(());
        }
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(DemoFault::Ended {
            name: "pki".into(),
            status: output.status,
            log,
        })
    }

    /// Writes the aggregator's configuration; port 0 takes a free port.
    pub(super) fn configure_aggregator(&self, listen: SocketAddr) -> Result<(), DemoFault> {
        let text = format!(
            "listen = \"{listen}\"\ndatabase = \"catchment.db\"\nplan = \"plan.toml\"\nheartbeat = \"1s\"\n\n\
             [tls]\npki = \"pki\"\n"
        );
        Ok(std::fs::write(self.file("aggregator.toml"), text)?)
    }

    /// Writes the configuration of a site's agent.
    pub(super) fn configure_agent(
        &self,
        site: &str,
        broker: &str,
        aggregator: &str,
    ) -> Result<(), DemoFault> {
        let name = agent_name(site);
        let text = format!(
            "name = \"{name}\"\nstate = \"{name}\"\n\n[[source]]\ntype = \"mqtt\"\nname = \"plant\"\nurl = \"{broker}\"\n\n[aggregator]\naddress = \
             \"{aggregator}\"\n\n[tls]\nca = \"pki/ca.pem\"\ncertificate = \"pki/{name}.pem\"\nkey = \
             \"pki/{name}.key\"\n"
        );
        Ok(std::fs::write(self.file(&format!("{name}.toml")), text)?)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it stays when the demo ends.
    pub(super) fn is_kept(&self) -> bool {
        self.guard.is_none()
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file in it, as an argument. The folder's own name is plain; a temporary directory whose name is no UTF-8 is
    /// refused by the programs with the name they got.
    pub(super) fn text(&self, name: &str) -> String {
        self.file(name).to_string_lossy().into_owned()
    }

    /// The agent's program.
    pub(super) fn agent(&self) -> PathBuf {
        self.programs.join(AGENT)
    }

    /// The aggregator's program.
    pub(super) fn aggregator(&self) -> PathBuf {
        self.programs.join(AGGREGATOR)
    }
}

/// The name of a site's agent.
pub(super) fn agent_name(site: &str) -> String {
    format!("gw-{site}")
}
