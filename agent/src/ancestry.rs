//! Whose state this is: its lineage, the epoch of this run, and which database each epoch belongs to.
//!
//! Batches mean something in one database only, so an epoch belongs to one: when the agent is linked to another, what is
//! there is named under the old epoch and a new one begins. And a state directory has one future only: each start begins
//! the next generation of its lineage and makes that durable before it greets, so that the aggregator can tell an older
//! copy from the state itself. See [`catchment_common::wire::lineage`].

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::limits::ANCESTORS_MAX;
use catchment_common::wire::lineage::{Ancestor, DatabaseId, Lineage};

/// What is known of a state's past.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ancestry {
    /// The lineage: random bits.
    pub lineage: u64,
    /// The generation of this epoch, from 1.
    pub generation: u64,
    /// The epoch of this run: random bits.
    pub epoch: u64,
    /// The last seq given out in it; 0 for none.
    pub sealed: u64,
    /// Epochs before it, the oldest first: those since the last that was welcomed.
    pub ancestors: Vec<Ancestor>,
    /// The database that was linked to last; none before the first.
    pub database: Option<DatabaseId>,
    /// The databases of earlier epochs that batches are held of.
    pub origins: BTreeMap<u64, DatabaseId>,
}

impl Ancestry {
    /// The first epoch of a new lineage.
    pub fn new(lineage: u64, epoch: u64) -> Self {
        Self {
            lineage,
            generation: 1,
            epoch,
            ..Self::default()
        }
    }

    /// The next epoch of the lineage begins.
    pub fn begin(&mut self, epoch: u64) {
        self.ancestors.push(Ancestor {
            generation: self.generation,
            epoch: self.epoch,
            sealed: self.sealed,
        });
        let surplus = self.ancestors.len().saturating_sub(ANCESTORS_MAX);
        self.ancestors.drain(..surplus);
        if let Some(database) = self.database {
            self.origins.insert(self.epoch, database);
        }
        self.generation += 1;
        self.epoch = epoch;
        self.sealed = 0;
    }

    /// The state turned out to be an older copy: it goes on as a lineage of its own.
    pub fn fork(&mut self, lineage: u64) {
        self.lineage = lineage;
        self.generation = 1;
        self.ancestors.clear();
    }

    /// The aggregator has welcomed this epoch, and so taken note of it: those before it need not be named any more.
    /// `held` are the epochs that batches are held of.
    pub fn welcomed(&mut self, held: &BTreeSet<u64>) {
        self.ancestors.clear();
        self.origins.retain(|epoch, _| held.contains(epoch));
    }

    /// The database that an epoch belongs to, if that is known.
    pub fn origin(&self, epoch: u64) -> Option<DatabaseId> {
        if epoch == self.epoch {
            return self.database;
        }
        self.origins.get(&epoch).copied()
    }

    /// As a hello tells it.
    pub fn told(&self) -> Lineage {
        Lineage {
            id: self.lineage,
            generation: self.generation,
            sealed: self.sealed,
            ancestors: self.ancestors.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_knows_those_since_the_last_welcome_and_their_databases() {
        let mut ancestry = Ancestry::new(1, 10);
        ancestry.database = Some(DatabaseId(7));
        ancestry.sealed = 5;
        ancestry.begin(20);
        ancestry.begin(30);
        let told = ancestry.told();
        assert_eq!((told.generation, told.sealed), (3, 0));
        let named: Vec<(u64, u64, u64)> = { told.ancestors.iter() }
            .map(|ancestor| (ancestor.generation, ancestor.epoch, ancestor.sealed))
            .collect();
        assert_eq!(named, [(1, 10, 5), (2, 20, 0)]);
        ancestry.database = Some(DatabaseId(8));
        assert_eq!(ancestry.origin(10), Some(DatabaseId(7)));
        assert_eq!(ancestry.origin(30), Some(DatabaseId(8)));
        assert_eq!(ancestry.origin(99), None);
        ancestry.welcomed(&BTreeSet::from([20]));
        assert!(ancestry.told().ancestors.is_empty());
        assert_eq!(ancestry.origin(10), None, "nothing is held of it");
        assert_eq!(ancestry.origin(20), Some(DatabaseId(7)));
        ancestry.fork(2);
        assert_eq!((ancestry.told().id, ancestry.told().generation), (2, 1));
    }

    #[test]
    fn ancestors_are_bounded() {
        let mut ancestry = Ancestry::new(1, 0);
        for epoch in 1..100 {
            ancestry.begin(epoch);
        }
        assert_eq!(ancestry.ancestors.len(), ANCESTORS_MAX);
        assert_eq!(ancestry.ancestors.last().unwrap().epoch, 98);
        assert_eq!(ancestry.generation, 100);
    }
}
