//! From readings to closed panes: the hot path, in memory that is taken at the start and never grows.

pub mod arrival;

pub mod watermark;

pub mod key_cap;

pub mod count_windows;

pub mod sketches;

pub mod panes;

pub mod intake;
