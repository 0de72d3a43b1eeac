//! What can go wrong with a kernel, sorted by what the asker can do about it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::network::NetworkError;
use crate::docker::DockerError;
use crate::ids::KernelId;
use crate::images::ImagesError;
use crate::resources::ResourceError;
use crate::runner::{AskError, Refusal};
use crate::scratch::{MountError, ScratchError};
use crate::units::Memory;
use crate::wire::event::EndReason;
use crate::wire::lang;

/// A request about a kernel failed. Shared, because several may wait for one create.
pub type Failure = Arc<KernelError>;

/// Why a request about a kernel failed. Each text names the step and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// This agent runs no such kernel.
    #[error("kernel {0} is not running on this agent (it may have ended)")]
    NotRunning(KernelId),
    /// The kernel is being ended, or has just ended.
    #[error("kernel {kernel} is being ended or has just ended ({reason})")]
    Ending {
        /// The kernel.
        kernel: KernelId,
        /// Why.
        reason: EndReason,
    },
    /// The system killed it for want of memory.
    #[error("kernel {kernel} was ended because it used more memory than its limit ({} MiB)", .limit.mib())]
    OutOfMemory {
        /// The kernel.
        kernel: KernelId,
        /// What it may use.
        limit: Memory,
    },
    /// An agent that started found its container odd.
    #[error("kernel {kernel} is left alone, because this agent can't work with its container: {source}")]
    LeftAlone {
        /// The kernel.
        kernel: KernelId,
        /// What is odd.
        #[source]
        source: Box<KernelError>,
    },
    /// The kernel is being made, looked at or restarted for too long.
    #[error("kernel {kernel} was not ready within {} s; it is being made, taken back or restarted", .limit.as_secs())]
    NotReady {
        /// The kernel.
        kernel: KernelId,
        /// How long was waited.
        limit: Duration,
    },
    /// The agent has just started and Docker has not said yet what runs.
    #[error(
        "this agent has not heard from Docker yet which kernels run; try again, and check dockerd if this stays"
    )]
    NotRecovered,
    /// The machine can't have new kernels at present.
    #[error("this agent makes no kernels at present: {0}")]
    NoNewKernels(String),
    /// The image is not on this machine, and is not pulled: nothing is without `--auto-update-images`, or for a manager that waits
    /// 3 s for a create.
    #[error("the image {} is not on this machine; pull it here, or correct its name in the catalogue", lang::reference(.0))]
    NoImage(String),
    /// The image does not declare that it can use GPUs.
    #[error(
        "the image {} is not made for GPUs (label ai.backend.nvidia.enabled or io.sorna.nvidia.enabled), but gpu_slot is above 0",
        lang::reference(.0)
    )]
    GpuRefused(String),
    /// Images could not be looked up.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// A virtual folder can't be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A folder host's file system hangs.
    #[error("the virtual folders of host {host} do not answer within {} s; check the file system that is mounted there", .limit.as_secs())]
    FolderHost {
        /// The folder host.
        host: String,
        /// How long was waited.
        limit: Duration,
    },
    /// Resources were refused.
    #[error(transparent)]
    Resources(#[from] ResourceError),
    /// The scratch directory, an upload or an environment variable.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// The network of kernels.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A Docker call.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// The new container ended before the kernel was ready.
    #[error("container {container} ended at once, {exit}; {words}")]
    EndedAtOnce {
        /// The container's short id.
        container: String,
        /// With which exit code, and why, as far as that is known.
        exit: String,
        /// The end of what it wrote, in one line.
        words: String,
    },
    /// The container is gone, or lacks something that every kernel's has.
    #[error("container {container} {problem}")]
    Stillborn {
        /// The container's short id.
        container: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A create took longer than its caller waits.
    #[error("the kernel was not ready within {} s and is being undone", .0.as_secs_f64())]
    Late(Duration),
    /// Too many were being made for too long.
    #[error(
        "the kernel was not begun: {creates} others are being made or undone, and none was done within {} s; try again, on another machine \
         perhaps", .waited.as_secs_f64()
    )]
    Crowded {
        /// How many may be.
        creates: usize,
        /// How long was waited.
        waited: Duration,
    },
    /// The kernel was destroyed before it was ready.
    #[error("kernel {0} was destroyed before it was ready")]
    Cancelled(KernelId),
    /// The agent stops before a restart has begun.
    #[error(
        "kernel {0} runs on and is not restarted, because this agent is stopping; ask again when it is back"
    )]
    Stopping(KernelId),
    /// Docker or a disk was too slow for a restart that had not begun.
    #[error("the restart of kernel {kernel} was not ready to begin within {} s, and the kernel runs on; check whether Docker or the disks hang", .limit.as_secs())]
    RestartLate {
        /// The kernel.
        kernel: KernelId,
        /// How long was waited.
        limit: Duration,
    },
    /// Whoever asked for it closed the connection before the answer, as the manager does after 3 s.
    #[error("kernel {0} was undone, because its asker left before it was ready")]
    Unwanted(KernelId),
    /// A run can't be gone on with.
    #[error(transparent)]
    Run(#[from] Refusal),
    /// Completions did not come.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// A file system hangs.
    #[error("the files of kernel {kernel} do not answer within {} s; check the file systems of its virtual folders", .limit.as_secs())]
    FilesLate {
        /// The kernel.
        kernel: KernelId,
        /// How long was waited.
        limit: Duration,
    },
    /// Docker does not carry out an end.
    #[error("kernel {kernel} is being ended, but Docker did not do it within {} s; it will be ended when Docker answers", .limit.as_secs())]
    EndLate {
        /// The kernel.
        kernel: KernelId,
        /// How long was waited.
        limit: Duration,
    },
    /// The scratch root that is here has nothing of the kernels that have containers.
    #[error("of the {kernels} kernels that have containers, none has its files or a note below {}: is its file system mounted?", .root.display())]
    FilesAway {
        /// How many have.
        kernels: usize,
        /// The root that was looked at.
        root: PathBuf,
    },
    /// A blocking step ended without a result.
    #[error("could not {0}: the thread that did it ended early")]
    Thread(&'static str),
    /// The agent's own note of the kernel could not be written.
    #[error("could not note the kernel under {path}: {source}; check the disk below the scratch root")]
    Note {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Whose fault it is; the RPC server names exceptions by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request was wrong.
    Request,
    /// What was asked for is not there.
    NoFile,
    /// The agent, Docker or the machine could not do it.
    Agent,
    /// A time limit of the agent's own.
    TimeLimit,
}

impl KernelError {
    /// What came of a create or a restart that failed, for the figures.
    pub(super) fn result(&self) -> &'static str {
        match (self, self.fault()) {
            (Self::Cancelled(_) | Self::Unwanted(_), _) => "cancelled",
            (_, Fault::Request | Fault::NoFile) => "refused",
            (_, Fault::Agent) => "failed",
            (_, Fault::TimeLimit) => "late",
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::GpuRefused(_) | Self::Mount(_) | Self::Resources(_) | Self::Run(_) => Fault::Request,
            Self::Scratch(ScratchError::NoSuchFile { .. }) => Fault::NoFile,
            Self::Scratch(e) if e.is_refusal() => Fault::Request,
            Self::Late(_)
            | Self::FilesLate { .. }
            | Self::EndLate { .. }
            | Self::RestartLate { .. }
            | Self::Ask(AskError::Late) => Fault::TimeLimit,
            _ => Fault::Agent,
        }
    }
}
