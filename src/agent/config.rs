//! Everything that can be set, as each part of the agent takes it. Pure data: the command line makes it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::address::Network;
use crate::cluster::ClusterConfig;
use crate::docker::DockerConfig;
use crate::identity::IdentityConfig;
use crate::ids::InstanceId;
use crate::images::Updates;
use crate::kernel::KernelsConfig;
use crate::resources::NodeLimits;
use crate::scratch::{MinFree, Quota, S3Config};
use crate::stats::RedisAccess;
use crate::telemetry::TelemetryConfig;
use crate::units::Memory;

/// What the agent needs to know before it starts. Paths are absolute; durations are longer than zero.
#[derive(Debug, Clone)]
pub struct Config {
    /// etcd, and our part of it.
    pub cluster: ClusterConfig,
    /// Who the agent is at Redis.
    pub redis: RedisAccess,
    /// What is told of this machine rather than found out.
    pub identity: IdentityConfig,
    /// The host that the manager reaches this agent at, where it isn't the machine's own address.
    pub agent_host: Option<String>,
    /// The host that the manager and users reach kernels at, where it isn't the agent's.
    pub kernel_host: Option<String>,
    /// The port that the manager calls.
    pub agent_port: u16,
    /// The address of this machine that it is listened on; unspecified for all.
    pub rpc_listen: IpAddr,
    /// The engine.
    pub docker: DockerConfig,
    /// The network of kernels, where it isn't the agent's own.
    pub kernel_network: Option<String>,
    /// Holds a directory for each kernel.
    pub scratch_root: PathBuf,
    /// What must be free on the disks for new kernels.
    pub min_free: MinFree,
    /// What a kernel's own files may take; `None` for any.
    pub scratch_quota: Option<Quota>,
    /// What kernels may have of this machine.
    pub limits: NodeLimits,
    /// Kernels' limits.
    pub kernels: KernelsConfig,
    /// Ends all kernels at shutdown; otherwise they stay for the next agent (PROTOCOL section 12, item 37).
    pub stop_kernels_on_exit: bool,
    /// What can be set anew while the agent runs, as it is at the start.
    pub changeable: Changeable,
    /// Where output files go; `None` uploads nothing.
    pub s3: Option<S3Config>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None` serves them not at all.
    pub metrics_addr: Option<SocketAddr>,
    /// Where the operator's commands find the agent.
    pub socket: SocketPlace,
    /// The group that may use it beside root.
    pub socket_group: String,
    /// Log lines, error reports, figures.
    pub telemetry: TelemetryConfig,
    /// How much is held for callers.
    pub rpc: RpcConfig,
    /// From one heartbeat to the next; the manager gives up after 5 s of silence.
    pub heartbeat_interval: Duration,
    /// From one round of statistics to the next; they expire in Redis after 30 s.
    pub stats_interval: Duration,
    /// What is not wrong among the settings but will surprise, a line each; to be logged once the agent starts.
    pub warnings: Vec<String>,
}

/// Where the local socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketPlace {
    /// In this directory, under the agent's name.
    In(PathBuf),
    /// There.
    At(PathBuf),
    /// Nowhere.
    Nowhere,
}

impl SocketPlace {
    /// The socket of the agent with this name, if it is to have one.
    #[must_use]
    pub fn path(&self, namespace: &str, instance: &InstanceId) -> Option<PathBuf> {
        match self {
            Self::Nowhere => None,
            Self::At(path) => Some(path.clone()),
            // Agents of several names run on one machine.
            Self::In(directory) => Some(directory.join(format!("{namespace}.{instance}.sock"))),
        }
    }
}

/// What can be set anew while the agent runs; levels of log lines can, too, which is telemetry's own affair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changeable {
    /// From which networks the agent may be called beside the manager's host.
    pub trusted_peers: Vec<Network>,
    /// After how long without use a kernel is ended, zero for never; `None` for what the cluster says.
    pub idle_timeout: Option<Duration>,
    /// Whether and how images are kept up to date (PROTOCOL section 12, item 33).
    pub updates: Updates,
}

/// The bounds of what the RPC server holds that an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcConfig {
    /// Calls under way.
    pub calls: usize,
    /// The same for one connection.
    pub calls_of_one: usize,
    /// What large calls take together, but for one.
    pub memory: Memory,
}
