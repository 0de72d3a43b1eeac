//! How far a kernel is, for everybody but its own task.

use std::sync::Arc;

use super::error::Failure;
use super::live::Live;
use crate::ids::ContainerId;
use crate::wire::event::EndReason;
use crate::wire::sample::Sample;

/// How far a kernel is.
#[derive(Clone)]
pub(super) enum Phase {
    /// The kernel is being made.
    Creating,
    /// The agent has just started, and looks at this container of it.
    Looking(ContainerId),
    /// The kernel runs.
    Running(Arc<Live>),
    /// Between two containers.
    Restarting,
    /// The container runs, but an agent that started found it odd and can't work with it: until its end is wanted
    /// or noticed (section 12, item 20).
    LeftAlone(ContainerId, Failure),
    /// The kernel is being ended, why, and what requests about it are told.
    Ending(EndReason, Failure),
    /// The kernel is over; files may still be going.
    Gone(Outcome),
}

impl Phase {
    /// The container whose end would be the kernel's.
    pub(super) fn container(&self) -> Option<&ContainerId> {
        match self {
            Self::Running(live) => Some(&live.place.container),
            Self::LeftAlone(container, _) => Some(container),
            Self::Creating | Self::Looking(_) | Self::Restarting | Self::Ending(..) | Self::Gone(_) => None,
        }
    }
}

/// How it came to be over.
#[derive(Clone)]
pub(super) enum Outcome {
    /// The kernel was never ready.
    Failed(Failure),
    /// The kernel ended; its last statistics, and what requests about it are told.
    Ended(Option<Sample>, Failure),
}
