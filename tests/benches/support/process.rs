//! Real processes: the two binaries in a folder of their own, and what the kernel says of them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use catchment_aggregator::io::pki;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

/// How long anything may take before a bench gives up.
pub const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(5);

/// Builds the binaries as they are shipped and returns their folder.
pub fn binaries() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--quiet",
            "-p",
            "catchment-agent",
            "-p",
            "catchment-aggregator",
        ])
        .status()
        .context("cannot run cargo")?;
    anyhow::ensure!(built.success(), "the binaries do not build");
    // This bench is at <target>/release/deps/<name>.
    let own = std::env::current_exe()?;
    let folder = own
        .ancestors()
        .nth(2)
        .context("a bench lives under target/release/deps")?;
    Ok(folder.to_owned())
}

/// A process that ends with the bench.
pub struct Process {
    child: Child,
    name: &'static str,
}

impl Process {
    /// Starts a command; its log goes to `log`.
    pub fn spawn(name: &'static str, command: &mut Command, log: &Path) -> Result<Self> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(log)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name })
    }

    /// The first line that it prints.
    pub fn first_line(&mut self) -> Result<String> {
        let mut line = String::new();
        let output = self.child.stdout.take().context("printed already")?;
        BufReader::new(output).read_line(&mut line)?;
        anyhow::ensure!(
            !line.is_empty(),
            "{} ended without a word; see its log",
            self.name
        );
        Ok(line)
    }

    /// User and system CPU time so far.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The command's name may hold spaces; it ends with the last parenthesis.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |index: usize| {
            fields
                .get(index)
                .and_then(|text| text.parse::<u64>().ok())
                .context("stat")
        };
        let seconds = (ticks(11)? + ticks(12)?) as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok(Duration::from_secs_f64(seconds))
    }

    /// Resident memory now and at its peak, in KiB.
    pub fn rss(&self) -> Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let value = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
                .context("status")
        };
        Ok((value("VmRSS:")?, value("VmHWM:")?))
    }
}

impl Process {
    /// Ends it as power loss would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One aggregator with its folder, to which agents can be added.
pub struct Site {
    folder: TempDir,
    binaries: PathBuf,
    /// Where the aggregator listens.
    pub address: SocketAddr,
    /// The aggregator.
    pub aggregator: Process,
}

impl Site {
    /// Starts an aggregator with this plan.
    pub fn start(plan: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        pki::init(&folder.path().join("pki"), &["catchment-aggregator".into()])?;
        std::fs::write(folder.path().join("plan.toml"), plan)?;
        std::fs::write(
            folder.path().join("aggregator.toml"),
            "listen = \"127.0.0.1:0\"\nplan = \"plan.toml\"\nheartbeat = \"1s\"\n[tls]\npki = \"pki\"\n",
        )?;
        let binaries = binaries()?;
        let (aggregator, address) = serve(&binaries, folder.path())?;
        Ok(Self {
            folder,
            binaries,
            address,
            aggregator,
        })
    }

    /// Kills the aggregator.
    pub fn stop_aggregator(&mut self) {
        self.aggregator.kill();
    }

    /// Starts the aggregator again, where it listened before.
    pub fn start_aggregator(&mut self) -> Result<()> {
        let config = self.folder().join("aggregator.toml");
        let text = std::fs::read_to_string(&config)?;
        std::fs::write(&config, text.replace("127.0.0.1:0", &self.address.to_string()))?;
        (self.aggregator, self.address) = serve(&self.binaries, self.folder.path())?;
        Ok(())
    }

    /// The folder of configuration, database and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a certificate for an agent; returns the files of authority, certificate and key.
    pub fn identity(&self, name: &str) -> Result<[PathBuf; 3]> {
        let pki = self.folder().join("pki");
        pki::issue(&pki, name, &pki)?;
        Ok([
            pki.join("ca.pem"),
            pki.join(format!("{name}.pem")),
            pki.join(format!("{name}.key")),
        ])
    }

    /// Starts an agent that reads from a broker at QoS 0. `limits` is the TOML of that table.
    pub fn agent(&self, broker: SocketAddr, limits: &str) -> Result<Process> {
        self.agent_at(broker, 0, &format!("[limits]\n{limits}\n"))
    }

    /// Starts an agent that reads from a broker at this quality of service. `tables` is more TOML.
    pub fn agent_at(&self, broker: SocketAddr, qos: u8, tables: &str) -> Result<Process> {
        if !self.folder().join("pki/gw-1.pem").exists() {
            self.identity("gw-1")?;
        }
        let config = format!(
            "name = \"gw-1\"\nstate = \"state\"\n[[source]]\ntype = \"mqtt\"\nname = \"plant\"\nurl = \"mqtt://{broker}\"\nqos = {qos}\n[aggregator]\n\
             address = \"{}\"\n[tls]\nca = \"pki/ca.pem\"\ncertificate = \"pki/gw-1.pem\"\nkey = \"pki/gw-1.key\"\n\
             {tables}",
            self.address
        );
        let file = self.folder().join("agent.toml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(self.binaries.join("catchment-agent"));
        command.args(["run", "--config"]).arg(file);
        Process::spawn("the agent", &mut command, &self.folder().join("agent.log"))
    }

    /// The database, for reading.
    pub fn database(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Ok(Connection::open_with_flags(
            self.folder().join("catchment.db"),
            flags,
        )?)
    }

    /// A counter that the agents have reported, summed over pipelines.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let sum = "SELECT coalesce(sum(value), 0) FROM catchment_counter WHERE name = ?1";
        let value: i64 = self.database()?.query_row(sum, [name], |row| row.get(0))?;
        Ok(value.cast_unsigned())
    }

    /// Waits until a counter has reached a value.
    pub fn wait_for(&self, name: &str, value: u64) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.counter(name)? < value {
            if Instant::now() > until {
                let log = std::fs::read_to_string(self.folder().join("agent.log")).unwrap_or_default();
                bail!(
                    "{name} stays at {} of {value}; the agent said:\n{log}",
                    self.counter(name)?
                );
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Starts an aggregator in a folder that has its configuration; returns where it listens once it does.
pub fn serve(binaries: &Path, folder: &Path) -> Result<(Process, SocketAddr)> {
    let mut command = Command::new(binaries.join("catchment-aggregator"));
    command
        .args(["serve", "--config"])
        .arg(folder.join("aggregator.toml"));
    let mut process = Process::spawn("the aggregator", &mut command, &folder.join("aggregator.log"))?;
    let line = process.first_line()?;
    let address = line.rsplit(' ').next().unwrap_or_default().trim().parse();
    Ok((
        process,
        address.with_context(|| format!("not an address: {line}"))?,
    ))
}
