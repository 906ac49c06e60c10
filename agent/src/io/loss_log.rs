//! What the operator hears of readings that a full spool gave up: at once, and then at a limited rate.

use std::time::Duration;

use catchment_common::metrics::Counter;
use tracing::{error, warn};

use crate::agent::Agent;

/// How often it is told at most.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Tells what a full spool gave up.
pub(super) struct LossLog {
    dropped: u64,
    pointless: u64,
    last: Option<tokio::time::Instant>,
}

impl LossLog {
    /// What was lost before the start is not news.
    pub(super) fn new(agent: &Agent) -> Self {
        let [dropped, pointless] = given_up(agent);
        Self {
            dropped,
            pointless,
            last: None,
        }
    }

    /// Tells what is new.
    pub(super) fn look(&mut self, agent: &Agent) {
        let [dropped, pointless] = given_up(agent);
        let is_old = (dropped, pointless) == (self.dropped, self.pointless);
        if is_old || self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return;
        }
        if dropped > self.dropped {
            error!(
                lost = dropped - self.dropped,
                "readings were lost: the spool is full, and nothing that it holds can be made smaller; the aggregator will \
                 know (catchment_loss); a larger limits.spool, or coarsen in the query, makes room for longer outages"
            );
        }
        if pointless > self.pointless {
            warn!(
                readings = pointless - self.pointless,
                "the spool is full and gave up the points of readings, which still count; functions of points are NULL there"
            );
        }
        (self.dropped, self.pointless) = (dropped, pointless);
        self.last = Some(tokio::time::Instant::now());
    }
}

fn given_up(agent: &Agent) -> [u64; 2] {
    [Counter::Dropped, Counter::PointsGivenUp].map(|counter| agent.metrics().sum(counter))
}
