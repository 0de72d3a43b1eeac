//! Reaching the engine: one client, its API version agreed on, every call inside a deadline.
//!
//! The client library puts no version into its paths, so that an engine newer than the library would answer in
//! shapes that it does not know. A request modifier adds the highest version that both sides know. The agreement is
//! forgotten whenever the engine was lost or refuses the version: it may come back as another release.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::errors::Error as EngineError;
use bollard::{API_DEFAULT_VERSION, BollardRequest, ClientVersion};
use bytes::Bytes;
use futures_util::Stream;
use tracing::{debug, info};

use super::{DockerError, EngineAddress, error};
use crate::figures::table::OTHER;
use crate::figures::{self, table};

/// The library's own limit, far above every deadline here so that ours is the one that is reported.
const LIBRARY_TIMEOUT_SECONDS: u64 = 24 * 3600;

/// One engine's address and what is known about it.
#[derive(Debug)]
pub(super) struct Connection {
    /// Where the engine listens.
    address: EngineAddress,
    /// What was agreed with the engine; held only to read or replace it, never over an await.
    agreed: Mutex<Agreement>,
}

/// What the first answer of an engine settled.
#[derive(Debug, Default)]
struct Agreement {
    /// A client that speaks the agreed API version; `None` before the first answer and after a loss.
    client: Option<bollard::Docker>,
    /// That version; stays as it was after a loss.
    version: Option<ClientVersion>,
    /// The engine that was logged last, so that a flapping connection does not repeat the same line.
    logged: Option<String>,
}

impl Connection {
    pub(super) fn new(address: EngineAddress) -> Self {
        Self { address, agreed: Mutex::default() }
    }

    /// Makes one request within `limit`. `request` runs a second time if the engine refuses the API version.
    pub(super) async fn call<T, F, Fut>(
        &self,
        step: String,
        limit: Duration,
        request: F,
    ) -> Result<T, DockerError>
    where
        F: Fn(bollard::Docker) -> Fut,
        Fut: Future<Output = Result<T, EngineError>>,
    {
        let (kind, begun) = (kind(&step), Instant::now());
        // Boxed, since callers put many of these futures into their own.
        let attempts = Box::pin(async {
            match request(self.client().await?).await {
                Err(refusal) if error::refuses_version(&refusal) => {
                    debug!(%refusal, "the Docker engine changed, agreeing on a version again");
                    self.forget();
                    request(self.client().await?).await
                }
                answer => answer,
            }
        });
        let result = match tokio::time::timeout(limit, attempts).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.classify(step, error)),
            Err(_) => Err(DockerError::Deadline { step, limit }),
        };
        figures::took(&table::DOCKER_SECONDS, &[kind], begun.elapsed());
        figures::count(&table::DOCKER_REQUESTS, &[kind, outcome(result.as_ref().err())]);
        if result.as_ref().is_err_and(DockerError::is_engine_down) {
            self.forget();
        }
        result
    }

    /// Sorts an error of a stream that [`call`](Self::call) opened.
    pub(super) fn classify(&self, step: String, error: EngineError) -> DockerError {
        error::classify(step, self.address.to_string(), error)
    }

    /// The API version that was agreed on last, major and minor; `None` before the first answer.
    pub(super) fn api_version(&self) -> Option<(usize, usize)> {
        let version = self.agreed.lock().unwrap_or_else(PoisonError::into_inner).version;
        version.map(|version| (version.major_version, version.minor_version))
    }

    /// Forgets the agreed version; the next call asks again.
    pub(super) fn forget(&self) {
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner).client = None;
    }

    /// The client, after agreeing on a version if there is none yet.
    pub(super) async fn client(&self) -> Result<bollard::Docker, EngineError> {
        let known = self.agreed.lock().unwrap_or_else(PoisonError::into_inner).client.clone();
        if let Some(client) = known {
            return Ok(client);
        }
        let client = match &self.address {
            EngineAddress::Unix(path) => {
                bollard::Docker::connect_with_unix(path, LIBRARY_TIMEOUT_SECONDS, API_DEFAULT_VERSION)
            }
            EngineAddress::Tcp(address) => bollard::Docker::connect_with_http(
                &address.to_string(),
                LIBRARY_TIMEOUT_SECONDS,
                API_DEFAULT_VERSION,
            ),
        }?;
        let answer = client.version().await?;
        let version = agree(answer.api_version.as_deref()).ok_or(EngineError::APIVersionParseError {})?;
        let client = client
            .with_request_modifier(move |request| with_path(request, |path| format!("/v{version}{path}")));

        let engine = answer.version.unwrap_or_default();
        let seen = format!("{engine} {version}");
        let is_news = {
            let mut agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
            agreed.client = Some(client.clone());
            agreed.version = Some(version);
            agreed.logged.replace(seen.clone()).is_none_or(|before| before != seen)
        };
        if is_news {
            info!(host = %self.address, %engine, api = %version, "found the Docker engine");
        }
        Ok(client)
    }
}

/// What kind of call a step is, for the figures.
fn kind(step: &str) -> &'static str {
    const KINDS: [(&str, &str); 17] = [
        ("ask whether the engine answers", "ping"),
        ("listen to Docker's events", "listen_events"),
        ("ask ", "info"),
        ("create container", "create_container"),
        ("start container", "start_container"),
        ("inspect container", "inspect_container"),
        ("remove container", "remove_container"),
        ("list containers", "list_containers"),
        ("read the log", "read_log"),
        ("measure container", "measure_container"),
        ("list images", "list_images"),
        ("inspect image", "inspect_image"),
        ("pull image", "pull_image"),
        ("tag image", "tag_image"),
        ("remove image", "remove_image"),
        ("look for volume", "inspect_volume"),
        ("look at the network", "inspect_network"),
    ];
    KINDS.iter().find(|(begin, _)| step.starts_with(begin)).map_or(OTHER, |(_, kind)| kind)
}

/// How a call went, for the figures: refused by an engine that works, failed, or late.
fn outcome(error: Option<&DockerError>) -> &'static str {
    match error {
        None => "answered",
        Some(DockerError::Deadline { .. }) => "late",
        Some(error) if error.is_engine_down() => "failed",
        Some(_) => "refused",
    }
}

/// The highest API version that the library and the engine both know.
fn agree(engine: Option<&str>) -> Option<ClientVersion> {
    let (major, minor) = engine?.split_once('.')?;
    let engine = ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? };
    Some(if engine < *API_DEFAULT_VERSION { engine } else { *API_DEFAULT_VERSION })
}

/// The request with its path and query replaced.
fn with_path(mut request: BollardRequest, change: impl Fn(&str) -> String) -> BollardRequest {
    let uri = request.uri();
    if let (Some(scheme), Some(authority), Some(path)) =
        (uri.scheme_str(), uri.authority(), uri.path_and_query())
        && let Ok(changed) = format!("{scheme}://{authority}{}", change(path.as_str())).parse()
    {
        *request.uri_mut() = changed;
    }
    request
}

/// The bytes that a GET of `path_and_query` answers, as they come.
///
/// The library's own call for logs decodes them, and does it wrongly for a terminal's output: a line that begins
/// with byte 0, 1 or 2 is taken for a frame of up to 4 GiB, which is then waited for in memory. Its export call hands
/// bytes on untouched, so the request is sent through that one.
pub(super) fn raw_get(
    client: bollard::Docker,
    path_and_query: String,
) -> impl Stream<Item = Result<Bytes, EngineError>> + Unpin {
    client
        .with_request_modifier(move |request| with_path(request, |_| path_and_query.clone()))
        .export_container("logs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_version_wins() {
        let newest = API_DEFAULT_VERSION.to_string();
        for (engine, agreed) in
            [("1.41", Some("1.41")), ("1.9", Some("1.9")), ("1.999", Some(&*newest)), ("x", None), ("", None)]
        {
            assert_eq!(agree(Some(engine)).map(|v| v.to_string()).as_deref(), agreed, "{engine}");
        }
        assert_eq!(agree(None), None);
    }
}
