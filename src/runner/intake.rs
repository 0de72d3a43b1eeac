//! What a kernel's runner sends, through a PULL of our own over TCP.
//!
//! It took the place of libzmq's PULL, whose limits count whole messages: code in a container can take the runner's
//! port and send frames without a last one, and libzmq keeps them all, until the agent is out of memory. This one
//! holds one record in the making, cut at the size that records are cut at (`wire::zmtp::messages`), and
//! what the kernel's socket buffer holds. There is no queue of records: while nobody calls [`Intake::recv`], nothing
//! is read, and the runner blocks.
//!
//! As libzmq did, it connects again for as long as it lives, answers PINGs and sends none.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::link::{Link, Opening, Trouble, opening};
use crate::ids::KernelId;
use crate::wire::record::KEPT;
use crate::wire::zmtp::messages::{Heard, Message, Messages};
use crate::wire::zmtp::{self, Kind, ZmtpError};

/// The receiving end of a runner's output.
pub(super) struct Intake {
    /// For log lines.
    kernel: KernelId,
    address: SocketAddr,
    state: State,
    /// The pause before the last attempt to connect.
    pause: Duration,
}

/// What goes on lives here and not in a call's stack, so that a call can be cancelled anywhere.
enum State {
    Opening(Opening),
    Open(Connection),
}

/// A connection past its handshake.
struct Connection {
    stream: TcpStream,
    messages: Messages,
    /// What is to be written of the answer to a PING.
    pong: Bytes,
}

impl Intake {
    /// Connects once it is first asked for a record.
    pub(super) fn new(kernel: KernelId, address: SocketAddr) -> Self {
        Self { kernel, address, state: State::opening(address, Duration::ZERO), pause: Duration::ZERO }
    }

    /// The next message, however long it takes and however many connections. May be cancelled: nothing is lost.
    ///
    /// An error is how the peer broke the rules. Its connection is closed then, and the next call makes a new one.
    pub(super) async fn recv(&mut self) -> Result<Message, ZmtpError> {
        loop {
            let trouble = match &mut self.state {
                State::Opening(attempt) => match attempt.await {
                    Ok(link) => {
                        tracing::debug!(kernel = %self.kernel, from = %self.address, "receiving a runner's output");
                        self.state = State::Open(Connection::over(link));
                        continue;
                    }
                    Err(trouble) => trouble,
                },
                State::Open(connection) => match connection.recv().await {
                    Ok(message) => return Ok(message),
                    Err(trouble) => trouble,
                },
            };
            tracing::debug!(kernel = %self.kernel, from = %self.address, %trouble, "no connection to a runner's output");
            self.pause = trouble.pause(self.pause);
            // With the old state go its connection and its half message.
            self.state = State::opening(self.address, self.pause);
            if let Trouble::Rules(broken) = trouble {
                return Err(broken);
            }
        }
    }
}

impl State {
    fn opening(address: SocketAddr, pause: Duration) -> Self {
        Self::Opening(opening(address, Kind::Pull, Kind::Push, pause))
    }
}

impl Connection {
    fn over(link: Link) -> Self {
        let Link { stream, decoder } = link;
        Self { stream, messages: Messages::after(decoder, KEPT), pong: Bytes::new() }
    }

    /// The next message. May be cancelled: what was read or written is noted before the next await.
    async fn recv(&mut self) -> Result<Message, Trouble> {
        loop {
            // Before more is read, so that a peer that takes no PONGs does not heap them up here.
            while !self.pong.is_empty() {
                self.stream.write_buf(&mut self.pong).await?;
            }
            match self.messages.take()? {
                Some(Heard::Message(message)) => return Ok(message),
                Some(Heard::Ping(context)) => self.pong = zmtp::pong(&context),
                None if self.stream.read_buf(self.messages.buffer()).await? == 0 => {
                    return Err(Trouble::Closed);
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
