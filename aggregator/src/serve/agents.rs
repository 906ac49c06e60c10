//! How agents stand, one by one.

use std::collections::BTreeSet;

use catchment_common::time::Timestamp;

use super::{AskFault, Question};
use crate::agents::About;
use crate::store::lookup::Lookup;

/// Asks for all agents that were ever heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agents;

/// How an agent stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentAnswer {
    /// Its name.
    pub name: String,
    /// When it was last heard.
    pub heard: Timestamp,
    /// Whether an operator has retired it.
    pub retired: bool,
    /// What it says about itself.
    pub about: About,
    /// Readings that it had to give up.
    pub lost: u64,
    /// Sources that the plan names and the agent does not have; none for an agent that has said nothing of its sources.
    pub missing: Vec<String>,
}

impl Question for Agents {
    type Answer = Vec<AgentAnswer>;

    /// In the order of their names.
    fn ask(&self, store: &impl Lookup) -> Result<Vec<AgentAnswer>, AskFault> {
        let accounts = store.accounts()?;
        let queries = store.plan()?.queries;
        let named: BTreeSet<String> = queries.into_iter().filter_map(|query| query.source).collect();
        let missing = |about: &About| {
            let has = |name: &str| about.sources.iter().any(|source| source.name == name);
            let lacks = |name: &&String| !about.sources.is_empty() && !has(name);
            named.iter().filter(lacks).cloned().collect()
        };
        let agents = store
            .standings()?
            .into_iter()
            .map(|(name, standing)| AgentAnswer {
                heard: standing.heard,
                retired: standing.retired,
                missing: missing(&standing.about),
                about: standing.about,
                lost: accounts.get(&name).copied().unwrap_or_default().lost,
                name,
            });
        Ok(agents.collect())
    }
}
