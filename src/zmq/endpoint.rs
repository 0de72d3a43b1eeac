//! Reading endpoints before libzmq sees them, because the host's kind decides how the socket is made, and
//! because the binding panics on text that holds a NUL. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Why a text is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// Not `tcp://…`.
    #[error("it must start with tcp://")]
    Scheme,
    /// No `:port` at the end, or not a number from 1 to 65535 (or, to listen, `*`).
    #[error("it must end with a port number, 1 to 65535 (to listen, * takes any free port)")]
    Port,
    /// The host is neither an address nor a name.
    #[error("the host must be an IPv4 address, an IPv6 address in [brackets], a name, or, to listen, *")]
    Host,
}

/// What the host part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    /// `*`: all IPv4 interfaces, as the Python agent listens.
    Any,
    /// An IPv4 address.
    V4,
    /// An IPv6 address in brackets; the only kind for which IPv6 is switched on: with it, libzmq would prefer
    /// a name's IPv6 address even where the peer listens on IPv4 only, and `*` would mean `[::]`.
    V6,
    /// A name, which libzmq looks up (IPv4 only) in its I/O thread whenever it connects.
    Name,
}

/// Which way the socket goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// We listen; `*` is allowed.
    Bind,
    /// We connect; host and port must be definite.
    Connect,
}

/// Checks an endpoint and says what its host is.
pub(super) fn host_of(endpoint: &str, direction: Direction) -> Result<Host, BadEndpoint> {
    let rest = endpoint.strip_prefix("tcp://").ok_or(BadEndpoint::Scheme)?;
    let (host, port) = rest.rsplit_once(':').ok_or(BadEndpoint::Port)?;
    let definite = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0);
    let wild = direction == Direction::Bind && matches!(port, "*" | "0");
    if !definite && !wild {
        return Err(BadEndpoint::Port);
    }
    if host == "*" {
        return if direction == Direction::Bind { Ok(Host::Any) } else { Err(BadEndpoint::Host) };
    }
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(BadEndpoint::Host)?;
        // A link-local address may carry its interface: fe80::1%eth0.
        let (address, zone) = inner.split_once('%').unwrap_or((inner, "-"));
        let good = address.parse::<Ipv6Addr>().is_ok() && is_name(zone);
        return if good { Ok(Host::V6) } else { Err(BadEndpoint::Host) };
    }
    if host.parse::<Ipv4Addr>().is_ok() {
        return Ok(Host::V4);
    }
    if is_name(host) { Ok(Host::Name) } else { Err(BadEndpoint::Host) }
}

/// Whether the text may be a DNS name or an interface; it is not looked up here.
fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The port of an endpoint that libzmq itself wrote down.
pub(super) fn port_of(endpoint: &str) -> Option<u16> {
    endpoint.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_are_told_apart() {
        use Direction::{Bind, Connect};
        let check = |text, direction, expected| assert_eq!(host_of(text, direction), expected, "{text}");
        check("tcp://*:6001", Bind, Ok(Host::Any));
        check("tcp://*:*", Bind, Ok(Host::Any));
        check("tcp://127.0.0.1:0", Bind, Ok(Host::V4));
        check("tcp://eth0:6001", Bind, Ok(Host::Name));
        check("tcp://[::1]:*", Bind, Ok(Host::V6));
        check("tcp://[::1]:5002", Connect, Ok(Host::V6));
        check("tcp://[fe80::1%eth0]:5002", Connect, Ok(Host::V6));
        check("tcp://manager.example.org:5002", Connect, Ok(Host::Name));
        check("tcp://*:6001", Connect, Err(BadEndpoint::Host));
        check("tcp://::1:6001", Connect, Err(BadEndpoint::Host));
        check("tcp://[::1:6001", Connect, Err(BadEndpoint::Host));
        check("tcp://:6001", Connect, Err(BadEndpoint::Host));
        check("tcp://a b:6001", Connect, Err(BadEndpoint::Host));
        check("tcp://a\0b:6001", Connect, Err(BadEndpoint::Host));
        check("tcp://10.0.0.1;10.0.0.2:6001", Connect, Err(BadEndpoint::Host));
        check("tcp://10.0.0.1:*", Connect, Err(BadEndpoint::Port));
        check("tcp://10.0.0.1:+80", Connect, Err(BadEndpoint::Port));
        check("tcp://10.0.0.1:65536", Connect, Err(BadEndpoint::Port));
        check("tcp://10.0.0.1", Connect, Err(BadEndpoint::Port));
        check("inproc://x:1", Bind, Err(BadEndpoint::Scheme));
        check("", Bind, Err(BadEndpoint::Scheme));
    }

    proptest! {
        #[test]
        fn nothing_that_passes_could_upset_the_binding(text in "(tcp://)?.{0,20}(:[0-9*]{0,6})?") {
            for direction in [Direction::Bind, Direction::Connect] {
                if host_of(&text, direction).is_ok() {
                    prop_assert!(text.is_ascii() && !text.contains('\0'), "{:?} passed", text);
                }
            }
        }

        #[test]
        fn a_port_is_read_back(port: u16) {
            prop_assert_eq!(port_of(&format!("tcp://[::]:{port}")), Some(port));
        }
    }
}
