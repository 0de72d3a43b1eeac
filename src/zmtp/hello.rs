//! The handshake: greeting and READY, both directions. Pure.
//!
//! Facts from ZeroMQ RFC 23 (ZMTP 3.0), 37 (3.1) and 13 and 15 (1.0 and 2.0); only the NULL mechanism, as the manager
//! uses it. libzmq greets as 3.0 up to 4.3.2 and as 3.1 from 4.3.3 on.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{self, COMMAND, LARGEST_COMMAND, put_frame, take_head};

/// What both sides say first: signature, version 3.1, the mechanism, not a server.
pub const GREETING: [u8; 64] = greeting();

/// The kinds of sockets that are served or spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sends.
    Push,
    /// Receives.
    Pull,
    /// Asks, any number of questions at a time.
    Dealer,
    /// Answers.
    Router,
    /// Asks, one question at a time; a peer only.
    Req,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Push, Self::Pull, Self::Dealer, Self::Router, Self::Req];

    /// The kind's name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Push => "PUSH",
            Self::Pull => "PULL",
            Self::Dealer => "DEALER",
            Self::Router => "ROUTER",
            Self::Req => "REQ",
        }
    }

    /// Whether a socket of this kind talks to one of that.
    #[must_use]
    pub fn fits(self, peer: Self) -> bool {
        match self {
            Self::Push => peer == Self::Pull,
            Self::Pull => peer == Self::Push,
            Self::Dealer | Self::Req => peer == Self::Router,
            Self::Router => matches!(peer, Self::Dealer | Self::Req),
        }
    }

    /// What it talks to, for messages to people.
    fn wanted(self) -> &'static str {
        match self {
            Self::Push => "PULL",
            Self::Pull => "PUSH",
            Self::Dealer | Self::Req => "ROUTER",
            Self::Router => "DEALER or REQ",
        }
    }
}

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    /// The first bytes are not ZeroMQ's.
    #[error("what is there is not ZeroMQ")]
    NotZmq,
    /// Older than libzmq 4.
    #[error("it speaks ZMTP {0}; version 3 (libzmq 4) or newer is needed")]
    TooOld(&'static str),
    /// The peer wants another mechanism, such as CURVE.
    #[error("it wants the security mechanism {0:?}, this agent has NULL only")]
    Mechanism(String),
    /// The peer is another kind of socket.
    #[error("it is a {found:?} socket, not {wanted}")]
    Socket {
        /// What it says it is.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The peer refused the connection.
    #[error("it refused the connection: {0:?}")]
    Refused(String),
    /// No READY, or one that can't be read.
    #[error("its handshake makes no sense")]
    Malformed,
}

/// The command that ends our side of the handshake.
#[must_use]
pub fn ready(own: Kind) -> Bytes {
    let mut body = BytesMut::from(&b"\x05READY"[..]);
    let mut put = |name: &[u8], value: &[u8]| {
        // Both are a few bytes long.
        body.put_u8(name.len().try_into().unwrap_or(0));
        body.put_slice(name);
        body.put_u32(value.len().try_into().unwrap_or(0));
        body.put_slice(value);
    };
    put(b"Socket-Type", own.name().as_bytes());
    // As libzmq has it: the kinds whose peers may tell them apart by a name say that they have none.
    if matches!(own, Kind::Dealer | Kind::Router | Kind::Req) {
        put(b"Identity", b"");
    }
    let mut out = BytesMut::new();
    put_frame(&mut out, COMMAND, &body);
    out.freeze()
}

/// What the peer's handshake tells about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerInfo {
    /// What it is.
    pub kind: Kind,
    /// The version's second part: from 1 on it knows PING, at 0 it may (libzmq 4.2) or may not (4.1).
    pub minor: u8,
}

/// Reads the peer's half of a handshake.
#[derive(Debug)]
pub(super) struct Hello {
    /// What we are.
    own: Kind,
    /// The minor version, once the greeting was read.
    greeted: Option<u8>,
}

impl Hello {
    pub(super) fn new(own: Kind) -> Self {
        Self { own, greeted: None }
    }

    /// Takes the greeting off; whether that is done.
    pub(super) fn greeted(&mut self, unread: &mut BytesMut) -> Result<bool, BadHello> {
        if self.greeted.is_none() {
            self.greeted = greeting_of(unread)?;
        }
        Ok(self.greeted.is_some())
    }

    /// Takes the handshake off; `None` until it is whole. What came behind it stays in `unread`.
    pub(super) fn take(&mut self, unread: &mut BytesMut) -> Result<Option<PeerInfo>, BadHello> {
        self.greeted(unread)?;
        let Some(minor) = self.greeted else { return Ok(None) };
        // A READY is small; a head that says otherwise is judged before its body is waited for.
        let mut rest = unread.clone();
        let Some(head) = take_head(&mut rest) else { return Ok(None) };
        let length = usize::try_from(head.length).ok().filter(|n| *n <= LARGEST_COMMAND);
        let Some(length) = length.filter(|_| head.flags & COMMAND != 0) else {
            return Err(BadHello::Malformed);
        };
        if rest.len() < length {
            return Ok(None);
        }
        let body = rest.split_to(length).freeze();
        *unread = rest;
        self.judge(&body).map(|kind| Some(PeerInfo { kind, minor }))
    }

    fn judge(&self, body: &Bytes) -> Result<Kind, BadHello> {
        match frame::command(body).ok_or(BadHello::Malformed)? {
            (b"READY", data) => {
                let name = property(&data, "socket-type").unwrap_or_default();
                let kind = Kind::ALL.into_iter().find(|kind| kind.name().as_bytes() == name);
                kind.filter(|kind| self.own.fits(*kind))
                    .ok_or_else(|| BadHello::Socket { found: frame::text(name), wanted: self.own.wanted() })
            }
            (b"ERROR", data) => Err(BadHello::Refused(frame::text(data.get(1..).unwrap_or_default()))),
            _ => Err(BadHello::Malformed),
        }
    }
}

/// Takes the greeting off once it is whole, and gives the minor version; judges each part as soon as its bytes are there.
fn greeting_of(unread: &mut BytesMut) -> Result<Option<u8>, BadHello> {
    let at = |n: usize| unread.get(n).copied();
    if at(0).is_some_and(|b| b != 0xff) {
        // ZMTP 1.0 begins with the peer's name as a frame: its length, then no flags.
        return match at(1) {
            Some(0) => Err(BadHello::TooOld("1.0 (libzmq 2)")),
            Some(_) => Err(BadHello::NotZmq),
            None => Ok(None),
        };
    }
    if at(9).is_some_and(|b| b & 1 == 0) {
        return Err(BadHello::NotZmq);
    }
    match at(10) {
        Some(0) => return Err(BadHello::TooOld("1.0 (libzmq 2)")),
        // ZMTP 2.0 says 1 here.
        Some(1 | 2) => return Err(BadHello::TooOld("2.0 (libzmq 3)")),
        _ => {}
    }
    if unread.len() < GREETING.len() {
        return Ok(None);
    }
    let greeting = unread.split_to(GREETING.len());
    let mechanism = frame::text(&greeting[12..32]);
    if mechanism == "NULL" { Ok(Some(greeting[11])) } else { Err(BadHello::Mechanism(mechanism)) }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What these bytes lead to, which come in pieces of `step`, and what is left behind them.
    fn heard(own: Kind, bytes: &[u8], step: usize) -> (Result<Option<PeerInfo>, BadHello>, Vec<u8>) {
        let (mut hello, mut unread) = (Hello::new(own), BytesMut::new());
        let mut pieces = bytes.chunks(step);
        while let Some(piece) = pieces.next() {
            unread.put_slice(piece);
            match hello.take(&mut unread) {
                Ok(None) => {}
                done => {
                    pieces.for_each(|piece| unread.put_slice(piece));
                    return (done, unread.to_vec());
                }
            }
        }
        (Ok(None), unread.to_vec())
    }

    fn with_minor(minor: u8) -> [u8; 64] {
        let mut greeting = GREETING;
        greeting[11] = minor;
        greeting
    }

    #[test]
    fn handshakes_are_as_libzmq_writes_them() {
        assert_eq!(&ready(Kind::Push)[..], b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PUSH");
        assert_eq!(&ready(Kind::Pull)[..], b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PULL");
        let dealer = b"\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0";
        assert_eq!(&ready(Kind::Dealer)[..], dealer);
    }

    #[test]
    fn each_kind_finds_its_peers_in_pieces_of_any_size() {
        for own in Kind::ALL {
            for peer in Kind::ALL {
                for minor in [0, 1] {
                    let bytes = [&with_minor(minor)[..], &ready(peer), b"rest"].concat();
                    let expected = if own.fits(peer) {
                        Ok(Some(PeerInfo { kind: peer, minor }))
                    } else {
                        Err(BadHello::Socket { found: peer.name().to_owned(), wanted: own.wanted() })
                    };
                    for step in [1, 2, 7, 63, 64, 65, 200] {
                        let (found, rest) = heard(own, &bytes, step);
                        assert_eq!((found, &rest[..]), (expected.clone(), &b"rest"[..]), "{own:?} {peer:?}");
                    }
                }
            }
        }
        assert!(Kind::Router.fits(Kind::Req) && !Kind::Router.fits(Kind::Router));
    }

    #[test]
    fn a_name_is_read_over() {
        let named = b"\x04\x2d\x05READY\x08Identity\0\0\0\x04name\x0bSOCKET-TYPE\0\0\0\x06DEALER";
        let (found, rest) = heard(Kind::Router, &[&GREETING[..], named].concat(), 5);
        assert_eq!(found, Ok(Some(PeerInfo { kind: Kind::Dealer, minor: 1 })));
        assert!(rest.is_empty());
    }

    #[test]
    fn others_are_told_from_it() {
        let failed = |bytes: &[u8]| heard(Kind::Push, bytes, 3).0.unwrap_err();
        let wrong = |at: usize, byte: u8| {
            let mut greeting = GREETING;
            greeting[at] = byte;
            failed(&greeting)
        };
        assert_eq!(failed(b"HTTP/1.1 400 Bad Request"), BadHello::NotZmq);
        assert_eq!(wrong(9, 0x7e), BadHello::NotZmq);
        assert_eq!(wrong(12, b'X'), BadHello::Mechanism("XULL".to_owned()));
        let after = |frame: &[u8]| failed(&[&GREETING[..], frame].concat());
        assert_eq!(after(b"\x04\x0a\x05ERROR\x03no!"), BadHello::Refused("no!".to_owned()));
        assert_eq!(after(b"\x06\0\0\0\x7f\0\0\0\0"), BadHello::Malformed, "a frame of half a petabyte");
        assert_eq!(after(b"\0\x01m"), BadHello::Malformed, "a message before READY");
        assert_eq!(after(b"\x04\x02\x09P"), BadHello::Malformed, "a name longer than its command");
        let none = BadHello::Socket { found: String::new(), wanted: "PULL" };
        assert_eq!(after(b"\x04\x06\x05READY"), none);
    }

    #[test]
    fn old_peers_are_named_by_their_version() {
        let failed = |bytes: &[u8]| heard(Kind::Router, bytes, 1).0.unwrap_err().to_string();
        // As libzmq 2.2 and 3.2 begin.
        assert!(failed(b"\x01\0").starts_with("it speaks ZMTP 1.0 (libzmq 2)"));
        assert!(failed(b"\x05\0name").starts_with("it speaks ZMTP 1.0"));
        assert!(
            failed(b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x05\0\0").starts_with("it speaks ZMTP 2.0 (libzmq 3)")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200), greeted: bool, step in 1..50usize) {
            let mut all = if greeted { GREETING.to_vec() } else { Vec::new() };
            all.extend(bytes);
            let in_pieces = heard(Kind::Pull, &all, step);
            prop_assert_eq!(in_pieces.0, heard(Kind::Pull, &all, 1).0, "pieces make a difference");
        }
    }
}
