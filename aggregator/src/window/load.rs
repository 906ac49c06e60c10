//! Bringing panes back into memory that windows behind the horizon need.

use std::collections::BTreeMap;

use catchment_common::plan::{Slice, SliceId};
use catchment_common::time::{Span, Timestamp};

use crate::commit::{PaneSource, SourceFault};
use crate::merge::Panes;

/// The panes in memory and where the others are.
#[derive(Debug)]
pub struct Loader<'l, S> {
    /// The panes.
    pub panes: &'l mut Panes,
    source: &'l S,
    slices: &'l BTreeMap<SliceId, Slice>,
    /// For each slice a range of pane starts of which all that are stored are in memory.
    whole: BTreeMap<SliceId, (Timestamp, Timestamp)>,
}

impl<'l, S: PaneSource> Loader<'l, S> {
    /// Loads panes of these slices from `source`.
    pub fn new(panes: &'l mut Panes, source: &'l S, slices: &'l BTreeMap<SliceId, Slice>) -> Self {
        Self {
            panes,
            source,
            slices,
            whole: BTreeMap::new(),
        }
    }

    /// Brings a pane into memory that may have been stored before.
    pub fn load(&mut self, slice: SliceId, pane: Timestamp) -> Result<(), SourceFault> {
        if self.panes.holds(slice, pane) {
            return Ok(());
        }
        for chunk in self.source.chunks(slice, pane)? {
            self.panes
                .restore(&chunk)
                .map_err(|fault| SourceFault(fault.to_string()))?;
        }
        Ok(())
    }

    /// Brings all panes of a slice into memory that start in `from..to`, one by one: for ranges of few panes.
    pub(super) fn load_each(
        &mut self,
        slice: SliceId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<(), SourceFault> {
        let Some(width) = self.slices.get(&slice).map(|slice| slice.pane) else {
            return Ok(());
        };
        let mut pane = from;
        while pane < to {
            self.load(slice, pane)?;
            pane = pane.plus(width);
        }
        Ok(())
    }

    /// Brings all panes of a slice into memory that start in `from..=to`, asking the store at most once for each
    /// stretch, and not at all for what cannot have left memory.
    pub(super) fn load_range(
        &mut self,
        slice: SliceId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<(), SourceFault> {
        let to = to.min(self.panes.gone_through(slice));
        if from > to {
            return Ok(());
        }
        let step = Span::from_micros(1);
        let (whole_from, whole_to) = match self.whole.get(&slice) {
            Some(&(whole_from, whole_to)) if from <= whole_to.plus(step) && to.plus(step) >= whole_from => {
                if from < whole_from {
                    self.load_stored(slice, from, whole_from.minus(step))?;
                }
                if to > whole_to {
                    self.load_stored(slice, whole_to.plus(step), to)?;
                }
                (whole_from.min(from), whole_to.max(to))
            }
            _ => {
                self.load_stored(slice, from, to)?;
                (from, to)
            }
        };
        self.whole.insert(slice, (whole_from, whole_to));
        Ok(())
    }

    fn load_stored(&mut self, slice: SliceId, from: Timestamp, to: Timestamp) -> Result<(), SourceFault> {
        for pane in self.source.starts(slice, from, to)? {
            self.load(slice, pane)?;
        }
        Ok(())
    }
}
