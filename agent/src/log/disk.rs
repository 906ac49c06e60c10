//! The seam to the disk: what the machine asks for, in values, and what it can read.
//!
//! Writing is slow because it ends with a sync, so it is handed out as a [`Job`] and reported back later; one job is
//! under way at a time. Reading is quick (the page cache has what was just written) and is a call on [`Disk`]. Every
//! step may be repeated: a write names its offset, so a job that failed half-way is tried again as it stands.
//!
//! Three things implement the seam: files, memory for agents that keep nothing, and a simulated disk in the tests that
//! forgets what was not synced, tears the last write and fills up.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A file of the agent's state. Numbers count up; files of one kind are read in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum File {
    /// A segment of the journal.
    Journal(u32),
    /// A segment of the spool.
    Spool(u32),
}

impl File {
    /// Its name in the state directory.
    pub fn name(self) -> String {
        match self {
            Self::Journal(number) => format!("journal-{number:010}.log"),
            Self::Spool(number) => format!("spool-{number:010}.log"),
        }
    }

    /// The file of this name, if it is one of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".log")?;
        let number = |digits: &str| {
            let is_number = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse().ok()).flatten()
        };
        match stem.split_once('-')? {
            ("journal", digits) => number(digits).map(Self::Journal),
            ("spool", digits) => number(digits).map(Self::Spool),
            _ => None,
        }
    }
}

/// One step of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Writes at an offset, in a file that is made if need be.
    Write {
        /// Where.
        file: File,
        /// From which byte on.
        at: u64,
        /// What.
        bytes: Bytes,
    },
    /// Cuts a file off at this length.
    Truncate {
        /// Which.
        file: File,
        /// Its new length in bytes.
        length: u64,
    },
    /// Makes the file's bytes, and that it exists, survive a power failure.
    Sync(File),
    /// Removes a file; one that is not there is removed already.
    Remove(File),
    /// Puts a file out of the way, where it can be looked at: something in it is whole and not understood. One that is
    /// not there is out of the way already.
    SetAside(File),
}

impl Step {
    /// Bytes that it writes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Write { bytes, .. } => bytes.len() as u64,
            Self::Truncate { .. } | Self::Sync(_) | Self::Remove(_) | Self::SetAside(_) => 0,
        }
    }
}

/// Steps to take in order. The job is done when all are; it fails with the first that does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// Counts up by one.
    pub id: u64,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Job {
    /// Bytes that the job writes.
    pub fn bytes(&self) -> u64 {
        self.steps.iter().map(Step::bytes).sum()
    }
}

/// Why the disk did not do as asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskFault {
    /// No space is left, or a quota is used up.
    #[error("no space is left")]
    Full,
    /// The file is not there, or is shorter than it was.
    #[error("the file is not there, or is shorter than it was")]
    Missing,
    /// Newer software wrote it.
    #[error(
        "{file} was written by newer software (version {version}): run that, or move the state directory away; nothing \
         was changed"
    )]
    Newer {
        /// The file's name.
        file: String,
        /// Its version.
        version: u8,
    },
    /// Anything else, in the system's words.
    #[error("{0}")]
    Other(String),
}

/// What can be read.
pub trait Disk {
    /// All files of the agent's state with their lengths in bytes, in order.
    fn list(&self) -> Result<Vec<(File, u64)>, DiskFault>;

    /// Exactly `length` bytes from `at` on.
    fn read(&self, file: File, at: u64, length: usize) -> Result<Bytes, DiskFault>;
}

/// A disk in memory: for agents that are told to keep nothing, and for tests. It forgets everything at its end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemoryDisk {
    files: BTreeMap<File, Vec<u8>>,
}

impl MemoryDisk {
    /// Takes all steps of a job.
    pub fn execute(&mut self, job: &Job) {
        for step in &job.steps {
            self.take(step);
        }
    }

    /// Takes one step.
    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Write { file, at, bytes } => {
                let held = self.files.entry(*file).or_default();
                let end = *at as usize + bytes.len();
                if held.len() < end {
                    held.resize(end, 0);
                }
                held[*at as usize..end].copy_from_slice(bytes);
            }
            Step::Truncate { file, length } => {
                if let Some(held) = self.files.get_mut(file) {
                    held.truncate(*length as usize);
                }
            }
            Step::Sync(_) => {}
            Step::Remove(file) | Step::SetAside(file) => {
                self.files.remove(file);
            }
        }
    }

    /// The bytes of a file, for tests that damage them.
    pub fn file_mut(&mut self, file: File) -> Option<&mut Vec<u8>> {
        self.files.get_mut(&file)
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> Result<Vec<(File, u64)>, DiskFault> {
        let entry = |(&file, bytes): (&File, &Vec<u8>)| (file, bytes.len() as u64);
        Ok(self.files.iter().map(entry).collect())
    }

    fn read(&self, file: File, at: u64, length: usize) -> Result<Bytes, DiskFault> {
        let held = self.files.get(&file).ok_or(DiskFault::Missing)?;
        let range = at as usize..(at as usize).saturating_add(length);
        let bytes = held.get(range).ok_or(DiskFault::Missing)?;
        Ok(Bytes::copy_from_slice(bytes))
    }
}

/// How a file's records are framed: length and CRC-32C of the body, each 4 bytes little-endian, then the body.
pub mod frame {
    use catchment_common::wire::checksum;

    /// Bytes before each body.
    pub const HEAD: usize = 8;

    /// Begins a frame at the end of `out`; returns where, for [`end`].
    pub fn begin(out: &mut Vec<u8>) -> usize {
        out.extend_from_slice(&[0; HEAD]);
        out.len()
    }

    /// Ends the frame whose body began at `start`.
    pub fn end(out: &mut [u8], start: usize) {
        let body = &out[start..];
        let (length, crc) = (body.len() as u32, checksum(body));
        out[start - HEAD..start - HEAD + 4].copy_from_slice(&length.to_le_bytes());
        out[start - HEAD + 4..start].copy_from_slice(&crc.to_le_bytes());
    }

    /// The body of the frame at the start of `bytes`, or `None` when it is torn, damaged or not there.
    pub fn body(bytes: &[u8]) -> Option<&[u8]> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let body = rest.get(..u32::from_le_bytes(*length) as usize)?;
        // A run of zeros, as a file system may leave it, is no frame.
        (!body.is_empty() && checksum(body) == u32::from_le_bytes(*crc)).then_some(body)
    }

    /// What follows the frame at the start of `bytes`, whole or not, by its length; nothing if it says none.
    pub fn skip(bytes: &[u8]) -> &[u8] {
        let length = bytes
            .first_chunk::<4>()
            .map_or(0, |length| u32::from_le_bytes(*length));
        bytes.get(HEAD + length as usize..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files_are_one_to_one() {
        for file in [File::Journal(0), File::Journal(u32::MAX), File::Spool(17)] {
            assert_eq!(File::parse(&file.name()), Some(file));
        }
        for name in [
            "plan.bin",
            "journal-1.log",
            "spool-99999999999.log",
            "spool-00000000-1.log",
            "spool-0000000001.tmp",
        ] {
            assert_eq!(File::parse(name), None, "{name}");
        }
        assert!(File::Journal(9).name() < File::Journal(10).name());
    }

    #[test]
    fn writing_again_what_failed_half_way_changes_nothing() {
        let write = |at, bytes: &'static [u8]| Step::Write {
            file: File::Spool(1),
            at,
            bytes: Bytes::from_static(bytes),
        };
        let job = Job {
            id: 1,
            steps: vec![write(0, b"ab"), write(2, b"cd"), Step::Sync(File::Spool(1))],
        };
        let mut disk = MemoryDisk::default();
        disk.take(&job.steps[0]);
        disk.execute(&job);
        assert_eq!(disk.read(File::Spool(1), 1, 3).unwrap(), &b"bcd"[..]);
        assert_eq!(disk.read(File::Spool(1), 1, 4), Err(DiskFault::Missing));
        assert_eq!(job.bytes(), 4);
    }

    #[test]
    fn torn_damaged_and_empty_frames_have_no_body() {
        let mut out = Vec::new();
        let start = frame::begin(&mut out);
        out.extend_from_slice(b"hello");
        frame::end(&mut out, start);
        assert_eq!(frame::body(&out), Some(&b"hello"[..]));
        for length in 0..out.len() {
            assert_eq!(frame::body(&out[..length]), None, "torn at {length}");
        }
        for byte in 4..out.len() {
            let mut damaged = out.clone();
            damaged[byte] ^= 0x10;
            assert_eq!(frame::body(&damaged), None, "damaged at {byte}");
        }
        assert_eq!(frame::body(&[0; 64]), None);
    }
}
