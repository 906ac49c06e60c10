//! One test's world: a folder, an authority, and the plan most tests use.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::process::run_ok;

/// Queries over the simulated fleet's messages: tumbling and hopping, with and without the device, exact and rounded.
/// Short windows, watermark_delay and idleness let the last windows close soon after the last message.
pub const FLEET_PLAN: &str = r#"
[[query]]
name = "room_climate"
topic = "sensors/{site}/{device}/env"
time = { path = "ts", unit = "ms" }
key = ["site", "device"]
fields = { temp = "temp", hum = { path = "data.hum", resolution = 0.01 } }
window = { size = "2s" }
aggregates = ["count", "mean", "min", "max", "stddev", "first", "last"]
watermark_delay = "2s"
idle = "1s"
patience = "1s"

[[query]]
name = "site_climate"
topic = "sensors/{site}/{device}/env"
time = { path = "ts", unit = "ms" }
key = ["site"]
fields = { temp = "temp", hum = { path = "data.hum", resolution = 0.01 } }
window = { size = "6s", every = "2s" }
aggregates = ["count", "sum", "variance", "range", "delta", "rate"]
watermark_delay = "2s"
idle = "1s"
patience = "1s"
"#;

/// A folder with an authority in it. It is removed when dropped: declare it before the processes that use it.
#[derive(Debug)]
pub struct World {
    folder: TempDir,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A new folder, and certificates for the aggregator in it.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("catchment-").tempdir().unwrap();
        let world = Self { folder };
        world.make_authority("pki");
        world
    }

    /// Another authority, in a folder of its own.
    pub fn make_authority(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        run_ok(
            "catchment-aggregator",
            &["pki", "init", "--directory", text(&path)],
        );
        path
    }

    /// A certificate for an agent, made once; returns the files of certificate and key.
    pub fn issue(&self, authority: &str, agent: &str) -> (PathBuf, PathBuf) {
        let folder = self.path(authority);
        let file = |ending: &str| folder.join(format!("{agent}.{ending}"));
        let files = (file("pem"), file("key"));
        if !files.0.exists() {
            let arguments = ["pki", "issue", "--directory", text(&folder), "--agent", agent];
            run_ok("catchment-aggregator", &arguments);
        }
        files
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in the folder.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        path
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}
