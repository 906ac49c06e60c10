//! The rim: everything that touches the world. Files, sockets, SQLite, clocks and waiting live here and nowhere else.
#![allow(
    clippy::disallowed_methods,
    reason = "this is where clocks are read and waiting is done"
)]

pub mod clock;

pub mod config;

pub mod pki;

pub mod store;

pub mod net;

pub mod run;

pub mod command;
