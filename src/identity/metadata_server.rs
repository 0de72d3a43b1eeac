//! A metadata service for the tests, polite or not.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The length of [`Reply::Huge`].
const HUGE: usize = 100_000_000;

/// What it answers to a request.
#[derive(Clone)]
pub(super) enum Reply {
    /// 200 with this body.
    Body(Vec<u8>),
    /// An answer with this status, and a body that would do.
    Status(u16),
    /// An answer of these bytes, which are no HTTP.
    Raw(&'static [u8]),
    /// Nothing, with the connection left open.
    Hang,
    /// 200, the beginning of a body, and nothing more.
    HangInBody,
    /// 200 and 100 MB of `i`.
    Huge,
}

impl Reply {
    pub(super) fn text(text: &str) -> Self {
        Self::Body(text.as_bytes().to_vec())
    }
}

/// A running service; it ends with this guard.
pub(super) struct MetadataServer {
    pub(super) base: String,
    /// The requests so far, each whole and in lower case.
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl MetadataServer {
    /// Answers each request with what `answer` makes of it: the text up to the empty line, in lower case.
    pub(super) async fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answer), Arc::clone(&log)));
            }
        });
        Self { base, requests, task }
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for MetadataServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves one request; the client's going away ends it.
async fn serve(mut stream: TcpStream, answer: Arc<impl Fn(&str) -> Reply>, log: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap().to_lowercase();
    log.lock().unwrap().push(request.clone());
    let head = |status: u16, length: usize| {
        format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let reply = answer(&request);
    let (bytes, stay) = match &reply {
        Reply::Body(body) => ([head(200, body.len()), body.clone()].concat(), false),
        Reply::Status(status) => ([head(*status, 5), b"i-bad".to_vec()].concat(), false),
        Reply::Raw(bytes) => (bytes.to_vec(), false),
        Reply::Hang => (Vec::new(), true),
        Reply::HangInBody => ([head(200, 100), b"i-half".to_vec()].concat(), true),
        Reply::Huge => (head(200, HUGE), false),
    };
    // The client may hang up at any time, in the middle of the huge one above all.
    if stream.write_all(&bytes).await.is_err() {
        return;
    }
    if matches!(reply, Reply::Huge) {
        // In pieces: making it whole first would hold up the runtime that the client shares.
        let piece = vec![b'i'; 50_000];
        for _ in 0..HUGE / piece.len() {
            if stream.write_all(&piece).await.is_err() {
                return;
            }
        }
    }
    if stay {
        let _ = stream.read_u8().await;
    }
}
