//! Which network kernels are connected to: one bridge of the agent's own, on which they don't reach each other, or what
//! the operator has named. Pure but for asking Docker.

use uuid::Uuid;

use super::labels::Owner;
use crate::docker::{BridgeNetwork, Docker, DockerError, NetworkSpec};

/// Kernels have no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Docker can't make the agent's own.
    #[error(
        "there is no network for kernels: {0}; where Docker has no addresses left, remove networks that nobody uses \
         (`docker network prune`), widen default-address-pools in daemon.json, or set --kernel-network"
    )]
    NotMade(#[source] DockerError),
    /// Somebody else's has its name.
    #[error(
        "the network {0} has not this agent's labels, though it has its name; remove it with `docker network rm`"
    )]
    Foreign(String),
    /// Somebody has made it otherwise.
    #[error(
        "on the network {0} kernels reach each other, as the agent would not have made it; remove it with `docker network rm` \
         when no kernel is on it, and the agent makes it anew"
    )]
    Open(String),
}

/// The network of an agent's kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelNetwork {
    /// The agent's own.
    Own(NetworkSpec),
    /// One that the operator looks after.
    Named(String),
}

impl KernelNetwork {
    /// The one that the operator has named, or this agent's own.
    #[must_use]
    pub fn new(owner: &Owner, named: Option<String>) -> Self {
        named.map_or_else(|| Self::Own(own(owner)), Self::Named)
    }

    /// Docker's name for it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Own(spec) => &spec.name,
            Self::Named(name) => name,
        }
    }

    /// Makes it if it is the agent's own and not there: somebody may have removed it between two kernels. `None` for one that
    /// the operator looks after.
    pub async fn ensure(&self, docker: &Docker) -> Result<Option<BridgeNetwork>, NetworkError> {
        let Self::Own(spec) = self else { return Ok(None) };
        let found = docker.ensure_network(spec).await.map_err(NetworkError::NotMade)?;
        let is_ours = spec.labels.iter().all(|(key, value)| found.labels.get(key) == Some(value));
        if !is_ours {
            return Err(NetworkError::Foreign(spec.name.clone()));
        }
        if found.is_open {
            return Err(NetworkError::Open(spec.name.clone()));
        }
        Ok(Some(found))
    }
}

/// Each agent of a machine has one: what one agent's firewall shuts, another's might open. The names fit whatever the owner is
/// called; a bridge's has 15 characters at most.
fn own(owner: &Owner) -> NetworkSpec {
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("backendai-agent:{owner}").as_bytes());
    let digits: String = digest.simple().to_string().chars().take(8).collect();
    NetworkSpec {
        name: format!("backendai-{digits}"),
        bridge: format!("bai-{digits}"),
        labels: owner.filter().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::InstanceId;

    fn owner(namespace: &str) -> Owner {
        Owner { namespace: namespace.to_owned(), instance: InstanceId::new("i-a b/c") }
    }

    #[test]
    fn each_owner_has_a_network_of_its_own_and_always_the_same() {
        let [first, second] = ["local", "other"].map(|namespace| KernelNetwork::new(&owner(namespace), None));
        assert_ne!(first.name(), second.name());
        assert_eq!(first.name(), "backendai-9ad98e51");
        let KernelNetwork::Own(spec) = &first else { panic!("{first:?}") };
        assert!(spec.bridge.len() <= 15 && spec.labels["ai.backend.namespace"] == "local");
        assert_eq!(KernelNetwork::new(&owner("local"), Some("bridge".into())).name(), "bridge");
    }
}
