//! Who may call the RPC port: the manager's host as etcd tells it, this machine, and the networks that the operator
//! trusts; never a Docker network of this machine. All three change under connections that are open, and those stay.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::address::{HostPort, Network};
use crate::cluster::ManagerSettings;
use crate::docker::Docker;
use crate::patience::Outage;
use crate::zmtp::Admission;

/// How long looking up the manager's name may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// How often the name is looked up and Docker's networks are listed anew: a manager that moves under its name calls when it
/// has heard a heartbeat, and those follow the name as well.
const EVERY: Duration = Duration::from_secs(10);

/// How often while something could not be looked up.
const SOON: Duration = Duration::from_secs(1);

/// Keeps what the RPC port lets in up to date.
pub(super) struct Callers {
    admission: watch::Sender<Admission>,
    /// The operator's word at the moment.
    trusted: watch::Receiver<Vec<Network>>,
    lookups: Outage,
    networks: Outage,
}

impl Callers {
    /// This machine and the networks trusted now, for the beginning.
    pub(super) fn new(mut trusted: watch::Receiver<Vec<Network>>) -> Self {
        let first = trusted.borrow_and_update().clone();
        let admission = watch::Sender::new(Admission { trusted: first, ..Admission::default() });
        Self { admission, trusted, lookups: Outage::default(), networks: Outage::default() }
    }

    /// What is let in at the moment.
    pub(super) fn admission(&self) -> watch::Receiver<Admission> {
        self.admission.subscribe()
    }

    /// Looks at Docker's networks, at the manager's host and at what the operator trusts once; whether the first two could be
    /// seen. What could not stays as it was.
    pub(super) async fn look(&mut self, docker: &Docker, manager: Option<&HostPort>) -> bool {
        let containers = match docker.bridge_subnets().await {
            Ok(subnets) => {
                if self.networks.worked(Instant::now()).is_some() {
                    tracing::info!("Docker's networks are known again");
                }
                Some(subnets)
            }
            Err(error) => {
                if self.networks.failed(Instant::now()) {
                    tracing::warn!(%error, "can't see Docker's networks; callers are told apart by those known before");
                }
                None
            }
        };
        let callers = match manager {
            Some(manager) => self.addresses(manager).await,
            None => Some(Vec::new()),
        };
        let is_whole = containers.is_some() && callers.is_some();
        let trusted = self.trusted.borrow_and_update().clone();
        self.admission.send_if_modified(|admission| {
            let new = Admission {
                callers: callers.unwrap_or_else(|| admission.callers.clone()),
                containers: containers.unwrap_or_else(|| admission.containers.clone()),
                trusted,
            };
            let differs = new != *admission;
            if new.callers != admission.callers {
                let addresses = new.callers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                let manager = manager.map_or("", |manager| &manager.host);
                tracing::info!(manager, addresses, "the manager may call from here");
            }
            *admission = new;
            differs
        });
        is_whole
    }

    /// All addresses of the manager's host.
    async fn addresses(&mut self, manager: &HostPort) -> Option<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((manager.host.as_str(), manager.port));
        let error = match timeout(LOOKUP_LIMIT, found).await {
            Ok(Ok(found)) => {
                let found: BTreeSet<IpAddr> = found.map(|address| address.ip().to_canonical()).collect();
                if self.lookups.worked(Instant::now()).is_some() {
                    tracing::info!(host = manager.host, "the manager's host can be looked up again");
                }
                return Some(found.into_iter().collect());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", LOOKUP_LIMIT.as_secs()),
        };
        if self.lookups.failed(Instant::now()) {
            tracing::warn!(
                host = manager.host,
                error,
                "can't look up the manager's host, from which calls are taken; check the name server, or set --trusted-peers"
            );
        }
        None
    }

    /// Follows the manager, Docker and the operator for ever.
    pub(super) async fn follow(
        mut self,
        docker: Docker,
        mut settings: watch::Receiver<Option<ManagerSettings>>,
    ) {
        loop {
            let manager = settings.borrow_and_update().as_ref().map(|settings| settings.event_addr.clone());
            let is_whole = self.look(&docker, manager.as_ref()).await;
            let pause = if is_whole { EVERY } else { SOON };
            tokio::select! {
                changed = settings.changed() => if changed.is_err() { return },
                // Without anybody who could change them, they stay as they are.
                Ok(()) = self.trusted.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::testing::{FakeEngine, Reply, version};

    const NETWORKS: &str =
        r#"[{"Name": "bridge", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]}}]"#;

    fn engine() -> FakeEngine {
        FakeEngine::start(|request| match request {
            "GET /version" => version("1.41"),
            _ => Reply::Answer(200, NETWORKS.to_owned()),
        })
    }

    fn host(text: &str) -> HostPort {
        HostPort { host: text.to_owned(), port: 5002 }
    }

    #[tokio::test]
    async fn the_manager_s_addresses_and_docker_s_networks_are_followed() {
        let engine = engine();
        let (trust, trusted) = watch::channel(vec!["10.9.0.0/16".parse().unwrap()]);
        let mut callers = Callers::new(trusted);
        let admission = callers.admission();
        let here = "10.0.0.9".parse().unwrap();
        let admits = |from: &str| admission.borrow().admit(from.parse().unwrap(), here).is_ok();
        assert!(admits("10.9.1.1") && admits("127.0.0.1") && !admits("192.0.2.1"));
        assert!(callers.look(&engine.docker(), Some(&host("192.0.2.1"))).await);
        assert!(admits("192.0.2.1") && admits("10.9.1.1") && !admits("172.17.0.2"));
        // It moves.
        assert!(callers.look(&engine.docker(), Some(&host("192.0.2.2"))).await);
        assert!(admits("192.0.2.2") && !admits("192.0.2.1"));
        // The operator thinks again.
        trust.send_replace(vec!["10.8.0.0/16".parse().unwrap()]);
        assert!(callers.look(&engine.docker(), Some(&host("192.0.2.2"))).await);
        assert!(admits("10.8.1.1") && !admits("10.9.1.1") && admits("192.0.2.2"));
    }

    #[tokio::test]
    async fn what_can_t_be_seen_stays_as_it_was() {
        let good = engine();
        let (_trust, trusted) = watch::channel(Vec::new());
        let mut callers = Callers::new(trusted);
        assert!(callers.look(&good.docker(), Some(&host("192.0.2.1"))).await);
        let before = callers.admission().borrow().clone();
        let broken = FakeEngine::start(|_| Reply::Answer(500, "{}".to_owned()));
        assert!(!callers.look(&broken.docker(), Some(&host("no such host"))).await);
        assert_eq!(*callers.admission().borrow(), before);
    }
}
