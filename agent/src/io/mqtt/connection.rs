//! One connection to a broker: the socket, the bytes that came and go, and the messages among them.
//!
//! Messages are taken out of the bytes where they stand: a group of them is one block of memory and the positions of
//! topics and payloads in it. What is too large to be looked at is thrown away as it comes.

use std::ops::Range;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::tokio_rustls::TlsConnector;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::codec::{self, Client, Said};
use crate::io::config::Mqtt;
use crate::source::mqtt::packets::{self, Publish, Scan, Version};
use crate::source::{Delivery, Payload};

/// A socket, with TLS or without.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// How long a broker may take until it has answered a CONNECT.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long the last bytes of a connection may take.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// What is read at once.
const READ_BYTES: usize = 64 << 10;
/// Messages and bytes of one group.
const GROUP_MESSAGES_MAX: usize = 1_024;
const GROUP_BYTES_MAX: usize = 1 << 20;

/// Messages that came one after the other.
#[derive(Debug)]
pub struct Group {
    bytes: Bytes,
    messages: Vec<Publish>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'g> {
    /// Its topic, which need not be text.
    pub topic: &'g [u8],
    /// Its payload.
    pub payload: Payload<'g>,
    /// Whether the broker repeats an old value because of a subscription.
    pub retained: bool,
    /// How it is acknowledged.
    pub delivery: Delivery,
    /// The subscriptions that it comes through.
    pub through: &'g [u32],
}

impl Group {
    /// The message at this place; none behind the last.
    pub fn message(&self, place: usize) -> Option<Incoming<'_>> {
        let publish = self.messages.get(place)?;
        let is_whole = publish.payload.len() == publish.payload_bytes;
        Some(Incoming {
            topic: &self.bytes[publish.topic.clone()],
            payload: if is_whole {
                Payload::Whole(&self.bytes[publish.payload.clone()])
            } else {
                Payload::Oversized(publish.payload_bytes)
            },
            retained: publish.retained,
            delivery: match publish.packet {
                0 => Delivery::Unacknowledged,
                id => Delivery::Packet {
                    id,
                    duplicate: publish.duplicate,
                },
            },
            through: publish.subscriptions.as_slice(),
        })
    }
}

/// A connection that a broker has accepted.
pub(super) struct Connection {
    reader: ReadHalf<Box<dyn Socket>>,
    writer: WriteHalf<Box<dyn Socket>>,
    version: Version,
    payload_bytes_max: usize,
    /// What came. Up to `scanned` it belongs to the group.
    buffer: BytesMut,
    scanned: usize,
    /// Bytes of a large body that are still to come.
    skipped: usize,
    group: Vec<Publish>,
    /// What is to be sent.
    pub(super) out: BytesMut,
    is_flushed: bool,
}

impl Connection {
    /// Connects, and gives the broker's answer. The error is for the log.
    pub(super) async fn open(
        broker: &Mqtt,
        tls: Option<&TlsConnector>,
        client: &Client<'_>,
        payload_bytes_max: usize,
    ) -> Result<(Self, Said), String> {
        let opened = timeout(
            CONNECT_WAIT,
            Self::connect(broker, tls, client, payload_bytes_max),
        )
        .await;
        opened.map_err(|_| format!("no answer within {} s", CONNECT_WAIT.as_secs()))?
    }

    async fn connect(
        broker: &Mqtt,
        tls: Option<&TlsConnector>,
        client: &Client<'_>,
        payload_bytes_max: usize,
    ) -> Result<(Self, Said), String> {
        let (host, port) = broker
            .address()
            .ok_or("the broker's URL is not mqtt://host:port")?;
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let socket: Box<dyn Socket> = match tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
                let name = name.map_err(|_| format!("{host:?} is no name that a certificate can have"))?;
                let secured = tls.connect(name, stream).await;
                Box::new(secured.map_err(|error| format!("TLS: {error}"))?)
            }
        };
        let (reader, writer) = tokio::io::split(socket);
        let mut connection = Self {
            reader,
            writer,
            version: codec::version(broker),
            payload_bytes_max,
            buffer: BytesMut::with_capacity(READ_BYTES),
            scanned: 0,
            skipped: 0,
            group: Vec::new(),
            out: BytesMut::new(),
            is_flushed: true,
        };
        codec::connect(broker, client, &mut connection.out)?;
        connection.write_all().await?;
        loop {
            if let Some(said) = connection.take_next()? {
                return Ok((connection, said));
            }
            connection.read().await?;
        }
    }

    async fn write_all(&mut self) -> Result<(), String> {
        while !self.is_written() {
            self.write().await?;
        }
        Ok(())
    }

    /// Whether all that was to be sent is sent.
    pub(super) fn is_written(&self) -> bool {
        self.out.is_empty() && self.is_flushed
    }

    /// Whether the group takes what is read.
    pub(super) fn has_room(&self) -> bool {
        let is_full = self.group.len() >= GROUP_MESSAGES_MAX || self.scanned >= GROUP_BYTES_MAX;
        // What is thrown away stands in nobody's block.
        !is_full && (self.skipped == 0 || self.scanned == 0)
    }

    /// Whether messages wait to be handed over.
    pub(super) fn has_group(&self) -> bool {
        self.scanned > 0
    }

    /// The messages that have come.
    pub(super) fn take_group(&mut self) -> Group {
        let bytes = self.buffer.split_to(self.scanned).freeze();
        self.scanned = 0;
        let capacity = self.group.len().min(GROUP_MESSAGES_MAX / 8);
        let messages = std::mem::replace(&mut self.group, Vec::with_capacity(capacity));
        self.skip();
        Group { bytes, messages }
    }

    /// Splits the borrow, so that reading and writing can be waited for at once.
    pub(super) fn halves(&mut self) -> (Reading<'_>, Writing<'_>) {
        let reading = Reading {
            reader: &mut self.reader,
            buffer: &mut self.buffer,
        };
        let writing = Writing {
            writer: &mut self.writer,
            out: &mut self.out,
            is_flushed: &mut self.is_flushed,
        };
        (reading, writing)
    }

    async fn read(&mut self) -> Result<(), String> {
        self.halves().0.read().await
    }

    async fn write(&mut self) -> Result<(), String> {
        self.halves().1.write().await
    }

    /// The next packet in what was read that is not a message; messages before it join the group.
    pub(super) fn take_next(&mut self) -> Result<Option<Said>, String> {
        self.skip();
        if self.skipped > 0 {
            return Ok(None);
        }
        loop {
            let rest = &self.buffer[self.scanned..];
            match packets::scan(rest, self.version, self.payload_bytes_max)
                .map_err(|fault| fault.to_string())?
            {
                Scan::Incomplete(needed) => {
                    let more = needed - rest.len();
                    self.buffer.reserve(more.max(READ_BYTES / 4));
                    return Ok(None);
                }
                Scan::Publish(publish, length) => {
                    self.group.push(moved(publish, self.scanned));
                    self.scanned += length;
                    if !self.has_room() {
                        return Ok(None);
                    }
                }
                Scan::Oversized(publish, length) => {
                    let there = rest.len().min(length);
                    self.group.push(moved(publish, self.scanned));
                    self.scanned += there;
                    self.skipped = length - there;
                    return Ok(None);
                }
                Scan::Other(length) => {
                    let said = codec::read(self.version, &rest[..length])?;
                    self.scanned += length;
                    return Ok(Some(said));
                }
            }
        }
    }

    fn skip(&mut self) {
        if self.skipped > 0 && self.scanned == 0 {
            let gone = self.skipped.min(self.buffer.len());
            self.buffer.advance(gone);
            self.skipped -= gone;
        }
    }

    /// Sends what is left, and says good-bye: the broker has then handled all that was sent before.
    pub(super) async fn close(mut self) {
        codec::disconnect(&mut self.out);
        let closing = async {
            self.write_all().await?;
            self.writer.shutdown().await.map_err(|error| error.to_string())
        };
        let _ = timeout(CLOSE_WAIT, closing).await;
    }
}

/// The side of a connection that is read.
pub(super) struct Reading<'c> {
    reader: &'c mut ReadHalf<Box<dyn Socket>>,
    buffer: &'c mut BytesMut,
}

impl Reading<'_> {
    /// Reads what has come. Nothing is lost when it is not waited for.
    pub(super) async fn read(self) -> Result<(), String> {
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(READ_BYTES);
        }
        match self.reader.read_buf(self.buffer).await {
            Ok(0) => Err("the broker closed the connection without a word".into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The side of a connection that is written.
pub(super) struct Writing<'c> {
    writer: &'c mut WriteHalf<Box<dyn Socket>>,
    out: &'c mut BytesMut,
    is_flushed: &'c mut bool,
}

impl Writing<'_> {
    /// Writes some of what is to be sent. Nothing is lost or sent twice when it is not waited for.
    pub(super) async fn write(self) -> Result<(), String> {
        let written = if self.out.is_empty() {
            self.writer.flush().await.map(|()| *self.is_flushed = true)
        } else {
            *self.is_flushed = false;
            self.writer.write_buf(self.out).await.map(|_| ())
        };
        written.map_err(|error| error.to_string())
    }
}

fn moved(publish: Publish, by: usize) -> Publish {
    let moved = |range: Range<usize>| range.start + by..range.end + by;
    Publish {
        topic: moved(publish.topic),
        payload: moved(publish.payload),
        ..publish
    }
}
