//! The small HTTP server for monitoring: `/metrics`, `/healthz`, `/readyz`.
//!
//! Tasks, all on the given tracker: one that accepts, until the token is cancelled; one per connection, at most
//! [`CONNECTIONS`] of them and each for [`CONNECTION_LIMIT`] at most. They read a `watch` and the metrics
//! registry, so that no scraper, however slow or hostile, reaches the agent's work.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
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

/// What the answers are made of.
struct Pages {
    conditions: watch::Receiver<Conditions>,
}

/// Serves until `cancel`.
pub(super) fn serve(
    listener: TcpListener,
    conditions: watch::Receiver<Conditions>,
    cancel: CancellationToken,
    tracker: &TaskTracker,
) {
    let pages = Arc::new(Pages { conditions });
    tracker.spawn(accept(listener, pages, cancel, tracker.clone()));
}

async fn accept(listener: TcpListener, pages: Arc<Pages>, cancel: CancellationToken, tracker: TaskTracker) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut outage = Outage::default();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = cancel.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, _peer)) => {
                if let Some(past) = outage.worked(Instant::now()) {
                    tracing::info!(failures = past.failures, "monitoring connections are accepted again");
                }
                let (pages, cancel) = (Arc::clone(&pages), cancel.clone());
                tracker.spawn(async move {
                    let _place = place;
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        // A scraper that is late or breaks off is its own concern.
                        _ = tokio::time::timeout(CONNECTION_LIMIT, answer(stream, pages)) => {}
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

async fn answer(stream: TcpStream, pages: Arc<Pages>) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = pages.page(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
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
    fn page(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/metrics" => text(StatusCode::OK, figures::render()),
            // That this is answered at all shows that the loop takes turns.
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => readiness_page(&self.conditions.borrow()),
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".to_owned()),
        }
    }
}

/// A word, then a line for each condition: `+` or `-`, its name, the second since which it is so, and why it is not met.
fn readiness_page(conditions: &Conditions) -> Response<Full<Bytes>> {
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

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::conditions::{Moment, Need};

    const LIMIT: Duration = Duration::from_secs(20);

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
            serve(listener, watched, cancel.clone(), &tracker);
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
        server.check("GET /", "404", "there are /metrics, /healthz and /readyz\n").await;
        server.check("POST /metrics", "405", "only GET and HEAD\n").await;
        server.stop().await;
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
