//! Whether an agent serves its page at an address.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::status::Status;

/// Whether what listens there answers within `limit` as an agent's page does.
pub async fn serves_page(at: SocketAddr, limit: Duration) -> bool {
    timeout(limit, status(at)).await.is_ok_and(|status| status.is_some())
}

async fn status(at: SocketAddr) -> Option<Status> {
    let stream = TcpStream::connect(at).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    // What goes wrong with it is told by the answer.
    tokio::spawn(connection);
    let request = Request::builder().uri("/status").header("host", at.to_string());
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).ok()?).await.ok()?;
    let document = answer.into_body().collect().await.ok()?.to_bytes();
    serde_json::from_slice(&document).ok()
}
