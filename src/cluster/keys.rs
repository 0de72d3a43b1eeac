//! The names of the keys in etcd (PROTOCOL section 1). Pure.

use std::net::SocketAddr;

use crate::ids::InstanceId;

/// The manager's instance id; its presence means that the manager is up.
pub(super) const MANAGER: &str = "nodes/manager";
/// `host:port` of the manager's socket for events.
pub(super) const EVENT_ADDR: &str = "nodes/manager/event_addr";
/// `host:port` of the Redis server.
pub(super) const REDIS: &str = "nodes/redis";
/// The host directory below which virtual folders are mounted.
pub(super) const VOLUME_MOUNT: &str = "volumes/_mount";
/// Directories between a folder host and the folders on it; from 18.12 on.
pub(super) const FOLDER_PREFIX: &str = "volumes/_fsprefix";
/// Seconds after which a kernel that nobody uses ends; from 18.12 on.
pub(super) const IDLE_TIMEOUT: &str = "nodes/idle_timeout";
/// The registry that the manager's images come from, `lablup` or `host[:port]/path`; from 18.12 on.
pub(super) const REGISTRY: &str = "nodes/docker_registry";
/// Who pulls images from there.
pub(super) const REGISTRY_USER: &str = "nodes/docker_registry/user";
/// The password that goes with it.
pub(super) const REGISTRY_PASSWORD: &str = "nodes/docker_registry/password";
/// Every key of the image catalogue begins with this.
pub(super) const IMAGES: &str = "images/";

/// What a manager writes into etcd, the key last whose presence says that it is up.
#[must_use]
pub fn manager_keys(
    namespace: &str,
    manager: &str,
    redis: SocketAddr,
    event_addr: SocketAddr,
) -> Vec<(String, String)> {
    let full = |key: &str| format!("{}{key}", root(namespace));
    vec![
        (full(REDIS), redis.to_string()),
        (full(EVENT_ADDR), event_addr.to_string()),
        (full(MANAGER), manager.to_owned()),
    ]
}

/// What every key of a namespace begins with.
fn root(namespace: &str) -> String {
    format!("/sorna/{namespace}/")
}

/// Builds full keys for one agent in one namespace.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// `/sorna/{namespace}/`.
    root: String,
    /// `nodes/agents/{instance id}`, without the root.
    agent: String,
}

impl Keys {
    /// The keys of the agent `instance` in `namespace`.
    pub(super) fn new(namespace: &str, instance: &InstanceId) -> Self {
        Self { root: root(namespace), agent: format!("nodes/agents/{instance}") }
    }

    /// The full key of a relative one.
    pub(super) fn full(&self, key: &str) -> String {
        format!("{}{key}", self.root)
    }

    /// The key without the root, if it is in this namespace.
    pub(super) fn relative<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.root)
    }

    /// The full key of this agent's state.
    pub(super) fn agent_state(&self) -> String {
        self.full(&self.agent)
    }

    /// The full key of this agent's host.
    pub(super) fn agent_ip(&self) -> String {
        format!("{}ip", self.agent_children())
    }

    /// What every key beneath this agent's state begins with. The slash at its end keeps it from covering an
    /// agent whose id merely begins with this one's.
    pub(super) fn agent_children(&self) -> String {
        self.full(&format!("{}/", self.agent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_those_of_the_protocol() {
        let keys = Keys::new("local", &InstanceId::new("i-node"));
        assert_eq!(keys.full(MANAGER), "/sorna/local/nodes/manager");
        assert_eq!(keys.agent_state(), "/sorna/local/nodes/agents/i-node");
        assert_eq!(keys.agent_ip(), "/sorna/local/nodes/agents/i-node/ip");
        assert_eq!(keys.relative("/sorna/local/images/a"), Some("images/a"));
        assert_eq!(keys.relative("/sorna/local2/images/a"), None);
    }

    #[test]
    fn another_agents_keys_are_not_beneath_ours() {
        let ours = Keys::new("local", &InstanceId::new("i-node"));
        let other = Keys::new("local", &InstanceId::new("i-node2"));
        assert!(!other.agent_state().starts_with(&ours.agent_children()));
        assert!(ours.agent_ip().starts_with(&ours.agent_children()));
    }
}
