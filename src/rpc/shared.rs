//! What the tasks of all connections and calls share.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::limits::CallLimits;
use super::unread::Unread;
use crate::kernel::Kernels;
use crate::patience::Tally;
use crate::zmtp::Budget;

/// One server's.
pub(super) struct Shared {
    pub(super) kernels: Kernels,
    pub(super) identity: Identity,
    pub(super) limits: CallLimits,
    /// One permit a call under way, its answer included.
    pub(super) calls: Arc<Semaphore>,
    /// The bytes of large calls.
    pub(super) bytes: Budget,
    /// One permit a large call that is unpacked.
    pub(super) unpacking: Semaphore,
    /// Answers that callers have not taken.
    pub(super) unread: Arc<Unread>,
    /// The calls' tasks.
    pub(super) tracker: TaskTracker,
    /// Frames that are no call.
    pub(super) dropped: Mutex<Tally>,
    /// Peers that speak something else.
    pub(super) refused: Mutex<Tally>,
}

/// Who answers: fixed for the process's life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) pid: u16,
    pub(super) random: u16,
}

impl Identity {
    pub(super) fn new() -> Self {
        let [high, low, ..] = *uuid::Uuid::new_v4().as_bytes();
        Self {
            // Cut to 16 bits, as the protocol has it.
            pid: u16::try_from(std::process::id() & 0xffff).unwrap_or(0),
            random: u16::from_ne_bytes([high, low]),
        }
    }
}

/// Counts one more; the count, if it is to be told. Anybody who reaches the port can cause these.
pub(super) fn more(tally: &Mutex<Tally>) -> Option<u64> {
    tally.lock().unwrap_or_else(PoisonError::into_inner).more()
}
