//! The PULL socket: output of a kernel's runner; bound, it is the manager's side of events.

use super::endpoint::Direction;
use super::socket::Socket;
use super::{Context, Limits, Multipart, ZmqError};

/// A PULL, connected or bound.
pub struct Pull {
    socket: Socket,
    /// The port that it listens on; 0 when it connects.
    port: u16,
}

impl Pull {
    /// Starts connecting to `endpoint`; it connects again by itself whenever the connection breaks.
    pub fn connect(context: &Context, endpoint: &str, limits: Limits) -> Result<Self, ZmqError> {
        let socket = Socket::open(context, zmq::PULL, Direction::Connect, endpoint, &limits, |_| Ok(()))?;
        Ok(Self { socket, port: 0 })
    }

    /// Listens on `endpoint`.
    pub fn bind(context: &Context, endpoint: &str, limits: Limits) -> Result<Self, ZmqError> {
        let socket = Socket::open(context, zmq::PULL, Direction::Bind, endpoint, &limits, |_| Ok(()))?;
        let port = socket.local_port()?;
        Ok(Self { socket, port })
    }

    /// The port that it listens on; 0 when it connects.
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
