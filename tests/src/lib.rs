//! The whole system as a test: real binaries, real brokers and real files, in a folder that is gone afterwards.
//!
//! ```text
//! World (folder, certificates) ── Broker (Mosquitto or embedded) ── Agent ── Aggregator ── database ── verdict
//! ```
//!
//! Every process is a handle that is killed when it is dropped; when the test fails, its log is shown first. Ports are
//! free ones, names are loopback, and nothing waits for a fixed time where it can wait for a fact.

pub mod wait;

pub mod process;

pub mod world;

pub mod mqtt;

pub mod broker;

pub mod agent;

pub mod aggregator;

pub mod intruder;

pub mod proxy;

pub mod small_disk;

pub mod verdict;

pub mod sim;

pub mod direct;
