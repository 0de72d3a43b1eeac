//! From a config, an image and an allocation to a container spec (PROTOCOL section 7). Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::account::Folder;
use super::labels::{self, Owner};
use crate::docker::{Bind, Confinement, ContainerSpec, PublishedPort};
use crate::ids::KernelId;
use crate::images::KernelImage;
use crate::resources::{MemoryGrant, cpuset_text};
use crate::wire::config::KernelConfig;
use crate::wire::limits::Limits;

/// Langs that get the volume of samples.
const DEEP_LEARNING: [&str; 6] = ["tensorflow", "caffe", "keras", "torch", "mxnet", "theano"];

/// The volume's name.
pub(super) const SAMPLES: &str = "deeplearning-samples";

/// The runner's code in the images, over which `--debug-kernel` is mounted.
const RUNNER_CODE: &str = "/usr/local/lib/python3.6/site-packages/ai/backend/kernel";

/// Where a kernel has its user's files.
pub(super) const HOME: &str = "/home/work";

/// Where runners look for their settings: those up to 1.4 in the first, those of 18.12 in the second.
pub(super) const CONFIG_DIRS: [&str; 2] = ["/home/work/.config", "/home/config"];

/// Everything a spec is made of.
#[derive(Debug)]
pub(super) struct Plan<'p> {
    /// Whose kernel.
    pub(super) owner: &'p Owner,
    /// Which kernel.
    pub(super) kernel: KernelId,
    /// What was asked for.
    pub(super) config: &'p KernelConfig,
    /// The image and its labels.
    pub(super) image: &'p KernelImage,
    /// What was asked for, within what the image declares that it can use.
    pub(super) limits: Limits,
    /// The memory it got.
    pub(super) memory: MemoryGrant,
    /// The cores it got.
    pub(super) cpu_set: &'p [u32],
    /// The NUMA node of the cores.
    pub(super) numa_node: Option<u32>,
    /// The GPUs it got.
    pub(super) gpu_set: &'p [u32],
    /// The GPUs' names for Docker.
    pub(super) gpu_uuids: &'p [String],
    /// Its user's files.
    pub(super) home: &'p Path,
    /// Its runner's settings, where they lie apart.
    pub(super) config_dir: Option<&'p Path>,
    /// The virtual folders.
    pub(super) folders: &'p [Folder],
    /// Whether the volume of samples exists.
    pub(super) samples: bool,
    /// Where terminals are published: the kernel host's address.
    pub(super) terminal_ip: IpAddr,
    /// The user whom the image is told to run as; `None` where it is told nothing.
    pub(super) uid: Option<u32>,
    /// What keeps it to itself.
    pub(super) confinement: Confinement,
    /// The operator's runner code.
    pub(super) debug_kernel: Option<&'p Path>,
    /// The most processes and threads in the container.
    pub(super) pids_limit: Option<i64>,
    /// Docker's name of the network that it is connected to.
    pub(super) network: &'p str,
}

/// Whether the lang gets the volume of samples.
#[must_use]
pub(super) fn wants_samples(lang: &str) -> bool {
    DEEP_LEARNING.iter().any(|word| lang.contains(word))
}

/// The spec.
pub(super) fn spec(plan: &Plan<'_>) -> ContainerSpec {
    let Plan { config, image, .. } = plan;
    let memory = plan.memory.limit;
    ContainerSpec {
        image: image.reference.clone(),
        env: environment(plan),
        labels: labels::write(plan.owner, plan.kernel, config, plan.cpu_set, plan.gpu_set),
        tty: true,
        open_stdin: true,
        stop_signal: Some("SIGINT".to_owned()),
        ports: ports(plan),
        binds: binds(plan),
        memory,
        // No swap beyond the limit (section 12, item 11).
        memory_swap_bytes: memory.and_then(|memory| i64::try_from(memory.bytes()).ok()),
        pids_limit: plan.pids_limit,
        network: Some(plan.network.to_owned()),
        cpuset_cpus: (!plan.cpu_set.is_empty()).then(|| cpuset_text(plan.cpu_set)),
        cpuset_mems: plan.numa_node.map(|node| node.to_string()),
        shm_size: Some(plan.memory.shm),
        cpu_quota: plan.limits.cpu_slot.quota(),
        confinement: plan.confinement.clone(),
        gpu_device_ids: if image.labels.nvidia_enabled { plan.gpu_uuids.to_vec() } else { Vec::new() },
    }
}

/// Section 12, item 17: who reaches the first two executes code. The manager connects to the others.
fn ports(plan: &Plan<'_>) -> Vec<PublishedPort> {
    let port = |host_ip| move |container_port| PublishedPort { container_port, host_ip };
    let own = [2000, 2001].map(port(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let mut open: Vec<u16> = vec![2002, 2003];
    for service in &plan.image.labels.services {
        // Several services may share a port, also with the terminal.
        if !open.contains(&service.port) {
            open.push(service.port);
        }
    }
    own.into_iter().chain(open.into_iter().map(port(plan.terminal_ip))).collect()
}

fn environment(plan: &Plan<'_>) -> Vec<String> {
    let given = plan.config.environ.iter().map(|(name, value)| format!("{name}={value}"));
    let cores = plan.cpu_set.len();
    let counts = plan.image.labels.corecount_vars.iter().map(|name| format!("{name}={cores}"));
    let uid = plan.uid.map(|uid| format!("LOCAL_USER_ID={uid}"));
    given.chain(counts).chain(uid).collect()
}

fn binds(plan: &Plan<'_>) -> Vec<Bind> {
    let path = |p: &Path| p.to_string_lossy().into_owned();
    let bind = |source, target: &str, read_only| Bind { source, target: target.to_owned(), read_only };
    let mut binds = vec![bind(path(plan.home), HOME, false)];
    let settings = |dir: &Path| CONFIG_DIRS.map(|target| bind(path(dir), target, true));
    binds.extend(plan.config_dir.map(settings).into_iter().flatten());
    binds.extend(plan.folders.iter().map(|folder| bind(path(&folder.source), &folder.target, false)));
    if plan.samples {
        binds.push(bind(SAMPLES.to_owned(), "/home/work/samples", true));
    }
    if let Some(code) = plan.debug_kernel {
        binds.push(bind(path(code), RUNNER_CODE, true));
    }
    binds
}
