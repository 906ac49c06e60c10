//! Which unsealed batches are merged, and how far.
//!
//! Merging goes over a run of batches of one *stage*. The first pass merges deltas of the same pane and key, which loses
//! nothing. Each later pass moves deltas one step up their pipeline's ladder of wider panes: totals and sketches stay
//! exact, resolution in time is what is given up, and it is given up by the oldest data first. At the widest panes
//! batches are merged with those before them, again and again, as long as that makes them smaller. Only when all that
//! is done and there is still no room do they give up their points: series answer nothing then, and all else stays.

use std::collections::{BTreeMap, BTreeSet};

use super::admission::RECORD_HEAD_MAX;
use super::ladder::Ladders;
use super::merge::{Outcome, Pass};
use super::records::{Held, Records, Slot};
use super::{RECORDS_MAX, Spool};
use crate::log::disk::Disk;

/// Source bytes of one pass, and of one over the widest panes, where batches of long ago meet.
const PASS_BYTES_MAX: u64 = 256 << 10;
const LAST_PASS_BYTES_MAX: u64 = 1 << 20;
/// Before it is urgent, fewer batches than this at the widest panes are not worth a pass.
const PASS_RECORDS_MIN: usize = 16;

/// How hard to try.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Effort {
    /// Before it is urgent.
    Gentle,
    /// Whatever keeps all values.
    Full,
    /// Points may be given up.
    Points,
}

/// How an attempt to make room ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Freed {
    /// There is more room, or there will be once files are gone.
    Some,
    /// It would have to write more than there is room for.
    TooTight,
    /// There was nothing to do.
    Nothing,
}

/// Batches to be merged, from old to new, and the stage that they are in then.
#[derive(Debug)]
struct Run {
    slots: Vec<Slot>,
    /// The stage that they are in.
    stage: u8,
    target: u8,
}

/// Batches of one stage.
#[derive(Clone, Copy, Default)]
struct OfStage {
    bytes: u64,
    records: usize,
}

/// What chooses runs.
#[derive(Debug)]
pub(super) struct Compactor {
    pub(super) ladders: Ladders,
    /// So many bytes of one stage are worth merging before those of others.
    worth: u64,
    /// Batches at places before this one are not merged with later ones.
    apart: u64,
}

impl Compactor {
    /// For a spool of so many bytes.
    pub(super) fn new(budget: u64) -> Self {
        Self {
            ladders: Ladders::default(),
            worth: budget / 8,
            apart: 0,
        }
    }

    /// Batches at places before this one are not to be merged with later ones.
    pub(super) fn keep_apart(&mut self, place: u64) {
        self.apart = place;
    }

    /// The stage that a batch counts as: ladders may have been longer once.
    fn stage(&self, held: &Held) -> u8 {
        held.stage.min(self.ladders.last())
    }

    /// The next run of at most about `most` bytes.
    fn choose(&self, records: &Records, settled: u64, most: u64, effort: Effort) -> Option<Run> {
        let widest = self.ladders.widest();
        let mut stages: BTreeMap<u8, OfStage> = BTreeMap::new();
        for (_, held) in records.iter().filter(|(_, held)| can_merge(held, settled)) {
            let stage = self.stage(held);
            if stage < widest || !held.is_tired {
                let of_stage = stages.entry(stage).or_default();
                of_stage.bytes += u64::from(held.length);
                of_stage.records += 1;
            }
        }
        let is_worth = |of: &OfStage| of.bytes >= self.worth || of.records >= RECORDS_MAX / 8;
        let lower: Vec<(u8, OfStage)> = stages.range(..widest).map(|(&stage, &of)| (stage, of)).collect();
        let lowest = { lower.iter() }
            .find(|(_, of)| is_worth(of))
            .or_else(|| lower.iter().max_by_key(|(_, of)| of.bytes));
        if let Some(&(stage, _)) = lowest {
            let most = most.min(PASS_BYTES_MAX);
            return self.oldest_run(records, settled, most, stage);
        }
        let most = most.min(LAST_PASS_BYTES_MAX);
        let fresh = |stage: u8| stages.get(&stage).copied().unwrap_or_default();
        let is_due = |of: OfStage| match effort {
            Effort::Gentle => of.bytes >= self.worth || of.records >= PASS_RECORDS_MIN,
            Effort::Full | Effort::Points => of.records > 0,
        };
        if is_due(fresh(widest)) {
            return self.newest_run(records, settled, most, widest);
        }
        let last = self.ladders.last();
        if last > widest && is_due(fresh(last)) {
            return self.newest_run(records, settled, most, last);
        }
        let gives_up = effort == Effort::Points && last > widest;
        gives_up.then(|| self.oldest_run(records, settled, most.min(PASS_BYTES_MAX), widest))?
    }

    /// The oldest run of batches in a stage below the last.
    fn oldest_run(&self, records: &Records, settled: u64, most: u64, stage: u8) -> Option<Run> {
        let is_of = |held: &Held| can_merge(held, settled) && self.stage(held) == stage;
        let (first, _) = records.iter().find(|(_, held)| is_of(held))?;
        let behind = records.range(Slot::first(first.number)..);
        let slots = self.whole_numbers(behind, most, is_of);
        (!slots.is_empty()).then_some(Run {
            slots,
            stage,
            target: stage + 1,
        })
    }

    /// The newest batches in a stage in which they are merged with each other, tired ones before a fresh one included.
    fn newest_run(&self, records: &Records, settled: u64, most: u64, stage: u8) -> Option<Run> {
        let is_of = |held: &Held| can_merge(held, settled) && self.stage(held) == stage;
        let mut fresh = records.iter().filter(|(_, held)| is_of(held) && !held.is_tired);
        let (newest, _) = fresh.next_back()?;
        let before = records.range(..=Slot::last(newest.number)).rev();
        let mut slots = self.whole_numbers(before, most, is_of);
        slots.reverse();
        (!slots.is_empty()).then_some(Run {
            slots,
            stage,
            target: stage,
        })
    }

    /// As many of these batches as are `is_of`, follow each other and have at most about `most` bytes, but one number at
    /// least. Between two of a number a run must not end: the parts of a number are replaced together or not at all. Records
    /// of losses lie between; they are left where they are, as are batches that have a name.
    fn whole_numbers<'r>(
        &self,
        records: impl Iterator<Item = (Slot, &'r Held)>,
        most: u64,
        is_of: impl Fn(&Held) -> bool,
    ) -> Vec<Slot> {
        let mut unsealed = records
            .filter(|(_, held)| held.name.is_none() && !held.is_loss)
            .peekable();
        let (mut slots, mut bytes) = (Vec::new(), 0);
        while let Some(&(Slot { number, .. }, _)) = unsealed.peek() {
            let mut parts = Vec::new();
            let mut is_whole = true;
            while let Some((slot, held)) = unsealed.next_if(|(slot, _)| slot.number == number) {
                is_whole &= is_of(held);
                bytes += u64::from(held.length);
                parts.push(slot);
            }
            is_whole &= slots
                .first()
                .is_none_or(|first: &Slot| (first.number < self.apart) == (number < self.apart));
            if !is_whole || (bytes > most && !slots.is_empty()) {
                break;
            }
            slots.extend(parts);
        }
        slots
    }
}

/// Whether a batch may be merged with others: no name binds it, and it is durable, or will be before that is done.
fn can_merge(held: &Held, settled: u64) -> bool {
    held.name.is_none() && !held.is_loss && held.ordinal <= settled
}

impl Spool {
    /// Merges runs of unsealed batches until one has become smaller, or after so many passes.
    pub(super) fn compact(&mut self, disk: &impl Disk, effort: Effort, passes: usize) -> Freed {
        for _ in 0..passes {
            // There must still be room to move a segment, and to drop one, should this gain nothing after all.
            let room = self.room().saturating_sub(self.log.segment_bytes());
            let settled = self.log.settled();
            let Some(run) = self.compactor.choose(&self.records, settled, room, effort) else {
                return Freed::Nothing;
            };
            let outcome = self.merge(&run, disk);
            if outcome.has_points {
                self.compactor.ladders.note_points();
            }
            let before: u64 = { run.slots.iter() }
                .filter_map(|&slot| self.records.get(slot))
                .map(|held| u64::from(held.length))
                .sum();
            let (after, frames) = (outcome.bytes(), outcome.frames.len());
            let is_smaller = after * 8 <= before * 7 || frames * 2 <= run.slots.len();
            if !is_smaller && outcome.damaged == 0 {
                self.pass_over(&run);
                continue;
            }
            if after + frames as u64 * RECORD_HEAD_MAX > room {
                return Freed::TooTight;
            }
            self.account.damaged += outcome.damaged;
            self.account.give_up_points(&outcome.pointless);
            self.replace_run(&run, outcome.frames);
            if outcome.damaged > 0 {
                self.push_loss_of_unknown_size();
            }
            return Freed::Some;
        }
        Freed::Nothing
    }

    fn merge(&self, run: &Run, disk: &impl Disk) -> Outcome {
        let mut pass = Pass::new(&self.compactor.ladders, run.target);
        for &slot in &run.slots {
            pass.take(self.frame(slot, disk).as_deref());
        }
        pass.finish()
    }

    /// Leaves a run as it is. Its stage goes up in memory alone: after a restart it is looked at once more.
    fn pass_over(&mut self, run: &Run) {
        for &slot in &run.slots {
            if run.stage == run.target {
                self.records.tire(slot);
            } else {
                self.records.set_stage(slot, run.target);
            }
        }
    }

    fn replace_run(&mut self, run: &Run, frames: Vec<Vec<u8>>) {
        let (Some(&first), Some(&last)) = (run.slots.first(), run.slots.last()) else {
            return;
        };
        let mut sources = BTreeSet::new();
        for &slot in &run.slots {
            sources.extend(self.records.segment(slot));
            self.release(slot);
        }
        let parts = frames.len();
        for (part, frame) in (1..).zip(frames) {
            let slot = Slot {
                number: last.number,
                part: last.part.saturating_add(part),
            };
            let is_last = part as usize == parts;
            let held = Held::merged(frame.into(), run.target);
            let segment = self.write(slot, first.number, is_last, held);
            // The last part says that all are there, so it must outlive what they replace; the others need not.
            if is_last {
                self.log.pin(segment, std::mem::take(&mut sources));
            }
        }
    }
}
