//! The bound PULL socket: the manager's side of events, and the container's side of commands in tests. A runner's output
//! comes in another way (`runner/intake.rs`), because of what libzmq holds for a malicious peer (`inbox.rs`).

use super::endpoint::Direction;
use super::socket::Socket;
use super::{Context, Limits, Multipart, ZmqError};

/// A PULL that listens.
pub struct Pull {
    socket: Socket,
    /// The port that it listens on.
    port: u16,
}

impl Pull {
    /// Listens on `endpoint`.
    pub fn bind(context: &Context, endpoint: &str, limits: Limits) -> Result<Self, ZmqError> {
        let socket = Socket::open(context, zmq::PULL, Direction::Bind, endpoint, &limits, |_| Ok(()))?;
        let port = socket.local_port()?;
        Ok(Self { socket, port })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn local_port(&self) -> u16 {
        self.port
    }

    /// The next message; check its frame count. Safe to cancel.
    ///
    /// While nobody calls this, the peer's connection is read no further than [`Limits::recv_hwm`] messages.
    pub async fn recv(&mut self) -> Result<Multipart, ZmqError> {
        self.socket.recv().await
    }
}
