//! Configurations and plans that cannot work: each gets one clear error with file, line, column and what to do, and an
//! exit code.

use std::process::Output;

use catchment_tests::process::{run, run_ok, text as output_text};
use catchment_tests::world::{FLEET_PLAN, World, text};

const AGENT: &str = r#"name = "gw-1"
state = "state"
[broker]
url = "mqtt://127.0.0.1:1883"
qos = 1
keep_alive = "30s"
[aggregator]
address = "127.0.0.1:7443"
[tls]
ca = "ca.pem"
certificate = "gw-1.pem"
key = "gw-1.key"
[limits]
memory = "8 MiB"
"#;

/// Runs a check of `file`, holding `contents`; returns its output with the folder's name taken out.
fn check(world: &World, program: &str, arguments: &[&str], file: &str, contents: &str) -> (bool, String) {
    let path = world.write(file, contents);
    let Output {
        status,
        stdout,
        stderr,
    } = run(program, &[arguments, &[text(&path)]].concat());
    let said = output_text(&Output {
        status,
        stdout,
        stderr,
    });
    let said = said.replace(&format!("{}/", text(world.folder())), "");
    (status.success(), said)
}

#[test]
fn a_good_agent_configuration_is_shown_in_full_and_can_be_used_again() {
    let world = World::new();
    let arguments = ["check", "--config"];
    let (good, shown) = check(&world, "catchment-agent", &arguments, "agent.toml", AGENT);
    assert!(good, "{shown}");
    for line in [
        "protocol = 5",
        "client_id = \"catchment-gw-1\"",
        "limits.payload = \"64.0 KiB\"",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    let (good, again) = check(&world, "catchment-agent", &arguments, "again.toml", &shown);
    assert!(good, "{again}");
    assert_eq!(again, shown);
    let secret = AGENT.replace("qos = 1", "username = \"u\"\npassword = \"correct horse\"");
    let (good, shown) = check(&world, "catchment-agent", &arguments, "agent.toml", &secret);
    assert!(good && !shown.contains("horse"), "{shown}");
}

/// A fault of the second of two sources is shown at its line, whatever the other one has under the same key.
#[test]
fn a_fault_of_a_source_is_shown_in_that_source() {
    let world = World::new();
    let two = AGENT.replace(
        "[broker]\n",
        "[[source]]\ntype = \"mqtt\"\nname = \"lab\"\nurl = \"mqtt://lab\"\nqos = 0\n\
         [[source]]\ntype = \"mqtt\"\nname = \"plant\"\n",
    );
    let check = |contents: &str| {
        check(
            &world,
            "catchment-agent",
            &["check", "--config"],
            "agent.toml",
            contents,
        )
    };
    let (good, shown) = check(&two);
    assert!(good && shown.matches("\n[[source]]\n").count() == 2, "{shown}");
    for (from, to, expected) in [
        ("qos = 1", "qos = 2", "agent.toml:12:1: qos: must be 0 or 1"),
        (
            "\"plant\"",
            "\"lab\"",
            "agent.toml:10:1: name: there are two sources `lab`",
        ),
        (
            "type = \"mqtt\"\nname = \"plant\"",
            "type = \"http\"\nname = \"plant\"",
            "agent.toml:9:1: type: there is no type `http` of sources; known are `mqtt`",
        ),
        (
            "[aggregator]",
            "[broker]\nurl = \"mqtt://x\"\n[aggregator]",
            "agent.toml:14:2: broker: ",
        ),
    ] {
        assert!(two.contains(from), "{from}");
        let (good, said) = check(&two.replace(from, to));
        assert!(!good && said.contains(expected), "{expected} is not in\n{said}");
    }
}

#[test]
fn bad_agent_configurations_are_refused_with_their_place() {
    let world = World::new();
    let cases = [
        ("name = \"gw-1\"\n", "", "agent.toml:1:1: missing field `name`"),
        (
            "\"gw-1\"",
            "7",
            "agent.toml:1:8: invalid type: integer `7`, expected a string",
        ),
        (
            "\"gw-1\"",
            "\"\"",
            "agent.toml:1:1: name: must have 1 to 64 bytes",
        ),
        ("\"gw-1\"", "\"gw-1", "agent.toml:1:13: invalid basic string"),
        ("state", "staet", "did you mean `state`?"),
        ("qos = 1", "qso = 1", "agent.toml:5:1: unknown field `qso`"),
        ("qos = 1", "qso = 1", "did you mean `qos`?"),
        ("qos = 1", "qos = 2", "agent.toml:5:1: qos: must be 0 or 1"),
        (
            "qos = 1",
            "qos = -1",
            "agent.toml:5:7: invalid value: integer `-1`, expected u8",
        ),
        ("qos = 1", "qos = 1\nqos = 1", "agent.toml:6:1: duplicate key"),
        (
            "qos = 1",
            "protocol = 3",
            "agent.toml:5:1: protocol: must be 5, or 4 for MQTT 3.1.1",
        ),
        (
            "mqtt://",
            "http://",
            "agent.toml:4:1: url: must be mqtt://host:port or mqtts://host:port",
        ),
        ("mqtt://", "mqtts://", "agent.toml:4:1: url: mqtts needs `ca`"),
        (":1883", ":99999", "agent.toml:4:1: url: must be mqtt://host:port"),
        (
            "\"30s\"",
            "\"half a minute\"",
            "agent.toml:6:14: expected number at 0",
        ),
        (
            "\"30s\"",
            "\"1s\"",
            "agent.toml:6:1: keep_alive: must be between 5s and 18h",
        ),
        (
            "127.0.0.1:7443",
            "localhost",
            "agent.toml:8:1: address: must be host:port",
        ),
        ("\"8 MiB\"", "\"8 Mb.\"", "agent.toml:14:10:"),
        (
            "\"8 MiB\"",
            "\"1 KiB\"",
            "agent.toml:14:1: memory: must be at least 64 KiB",
        ),
        ("[limits]", "[limit]", "did you mean `limits`?"),
        (
            "[tls]\n",
            "[tls]\nname = \"x\"\n",
            "agent.toml:10:1: unknown field `name`",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(AGENT.contains(from), "{from}");
        let config = AGENT.replacen(from, to, 1);
        let (good, said) = check(
            &world,
            "catchment-agent",
            &["check", "--config"],
            "agent.toml",
            &config,
        );
        assert!(
            !good && said.contains(expected),
            "{from} → {to}: expected `{expected}` in\n{said}"
        );
        // Running refuses alike, before anything is touched.
        let (good, refused) = check(
            &world,
            "catchment-agent",
            &["run", "--config"],
            "agent.toml",
            &config,
        );
        assert!(!good && refused == said, "{refused}");
        assert!(!world.path("state").exists());
    }
    let missing = run(
        "catchment-agent",
        &["check", "--config", text(&world.path("none.toml"))],
    );
    assert!(!missing.status.success());
    assert!(output_text(&missing).contains("none.toml: cannot read the configuration: No such file"));
}

#[test]
fn bad_aggregator_configurations_are_refused_with_their_place() {
    let world = World::new();
    let good = "listen = \"127.0.0.1:0\"\nheartbeat = \"1s\"\n[tls]\npki = \"pki\"\n";
    let cases = [
        ("listen", "lisen", "aggregator.toml:1:1: unknown field `lisen`"),
        ("listen", "lisen", "did you mean `listen`?"),
        (
            "127.0.0.1:0",
            "localhost",
            "aggregator.toml:1:10: invalid socket address syntax",
        ),
        ("\"1s\"", "\"soon\"", "aggregator.toml:2:13: expected number at 0"),
        ("pki = \"pki\"", "", "aggregator.toml:3:1: tls: give either `pki`"),
        (
            "pki = \"pki\"",
            "pki = \"pki\"\nca = \"x\"",
            "aggregator.toml:3:1: tls: give either `pki`",
        ),
        (
            "pki = \"pki\"",
            "pki = \"nowhere\"",
            "cannot read certificates; make them with `catchment-aggregator pki init`",
        ),
        (
            "[tls]",
            "plan = \"none.toml\"\n[tls]",
            "none.toml: cannot read the plan",
        ),
    ];
    for (from, to, expected) in cases {
        let config = good.replacen(from, to, 1);
        let (good, said) = check(
            &world,
            "catchment-aggregator",
            &["serve", "--config"],
            "aggregator.toml",
            &config,
        );
        assert!(
            !good && said.contains(expected),
            "{from} → {to}: expected `{expected}` in\n{said}"
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn bad_plans_are_refused_with_their_place_and_a_good_one_says_what_it_means() {
    let world = World::new();
    let arguments = ["plan", "check"];
    let (good, said) = check(
        &world,
        "catchment-aggregator",
        &arguments,
        "plan.toml",
        FLEET_PLAN,
    );
    assert!(good && said.contains("room_climate"), "{said}");
    // Lines are counted from the empty first one.
    let cases = [
        (
            "watermark_delay =",
            "watermark_dely =",
            "plan.toml:10:1: unknown field `watermark_dely`",
        ),
        (
            "watermark_delay =",
            "watermark_dely =",
            "did you mean `watermark_delay`?",
        ),
        ("[[query]]", "[[querry]]", "did you mean `query`?"),
        (
            "key = [\"site\", \"device\"]",
            "key = [\"site\", \"devise\"]",
            "plan.toml:6:16: the key names tag `devise`",
        ),
        (
            "\"mean\"",
            "\"maen\"",
            "there is no aggregate `maen`; did you mean `mean`?",
        ),
        (
            "\"2s\" }",
            "\"0s\" }",
            "plan.toml:8:10: a window's size and step must be at least 1 ms",
        ),
        (
            "\"2s\" }",
            "\"10 parsecs\" }",
            "plan.toml:8:19: `10 parsecs` is not a duration",
        ),
        (
            "\"2s\" }",
            "10 }",
            "plan.toml:8:19: invalid type: integer `10`, expected a string",
        ),
        (
            "{ size = \"2s\" }",
            "{ session = \"0s\" }",
            "plan.toml:8:10: a session's gap must be at least 1 ms",
        ),
        (
            "{site}",
            "{Site}",
            "plan.toml:4:9: capture `{Site}` is not a name",
        ),
        (
            "{device}/env",
            "#/env",
            "plan.toml:4:9: `#` must be the last level",
        ),
        (
            "{device}/env",
            "{site}/env",
            "plan.toml:4:9: capture `{site}` stands twice",
        ),
        (
            "site_climate",
            "room_climate",
            "plan.toml:15:8: two queries are named `room_climate`",
        ),
        (
            "room_climate",
            "Room",
            "plan.toml:3:8: query name `Room` is not a name",
        ),
        (
            "0.01",
            "0",
            "plan.toml:7:33: the resolution of `hum` must be above 0",
        ),
        (
            "unit = \"ms\"",
            "unit = \"min\"",
            "time unit `min` is none of s, ms, us, ns, rfc3339",
        ),
        (
            "topic = \"sensors/{site}/{device}/env\"\n",
            "",
            "plan.toml:2:1: missing field `topic`",
        ),
        (
            "every = \"2s\"",
            "every = \"90s\"",
            "plan.toml:20:10: `every` is longer than `size`",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(FLEET_PLAN.contains(from), "{from}");
        let plan = FLEET_PLAN.replacen(from, to, 1);
        let (good, said) = check(&world, "catchment-aggregator", &arguments, "plan.toml", &plan);
        assert!(
            !good && said.contains(expected),
            "{from} → {to}: expected `{expected}` in\n{said}"
        );
        // Applying refuses alike, and leaves nothing behind.
        let database = world.path("applied.db");
        let apply = ["plan", "apply", "--database", text(&database)];
        let (good, refused) = check(&world, "catchment-aggregator", &apply, "plan.toml", &plan);
        assert!(!good && refused.contains(expected), "{refused}");
    }
}

/// A plan that contradicts the tables that are there is refused as a whole.
#[test]
fn a_plan_that_changes_what_a_table_means_is_refused() {
    let world = World::new();
    let database = world.path("catchment.db");
    let apply = ["plan", "apply", "--database", text(&database)];
    let plan = world.write("plan.toml", FLEET_PLAN);
    let said = run_ok("catchment-aggregator", &[&apply[..], &[text(&plan)]].concat());
    assert_eq!(said, "plan version 1 is in force\n");
    for (from, to, expected) in [
        (
            "window = { size = \"2s\" }",
            "window = { size = \"20s\" }",
            "its windows were of another kind, size or step",
        ),
        (
            "key = [\"site\", \"device\"]",
            "key = [\"device\", \"site\"]",
            "it had another key",
        ),
        ("key = [\"site\"]", "key = []", "it had another key"),
    ] {
        let (good, said) = check(
            &world,
            "catchment-aggregator",
            &apply,
            "plan.toml",
            &FLEET_PLAN.replacen(from, to, 1),
        );
        assert!(!good && said.contains(expected), "{from} → {to}:\n{said}");
    }
    let more = FLEET_PLAN.replacen("\"last\"]", "\"last\", \"delta\"]", 1);
    let (good, said) = check(&world, "catchment-aggregator", &apply, "plan.toml", &more);
    assert!(good && said.contains("plan version 2 is in force"), "{said}");
}
