//! Where an engine listens, from the form that `DOCKER_HOST` uses. Pure.

use std::fmt;
use std::str::FromStr;

use super::DockerError;

/// An engine's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// The absolute path of a Unix socket.
    Unix(String),
    /// `host:port`, plain HTTP.
    Tcp(String),
}

impl FromStr for Address {
    type Err = DockerError;

    fn from_str(host: &str) -> Result<Self, DockerError> {
        let bad = |reason| DockerError::BadAddress { host: host.to_owned(), reason };
        if let Some(path) = host.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.to_owned()))
            } else {
                Err(bad("the socket's path must be absolute"))
            };
        }
        let Some(authority) = host.strip_prefix("tcp://") else {
            return Err(bad("only unix:// and tcp:// are supported"));
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let port = authority.rsplit_once(':').filter(|(name, _)| !name.is_empty()).map(|(_, port)| port);
        match port.and_then(|port| port.parse::<u16>().ok()) {
            Some(1..) if !authority.contains(['/', '?', '#', '@', ' ']) => {
                Ok(Self::Tcp(authority.to_owned()))
            }
            _ => Err(bad("tcp:// needs host:port and nothing else")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_survive_a_round_trip() {
        for text in ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_addresses_are_refused_with_the_reason() {
        for text in [
            "",
            "unix://docker.sock",
            "/var/run/docker.sock",
            "ssh://host",
            "tcp://host",
            "tcp://:2375",
            "tcp://host:0",
            "tcp://host:2375/v1",
        ] {
            let message = text.parse::<Address>().unwrap_err().to_string();
            assert!(message.contains("unix://") || message.contains("tcp://"), "{message}");
        }
    }
}
