//! Reading the journal back: the newest unbroken run of segments, group by group, up to where each is whole.

use std::collections::BTreeMap;

use catchment_common::wire::{AgentPlan, WireFault};

use super::context::Context;
use super::record::{Record, Records};
use crate::log::disk::{Disk, DiskFault, File, frame};

/// Largest segment file that is read: far above what is ever written.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The segments of a journal on disk, oldest first.
#[derive(Debug)]
pub struct Segments {
    numbers: Vec<(u32, u64)>,
    /// Segments before a gap: what they hold cannot be told apart from what later, missing ones closed.
    broken: Vec<u32>,
}

/// What a replay found, besides the records.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// The spool's last number that belongs to the history; none without a whole snapshot.
    pub spooled: Option<u64>,
    /// Segments that end in a torn or damaged group. One of them, the last, is what a crash leaves.
    pub damaged: usize,
    /// Whole groups follow a damaged one, so it is no torn tail: something is lost.
    pub lost: bool,
    /// Segments that hold whole groups that were not read: behind damage, or with a meaning that is not known here.
    pub unread: Vec<u32>,
    /// The first segment of newer software, and its version.
    pub newer: Option<(u32, u8)>,
    /// Groups read.
    pub groups: usize,
    /// The last snapshot's version and plan.
    pub context: Context,
}

impl Segments {
    /// What is on this disk.
    pub fn find(disk: &impl Disk) -> Result<Self, DiskFault> {
        let all: BTreeMap<u32, u64> = disk
            .list()?
            .into_iter()
            .filter_map(|(file, length)| match file {
                File::Journal(number) => Some((number, length)),
                File::Spool(_) => None,
            })
            .collect();
        let mut numbers: Vec<(u32, u64)> = Vec::new();
        let mut broken = Vec::new();
        for (number, length) in all {
            if numbers.last().is_some_and(|&(last, _)| last + 1 != number) {
                broken.extend(numbers.drain(..).map(|(number, _)| number));
            }
            numbers.push((number, length));
        }
        Ok(Self { numbers, broken })
    }

    /// The last segment.
    pub fn newest(&self) -> Option<u32> {
        self.numbers.last().map(|&(number, _)| number)
    }

    /// The segments of the run with their bytes, oldest first.
    pub fn sizes(&self) -> impl Iterator<Item = (u32, u64)> {
        self.numbers.iter().copied()
    }

    /// Segments that are left over and not read.
    pub fn broken(&self) -> &[u32] {
        &self.broken
    }

    /// Hands every record of every whole group to `visit`, with the number of its segment and the plan that it refers
    /// to. Damage ends a segment, not the replay.
    pub fn replay(&self, disk: &impl Disk, mut visit: impl FnMut(u32, &AgentPlan, Record<'_>)) -> Replayed {
        let mut replayed = Replayed::default();
        for &(number, length) in &self.numbers {
            let length = length.min(SEGMENT_BYTES_MAX) as usize;
            let Ok(bytes) = disk.read(File::Journal(number), 0, length) else {
                replayed.damaged += 1;
                continue;
            };
            let (mut rest, mut is_unread) = (&bytes[..], false);
            while let Some(body) = frame::body(rest) {
                rest = &rest[frame::HEAD + body.len()..];
                replayed.groups += 1;
                if let Err(fault) = replayed.group(number, body, &mut visit) {
                    if let WireFault::Version(version) = fault {
                        replayed.newer.get_or_insert((number, version));
                    }
                    is_unread = true;
                    break;
                }
            }
            let follows = frame::body(frame::skip(rest)).is_some();
            replayed.damaged += usize::from(!rest.is_empty() || is_unread);
            replayed.lost |= follows || is_unread;
            if follows || is_unread {
                replayed.unread.push(number);
            }
        }
        replayed
    }
}

impl Replayed {
    fn group(
        &mut self,
        segment: u32,
        body: &[u8],
        visit: &mut impl FnMut(u32, &AgentPlan, Record<'_>),
    ) -> Result<(), WireFault> {
        let mut records = Records::new(body);
        while let Some(record) = records.next(&self.context)? {
            match &record {
                Record::Spooled(number) => self.spooled = self.spooled.max(Some(*number)),
                Record::Snapshot(snapshot) => {
                    self.spooled = self.spooled.max(Some(snapshot.spooled));
                    self.context = Context::new(snapshot.version, snapshot.plan.clone());
                }
                _ => {}
            }
            visit(segment, &self.context.plan, record);
        }
        Ok(())
    }
}
