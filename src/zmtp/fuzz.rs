//! What any bytes of a peer must not do, for the fuzzer and for `tests/decoders.rs`: each function panics where they do it.
#![allow(clippy::missing_panics_doc, reason = "a panic is what each of these is for")]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::hello::{BadHello, Hello};
use super::inbox::{Broken, Heard, Inbox};
use super::{Caps, Connection, Event, KeepAlive, Kind, Message, PeerInfo, frame};

const KINDS: [Kind; 5] = [Kind::Push, Kind::Pull, Kind::Dealer, Kind::Router, Kind::Req];

/// How much of a record is kept here: little, so that short inputs reach the limit.
const KEPT: usize = 16;

/// The largest call here, for the same reason.
const MOST: u64 = 300;

/// A handshake; the first byte says what we are and the size of the pieces in which the others come.
pub fn hello(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let own = KINDS[usize::from(choice) % KINDS.len()];
    let step = usize::from(choice) / KINDS.len() + 1;
    let (in_pieces, at_once) = (greeted(own, bytes, step), greeted(own, bytes, bytes.len().max(1)));
    assert_eq!(in_pieces, at_once, "pieces make a difference");
    if let Ok(Some(peer)) = in_pieces {
        assert!(own.fits(peer.kind), "{own:?} took {peer:?}");
    }
}

fn greeted(own: Kind, bytes: &[u8], step: usize) -> Result<Option<PeerInfo>, BadHello> {
    let (mut hello, mut unread) = (Hello::new(own), BytesMut::new());
    for piece in bytes.chunks(step) {
        unread.extend_from_slice(piece);
        if let Some(peer) = hello.take(&mut unread)? {
            return Ok(Some(peer));
        }
    }
    Ok(None)
}

/// What comes behind a handshake; the first byte says whose it is and the size of the pieces.
pub fn inbox(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let caps = [Caps::records(KEPT), Caps::calls(MOST), Caps::commands()][usize::from(choice) % 3];
    let step = usize::from(choice) / 3 + 1;
    let (heard, broken) = taken(caps, bytes, step);
    for one in &heard {
        if let Heard::Message(message) = one {
            check(caps, message);
        }
    }
    assert_eq!((heard, broken), taken(caps, bytes, bytes.len().max(1)), "pieces make a difference");
}

/// Everything that is heard, up to the first broken rule. What is asked for is allowed.
fn taken(caps: Caps, bytes: &[u8], step: usize) -> (Vec<Heard>, Option<Broken>) {
    let (mut inbox, mut heard) = (Inbox::new(caps, BytesMut::new()), Vec::new());
    inbox.ask_above(64);
    for piece in bytes.chunks(step) {
        inbox.buffer().extend_from_slice(piece);
        loop {
            match inbox.take() {
                Ok(Some(Heard::Wants(wanted))) => inbox.allow(wanted),
                Ok(Some(one)) => heard.push(one),
                Ok(None) => break,
                Err(broken) => return (heard, Some(broken)),
            }
        }
        assert!(inbox.reserved() <= 2 * bytes.len(), "memory for what did not come");
    }
    (heard, None)
}

fn check(caps: Caps, message: &Message) {
    assert!(!message.frames.is_empty());
    let kept: usize = message.frames.iter().map(Bytes::len).sum();
    if caps == Caps::calls(MOST) {
        assert!(kept as u64 <= MOST && message.frames.len() <= 64, "a call over its limits");
    } else {
        assert!(caps == Caps::records(KEPT), "a peer of commands sent a message");
        assert!(
            message.frames.iter().skip(1).all(|frame| frame.len() <= KEPT),
            "more kept than records need"
        );
    }
}

/// A whole connection, over the machine's own network; the first byte says what we are and how the others come.
pub fn connection(bytes: &[u8]) {
    thread_local! {
        static RUNTIME: Option<Runtime> = Builder::new_current_thread().enable_all().build().ok();
    }
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    RUNTIME.with(|runtime| {
        let exchange = runtime.as_ref().map(|runtime| runtime.block_on(exchange(choice, bytes)));
        assert!(matches!(exchange, Some(Ok(()))), "{exchange:?}");
    });
}

async fn exchange(choice: u8, bytes: &[u8]) -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut peer = TcpStream::connect(listener.local_addr()?).await?;
    let (stream, _) = listener.accept().await?;
    let own = KINDS[usize::from(choice) % KINDS.len()];
    let (first, rest) = bytes.split_at(bytes.len().min(usize::from(choice)));
    let speaking = async {
        // What is not taken any more is no fault.
        let _ = peer.write_all(first).await;
        tokio::task::yield_now().await;
        let _ = peer.write_all(rest).await;
        let _ = peer.shutdown().await;
        let mut answers = Vec::new();
        let _ = peer.read_to_end(&mut answers).await;
        answers
    };
    let both = async { tokio::join!(served(stream, own, choice), speaking) };
    let ((), answers) = timeout(Duration::from_secs(30), both).await?;
    assert!(answers.len() <= 1024 + bytes.len() * 4, "many answers to few bytes");
    // Else each of many connections would keep its port for a minute.
    peer.set_zero_linger()
}

/// Reads, answers and leaves as the rooms above do.
async fn served(stream: TcpStream, own: Kind, choice: u8) {
    let _ = stream.set_zero_linger();
    let keep = KeepAlive::default();
    let Ok(mut connection) = Connection::greet(stream, own, Caps::calls(MOST), keep).await else { return };
    connection.ask_above(64);
    let message = frame::message_and_ping(&[Bytes::from_static(b"an answer")]);
    if choice & 1 == 1 {
        connection.put(message.clone());
        let _ = connection.catch_up();
    }
    loop {
        match connection.next(true).await {
            Ok(Event::Wants(wanted)) => connection.allow(wanted),
            Ok(Event::Message(_)) if connection.is_written() => connection.put(message.clone()),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
