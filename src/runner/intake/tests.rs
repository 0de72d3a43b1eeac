//! The intake against the PUSH of another ZeroMQ library, and against peers that are none.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use zeromq::{PushSocket, Socket, SocketSend, ZmqMessage};

use super::*;
use crate::wire::record::{BadRecord, MAX_RECORD, Record};
use crate::zmtp::frame;
use crate::zmtp::hello::{BadHello, GREETING, ready};
use crate::zmtp::inbox::Broken;

const MIB: usize = 1024 * 1024;

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("timed out")
}

fn intake(port: u16) -> Intake {
    Intake::new(KernelId::random(), (Ipv4Addr::LOCALHOST, port).into())
}

/// The frames of the next message, which is not cut, over whatever connection.
async fn frames(intake: &mut Intake) -> Vec<Bytes> {
    let message = loop {
        match within(intake.recv()).await {
            Ok(message) => break message,
            Err(trouble) => assert!(intake.has_broken() && !trouble.is_nonsense(), "{trouble}"),
        }
    };
    assert_eq!(message.cut, 0);
    message.frames
}

fn record(kind: &'static str, data: impl Into<Bytes>) -> Vec<Bytes> {
    vec![Bytes::from_static(kind.as_bytes()), data.into()]
}

/// The other implementation's PUSH fails instead of waiting for its first peer.
async fn push_until_taken(push: &mut PushSocket, frames: Vec<Bytes>) {
    let message = ZmqMessage::try_from(frames).unwrap();
    within(async {
        while push.send(message.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A peer all of whose bytes are ours, but for the handshake.
struct Raw {
    listener: TcpListener,
    port: u16,
}

impl Raw {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    /// The next connection, past its handshake as ZMTP 3.0 has it.
    async fn greet(&self) -> TcpStream {
        within(async {
            let mut stream = self.listener.accept().await.unwrap().0;
            let mut greeting = GREETING;
            greeting[11] = 0;
            stream.write_all(&greeting).await.unwrap();
            let mut theirs = [0; 64 + 28];
            stream.read_exact(&mut theirs[..64]).await.unwrap();
            stream.write_all(&ready(Kind::Push)).await.unwrap();
            stream.read_exact(&mut theirs[64..]).await.unwrap();
            assert_eq!((&theirs[..64], &theirs[64..]), (&GREETING[..], &ready(Kind::Pull)[..]));
            stream
        })
        .await
    }
}

/// Polls the intake and `other` side by side until that is done; the intake has nothing to hand on meanwhile.
async fn beside<T>(intake: &mut Intake, other: impl Future<Output = T>) -> T {
    within(async {
        tokio::select! {
            biased;
            got = intake.recv() => panic!("{got:?}"),
            done = other => done,
        }
    })
    .await
}

#[tokio::test]
async fn a_foreign_push_is_heard_and_found_again_on_the_same_port() {
    let raw = Raw::listen().await;
    let port = raw.port;
    let mut intake = intake(port);
    drop(raw);
    for life in ["first", "second", "third"] {
        let mut push = PushSocket::new();
        within(async {
            while push.bind(&format!("tcp://127.0.0.1:{port}")).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let large = Bytes::from((0..200_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        let sent = [record("log", life), record("stdout", large), record("finished", "")];
        let sending = async {
            for one in sent.clone() {
                push_until_taken(&mut push, one).await;
            }
        };
        let receiving = async {
            for one in &sent {
                assert_eq!(frames(&mut intake).await, *one);
            }
        };
        tokio::join!(sending, receiving);
        push.unbind_all().await;
    }
}

#[tokio::test]
async fn pings_are_answered() {
    let raw = Raw::listen().await;
    let mut intake = intake(raw.port);
    beside(&mut intake, async {
        let mut stream = raw.greet().await;
        stream.write_all(b"\x04\x0a\x04PING\0\0abc\x04\x07\x04PING\0\0").await.unwrap();
        let mut answers = [0; 17];
        stream.read_exact(&mut answers).await.unwrap();
        assert_eq!(&answers, b"\x04\x08\x04PONGabc\x04\x05\x04PONG"[..].first_chunk::<17>().unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_half_message_is_gone_with_its_connection() {
    let raw = Raw::listen().await;
    let mut intake = intake(raw.port);
    beside(&mut intake, async {
        let mut stream = raw.greet().await;
        stream.write_all(b"\x01\x06stdout\0\x05hal").await.unwrap();
    })
    .await;
    let (next, _stream) = tokio::join!(frames(&mut intake), async {
        let mut stream = raw.greet().await;
        stream.write_all(b"\x01\x06stdout\0\x05whole").await.unwrap();
        stream
    });
    assert_eq!(next, record("stdout", "whole"));
}

/// As Docker's proxy does while the runner starts.
#[tokio::test]
async fn a_connection_that_is_closed_at_once_is_made_again_soon() {
    let raw = Raw::listen().await;
    let mut intake = intake(raw.port);
    beside(&mut intake, async {
        for _ in 0..5 {
            drop(raw.listener.accept().await.unwrap());
        }
    })
    .await;
}

#[tokio::test]
async fn a_message_without_end_costs_its_connection_and_no_memory() {
    let raw = Raw::listen().await;
    let mut intake = intake(raw.port);
    for (frame, expected) in [
        (&b"\x01\x01x"[..], Broken::FrameCount(1024)),
        (b"\x03\0\0\0\x7f\0\0\0\0", Broken::Frame),
        (b"\xff", Broken::Frame),
    ] {
        let flood = frame.repeat(100_000);
        let (broken, sent) = tokio::join!(within(intake.recv()), async {
            let mut stream = raw.greet().await;
            let mut sent = 0;
            within(async {
                while stream.write_all(&flood).await.is_ok() {
                    sent += flood.len();
                }
            })
            .await;
            sent
        });
        assert!(matches!(broken, Err(Trouble::Broken(found)) if found == expected));
        // What the two sockets' buffers took.
        assert!(sent < 32 * MIB, "{sent} bytes");
    }
    // The intake works on.
    let (next, _stream) = tokio::join!(frames(&mut intake), async {
        let mut stream = raw.greet().await;
        stream.write_all(b"\x01\x06stdout\0\x02ok").await.unwrap();
        stream
    });
    assert_eq!(next, record("stdout", "ok"));
}

#[tokio::test]
async fn a_peer_that_is_not_zeromq_is_named() {
    let raw = Raw::listen().await;
    let mut intake = intake(raw.port);
    let (broken, ()) = tokio::join!(within(intake.recv()), async {
        let mut stream = raw.listener.accept().await.unwrap().0;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    assert!(matches!(broken, Err(Trouble::Hello(BadHello::NotZmq))));
}

#[tokio::test]
async fn a_frame_of_200_mib_is_cut_and_the_next_record_is_whole() {
    const SIZE: usize = 200 * MIB;
    let raw = Raw::listen().await;
    let mut intake = intake(raw.port);
    let sending = async {
        let mut stream = raw.greet().await;
        for kind in ["stdout", "medium"] {
            stream.write_all(&[b"\x01\x06", kind.as_bytes(), b"\x02"].concat()).await.unwrap();
            stream.write_u64(SIZE as u64).await.unwrap();
            let piece = vec![b'x'; MIB];
            for _ in 0..SIZE / MIB {
                stream.write_all(&piece).await.unwrap();
            }
        }
        stream.write_all(b"\x01\x06stdout\0\x02ok").await.unwrap();
        stream
    };
    let receiving = async {
        let message = within(intake.recv()).await.unwrap();
        assert_eq!((message.frames[1].len(), message.cut), (KEPT, SIZE - KEPT));
        let Ok(Record::Stdout(text)) = Record::decode(&message.frames) else { panic!("no output") };
        assert_eq!(text.len(), MAX_RECORD);
        let message = within(intake.recv()).await.unwrap();
        let media = record("media", message.frames[1].clone());
        let bad = Record::decode(&media).unwrap_err().of_cut(message.cut);
        assert_eq!(bad, BadRecord::MediaTooLarge(SIZE));
        assert_eq!(frames(&mut intake).await, record("stdout", "ok"));
    };
    tokio::join!(sending, receiving);
}

/// The runner is blocked by its own socket's limits then.
#[tokio::test]
async fn nothing_is_read_while_nobody_asks() {
    let raw = Raw::listen().await;
    let mut intake = intake(raw.port);
    let mut stream = beside(&mut intake, raw.greet()).await;
    let mut bytes = b"\x01\x06stdout\x02\0\0\0\0\0\x10\0\0".to_vec();
    bytes.resize(bytes.len() + MIB, b'x');
    let mut sent = 0;
    // Ends when nothing was taken for a while.
    while let Ok(written) =
        timeout(Duration::from_millis(300), stream.write(&bytes[sent % bytes.len()..])).await
    {
        sent += written.unwrap();
    }
    assert!(sent < 32 * MIB, "{sent} bytes");
    assert_eq!(frames(&mut intake).await[1].len(), MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_calls_neither_lose_nor_double() {
    const COUNT: usize = 2000;
    let raw = Raw::listen().await;
    let (mut intake, mut cancelled) = (intake(raw.port), 0);
    let sending = async {
        let mut stream = raw.greet().await;
        for n in 0..COUNT {
            // Lets the receiver run dry, so that it really waits.
            tokio::time::sleep(Duration::from_millis(if n % 97 == 0 { 2 } else { 0 })).await;
            let message = [n.to_string().into(), vec![3; 20_000].into()];
            stream.write_all(&frame::message(&message)).await.unwrap();
        }
    };
    let receiving = async {
        for n in 0..COUNT {
            let got = loop {
                match timeout(Duration::from_micros(50), intake.recv()).await {
                    Ok(got) => break got.unwrap(),
                    Err(_) => cancelled += 1,
                }
            };
            assert_eq!((&got.frames[0][..], got.frames[1].len()), (n.to_string().as_bytes(), 20_000));
        }
    };
    within(async { tokio::join!(sending, receiving) }).await;
    assert!(cancelled > 0, "nothing was tried");
}

/// A new kernel's runner listens long after it is first tried, and its first record is not to wait for that.
#[tokio::test]
async fn a_runner_that_starts_is_found_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut intake = intake(port);
    beside(&mut intake, tokio::time::sleep(Duration::from_secs(1))).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let began = std::time::Instant::now();
    beside(&mut intake, listener.accept()).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
}
