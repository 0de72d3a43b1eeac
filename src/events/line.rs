//! One connection to the manager's PULL socket that knows what has arrived.
//!
//! A PUSH does not say what became of a message: what it has written is lost without a word when the connection breaks,
//! and the manager never learns of a kernel's end. So events go out over this connection, one at a time, each with a
//! PING behind it, and an event has arrived when the PONG is back (`zmtp` says what that proves). A peer that is too
//! old to answer PINGs gets messages without; for it, written is arrived.
//!
//! A manager that stands still is waited for, however long it takes: giving up would send an event again that is read later.
//! Only a connection that TCP gives up, or that the manager closes, is made anew.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::address::HostPort;
use crate::zmtp::{Caps, Connection, Event, KeepAlive, Kind, Trouble, frame};

/// How long a peer whose greeting does not tell may take to answer the first PING. One that takes longer is sent
/// messages without PINGs until it answers.
const PROBE: Duration = Duration::from_secs(1);

/// When a manager's machine counts as gone.
const KEEP: KeepAlive = KeepAlive {
    idle: Duration::from_secs(10),
    every: Duration::from_secs(5),
    times: 3,
    unacknowledged: Some(Duration::from_secs(8)),
};

/// An open connection, past its handshake.
pub(super) struct Line {
    connection: Connection,
    pings: Pings,
}

/// Whether the peer knows PING.
enum Pings {
    Known,
    /// The peer has not answered a PING yet, which went over a connection of its own and stands there as half a message.
    Asked(Box<Connection>),
    /// The connection on which it was asked has ended.
    Unknown,
}

impl Line {
    /// Connects and finds out whether the peer tells what it has read.
    pub(super) async fn open(address: &HostPort) -> Result<Self, Trouble> {
        let mut connection = connect(address).await?;
        if connection.peer().minor > 0 {
            return Ok(Self { connection, pings: Pings::Known });
        }
        connection.put(frame::probe());
        let pings = match timeout(PROBE, connection.pong()).await {
            Ok(Ok(())) => return Ok(Self { connection, pings: Pings::Known }),
            Ok(Err(_)) => Pings::Unknown,
            Err(_) => Pings::Asked(Box::new(connection)),
        };
        tracing::debug!(to = %address, "the manager's ZeroMQ does not answer pings: an event counts as told once it is written");
        Ok(Self { connection: connect(address).await?, pings })
    }

    /// Whether an arrival is known, and not only a departure.
    pub(super) fn confirms(&self) -> bool {
        matches!(self.pings, Pings::Known)
    }

    /// Sends a message and waits until it has arrived. Not to be cancelled: what is half written breaks the line.
    pub(super) async fn deliver(&mut self, frames: &[Bytes]) -> Result<(), Trouble> {
        if self.confirms() {
            self.connection.put(frame::message_and_ping(frames));
            self.connection.pong().await
        } else {
            self.connection.put(frame::message(frames));
            self.connection.flush().await
        }
    }

    /// Answers the peer's PINGs until the connection breaks. May be cancelled.
    pub(super) async fn idle(&mut self) -> Trouble {
        loop {
            tokio::select! {
                // What it says concerns nobody: a PONG that nobody waits for is none of ours.
                event = self.connection.next(true) => if let Err(trouble) = event {
                    return trouble;
                },
                pings = answered(&mut self.pings) => {
                    if let Pings::Known = pings {
                        tracing::debug!("the manager's ZeroMQ answers pings after all: events count as told once they are read");
                    }
                    self.pings = pings;
                }
            }
        }
    }
}

async fn connect(address: &HostPort) -> Result<Connection, Trouble> {
    Connection::open(address.to_string(), Kind::Push, Caps::commands(), KEEP).await
}

/// Waits for what the peer that was asked makes of it; for ever when none was.
async fn answered(pings: &mut Pings) -> Pings {
    let Pings::Asked(connection) = pings else { return std::future::pending().await };
    loop {
        match connection.next(true).await {
            Ok(Event::Pong) => return Pings::Known,
            Ok(_) => {}
            Err(_) => return Pings::Unknown,
        }
    }
}
