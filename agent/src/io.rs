//! The rim: everything that touches the world. Files, sockets, clocks and waiting live here and nowhere else.
#![allow(
    clippy::disallowed_methods,
    reason = "this is where clocks are read and waiting is done"
)]

pub mod clock;

pub mod clock_file;
mod clock_log;

mod clock_watch;

pub mod config;

pub mod disk;

mod disk_log;

mod hand_in;

mod loss_log;

pub mod mqtt;

pub mod plan_file;

pub mod quic;

mod reject_log;

pub mod run;

mod source_log;

mod sources;

pub mod tls;

/// Random bits from the system.
fn random() -> anyhow::Result<u64> {
    getrandom::u64().map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))
}
