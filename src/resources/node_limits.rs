//! What the operator keeps from kernels; pure.

use super::gpu_map::GpuList;
use super::limits::ShmSize;
use super::topology::{CoreChoice, NoCoresLeft};
use crate::units::Memory;

/// What kernels may have of this machine, as the operator decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeLimits {
    /// Which cores.
    pub cores: CoreChoice,
    /// Memory that is kept for the machine itself: it is not told to the manager.
    pub reserved_memory: Memory,
    /// The only GPUs that kernels get; `None` for all.
    pub gpus: Option<GpuList>,
    /// How large a kernel's shared memory is.
    pub shm: ShmSize,
}

/// The operator's settings leave kernels nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NothingLeft {
    /// No core.
    #[error(transparent)]
    Cores(#[from] NoCoresLeft),
    /// No memory.
    #[error(
        "--reserved-memory keeps {reserved} of {machine} from kernels, which leaves them nothing; lower it"
    )]
    Memory {
        /// What is kept.
        reserved: Memory,
        /// What the machine has.
        machine: Memory,
    },
}
