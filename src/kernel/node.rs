//! What all kernels share: the operator's decisions, and handles of the other rooms.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::KernelError;
use super::folders::{FolderChecks, FolderRoot};
use super::hardening::Hardening;
use super::labels::Owner;
use super::last_statistics::LastStatistics;
use super::looks::Looks;
use super::network::KernelNetwork;
use super::notes::Notes;
use super::wants::Wants;
use crate::cluster::ManagerSettings;
use crate::conditions::Conditions;
use crate::docker::Docker;
use crate::events::Events;
use crate::images::ImagesHandle;
use crate::patience::Backoff;
use crate::resources::Resources;
use crate::runner::Held;
use crate::scratch::{OutputStore, ScratchRoot};
use crate::stats::{Collector, Target};
use crate::wire::sample::Sample;

/// How long a create may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateDeadline {
    /// As long as whoever asks waits for it.
    AsAsked,
    /// So long, whoever asks.
    After(Duration),
    /// Without limit.
    Never,
}

impl CreateDeadline {
    /// For an asker who waits so long; `None` for no limit.
    pub(super) fn of(self, wait: Duration) -> Option<Duration> {
        match self {
            Self::AsAsked => Some(wait),
            Self::After(limit) => Some(limit),
            Self::Never => None,
        }
    }
}

/// What the operator decides about kernels.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)] // switches
pub struct KernelsConfig {
    /// How long a create may take, from the receipt of its request.
    pub create_deadline: CreateDeadline,
    /// Kernels that are made or undone at a time; further ones wait for a while.
    pub creates: usize,
    /// Whether the images' limit of one execution ends kernels (section 12, item 27).
    pub enforce_exec_timeout: bool,
    /// Runner code to mount over the images' own.
    pub debug_kernel: Option<PathBuf>,
    /// The most processes and threads in a kernel; `None` for no limit.
    pub pids_limit: Option<i64>,
    /// Whether kernels are kept from all that their images can do without; an image's label says otherwise for its own.
    pub hardening: bool,
    /// As which user kernels run, where nothing stands against it.
    pub uid: u32,
    /// Whether the Python agent's containers are taken over.
    pub adopt: bool,
    /// Whether scratch directories that are nobody's are removed.
    pub sweep_scratch: bool,
    /// The time between two comparisons with Docker's list.
    pub reconcile_every: Duration,
    /// How long the file system of the scratch root may be mounted after the agent's start.
    pub files_wait: Duration,
}

/// What all kernels share: handles of the other rooms.
pub struct Node {
    /// What the operator decided.
    pub config: KernelsConfig,
    /// After how long without use a kernel is ended, zero for never; `None` for what the cluster says. The operator may change it
    /// at any time.
    pub idle_timeout: watch::Receiver<Option<Duration>>,
    /// The host that the manager connects to for terminals; part of the answers.
    pub kernel_host: String,
    /// Whose kernels these are.
    pub owner: Owner,
    /// The engine.
    pub docker: Docker,
    /// What it can keep kernels from.
    pub hardening: Hardening,
    /// The user that the agent runs as.
    pub uid: u32,
    /// Which of its networks kernels are connected to.
    pub network: KernelNetwork,
    /// The kernel images.
    pub images: ImagesHandle,
    /// Cores and GPUs.
    pub resources: Resources,
    /// The scratch directories.
    pub scratch: ScratchRoot,
    /// Where output files go.
    pub outputs: OutputStore,
    /// The statistics' source.
    pub collector: Arc<Collector>,
    /// Where the last statistics of kernels go.
    pub last_statistics: LastStatistics,
    /// The queue to the manager.
    pub events: Events,
    /// The manager's settings, for where virtual folders are mounted.
    pub settings: watch::Receiver<Option<ManagerSettings>>,
    /// What is remembered on disk.
    pub notes: Notes,
    /// Looks at kernels' files.
    pub looks: Looks,
    /// Look-ups of virtual folders.
    pub folder_checks: FolderChecks,
    /// When containers were last out of memory.
    pub wants: Wants,
    /// What the output of all runs takes in memory.
    pub held: Held,
    /// Every task of this room, so that a stop can wait for them.
    pub tracker: TaskTracker,
    /// Cancelled when the agent stops and its kernels live on.
    pub detach: CancellationToken,
    /// How the agent's needs are met.
    pub conditions: watch::Receiver<Conditions>,
}

/// After how long without use a kernel is ended where neither the operator nor the cluster says.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

impl Node {
    /// After how long without use a kernel is ended, as of now; `None` for never.
    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        let of_cluster = || self.settings.borrow().as_ref().and_then(|settings| settings.idle_timeout);
        let timeout = self.idle_timeout.borrow().or_else(of_cluster).unwrap_or(IDLE_TIMEOUT);
        (!timeout.is_zero()).then_some(timeout)
    }

    /// Where virtual folders are on this machine.
    pub(super) fn folder_root(&self) -> FolderRoot {
        self.settings.borrow().as_ref().map_or_else(
            || FolderRoot { mount: PathBuf::from("/mnt"), prefix: PathBuf::new() },
            |s| FolderRoot { mount: s.volume_mount.clone(), prefix: s.folder_prefix.clone() },
        )
    }

    /// Why no kernel is made at present.
    pub(super) fn refusal(&self) -> Option<KernelError> {
        self.conditions.borrow().refusal().map(|reason| KernelError::NoNewKernels(reason.to_owned()))
    }

    /// A note that could not be written.
    pub(super) fn not_noted(&self, source: std::io::Error) -> KernelError {
        self.scratch.doubt();
        KernelError::Note { path: self.scratch.agent_dir().display().to_string(), source }
    }

    /// A sample of this moment; of a container that is dead already, the last one that was taken.
    pub(super) async fn last_sample(&self, target: &Target) -> Option<Sample> {
        let fresh = tokio::time::timeout(Duration::from_secs(1), self.collector.collect_one(target)).await;
        match fresh {
            Ok(Ok(sample)) => Some(sample),
            Ok(Err(_)) | Err(_) => self.collector.last_seen(target.kernel),
        }
    }
}

/// The pauses between attempts at something that must succeed in the end.
pub(super) const RETRIES: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
