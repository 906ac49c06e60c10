//! Functions fit on a screen.

use std::collections::BTreeSet;

use super::{files, report};

/// Most lines of a function, from its signature to its end.
const LINES_MAX: usize = 70;
/// Functions that were longer when the rule came, as file and name. An entry that is short enough must be taken out.
const LONGER: [&str; 9] = [
    "agent/src/agent/durable.rs: start",
    "agent/src/aggregate/intake.rs: handle_message",
    "agent/src/aggregate/intake.rs: new",
    "agent/src/log/journal/record.rs: next",
    "agent/src/recovery.rs: take",
    "aggregator/src/io/store/tables.rs: with_former",
    "aggregator/src/main.rs: execute",
    "common/src/wire/sketch.rs: put_sketch",
    "common/src/wire/sketch.rs: take_sketch",
];

#[test]
fn functions_fit_on_a_screen() {
    let known: BTreeSet<&str> = LONGER.into_iter().collect();
    let mut longer = BTreeSet::new();
    for (path, text) in files(&["rs"]) {
        // A test is a story, and a bench a list.
        let is_test = path.starts_with("tests/") || path.ends_with("tests.rs") || path.contains("/tests/");
        if is_test {
            continue;
        }
        let lines: Vec<&str> = text.lines().take_while(|line| *line != "#[cfg(test)]").collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(name) = name_of_function(line) else {
                continue;
            };
            let indent = line.len() - line.trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            let length = lines[at..]
                .iter()
                .position(|line| *line == end)
                .map_or(0, |last| last + 1);
            if length > LINES_MAX {
                longer.insert((format!("{path}: {name}"), length));
            }
        }
    }
    let names: BTreeSet<&str> = longer.iter().map(|(name, _)| name.as_str()).collect();
    let gone = known
        .difference(&names)
        .map(|name| format!("{name}: is short enough; take it out of LONGER"));
    let gone: Vec<String> = gone.collect();
    report(&gone, "the list of longer functions only shrinks");
    let new: Vec<String> = longer
        .iter()
        .filter(|(name, _)| !known.contains(name.as_str()))
        .map(|(name, length)| format!("{name}: {length} lines, at most {LINES_MAX}"))
        .collect();
    report(
        &new,
        "keep the branching in the parent, and the straight-line work in helpers",
    );
}

fn name_of_function(line: &str) -> Option<&str> {
    let words = line.trim_start();
    let behind = words.strip_prefix("fn ").or_else(|| {
        let (before, behind) = words.split_once(" fn ")?;
        let is_signature = before.split(' ').all(|word| {
            ["pub", "const", "async", "unsafe", "extern"].contains(&word) || word.starts_with("pub(")
        });
        is_signature.then_some(behind)
    })?;
    behind.split(['(', '<']).next()
}
