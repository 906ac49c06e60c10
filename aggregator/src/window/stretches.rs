//! Sets of windows that lie close together: late data for one pane touches all windows over it, and late data for its
//! neighbours nearly the same ones.

use std::collections::BTreeMap;

use catchment_common::time::{Span, Timestamp};

/// Stretches of instants, each from its first to its last, both in it. No two of them touch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Stretches(BTreeMap<Timestamp, Timestamp>);

impl Stretches {
    /// Adds the instants from `first` to `last`. Stretches that are at most `step` apart are one. Returns how much is
    /// covered that was not.
    pub(super) fn insert(&mut self, first: Timestamp, last: Timestamp, step: Span) -> Span {
        let (mut from, mut to) = (first, last);
        let mut covered = Span::ZERO;
        while let Some((&begin, &end)) = self.0.range(..=to.plus(step)).next_back()
            && end.plus(step) >= from
        {
            self.0.remove(&begin);
            covered = covered.plus(end.since(begin));
            (from, to) = (from.min(begin), to.max(end));
        }
        self.0.insert(from, to);
        Span::from_micros(to.since(from).as_micros() - covered.as_micros())
    }

    /// The first stretch.
    pub(super) fn first(&self) -> Option<(Timestamp, Timestamp)> {
        self.0.first_key_value().map(|(&first, &last)| (first, last))
    }

    /// Takes the instants out that come before `rest`, of the first stretch.
    pub(super) fn cut(&mut self, rest: Timestamp) {
        if let Some((_, last)) = self.0.pop_first()
            && rest <= last
        {
            self.0.insert(rest, last);
        }
    }

    /// All stretches, the first one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        self.0.iter().map(|(&first, &last)| (first, last))
    }

    /// How many stretches.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn stretches(all: &[(i64, i64)], step: i64) -> (Vec<(i64, i64)>, Vec<i64>) {
        let (mut set, mut covered) = (Stretches::default(), Vec::new());
        for &(first, last) in all {
            let span = set.insert(at(first), at(last), Span::from_secs(step));
            covered.push(span.as_micros() / 1_000_000);
        }
        let seconds = |at: Timestamp| at.as_micros() / 1_000_000;
        (
            set.iter()
                .map(|(first, last)| (seconds(first), seconds(last)))
                .collect(),
            covered,
        )
    }

    #[test]
    fn neighbours_become_one() {
        assert_eq!(
            stretches(&[(10, 20), (40, 50), (21, 30)], 1),
            (vec![(10, 30), (40, 50)], vec![10, 10, 10])
        );
        assert_eq!(stretches(&[(10, 20), (40, 50), (15, 45)], 1).0, [(10, 50)]);
        assert_eq!(stretches(&[(10, 10), (11, 11)], 0).0, [(10, 10), (11, 11)]);
        assert_eq!(stretches(&[(10, 20), (12, 13)], 0), (vec![(10, 20)], vec![10, 0]));
    }

    #[test]
    fn the_first_is_taken_piece_by_piece() {
        let mut set = Stretches::default();
        set.insert(at(10), at(20), Span::ZERO);
        set.insert(at(30), at(30), Span::ZERO);
        set.cut(at(15));
        assert_eq!(set.first(), Some((at(15), at(20))));
        set.cut(at(25));
        assert_eq!((set.first(), set.len()), (Some((at(30), at(30))), 1));
        set.cut(at(31));
        assert!(set.is_empty());
    }
}
