//! Where an engine listens, from the form that `DOCKER_HOST` uses. Pure.

use std::fmt;
use std::str::FromStr;

use crate::address::HostPort;

/// An engine's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineAddress {
    /// The absolute path of a Unix socket.
    Unix(String),
    /// Plain HTTP.
    Tcp(HostPort),
}

/// The text is no address of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give unix:///PATH or tcp://HOST:PORT")]
pub struct BadEngineAddress;

impl FromStr for EngineAddress {
    type Err = BadEngineAddress;

    fn from_str(text: &str) -> Result<Self, BadEngineAddress> {
        let unix = text.strip_prefix("unix://").filter(|path| path.len() > 1 && path.starts_with('/'));
        let tcp = || HostPort::from_endpoint(text.strip_suffix('/').unwrap_or(text)).map(Self::Tcp);
        unix.map(|path| Self::Unix(path.to_owned())).or_else(tcp).ok_or(BadEngineAddress)
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_survive_a_round_trip() {
        for text in ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375"] {
            assert_eq!(text.parse::<EngineAddress>().unwrap().to_string(), text);
        }
        assert_eq!("tcp://h:1/".parse::<EngineAddress>().unwrap().to_string(), "tcp://h:1");
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in [
            "",
            "unix://",
            "unix:///",
            "unix://docker.sock",
            "/var/run/docker.sock",
            "ssh://host",
            "http://h:1",
            "tcp://host",
            "tcp://:2375",
            "tcp://host:0",
            "tcp://host:2375/v1",
        ] {
            assert_eq!(text.parse::<EngineAddress>(), Err(BadEngineAddress), "{text:?}");
        }
    }
}
