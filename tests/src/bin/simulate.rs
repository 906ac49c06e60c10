//! Runs seeds of the simulator: `simulate --start S --seeds N`, with `--drawn` the ones that draw plan and stream. A
//! failing one is shrunk and its trace printed.

use std::process::ExitCode;

use catchment_tests::sim::{self, Figures, case::Case};

/// Lines of a trace that are printed: its end says most.
const TRACE_LINES_MAX: usize = 400;

fn main() -> ExitCode {
    let number = |name: &str| -> Option<u64> {
        let mut arguments = std::env::args().skip_while(|argument| argument != name);
        arguments.nth(1)?.parse().ok()
    };
    let flag = |name: &str| std::env::args().any(|argument| argument == name);
    let (start, seeds) = (number("--start").unwrap_or(0), number("--seeds").unwrap_or(300));
    if !flag("--panics") {
        // The message of a panic is part of the result.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let case_of = if flag("--drawn") { Case::drawn } else { Case::new };
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

fn show(case: &Case) {
    let brief = Case {
        publishes: Vec::new(),
        ..case.clone()
    };
    println!("{brief:#?}");
    let trace = sim::trace(case);
    let skipped = trace.len().saturating_sub(TRACE_LINES_MAX);
    println!("({skipped} lines before)");
    trace[skipped..].iter().for_each(|line| println!("{line}"));
}
