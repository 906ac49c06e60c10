//! Configurations that can be used, and where each fault of one that cannot is shown.

use super::*;
use crate::source::mqtt::in_flight;

const GOOD: &str = r#"name = "gw-1"
[[source]]
type = "mqtt"
name = "plant"
url = "mqtt://127.0.0.1:1883"
[[source]]
name = "lab"
type = "mqtt"
url = "mqtt://lab"
[aggregator]
address = "127.0.0.1:7443"
[tls]
ca = "ca.pem"
certificate = "gw-1.pem"
key = "gw-1.key"
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, "agent.toml").map_err(|error| error.to_string())
}

fn check(from: &str, to: &str, expected: &str) {
    assert!(GOOD.contains(from), "{from}");
    assert_eq!(parse(&GOOD.replace(from, to)).unwrap_err(), expected);
}

/// The old form of one source.
fn of_before(lines: &str) -> String {
    let start = GOOD.find("[[source]]").unwrap();
    let end = GOOD.find("[aggregator]").unwrap();
    format!("{}{lines}{}", &GOOD[..start], &GOOD[end..])
}

fn mqtt(config: &Config, index: usize) -> &Mqtt {
    let Kind::Mqtt(mqtt) = &config.sources[index].kind;
    mqtt
}

#[test]
fn the_smallest_configuration_has_sound_defaults() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.client_id(&config.sources[0]), "catchment-gw-1:plant");
    assert_eq!(config.client_id(&config.sources[1]), "catchment-gw-1:lab");
    assert_eq!(mqtt(&config, 0).address(), Some(("127.0.0.1", 1883)));
    assert_eq!(config.settings().memory_bytes, 8 << 20);
    assert!(!config.is_of_before());
    let shown = parse(&config.describe()).unwrap();
    assert_eq!(shown.settings(), config.settings());
    assert_eq!(shown.describe(), config.describe());
}

#[test]
fn a_broker_of_before_is_a_source_with_the_session_that_it_had() {
    let lines = "url = \"mqtt://127.0.0.1:1883\"\nqos = 0\n";
    let config = parse(&of_before(&format!("[broker]\n{lines}"))).unwrap();
    assert!(config.is_of_before());
    assert_eq!(config.sources[0].name, "broker");
    assert_eq!(config.client_id(&config.sources[0]), "catchment-gw-1");
    let session = catchment_common::wire::checksum(b"mqtt://127.0.0.1:1883 catchment-gw-1");
    assert_eq!(config.settings().sources[0].session, session);
    let now = format!("[[source]]\ntype = \"mqtt\"\nname = \"broker\"\n{lines}");
    let now = parse(&of_before(&now)).unwrap();
    assert_eq!(now.settings(), config.settings());
    assert_eq!(now.describe(), config.describe());
}

/// Each source has its part of what can be remembered beside the journal, in memory mode too.
#[test]
fn sources_share_the_room_for_messages_under_way() {
    for (mode, bytes) in [("disk", 256 << 10), ("memory", 0)] {
        for count in [1, 2, 7, 64] {
            let one = |index| {
                format!(
                    "[[source]]\ntype = \"mqtt\"\nname = \"s{index}\"\nurl = \"mqtt://h{index}\"\n\
                     receive_maximum = 65535\n"
                )
            };
            let sources = (0..count).map(one).collect::<Vec<_>>().concat();
            let text = of_before(&sources)
                + &format!("[limits]\njournal = \"256 KiB\"\n[durability]\nmode = \"{mode}\"\n");
            let config = parse(&text).unwrap();
            let share = in_flight::share(bytes, count);
            assert!(share * count <= in_flight::room(bytes) && share * (count + 1) > in_flight::room(bytes));
            for (index, source) in config.settings().sources.iter().enumerate() {
                let told = usize::from(config.receive_maximum(mqtt(&config, index)));
                assert_eq!(told, (share / 8).min(65_535));
                assert_eq!(source.redelivery_window, told);
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_shown_where_it_stands() {
    check(
        "url = \"mqtt://lab\"",
        "url = \"mqtt://lab\"\nqoss = 1",
        "agent.toml:10:1: unknown field `qoss`, expected one of `url`, \
        `protocol`, `client_id`, `username`, `password`, `password_file`, `qos`, `receive_maximum`, `keep_alive`, \
        `session_expiry`, `gather`, `ca`, `certificate`, `key`; did you mean `qos`?",
    );
    check("name = \"gw-1\"\n", "", "agent.toml:1:1: missing field `name`");
    check(
        "[tls]",
        "[limits]\nmemory = \"-5 MiB\"\n[tls]",
        "agent.toml:13:10: invalid value: string \"-5 MiB\", expected parsable string; write a size with its unit, such \
        as \"8 MiB\"",
    );
    check(
        "url = \"mqtt://lab\"",
        "receive_maximum = 70000\nurl = \"mqtt://lab\"",
        "agent.toml:9:19: invalid value: integer `70000`, expected u16: a whole number from 0 to 65535",
    );
    check(
        "url = \"mqtt://lab\"",
        "url = \"mqtt://lab\"\n  keep_alive = \"soon\"",
        "agent.toml:10:16: expected number at 0",
    );
    check(
        "\"gw-1\"\n",
        "7\n",
        "agent.toml:1:8: invalid type: integer `7`, expected a string",
    );
    check(
        "name = \"lab\"",
        "name = 7",
        "agent.toml:7:8: invalid type: integer `7`, expected a string",
    );
    check(
        "url = \"mqtt://lab\"\n",
        "",
        "agent.toml:6:1: missing field `url`",
    );
    check("[tls]", "[tls", "agent.toml:12:5: unclosed table, expected `]`");
}

/// Keys that stand in several tables are shown in their own.
#[test]
fn each_fault_is_shown_at_its_own_key() {
    let of_lab = |line: &str, fault: &str| {
        let added = format!("url = \"mqtt://lab\"\n  {line}");
        check(
            "url = \"mqtt://lab\"",
            &added,
            &format!("agent.toml:10:3: {fault}"),
        );
    };
    of_lab("protocol = 3", "protocol: must be 5, or 4 for MQTT 3.1.1");
    of_lab("qos = 2", "qos: must be 0 or 1");
    of_lab("receive_maximum = 0", "receive_maximum: must be at least 1");
    of_lab("keep_alive = \"1s\"", "keep_alive: must be between 5s and 18h");
    of_lab("gather = \"2s\"", "gather: must be at most 1s");
    of_lab(
        "certificate = \"a.pem\"",
        "certificate: `certificate` and `key` go together",
    );
    of_lab("key = \"a.key\"", "key: `certificate` and `key` go together");
    check(
        "url = \"mqtt://lab\"",
        "url = \"http://lab\"",
        "agent.toml:9:1: url: must be mqtt://host:port or mqtts://host:port",
    );
    check(
        "url = \"mqtt://lab\"",
        "url = \"mqtts://lab\"",
        "agent.toml:9:1: url: mqtts needs `ca`, the authority that the broker's certificate comes from",
    );
    check(
        "url = \"mqtt://lab\"",
        "password = \"a\"\npassword_file = \"b\"\nurl = \"mqtt://lab\"",
        "agent.toml:10:1: password_file: give `password` or `password_file`, not both",
    );
    check(
        "127.0.0.1:7443",
        "127.0.0.1",
        "agent.toml:11:1: address: must be host:port",
    );
    let long = format!("name = \"{}\"", "x".repeat(65));
    check(
        "name = \"gw-1\"",
        &long,
        "agent.toml:1:1: name: must have 1 to 64 bytes",
    );
    for (line, fault) in [
        ("[limits]\nmemory = \"1 KiB\"", "memory: must be at least 64 KiB"),
        (
            "[limits]\njournal = \"1 KiB\"",
            "journal: must be at least 256 KiB",
        ),
        ("[limits]\nspool = \"1 KiB\"", "spool: must be at least 1024 KiB"),
        (
            "[limits]\npayload = \"0 B\"",
            "payload: must be between 1 byte and 16 MiB",
        ),
        (
            "[durability]\ncommit_delay = \"2s\"",
            "commit_delay: must be at most 1s",
        ),
        (
            "[durability]\nretain_acked = \"31d\"",
            "retain_acked: must be at most 30 days",
        ),
    ] {
        check(
            "[tls]",
            &format!("{line}\n[tls]"),
            &format!("agent.toml:13:1: {fault}"),
        );
    }
}

/// The key is written as TOML allows it: quoted, dotted, in an inline table, in one line with others.
#[test]
fn keys_are_found_however_they_are_written() {
    let (start, end) = (
        GOOD.find("[[source]]").unwrap(),
        GOOD.find("[aggregator]").unwrap(),
    );
    let inline = "source = [{ type = \"mqtt\", name = \"a\", url = \"mqtt://a\" }, { type = \"mqtt\", name = \"b\", \
                  url = \"mqtt://b\", \"qos\" = 9 }]\nlimits.memory = \"1 KiB\"\n";
    let text = format!("{}{inline}{}", &GOOD[..start], &GOOD[end..]);
    assert_eq!(
        parse(&text).unwrap_err(),
        "agent.toml:2:107: qos: must be 0 or 1\nagent.toml:3:8: memory: must be at least 64 KiB"
    );
}

#[test]
fn sources_have_a_type_a_name_and_a_session_each() {
    check(
        "name = \"lab\"\ntype = \"mqtt\"",
        "name = \"lab\"\ntype = \"kafka\"",
        "agent.toml:8:1: type: there is no type `kafka` of sources; known are `mqtt`",
    );
    check(
        "name = \"lab\"\ntype = \"mqtt\"",
        "name = \"lab\"",
        "agent.toml:6:1: type: is missing; write type = \"mqtt\"",
    );
    check(
        "name = \"lab\"\n",
        "",
        "agent.toml:6:1: name: is missing: what queries and logs call the source, such as name = \"plant\"",
    );
    check(
        "\"lab\"",
        "\"the lab\"",
        "agent.toml:7:1: name: must have 1 to 64 letters, digits, `_`, `-` and `.`",
    );
    check(
        "\"lab\"",
        "\"plant\"",
        "agent.toml:7:1: name: there are two sources `plant`; give each a name of its own",
    );
    let twice = "the sources `plant` and `lab` have one client id at one broker, which would take each other's connection; \
                 give each a `client_id` of its own";
    let own_id = GOOD.replace("url =", "client_id = \"gw\"\nurl =");
    assert!(parse(&own_id).is_ok(), "two brokers");
    let one_broker = own_id.replace("mqtt://lab", "mqtt://127.0.0.1");
    assert_eq!(
        parse(&one_broker).unwrap_err(),
        format!("agent.toml:10:1: client_id: {twice}")
    );
    assert!(parse(&GOOD.replace("mqtt://lab", "mqtt://127.0.0.1")).is_ok());
    let by_default = GOOD.replace("mqtt://lab", "mqtt://127.0.0.1");
    let by_default = by_default.replacen("url =", "client_id = \"catchment-gw-1:lab\"\nurl =", 1);
    assert_eq!(
        parse(&by_default).unwrap_err(),
        format!("agent.toml:10:1: url: {twice}")
    );
}

#[test]
fn there_is_one_source_at_least_and_not_too_many() {
    let none = "agent.toml:1:1: there is no `[[source]]`; write one with type = \"mqtt\", a `name` and the `url` of a broker";
    assert_eq!(parse(&of_before("")).unwrap_err(), none);
    assert_eq!(parse(&of_before("source = []\n")).unwrap_err(), none);
    assert_eq!(
        parse(&of_before("[source]\nname = \"a\"\n")).unwrap_err(),
        "agent.toml:2:2: source: write `[[source]]`, in two pairs of brackets: there may be several"
    );
    assert_eq!(
        parse(&of_before("source = [7]\n")).unwrap_err(),
        "agent.toml:2:11: type: write `[[source]]`: a source is a table"
    );
    let one =
        |index| format!("[[source]]\ntype = \"mqtt\"\nname = \"s{index}\"\nurl = \"mqtt://h{index}\"\n");
    let many = |count| of_before(&(0..count).map(one).collect::<Vec<_>>().concat());
    assert!(parse(&many(64)).is_ok());
    assert_eq!(
        parse(&many(65)).unwrap_err(),
        "agent.toml:259:1: type: more than 64 sources"
    );
}

#[test]
fn both_forms_together_are_refused() {
    let text = GOOD.replace("[aggregator]", "[broker]\nurl = \"mqtt://old\"\n[aggregator]");
    assert_eq!(
        parse(&text).unwrap_err(),
        "agent.toml:10:2: broker: is what one `[[source]]` with type = \"mqtt\" was called before: with both there is no \
         telling what is meant; make a `[[source]]` of it"
    );
    let fault = parse(&of_before("[broker]\nurl = \"mqtt://old\"\nqos = 7\n")).unwrap_err();
    assert_eq!(fault, "agent.toml:4:1: qos: must be 0 or 1");
}

#[test]
fn addresses_of_every_kind() {
    let address = |url: &str| {
        let mut config = parse(GOOD).unwrap();
        let Kind::Mqtt(mqtt) = &mut config.sources[0].kind;
        mqtt.url = url.into();
        mqtt.address().map(|(host, port)| format!("{host} {port}"))
    };
    assert_eq!(address("mqtt://broker"), Some("broker 1883".into()));
    assert_eq!(address("mqtts://broker/"), Some("broker 8883".into()));
    assert_eq!(address("mqtt://[::1]:7"), Some("[::1] 7".into()));
    assert_eq!(address("mqtt://[::1]"), Some("[::1] 1883".into()));
    assert_eq!(address("mqtt://:1883"), None);
    assert_eq!(address("broker:1883"), None);
    assert_eq!(address("mqtt://broker:99999"), None);
}
