//! A seeded fleet of devices with ground truth, its broker, and the oracle that checks the results.
//!
//! A [`signal`] is what one sensor measures; [`fault`]s stand between the sensor and the broker; the [`fleet`] puts all
//! devices on one schedule, and a recorded [`series`] can take its place. What was published is written down as
//! [`truth`]. From the truth the [`oracle`] recomputes every window with arbitrary precision and with none of the code
//! that the agent and the aggregator run; [`verify`] compares it with the result tables, and [`audit`] accounts for
//! every reading. The [`demo`] shows all of it live. None of these knows a clock, a socket or a file: those are in
//! [`io`].

pub mod dice;

pub mod signal;

pub mod fault;

pub mod fleet;

pub mod series;

pub mod truth;

pub mod oracle;

pub mod verify;

pub mod audit;

pub mod demo;

pub mod args;

pub mod io;
