//! What an operator may type: every flag with its environment variable, its default, and how its text is read. The
//! library reads the environment; `settings` reports every bad value at once.

// The doc comments of fields and variants are the help texts, which a terminal shows as they are.
#![allow(clippy::doc_markdown)]

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Command, Subcommand};
use url::Url;

use super::access::AccessOpts;
use super::client_options::{
    AttachArgs, Call, CompleteArgs, CompletionsArgs, CreateArgs, DrainArgs, EventsArgs, ExecArgs, KernelArgs,
    LocalArgs, LogsArgs, ManArgs, PingArgs, ResetArgs, RestartArgs, TopArgs, UploadArgs,
};
use super::dev::DevArgs;
use super::paths;
use super::values::{self, duration_in, number_in, wants};
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
pub(super) const FILE: &str = "config";

/// The file of settings when nobody names one.
pub(super) const DEFAULT_FILE: &str = "/etc/backendai-agent/agent.toml";

/// Stands for the agent's own network.
pub(super) const OWN_NETWORK: &str = "own";

const EXAMPLES: &str = "\
Examples:
  backendai-agent check --etcd-addr 10.0.0.5:2379
      Look whether everything that the agent needs is there, then end.
  backendai-agent --etcd-addr 10.0.0.5:2379,10.0.0.6:2379 --scratch-root /data/scratches
      Run the agent in the foreground; SIGTERM or ^C ends it, kernels stay.
  BACKEND_DEBUG=yes backendai-agent --log-file /var/log/backendai/agent.log --metrics-addr 127.0.0.1:9100
      Say more, keep JSON lines, offer /metrics, /healthz and /readyz.
  backendai-agent create --lang python:3.6-debian --mem 512
  backendai-agent exec KERNEL 'print(1 + 1)'
      Try an agent on this machine without a manager.

A flag beats its environment variable, which beats the file of settings, which beats the default; an empty variable
counts as not set. `backendai-agent config` shows what came of it, and from where.
Times are seconds (90, 0.5) or have a unit: 250ms, 90s, 10m, 12h, 7d. Switches are set by 1, true, yes or on.
Keys are better set in the environment: ps shows the flags of every process.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 no agent there or no answer; exec and attach: the code's own, or
130 where ^C left a run that goes on; 141 where whoever read the output has gone.";

const ABOUT: &str = "Runs the kernels (Docker containers) of a Backend.AI cluster on this machine.";
const LONG_ABOUT: &str = "Without a command it runs the agent until SIGTERM or SIGINT.";

/// The command line that `args`, the program's name first, are to be read by. A command comes first or not at all,
/// and with one the agent's settings are that command's own, if it has any.
pub(super) fn command(args: &[OsString]) -> Command {
    let with_commands = Action::augment_subcommands(clap::Command::new("backendai-agent"));
    let is_command = args.get(1).is_some_and(|first| with_commands.find_subcommand(first).is_some());
    let command = if is_command { with_commands } else { AgentOpts::augment_args(with_commands) };
    command
        .version(env!("BACKENDAI_VERSION"))
        .about(ABOUT)
        .long_about(format!("{ABOUT}\n\n{LONG_ABOUT}"))
        .after_help(EXAMPLES)
        .max_term_width(110)
        .args_conflicts_with_subcommands(true)
        .allow_negative_numbers(true)
}

/// Whether `args` are to be read with the agent's settings.
pub(super) fn runs_agent(args: &[OsString]) -> bool {
    let with_commands = Action::augment_subcommands(clap::Command::new("backendai-agent"));
    match args.get(1).and_then(|first| with_commands.find_subcommand(first)) {
        Some(command) => ["run", "check"].contains(&command.get_name()),
        None => true,
    }
}

/// The environment variables that the agent's settings read.
pub(super) fn variables() -> Vec<String> {
    let command = AgentOpts::augment_args(clap::Command::new("backendai-agent"));
    command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned())).collect()
}

/// Whether the environment sets the agent's option of this name.
pub(super) fn is_set(option: &str) -> bool {
    let command = AgentOpts::augment_args(clap::Command::new("backendai-agent"));
    let found = command.get_arguments().find(|arg| arg.get_long() == Some(option));
    let variable = found.and_then(|arg| arg.get_env().and_then(std::env::var_os));
    variable.is_some_and(|value| !value.is_empty())
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Run the agent (also without this word)
    #[command(allow_negative_numbers = true)]
    Run(Box<AgentOpts>),
    /// Look whether everything that the agent needs is there and set up well; ends with 1 where something must be mended
    #[command(allow_negative_numbers = true)]
    Check(Box<CheckArgs>),
    /// Try an agent with nothing but Docker: etcd, Redis and the manager's ear come along, on this machine only
    Dev(DevArgs),
    /// Show every setting as it would be used, and where it comes from; secrets stay hidden
    #[command(allow_negative_numbers = true)]
    Config(Box<ConfigArgs>),
    /// Ask an agent whether it is there
    Ping(Call<PingArgs>),
    /// Create a kernel
    Create(Call<CreateArgs>),
    /// Run code in a kernel, show its output, and end with its exit code
    Exec(Call<ExecArgs>),
    /// Follow a run that goes on, as exec does: after ^C, a lost connection or from elsewhere
    Attach(Call<AttachArgs>),
    /// Ask a kernel for completions
    Complete(Call<CompleteArgs>),
    /// Interrupt what a kernel is running
    Interrupt(Call<KernelArgs>),
    /// Put a file into a kernel's working directory
    Upload(Call<UploadArgs>),
    /// Show the log of a kernel's container
    Logs(Call<LogsArgs>),
    /// Replace a kernel's container and keep its files
    Restart(Call<RestartArgs>),
    /// End a kernel and show its last statistics
    Destroy(Call<KernelArgs>),
    /// End all kernels of an agent
    Reset(Call<ResetArgs>),
    /// Show how the agent of this machine does: its needs, its node, its last warnings
    Status(LocalArgs),
    /// List its kernels
    Ps(LocalArgs),
    /// List its kernels again and again, with what they use
    Top(TopArgs),
    /// Offer no slots and make no kernels any more, also after a restart, until resume
    Drain(DrainArgs),
    /// End a drain
    Resume(LocalArgs),
    /// Show what it tells its manager, or with --bind listen in the manager's place
    Events(EventsArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Write the man pages into a directory
    Man(ManArgs),
}

/// `check`.
#[derive(Debug, Clone, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) agent: AgentOpts,
    #[command(flatten)]
    pub(super) form: CheckForm,
}

/// How `check` tells what it found.
#[derive(Debug, Clone, Copy, Args)]
pub struct CheckForm {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// End with 1 also where something may only surprise
    #[arg(long)]
    pub(super) strict: bool,
}

/// `config`.
#[derive(Debug, Clone, Args)]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    pub(super) agent: AgentOpts,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The agent's settings.
#[derive(Debug, Clone, Args)]
pub(super) struct AgentOpts {
    #[command(flatten)]
    pub(super) file: FileOpts,
    #[command(flatten)]
    pub(super) cluster: ClusterOpts,
    #[command(flatten)]
    pub(super) access: AccessOpts,
    #[command(flatten)]
    pub(super) kernels: KernelOpts,
    #[command(flatten)]
    pub(super) resources: ResourceOpts,
    #[command(flatten)]
    pub(super) s3: S3Opts,
    #[command(flatten)]
    pub(super) observing: ObservingOpts,
    #[command(flatten)]
    pub(super) tuning: TuningOpts,
}

/// Where settings stand that neither flags nor the environment have.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Settings from a file")]
pub(super) struct FileOpts {
    /// A file of settings in TOML; its keys are the flags without their dashes. The default need not be there
    #[arg(long = FILE, env = "BACKEND_CONFIG", value_name = "FILE")]
    #[arg(default_value = DEFAULT_FILE)]
    pub(super) config: PathBuf,
}

/// Finding the manager, and being found.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ClusterOpts {
    /// The cluster that this agent belongs to
    #[arg(long, env = "BACKEND_NAMESPACE", value_name = "NAME", default_value = "local")]
    #[arg(value_parser = wants("a name without / and white space", values::name))]
    pub(super) namespace: String,
    /// The etcd cluster, members separated by commas
    #[arg(long, env = "BACKEND_ETCD_ADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:2379")]
    #[arg(value_delimiter = ',', value_parser = wants("HOST:PORT of etcd, several with commas between them", values::parse::<HostPort>))]
    pub(super) etcd_addr: Vec<HostPort>,
    /// The host that the manager reaches this agent at [default: this machine's address]
    #[arg(long, env = "BACKEND_AGENT_HOST_OVERRIDE", value_name = "HOST")]
    #[arg(value_parser = wants("a host name or an IPv4 address, without a port: the agent listens on IPv4 only", values::ipv4_host))]
    pub(super) agent_host_override: Option<String>,
    /// The host that kernels are reached at [default: the agent's]
    #[arg(long, env = "BACKEND_KERNEL_HOST_OVERRIDE", value_name = "HOST")]
    #[arg(value_parser = wants("a host name or an address, without a port", address::host))]
    pub(super) kernel_host_override: Option<String>,
    /// The port to listen on for the manager
    #[arg(long, env = "BACKEND_AGENT_PORT", value_name = "PORT", default_value = "6001")]
    #[arg(value_parser = wants("a port from 1 to 65535", number_in(1..=u16::MAX)))]
    pub(super) agent_port: u16,
    /// The address of this machine to listen on for the manager; 0.0.0.0 for all
    #[arg(long, env = "BACKEND_RPC_LISTEN", value_name = "IP", default_value = "0.0.0.0")]
    #[arg(value_parser = wants("an IP address of this machine, or 0.0.0.0 for all", values::parse::<IpAddr>))]
    pub(super) rpc_listen: IpAddr,
    /// Networks from which calls are taken beside the manager's host as etcd names it, separated by commas
    #[arg(long, env = "BACKEND_TRUSTED_PEERS", value_name = "NETWORK")]
    #[arg(value_delimiter = ',', value_parser = wants("a network such as 10.0.0.0/24 or an address, several with commas between them", values::parse::<Network>))]
    pub(super) trusted_peers: Vec<Network>,
    /// This agent's name in the cluster [default: i-HOSTNAME or the cloud's id]
    #[arg(long, env = "BACKEND_INSTANCE_ID", value_name = "ID")]
    #[arg(value_parser = crate::identity::check_instance_id)]
    pub(super) instance_id: Option<InstanceId>,
    /// The region to report [default: the cloud's, or local/unknown]
    #[arg(long, env = "BACKEND_REGION", value_name = "REGION")]
    #[arg(value_parser = wants("a text on one line", values::text))]
    pub(super) region: Option<String>,
}

/// What kernels get, and when they end.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kernels")]
#[allow(clippy::struct_excessive_bools)] // switches
pub(super) struct KernelOpts {
    /// Holds a directory for each kernel; must exist
    #[arg(long, env = "BACKEND_SCRATCH_ROOT", value_name = "DIR", default_value = paths::DEFAULT_ROOT)]
    #[arg(value_parser = paths::scratch_root)]
    pub(super) scratch_root: PathBuf,
    /// What must be free below the scratch root and on Docker's disk, for slots to be offered and kernels to be made: a part, MiB, or
    /// the less of both; 0 = any
    #[arg(long, env = "BACKEND_MIN_FREE", value_name = "SIZE", default_value_t = MinFree::default())]
    #[arg(value_parser = wants("a part such as 5%, MiB such as 2048, or the less of both such as 5%,1024; 0 switches it off", values::parse::<MinFree>))]
    pub(super) min_free: MinFree,
    /// The Docker engine, unix:// or tcp://
    #[arg(long, env = "DOCKER_HOST", value_name = "URL", default_value = crate::docker::DEFAULT_HOST)]
    pub(super) docker_host: EngineAddress,
    /// Connect kernels to this Docker network; own is one from which they reach no other kernel and no service of this machine
    #[arg(long, env = "BACKEND_KERNEL_NETWORK", value_name = "NAME", default_value = OWN_NETWORK)]
    #[arg(value_parser = wants("own, or the name of a Docker network such as bridge", values::network))]
    pub(super) kernel_network: String,
    /// End a kernel that was unused for so long; 0 = never [default: what the cluster says, else 600]
    #[arg(long, env = "BACKEND_IDLE_TIMEOUT", value_name = "TIME")]
    #[arg(value_parser = wants("a time such as 600, 10m or 1h; 0 switches it off", values::duration_or_off))]
    pub(super) idle_timeout: Option<Duration>,
    /// Kernels that are made or undone at a time; more wait for half of the next and are then refused
    #[arg(long, env = "BACKEND_CREATES", value_name = "N", default_value = "8")]
    // What dockerd makes within the manager's 3 s on an ordinary machine; more at a time make all of them late.
    #[arg(value_parser = wants("a number from 1 to 1000", number_in(1..=1000_usize)))]
    pub(super) creates: usize,
    /// Roll a create back that takes longer; 0 = never [default: as long as its manager waits, 3 or 28 s]
    #[arg(long, env = "BACKEND_CREATE_DEADLINE", value_name = "TIME")]
    #[arg(value_parser = wants("a time such as 3 or 500ms; 0 switches it off", values::duration_or_off))]
    pub(super) create_deadline: Option<Duration>,
    /// The most processes and threads in a kernel; 0 = any
    #[arg(long, env = "BACKEND_KERNEL_PIDS_LIMIT", value_name = "N", default_value = "16384")]
    #[arg(value_parser = wants("a number such as 16384; 0 sets no limit", number_in(0..=i64::MAX)))]
    pub(super) kernel_pids_limit: i64,
    /// on, or off for images that need what containers had before: any system call, Docker's capabilities, root
    #[arg(long, env = "BACKEND_CONTAINER_HARDENING", value_name = "WHETHER", default_value = "on")]
    #[arg(value_parser = wants("on or off", values::on_off))]
    #[arg(action = clap::ArgAction::Set)]
    pub(super) container_hardening: bool,
    /// As which user kernels run, but those with virtual folders that belong to somebody else
    #[arg(long, env = "BACKEND_KERNEL_UID", value_name = "UID", default_value = "9001")]
    #[arg(value_parser = wants("a user id from 0 to 2147483647", number_in(0..=2_147_483_647_u32)))]
    pub(super) kernel_uid: u32,
    /// End runs after the time that their image allows (label io.sorna.timeout)
    #[arg(long, env = "BACKEND_ENFORCE_EXEC_TIMEOUT", value_parser = BoolishValueParser::new())]
    pub(super) enforce_exec_timeout: bool,
    /// Take over running kernels of the Python agent
    #[arg(long, env = "BACKEND_ADOPT", value_parser = BoolishValueParser::new())]
    pub(super) adopt: bool,
    /// Remove directories below the scratch root, older than a day, that have no note and no container
    #[arg(long, env = "BACKEND_SWEEP_SCRATCH", value_parser = BoolishValueParser::new())]
    pub(super) sweep_scratch: bool,
    /// End all kernels when the agent ends; they stay otherwise
    #[arg(long, env = "BACKEND_STOP_KERNELS_ON_EXIT", value_parser = BoolishValueParser::new())]
    pub(super) stop_kernels_on_exit: bool,
    /// Pull images that the cluster's catalogue wants newer
    #[arg(long, env = "BACKEND_AUTO_UPDATE_IMAGES", value_parser = BoolishValueParser::new())]
    pub(super) auto_update_images: bool,
    /// The registry to pull them from, HOST[:PORT][/PATH] [default: Docker Hub]
    #[arg(long, env = "BACKEND_DOCKER_REGISTRY", value_name = "HOST")]
    #[arg(value_parser = wants("a registry such as registry.example.com:5000, without https://", values::registry))]
    pub(super) docker_registry: Option<String>,
    /// A config.json as docker login writes it, for the registry's password
    #[arg(long, env = "BACKEND_DOCKER_CONFIG", value_name = "FILE")]
    pub(super) docker_config: Option<PathBuf>,
    /// Remove superseded images when no kernel uses them any more
    #[arg(long, env = "BACKEND_REMOVE_OLD_IMAGES", value_parser = BoolishValueParser::new())]
    pub(super) remove_old_images: bool,
    /// For development: a kernel runner's source, ending in ai/backend/kernel, to use in all containers
    #[arg(long, env = "DEBUG_KERNEL", value_name = "DIR", value_parser = paths::debug_kernel)]
    pub(super) debug_kernel: Option<PathBuf>,
    /// Accepted for old command lines; has no effect
    #[arg(long, env = "BACKEND_KERNEL_ALIASES", value_name = "FILE")]
    pub(super) kernel_aliases: Option<PathBuf>,
}

/// What kernels may have of this machine (PROTOCOL section 9).
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Resources")]
pub(super) struct ResourceOpts {
    /// Cores that no kernel gets and the manager is not told of: a list as in 0,8-9 or a mask as in 0x301
    #[arg(long, env = "BACKEND_RESERVED_CPUS", value_name = "LIST")]
    #[arg(value_parser = wants("a list of cores such as 0,8-9 or a mask such as 0x301", values::parse::<CoreList>))]
    pub(super) reserved_cpus: Option<CoreList>,
    /// The only cores that kernels get, written likewise [default: all that the agent may use]
    #[arg(long, env = "BACKEND_LIMIT_CPUS", value_name = "LIST")]
    #[arg(value_parser = wants("a list of cores such as 0,8-9 or a mask such as 0x301", values::parse::<CoreList>))]
    pub(super) limit_cpus: Option<CoreList>,
    /// The only GPUs that kernels get: a list of numbers or names (GPU-…), or a mask [default: all]
    #[arg(long, env = "BACKEND_LIMIT_GPUS", value_name = "LIST")]
    #[arg(value_parser = wants("a list of GPUs such as 0,2-3 or GPU-…, or a mask such as 0xd", values::parse::<GpuList>))]
    pub(super) limit_gpus: Option<GpuList>,
    /// Memory in MiB that the manager is not told of
    #[arg(long, env = "BACKEND_RESERVED_MEMORY", value_name = "MIB", default_value = "0")]
    #[arg(value_parser = wants("MiB such as 2048", values::memory))]
    pub(super) reserved_memory: Memory,
    /// Shared memory (/dev/shm) of a kernel: MiB, or a part of its memory; what is in it counts as the kernel's memory
    #[arg(long, env = "BACKEND_SHM_SIZE", value_name = "SIZE", default_value = "50%")]
    #[arg(value_parser = wants("MiB such as 256, or a part of a kernel's memory such as 50%", values::parse::<ShmSize>))]
    pub(super) shm_size: ShmSize,
}

/// Where output files go (PROTOCOL section 8; section 12, item 31).
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output files (S3)")]
pub(super) struct S3Opts {
    /// The bucket's region
    #[arg(long, env = "AWS_REGION", value_name = "REGION", default_value = "ap-northeast-1")]
    #[arg(value_parser = wants("a region such as ap-northeast-1", values::name))]
    pub(super) s3_region: String,
    /// The bucket that output files are put to
    #[arg(long, env = "AWS_S3_BUCKET", value_name = "NAME", default_value = "codeonweb")]
    #[arg(value_parser = wants("the name of a bucket", values::name))]
    pub(super) s3_bucket: String,
    /// The first part of their keys
    #[arg(long, env = "AWS_S3_BUCKET_PATH", value_name = "PATH", default_value = "bucket")]
    pub(super) s3_prefix: KeyPrefix,
    /// Another server than Amazon's
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL")]
    #[arg(value_parser = wants("an http or https URL without user and query", values::url))]
    pub(super) s3_endpoint: Option<Url>,
    /// private (presigned URLs) or public-read (plain URLs)
    #[arg(long, env = "BACKEND_S3_ACL", value_name = "ACL", default_value = "private")]
    #[arg(value_parser = wants("private or public-read", values::acl))]
    pub(super) s3_acl: Acl,
    /// How long presigned URLs work; 7d is the longest
    #[arg(long, env = "BACKEND_S3_URL_EXPIRY", value_name = "TIME", default_value = "7d")]
    #[arg(value_parser = wants("a time from 1s to 7d, the longest that S3 allows", duration_in(SECOND..=7 * DAY)))]
    pub(super) s3_url_expiry: Duration,
    /// With the next, upload output files; without, their links are #dummy-upload
    #[arg(long, env = "AWS_ACCESS_KEY_ID", value_name = "KEY", hide_env_values = true)]
    #[arg(value_parser = wants("a text on one line", values::secret))]
    pub(super) aws_access_key_id: Option<Secret>,
    /// With the former
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", value_name = "KEY", hide_env_values = true)]
    #[arg(value_parser = wants("a text on one line", values::secret))]
    pub(super) aws_secret_access_key: Option<Secret>,
    /// Comes with temporary keys
    #[arg(long, env = "AWS_SESSION_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    #[arg(value_parser = wants("a text on one line", values::secret))]
    pub(super) aws_session_token: Option<Secret>,
}

/// What an operator sees of the agent.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Observing")]
pub(super) struct ObservingOpts {
    /// Log the agent's details, too
    #[arg(long, env = "BACKEND_DEBUG", value_parser = BoolishValueParser::new())]
    pub(super) debug: bool,
    /// Log those, and what its libraries do
    #[arg(short, long, env = "BACKEND_VERBOSE", value_parser = BoolishValueParser::new())]
    pub(super) verbose: bool,
    /// Levels by target instead, such as warn,backendai_agent::kernel=trace
    #[arg(long, env = "RUST_LOG", value_name = "FILTER")]
    pub(super) log_filter: Option<LogFilter>,
    /// The form of lines on stderr: text, json, or journal (priorities, no time) [default: journal under systemd, else text]
    #[arg(long, env = "BACKEND_LOG_FORMAT", value_name = "FORMAT")]
    pub(super) log_format: Option<LogFormat>,
    /// Write JSON lines to this file, too; old ones get .1, .2 …
    #[arg(long, env = "BACKEND_LOG_FILE", value_name = "FILE", value_parser = paths::log_file)]
    pub(super) log_file: Option<PathBuf>,
    /// How many old log files stay; 0 never starts a new file
    #[arg(long, env = "BACKEND_LOG_FILE_COUNT", value_name = "N", default_value = "10")]
    // More would make each rotation slow.
    #[arg(value_parser = wants("a number of files from 0 to 1000; 0 never starts a new file", number_in(0..=1000_u32)))]
    pub(super) log_file_count: u32,
    /// Size in MiB at which a new log file is begun; 0 never starts a new file
    #[arg(long, env = "BACKEND_LOG_FILE_SIZE", value_name = "MIB", default_value = "10.0")]
    #[arg(value_parser = wants("MiB such as 10.0; 0 never starts a new file", values::mebibytes))]
    pub(super) log_file_size: Memory,
    /// Serve a page, /status, /metrics, /healthz and /readyz here
    #[arg(long, env = "BACKEND_METRICS_ADDR", value_name = "IP:PORT")]
    #[arg(value_parser = wants("an IP address and a port, such as 127.0.0.1:9100", values::parse::<SocketAddr>))]
    pub(super) metrics_addr: Option<SocketAddr>,
    /// The local socket that status, ps, top, events and drain use; none switches it off [default: one in /run/backendai-agent]
    #[arg(long, env = "BACKEND_SOCKET", value_name = "PATH", value_parser = values::socket)]
    pub(super) socket: Option<SocketPlace>,
    /// The group that may use it beside root; where there is none of the name, nobody else may
    #[arg(long, env = "BACKEND_SOCKET_GROUP", value_name = "NAME", default_value = "backendai-agent")]
    #[arg(value_parser = wants("the name of a group", values::name))]
    pub(super) socket_group: String,
    /// Report errors to this Sentry DSN
    #[arg(long, env = "RAVEN_URI", value_name = "DSN", hide_env_values = true)]
    pub(super) raven_uri: Option<SentryDsn>,
    /// With the next, send gauges to the Datadog agent at 127.0.0.1:8125 (UDP)
    #[arg(long, env = "DATADOG_API_KEY", value_name = "KEY", hide_env_values = true)]
    #[arg(value_parser = wants("a text on one line", values::secret))]
    pub(super) datadog_api_key: Option<Secret>,
    /// With the former
    #[arg(long, env = "DATADOG_APP_KEY", value_name = "KEY", hide_env_values = true)]
    #[arg(value_parser = wants("a text on one line", values::secret))]
    pub(super) datadog_app_key: Option<Secret>,
}

/// The agent's clockwork.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tuning (not needed in ordinary life)")]
pub(super) struct TuningOpts {
    /// From one heartbeat to the next
    #[arg(long, env = "BACKEND_HEARTBEAT_INTERVAL", value_name = "TIME", default_value = "3")]
    #[arg(value_parser = wants("a time from 100ms to 4s: the manager gives up after 5 s", duration_in(TENTH..=4 * SECOND)))]
    pub(super) heartbeat_interval: Duration,
    /// From one round of statistics to the next
    #[arg(long, env = "BACKEND_STATS_INTERVAL", value_name = "TIME", default_value = "5")]
    #[arg(value_parser = wants("a time from 100ms to 20s: statistics expire after 30 s", duration_in(TENTH..=20 * SECOND)))]
    pub(super) stats_interval: Duration,
    /// From one comparison with Docker's containers to the next
    #[arg(long, env = "BACKEND_RECONCILE_INTERVAL", value_name = "TIME", default_value = "10")]
    #[arg(value_parser = wants("a time from 100ms to 1h", duration_in(TENTH..=3600 * SECOND)))]
    pub(super) reconcile_interval: Duration,
    /// Calls of the manager that are carried out at once; further ones wait
    #[arg(long, env = "BACKEND_RPC_CALLS", value_name = "N", default_value = "4096")]
    #[arg(value_parser = wants("a number from 1 to 1000000", number_in(1..=1_000_000_usize)))]
    pub(super) rpc_calls: usize,
    /// The same for one connection
    #[arg(long, env = "BACKEND_RPC_CALLS_OF_ONE", value_name = "N", default_value = "1024")]
    #[arg(value_parser = wants("a number from 1 to 1000000", number_in(1..=1_000_000_usize)))]
    pub(super) rpc_calls_of_one: usize,
    /// MiB that large calls (uploads) may take together, but for one; further ones wait
    #[arg(long, env = "BACKEND_RPC_MEMORY", value_name = "MIB", default_value = "1024")]
    #[arg(value_parser = wants("MiB such as 1024", values::mebibytes))]
    pub(super) rpc_memory: Memory,
}
