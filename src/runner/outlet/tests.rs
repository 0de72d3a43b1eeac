//! The outlet against the PULL of another ZeroMQ library, and against peers that are none.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zeromq::{PullSocket, Socket, SocketRecv};

use super::*;
use crate::zmtp::hello::{GREETING, ready};
use crate::zmtp::{Multipart, frame};

const LIMIT: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("timed out")
}

fn message(text: &str) -> Multipart {
    vec![Bytes::from_static(b"code"), Bytes::copy_from_slice(text.as_bytes())]
}

fn outlet(address: SocketAddr) -> Outlet {
    Outlet::new(KernelId::random(), address)
}

/// A peer that speaks for itself, past its handshake.
async fn greeted(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(&GREETING).await.unwrap();
    stream.write_all(&ready(Kind::Pull)).await.unwrap();
    let mut theirs = vec![0; 64 + ready(Kind::Push).len()];
    stream.read_exact(&mut theirs).await.unwrap();
    stream
}

async fn sent(stream: &mut TcpStream, text: &str) -> Bytes {
    let mut found = vec![0; frame::message(&message(text)).len()];
    within(stream.read_exact(&mut found)).await.unwrap();
    found.into()
}

#[tokio::test]
async fn a_runner_that_comes_late_and_again_gets_everything_in_order() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut outlet = outlet(free);
    for life in 0..2 {
        // On a runtime of its own, since the other implementation keeps connections until that ends.
        let runner = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut pull = PullSocket::new();
                while pull.bind(&format!("tcp://{free}")).await.is_err() {
                    tokio::task::yield_now().await;
                }
                let mut got = Vec::new();
                while got.len() < 3 {
                    got.push(within(pull.recv()).await.unwrap().into_vec());
                }
                got
            })
        });
        let texts = [0, 1, 2].map(|n| format!("{life}.{n}"));
        for text in &texts {
            within(outlet.send(&message(text))).await;
        }
        assert_eq!(runner.await.unwrap(), texts.map(|text| message(&text)));
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_gets_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut outlet = outlet(listener.local_addr().unwrap());
    let first = message("first");
    let (mut old, ()) = tokio::join!(greeted(&listener), outlet.send(&first));
    assert_eq!(sent(&mut old, "first").await, frame::message(&first));
    drop(old);
    let second = message("second");
    let (mut new, ()) = tokio::join!(within(greeted(&listener)), outlet.send(&second));
    assert_eq!(sent(&mut new, "second").await, frame::message(&second));
}

#[tokio::test]
async fn a_cancelled_send_goes_on_where_it_was() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut outlet = outlet(listener.local_addr().unwrap());
    // More than the system takes at once.
    let large = message(&"x".repeat(32 << 20));
    let reading = async {
        let mut stream = greeted(&listener).await;
        let mut found = vec![0; frame::message(&large).len()];
        stream.read_exact(&mut found).await.unwrap();
        found
    };
    let mut cancelled = 0;
    let sending = async {
        while tokio::time::timeout(Duration::from_micros(200), outlet.send(&large)).await.is_err() {
            cancelled += 1;
        }
    };
    let (found, ()) = within(async { tokio::join!(reading, sending) }).await;
    assert!(found == frame::message(&large), "not what was sent");
    assert!(cancelled > 0, "nothing was tried");
}

/// Frames without end, as code in a container may send them to whoever connects.
#[tokio::test]
async fn a_peer_that_talks_without_end_loses_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut outlet = outlet(listener.local_addr().unwrap());
    let first = message("first");
    let (mut peer, ()) = tokio::join!(greeted(&listener), outlet.send(&first));
    let flood = [b"\x01\xff".as_slice(), &[7; 255]].concat().repeat(64);
    peer.write_all(&flood).await.unwrap();
    peer.write_all(b"\x03\0\0\0\x7f\0\0\0\0").await.unwrap();
    peer.flush().await.unwrap();
    // Read at the next message, which finds a peer that keeps no rules.
    let second = message("second");
    let (mut new, ()) = within(async { tokio::join!(greeted(&listener), outlet.send(&second)) }).await;
    assert_eq!(sent(&mut new, "second").await, frame::message(&second));
}
