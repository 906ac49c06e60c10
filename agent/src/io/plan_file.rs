//! The plan on disk, so that an agent that starts without a link still works.
//!
//! One file, replaced as a whole: written beside, synced, renamed, and the folder synced.
//!
//! ```text
//! file     := kind:u8 = 11  version:u8 = 2  database  plan  crc32c of all before:u32 le
//! database := 0 | 1  id:u128 le      the database that the plan is of, if that is known
//! plan     := a Plan message, as on the wire
//! ```
//!
//! In version 1 the file is the Plan message and its CRC. A damaged file is set aside and reported, never a reason not to
//! start: the aggregator gives the plan again. A file of a newer version is one: it is left as it is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use catchment_common::wire::cursor::Cursor;
use catchment_common::wire::lineage::DatabaseId;
use catchment_common::wire::{Message, WireFault, checksum};
use tracing::warn;

use crate::agent::KeptPlan;

/// The plan's file in the state directory.
#[derive(Clone, Debug)]
pub struct PlanFile {
    path: PathBuf,
}

impl PlanFile {
    /// The plan's file in this directory.
    pub fn new(state: &Path) -> Self {
        Self {
            path: state.join("plan.bin"),
        }
    }

    /// The plan that was kept, if one is there and whole. An error if it was written by newer software.
    pub fn load(&self) -> Result<Option<KeptPlan>> {
        let path = self.path.display();
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                warn!(%path, %error, "cannot read the kept plan; waiting for the aggregator's");
                return Ok(None);
            }
        };
        match parse(&bytes) {
            Ok(kept) => Ok(Some(kept)),
            Err(WireFault::Version(version)) => bail!(
                "{path}: the plan was kept by newer software (version {version}); run that, or move the file away"
            ),
            Err(fault) => {
                let moved = fs::rename(&self.path, self.path.with_extension("damaged")).is_ok();
                warn!(%path, moved, %fault, "the kept plan is damaged; waiting for the aggregator's");
                Ok(None)
            }
        }
    }

    /// Keeps a plan.
    pub fn save(&self, kept: &KeptPlan) -> io::Result<()> {
        let mut bytes = vec![KIND, VERSION];
        match kept.database {
            None => bytes.push(0),
            Some(id) => {
                bytes.push(1);
                bytes.extend_from_slice(&id.0.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&Message::Plan(kept.plan.clone()).emit());
        let crc = checksum(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<KeptPlan, WireFault> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(WireFault::Truncated)?;
    if checksum(body) != u32::from_le_bytes(*crc) {
        return Err(WireFault::Checksum);
    }
    let mut cursor = Cursor::new(body);
    let mut database = None;
    // A bare message is a file of version 1.
    if body.first() == Some(&KIND) {
        cursor.byte()?;
        match cursor.byte()? {
            VERSION => {}
            other => return Err(WireFault::Version(other)),
        }
        if cursor.byte()? == 1 {
            database = Some(DatabaseId(u128::from_le_bytes(cursor.array()?)));
        }
    }
    match Message::parse(cursor.rest())? {
        Message::Plan(plan) => Ok(KeptPlan { plan, database }),
        _ => Err(WireFault::Invalid("plan")),
    }
}

/// The kind of the file, which is that of no message.
const KIND: u8 = 11;
const VERSION: u8 = 2;

#[cfg(test)]
mod tests {
    use catchment_common::wire::{AgentPlan, v1};

    use super::*;

    fn kept(database: Option<DatabaseId>) -> KeptPlan {
        let plan = AgentPlan {
            version: 7,
            pipelines: Vec::new(),
            coarser: Vec::new(),
        };
        KeptPlan { plan, database }
    }

    #[test]
    fn a_plan_is_kept_and_a_damaged_one_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = PlanFile::new(folder.path());
        assert_eq!(file.load().unwrap(), None);
        for database in [None, Some(DatabaseId(1 << 100))] {
            file.save(&kept(database)).unwrap();
            assert_eq!(file.load().unwrap(), Some(kept(database)));
        }
        let path = folder.path().join("plan.bin");
        let mut bytes = fs::read(&path).unwrap();
        bytes[2] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(file.load().unwrap(), None);
        assert!(!path.exists() && folder.path().join("plan.damaged").exists());
    }

    #[test]
    fn a_plan_of_before_is_read_and_one_of_newer_software_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = PlanFile::new(folder.path());
        let path = folder.path().join("plan.bin");
        let with_crc = |mut bytes: Vec<u8>| {
            let crc = checksum(&bytes);
            bytes.extend_from_slice(&crc.to_le_bytes());
            bytes
        };
        let before = v1::emit_message(&Message::Plan(kept(None).plan)).unwrap();
        fs::write(&path, with_crc(before)).unwrap();
        assert_eq!(file.load().unwrap(), Some(kept(None)));
        let newer = with_crc(vec![KIND, VERSION + 1, 9, 9]);
        fs::write(&path, &newer).unwrap();
        let fault = file.load().unwrap_err().to_string();
        assert!(fault.contains("newer software (version 3)"), "{fault}");
        assert_eq!(fs::read(&path).unwrap(), newer);
    }
}
