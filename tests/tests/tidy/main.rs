//! The house rules as tests: layering, absence, size, and that what is written down holds.
//!
//! Absence cannot be seen in code, so it is checked here: no clock, socket, file or `async` outside the rim, no crate
//! that depends on one it must not know, no unfinished work, no path of somebody's machine.

mod circles;
mod functions;
mod map;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold no source of ours.
const SKIPPED: [&str; 3] = ["target", ".git", "mqtt_storage"];
/// Most lines of code in a file, before its tests.
const LINES_MAX: usize = 500;
/// Files that were longer when the rule came. A number here may only go down; below the limit the entry goes.
const LONGER: [(&str, usize); 0] = [];

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the crate is in the workspace").to_owned()
}

/// All files with one of these extensions, as paths from the root.
fn files(extensions: &[&str]) -> Vec<(String, String)> {
    let (root, mut found) = (root(), Vec::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if extensions.iter().any(|extension| {
                let own = path.extension().unwrap_or_default();
                own == *extension
            }) {
                let relative = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push((relative, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// Lines without their comments, numbered from 1.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let without_comment = |line: &'_ str| line.find("//").map_or(line.len(), |at| at);
    text.lines()
        .enumerate()
        .map(move |(index, line)| (index + 1, &line[..without_comment(line)]))
}

fn report(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}

#[test]
fn the_world_is_touched_in_io_alone() {
    const CRATES: [&str; 3] = ["agent/src/", "aggregator/src/", "firmware-sim/src/"];
    const WORLD: [&str; 13] = [
        "tokio",
        "quinn",
        "rumqttc",
        "rusqlite",
        "mqtt5",
        "std::net",
        "std::fs",
        "std::thread",
        "std::process",
        "async fn",
        "async move",
        "Instant::now",
        "SystemTime",
    ];
    let mut faults = Vec::new();
    for (path, text) in files(&["rs"]) {
        let Some(inside) = CRATES.iter().find_map(|krate| path.strip_prefix(krate)) else {
            continue;
        };
        // The command line is the rim too.
        if inside.starts_with("io/") || ["io.rs", "main.rs", "args.rs", "arguments.rs"].contains(&inside) {
            continue;
        }
        for (number, line) in code_lines(&text) {
            for word in WORLD.iter().filter(|word| line.contains(**word)) {
                faults.push(format!("{path}:{number}: {word}"));
            }
        }
    }
    report(&faults, "sockets, files, clocks, threads and async live in io/");
}

/// Whoever asks a store something asks through its traits: a second place with statements would be a second schema.
#[test]
fn sql_is_spoken_by_the_stores_alone() {
    const STATEMENTS: [&str; 8] = [
        "SELECT ",
        "INSERT ",
        "UPDATE ",
        "DELETE FROM ",
        "CREATE TABLE ",
        "ALTER TABLE ",
        "PRAGMA ",
        "rusqlite",
    ];
    // The store, and the fleet's view of a table from outside, which shares nothing with it.
    const SPEAKERS: [&str; 3] = [
        "aggregator/src/io/store/",
        "firmware-sim/src/io/database.rs",
        "firmware-sim/src/io/check.rs",
    ];
    const CRATES: [&str; 4] = [
        "common/src/",
        "agent/src/",
        "aggregator/src/",
        "firmware-sim/src/",
    ];
    let mut faults = Vec::new();
    for (path, text) in files(&["rs"]) {
        let is_ours = CRATES.iter().any(|krate| path.starts_with(krate)) && !path.ends_with("tests.rs");
        if !is_ours || SPEAKERS.iter().any(|speaker| path.starts_with(speaker)) {
            continue;
        }
        for (number, line) in code_lines(&text) {
            for word in STATEMENTS.iter().filter(|word| line.contains(**word)) {
                faults.push(format!("{path}:{number}: {word}"));
            }
        }
    }
    report(&faults, "ask through store::Reads or store::lookup::Lookup");
}

#[test]
fn the_language_has_no_std_and_no_io() {
    let mut faults = Vec::new();
    for (path, text) in files(&["rs"]) {
        if !path.starts_with("common/src/") {
            continue;
        }
        for (number, line) in code_lines(&text) {
            if line.contains("std::") || line.contains("extern crate std") {
                faults.push(format!("{path}:{number}: {}", line.trim()));
            }
        }
    }
    report(&faults, "common is no_std");
    let lib = fs::read_to_string(root().join("common/src/lib.rs")).unwrap();
    assert!(lib.contains("\n#![no_std]\n"));
}

/// The `[dependencies]`, `[dev-dependencies]` or `[build-dependencies]` of a crate.
fn dependencies(krate: &str, table: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    let dependencies = manifest.get(table).and_then(toml::Value::as_table);
    dependencies
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect()
}

#[test]
fn crates_know_only_those_below_them() {
    const ALLOWED: [(&str, &[&str]); 5] = [
        ("common", &[]),
        ("agent", &["catchment-common"]),
        ("aggregator", &["catchment-common"]),
        ("firmware-sim", &["catchment-common"]),
        (
            "tests",
            &[
                "catchment-common",
                "catchment-agent",
                "catchment-aggregator",
                "catchment-firmware-sim",
            ],
        ),
    ];
    for (krate, allowed) in ALLOWED {
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for name in dependencies(krate, table) {
                let ours = name.starts_with("catchment-");
                assert!(
                    !ours || allowed.contains(&name.as_str()),
                    "{krate} must not know {name}"
                );
            }
        }
    }
    let world = ["tokio", "quinn", "rusqlite", "rumqttc", "std"];
    let language = dependencies("common", "dependencies");
    assert!(
        world.iter().all(|name| !language.contains(*name)),
        "common does no I/O"
    );
}

#[test]
fn every_module_opens_with_its_page() {
    let without: Vec<String> = files(&["rs"])
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    report(&without, "a file opens with //! and says why it is there");
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    // Put together here, so that this file does not name what it forbids.
    let words: Vec<String> = [
        ["to", "do!("],
        ["unimple", "mented!("],
        ["#[ign", "ore"],
        ["FIX", "ME"],
        ["TO", "DO"],
        ["XX", "X"],
        ["d", "bg!("],
        [".skip_", "test"],
    ]
    .iter()
    .map(|parts| parts.concat())
    .collect();
    let mut faults = Vec::new();
    for (path, text) in files(&["rs", "sh", "toml", "md", "sql"]) {
        for (index, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                faults.push(format!("{path}:{}: {word}", index + 1));
            }
        }
    }
    report(&faults, "unfinished work belongs in an issue");
}

#[test]
fn no_file_names_somebodys_machine() {
    let places: Vec<String> = ["work", "root", "home", "tmp", "Users"]
        .iter()
        .map(|folder| format!("/{folder}/"))
        .collect();
    let starts = |line: &str, at: usize| {
        // A path from the root of the disk, not the middle of a relative one or of a topic.
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| !(before.is_alphanumeric() || ".-_}/".contains(before)))
    };
    let mut faults = Vec::new();
    for (path, text) in files(&["rs", "sh", "toml", "md", "sql", "conf", "service", "yaml", "yml"]) {
        for (index, line) in text.lines().enumerate() {
            for place in &places {
                if line.match_indices(place.as_str()).any(|(at, _)| starts(line, at)) {
                    faults.push(format!("{path}:{}: {place}", index + 1));
                }
            }
        }
    }
    report(&faults, "paths are relative to the repository");
}

#[test]
fn files_stay_short() {
    let longer: BTreeMap<&str, usize> = LONGER.into_iter().collect();
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, text) in files(&["rs"]) {
        if path.ends_with("tests.rs") || path.starts_with("tests/tests/") {
            continue;
        }
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        let limit = longer.get(path.as_str()).copied();
        if lines > limit.unwrap_or(LINES_MAX) {
            let limit = limit.unwrap_or(LINES_MAX);
            faults.push(format!(
                "{path}: {lines} lines of code before its tests, at most {limit}"
            ));
        }
        if limit.is_some() && lines <= LINES_MAX {
            faults.push(format!("{path}: short enough now; take it out of LONGER"));
        }
        seen.insert(path);
    }
    faults.extend(
        longer
            .keys()
            .filter(|path| !seen.contains(**path))
            .map(|path| format!("{path}: is gone; take it out of LONGER")),
    );
    report(&faults, "split in a natural way when larger");
}

#[test]
fn every_dependency_has_its_reason() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let table = text.split("[workspace.dependencies]").nth(1).unwrap();
    let table = table.split("\n[").next().unwrap();
    let mut faults = Vec::new();
    let mut before = "";
    for line in table.lines() {
        let name = line.split(['=', ' ']).next().unwrap_or_default();
        let is_dependency = line.contains('=') && !line.starts_with('#');
        if is_dependency && !name.starts_with("catchment-") && !before.starts_with("# ") {
            faults.push(format!("Cargo.toml: {name} has no comment above it"));
        }
        before = line;
    }
    report(&faults, "a dependency says why it is here");
}

#[test]
fn versions_and_lints_are_the_workspaces() {
    let root_manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let members = root_manifest["workspace"]["members"].as_array().unwrap();
    for member in members.iter().filter_map(toml::Value::as_str) {
        let text = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        assert_eq!(manifest["lints"]["workspace"].as_bool(), Some(true), "{member}");
        for table in ["dependencies", "dev-dependencies"] {
            for (name, value) in manifest
                .get(table)
                .and_then(toml::Value::as_table)
                .into_iter()
                .flatten()
            {
                let shared = value.get("workspace").and_then(toml::Value::as_bool);
                assert_eq!(
                    shared,
                    Some(true),
                    "{member}: {name} takes its version from the root"
                );
            }
        }
    }
}

#[test]
fn unsafe_code_is_the_counting_allocator_alone() {
    let word = ["uns", "afe "].concat();
    let mut faults = Vec::new();
    for (path, text) in files(&["rs"]) {
        if path == "tests/tests/no_alloc.rs" {
            continue;
        }
        for (number, line) in code_lines(&text).filter(|(_, line)| line.contains(&word)) {
            faults.push(format!("{path}:{number}: {}", line.trim()));
        }
    }
    report(&faults, "parsers of hostile bytes are the last place for it");
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut faults = Vec::new();
    for (path, text) in files(&["md"]) {
        let folder = root().join(&path);
        let folder = folder.parent().unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || file.is_empty();
            if !elsewhere && !folder.join(file).exists() {
                faults.push(format!("{path}: {target}"));
            }
        }
    }
    report(&faults, "dead links");
}
