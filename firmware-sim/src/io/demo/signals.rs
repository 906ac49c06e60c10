//! The signals that a demo listens to.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, and what ends the demo without an audit.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes these signals from now on.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for any of them.
    pub(super) async fn any(&mut self) {
        self.is_interrupt().await;
    }

    /// Waits for one; true when it is Ctrl-C, which asks for an audit, and false when there is no time for it.
    pub(super) async fn is_interrupt(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => false,
            _ = self.hang_up.recv() => false,
        }
    }
}
