//! A disk that keeps what was synced and may forget, or tear, what was not.
//!
//! The process sees its cache. What a power failure leaves is the synced state and, of the steps since, a random part:
//! for each file a prefix of its writes with the next one torn, and of files that came or went a prefix too. A process
//! that is killed loses nothing that it has written, only what it was about to write.

use std::collections::BTreeMap;

use bytes::Bytes;
use catchment_agent::log::disk::{Disk, DiskFault, File, Step};
use catchment_firmware_sim::dice::Dice;

/// The simulated disk of one gateway.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    cache: BTreeMap<File, Vec<u8>>,
    synced: BTreeMap<File, Vec<u8>>,
    /// What has been done since, in order.
    unsynced: Vec<Change>,
    /// Most bytes that fit, while the disk is full.
    pub capacity: Option<u64>,
    /// Whether every step fails.
    pub failing: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Create(File),
    Remove(File),
    Write(File, u64, Bytes),
    Truncate(File, u64),
}

impl Change {
    /// The file whose content it changes; none if it changes the folder.
    fn content_of(&self) -> Option<File> {
        match self {
            Self::Create(_) | Self::Remove(_) => None,
            Self::Write(file, ..) | Self::Truncate(file, _) => Some(*file),
        }
    }
}

impl SimDisk {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.cache.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Bytes of the spool's files.
    pub fn spool_bytes(&self) -> u64 {
        let of_spool = { self.cache.iter() }.filter(|(file, _)| matches!(file, File::Spool(_)));
        of_spool.map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// Takes one step of a job.
    pub fn take(&mut self, step: &Step) -> Result<(), DiskFault> {
        if self.failing {
            return Err(DiskFault::Other("the simulated disk fails".into()));
        }
        match step {
            Step::Write { file, at, bytes } => {
                let room = self.room(*file, *at, bytes.len());
                self.change(Change::Write(*file, *at, bytes.slice(..room)));
                if room < bytes.len() {
                    return Err(DiskFault::Full);
                }
            }
            Step::Truncate { file, length } => self.change(Change::Truncate(*file, *length)),
            Step::Sync(file) => self.sync(*file),
            Step::Remove(file) | Step::SetAside(file) => {
                if self.cache.contains_key(file) {
                    self.change(Change::Remove(*file));
                }
            }
        }
        Ok(())
    }

    /// How many of `length` bytes can be written.
    fn room(&self, file: File, at: u64, length: usize) -> usize {
        let Some(capacity) = self.capacity else {
            return length;
        };
        let held = self.cache.get(&file).map_or(0, |bytes| bytes.len() as u64);
        let overwritten = held.saturating_sub(at);
        let free = capacity.saturating_sub(self.bytes()) + overwritten;
        length.min(free as usize)
    }

    fn change(&mut self, change: Change) {
        if let Change::Write(file, ..) | Change::Truncate(file, _) = &change
            && !self.cache.contains_key(file)
        {
            let create = Change::Create(*file);
            apply(&mut self.cache, &create);
            self.unsynced.push(create);
        }
        apply(&mut self.cache, &change);
        self.unsynced.push(change);
    }

    /// Makes a file's content durable, and which files there are.
    fn sync(&mut self, file: File) {
        let (done, rest) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|change| change.content_of().is_none_or(|of| of == file));
        self.unsynced = rest;
        let done: Vec<Change> = done;
        for change in &done {
            apply(&mut self.synced, change);
        }
    }

    /// The process ends and the machine goes on: all that was written is there.
    pub fn kill(&mut self) {
        self.capacity = None;
        self.failing = false;
    }

    /// The power fails: of what was not synced a random part is there.
    pub fn lose_power(&mut self, dice: &mut Dice) {
        self.kill();
        let unsynced = std::mem::take(&mut self.unsynced);
        let mut left: BTreeMap<Option<File>, u32> = BTreeMap::new();
        for change in &unsynced {
            *left.entry(change.content_of()).or_default() += 1;
        }
        for count in left.values_mut() {
            *count = dice.below(*count + 1);
        }
        for change in unsynced {
            match left.get_mut(&change.content_of()) {
                Some(0) => {
                    if let Change::Write(file, at, bytes) = &change {
                        tear(&mut self.synced, *file, *at, bytes, dice);
                    }
                    // Nothing after the torn write is there.
                    left.remove(&change.content_of());
                }
                Some(left) => {
                    *left -= 1;
                    apply(&mut self.synced, &change);
                }
                None => {}
            }
        }
        self.cache = self.synced.clone();
    }
}

/// Writes a part of `bytes`; what was not written may read as zeros.
fn tear(files: &mut BTreeMap<File, Vec<u8>>, file: File, at: u64, bytes: &Bytes, dice: &mut Dice) {
    if dice.below(3) == 0 {
        return;
    }
    let whole = dice.below(bytes.len() as u32 + 1) as usize;
    let mut torn = bytes[..whole].to_vec();
    if dice.below(4) == 0 {
        torn.resize(bytes.len(), 0);
    }
    if files.get(&file).is_some_and(|held| held.len() as u64 >= at) {
        apply(files, &Change::Write(file, at, torn.into()));
    }
}

fn apply(files: &mut BTreeMap<File, Vec<u8>>, change: &Change) {
    match change {
        Change::Create(file) => {
            files.entry(*file).or_default();
        }
        Change::Remove(file) => {
            files.remove(file);
        }
        Change::Write(file, at, bytes) => {
            if let Some(held) = files.get_mut(file) {
                let end = *at as usize + bytes.len();
                if held.len() < end {
                    held.resize(end, 0);
                }
                held[*at as usize..end].copy_from_slice(bytes);
            }
        }
        Change::Truncate(file, length) => {
            if let Some(held) = files.get_mut(file) {
                held.truncate(*length as usize);
            }
        }
    }
}

impl Disk for SimDisk {
    fn list(&self) -> Result<Vec<(File, u64)>, DiskFault> {
        let entry = |(&file, bytes): (&File, &Vec<u8>)| (file, bytes.len() as u64);
        Ok(self.cache.iter().map(entry).collect())
    }

    fn read(&self, file: File, at: u64, length: usize) -> Result<Bytes, DiskFault> {
        let held = self.cache.get(&file).ok_or(DiskFault::Missing)?;
        let range = at as usize..(at as usize).saturating_add(length);
        let bytes = held.get(range).ok_or(DiskFault::Missing)?;
        Ok(Bytes::copy_from_slice(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: u64, bytes: &'static [u8]) -> Step {
        Step::Write {
            file: File::Spool(1),
            at,
            bytes: Bytes::from_static(bytes),
        }
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_is_a_prefix() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut disk = SimDisk::default();
            disk.take(&write(0, b"synced")).unwrap();
            disk.take(&Step::Sync(File::Spool(1))).unwrap();
            disk.take(&write(6, b"later")).unwrap();
            disk.lose_power(&mut Dice::new(seed, 0));
            let (_, length) = disk.list().unwrap()[0];
            assert_eq!(disk.read(File::Spool(1), 0, 6).unwrap(), &b"synced"[..]);
            lengths.insert(length);
        }
        assert_eq!(lengths, (6..=11).collect());
    }

    #[test]
    fn a_file_that_was_never_synced_may_be_gone_and_a_removed_one_back() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut disk = SimDisk::default();
            disk.take(&write(0, b"one")).unwrap();
            disk.take(&Step::Sync(File::Spool(1))).unwrap();
            disk.take(&Step::Remove(File::Spool(1))).unwrap();
            disk.lose_power(&mut Dice::new(seed, 0));
            seen.insert(disk.list().unwrap().len());
        }
        assert_eq!(seen, [0, 1].into());
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let mut disk = SimDisk {
            capacity: Some(4),
            ..SimDisk::default()
        };
        assert_eq!(disk.take(&write(0, b"abcdef")), Err(DiskFault::Full));
        assert_eq!(disk.bytes(), 4);
        disk.capacity = None;
        assert_eq!(disk.take(&write(0, b"abcdef")), Ok(()));
    }
}
