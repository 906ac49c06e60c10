//! The agents that the centre knows: what each last said of its watermarks, and who is expected.
//!
//! An agent declares its own idleness through its watermark; absence is inferred here, by lease. An agent that is
//! behind what has been shown already is *catching up*: it revises, and does not hold the others. Nothing here is ever
//! a cached "aligned" flag: the answer is recomputed from the table of agents each time it is asked for.

use std::collections::BTreeMap;

use catchment_common::plan::PipelineId;
use catchment_common::time::{Now, Span, Timestamp};
use catchment_common::wire::SourceState;

use crate::watermarks::Coverage;

/// All agents that were ever heard, with their watermarks.
#[derive(Clone, Debug)]
pub struct Agents {
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
    /// Its watermark for each pipeline that it has run.
    pub watermarks: BTreeMap<PipelineId, Timestamp>,
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
    /// How far its wall clock was ahead of the aggregator's when it last said so; none if it does not know.
    pub clock_offset: Option<Span>,
    /// How often an older copy of its state greeted.
    pub forks: u64,
    /// How its sources are, as it last said.
    pub sources: Vec<SourceState>,
}

impl Agents {
    /// A table whose agents are expected for `lease` after they were last heard.
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
            // Also when the aggregator's clock had been ahead before.
            standing.heard = now.wall;
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

    /// An agent's watermark for a pipeline is at least this; returns whether it moved.
    pub fn advance(&mut self, agent: &str, pipeline: PipelineId, watermark: Timestamp) -> bool {
        let Some(standing) = self.agents.get_mut(agent) else {
            return false;
        };
        let held = standing.watermarks.entry(pipeline).or_insert(Timestamp::MIN);
        let moved = watermark > *held;
        *held = watermark.max(*held);
        moved
    }

    /// Nothing that was restored lies further ahead than this: a clock was wrong that is right now. Returns the watermarks
    /// that were set back: agent, pipeline and watermark.
    pub fn set_back(&mut self, now: Timestamp, furthest: Timestamp) -> Vec<(String, PipelineId, Timestamp)> {
        let mut set_back = Vec::new();
        for (name, standing) in &mut self.agents {
            standing.heard = standing.heard.min(now);
            for (&pipeline, watermark) in &mut standing.watermarks {
                if *watermark > furthest {
                    *watermark = furthest;
                    set_back.push((name.clone(), pipeline, furthest));
                }
            }
        }
        set_back
    }

    /// An operator sets an agent's watermarks back to this; returns those that were ahead.
    pub fn set_back_agent(&mut self, agent: &str, to: Timestamp) -> Vec<PipelineId> {
        let mut set_back = Vec::new();
        let held = self.agents.get_mut(agent);
        for (&pipeline, watermark) in held.into_iter().flat_map(|standing| &mut standing.watermarks) {
            if *watermark > to {
                *watermark = to;
                set_back.push(pipeline);
            }
        }
        set_back
    }

    /// The latest instant at which any agent was heard.
    pub fn last_heard(&self) -> Option<Timestamp> {
        self.agents.values().map(|standing| standing.heard).max()
    }

    /// How far the data of these pipelines has come, whoever sent it and whether it is still expected.
    pub fn newest(&self, pipelines: &[PipelineId]) -> Option<Timestamp> {
        let standings = self.agents.values();
        let watermarks = standings.flat_map(|standing| {
            { pipelines.iter() }.filter_map(|pipeline| standing.watermarks.get(pipeline).copied())
        });
        watermarks.max()
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

    /// The watermarks of the agents that are expected to report on any of these pipelines: for an agent that has run
    /// several of them, its best.
    fn expected(&self, pipelines: &[PipelineId], now: Now) -> impl Iterator<Item = Timestamp> {
        let live =
            move |standing: &&Standing| !standing.retired && now.wall.since(standing.heard) <= self.lease;
        self.agents.values().filter(live).filter_map(move |standing| {
            pipelines
                .iter()
                .filter_map(|pipeline| standing.watermarks.get(pipeline))
                .copied()
                .max()
        })
    }

    /// How many of the expected agents have passed `end`.
    pub fn coverage(&self, pipelines: &[PipelineId], end: Timestamp, now: Now) -> Coverage {
        self.expected(pipelines, now).fold(
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
    pub fn front(&self, pipelines: &[PipelineId], now: Now) -> Option<Timestamp> {
        self.expected(pipelines, now).max()
    }

    /// The hindmost watermark of those that are not behind `shown`.
    pub fn low(&self, pipelines: &[PipelineId], shown: Timestamp, now: Now) -> Option<Timestamp> {
        self.expected(pipelines, now)
            .filter(|&watermark| watermark >= shown)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use catchment_common::time::Instant;

    use super::*;

    const PIPELINE: PipelineId = PipelineId(1);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::clamped(seconds * 1_000_000)
    }

    fn now(seconds: i64) -> Now {
        Now {
            monotonic: Instant::from_micros(seconds as u64 * 1_000_000),
            wall: at(seconds),
        }
    }

    fn agents(watermarks: &[(&str, i64)]) -> Agents {
        let mut agents = Agents::new(Span::from_secs(100));
        for &(agent, watermark) in watermarks {
            agents.hear(agent, now(0));
            agents.advance(agent, PIPELINE, at(watermark));
        }
        agents
    }

    #[test]
    fn watermarks_never_go_back() {
        let mut agents = agents(&[("a", 50)]);
        assert!(!agents.advance("a", PIPELINE, at(40)));
        assert_eq!(agents.front(&[PIPELINE], now(0)), Some(at(50)));
    }

    #[test]
    fn an_agent_without_a_watermark_is_expected_once_it_says_so() {
        let mut agents = agents(&[("a", 50)]);
        agents.hear("b", now(0));
        assert_eq!(agents.coverage(&[PIPELINE], at(40), now(0)).expected, 1);
        assert!(!agents.advance("b", PIPELINE, Timestamp::MIN));
        let Coverage { passed, expected } = agents.coverage(&[PIPELINE], at(40), now(0));
        assert_eq!((passed, expected), (1, 2));
        assert_eq!(
            agents.low(&[PIPELINE], at(10), now(0)),
            Some(at(50)),
            "nothing waits for it"
        );
    }

    #[test]
    fn an_agent_behind_what_is_shown_does_not_hold_the_others() {
        let agents = agents(&[("a", 50), ("b", 60), ("c", 10)]);
        assert_eq!(agents.low(&[PIPELINE], at(0), now(0)), Some(at(10)));
        assert_eq!(
            agents.low(&[PIPELINE], at(20), now(0)),
            Some(at(50)),
            "c is catching up"
        );
        assert_eq!(
            agents.coverage(&[PIPELINE], at(50), now(0)),
            Coverage {
                passed: 2,
                expected: 3
            }
        );
    }

    #[test]
    fn a_lease_ends_expectation_and_hearing_renews_it() {
        let mut agents = agents(&[("a", 50), ("b", 60)]);
        agents.hear("a", now(90));
        assert_eq!(
            agents.coverage(&[PIPELINE], at(55), now(120)),
            Coverage {
                passed: 0,
                expected: 1
            }
        );
        agents.hear("b", now(120));
        assert_eq!(
            agents.coverage(&[PIPELINE], at(55), now(120)),
            Coverage {
                passed: 1,
                expected: 2
            }
        );
        assert_eq!(agents.coverage(&[PipelineId(9)], at(55), now(0)).ratio(), 1.0);
    }
}
