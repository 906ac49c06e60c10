//! The rim: sockets, clocks, files and the database live here and nowhere else.
//!
//! [`broker`] is the embedded broker, [`link`] one MQTT connection that loses nothing, [`run`] publishes a simulated
//! fleet and [`replay`] a recorded series. [`truth_file`] and [`database`] hold what [`check`] compares.
//! [`demo`] runs the whole system.
#![allow(
    clippy::disallowed_methods,
    reason = "this is where clocks are read and waiting is done"
)]

pub mod broker;

pub mod link;

pub mod truth_file;

pub mod run;

pub mod replay;

pub mod database;

pub mod check;

pub mod demo;
