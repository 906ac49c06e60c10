//! The map in ARCHITECTURE.md names every room.

use std::fs;

use super::{files, report, root};

/// Each file at the top of a crate, each folder in `io/`, each program, bench and test of the system must be on the map.
#[test]
fn architecture_names_every_module() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut faults = Vec::new();
    for (path, _) in files(&["rs"]) {
        let Some(room) = room(&path) else { continue };
        let named = [format!("`{room}`"), format!("`{room}/`"), format!("`{room}/")];
        if !named.iter().any(|name| map.contains(name.as_str())) {
            faults.push(format!("{path}: no `{room}` in ARCHITECTURE.md"));
        }
    }
    faults.dedup();
    report(&faults, "a newcomer must find each module on the map");
}

/// How the map calls the room of a file; none for files inside of a room.
fn room(path: &str) -> Option<String> {
    let (krate, inside) = path.split_once('/')?;
    let inside = inside.strip_suffix(".rs")?;
    let parts: Vec<&str> = inside.split('/').collect();
    match (krate, parts.as_slice()) {
        ("tests", ["src", "sim", name]) => Some(format!("sim/{name}")),
        (_, ["src", "lib" | "main" | "io" | "testing"]) => None,
        (_, ["src", "io", name]) => Some(format!("io/{name}")),
        ("tests", ["src", "bin", name] | ["benches" | "tests", name]) | (_, ["src", name]) => {
            Some((*name).to_owned())
        }
        _ => None,
    }
}
