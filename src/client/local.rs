//! The operator's way to an agent of this machine: HTTP over its local socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::ids::KernelId;
use crate::status::{Logs, Status};

/// How long an answer may take to begin; the agent reads snapshots for it.
const LIMIT: Duration = Duration::from_secs(5);

/// The same for a kernel's log, which Docker has to give out.
const LOGS_LIMIT: Duration = Duration::from_secs(6);

/// Why an agent of this machine did not answer.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// None listens where they do.
    #[error(
        "no agent runs here: no socket in {looked} answers; start one, or give its --socket if it has another"
    )]
    Nobody {
        /// The directories.
        looked: String,
    },
    /// One has a socket there that this user may not use.
    #[error("{} is for root and the agent's group only: use sudo, or have this user put into the group", .path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// Several do.
    #[error("several agents run here; choose one with --socket: {0}")]
    Several(String),
    /// The socket can't be opened.
    #[error("no agent at {path}; is it running, and are you root or in its group?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The exchange broke off.
    #[error("the agent at {path} broke off")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: hyper::Error,
    },
    /// No answer in time.
    #[error("the agent at {path} did not answer within {} s", limit.as_secs_f32())]
    Late {
        /// The socket.
        path: PathBuf,
        /// How long it had.
        limit: Duration,
    },
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// Something else listens there, or another version.
    #[error("what {path} answers is not what an agent of this version would")]
    Nonsense {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl LocalError {
    /// Whether the agent was not to be had, or broke off, which may change.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
            Self::Broken { .. } | Self::Late { .. } => true,
            _ => false,
        }
    }
}

/// An agent of this machine.
#[derive(Debug, Clone)]
pub struct LocalAgent {
    path: PathBuf,
}

impl LocalAgent {
    /// The one at `socket`; without, the only one that has its socket in one of `directories`.
    pub async fn find(socket: Option<&Path>, directories: &[PathBuf]) -> Result<Self, LocalError> {
        if let Some(path) = socket {
            return Ok(Self { path: path.to_owned() });
        }
        let (mut found, mut forbidden) = (Vec::new(), Vec::new());
        let entries = directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten();
        let paths = entries.flatten().map(|entry| entry.path());
        for path in paths.filter(|path| path.extension().is_some_and(|ending| ending == "sock")) {
            match UnixStream::connect(&path).await {
                Ok(_) => found.push(path),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => forbidden.push(path),
                // Left by an agent that was killed.
                Err(_) => {}
            }
        }
        found.sort();
        match found.as_slice() {
            [] => Err(match forbidden.pop() {
                Some(path) => LocalError::Forbidden { path },
                None => LocalError::Nobody { looked: listed(directories) },
            }),
            [only] => Ok(Self { path: only.clone() }),
            several => Err(LocalError::Several(listed(several))),
        }
    }

    /// What it says of itself.
    pub async fn status(&self) -> Result<Status, LocalError> {
        self.status_after(Method::GET, "/status").await
    }

    /// Takes the node out of the manager's choice, or puts it back.
    pub async fn set_drained(&self, is_drained: bool) -> Result<Status, LocalError> {
        self.status_after(Method::POST, if is_drained { "/drain" } else { "/resume" }).await
    }

    /// Ends all kernels.
    pub async fn end_all(&self) -> Result<Status, LocalError> {
        self.status_after(Method::POST, "/end").await
    }

    /// The newest part of the log of a kernel's container; `limit` is for each of the answer's beginning and its rest.
    pub async fn logs(&self, kernel: KernelId, limit: Option<Duration>) -> Result<String, LocalError> {
        let limit = limit.unwrap_or(LOGS_LIMIT);
        let Logs { logs } = self.document(Method::GET, &format!("/logs/{kernel}"), limit).await?;
        Ok(logs)
    }

    async fn status_after(&self, method: Method, path: &str) -> Result<Status, LocalError> {
        self.document(method, path, LIMIT).await
    }

    async fn document<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        limit: Duration,
    ) -> Result<T, LocalError> {
        let body = self.ask(method, path, limit).await?.into_body();
        let collected = timeout(limit, body.collect()).await.map_err(|_| self.late(limit))?;
        let bytes = collected.map_err(|source| self.broken(source))?.to_bytes();
        serde_json::from_slice(&bytes)
            .map_err(|source| LocalError::Nonsense { path: self.path.clone(), source })
    }

    /// Lines as they come.
    pub async fn lines(&self, path: &str) -> Result<Lines, LocalError> {
        let body = self.ask(Method::GET, path, LIMIT).await?.into_body();
        Ok(Lines { agent: self.clone(), body, rest: Vec::new() })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        limit: Duration,
    ) -> Result<Response<Incoming>, LocalError> {
        let answer = timeout(limit, self.exchange(method, path)).await.map_err(|_| self.late(limit))??;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let why = answer.into_body().collect().await.map_err(|source| self.broken(source))?.to_bytes();
        Err(LocalError::Refused(String::from_utf8_lossy(&why).trim().to_owned()))
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<Response<Incoming>, LocalError> {
        let connect = |source| LocalError::Connect { path: self.path.clone(), source };
        let stream = UnixStream::connect(&self.path).await.map_err(connect)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|source| self.broken(source))?;
        // What goes wrong with it is told by the answer.
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "agent");
        let request =
            request.body(Empty::<Bytes>::new()).map_err(|error| connect(io::Error::other(error)))?;
        sender.send_request(request).await.map_err(|source| self.broken(source))
    }

    fn late(&self, limit: Duration) -> LocalError {
        LocalError::Late { path: self.path.clone(), limit }
    }

    fn broken(&self, source: hyper::Error) -> LocalError {
        LocalError::Broken { path: self.path.clone(), source }
    }
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// An answer that goes on.
pub struct Lines {
    agent: LocalAgent,
    body: Incoming,
    /// What came and is not a whole line yet.
    rest: Vec<u8>,
}

impl Lines {
    /// The next; `None` when the agent has ended. May be cancelled and called again.
    pub async fn next(&mut self) -> Result<Option<String>, LocalError> {
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=at).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => self.rest.extend(frame.into_data().unwrap_or_default()),
                Some(Err(source)) => return Err(self.agent.broken(source)),
            }
        }
    }
}
