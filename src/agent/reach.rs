//! Whether the manager can call the address that it is told.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use tokio::time::timeout;

use crate::address::HostPort;

/// How long looking up the manager's name may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// Warns where the manager is told `published`, an address of this machine alone, and takes events at another machine.
pub(super) async fn advise(published: String, manager: HostPort) {
    if !is_loopback(&published) {
        return;
    }
    // A manager that can't be found is told of by the events that don't reach it.
    let found = timeout(LOOKUP_LIMIT, tokio::net::lookup_host((manager.host.as_str(), manager.port))).await;
    let Ok(Ok(found)) = found else { return };
    let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    if is_elsewhere(&found) {
        tracing::warn!(
            published, %manager,
            "the manager is on another machine and can't call this agent at a loopback address; set --agent-host-override \
             to the address of this machine that the manager reaches"
        );
    }
}

/// Whether the text means whoever reads it.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether none of the addresses is one of this machine. Only those can be bound to; nothing is sent.
#[must_use]
pub fn is_elsewhere(addresses: &[IpAddr]) -> bool {
    !addresses.is_empty() && addresses.iter().all(|ip| UdpSocket::bind((*ip, 0)).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_told_from_others() {
        for (host, expected) in [
            ("127.0.1.1", true),
            ("::1", true),
            ("LocalHost", true),
            ("10.0.0.5", false),
            ("worker-1", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
        let is_elsewhere =
            |all: &[&str]| is_elsewhere(&all.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>());
        assert!(is_elsewhere(&["192.0.2.1"]) && is_elsewhere(&["192.0.2.1", "198.51.100.1"]));
        assert!(
            !is_elsewhere(&["127.0.0.1"]) && !is_elsewhere(&["192.0.2.1", "127.0.0.1"]) && !is_elsewhere(&[])
        );
    }
}
