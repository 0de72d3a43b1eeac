//! Peers that send what no ZeroMQ library would, as code inside of a container can.

use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeromq::{DealerSocket, Socket, SocketSend};

use super::*;
use crate::zmq::{Dealer, Router};

/// The last frame of a message, and one that others follow, in their short form; and a frame in the long form.
const LAST: u8 = 0;
const MORE: u8 = 1;
const LONG: u8 = 2;

/// A ZMTP 3.0 greeting without security.
fn greeting() -> Vec<u8> {
    let mut bytes = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0];
    bytes.extend(b"NULL");
    bytes.resize(64, 0);
    bytes
}

/// The command that ends the handshake.
fn ready(kind: &str) -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type\0\0\0".to_vec();
    body.push(u8::try_from(kind.len()).unwrap());
    body.extend(kind.as_bytes());
    let mut bytes = vec![4, u8::try_from(body.len()).unwrap()];
    bytes.extend(body);
    bytes
}

/// A connection past the handshake, from where on every byte is ours.
///
/// It waits for the router's half, as every library does: libzmq may ignore what was sent before.
async fn raw_dealer(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    within(async {
        stream.write_all(&greeting()).await.unwrap();
        stream.read_exact(&mut [0; 64]).await.unwrap();
        stream.write_all(&ready("DEALER")).await.unwrap();
        let mut head = [0; 2];
        stream.read_exact(&mut head).await.unwrap();
        stream.read_exact(&mut vec![0; usize::from(head[1])]).await.unwrap();
    })
    .await;
    stream
}

/// Waits until the other side has hung up.
async fn hung_up(mut stream: TcpStream) {
    let mut sink = vec![0; 4096];
    within(async { while stream.read(&mut sink).await.is_ok_and(|n| n > 0) {} }).await;
}

fn router() -> Router {
    let limits = Limits { handshake: Duration::from_millis(300), max_message: 100_000, ..quick() };
    Router::bind(&context(), "tcp://127.0.0.1:*", limits).unwrap()
}

/// A well-behaved client and the router have one exchange; odd messages in between are skipped.
async fn exchange(router: &mut Router, client: &mut Dealer, text: &str) {
    client.send(message(&["good", text])).await.unwrap();
    let request = within(async {
        loop {
            let got = router.recv().await.unwrap();
            if got.get(1).is_some_and(|frame| frame == "good") {
                break got;
            }
        }
    })
    .await;
    assert_eq!(request[2], text);
    let _ = within(router.send(request)).await.unwrap();
    assert_eq!(within(client.recv()).await.unwrap(), message(&["good", text]));
}

#[tokio::test]
async fn garbage_disturbs_nobody_and_is_hung_up_on() {
    let mut router = router();
    let port = router.local_port();
    let mut client = Dealer::connect(&context(), &local(port), quick()).unwrap();
    exchange(&mut router, &mut client, "before").await;

    let half = greeting()[..30].to_vec();
    let mut huge = vec![LONG];
    huge.extend(140_000_000_000_000_u64.to_be_bytes());
    let web = b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n".to_vec();
    let silent = Vec::new();
    for (name, bytes) in [("half", half), ("huge", huge), ("web", web), ("silent", silent)] {
        let mut stream = match name {
            "huge" => raw_dealer(port).await,
            _ => TcpStream::connect(("127.0.0.1", port)).await.unwrap(),
        };
        stream.write_all(&bytes).await.unwrap();
        exchange(&mut router, &mut client, name).await;
        hung_up(stream).await;
        exchange(&mut router, &mut client, name).await;
    }
    for round in 0..50 {
        let length = rand::rng().random_range(1..2000);
        let bytes: Vec<u8> = (0..length).map(|_| rand::rng().random()).collect();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // It may be hung up on in the middle of this.
        let _ = stream.write_all(&bytes).await;
        exchange(&mut router, &mut client, &round.to_string()).await;
    }
}

#[tokio::test]
async fn a_frame_over_the_limit_costs_its_sender_the_connection_and_nobody_else() {
    let mut router = router();
    let endpoint = local(router.local_port());
    let mut client = Dealer::connect(&context(), &endpoint, quick()).unwrap();
    let mut greedy = DealerSocket::new();
    within(greedy.connect(&endpoint)).await.unwrap();
    within(greedy.send(Bytes::from(vec![0; 100_001]).into())).await.unwrap();
    exchange(&mut router, &mut client, "good").await;

    let mut modest = DealerSocket::new();
    within(modest.connect(&endpoint)).await.unwrap();
    within(modest.send(Bytes::from(vec![0; 100_000 - 5]).into())).await.unwrap();
    // The routing id of 5 bytes counts too.
    assert_eq!(within(router.recv()).await.unwrap()[1].len(), 100_000 - 5);
}

#[tokio::test]
async fn messages_of_too_many_frames_or_bytes_are_dropped_whole() {
    let mut router = router();
    let mut stream = raw_dealer(router.local_port()).await;
    let mut bytes = Vec::new();
    for _ in 0..100_000 {
        bytes.extend([MORE, 1, b'x']);
    }
    bytes.extend([LAST, 1, b'x']);
    // Two frames that are allowed alone, but not together.
    for flags in [LONG | MORE, LONG] {
        bytes.push(flags);
        bytes.extend(60_000_u64.to_be_bytes());
        bytes.resize(bytes.len() + 60_000, 0);
    }
    bytes.extend([MORE, 4]);
    bytes.extend(b"good");
    bytes.extend([LAST, 0]);
    within(stream.write_all(&bytes)).await.unwrap();
    let got = within(router.recv()).await.unwrap();
    assert_eq!(got[1..], message(&["good", ""]));
}
