//! The language of Catchment: what the agent and the aggregator must mean by the same words.
//!
//! A message's topic and payload become a *reading*: a key, an event time and exact decimal values. Readings are
//! lifted into *partials*, one per pane and key, which merge in any order to the same bytes. Closed panes travel as
//! columns in a *batch*. A *plan* says which readings, keys, fields, panes and functions.
//!
//! There is no I/O here, no clock, and no `std`: the crate builds for a bare microcontroller.

#![no_std]

extern crate alloc;

pub mod limits;

pub mod time;

pub mod number;

pub mod topic;

pub mod key;

pub mod path;

pub mod expression;

pub mod plan;

pub mod stats;

pub mod sketch;

pub mod lower;

pub mod table;

pub mod metrics;

pub mod wire;
