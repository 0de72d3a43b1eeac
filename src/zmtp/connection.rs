//! One connection to one peer, past its handshake.
//!
//! Everything that goes on lives in the [`Connection`] and not in a call's stack: every method may be cancelled between
//! two bytes and called again, and nothing is lost or doubled. Reading and writing go on side by side in
//! [`Connection::next`], so that neither of two peers that wait for each other to read is this one.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::task::coop;
use tokio::time::timeout;

use super::frame;
use super::hello::{BadHello, GREETING, Hello, Kind, PeerInfo, ready};
use super::inbox::{Broken, Caps, Heard, Inbox, Message};
use super::shares::Place;

/// How long connecting may take, with the handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// How much is looked at a time of what came meanwhile.
const PIECE: usize = 1024;

/// How many of them are caught up with at once.
const PIECES: usize = 64;

/// When TCP finds out by itself that a peer's machine is gone.
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    /// After how long without a byte the peer is probed.
    pub idle: Duration,
    /// How often then.
    pub every: Duration,
    /// After how many probes without an answer it is given up.
    pub times: u32,
    /// After how long bytes that the other machine does not acknowledge are given up; the system's quarter of an hour
    /// when there is none.
    pub unacknowledged: Option<Duration>,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), every: Duration::from_secs(15), times: 4, unacknowledged: None }
    }
}

/// Why there is no connection, or no more.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody listens there, or the name leads nowhere.
    #[error("can't connect: {0}")]
    Connect(#[source] io::Error),
    /// Connecting and the handshake took too long.
    #[error("not ready within {} s", .0.as_secs_f64())]
    Late(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The peer closed it.
    #[error("the other side closed the connection")]
    Closed,
    /// The peer is no socket for this one.
    #[error(transparent)]
    Hello(#[from] BadHello),
    /// The peer broke the rules later.
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl Trouble {
    /// Whether the peer is there and talks nonsense, so that trying again soon is of no use.
    #[must_use]
    pub fn is_nonsense(&self) -> bool {
        matches!(self, Self::Hello(_) | Self::Broken(_))
    }
}

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// A message came.
    Message(Message),
    /// The message that comes is larger than allowed and wants so many bytes; see [`Connection::ask_above`].
    Wants(u64),
    /// The peer has read everything up to our last PING.
    Pong,
    /// Everything that was put is written.
    Written,
    /// The peer has closed its side while nobody read. Told once; what it sent before can still be read.
    Leaving,
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    inbox: Inbox,
    peer: PeerInfo,
    /// What is to be written: whole messages and commands, the first one perhaps begun.
    out: Bytes,
    /// The answer to a PING that came while `out` is not empty. The last of several is enough: a peer that wants more of
    /// them and takes none heaps nothing up.
    pong: Option<Bytes>,
    /// Whether the end of `out` is still to be told.
    writes: bool,
    /// Whether [`Event::Leaving`] was told.
    leaves: bool,
    /// How many bytes went either way.
    moved: u64,
    /// The listener's place that it takes.
    pub(super) place: Option<Place>,
}

impl Connection {
    /// Connects as a socket of kind `own`, within [`HANDSHAKE`].
    pub async fn open(
        address: impl ToSocketAddrs,
        own: Kind,
        caps: Caps,
        keep: KeepAlive,
    ) -> Result<Self, Trouble> {
        let opening = async {
            let stream = TcpStream::connect(address).await.map_err(Trouble::Connect)?;
            Self::greet(stream, own, caps, keep).await
        };
        timeout(HANDSHAKE, opening).await.map_err(|_| Trouble::Late(HANDSHAKE))?
    }

    /// Makes the handshake over an open stream; the caller limits its time.
    pub async fn greet(
        mut stream: TcpStream,
        own: Kind,
        caps: Caps,
        keep: KeepAlive,
    ) -> Result<Self, Trouble> {
        prepare(&stream, keep)?;
        // READY goes to a peer whose greeting fits only, as every library has it.
        let (mut hello, mut unread) = (Hello::new(own), BytesMut::new());
        stream.write_all(&GREETING).await?;
        while !hello.greeted(&mut unread)? {
            read(&mut stream, &mut unread).await?;
        }
        stream.write_all(&ready(own)).await?;
        let peer = loop {
            if let Some(peer) = hello.take(&mut unread)? {
                break peer;
            }
            read(&mut stream, &mut unread).await?;
        };
        Ok(Self {
            stream,
            inbox: Inbox::new(caps, unread),
            peer,
            out: Bytes::new(),
            pong: None,
            writes: false,
            leaves: false,
            moved: 0,
            place: None,
        })
    }

    /// What the handshake told about the peer.
    #[must_use]
    pub fn peer(&self) -> PeerInfo {
        self.peer
    }

    /// Asks before a message grows beyond so many bytes ([`Event::Wants`]), and again whenever it has as many as were
    /// [allowed](Self::allow).
    pub fn ask_above(&mut self, bytes: u64) {
        self.inbox.ask_above(bytes);
    }

    /// Lets the message that comes grow up to so many bytes.
    pub fn allow(&mut self, bytes: u64) {
        self.inbox.allow(bytes);
    }

    /// How many bytes went either way, to tell whether anything goes on.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether either side is in the middle of a message.
    #[cfg(test)]
    fn is_amid(&self) -> bool {
        !self.is_written() || self.inbox.is_amid()
    }

    /// Whether nothing is left to be written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.out.is_empty() && self.pong.is_none()
    }

    /// Hands bytes over to be written: whole messages or commands, made by [`frame`](super::frame). They go out while
    /// any other method is waited for.
    pub fn put(&mut self, bytes: Bytes) {
        self.out = if self.out.is_empty() { bytes } else { [&self.out[..], &bytes].concat().into() };
        self.writes = true;
    }

    /// Waits for the next event; writes what was put, and reads as well if `reading`.
    pub async fn next(&mut self, reading: bool) -> Result<Event, Trouble> {
        loop {
            // A peer that never stops sending must not keep this thread from other tasks.
            coop::consume_budget().await;
            if reading && let Some(heard) = self.inbox.take()? {
                match heard {
                    Heard::Message(message) => return Ok(Event::Message(message)),
                    Heard::Wants(bytes) => return Ok(Event::Wants(bytes)),
                    Heard::Pong => return Ok(Event::Pong),
                    Heard::Ping(context) => {
                        let pong = frame::pong(&context);
                        if self.out.is_empty() {
                            self.out = pong;
                            self.write()?;
                        } else {
                            self.pong = Some(pong);
                        }
                        // What came is used up before more is read, or many small commands would heap up.
                        continue;
                    }
                }
            }
            if self.out.is_empty()
                && let Some(pong) = self.pong.take()
            {
                self.out = pong;
            } else if self.out.is_empty() && std::mem::take(&mut self.writes) {
                return Ok(Event::Written);
            }
            self.inbox.shrink();
            let input = if reading {
                Some(Interest::READABLE)
            } else {
                // Tells of the peer's end alone.
                (!self.leaves).then_some(Interest::PRIORITY)
            };
            let output = (!self.out.is_empty()).then_some(Interest::WRITABLE);
            let Some(interest) = input.into_iter().chain(output).reduce(|a, b| a | b) else {
                return std::future::pending().await;
            };
            let is = self.stream.ready(interest).await?;
            if is.is_writable() && !self.out.is_empty() {
                self.write()?;
            }
            if reading && is.is_readable() {
                match self.read().map_or(Ok(None), moved)? {
                    Some(0) => return Err(Trouble::Closed),
                    n => self.moved += n.unwrap_or_default() as u64,
                }
            } else if !reading && is.is_read_closed() && !std::mem::replace(&mut self.leaves, true) {
                return Ok(Event::Leaving);
            }
        }
    }

    /// Reads what is there now; `None` if nothing is, or if the task has used up its budget.
    ///
    /// Not by `try_read_buf`, after which the stream counts as readable until a read in vain: one system call more for each
    /// message. A read that did not fill the buffer tells by itself that nothing is left.
    fn read(&mut self) -> Option<io::Result<usize>> {
        self.stream.read_buf(self.inbox.buffer()).now_or_never()
    }

    /// Writes as much as the system takes now.
    fn write(&mut self) -> io::Result<()> {
        self.moved += moved(self.stream.try_write(&self.out))?.map_or(0, |n| {
            self.out.advance(n);
            n as u64
        });
        Ok(())
    }

    /// The next message.
    pub async fn recv(&mut self) -> Result<Message, Trouble> {
        loop {
            if let Event::Message(message) = self.next(true).await? {
                return Ok(message);
            }
        }
    }

    /// Waits until everything that was put is written, and reads nothing.
    pub async fn flush(&mut self) -> Result<(), Trouble> {
        while self.writes {
            self.next(false).await?;
        }
        Ok(())
    }

    /// Waits for the PONG to the last PING.
    pub async fn pong(&mut self) -> Result<(), Trouble> {
        while !matches!(self.next(true).await?, Event::Pong) {}
        Ok(())
    }

    /// Takes what came meanwhile, without waiting: most of all whether the peer has closed the connection, or what is
    /// put next would be lost. For a peer that has nothing to say but commands; of one that says more than that without a pause
    /// only so much is taken, since this keeps its thread.
    pub fn catch_up(&mut self) -> Result<(), Trouble> {
        for _ in 0..PIECES {
            while let Some(heard) = self.inbox.take()? {
                match heard {
                    Heard::Ping(context) => self.pong = Some(frame::pong(&context)),
                    Heard::Wants(_) => return Ok(()),
                    Heard::Message(_) | Heard::Pong => {}
                }
            }
            // Asked of the system, since the runtime may not have heard yet.
            let mut piece = [0; PIECE];
            match rustix::net::recv(&self.stream, &mut piece[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Trouble::Closed),
                Ok((n, _)) => self.inbox.buffer().extend_from_slice(&piece[..n]),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    /// Closes this side alone. A peer that has written something before it notices gets it over, and closes its own side then,
    /// which [`Self::recv`] tells.
    pub async fn end_writing(&mut self) -> Result<(), Trouble> {
        Ok(self.stream.shutdown().await?)
    }

    /// Writes what was put and closes the connection so that the peer gets all of it: bytes that nobody has read
    /// would make the system tear it down. Gives up after `limit`.
    pub async fn finish(mut self, limit: Duration) {
        let finishing = async {
            self.writes = !self.is_written();
            while self.writes {
                self.next(false).await?;
            }
            self.stream.shutdown().await?;
            let mut unread = BytesMut::new();
            loop {
                unread.clear();
                read(&mut self.stream, &mut unread).await?;
            }
        };
        // The end of what is read is always an error: at best that the peer has closed its side, too.
        let _: Result<Result<(), Trouble>, _> = timeout(limit, finishing).await;
    }
}

async fn read(stream: &mut TcpStream, unread: &mut BytesMut) -> Result<(), Trouble> {
    unread.reserve(PIECE);
    if stream.read_buf(unread).await? == 0 { Err(Trouble::Closed) } else { Ok(()) }
}

/// `None` for what would block: the readiness was out of date.
fn moved(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn prepare(stream: &TcpStream, keep: KeepAlive) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, keep.idle)?;
    sockopt::set_tcp_keepintvl(stream, keep.every)?;
    sockopt::set_tcp_keepcnt(stream, keep.times)?;
    if let Some(limit) = keep.unacknowledged {
        sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
