//! Messages out of bytes that come in pieces of any size.

use bytes::BufMut;
use proptest::prelude::*;

use super::*;
use crate::wire::zmtp::{GREETING, Kind, ready};

/// What is kept of a second frame in these tests.
const KEEP: usize = 300;

/// A decoder that has read a PUSH's handshake, and with it the `rest`.
fn greeted(rest: &[u8]) -> Messages {
    let mut decoder = Decoder::new(Kind::Push);
    decoder.buffer().put_slice(&[&GREETING[..], &ready(Kind::Push), rest].concat());
    assert_eq!(decoder.take(), Ok(Some(Said::Greeting)));
    assert_eq!(decoder.take(), Ok(Some(Said::Ready)));
    Messages::after(decoder, KEEP)
}

/// Everything that is heard in these bytes, which come in pieces of `step`, the first with the handshake.
fn heard(bytes: &[u8], step: usize) -> (Vec<Heard>, Result<(), ZmtpError>) {
    let mut pieces = bytes.chunks(step);
    let (mut messages, mut all) = (greeted(pieces.next().unwrap_or_default()), Vec::new());
    loop {
        loop {
            match messages.take() {
                Ok(Some(one)) => all.push(one),
                Ok(None) => break,
                Err(error) => return (all, Err(error)),
            }
        }
        assert!(messages.unread.len() < 9, "{} bytes were not looked at", messages.unread.len());
        assert!(messages.body.capacity() <= 2 * bytes.len(), "{} bytes", messages.body.capacity());
        let Some(piece) = pieces.next() else { return (all, Ok(())) };
        messages.buffer().put_slice(piece);
    }
}

/// A frame as libzmq writes it.
fn frame(flags: u8, length: usize) -> Vec<u8> {
    let mut out = BytesMut::new();
    crate::wire::zmtp::put_frame(&mut out, flags, &vec![b'x'; length]);
    out.to_vec()
}

fn message(frames: &[usize], cut: usize) -> Heard {
    Heard::Message(Message { frames: frames.iter().map(|n| vec![b'x'; *n].into()).collect(), cut })
}

#[test]
fn messages_and_pings_are_heard() {
    let check = |bytes: &[u8], expected: &[Heard]| {
        for step in [1, 2, 3, 7, 100, 5000, 100_000] {
            assert_eq!(heard(bytes, step), (expected.to_vec(), Ok(())), "{bytes:.20?} in pieces of {step}");
        }
    };
    let ping = || Heard::Ping(Bytes::from_static(b"ctx"));
    let record = |length| [frame(MORE, 6), frame(0, length)].concat();
    check(b"", &[]);
    check(&record(0), &[message(&[6, 0], 0)]);
    check(&[record(50), record(KEEP)].concat(), &[message(&[6, 50], 0), message(&[6, KEEP], 0)]);
    check(&record(KEEP + 1), &[message(&[6, KEEP], 1)]);
    check(&[record(50_000), record(5)].concat(), &[message(&[6, KEEP], 50_000 - KEEP), message(&[6, 5], 0)]);
    check(&frame(0, LARGEST), &[message(&[LARGEST], 0)]);
    check(b"\x04\x0a\x04PING\0\0ctx", &[ping()]);
    check(
        &[&frame(MORE, 6)[..], b"\x04\x0a\x04PING\0\0ctx", b"\x04\x04\x03NEW", &frame(0, 7)].concat(),
        &[ping(), message(&[6, 7], 0)],
    );
    // The long form is allowed for any size.
    check(b"\x02\0\0\0\0\0\0\0\x01x", &[message(&[1], 0)]);
    // Nothing but the count is kept of what is no record.
    let mut eight = frame(MORE, 1).repeat(7);
    eight.extend(frame(0, 5000));
    check(&eight, &[message(&[1, 1, 0, 0, 0, 0, 0, 0], 0)]);
    // A half message is none.
    check(&[&record(1)[..], &frame(MORE, 6), &frame(0, 200)[..90]].concat(), &[message(&[6, 1], 0)]);
}

/// A first frame that is no kind, and parts that no record has: reported by whoever decodes it, and the next is heard.
#[test]
fn odd_messages_are_heard_and_do_not_grow() {
    let mut bytes = frame(0, LARGEST + 100);
    bytes.extend([frame(MORE, 300).repeat(MAX_FRAMES - 1), frame(0, 300), frame(0, 1)].concat());
    let (heard, end) = heard(&bytes, 1000);
    let sizes = |heard: &Heard| match heard {
        Heard::Message(message) => message.frames.iter().map(Bytes::len).collect::<Vec<_>>(),
        Heard::Ping(_) => panic!("nobody pinged"),
    };
    assert_eq!((heard.len(), end), (3, Ok(())));
    assert_eq!(sizes(&heard[0]), [LARGEST]);
    let odd = sizes(&heard[1]);
    assert!(odd.len() == MAX_FRAMES && odd[2..].iter().all(|size| *size == 0), "{odd:?}");
    assert_eq!(sizes(&heard[2]), [1]);
}

#[test]
fn what_breaks_the_rules_is_named() {
    let check = |bytes: &[u8], expected: ZmtpError| {
        for step in [1, 3, 100_000] {
            assert_eq!(heard(bytes, step), (vec![], Err(expected.clone())), "{bytes:.20?}");
        }
    };
    check(&frame(MORE, 1).repeat(MAX_FRAMES + 1), ZmtpError::FrameCount);
    check(b"\x03\xff\xff\xff\xff\xff\xff\xff\xff", ZmtpError::Frame);
    check(b"\x06\0\0\0\0\0\0\x10\x01", ZmtpError::Frame);
    check(b"\x04\0", ZmtpError::Frame);
    check(b"\x04\x06\x05ERROR", ZmtpError::Refused(String::new()));
}

#[test]
fn an_announcement_takes_no_memory() {
    let mut messages = greeted(b"\x01\x01x\x02\0\0\0\0\x0f\xff\xff\xffabc");
    messages.keep = usize::MAX;
    assert_eq!(messages.take(), Ok(None));
    assert!(messages.body.capacity() <= 3, "{} bytes", messages.body.capacity());
    for _ in 0..100 {
        messages.buffer().put_slice(&[0; 1000]);
        assert_eq!(messages.take(), Ok(None));
    }
    let (length, capacity) = (messages.body.len(), messages.body.capacity());
    assert!(length == 100_003 && capacity <= 2 * length && messages.unread.capacity() <= 4 * READ);
}

proptest! {
    #[test]
    fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..400), step in 1..50usize) {
        let _ = heard(&bytes, step);
    }

    #[test]
    fn frames_of_any_size_in_pieces_of_any_size_become_the_same_messages(
        sizes in prop::collection::vec(prop::collection::vec(0..900_usize, 1..=8), 0..5), step in 1..700usize,
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for frames in &sizes {
            for (at, size) in frames.iter().enumerate() {
                bytes.extend(frame(if at + 1 < frames.len() { MORE } else { 0 }, *size));
            }
            let kept: Vec<_> = frames.iter().enumerate().map(|(at, size)| match at {
                0 => *size,
                1 => (*size).min(KEEP),
                _ => 0,
            }).collect();
            expected.push(message(&kept, frames.get(1).map_or(0, |size| size.saturating_sub(KEEP))));
        }
        prop_assert_eq!(heard(&bytes, step), (expected, Ok(())));
    }
}
