//! The fleet's verdict: everything published is in the tables, bit for bit, or rejected under the right reason.

use std::path::{Path, PathBuf};

use crate::aggregator::Aggregator;
use crate::process::{run, run_ok, text as output_text};
use crate::wait::until;
use crate::world::text;

/// Runs `catchment-fleet run` to its end against these brokers; returns what it says.
pub fn publish_fleet(brokers: &[String], truth: &Path, options: &[&str]) -> String {
    let mut arguments = vec!["run", "--truth", text(truth)];
    for broker in brokers {
        arguments.extend(["--broker", broker]);
    }
    arguments.extend_from_slice(options);
    run_ok("catchment-fleet", &arguments)
}

/// Waits until the account balances and every row equals the truth; fails with both reports when that does not come.
pub fn wait_until_right(aggregator: &Aggregator, truth: &[PathBuf]) -> String {
    let mut report = String::new();
    for command in ["audit", "verify"] {
        let mut last = String::new();
        let right = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(command, || {
                let output = run("catchment-fleet", &arguments(command, aggregator, truth));
                last = output_text(&output);
                output.status.success().then_some(())
            });
        }));
        assert!(
            right.is_ok(),
            "catchment-fleet {command} says in the end:\n{last}\ncounted:\n{}",
            aggregator.account()
        );
        report.push_str(&last);
    }
    report
}

fn arguments<'a>(command: &'a str, aggregator: &'a Aggregator, truth: &'a [PathBuf]) -> Vec<&'a str> {
    let mut arguments = vec![command, "--db", text(aggregator.database())];
    for file in truth {
        arguments.extend(["--truth", text(file)]);
    }
    arguments
}
