//! How far everybody has come: watermarks, who is expected, and when a window is due.
//!
//! An agent declares its own idleness through its watermark; absence is inferred here, by lease. An agent that is
//! behind what has been shown already is *catching up*: it revises, and does not hold the others. Nothing here is ever
//! a cached "aligned" flag: the answer is recomputed from the table of agents each time it is asked for.

use std::collections::{BTreeMap, VecDeque};

use catchment_common::plan::SliceId;
use catchment_common::time::{Instant, Now, Span, Timestamp};

use crate::limits::FRONT_MOMENTS_MAX;

/// The watermarks of all agents.
#[derive(Clone, Debug)]
pub struct Frontier {
    lease: Span,
    agents: BTreeMap<String, Standing>,
}

/// How one agent stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// When it was last heard, by the aggregator's wall clock.
    pub heard: Timestamp,
    /// Whether an operator has retired it.
    pub retired: bool,
    /// Its watermark for each slice that it has run.
    pub watermarks: BTreeMap<SliceId, Timestamp>,
    /// What it says about itself.
    pub about: About,
}

/// What is known of an agent for people to read. Nothing is decided by it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct About {
    /// Name and version of its software.
    pub software: String,
    /// The plan that it was last told to run.
    pub plan_version: u64,
    /// Batches that it had not had acknowledged when it last said so.
    pub backlog_batches: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
    /// How often another agent of the same name was found alive.
    pub conflicts: u64,
}

/// How many of the expected agents have passed an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coverage {
    /// Agents whose watermark has passed it.
    pub passed: u32,
    /// Agents expected.
    pub expected: u32,
}

impl Coverage {
    /// Whether all expected agents have passed.
    pub fn is_complete(self) -> bool {
        self.passed == self.expected
    }

    /// Passed by expected; 1 when nobody is expected.
    pub fn ratio(self) -> f64 {
        if self.expected == 0 {
            1.0
        } else {
            f64::from(self.passed) / f64::from(self.expected)
        }
    }
}

impl Frontier {
    /// A frontier whose agents are expected for `lease` after they were last heard.
    pub fn new(lease: Span) -> Self {
        Self {
            lease,
            agents: BTreeMap::new(),
        }
    }

    /// Puts back what was stored.
    pub fn restore(&mut self, agent: String, standing: Standing) {
        self.agents.insert(agent, standing);
    }

    /// An agent was heard.
    pub fn hear(&mut self, agent: &str, now: Now) {
        if let Some(standing) = self.agents.get_mut(agent) {
            standing.heard = standing.heard.max(now.wall);
            return;
        }
        let standing = Standing {
            heard: now.wall,
            retired: false,
            watermarks: BTreeMap::new(),
            about: About::default(),
        };
        self.agents.insert(agent.to_owned(), standing);
    }

    /// An operator has retired an agent, or it is back.
    pub fn set_retired(&mut self, agent: &str, retired: bool) {
        if let Some(standing) = self.agents.get_mut(agent) {
            standing.retired = retired;
        }
    }

    /// Retires exactly the agents that `is_retired` names; returns whether that changed any.
    pub fn retire(&mut self, is_retired: impl Fn(&str) -> bool) -> bool {
        let mut changed = false;
        for (name, standing) in &mut self.agents {
            let retired = is_retired(name);
            changed |= standing.retired != retired;
            standing.retired = retired;
        }
        changed
    }

    /// What is known of an agent, which must have been heard.
    pub fn about_mut(&mut self, agent: &str) -> &mut About {
        &mut self.agents.get_mut(agent).expect("it was heard").about
    }

    /// An agent's watermark for a slice is at least this; returns whether it moved.
    pub fn advance(&mut self, agent: &str, slice: SliceId, watermark: Timestamp) -> bool {
        let Some(standing) = self.agents.get_mut(agent) else {
            return false;
        };
        let held = standing.watermarks.entry(slice).or_insert(Timestamp::MIN);
        let moved = watermark > *held;
        *held = watermark.max(*held);
        moved
    }

    /// How many agents are known.
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// Whether no agent is known.
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// How an agent stands.
    pub fn standing(&self, agent: &str) -> Option<&Standing> {
        self.agents.get(agent)
    }

    /// The watermarks of the agents that are expected to report on any of these slices: for an agent that has run
    /// several of them, its best.
    fn expected(&self, slices: &[SliceId], now: Now) -> impl Iterator<Item = Timestamp> {
        let live =
            move |standing: &&Standing| !standing.retired && now.wall.since(standing.heard) <= self.lease;
        self.agents.values().filter(live).filter_map(move |standing| {
            slices
                .iter()
                .filter_map(|slice| standing.watermarks.get(slice))
                .copied()
                .max()
        })
    }

    /// How many of the expected agents have passed `end`.
    pub fn coverage(&self, slices: &[SliceId], end: Timestamp, now: Now) -> Coverage {
        self.expected(slices, now).fold(
            Coverage {
                passed: 0,
                expected: 0,
            },
            |coverage, watermark| Coverage {
                passed: coverage.passed + u32::from(watermark >= end),
                expected: coverage.expected + 1,
            },
        )
    }

    /// The foremost watermark.
    pub fn front(&self, slices: &[SliceId], now: Now) -> Option<Timestamp> {
        self.expected(slices, now).max()
    }

    /// The hindmost watermark of those that are not behind `shown`.
    pub fn low(&self, slices: &[SliceId], shown: Timestamp, now: Now) -> Option<Timestamp> {
        self.expected(slices, now)
            .filter(|&watermark| watermark >= shown)
            .min()
    }
}

/// When the foremost watermark passed what: after `patience`, windows are shown without the agents that stay silent.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    moments: VecDeque<(Timestamp, Instant)>,
    exhausted: Option<Timestamp>,
}

impl Patience {
    /// Notes where the front is now and returns up to where patience has run out.
    pub fn observe(&mut self, front: Option<Timestamp>, patience: Span, now: Now) -> Option<Timestamp> {
        if let Some(front) = front {
            let newest = self.moments.back().map(|&(front, _)| front).or(self.exhausted);
            if newest.is_none_or(|newest| front > newest) {
                if self.moments.len() == FRONT_MOMENTS_MAX {
                    // Wait a little longer for one of them rather than remember more.
                    self.moments.pop_back();
                }
                self.moments.push_back((front, now.monotonic));
            }
        }
        while let Some(&(front, since)) = self.moments.front()
            && now.monotonic.since(since) >= patience
        {
            self.exhausted = self.exhausted.max(Some(front));
            self.moments.pop_front();
        }
        self.exhausted
    }

    /// When patience next runs out for something.
    pub fn deadline(&self, patience: Span) -> Option<Instant> {
        self.moments.front().map(|&(_, since)| since + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: SliceId = SliceId(1);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::clamped(seconds * 1_000_000)
    }

    fn now(seconds: i64) -> Now {
        Now {
            monotonic: Instant::from_micros(seconds as u64 * 1_000_000),
            wall: at(seconds),
        }
    }

    fn frontier(watermarks: &[(&str, i64)]) -> Frontier {
        let mut frontier = Frontier::new(Span::from_secs(100));
        for &(agent, watermark) in watermarks {
            frontier.hear(agent, now(0));
            frontier.advance(agent, SLICE, at(watermark));
        }
        frontier
    }

    #[test]
    fn watermarks_never_go_back() {
        let mut frontier = frontier(&[("a", 50)]);
        assert!(!frontier.advance("a", SLICE, at(40)));
        assert_eq!(frontier.front(&[SLICE], now(0)), Some(at(50)));
    }

    #[test]
    fn an_agent_behind_what_is_shown_does_not_hold_the_others() {
        let frontier = frontier(&[("a", 50), ("b", 60), ("c", 10)]);
        assert_eq!(frontier.low(&[SLICE], at(0), now(0)), Some(at(10)));
        assert_eq!(
            frontier.low(&[SLICE], at(20), now(0)),
            Some(at(50)),
            "c is catching up"
        );
        assert_eq!(
            frontier.coverage(&[SLICE], at(50), now(0)),
            Coverage {
                passed: 2,
                expected: 3
            }
        );
    }

    #[test]
    fn a_lease_ends_expectation_and_hearing_renews_it() {
        let mut frontier = frontier(&[("a", 50), ("b", 60)]);
        frontier.hear("a", now(90));
        assert_eq!(
            frontier.coverage(&[SLICE], at(55), now(120)),
            Coverage {
                passed: 0,
                expected: 1
            }
        );
        frontier.hear("b", now(120));
        assert_eq!(
            frontier.coverage(&[SLICE], at(55), now(120)),
            Coverage {
                passed: 1,
                expected: 2
            }
        );
        assert_eq!(frontier.coverage(&[SliceId(9)], at(55), now(0)).ratio(), 1.0);
    }

    #[test]
    fn patience_runs_from_when_the_front_passed() {
        let mut patience = Patience::default();
        let wait = Span::from_secs(10);
        assert_eq!(patience.observe(Some(at(100)), wait, now(0)), None);
        assert_eq!(patience.observe(Some(at(110)), wait, now(5)), None);
        assert_eq!(patience.deadline(wait), Some(now(10).monotonic));
        assert_eq!(patience.observe(Some(at(110)), wait, now(10)), Some(at(100)));
        assert_eq!(patience.observe(None, wait, now(15)), Some(at(110)));
        assert_eq!(
            patience.observe(Some(at(90)), wait, now(40)),
            Some(at(110)),
            "it never goes back"
        );
        assert_eq!(patience.deadline(wait), None);
    }
}
