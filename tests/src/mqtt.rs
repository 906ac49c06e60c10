//! The least MQTT 3.1.1 client: connects, subscribes and publishes at QoS 1, byte by byte, so that tests decide what is
//! sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wait;

/// A connection to a broker.
#[derive(Debug)]
pub struct Publisher {
    stream: TcpStream,
    packet: u16,
}

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;

impl Publisher {
    /// Connects under a client id, with a clean session.
    pub fn connect(broker: SocketAddr, client: &str) -> Self {
        let stream = TcpStream::connect(broker).unwrap();
        stream.set_read_timeout(Some(wait::LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut body = Vec::new();
        put_text(&mut body, "MQTT");
        // Protocol level 4, clean session, no keep-alive.
        body.extend([4, 2, 0, 0]);
        put_text(&mut body, client);
        let mut publisher = Self { stream, packet: 0 };
        publisher.send(0x10, &body);
        let (kind, body) = publisher.receive();
        assert_eq!(
            (kind, body.as_slice()),
            (CONNACK, &[0, 0][..]),
            "the broker refused"
        );
        publisher
    }

    /// Publishes one message and waits until the broker has it.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.publish_with(topic, payload, false);
    }

    /// Publishes one message that the broker keeps for later subscribers.
    pub fn publish_retained(&mut self, topic: &str, payload: &[u8]) {
        self.publish_with(topic, payload, true);
    }

    /// Subscribes to a filter at QoS 0.
    pub fn subscribe(&mut self, filter: &str) {
        let mut body = vec![0, 1];
        put_text(&mut body, filter);
        body.push(0);
        self.send(0x82, &body);
        let (kind, body) = self.receive();
        assert_eq!((kind, body), (SUBACK, vec![0, 1, 0]));
    }

    /// The next message of a subscription: topic and payload.
    pub fn next_message(&mut self) -> (String, Vec<u8>) {
        let (kind, body) = self.receive();
        assert_eq!(kind, PUBLISH);
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let (topic, payload) = body[2..].split_at(length);
        (String::from_utf8(topic.to_vec()).unwrap(), payload.to_vec())
    }

    fn publish_with(&mut self, topic: &str, payload: &[u8], retain: bool) {
        self.packet = self.packet % u16::MAX + 1;
        let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
        put_text(&mut body, topic);
        body.extend(self.packet.to_be_bytes());
        body.extend_from_slice(payload);
        self.send(0x32 | u8::from(retain), &body);
        let (kind, body) = self.receive();
        assert_eq!((kind, body), (PUBACK, self.packet.to_be_bytes().to_vec()));
    }

    fn send(&mut self, first: u8, body: &[u8]) {
        let mut packet = vec![first];
        let mut length = body.len();
        while length >= 0x80 {
            packet.push(length as u8 | 0x80);
            length >>= 7;
        }
        packet.push(length as u8);
        packet.extend_from_slice(body);
        self.stream.write_all(&packet).unwrap();
    }

    /// The next packet's type and body.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).unwrap();
        assert!(head[1] < 0x80, "a broker's answers here are short");
        let mut body = vec![0; usize::from(head[1])];
        self.stream.read_exact(&mut body).unwrap();
        (head[0] >> 4, body)
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("MQTT strings have a 16-bit length");
    out.extend(length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
