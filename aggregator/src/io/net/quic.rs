//! The listener: agents' connections, carrying frames and nothing else.
//!
//! An agent's name is the one in its certificate, known before its first frame is read. Each connection has one
//! control stream, opened by the agent, and up to two one-way streams of batches. Readers hand frames to the engine
//! through a bounded queue and wait while it is full; QUIC's flow control then holds the agents.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use catchment_common::limits::FRAME_BYTES_MAX;
use catchment_common::wire::{VERSION, v1};
use futures_util::{SinkExt, StreamExt};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};
use tracing::{debug, info, warn};

use crate::aggregator::ConnectionId;
use crate::io::pki;

/// What connections tell the engine.
#[derive(Debug)]
pub enum NetEvent {
    /// An agent has connected.
    Connected(ConnectionId, Peer),
    /// A frame came.
    Frame(ConnectionId, Bytes),
    /// A connection ended.
    Disconnected(ConnectionId),
}

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// The agent's name, as its certificate has it.
    pub agent: String,
    /// Where it is.
    pub address: SocketAddr,
    /// The version of the wire that it speaks.
    pub version: u8,
    /// What is to be sent goes here.
    pub outgoing: mpsc::Sender<Outgoing>,
}

/// What the engine gives a connection.
#[derive(Debug)]
pub enum Outgoing {
    /// Send this frame.
    Frame(Bytes),
    /// Close the connection for this reason.
    Close(String),
}

/// Events that may wait for the engine.
pub const EVENTS_MAX: usize = 1_024;
/// Frames that may wait for one connection; an agent that reads so slowly is cut off.
const OUTGOING_MAX: usize = 1_024;
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;
const SEND_WINDOW: u64 = 256 << 10;
/// A connection that was silent for this long is over. Agents send a heartbeat every 5 s, or else a keep-alive every 6 s.
const IDLE: Duration = Duration::from_secs(9);
/// Agents of before send keep-alives every 20 s: with a longer interval of heartbeats it is this end that asks.
const KEEP_ALIVE: Duration = Duration::from_secs(6);
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// With so many handshakes open, addresses must prove themselves first, which costs them a round trip.
const HANDSHAKES_UNPROVEN_MAX: usize = 256;

/// Binds the UDP socket.
pub fn bind(
    listen: SocketAddr,
    tls: rustls::ServerConfig,
    endpoint: quinn::EndpointConfig,
) -> Result<quinn::Endpoint> {
    let crypto = QuicServerConfig::try_from(tls).context("TLS 1.3 is needed for QUIC")?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IDLE.try_into().context("idle time")?))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(1_u8.into())
        .max_concurrent_uni_streams(2_u8.into())
        .datagram_receive_buffer_size(None);
    server.transport_config(Arc::new(transport));
    let socket = UdpSocket::bind(listen).with_context(|| format!("cannot listen on {listen} (UDP)"))?;
    quinn::Endpoint::new(endpoint, Some(server), socket, Arc::new(quinn::TokioRuntime))
        .context("cannot start QUIC")
}

/// Takes connections until the endpoint is closed; at most `connections_max` at a time, others are refused.
pub async fn accept(endpoint: quinn::Endpoint, events: mpsc::Sender<NetEvent>, connections_max: usize) {
    let mut next: ConnectionId = 1;
    while let Some(incoming) = endpoint.accept().await {
        if endpoint.open_connections() >= connections_max {
            incoming.refuse();
            continue;
        }
        if endpoint.open_connections() >= HANDSHAKES_UNPROVEN_MAX && !incoming.remote_address_validated() {
            // Fails only for an address that has been asked already.
            let _ = incoming.retry();
            continue;
        }
        tokio::spawn(serve(next, incoming, events.clone()));
        next += 1;
    }
}

async fn serve(id: ConnectionId, incoming: quinn::Incoming, events: mpsc::Sender<NetEvent>) {
    let peer = incoming.remote_address();
    let connection = match tokio::time::timeout(HANDSHAKE_WAIT, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            warn!(%peer, %error, "a connection was refused");
            return;
        }
        Err(_) => return,
    };
    let agent = match identity(&connection) {
        Ok(agent) => agent,
        Err(reason) => {
            warn!(%peer, reason, "a connection was refused");
            connection.close(1_u32.into(), reason.as_bytes());
            return;
        }
    };
    let version = version(&connection);
    info!(%agent, %peer, version, "connected");
    let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
    let connected = Peer {
        agent: agent.clone(),
        address: peer,
        version,
        outgoing,
    };
    if events.send(NetEvent::Connected(id, connected)).await.is_ok() {
        let reason = carry(id, &connection, queue, &events).await.err().map_or_else(
            || {
                connection
                    .close_reason()
                    .map_or_else(|| "a stream ended".into(), |reason| reason.to_string())
            },
            |error| format!("{error:#}"),
        );
        info!(%agent, %peer, %reason, "disconnected");
        connection.close(1_u32.into(), reason.as_bytes());
        let _ = events.send(NetEvent::Disconnected(id)).await;
    }
}

fn identity(connection: &quinn::Connection) -> Result<String, &'static str> {
    let identity = connection.peer_identity().ok_or("no certificate")?;
    let certificates = identity
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| "no certificate")?;
    pki::agent_name(&certificates)
}

/// The version of the wire that was agreed upon in the handshake.
fn version(connection: &quinn::Connection) -> u8 {
    let data = connection.handshake_data();
    let data = data.and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    let protocol = data.and_then(|data| data.protocol);
    if protocol.as_deref() == Some(v1::ALPN) {
        v1::VERSION
    } else {
        VERSION
    }
}

async fn carry(
    id: ConnectionId,
    connection: &quinn::Connection,
    queue: mpsc::Receiver<Outgoing>,
    events: &mpsc::Sender<NetEvent>,
) -> Result<()> {
    let (send, receive) = connection
        .accept_bi()
        .await
        .context("waiting for the control stream")?;
    tokio::select! {
        read = read_frames(id, receive, events) => read,
        written = write_frames(send, queue, connection) => written,
        streams = read_streams(id, connection, events) => streams,
    }
}

/// Reads the one-way streams, at most two at a time.
async fn read_streams(
    id: ConnectionId,
    connection: &quinn::Connection,
    events: &mpsc::Sender<NetEvent>,
) -> Result<()> {
    let mut readers = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => {
                let (stream, events) = (stream?, events.clone());
                readers.spawn(async move { read_frames(id, stream, &events).await });
            }
            Some(ended) = readers.join_next() => ended.context("a reader died")??,
        }
    }
}

async fn read_frames(
    id: ConnectionId,
    stream: quinn::RecvStream,
    events: &mpsc::Sender<NetEvent>,
) -> Result<()> {
    let codec = LengthDelimitedCodec::builder()
        .max_frame_length(FRAME_BYTES_MAX)
        .new_codec();
    let mut frames = FramedRead::new(stream, codec);
    while let Some(frame) = frames.next().await {
        events.send(NetEvent::Frame(id, frame?.freeze())).await?;
    }
    Ok(())
}

async fn write_frames(
    stream: quinn::SendStream,
    mut queue: mpsc::Receiver<Outgoing>,
    connection: &quinn::Connection,
) -> Result<()> {
    let codec = LengthDelimitedCodec::builder()
        .max_frame_length(FRAME_BYTES_MAX)
        .new_codec();
    let mut frames = FramedWrite::new(stream, codec);
    while let Some(outgoing) = queue.recv().await {
        match outgoing {
            Outgoing::Frame(frame) => frames.send(frame).await?,
            Outgoing::Close(reason) => {
                debug!(%reason, "closing");
                connection.close(2_u32.into(), reason.as_bytes());
                anyhow::bail!(reason);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use quinn::crypto::rustls::QuicClientConfig;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::io::config::Tls;

    /// A client with the certificate of an agent.
    fn client(folder: &Path, agent: &str) -> quinn::ClientConfig {
        pki::issue(folder, agent, folder).unwrap();
        let certificates = |name: String| {
            let all = CertificateDer::pem_file_iter(folder.join(name)).unwrap();
            all.map(Result::unwrap).collect::<Vec<_>>()
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificates("ca.pem".into()).remove(0)).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join(format!("{agent}.key"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(format!("{agent}.pem")), key)
            .unwrap();
        let server = pki::server(&pki_of(folder)).unwrap();
        tls.alpn_protocols.clone_from(&server.alpn_protocols);
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
    }

    fn pki_of(folder: &Path) -> Tls {
        Tls {
            pki: Some(folder.to_owned()),
            ca: None,
            certificate: None,
            key: None,
        }
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_is_refused_until_another_ends() {
        let folder = tempfile::tempdir().unwrap();
        pki::init(folder.path(), &["localhost".to_owned()]).unwrap();
        let tls = pki::server(&pki_of(folder.path())).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let server = bind(listen, tls, quinn::EndpointConfig::default()).unwrap();
        let address = server.local_addr().unwrap();
        let (events_in, mut events) = mpsc::channel(EVENTS_MAX);
        tokio::spawn(accept(server.clone(), events_in, 2));
        let config = client(folder.path(), "gw-1");
        let agent = quinn::Endpoint::client(listen).unwrap();
        let connect = async || {
            let connecting = agent.connect_with(config.clone(), address, "localhost").unwrap();
            connecting.await
        };
        let first = connect().await.unwrap();
        let _second = connect().await.unwrap();
        for _ in 0..2 {
            let event = events.recv().await;
            assert!(matches!(event, Some(NetEvent::Connected(_, peer)) if peer.agent == "gw-1"));
        }
        assert!(connect().await.is_err(), "a third is refused");
        first.close(0_u32.into(), b"");
        assert!(matches!(events.recv().await, Some(NetEvent::Disconnected(_))));
        // It is off the books of the endpoint a moment later.
        while server.open_connections() > 1 {
            tokio::task::yield_now().await;
        }
        connect().await.unwrap();
    }
}
