//! Addresses of servers: `host:port` as etcd and the command line write them (PROTOCOL section 1), and
//! `tcp://host:port` as ZeroMQ and the manager do. Pure.

mod network;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

pub use self::network::{BadNetwork, Network};

/// Where what listens there is called from this machine: at loopback what listens at every address.
#[must_use]
pub fn called_at(listens: IpAddr) -> IpAddr {
    match listens {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// One TCP address whose host may be a name, as in `redis.lan:6379` or `[fd00::5]:6379`.
///
/// Parsed from text, the host is an IPv6 address without brackets, or an IPv4 address or name of letters,
/// digits, `.`, `-` and `_`; the port is never 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A name or address; an IPv6 address without its brackets.
    pub host: String,
    /// 1–65535.
    pub port: u16,
}

/// The text was not `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not host:port ({fault}); right would be 10.0.0.5:6379, redis.lan:6379 or [fd00::5]:6379"
)]
pub struct BadHostPort {
    /// The text, cut at 64 characters.
    given: String,
    /// The part that was wrong.
    fault: Fault,
}

/// The part of `host:port` that was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("there is no `:` before a port")]
    NoPort,
    #[error("the port must be a number from 1 to 65535")]
    Port,
    #[error("the host is empty")]
    NoHost,
    #[error("the host is neither a name nor an address")]
    Host,
}

impl FromStr for HostPort {
    type Err = BadHostPort;

    /// White space around the whole is forgiven: a value that was put from a file or a pipe ends with a newline.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        split(text)
            .map(|(host, port)| Self { host, port })
            .map_err(|fault| BadHostPort { given: text.chars().take(64).collect(), fault })
    }
}

impl HostPort {
    /// From `tcp://host:port`.
    #[must_use]
    pub fn from_endpoint(text: &str) -> Option<Self> {
        text.strip_prefix("tcp://")?.parse().ok()
    }

    /// `tcp://host:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("tcp://{self}")
    }
}

/// The host in `text`, which holds no port; an IPv6 address may have its brackets, and loses them.
#[must_use]
pub fn host(text: &str) -> Option<String> {
    let unbracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_host = match unbracketed {
        Some(host) => is_ipv6(host),
        None => is_ipv6(text) || is_name(text),
    };
    is_host.then(|| unbracketed.unwrap_or(text).to_owned())
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

/// Whether the text can name a host, or is an IPv4 address.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn split(text: &str) -> Result<(String, u16), Fault> {
    let (host, port) = text.rsplit_once(':').ok_or(Fault::NoPort)?;
    // `u16::from_str` would also take a sign.
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::Port);
    }
    let port = port.parse().ok().filter(|port| *port != 0).ok_or(Fault::Port)?;

    if matches!(host, "" | "[]") {
        return Err(Fault::NoHost);
    }
    Ok((self::host(host).ok_or(Fault::Host)?, port))
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, host: &str, port: u16) {
        let parsed: HostPort = text.parse().unwrap();
        assert_eq!(parsed, HostPort { host: host.to_owned(), port }, "{text:?}");
    }

    #[test]
    fn names_addresses_and_brackets_are_understood() {
        check("127.0.0.1:2379", "127.0.0.1", 2379);
        check("localhost:1", "localhost", 1);
        check("redis_1.lan-a:65535", "redis_1.lan-a", 65535);
        check("[::1]:6379", "::1", 6379);
        check("::1:6379", "::1", 6379);
        check("10.0.0.5:6379\n", "10.0.0.5", 6379);
    }

    #[test]
    fn what_is_wrong_is_named_together_with_what_would_be_right() {
        for (text, fault) in [
            ("", "no `:`"),
            ("nonsense", "no `:`"),
            ("host:", "port must be"),
            ("host:0", "port must be"),
            ("host:65536", "port must be"),
            ("host:+80", "port must be"),
            (":6379", "host is empty"),
            ("[]:6379", "host is empty"),
            ("tcp://host:80", "neither a name nor"),
            ("a b:80", "neither a name nor"),
            ("[host]:80", "neither a name nor"),
            ("[::1:80", "neither a name nor"),
            ("1:2:80", "neither a name nor"),
        ] {
            let error = text.parse::<HostPort>().unwrap_err().to_string();
            assert!(error.contains(fault), "{text:?}: {error}");
            assert!(error.contains("right would be"), "{error}");
        }
    }

    #[test]
    fn endpoints_and_hosts_alone() {
        for text in ["tcp://10.0.0.5:6001", "tcp://[fd00::5]:6001"] {
            assert_eq!(
                HostPort::from_endpoint(text).map(|address| address.endpoint()).as_deref(),
                Some(text)
            );
        }
        for bad in ["", "h:1", "http://h:1", "tcp://h"] {
            assert_eq!(HostPort::from_endpoint(bad), None, "{bad:?}");
        }
        for (good, host) in [("h", "h"), ("10.0.0.5", "10.0.0.5"), ("::1", "::1"), ("[::1]", "::1")] {
            assert_eq!(super::host(good).as_deref(), Some(host));
        }
        for bad in ["", "h:1", "a b", "tcp://h", "[h]", "[]"] {
            assert_eq!(super::host(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_long_value_does_not_fill_the_log() {
        let error = "x".repeat(10_000).parse::<HostPort>().unwrap_err();
        assert!(error.to_string().len() < 300);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(
            host in prop_oneof![
                "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,40}",
                any::<Ipv6Addr>().prop_map(|ip| ip.to_string()),
                any::<Ipv4Addr>().prop_map(|ip| ip.to_string()),
            ],
            port in 1..=u16::MAX,
        ) {
            let address = HostPort { host, port };
            prop_assert_eq!(address.to_string().parse::<HostPort>().unwrap(), address);
        }

        #[test]
        fn any_text_is_either_refused_or_a_usable_address(text in ".{0,40}") {
            if let Ok(address) = text.parse::<HostPort>() {
                prop_assert!(address.port != 0 && !address.host.is_empty());
                prop_assert!(!address.host.contains(['[', ']', '/', ' ']));
                prop_assert_eq!(address.to_string().parse::<HostPort>().unwrap(), address);
            }
        }
    }
}
