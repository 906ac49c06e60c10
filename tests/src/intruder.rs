//! A QUIC client that says what it likes: to see what the aggregator makes of frames that no agent would send.

use std::net::SocketAddr;
use std::sync::Arc;

use catchment_agent::agent::SOFTWARE;
use catchment_agent::io::tls;
use catchment_common::wire::{ALPN, Hello, Message};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::runtime::Runtime;

use crate::wait::LIMIT;
use crate::world::World;

/// A connection to the aggregator, driven step by step.
pub struct Intruder {
    runtime: Runtime,
    connection: quinn::Connection,
    control: (quinn::SendStream, quinn::RecvStream),
    agent: String,
}

impl Intruder {
    /// Connects with a certificate for `agent` from `authority`, trusting the aggregator's own authority. The server
    /// may refuse the certificate after this has returned; [`Intruder::reason`] then says so.
    pub fn connect(
        world: &World,
        authority: &str,
        agent: &str,
        aggregator: SocketAddr,
        alpn: &[u8],
    ) -> Result<Self, String> {
        let (certificate, key) = world.issue(authority, agent);
        let ca = world.path("pki").join("ca.pem");
        let mut crypto =
            tls::client(&ca, Some((&certificate, &key))).map_err(|error| format!("{error:#}"))?;
        crypto.alpn_protocols = vec![alpn.to_vec()];
        let crypto = QuicClientConfig::try_from(crypto).map_err(|error| error.to_string())?;
        let client = quinn::ClientConfig::new(Arc::new(crypto));
        // A thread of its own: what was written is sent while nobody waits here.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let connected: Result<_, String> = runtime.block_on(async {
            let endpoint =
                quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).map_err(|error| error.to_string())?;
            let connecting = endpoint.connect_with(client, aggregator, "catchment-aggregator");
            let connecting = connecting.map_err(|error| error.to_string())?;
            let connection = connecting.await.map_err(|error| error.to_string())?;
            let control = connection.open_bi().await.map_err(|error| error.to_string())?;
            Ok((connection, control))
        });
        let (connection, control) = connected?;
        Ok(Self {
            runtime,
            connection,
            control,
            agent: agent.into(),
        })
    }

    /// Connects as a proper agent does and says hello.
    pub fn greeted(world: &World, agent: &str, aggregator: SocketAddr) -> Self {
        let mut intruder = Self::connect(world, "pki", agent, aggregator, ALPN).unwrap();
        intruder.send_message(&intruder.hello());
        let welcome = intruder.receive();
        assert!(matches!(welcome, Some(Message::Welcome(_))), "{welcome:?}");
        intruder
    }

    /// A proper hello.
    pub fn hello(&self) -> Message {
        Message::Hello(Hello {
            agent: self.agent.clone(),
            software: SOFTWARE.into(),
            epoch: 7,
            plan: 0,
            database: None,
            lineage: None,
            held: Vec::new(),
        })
    }

    /// Sends a message on the control stream.
    pub fn send_message(&mut self, message: &Message) {
        self.send_frame(&message.emit());
    }

    /// Sends a frame with its length on the control stream.
    pub fn send_frame(&mut self, frame: &[u8]) {
        let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(frame);
        self.send_bytes(&bytes);
    }

    /// Sends bytes on the control stream. Whether the other side still reads them is not asked.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.runtime.block_on(self.control.0.write_all(bytes));
    }

    /// Sends bytes on a one-way stream of its own and ends the stream.
    pub fn send_stream(&mut self, bytes: &[u8]) {
        self.runtime.block_on(async {
            if let Ok(mut stream) = self.connection.open_uni().await {
                let _ = stream.write_all(bytes).await;
                let _ = stream.finish();
            }
        });
    }

    /// The next message, or `None` when the connection ends before one comes.
    pub fn receive(&mut self) -> Option<Message> {
        self.runtime.block_on(async {
            let receive = async {
                let mut length = [0; 4];
                self.control.1.read_exact(&mut length).await.ok()?;
                let mut frame = vec![0; u32::from_be_bytes(length) as usize];
                self.control.1.read_exact(&mut frame).await.ok()?;
                Message::parse(&frame).ok()
            };
            tokio::time::timeout(LIMIT, receive)
                .await
                .expect("an answer or an end")
        })
    }

    /// Waits until the aggregator closes the connection; returns its reason.
    pub fn reason(&mut self) -> String {
        self.runtime.block_on(async {
            let closed = tokio::time::timeout(LIMIT, self.connection.closed());
            match closed.await.expect("the aggregator closes the connection") {
                quinn::ConnectionError::ApplicationClosed(close) => {
                    String::from_utf8_lossy(&close.reason).into_owned()
                }
                other => other.to_string(),
            }
        })
    }
}

impl std::fmt::Debug for Intruder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intruder")
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}
