//! What this machine is called, and where the manager would be told to call it.

use std::time::Duration;

use tokio::time::timeout;

use super::cluster::Told;
use super::finding::Finding;
use crate::agent::config::Config;
use crate::agent::reach::{is_elsewhere, is_loopback};
use crate::identity;

/// How long a name may take to be looked up.
const LIMIT: Duration = Duration::from_secs(4);

pub(super) async fn look(config: &Config, manager: Option<Told>) -> Vec<Finding> {
    let identity = identity::discover(config.identity.clone()).await;
    let published = config.agent_host.clone().unwrap_or_else(|| identity.ip.to_string());
    let name = Finding::good("name", identity.instance_id.as_str(), format!("region {}", identity.region));
    let addresses = lookup(&published).await;
    let remedy = "set --agent-host-override to the address of this machine that the manager reaches";
    let address = if addresses.is_empty() {
        Finding::bad("published address", &published, "can't be looked up", remedy)
    } else if is_loopback(&published) || addresses.iter().all(std::net::IpAddr::is_loopback) {
        let manager_at = match &manager {
            Some(told) => lookup(&told.event_addr.host).await,
            None => Vec::new(),
        };
        if manager.is_none() {
            Finding::doubtful(
                "published address",
                &published,
                "is a loopback address: only a manager on this machine can call it",
                remedy,
            )
        } else if is_elsewhere(&manager_at) {
            Finding::bad(
                "published address",
                &published,
                "is a loopback address, and the manager is on another machine",
                remedy,
            )
        } else {
            Finding::good(
                "published address",
                &published,
                "a loopback address, as the manager is on this machine",
            )
        }
    } else if is_elsewhere(&addresses) {
        Finding::doubtful(
            "published address",
            &published,
            "is no address of this machine",
            "check that it leads here: a translated address does",
        )
    } else {
        Finding::good("published address", &published, "is told to the manager")
    };
    vec![name, address]
}

async fn lookup(host: &str) -> Vec<std::net::IpAddr> {
    match timeout(LIMIT, tokio::net::lookup_host((host, 0))).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        _ => Vec::new(),
    }
}
