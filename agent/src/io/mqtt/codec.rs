//! Packets but for the PUBLISH, in both versions of MQTT: what the agent sends, and what a broker answers. A library
//! knows their bytes; it keeps a twin of each type for each version.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::{QoS, v5};

use crate::io::config::Mqtt;
use crate::source::mqtt::packets::Version;
use crate::source::mqtt::subscriptions::Subscription;

/// What a broker says besides messages.
#[derive(Debug)]
pub(super) enum Said {
    /// It has a session.
    Connected {
        /// The one that was there before.
        resumed: bool,
        /// It names the subscriptions that copies come through.
        identifies: bool,
        /// How often it wants a sign of life, if not as often as it was told.
        keep_alive: Option<u16>,
    },
    /// It does not let the agent in.
    Refused(String),
    /// Its answer to a SUBSCRIBE.
    Subscribed {
        packet: u16,
        /// Which filters it refused, by their place, and why.
        refused: Vec<(usize, String)>,
    },
    /// Its answer to an UNSUBSCRIBE.
    Unsubscribed(u16),
    /// Its answer to a sign of life.
    Alive,
    /// It closes the connection.
    Closed {
        /// Another client came under the same id.
        taken_over: bool,
        /// Its reason.
        why: String,
    },
}

/// Who connects.
pub(super) struct Client<'c> {
    pub(super) id: &'c str,
    pub(super) login: Option<&'c (String, String)>,
    pub(super) receive_maximum: u16,
}

/// Packets of the agent's own are small, except a SUBSCRIBE to many filters.
const BYTES_MAX: usize = 1 << 20;

/// The version that a broker is spoken to in.
pub(super) fn version(broker: &Mqtt) -> Version {
    if broker.protocol == 5 {
        Version::Five
    } else {
        Version::Four
    }
}

/// A CONNECT to the session that is there, or to a new one that outlives the connection.
pub(super) fn connect(broker: &Mqtt, client: &Client<'_>, out: &mut BytesMut) -> Result<(), String> {
    let keep_alive = u16::try_from(broker.keep_alive.as_secs()).unwrap_or(u16::MAX);
    let id = client.id.to_owned();
    match version(broker) {
        Version::Five => {
            let mut properties = v5::ConnectProperties::new();
            properties.session_expiry_interval =
                Some(u32::try_from(broker.session_expiry.as_secs()).unwrap_or(u32::MAX));
            properties.receive_maximum = Some(client.receive_maximum);
            let connect = v5::Connect {
                keep_alive,
                client_id: id,
                clean_start: false,
                properties: Some(properties),
            };
            let login = client
                .login
                .map(|(user, password)| v5::Login::new(user, password));
            write_5(&v5::Packet::Connect(connect, None, login), out)
        }
        Version::Four => {
            let mut connect = v4::Connect::new(id);
            connect.keep_alive = keep_alive;
            connect.clean_session = false;
            if let Some((user, password)) = client.login {
                connect.set_login(user, password);
            }
            write_4(&v4::Packet::Connect(connect), out)
        }
    }
}

/// A SUBSCRIBE. An identifier other than 0 is that of all its filters.
pub(super) fn subscribe(
    version: Version,
    at_least_once: bool,
    packet: u16,
    subscriptions: &[Subscription],
    out: &mut BytesMut,
) -> Result<(), String> {
    let paths = subscriptions.iter().map(|one| one.filter.as_str().to_owned());
    match version {
        Version::Five => {
            let qos = if at_least_once {
                QoS::AtLeastOnce
            } else {
                QoS::AtMostOnce
            };
            // What is retained comes once, when a subscription is new: it is counted, and does not count.
            let filters = paths.map(|path| v5::Filter {
                retain_forward_rule: v5::RetainForwardRule::OnNewSubscribe,
                ..v5::Filter::new(path, qos)
            });
            let id = subscriptions
                .first()
                .map(|one| one.id as usize)
                .filter(|id| *id > 0);
            let properties = id.map(|id| v5::SubscribeProperties {
                id: Some(id),
                user_properties: Vec::new(),
            });
            let mut subscribe = v5::Subscribe::new_many(filters, properties);
            subscribe.pkid = packet;
            write_5(&v5::Packet::Subscribe(subscribe), out)
        }
        Version::Four => {
            let qos = if at_least_once {
                rumqttc::QoS::AtLeastOnce
            } else {
                rumqttc::QoS::AtMostOnce
            };
            let mut subscribe =
                v4::Subscribe::new_many(paths.map(|path| v4::SubscribeFilter::new(path, qos)));
            subscribe.pkid = packet;
            write_4(&v4::Packet::Subscribe(subscribe), out)
        }
    }
}

/// An UNSUBSCRIBE.
pub(super) fn unsubscribe(
    version: Version,
    packet: u16,
    filters: impl Iterator<Item = String>,
    out: &mut BytesMut,
) -> Result<(), String> {
    match version {
        Version::Five => {
            let unsubscribe = v5::Unsubscribe {
                pkid: packet,
                filters: filters.collect(),
                properties: None,
            };
            write_5(&v5::Packet::Unsubscribe(unsubscribe), out)
        }
        Version::Four => {
            let unsubscribe = v4::Unsubscribe {
                pkid: packet,
                topics: filters.collect(),
            };
            write_4(&v4::Packet::Unsubscribe(unsubscribe), out)
        }
    }
}

/// A PUBLISH at QoS 0.
pub(super) fn publish(
    version: Version,
    topic: &str,
    payload: Vec<u8>,
    out: &mut BytesMut,
) -> Result<(), String> {
    match version {
        Version::Five => {
            let publish = v5::Publish::new(topic, QoS::AtMostOnce, payload, None);
            write_5(&v5::Packet::Publish(publish), out)
        }
        Version::Four => {
            let publish = v4::Publish::new(topic, rumqttc::QoS::AtMostOnce, payload);
            write_4(&v4::Packet::Publish(publish), out)
        }
    }
}

/// A PUBACK, which has the same bytes in both versions.
pub(super) fn acknowledge(packet: u16, out: &mut BytesMut) {
    let [high, low] = packet.to_be_bytes();
    out.extend_from_slice(&[0x40, 2, high, low]);
}

/// A sign of life.
pub(super) fn ping(out: &mut BytesMut) {
    out.extend_from_slice(&[0xc0, 0]);
}

/// The end of a connection whose session goes on.
pub(super) fn disconnect(out: &mut BytesMut) {
    out.extend_from_slice(&[0xe0, 0]);
}

fn write_5(packet: &v5::Packet, out: &mut BytesMut) -> Result<(), String> {
    let written = packet.write(out, Some(BYTES_MAX as u32));
    written.map(|_| ()).map_err(|error| error.to_string())
}

fn write_4(packet: &v4::Packet, out: &mut BytesMut) -> Result<(), String> {
    let written = packet.write(out, BYTES_MAX);
    written.map(|_| ()).map_err(|error| error.to_string())
}

/// Reads a packet that is there as a whole.
pub(super) fn read(version: Version, packet: &[u8]) -> Result<Said, String> {
    if packet == [0xe0, 0] {
        return Ok(Said::Closed {
            taken_over: false,
            why: "the broker closed the connection".into(),
        });
    }
    let mut bytes = BytesMut::from(packet);
    match version {
        Version::Five => read_5(v5::Packet::read(&mut bytes, None).map_err(|error| error.to_string())?),
        Version::Four => {
            read_4(v4::Packet::read(&mut bytes, packet.len()).map_err(|error| error.to_string())?)
        }
    }
}

fn read_5(packet: v5::Packet) -> Result<Said, String> {
    Ok(match packet {
        v5::Packet::ConnAck(ack) if ack.code == v5::ConnectReturnCode::Success => {
            let properties = ack.properties.as_ref();
            let available = properties.and_then(|all| all.subscription_identifiers_available);
            Said::Connected {
                resumed: ack.session_present,
                identifies: available != Some(0),
                keep_alive: properties.and_then(|all| all.server_keep_alive),
            }
        }
        v5::Packet::ConnAck(ack) => {
            let text = ack.properties.and_then(|all| all.reason_string);
            Said::Refused(refusal(&format!("{:?}", ack.code), text))
        }
        v5::Packet::SubAck(ack) => {
            let refused = ack.return_codes.iter().enumerate();
            let refused = refused.filter(|(_, code)| !matches!(code, v5::SubscribeReasonCode::Success(_)));
            Said::Subscribed {
                packet: ack.pkid,
                refused: refused
                    .map(|(place, code)| (place, format!("{code:?}")))
                    .collect(),
            }
        }
        v5::Packet::UnsubAck(ack) => Said::Unsubscribed(ack.pkid),
        v5::Packet::PingResp(_) => Said::Alive,
        v5::Packet::Disconnect(disconnect) => {
            let text = disconnect.properties.and_then(|all| all.reason_string);
            Said::Closed {
                taken_over: disconnect.reason_code == v5::DisconnectReasonCode::SessionTakenOver,
                why: refusal(&format!("{:?}", disconnect.reason_code), text),
            }
        }
        other => return Err(unexpected(&format!("{other:?}"))),
    })
}

fn read_4(packet: v4::Packet) -> Result<Said, String> {
    Ok(match packet {
        v4::Packet::ConnAck(ack) if ack.code == v4::ConnectReturnCode::Success => Said::Connected {
            resumed: ack.session_present,
            identifies: false,
            keep_alive: None,
        },
        v4::Packet::ConnAck(ack) => Said::Refused(refusal(&format!("{:?}", ack.code), None)),
        v4::Packet::SubAck(ack) => {
            let refused = ack.return_codes.iter().enumerate();
            let refused = refused.filter(|(_, code)| matches!(code, v4::SubscribeReasonCode::Failure));
            Said::Subscribed {
                packet: ack.pkid,
                refused: refused
                    .map(|(place, code)| (place, format!("{code:?}")))
                    .collect(),
            }
        }
        v4::Packet::UnsubAck(ack) => Said::Unsubscribed(ack.pkid),
        v4::Packet::PingResp => Said::Alive,
        other => return Err(unexpected(&format!("{other:?}"))),
    })
}

/// A reason as the broker gives it. It is text of somebody else: control characters do not reach the log.
fn refusal(code: &str, text: Option<String>) -> String {
    match text {
        Some(text) => format!("{code}: {}", text.escape_debug()),
        None => code.to_owned(),
    }
}

fn unexpected(packet: &str) -> String {
    let name = packet.split(['(', ' ', '{']).next().unwrap_or_default();
    format!("the broker sent a {name}, which no client expects")
}
