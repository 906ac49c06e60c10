//! The ways to reach a broker: MQTT 5 and 3.1.1, with TLS, user name and password.

use std::path::PathBuf;

use catchment_tests::agent::AgentConfig;
use catchment_tests::aggregator::Aggregator;
use catchment_tests::broker::{Broker, Secured};
use catchment_tests::mqtt::Publisher;
use catchment_tests::process::Process;
use catchment_tests::verdict::{publish_fleet, wait_until_right};
use catchment_tests::world::{FLEET_PLAN, World};

use crate::fleet::start_minutes_ago;

const SECRET: &str = "correct horse";

/// Certificates for the broker from an authority of its own, and where that authority's certificate is.
fn secured(world: &World) -> (Secured, PathBuf) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let secured = Secured {
        certificate: world.write("broker.pem", certificate.pem()),
        key: world.write("broker.key", key.serialize_pem()),
        username: "gateway",
        password: SECRET,
    };
    (secured, world.write("broker-ca.pem", authority.pem()))
}

fn check_fleet(world: &World, broker: &Broker, aggregator: &Aggregator) {
    let truth = world.path("truth.jsonl");
    let start = start_minutes_ago(5);
    let options = [
        "--devices",
        "20",
        "--duration",
        "1m",
        "--unpaced",
        "--bad",
        "0.05",
        "--start",
        &start,
    ];
    publish_fleet(&[broker.url()], &truth, &options);
    wait_until_right(aggregator, &[truth]);
}

/// With each version the fleet's rows are right, and the agent learns that the broker has its acknowledgements.
#[test]
fn an_agent_speaks_both_versions_of_mqtt() {
    for protocol in [5, 4] {
        let world = World::new();
        let broker = Broker::mosquitto(&world, "broker");
        let aggregator = Aggregator::start(&world, FLEET_PLAN);
        let mut agent = AgentConfig::new("gw-1", &broker.url(), &aggregator)
            .broker_line(&format!("protocol = {protocol}"))
            .start_subscribed(&world);
        check_fleet(&world, &broker, &aggregator);
        agent.wait_for("the broker has these acknowledgements");
    }
}

/// A message larger than any limit of the agent must not stall the stream: MQTT 5 brokers keep it, and with 3.1.1,
/// which cannot say how much is too much, it is read, counted and dropped.
#[test]
fn a_monstrous_message_does_not_stall_the_stream() {
    for protocol in [5, 4] {
        let world = World::new();
        let broker = Broker::mosquitto(&world, "broker");
        let aggregator = Aggregator::start(&world, FLEET_PLAN);
        let agent = AgentConfig::new("gw-1", &broker.url(), &aggregator)
            .broker_line(&format!("protocol = {protocol}"))
            .start_subscribed(&world);
        let mut publisher = Publisher::connect(broker.address(), "publisher");
        publisher.publish("sensors/berlin/dev-1/env", &vec![b' '; 3 << 20]);
        let now = jiff::Timestamp::now().as_millisecond();
        let good = format!(r#"{{"ts":{now},"temp":21.5}}"#);
        publisher.publish("sensors/berlin/dev-1/env", good.as_bytes());
        // Both queries' pipelines see the messages.
        aggregator.wait_for_counter("accepted", 2);
        aggregator.wait_for_counter("rejected_oversized_payload", 2);
        assert!(
            !agent.log().contains("no connection to the broker"),
            "it never lost the connection"
        );
    }
}

/// Each message goes to one agent of the group, and counts once.
#[test]
fn agents_that_share_a_subscription_split_the_messages() {
    let world = World::new();
    let broker = Broker::mosquitto(&world, "broker");
    let plan = FLEET_PLAN.replace("topic = \"", "topic = \"$share/plant/");
    assert_ne!(plan, FLEET_PLAN);
    let aggregator = Aggregator::start(&world, &plan);
    let start = |name: &str| AgentConfig::new(name, &broker.url(), &aggregator).start_subscribed(&world);
    let _agents = [start("gw-1"), start("gw-2")];
    let mut publisher = Publisher::connect(broker.address(), "publisher");
    let now = jiff::Timestamp::now().as_millisecond();
    for number in 0..40 {
        let reading = format!(r#"{{"ts":{now},"temp":{number}}}"#);
        publisher.publish("sensors/berlin/dev-1/env", reading.as_bytes());
    }
    // Both queries' pipelines see each message once.
    aggregator.wait_for_counter("accepted", 80);
    let agents = "SELECT count(DISTINCT agent) FROM catchment_counter WHERE name = 'accepted' AND value > 0";
    let agents: i64 = aggregator.sql().query_row(agents, [], |row| row.get(0)).unwrap();
    assert_eq!(agents, 2, "each agent has some");
}

#[test]
fn an_agent_logs_in_over_tls() {
    let world = World::new();
    let (secured, ca) = secured(&world);
    let broker = Broker::secured_mosquitto(&world, "broker", &secured);
    let aggregator = Aggregator::start(&world, FLEET_PLAN);
    world.write("password", format!("{SECRET}\n"));
    let agent = AgentConfig::new("gw-1", &broker.secure_url(), &aggregator)
        .broker_line(&format!("ca = {:?}", ca.display().to_string()))
        .broker_line("username = \"gateway\"\npassword_file = \"password\"");
    let _agent = agent.start_subscribed(&world);
    check_fleet(&world, &broker, &aggregator);
}

#[test]
fn a_broker_that_cannot_be_trusted_or_does_not_let_in_is_told_and_tried_again() {
    let world = World::new();
    let (secured, ca) = secured(&world);
    let broker = Broker::secured_mosquitto(&world, "broker", &secured);
    let aggregator = Aggregator::start(&world, FLEET_PLAN);
    let agent = |name: &str, ca: &str, password: &str| -> Process {
        AgentConfig::new(name, &broker.secure_url(), &aggregator)
            .broker_line(&format!(
                "ca = {ca:?}\nusername = \"gateway\"\npassword = {password:?}"
            ))
            .start(&world)
    };
    // The aggregator's authority is not the broker's.
    let mut distrusting = agent("gw-1", "pki/ca.pem", SECRET);
    let line = distrusting.wait_for("no connection to the broker");
    assert!(
        line.contains("UnknownIssuer") || line.contains("BadSignature"),
        "{line}"
    );
    let mut refused = agent("gw-2", &ca.display().to_string(), "wrong");
    let line = refused.wait_for("no connection to the broker");
    assert!(
        line.contains("NotAuthorized") || line.contains("BadUserNamePassword"),
        "{line}"
    );
    assert!(!line.contains("wrong"), "passwords do not go to the log: {line}");
    assert!(distrusting.is_running() && refused.is_running(), "they try again");
}
