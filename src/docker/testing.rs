//! Docker engines that misbehave, for tests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{Deadlines, Docker, DockerConfig, EngineAddress};

/// What a fake engine does with a request.
pub(crate) enum Reply {
    /// Status and body.
    Answer(u16, String),
    /// Status 200, these bytes, and then nothing more on an open connection.
    Stall(Vec<u8>),
    /// Nothing at all, like an engine under SIGSTOP.
    Hang,
}

/// An engine on a socket of its own that answers as a test wants.
pub(crate) struct FakeEngine {
    directory: tempfile::TempDir,
    /// The request lines so far, `GET /v1.41/info`.
    requests: Arc<Mutex<Vec<String>>>,
    server: tokio::task::JoinHandle<()>,
}

impl FakeEngine {
    /// Starts one; `reply` gets method and path with query, `GET /v1.41/info`.
    pub(crate) fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("docker.sock")).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (reply, log) = (Arc::new(reply), Arc::clone(&requests));
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&reply), Arc::clone(&log)));
            }
        });
        Self { directory, requests, server }
    }

    /// One that accepts connections and never answers.
    pub(crate) fn hanging() -> Self {
        Self::start(|_| Reply::Hang)
    }

    /// A handle with short deadlines.
    pub(crate) fn docker(&self) -> Docker {
        open_at(&self.directory.path().join("docker.sock"))
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A handle with short deadlines.
pub(crate) fn open_at(socket: &std::path::Path) -> Docker {
    let short = Duration::from_millis(300);
    let deadlines = Deadlines { quick: short, list: short, create: short, remove: short };
    Docker::open(DockerConfig { address: EngineAddress::Unix(socket.display().to_string()), deadlines })
}

/// The answer to a question for the version.
pub(crate) fn version(api: &str) -> Reply {
    Reply::Answer(200, format!(r#"{{"Version": "fake-{api}", "ApiVersion": "{api}"}}"#))
}

async fn serve(mut stream: UnixStream, reply: Arc<impl Fn(&str) -> Reply>, log: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let text = String::from_utf8_lossy(&request);
    let line: Vec<&str> = text.lines().next().unwrap_or_default().split(' ').collect();
    let line = format!("{} {}", line[0], line[1]);
    log.lock().unwrap().push(line.clone());
    let head = "Content-Type: application/json\r\nConnection: close\r\n";
    match reply(&line) {
        Reply::Answer(status, body) => {
            let answer = format!("HTTP/1.1 {status} X\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        Reply::Stall(bytes) => {
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes()).await;
            let _ = stream.write_all(&bytes).await;
            std::future::pending::<()>().await;
        }
        Reply::Hang => std::future::pending::<()>().await,
    }
}
