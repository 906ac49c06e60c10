//! A disk of a few megabytes: a tmpfs in a mount namespace of the test's own, so that it can run full, become read-only
//! and be gone with the test. Needs root, or a system that lets users make namespaces.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::Process;
use crate::wait::until;
use crate::world::World;

/// A mounted disk. It is gone when it is dropped; drop the processes on it first.
#[derive(Debug)]
pub struct SmallDisk {
    /// Keeps the namespace alive.
    holder: Process,
    path: PathBuf,
    is_root: bool,
}

/// Bytes of one write of ballast.
const BALLAST_BYTES: usize = 4_096;

impl SmallDisk {
    /// A disk of so many mebibytes at `path`, or nothing, with a note, where that is not allowed.
    pub fn mount(world: &World, path: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={mebibytes}m tmpfs '{}' && echo mounted && exec sleep 100000",
            path.display()
        );
        for is_root in [true, false] {
            let mut command = Command::new("unshare");
            if !is_root {
                command.args(["--user", "--map-root-user"]);
            }
            command.args(["--mount", "sh", "-c", &script]);
            let mut holder = Process::start("disk", world.folder(), &mut command);
            let is_mounted = until("the disk to be mounted", || {
                let is_mounted = holder.log().contains("mounted\n");
                (is_mounted || !holder.is_running()).then_some(is_mounted)
            });
            if is_mounted {
                return Some(Self {
                    holder,
                    path: path.to_owned(),
                    is_root,
                });
            }
        }
        println!("skipped: neither root nor allowed to make namespaces, so there is no small disk");
        None
    }

    /// The command that runs a program where the disk is.
    pub fn wrapper(&self) -> Vec<String> {
        let pid = self.holder.id().to_string();
        let words: &[&str] = if self.is_root {
            &["nsenter", "--target", &pid, "--mount", "--"]
        } else {
            &[
                "nsenter",
                "--target",
                &pid,
                "--user",
                "--preserve-credentials",
                "--mount",
                "--",
            ]
        };
        words.iter().map(ToString::to_string).collect()
    }

    /// The disk's folder, as seen from outside.
    pub fn path(&self) -> PathBuf {
        let inside = self.path.strip_prefix("/").expect("an absolute path");
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    /// Leaves no room at all.
    pub fn fill(&self) {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.path().join("ballast"))
            .unwrap();
        let full = loop {
            if let Err(error) = ballast.write_all(&[0; BALLAST_BYTES]) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    /// Takes the ballast away.
    pub fn free(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }

    /// Lets nobody write to it, or everybody again. No file on it may be open for writing.
    pub fn set_read_only(&self, is_read_only: bool) {
        let mode = if is_read_only { "remount,ro" } else { "remount,rw" };
        let wrapper = self.wrapper();
        let output = Command::new(&wrapper[0])
            .args(&wrapper[1..])
            .args(["mount", "-o", mode])
            .arg(&self.path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
