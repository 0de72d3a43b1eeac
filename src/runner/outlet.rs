//! What a kernel's runner is sent. Whoever listens at the runner's port has nothing to say but small commands; one that
//! says more loses its connection.
//!
//! There is no queue in here: the caller keeps a message until it is written, and it is sent again when its connection
//! breaks before that.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::ids::KernelId;
use crate::zmtp::{Caps, Kind, Redial, Trouble};

/// The sending end of a runner's input.
pub(super) struct Outlet {
    /// For log lines.
    kernel: KernelId,
    address: SocketAddr,
    link: Redial,
}

impl Outlet {
    /// Connects once it is first given a message.
    pub(super) fn new(kernel: KernelId, address: SocketAddr) -> Self {
        Self { kernel, address, link: Redial::new(address.to_string(), Kind::Push, Caps::commands()) }
    }

    /// Sends a message, however long it takes and however many connections. May be cancelled, and is then called
    /// again with the same message, which goes on where it was.
    pub(super) async fn send(&mut self, message: &[Bytes]) {
        while let Err(trouble) = self.link.send(message).await {
            self.tell(&trouble);
        }
    }

    /// Waits until the runner is reached, however long that takes. May be cancelled.
    pub(super) async fn ready(&mut self) {
        while let Err(trouble) = self.link.ready().await {
            self.tell(&trouble);
        }
    }

    /// Waits until the connection that stands ends, or an attempt at another fails. May be cancelled.
    pub(super) async fn stand(&mut self) {
        let trouble = self.link.stand().await;
        self.tell(&trouble);
    }

    /// Whether a connection that stood was lost since this was asked last.
    pub(super) fn has_broken(&mut self) -> bool {
        self.link.has_broken()
    }

    /// Whether a part of a message may have left.
    pub(super) fn is_amid(&self) -> bool {
        self.link.is_amid()
    }

    fn tell(&self, trouble: &Trouble) {
        if self.link.is_worth_telling() {
            tracing::debug!(kernel = %self.kernel, to = %self.address, %trouble, "no connection to a runner's input");
        }
    }
}

#[cfg(test)]
mod tests;
