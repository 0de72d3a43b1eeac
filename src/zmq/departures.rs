//! Who has left: a router's own news of its connections, through libzmq's socket monitor.
//!
//! libzmq tells of connections by their descriptors, which are used again as soon as they are closed. So each accepted
//! connection gets a number of its own here, and a message is attributed after the news was read: the news that a
//! connection was accepted is posted before any message that comes through it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use zmq::PollEvents;

use super::socket::Socket;
use super::{Limits, ZmqError};

/// One connection to a router; never used twice in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(u64);

/// The monitor of one router.
pub(super) struct Departures {
    /// The inner end of the monitor.
    news: Socket,
    /// Connections that stand, by descriptor.
    connected: HashMap<u32, Peer>,
    /// The last number handed out.
    last: u64,
}

impl Departures {
    pub(super) fn watch(router: &Socket, endpoint: &str) -> Result<Self, ZmqError> {
        let inner = format!("inproc://news-{}", uuid::Uuid::new_v4().as_simple());
        let events = zmq::SocketEvent::ACCEPTED as i32 | zmq::SocketEvent::DISCONNECTED as i32;
        let failed = |source| ZmqError::Create { endpoint: format!("the monitor of {endpoint}"), source };
        router.raw.monitor(&inner, events).map_err(failed)?;
        let raw = router.engine.socket(zmq::PAIR).map_err(failed)?;
        raw.set_linger(0).map_err(failed)?;
        raw.connect(&inner).map_err(failed)?;
        let news = Socket::around(raw, Arc::clone(&router.engine), &inner, &Limits::client())?;
        Ok(Self { news, connected: HashMap::new(), last: 0 })
    }

    /// Waits until there is news.
    pub(super) async fn wait(&mut self) -> Result<(), ZmqError> {
        self.news.wait(PollEvents::POLLIN).await
    }

    /// Reads all the news there is.
    pub(super) fn read(&mut self, departed: &mut VecDeque<Peer>) -> Result<(), ZmqError> {
        while let Some(message) = self.news.take_message()? {
            let Some((event, descriptor)) = message.first().and_then(|frame| parse(frame)) else { continue };
            if event == zmq::SocketEvent::ACCEPTED as u16 {
                self.last += 1;
                departed.extend(self.connected.insert(descriptor, Peer(self.last)));
            } else {
                departed.extend(self.connected.remove(&descriptor));
            }
        }
        Ok(())
    }

    /// The connection with this descriptor, if it stands.
    pub(super) fn peer(&self, descriptor: u32) -> Option<Peer> {
        self.connected.get(&descriptor).copied()
    }
}

/// The event's number and the descriptor, as `zmq_socket_monitor(3)` lays them out.
fn parse(frame: &[u8]) -> Option<(u16, u32)> {
    let (event, descriptor) = frame.split_first_chunk::<2>()?;
    Some((u16::from_ne_bytes(*event), u32::from_ne_bytes(descriptor.try_into().ok()?)))
}
