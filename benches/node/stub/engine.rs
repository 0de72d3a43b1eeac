//! The engine's HTTP interface, as far as an agent uses it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::net::UnixStream;
use tokio::sync::broadcast;

use super::LANG;
use super::containers::Containers;

type Body = StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

/// Answers the requests of one connection.
pub(super) async fn serve(stream: UnixStream, containers: Arc<Containers>) {
    let service = service_fn(|request| {
        let containers = Arc::clone(&containers);
        async move { Ok::<_, Infallible>(answer(&containers, request).await) }
    });
    // An agent hangs up as it likes.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(containers: &Containers, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let query = |wanted: &str| {
        let pairs = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
        pairs.into_iter().find_map(|(key, value)| (key == wanted).then(|| value.into_owned()))
    };
    let words: Vec<&str> =
        head.uri.path().split('/').skip(1).filter(|word| !word.starts_with("v1.")).collect();
    match (head.method.as_str(), words.as_slice()) {
        ("GET", ["_ping"]) => whole(200, "OK"),
        ("GET", ["version"]) => found(&json!({ "Version": "stub", "ApiVersion": "1.41" })),
        ("GET", ["info"]) => found(&info()),
        ("GET", ["events"]) => events(containers.events()),
        ("GET", ["images", "json"]) => found(&json!([image_summary()])),
        ("GET", ["images", .., "json"]) => found(&json!({ "Id": IMAGE, "Config": { "Labels": {} } })),
        ("GET", ["networks"]) => found(&json!([])),
        ("GET", ["networks", name]) => found(&json!({ "Name": name, "Id": name })),
        ("GET", ["containers", "json"]) => {
            let filters: Json =
                serde_json::from_str(&query("filters").unwrap_or_default()).unwrap_or_default();
            let labels = filters["label"].as_array().into_iter().flatten();
            let labels: Vec<String> = labels.filter_map(Json::as_str).map(str::to_owned).collect();
            found(&containers.list(&labels))
        }
        ("POST", ["containers", "create"]) => {
            let body = body.collect().await.unwrap().to_bytes();
            let id = containers.create(&query("name").unwrap(), serde_json::from_slice(&body).unwrap());
            whole(201, &json!({ "Id": id, "Warnings": [] }).to_string())
        }
        ("POST", ["containers", id, "start"]) => done(containers.start(id)),
        ("GET", ["containers", id, "json"]) => {
            containers.inspect(id).map_or_else(missing, |seen| found(&seen))
        }
        ("GET", ["containers", id, "stats"]) => {
            containers.inspect(id).map_or_else(missing, |_| found(&stats()))
        }
        ("GET", ["containers", _, "logs"]) => whole(200, ""),
        ("DELETE", ["containers", id]) => done(containers.remove(id)),
        _ => missing(),
    }
}

const IMAGE: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn image_summary() -> Json {
    json!({
        "Id": IMAGE, "ParentId": "", "RepoTags": [format!("lablup/kernel-{LANG}")], "RepoDigests": [], "Created": 0,
        "Size": 0, "SharedSize": -1, "Labels": {}, "Containers": -1,
    })
}

fn info() -> Json {
    json!({
        "NCPU": std::thread::available_parallelism().unwrap().get(), "MemTotal": 16_u64 << 30,
        "CgroupDriver": "cgroupfs", "CgroupVersion": "2", "ServerVersion": "stub", "LoggingDriver": "json-file",
        "SecurityOptions": ["name=seccomp,profile=default"],
    })
}

fn stats() -> Json {
    json!({
        "cpu_stats": { "cpu_usage": { "total_usage": 1_000_000 } }, "memory_stats": { "usage": 1 << 20 },
        "networks": { "eth0": { "rx_bytes": 1, "tx_bytes": 1 } },
    })
}

/// What happens from now on, line by line.
fn events(lines: broadcast::Receiver<String>) -> Response<Body> {
    let lines = stream::unfold(lines, |mut lines| async {
        loop {
            match lines.recv().await {
                Ok(line) => return Some((Ok(Frame::data(line.into())), lines)),
                // An agent that reads late misses some, as of a real engine.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    answered(200, Box::pin(lines))
}

fn found(seen: &Json) -> Response<Body> {
    whole(200, &seen.to_string())
}

fn done(is_done: bool) -> Response<Body> {
    if is_done { whole(204, "") } else { missing() }
}

fn missing() -> Response<Body> {
    whole(404, r#"{"message":"no such thing"}"#)
}

fn whole(status: u16, text: &str) -> Response<Body> {
    let frame = (!text.is_empty()).then(|| Ok(Frame::data(Bytes::copy_from_slice(text.as_bytes()))));
    answered(status, stream::iter(frame).boxed())
}

fn answered(
    status: u16,
    body: Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>,
) -> Response<Body> {
    let head = Response::builder().status(status).header("Content-Type", "application/json");
    head.body(StreamBody::new(body)).unwrap()
}
