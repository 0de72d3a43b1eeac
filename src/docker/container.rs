//! What the engine says about a container, in the agent's own types. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use bollard::models::{self, ContainerInspectResponse};

use super::spec::CDI_KIND;
use crate::ids::ContainerId;
use crate::units::Memory;

/// A container's state, as the engine names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Never started.
    Created,
    /// The container's process runs.
    Running,
    /// The container's processes are frozen.
    Paused,
    /// Docker starts it again.
    Restarting,
    /// Docker is removing it.
    Removing,
    /// The container's process ended.
    Exited,
    /// Docker could not remove all of it.
    Dead,
    /// A word that this agent does not know.
    Unknown(String),
}

impl ContainerState {
    fn from_word(word: &str) -> Self {
        match word {
            "created" => Self::Created,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "restarting" => Self::Restarting,
            "removing" => Self::Removing,
            "exited" => Self::Exited,
            "dead" => Self::Dead,
            other => Self::Unknown(other.to_owned()),
        }
    }

    /// Whether its process is alive: running, paused, or about to be again.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// A TCP port of the container and where the host publishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortBinding {
    /// The port inside.
    pub container_port: u16,
    /// The host's address; `None` where Docker names none.
    pub host_ip: Option<IpAddr>,
    /// The port on the host.
    pub host_port: u16,
}

/// A mount of a container, whether it was asked for as a bind, as a mount, or by the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedAt {
    /// The path on the host, for a volume below Docker's own directory.
    pub source: String,
    /// The path inside.
    pub target: String,
}

/// Everything the agent wants to know about one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The container's id.
    pub id: ContainerId,
    /// The container's name, without the slash that Docker puts in front.
    pub name: String,
    /// The image's reference as given when it was created.
    pub image: String,
    /// The container's labels, the image's included.
    pub labels: BTreeMap<String, String>,
    /// The container's state.
    pub state: ContainerState,
    /// The container's first process, as the host numbers it; `None` unless that is alive.
    pub pid: Option<u32>,
    /// What its process ended with; `None` while it is alive and before it was started.
    pub exit_code: Option<i64>,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// Published TCP ports, sorted; empty unless it is alive.
    pub ports: Vec<PortBinding>,
    /// All its mounts.
    pub mounts: Vec<MountedAt>,
    /// The memory limit; `None` for no limit.
    pub memory: Option<Memory>,
    /// The cores it may use, `0,1`; empty for all.
    pub cpuset_cpus: String,
    /// The GPUs that were requested for it, by index or UUID.
    pub gpu_device_ids: Vec<String>,
    /// The container's address on the first Docker network that gave it one.
    pub ip: Option<IpAddr>,
    /// Whether it has a terminal.
    pub tty: bool,
}

impl Container {
    /// The source of what is mounted exactly at `target`.
    #[must_use]
    pub fn source_of(&self, target: &str) -> Option<&Path> {
        let found = self.mounts.iter().find(|mount| Path::new(&mount.target) == Path::new(target))?;
        Some(Path::new(&found.source))
    }
}

/// One line of the list of containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSummary {
    /// The container's id.
    pub id: ContainerId,
    /// The container's name, without the slash that Docker puts in front.
    pub name: String,
    /// The container's labels, the image's included.
    pub labels: BTreeMap<String, String>,
    /// The container's state.
    pub state: ContainerState,
    /// When it was created, in seconds since 1970.
    pub created: i64,
}

/// Reads an inspection; `None` if it lacks an id.
pub(super) fn from_inspection(answer: ContainerInspectResponse) -> Option<Container> {
    let id = ContainerId::new(answer.id?);
    let config = answer.config.unwrap_or_default();
    let host = answer.host_config.unwrap_or_default();
    let network = answer.network_settings.unwrap_or_default();
    let raw_state = answer.state.unwrap_or_default();
    let state = ContainerState::from_word(&raw_state.status.map(|word| word.to_string()).unwrap_or_default());
    // The engine's word for "never" is the first day of the calendar.
    let was_started = raw_state.started_at.is_some_and(|at| !at.is_empty() && !at.starts_with("0001-01-01"));
    let has_ended = !state.is_alive() && was_started;
    let networks = network.networks.unwrap_or_default();
    Some(Container {
        id,
        name: without_slash(answer.name.unwrap_or_default()),
        image: config.image.unwrap_or_default(),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        pid: raw_state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        exit_code: raw_state.exit_code.filter(|_| has_ended),
        oom_killed: raw_state.oom_killed.unwrap_or_default(),
        ports: inspected_ports(network.ports.unwrap_or_default()),
        mounts: answer.mounts.unwrap_or_default().into_iter().map(mounted_at).collect(),
        memory: host
            .memory
            .and_then(|bytes| u64::try_from(bytes).ok())
            .filter(|n| *n > 0)
            .map(Memory::from_bytes),
        cpuset_cpus: host.cpuset_cpus.unwrap_or_default(),
        gpu_device_ids: gpu_device_ids(host.device_requests.unwrap_or_default()),
        ip: networks.into_values().find_map(|network| network.ip_address?.parse().ok()),
        tty: config.tty.unwrap_or_default(),
        state,
    })
}

/// Reads one line of a list; `None` if it lacks an id.
pub(super) fn from_summary(answer: models::ContainerSummary) -> Option<ContainerSummary> {
    // Links of other containers are names with a second slash; the own name has only the first.
    let names = answer.names.unwrap_or_default();
    let own = names.iter().find(|name| !name.trim_start_matches('/').contains('/')).or(names.first());
    Some(ContainerSummary {
        id: ContainerId::new(answer.id?),
        name: without_slash(own.cloned().unwrap_or_default()),
        labels: answer.labels.unwrap_or_default().into_iter().collect(),
        state: ContainerState::from_word(&answer.state.map(|word| word.to_string()).unwrap_or_default()),
        created: answer.created.unwrap_or_default(),
    })
}

/// A container as an inspection shows it.
#[cfg(test)]
pub(crate) fn container_from(inspection: serde_json::Value) -> Container {
    from_inspection(serde_json::from_value(inspection).unwrap()).unwrap()
}

fn inspected_ports(map: models::PortMap) -> Vec<PortBinding> {
    let mut ports = Vec::new();
    for (key, bindings) in map {
        let Some(container_port) = key.strip_suffix("/tcp").and_then(|port| port.parse().ok()) else {
            continue;
        };
        ports.extend(bindings.unwrap_or_default().into_iter().filter_map(|binding| {
            let host_port = binding.host_port?.parse().ok().filter(|port| *port > 0)?;
            let host_ip = binding.host_ip.and_then(|ip| ip.parse().ok());
            Some(PortBinding { container_port, host_ip, host_port })
        }));
    }
    ports.sort_unstable();
    ports
}

/// The devices of all requests, also of those by the names that CDI gives them.
fn gpu_device_ids(requests: Vec<models::DeviceRequest>) -> Vec<String> {
    let ids = requests.into_iter().flat_map(|request| request.device_ids.unwrap_or_default());
    ids.map(|id| id.strip_prefix(CDI_KIND).map(str::to_owned).unwrap_or(id)).collect()
}

fn mounted_at(mount: models::MountPoint) -> MountedAt {
    MountedAt { source: mount.source.unwrap_or_default(), target: mount.destination.unwrap_or_default() }
}

fn without_slash(name: String) -> String {
    match name.strip_prefix('/') {
        Some(bare) => bare.to_owned(),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_inspection_is_read() {
        let answer = json!({
            "Id": "abc", "Name": "/kernel.python.x",
            "State": {"Status": "exited", "Pid": 0, "ExitCode": 137, "OOMKilled": true,
                      "StartedAt": "2026-11-24T15:42:02.5Z", "FinishedAt": "2026-11-24T15:43:02.5Z"},
            "Config": {"Image": "lablup/kernel-python:latest", "Env": ["A=b"], "Labels": null, "Tty": true},
            "HostConfig": {"Memory": 0, "CpusetCpus": "0", "DeviceRequests": [
                {"Driver": "nvidia", "Count": 0, "DeviceIDs": ["1"], "Capabilities": [["gpu"]], "Options": {}},
                {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-2"]}]},
            "Mounts": [{"Type": "bind", "Source": "/a", "Destination": "/home/work", "RW": true}],
            "NetworkSettings": {"Ports": {
                "2001/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32770"}, {"HostIp": "::", "HostPort": "32770"}],
                "2000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "32769"}],
                "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}],
                "9/tcp": null
            }}
        });
        let container = from_inspection(serde_json::from_value(answer).unwrap()).unwrap();
        assert_eq!(container.name, "kernel.python.x");
        assert_eq!(container.state, ContainerState::Exited);
        assert_eq!((container.pid, container.exit_code, container.oom_killed), (None, Some(137), true));
        assert_eq!(container.memory, None, "zero means no limit");
        assert_eq!(container.gpu_device_ids, ["1", "GPU-2"]);
        assert_eq!(container.ports.len(), 3);
        assert_eq!(
            container.ports[0],
            PortBinding {
                container_port: 2000,
                host_ip: Some("127.0.0.1".parse().unwrap()),
                host_port: 32769
            }
        );
    }

    #[test]
    fn a_container_that_never_ran_has_no_exit_code() {
        let answer = json!({
            "Id": "abc",
            "State": {"Status": "created", "ExitCode": 0, "StartedAt": "0001-01-01T00:00:00Z"}
        });
        let container = from_inspection(serde_json::from_value(answer).unwrap()).unwrap();
        assert_eq!(container.exit_code, None);
    }

    #[test]
    fn a_list_line_has_its_own_name_not_a_link() {
        let answer = json!({
            "Id": "abc", "Names": ["/other/link", "/mine"], "State": "removing", "Created": 5
        });
        let summary = from_summary(serde_json::from_value(answer).unwrap()).unwrap();
        assert_eq!((summary.name.as_str(), summary.state), ("mine", ContainerState::Removing));
    }
}
