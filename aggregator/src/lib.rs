//! The centre: partials in over QUIC, exact windows out of SQLite.
//!
//! ```text
//! frame ─▶ session ─▶ committed ─▶ merge ─▶ agents ─▶ window ─▶ commit ─▶ store ─▶ serve
//!          who, what  seen      by pane  how far     due rows  one trans-
//!          to run     before?   and key  everybody             action, then
//!                                        has come              the acks
//! ```
//!
//! Everything outside [`io`] is a machine: frames and `now` come in, commits and messages come out.
//! [`aggregator::Aggregator`] composes the stages in this order. It keeps in memory what is recent; the rest is read
//! through one seam, [`commit::PaneSource`].

pub mod limits;

pub mod plan_toml;

pub mod pipelines;

pub mod catalog;

pub mod committed;

pub mod lineages;

pub mod merge;

pub mod agents;

pub mod watermarks;

pub mod window;

pub mod commit;

pub mod aggregator;

pub mod store;

pub mod serve;

pub mod plan_file;

pub mod io;

#[cfg(test)]
mod testing;
