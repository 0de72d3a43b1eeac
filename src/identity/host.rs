//! What the machine itself says of who it is.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UdpSocket;

use super::config::IdentityConfig;
use super::instance_id::{LONGEST_ID, is_unfit};
use super::provider::Provider;
use crate::address::HostPort;
use crate::ids::InstanceId;

/// The most that is read of a file: the marks stand near the beginning, and a file of leases only grows.
const LONGEST_FILE: u64 = 1 << 20;

/// Whose machine this is, by the marks of section 5.
pub(super) async fn provider(config: &IdentityConfig) -> Provider {
    let bios = read(&config.dmi_bios_version).await.to_ascii_lowercase();
    if bios.contains("google") {
        Provider::Google
    } else if bios.contains("amazon") {
        Provider::Amazon
    } else if read(&config.azure_lease_file).await.contains("unknown-245") {
        Provider::Azure
    } else {
        Provider::Local
    }
}

/// A file's text; empty if it can't be read, which is the usual case outside the clouds.
async fn read(path: &Path) -> String {
    let read = async {
        let mut bytes = Vec::new();
        tokio::fs::File::open(path).await?.take(LONGEST_FILE).read_to_end(&mut bytes).await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    read.await
        .inspect_err(|error| tracing::debug!(path = %path.display(), %error, "no mark of a cloud here"))
        .unwrap_or_default()
}

/// This machine's name.
pub(super) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// `i-{hostname}`. What a key can't hold is replaced: Linux lets a machine be called anything.
pub(super) fn instance_id(hostname: &str) -> InstanceId {
    let mut id = String::from("i-");
    for c in hostname.chars().map(|c| if is_unfit(c) { '-' } else { c }) {
        if id.len() + c.len_utf8() <= LONGEST_ID {
            id.push(c);
        }
    }
    InstanceId::new(id)
}

/// The first IPv4 address that the name resolves to and that others can reach; else the address from which this machine
/// reaches the first of `cluster`: Debian maps a machine's own name to 127.0.1.1. The name service may hang for as long as it
/// likes: a look-up runs in a thread of its own, which is left behind when `limit` is over.
pub(super) async fn address(hostname: &str, cluster: &[HostPort], limit: Duration) -> Ipv4Addr {
    match first_ipv4(tokio::net::lookup_host((hostname, 0)), limit).await {
        Ok(ip) if !ip.is_loopback() => ip,
        resolved => {
            let Some(ip) = route(cluster, limit).await else {
                let fault = resolved.err().unwrap_or_else(|| "its address is a loopback address".to_owned());
                tracing::warn!(
                    hostname, %fault,
                    "found no address of this machine that others can reach; using 127.0.0.1 \
                     (set --agent-host-override if the manager runs elsewhere)"
                );
                return Ipv4Addr::LOCALHOST;
            };
            if !ip.is_loopback() {
                tracing::info!(hostname, %ip, "this machine's name has no address that others can reach; using the one that leads to etcd");
            }
            ip
        }
    }
}

async fn first_ipv4(
    lookup: impl Future<Output = io::Result<impl Iterator<Item = SocketAddr>>>,
    limit: Duration,
) -> Result<Ipv4Addr, String> {
    match tokio::time::timeout(limit, lookup).await {
        Ok(Ok(addresses)) => {
            let all: Vec<Ipv4Addr> = addresses.filter_map(ipv4).collect();
            let reachable = all.iter().find(|ip| !ip.is_loopback());
            reachable.or(all.first()).copied().ok_or_else(|| "it has no IPv4 address".to_owned())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

fn ipv4(address: SocketAddr) -> Option<Ipv4Addr> {
    match address.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// The address from which this machine would speak to the first of these servers that there is a way to. Nothing is sent:
/// connecting a UDP socket only asks the system for the route.
pub(super) async fn route(servers: &[HostPort], limit: Duration) -> Option<Ipv4Addr> {
    for server in servers {
        let Ok(to) = first_ipv4(tokio::net::lookup_host((server.host.as_str(), server.port)), limit).await
        else {
            continue;
        };
        let own = async {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
            socket.connect((to, server.port)).await?;
            socket.local_addr()
        };
        match own.await {
            Ok(own) => return ipv4(own),
            Err(error) => tracing::debug!(%server, %error, "there is no way to it"),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::check_instance_id;

    #[test]
    fn the_id_is_made_of_the_hostname() {
        assert_eq!(instance_id("worker-1").as_str(), "i-worker-1");
        assert_eq!(instance_id("my host/1").as_str(), "i-my-host-1");
    }

    proptest! {
        #[test]
        fn any_hostname_makes_a_fit_id(hostname in "\\PC{0,200}|.{0,80}") {
            prop_assert!(check_instance_id(instance_id(&hostname).as_str()).is_ok());
        }
    }

    fn servers(hosts: &[&str]) -> Vec<HostPort> {
        hosts.iter().map(|host| HostPort { host: (*host).to_owned(), port: 2379 }).collect()
    }

    #[tokio::test]
    async fn the_name_s_address_counts_unless_nobody_else_could_reach_it() {
        let limit = Duration::from_secs(5);
        let check = async |name: &str, cluster: &[&str], expected: [u8; 4]| {
            assert_eq!(
                address(name, &servers(cluster), limit).await,
                Ipv4Addr::from(expected),
                "{name} {cluster:?}"
            );
        };
        check("192.0.2.7", &["127.0.0.1"], [192, 0, 2, 7]).await;
        // The whole cluster is on this machine.
        check("127.0.1.1", &["127.0.0.1"], [127, 0, 0, 1]).await;
        check("127.0.1.1", &["no such name", "127.0.0.1"], [127, 0, 0, 1]).await;
        check("no such name", &[], [127, 0, 0, 1]).await;
        check("::1", &[], [127, 0, 0, 1]).await;
    }

    /// Every address of the loopback net is its own way there, which tells the route from a constant.
    #[tokio::test]
    async fn the_route_s_own_address_is_found() {
        let limit = Duration::from_secs(5);
        assert_eq!(route(&servers(&["127.0.0.9"]), limit).await, Some(Ipv4Addr::LOCALHOST));
        assert_eq!(route(&servers(&["255.255.255.255"]), limit).await, None, "not to be connected to");
        assert_eq!(route(&[], limit).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_never_ends_is_given_up() {
        let hanging = std::future::pending::<io::Result<std::vec::IntoIter<SocketAddr>>>();
        let started = tokio::time::Instant::now();
        assert!(first_ipv4(hanging, Duration::from_secs(2)).await.is_err());
        assert_eq!(started.elapsed(), Duration::from_secs(2));
    }
}
