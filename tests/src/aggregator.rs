//! The aggregator: its configuration, process and database.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::{Connection, OpenFlags};

use crate::process::{Process, binary};
use crate::wait::until;
use crate::world::World;

/// A running aggregator.
#[derive(Debug)]
pub struct Aggregator {
    process: Process,
    address: SocketAddr,
    database: PathBuf,
}

impl Aggregator {
    /// Starts an aggregator with this plan on a free port.
    pub fn start(world: &World, plan: &str) -> Self {
        world.write("plan.toml", plan);
        let database = world.path("catchment.db");
        let (process, address) = serve(world, "127.0.0.1:0".parse().unwrap());
        Self {
            process,
            address,
            database,
        }
    }

    /// Starts it again on the same port, after it has ended.
    pub fn restart(&mut self, world: &World) {
        assert!(!self.process.is_running(), "stop or kill it first");
        let (process, address) = serve(world, self.address);
        assert_eq!(address, self.address);
        self.process = process;
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Where it listens (UDP).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its database file.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// A connection that reads the database as `sqlite3` would.
    pub fn sql(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(&self.database, flags).unwrap()
    }

    /// The sum of a counter over all agents, epochs and pipelines.
    pub fn counter(&self, name: &str) -> u64 {
        let sum = "SELECT coalesce(sum(value), 0) FROM catchment_counter WHERE name = ?1";
        let sum: i64 = self.sql().query_row(sum, [name], |row| row.get(0)).unwrap();
        sum.unsigned_abs()
    }

    /// Every agent's counters, a line each: what a failed test shows.
    pub fn account(&self) -> String {
        let sql = self.sql();
        let sum =
            "SELECT agent, name, sum(value) FROM catchment_counter GROUP BY agent, name ORDER BY agent, name";
        let mut statement = sql.prepare(sum).unwrap();
        let line = |row: &rusqlite::Row<'_>| {
            let (agent, name): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(format!("{agent} {name} {}", row.get::<_, i64>(2)?))
        };
        let lines: Result<Vec<String>, _> = statement.query_map([], line).unwrap().collect();
        lines.unwrap().join("\n")
    }

    /// Waits until a counter has this value; a larger one is a failure.
    pub fn wait_for_counter(&self, name: &str, expected: u64) {
        until(
            &format!("{name} to be {expected} (it is {})", self.counter(name)),
            || {
                let value = self.counter(name);
                assert!(value <= expected, "{name} is {value}, more than {expected}");
                (value == expected).then_some(())
            },
        );
    }
}

fn serve(world: &World, listen: SocketAddr) -> (Process, SocketAddr) {
    // Frequent heartbeats: tests read counters.
    let config = format!(
        "listen = \"{listen}\"\ndatabase = \"catchment.db\"\nplan = \"plan.toml\"\nheartbeat = \"200ms\"\n\
         [tls]\npki = \"pki\"\n"
    );
    let config = world.write("aggregator.toml", config);
    let mut command = Command::new(binary("catchment-aggregator"));
    command.args(["serve", "--config"]).arg(config);
    let mut process = Process::start("aggregator", world.folder(), &mut command);
    let line = process.wait_for("listening on ");
    let address = line.rsplit(' ').next().unwrap().parse().unwrap();
    (process, address)
}
