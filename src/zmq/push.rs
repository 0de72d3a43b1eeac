//! The PUSH socket: events to the manager, input to a kernel's runner.

use std::time::Duration;

use super::endpoint::Direction;
use super::socket::Socket;
use super::{Context, Limits, Multipart, ZmqError, closing};

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

    /// Sends, waiting while the queue is full or (with [`Limits::immediate`]) nobody is connected.
    ///
    /// Safe to cancel: libzmq took the message whole, or nothing of it.
    pub async fn send(&mut self, message: Multipart) -> Result<(), ZmqError> {
        self.socket.need_frames(&message, 1)?;
        self.socket.send(&message).await
    }

    /// Closes, waiting up to `flush` until everything queued has gone out to the network.
    ///
    /// When the wait is cancelled or runs out, what is left is given up after `flush` all the same.
    pub async fn close(self, flush: Duration) {
        closing::close(self.socket, flush).await;
    }
}
