//! One connection to the manager's PULL socket that knows what has arrived.
//!
//! libzmq's PUSH does not say what became of a message: what it has written is lost without a word when the
//! connection breaks, and the manager never learns of a kernel's end. So events go out over this connection,
//! one at a time, each with a PING behind it, and an event has arrived when the PONG is back (`wire::zmtp` says
//! what that proves). A peer that is too old to answer PINGs gets messages without; for it, written is arrived.
//!
//! A manager that stands still is waited for, however long it takes: giving up would send an event again that is read later.
//! Only a connection that TCP gives up, or that the manager closes, is made anew.

use std::time::Duration;

use bytes::Bytes;
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::address::HostPort;
use crate::wire::zmtp::{self, Decoder, Kind, Said, ZmtpError};
use crate::zmq::keep_alive;

/// How long connecting may take, and again the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a peer may take to answer the first PING before it counts as one that answers none.
const PROBE: Duration = Duration::from_secs(1);
/// After how long TCP gives up on bytes that the other machine does not acknowledge.
const UNACKNOWLEDGED: Duration = Duration::from_secs(8);
/// An idle connection is probed by TCP after this, then this often, so often.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 3);

/// Why there is no connection, or no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// Nobody listens there, or the connection broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The other side closed it.
    #[error("the manager closed the connection")]
    Closed,
    /// It is there, and not what it should be.
    #[error(transparent)]
    Zmtp(#[from] ZmtpError),
    /// It did not answer while the connection was made.
    #[error("no answer within {limit} s to {step}", limit = HANDSHAKE.as_secs())]
    Late {
        /// What was not answered.
        step: &'static str,
    },
}

/// An open connection, past its handshake.
pub(super) struct Line {
    stream: TcpStream,
    decoder: Decoder,
    /// Whether the peer answers PINGs.
    confirms: bool,
}

impl Line {
    /// Connects and finds out whether the peer tells what it has read.
    pub(super) async fn open(address: &HostPort) -> Result<Self, LineError> {
        let mut line = Self::greet(address).await?;
        line.stream.write_all(&zmtp::probe()).await?;
        if let Ok(Ok(())) = timeout(PROBE, line.hear(Said::Pong)).await {
            line.confirms = true;
            return Ok(line);
        }
        // The PING stands there as half a message, or the peer hung up on it: either way it needs a new connection.
        drop(line);
        tracing::debug!(to = %address, "the manager's ZeroMQ does not answer pings: an event counts as told once it is written");
        Self::greet(address).await
    }

    async fn greet(address: &HostPort) -> Result<Self, LineError> {
        let connecting = TcpStream::connect((address.host.as_str(), address.port));
        let stream =
            timeout(HANDSHAKE, connecting).await.map_err(|_| LineError::Late { step: "connecting" })??;
        stream.set_nodelay(true)?;
        let (idle, every, times) = KEEPALIVE;
        keep_alive(&stream, idle, every, times)?;
        let millis = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(&stream, millis).map_err(std::io::Error::from)?;
        let mut line = Self { stream, decoder: Decoder::new(Kind::Pull), confirms: false };
        let handshake = async {
            line.stream.write_all(&zmtp::GREETING).await?;
            line.hear(Said::Greeting).await?;
            line.stream.write_all(&zmtp::ready(Kind::Push)).await?;
            line.hear(Said::Ready).await
        };
        timeout(HANDSHAKE, handshake)
            .await
            .map_err(|_| LineError::Late { step: "the ZeroMQ greeting" })??;
        Ok(line)
    }

    /// Whether an arrival is known, and not only a departure.
    pub(super) fn confirms(&self) -> bool {
        self.confirms
    }

    /// Sends a message and waits until it has arrived. Not to be cancelled: what is half written breaks the line.
    pub(super) async fn deliver(&mut self, frames: &[Bytes]) -> Result<(), LineError> {
        if self.confirms {
            self.stream.write_all(&zmtp::message_and_ping(frames)).await?;
            self.hear(Said::Pong).await
        } else {
            Ok(self.stream.write_all(&zmtp::message_alone(frames)).await?)
        }
    }

    /// Answers the peer's PINGs until the connection breaks. May be cancelled.
    pub(super) async fn idle(&mut self) -> LineError {
        loop {
            match self.next().await {
                // A PONG that nobody waits for is none of ours.
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }

    async fn hear(&mut self, wanted: Said) -> Result<(), LineError> {
        while self.next().await? != wanted {}
        Ok(())
    }

    async fn next(&mut self) -> Result<Said, LineError> {
        loop {
            while let Some(said) = self.decoder.take()? {
                if let Said::Ping(context) = said {
                    // Smaller than any socket's buffer: written whole, at once.
                    self.stream.write_all(&zmtp::pong(&context)).await?;
                } else {
                    return Ok(said);
                }
            }
            if self.stream.read_buf(self.decoder.buffer()).await? == 0 {
                return Err(LineError::Closed);
            }
        }
    }
}
