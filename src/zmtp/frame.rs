//! Frames, of which everything behind a greeting consists. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Other frames of the message follow.
pub(super) const MORE: u8 = 1;
/// The length has eight bytes, not one.
pub(super) const LONG: u8 = 2;
/// The frame is a command, no part of a message.
pub(super) const COMMAND: u8 = 4;

/// The largest command that is taken. Real ones have some dozen bytes.
pub(super) const LARGEST_COMMAND: usize = 4096;

/// How much of a PING's context goes back with its PONG, as ZMTP 3.1 allows it.
const CONTEXT: usize = 16;

/// What stands before a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) flags: u8,
    /// As announced: any number.
    pub(super) length: u64,
}

/// Takes a frame's head off once it is whole.
pub(super) fn take_head(unread: &mut BytesMut) -> Option<Head> {
    let &flags = unread.first()?;
    let size = if flags & LONG == 0 { 2 } else { 9 };
    if unread.len() < size {
        return None;
    }
    let length = if flags & LONG == 0 { u64::from(unread[1]) } else { (&unread[1..9]).get_u64() };
    unread.advance(size);
    Some(Head { flags, length })
}

/// Appends one frame; flags may be [`MORE`] and [`COMMAND`].
pub(super) fn put_frame(out: &mut impl BufMut, flags: u8, body: &[u8]) {
    if let Ok(short) = u8::try_from(body.len()) {
        out.put_slice(&[flags, short]);
    } else {
        out.put_u8(flags | LONG);
        out.put_u64(body.len() as u64);
    }
    out.put_slice(body);
}

/// A message as it goes over the wire.
#[must_use]
pub fn message(frames: &[Bytes]) -> Bytes {
    put_message(frames).freeze()
}

/// A message of two frames, of which the second is written in its place: a large one is not copied.
#[must_use]
pub fn message_of(first: &[u8], second: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    const HEAD: usize = 9;
    let mut out = Vec::new();
    put_frame(&mut out, MORE, first);
    let head = out.len();
    out.extend([0; HEAD]);
    second(&mut out);
    let length = out.len() - head - HEAD;
    if let Ok(short) = u8::try_from(length) {
        out.splice(head..head + HEAD, [0, short]);
    } else {
        out[head] = LONG;
        out[head + 1..head + HEAD].copy_from_slice(&(length as u64).to_be_bytes());
    }
    out.into()
}

/// A message and a PING behind it.
#[must_use]
pub fn message_and_ping(frames: &[Bytes]) -> Bytes {
    let mut out = put_message(frames);
    put_ping(&mut out, COMMAND);
    out.freeze()
}

/// A PING that harms no peer, whatever its age: with MORE, one that takes commands for messages sees the beginning of a
/// message whose end never comes. A connection whose peer does not answer it must carry no message.
#[must_use]
pub fn probe() -> Bytes {
    let mut out = BytesMut::new();
    put_ping(&mut out, COMMAND | MORE);
    out.freeze()
}

/// The answer to a PING with this context.
#[must_use]
pub fn pong(context: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_frame(&mut out, COMMAND, &[b"\x04PONG", &context[..context.len().min(CONTEXT)]].concat());
    out.freeze()
}

fn put_message(frames: &[Bytes]) -> BytesMut {
    let mut out = BytesMut::with_capacity(frames.iter().map(|f| f.len() + 9).sum::<usize>() + 9);
    for (at, frame) in frames.iter().enumerate() {
        put_frame(&mut out, if at + 1 < frames.len() { MORE } else { 0 }, frame);
    }
    out
}

/// Without a time to live: the peer shall not close a connection by itself.
fn put_ping(out: &mut BytesMut, flags: u8) {
    put_frame(out, flags, b"\x04PING\0\0");
}

/// A command's name and data.
pub(super) fn command(body: &Bytes) -> Option<(&[u8], Bytes)> {
    let (&length, rest) = body.split_first()?;
    let (name, data) = rest.split_at_checked(usize::from(length))?;
    Some((name, body.slice_ref(data)))
}

/// For messages to people: up to the first zero, at most 64 characters.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_written_as_the_protocol_has_them() {
        let frames = [Bytes::from_static(b"name"), Bytes::from(vec![7; 300])];
        let out = message_and_ping(&frames);
        assert_eq!(&out[..6], b"\x01\x04name");
        assert_eq!(&out[6..15], b"\x02\0\0\0\0\0\0\x01\x2c");
        assert_eq!(&out[315..], b"\x04\x07\x04PING\0\0");
        assert_eq!(message(&frames), out[..315]);
        assert_eq!(&probe()[..], b"\x05\x07\x04PING\0\0");
        assert_eq!(&pong(b"ctx")[..], b"\x04\x08\x04PONGctx");
    }

    #[test]
    fn a_message_is_the_same_whether_its_second_frame_is_copied_or_written_in_its_place() {
        for length in [0, 1, 255, 256, 70_000] {
            let frames = [Bytes::from_static(b"head"), Bytes::from(vec![7; length])];
            assert_eq!(message_of(b"head", |out| out.extend(&frames[1])), message(&frames), "{length}");
        }
    }

    #[test]
    fn a_pong_is_never_longer_than_the_protocol_has_it() {
        assert_eq!(&pong(&[b'x'; 4000])[..], b"\x04\x15\x04PONGxxxxxxxxxxxxxxxx");
    }

    #[test]
    fn commands_are_taken_apart() {
        let parts = |body: &'static [u8]| command(&Bytes::from_static(body)).map(|(n, d)| (n.to_vec(), d));
        assert_eq!(parts(b"\x04PINGab"), Some((b"PING".to_vec(), Bytes::from_static(b"ab"))));
        assert_eq!(parts(b"\x09P"), None, "a name longer than its command");
        assert_eq!(parts(b""), None);
    }
}
