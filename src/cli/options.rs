//! What an operator may type. Values that can be bad stay text here, so that `config` can report every bad one at
//! once; environment variables and defaults are told in the help and applied there too.

// The doc comments of fields and variants are the help texts, which a terminal shows as they are.
#![allow(clippy::doc_markdown)]

use clap::{Args, Parser, Subcommand};

use super::client_options::{
    Call, CompleteArgs, CreateArgs, EventsArgs, ExecArgs, KernelArgs, LogsArgs, PingArgs, ResetArgs,
    RestartArgs, UploadArgs,
};

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

A flag beats its environment variable, which beats the default; an empty variable counts as not set.
Times are seconds (90, 0.5) or have a unit: 250ms, 90s, 10m, 12h, 7d. Switches are set by 1, true, yes or on.
Keys for S3 come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN only.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 no answer from the agent; exec: the code's own.";

/// Runs the kernels (Docker containers) of a Backend.AI cluster on this machine.
///
/// Without a command it runs the agent until SIGTERM or SIGINT.
#[derive(Debug, Parser)]
#[command(name = "backendai-agent", version, after_help = EXAMPLES, max_term_width = 110)]
#[command(args_conflicts_with_subcommands = true, allow_negative_numbers = true)]
pub struct Opts {
    /// What to do; to run the agent when nothing is said.
    #[command(subcommand)]
    pub action: Option<Action>,
    /// The agent's settings, for running it.
    #[command(flatten)]
    pub agent: AgentOpts,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Run the agent (also without this word)
    #[command(allow_negative_numbers = true)]
    Run(Box<AgentOpts>),
    /// Check the settings and reach everything that the agent needs, then end
    #[command(allow_negative_numbers = true)]
    Check(Box<AgentOpts>),
    /// Ask an agent whether it is there
    Ping(Call<PingArgs>),
    /// Create a kernel
    Create(Call<CreateArgs>),
    /// Run code in a kernel, show its output, and end with its exit code
    Exec(Call<ExecArgs>),
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
    /// Listen for the events that an agent sends, in the manager's place
    Events(EventsArgs),
}

/// The agent's settings as they were typed.
#[derive(Debug, Clone, Default, Args)]
#[allow(clippy::struct_excessive_bools)] // switches
pub struct AgentOpts {
    /// The cluster that this agent belongs to [env: BACKEND_NAMESPACE] [default: local]
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub namespace: Option<String>,
    /// The etcd cluster, members separated by commas [env: BACKEND_ETCD_ADDR] [default: 127.0.0.1:2379]
    #[arg(long, value_name = "HOST:PORT", help_heading = "Cluster")]
    pub etcd_addr: Option<String>,
    /// The host that the manager reaches this agent at [env: BACKEND_AGENT_HOST_OVERRIDE] [default: this machine's address]
    #[arg(long, value_name = "HOST", help_heading = "Cluster")]
    pub agent_host_override: Option<String>,
    /// The host that kernels are reached at [env: BACKEND_KERNEL_HOST_OVERRIDE] [default: the agent's]
    #[arg(long, value_name = "HOST", help_heading = "Cluster")]
    pub kernel_host_override: Option<String>,
    /// The port to listen on for the manager [env: BACKEND_AGENT_PORT] [default: 6001]
    #[arg(long, value_name = "PORT", help_heading = "Cluster")]
    pub agent_port: Option<String>,
    /// This agent's name in the cluster [env: BACKEND_INSTANCE_ID] [default: i-HOSTNAME or the cloud's id]
    #[arg(long, value_name = "ID", help_heading = "Cluster")]
    pub instance_id: Option<String>,
    /// The region to report [env: BACKEND_REGION] [default: the cloud's, or local/unknown]
    #[arg(long, value_name = "REGION", help_heading = "Cluster")]
    pub region: Option<String>,

    /// Holds a directory for each kernel; must exist [env: BACKEND_SCRATCH_ROOT] [default: /var/cache/scratches]
    #[arg(long, value_name = "DIR", help_heading = "Kernels")]
    pub scratch_root: Option<String>,
    /// The Docker engine, unix:// or tcp:// [env: DOCKER_HOST] [default: unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL", help_heading = "Kernels")]
    pub docker_host: Option<String>,
    /// End a kernel that was unused for so long; 0 = never [default: 600]
    #[arg(long, value_name = "TIME", help_heading = "Kernels")]
    pub idle_timeout: Option<String>,
    /// Roll a create back that takes longer; 0 = never [env: BACKEND_CREATE_DEADLINE] [default: 3, the manager's patience]
    #[arg(long, value_name = "TIME", help_heading = "Kernels")]
    pub create_deadline: Option<String>,
    /// The most processes and threads in a kernel; 0 = any [env: BACKEND_KERNEL_PIDS_LIMIT] [default: 16384]
    #[arg(long, value_name = "N", help_heading = "Kernels")]
    pub kernel_pids_limit: Option<String>,
    /// End runs after the time that their image allows (label io.sorna.timeout) [env: BACKEND_ENFORCE_EXEC_TIMEOUT]
    #[arg(long, help_heading = "Kernels")]
    pub enforce_exec_timeout: bool,
    /// Take over running kernels of the Python agent [env: BACKEND_ADOPT]
    #[arg(long, help_heading = "Kernels")]
    pub adopt: bool,
    /// End all kernels when the agent ends; they stay otherwise [env: BACKEND_STOP_KERNELS_ON_EXIT]
    #[arg(long, help_heading = "Kernels")]
    pub stop_kernels_on_exit: bool,
    /// Pull images that the cluster's catalogue wants newer [env: BACKEND_AUTO_UPDATE_IMAGES]
    #[arg(long, help_heading = "Kernels")]
    pub auto_update_images: bool,
    /// For development: a kernel runner's source, ending in ai/backend/kernel, to use in all containers [env: DEBUG_KERNEL]
    #[arg(long, value_name = "DIR", help_heading = "Kernels")]
    pub debug_kernel: Option<String>,
    /// Accepted for old command lines; has no effect
    #[arg(long, value_name = "FILE", help_heading = "Kernels")]
    pub kernel_aliases: Option<String>,

    /// The bucket's region [env: AWS_REGION] [default: ap-northeast-1]
    #[arg(long, value_name = "REGION", help_heading = "Output files (S3)")]
    pub s3_region: Option<String>,
    /// The bucket that output files are put to [env: AWS_S3_BUCKET] [default: codeonweb]
    #[arg(long, value_name = "NAME", help_heading = "Output files (S3)")]
    pub s3_bucket: Option<String>,
    /// The first part of their keys [env: AWS_S3_BUCKET_PATH] [default: bucket]
    #[arg(long, value_name = "PATH", help_heading = "Output files (S3)")]
    pub s3_prefix: Option<String>,
    /// Another server than Amazon's [env: AWS_ENDPOINT_URL]
    #[arg(long, value_name = "URL", help_heading = "Output files (S3)")]
    pub s3_endpoint: Option<String>,
    /// private (presigned URLs) or public-read (plain URLs) [env: BACKEND_S3_ACL] [default: private]
    #[arg(long, value_name = "ACL", help_heading = "Output files (S3)")]
    pub s3_acl: Option<String>,
    /// How long presigned URLs work [env: BACKEND_S3_URL_EXPIRY] [default: 7d, the longest]
    #[arg(long, value_name = "TIME", help_heading = "Output files (S3)")]
    pub s3_url_expiry: Option<String>,

    /// Log the agent's details, too [env: BACKEND_DEBUG]
    #[arg(long, help_heading = "Observing")]
    pub debug: bool,
    /// Log those, and what its libraries do [env: BACKEND_VERBOSE]
    #[arg(short, long, help_heading = "Observing")]
    pub verbose: bool,
    /// Levels by target instead, such as warn,backendai_agent::kernel=trace [env: RUST_LOG]
    #[arg(long, value_name = "FILTER", help_heading = "Observing")]
    pub log_filter: Option<String>,
    /// Write JSON lines to this file, too; old ones get .1, .2 … [env: BACKEND_LOG_FILE]
    #[arg(long, value_name = "FILE", help_heading = "Observing")]
    pub log_file: Option<String>,
    /// How many old log files stay [env: BACKEND_LOG_FILE_COUNT] [default: 10]
    #[arg(long, value_name = "N", help_heading = "Observing")]
    pub log_file_count: Option<String>,
    /// Size in MiB at which a new log file is begun [env: BACKEND_LOG_FILE_SIZE] [default: 10.0]
    #[arg(long, value_name = "MIB", help_heading = "Observing")]
    pub log_file_size: Option<String>,
    /// Serve /metrics, /healthz and /readyz here [env: BACKEND_METRICS_ADDR]
    #[arg(long, value_name = "IP:PORT", help_heading = "Observing")]
    pub metrics_addr: Option<String>,
    /// Report errors to this Sentry DSN; better set in the environment, where ps does not show it [env: RAVEN_URI]
    #[arg(long, value_name = "DSN", help_heading = "Observing")]
    pub raven_uri: Option<String>,
    /// With the next, send gauges to the Datadog agent at 127.0.0.1:8125 (UDP) [env: DATADOG_API_KEY]
    #[arg(long, value_name = "KEY", help_heading = "Observing")]
    pub datadog_api_key: Option<String>,
    /// With the former; both better set in the environment [env: DATADOG_APP_KEY]
    #[arg(long, value_name = "KEY", help_heading = "Observing")]
    pub datadog_app_key: Option<String>,

    /// From one heartbeat to the next [env: BACKEND_HEARTBEAT_INTERVAL] [default: 3]
    #[arg(long, value_name = "TIME", help_heading = "Tuning (not needed in ordinary life)")]
    pub heartbeat_interval: Option<String>,
    /// From one round of statistics to the next [env: BACKEND_STATS_INTERVAL] [default: 5]
    #[arg(long, value_name = "TIME", help_heading = "Tuning (not needed in ordinary life)")]
    pub stats_interval: Option<String>,
    /// From one comparison with Docker's containers to the next [env: BACKEND_RECONCILE_INTERVAL] [default: 10]
    #[arg(long, value_name = "TIME", help_heading = "Tuning (not needed in ordinary life)")]
    pub reconcile_interval: Option<String>,
}
