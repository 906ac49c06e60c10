//! What was taken before: a broker's messages in flight, and devices' own numbers.

pub mod dedupe;
pub mod in_flight;
