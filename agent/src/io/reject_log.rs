//! What the log says of readings that were rejected: how many, and why, at a limited rate.

use std::time::Duration;

use catchment_common::metrics::Reason;
use tokio::time::Instant;
use tracing::warn;

use crate::agent::Agent;

/// Bad input is logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Tells the operator about rejected readings and values that could not be used, at a limited rate.
#[derive(Default)]
pub(super) struct RejectLog {
    rejected: u64,
    unusable: u64,
    last: Option<Instant>,
}

impl RejectLog {
    /// Looks at the counters, and tells if there is more.
    pub(super) fn look(&mut self, agent: &Agent) {
        // What a condition keeps out is no fault.
        let is_fault = |(name, _): &(&str, u64)| *name != Reason::Filtered.name();
        let reasons: Vec<_> = agent.metrics().reasons().into_iter().filter(is_fault).collect();
        let fields = agent.metrics().unusable();
        let sum = |counts: &[(&str, u64)]| counts.iter().map(|(_, count)| count).sum::<u64>();
        let (rejected, unusable) = (sum(&reasons), sum(&fields));
        let is_old = (rejected, unusable) == (self.rejected, self.unusable);
        if is_old || self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return;
        }
        if rejected > self.rejected {
            warn!(new = rejected - self.rejected, ?reasons, "readings were rejected");
        }
        if unusable > self.unusable {
            warn!(
                new = unusable - self.unusable,
                ?fields,
                "values could not be used; their readings count without them"
            );
        }
        (self.rejected, self.unusable) = (rejected, unusable);
        self.last = Some(Instant::now());
    }
}
