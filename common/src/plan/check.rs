//! Whether a plan is sound, and what it costs an agent.

pub(super) mod validate;

pub(super) mod cost;

mod shared;
