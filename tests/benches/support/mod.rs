//! What the benches share: a clock that counts CPU time, plans, and sensor payloads.
//!
//! The machine is shared and noisy, so parts are measured by the CPU time of the thread that runs them, each beside a
//! baseline in the same run: read the ratios.

#![allow(
    dead_code,
    clippy::disallowed_methods,
    unreachable_pub,
    clippy::missing_panics_doc,
    reason = "each bench uses a part of this, and a bench that cannot go on had better stop"
)]

pub mod broker;
pub mod fleet;
pub mod links;
pub mod partials;
pub mod process;

use std::time::Duration;

use catchment_agent::aggregate::intake::{Intake, Limits};
use catchment_agent::metrics::Metrics;
use catchment_agent::source::SourceId;
use catchment_aggregator::catalog::Catalog;
use catchment_aggregator::plan_toml;
use catchment_common::plan::{Pipeline, Plan};
use catchment_common::time::{Instant, Now, Span, Timestamp};
use catchment_common::wire::AgentPlan;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// When the event time of all benches begins.
pub const EPOCH: i64 = 1_700_000_000_000_000;

/// CPU time of this thread.
pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// CPU time of this process, all threads.
pub fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Measures the CPU time of the measuring thread instead of the time on the wall.
pub struct CpuTime;

static FORMATTER: WallTime = WallTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        thread_cpu()
    }

    fn end(&self, start: Duration) -> Duration {
        thread_cpu().saturating_sub(start)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        FORMATTER.formatter()
    }
}

/// The plan of the targets: two fields with a resolution, ten-second windows, all functions of the stats components.
pub const PLAN: &str = r#"
[[query]]
name       = "climate"
topic      = "sensors/{site}/{device}/env"
time       = { path = "ts", unit = "ms" }
key        = ["site", "device"]
fields     = { temp = { path = "temp", resolution = 0.01 }, hum = { path = "hum", resolution = 0.01 } }
window     = { size = "10s" }
aggregates = ["count", "mean", "stddev", "min", "max"]
watermark_delay = "1s"
"#;

/// A plan from its text, with its pipelines numbered from 1.
pub fn catalog(text: &str) -> Catalog {
    let plan: Plan = plan_toml::parse(text, "plan.toml").expect("the plan is right");
    Catalog::first(plan)
}

/// The only pipeline of [`PLAN`].
pub fn pipeline() -> Pipeline {
    catalog(PLAN)
        .pipelines
        .into_values()
        .next()
        .expect("a query has a pipeline")
}

/// An intake that runs `plan` in so much memory.
pub fn intake(plan: &AgentPlan, memory_bytes: usize, metrics: &mut Metrics) -> Intake {
    let limits = Limits {
        agent: "bench",
        memory_bytes,
        payload_bytes_max: 1 << 16,
        seed: 7,
    };
    let mut intake = Intake::new(plan, None, limits, at(0), metrics);
    intake.set_providers(SourceId(0), "plant", |_| Some(0));
    intake
}

/// So many microseconds after the beginning.
pub fn at(micros: i64) -> Now {
    Now {
        monotonic: Instant::from_micros(micros.unsigned_abs()),
        wall: timestamp(micros),
    }
}

/// So many microseconds after the beginning.
pub fn timestamp(micros: i64) -> Timestamp {
    Timestamp::clamped(EPOCH + micros)
}

/// Seconds as a span.
pub const fn seconds(count: i64) -> Span {
    Span::from_secs(count)
}
