//! Many agents that are only connected: real QUIC connections with certificates of their own, from one socket.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use catchment_agent::io::tls;
use catchment_common::wire::{ALPN, Hello, Message};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::runtime::Runtime;

use super::process::Site;

/// Connected agents. They stay connected until this is dropped.
pub struct Fleet<'s> {
    site: &'s Site,
    runtime: Runtime,
    endpoint: quinn::Endpoint,
    links: Vec<Link>,
}

struct Link {
    _connection: quinn::Connection,
    _control: (quinn::SendStream, quinn::RecvStream),
    _data: [quinn::SendStream; 2],
}

impl<'s> Fleet<'s> {
    /// No agent yet.
    pub fn new(site: &'s Site) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let endpoint = {
            let _inside = runtime.enter();
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            quinn::Endpoint::new(
                quinn::EndpointConfig::default(),
                None,
                socket,
                Arc::new(quinn::TokioRuntime),
            )?
        };
        Ok(Self {
            site,
            runtime,
            endpoint,
            links: Vec::new(),
        })
    }

    /// Connects so many more, each welcomed.
    pub fn connect(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let name = format!("idle-{}", self.links.len());
            let link = self.runtime.block_on(greet(self.site, &self.endpoint, &name));
            self.links.push(link.with_context(|| name.clone())?);
        }
        Ok(())
    }
}

/// Connects as an agent does, says hello, and waits for the welcome.
async fn greet(site: &Site, endpoint: &quinn::Endpoint, name: &str) -> Result<Link> {
    let [ca, certificate, key] = site.identity(name)?;
    let mut crypto = tls::client(&ca, Some((&certificate, &key)))?;
    crypto.alpn_protocols = vec![ALPN.to_vec()];
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto)?));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(20)));
    client.transport_config(Arc::new(transport));
    let connection = endpoint
        .connect_with(client, site.address, "catchment-aggregator")?
        .await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    let mut data = [connection.open_uni().await?, connection.open_uni().await?];
    let hello = Message::Hello(Hello {
        agent: name.into(),
        software: "idle".into(),
        epoch: 1,
        plan: 0,
        database: None,
        lineage: None,
        held: Vec::new(),
    })
    .emit();
    send.write_all(&(hello.len() as u32).to_be_bytes()).await?;
    send.write_all(&hello).await?;
    let mut length = [0; 4];
    receive.read_exact(&mut length).await?;
    let mut welcome = vec![0; u32::from_be_bytes(length) as usize];
    receive.read_exact(&mut welcome).await?;
    let Ok(Message::Welcome(_)) = Message::parse(&welcome) else {
        bail!("no welcome");
    };
    for stream in &mut data {
        // A stream is only seen once something was written to it.
        stream.set_priority(1)?;
    }
    Ok(Link {
        _connection: connection,
        _control: (send, receive),
        _data: data,
    })
}
