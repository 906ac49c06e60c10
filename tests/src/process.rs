//! Child processes: our binaries and Mosquitto.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use crate::wait::until;

/// Lines of a log that are shown when a test fails.
const LINES_SHOWN: usize = 60;

/// One of our binaries, built beside the tests.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/debug/deps/test-1234 → target/debug
    let folder = test.ancestors().nth(2).expect("tests are built in deps/");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{name} is not built; run ./tests/run, or `cargo build --workspace --bins` first"
    );
    path
}

/// A program outside the workspace, looked for where Debian keeps daemons too.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed; ./tests/run installs what the tests need"))
}

/// Runs one of our binaries to its end.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(binary(name))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Both outputs as text.
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs one of our binaries, which must succeed; returns its standard output.
pub fn run_ok(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert!(
        output.status.success(),
        "{name} {arguments:?} failed:\n{}",
        text(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A running child. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    /// Where this life of the process begins in the log: a name may be started again.
    log_start: usize,
    child: Child,
}

impl Process {
    /// Starts a program whose outputs both go to `NAME.log` in `folder`.
    pub fn start(name: &str, folder: &Path, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let log_start = fs::metadata(&log).map_or(0, |data| data.len() as usize);
        let out = File::options().create(true).append(true).open(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Self {
            name: name.into(),
            log,
            log_start,
            child,
        }
    }

    /// What it has written in this life.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[self.log_start.min(bytes.len())..]).into_owned()
    }

    /// Waits until it has written a line with `text`; returns the line.
    pub fn wait_for(&mut self, text: &str) -> String {
        let what = format!("{} to say `{text}`", self.name);
        until(&what, || {
            let running = self.is_running();
            let log = self.log();
            let line = log.lines().find(|line| line.contains(text)).map(String::from);
            assert!(
                line.is_some() || running,
                "{} ended without saying `{text}`",
                self.name
            );
            line
        })
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("{} to end", self.name);
        until(&what, || self.child.try_wait().unwrap())
    }

    /// Asks it to stop, as a service manager does, and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Kills it: no goodbye, as in a power cut.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Most resident memory that it has ever had, in bytes.
    pub fn peak_memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim_end_matches("kB").trim().parse::<usize>().unwrap() << 10
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {}", self.child.id())])
            .status()
            .unwrap();
        assert!(status.success(), "{} is gone", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            eprintln!(
                "--- {} (last {} lines)\n{}\n---",
                self.name,
                shown.len(),
                shown.join("\n")
            );
        }
    }
}
