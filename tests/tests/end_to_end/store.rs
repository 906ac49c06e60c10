//! Databases that must not be touched: of newer software, or damaged. Each is refused with what to do next, by every
//! command, and left as it is.

use std::fs;
use std::path::Path;

use catchment_tests::process::{run, run_ok, text as output_text};
use catchment_tests::world::{FLEET_PLAN, World, text};
use rusqlite::Connection;

/// A database with a plan in it, and a configuration that names it.
fn made(world: &World) -> std::path::PathBuf {
    let database = world.path("catchment.db");
    let plan = world.write("plan.toml", FLEET_PLAN);
    run_ok(
        "catchment-aggregator",
        &["plan", "apply", "--database", text(&database), text(&plan)],
    );
    world.write(
        "aggregator.toml",
        "listen = \"127.0.0.1:0\"\ndatabase = \"catchment.db\"\n[tls]\npki = \"pki\"\n",
    );
    database
}

/// Every command that opens a database says this, and the file stays as it is.
fn check(world: &World, database: &Path, expected: &[&str]) {
    let before = fs::read(database).unwrap();
    let config = world.path("aggregator.toml");
    let plan = world.path("plan.toml");
    let commands: [&[&str]; 4] = [
        &["serve", "--config", text(&config)],
        &["plan", "apply", "--config", text(&config), text(&plan)],
        &["query", "room_climate", "--config", text(&config)],
        &["status", "--config", text(&config)],
    ];
    for command in commands {
        let output = run("catchment-aggregator", command);
        let said = output_text(&output);
        assert!(!output.status.success(), "{command:?}:\n{said}");
        for text in expected {
            assert!(said.contains(text), "{command:?}: expected `{text}` in\n{said}");
        }
        assert!(!said.contains("panicked"), "{command:?}:\n{said}");
    }
    assert!(fs::read(database).unwrap() == before, "the file was changed");
}

#[test]
fn a_database_of_newer_software_is_refused() {
    let world = World::new();
    let database = made(&world);
    let connection = Connection::open(&database).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    // Everything in the one file, none of it in its log.
    connection.pragma_update(None, "journal_mode", "DELETE").unwrap();
    drop(connection);
    check(
        &world,
        &database,
        &[
            "catchment.db: the database has schema version 99",
            "run the newer catchment-aggregator",
        ],
    );
}

#[test]
fn a_damaged_database_is_refused() {
    let world = World::new();
    let database = made(&world);
    Connection::open(&database)
        .unwrap()
        .pragma_update(None, "journal_mode", "DELETE")
        .unwrap();
    let mut bytes = fs::read(&database).unwrap();
    // Past the first page, which holds the header and the schema.
    let length = bytes.len();
    assert!(length > 3 * 4_096);
    bytes[4_096..length - 4_096].fill(0xa5);
    fs::write(&database, &bytes).unwrap();
    let advice = [
        "catchment.db: the database is damaged",
        "restore the last backup",
        "move the file away to start anew",
    ];
    check(&world, &database, &advice);

    fs::write(
        &database,
        b"this is no database, whatever its name says, and long enough to tell".repeat(90),
    )
    .unwrap();
    check(&world, &database, &advice[..1]);
}

#[test]
fn a_database_that_is_not_there_is_not_made_by_looking_at_it() {
    let world = World::new();
    let database = world.path("none.db");
    for command in [
        &["query", "room_climate", "--database", text(&database)][..],
        &["status", "--database", text(&database)],
    ] {
        let output = run("catchment-aggregator", command);
        assert!(!output.status.success());
        assert!(
            output_text(&output).contains("none.db"),
            "{}",
            output_text(&output)
        );
    }
    assert!(!database.exists());
}
