//! What reaches a kernel's task: how it begins, and what everybody else sends it through the registry's handle.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::Failure;
use super::life::{Begin, Input};
use super::node::Node;
use crate::ids::ContainerId;
use crate::wire::config::{ConfigPatch, KernelConfig};
use crate::wire::event::EndReason;
use crate::wire::reply::KernelPlace;
use crate::wire::sample::Sample;

/// By when a kernel must be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    /// The time between the receipt of the request and that.
    pub(super) limit: Duration,
}

/// How a kernel comes into a task.
pub(super) enum Birth {
    /// The manager asks for it; `None` for no limit. With its place among those that are made.
    Asked(KernelConfig, Option<Deadline>, OwnedSemaphorePermit),
    /// A container of an earlier life of the agent, or of the Python agent.
    Found {
        container: ContainerId,
        /// The kernel's last statistics, if it turns out to be dead.
        sample: Option<Sample>,
        /// An earlier life was restarting it.
        restarting: bool,
    },
    /// An earlier life was ending it, or noted a kernel whose container is gone.
    Ended { reason: EndReason, sample: Option<Sample>, restarting: bool },
    /// An earlier life was making it, and nobody was answered, or told its end already.
    Leftover,
    /// The manager asks for the end of a kernel that is over or that was never here; as far as it was told, with this
    /// reason and these statistics.
    Unheard(EndReason, Option<Sample>),
}

impl Birth {
    /// What its life begins with.
    pub(super) fn begin(&self) -> Begin {
        match self {
            Self::Asked(..) => Begin::Asked,
            Self::Found { restarting, .. } => Begin::Found { restarting: *restarting },
            Self::Ended { reason, restarting, .. } => {
                Begin::Ended { reason: *reason, restarting: *restarting }
            }
            Self::Leftover => Begin::Leftover,
            Self::Unheard(reason, _) => Begin::Unheard(*reason),
        }
    }
}

/// What the handle sends.
pub(super) struct Inbox {
    pub(super) cuts: Cuts,
    pub(super) deaths: mpsc::UnboundedReceiver<ContainerId>,
    pub(super) restarts: mpsc::UnboundedReceiver<Restart>,
    pub(super) used: watch::Receiver<Instant>,
}

/// What may cut off whatever goes on.
pub(super) struct Cuts {
    pub(super) terminate: mpsc::UnboundedReceiver<EndReason>,
    /// Cancelled when whoever asked for it has left without an answer, and so knows of no kernel.
    pub(super) unwanted: CancellationToken,
}

/// One request to restart.
pub(super) struct Restart {
    pub(super) config: ConfigPatch,
    pub(super) answer: RestartAnswer,
}

/// Where the asker of a restart waits.
pub(super) type RestartAnswer = oneshot::Sender<Result<KernelPlace, Failure>>;

impl Restart {
    pub(super) fn refuse(self, why: Failure) {
        // The asker may be gone; nothing depends on its hearing.
        let _ = self.answer.send(Err(why));
    }
}

/// What may cut off whatever a kernel is in the middle of.
pub(super) async fn cut(cuts: &mut Cuts, node: &Node) -> Input {
    tokio::select! {
        biased;
        Some(reason) = cuts.terminate.recv() => Input::Terminate(reason),
        () = node.detach.cancelled() => Input::Detach,
        () = cuts.unwanted.cancelled() => Input::AskerLeft,
    }
}
