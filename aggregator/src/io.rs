//! The rim: everything that touches the world. Files, sockets, SQLite, clocks and waiting live here and nowhere else.
#![allow(
    clippy::disallowed_methods,
    reason = "this is where clocks are read and waiting is done"
)]

pub mod clock;

pub mod config;

pub mod plan_toml;

pub mod pki;

pub mod tables;

pub mod sqlite;

pub mod lock;

pub mod backup;

pub mod reset;

pub mod quic;

pub mod run;

pub mod command;

pub mod explain;

pub mod fleet;
