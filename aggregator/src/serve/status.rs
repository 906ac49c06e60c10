//! How agents and queries stand, at a glance.

use catchment_common::time::Timestamp;

use super::{AskFault, Question};
use crate::store::lookup::{Lookup, TableState};

/// Asks how agents and queries stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status;

/// How they stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatusAnswer {
    /// The agents, by name.
    pub agents: Vec<AgentStatus>,
    /// The queries of the plan in force, in its order.
    pub queries: Vec<QueryStatus>,
    /// Stored panes and batches that could not be read.
    pub unreadable: u64,
}

/// How an agent stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentStatus {
    /// Its name.
    pub name: String,
    /// When it was last heard.
    pub heard: Timestamp,
    /// The plan that it runs.
    pub plan_version: u64,
    /// Its software.
    pub software: String,
    /// The foremost of its watermarks; none if it has told none.
    pub watermark: Option<Timestamp>,
    /// Readings accepted.
    pub accepted: u64,
    /// Readings rejected.
    pub rejected: u64,
}

/// How a query stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryStatus {
    /// Its name.
    pub name: String,
    /// Its table.
    pub table: TableState,
}

impl Question for Status {
    type Answer = StatusAnswer;

    fn ask(&self, store: &impl Lookup) -> Result<StatusAnswer, AskFault> {
        let accounts = store.accounts()?;
        let agents = store.standings()?.into_iter().map(|(name, standing)| {
            let account = accounts.get(&name).copied().unwrap_or_default();
            AgentStatus {
                name,
                heard: standing.heard,
                plan_version: standing.about.plan_version,
                software: standing.about.software,
                watermark: standing.watermarks.into_values().max(),
                accepted: account.accepted,
                rejected: account.rejected,
            }
        });
        let mut queries = Vec::new();
        for query in &store.plan()?.queries {
            queries.push(QueryStatus {
                name: query.name.clone(),
                table: store.table_state(query)?,
            });
        }
        Ok(StatusAnswer {
            agents: agents.collect(),
            queries,
            unreadable: store.unreadable()?,
        })
    }
}
