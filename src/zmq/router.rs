//! The ROUTER socket: the RPC server's side, many peers at once.

use std::collections::VecDeque;

use tokio::task::coop;
use zmq::PollEvents;

use super::departures::{Departures, Peer};
use super::endpoint::Direction;
use super::socket::{Attempt, Socket};
use super::{Context, Limits, Multipart, ZmqError};

/// A bound ROUTER: every message it receives starts with its sender's routing id, and every message it sends
/// must start with its receiver's.
pub struct Router {
    socket: Socket,
    /// Asked for once: it can't change.
    port: u16,
    /// Tells when connections come and go.
    departures: Departures,
    /// Peers that have left, in order, not told yet.
    departed: VecDeque<Peer>,
}

/// What a router hears.
#[derive(Debug)]
pub enum Heard {
    /// A message, and through which connection; `None` if that has closed since.
    Message(Multipart, Option<Peer>),
    /// A connection has closed: whoever waits for an answer through it is gone.
    Departed(Peer),
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
        let departures = Departures::watch(&socket, endpoint)?;
        Ok(Self { socket, port, departures, departed: VecDeque::new() })
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

    /// The next message or departure. Safe to cancel.
    pub async fn hear(&mut self) -> Result<Heard, ZmqError> {
        loop {
            coop::consume_budget().await;
            if let Some(peer) = self.departed.pop_front() {
                return Ok(Heard::Departed(peer));
            }
            let message = self.socket.take_message()?;
            // After taking: the news of the connection that a message came through was posted before the message.
            self.departures.read(&mut self.departed)?;
            if let Some(message) = message {
                let peer = self.socket.last_source.and_then(|source| self.departures.peer(source));
                return Ok(Heard::Message(message, peer));
            }
            if self.departed.is_empty() {
                tokio::select! {
                    ready = self.socket.wait(PollEvents::POLLIN) => ready?,
                    ready = self.departures.wait() => ready?,
                }
            }
        }
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
