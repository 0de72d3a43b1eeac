//! The DEALER socket: a client of an RPC router.

use super::endpoint::Direction;
use super::socket::Socket;
use super::{Context, Limits, Multipart, ZmqError};

/// A connected DEALER.
pub struct Dealer {
    socket: Socket,
}

impl Dealer {
    /// Starts connecting to `endpoint`; the peer need not be there yet.
    pub fn connect(context: &Context, endpoint: &str, limits: Limits) -> Result<Self, ZmqError> {
        let socket = Socket::open(context, zmq::DEALER, Direction::Connect, endpoint, &limits, |_| Ok(()))?;
        Ok(Self { socket })
    }

    /// Sends, waiting while the queue is full. Safe to cancel: libzmq took the message whole, or nothing of it.
    pub async fn send(&mut self, message: Multipart) -> Result<(), ZmqError> {
        self.socket.need_frames(&message, 1)?;
        self.socket.send(&message).await
    }

    /// The next message, without a routing id. Safe to cancel.
    pub async fn recv(&mut self) -> Result<Multipart, ZmqError> {
        self.socket.recv().await
    }
}
