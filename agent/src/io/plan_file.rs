//! The plan on disk, so that an agent that starts without a link still works.
//!
//! One file, replaced as a whole: written beside, synced, renamed, and the folder synced. The bytes are those of a
//! `Plan` message with a CRC-32C behind them. A damaged file is set aside and reported, never a reason not to start:
//! the aggregator gives the plan again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use catchment_common::wire::{AgentPlan, Message, checksum};
use tracing::warn;

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

    /// The plan that was kept, if one is there and whole.
    pub fn load(&self) -> Option<AgentPlan> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %self.path.display(), %error, "cannot read the kept plan; waiting for the aggregator's");
                return None;
            }
        };
        let plan = parse(&bytes);
        if plan.is_none() {
            let aside = self.path.with_extension("damaged");
            let moved = fs::rename(&self.path, &aside).is_ok();
            warn!(path = %self.path.display(), moved, "the kept plan is damaged; waiting for the aggregator's");
        }
        plan
    }

    /// Keeps a plan.
    pub fn save(&self, plan: &AgentPlan) -> io::Result<()> {
        let mut bytes = Message::Plan(plan.clone()).emit();
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

fn parse(bytes: &[u8]) -> Option<AgentPlan> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if checksum(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    match Message::parse(body) {
        Ok(Message::Plan(plan)) => Some(plan),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_kept_and_a_damaged_one_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = PlanFile::new(folder.path());
        assert_eq!(file.load(), None);
        let plan = AgentPlan {
            version: 7,
            pipelines: Vec::new(),
            coarser: Vec::new(),
        };
        file.save(&plan).unwrap();
        assert_eq!(file.load(), Some(plan));
        let path = folder.path().join("plan.bin");
        let mut bytes = fs::read(&path).unwrap();
        bytes[2] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(file.load(), None);
        assert!(!path.exists() && folder.path().join("plan.damaged").exists());
    }
}
