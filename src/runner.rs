//! One kernel's REPL: its run queue, its output, completions and interrupts.
//!
//! A [`Runner`] is the handle of one task (`task::serve`), which owns the two sockets to the container: an
//! [`Outlet`] for commands and an [`Intake`] for its output, which may be anything. They share
//! [`Runs`], pure state behind a std mutex that is held for the length of a method and never over an await: both
//! the task (records come in) and the callers (answers go out) change it, and each change is short.
//! Waiting for output happens in the caller's task, in a [`Seat`].
//!
//! Channels: commands to the task (`mpsc`, bounded), `changed` to waiting callers (`watch`, a counter),
//! `activity` to the kernel's task (`watch`), `space` back to the task when a full buffer was collected (`Notify`).

mod intake;
mod outlet;
pub mod output;
pub mod runs;
mod seat;
mod task;
#[cfg(test)]
mod tests;
pub mod utf8;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::intake::Intake;
use self::outlet::Outlet;
pub use self::runs::{Activity, Entry, Refusal, Runs};
pub use self::seat::{Answer, Begin, Seat};
use crate::ids::{KernelId, RunId};
use crate::wire::command::Command;
use crate::wire::request::Completions;

/// How long completions may take (section 12, item 28).
const COMPLETION_LIMIT: Duration = Duration::from_secs(4);

/// After completions that were not answered in time, how long the next ask waits for one more answer, because the
/// one that came may belong to an ask before.
const STALE_ANSWER_LIMIT: Duration = Duration::from_millis(150);

/// Where the runner's sockets are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerAddr {
    /// The container's address, or loopback, where its ports are published.
    pub host: IpAddr,
    /// The container's 2000.
    pub input: u16,
    /// The container's 2001.
    pub output: u16,
}

/// Handle of a connected runner. Clones share the connection; it ends with [`Runner::close`].
#[derive(Clone)]
pub struct Runner {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    cancel: CancellationToken,
}

struct Shared {
    /// For log lines.
    kernel: KernelId,
    /// The queue; see the module's doc for why a mutex.
    runs: Mutex<Runs>,
    /// Counts changes that callers may wait for.
    changed: watch::Sender<u64>,
    /// What the kernel's task watches.
    activity: watch::Sender<Activity>,
    /// A full buffer was collected, or somebody asks for completions.
    space: Notify,
    /// Who gets the next completion record.
    asker: Mutex<Option<mpsc::UnboundedSender<serde_json::Value>>>,
    /// One ask at a time: answers carry nothing that tells them apart.
    asking: Semaphore,
    /// How many asks were given up whose answers may still come: a busy runner answers all of them later, in order.
    stale_answers: AtomicUsize,
}

/// Completions that did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The runner's answer did not come in time.
    #[error("the kernel's runner gave no completions within {} s", COMPLETION_LIMIT.as_secs())]
    Late,
    /// The kernel is being restarted or destroyed.
    #[error("the kernel is being restarted or destroyed")]
    Closed,
}

impl Runner {
    /// Connects both sockets. Returns at once; they go on trying while the container starts.
    #[must_use]
    pub fn connect(kernel: KernelId, at: RunnerAddr, runs: Runs, tracker: &TaskTracker) -> Self {
        let outlet = Outlet::new(kernel, SocketAddr::new(at.host, at.input));
        let intake = Intake::new(kernel, SocketAddr::new(at.host, at.output));
        let (commands, commands_rx) = mpsc::channel(64);
        let activity = watch::Sender::new(runs.activity());
        let shared = Arc::new(Shared {
            kernel,
            runs: Mutex::new(runs),
            changed: watch::Sender::new(0),
            activity,
            space: Notify::new(),
            asker: Mutex::new(None),
            asking: Semaphore::new(1),
            stale_answers: AtomicUsize::new(0),
        });
        let cancel = CancellationToken::new();
        tracker.spawn(task::serve(outlet, intake, commands_rx, shared.clone(), cancel.clone()));
        Self { shared, commands, cancel }
    }

    /// Takes a place in the queue; dropping the seat frees it.
    pub fn enter(&self, run: RunId, entry: Entry) -> Result<Seat, Refusal> {
        let ticket = self.shared.change(|runs| runs.enter(&run, entry, Instant::now()))?;
        Ok(Seat::new(self.clone(), ticket, run))
    }

    /// Interrupts the run that goes on; does nothing when none does, since an idle Python runner would lose its
    /// worker by it.
    pub async fn interrupt(&self) {
        if self.shared.runs().is_running() && self.commands.send(Command::Interrupt).await.is_err() {
            tracing::debug!(kernel = %self.shared.kernel, "interrupt came too late, the kernel is going");
        }
    }

    /// Asks for completions and waits for them.
    pub async fn complete(&self, ask: Completions) -> Result<serde_json::Value, AskError> {
        let deadline = tokio::time::Instant::now() + COMPLETION_LIMIT;
        let late = |_| AskError::Late;
        let _turn = timeout_at(deadline, self.shared.asking.acquire())
            .await
            .map_err(late)?
            .map_err(|_| AskError::Closed)?;
        let (tx, mut answers) = mpsc::unbounded_channel();
        let _asker = Asker::new(&self.shared, tx);
        timeout_at(deadline, self.commands.send(Command::Complete(ask)))
            .await
            .map_err(late)?
            .map_err(|_| AskError::Closed)?;
        let received = tokio::select! {
            () = self.cancel.cancelled() => return Err(AskError::Closed),
            received = timeout_at(deadline, answers.recv()) => received,
        };
        let Ok(Some(mut newest)) = received else {
            self.shared.stale_answers.fetch_add(1, Ordering::Relaxed);
            return Err(AskError::Late);
        };
        // Answers come in the order of the asks, so the last one is ours.
        for _ in 0..self.shared.stale_answers.swap(0, Ordering::Relaxed) {
            match tokio::time::timeout(STALE_ANSWER_LIMIT, answers.recv()).await {
                Ok(Some(next)) => newest = next,
                Ok(None) | Err(_) => break,
            }
        }
        Ok(newest)
    }

    /// What the queue does, for the idle check, the execution limit and the record of runs.
    #[must_use]
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.shared.activity.subscribe()
    }

    /// The current run took too long: its caller is told so.
    pub fn expire(&self) {
        self.shared.change(Runs::expire);
    }

    /// Answers callers of the current run with what there is, and disconnects: the next agent goes on with it.
    pub fn let_go(&self) {
        self.shared.change(Runs::let_go);
        self.shared.asking.close();
        self.cancel.cancel();
    }

    /// Answers every caller nil, and disconnects; the runner does not notice.
    pub fn close(&self) {
        self.shared.change(Runs::close);
        self.shared.asking.close();
        self.cancel.cancel();
    }
}

impl Shared {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        // A panic inside leaves counters at worst; the kernel is still better served than lost.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, then tells everybody who may care.
    fn change<T>(&self, f: impl FnOnce(&mut Runs) -> T) -> T {
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
    fn publish(&self, runs: &Runs) {
        let activity = runs.activity();
        self.activity.send_if_modified(|old| {
            let differs = *old != activity;
            *old = activity;
            differs
        });
    }

    /// Takes completions that nobody waits for: whether they answer an ask that was given up.
    fn is_stale_answer(&self) -> bool {
        let one_less = |count: usize| count.checked_sub(1);
        self.stale_answers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    fn asker(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<serde_json::Value>>> {
        self.asker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds the place of whoever asks for completions; gives it back when dropped.
struct Asker<'s>(&'s Shared);

impl<'s> Asker<'s> {
    fn new(shared: &'s Shared, tx: mpsc::UnboundedSender<serde_json::Value>) -> Self {
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
