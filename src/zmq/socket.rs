//! One libzmq socket that tokio can wait for; the four public kinds are thin shells around it.
//!
//! # How it waits
//!
//! libzmq offers one descriptor for each socket (`ZMQ_FD`) that becomes readable when its I/O thread has posted
//! commands to the socket ("there is something to read", "there is room again"). It says nothing about what
//! the socket is ready for, and any call on the socket may process the commands and thereby take the edge away,
//! whether or not the commands were about what the caller waits for. So:
//!
//! - readiness is read from `ZMQ_EVENTS` and nowhere else; reading it processes every posted command (a send
//!   alone may skip that for a millisecond, so its EAGAIN proves nothing);
//! - we sleep only after `ZMQ_EVENTS` said "not ready", and nothing else happens on the socket between that and
//!   the sleep; a command that is posted later makes a new edge, because the descriptor was drained;
//! - tokio's own readiness flag is cleared only in [`Socket::wait`], and `ZMQ_EVENTS` is read again in the same
//!   poll. A wait that is cancelled leaves the flag as it is. A flag that is set for nothing costs one more turn.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop;
use tracing::{debug, warn};
use zmq::{DONTWAIT, PollEvents, SNDMORE};

use super::endpoint::{self, Direction};
use super::engine::Engine;
use super::inbox::{Inbox, Step};
use super::{Context, Limits, Multipart, ZmqError};

/// Frames taken in one go before others on the runtime get their turn; only a message that is going to be
/// dropped anyway can have so many.
const FRAMES_PER_TURN: usize = 1024;

/// Up to this size frames are copied: small ones share libzmq's 8 KiB receive buffer and would keep all of it.
const COPY_UP_TO: usize = 16 * 1024;

/// A libzmq socket with its place in tokio's reactor.
pub(super) struct Socket {
    /// The registered descriptor. First, because fields drop in order: it must leave the reactor before libzmq
    /// closes the descriptor and the number goes to somebody else.
    pub(super) signal: AsyncFd<Signal>,
    /// The socket. It is `Send` but not `Sync`, so every method here takes `&mut self` or does not await.
    pub(super) raw: zmq::Socket,
    /// Keeps the libzmq context alive. After `raw`, so that the end of the context is ours to arrange.
    pub(super) engine: Arc<Engine>,
    /// For error texts and logs: what was bound or connected, as it was given.
    pub(super) endpoint: Arc<str>,
    /// The message that is being received.
    inbox: Inbox,
    /// How many messages were too large; the first one is worth a warning.
    dropped: u64,
    /// The descriptor of the connection that the last frame came through; what a router tells peers apart by.
    pub(super) last_source: Option<u32>,
}

/// The descriptor, which libzmq owns.
pub(super) struct Signal(RawFd);

impl AsRawFd for Signal {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// What became of an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// libzmq has the whole message.
    Taken,
    /// No peer has room now; nothing was sent.
    Full,
    /// A router knows no such peer; nothing was sent.
    Unknown,
}

impl Socket {
    /// Makes a socket and binds or connects it; `prepare` sets what only this kind of socket has.
    pub(super) fn open(
        context: &Context,
        kind: zmq::SocketType,
        direction: Direction,
        endpoint: &str,
        limits: &Limits,
        prepare: impl FnOnce(&zmq::Socket) -> zmq::Result<()>,
    ) -> Result<Self, ZmqError> {
        let host = endpoint::host_of(endpoint, direction).map_err(|source| ZmqError::Endpoint {
            endpoint: endpoint.chars().take(300).collect(),
            source,
        })?;
        let (raw, engine) = context.socket(kind, endpoint, host)?;
        limits.apply(&raw, endpoint, host)?;
        prepare(&raw).map_err(|source| ZmqError::Option {
            endpoint: endpoint.to_owned(),
            option: "ZMQ_ROUTER_*",
            source,
        })?;
        match direction {
            Direction::Bind => raw.bind(endpoint).map_err(|source| ZmqError::bind(endpoint, source))?,
            Direction::Connect => raw
                .connect(endpoint)
                .map_err(|source| ZmqError::Connect { endpoint: endpoint.to_owned(), source })?,
        }
        Self::around(raw, engine, endpoint, limits)
    }

    /// A socket that is bound or connected already.
    pub(super) fn around(
        raw: zmq::Socket,
        engine: Arc<Engine>,
        endpoint: &str,
        limits: &Limits,
    ) -> Result<Self, ZmqError> {
        let signal = watch(&raw, endpoint)?;
        let inbox = Inbox::new(limits.max_message);
        Ok(Self { signal, raw, engine, endpoint: endpoint.into(), inbox, dropped: 0, last_source: None })
    }

    /// The port that a bound socket listens on.
    pub(super) fn local_port(&self) -> Result<u16, ZmqError> {
        let bound = self.raw.get_last_endpoint().map_err(|source| self.query_error(source))?;
        let port = bound.ok().and_then(|text| endpoint::port_of(&text));
        port.ok_or_else(|| self.query_error(zmq::Error::EPROTO))
    }

    /// The next message. May be cancelled: no message is lost.
    pub(super) async fn recv(&mut self) -> Result<Multipart, ZmqError> {
        loop {
            // A peer that never stops sending must not keep this worker thread from other tasks.
            coop::consume_budget().await;
            if let Some(message) = self.take_message()? {
                return Ok(message);
            }
            self.wait(PollEvents::POLLIN).await?;
        }
    }

    /// Sends as soon as a peer has room. May be cancelled: the message went whole or not at all.
    pub(super) async fn send(&mut self, message: &[Bytes]) -> Result<(), ZmqError> {
        loop {
            coop::consume_budget().await;
            // First, so that a large message is not copied for nothing.
            self.wait(PollEvents::POLLOUT).await?;
            if self.try_send(message)? == Attempt::Taken {
                return Ok(());
            }
        }
    }

    /// Waits until the socket is ready for one of `wanted`; the module's doc says why it is written this way.
    pub(super) async fn wait(&mut self, wanted: PollEvents) -> Result<(), ZmqError> {
        loop {
            if self.events()?.intersects(wanted) {
                return Ok(());
            }
            let mut ready = self
                .signal
                .readable()
                .await
                .map_err(|source| ZmqError::Watch { endpoint: self.endpoint.to_string(), source })?;
            ready.clear_ready();
        }
    }

    /// Processes what libzmq's I/O thread posted and says what the socket is ready for.
    pub(super) fn events(&self) -> Result<PollEvents, ZmqError> {
        loop {
            match self.raw.get_events() {
                Err(zmq::Error::EINTR) => {}
                other => return other.map_err(|source| self.query_error(source)),
            }
        }
    }

    /// The next message, if all of it is there. libzmq hands a message on whole, so this can't stop in the
    /// middle of one but for [`FRAMES_PER_TURN`].
    pub(super) fn take_message(&mut self) -> Result<Option<Multipart>, ZmqError> {
        for _ in 0..FRAMES_PER_TURN {
            match self.raw.recv_msg(DONTWAIT) {
                Ok(mut frame) => {
                    let more = frame.get_more();
                    // libzmq's own name for it, behind the deprecated ZMQ_SRCFD.
                    self.last_source = frame.gets("__fd").and_then(|text| text.parse().ok());
                    match self.inbox.push(into_bytes(frame), more) {
                        Step::More => {}
                        Step::Whole(message) => return Ok(Some(message)),
                        Step::Dropped { frames, bytes } => self.note_dropped(frames, bytes),
                    }
                }
                Err(zmq::Error::EINTR) => {}
                Err(zmq::Error::EAGAIN) => return Ok(None),
                Err(source) => {
                    return Err(ZmqError::Receive { endpoint: self.endpoint.to_string(), source });
                }
            }
        }
        Ok(None)
    }

    /// Hands over all frames, or none.
    pub(super) fn try_send(&mut self, message: &[Bytes]) -> Result<Attempt, ZmqError> {
        let last = message.len().saturating_sub(1);
        for (at, frame) in message.iter().enumerate() {
            let flags = if at < last { DONTWAIT | SNDMORE } else { DONTWAIT };
            let sent = loop {
                match self.raw.send(frame.as_ref(), flags) {
                    Err(zmq::Error::EINTR) => {}
                    other => break other,
                }
            };
            match sent {
                Ok(()) => {}
                Err(zmq::Error::EAGAIN) => {
                    // The connection went between two frames: libzmq has rolled the first ones back and now
                    // swallows frames up to the next last one. Give it that, or it eats the next message.
                    if at > 0 && at < last {
                        let _ = self.raw.send(&[][..], DONTWAIT);
                    }
                    return Ok(Attempt::Full);
                }
                Err(zmq::Error::EHOSTUNREACH) => return Ok(Attempt::Unknown),
                Err(source) => return Err(ZmqError::Send { endpoint: self.endpoint.to_string(), source }),
            }
        }
        Ok(Attempt::Taken)
    }

    /// Refuses messages that the kind of socket can't carry.
    pub(super) fn need_frames(&self, message: &[Bytes], needed: usize) -> Result<(), ZmqError> {
        let frames = message.len();
        if frames >= needed {
            return Ok(());
        }
        Err(ZmqError::TooFewFrames { endpoint: self.endpoint.to_string(), frames, needed })
    }

    fn note_dropped(&mut self, frames: usize, bytes: usize) {
        self.dropped += 1;
        let (endpoint, total) = (&*self.endpoint, self.dropped);
        if total == 1 {
            warn!(
                endpoint,
                frames, bytes, "dropped a message that is too large; later ones are only counted"
            );
        } else {
            debug!(endpoint, frames, bytes, total, "dropped a message that is too large");
        }
    }

    fn query_error(&self, source: zmq::Error) -> ZmqError {
        ZmqError::Query { endpoint: self.endpoint.to_string(), source }
    }
}

/// Registers a socket's descriptor with the runtime.
///
/// The caller keeps `raw` alive for longer than what it gets: see [`Socket::signal`].
#[expect(
    deprecated,
    reason = "tokio's successor is an unsafe fn with the same body, and this crate has no unsafe code. \
              What it would have us promise (the descriptor outlives the AsyncFd) is kept by the order of the fields"
)]
pub(super) fn watch(raw: &zmq::Socket, endpoint: &str) -> Result<AsyncFd<Signal>, ZmqError> {
    let fd = raw.get_fd().map_err(|source| ZmqError::Query { endpoint: endpoint.to_owned(), source })?;
    AsyncFd::with_interest(Signal(fd), Interest::READABLE)
        .map_err(|source| ZmqError::Watch { endpoint: endpoint.to_owned(), source })
}

/// Takes a frame over without copying, where that pays.
fn into_bytes(frame: zmq::Message) -> Bytes {
    /// Lends libzmq's memory to [`Bytes`].
    struct Owner(zmq::Message);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    if frame.len() <= COPY_UP_TO { Bytes::copy_from_slice(&frame) } else { Bytes::from_owner(Owner(frame)) }
}
