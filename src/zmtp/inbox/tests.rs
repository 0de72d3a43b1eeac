//! Messages out of bytes that come in pieces of any size, cut or refused.

use bytes::BufMut;
use proptest::prelude::*;

use super::super::frame::put_frame;
use super::*;

/// What is kept of a second frame in these tests.
const KEEP: usize = 300;
const RECORDS: Caps = Caps { frames: 20, ..Caps::records(KEEP) };
const CALLS: Caps = Caps { frames: 5, frame: 1000, large: Large::Refuse(1500) };

/// Everything that is heard in these bytes, which come in pieces of `step`, the first with the handshake.
fn heard(caps: Caps, bytes: &[u8], step: usize) -> (Vec<Heard>, Result<(), Broken>) {
    let mut pieces = bytes.chunks(step);
    let (mut inbox, mut all) = (Inbox::new(caps, pieces.next().unwrap_or_default().into()), Vec::new());
    loop {
        loop {
            match inbox.take() {
                Ok(Some(one)) => all.push(one),
                Ok(None) => break,
                Err(error) => return (all, Err(error)),
            }
        }
        assert!(inbox.unread.len() < 9, "{} bytes were not looked at", inbox.unread.len());
        assert!(inbox.body.capacity() <= 2 * bytes.len(), "{} bytes", inbox.body.capacity());
        let Some(piece) = pieces.next() else { return (all, Ok(())) };
        inbox.buffer().put_slice(piece);
    }
}

/// A frame as libzmq writes it.
fn frame(flags: u8, length: usize) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_frame(&mut out, flags, &vec![b'x'; length]);
    out.to_vec()
}

/// A whole message with frames of these sizes.
fn written(sizes: &[usize]) -> Vec<u8> {
    let last = sizes.len() - 1;
    let frames = sizes.iter().enumerate().map(|(at, size)| frame(if at < last { MORE } else { 0 }, *size));
    frames.collect::<Vec<_>>().concat()
}

fn message(frames: &[usize], cut: usize) -> Heard {
    Heard::Message(Message { frames: frames.iter().map(|n| vec![b'x'; *n].into()).collect(), cut })
}

fn sizes(heard: &Heard) -> Vec<usize> {
    match heard {
        Heard::Message(message) => message.frames.iter().map(Bytes::len).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_and_commands_are_heard() {
    let check = |bytes: &[u8], expected: &[Heard]| {
        for step in [1, 2, 3, 7, 100, 5000, 100_000] {
            let expected = (expected.to_vec(), Ok(()));
            assert_eq!(heard(RECORDS, bytes, step), expected, "{bytes:.20?} in pieces of {step}");
        }
    };
    let ping = || Heard::Ping(Bytes::from_static(b"ctx"));
    let record = |length| written(&[6, length]);
    check(b"", &[]);
    check(&record(0), &[message(&[6, 0], 0)]);
    check(&[record(50), record(KEEP)].concat(), &[message(&[6, 50], 0), message(&[6, KEEP], 0)]);
    check(&record(KEEP + 1), &[message(&[6, KEEP], 1)]);
    check(&[record(50_000), record(5)].concat(), &[message(&[6, KEEP], 50_000 - KEEP), message(&[6, 5], 0)]);
    check(&frame(0, LARGEST_COMMAND), &[message(&[LARGEST_COMMAND], 0)]);
    check(b"\x04\x0a\x04PING\0\0ctx\x04\x05\x04PONG", &[ping(), Heard::Pong]);
    check(
        &[&frame(MORE, 6)[..], b"\x04\x0a\x04PING\0\0ctx", b"\x04\x04\x03NEW", &frame(0, 7)].concat(),
        &[ping(), message(&[6, 7], 0)],
    );
    // The long form is allowed for any size.
    check(b"\x02\0\0\0\0\0\0\0\x01x", &[message(&[1], 0)]);
    // Nothing but the count is kept of what is no record.
    check(&written(&[1, 1, 1, 1, 1, 1, 1, 5000]), &[message(&[1, 1, 0, 0, 0, 0, 0, 0], 0)]);
    // A half message is none.
    check(&[&record(1)[..], &frame(MORE, 6), &frame(0, 200)[..90]].concat(), &[message(&[6, 1], 0)]);
}

/// A first frame that is no kind, and parts that no record has: reported by whoever decodes it, and the next is heard.
#[test]
fn odd_messages_are_heard_and_do_not_grow() {
    let mut bytes = frame(0, LARGEST_COMMAND + 100);
    bytes.extend([written(&[300; 20]), frame(0, 1)].concat());
    let (heard, end) = heard(RECORDS, &bytes, 1000);
    assert_eq!((heard.len(), end), (3, Ok(())));
    assert_eq!(sizes(&heard[0]), [LARGEST_COMMAND]);
    let odd = sizes(&heard[1]);
    assert!(odd.len() == 20 && odd[2..].iter().all(|size| *size == 0), "{odd:?}");
    assert_eq!(sizes(&heard[2]), [1]);
}

#[test]
fn what_breaks_the_rules_is_named() {
    let check = |caps: Caps, bytes: &[u8], expected: Broken| {
        for step in [1, 3, 100_000] {
            assert_eq!(heard(caps, bytes, step), (vec![], Err(expected.clone())), "{bytes:.20?}");
        }
    };
    check(RECORDS, &frame(MORE, 1).repeat(21), Broken::FrameCount(20));
    check(RECORDS, b"\x03\xff\xff\xff\xff\xff\xff\xff\xff", Broken::Frame);
    check(RECORDS, b"\x02\0\0\0\0\x10\0\0\x01", Broken::Frame);
    check(RECORDS, b"\x06\0\0\0\0\0\0\x10\x01", Broken::Frame);
    check(RECORDS, b"\x04\0", Broken::Frame);
    check(RECORDS, b"\x04\x06\x05ERROR", Broken::Refused(String::new()));
    check(CALLS, &frame(MORE, 0).repeat(6), Broken::FrameCount(5));
    check(CALLS, &frame(0, 1001), Broken::Frame);
    check(CALLS, &written(&[1000, 501]), Broken::Size(1500));
    check(Caps::commands(), &frame(0, 1), Broken::FrameCount(0));
}

#[test]
fn an_announcement_takes_no_memory() {
    let mut inbox =
        Inbox::new(Caps::records(usize::MAX), b"\x01\x01x\x02\0\0\0\0\x0f\xff\xff\xffabc"[..].into());
    assert_eq!(inbox.take(), Ok(None));
    assert!(inbox.body.capacity() <= 3, "{} bytes", inbox.body.capacity());
    for _ in 0..100 {
        inbox.buffer().put_slice(&[0; 1000]);
        assert_eq!(inbox.take(), Ok(None));
    }
    let (length, capacity) = (inbox.body.len(), inbox.body.capacity());
    assert!(length == 100_003 && capacity <= 2 * length && inbox.unread.capacity() <= 4 * READ);
}

#[test]
fn growth_is_asked_for_by_what_came_and_not_by_what_was_announced() {
    let mut inbox = Inbox::new(CALLS, written(&[90, 20, 0, 900])[..].into());
    inbox.ask_above(100);
    let mut wanted = Vec::new();
    loop {
        match inbox.take() {
            Ok(Some(Heard::Wants(bytes))) => {
                assert_eq!(inbox.take(), Ok(Some(Heard::Wants(bytes))), "it waits");
                assert!(inbox.taken == inbox.allowed && bytes <= 2 * inbox.taken, "{bytes}");
                wanted.push(bytes);
                inbox.allow(bytes);
            }
            Ok(Some(heard)) => {
                assert_eq!(heard, message(&[90, 20, 0, 900], 0));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(wanted, [110, 220, 440, 880, 1010]);
    inbox.buffer().put_slice(&written(&[50, 50]));
    assert_eq!(inbox.take(), Ok(Some(message(&[50, 50], 0))), "the next one counts from zero");
    assert!(!inbox.is_amid());
    inbox.shrink();
    assert_eq!(inbox.unread.capacity(), 0);
    // What was announced and does not come is not asked for.
    inbox.buffer().put_slice(&frame(0, 1000)[..50]);
    assert_eq!(inbox.take(), Ok(None));
}

/// What the inbox should say to messages of these sizes, told without bytes.
fn model(caps: Caps, messages: &[Vec<usize>]) -> (Vec<Heard>, Result<(), Broken>) {
    let mut all = Vec::new();
    for sizes in messages {
        let mut sum = 0;
        for (at, size) in sizes.iter().enumerate() {
            sum += *size as u64;
            if at >= caps.frames {
                return (all, Err(Broken::FrameCount(caps.frames)));
            }
            if *size as u64 > caps.frame {
                return (all, Err(Broken::Frame));
            }
            if let Large::Refuse(most) = caps.large
                && sum > most
            {
                return (all, Err(Broken::Size(most)));
            }
        }
        all.push(match caps.large {
            Large::Refuse(_) => message(sizes, 0),
            Large::Cut(keep) => {
                let kept = sizes.iter().enumerate().map(|(at, size)| match at {
                    0 => *size,
                    1 => (*size).min(keep),
                    _ => 0,
                });
                message(&kept.collect::<Vec<_>>(), sizes.get(1).map_or(0, |size| size.saturating_sub(keep)))
            }
        });
    }
    (all, Ok(()))
}

proptest! {
    #[test]
    fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..400), step in 1..50usize, cut: bool) {
        let caps = if cut { RECORDS } else { CALLS };
        prop_assert_eq!(heard(caps, &bytes, step), heard(caps, &bytes, 400), "pieces make a difference");
    }

    #[test]
    fn frames_of_any_size_in_pieces_of_any_size_become_what_the_model_says(
        messages in prop::collection::vec(prop::collection::vec(0..900_usize, 1..=8), 0..5), step in 1..700usize,
        cut: bool,
    ) {
        let caps = if cut { RECORDS } else { CALLS };
        let bytes: Vec<u8> = messages.iter().flat_map(|sizes| written(sizes)).collect();
        prop_assert_eq!(heard(caps, &bytes, step), model(caps, &messages));
    }
}
