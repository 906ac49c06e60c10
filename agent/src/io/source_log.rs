//! What the log says of sources that a plan names and this agent does not have: each once.

use tracing::warn;

use crate::agent::Agent;

/// The names that were told.
#[derive(Debug, Default)]
pub(super) struct SourceLog {
    told: Vec<String>,
}

impl SourceLog {
    /// To be called when there is another plan.
    pub(super) fn look(&mut self, agent: &Agent) {
        let missing: Vec<String> = { agent.missing_sources().into_iter() }
            .map(String::from)
            .collect();
        let new = missing.iter().filter(|name| !self.told.contains(name));
        for source in new {
            warn!(%source, "the plan reads a source that this agent does not have; nothing is read for those queries here");
        }
        self.told = missing;
    }
}
