//! One TCP connection to a runner's socket, up to the end of its handshake, and when to try again.
//!
//! Both ends of a runner ([`Intake`](super::intake::Intake), [`Outlet`](super::outlet::Outlet)) connect again for as
//! long as they live, as libzmq did in their place.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::wire::zmtp::{self, Decoder, Kind, Said, ZmtpError};
use crate::zmq::keep_alive;

/// How long connecting may take, with the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The first pause after a failure; each further failure doubles it.
pub(super) const SHORTEST: Duration = Duration::from_millis(100);
/// The longest pause.
pub(super) const LONGEST: Duration = Duration::from_secs(2);
/// An idle connection is probed by TCP after this, then this often, so often (as the other sockets, `zmq::Limits`).
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// A connection whose handshake is over.
pub(super) struct Link {
    pub(super) stream: TcpStream,
    /// Holds what came behind the handshake.
    pub(super) decoder: Decoder,
}

/// An attempt to connect, with the pause before it. Kept by its owner, so that waiting for it can be cancelled.
pub(super) type Opening = Pin<Box<dyn Future<Output = Result<Link, Trouble>> + Send>>;

/// Why there is no connection, or no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
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

impl Trouble {
    /// How long to wait after this, when the last pause was `last`.
    pub(super) fn pause(&self, last: Duration) -> Duration {
        match self {
            // Docker's proxy does this while the runner starts, which is not to be missed.
            Self::Closed | Self::Broken(_) => SHORTEST,
            Self::Connect(_) | Self::Late | Self::Rules(_) => (2 * last).clamp(SHORTEST, LONGEST),
        }
    }
}

/// Connects as a socket of kind `own` to one of kind `peer`, after a pause.
pub(super) fn opening(address: SocketAddr, own: Kind, peer: Kind, pause: Duration) -> Opening {
    Box::pin(async move {
        sleep(pause).await;
        timeout(HANDSHAKE, open(address, own, peer)).await.map_err(|_| Trouble::Late)?
    })
}

async fn open(address: SocketAddr, own: Kind, peer: Kind) -> Result<Link, Trouble> {
    let mut stream = TcpStream::connect(address).await.map_err(Trouble::Connect)?;
    stream.set_nodelay(true)?;
    let (idle, every, times) = KEEPALIVE;
    keep_alive(&stream, idle, every, times)?;
    let mut decoder = Decoder::new(peer);
    stream.write_all(&zmtp::GREETING).await?;
    hear(&mut stream, &mut decoder, &Said::Greeting).await?;
    stream.write_all(&zmtp::ready(own)).await?;
    hear(&mut stream, &mut decoder, &Said::Ready).await?;
    Ok(Link { stream, decoder })
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
