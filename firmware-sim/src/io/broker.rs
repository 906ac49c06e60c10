//! The embedded broker of demo and tests: MQTT 3.1.1 and 5, in memory, without users, on loopback only.
//!
//! The crate behind it is young: it is used in this file alone, so that another can take its place.

use std::net::SocketAddr;

use mqtt5::broker::config::{StorageBackend, StorageConfig};
use mqtt5::broker::server::BrokerShutdownHandle;
use mqtt5::broker::{BrokerConfig, MqttBroker};
use tokio::task::JoinHandle;

/// Messages queued for one client that is away, and their bytes: an outage of the demo's length fits many times over.
const QUEUED_MESSAGES_MAX: usize = 2_000_000;
const QUEUED_BYTES_MAX: usize = 1 << 30;
/// Largest packet taken; oversized payloads for testing agents must pass.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// A running broker. It stops when it is dropped; [`Broker::shutdown`] also waits until it has.
#[derive(Debug)]
pub struct Broker {
    local_addr: SocketAddr,
    handle: Handle,
    task: JoinHandle<()>,
}

struct Handle(BrokerShutdownHandle);

/// Why the broker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerFault {
    /// It has no users or passwords, so it must not be reachable from elsewhere.
    #[error("this broker lets anyone in, so it listens on loopback only, not on {0}; try 127.0.0.1:0")]
    NotLoopback(SocketAddr),
    /// The broker's own error.
    #[error("the broker cannot start: {0}")]
    Start(#[from] mqtt5::error::MqttError),
    /// It listens nowhere.
    #[error("the broker has no address")]
    NoAddress,
}

impl Broker {
    /// Starts a broker. Port 0 takes a free one; see [`Broker::local_addr`].
    pub async fn start(listen: SocketAddr) -> Result<Self, BrokerFault> {
        if !listen.ip().is_loopback() {
            return Err(BrokerFault::NotLoopback(listen));
        }
        let storage = StorageConfig::default()
            .with_backend(StorageBackend::Memory)
            .with_max_queued_messages_per_client(QUEUED_MESSAGES_MAX)
            .with_max_queued_bytes_per_client(QUEUED_BYTES_MAX);
        let config = BrokerConfig::default()
            .with_bind_address(listen)
            .with_storage(storage)
            .with_max_packet_size(PACKET_BYTES_MAX)
            .with_sys_topics_enabled(false);
        let mut broker = MqttBroker::with_config(config).await?;
        let local_addr = broker.local_addr().ok_or(BrokerFault::NoAddress)?;
        let handle = Handle(broker.shutdown_handle());
        let mut ready = broker.ready_receiver();
        let task = tokio::spawn(async move {
            if let Err(error) = broker.run().await {
                tracing::error!(%error, "the broker has stopped");
            }
        });
        // An error means that the broker ended before it was ready; it has been logged.
        let _ = ready.wait_for(|ready| *ready).await;
        Ok(Self {
            local_addr,
            handle,
            task,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Its address as clients write it.
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.local_addr)
    }

    /// Stops it and waits until it has stopped.
    pub async fn shutdown(mut self) {
        self.handle.0.shutdown();
        // An error means that it has panicked, which has been reported.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.handle.0.shutdown();
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    use tokio::time::timeout;

    use super::*;
    use crate::io::link::Link;

    const PATIENCE: Duration = Duration::from_secs(20);
    const MESSAGES: usize = 500;

    #[tokio::test]
    async fn what_is_published_reaches_a_subscriber_in_order() {
        let broker = Broker::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let options = MqttOptions::new("subscriber", "127.0.0.1", broker.local_addr().port());
        let (client, mut events) = AsyncClient::new(options, 10);
        client.subscribe("t/+", QoS::AtLeastOnce).await.unwrap();
        let receive = async {
            let mut received = Vec::new();
            let mut link = None;
            while received.len() < MESSAGES {
                match events.poll().await.unwrap() {
                    Event::Incoming(Packet::SubAck(_)) => {
                        let url = broker.url().parse().unwrap();
                        link = Some(tokio::spawn(async move {
                            let mut link = Link::new(&url, "publisher", QoS::AtLeastOnce);
                            for number in 0..MESSAGES {
                                link.publish("t/1", number.to_string().into_bytes(), false)
                                    .await
                                    .unwrap();
                            }
                            link.finish().await.unwrap();
                        }));
                    }
                    Event::Incoming(Packet::Publish(publish)) => received.push(publish.payload),
                    _ => {}
                }
            }
            link.unwrap().await.unwrap();
            received
        };
        let received = timeout(PATIENCE, receive).await.unwrap();
        assert!(
            received
                .iter()
                .enumerate()
                .all(|(number, payload)| *payload == number.to_string())
        );
        timeout(PATIENCE, broker.shutdown()).await.unwrap();
    }

    #[tokio::test]
    async fn it_can_stop_and_start_again_on_its_port() {
        let first = Broker::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr();
        timeout(PATIENCE, first.shutdown()).await.unwrap();
        let second = Broker::start(address).await.unwrap();
        assert_eq!(second.local_addr(), address);
        assert_eq!(second.url(), format!("mqtt://{address}"));
    }

    #[tokio::test]
    async fn it_listens_on_loopback_only() {
        let fault = Broker::start("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
        assert!(matches!(fault, BrokerFault::NotLoopback(_)), "{fault}");
    }
}
