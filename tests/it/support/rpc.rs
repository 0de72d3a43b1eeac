//! The manager's RPC client: one DEALER connection per call, closed after the answer.

use std::io::Cursor;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backendai_agent::zmtp::{Caps, Connection, KeepAlive, Kind, frame};
use bytes::Bytes;
use rmpv::Value;
use serde_json::Value as Json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::msgpack::{from_json, pack, to_json, unpack};

/// An exception that the agent answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RemoteError {
    /// Its Python name: `builtins.AssertionError`.
    pub(crate) name: String,
    pub(crate) args: Vec<Json>,
    pub(crate) repr: String,
}

impl RemoteError {
    /// Its first argument, which is a text in every error of the agent.
    pub(crate) fn text(&self) -> &str {
        self.args.first().and_then(Json::as_str).unwrap_or_else(|| panic!("no text in {self:?}"))
    }
}

/// The header of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) pid: u16,
    pub(crate) random: u16,
    /// The request's id, echoed.
    pub(crate) id: u32,
    /// Seconds since the epoch.
    pub(crate) time: f64,
}

/// What came back for one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) header: Header,
    pub(crate) result: Result<Value, RemoteError>,
}

/// Where an agent's RPC socket is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rpc {
    address: SocketAddr,
}

/// One DEALER connection, for tests that need more than one call on it.
pub(crate) struct Line {
    connection: Connection,
}

impl Rpc {
    /// The RPC socket at a port of this machine.
    pub(crate) fn at(port: u16) -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, port).into() }
    }

    /// The address, for tests that speak something else to it.
    pub(crate) fn address(self) -> SocketAddr {
        self.address
    }

    /// Opens a connection; waits a few seconds for an agent that is about to listen, as ZeroMQ would.
    pub(crate) async fn connect(self) -> Line {
        let attempt = super::until("a connection to the agent's RPC port", super::secs(5), async || {
            let stream = TcpStream::connect(self.address).await.ok()?;
            Connection::greet(stream, Kind::Dealer, Caps::calls(128 << 20), KeepAlive::default()).await.ok()
        });
        Line { connection: attempt.await }
    }

    /// One call with positional arguments, written as a JSON list; panics when no answer comes in time.
    pub(crate) async fn call(self, method: &str, args: Json, limit: Duration) -> Result<Json, RemoteError> {
        let args = from_json(&args);
        self.call_with(method, args, Value::Map(Vec::new()), limit).await.map(|value| to_json(&value))
    }

    /// One call with msgpack values: `args` a sequence, `kwargs` a map.
    pub(crate) async fn call_with(
        self,
        method: &str,
        args: Value,
        kwargs: Value,
        limit: Duration,
    ) -> Result<Value, RemoteError> {
        let mut line = self.connect().await;
        let id = line.request(method, &args, &kwargs).await;
        let answer =
            line.answer(limit).await.unwrap_or_else(|| panic!("no answer to {method} within {limit:?}"));
        assert_eq!(answer.header.id, id, "the answer belongs to another request");
        answer.result
    }
}

/// A request's bytes; making those of a large one takes its caller as long as sending them.
pub(crate) fn message(id: u32, method: &str, args: &Value, kwargs: &Value) -> Bytes {
    let frames = [header(id), method.into(), pack(args), pack(kwargs)];
    frame::message(&frames.map(Bytes::from))
}

impl Line {
    /// Sends a request and gives its id; does not wait for the answer.
    pub(crate) async fn request(&mut self, method: &str, args: &Value, kwargs: &Value) -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.send_message(message(id, method, args, kwargs)).await;
        id
    }

    /// Sends any frames.
    pub(crate) async fn send(&mut self, frames: &[Vec<u8>]) {
        let frames: Vec<Bytes> = frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect();
        self.send_message(frame::message(&frames)).await;
    }

    /// Sends what [`message`] has made.
    pub(crate) async fn send_message(&mut self, message: Bytes) {
        self.connection.put(message);
        self.connection.flush().await.expect("send to the agent");
    }

    /// The frames of the next answer, or `None` when `limit` passed without one.
    pub(crate) async fn frames(&mut self, limit: Duration) -> Option<Vec<Bytes>> {
        timeout(limit, self.connection.recv()).await.ok().map(|got| got.expect("the agent hung up").frames)
    }

    /// The next answer, or `None` when `limit` passed without one.
    pub(crate) async fn answer(&mut self, limit: Duration) -> Option<Answer> {
        let frames = self.frames(limit).await?;
        assert_eq!(frames.len(), 2, "an answer has a header and a body: {frames:?}");
        Some(decode(&frames[0], &frames[1]))
    }

    /// The answer that an agent sent before it ended, if it sent one.
    pub(crate) async fn last_words(&mut self, limit: Duration) -> Option<Answer> {
        let frames = timeout(limit, self.connection.recv()).await.ok()?.ok()?.frames;
        Some(decode(&frames[0], &frames[1]))
    }
}

/// A request's header: 16 bytes, native order, no padding.
pub(crate) fn header(id: u32) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let mut bytes = Vec::with_capacity(16);
    bytes.extend(0x4242_u16.to_ne_bytes());
    bytes.extend(0x1717_u16.to_ne_bytes());
    bytes.extend(id.to_ne_bytes());
    bytes.extend(now.to_ne_bytes());
    bytes
}

fn decode(header: &[u8], body: &[u8]) -> Answer {
    assert_eq!(header.len(), 17, "an answer's header has 17 bytes: {header:?}");
    let half = |at: usize| u16::from_ne_bytes(header[at..at + 2].try_into().unwrap());
    let head = Header {
        pid: half(0),
        random: half(2),
        id: u32::from_ne_bytes(header[4..8].try_into().unwrap()),
        time: f64::from_ne_bytes(header[8..16].try_into().unwrap()),
    };
    let result = match header[16] {
        0 => Ok(unpack(body)),
        1 => Err(exception(&to_json(&unpack(body)))),
        flag => panic!("the error flag is 0 or 1, not {flag}"),
    };
    Answer { header: head, result }
}

fn exception(body: &Json) -> RemoteError {
    let parts = body.as_array().filter(|parts| parts.len() == 3);
    let [name, args, repr] = parts.map(Vec::as_slice).unwrap_or_default() else {
        panic!("an error's body has three parts: {body}")
    };
    RemoteError {
        name: name.as_str().expect("the exception's name").to_owned(),
        args: args.as_array().expect("the exception's arguments").clone(),
        repr: repr.as_str().expect("the exception's repr").to_owned(),
    }
}

/// Whether `bytes` is one whole msgpack value; tests that make garbage use it to be sure that it is garbage.
pub(crate) fn is_msgpack(bytes: &[u8]) -> bool {
    let mut cursor = Cursor::new(bytes);
    rmpv::decode::read_value(&mut cursor).is_ok() && cursor.position() == bytes.len() as u64
}
