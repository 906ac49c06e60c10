//! Brokers: a real Mosquitto with a configuration of its own, and the embedded one of the demo.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Process, binary, program};
use crate::wait::until;
use crate::world::{World, text};

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    address: SocketAddr,
    secure: Option<SocketAddr>,
    config: Option<PathBuf>,
}

/// What a Mosquitto offers besides its open listener: TLS with these files, and this user alone.
#[derive(Clone, Debug)]
pub struct Secured {
    /// The broker's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The one user.
    pub username: &'static str,
    /// The user's password.
    pub password: &'static str,
}

/// Attempts to find a free port: between asking for one and using it another process may take it.
const ATTEMPTS: usize = 10;

impl Broker {
    /// A Mosquitto with its defaults (20 messages in flight), except that it queues without bound for clients that are
    /// slow: what it drops is not the agent's loss.
    pub fn mosquitto(world: &World, name: &str) -> Self {
        Self::start(world, name, None, "persistence false\n")
    }

    /// The same with sessions and messages on disk, saved once a second: what Mosquitto acknowledged since, a kill
    /// makes it forget.
    pub fn persistent_mosquitto(world: &World, name: &str) -> Self {
        let folder = world.path(&format!("{name}.store"));
        std::fs::create_dir(&folder).unwrap();
        let lines = format!(
            "persistence true\npersistence_location {}/\nautosave_interval 1\n",
            folder.display()
        );
        Self::start(world, name, None, &lines)
    }

    /// The same with so many messages sent ahead of their acknowledgement.
    pub fn mosquitto_that_sends_ahead(world: &World, name: &str, messages: u16) -> Self {
        let lines = format!("persistence false\nmax_inflight_messages {messages}\n");
        Self::start(world, name, None, &lines)
    }

    /// Starts a Mosquitto again on its port, after it has ended.
    pub fn restart(&mut self, world: &World, name: &str) {
        assert!(!self.process.is_running(), "kill it first");
        let config = self.config.as_deref().expect("a Mosquitto");
        let mut process = start_mosquitto(world, name, config);
        assert!(is_up(&mut process, self.address), "{}", process.log());
        self.process = process;
    }

    /// The same with a second listener that wants TLS and a password.
    pub fn secured_mosquitto(world: &World, name: &str, secured: &Secured) -> Self {
        Self::start(world, name, Some(secured), "persistence false\n")
    }

    fn start(world: &World, name: &str, secured: Option<&Secured>, persistence: &str) -> Self {
        for _ in 0..ATTEMPTS {
            let (address, second) = (free_port(), secured.map(|_| free_port()));
            let mut config = format!(
                "per_listener_settings true\nuser root\n{persistence}max_queued_messages 0\nlog_dest stderr\n\
                 listener {} 127.0.0.1\nallow_anonymous true\n",
                address.port()
            );
            if let (Some(secured), Some(second)) = (secured, second) {
                let passwords = world.path(&format!("{name}.passwd"));
                let status = Command::new(program("mosquitto_passwd"))
                    .args(["-c", "-b", text(&passwords), secured.username, secured.password])
                    .status()
                    .unwrap();
                assert!(status.success());
                let _ = write!(
                    config,
                    "listener {} 127.0.0.1\nallow_anonymous false\npassword_file {}\ncertfile {}\nkeyfile {}\n",
                    second.port(),
                    passwords.display(),
                    secured.certificate.display(),
                    secured.key.display()
                );
            }
            let config = world.write(&format!("{name}.conf"), config);
            let mut process = start_mosquitto(world, name, &config);
            if is_up(&mut process, address) {
                return Self {
                    process,
                    address,
                    secure: second,
                    config: Some(config),
                };
            }
            let log = process.log();
            assert!(
                log.contains("Address already in use"),
                "Mosquitto does not start:\n{log}"
            );
        }
        panic!("no free port in {ATTEMPTS} attempts");
    }

    /// The embedded broker.
    pub fn embedded(world: &World, name: &str) -> Self {
        let mut command = Command::new(binary("catchment-fleet"));
        command.args(["broker", "--listen", "127.0.0.1:0"]);
        let mut process = Process::start(name, world.folder(), &mut command);
        let line = process.wait_for("listening on ");
        let address = line.rsplit(' ').next().unwrap().parse().unwrap();
        Self {
            process,
            address,
            secure: None,
            config: None,
        }
    }

    /// Where it listens without TLS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// That as clients write it.
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// The listener with TLS, by a name that is in its certificate.
    pub fn secure_url(&self) -> String {
        let address = self.secure.expect("a secured broker was started");
        format!("mqtts://localhost:{}", address.port())
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn start_mosquitto(world: &World, name: &str, config: &Path) -> Process {
    let mut command = Command::new(program("mosquitto"));
    Process::start(name, world.folder(), command.arg("-c").arg(config))
}

/// Waits until it listens, or has ended.
fn is_up(process: &mut Process, address: SocketAddr) -> bool {
    until("Mosquitto to listen", || {
        if !process.is_running() {
            return Some(false);
        }
        let log = process.log();
        (log.contains(" running") && TcpStream::connect(address).is_ok()).then_some(true)
    })
}

/// An address where nobody listens, for now.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
