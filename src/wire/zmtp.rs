//! ZMTP 3, the wire protocol of ZeroMQ, for the two sockets that libzmq does not serve well enough: a PUSH that wants
//! to know what its peer has read (events), and a PULL whose peer may be malicious (a runner's output, [`messages`]).
//!
//! Facts from ZeroMQ RFC 23 (ZMTP 3.0) and 37 (ZMTP 3.1: PING and PONG). Only the NULL mechanism, as the manager
//! uses it. What libzmq does with a PING, by its version, and why [`probe`] carries the MORE flag:
//!
//! - 4.2 and newer answer it with a PONG from the thread that reads the connection. It takes frames in their order, so the
//!   PONG proves that every message before the PING is in the peer's hands. (Before 4.3 the PONG lacks the context.)
//! - 4.1 and older take commands for messages. A PING would reach the application, and the manager's receiver dies of
//!   a message that isn't three frames. With MORE it is the beginning of a message whose end never comes, which no
//!   application sees and which is undone when the connection closes.

pub mod messages;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What both sides say first: signature, version 3.1, the mechanism, not a server.
pub const GREETING: [u8; 64] = greeting();

/// The largest command that is taken, and the largest frame from a peer that has nothing to say but commands.
const LARGEST: usize = 4096;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// The sockets that talk this way; each is the other's peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sends.
    Push,
    /// Receives.
    Pull,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Push => "PUSH",
            Self::Pull => "PULL",
        }
    }
}

/// Why a peer can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZmtpError {
    /// The first bytes are not ZeroMQ's.
    #[error("what listens there is not ZeroMQ")]
    NotZmq,
    /// ZMTP 1 or 2, older than libzmq 4.
    #[error("it speaks ZMTP {0}; version 3 (libzmq 4) or newer is needed")]
    TooOld(u8),
    /// It wants another mechanism, such as CURVE.
    #[error("it wants the security mechanism {0:?}, this agent has NULL only")]
    Mechanism(String),
    /// It is another kind of socket.
    #[error("it is a {found:?} socket, not {wanted}")]
    Socket {
        /// What it says it is.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// It refused the connection.
    #[error("it refused the connection: {0:?}")]
    Refused(String),
    /// A frame that is too large or a command that is none.
    #[error("it sent a frame that makes no sense")]
    Frame,
    /// A message that goes on and on.
    #[error("it sent a message of more than {} frames", messages::MAX_FRAMES)]
    FrameCount,
}

/// What a peer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Its greeting, which fits ours.
    Greeting,
    /// It is the socket it should be, and ready.
    Ready,
    /// It wants a PONG with this context.
    Ping(Bytes),
    /// It has read everything up to our last PING.
    Pong,
    /// Something that concerns nobody.
    Other,
}

/// The command that ends our side of the handshake; `own` is what we are.
#[must_use]
pub fn ready(own: Kind) -> Bytes {
    let mut body = BytesMut::from(&b"\x05READY\x0bSocket-Type"[..]);
    body.put_u32(4);
    body.put_slice(own.name().as_bytes());
    let mut out = BytesMut::new();
    put_frame(&mut out, COMMAND, &body);
    out.freeze()
}

/// A message and a PING behind it.
#[must_use]
pub fn message_and_ping(frames: &[Bytes]) -> Bytes {
    let mut out = message(frames);
    put_ping(&mut out, COMMAND);
    out.freeze()
}

/// A message alone, for a peer that does not answer PINGs.
#[must_use]
pub fn message_alone(frames: &[Bytes]) -> Bytes {
    message(frames).freeze()
}

/// A PING that harms no peer, whatever its age; a connection whose peer does not answer it must be closed.
#[must_use]
pub fn probe() -> Bytes {
    let mut out = BytesMut::new();
    put_ping(&mut out, COMMAND | MORE);
    out.freeze()
}

/// The answer to a PING.
#[must_use]
pub fn pong(context: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_frame(&mut out, COMMAND, &[b"\x04PONG", context].concat());
    out.freeze()
}

fn message(frames: &[Bytes]) -> BytesMut {
    let mut out = BytesMut::with_capacity(frames.iter().map(|f| f.len() + 9).sum());
    for (at, frame) in frames.iter().enumerate() {
        put_frame(&mut out, if at + 1 < frames.len() { MORE } else { 0 }, frame);
    }
    out
}

/// Without a time to live: the peer shall not close a connection by itself.
fn put_ping(out: &mut BytesMut, flags: u8) {
    put_frame(out, flags, b"\x04PING\0\0");
}

fn put_frame(out: &mut BytesMut, flags: u8, body: &[u8]) {
    if let Ok(short) = u8::try_from(body.len()) {
        out.put_slice(&[flags, short]);
    } else {
        out.put_u8(flags | LONG);
        out.put_u64(body.len() as u64);
    }
    out.put_slice(body);
}

const fn greeting() -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    bytes[11] = 1;
    let mechanism = b"NULL";
    let mut at = 0;
    while at < mechanism.len() {
        bytes[12 + at] = mechanism[at];
        at += 1;
    }
    bytes
}

/// What stands before a frame.
struct Head {
    flags: u8,
    /// As announced: any number.
    length: u64,
}

/// Takes a frame's head off once it is whole.
fn take_head(unread: &mut BytesMut) -> Option<Head> {
    let &flags = unread.first()?;
    let size = if flags & LONG == 0 { 2 } else { 9 };
    if unread.len() < size {
        return None;
    }
    let length = if flags & LONG == 0 { u64::from(unread[1]) } else { (&unread[1..9]).get_u64() };
    unread.advance(size);
    Some(Head { flags, length })
}

/// Takes a peer's commands apart, all of them from a PULL, the handshake's from a PUSH; holds at most one frame of
/// [`LARGEST`] bytes.
#[derive(Debug)]
pub struct Decoder {
    /// What the peer has to be.
    peer: Kind,
    /// Whether the greeting was read.
    greeted: bool,
    /// The flags and the length of the frame that is being read.
    frame: Option<(u8, usize)>,
    /// Bytes that are no whole frame yet.
    unread: BytesMut,
}

impl Decoder {
    /// For a peer of this kind, from its first byte on.
    #[must_use]
    pub fn new(peer: Kind) -> Self {
        Self { peer, greeted: false, frame: None, unread: BytesMut::new() }
    }

    /// Where the peer's next bytes go.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.unread
    }

    /// The next thing that the peer said, or `None` until more bytes are there.
    pub fn take(&mut self) -> Result<Option<Said>, ZmtpError> {
        if !self.greeted {
            self.greeted = self.greeting()?;
            return Ok(self.greeted.then_some(Said::Greeting));
        }
        if self.frame.is_none() {
            let Some(Head { flags, length }) = take_head(&mut self.unread) else { return Ok(None) };
            let length = usize::try_from(length).ok().filter(|n| *n <= LARGEST).ok_or(ZmtpError::Frame)?;
            self.frame = Some((flags, length));
        }
        let Some((flags, length)) = self.frame.take_if(|(_, length)| self.unread.len() >= *length) else {
            return Ok(None);
        };
        let body = self.unread.split_to(length).freeze();
        if flags & COMMAND == 0 { Ok(Some(Said::Other)) } else { command(&body, self.peer).map(Some) }
    }

    /// Reads the greeting once it is whole; judges the signature as soon as its bytes are there.
    fn greeting(&mut self) -> Result<bool, ZmtpError> {
        let unread = &self.unread;
        if unread.first().is_some_and(|b| *b != 0xff) || unread.get(9).is_some_and(|b| b & 1 == 0) {
            return Err(ZmtpError::NotZmq);
        }
        if let Some(&major) = unread.get(10)
            && major < 3
        {
            return Err(ZmtpError::TooOld(major));
        }
        if unread.len() < GREETING.len() {
            return Ok(false);
        }
        let greeting = self.unread.split_to(GREETING.len());
        let mechanism = text(&greeting[12..32]);
        if mechanism == "NULL" { Ok(true) } else { Err(ZmtpError::Mechanism(mechanism)) }
    }
}

fn command(body: &Bytes, peer: Kind) -> Result<Said, ZmtpError> {
    let (&length, rest) = body.split_first().ok_or(ZmtpError::Frame)?;
    let (name, data) = rest.split_at_checked(usize::from(length)).ok_or(ZmtpError::Frame)?;
    Ok(match name {
        b"READY" => match property(data, "socket-type") {
            Some(kind) if kind == peer.name().as_bytes() => Said::Ready,
            other => {
                let found = text(other.unwrap_or_default());
                return Err(ZmtpError::Socket { found, wanted: peer.name() });
            }
        },
        b"ERROR" => return Err(ZmtpError::Refused(text(data.get(1..).unwrap_or_default()))),
        b"PING" => Said::Ping(body.slice(body.len().min(7)..)),
        b"PONG" => Said::Pong,
        _ => Said::Other,
    })
}

/// One of the properties of a READY command; their names know no case.
fn property<'a>(mut data: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    while let Some((&length, rest)) = data.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(length))?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        if name.eq_ignore_ascii_case(wanted.as_bytes()) {
            return Some(value);
        }
        data = rest;
    }
    None
}

/// For messages: up to the first zero, at most 64 characters.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that is said by these bytes, which come in pieces of `step`.
    fn said(bytes: &[u8], step: usize) -> Result<Vec<Said>, ZmtpError> {
        let (mut decoder, mut all) = (Decoder::new(Kind::Pull), Vec::new());
        for piece in bytes.chunks(step) {
            decoder.buffer().put_slice(piece);
            while let Some(one) = decoder.take()? {
                all.push(one);
            }
        }
        Ok(all)
    }

    fn pull_ready() -> Vec<u8> {
        // As libzmq 4.3.4 writes it.
        b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PULL".to_vec()
    }

    #[test]
    fn a_pull_socket_is_understood_in_pieces_of_any_size() {
        let bytes =
            [&GREETING[..], &pull_ready(), b"\x04\x08\x04PING\0\x0ax", b"\x04\x05\x04PONG", b"\0\x01m"]
                .concat();
        let expected =
            [Said::Greeting, Said::Ready, Said::Ping(Bytes::from_static(b"x")), Said::Pong, Said::Other];
        for step in 1..bytes.len() {
            assert_eq!(said(&bytes, step).unwrap(), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn others_are_told_from_it() {
        let wrong = |at: usize, byte: u8| {
            let mut greeting = GREETING;
            greeting[at] = byte;
            said(&greeting, 64).unwrap_err()
        };
        assert_eq!(said(b"HTTP/1.1 400 Bad Request", 5).unwrap_err(), ZmtpError::NotZmq);
        assert_eq!(wrong(9, 0x7e), ZmtpError::NotZmq);
        assert_eq!(wrong(10, 1), ZmtpError::TooOld(1));
        assert_eq!(wrong(12, b'X'), ZmtpError::Mechanism("XULL".to_owned()));
        let after = |frame: &[u8]| said(&[&GREETING[..], frame].concat(), 7).unwrap_err();
        let push = ZmtpError::Socket { found: "PUSH".to_owned(), wanted: "PULL" };
        assert_eq!(after(&ready(Kind::Push)), push);
        assert_eq!(after(b"\x04\x0a\x05ERROR\x03no!"), ZmtpError::Refused("no!".to_owned()));
        assert_eq!(after(b"\x06\0\0\0\x7f\0\0\0\0"), ZmtpError::Frame, "a frame of half a petabyte");
        assert_eq!(after(b"\x04\x02\x09P"), ZmtpError::Frame, "a name longer than its command");
    }

    #[test]
    fn frames_are_written_as_the_protocol_has_them() {
        let frames = [Bytes::from_static(b"name"), Bytes::from(vec![7; 300])];
        let out = message_and_ping(&frames);
        assert_eq!(&out[..6], b"\x01\x04name");
        assert_eq!(&out[6..15], b"\x02\0\0\0\0\0\0\x01\x2c");
        assert_eq!(&out[315..], b"\x04\x07\x04PING\0\0");
        assert_eq!(message_alone(&frames), out[..315]);
        assert_eq!(&probe()[..], b"\x05\x07\x04PING\0\0");
        assert_eq!(&pong(b"ctx")[..], b"\x04\x08\x04PONGctx");
        assert_eq!(&ready(Kind::Push)[..], b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PUSH");
        assert_eq!(&ready(Kind::Pull)[..], pull_ready());
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200), greeted: bool, step in 1..50usize) {
            let mut all = if greeted { GREETING.to_vec() } else { Vec::new() };
            all.extend(bytes);
            let _ = said(&all, step);
        }
    }
}
