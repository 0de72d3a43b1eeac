//! What a runner's handle, its task and its callers share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, mpsc, watch};

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
    /// A full buffer was collected, or somebody asks for completions.
    pub(super) space: Notify,
    /// The disk may not hold what it should.
    pub(super) spills: Notify,
    /// Who gets the next completion record.
    pub(super) asker: Mutex<Option<mpsc::UnboundedSender<serde_json::Value>>>,
    /// One ask at a time: answers carry nothing that tells them apart.
    pub(super) asking: Semaphore,
    /// How many asks were given up whose answers may still come: a busy runner answers all of them later, in order.
    pub(super) stale_answers: AtomicUsize,
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
            asker: Mutex::new(None),
            asking: Semaphore::new(1),
            stale_answers: AtomicUsize::new(0),
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

    /// Takes completions that nobody waits for: whether they answer an ask that was given up.
    pub(super) fn is_stale_answer(&self) -> bool {
        let one_less = |count: usize| count.checked_sub(1);
        self.stale_answers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    pub(super) fn asker(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<serde_json::Value>>> {
        self.asker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds the place of whoever asks for completions; gives it back when dropped.
pub(super) struct Asker<'s>(&'s Shared);

impl<'s> Asker<'s> {
    pub(super) fn new(shared: &'s Shared, tx: mpsc::UnboundedSender<serde_json::Value>) -> Self {
        *shared.asker() = Some(tx);
        shared.change(|runs| runs.asking = true);
        Self(shared)
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        self.0.asker().take();
        self.0.change(|runs| runs.asking = false);
    }
}
