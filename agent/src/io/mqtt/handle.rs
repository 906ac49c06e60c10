//! What the machine wants of a source, on its way to the source's task.
//!
//! Packets are written here, where they are wanted, and sent by the task. What is meant for a connection that is over is
//! dropped.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::codec;
use crate::source::mqtt::packets::Version;
use crate::source::{Settled, SourceRequest};

/// Gives a source what the machine wants of it.
#[derive(Debug)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

/// What a task and its handle share. Both run on one thread.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) orders: Mutex<Orders>,
    pub(super) woken: Notify,
    pub(super) version: Version,
    pub(super) at_least_once: bool,
}

/// What the task is to do.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// The number of the connection that is up, or of the next.
    pub(super) connection: u64,
    /// Packets to send on it.
    pub(super) bytes: BytesMut,
    /// SUBSCRIBEs among them.
    pub(super) subscribes: usize,
    /// Make the connection anew.
    pub(super) reconnect: bool,
    /// Read no more, and end when all is sent.
    pub(super) stop: bool,
}

impl Shared {
    pub(super) fn orders(&self) -> std::sync::MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// Tells the broker that something is settled that came on this connection. What came on an earlier one comes again.
    pub fn settle(&self, connection: u64, settled: Settled) {
        let Settled::Packet(packet) = settled;
        let mut orders = self.shared.orders();
        if orders.connection == connection {
            codec::acknowledge(packet, &mut orders.bytes);
        }
    }

    /// Asks the broker for something on this connection.
    pub fn request(&self, connection: u64, request: SourceRequest) {
        let mut orders = self.shared.orders();
        if orders.connection != connection {
            return;
        }
        let Orders {
            bytes,
            subscribes,
            reconnect,
            ..
        } = &mut *orders;
        let version = self.shared.version;
        let written = match request {
            SourceRequest::Subscribe {
                packet,
                subscriptions,
            } => {
                *subscribes += 1;
                codec::subscribe(version, self.shared.at_least_once, packet, &subscriptions, bytes)
            }
            SourceRequest::Unsubscribe { packet, filters } => {
                let filters = filters.iter().map(|filter| filter.as_str().to_owned());
                codec::unsubscribe(version, packet, filters, bytes)
            }
            SourceRequest::Publish { topic, payload } => {
                debug!(topic, "asking for a rebirth");
                codec::publish(version, &topic, payload, bytes)
            }
            SourceRequest::Reconnect => {
                *reconnect = true;
                Ok(())
            }
        };
        if let Err(error) = written {
            warn!(%error, "a packet to the broker cannot be written");
        }
    }

    /// Sends what was given: to be called when there is nothing more to give for now.
    pub fn flush(&self) {
        let orders = self.shared.orders();
        if !orders.bytes.is_empty() || orders.reconnect {
            self.shared.woken.notify_one();
        }
    }

    /// Reads no more. The task ends, and says good-bye to the broker, once nothing is left to be sent and the receiver of
    /// what it tells is gone.
    pub fn stop(&self) {
        self.shared.orders().stop = true;
        self.shared.woken.notify_one();
    }
}
