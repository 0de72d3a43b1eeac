//! What the machine itself says of who it is.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::{IdentityConfig, LONGEST_ID, Provider, is_unfit};
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

/// The first IPv4 address that the name resolves to, else 127.0.0.1. The name service may hang for as long as
/// it likes: the lookup runs in a thread of its own, which is left behind when `limit` is over.
pub(super) async fn address(hostname: &str, limit: Duration) -> Ipv4Addr {
    first_ipv4(hostname, tokio::net::lookup_host((hostname, 0)), limit).await
}

async fn first_ipv4(
    hostname: &str,
    lookup: impl Future<Output = io::Result<impl Iterator<Item = SocketAddr>>>,
    limit: Duration,
) -> Ipv4Addr {
    let fault = match tokio::time::timeout(limit, lookup).await {
        Ok(Ok(mut addresses)) => {
            let first = addresses.find_map(|address| match address.ip() {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            });
            match first {
                Some(ip) => return ip,
                None => "it has no IPv4 address".to_owned(),
            }
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {limit:?}"),
    };
    tracing::warn!(
        hostname, %fault,
        "this machine's name could not be resolved; using 127.0.0.1 \
         (set --agent-host-override if the manager runs elsewhere)"
    );
    Ipv4Addr::LOCALHOST
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

    #[tokio::test]
    async fn a_name_is_resolved_to_ipv4_and_an_unknown_one_to_loopback() {
        let limit = Duration::from_secs(5);
        assert_eq!(address("127.0.0.9", limit).await, Ipv4Addr::new(127, 0, 0, 9));
        assert_eq!(address("::1", limit).await, Ipv4Addr::LOCALHOST);
        assert_eq!(address("no such name", limit).await, Ipv4Addr::LOCALHOST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_never_ends_is_given_up() {
        let hanging = std::future::pending::<io::Result<std::vec::IntoIter<SocketAddr>>>();
        let started = tokio::time::Instant::now();
        assert_eq!(first_ipv4("any", hanging, Duration::from_secs(2)).await, Ipv4Addr::LOCALHOST);
        assert_eq!(started.elapsed(), Duration::from_secs(2));
    }
}
