//! The whole system in one thread over a virtual clock: production machines, simulated brokers, disks and links.
//!
//! A [`case::Case`] is drawn from a seed: gateways, devices, what they publish, and which faults strike when. The run
//! drives [`catchment_agent::agent::Agent`] and [`catchment_aggregator::aggregator::Aggregator`] exactly as their rims
//! do. When the faults are over and all is delivered, every window of every query must equal, bit for bit, what the
//! oracle makes of the messages that the brokers accepted; nothing may be lost, doubled, or unaccounted for; and no
//! gateway may ever have passed its disk budget. One seed replays a whole run.
//!
//! ```text
//! devices → broker (window, DUP) → Agent ⇄ SimDisk      link (3 streams up, 1 down)      Aggregator ⇄ Store
//! ```

pub mod case;

pub mod plans;

mod drawn;

pub mod edits;

pub mod disk;

pub mod broker;

pub mod habits;

mod link;

mod gateway;

mod centre;

mod world;

mod worlds;

mod check;

mod count;

mod rows;

mod shrink;

use std::panic::{AssertUnwindSafe, catch_unwind};

use case::Case;
use world::World;

pub use shrink::shrink;
pub use world::Figures;

/// Runs a case; the error says what broke.
pub fn run(case: &Case) -> Result<Figures, String> {
    go(case, false).0
}

/// Runs a case and writes down all that happened.
pub fn trace(case: &Case) -> Vec<String> {
    let (result, mut trace) = go(case, true);
    trace.push(format!("{result:?}"));
    trace
}

fn go(case: &Case, trace: bool) -> (Result<Figures, String>, Vec<String>) {
    let mut world = World::new(case, trace);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        world.run()?;
        world.check()?;
        Ok(world.figures)
    }));
    let result = outcome.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("of another kind")))
    });
    (result, world.trace.take().unwrap_or_default())
}

impl Figures {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.readings += other.readings;
        self.rows += other.rows;
        self.coarse_rows += other.coarse_rows;
        self.crashes += other.crashes;
        self.redelivered += other.redelivered;
        self.repeated += other.repeated;
        self.resent += other.resent;
        self.counted_rows += other.counted_rows;
        self.cut_short += other.cut_short;
        self.lost += other.lost;
        self.unpromised += other.unpromised;
        self.disk_bytes_max = self.disk_bytes_max.max(other.disk_bytes_max);
        self.disk_faults += other.disk_faults;
        self.emitted_early += other.emitted_early;
    }
}
