//! A broker that is only a feeder: it takes one subscriber and sends it prepared packets as fast as they are read.
//!
//! It speaks just enough MQTT 5 for that (CONNECT, SUBSCRIBE, PINGREQ) and costs nearly nothing, so that what is
//! measured is the subscriber. The same packets can be published to a real broker instead.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const PROTOCOL: &[u8] = b"\x00\x04MQTT\x05";
/// Written at a time: about what a socket's buffer takes.
const CHUNK: usize = 64 << 10;

/// Appends a PUBLISH of QoS 0.
pub fn put_publish(out: &mut Vec<u8>, topic: &str, payload: &[u8]) {
    out.push(0x30);
    put_length(out, 2 + topic.len() + 1 + payload.len());
    out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic.as_bytes());
    out.push(0);
    out.extend_from_slice(payload);
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// A listener that an agent can be pointed at.
pub struct FakeBroker(TcpListener);

impl FakeBroker {
    /// Listens on a free port of the loopback.
    pub fn bind() -> Result<Self> {
        Ok(Self(TcpListener::bind("127.0.0.1:0")?))
    }

    /// Where it listens.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    /// Takes a subscriber: returns once it has subscribed to something.
    pub fn accept(&self) -> Result<Subscriber> {
        let (stream, _) = self.0.accept()?;
        stream.set_nodelay(true)?;
        let mut subscriber = Subscriber {
            stream,
            inbox: Vec::new(),
            subscribed: false,
            acknowledged: Vec::new(),
        };
        while !subscriber.subscribed {
            subscriber.read_more()?;
        }
        subscriber.stream.set_nonblocking(true)?;
        Ok(subscriber)
    }
}

/// The one client of a [`FakeBroker`].
pub struct Subscriber {
    stream: TcpStream,
    inbox: Vec<u8>,
    subscribed: bool,
    /// Packet ids that were acknowledged since they were last looked at.
    acknowledged: Vec<u16>,
}

impl Subscriber {
    /// Sends whole packets, and answers what comes meanwhile.
    pub fn send(&mut self, packets: &[u8]) -> Result<()> {
        for chunk in packets.chunks(CHUNK) {
            let mut rest = chunk;
            while !rest.is_empty() {
                match self.stream.write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    Err(error) => return Err(error).context("writing to the agent"),
                }
            }
        }
        self.answer()
    }

    /// Answers what has come.
    pub fn answer(&mut self) -> Result<()> {
        match self.read_more() {
            Err(error)
                if error
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|error| error.kind() == ErrorKind::WouldBlock) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn read_more(&mut self) -> Result<()> {
        let mut buffer = [0; 4_096];
        let read = self.stream.read(&mut buffer)?;
        ensure!(read > 0, "the agent hung up");
        self.inbox.extend_from_slice(&buffer[..read]);
        while let Some((kind, body, size)) = packet(&self.inbox) {
            let reply = match kind >> 4 {
                1 => vec![0x20, 3, 0, 0, 0],
                8 => {
                    self.subscribed = true;
                    acknowledge(0x90, body, filters(body)?)
                }
                10 => acknowledge(0xb0, body, 1),
                4 => {
                    let id = body.first_chunk().context("a PUBACK without an id")?;
                    self.acknowledged.push(u16::from_be_bytes(*id));
                    Vec::new()
                }
                12 => vec![0xd0, 0],
                14 => bail!("the agent disconnected"),
                _ => Vec::new(),
            };
            self.inbox.drain(..size);
            // Replies are a few bytes and find room even in a socket that does not block.
            self.stream.write_all(&reply)?;
        }
        Ok(())
    }
}

/// What came of feeding at least once.
#[derive(Default)]
pub struct Fed {
    /// From each message's sending to its acknowledgement.
    pub latencies: Vec<Duration>,
    /// From the first message to the last acknowledgement.
    pub wall: Duration,
}

impl Subscriber {
    /// Sends messages at QoS 1 at this rate a second, at most `window` ahead of their acknowledgements, and waits for
    /// all of these. `message` gives topic and payload of a number.
    pub fn feed(
        &mut self,
        count: u64,
        rate: u64,
        window: u64,
        mut message: impl FnMut(u64) -> (String, String),
    ) -> Result<Fed> {
        let mut fed = Fed::default();
        let mut sent_at = vec![Instant::now(); usize::from(u16::MAX) + 1];
        let (mut sent, mut acknowledged) = (0, 0);
        let start = Instant::now();
        let mut buffer = Vec::new();
        while acknowledged < count {
            let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
            buffer.clear();
            while sent < count.min(due) && sent - acknowledged < window {
                let (topic, payload) = message(sent);
                // Windows are far smaller than the round of ids.
                let id = (sent % 60_000 + 1) as u16;
                put_publish_once(&mut buffer, &topic, id, payload.as_bytes());
                sent_at[usize::from(id)] = Instant::now();
                sent += 1;
            }
            self.send(&buffer)?;
            for id in std::mem::take(&mut self.acknowledged) {
                fed.latencies.push(sent_at[usize::from(id)].elapsed());
                acknowledged += 1;
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        fed.wall = start.elapsed();
        fed.latencies.sort_unstable();
        Ok(fed)
    }
}

/// Appends a PUBLISH of QoS 1.
fn put_publish_once(out: &mut Vec<u8>, topic: &str, id: u16, payload: &[u8]) {
    out.push(0x32);
    put_length(out, 2 + topic.len() + 2 + 1 + payload.len());
    out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    out.push(0);
    out.extend_from_slice(payload);
}

/// The first whole packet: its first byte, its body and its size.
fn packet(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (mut length, mut at) = (0_usize, 1);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((*bytes.first()?, bytes.get(at..at + length)?, at + length))
}

/// How many filters a SUBSCRIBE has.
fn filters(body: &[u8]) -> Result<usize> {
    let properties = usize::from(*body.get(2).context("no properties")?);
    let (mut at, mut count) = (3 + properties, 0);
    while at + 2 <= body.len() {
        at += 2 + usize::from(u16::from_be_bytes([body[at], body[at + 1]])) + 1;
        count += 1;
    }
    Ok(count)
}

fn acknowledge(kind: u8, body: &[u8], count: usize) -> Vec<u8> {
    let mut reply = vec![kind, 3 + count as u8, body[0], body[1], 0];
    reply.resize(5 + count, 0);
    reply
}

/// A publisher at a real broker.
pub struct Publisher(TcpStream);

impl Publisher {
    /// Connects, for as long as the broker may take to start.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let until = Instant::now() + Duration::from_secs(10);
        let mut stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > until => return Err(error).context("no broker"),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        stream.set_nodelay(true)?;
        let mut body = PROTOCOL.to_vec();
        // Clean start, no keep-alive, no properties, and a client id.
        body.extend_from_slice(b"\x02\x00\x00\x00\x00\x06feeder");
        let mut connect = vec![0x10, body.len() as u8];
        connect.extend(body);
        stream.write_all(&connect)?;
        let mut ack = [0; 4];
        stream.read_exact(&mut ack)?;
        ensure!(
            ack[0] == 0x20 && ack[3] == 0,
            "the broker refused the feeder: {ack:?}"
        );
        Ok(Self(stream))
    }

    /// Sends whole packets.
    pub fn send(&mut self, packets: &[u8]) -> Result<()> {
        Ok(self.0.write_all(packets)?)
    }
}
