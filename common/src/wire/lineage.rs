//! Who descends from whom: which database an epoch belongs to, and which epochs a state directory has been through.
//!
//! A *lineage* is the life of one state directory: a random number drawn when the directory is new, kept from start to
//! start. Each epoch that greets in it has a *generation*, which counts up by one. The aggregator remembers the newest
//! for each lineage, and the largest seq of each epoch, and so knows an older copy when it greets: the copy has not heard
//! of the newest epoch, or of seqs that have been committed. Whatever such a copy gathered before it was taken may have
//! been delivered already, under other names.

use alloc::vec::Vec;

/// A database, by 128 random bits that are drawn when it is made and that its backups keep.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct DatabaseId(pub u128);

/// Where an agent's state comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lineage {
    /// The lineage.
    pub id: u64,
    /// The generation of the epoch that greets, from 1.
    pub generation: u64,
    /// The last seq given out in the epoch that greets; 0 for none.
    pub sealed: u64,
    /// Epochs before it, the oldest first: all since the last that was welcomed, at most
    /// [`ANCESTORS_MAX`](crate::limits::ANCESTORS_MAX).
    pub ancestors: Vec<Ancestor>,
}

/// An epoch that may have greeted earlier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ancestor {
    /// Its generation.
    pub generation: u64,
    /// The epoch.
    pub epoch: u64,
    /// The last seq that was given out in it; 0 for none.
    pub sealed: u64,
}

/// The aggregator's answer to an older copy of a state directory: what was gathered before this start is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forked {
    /// The lineage that has gone on elsewhere.
    pub lineage: u64,
    /// The epoch that shows it: one that the copy does not know, or of which it knows too little.
    pub epoch: u64,
}
