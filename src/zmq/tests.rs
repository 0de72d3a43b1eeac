//! Sockets against real peers over loopback. The other side is the pure-Rust `zeromq` crate wherever it can
//! play the part: an implementation that shares no code with libzmq.

mod cancelling;
mod hostile;
mod push_pull;
mod router;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use zeromq::ZmqMessage;

use super::{Context, Limits, Multipart};

/// Runs something that must come to an end; every wait in these tests is inside of one of these.
async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("timed out")
}

fn context() -> Context {
    Context::new().unwrap()
}

/// Limits for tests in which peers come and go: no long pauses, room for everything.
fn quick() -> Limits {
    Limits {
        reconnect_min: Duration::from_millis(10),
        reconnect_max: Duration::from_millis(50),
        send_hwm: 10_000,
        recv_hwm: 10_000,
        ..Limits::server()
    }
}

fn local(port: u16) -> String {
    format!("tcp://127.0.0.1:{port}")
}

/// A port that nobody uses now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn message(frames: &[&str]) -> Multipart {
    frames.iter().map(|frame| Bytes::copy_from_slice(frame.as_bytes())).collect()
}

/// The same message for the other implementation.
fn foreign(frames: &[&str]) -> ZmqMessage {
    message(frames).try_into().unwrap()
}

fn number(n: usize) -> Multipart {
    message(&["n", &n.to_string()])
}

fn as_number(message: &[Bytes]) -> usize {
    std::str::from_utf8(&message[1]).unwrap().parse().unwrap()
}
