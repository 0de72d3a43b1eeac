//! The small HTTP server for whoever looks at the agent: `/metrics`, `/healthz`, `/readyz`, and what the [`Site`] has.
//!
//! Tasks, all on the given tracker: one that accepts, until the token is cancelled; one per connection, at most
//! [`CONNECTIONS`] of them and each for [`CONNECTION_LIMIT`] at most. They read a `watch` and the metrics
//! registry, so that no scraper, however slow or hostile, reaches the agent's work.

#[cfg(feature = "rooms")]
pub mod fuzz;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::conditions::{Conditions, Cost};
use crate::figures;
use crate::patience::Outage;

/// Scrapers and probes are few; more than this at once is an accident or an attack.
const CONNECTIONS: usize = 32;

/// From the accept to the last byte of the answer; there is one request per connection.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);

/// Within which a request's head must be here.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// Bytes of a request's head; the least that the library takes.
const HEAD_BYTES: usize = 8 * 1024;

/// How long to wait after a failed accept: it fails when the process is out of files, until some are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where whoever looks comes from.
#[derive(Debug)]
pub enum Door {
    /// A port: anybody who reaches it.
    Port(TcpListener),
    /// A socket of this machine, which only those reach who may open its file.
    Socket(UnixListener),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Whether it wants to change something (`POST`), which only the socket's may.
    pub is_wish: bool,
    /// Its path.
    pub path: String,
    /// The user who asks, where the system says so.
    pub uid: Option<u32>,
    /// Whether it came over the socket.
    pub is_local: bool,
}

/// What is answered.
#[derive(Debug)]
pub enum Reply {
    /// JSON.
    Json(String),
    /// HTML whose own style and script have this nonce, and that gets nothing from elsewhere.
    Page {
        /// The text.
        html: String,
        /// The nonce.
        nonce: String,
    },
    /// A line of text: why not, with the status.
    Refused(u16, String),
    /// Lines, as they come.
    Lines(mpsc::Receiver<String>),
}

/// What is served beside figures and health.
pub trait Site: Send + Sync + 'static {
    /// The answer; `None` where there is no such page.
    fn answer(&self, asked: Asked) -> BoxFuture<'_, Option<Reply>>;
}

/// What the answers are made of.
struct Pages {
    conditions: watch::Receiver<Conditions>,
    site: Arc<dyn Site>,
}

/// A body that is there, or that comes.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A connection of either kind.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Serves until `cancel`.
pub(super) fn serve(
    door: Door,
    conditions: watch::Receiver<Conditions>,
    site: Arc<dyn Site>,
    cancel: CancellationToken,
    tracker: &TaskTracker,
) {
    let pages = Arc::new(Pages { conditions, site });
    tracker.spawn(accept(door, pages, cancel, tracker.clone()));
}

impl Door {
    /// The next connection, and the user behind it where the system says so.
    async fn next(&self) -> io::Result<(Box<dyn Wire>, Option<u32>)> {
        match self {
            Self::Port(listener) => Ok((Box::new(listener.accept().await?.0), None)),
            Self::Socket(listener) => {
                let stream = listener.accept().await?.0;
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                Ok((Box::new(stream), uid))
            }
        }
    }
}

async fn accept(door: Door, pages: Arc<Pages>, cancel: CancellationToken, tracker: TaskTracker) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let is_local = matches!(door, Door::Socket(_));
    // What is followed over the socket has no end; who may open that is trusted with a place.
    let limit = if is_local { Duration::MAX } else { CONNECTION_LIMIT };
    let mut outage = Outage::default();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, door.next().await)
        };
        let (place, accepted) = tokio::select! {
            () = cancel.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, uid)) => {
                if let Some(past) = outage.worked(Instant::now()) {
                    tracing::info!(
                        seconds = past.seconds(),
                        failures = past.failures,
                        "monitoring connections are accepted again"
                    );
                }
                let (pages, cancel) = (Arc::clone(&pages), cancel.clone());
                tracker.spawn(async move {
                    let _place = place;
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        // A scraper that is late or breaks off is its own concern.
                        _ = tokio::time::timeout(limit, answer(stream, uid, is_local, pages)) => {}
                    }
                });
            }
            Err(error) => {
                if outage.failed(Instant::now()) {
                    tracing::warn!(%error, "cannot accept monitoring connections; trying on");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(
    stream: Box<dyn Wire>,
    uid: Option<u32>,
    is_local: bool,
    pages: Arc<Pages>,
) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let pages = Arc::clone(&pages);
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            Ok::<_, Infallible>(pages.page(&method, path, uid, is_local).await)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

impl Pages {
    async fn page(&self, method: &Method, path: String, uid: Option<u32>, is_local: bool) -> Response<Body> {
        let is_wish = is_local && *method == Method::POST;
        if !is_wish && !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path.as_str() {
            "/metrics" => return text(StatusCode::OK, figures::render()),
            // That this is answered at all shows that the loop takes turns.
            "/healthz" => return text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => return readiness_page(&self.conditions.borrow()),
            _ => {}
        }
        match self.site.answer(Asked { is_wish, path, uid, is_local }).await {
            Some(reply) => shown(reply),
            None => text(
                StatusCode::NOT_FOUND,
                "there are /, /status, /metrics, /healthz and /readyz\n".to_owned(),
            ),
        }
    }
}

fn shown(reply: Reply) -> Response<Body> {
    match reply {
        Reply::Json(json) => with(json, StatusCode::OK, "application/json"),
        Reply::Refused(status, why) => {
            text(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), why + "\n")
        }
        Reply::Page { html, nonce } => {
            let mut response = with(html, StatusCode::OK, "text/html; charset=utf-8");
            let policy = format!(
                "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            );
            if let Ok(policy) = HeaderValue::try_from(policy) {
                response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            }
            response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            response
        }
        Reply::Lines(lines) => {
            let frames = futures_util::stream::unfold(lines, async |mut lines| {
                let line = lines.recv().await? + "\n";
                Some((Ok(Frame::data(Bytes::from(line))), lines))
            });
            let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
            let kind = HeaderValue::from_static("application/x-ndjson");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
    }
}

/// A word, then a line for each condition: `+` or `-`, its name, the second since which it is so, and why it is not met.
fn readiness_page(conditions: &Conditions) -> Response<Body> {
    let (status, word) = match (conditions.is_ready(), conditions.offers_slots()) {
        (true, _) => (StatusCode::OK, "ready"),
        (false, true) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready, no slots"),
    };
    let mut body = format!("{word}\n");
    for condition in conditions.list() {
        let (name, since) = (condition.name.name(), condition.since);
        let line = match (condition.ok, condition.costs) {
            (true, _) => format!("+ {name} since={since}\n"),
            (false, Cost::Slots) => format!("- {name} since={since} (no slots) {}\n", condition.reason),
            (false, Cost::Ready) => format!("- {name} since={since} {}\n", condition.reason),
        };
        body.push_str(&line);
    }
    text(status, body)
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    with(body, status, "text/plain; version=0.0.4; charset=utf-8")
}

fn with(body: String, status: StatusCode, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};

    use super::*;
    use crate::conditions::{Moment, Need};

    const LIMIT: Duration = Duration::from_secs(20);

    struct Echo;

    impl Site for Echo {
        fn answer(&self, asked: Asked) -> BoxFuture<'_, Option<Reply>> {
            let reply = match asked.path.as_str() {
                "/" => Some(Reply::Page { html: "<p>".to_owned(), nonce: "n0".to_owned() }),
                "/status" => Some(Reply::Json(format!("{} {}", asked.is_local, asked.is_wish))),
                "/lines" => {
                    let (to, lines) = mpsc::channel(4);
                    to.try_send("one".to_owned()).unwrap();
                    to.try_send("two".to_owned()).unwrap();
                    Some(Reply::Lines(lines))
                }
                _ => None,
            };
            async { reply }.boxed()
        }
    }

    struct Server {
        addr: SocketAddr,
        conditions: watch::Sender<Conditions>,
        cancel: CancellationToken,
        tracker: TaskTracker,
    }

    impl Server {
        async fn start() -> Self {
            // Another test may have been first.
            let _ = figures::install();
            let (conditions, watched) = watch::channel(Conditions::default());
            let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            serve(Door::Port(listener), watched, Arc::new(Echo), cancel.clone(), &tracker);
            Self { addr, conditions, cancel, tracker }
        }

        async fn ask(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.addr).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
            String::from_utf8(answer).unwrap()
        }

        async fn check(&self, request: &str, status: &str, body: &str) {
            let answer = self.ask(&format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            assert!(answer.ends_with(body), "{request}: {answer}");
        }

        async fn stop(self) {
            self.cancel.cancel();
            self.tracker.close();
            tokio::time::timeout(LIMIT, self.tracker.wait()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_pages() {
        let server = Server::start().await;
        server.check("GET /metrics", "200", "\n").await;
        assert!(
            server
                .ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .contains("\nbackendai_agent_build_info{")
        );
        server.check("GET /healthz", "200", "\r\n\r\nok\n").await;
        server.check("HEAD /healthz", "200", "\r\n\r\n").await;
        server.check("GET /readyz", "503", "not ready\n").await;
        let set = |need, reason: Option<&str>, unix| {
            let now = Moment { at: Instant::now(), unix };
            server.conditions.send_modify(|all| {
                all.set(need, reason.map(str::to_owned), now);
            });
        };
        set(Need::Redis, Some("it is away"), 7);
        set(Need::Start, None, 5);
        let body = "\r\n\r\nnot ready\n+ start since=5\n- redis since=7 it is away\n";
        server.check("GET /readyz?verbose", "503", body).await;
        set(Need::Docker, Some("it hangs"), 8);
        server.check("HEAD /readyz", "503", "\r\n\r\n").await;
        let body = "not ready, no slots\n+ start since=5\n- docker since=8 (no slots) it hangs\n- redis since=7 it is away\n";
        server.check("GET /readyz", "503", body).await;
        set(Need::Redis, None, 9);
        set(Need::Docker, None, 10);
        let body = "\r\n\r\nready\n+ start since=5\n+ docker since=10\n+ redis since=9\n";
        server.check("GET /readyz", "200", body).await;
        server.check("GET /none", "404", "there are /, /status, /metrics, /healthz and /readyz\n").await;
        server.check("GET /status", "200", "\r\n\r\nfalse false").await;
        let page = server.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(
            page.contains("content-security-policy: default-src 'none'; script-src 'nonce-n0';"),
            "{page}"
        );
        server.check("POST /metrics", "405", "only GET and HEAD\n").await;
        server.stop().await;
    }

    #[tokio::test]
    async fn wishes_and_lines_come_over_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let (_conditions, watched) = watch::channel(Conditions::default());
        let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
        let door = Door::Socket(UnixListener::bind(&path).unwrap());
        serve(door, watched, Arc::new(Echo), cancel.clone(), &tracker);
        for (request, body) in
            [("GET /status", "true false"), ("POST /status", "true true"), ("GET /lines", "two")]
        {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(format!("{request} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(answer.trim_end().ends_with(body), "{request}: {answer}");
        }
        cancel.cancel();
        tracker.close();
        tokio::time::timeout(LIMIT, tracker.wait()).await.unwrap();
    }

    #[tokio::test]
    async fn a_head_without_end_is_cut_off() {
        let server = Server::start().await;
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        let long = format!("GET /healthz HTTP/1.1\r\nA: {}", "a".repeat(10 * HEAD_BYTES));
        // The server may close while this is being written; that is as good an end.
        let _ = stream.write_all(long.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        server.check("GET /healthz", "200", "ok\n").await;
        server.stop().await;
    }

    #[tokio::test]
    async fn silent_connections_do_not_hold_the_end_up() {
        let server = Server::start().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(server.addr).await.unwrap());
        }
        server.stop().await;
    }
}
