//! The two MQTT versions behind one face. rumqttc keeps a twin of its client for each, without a trait in common.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use rumqttc::{Outgoing, TlsConfiguration, Transport, v5};

use super::Incoming;
use crate::io::config::{Broker, Config};
use crate::io::tls;
use crate::source::in_flight::Packet;

/// What a client has to tell.
pub(super) enum Polled {
    Connected {
        resumed: bool,
    },
    Subscribed {
        refused: usize,
    },
    Message(Incoming),
    /// An acknowledgement went out.
    Acknowledged,
    /// An UNSUBSCRIBE went out, with this packet id.
    Unsubscribing(u16),
    /// The broker has answered the one with this packet id.
    Unsubscribed(u16),
    Other,
}

/// A connection that is polled.
pub(super) trait Session: Send {
    /// Waits for the next event. Errors are for the log; polling again connects again.
    fn poll(&mut self) -> impl Future<Output = Result<Polled, String>> + Send;
    /// The next event that is there already, without a look at the socket.
    fn next_buffered(&mut self) -> Option<Polled>;
    /// Drops the connection.
    fn reset(&mut self);
}

/// Acknowledges messages, in the version that is spoken.
#[derive(Debug)]
pub(super) enum Acknowledgements {
    Five(v5::AsyncClient),
    Four(rumqttc::AsyncClient),
}

impl Acknowledgements {
    /// Queues the acknowledgement of a QoS 1 message. There is room for all that can be under way; when the queue is
    /// gone, so is the connection, and the message comes again.
    pub(super) fn acknowledge(&self, packet: u16) {
        match self {
            Self::Five(client) => {
                let mut publish =
                    v5::mqttbytes::v5::Publish::new("", v5::mqttbytes::QoS::AtLeastOnce, "", None);
                publish.pkid = packet;
                let _ = client.try_ack(&publish);
            }
            Self::Four(client) => {
                let mut publish = rumqttc::Publish::new("", rumqttc::QoS::AtLeastOnce, "");
                publish.pkid = packet;
                let _ = client.try_ack(&publish);
            }
        }
    }
}

impl Acknowledgements {
    /// Queues an UNSUBSCRIBE for a filter that was never subscribed to; false when it cannot be queued.
    pub(super) fn barrier(&self) -> bool {
        match self {
            Self::Five(client) => client.try_unsubscribe(BARRIER_FILTER).is_ok(),
            Self::Four(client) => client.try_unsubscribe(BARRIER_FILTER).is_ok(),
        }
    }

    /// Queues a message of the agent's own, at QoS 0: false when there is no room, or no connection to wait for.
    pub(super) fn publish(&self, topic: &str, payload: Vec<u8>) -> bool {
        match self {
            Self::Five(client) => client
                .try_publish(topic, v5::mqttbytes::QoS::AtMostOnce, false, payload)
                .is_ok(),
            Self::Four(client) => client
                .try_publish(topic, rumqttc::QoS::AtMostOnce, false, payload)
                .is_ok(),
        }
    }
}

/// No plan has this filter, and no broker asks for a permission to unsubscribe.
const BARRIER_FILTER: &str = "catchment/acknowledged";

fn packet(at_least_once: bool, id: u16, duplicate: bool) -> Option<Packet> {
    (at_least_once && id != 0).then_some(Packet { id, duplicate })
}

/// What is sent to the broker; apart from the session, because that is borrowed while it is polled.
pub(super) trait Requests: Send + Sync {
    fn subscribe(&self, filters: &[String]) -> Result<(), String>;
    fn unsubscribe(&self, filter: &str) -> Result<(), String>;
}

/// Requests that may wait for the connection: an acknowledgement for each message that can be under way, and some.
const REQUESTS_MAX: usize = 70_000;
/// Of its own the agent publishes commands at QoS 0 alone; the client sizes its tables by this.
const OUTGOING_MAX: u16 = 16;
/// Packets up to this size are taken, so that oversized payloads can be counted rather than break the connection.
const PACKET_BYTES_MIN: u64 = 1 << 20;
/// MQTT 3.1.1 has no way to tell the broker a limit. A packet that is refused comes again with the session, for ever,
/// so the largest that the protocol has is read, counted as oversized and dropped.
const PACKET_BYTES_OF_3_1_1: usize = 268_435_455;
const CONNECT_WAIT: Duration = Duration::from_secs(10);

fn packet_bytes(config: &Config) -> u64 {
    (config.limits.payload.as_u64() * 2).max(PACKET_BYTES_MIN)
}

fn transport(broker: &Broker) -> Result<Transport> {
    let (true, Some(ca)) = (broker.is_tls(), &broker.ca) else {
        return Ok(Transport::Tcp);
    };
    let identity = broker.certificate.as_deref().zip(broker.key.as_deref());
    Ok(Transport::Tls(TlsConfiguration::Rustls(
        tls::client(ca, identity)?.into(),
    )))
}

fn credentials(broker: &Broker) -> Result<Option<(String, String)>> {
    let Some(username) = broker.username.clone() else {
        return Ok(None);
    };
    let password = match (&broker.password, &broker.password_file) {
        (Some(password), _) => password.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .with_context(|| format!("{}: cannot read the broker's password", file.display()))?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
        (None, None) => String::new(),
    };
    Ok(Some((username, password)))
}

fn address(broker: &Broker) -> Result<(&str, u16)> {
    broker
        .address()
        .context("the broker's URL is not mqtt://host:port")
}

pub(super) struct Five(v5::EventLoop);
pub(super) struct FiveRequests(v5::AsyncClient, u8);

pub(super) fn version_5(config: &Config) -> Result<(Five, FiveRequests)> {
    let broker = &config.broker;
    let (host, port) = address(broker)?;
    let mut options = v5::MqttOptions::new(config.client_id(), host, port);
    options
        .set_keep_alive(broker.keep_alive)
        .set_manual_acks(true)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(
            u32::try_from(broker.session_expiry.as_secs()).unwrap_or(u32::MAX),
        ))
        .set_receive_maximum(Some(config.receive_maximum()))
        .set_max_packet_size(Some(u32::try_from(packet_bytes(config)).unwrap_or(u32::MAX)))
        .set_topic_alias_max(None)
        .set_connection_timeout(CONNECT_WAIT.as_secs())
        .set_outgoing_inflight_upper_limit(OUTGOING_MAX)
        .set_transport(transport(broker)?);
    if let Some((username, password)) = credentials(broker)? {
        options.set_credentials(username, password);
    }
    let (client, session) = v5::AsyncClient::new(options, REQUESTS_MAX);
    Ok((Five(session), FiveRequests(client, broker.qos)))
}

impl Session for Five {
    async fn poll(&mut self) -> Result<Polled, String> {
        self.0
            .poll()
            .await
            .map(event_5)
            .map_err(|error| error.to_string())
    }

    fn next_buffered(&mut self) -> Option<Polled> {
        self.0.state.events.pop_front().map(event_5)
    }

    fn reset(&mut self) {
        self.0.clean();
    }
}

fn event_5(event: v5::Event) -> Polled {
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    match event {
        v5::Event::Incoming(Packet::ConnAck(ack)) => Polled::Connected {
            resumed: ack.session_present,
        },
        v5::Event::Incoming(Packet::SubAck(ack)) => {
            let granted = |code: &&SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
            Polled::Subscribed {
                refused: ack.return_codes.iter().filter(granted).count(),
            }
        }
        v5::Event::Incoming(Packet::Publish(publish)) => Polled::Message(Incoming {
            topic: publish.topic,
            payload: publish.payload,
            retained: publish.retain,
            packet: packet(
                publish.qos == v5::mqttbytes::QoS::AtLeastOnce,
                publish.pkid,
                publish.dup,
            ),
        }),
        v5::Event::Incoming(Packet::UnsubAck(ack)) => Polled::Unsubscribed(ack.pkid),
        v5::Event::Outgoing(outgoing) => event_out(&outgoing),
        v5::Event::Incoming(_) => Polled::Other,
    }
}

fn event_out(outgoing: &Outgoing) -> Polled {
    match outgoing {
        Outgoing::PubAck(_) => Polled::Acknowledged,
        Outgoing::Unsubscribe(id) => Polled::Unsubscribing(*id),
        _ => Polled::Other,
    }
}

impl FiveRequests {
    pub(super) fn acknowledgements(&self) -> Acknowledgements {
        Acknowledgements::Five(self.0.clone())
    }
}

impl Requests for FiveRequests {
    fn subscribe(&self, filters: &[String]) -> Result<(), String> {
        use v5::mqttbytes::QoS;
        use v5::mqttbytes::v5::{Filter, RetainForwardRule};
        let qos = if self.1 == 0 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        };
        let filters = filters.iter().map(|path| Filter {
            path: path.clone(),
            qos,
            retain_forward_rule: RetainForwardRule::Never,
            ..Filter::default()
        });
        self.0
            .try_subscribe_many(filters)
            .map_err(|error| error.to_string())
    }

    fn unsubscribe(&self, filter: &str) -> Result<(), String> {
        self.0.try_unsubscribe(filter).map_err(|error| error.to_string())
    }
}

pub(super) struct Four(rumqttc::EventLoop);
pub(super) struct FourRequests(rumqttc::AsyncClient, u8);

pub(super) fn version_4(config: &Config) -> Result<(Four, FourRequests)> {
    let broker = &config.broker;
    let (host, port) = address(broker)?;
    let mut options = rumqttc::MqttOptions::new(config.client_id(), host, port);
    options
        .set_keep_alive(broker.keep_alive)
        .set_manual_acks(true)
        .set_clean_session(false)
        .set_max_packet_size(PACKET_BYTES_OF_3_1_1, PACKET_BYTES_OF_3_1_1)
        .set_inflight(OUTGOING_MAX)
        .set_transport(transport(broker)?);
    if let Some((username, password)) = credentials(broker)? {
        options.set_credentials(username, password);
    }
    let (client, mut session) = rumqttc::AsyncClient::new(options, REQUESTS_MAX);
    session
        .network_options
        .set_connection_timeout(CONNECT_WAIT.as_secs());
    Ok((Four(session), FourRequests(client, broker.qos)))
}

impl Session for Four {
    async fn poll(&mut self) -> Result<Polled, String> {
        self.0
            .poll()
            .await
            .map(event_4)
            .map_err(|error| error.to_string())
    }

    fn next_buffered(&mut self) -> Option<Polled> {
        self.0.state.events.pop_front().map(event_4)
    }

    fn reset(&mut self) {
        self.0.clean();
    }
}

fn event_4(event: rumqttc::Event) -> Polled {
    use rumqttc::{Packet, SubscribeReasonCode};
    match event {
        rumqttc::Event::Incoming(Packet::ConnAck(ack)) => Polled::Connected {
            resumed: ack.session_present,
        },
        rumqttc::Event::Incoming(Packet::SubAck(ack)) => {
            let refused = |code: &&SubscribeReasonCode| matches!(code, SubscribeReasonCode::Failure);
            Polled::Subscribed {
                refused: ack.return_codes.iter().filter(refused).count(),
            }
        }
        rumqttc::Event::Incoming(Packet::Publish(publish)) => Polled::Message(Incoming {
            topic: Bytes::from(publish.topic),
            payload: publish.payload,
            retained: publish.retain,
            packet: packet(
                publish.qos == rumqttc::QoS::AtLeastOnce,
                publish.pkid,
                publish.dup,
            ),
        }),
        rumqttc::Event::Incoming(Packet::UnsubAck(ack)) => Polled::Unsubscribed(ack.pkid),
        rumqttc::Event::Outgoing(outgoing) => event_out(&outgoing),
        rumqttc::Event::Incoming(_) => Polled::Other,
    }
}

impl FourRequests {
    pub(super) fn acknowledgements(&self) -> Acknowledgements {
        Acknowledgements::Four(self.0.clone())
    }
}

impl Requests for FourRequests {
    fn subscribe(&self, filters: &[String]) -> Result<(), String> {
        use rumqttc::{QoS, SubscribeFilter};
        let qos = if self.1 == 0 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        };
        let filters = filters.iter().map(|path| SubscribeFilter::new(path.clone(), qos));
        self.0
            .try_subscribe_many(filters)
            .map_err(|error| error.to_string())
    }

    fn unsubscribe(&self, filter: &str) -> Result<(), String> {
        self.0.try_unsubscribe(filter).map_err(|error| error.to_string())
    }
}
