//! The agent's settings: every flag with its environment variable, its default, and how its text is read.

// The doc comments of fields are the help texts, which a terminal shows as they are.
#![allow(clippy::doc_markdown)]

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use url::Url;

use super::super::access::AccessOpts;
use super::super::paths;
use super::super::values::{self, duration_in, number_in, wants};
use crate::address::{self, HostPort, Network};
use crate::agent::config::SocketPlace;
use crate::docker::EngineAddress;
use crate::ids::InstanceId;
use crate::resources::{CoreList, GpuList, ShmSize};
use crate::scratch::{Acl, KeyPrefix, MinFree};
use crate::secret::Secret;
use crate::telemetry::{LogFilter, LogFormat, SentryDsn};
use crate::units::Memory;

const TENTH: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The flag that names the file of settings, and can't stand in it.
pub(in crate::cli) const FILE: &str = "config";

/// The file of settings when nobody names one.
const DEFAULT_FILE: &str = "/etc/backendai-agent/agent.toml";

/// Stands for the agent's own network.
pub(in crate::cli) const OWN_NETWORK: &str = "own";

/// The agent's settings.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct AgentOpts {
    #[command(flatten)]
    pub(in crate::cli) file: FileOpts,
    #[command(flatten)]
    pub(in crate::cli) cluster: ClusterOpts,
    #[command(flatten)]
    pub(in crate::cli) access: AccessOpts,
    #[command(flatten)]
    pub(in crate::cli) kernels: KernelOpts,
    #[command(flatten)]
    pub(in crate::cli) resources: ResourceOpts,
    #[command(flatten)]
    pub(in crate::cli) s3: S3Opts,
    #[command(flatten)]
    pub(in crate::cli) observing: ObservingOpts,
    #[command(flatten)]
    pub(in crate::cli) tuning: TuningOpts,
}

/// Where settings stand that neither flags nor the environment have.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Settings from a file")]
pub(in crate::cli) struct FileOpts {
    /// A file of settings in TOML; its keys are the flags without their dashes. The default need not be there
    #[arg(long = FILE, env = "BACKEND_CONFIG", value_name = "FILE")]
    #[arg(default_value = DEFAULT_FILE)]
    pub(in crate::cli) config: PathBuf,
}

/// Finding the manager, and being found.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub(in crate::cli) struct ClusterOpts {
    /// The cluster that this agent belongs to
    #[arg(long, env = "BACKEND_NAMESPACE", value_name = "NAME", default_value = "local")]
    #[arg(value_parser = wants("a name without / and white space", values::name))]
    pub(in crate::cli) namespace: String,
    /// The etcd cluster, members separated by commas
    #[arg(long, env = "BACKEND_ETCD_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:2379")]
    #[arg(value_delimiter = ',', value_parser = wants("HOST:PORT of etcd, several with commas between them", values::parse::<HostPort>))]
    pub(in crate::cli) etcd_addr: Vec<HostPort>,
    /// The host that the manager reaches this agent at [default: this machine's address]
    #[arg(long, env = "BACKEND_AGENT_HOST_OVERRIDE", value_name = "HOST")]
    #[arg(value_parser = wants("a host name or an IPv4 address, without a port: the agent listens on IPv4 only", values::ipv4_host))]
    pub(in crate::cli) agent_host_override: Option<String>,
    /// The host that kernels are reached at [default: the agent's]
    #[arg(long, env = "BACKEND_KERNEL_HOST_OVERRIDE", value_name = "HOST")]
    #[arg(value_parser = wants("a host name or an address, without a port", address::host))]
    pub(in crate::cli) kernel_host_override: Option<String>,
    /// The port to listen on for the manager
    #[arg(long, env = "BACKEND_AGENT_PORT", value_name = "PORT", default_value = "6001")]
    #[arg(value_parser = wants("a port from 1 to 65535", number_in(1..=u16::MAX)))]
    pub(in crate::cli) agent_port: u16,
    /// The address of this machine to listen on for the manager; 0.0.0.0 for all
    #[arg(long, env = "BACKEND_RPC_LISTEN", value_name = "IP", default_value = "0.0.0.0")]
    #[arg(value_parser = wants("an IP address of this machine, or 0.0.0.0 for all", values::parse::<IpAddr>))]
    pub(in crate::cli) rpc_listen: IpAddr,
    /// Networks from which calls are taken beside the manager's host as etcd names it, separated by commas
    #[arg(long, env = "BACKEND_TRUSTED_PEERS", value_name = "NETWORK")]
    #[arg(value_delimiter = ',', value_parser = wants("a network such as 10.0.0.0/24 or an address, several with commas between them", values::parse::<Network>))]
    pub(in crate::cli) trusted_peers: Vec<Network>,
    /// This agent's name in the cluster [default: i-HOSTNAME or the cloud's id]
    #[arg(long, env = "BACKEND_INSTANCE_ID", value_name = "ID")]
    #[arg(value_parser = crate::identity::check_instance_id)]
    pub(in crate::cli) instance_id: Option<InstanceId>,
    /// The region to report [default: the cloud's, or local/unknown]
    #[arg(long, env = "BACKEND_REGION", value_name = "REGION")]
    #[arg(value_parser = wants("a text on one line", values::text))]
    pub(in crate::cli) region: Option<String>,
}

/// What kernels get, and when they end.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kernels")]
#[allow(clippy::struct_excessive_bools)] // switches
pub(in crate::cli) struct KernelOpts {
    /// Holds a directory for each kernel; must exist
    #[arg(long, env = "BACKEND_SCRATCH_ROOT", value_name = "DIR", default_value = paths::DEFAULT_ROOT)]
    #[arg(value_parser = paths::scratch_root)]
    pub(in crate::cli) scratch_root: PathBuf,
    /// What must be free below the scratch root and on Docker's disk, for slots to be offered and kernels to be made: a part, MiB, or
    /// the less of both; 0 = any
    #[arg(long, env = "BACKEND_MIN_FREE", value_name = "SIZE", default_value_t = MinFree::default())]
    #[arg(value_parser = wants("a part such as 5%, MiB such as 2048, or the less of both such as 5%,1024; 0 switches it off", values::parse::<MinFree>))]
    pub(in crate::cli) min_free: MinFree,
    /// MiB that a kernel's own files may take, where the scratch root is on ext4 or XFS with project quotas; 0 = any
    #[arg(long, env = "BACKEND_SCRATCH_QUOTA", value_name = "MIB", default_value = "0")]
    #[arg(value_parser = wants("MiB such as 10240, 1 at least; 0 sets no limit", values::quota))]
    pub(in crate::cli) scratch_quota: Memory,
    /// The Docker engine, unix:// or tcp://
    #[arg(long, env = "DOCKER_HOST", value_name = "URL", default_value = crate::docker::DEFAULT_HOST)]
    pub(in crate::cli) docker_host: EngineAddress,
    /// Connect kernels to this Docker network; own is one from which they reach no other kernel and no service of this machine
    #[arg(long, env = "BACKEND_KERNEL_NETWORK", value_name = "NAME", default_value = OWN_NETWORK)]
    #[arg(value_parser = wants("own, or the name of a Docker network such as bridge", values::network))]
    pub(in crate::cli) kernel_network: String,
    /// End a kernel that was unused for so long; 0 = never [default: what the cluster says, else 600]
    #[arg(long, env = "BACKEND_IDLE_TIMEOUT", value_name = "TIME")]
    #[arg(value_parser = wants("a time such as 600, 10m or 1h; 0 switches it off", values::duration_or_off))]
    pub(in crate::cli) idle_timeout: Option<Duration>,
    /// Kernels that are made or undone at a time; more wait for half of the next and are then refused
    #[arg(long, env = "BACKEND_CREATES", value_name = "N", default_value = "8")]
    // What dockerd makes within the manager's 3 s on an ordinary machine; more at a time make all of them late.
    #[arg(value_parser = wants("a number from 1 to 1000", number_in(1..=1000_usize)))]
    pub(in crate::cli) creates: usize,
    /// Roll a create back that takes longer; 0 = never [default: as long as its manager waits, 3 or 28 s]
    #[arg(long, env = "BACKEND_CREATE_DEADLINE", value_name = "TIME")]
    #[arg(value_parser = wants("a time such as 3 or 500ms; 0 switches it off", values::duration_or_off))]
    pub(in crate::cli) create_deadline: Option<Duration>,
    /// The most processes and threads in a kernel; 0 = any
    #[arg(long, env = "BACKEND_KERNEL_PIDS_LIMIT", value_name = "N", default_value = "16384")]
    #[arg(value_parser = wants("a number such as 16384; 0 sets no limit", number_in(0..=i64::MAX)))]
    pub(in crate::cli) kernel_pids_limit: i64,
    /// on, or off for images that need what containers had before: any system call, Docker's capabilities, root
    #[arg(long, env = "BACKEND_CONTAINER_HARDENING", value_name = "WHETHER", default_value = "on")]
    #[arg(value_parser = wants("on or off", values::on_off))]
    #[arg(action = clap::ArgAction::Set)]
    pub(in crate::cli) container_hardening: bool,
    /// As which user kernels run, but those with virtual folders that belong to somebody else
    #[arg(long, env = "BACKEND_KERNEL_UID", value_name = "UID", default_value = "9001")]
    #[arg(value_parser = wants("a user id from 0 to 2147483647", number_in(0..=2_147_483_647_u32)))]
    pub(in crate::cli) kernel_uid: u32,
    /// End runs after the time that their image allows (label io.sorna.timeout)
    #[arg(long, env = "BACKEND_ENFORCE_EXEC_TIMEOUT", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) enforce_exec_timeout: bool,
    /// Take over running kernels of the Python agent
    #[arg(long, env = "BACKEND_ADOPT", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) adopt: bool,
    /// Remove directories below the scratch root, older than a day, that have no note and no container
    #[arg(long, env = "BACKEND_SWEEP_SCRATCH", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) sweep_scratch: bool,
    /// End all kernels when the agent ends; they stay otherwise
    #[arg(long, env = "BACKEND_STOP_KERNELS_ON_EXIT", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) stop_kernels_on_exit: bool,
    /// Pull images that the cluster's catalogue wants newer
    #[arg(long, env = "BACKEND_AUTO_UPDATE_IMAGES", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) auto_update_images: bool,
    /// The registry to pull them from, HOST[:PORT][/PATH] [default: Docker Hub]
    #[arg(long, env = "BACKEND_DOCKER_REGISTRY", value_name = "HOST")]
    #[arg(value_parser = wants("a registry such as registry.example.com:5000, without https://", values::registry))]
    pub(in crate::cli) docker_registry: Option<String>,
    /// A config.json as docker login writes it, for the registry's password
    #[arg(long, env = "BACKEND_DOCKER_CONFIG", value_name = "FILE")]
    pub(in crate::cli) docker_config: Option<PathBuf>,
    /// Remove superseded images when no kernel uses them any more
    #[arg(long, env = "BACKEND_REMOVE_OLD_IMAGES", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) remove_old_images: bool,
    /// For development: a kernel runner's source, ending in ai/backend/kernel, to use in all containers
    #[arg(long, env = "DEBUG_KERNEL", value_name = "DIR", value_parser = paths::debug_kernel)]
    pub(in crate::cli) debug_kernel: Option<PathBuf>,
    /// Accepted for old command lines; has no effect
    #[arg(long, env = "BACKEND_KERNEL_ALIASES", value_name = "FILE")]
    pub(in crate::cli) kernel_aliases: Option<PathBuf>,
}

/// What kernels may have of this machine (PROTOCOL section 9).
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Resources")]
pub(in crate::cli) struct ResourceOpts {
    /// Cores that no kernel gets and the manager is not told of: a list as in 0,8-9 or a mask as in 0x301
    #[arg(long, env = "BACKEND_RESERVED_CPUS", value_name = "LIST")]
    #[arg(value_parser = wants("a list of cores such as 0,8-9 or a mask such as 0x301", values::parse::<CoreList>))]
    pub(in crate::cli) reserved_cpus: Option<CoreList>,
    /// The only cores that kernels get, written likewise [default: all that the agent may use]
    #[arg(long, env = "BACKEND_LIMIT_CPUS", value_name = "LIST")]
    #[arg(value_parser = wants("a list of cores such as 0,8-9 or a mask such as 0x301", values::parse::<CoreList>))]
    pub(in crate::cli) limit_cpus: Option<CoreList>,
    /// The only GPUs that kernels get: a list of numbers or names (GPU-…), or a mask [default: all]
    #[arg(long, env = "BACKEND_LIMIT_GPUS", value_name = "LIST")]
    #[arg(value_parser = wants("a list of GPUs such as 0,2-3 or GPU-…, or a mask such as 0xd", values::parse::<GpuList>))]
    pub(in crate::cli) limit_gpus: Option<GpuList>,
    /// Memory in MiB that the manager is not told of
    #[arg(long, env = "BACKEND_RESERVED_MEMORY", value_name = "MIB", default_value = "0")]
    #[arg(value_parser = wants("MiB such as 2048", values::memory))]
    pub(in crate::cli) reserved_memory: Memory,
    /// Shared memory (/dev/shm) of a kernel: MiB, or a part of its memory; what is in it counts as the kernel's memory
    #[arg(long, env = "BACKEND_SHM_SIZE", value_name = "SIZE", default_value = "50%")]
    #[arg(value_parser = wants("MiB such as 256, or a part of a kernel's memory such as 50%", values::parse::<ShmSize>))]
    pub(in crate::cli) shm_size: ShmSize,
}

/// Where output files go (PROTOCOL section 8; section 12, item 31).
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output files (S3)")]
pub(in crate::cli) struct S3Opts {
    /// The bucket's region
    #[arg(long, env = "AWS_REGION", value_name = "REGION", default_value = "ap-northeast-1")]
    #[arg(value_parser = wants("a region such as ap-northeast-1", values::name))]
    pub(in crate::cli) s3_region: String,
    /// The bucket that output files are put to
    #[arg(long, env = "AWS_S3_BUCKET", value_name = "NAME", default_value = "codeonweb")]
    #[arg(value_parser = wants("the name of a bucket", values::name))]
    pub(in crate::cli) s3_bucket: String,
    /// The first part of their keys
    #[arg(long, env = "AWS_S3_BUCKET_PATH", value_name = "PATH", default_value = "bucket")]
    pub(in crate::cli) s3_prefix: KeyPrefix,
    /// Another server than Amazon's
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL")]
    #[arg(value_parser = wants("an http or https URL without user and query", values::url))]
    pub(in crate::cli) s3_endpoint: Option<Url>,
    /// private (presigned URLs) or public-read (plain URLs)
    #[arg(long, env = "BACKEND_S3_ACL", value_name = "ACL", default_value = "private")]
    #[arg(value_parser = wants("private or public-read", values::acl))]
    pub(in crate::cli) s3_acl: Acl,
    /// How long presigned URLs work; 7d is the longest
    #[arg(long, env = "BACKEND_S3_URL_EXPIRY", value_name = "TIME", default_value = "7d")]
    #[arg(value_parser = wants("a time from 1s to 7d, the longest that S3 allows", duration_in(SECOND..=7 * DAY)))]
    pub(in crate::cli) s3_url_expiry: Duration,
    /// With the next, upload output files; without, their links are #dummy-upload
    #[arg(long, env = "AWS_ACCESS_KEY_ID", value_name = "KEY", hide_env_values = true)]
    #[arg(value_parser = wants("a text on one line", values::secret))]
    pub(in crate::cli) aws_access_key_id: Option<Secret>,
    /// With the former
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", value_name = "KEY", hide_env_values = true)]
    #[arg(value_parser = wants("a text on one line", values::secret))]
    pub(in crate::cli) aws_secret_access_key: Option<Secret>,
    /// Comes with temporary keys
    #[arg(long, env = "AWS_SESSION_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    #[arg(value_parser = wants("a text on one line", values::secret))]
    pub(in crate::cli) aws_session_token: Option<Secret>,
}

/// What an operator sees of the agent.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Observing")]
pub(in crate::cli) struct ObservingOpts {
    /// Log the agent's details, too
    #[arg(long, env = "BACKEND_DEBUG", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) debug: bool,
    /// Log those, and what its libraries do
    #[arg(short, long, env = "BACKEND_VERBOSE", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) verbose: bool,
    /// Levels by target instead, such as warn,backendai_agent::kernel=trace
    #[arg(long, env = "RUST_LOG", value_name = "FILTER")]
    pub(in crate::cli) log_filter: Option<LogFilter>,
    /// The form of lines on stderr: text, json, or journal (priorities, no time) [default: journal under systemd, else text]
    #[arg(long, env = "BACKEND_LOG_FORMAT", value_name = "FORMAT")]
    pub(in crate::cli) log_format: Option<LogFormat>,
    /// Write JSON lines to this file, too; old ones get .1, .2 …
    #[arg(long, env = "BACKEND_LOG_FILE", value_name = "FILE", value_parser = paths::log_file)]
    pub(in crate::cli) log_file: Option<PathBuf>,
    /// How many old log files stay; 0 never starts a new file
    #[arg(long, env = "BACKEND_LOG_FILE_COUNT", value_name = "N", default_value = "10")]
    // More would make each rotation slow.
    #[arg(value_parser = wants("a number of files from 0 to 1000; 0 never starts a new file", number_in(0..=1000_u32)))]
    pub(in crate::cli) log_file_count: u32,
    /// Size in MiB at which a new log file is begun; 0 never starts a new file
    #[arg(long, env = "BACKEND_LOG_FILE_SIZE", value_name = "MIB", default_value = "10.0")]
    #[arg(value_parser = wants("MiB such as 10.0; 0 never starts a new file", values::mebibytes))]
    pub(in crate::cli) log_file_size: Memory,
    /// Serve a page, /status, /metrics, /healthz and /readyz here
    #[arg(long, env = "BACKEND_METRICS_ADDR", value_name = "IP:PORT")]
    #[arg(value_parser = wants("an IP address and a port, such as 127.0.0.1:6090", values::parse::<SocketAddr>))]
    pub(in crate::cli) metrics_addr: Option<SocketAddr>,
    /// The local socket that status, ps, top, logs, events and drain use; none switches it off [default: one in /run/backendai-agent, or in a directory of the user who may not write there]
    #[arg(long, env = "BACKEND_SOCKET", value_name = "PATH", value_parser = values::socket)]
    pub(in crate::cli) socket: Option<SocketPlace>,
    /// The group that may use it beside root; where there is none of the name, nobody else may
    #[arg(long, env = "BACKEND_SOCKET_GROUP", value_name = "NAME", default_value = "backendai-agent")]
    #[arg(value_parser = wants("the name of a group", values::name))]
    pub(in crate::cli) socket_group: String,
    /// Report errors to this Sentry DSN
    #[arg(long, env = "RAVEN_URI", value_name = "DSN", hide_env_values = true)]
    pub(in crate::cli) raven_uri: Option<SentryDsn>,
    /// With the next, send gauges to the Datadog agent at 127.0.0.1:8125 (UDP)
    #[arg(long, env = "DATADOG_API_KEY", value_name = "KEY", hide_env_values = true)]
    #[arg(value_parser = wants("a text on one line", values::secret))]
    pub(in crate::cli) datadog_api_key: Option<Secret>,
    /// With the former
    #[arg(long, env = "DATADOG_APP_KEY", value_name = "KEY", hide_env_values = true)]
    #[arg(value_parser = wants("a text on one line", values::secret))]
    pub(in crate::cli) datadog_app_key: Option<Secret>,
}

/// The agent's clockwork.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tuning (not needed in ordinary life)")]
pub(in crate::cli) struct TuningOpts {
    /// From one heartbeat to the next
    #[arg(long, env = "BACKEND_HEARTBEAT_INTERVAL", value_name = "TIME", default_value = "3")]
    #[arg(value_parser = wants("a time from 100ms to 4s: the manager gives up after 5 s", duration_in(TENTH..=4 * SECOND)))]
    pub(in crate::cli) heartbeat_interval: Duration,
    /// From one round of statistics to the next
    #[arg(long, env = "BACKEND_STATS_INTERVAL", value_name = "TIME", default_value = "5")]
    #[arg(value_parser = wants("a time from 100ms to 20s: statistics expire after 30 s", duration_in(TENTH..=20 * SECOND)))]
    pub(in crate::cli) stats_interval: Duration,
    /// From one comparison with Docker's containers to the next
    #[arg(long, env = "BACKEND_RECONCILE_INTERVAL", value_name = "TIME", default_value = "10")]
    #[arg(value_parser = wants("a time from 100ms to 1h", duration_in(TENTH..=3600 * SECOND)))]
    pub(in crate::cli) reconcile_interval: Duration,
    /// How long the file system of the scratch root may be mounted after the agent's start, where kernels must have files there; then
    /// they can be ended, and nothing else until it is mounted
    #[arg(long, env = "BACKEND_SCRATCH_WAIT", value_name = "TIME", default_value = "120")]
    #[arg(value_parser = wants("a time from 100ms to 1h", duration_in(TENTH..=3600 * SECOND)))]
    pub(in crate::cli) scratch_wait: Duration,
    /// Calls of the manager that are carried out at once; further ones wait
    #[arg(long, env = "BACKEND_RPC_CALLS", value_name = "N", default_value = "4096")]
    #[arg(value_parser = wants("a number from 1 to 1000000", number_in(1..=1_000_000_usize)))]
    pub(in crate::cli) rpc_calls: usize,
    /// The same for one connection
    #[arg(long, env = "BACKEND_RPC_CALLS_OF_ONE", value_name = "N", default_value = "1024")]
    #[arg(value_parser = wants("a number from 1 to 1000000", number_in(1..=1_000_000_usize)))]
    pub(in crate::cli) rpc_calls_of_one: usize,
    /// MiB that large calls (uploads) may take together, but for one; further ones wait
    #[arg(long, env = "BACKEND_RPC_MEMORY", value_name = "MIB", default_value = "1024")]
    #[arg(value_parser = wants("MiB such as 1024", values::mebibytes))]
    pub(in crate::cli) rpc_memory: Memory,
}
