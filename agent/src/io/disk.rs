//! The disk: one folder of files, written by a thread of its own because a sync takes its time.
//!
//! A file that comes to be is only safe once its folder is synced too, so the first sync of a new file does both. The
//! folder is locked, so that two agents cannot share a state by mistake.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc as blocking;
use std::thread;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::log::disk::{Disk, DiskFault, File, Job, MemoryDisk, Step};

/// Handles kept open between jobs.
const HANDLES_MAX: usize = 4;

/// How the names of files end that were set aside.
const ASIDE: &str = "set-aside";

/// How a job ended.
#[derive(Debug)]
pub enum DiskEvent {
    /// It is done.
    Done(u64),
    /// It failed and is given back.
    Failed(Job, DiskFault),
}

/// Where an agent keeps its state.
#[derive(Debug)]
pub enum Storage {
    /// In files.
    Files(Files),
    /// In memory.
    Memory(MemoryDisk),
}

impl Storage {
    /// Files in this folder, which is locked.
    pub fn files(folder: &Path) -> Result<Self> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"));
        let lock = match lock {
            Ok(lock) => match lock.try_lock() {
                Ok(()) => Some(lock),
                Err(fs::TryLockError::WouldBlock) => bail!(
                    "{}: another agent uses this state directory; give each agent its own `state`",
                    folder.display()
                ),
                Err(fs::TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("{}: cannot lock", folder.display()));
                }
            },
            // A folder that cannot be written to still holds what is to be sent.
            Err(error) => {
                tracing::error!(folder = %folder.display(), %error, "the state directory cannot be written");
                None
            }
        };
        Ok(Self::Files(Files {
            folder: folder.to_owned(),
            _lock: lock,
        }))
    }
}

/// Files that are set aside and kept. With one more the first in the order of their names goes.
const SET_ASIDE_MAX: usize = 16;
/// What the name of a file that was set aside ends in.
const SET_ASIDE: &str = "unread";

impl Storage {
    /// Keeps a copy of each file that holds something whole which was not understood, before the file goes, and tells
    /// the operator.
    pub fn set_aside(&self, unread: &[File]) {
        if let Self::Files(files) = self {
            for &file in unread {
                files.set_aside(file);
            }
        }
    }
}

impl Files {
    fn set_aside(&self, file: File) {
        let from = self.folder.join(file.name());
        let to = from.with_extension(SET_ASIDE);
        match fs::copy(&from, &to).and_then(|_| self.keep_newest(SET_ASIDE_MAX)) {
            Ok(()) => tracing::error!(
                file = %from.display(), copy = %to.display(),
                "a part of the journal cannot be read and what it holds is missing; a copy is kept, and can be removed"
            ),
            Err(error) => {
                tracing::error!(file = %from.display(), %error, "cannot be read, and no copy can be made");
            }
        }
    }

    fn keep_newest(&self, count: usize) -> std::io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == SET_ASIDE) {
                kept.push(path);
            }
        }
        kept.sort();
        let surplus = kept.len().saturating_sub(count);
        kept[..surplus].iter().try_for_each(fs::remove_file)
    }
}

impl Disk for Storage {
    fn list(&self) -> Result<Vec<(File, u64)>, DiskFault> {
        match self {
            Self::Files(files) => files.list(),
            Self::Memory(memory) => memory.list(),
        }
    }

    fn read(&self, file: File, at: u64, length: usize) -> Result<Bytes, DiskFault> {
        match self {
            Self::Files(files) => files.read(file, at, length),
            Self::Memory(memory) => memory.read(file, at, length),
        }
    }
}

/// A folder of files, for reading.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    _lock: Option<fs::File>,
}

impl Files {
    /// Starts the thread that does the jobs. Ends when the sender of jobs is dropped.
    pub fn start_writer(&self) -> Result<(blocking::SyncSender<Job>, mpsc::Receiver<DiskEvent>)> {
        let (jobs, queue) = blocking::sync_channel(1);
        let (events_in, events) = mpsc::channel(1);
        let writer = Writer {
            folder: self.folder.clone(),
            handles: BTreeMap::new(),
            folder_changed: false,
            syncs: Syncs::REAL,
        };
        thread::Builder::new()
            .name("disk".into())
            .spawn(move || writer.run(&queue, &events_in))
            .context("cannot start the disk's thread")?;
        Ok((jobs, events))
    }
}

impl Disk for Files {
    fn list(&self) -> Result<Vec<(File, u64)>, DiskFault> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|error| fault(&error))? {
            let entry = entry.map_err(|error| fault(&error))?;
            if let Some(file) = entry.file_name().to_str().and_then(File::parse) {
                files.push((file, entry.metadata().map_err(|error| fault(&error))?.len()));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn read(&self, file: File, at: u64, length: usize) -> Result<Bytes, DiskFault> {
        let open = fs::File::open(self.folder.join(file.name())).map_err(|error| fault(&error))?;
        let mut bytes = vec![0; length];
        open.read_exact_at(&mut bytes, at)
            .map_err(|error| fault(&error))?;
        Ok(bytes.into())
    }
}

struct Writer {
    folder: PathBuf,
    handles: BTreeMap<File, fs::File>,
    /// Files have come or gone since the folder was last synced.
    folder_changed: bool,
    syncs: Syncs,
}

/// What makes a file's bytes last, and a folder's list of files: a killed process loses nothing without them, so tests
/// look at the calls.
#[derive(Clone, Copy)]
struct Syncs {
    file: fn(&fs::File) -> io::Result<()>,
    folder: fn(&fs::File) -> io::Result<()>,
}

impl Syncs {
    const REAL: Self = Self {
        file: fs::File::sync_data,
        folder: fs::File::sync_all,
    };
}

impl Writer {
    fn run(mut self, jobs: &blocking::Receiver<Job>, events: &mpsc::Sender<DiskEvent>) {
        while let Ok(job) = jobs.recv() {
            let event = match self.execute(&job) {
                Ok(()) => DiskEvent::Done(job.id),
                Err(error) => {
                    // Handles may be of files that are not what they were.
                    self.handles.clear();
                    DiskEvent::Failed(job, fault(&error))
                }
            };
            if events.blocking_send(event).is_err() {
                return;
            }
        }
    }

    fn execute(&mut self, job: &Job) -> io::Result<()> {
        for step in &job.steps {
            match step {
                Step::Write { file, at, bytes } => self.handle(*file)?.write_all_at(bytes, *at)?,
                Step::Truncate { file, length } => self.handle(*file)?.set_len(*length)?,
                Step::Sync(file) => {
                    let sync = self.syncs.file;
                    sync(self.handle(*file)?)?;
                    self.sync_folder()?;
                }
                Step::Remove(file) => {
                    self.handles.remove(file);
                    self.leave(fs::remove_file(self.folder.join(file.name())))?;
                }
                Step::SetAside(file) => {
                    self.handles.remove(file);
                    let path = self.folder.join(file.name());
                    self.leave(fs::rename(&path, path.with_extension(ASIDE)))?;
                }
            }
        }
        while self.handles.len() > HANDLES_MAX {
            self.handles.pop_first();
        }
        self.sync_folder()
    }

    /// A file is out of the folder's list now, or was before.
    fn leave(&mut self, left: io::Result<()>) -> io::Result<()> {
        match left {
            Ok(()) => self.folder_changed = true,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn handle(&mut self, file: File) -> io::Result<&mut fs::File> {
        use std::collections::btree_map::Entry;
        match self.handles.entry(file) {
            Entry::Occupied(held) => Ok(held.into_mut()),
            Entry::Vacant(place) => {
                let path = self.folder.join(file.name());
                let is_new = !path.exists();
                let open = OpenOptions::new()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(path)?;
                self.folder_changed |= is_new;
                Ok(place.insert(open))
            }
        }
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.folder_changed) {
            (self.syncs.folder)(&fs::File::open(&self.folder)?)?;
        }
        Ok(())
    }
}

fn fault(error: &io::Error) -> DiskFault {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => DiskFault::Full,
        ErrorKind::NotFound | ErrorKind::UnexpectedEof => DiskFault::Missing,
        _ => DiskFault::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_reach_the_files_and_can_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let Storage::Files(files) = Storage::files(folder.path()).unwrap() else {
            unreachable!("asked for files")
        };
        assert!(Storage::files(folder.path()).is_err(), "the folder is locked");
        let (jobs, mut events) = files.start_writer().unwrap();
        let write = |at, bytes: &'static [u8]| Step::Write {
            file: File::Journal(1),
            at,
            bytes: Bytes::from_static(bytes),
        };
        let sync = Step::Sync(File::Journal(1));
        let truncate = Step::Truncate {
            file: File::Journal(1),
            length: 3,
        };
        for id in 1..=2 {
            let steps = vec![write(0, b"ab"), write(2, b"cd"), sync.clone(), truncate.clone()];
            jobs.send(Job { id, steps }).unwrap();
            assert!(matches!(events.blocking_recv(), Some(DiskEvent::Done(done)) if done == id));
        }
        assert_eq!(files.list().unwrap(), [(File::Journal(1), 3)]);
        assert_eq!(files.read(File::Journal(1), 1, 2).unwrap(), &b"bc"[..]);
        assert_eq!(files.read(File::Journal(1), 1, 3), Err(DiskFault::Missing));
        let remove = Step::Remove(File::Journal(1));
        jobs.send(Job {
            id: 3,
            steps: vec![remove.clone(), remove],
        })
        .unwrap();
        assert!(matches!(events.blocking_recv(), Some(DiskEvent::Done(3))));
        assert_eq!(files.list().unwrap(), []);
    }

    #[test]
    fn what_is_set_aside_is_kept_and_the_first_of_too_many_goes() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::files(folder.path()).unwrap();
        for number in 1..=SET_ASIDE_MAX as u32 + 1 {
            let file = File::Journal(number);
            fs::write(folder.path().join(file.name()), number.to_string()).unwrap();
            storage.set_aside(&[file]);
        }
        let copy = |number| {
            folder
                .path()
                .join(File::Journal(number).name())
                .with_extension(SET_ASIDE)
        };
        assert!(!copy(1).exists());
        assert_eq!(fs::read(copy(2)).unwrap(), b"2");
        // They are no part of the agent's state.
        assert_eq!(storage.list().unwrap().len(), SET_ASIDE_MAX + 1);
    }

    thread_local! {
        /// Syncs of this thread: of files, and of folders.
        static SYNCED: std::cell::Cell<(u32, u32)> = const { std::cell::Cell::new((0, 0)) };
    }

    #[test]
    fn what_a_job_syncs_is_synced_and_the_folder_when_its_list_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer {
            folder: folder.path().into(),
            handles: BTreeMap::new(),
            folder_changed: false,
            syncs: Syncs {
                file: |_| {
                    SYNCED.set((SYNCED.get().0 + 1, SYNCED.get().1));
                    Ok(())
                },
                folder: |_| {
                    SYNCED.set((SYNCED.get().0, SYNCED.get().1 + 1));
                    Ok(())
                },
            },
        };
        let (file, bytes) = (File::Journal(1), Bytes::from_static(b"x"));
        let write = Step::Write { file, at: 0, bytes };
        let mut synced_by = |steps: &[Step]| {
            SYNCED.set((0, 0));
            let steps = steps.to_vec();
            writer.execute(&Job { id: 1, steps }).unwrap();
            SYNCED.get()
        };
        assert_eq!(
            synced_by(&[write.clone(), Step::Sync(file)]),
            (1, 1),
            "a new file"
        );
        assert_eq!(synced_by(&[write.clone(), Step::Sync(file)]), (1, 0));
        assert_eq!(synced_by(&[Step::Remove(file)]), (0, 1));
        assert_eq!(synced_by(&[Step::Remove(file)]), (0, 0), "it was gone");
        assert_eq!(synced_by(&[write, Step::SetAside(file)]), (0, 1));
    }

    /// A device cannot be synced, and says so: the calls reach the system.
    #[cfg(target_os = "linux")]
    #[test]
    fn syncs_are_real() {
        let device = OpenOptions::new().write(true).open("/dev/null").unwrap();
        assert!((Syncs::REAL.file)(&device).is_err() && (Syncs::REAL.folder)(&device).is_err());
    }

    #[test]
    fn a_folder_that_went_away_is_a_fault_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let Storage::Files(files) = Storage::files(folder.path()).unwrap() else {
            unreachable!("asked for files")
        };
        let (jobs, mut events) = files.start_writer().unwrap();
        folder.close().unwrap();
        let steps = vec![Step::Write {
            file: File::Spool(1),
            at: 0,
            bytes: Bytes::from_static(b"x"),
        }];
        jobs.send(Job { id: 1, steps }).unwrap();
        assert!(
            matches!(events.blocking_recv(), Some(DiskEvent::Failed(job, DiskFault::Missing)) if job.id == 1)
        );
    }
}
