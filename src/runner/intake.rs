//! What a kernel's runner sends, through a PULL of our own over TCP.
//!
//! It took the place of libzmq's PULL, whose limits count whole messages: code in a container can take the runner's
//! port and send frames without a last one, and libzmq keeps them all, until the agent is out of memory. This one
//! holds one record in the making, cut at the size that records are cut at (`wire::zmtp::messages`), and
//! what the kernel's socket buffer holds. There is no queue of records: while nobody calls [`Intake::recv`], nothing
//! is read, and the runner blocks.
//!
//! As libzmq did, it connects again for as long as it lives, answers PINGs and sends none.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::ids::KernelId;
use crate::wire::record::KEPT;
use crate::wire::zmtp::messages::{Heard, Message, Messages};
use crate::wire::zmtp::{self, Decoder, Kind, Said, ZmtpError};

/// How long connecting may take, with the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The first pause after a failure; each further failure doubles it.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(2);
/// An idle connection is probed by TCP after this, then this often, so often (as the other sockets, `zmq::Limits`).
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// The receiving end of a runner's output.
pub(super) struct Intake {
    /// For log lines.
    kernel: KernelId,
    address: SocketAddr,
    state: State,
    /// The pause before the last attempt to connect.
    pause: Duration,
}

/// What goes on lives here and not in a call's stack, so that a call can be cancelled anywhere.
enum State {
    /// An attempt to connect, with the pause before it.
    Opening(Pin<Box<dyn Future<Output = Result<Connection, Trouble>> + Send>>),
    Open(Connection),
}

/// A connection past its handshake.
struct Connection {
    stream: TcpStream,
    messages: Messages,
    /// What is to be written of the answer to a PING.
    pong: Bytes,
}

/// Why there is no connection, or no more.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("can't connect: {0}")]
    Connect(io::Error),
    #[error("not ready within {} s", HANDSHAKE.as_secs())]
    Late,
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the other side closed the connection")]
    Closed,
    #[error(transparent)]
    Rules(#[from] ZmtpError),
}

impl Intake {
    /// Connects once it is first asked for a record.
    pub(super) fn new(kernel: KernelId, address: SocketAddr) -> Self {
        Self { kernel, address, state: State::opening(address, Duration::ZERO), pause: Duration::ZERO }
    }

    /// The next message, however long it takes and however many connections. May be cancelled: nothing is lost.
    ///
    /// An error is how the peer broke the rules. Its connection is closed then, and the next call makes a new one.
    pub(super) async fn recv(&mut self) -> Result<Message, ZmtpError> {
        loop {
            let trouble = match &mut self.state {
                State::Opening(attempt) => match attempt.await {
                    Ok(connection) => {
                        tracing::debug!(kernel = %self.kernel, from = %self.address, "receiving a runner's output");
                        self.state = State::Open(connection);
                        continue;
                    }
                    Err(trouble) => trouble,
                },
                State::Open(connection) => match connection.recv().await {
                    Ok(message) => return Ok(message),
                    Err(trouble) => trouble,
                },
            };
            tracing::debug!(kernel = %self.kernel, from = %self.address, %trouble, "no connection to a runner's output");
            self.pause = pause(&trouble, self.pause);
            // With the old state go its connection and its half message.
            self.state = State::opening(self.address, self.pause);
            if let Trouble::Rules(broken) = trouble {
                return Err(broken);
            }
        }
    }
}

/// How long to wait after this trouble, when the last pause was `last`.
fn pause(trouble: &Trouble, last: Duration) -> Duration {
    match trouble {
        // Docker's proxy does this while the runner starts, which is not to be missed.
        Trouble::Closed | Trouble::Broken(_) => SHORTEST,
        Trouble::Connect(_) | Trouble::Late | Trouble::Rules(_) => (2 * last).clamp(SHORTEST, LONGEST),
    }
}

impl State {
    fn opening(address: SocketAddr, pause: Duration) -> Self {
        Self::Opening(Box::pin(async move {
            sleep(pause).await;
            timeout(HANDSHAKE, Connection::open(address)).await.map_err(|_| Trouble::Late)?
        }))
    }
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self, Trouble> {
        let mut stream = TcpStream::connect(address).await.map_err(Trouble::Connect)?;
        stream.set_nodelay(true)?;
        let (idle, every, times) = KEEPALIVE;
        sockopt::set_socket_keepalive(&stream, true).map_err(io::Error::from)?;
        sockopt::set_tcp_keepidle(&stream, idle).map_err(io::Error::from)?;
        sockopt::set_tcp_keepintvl(&stream, every).map_err(io::Error::from)?;
        sockopt::set_tcp_keepcnt(&stream, times).map_err(io::Error::from)?;
        let mut decoder = Decoder::new(Kind::Push);
        stream.write_all(&zmtp::GREETING).await?;
        hear(&mut stream, &mut decoder, &Said::Greeting).await?;
        stream.write_all(&zmtp::ready(Kind::Pull)).await?;
        hear(&mut stream, &mut decoder, &Said::Ready).await?;
        Ok(Self { stream, messages: Messages::after(decoder, KEPT), pong: Bytes::new() })
    }

    /// The next message. May be cancelled: what was read or written is noted before the next await.
    async fn recv(&mut self) -> Result<Message, Trouble> {
        loop {
            // Before more is read, so that a peer that takes no PONGs does not heap them up here.
            while !self.pong.is_empty() {
                self.stream.write_buf(&mut self.pong).await?;
            }
            match self.messages.take()? {
                Some(Heard::Message(message)) => return Ok(message),
                Some(Heard::Ping(context)) => self.pong = zmtp::pong(&context),
                None if self.stream.read_buf(self.messages.buffer()).await? == 0 => {
                    return Err(Trouble::Closed);
                }
                None => {}
            }
        }
    }
}

async fn hear(stream: &mut TcpStream, decoder: &mut Decoder, wanted: &Said) -> Result<(), Trouble> {
    loop {
        while let Some(said) = decoder.take()? {
            if said == *wanted {
                return Ok(());
            }
        }
        if stream.read_buf(decoder.buffer()).await? == 0 {
            return Err(Trouble::Closed);
        }
    }
}

#[cfg(test)]
mod tests;
