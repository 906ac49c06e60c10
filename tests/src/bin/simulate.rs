//! Runs seeds of the simulator: `simulate --start S --seeds N`, with `--drawn` the ones that draw plan and stream, with
//! `--edited` the ones in which the plan is edited all the time. A failing one is shrunk and its trace printed.
//!
//! Without `--start` the first seed is the clock's second times a million, and is printed before the run: a sweep that
//! begins where another did finds nothing new.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use catchment_tests::sim::case::{Case, Fault};
use catchment_tests::sim::{self, Figures};

/// Lines of a trace that are printed: its end says most.
const TRACE_LINES_MAX: usize = 400;

fn main() -> ExitCode {
    let number = |name: &str| -> Option<u64> {
        let mut arguments = std::env::args().skip_while(|argument| argument != name);
        arguments.nth(1)?.parse().ok()
    };
    let flag = |name: &str| std::env::args().any(|argument| argument == name);
    let start = number("--start").unwrap_or_else(start_from_clock);
    let seeds = number("--seeds").unwrap_or(300);
    println!("seeds {start} to {}", start + seeds.saturating_sub(1));
    if !flag("--panics") {
        // The message of a panic is part of the result.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let case_of = match (flag("--drawn"), flag("--edited")) {
        (true, _) => Case::drawn,
        (_, true) => Case::edited,
        _ => Case::new,
    };
    let mut figures = Figures::default();
    let mut failed = 0;
    for seed in start..start + seeds {
        let case = case_of(seed);
        match sim::run(&case) {
            Ok(more) => figures.add(&more),
            Err(fault) => {
                failed += 1;
                println!("seed {seed}: {fault}");
                if flag("--trace") {
                    show(&case);
                }
                if !flag("--keep-going") {
                    let small = sim::shrink(&case);
                    println!(
                        "shrunk to {} faults and {} messages:",
                        small.faults.len(),
                        small.publishes.len()
                    );
                    show(&small);
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    println!("{seeds} seeds from {start}: {failed} failed; {figures:?}");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A first seed that no earlier sweep had: seconds since the Unix epoch, with room for a million seeds in each.
#[allow(clippy::disallowed_methods, reason = "a sweep begins where the clock says")]
fn start_from_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * 1_000_000
}

fn show(case: &Case) {
    let brief = Case {
        publishes: Vec::new(),
        ..case.clone()
    };
    println!("{brief:#?}");
    for (at, fault) in &case.faults {
        if let Fault::Plan(plan) = fault {
            println!("At {at} us:\n{}", plan.text());
        }
    }
    println!("At the start:\n{}", case.plan.text());
    let trace = sim::trace(case);
    let skipped = trace.len().saturating_sub(TRACE_LINES_MAX);
    println!("({skipped} lines before)");
    trace[skipped..].iter().for_each(|line| println!("{line}"));
}
