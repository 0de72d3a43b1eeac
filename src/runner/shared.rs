//! What a runner's handle, its task and its callers share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value as Json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, watch};

use super::asking::Asking;
use super::current::Activity;
use super::runs::Runs;
use crate::ids::KernelId;

/// See [`runner`](super) for why a mutex.
pub(super) struct Shared {
    /// For log lines.
    pub(super) kernel: KernelId,
    /// The queue; see the module's doc for why a mutex.
    pub(super) runs: Mutex<Runs>,
    /// Counts changes that callers may wait for.
    pub(super) changed: watch::Sender<u64>,
    /// What the kernel's task watches.
    pub(super) activity: watch::Sender<Activity>,
    /// A full buffer was collected, or somebody asks the runner something.
    pub(super) space: Notify,
    /// The disk may not hold what it should.
    pub(super) spills: Notify,
    /// Questions for completions.
    pub(super) completions: Asking,
    /// Starts of services.
    pub(super) services: Asking,
}

impl Shared {
    pub(super) fn new(kernel: KernelId, runs: Runs) -> Self {
        Self {
            kernel,
            activity: watch::Sender::new(runs.activity()),
            runs: Mutex::new(runs),
            changed: watch::Sender::new(0),
            space: Notify::new(),
            spills: Notify::new(),
            completions: Asking::default(),
            services: Asking::default(),
        }
    }

    pub(super) fn runs(&self) -> MutexGuard<'_, Runs> {
        // A panic inside leaves counters at worst; the kernel is still better served than lost.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, then tells everybody who may care.
    pub(super) fn change<T>(&self, f: impl FnOnce(&mut Runs) -> T) -> T {
        let result = {
            let mut runs = self.runs();
            let result = f(&mut runs);
            self.publish(&runs);
            result
        };
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
        self.space.notify_one();
        result
    }

    /// Called with the queue still locked, so that of two changes at once the later one is published last.
    pub(super) fn publish(&self, runs: &Runs) {
        let activity = runs.activity();
        self.activity.send_if_modified(|old| {
            let differs = *old != activity;
            *old = activity;
            differs
        });
        if runs.has_to_spill() {
            self.spills.notify_one();
        }
    }
}

/// Holds the place of whoever asks the runner something; gives it back when dropped.
pub(super) struct Asker<'s> {
    shared: &'s Shared,
    asking: &'s Asking,
}

impl<'s> Asker<'s> {
    /// With the channel on which the answers come.
    pub(super) fn new(shared: &'s Shared, asking: &'s Asking) -> (Self, UnboundedReceiver<Json>) {
        let answers = asking.begin();
        shared.change(|runs| runs.asking += 1);
        (Self { shared, asking }, answers)
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        self.asking.end();
        self.shared.change(|runs| runs.asking -= 1);
    }
}
