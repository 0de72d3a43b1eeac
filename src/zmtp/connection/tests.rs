//! Two connections with each other, and with peers all of whose bytes are ours.

use std::time::Instant;

use tokio::net::TcpListener;

use super::*;
use crate::zmtp::frame::message_and_ping;

const CAPS: Caps = Caps::calls(64 << 20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("timed out")
}

/// The two ends of a stream.
async fn streams() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

async fn greet(stream: TcpStream, own: Kind) -> Result<Connection, Trouble> {
    Connection::greet(stream, own, CAPS, KeepAlive::default()).await
}

async fn pair(a: Kind, b: Kind) -> (Connection, Connection) {
    let (ours, theirs) = streams().await;
    let (a, b) = within(async { tokio::join!(greet(ours, a), greet(theirs, b)) }).await;
    (a.unwrap(), b.unwrap())
}

/// A connection to a peer whose bytes are ours from here on.
async fn raw(own: Kind, peer: Kind) -> (Connection, TcpStream) {
    let (ours, mut theirs) = streams().await;
    let (connection, ()) = within(async {
        tokio::join!(greet(ours, own), async {
            theirs.write_all(&[&GREETING[..], &ready(peer)].concat()).await.unwrap();
            theirs.read_exact(&mut vec![0; 64 + ready(own).len()]).await.unwrap();
        })
    })
    .await;
    (connection.unwrap(), theirs)
}

fn message(text: &str) -> [Bytes; 2] {
    ["head".into(), Bytes::copy_from_slice(text.as_bytes())]
}

#[tokio::test]
async fn messages_go_both_ways_and_a_pong_says_that_all_was_read() {
    let (mut dealer, mut router) = pair(Kind::Dealer, Kind::Router).await;
    assert_eq!(dealer.peer(), PeerInfo { kind: Kind::Router, minor: 1 });
    dealer.put(message_and_ping(&message("to")));
    let served = async {
        assert_eq!(router.recv().await.unwrap().frames, message("to"));
        router.next(true).await
    };
    within(async {
        tokio::select! {
            pong = dealer.pong() => pong.unwrap(),
            event = served => panic!("{event:?}"),
        }
    })
    .await;
    router.put(frame::message(&message("fro")));
    within(router.flush()).await.unwrap();
    assert_eq!(within(dealer.recv()).await.unwrap().frames, message("fro"));
    assert!(!dealer.is_amid() && !router.is_amid());
}

#[tokio::test]
async fn kinds_that_do_not_fit_are_refused_by_both() {
    let (ours, theirs) = streams().await;
    let (a, b) = within(async { tokio::join!(greet(ours, Kind::Push), greet(theirs, Kind::Push)) }).await;
    for refused in [a, b] {
        assert!(matches!(refused, Err(Trouble::Hello(BadHello::Socket { .. }))), "{refused:?}");
    }
}

/// Two peers that each write more than the system holds, and neither of which reads before it has written all.
#[tokio::test]
async fn writing_does_not_wait_for_the_peer_to_read_first() {
    let (mut a, mut b) = pair(Kind::Dealer, Kind::Router).await;
    let large = message(&"x".repeat(32 << 20));
    for one in [&mut a, &mut b] {
        one.put(frame::message(&large));
    }
    // Who has received first still has something to write.
    let both = async |one: &mut Connection| {
        let got = one.recv().await.unwrap();
        one.flush().await.unwrap();
        got
    };
    let (from_b, from_a) = within(async { tokio::join!(both(&mut a), both(&mut b)) }).await;
    assert!(from_a.frames == large && from_b.frames == large);
}

#[tokio::test]
async fn waiting_may_be_cancelled_anywhere() {
    let (mut a, mut b) = pair(Kind::Push, Kind::Pull).await;
    let large = message(&"x".repeat(32 << 20));
    a.put(frame::message(&large));
    let (mut cancelled, step) = (0, Duration::from_micros(200));
    let sending = async {
        while timeout(step, a.flush()).await.is_err() {
            cancelled += 1;
        }
    };
    let receiving = async {
        loop {
            if let Ok(got) = timeout(step, b.recv()).await {
                return got.unwrap();
            }
        }
    };
    let ((), got) = within(async { tokio::join!(sending, receiving) }).await;
    assert!(got.frames == large && cancelled > 0);
}

#[tokio::test]
async fn a_peer_that_wants_pongs_and_takes_none_heaps_nothing_up() {
    let (mut router, mut peer) = raw(Kind::Router, Kind::Dealer).await;
    let ping = [&b"\x04\xff\x04PING\0\0"[..], &[b'x'; 248]].concat();
    let flood = ping.repeat(4096);
    within(async {
        tokio::select! {
            got = router.recv() => panic!("{got:?}"),
            () = async {
                for _ in 0..64 {
                    peer.write_all(&flood).await.unwrap();
                }
            } => {}
        }
    })
    .await;
    assert!(router.out.len() <= 23 && router.pong.as_ref().is_none_or(|pong| pong.len() == 23));
}

#[tokio::test]
async fn a_peer_that_leaves_is_noticed_also_while_nobody_reads() {
    let (mut router, mut peer) = raw(Kind::Router, Kind::Dealer).await;
    // More than the system hands over at once, and all of it unread.
    let sent = frame::message(&message(&"x".repeat(100_000)));
    peer.write_all(&sent).await.unwrap();
    drop(peer);
    assert!(matches!(within(router.next(false)).await, Ok(Event::Leaving)));
    assert!(timeout(Duration::from_millis(20), router.next(false)).await.is_err(), "told twice");
    assert_eq!(within(router.recv()).await.unwrap().frames[1].len(), 100_000);
    assert!(matches!(within(router.recv()).await, Err(Trouble::Closed)));
}

#[tokio::test]
async fn a_finish_brings_everything_over_and_has_a_limit() {
    let (mut router, mut peer) = raw(Kind::Router, Kind::Dealer).await;
    let sent = frame::message(&message(&"x".repeat(8 << 20)));
    router.put(sent.clone());
    // Nobody reads this; the system would tear the connection down for it.
    peer.write_all(&sent[..5000]).await.unwrap();
    let reading = async {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        drop(peer);
        got
    };
    let ((), got) = within(async { tokio::join!(router.finish(Duration::from_secs(20)), reading) }).await;
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());

    let (mut router, _peer) = raw(Kind::Router, Kind::Dealer).await;
    router.put(sent);
    let began = Instant::now();
    within(router.finish(Duration::from_millis(50))).await;
    assert!(began.elapsed() >= Duration::from_millis(50), "nobody read");
}

#[tokio::test]
async fn what_is_not_allowed_is_not_read() {
    let (mut router, mut peer) = raw(Kind::Router, Kind::Dealer).await;
    router.ask_above(1000);
    // Of a frame of 32 MiB.
    peer.write_all(b"\x02\0\0\0\0\x02\0\0\0").await.unwrap();
    peer.write_all(&[0; 5000]).await.unwrap();
    assert!(matches!(within(router.next(true)).await, Ok(Event::Wants(2000))));
    let moved = router.moved();
    peer.write_all(&[0; 100]).await.unwrap();
    assert!(timeout(Duration::from_millis(20), router.next(false)).await.is_err());
    assert_eq!(router.moved(), moved, "it was read all the same");
    router.allow(2000);
    assert!(matches!(within(router.next(true)).await, Ok(Event::Wants(4000))));
    assert!(router.is_amid());
}

/// A command costs its sender a few bytes and the reader a turn; each turn reads more than that.
#[tokio::test]
async fn commands_without_end_heap_nothing_up() {
    let (mut connection, mut peer) = raw(Kind::Pull, Kind::Push).await;
    let ping = [&b"\x04\x0e\x04PING\0\0"[..], b"context"].concat();
    let flood = ping.repeat(4096);
    let floods = async {
        for _ in 0..256 {
            if peer.write_all(&flood).await.is_err() {
                return;
            }
        }
    };
    let reads = async {
        let error = connection.recv().await.unwrap_err();
        panic!("there is no message: {error}")
    };
    within(async {
        tokio::select! {
            () = floods => {}
            () = reads => {}
        }
    })
    .await;
    let held = connection.inbox.buffer().len();
    assert!(held < 1 << 18, "{held} bytes wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catching_up_with_a_peer_that_never_pauses_has_an_end() {
    let (mut connection, mut peer) = raw(Kind::Push, Kind::Pull).await;
    let flood = b"\x04\x07\x04PING\0\0".repeat(4096);
    let flooding = tokio::spawn(async move { while peer.write_all(&flood).await.is_ok() {} });
    for _ in 0..100 {
        within(async { connection.catch_up() }).await.unwrap();
    }
    drop(connection);
    within(flooding).await.unwrap();
}
