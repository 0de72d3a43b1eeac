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
    /// Whether a connection that stood was lost, and nobody has asked since.
    broke: bool,
}

impl Intake {
    /// Connects once it is first asked for a record.
    pub(super) fn new(kernel: KernelId, address: SocketAddr) -> Self {
        Self {
            kernel,
            address,
            link: Redial::new(address.to_string(), Kind::Pull, Caps::records(KEPT)),
            broke: false,
        }
    }

    /// The next message, however long it takes and however many attempts to connect. May be cancelled: nothing is lost.
    ///
    /// An error is how a connection ended that stood, or how the peer broke the rules, which ends it. The next call makes a new
    /// one.
    pub(super) async fn recv(&mut self) -> Result<Message, Trouble> {
        loop {
            match self.link.recv().await {
                Ok(message) => return Ok(message),
                Err(trouble) => self.tell(trouble)?,
            }
        }
    }

    /// Waits for a connection in the same way.
    pub(super) async fn ready(&mut self) -> Result<(), Trouble> {
        loop {
            match self.link.ready().await {
                Ok(()) => return Ok(()),
                Err(trouble) => self.tell(trouble)?,
            }
        }
    }

    /// An error is worth telling the caller; an attempt to connect that failed is not.
    fn tell(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        let broke = self.link.has_broken();
        self.broke |= broke;
        if self.link.is_worth_telling() {
            tracing::debug!(kernel = %self.kernel, from = %self.address, %trouble, "no connection to a runner's output");
        }
        if broke || trouble.is_nonsense() { Err(trouble) } else { Ok(()) }
    }

    /// Whether a connection that stood was lost since this was asked last.
    pub(super) fn has_broken(&mut self) -> bool {
        std::mem::take(&mut self.broke)
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
