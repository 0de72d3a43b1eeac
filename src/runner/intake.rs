//! What a kernel's runner sends, which may be anything: code in a container can take the runner's port and send frames
//! without end, or of any size.
//!
//! One record in the making is all that is held, cut at the size that records are cut at, and what the kernel's socket
//! buffer holds. There is no queue of records: while nobody calls [`Intake::recv`], nothing is read, and the runner
//! blocks.

use std::net::SocketAddr;

use crate::ids::KernelId;
use crate::wire::record::KEPT;
use crate::zmtp::{Caps, Kind, Message, Redial, Trouble};

/// The receiving end of a runner's output.
pub(super) struct Intake {
    /// For log lines.
    kernel: KernelId,
    address: SocketAddr,
    link: Redial,
}

impl Intake {
    /// Connects once it is first asked for a record.
    pub(super) fn new(kernel: KernelId, address: SocketAddr) -> Self {
        Self { kernel, address, link: Redial::new(address.to_string(), Kind::Pull, Caps::records(KEPT)) }
    }

    /// The next message, however long it takes and however many connections. May be cancelled: nothing is lost.
    ///
    /// An error is how the peer broke the rules. Its connection is closed then, and the next call makes a new one.
    pub(super) async fn recv(&mut self) -> Result<Message, Trouble> {
        loop {
            match self.link.recv().await {
                Ok(message) => return Ok(message),
                Err(trouble) => {
                    if self.link.is_worth_telling() {
                        tracing::debug!(kernel = %self.kernel, from = %self.address, %trouble, "no connection to a runner's output");
                    }
                    if trouble.is_nonsense() {
                        return Err(trouble);
                    }
                }
            }
        }
    }

    /// Ends the connection without losing what the runner has written to it, which [`Self::rest`] brings. Whether there is one.
    pub(super) async fn part(&mut self) -> bool {
        self.link.part().await
    }

    /// The next message of a connection that [ends](Self::part); `None` once everything has come. May be cancelled.
    pub(super) async fn rest(&mut self) -> Option<Message> {
        self.link.recv().await.ok()
    }
}

#[cfg(test)]
mod tests;
