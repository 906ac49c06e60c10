//! The link: one QUIC connection to the aggregator, carrying frames and nothing else.
//!
//! The agent opens a bidirectional control stream and two one-way streams, live and backlog; each carries frames with
//! a four-byte length before them. Live has the higher priority. QUIC's flow control is the back-pressure: a writer
//! that cannot write does not ask the machine for another batch.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use catchment_common::limits::FRAME_BYTES_MAX;
use catchment_common::wire::{ALPN, Message, VERSION};
use futures_util::{SinkExt, StreamExt};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::config::Config;
use super::tls;
use crate::log::spool::Lane;

/// What the link tells the run loop.
#[derive(Debug)]
pub enum LinkEvent {
    /// The connection is up.
    Connected(Link),
    /// A message came.
    Message(Message),
    /// A writer has room for more.
    Room,
    /// The connection ended, or could not be made, and why.
    Lost(String),
}

/// A connection's three ways out.
#[derive(Debug)]
pub struct Link {
    control: mpsc::Sender<Bytes>,
    live: mpsc::Sender<Bytes>,
    backlog: mpsc::Sender<Bytes>,
    connection: quinn::Connection,
}

/// Frames that may wait for each writer.
const FRAMES_MAX: usize = 4;
const CONTROL_FRAMES_MAX: usize = 16;
/// Events that may wait for the run loop.
pub const EVENTS_MAX: usize = 64;
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// A connection on which nothing was sent for this long sends a packet, for the peer to acknowledge. Heartbeats come every
/// 5 s unless the aggregator asks for fewer, so on an idle link they do this by themselves.
const KEEP_ALIVE: Duration = Duration::from_secs(6);
/// QUIC's own bound for a silent peer. It counts from the first packet that waits for an answer, so [`silence`] is faster.
const IDLE: Duration = Duration::from_secs(9);
/// A peer that was silent in this many looks in a row is gone: a live one acknowledges what comes every few seconds.
const SILENT_LOOKS_MAX: u32 = 9;
/// Time between two looks. Looks are counted instead of time, so that a process that was held up looks again before it gives
/// up a link.
const LOOK: Duration = Duration::from_secs(1);
/// How long the end of a connection may take to reach the network when the agent stops.
const CLOSE_WAIT: Duration = Duration::from_millis(500);
const STREAM_WINDOW: u32 = 256 << 10;
const SEND_WINDOW: u64 = 1 << 20;
const LIVE_PRIORITY: i32 = 1;
const CONTROL_PRIORITY: i32 = 2;

impl Link {
    /// Whether a frame for this lane would find room.
    pub fn has_room(&self, lane: Lane) -> bool {
        self.lane(lane).capacity() > 0
    }

    /// Hands over a batch; the caller has asked [`Link::has_room`].
    pub fn send_batch(&self, lane: Lane, frame: Bytes) {
        // A writer that is gone has reported the loss; the spool still holds the batch.
        let _ = self.lane(lane).try_send(frame);
    }

    /// Whether a message would find room.
    pub fn has_control_room(&self) -> bool {
        self.control.capacity() > 0
    }

    /// Hands over a message.
    pub fn send_message(&self, frame: Bytes) {
        let _ = self.control.try_send(frame);
    }

    /// UDP payload bytes sent so far.
    pub fn sent_bytes(&self) -> u64 {
        self.connection.stats().udp_tx.bytes
    }

    /// Ends the connection.
    pub fn close(&self, reason: &str) {
        self.connection.close(0_u32.into(), reason.as_bytes());
    }

    fn lane(&self, lane: Lane) -> &mpsc::Sender<Bytes> {
        match lane {
            Lane::Live => &self.live,
            Lane::Backlog => &self.backlog,
        }
    }
}

/// Makes connections to one aggregator.
#[derive(Clone, Debug)]
pub struct Connector {
    endpoint: quinn::Endpoint,
    client: quinn::ClientConfig,
    address: String,
    server_name: String,
}

impl Connector {
    /// Reads certificates and binds a UDP socket.
    pub fn new(config: &Config) -> Result<Self> {
        let identity: (&Path, &Path) = (&config.tls.certificate, &config.tls.key);
        let mut crypto = tls::client(&config.tls.ca, Some(identity))?;
        crypto.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicClientConfig::try_from(crypto).context("TLS 1.3 is needed for QUIC")?;
        let mut client = quinn::ClientConfig::new(Arc::new(crypto));
        client.transport_config(Arc::new(transport()?));
        // Both families where the system has IPv6; QUIC moves along when the local address changes.
        let socket = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
            .or_else(|_| UdpSocket::bind("0.0.0.0:0"))
            .context("cannot bind a UDP socket")?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime)
            .context("cannot start QUIC")?;
        Ok(Self {
            endpoint,
            client,
            address: config.aggregator.address.clone(),
            server_name: config.aggregator.server_name.clone(),
        })
    }

    /// Waits until the end of all connections has been sent, so that the aggregator knows of it at once.
    pub async fn wait_closed(&self) {
        // What is lost on the way costs the aggregator its time-out; nothing waits for that here.
        let _ = tokio::time::timeout(CLOSE_WAIT, self.endpoint.wait_idle()).await;
    }

    /// Connects and then carries frames until the connection ends. Ends with [`LinkEvent::Lost`] in any case.
    pub async fn run(self, events: mpsc::Sender<LinkEvent>) {
        let lost = match self.connect_and_carry(&events).await {
            Ok(reason) => reason,
            Err(error) => format!("{error:#}"),
        };
        let _ = events.send(LinkEvent::Lost(lost)).await;
    }

    async fn connect_and_carry(self, events: &mpsc::Sender<LinkEvent>) -> Result<String> {
        let connection = tokio::time::timeout(CONNECT_WAIT, self.connect())
            .await
            .map_err(|_| anyhow::anyhow!("no answer from {} within {CONNECT_WAIT:?}", self.address))??;
        let (control_out, control_in) = connection
            .open_bi()
            .await
            .context("cannot open the control stream")?;
        let live_out = connection
            .open_uni()
            .await
            .context("cannot open the live stream")?;
        let backlog_out = connection
            .open_uni()
            .await
            .context("cannot open the backlog stream")?;
        control_out.set_priority(CONTROL_PRIORITY)?;
        live_out.set_priority(LIVE_PRIORITY)?;
        let (control, control_frames) = mpsc::channel(CONTROL_FRAMES_MAX);
        let (live, live_frames) = mpsc::channel(FRAMES_MAX);
        let (backlog, backlog_frames) = mpsc::channel(FRAMES_MAX);
        let link = Link {
            control,
            live,
            backlog,
            connection: connection.clone(),
        };
        events.send(LinkEvent::Connected(link)).await?;
        tokio::select! {
            read = read_messages(control_in, events) => read?,
            written = write_frames(control_out, control_frames, events) => written?,
            written = write_frames(live_out, live_frames, events) => written?,
            written = write_frames(backlog_out, backlog_frames, events) => written?,
            error = connection.closed() => return Ok(error.to_string()),
            reason = silence(&connection) => {
                connection.close(0_u32.into(), b"silent");
                return Ok(reason);
            }
        }
        Ok(connection
            .close_reason()
            .map_or_else(|| "a stream ended".into(), |reason| reason.to_string()))
    }

    async fn connect(&self) -> Result<quinn::Connection> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host(&self.address)
            .await
            .with_context(|| format!("cannot resolve {}", self.address))?
            .collect();
        let mut last = None;
        for address in addresses {
            let connecting =
                self.endpoint
                    .connect_with(self.client.clone(), self.reachable(address), &self.server_name);
            match connecting.context("cannot connect")?.await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(anyhow::anyhow!("{address}: {}", explain(&error))),
            }
        }
        match last {
            Some(error) => Err(error),
            None => bail!("{} has no address", self.address),
        }
    }

    /// An IPv4 address as a socket of both families wants it.
    fn reachable(&self, address: SocketAddr) -> SocketAddr {
        match (self.endpoint.local_addr(), address) {
            (Ok(SocketAddr::V6(_)), SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            _ => address,
        }
    }
}

/// What an attempt that failed means. A peer that speaks no version of ours ends the handshake with an alert of TLS.
fn explain(error: &quinn::ConnectionError) -> String {
    const NO_APPLICATION_PROTOCOL: u8 = 120;
    let code = match error {
        quinn::ConnectionError::TransportError(error) => Some(error.code),
        quinn::ConnectionError::ConnectionClosed(close) => Some(close.error_code),
        _ => None,
    };
    if code == Some(quinn::TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL)) {
        return format!(
            "the aggregator does not speak version {VERSION} of the wire, which this agent needs; upgrade the aggregator \
             first (docs/UPGRADING.md)"
        );
    }
    error.to_string()
}

/// Ends when the peer has been silent for too long; returns what to tell the operator.
async fn silence(connection: &quinn::Connection) -> String {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut received, mut silent) = (0, 0);
    while silent < SILENT_LOOKS_MAX {
        looks.tick().await;
        let now = connection.stats().udp_rx.datagrams;
        silent = if now == received { silent + 1 } else { 0 };
        received = now;
    }
    format!(
        "the aggregator has not answered for {} s",
        (LOOK * SILENT_LOOKS_MAX).as_secs()
    )
}

fn transport() -> Result<quinn::TransportConfig> {
    let mut transport = quinn::TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IDLE.try_into().context("idle time")?))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(STREAM_WINDOW.into())
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(0_u8.into())
        .max_concurrent_uni_streams(0_u8.into())
        .datagram_receive_buffer_size(None);
    Ok(transport)
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(FRAME_BYTES_MAX)
        .new_codec()
}

async fn read_messages(stream: quinn::RecvStream, events: &mpsc::Sender<LinkEvent>) -> Result<()> {
    let mut frames = FramedRead::new(stream, codec());
    while let Some(frame) = frames.next().await {
        let message = Message::parse(&frame.context("reading from the aggregator")?)
            .context("the aggregator sent a frame that this agent does not understand")?;
        events.send(LinkEvent::Message(message)).await?;
    }
    Ok(())
}

async fn write_frames(
    stream: quinn::SendStream,
    mut queue: mpsc::Receiver<Bytes>,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<()> {
    let mut frames = FramedWrite::new(stream, codec());
    while let Some(frame) = queue.recv().await {
        frames.send(frame).await.context("writing to the aggregator")?;
        // If the loop has so many events waiting, it will look for room anyway.
        let _ = events.try_send(LinkEvent::Room);
    }
    Ok(())
}
