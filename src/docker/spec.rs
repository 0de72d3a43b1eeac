//! What a container shall be like, and the request that makes it so. Pure.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, Mount, MountType, PortBinding as BindingModel,
};

use super::Confinement;
use crate::units::{CpuQuota, Memory};

/// A container to create. Empty and `None` fields leave Docker's or the image's defaults.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ContainerSpec {
    /// The image's reference, `lablup/kernel-python:latest`.
    pub image: String,
    /// `NAME=value` texts, added to the image's.
    pub env: Vec<String>,
    /// Labels, added to the image's.
    pub labels: BTreeMap<String, String>,
    /// Whether it gets a terminal; decides how its logs are framed.
    pub tty: bool,
    /// Whether its standard input stays open.
    pub open_stdin: bool,
    /// The signal that asks it to stop, `SIGINT`.
    pub stop_signal: Option<String>,
    /// TCP ports to publish.
    pub ports: Vec<PublishedPort>,
    /// The network that it is connected to, by its name; `None` for Docker's own.
    pub network: Option<String>,
    /// Directories of the host and named volumes. A source directory must exist: Docker makes none.
    pub binds: Vec<Bind>,
    /// The memory limit.
    pub memory: Option<Memory>,
    /// The size of `/dev/shm`; Docker's is 64 MiB.
    pub shm_size: Option<Memory>,
    /// The limit of memory and swap together; -1 for no limit.
    pub memory_swap_bytes: Option<i64>,
    /// The most processes and threads at a time; `None` for no limit.
    pub pids_limit: Option<i64>,
    /// The cores it may use, `0,1`.
    pub cpuset_cpus: Option<String>,
    /// The NUMA nodes whose memory it may use, `0`.
    pub cpuset_mems: Option<String>,
    /// The share of CPU time that it gets.
    pub cpu_quota: Option<CpuQuota>,
    /// What keeps it to itself.
    pub confinement: Confinement,
    /// The GPUs that it gets by their UUIDs, through Docker's device requests; none when empty.
    pub gpu_device_ids: Vec<String>,
}

/// A TCP port of the container, published on a port of the host that Docker picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedPort {
    /// The port inside.
    pub container_port: u16,
    /// The host's address that it is published on; unspecified (`0.0.0.0`) for all.
    pub host_ip: IpAddr,
}

/// Something of the host that appears inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// An absolute path, or the name of a volume.
    pub source: String,
    /// The absolute path inside.
    pub target: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// Leaves the environment out: users put secrets there.
impl fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSpec")
            .field("image", &self.image)
            .field("labels", &self.labels)
            .field("ports", &self.ports)
            .field("binds", &self.binds)
            .field("memory", &self.memory)
            .field("cpuset_cpus", &self.cpuset_cpus)
            .field("gpu_device_ids", &self.gpu_device_ids)
            .finish_non_exhaustive()
    }
}

/// The body of the engine's create call.
pub(super) fn body(spec: &ContainerSpec, gpus: &GpuAccess) -> ContainerCreateBody {
    let mut host_config = HostConfig {
        // Mounts rather than Binds: a Bind is one text split at colons, so that a folder named `a:/etc` would
        // change its meaning, and a missing source would be made, owned by root, instead of refused.
        mounts: unless_empty(spec.binds.iter().map(mount).collect()),
        network_mode: spec.network.clone(),
        port_bindings: Some(spec.ports.iter().map(binding).collect()),
        memory: spec.memory.map(|memory| i64::try_from(memory.bytes()).unwrap_or(i64::MAX)),
        memory_swap: spec.memory_swap_bytes,
        shm_size: spec.shm_size.map(|size| i64::try_from(size.bytes()).unwrap_or(i64::MAX)),
        pids_limit: spec.pids_limit,
        cpuset_cpus: spec.cpuset_cpus.clone(),
        cpuset_mems: spec.cpuset_mems.clone(),
        cpu_quota: spec.cpu_quota.map(|quota| quota.quota_us),
        cpu_period: spec.cpu_quota.map(|quota| quota.period_us),
        device_requests: gpu_request(&spec.gpu_device_ids, gpus).map(|request| vec![request]),
        runtime: (!spec.gpu_device_ids.is_empty()).then(|| gpus.runtime()).flatten(),
        privileged: Some(false),
        ..HostConfig::default()
    };
    spec.confinement.apply(&mut host_config);
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        env: unless_empty(spec.env.clone()),
        labels: Some(spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
        tty: Some(spec.tty),
        open_stdin: Some(spec.open_stdin),
        stop_signal: spec.stop_signal.clone(),
        exposed_ports: Some(spec.ports.iter().map(port_key).collect()),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    }
}

fn mount(bind: &Bind) -> Mount {
    let typ = if bind.source.starts_with('/') { MountType::BIND } else { MountType::VOLUME };
    Mount {
        typ: Some(typ),
        source: Some(bind.source.clone()),
        target: Some(bind.target.clone()),
        read_only: Some(bind.read_only),
        ..Mount::default()
    }
}

fn port_key(port: &PublishedPort) -> String {
    format!("{}/tcp", port.container_port)
}

fn binding(port: &PublishedPort) -> (String, Option<Vec<BindingModel>>) {
    // An empty host port lets Docker pick one.
    let binding = BindingModel { host_ip: Some(port.host_ip.to_string()), host_port: Some(String::new()) };
    (port_key(port), Some(vec![binding]))
}

/// How the engine gives GPUs to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GpuAccess {
    /// By the Container Device Interface, which describes these devices: `nvidia.com/gpu=GPU-…`.
    Cdi(Vec<String>),
    /// By NVIDIA's own hook.
    Nvidia {
        /// Whether the engine has NVIDIA's runtime, which works where the hook alone is not set up.
        has_runtime: bool,
    },
}

/// The name of a device in CDI begins so.
pub(super) const CDI_KIND: &str = "nvidia.com/gpu=";

impl GpuAccess {
    /// Whether CDI describes all these devices.
    fn describes(&self, device_ids: &[String]) -> bool {
        let Self::Cdi(known) = self else { return false };
        device_ids.iter().all(|id| known.contains(&format!("{CDI_KIND}{id}")))
    }

    fn runtime(&self) -> Option<String> {
        matches!(self, Self::Nvidia { has_runtime: true }).then(|| "nvidia".to_owned())
    }
}

fn gpu_request(device_ids: &[String], gpus: &GpuAccess) -> Option<DeviceRequest> {
    if device_ids.is_empty() {
        return None;
    }
    let request = if gpus.describes(device_ids) {
        DeviceRequest {
            driver: Some("cdi".to_owned()),
            device_ids: Some(device_ids.iter().map(|id| format!("{CDI_KIND}{id}")).collect()),
            ..DeviceRequest::default()
        }
    } else {
        DeviceRequest {
            driver: Some("nvidia".to_owned()),
            device_ids: Some(device_ids.to_vec()),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            options: Some(HashMap::new()),
            ..DeviceRequest::default()
        }
    };
    Some(request)
}

fn unless_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn json_of(spec: &ContainerSpec) -> Value {
        serde_json::to_value(body(spec, &GpuAccess::Nvidia { has_runtime: false })).unwrap()
    }

    #[test]
    fn a_spec_becomes_the_engine_s_request() {
        let spec = ContainerSpec {
            image: "lablup/kernel-python:latest".into(),
            env: vec!["A=b".into()],
            labels: [("k".into(), "v".into())].into(),
            tty: true,
            open_stdin: true,
            stop_signal: Some("SIGINT".into()),
            ports: vec![PublishedPort { container_port: 2000, host_ip: "127.0.0.1".parse().unwrap() }],
            binds: vec![
                Bind { source: "/scratch/a:/etc".into(), target: "/home/work".into(), read_only: false },
                Bind { source: "samples".into(), target: "/home/work/samples".into(), read_only: true },
            ],
            memory: Some(Memory::from_mib(1024)),
            memory_swap_bytes: Some(1 << 30),
            shm_size: Some(Memory::from_mib(512)),
            pids_limit: Some(99),
            cpuset_cpus: Some("0,1".into()),
            cpu_quota: Some(CpuQuota { quota_us: 50_000, period_us: 100_000 }),
            network: Some("kernels".into()),
            gpu_device_ids: vec!["0".into()],
            ..ContainerSpec::default()
        };
        let body = json_of(&spec);
        let host = &body["HostConfig"];
        assert_eq!(body["Image"], "lablup/kernel-python:latest");
        assert_eq!(body["ExposedPorts"], json!({"2000/tcp": {}}));
        assert_eq!(body["StopSignal"], "SIGINT");
        assert_eq!(host["PortBindings"], json!({"2000/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}));
        assert_eq!(host["Memory"], 1 << 30);
        assert_eq!(host["MemorySwap"], 1 << 30);
        assert_eq!(host["ShmSize"], 512 << 20);
        assert_eq!(host["CpuQuota"], 50_000);
        assert_eq!(host["CpuPeriod"], 100_000);
        assert_eq!(host["Privileged"], false);
        assert_eq!(host["NetworkMode"], "kernels");
        assert_eq!(host["Mounts"][0]["Source"], "/scratch/a:/etc", "a colon stays part of the path");
        assert_eq!(host["Mounts"][0]["Type"], "bind");
        assert_eq!(host["Mounts"][1]["Type"], "volume");
        assert_eq!(host["Mounts"][1]["ReadOnly"], true);
        assert_eq!(host["DeviceRequests"][0]["DeviceIDs"], json!(["0"]));
        assert_eq!(host["DeviceRequests"][0]["Capabilities"], json!([["gpu"]]));
    }

    #[test]
    fn gpus_come_by_cdi_where_it_describes_them_and_else_by_nvidia_s_hook() {
        let spec = ContainerSpec {
            gpu_device_ids: vec!["GPU-a".into(), "GPU-b".into()],
            ..ContainerSpec::default()
        };
        let host = |gpus: &GpuAccess| serde_json::to_value(body(&spec, gpus)).unwrap()["HostConfig"].clone();
        let names = |ids: &[&str]| ids.iter().map(|id| format!("nvidia.com/gpu={id}")).collect();
        let cdi = host(&GpuAccess::Cdi(names(&["GPU-a", "GPU-b", "0"])));
        let devices = json!(["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"]);
        assert_eq!(cdi["DeviceRequests"], json!([{"Driver": "cdi", "DeviceIDs": devices}]));
        assert_eq!(cdi.get("Runtime"), None);
        let partly = host(&GpuAccess::Cdi(names(&["GPU-a"])));
        assert_eq!(partly["DeviceRequests"][0]["Driver"], "nvidia");
        let runtime = host(&GpuAccess::Nvidia { has_runtime: true });
        assert_eq!(runtime["Runtime"], "nvidia");
        assert_eq!(runtime["DeviceRequests"][0]["DeviceIDs"], json!(["GPU-a", "GPU-b"]));
    }

    #[test]
    fn without_gpus_no_device_is_requested() {
        let body = json_of(&ContainerSpec::default());
        assert_eq!(body["HostConfig"].get("DeviceRequests"), None);
    }

    #[test]
    fn the_environment_is_not_printed() {
        let spec = ContainerSpec { env: vec!["TOKEN=hunter2".into()], ..ContainerSpec::default() };
        assert!(!format!("{spec:?}").contains("hunter2"));
    }
}
