//! The listener that agents connect to.

pub mod reset;

pub mod quic;
