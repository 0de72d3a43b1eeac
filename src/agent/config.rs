//! Everything that can be set, typed and checked. Pure data: the command line makes it, the composition root
//! hands each part of the agent its share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::HostPort;
use crate::ids::InstanceId;
use crate::scratch::Acl;
use crate::secret::Secret;
use crate::telemetry::TelemetryConfig;

/// What the agent needs to know before it starts. Paths are absolute; durations are longer than zero.
#[derive(Debug, Clone)]
// Each is a switch of its own on the command line; any combination makes sense.
#[allow(clippy::struct_excessive_bools)]
pub struct Config {
    /// The part of etcd that belongs to our cluster (PROTOCOL section 1); no `/`, no white space.
    pub namespace: String,
    /// Members of the etcd cluster; at least one.
    pub etcd: Vec<HostPort>,
    /// Our name in etcd and in events, where it isn't made from the machine's own.
    pub instance_id: Option<InstanceId>,
    /// Reported in heartbeats, where it isn't the cloud's.
    pub region: Option<String>,
    /// The host that the manager reaches this agent at, where it isn't the machine's own address.
    pub agent_host_override: Option<String>,
    /// The host that the manager and users reach kernels at, where it isn't the agent's.
    pub kernel_host_override: Option<String>,
    /// The port that the manager calls.
    pub agent_port: u16,
    /// The Docker engine: `unix://{path}` or `tcp://{host}:{port}`.
    pub docker_host: String,
    /// Holds a directory for each kernel.
    pub scratch_root: PathBuf,
    /// A kernel that was unused for so long is ended; `None` lets kernels idle.
    pub idle_timeout: Option<Duration>,
    /// A create that takes longer is rolled back (PROTOCOL section 12, item 7); `None` lets it take its time.
    pub create_deadline: Option<Duration>,
    /// Ends a run after its image's time limit (PROTOCOL section 12, item 27).
    pub enforce_exec_timeout: bool,
    /// The most processes and threads in a kernel; `None` sets no limit. Without one, a kernel's code can take all that the
    /// machine has, and then not even its end can be brought about.
    pub kernel_pids_limit: Option<i64>,
    /// Takes over unlabelled `kernel.*` containers, made by the Python agent (PROTOCOL section 12, item 20).
    pub adopt: bool,
    /// Ends all kernels at shutdown; otherwise they stay for the next agent (PROTOCOL section 12, item 37).
    pub stop_kernels_on_exit: bool,
    /// Pulls images that the catalogue wants newer (PROTOCOL section 12, item 33).
    pub auto_update_images: bool,
    /// A kernel runner's source, ending in `ai/backend/kernel`, that replaces the one in the images.
    pub debug_kernel: Option<PathBuf>,
    /// The reference takes this option and never reads it, and so does this agent.
    pub kernel_aliases: Option<PathBuf>,
    /// Keys of a Datadog account; with both of them figures go to the Datadog agent on this machine.
    pub datadog: Datadog,
    /// Where output files go.
    pub s3: S3,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None` serves them not at all.
    pub metrics_addr: Option<SocketAddr>,
    /// Log lines, error reports, figures.
    pub telemetry: TelemetryConfig,
    /// From one heartbeat to the next; the manager gives up after 5 s of silence.
    pub heartbeat_interval: Duration,
    /// From one round of statistics to the next; they expire in Redis after 30 s.
    pub stats_interval: Duration,
    /// From one comparison with Docker's list of containers to the next.
    pub reconcile_interval: Duration,
}

impl Config {
    /// What is not wrong but will surprise, a line each; to be logged once the agent starts.
    #[must_use]
    pub fn warnings(&self) -> Vec<&'static str> {
        let Datadog { api_key, app_key } = &self.datadog;
        let s3_keys = (self.s3.access_key_id.is_some(), self.s3.secret_access_key.is_some());
        let warnings = [
            (self.kernel_aliases.is_some(), "--kernel-aliases has no effect, as it never had any"),
            (
                api_key.is_some() != app_key.is_some(),
                "figures go to Datadog only when both --datadog-api-key and --datadog-app-key are given",
            ),
            (
                s3_keys.0 != s3_keys.1,
                "output files are uploaded only when both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set",
            ),
            (
                self.debug_kernel.is_some(),
                "--debug-kernel replaces the kernel runner in every container: for development only",
            ),
        ];
        warnings.into_iter().filter_map(|(applies, text)| applies.then_some(text)).collect()
    }
}

/// Keys of a Datadog account. The local Datadog agent needs neither; both together switch the figures on.
#[derive(Debug, Clone, Default)]
pub struct Datadog {
    /// `--datadog-api-key`.
    pub api_key: Option<Secret>,
    /// `--datadog-app-key`.
    pub app_key: Option<Secret>,
}

/// Where output files go, and how they are offered (PROTOCOL section 8; section 12, item 31).
#[derive(Debug, Clone)]
pub struct S3 {
    /// Of the bucket.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// The first part of every key, without `/` at either end; may be empty.
    pub prefix: String,
    /// Another S3 server than Amazon's: an `http` or `https` URL.
    pub endpoint: Option<String>,
    /// Who may fetch the files.
    pub acl: Acl,
    /// How long a presigned URL works; 7 days at most, says S3.
    pub url_expiry: Duration,
    /// Without this or the next, nothing is uploaded.
    pub access_key_id: Option<Secret>,
    /// Without this or the former, nothing is uploaded.
    pub secret_access_key: Option<Secret>,
    /// Comes with temporary keys.
    pub session_token: Option<Secret>,
}
