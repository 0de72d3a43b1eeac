//! The PUSH socket: the other half in tests.

use super::endpoint::Direction;
use super::socket::Socket;
use super::{Context, Limits, Multipart, ZmqError};

/// A connected PUSH; it reconnects by itself for as long as it lives.
pub struct Push {
    socket: Socket,
}

impl Push {
    /// Starts connecting to `endpoint`, such as `tcp://10.0.0.1:5002`; the peer need not be there yet.
    pub fn connect(context: &Context, endpoint: &str, limits: Limits) -> Result<Self, ZmqError> {
        let socket = Socket::open(context, zmq::PUSH, Direction::Connect, endpoint, &limits, |_| Ok(()))?;
        Ok(Self { socket })
    }

    /// Sends, waiting while the queue is full.
    ///
    /// Safe to cancel: libzmq took the message whole, or nothing of it.
    pub async fn send(&mut self, message: Multipart) -> Result<(), ZmqError> {
        self.socket.need_frames(&message, 1)?;
        self.socket.send(&message).await
    }
}
