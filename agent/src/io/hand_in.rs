//! A message as a source brought it, and as the machine takes it.

use catchment_common::metrics::Reason;
use catchment_common::time::Now;

use super::mqtt::Incoming;
use crate::agent::Agent;
use crate::source::{Arrival, SourceId};

/// Gives the machine a message.
pub(super) fn hand_in(agent: &mut Agent, now: Now, source: SourceId, message: &Incoming<'_>) {
    let Incoming {
        topic,
        payload,
        retained,
        delivery,
        through,
    } = *message;
    if retained {
        return agent.handle_dropped(Reason::Retained, source, delivery);
    }
    let Ok(subject) = std::str::from_utf8(topic) else {
        return agent.handle_dropped(Reason::InvalidUtf8, source, delivery);
    };
    let arrival = Arrival {
        source,
        subject,
        payload,
        delivery,
        through,
    };
    agent.handle_arrival(now, arrival);
}
