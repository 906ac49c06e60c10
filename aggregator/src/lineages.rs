//! Which epoch greeted last in each lineage of an agent's state, and how an older copy of a state shows itself.
//!
//! A state directory goes on from start to start as one lineage, whose epochs have generations that count up. An older
//! copy (a restored image, a snapshot of a virtual machine, a copy on a second machine) is behind: either another epoch
//! has greeted in its generation or a later one, or the seqs that it has given out in an epoch are fewer than have been
//! committed. Whatever the copy has gathered may have been delivered under other names, so it is not taken.
//!
//! An aggregator that was restored from a backup knows less than agents do, never more; so it takes all of them.

use std::collections::{BTreeMap, VecDeque};

use catchment_common::wire::lineage::{Forked, Lineage};

use crate::limits::LINEAGES_MAX;

/// The epoch that greeted last in a lineage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Newest {
    /// The lineage.
    pub lineage: u64,
    /// Its newest generation.
    pub generation: u64,
    /// The epoch of that generation.
    pub epoch: u64,
}

/// The lineages of all agents: for each agent those that greeted last first, at most [`LINEAGES_MAX`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lineages {
    agents: BTreeMap<String, VecDeque<Newest>>,
}

impl Lineages {
    /// Notes that an epoch greets; returns what has changed, if anything.
    pub fn note(&mut self, agent: &str, epoch: u64, lineage: &Lineage) -> Option<Newest> {
        let newest = Newest {
            lineage: lineage.id,
            generation: lineage.generation,
            epoch,
        };
        let known = self.agents.entry(agent.to_owned()).or_default();
        if known.front() == Some(&newest) {
            return None;
        }
        known.retain(|held| held.lineage != newest.lineage);
        known.truncate(LINEAGES_MAX - 1);
        known.push_front(newest);
        Some(newest)
    }

    /// Puts back what was stored, the one that greeted last first.
    pub fn restore(&mut self, agent: &str, newest: Newest) {
        let known = self.agents.entry(agent.to_owned()).or_default();
        if known.len() < LINEAGES_MAX {
            known.push_back(newest);
        }
    }

    /// Whether the state that greets with `epoch` is the newest of its lineage. `last_seq` is the largest seq of an epoch
    /// that has been taken.
    pub fn check(
        &self,
        agent: &str,
        epoch: u64,
        lineage: &Lineage,
        last_seq: impl Fn(u64) -> Option<u64>,
    ) -> Result<(), Forked> {
        let forked = |epoch| Forked {
            lineage: lineage.id,
            epoch,
        };
        let mut known = self.agents.get(agent).into_iter().flatten();
        if let Some(newest) = known.find(|newest| newest.lineage == lineage.id) {
            let own = (lineage.generation, epoch);
            let listed = { lineage.ancestors.iter() }.map(|ancestor| (ancestor.generation, ancestor.epoch));
            let mut all = listed.chain([own]);
            let differs =
                all.any(|(generation, epoch)| generation == newest.generation && epoch != newest.epoch);
            if differs || newest.generation > lineage.generation {
                return Err(forked(newest.epoch));
            }
        }
        let sealed = { lineage.ancestors.iter() }.map(|ancestor| (ancestor.epoch, ancestor.sealed));
        for (epoch, sealed) in sealed.chain([(epoch, lineage.sealed)]) {
            if last_seq(epoch) > Some(sealed) {
                return Err(forked(epoch));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use catchment_common::wire::lineage::Ancestor;

    use super::*;

    /// Epochs are ten times their generation.
    fn lineage(generation: u64, sealed: u64, ancestors: &[(u64, u64)]) -> Lineage {
        Lineage {
            id: 1,
            generation,
            sealed,
            ancestors: { ancestors.iter() }
                .map(|&(generation, sealed)| Ancestor {
                    generation,
                    epoch: generation * 10,
                    sealed,
                })
                .collect(),
        }
    }

    fn check(lineages: &Lineages, epoch: u64, lineage: &Lineage, seqs: &[(u64, u64)]) -> Result<(), u64> {
        let last_seq = |epoch| {
            let of_epoch = seqs.iter().filter(|(of, _)| *of == epoch);
            of_epoch.map(|(_, seq)| *seq).max()
        };
        { lineages.check("a", epoch, lineage, last_seq) }.map_err(|forked| forked.epoch)
    }

    #[test]
    fn restarts_and_reconnections_are_no_forks() {
        let mut lineages = Lineages::default();
        for (generation, ancestors) in [(1, &[][..]), (1, &[]), (2, &[(1, 5)]), (4, &[(2, 0), (3, 0)])] {
            let epoch = generation * 10;
            let greets = lineage(generation, 5, ancestors);
            assert_eq!(check(&lineages, epoch, &greets, &[(10, 5), (epoch, 3)]), Ok(()));
            lineages.note("a", epoch, &greets);
        }
        assert_eq!(lineages.note("a", 40, &lineage(4, 9, &[])), None);
    }

    #[test]
    fn a_copy_is_told_by_a_later_epoch_or_by_seqs_that_it_has_not_given_out() {
        let mut lineages = Lineages::default();
        lineages.note("a", 30, &lineage(3, 0, &[(2, 4)]));
        assert_eq!(
            check(&lineages, 30, &lineage(3, 2, &[]), &[(30, 3)]),
            Err(30),
            "seqs"
        );
        assert_eq!(
            check(&lineages, 40, &lineage(4, 0, &[(3, 2)]), &[(30, 3)]),
            Err(30),
            "of an ancestor"
        );
        assert_eq!(
            check(&lineages, 31, &lineage(3, 0, &[(2, 4)]), &[]),
            Err(30),
            "another epoch"
        );
        assert_eq!(
            check(&lineages, 20, &lineage(2, 0, &[]), &[]),
            Err(30),
            "an earlier one"
        );
        let copy = Lineage {
            generation: 5,
            ..lineage(5, 0, &[(4, 0)])
        };
        assert_eq!(check(&lineages, 50, &copy, &[]), Ok(()));
        let mut stranger = copy.clone();
        stranger.ancestors.insert(
            0,
            Ancestor {
                generation: 3,
                epoch: 31,
                sealed: 0,
            },
        );
        assert_eq!(
            check(&lineages, 50, &stranger, &[]),
            Err(30),
            "its ancestor is another"
        );
        assert_eq!(
            check(&lineages, 20, &Lineage { id: 2, ..copy }, &[]),
            Ok(()),
            "another lineage"
        );
    }

    #[test]
    fn an_aggregator_that_knows_less_takes_all() {
        let mut lineages = Lineages::default();
        lineages.note("a", 10, &lineage(1, 0, &[]));
        assert_eq!(
            check(&lineages, 90, &lineage(9, 7, &[(8, 3)]), &[(10, 99), (80, 2)]),
            Ok(())
        );
    }

    #[test]
    fn lineages_of_an_agent_are_bounded() {
        let mut lineages = Lineages::default();
        for id in 0..2 * LINEAGES_MAX as u64 {
            lineages.note(
                "a",
                10,
                &Lineage {
                    id,
                    ..lineage(1, 0, &[])
                },
            );
        }
        assert_eq!(lineages.agents["a"].len(), LINEAGES_MAX);
        assert_eq!(lineages.agents["a"][0].lineage, 2 * LINEAGES_MAX as u64 - 1);
    }
}
