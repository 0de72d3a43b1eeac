//! Keeps the kernels' own network there, and what its containers may not reach shut: other kernels, this machine, the
//! cluster's own services, the cloud's metadata.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::address::HostPort;
use crate::cluster::ManagerSettings;
use crate::docker::Docker;
use crate::firewall::{Fence, FirewallError, Service, Tables};
use crate::kernel::{KernelNetwork, NetworkError};
use crate::patience::Outage;

/// How often is looked whether the rules are still there: dockerd, firewalld and administrators flush tables. Two calls of
/// `iptables`, some milliseconds.
const EVERY: Duration = Duration::from_secs(10);

/// How long looking up one name may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);

/// What keeps kernels where they belong.
pub(super) struct Keeper {
    docker: Docker,
    network: KernelNetwork,
    /// The members of the etcd cluster.
    etcd: Vec<HostPort>,
    /// The port of agents.
    agent_port: u16,
    tables: Tables,
    /// The last known addresses of the cluster's services, for when a name can't be looked up.
    services: BTreeSet<Service>,
    outage: Outage,
}

/// Why kernels are not kept where they belong.
#[derive(Debug, thiserror::Error)]
enum Open {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

impl Keeper {
    pub(super) fn new(docker: Docker, network: KernelNetwork, etcd: Vec<HostPort>, agent_port: u16) -> Self {
        Self {
            docker,
            network,
            etcd,
            agent_port,
            tables: Tables::default(),
            services: BTreeSet::new(),
            outage: Outage::default(),
        }
    }

    /// Makes the network and its rules be there, and says where that is not possible. Never keeps the agent from going on.
    pub(super) async fn look(&mut self, settings: Option<&ManagerSettings>) {
        match self.put_up(settings).await {
            Ok(is_new) => {
                if let Some(past) = self.outage.worked(Instant::now()) {
                    tracing::info!(minutes = past.lasted.as_secs() / 60, "kernels are fenced in again");
                } else if is_new {
                    tracing::info!(
                        network = self.network.name(),
                        services = self.services.len(),
                        "kernels are fenced in"
                    );
                }
            }
            Err(error) if self.outage.failed(Instant::now()) => tracing::warn!(
                network = self.network.name(), %error,
                "kernels reach the services of this machine and of the cluster (etcd, Redis, the manager's port) as far as nothing else stops them"
            ),
            Err(error) => tracing::debug!(%error, "kernels are still not fenced in"),
        }
    }

    /// Whether something had to be done.
    async fn put_up(&mut self, settings: Option<&ManagerSettings>) -> Result<bool, Open> {
        let Some(network) = self.network.ensure(&self.docker).await? else { return Ok(false) };
        self.find_services(settings).await;
        let fence = Fence {
            bridge: network.bridge,
            subnets: network.subnets,
            services: self.services.iter().copied().collect(),
            agent_port: self.agent_port,
        };
        Ok(self.tables.put_up(&fence).await?)
    }

    async fn find_services(&mut self, settings: Option<&ManagerSettings>) {
        let of_manager = settings.into_iter().flat_map(|settings| [&settings.redis, &settings.event_addr]);
        let named: Vec<HostPort> = self.etcd.iter().chain(of_manager).cloned().collect();
        let mut found = BTreeSet::new();
        let mut is_whole = true;
        for HostPort { host, port } in named {
            match timeout(LOOKUP_LIMIT, tokio::net::lookup_host((host.as_str(), port))).await {
                Ok(Ok(addresses)) => {
                    found.extend(
                        addresses.map(|at| Service { host: at.ip().to_canonical(), port: at.port() }),
                    );
                }
                Ok(Err(_)) | Err(_) => is_whole = false,
            }
        }
        if !is_whole {
            found.append(&mut self.services);
        }
        // Loopback is each container's own.
        found.retain(|service| !service.host.is_loopback());
        self.services = found;
    }

    /// Looks again for ever: from time to time, when the manager or Redis moves, and when Docker is back.
    pub(super) async fn keep(
        mut self,
        mut settings: watch::Receiver<Option<ManagerSettings>>,
        mut docker_answers: watch::Receiver<bool>,
    ) {
        if matches!(self.network, KernelNetwork::Named(_)) {
            return;
        }
        loop {
            tokio::select! {
                Ok(()) = settings.changed() => {}
                Ok(()) = docker_answers.changed() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            let known = settings.borrow_and_update().clone();
            self.look(known.as_ref()).await;
        }
    }
}

/// Removes the kernels' own network and its rules, if no container is left on it.
pub(super) async fn take_down(docker: &Docker, network: &KernelNetwork) {
    let KernelNetwork::Own(spec) = network else { return };
    if let Err(error) = docker.remove_network(&spec.name).await {
        tracing::warn!(network = spec.name, %error, "the kernels' network stays; remove it with `docker network rm`");
        return;
    }
    match Tables::take_down(&spec.bridge).await {
        Ok(()) => tracing::info!(network = spec.name, "the kernels' network and its rules are removed"),
        Err(error) => tracing::debug!(%error, "could not take the rules of the kernels' network away"),
    }
}

/// Says once what an operator should know of a network that is not the agent's own.
pub(super) async fn advise(docker: Docker, network: KernelNetwork) {
    let KernelNetwork::Named(name) = network else { return };
    match docker.network(&name).await {
        Ok(Some(found)) if found.is_open => tracing::warn!(
            network = name,
            "kernels reach each other's ports that take code, and this machine's services; without --kernel-network they don't"
        ),
        Ok(Some(_)) => tracing::warn!(
            network = name,
            "kernels reach this machine's services as far as its firewall lets them; without --kernel-network the agent shuts them off"
        ),
        Ok(None) => tracing::error!(
            network = name,
            "Docker has no network of the name that --kernel-network gives; creates will fail"
        ),
        Err(error) => tracing::debug!(%error, "can't look at the network of kernels"),
    }
}
