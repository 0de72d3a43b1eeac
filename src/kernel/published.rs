//! Where the ports of a kernel's container are published on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use crate::docker::Container;
use crate::wire::reply::Ports;
use crate::wire::service::{PublishedService, ServicePort};

/// The host ports of the four sockets. A published port may have entries of both families with different numbers: the
/// agent connects to the first two over IPv4, and the manager to the others over the family of the kernel host.
///
/// A container of the Python agent of 18.12 may have no ports for a terminal; they are 0 then, as that agent answered.
pub(super) fn ports(container: &Container, kernel_host: &str) -> Option<Ports> {
    Some(Ports {
        repl_in: host_port(container, 2000, false)?,
        repl_out: host_port(container, 2001, false)?,
        stdin: open_port(container, 2002, kernel_host).unwrap_or(0),
        stdout: open_port(container, 2003, kernel_host).unwrap_or(0),
    })
}

/// Where the manager reaches these services.
pub(super) fn services(
    container: &Container,
    declared: &[ServicePort],
    kernel_host: &str,
) -> Vec<PublishedService> {
    let published = |service: &ServicePort| {
        let host_port = open_port(container, service.port, kernel_host)?;
        Some(PublishedService { service: service.clone(), host_port })
    };
    declared.iter().filter_map(published).collect()
}

/// The host port for whoever connects to the kernel host.
fn open_port(container: &Container, inside: u16, kernel_host: &str) -> Option<u16> {
    let is_v6 = is_v6(kernel_host);
    // Of the other family where the kernel host was another when the container was made.
    host_port(container, inside, is_v6).or_else(|| host_port(container, inside, !is_v6))
}

fn host_port(container: &Container, inside: u16, is_v6: bool) -> Option<u16> {
    let mut bound = container.ports.iter().filter(|p| p.container_port == inside);
    let fits = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_ipv6() == is_v6);
    bound.find(|p| fits(p.host_ip)).map(|p| p.host_port)
}

fn is_v6(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6())
}

/// The kernel host's address if it is this machine's own; else all addresses of its family, since the manager reaches
/// the host through something that translates (section 12, item 17).
pub(super) fn terminal_ip(host: &str) -> IpAddr {
    match host.parse::<IpAddr>() {
        Ok(ip) if TcpListener::bind((ip, 0)).is_ok() => ip,
        Ok(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::docker::container_from;

    #[test]
    fn ports_are_those_of_the_family_that_their_user_speaks() {
        let both = |v4: &str, v6: &str| json!([{"HostIp": "::", "HostPort": v6}, {"HostIp": "0.0.0.0", "HostPort": v4}]);
        let container = container_from(json!({
            "Id": "abc",
            "State": {"Status": "running"},
            "NetworkSettings": {"Ports": {
                "2000/tcp": both("10", "60"), "2001/tcp": both("11", "61"),
                "2002/tcp": both("12", "62"), "2003/tcp": [{"HostIp": "0.0.0.0", "HostPort": "13"}],
            }}
        }));
        let seen = |host: &str| {
            let Ports { repl_in, repl_out, stdin, stdout } = ports(&container, host).unwrap();
            [repl_in, repl_out, stdin, stdout]
        };
        for v4 in ["10.0.0.1", "node.example.com"] {
            assert_eq!(seen(v4), [10, 11, 12, 13]);
        }
        assert_eq!(seen("fd00::1"), [10, 11, 62, 13]);
    }

    #[test]
    fn terminals_are_published_where_the_manager_comes_from() {
        assert_eq!(terminal_ip("127.0.0.1"), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(terminal_ip("203.0.113.7"), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        assert_eq!(terminal_ip("node.example.com"), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        assert_eq!(terminal_ip("2001:db8::7"), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    }
}
