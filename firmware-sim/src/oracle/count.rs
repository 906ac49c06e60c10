//! Count windows: what a key's readings make when they are cut in the order in which an agent took them.

use catchment_common::plan::Query;

use super::reading::Reading;
use super::window::Contents;

/// One window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counted {
    /// The earliest time of its readings, in microseconds since the Unix epoch.
    pub start_us: i64,
    /// The latest.
    pub end_us: i64,
    /// What is in it.
    pub contents: Contents,
}

impl Counted {
    /// The window of these readings, of which there must be one.
    pub fn new(query: &Query, readings: &[Reading]) -> Self {
        let mut contents = Contents::new(query);
        for reading in readings {
            contents.add(reading);
        }
        let times = || readings.iter().map(|reading| reading.at_us);
        Self {
            start_us: times().min().unwrap_or(i64::MAX),
            end_us: times().max().unwrap_or(i64::MIN),
            contents,
        }
    }
}
