//! The ROUTER socket: the RPC server's side, many peers at once.

use tokio::task::coop;

use super::endpoint::Direction;
use super::socket::{Attempt, Socket};
use super::{Context, Limits, Multipart, ZmqError};

/// A bound ROUTER: every message it receives starts with its sender's routing id, and every message it sends
/// must start with its receiver's.
pub struct Router {
    socket: Socket,
    /// Asked for once: it can't change.
    port: u16,
}

/// What became of a message to one peer.
#[must_use = "an answer that found nobody is worth a log line"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It is on its way.
    Sent,
    /// The peer has left, or takes nothing although its queue is full. Nothing was sent.
    PeerGone,
}

impl Router {
    /// Listens on `endpoint`, such as `tcp://*:6001`.
    ///
    /// A new connection takes over the routing id of an older one with the same explicit id, so that a peer
    /// whose old connection hangs half-open can come back.
    pub fn bind(context: &Context, endpoint: &str, limits: Limits) -> Result<Self, ZmqError> {
        let socket = Socket::open(context, zmq::ROUTER, Direction::Bind, endpoint, &limits, |raw| {
            raw.set_router_mandatory(true)?;
            raw.set_router_handover(true)
        })?;
        let port = socket.local_port()?;
        Ok(Self { socket, port })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn local_port(&self) -> u16 {
        self.port
    }

    /// The next message; its first frame is the sender's routing id, and there may be no other: check the
    /// frame count. Safe to cancel.
    pub async fn recv(&mut self) -> Result<Multipart, ZmqError> {
        self.socket.recv().await
    }

    /// Sends to the peer named by the first frame, without waiting for anyone.
    pub async fn send(&mut self, message: Multipart) -> Result<Delivery, ZmqError> {
        self.socket.need_frames(&message, 2)?;
        coop::consume_budget().await;
        let mut attempt = self.socket.try_send(&message)?;
        if attempt == Attempt::Full {
            // It may only look full: libzmq skips its own news for a millisecond. Now it has read them.
            self.socket.events()?;
            attempt = self.socket.try_send(&message)?;
        }
        Ok(if attempt == Attempt::Taken { Delivery::Sent } else { Delivery::PeerGone })
    }
}
