//! What can go wrong between the agent and the engine, sorted by what a caller does about it.

use std::error::Error as StdError;
use std::time::Duration;

use bollard::errors::Error as EngineError;

/// Any cause, kept for the error chain only.
type Cause = Box<dyn StdError + Send + Sync>;

/// A Docker call failed. Each text names the step and, where there is something to do, what to do.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// No connection, or it broke.
    #[error(
        "could not {step}: no connection to Docker at {host} ({reason}); check that dockerd runs and that the agent's user may open its socket"
    )]
    Unreachable {
        /// What was being done.
        step: String,
        /// The engine's address.
        host: String,
        /// The innermost cause's text.
        reason: String,
        /// The whole chain.
        #[source]
        source: Cause,
    },
    /// The engine did not answer in time. It may carry the request out later.
    #[error(
        "could not {step}: Docker did not answer within {} s; check whether dockerd hangs (`docker ps`) and its log",
        .limit.as_secs_f64()
    )]
    Deadline {
        /// What was being done.
        step: String,
        /// The time limit that ran out.
        limit: Duration,
    },
    /// The image is not on this machine, or, for a pull, not in its registry.
    #[error(
        "could not {step}: there is no such image ({message}); pull it or correct its name in the catalogue"
    )]
    NoSuchImage {
        /// What was being done.
        step: String,
        /// Docker's own words.
        message: String,
    },
    /// There is no such container (any more).
    #[error("could not {step}: there is no such container ({message})")]
    NoSuchContainer {
        /// What was being done.
        step: String,
        /// Docker's own words.
        message: String,
    },
    /// Another container has the name.
    #[error("could not {step}: the name is taken ({message}); remove the container that has it")]
    NameTaken {
        /// What was being done.
        step: String,
        /// Docker's own words.
        message: String,
    },
    /// The text can't be the name of a container, volume or image; the engine was not asked.
    #[error("could not {step}: {text:?} is not a name that Docker allows")]
    BadReference {
        /// What was being done.
        step: String,
        /// The text, cut to a length that fits a log line.
        text: String,
    },
    /// The engine says that the request makes no sense (a missing bind source, an unknown CPU, …).
    #[error("could not {step}: Docker refused the request: {message}")]
    BadRequest {
        /// What was being done.
        step: String,
        /// Docker's own words.
        message: String,
    },
    /// The container's state does not allow it.
    #[error("could not {step}: the container's state does not allow it: {message}")]
    Conflict {
        /// What was being done.
        step: String,
        /// Docker's own words.
        message: String,
    },
    /// A port that was to be published belongs to another process.
    #[error("could not {step}: a port of this machine is taken ({message}); see who has it with `ss -ltnp`")]
    PortTaken {
        /// What was being done.
        step: String,
        /// Docker's own words.
        message: String,
    },
    /// A disk is full.
    #[error("could not {step}: no disk space is left ({message}); free some below Docker's data directory")]
    NoSpace {
        /// What was being done.
        step: String,
        /// Docker's own words.
        message: String,
    },
    /// The engine tried and failed.
    #[error("could not {step}: Docker failed: {message}")]
    Failed {
        /// What was being done.
        step: String,
        /// Docker's own words.
        message: String,
    },
    /// The engine's answer could not be understood, or the request could not be built.
    #[error("could not {step}: Docker's answer was not understood; is its version supported?")]
    Other {
        /// What was being done.
        step: String,
        /// The cause.
        #[source]
        source: Cause,
    },
}

impl DockerError {
    /// Whether the engine as a whole is to blame, so that other calls would fail as well.
    #[must_use]
    pub fn is_engine_down(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Deadline { .. })
    }
}

/// Sorts an engine's error. `host` is the engine's address, for the text.
pub(super) fn classify(step: String, host: String, error: EngineError) -> DockerError {
    match error {
        EngineError::DockerResponseServerError { status_code, message } => {
            from_status(step, status_code, message)
        }
        // Pulls report their failures inside a stream that began with status 200.
        EngineError::DockerStreamError { error } => from_pull(step, error),
        EngineError::SocketNotFoundError(_)
        | EngineError::IOError { .. }
        | EngineError::HyperResponseError { .. }
        | EngineError::HyperLegacyError { .. } => {
            DockerError::Unreachable { step, host, reason: innermost(&error), source: Box::new(error) }
        }
        other => DockerError::Other { step, source: Box::new(other) },
    }
}

/// Whether the engine refuses the API version: it was replaced by another one since the version was agreed on.
pub(super) fn refuses_version(error: &EngineError) -> bool {
    matches!(error, EngineError::DockerResponseServerError { status_code: 400, message }
        if message.contains("client version") && (message.contains("too new") || message.contains("too old")))
}

/// Sorts by HTTP status, and by Docker's words where a status means several things.
fn from_status(step: String, status: u16, message: String) -> DockerError {
    let lower = message.to_ascii_lowercase();
    if lower.contains("no space left on device") {
        return DockerError::NoSpace { step, message };
    }
    if lower.contains("port is already allocated") || lower.contains("address already in use") {
        return DockerError::PortTaken { step, message };
    }
    match status {
        404 if lower.contains("no such container") => DockerError::NoSuchContainer { step, message },
        404 if is_missing_image(&lower) => DockerError::NoSuchImage { step, message },
        400 | 404 => DockerError::BadRequest { step, message },
        409 if lower.contains("is already in use") && lower.contains("name") => {
            DockerError::NameTaken { step, message }
        }
        409 => DockerError::Conflict { step, message },
        _ => DockerError::Failed { step, message },
    }
}

fn from_pull(step: String, message: String) -> DockerError {
    let lower = message.to_ascii_lowercase();
    if is_missing_image(&lower) {
        DockerError::NoSuchImage { step, message }
    } else if lower.contains("no space left on device") {
        DockerError::NoSpace { step, message }
    } else {
        DockerError::Failed { step, message }
    }
}

fn is_missing_image(lower: &str) -> bool {
    lower.contains("no such image")
        || lower.contains("manifest unknown")
        || lower.contains("repository does not exist")
        || (lower.contains("manifest for") && lower.contains("not found"))
}

fn innermost(error: &dyn StdError) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(status_code: u16, message: &str) -> DockerError {
        let error = EngineError::DockerResponseServerError { status_code, message: message.to_owned() };
        classify("try".to_owned(), "unix:///x".to_owned(), error)
    }

    #[test]
    fn docker_words_are_sorted_by_what_to_do() {
        assert!(matches!(sorted(404, "No such container: abc"), DockerError::NoSuchContainer { .. }));
        assert!(matches!(sorted(404, "No such image: abc:latest"), DockerError::NoSuchImage { .. }));
        assert!(matches!(
            sorted(404, "pull access denied for x, repository does not exist or may require 'docker login'"),
            DockerError::NoSuchImage { .. }
        ));
        assert!(matches!(
            sorted(409, "Conflict. The container name \"/a\" is already in use by container \"b\"."),
            DockerError::NameTaken { .. }
        ));
        assert!(matches!(sorted(409, "Container abc is not running"), DockerError::Conflict { .. }));
        assert!(matches!(sorted(400, "invalid mount config"), DockerError::BadRequest { .. }));
        assert!(matches!(sorted(500, "write /x: no space left on device"), DockerError::NoSpace { .. }));
        assert!(matches!(sorted(500, "driver failed"), DockerError::Failed { .. }));
        for taken in [
            "driver failed programming external connectivity on endpoint a (b): Bind for 0.0.0.0:49153 failed: port is already allocated",
            "driver failed programming external connectivity on endpoint a (b): Error starting userland proxy: listen tcp4 0.0.0.0:49153: bind: address already in use",
        ] {
            assert!(matches!(sorted(500, taken), DockerError::PortTaken { .. }), "{taken}");
        }
    }

    #[test]
    fn a_version_refusal_is_told_from_other_bad_requests() {
        let refusal = |message: &str| {
            refuses_version(&EngineError::DockerResponseServerError {
                status_code: 400,
                message: message.to_owned(),
            })
        };
        assert!(refusal("client version 1.53 is too new. Maximum supported API version is 1.41"));
        assert!(refusal("client version 1.24 is too old. Minimum supported API version is 1.44"));
        assert!(!refusal("invalid reference format"));
    }

    #[test]
    fn a_text_names_the_step_and_the_innermost_cause() {
        let io = std::io::Error::new(std::io::ErrorKind::PermissionDenied, "Permission denied");
        let error = classify("list images".to_owned(), "unix:///x".to_owned(), io.into());
        let text = error.to_string();
        assert!(text.contains("list images") && text.contains("unix:///x"), "{text}");
        assert!(text.contains("Permission denied"), "{text}");
        assert!(error.is_engine_down());
    }
}
